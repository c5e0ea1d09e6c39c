"""Our counts as the SDK's own metric values: what a reader receives and any exporter can send."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from opentelemetry.sdk.metrics import Exemplar
from opentelemetry.sdk.metrics.export import (
    AggregationTemporality,
    ExponentialHistogram,
    ExponentialHistogramDataPoint,
    Histogram,
    HistogramDataPoint,
    Metric,
    MetricsData,
    NumberDataPoint,
    ResourceMetrics,
    ScopeMetrics,
    Sum,
)
from opentelemetry.sdk.metrics.export import (
    Buckets as ExponentialBuckets,
)
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.util.instrumentation import InstrumentationScope

from . import semconv
from ._version import __version__
from .model import Model
from .sketches import Buckets, Count, Exponential, Series, Sketch
from .summary import CategoricalSummary, NumericSummary, Summary

PROMETHEUS_FEATURES = 50
"""Most features a Prometheus reader gets: each one is some thirty series there. One that is counted by segment is as
many as it has segments."""

_FEATURE_METRICS = {
    m.name for m in (semconv.FEATURE_VALUE, semconv.FEATURE_CATEGORIES, semconv.FEATURE_OBSERVATIONS)
}


@dataclass(frozen=True, slots=True)
class Point:
    """A series at one collection of one reader."""

    series: Series[Any]
    sketch: Sketch
    start: int
    time: int
    temporality: AggregationTemporality
    exemplars: Sequence[Exemplar] = ()


def metrics(points: Iterable[Point], *, prometheus: bool = False) -> list[Metric]:
    """One metric a name and form, with all its points. A Prometheus reader gets no exponential histograms, one
    of which would fail its whole scrape, no projections, which say nothing without a baseline, and at most
    `PROMETHEUS_FEATURES` features."""
    groups: dict[tuple[str, type], list[Point]] = {}
    for point in _fit_for_prometheus(list(points)) if prometheus else points:
        groups.setdefault((point.series.metric.name, type(point.sketch)), []).append(point)
    return [_metric(group) for group in groups.values()]


def _fit_for_prometheus(points: list[Point]) -> list[Point]:
    points = [
        point
        for point in points
        if not isinstance(point.sketch, Exponential) and semconv.DRIFT_TARGET not in point.series.attributes
    ]
    segments: dict[str, set[tuple[tuple[str, str], ...]]] = {}
    for point in points:
        if point.series.metric.name in _FEATURE_METRICS:
            segments.setdefault(_feature_of(point), set()).add(_segments_of(point))
    room, left_out = PROMETHEUS_FEATURES, set()
    for name, found in segments.items():
        if len(found) <= room:  # with some of its segments it would not add up to all rows
            room -= len(found)
        else:
            left_out.add(name)
    return [
        point
        for point in points
        if point.series.metric.name not in _FEATURE_METRICS or _feature_of(point) not in left_out
    ]


def _feature_of(point: Point) -> str:
    return point.series.attributes[semconv.FEATURE_NAME]


def _segments_of(point: Point) -> tuple[tuple[str, str], ...]:
    attributes = point.series.attributes.items()
    return tuple((key, value) for key, value in attributes if key.startswith(semconv.SEGMENT_PREFIX))


def _metric(points: list[Point]) -> Metric:
    spec, temporality = points[0].series.metric, points[0].temporality
    data: Sum | Histogram | ExponentialHistogram
    if isinstance(points[0].sketch, Count):
        data = Sum([_number(p) for p in points], aggregation_temporality=temporality, is_monotonic=True)
    elif isinstance(points[0].sketch, Buckets):
        data = Histogram([_explicit(p) for p in points], aggregation_temporality=temporality)
    else:
        data = ExponentialHistogram([_exponential(p) for p in points], aggregation_temporality=temporality)
    return Metric(name=spec.name, description=spec.description, unit=spec.unit, data=data)


def _number(point: Point) -> NumberDataPoint:
    assert isinstance(point.sketch, Count)
    return NumberDataPoint(point.series.attributes, point.start, point.time, point.sketch.value)


def _explicit(point: Point) -> HistogramDataPoint:
    assert isinstance(point.sketch, Buckets)
    return _histogram(
        point.series.attributes, point.start, point.time, point.sketch.bounds.tolist(), point.sketch.counts.tolist(),
        point.sketch.sum, point.exemplars,
    )  # fmt: skip


def _histogram(
    attributes: Mapping[str, str],
    start: int,
    time: int,
    bounds: list[float],
    counts: list[int],
    total: float | None,
    exemplars: Sequence[Exemplar] = (),
) -> HistogramDataPoint:
    return HistogramDataPoint(
        attributes=attributes,
        start_time_unix_nano=start,
        time_unix_nano=time,
        count=sum(counts),
        sum=total,  # type: ignore[arg-type]  # optional on the wire
        bucket_counts=counts,
        explicit_bounds=bounds,
        min=None,  # type: ignore[arg-type]  # optional on the wire
        max=None,  # type: ignore[arg-type]
        exemplars=exemplars,
    )


def _exponential(point: Point) -> ExponentialHistogramDataPoint:
    sketch = point.sketch
    assert isinstance(sketch, Exponential)
    return ExponentialHistogramDataPoint(
        attributes=point.series.attributes,
        start_time_unix_nano=point.start,
        time_unix_nano=point.time,
        count=sketch.zero + sum(sketch.positive.values()) + sum(sketch.negative.values()),
        sum=None,  # type: ignore[arg-type]  # optional on the wire
        scale=sketch.scale,
        zero_count=sketch.zero,
        positive=_dense(sketch.positive),
        negative=_dense(sketch.negative),
        flags=0,
        min=None,  # type: ignore[arg-type]
        max=None,  # type: ignore[arg-type]
    )


def _dense(side: Mapping[int, int]) -> ExponentialBuckets:
    if not side:
        return ExponentialBuckets(offset=0, bucket_counts=[])
    first, last = min(side), max(side)
    return ExponentialBuckets(offset=first, bucket_counts=[side.get(i, 0) for i in range(first, last + 1)])


def baselines(models: Iterable[Model], now: int) -> list[Metric]:
    """The baselines of `models` as cumulative metrics that began when the baseline was made; one an id."""
    histograms: list[HistogramDataPoint] = []
    categories: list[NumberDataPoint] = []
    observations: list[NumberDataPoint] = []
    sent: set[tuple[str, str, str]] = set()
    for model in models:
        if model.baseline is None or (model.name, model.version, model.baseline.id) in sent:
            continue
        sent.add((model.name, model.version, model.baseline.id))
        start = int(model.baseline.created_at.timestamp() * 1e9)
        for target, summary in _targets(model):
            attributes = _baseline_attributes(model, target, summary)
            if isinstance(summary, NumericSummary) and sum(summary.bucket_counts):
                histograms.append(_reference(summary, attributes, start, now))
            if isinstance(summary, CategoricalSummary):
                categories += _reference_categories(summary, attributes, start, now)
            if target == "feature":
                observations += _reference_states(summary, attributes, start, now)
    sums = ((semconv.BASELINE_CATEGORIES, categories), (semconv.BASELINE_OBSERVATIONS, observations))
    return [
        *([_cumulative(semconv.BASELINE_VALUE, Histogram(histograms, _CUMULATIVE))] if histograms else []),
        *[_cumulative(spec, Sum(points, _CUMULATIVE, is_monotonic=True)) for spec, points in sums if points],
    ]


_CUMULATIVE = AggregationTemporality.CUMULATIVE


def _cumulative(spec: semconv.Metric, data: Histogram | Sum) -> Metric:
    return Metric(name=spec.name, description=spec.description, unit=spec.unit, data=data)


def _targets(model: Model) -> list[tuple[str, Summary]]:
    baseline = model.baseline
    assert baseline is not None
    others = (
        ("score", baseline.scores), ("prediction", baseline.predictions), ("uncertainty", baseline.uncertainty),
    )  # fmt: skip
    features: list[tuple[str, Summary]] = [("feature", summary) for summary in model.features().values()]
    projections = [("projection", projection.summary) for projection in baseline.projections]
    given = [(target, summary) for target, summary in others if summary is not None]
    return [*features, *given, *projections]


def _baseline_attributes(model: Model, target: str, summary: Summary) -> dict[str, str]:
    assert model.baseline is not None
    attributes = {
        semconv.MODEL_NAME: model.name,
        semconv.MODEL_VERSION: model.version,
        semconv.DRIFT_TARGET: target,
        semconv.BASELINE_ID: model.baseline.id,
    }
    named = target in ("feature", "projection")
    return {**attributes, semconv.FEATURE_NAME: summary.name} if named else attributes


def _reference(
    summary: NumericSummary, attributes: dict[str, str], start: int, now: int
) -> HistogramDataPoint:
    return _histogram(
        attributes, start, now, summary.bounds.tolist(), list(map(int, summary.bucket_counts)), None
    )


def _reference_categories(
    summary: CategoricalSummary, attributes: dict[str, str], start: int, now: int
) -> list[NumberDataPoint]:
    counts = {**summary.categories, **({semconv.OTHER: summary.other} if summary.other else {})}
    return [
        NumberDataPoint({**attributes, semconv.FEATURE_CATEGORY: name}, start, now, count)
        for name, count in counts.items()
    ]


def _reference_states(
    summary: Summary, attributes: dict[str, str], start: int, now: int
) -> list[NumberDataPoint]:
    return [
        NumberDataPoint({**attributes, semconv.FEATURE_STATE: state}, start, now, int(count))
        for state, count in zip(semconv.STATES, summary.states, strict=True)
        if count
    ]


def resource_metrics(resource: Resource, produced: Sequence[Metric]) -> ResourceMetrics:
    """`produced` under our scope and `resource`; no scope when nothing was produced."""
    scope = InstrumentationScope(semconv.SDK_SCOPE, __version__)
    scoped = [ScopeMetrics(scope=scope, metrics=list(produced), schema_url="")] if produced else []
    return ResourceMetrics(resource=resource, scope_metrics=scoped, schema_url=resource.schema_url)


def joined(data: MetricsData, ours: ResourceMetrics) -> MetricsData:
    """`data` and `ours`, each Resource and each scope in it once: of two that are equal an exporter sends the last."""
    if not ours.scope_metrics:
        return data
    told = [
        _with(theirs, ours) if theirs.resource == ours.resource else theirs
        for theirs in data.resource_metrics
    ]
    apart = all(theirs.resource != ours.resource for theirs in data.resource_metrics)
    return replace(data, resource_metrics=[*told, ours] if apart else told)


def _with(theirs: ResourceMetrics, ours: ResourceMetrics) -> ResourceMetrics:
    scopes = {one.scope: one for one in theirs.scope_metrics}
    for one in ours.scope_metrics:
        before = scopes.get(one.scope)
        scopes[one.scope] = (
            one if before is None else replace(before, metrics=[*before.metrics, *one.metrics])
        )
    return replace(theirs, scope_metrics=list(scopes.values()))
