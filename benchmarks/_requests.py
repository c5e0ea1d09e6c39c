"""OTLP requests of a fleet, made from what the SDK exports: from one to the next time moves on and counts grow."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from opentelemetry.exporter.otlp.proto.common.metrics_encoder import encode_metrics
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.metrics.v1.metrics_pb2 import ResourceMetrics
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider

import otel_ml
from otel_ml import pipeline, semconv
from otel_ml_collector.scan import LENGTH, Budget, fields, messages

FEATURES = 92
"""With its eight projections a model then has a hundred histograms."""
FINE = 200
"""Buckets of a baseline with `resolution="fine"`; others have 20."""
_ROWS = 5_000
_SUM, _HISTOGRAM = 7, 9
_START, _TIME, _COUNT, _NUMBERS = 2, 3, 4, 6
"""Fields of a data point; the last is the bucket counts of a histogram, the value of a sum."""


def exported(*, features: int, buckets: int) -> ResourceMetrics:
    """What a process exports that served one model for a while."""
    rng = np.random.default_rng(7)
    X = rng.normal(size=(_ROWS, features))
    scores = 1 / (1 + np.exp(-X[:, 0]))
    baseline = otel_ml.Baseline.fit(
        X, model="churn", version="3", features=[f"feature_{i}" for i in range(features)], scores=scores,
        resolution="fine" if buckets == FINE else "standard",
    )  # fmt: skip
    reader = InMemoryMetricReader()
    named = {
        semconv.SERVICE_NAMESPACE: "shop",
        semconv.SERVICE_NAME: "api",
        semconv.SERVICE_INSTANCE_ID: "pod",
    }
    meters = MeterProvider([reader], Resource.create(named))
    pipeline.use(meter_provider=meters, tracer_provider=TracerProvider())

    @otel_ml.observe(model="churn", version="3", baseline=baseline, spans="off")
    def predict(_: object) -> object:
        return scores

    predict(X)
    pipeline.producer().drain()
    data = reader.get_metrics_data()
    assert data is not None
    found: ResourceMetrics = encode_metrics(data).resource_metrics[0]
    return found


def only(source: ResourceMetrics, *names: str) -> ResourceMetrics:
    """Its metrics of these names."""
    kept = ResourceMetrics()
    kept.CopyFrom(source)
    for scope in kept.scope_metrics:
        metrics = [metric for metric in scope.metrics if metric.name in names]
        del scope.metrics[:]
        scope.metrics.extend(metrics)
    return kept


def served(source: ResourceMetrics, *, model: int, pod: int) -> ResourceMetrics:
    """The same from a pod of another model, on bounds of its own."""
    made = ResourceMetrics()
    made.CopyFrom(source)
    _name(made.resource.attributes, semconv.SERVICE_INSTANCE_ID, f"{model:08x}-861b-4ce8-b292-{pod:012x}")
    for metric in (metric for scope in made.scope_metrics for metric in scope.metrics):
        for counted in metric.sum.data_points:
            _name(counted.attributes, semconv.MODEL_NAME, f"model_{model}")
        for point in metric.histogram.data_points:
            _name(point.attributes, semconv.MODEL_NAME, f"model_{model}")
            point.explicit_bounds[:] = [bound + model / 1024 for bound in point.explicit_bounds]
    return made


def _name(attributes: object, key: str, value: str) -> None:
    for one in attributes:  # type: ignore[attr-defined]
        if one.key == key:
            one.value.string_value = value


class Request:
    """One request, written once: what changes from one export to the next is changed in place."""

    def __init__(self, of: list[ResourceMetrics], *, start: int) -> None:
        body = ExportMetricsServiceRequest(resource_metrics=of).SerializeToString()
        found = list(_numbers(body))
        self._body = np.frombuffer(body, np.uint8).copy()
        self._times = _bytes_at([at for field, at in found if field == _TIME])
        self._growing = _bytes_at([at for field, at in found if field in (_COUNT, _NUMBERS)])
        self._grown = self._first = self._body[self._growing].view("<i8")
        self._write(_bytes_at([at for field, at in found if field == _START]), start)
        self.points = len(self._times)

    def next(self, now: int) -> bytes:
        """The export of this time (Unix ns), with as many rows more as the first one had."""
        self._write(self._times, now)
        self._body[self._growing] = self._grown.view(np.uint8).reshape(self._growing.shape)
        self._grown = self._grown + self._first
        return bytes(self._body)

    def _write(self, where: NDArray[np.int64], value: int) -> None:
        self._body[where] = np.array([value], "<i8").view(np.uint8)


def _bytes_at(positions: list[int]) -> NDArray[np.int64]:
    """(n, 8) where the bytes of the numbers at these positions are."""
    return np.array(positions, np.int64)[:, None] + np.arange(8)


def _numbers(body: bytes) -> Iterator[tuple[int, int]]:
    """Field and position of every number of eight bytes in the data points."""
    budget = Budget(1_000_000)
    for start, end in messages(body, 0, len(body), 1, budget):
        for scope_start, scope_end in messages(body, start, end, 2, budget):
            for metric_start, metric_end in messages(body, scope_start, scope_end, 2, budget):
                for kind, _, first, last in fields(body, metric_start, metric_end, budget):
                    if kind in (_SUM, _HISTOGRAM):
                        for point in messages(body, first, last, 1, budget):
                            yield from _of_point(body, *point, budget)


def _of_point(body: bytes, start: int, end: int, budget: Budget) -> Iterator[tuple[int, int]]:
    for field, wire_type, first, last in fields(body, start, end, budget):
        if field in (_START, _TIME, _COUNT):
            yield field, first
        elif field == _NUMBERS and wire_type == LENGTH:
            yield from ((field, at) for at in range(first, last, 8))
        elif field == _NUMBERS:
            yield field, first
