"""Drift without a collector: the same engine behind a metric reader of the service itself.

    drift = InProcess(baselines=[Baseline.load("churn.baseline.json")])
    provider = MeterProvider(metric_readers=[drift.reader(), …])
    drift.report(provider)  # gauges ml.drift.*, to every other reader of the provider

One process judges only its own rows: with several replicas each needs enough of them for a verdict. State is lost
when the process ends. What the engine says goes to the log, a line a model whenever one of its statuses moves.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import accumulate
from typing import TYPE_CHECKING, Any

import numpy as np
from opentelemetry.metrics import CallbackOptions, MeterProvider, Observation
from opentelemetry.sdk.metrics.export import (
    ExponentialHistogram,
    ExponentialHistogramDataPoint,
    Histogram,
    MetricExporter,
    MetricExportResult,
    MetricsData,
    PeriodicExportingMetricReader,
    Sum,
)

from otel_ml import semconv

from . import emit
from .console import lines
from .drift import Policy
from .emit import Judged, Sample
from .engine import Engine
from .evaluation import Evaluation
from .layouts import Bounds, exponential, filled
from .points import Attributes, PointBatch, Series
from .window import WindowSpec

if TYPE_CHECKING:
    from otel_ml.baseline import Baseline

_LOG = logging.getLogger(__name__)
_MAX_BUCKETS = 512
_GAUGES = tuple(
    metric
    for metric in vars(semconv).values()
    if isinstance(metric, semconv.Metric)
    and metric.kind == "gauge"
    and semconv.MONITORED_SERVICE_NAME in metric.attributes
)
_Point = tuple[Series, Any, int]
"""A data point with its series and its temporality."""


class InProcess:
    """The engine of a collector, fed by a reader in this process. Thread-safe; raises nothing while it runs."""

    def __init__(
        self,
        *,
        baselines: Sequence[Baseline] = (),
        window: WindowSpec | None = None,
        policy: Policy | None = None,
        clock: Callable[[], int] = time.time_ns,
    ) -> None:
        self._clock = clock
        self._policy = policy or Policy()
        # All points of a collection come together, so that none is worth waiting for.
        self._window = window or WindowSpec(lateness=0)
        self._engine = Engine(self._window, self._policy, baselines=baselines, started=clock())
        self._series: dict[Series, Series] = {}
        self._statuses: dict[object, list[int]] = {}
        self._held: set[Judged] = set()
        self._gauges: Mapping[semconv.Metric, Sequence[Sample]] = {}
        self._lock = threading.Lock()

    def reader(self, interval: float = 60.0) -> PeriodicExportingMetricReader:
        """A reader for the service's own MeterProvider, that collects every `interval` seconds."""
        return PeriodicExportingMetricReader(_Exporter(self.take), export_interval_millis=interval * 1000)

    def take(self, data: MetricsData) -> list[Evaluation]:
        """Count what was collected; the evaluations that became due."""
        with self._lock:
            now = self._clock()
            self._engine.ingest(self._batch(data), now)
            due = self._engine.advance(now)
            self._held |= emit.judged(due)
            current = self._engine.current(now)
            self._gauges = emit.by_metric(emit.gauges(current, self._policy, now, held=self._held))
        self._say(due)
        return due

    def report(self, provider: MeterProvider) -> None:
        """Let the provider's readers have the gauges, as of the last collection of ours."""
        meter = provider.get_meter(semconv.DRIFT_SCOPE)
        for metric in _GAUGES:
            meter.create_observable_gauge(
                metric.name, [self._observing(metric)], unit=metric.unit, description=metric.description
            )

    def _observing(self, metric: semconv.Metric) -> Callable[[CallbackOptions], Iterable[Observation]]:
        def observe(_: CallbackOptions) -> Iterator[Observation]:
            for sample in self._gauges.get(metric, ()):
                yield Observation(sample.value, dict(sample.attributes))

        return observe

    def _say(self, due: Iterable[Evaluation]) -> None:
        for message in self._engine.messages():
            _LOG.warning("%s", message)
        for evaluation in due:
            statuses = [target.status for target in evaluation.targets]
            before = self._statuses.get(evaluation.model, [])
            self._statuses[evaluation.model] = statuses
            if statuses != before and (any(statuses) or any(before)):
                _LOG.warning("%s", "\n".join(lines([evaluation], "normal", self._held)))

    def _batch(self, data: MetricsData) -> PointBatch:
        points = list(self._points(data))
        counted = [_counts(point) for _, point, _ in points]
        order = {series: i for i, series in enumerate(dict.fromkeys(series for series, _, _ in points))}
        offsets = [0, *accumulate(len(values) for values, _ in counted)]
        return PointBatch(
            series=tuple(order),
            index=np.array([order[series] for series, _, _ in points], np.int64),
            start=np.array([point.start_time_unix_nano or 0 for _, point, _ in points], np.int64),
            time=np.array([point.time_unix_nano for _, point, _ in points], np.int64),
            temporality=np.array([temporality for _, _, temporality in points], np.int8),
            values=np.array([value for values, _ in counted for value in values], np.int64),
            offsets=np.array(offsets, np.int64),
            bounds=tuple(bounds for _, bounds in counted),
        )

    def _points(self, data: MetricsData) -> Iterator[_Point]:
        for of_resource in data.resource_metrics:
            resource = _scalars(of_resource.resource.attributes)
            for of_scope in of_resource.scope_metrics:
                if of_scope.scope.name == semconv.DRIFT_SCOPE:
                    continue
                for metric in of_scope.metrics:
                    if not metric.name.startswith("ml.") or not isinstance(
                        metric.data, Sum | Histogram | ExponentialHistogram
                    ):
                        continue
                    for point in metric.data.data_points:
                        made = Series(
                            resource,
                            of_scope.scope.name,
                            metric.name,
                            _scalars(point.attributes or {}),
                            "sum" if isinstance(metric.data, Sum) else "histogram",
                        )
                        yield self._known(made), point, int(metric.data.aggregation_temporality)

    def _known(self, series: Series) -> Series:
        """The one object for equal series: the engine finds streams by it."""
        if len(self._series) > 100_000:
            self._series.clear()
        return self._series.setdefault(series, series)


class _Exporter(MetricExporter):
    """Hands collections on."""

    def __init__(self, take: Callable[[MetricsData], object]) -> None:
        super().__init__()
        self._take = take
        self._failed = False

    def export(self, metrics_data: MetricsData, *_: object, **__: object) -> MetricExportResult:
        try:
            self._take(metrics_data)
        except Exception:  # a failure of ours must not end the thread of the reader
            if not self._failed:
                self._failed = True
                _LOG.exception("drift could not be computed; further failures are not logged")
            return MetricExportResult.FAILURE
        return MetricExportResult.SUCCESS

    def force_flush(self, *_: object, **__: object) -> bool:
        return True

    def shutdown(self, *_: object, **__: object) -> None:
        """Nothing is held that would have to go anywhere."""


def _scalars(attributes: Mapping[str, Any]) -> Attributes:
    found = {key: value for key, value in attributes.items() if isinstance(value, str | bool | int | float)}
    return tuple(sorted((key, value) for key, value in found.items() if value == value))


def _counts(point: Any) -> tuple[Sequence[int], Bounds]:
    """Counts of a point, and the bounds they are on."""
    if isinstance(point, ExponentialHistogramDataPoint):
        return _exponential(point)
    if hasattr(point, "bucket_counts"):
        return point.bucket_counts, tuple(point.explicit_bounds)
    return [int(point.value)], ()


def _exponential(point: ExponentialHistogramDataPoint) -> tuple[Sequence[int], Bounds]:
    negative, positive = (
        filled(side.offset, side.bucket_counts) for side in (point.negative, point.positive)
    )
    layout, counts = exponential(point.scale, point.zero_count, negative, positive, buckets=_MAX_BUCKETS)
    return counts.tolist(), layout
