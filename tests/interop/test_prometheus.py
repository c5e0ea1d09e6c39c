"""A model seen by a real Prometheus: through the SDK's own Prometheus reader, and through the collector's page."""

from __future__ import annotations

import contextlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from integration.test_end_to_end import bucket_counts, collector
from interop.dashboards import dashboard_queries, rules
from interop.prometheus import Prometheus, eventually

from otel_ml import Baseline

ROWS, CLASSIFIED = 3_000, 10


class System:
    """Service, collector and Prometheus, all running, and what was fed to them."""

    def __init__(self, prometheus: Prometheus, baseline: Baseline, rows: np.ndarray[Any, Any]) -> None:
        self.prometheus, self.baseline, self.rows = prometheus, baseline, rows


@pytest.fixture(scope="module")
def system(tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    """A service process with a Prometheus reader, a collector process and a Prometheus that scrapes both."""
    directory = tmp_path_factory.mktemp("prometheus")
    rng = np.random.default_rng(3)
    trained = np.column_stack([rng.normal(-40, 20, 4_000), rng.normal(0, 1e-3, 4_000)])
    served = np.column_stack([rng.normal(-30, 20, ROWS), rng.normal(0, 1e-3, ROWS)])
    served[:40, 1] = np.nan
    scores, labels = 1 / (1 + np.exp(-trained[:, 0] / 10)), np.where(trained[:, 0] > 0, "leaves", "stays")
    baseline = Baseline.fit(
        trained, model="churn", version="3", features=["balance", "ratio"], scores=scores, predictions=labels
    )
    baseline.save(directory / "churn.baseline.json")
    np.save(directory / "rows.npy", served)
    with collector(directory, 'prometheus: {endpoint: "127.0.0.1:0"}') as ports:
        program = str(Path(__file__).with_name("service_process.py"))
        endpoint = f"http://127.0.0.1:{ports['grpc']}"
        service = subprocess.Popen(
            [sys.executable, program, str(directory / "rows.npy"), str(directory / "churn.baseline.json"), endpoint],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        try:
            assert service.stdout is not None
            page = f"127.0.0.1:{int(service.stdout.readline())}"
            jobs = {"otel-ml-collector": [f"127.0.0.1:{ports['prometheus']}"]}
            with Prometheus([page], job="credit-api", jobs=jobs) as prometheus:
                yield System(prometheus, baseline, served)
        finally:
            service.communicate("", timeout=20)


def test_row_counts_equal_the_rows_sent(system: System) -> None:
    """`ml_inference_rows_total` is the number of rows each operation answered."""
    query = 'ml_inference_rows_total{ml_operation_name="%s"}'
    for operation, rows in (("predict", ROWS), ("classify", CLASSIFIED)):
        (sample,) = eventually(lambda query=query % operation: system.prometheus.query(query), what=operation)
        assert float(sample["value"][1]) == rows


def test_bucket_counts_equal_the_rows_sent(system: System) -> None:
    """Every bucket of a negative feature and of one with gaps holds just the rows that fall into it."""
    predicted = np.concatenate([system.rows, system.rows[:CLASSIFIED]])
    for j, name in enumerate(("balance", "ratio")):
        query = f'ml_feature_value_bucket{{ml_feature_name="{name}"}}'
        samples = eventually(lambda query=query: system.prometheus.query(query), what=query)
        cumulative = sorted((float(s["metric"]["le"]), int(float(s["value"][1]))) for s in samples)
        bounds = system.baseline.features[name].bounds.tolist()
        assert [le for le, _ in cumulative] == [*map(float, bounds), float("inf")]
        values = [v for v in predicted[:, j].tolist() if v == v]
        expected = np.cumsum(bucket_counts(values, bounds)).tolist()
        assert [count for _, count in cumulative] == expected


def test_states_equal_the_rows_sent(system: System) -> None:
    """Missing values are counted beside the buckets."""
    query = 'ml_feature_observations_total{ml_feature_name="ratio",ml_feature_state="missing"}'
    (sample,) = eventually(lambda: system.prometheus.query(query), what=query)
    assert int(float(sample["value"][1])) == 40 + CLASSIFIED


def test_the_baseline_stays_off_the_page(system: System) -> None:
    """A Prometheus reader is not given the baseline."""
    assert system.prometheus.query('{__name__=~"ml_baseline_value.*"}') == []


def test_drift_is_on_the_collectors_page(system: System) -> None:
    """The feature that moved has a PSI above the one that did not."""
    query = 'ml_drift_psi{ml_drift_target="feature"}'
    samples = eventually(lambda: system.prometheus.query(query), what=query)
    psi = {s["metric"]["ml_feature_name"]: float(s["value"][1]) for s in samples}
    assert psi["balance"] > 0.1 > psi["ratio"]


def test_every_query_of_the_dashboard_finds_something(system: System) -> None:
    """No panel is empty in a system that runs."""
    waiting = dict(dashboard_queries(model="churn", version="3"))

    def all_answered() -> bool:
        for title in [title for title, query in waiting.items() if system.prometheus.query(query)]:
            del waiting[title]
        return not waiting

    with contextlib.suppress(AssertionError):
        eventually(all_answered, what="every panel has data", timeout=20)
    assert list(waiting) == []


def test_every_rule_runs(system: System) -> None:
    """Every expression of the rules is one that Prometheus evaluates on real series."""
    for rule in rules():
        system.prometheus.query(rule["expr"])
