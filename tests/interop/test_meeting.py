"""One prediction in three backends: its span in Jaeger, its event in VictoriaLogs, its metrics in Prometheus.

otel-ml-collector stands in line, configured as collector/examples/prometheus-otlp is.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlencode
from urllib.request import urlopen

import pytest
from integration.collector import Collector
from interop.backends import (
    QUICK,
    SERVICE,
    Jaeger,
    example,
    jaeger,
    port_of,
    prometheus,
    service,
    train,
    victoria_logs,
)
from interop.otelcol import free_ports
from interop.prometheus import Prometheus, eventually


@dataclass
class Backends:
    """Where telemetry went, and what the service said of its last prediction."""

    prometheus: Prometheus
    jaeger: Jaeger
    logs: str
    trace: str
    prediction: str

    def spans(self) -> list[dict[str, Any]]:
        """What Jaeger has of the trace, once that is the request and the call of the model."""
        found = self.jaeger.trace(self.trace)
        return found if len(found) == 2 else []

    def events(self) -> list[dict[str, str]]:
        """What VictoriaLogs has of the trace."""
        query = urlencode({"query": f"trace_id:{self.trace}"})
        with urlopen(f"{self.logs}/select/logsql/query?{query}", timeout=10) as answer:
            return [json.loads(line) for line in answer.read().decode().splitlines()]

    def exemplars(self) -> list[dict[str, Any]]:
        """Series of durations in Prometheus that have an exemplar of the trace: its labels."""
        return [
            {**series["seriesLabels"], "exemplar": one}
            for series in self.prometheus.exemplars("ml_inference_duration_seconds_bucket")
            for one in series["exemplars"]
            if one["labels"]["trace_id"] == self.trace
        ]


@pytest.fixture(scope="module")
def backends(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Backends]:
    """A service that sends all three signals to otel-ml-collector, which passes them on."""
    directory: Path = tmp_path_factory.mktemp("meeting")
    train(directory)
    own = free_ports(1)[0]
    with ExitStack() as stack:
        server = stack.enter_context(prometheus(f"127.0.0.1:{own}"))
        spans, logs = stack.enter_context(jaeger(directory)), stack.enter_context(victoria_logs(directory))
        ports = {8889: own, 9090: port_of(server.url), 14317: port_of(spans.otlp), 9428: port_of(logs)}
        config = example("prometheus-otlp", ports)
        collector = stack.enter_context(Collector(directory, config, *QUICK))
        environment = {"OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{collector.ports['grpc']}"}
        told = stack.enter_context(service(directory, environment))
        assert told["sent"] is True
        yield Backends(server, spans, logs, told["trace"], told["id"])


def test_a_prediction_is_found_in_all_three_by_one_trace_id(backends: Backends) -> None:
    """Jaeger's API has the span, VictoriaLogs the event and Prometheus the duration under the id of one trace."""
    spans = eventually(backends.spans, what="the trace is in Jaeger")
    (event,) = eventually(backends.events, what="the event is in VictoriaLogs")
    (metric,) = eventually(backends.exemplars, what="the exemplar is in Prometheus")

    (request,) = [span for span in spans if span["operationName"] == "POST /decision"]
    (span,) = [span for span in spans if span["operationName"] == "decide churn"]
    tags = {tag["key"]: tag["value"] for tag in span["tags"]}
    assert [one["spanID"] for one in span["references"]] == [request["spanID"]]
    assert event["span_id"] == metric["exemplar"]["labels"]["span_id"] == span["spanID"]

    assert event["ml.prediction.id"] == backends.prediction
    identity = ("ml.model.name", "ml.model.version", "ml.operation.name")
    expected = ["churn", "3", "decide"]
    assert [tags[key] for key in identity] == expected
    assert [event[key] for key in identity] == expected
    assert [metric[key.replace(".", "_")] for key in identity] == expected
    assert float(event["ml.prediction.score.value"]) == tags["ml.prediction.score.value"]
    print(f"\ntrace {backends.trace}")
    print("Jaeger:      ", *(f"{one['operationName']!r} {one['spanID']}" for one in spans), tags)
    print("VictoriaLogs:", event)
    print("Prometheus:  ", metric)


def test_the_model_leads_from_a_trace_search_to_its_metrics(backends: Backends) -> None:
    """The attributes that find spans in Jaeger are the labels of one query over counts and drift in Prometheus."""
    asked = {"ml.model.name": "churn", "ml.model.version": "3"}
    found = eventually(
        lambda: backends.jaeger.search(SERVICE, "decide churn", **asked), what="Jaeger finds the span"
    )
    assert found == [backends.trace]
    labels = ",".join(f'{key.replace(".", "_")}="{value}"' for key, value in asked.items())
    query = (
        f'{{__name__=~"ml_inference_rows_total|ml_drift_psi",{labels},ml_operation_name=~"|decide",'
        'ml_drift_target=~"|score"}'
    )

    def both() -> dict[str, float]:
        samples = backends.prometheus.query(query)
        values = {sample["metric"]["__name__"]: float(sample["value"][1]) for sample in samples}
        return values if len(values) == 2 else {}

    values = eventually(both, what="counts and drift are in Prometheus")
    assert values["ml_inference_rows_total"] == 1
    assert values["ml_drift_psi"] > 0.1
    print(f"\nJaeger: /api/traces?service={SERVICE}&operation=decide churn&tags={asked} → {found}")
    print(f"Prometheus: {query} → {values}")
