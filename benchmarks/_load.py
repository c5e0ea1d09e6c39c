"""What a fleet of services sends in an export interval, in the form the engine takes it: batches of points."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.metrics.v1.metrics_pb2 import AGGREGATION_TEMPORALITY_CUMULATIVE

from otel_ml import semconv
from otel_ml_collector import layouts
from otel_ml_collector.layouts import Bounds
from otel_ml_collector.points import CUMULATIVE, DELTA, Attributes, PointBatch, Series

S = 1_000_000_000
INTERVAL = 60 * S
HOUR = 3600 * S
START = 480_000 * HOUR
REQUEST = 1_000
"""Points of one request at most."""

VARIETY = 1_000
"""Different points of one kind."""
EDGES = {n: tuple(np.linspace(-2.0, 2.0, n - 1).tolist()) for n in (20, 32)}

Kind = Literal["explicit", "sum", "exponential"]
Counted = tuple[Bounds, NDArray[np.int64]]


def series(kind: Kind, feature: int, *, pod: int = 0, model: int = 0) -> Series:
    """What one feature of one process sends; of a sum, how many of its values are ok."""
    attributes = {
        semconv.MODEL_NAME: f"m{model}",
        semconv.MODEL_VERSION: "1",
        semconv.FEATURE_NAME: f"x{feature}",
    }
    metric = semconv.FEATURE_VALUE
    if kind == "sum":
        metric, attributes[semconv.FEATURE_STATE] = semconv.FEATURE_OBSERVATIONS, "ok"
    resource = ((semconv.SERVICE_INSTANCE_ID, f"pod-{pod}"), (semconv.SERVICE_NAME, "bench"))
    return Series(
        resource,
        semconv.SDK_SCOPE,
        metric.name,
        tuple(sorted(attributes.items())),
        "sum" if kind == "sum" else "histogram",
    )


@dataclass(slots=True)
class Fleet:
    """Processes that each report some features of some models every minute, a thousand rows of each."""

    series: list[Series]
    kind: Kind = "explicit"
    temporality: int = CUMULATIVE
    buckets: int = 32
    now: int = START
    _intervals: int = 0

    def interval(self, every: int = INTERVAL) -> list[PointBatch]:
        """The requests of the next export interval."""
        began, self.now = self.now, self.now + every
        self._intervals += 1
        # Cumulative series stay on their buckets and grow; what a delta holds differs every time.
        turn, times = (self._intervals, 1) if self.temporality == DELTA else (0, self._intervals)
        drawn = _drawn(self.kind, self.buckets)
        return [
            batch(
                self.series[first : first + REQUEST],
                [drawn[(i + turn) % VARIETY] for i in range(first, min(first + REQUEST, len(self.series)))],
                began if self.temporality == DELTA else START,
                self.now,
                self.temporality,
                times=times,
            )
            for first in range(0, len(self.series), REQUEST)
        ]


@lru_cache
def _drawn(kind: Kind, buckets: int) -> list[Counted]:
    """A thousand rows, again and again."""
    rng = np.random.default_rng(7)
    if kind == "sum":
        return [((), np.array([1_000]))] * VARIETY
    if kind == "explicit":
        share = np.full(buckets, 1 / buckets)
        return [(EDGES[buckets], rng.multinomial(1_000, share)) for _ in range(VARIETY)]
    return [_exponential(rng) for _ in range(VARIETY)]


def _exponential(rng: np.random.Generator) -> Counted:
    """As many buckets as an SDK fills, not always the same ones."""
    filled = np.arange(rng.integers(-80, -60), rng.integers(40, 60))
    counts = rng.multinomial(1_000, np.full(len(filled), 1 / len(filled)))
    return layouts.exponential(3, 0, (filled[:0], filled[:0]), (filled, counts), buckets=512)


def batch(
    named: list[Series],
    counted: list[Counted],
    start: int,
    time: int,
    temporality: int,
    *,
    times: int = 1,
) -> PointBatch:
    """One request: a point of each series, with `times` the counts."""
    n = len(named)
    return PointBatch(
        series=tuple(named),
        index=np.arange(n),
        start=np.full(n, start),
        time=np.full(n, time),
        temporality=np.full(n, temporality, np.int8),
        values=times * np.concatenate([counts for _, counts in counted]),
        offsets=np.concatenate([[0], np.cumsum([len(counts) for _, counts in counted])]).astype(np.int64),
        bounds=tuple(bounds for bounds, _ in counted),
    )


def baseline(features: int, models: int) -> PointBatch:
    """The baselines of models over the wire: 100,000 rows on the edges that their features are counted on."""
    about = {semconv.DRIFT_TARGET: "feature", semconv.BASELINE_ID: "b"}
    named = [
        Series(
            one.resource,
            one.scope,
            semconv.BASELINE_VALUE.name,
            tuple(sorted({**dict(one.attributes), **about}.items())),
            one.kind,
        )
        for one in (series("explicit", f, model=m) for m in range(models) for f in range(features))
    ]
    counts = np.full(20, 5_000)
    return batch(named, [(EDGES[20], counts) for _ in named], START - HOUR, START, CUMULATIVE)


def encoded(points: PointBatch) -> bytes:
    """The OTLP request of cumulative histograms and sums, a ResourceMetrics for each of them."""
    request = ExportMetricsServiceRequest()
    for i, named in enumerate(points.series):
        values, bounds = points.values[points.offsets[i] : points.offsets[i + 1]].tolist(), points.bounds[i]
        at = {"start_time_unix_nano": int(points.start[i]), "time_unix_nano": int(points.time[i])}
        of_resource = request.resource_metrics.add()
        of_resource.resource.attributes.extend(_attributes(named.resource))
        of_scope = of_resource.scope_metrics.add()
        of_scope.scope.name = named.scope
        metric = of_scope.metrics.add(name=named.metric)
        attributes = _attributes(named.attributes)
        if named.kind == "sum":
            metric.sum.aggregation_temporality = AGGREGATION_TEMPORALITY_CUMULATIVE
            metric.sum.is_monotonic = True
            metric.sum.data_points.add(as_int=values[0], attributes=attributes, **at)
            continue
        assert isinstance(bounds, tuple)
        metric.histogram.aggregation_temporality = AGGREGATION_TEMPORALITY_CUMULATIVE
        metric.histogram.data_points.add(
            count=sum(values), bucket_counts=values, explicit_bounds=bounds, attributes=attributes, **at
        )
    return request.SerializeToString()


def _attributes(attributes: Attributes) -> list[KeyValue]:
    return [KeyValue(key=key, value=AnyValue(string_value=str(value))) for key, value in attributes]
