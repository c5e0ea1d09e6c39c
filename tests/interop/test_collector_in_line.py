"""otel-ml-collector between two OpenTelemetry Collectors: what the first sends, the second gets."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from google.protobuf.message import Message
from integration.collector import Collector
from integration.test_end_to_end import FEATURES, draw
from interop.otelcol import OpenTelemetryCollector, free_ports, written
from interop.prometheus import eventually
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import InstrumentationScope
from opentelemetry.proto.metrics.v1.metrics_pb2 import Metric

from otel_ml import Baseline, semconv

INTEGRATION = Path(__file__).parents[1] / "integration"
SIGNALS: dict[str, type[Message]] = {
    "metrics": ExportMetricsServiceRequest,
    "traces": ExportTraceServiceRequest,
    "logs": ExportLogsServiceRequest,
}
PIPELINES = "\n".join(f"    {name}: {{receivers: [otlp], exporters: [file/{name}NEXT]}}" for name in SIGNALS)
WRITES = """
receivers: {{otlp: {{protocols: {{grpc: {{endpoint: "127.0.0.1:{port}"}}, http: {{endpoint: "127.0.0.1:{http}"}}}}}}}}
exporters:
  file/metrics: {{path: "{directory}/metrics.pb", format: proto, flush_interval: 100ms}}
  file/traces: {{path: "{directory}/traces.pb", format: proto, flush_interval: 100ms}}
  file/logs: {{path: "{directory}/logs.pb", format: proto, flush_interval: 100ms}}
  otlp_grpc: {{endpoint: "127.0.0.1:{following}", tls: {{insecure: true}}}}
service:
  pipelines:
"""
BETWEEN = """
receivers: {{otlp: {{protocols: {{grpc: {{endpoint: "127.0.0.1:0"}}}}}}}}
processors: {{ml_drift: {{forward: true, window: {{lateness: 1s}}, interval: 500ms}}}}
exporters: {{otlp: {{endpoint: "127.0.0.1:{back}", tls: {{insecure: true}}}}}}
service:
  pipelines:
    metrics: {{receivers: [otlp], processors: [ml_drift], exporters: [otlp]}}
    traces: {{receivers: [otlp], exporters: [otlp]}}
    logs: {{receivers: [otlp], exporters: [otlp]}}
"""


def configuration(directory: Path, port: int, http: int = 0, following: int = 0) -> str:
    """Of a Collector that writes what it gets, and sends it on if there is a following one."""
    directory.mkdir()
    passed_on = ", otlp_grpc" if following else ""
    head = WRITES.format(port=port, http=http, directory=directory, following=following or 1)
    return head + PIPELINES.replace("NEXT", passed_on)


def parts(directory: Path, signal: str) -> Counter[bytes]:
    """Each point, span or record as bytes, behind its resource, its scope and, of a point, its metric; no drift."""
    found = Counter[bytes]()
    for request in written(directory / f"{signal}.pb", SIGNALS[signal]):
        for resource, scope, item in items(request, signal):
            if scope.name == semconv.DRIFT_SCOPE:
                continue
            found[
                b"|".join(one.SerializeToString(deterministic=True) for one in (resource, scope, item))
            ] += 1
    return found


def items(request: Message, signal: str) -> Iterator[tuple[Message, InstrumentationScope, Any]]:
    """(resource, scope, item) of all items of an export request; metrics with a point each."""
    outer, middle, inner = {
        "metrics": ("resource_metrics", "scope_metrics", "metrics"),
        "traces": ("resource_spans", "scope_spans", "spans"),
        "logs": ("resource_logs", "scope_logs", "log_records"),
    }[signal]
    for resource in getattr(request, outer):
        for scope in getattr(resource, middle):
            for item in getattr(scope, inner):
                for one in single(item) if signal == "metrics" else (item,):
                    yield resource.resource, scope.scope, one


def single(metric: Metric) -> Iterator[Metric]:
    """The metric once for each of its points."""
    kind = metric.WhichOneof("data")
    assert kind is not None
    for point in getattr(metric, kind).data_points:
        alone = Metric()
        alone.CopyFrom(metric)
        del getattr(alone, kind).data_points[:]
        getattr(alone, kind).data_points.append(point)
        yield alone


def test_every_part_passes_unchanged(otelcol: Path, tmp_path: Path) -> None:
    """Every point, span and event of real processes is the same, to the byte, in both Collectors' files; none twice."""
    port, http, back, spare = free_ports(4)
    before, after = tmp_path / "before", tmp_path / "after"
    behind = configuration(after, back, spare)
    with (
        OpenTelemetryCollector(otelcol, tmp_path / "behind", behind),
        Collector(tmp_path, BETWEEN.format(back=back)) as ours,
        OpenTelemetryCollector(
            otelcol, tmp_path / "front", configuration(before, port, http, ours.ports["grpc"])
        ),
    ):
        predict(tmp_path, f"http://127.0.0.1:{port}")
        for signal in SIGNALS:
            eventually(partial(passed, before, after, signal), what=f"the same {signal} on both sides")
        eventually(lambda: semconv.DRIFT_PSI.name in drift(after), what="drift behind it")
    sizes = {signal: parts(after, signal) for signal in SIGNALS}
    assert max(count for found in sizes.values() for count in found.values()) == 1
    print("\nequal on both sides:", *(f"{len(found)} {signal}" for signal, found in sizes.items()))


def passed(before: Path, after: Path, signal: str) -> bool:
    """Whether something has come, and all of it is on the other side."""
    sent = parts(before, signal)
    return bool(sent) and sent == parts(after, signal)


def drift(directory: Path) -> set[str]:
    """Names of the gauges of otel-ml-collector's own."""
    return {
        metric.name
        for request in written(directory / "metrics.pb", ExportMetricsServiceRequest)
        for _, scope, metric in items(request, "metrics")
        if scope.name == semconv.DRIFT_SCOPE
    }


def predict(directory: Path, endpoint: str) -> None:
    """Run a process that sends metrics and spans, and one that sends events as well."""
    rng = np.random.default_rng(1)
    X = draw(rng, 3_000, 0.0)
    Baseline.fit(X, model="credit", version="7", features=FEATURES, categorical=["region"]).save(
        directory / "credit.baseline.json"
    )
    np.save(directory / "rows.npy", X)
    environment = {
        **os.environ,
        "OTEL_EXPORTER_OTLP_ENDPOINT": endpoint,
        "OTEL_METRIC_EXPORT_INTERVAL": "200",
        "OTEL_SERVICE_NAME": "credit-api",
    }
    for program, *arguments in (
        ("model_process.py", str(directory / "rows.npy"), str(directory / "credit.baseline.json")),
        ("event_process.py",),
    ):
        command = [sys.executable, str(INTEGRATION / program), *arguments]
        done = subprocess.run(
            command, env=environment, capture_output=True, text=True, timeout=60, check=False
        )
        assert done.returncode == 0, done.stderr
