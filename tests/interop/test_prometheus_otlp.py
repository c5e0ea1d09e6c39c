"""A current Prometheus that takes OTLP: the SDK and otel-ml-collector send to it straight, and nothing is scraped."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from integration.collector import Collector
from integration.test_end_to_end import bucket_counts, cells_of, psi_of
from interop.backends import CLASSIFIED, FEATURES, QUICK, ROWS, numeric, prometheus, service, train
from interop.dashboards import dashboard_queries, load, rules
from interop.exposition import METRICS
from interop.otelcol import free_ports
from interop.prometheus import Prometheus, eventually

from otel_ml import Baseline

promql = load("_promql")

DRIFT = """
receivers: {{otlp: {{protocols: {{grpc: {{endpoint: "127.0.0.1:0"}}}}}}}}
processors: {{ml_drift: {{window: {{type: sliding, length: 10m, step: 1m}}}}}}
exporters: {{otlphttp: {{endpoint: "{prometheus}/api/v1/otlp"}}}}
service:
  pipelines: {{metrics: {{receivers: [otlp], processors: [ml_drift], exporters: [otlphttp]}}}}
  telemetry: {{metrics: {{address: "{own}"}}}}
"""


@dataclass
class System:
    """What was sent, and the Prometheus that it was sent to."""

    prometheus: Prometheus
    baseline: Baseline
    predicted: np.ndarray[Any, Any]


@pytest.fixture(scope="module")
def system(tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    """A service whose metrics go to Prometheus and to otel-ml-collector, whose drift goes to that Prometheus."""
    directory = tmp_path_factory.mktemp("prometheus-otlp")
    baseline, _, served = train(directory)
    own = f"127.0.0.1:{free_ports(1)[0]}"
    with prometheus(own) as server:
        config = DRIFT.format(prometheus=server.url, own=own)
        with Collector(directory, config, *QUICK) as collector:
            environment = {
                "OTEL_EXPORTER_OTLP_METRICS_ENDPOINT": f"{server.url}/api/v1/otlp/v1/metrics",
                "OTEL_TRACES_EXPORTER": "none",
                "OTEL_LOGS_EXPORTER": "none",
            }
            with service(directory, environment, f"http://127.0.0.1:{collector.ports['grpc']}") as told:
                assert told["sent"] is True
                yield System(server, baseline, np.concatenate([served, served[:CLASSIFIED], served[:1]]))


def values(system: System, query: str, label: str) -> dict[str, float]:
    """The answer to a query by one label, once there is one."""
    samples = eventually(lambda: system.prometheus.query(query), what=query)
    return {sample["metric"].get(label, ""): float(sample["value"][1]) for sample in samples}


def test_row_counts_equal_the_rows_sent(system: System) -> None:
    """Each operation has as many rows as it was given."""
    found = values(system, 'ml_inference_rows_total{ml_model_name="churn"}', "ml_operation_name")
    assert found == {"predict": ROWS, "classify": CLASSIFIED, "decide": 1}  # what raised has no rows


@pytest.mark.parametrize("name", FEATURES)
def test_bucket_counts_equal_the_rows_sent(system: System, name: str) -> None:
    """The baseline's bounds are the buckets of Prometheus, below zero as well, and each holds its rows."""
    found = values(system, f'ml_feature_value_bucket{{ml_feature_name="{name}",ml_model_name="churn"}}', "le")
    bounds, _ = numeric(system.baseline, name)
    column = system.predicted[:, FEATURES.index(name)].tolist()
    counts = accumulate(bucket_counts([value for value in column if value == value], bounds))
    assert {float(le): value for le, value in found.items()} == dict(
        zip([*bounds, float("inf")], counts, strict=True)
    )


def test_the_baseline_arrives(system: System) -> None:
    """Other than a scrape, OTLP has the baseline: as many rows as the model was trained on."""
    found = values(system, 'ml_baseline_value_count{ml_drift_target="feature"}', "ml_feature_name")
    assert found == {"balance": 4_000, "ratio": 4_000}


def test_a_model_without_a_baseline_has_native_histograms(system: System) -> None:
    """Exponential histograms are native ones, with negative values in them; their quantiles are those of the rows."""
    query = 'histogram_count(ml_feature_value{ml_model_name="bare"})'
    assert values(system, query, "ml_feature_name") == {"balance": 100, "ratio": 60}
    query = 'histogram_quantile(0.5, ml_feature_value{ml_model_name="bare",ml_feature_name="balance"})'
    (median,) = values(system, query, "ml_feature_name").values()
    assert median == pytest.approx(np.median(system.predicted[:100, 0]), rel=0.05)


def test_names_are_those_that_a_scrape_has(system: System) -> None:
    """Units and `_total` are added once, so that the same dashboards fit."""
    eventually(lambda: system.prometheus.query("ml_drift_psi"), what="drift")
    found = {
        s["__name__"]
        for s in system.prometheus.series('{__name__=~"ml_.*|otel_ml_.*",job!="otel-ml-collector"}')
    }
    drift = {s["__name__"] for s in system.prometheus.series('{__name__=~"ml_(drift|baseline|activity)_.*"}')}
    known = {promql.prometheus_name(metric) for metric in METRICS}
    parts = {f"{name}_{part}" for name in known for part in ("bucket", "count", "sum")}
    recorded = {rule["record"] for rule in rules() if "record" in rule}
    assert (found | drift) - known - parts - recorded == set()


def test_drift_is_that_of_the_rows(system: System) -> None:
    """PSI as Prometheus has it, against its formula on cells formed one bucket at a time."""
    query = 'ml_drift_psi{ml_drift_target="feature"}'
    rows = f'ml_drift_window_rows{{ml_feature_name="balance",ml_drift_target="feature"}} == {len(system.predicted)}'
    eventually(lambda: system.prometheus.query(rows), what="every row is in the window")
    expected = {}
    for j, name in enumerate(FEATURES):
        bounds, trained = numeric(system.baseline, name)
        column = [value for value in system.predicted[:, j].tolist() if value == value]
        cells, sides = cells_of(trained), (trained, bucket_counts(column, bounds))
        expected[name] = psi_of(*[[sum(side[i] for i in cell) for cell in cells] for side in sides])
    found = values(system, query, "ml_feature_name")
    assert found == pytest.approx(expected, abs=1e-9)
    print("\nml_drift_psi:", found)


def test_every_query_of_the_dashboard_finds_something(system: System) -> None:
    """No panel is empty."""
    waiting = dict(dashboard_queries(model="churn", version="3"))

    def all_answered() -> bool:
        for title in [title for title, query in waiting.items() if system.prometheus.query(query)]:
            del waiting[title]
        return not waiting

    with contextlib.suppress(AssertionError):
        eventually(all_answered, what="every panel has data", timeout=20)
    assert list(waiting) == []


def test_every_rule_runs(system: System) -> None:
    """Prometheus evaluates every rule on these series without an error."""

    def evaluated() -> list[dict[str, Any]]:
        found = system.prometheus.rules()
        return [] if any(rule["health"] == "unknown" for rule in found) else found

    found = eventually(evaluated, what="all rules were evaluated")
    assert {rule["name"] for rule in found} == {rule.get("alert") or rule["record"] for rule in rules()}
    assert [rule["lastError"] for rule in found if rule["health"] != "ok"] == []


@pytest.mark.parametrize("feature", ["", "otlp-deltatocumulative"])
def test_deltas_need_a_feature_of_prometheus(feature: str, tmp_path: Path) -> None:
    """Without it they are refused, and `force_flush` says so; with it the counts are those of the rows."""
    train(tmp_path)
    with prometheus("127.0.0.1:1", *filter(None, [feature])) as server:
        environment = {
            "OTEL_EXPORTER_OTLP_METRICS_ENDPOINT": f"{server.url}/api/v1/otlp/v1/metrics",
            "OTEL_EXPORTER_OTLP_METRICS_PROTOCOL": "http/protobuf",
            "OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE": "delta",
            "OTEL_TRACES_EXPORTER": "none",
            "OTEL_LOGS_EXPORTER": "none",
        }
        with service(tmp_path, environment) as told:
            assert told["sent"] is bool(feature)
            query = 'ml_inference_rows_total{ml_operation_name="predict",ml_model_name="churn"}'
            assert [float(one["value"][1]) for one in server.query(query)] == [ROWS] * bool(feature)
