"""The number of series that doctor tells: never less than there are, and exact where everything occurs."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
from opentelemetry.exporter.prometheus import PrometheusMetricReader
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from prometheus_client import REGISTRY, generate_latest
from support import by_name

import otel_ml
from otel_ml import Baseline, Segment, pipeline, semconv
from otel_ml.cli.doctor.series import most
from otel_ml.model import Model

ROWS = 2000
TRAINED = pd.DataFrame(
    {
        "age": np.linspace(18, 80, ROWS),
        "income": np.linspace(10, 90, ROWS) ** 2,
        "plan": ["basic", "family"] * (ROWS // 2),
        "id": [f"c{i}" for i in range(ROWS)],
    }
)


def baseline(**more: Any) -> Baseline:
    """A number, a category, an opaque text, scores and labels."""
    scores = np.linspace(0, 1, ROWS)
    return Baseline.fit(TRAINED, model="churn", version="3", scores=scores, **more)


EVERYTHING = pd.DataFrame(
    {
        "age": [30.0, None, np.inf, 1e6, "old", 40.0, 50.0],
        "income": ["none", np.nan, -np.inf, -1e9, 400.0, 500.0, 600.0],
        "plan": ["basic", "family", None, "gold", "basic", "basic", "basic"],
        "id": ["c1", None, "c3", "c4", "c5", "c6", "c7"],
    }
)


def _ours(points: dict[str, list[Any]]) -> int:
    names = [name for name in points if name.startswith("ml.") and name != "ml.schema.violations"]
    return sum(len(points[name]) for name in names)


def _scraped() -> int:
    lines = generate_latest(REGISTRY).decode().splitlines()
    return sum(line.startswith("ml_") for line in lines)


@pytest.mark.parametrize("segmented", [False, True])
def test_exact_where_every_state_and_category_occurs(segmented: bool) -> None:
    """Over OTLP and on a real Prometheus page: all that can occur is what is told."""
    made = baseline()
    segment = Segment("plan", values=("basic", "family"), features=("age",)) if segmented else None
    reader, page = InMemoryMetricReader(), PrometheusMetricReader()
    pipeline.use(meter_provider=MeterProvider(metric_readers=[reader, page], shutdown_on_exit=False))
    try:
        reader.collect()
        _run(made, segment)
        told = most(Model("churn", "3", baseline=made, segment=segment))
        assert _ours(by_name(reader.get_metrics_data())) == told.otlp
        assert _scraped() == told.prometheus
    finally:
        page.shutdown()


def _run(made: Baseline, segment: Segment | None) -> None:
    predict = otel_ml.observe(model="churn", version="3", baseline=made, segment=segment)(
        lambda X: [0.5] * len(X)
    )
    frames = [EVERYTHING]
    if segment is not None:  # every state in every segment
        frames += [EVERYTHING.assign(plan=plan) for plan in ("basic", "family", "gold")]
    for frame in frames:
        predict(frame)


def test_without_a_baseline_features_are_few_and_prometheus_has_their_states_alone() -> None:
    """Two numbers: a histogram and five states each over OTLP, the states on the page, a score that may come."""
    told = most(Model("churn", "3", feature_names=("age", "income")))
    rows_and_durations, score, uniform = 2, 1, 22
    assert (told.otlp, told.baseline) == (rows_and_durations + score + 2 * 6, 0)
    assert told.prometheus == len(semconv.DURATION_BOUNDS) + 4 + uniform + 2 * 5


def test_uncertainty_is_one_more_where_it_is_counted() -> None:
    """With more than two classes, or in the baseline: one over OTLP, and as many as it has buckets on the page."""
    two, three = (most(Model("m", "1", classes=tuple("abc"[:k]))) for k in (2, 3))
    label = 1
    assert (three.otlp - two.otlp, three.prometheus - two.prometheus) == (1 + label, 22 + label)
    without, having = (
        most(Model("churn", "3", baseline=baseline(uncertainty=given)))
        for given in (None, np.linspace(0, 1, ROWS))
    )
    assert having.otlp - without.otlp == 2  # its own and the baseline's
    assert having.prometheus - without.prometheus == 20 + 2


def test_a_prometheus_page_has_fifty_features() -> None:
    """What is beyond them goes over OTLP only."""
    few, many = (most(Model("m", "1", feature_names=tuple(f"f{i}" for i in range(n)))) for n in (50, 60))
    assert (many.otlp - few.otlp, many.prometheus - few.prometheus) == (10 * 6, 0)
