"""One data point from its wire bytes, whatever their order, by protobuf."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from struct import Struct
from typing import Literal, NamedTuple

from google.protobuf.message import DecodeError as ProtobufDecodeError
from opentelemetry.proto.common.v1.common_pb2 import KeyValue
from opentelemetry.proto.metrics.v1.metrics_pb2 import (
    ExponentialHistogramDataPoint,
    HistogramDataPoint,
    NumberDataPoint,
)

from .layouts import Exponential, Side, exponential, filled
from .points import Attributes
from .scan import DecodeError, varint

Kind = Literal["sum", "histogram", "exponential_histogram"]
"""Forms of data that are counted, as the fields of a Metric are called."""

MAX_COUNT = 2**53
"""Counts above it are not exact in a float64, and no model has seen as many rows."""

ATTRIBUTE: Mapping[Kind, int] = {"sum": 0x3A, "histogram": 0x4A, "exponential_histogram": 0x0A}
"""The tag of an attribute in a point."""
_NO_RECORDED_VALUE = 1
_INT64, _DOUBLE = Struct("<q"), Struct("<d")
_DataPoint = HistogramDataPoint | ExponentialHistogramDataPoint | NumberDataPoint
_POINT_TYPES: dict[Kind, type[_DataPoint]] = {
    "sum": NumberDataPoint,
    "histogram": HistogramDataPoint,
    "exponential_histogram": ExponentialHistogramDataPoint,
}
_SCALARS = frozenset({"string_value", "bool_value", "int_value", "double_value"})


class WirePoint(NamedTuple):
    """A point as the sender wrote it, not yet validated."""

    start: int
    time: int
    total: int
    """Number of values of a histogram, the value of a sum."""
    values: bytes
    """Little-endian int64: bucket counts of a histogram, the one value of a sum."""
    bounds: bytes
    """Little-endian float64: bounds of a histogram."""
    attributes: bytes
    """The attribute fields as they stand on the wire, tags included: equal bytes are equal attributes."""
    layout: Exponential | None = None
    """Bounds of an exponential histogram."""


class Unusable(Exception):
    """A point that is well-formed and cannot be counted: why, and whether the sender erred (`faulty`)."""

    def __init__(self, reason: str, *, faulty: bool = True) -> None:
        super().__init__(reason)
        self.reason = reason
        self.faulty = faulty


def parsed_point(kind: Kind, data: bytes, max_buckets: int) -> WirePoint:
    """The data point in `data`; that of an exponential histogram on a scale that needs no more than `max_buckets`.

    Raises Unusable and DecodeError.
    """
    if kind == "sum":
        return _sum(data)
    if kind == "histogram":
        return _histogram(data)
    return _exponential(data, max_buckets)


def _exponential(data: bytes, max_buckets: int) -> WirePoint:
    try:
        point = ExponentialHistogramDataPoint.FromString(data)
    except ProtobufDecodeError as error:
        raise DecodeError(f"an exponential histogram data point is not valid protobuf: {error}") from error
    if point.flags & _NO_RECORDED_VALUE:
        raise Unusable("no_recorded_value", faulty=False)
    if max(point.count, point.zero_count) > MAX_COUNT:
        raise Unusable("out_of_range")
    try:
        layout, counts = exponential(
            point.scale, point.zero_count, _side(point.negative), _side(point.positive),
            buckets=max_buckets, zero_threshold=point.zero_threshold,
        )  # fmt: skip
    except ValueError:
        raise Unusable("scale") from None
    begun, time = _times(point)
    return WirePoint(
        begun, time, point.count, counts.astype("<i8").tobytes(), b"", _attribute_bytes(point), layout
    )


def _side(buckets: ExponentialHistogramDataPoint.Buckets) -> Side:
    if max(buckets.bucket_counts, default=0) > MAX_COUNT:
        raise Unusable("out_of_range")
    return filled(buckets.offset, buckets.bucket_counts)


def repeats(data: bytes, tag: int) -> bool:
    """Whether the bytes are nothing but length-delimited fields with this one-byte tag."""
    position, end = 0, len(data)
    while position < end and data[position] == tag:
        size, position = varint(data, position + 1, end)
        position += size
    return position == end


def _histogram(data: bytes) -> WirePoint:
    try:
        point = HistogramDataPoint.FromString(data)
    except ProtobufDecodeError as error:
        raise DecodeError(f"a histogram data point is not valid protobuf: {error}") from error
    if point.flags & _NO_RECORDED_VALUE:
        raise Unusable("no_recorded_value", faulty=False)
    if max(point.bucket_counts, default=0) > MAX_COUNT or point.count > MAX_COUNT:
        raise Unusable("out_of_range")
    counts = b"".join(map(_INT64.pack, point.bucket_counts))
    bounds = b"".join(map(_DOUBLE.pack, point.explicit_bounds))
    begun, time = _times(point)
    return WirePoint(begun, time, point.count, counts, bounds, _attribute_bytes(point))


def _sum(data: bytes) -> WirePoint:
    try:
        point = NumberDataPoint.FromString(data)
    except ProtobufDecodeError as error:
        raise DecodeError(f"a number data point is not valid protobuf: {error}") from error
    if point.flags & _NO_RECORDED_VALUE or point.WhichOneof("value") is None:
        raise Unusable("no_recorded_value", faulty=False)
    value = _integer(point)
    begun, time = _times(point)
    return WirePoint(begun, time, value, _INT64.pack(value), b"", _attribute_bytes(point))


def _times(point: _DataPoint) -> tuple[int, int]:
    if max(point.start_time_unix_nano, point.time_unix_nano) >= 2**63:
        raise Unusable("time")
    return point.start_time_unix_nano, point.time_unix_nano


def _integer(point: NumberDataPoint) -> int:
    if point.WhichOneof("value") == "as_int":
        return point.as_int
    if not point.as_double.is_integer():  # also false for NaN and infinities
        raise Unusable("not_integer")
    if abs(point.as_double) > MAX_COUNT:
        raise Unusable("out_of_range")
    return int(point.as_double)


def _attribute_bytes(point: _DataPoint) -> bytes:
    return type(point)(attributes=point.attributes).SerializeToString()


def attributes_of(kind: Kind, data: bytes) -> Attributes:
    """Scalar attributes of a point, from `WirePoint.attributes`; sorted by key."""
    try:
        return scalars(_POINT_TYPES[kind].FromString(data).attributes)
    except ProtobufDecodeError as error:
        raise DecodeError(f"the attributes of a data point are not valid protobuf: {error}") from error


def scalars(pairs: Iterable[KeyValue]) -> Attributes:
    """Strings, booleans, integers and floats among the attributes, sorted by key; the last of equal keys."""
    found: dict[str, str | bool | int | float] = {}
    for pair in pairs:
        kind = pair.value.WhichOneof("value")
        if kind in _SCALARS:
            found[pair.key] = getattr(pair.value, kind)
    return tuple(sorted((key, value) for key, value in found.items() if value == value))
