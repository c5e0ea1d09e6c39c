"""Trained in one precision, served in another: nothing drifts, from the baseline through the SDK to the verdict."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from opentelemetry.exporter.otlp.proto.common.metrics_encoder import encode_metrics
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader

import otel_ml
from otel_ml import Baseline, pipeline
from otel_ml_collector.decode import decode
from otel_ml_collector.drift import Policy
from otel_ml_collector.engine import Engine
from otel_ml_collector.evaluation import Evaluation
from otel_ml_collector.inprocess import InProcess
from otel_ml_collector.window import WindowSpec

ROWS = 6_000
WINDOW = WindowSpec(length=86_400, step=3600, lateness=0, refresh=1)


def tied() -> dict[str, NDArray[np.float64]]:
    """Features whose values repeat: many lie exactly on a bound, and none of the fractions is a float32."""
    rng = np.random.default_rng(8)
    return {
        "tenths": rng.integers(0, 40, ROWS) / 10,
        "cents": np.round(rng.lognormal(3, 1, ROWS), 2),
        "few": rng.choice(rng.normal(size=25), ROWS),
        "zeros": np.where(rng.random(ROWS) < 0.4, 0.0, rng.lognormal(size=ROWS)),
        "thirds": rng.integers(-9, 10, ROWS) / 3,
        "large": 1e7 + rng.integers(0, 30, ROWS),
        "tiny": 1e-7 * rng.integers(-5, 30, ROWS),
        "constant": np.full(ROWS, 0.1),
        "untied": rng.normal(size=ROWS),
    }


@pytest.mark.parametrize("wire", [False, True])
@pytest.mark.parametrize(("trained", "served"), [("f4", "f8"), ("f8", "f4"), ("f4", "f4"), ("f8", "f8")])
def test_the_same_rows_in_another_precision_have_not_drifted(trained: str, served: str, wire: bool) -> None:
    """PSI and KS of every feature are exactly 0, in process and through OTLP."""
    columns = tied()
    training = {name: values.astype(trained) for name, values in columns.items()}
    baseline = Baseline.fit(training, model="churn", version="3", projections=False)
    reader = InMemoryMetricReader()
    pipeline.use(meter_provider=MeterProvider(metric_readers=[reader]))

    @otel_ml.observe(model="churn", version="3", baseline=baseline, spans="off")
    def predict(X: NDArray[np.floating]) -> NDArray[np.float64]:
        return np.zeros(len(X))

    X = np.column_stack(list(columns.values())).astype(served)
    for first in range(0, ROWS, 1_000):
        predict(X[first : first + 1_000])
    found = {
        t.target.name: t
        for t in _evaluation(reader, baseline, wire=wire).targets
        if t.target.kind == "feature"
    }
    assert {name: t.rows for name, t in found.items()} == dict.fromkeys(columns, ROWS)
    numbers = {
        name: (t.statistics["psi"], t.statistics["ks"], t.state_shares["ok"]) for name, t in found.items()
    }
    assert numbers == dict.fromkeys(columns, (0.0, 0.0, 1.0))


def _evaluation(reader: InMemoryMetricReader, baseline: Baseline, *, wire: bool) -> Evaluation:
    """What the engine says of one collection, of which it gets the objects or the bytes."""
    data = reader.get_metrics_data()
    assert data is not None
    now = max(
        point.time_unix_nano
        for of_resource in data.resource_metrics
        for of_scope in of_resource.scope_metrics
        for metric in of_scope.metrics
        for point in metric.data.data_points
    )
    if wire:
        engine = Engine(WINDOW, Policy(), started=now - 10**9)
        engine.ingest(decode(encode_metrics(data).SerializeToString()).batch, now)
        return engine.advance(now)[-1]
    clock = iter([now - 10**9, now])
    drift = InProcess(baselines=[baseline], window=WINDOW, clock=lambda: next(clock))
    return drift.take(data)[-1]
