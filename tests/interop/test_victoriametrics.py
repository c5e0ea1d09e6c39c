"""VictoriaMetrics takes metrics and drift over OTLP, as collector/examples/victoriametrics has it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import accumulate
from typing import Any
from urllib.parse import urlencode
from urllib.request import urlopen

import numpy as np
import pytest
from integration.collector import Collector
from integration.test_end_to_end import bucket_counts
from interop.backends import (
    CLASSIFIED,
    FEATURES,
    QUICK,
    ROWS,
    example,
    numeric,
    port_of,
    service,
    train,
    victoria_metrics,
)
from interop.dashboards import dashboard_queries, load, rules
from interop.exposition import METRICS
from interop.prometheus import eventually

from otel_ml import Baseline

promql = load("_promql")


@dataclass
class System:
    """What was sent, and the VictoriaMetrics that it was sent to."""

    url: str
    baseline: Baseline
    predicted: np.ndarray[Any, Any]

    def query(self, expr: str) -> list[dict[str, Any]]:
        """The instant vector of `expr` now."""
        asked = urlencode({"query": expr, "latency_offset": "1ms", "nocache": "1"})
        with urlopen(f"{self.url}/api/v1/query?{asked}", timeout=10) as answer:
            found: list[dict[str, Any]] = json.load(answer)["data"]["result"]
            return found

    def values(self, expr: str, label: str) -> dict[str, float]:
        """The answer by one label, once there is one."""
        samples = eventually(lambda: self.query(expr), what=expr)
        return {sample["metric"].get(label, ""): float(sample["value"][1]) for sample in samples}


@pytest.fixture(scope="module")
def system(tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    """A service whose metrics pass otel-ml-collector on their way."""
    directory = tmp_path_factory.mktemp("victoriametrics")
    baseline, _, served = train(directory)
    with victoria_metrics(directory) as url:
        config = example("victoriametrics", {8428: port_of(url)})
        with Collector(directory, config, *QUICK) as collector:
            environment = {
                "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{collector.ports['grpc']}",
                "OTEL_TRACES_EXPORTER": "none",
                "OTEL_LOGS_EXPORTER": "none",
            }
            with service(directory, environment) as told:
                assert told["sent"] is True
                yield System(url, baseline, np.concatenate([served, served[:CLASSIFIED], served[:1]]))


def test_row_counts_equal_the_rows_sent(system: System) -> None:
    """Each operation has as many rows as it was given."""
    found = system.values('ml_inference_rows_total{ml_model_name="churn"}', "ml_operation_name")
    assert found == {"predict": ROWS, "classify": CLASSIFIED, "decide": 1}


@pytest.mark.parametrize("name", FEATURES)
def test_bucket_counts_equal_the_rows_sent(system: System, name: str) -> None:
    """The baseline's bounds are the buckets, below zero as well, and each holds its rows."""
    found = system.values(f'ml_feature_value_bucket{{ml_feature_name="{name}",ml_model_name="churn"}}', "le")
    bounds, _ = numeric(system.baseline, name)
    column = system.predicted[:, FEATURES.index(name)].tolist()
    counts = accumulate(bucket_counts([value for value in column if value == value], bounds))
    expected = dict(zip([*bounds, float("inf")], counts, strict=True))
    assert {float(le): value for le, value in found.items()} == expected


def test_drift_of_the_feature_that_moved_is_there(system: System) -> None:
    """PSI by feature, and the number of targets by status."""
    psi = system.values('ml_drift_psi{ml_drift_target="feature"}', "ml_feature_name")
    assert psi["balance"] > 0.1 > psi["ratio"]
    targets = system.values('ml_drift_features{ml_model_name="churn"}', "ml_drift_status_name")
    assert sum(targets.values()) == 5  # features, components, scores; labels are too few for a verdict
    print("\nml_drift_psi:", psi)


def test_a_model_without_a_baseline_has_counts_only(system: System) -> None:
    """Of exponential histograms without a sum VictoriaMetrics keeps no buckets."""
    expr = 'ml_feature_value_count{ml_model_name="bare"}'
    assert system.values(expr, "ml_feature_name") == {"balance": 100, "ratio": 60}
    assert system.query('ml_feature_value_bucket{ml_model_name="bare"}') == []


def test_names_are_those_of_prometheus(system: System) -> None:
    """Units and `_total` are added once: VictoriaMetrics has no metric that is not ours."""
    eventually(lambda: system.query("ml_drift_threshold"), what="drift")
    samples = system.query('count by (__name__) ({__name__=~"ml_.*|otel_ml_.*"})')
    known = {promql.prometheus_name(metric) for metric in METRICS}
    parts = {f"{name}_{part}" for name in known for part in ("bucket", "count", "sum")}
    assert {sample["metric"]["__name__"] for sample in samples} - known - parts == set()


def test_the_queries_of_the_dashboard_and_the_rules_run(system: System) -> None:
    """MetricsQL understands all of them; those that are not rates, of which an idle service has none, are answered."""
    eventually(lambda: system.query("ml_drift_threshold"), what="drift")
    asked = [
        (title, expr, system.query(expr)) for title, expr in dashboard_queries(model="churn", version="3")
    ]
    assert [title for title, expr, found in asked if not found and "rate(" not in expr] == []
    for rule in rules():
        system.query(rule["expr"])
