"""Requests as senders write them, and batches as plain values."""

from __future__ import annotations

from typing import Any

from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.metrics.v1.metrics_pb2 import (
    ExponentialHistogram,
    ExponentialHistogramDataPoint,
    Histogram,
    HistogramDataPoint,
    Metric,
    NumberDataPoint,
    ResourceMetrics,
    ScopeMetrics,
    Sum,
)

from otel_ml_collector.points import DELTA, PointBatch

SECOND = 1_000_000_000


def pairs(**attributes: Any) -> list[KeyValue]:
    def value_of(value: Any) -> AnyValue:
        kinds = {str: "string_value", bool: "bool_value", int: "int_value", float: "double_value"}
        return AnyValue(**{kinds[type(value)]: value})

    return [KeyValue(key=key.replace("_", "."), value=value_of(value)) for key, value in attributes.items()]


def histogram_point(counts: list[int], bounds: list[float], **attributes: Any) -> HistogramDataPoint:
    return HistogramDataPoint(
        start_time_unix_nano=SECOND,
        time_unix_nano=2 * SECOND,
        count=sum(counts),
        bucket_counts=counts,
        explicit_bounds=bounds,
        attributes=pairs(**attributes),
    )


def histogram(
    *points: HistogramDataPoint, name: str = "ml.feature.value", temporality: int = DELTA
) -> Metric:
    return Metric(name=name, histogram=Histogram(data_points=points, aggregation_temporality=temporality))


def sum_point(**value: Any) -> NumberDataPoint:
    return NumberDataPoint(start_time_unix_nano=SECOND, time_unix_nano=2 * SECOND, **value)


def counter(*points: NumberDataPoint, monotonic: bool = True, temporality: int = DELTA) -> Metric:
    return Metric(
        name="ml.inference.rows",
        sum=Sum(data_points=points, is_monotonic=monotonic, aggregation_temporality=temporality),
    )


def request(*metrics: Metric, scope: str = "otel_ml", **resource: Any) -> bytes:
    scoped = ScopeMetrics(metrics=metrics)
    scoped.scope.name = scope
    resourced = ResourceMetrics(scope_metrics=[scoped])
    resourced.resource.attributes.extend(pairs(**resource))
    return ExportMetricsServiceRequest(resource_metrics=[resourced]).SerializeToString()


def rows(batch: PointBatch) -> list[tuple[Any, ...]]:
    """The batch point by point, as plain values."""
    return [
        (
            batch.series[batch.index[i]],
            int(batch.start[i]),
            int(batch.time[i]),
            int(batch.temporality[i]),
            batch.values[batch.offsets[i] : batch.offsets[i + 1]].tolist(),
            batch.bounds[i],
        )
        for i in range(len(batch))
    ]


def exponential_point(**fields: Any) -> ExponentialHistogramDataPoint:
    """A point of the feature age; `positive` and `negative` are (offset, counts)."""
    sides = {
        side: ExponentialHistogramDataPoint.Buckets(offset=at[0], bucket_counts=at[1])
        for side in ("positive", "negative")
        if (at := fields.pop(side, None))
    }
    total = sum(sum(side.bucket_counts) for side in sides.values()) + fields.get("zero_count", 0)
    return ExponentialHistogramDataPoint(
        start_time_unix_nano=SECOND,
        time_unix_nano=2 * SECOND,
        attributes=pairs(ml_feature_name="age"),
        **{"count": total, **sides, **fields},
    )


def exponential(*points: ExponentialHistogramDataPoint) -> Metric:
    data = ExponentialHistogram(data_points=points, aggregation_temporality=DELTA)
    return Metric(name="ml.feature.value", exponential_histogram=data)
