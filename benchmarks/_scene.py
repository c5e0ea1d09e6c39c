"""The model, rows, baseline and providers that the benchmarks share."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider

import otel_ml
from otel_ml import pipeline

FEATURES = 30
BATCH = 1000
NAMES = tuple(f"f{i}" for i in range(FEATURES))
ROWS_ANSWERED = {rows: np.linspace(0.1, 0.9, rows) for rows in (1, BATCH)}


@dataclass(frozen=True, slots=True)
class Scene:
    """Rows, a baseline of the same distribution, and real providers without an exporter."""

    X: NDArray[np.float64]
    """(5000, FEATURES)"""
    baseline: otel_ml.Baseline
    reader: InMemoryMetricReader
    meters: MeterProvider
    tracers: TracerProvider

    def observed(
        self, spans: Literal["all", "sampled", "off"], rows: int = 1, features: tuple[str, ...] | None = None
    ) -> Callable[[Any], object]:
        """`bare(rows)`, observed."""
        return self.watch(bare(rows), spans, features)

    def watch(
        self,
        function: Callable[[Any], object],
        spans: Literal["all", "sampled", "off"],
        features: tuple[str, ...] | None = None,
        **options: Any,
    ) -> Callable[[Any], object]:
        """`function`, observed."""
        watch = otel_ml.observe(
            model="churn", version="3", baseline=self.baseline, spans=spans, features=features, **options
        )
        return watch(function)

    def batches(self, number: int) -> list[NDArray[np.float64]]:
        """So many matrices of (BATCH, FEATURES), at most five, with rows of their own."""
        return [self.X[i * BATCH : (i + 1) * BATCH].copy() for i in range(number)]

    def drain(self) -> None:
        """Count everything that is queued."""
        pipeline.producer().drain()


def bare(rows: int) -> Callable[[Any], object]:
    """A model that costs nothing and answers with `rows` scores."""
    answer = ROWS_ANSWERED[rows]

    def predict(X: object) -> object:  # noqa: ARG001  # the answer is always the same
        return answer

    return predict


def answering(predict: Callable[[Any], object], rows: int) -> Callable[[Any], object]:
    """A model that takes what `predict` takes and answers with `rows` scores."""
    answer = ROWS_ANSWERED[rows]

    def predicting(X: object) -> object:
        predict(X)
        return answer

    return predicting


def scene() -> Scene:
    """The scene, with its providers in use by otel-ml."""
    os.environ.setdefault("OTEL_PYTHON_ML_EVENTS_PER_SECOND", str(10**9))  # else most would be dropped
    rng = np.random.default_rng(7)
    X = rng.normal(size=(5_000, FEATURES))
    scores = 1 / (1 + np.exp(-X[:, 0]))
    baseline = otel_ml.Baseline.fit(X, model="churn", version="3", features=list(NAMES), scores=scores)
    reader = InMemoryMetricReader()
    meters, tracers = MeterProvider(metric_readers=[reader]), TracerProvider()
    pipeline.use(meter_provider=meters, tracer_provider=tracers)
    return Scene(X=X, baseline=baseline, reader=reader, meters=meters, tracers=tracers)
