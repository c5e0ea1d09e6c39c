"""OTLP metrics, as bytes, into the columnar batch the engine works on.

The request is walked on the wire, never parsed as a whole: nothing is built for what is not ours, memory
stays in proportion to the points that are kept, and a series that was seen before is found by its bytes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Literal, NamedTuple

import numpy as np
from google.protobuf.message import DecodeError as ProtobufDecodeError
from numpy.typing import NDArray
from opentelemetry.proto.common.v1.common_pb2 import InstrumentationScope
from opentelemetry.proto.resource.v1.resource_pb2 import Resource

from otel_ml import semconv

from .layouts import Bounds
from .points import CUMULATIVE, DELTA, Attributes, PointBatch, Series
from .scan import LENGTH, VARINT, Budget, DecodeError, TooManyPoints, fields, message, messages
from .wirepoints import (
    MAX_COUNT,
    Kind,
    Unusable,
    WirePoint,
    attributes_of,
    exponential_point,
    histogram_point,
    scalars,
    sum_point,
)

__all__ = ["DecodeError", "DecodeLimits", "Decoded", "Decoder", "TooManyPoints", "decode"]

_OURS = b"ml."
_MAX_IDENTITY_BYTES = 64 * 1024
_MAX_POINT_IDENTITY_BYTES = 4 * 1024
"""Every series keeps the attributes of its points."""
MAX_ATTRIBUTES = 128
"""Attributes of a resource, and of a point: OpenTelemetry's own limit for spans."""
_MAX_CACHED_BYTES = 64 * 1024 * 1024
_KINDS: tuple[Kind, ...] = ("sum", "histogram", "exponential_histogram")
_DATA = {5: "gauge", 7: "sum", 9: "histogram", 10: "exponential_histogram", 11: "summary"}


@dataclass(frozen=True, slots=True)
class DecodeLimits:
    """What one request may hold, and how much is remembered between requests."""

    max_points: int = 200_000
    """Data points of a request, the ignored ones included."""
    max_buckets: int = 512
    max_cached_series: int = 100_000


@dataclass(frozen=True, slots=True)
class Decoded:
    """What a request held: points for the engine, and how many points were left out and why."""

    batch: PointBatch
    rejected: Mapping[str, int]
    """Points the sender got wrong, by reason: the sender is told."""
    ignored: Mapping[str, int]
    """Points that are in order and not for this service, by reason: the sender is not told."""


_DEFAULT_LIMITS = DecodeLimits()


class _Slot(NamedTuple):
    """Where the series of one metric of one resource and scope are found by their attribute bytes."""

    resource: Attributes
    scope: str
    metric: str
    kind: Kind
    series: dict[bytes, Series]


class Decoder:
    """Decodes requests and remembers series, so that a stream is the same `Series` object in every batch.

    Equal series are one object as long as the memory holds; it is emptied, between requests, when it outgrows
    its limits. Not for use by two threads at once.
    """

    def __init__(self, limits: DecodeLimits = _DEFAULT_LIMITS) -> None:
        self._limits = limits
        self._slots: dict[tuple[bytes, bytes, bytes, Kind], _Slot] = {}
        self._series: dict[Series, Series] = {}
        self._resources: dict[bytes, Attributes | None] = {}
        self._scopes: dict[bytes, str] = {}
        self._bounds: dict[bytes, tuple[float, ...] | None] = {}
        self._cached_bytes = 0

    def decode(self, body: bytes) -> Decoded:
        """The points of an ExportMetricsServiceRequest.

        Raises DecodeError when `body` is not one, TooManyPoints when it holds more than the limits allow.
        """
        if len(self._series) > self._limits.max_cached_series or self._cached_bytes > _MAX_CACHED_BYTES:
            self._forget()
        request = _Request(self, body, self._limits)
        request.walk()
        return request.decoded()

    def slot(self, resource: bytes, scope: bytes, metric: bytes, kind: Kind) -> _Slot:
        """The place of a metric's series, made when it is new; raises Unusable."""
        key = (resource, scope, metric, kind)
        slot = self._slots.get(key)
        if slot is None:
            slot = _Slot(self._resource(resource), self.scope(scope), _text(metric), kind, {})
            self._slots[key] = slot
            self._cached_bytes += len(resource) + len(scope) + len(metric)
        return slot

    def scope(self, data: bytes) -> str:
        """The name of an instrumentation scope."""
        name = self._scopes.get(data)
        if name is None:
            name = self._scopes[data] = _scope(data)
            self._cached_bytes += len(data)
        return name

    def _resource(self, data: bytes) -> Attributes:
        # Parsed once, however many metrics a sender puts below it; what is refused, too.
        try:
            found = self._resources[data]
        except KeyError:
            found = self._resources[data] = _resource(data)
            self._cached_bytes += len(data)
        if found is None:
            raise Unusable("too_many_attributes")
        return found

    def series(self, slot: _Slot, attributes: bytes) -> Series:
        """The series with these attribute bytes, remembered in its slot from now on; raises Unusable."""
        if len(attributes) > _MAX_POINT_IDENTITY_BYTES:
            raise Unusable("too_large")
        parsed = attributes_of(slot.kind, attributes)
        if len(parsed) > MAX_ATTRIBUTES:
            raise Unusable("too_many_attributes")
        kind: Literal["sum", "histogram"] = "sum" if slot.kind == "sum" else "histogram"
        made = Series(slot.resource, slot.scope, slot.metric, parsed, kind)
        found = slot.series[attributes] = self._series.setdefault(made, made)
        self._cached_bytes += 2 * len(attributes)
        return found

    def bounds(self, data: bytes) -> tuple[float, ...] | None:
        """Bounds as a tuple, shared by all who have them; None when they do not rise or are not finite."""
        try:
            return self._bounds[data]
        except KeyError:
            array = np.frombuffer(data, "<f8")
            valid = bool(np.isfinite(array).all() and (np.diff(array) > 0).all())
            bounds = self._bounds[data] = tuple(array.tolist()) if valid else None
            self._cached_bytes += 6 * len(data)
            return bounds

    def _forget(self) -> None:
        self._slots, self._series, self._cached_bytes = {}, {}, 0
        self._resources, self._scopes, self._bounds = {}, {}, {}


def decode(body: bytes, *, limits: DecodeLimits = _DEFAULT_LIMITS) -> Decoded:
    """The points of one request, on its own; as `Decoder.decode`, without a memory between requests."""
    return Decoder(limits).decode(body)


@dataclass(slots=True)
class _Columns:
    """The batch while it grows."""

    series: list[Series] = field(default_factory=list)
    positions: dict[int, int] = field(default_factory=dict)
    """Position in `series` by the identity of the object, which `series` keeps alive."""
    index: list[int] = field(default_factory=list)
    points: list[WirePoint] = field(default_factory=list)
    temporality: list[int] = field(default_factory=list)
    bounds: list[Bounds] = field(default_factory=list)

    def add(self, series: Series, point: WirePoint, bounds: Bounds, temporality: int) -> None:
        position = self.positions.get(id(series))
        if position is None:
            position = self.positions[id(series)] = len(self.series)
            self.series.append(series)
        self.index.append(position)
        self.points.append(point)
        self.temporality.append(temporality)
        self.bounds.append(bounds)

    def batch(self) -> PointBatch:
        offsets = [0, *accumulate(len(point.values) // 8 for point in self.points)]
        return PointBatch(
            series=tuple(self.series),
            index=np.array(self.index, np.int64),
            start=np.array([point.start for point in self.points], np.int64),
            time=np.array([point.time for point in self.points], np.int64),
            temporality=np.array(self.temporality, np.int8),
            values=np.frombuffer(b"".join([point.values for point in self.points]), "<i8").astype(np.int64),
            offsets=np.array(offsets, np.int64),
            bounds=tuple(self.bounds),
        )

    def counts(self) -> NDArray[np.int64]:
        return np.array([point.total for point in self.points], np.int64)


class _Metric(NamedTuple):
    name: bytes
    shape: str
    """One of the values of `_DATA`, or empty."""
    spans: list[tuple[int, int]]
    """Where the points are in `data`."""
    data: bytes
    temporality: int
    monotonic: bool


class _Request:
    """The walk over one request, from its resources down to its points."""

    def __init__(self, decoder: Decoder, body: bytes, limits: DecodeLimits) -> None:
        self._decoder = decoder
        self._body = body
        self._limits = limits
        self._max_point_bytes = 32 * limits.max_buckets + _MAX_IDENTITY_BYTES
        self._budget = Budget(limits.max_points)
        self._columns = _Columns()
        self._rejected: Counter[str] = Counter()
        self._ignored: Counter[str] = Counter()

    def walk(self) -> None:
        """Visit every ResourceMetrics, ScopeMetrics and Metric of the request."""
        body, budget = self._body, self._budget
        for start, end in messages(body, 0, len(body), 1, budget):
            resource = message(body, start, end, 1, budget)
            for scope_start, scope_end in messages(body, start, end, 2, budget):
                scope = message(body, scope_start, scope_end, 1, budget)
                for metric_start, metric_end in messages(body, scope_start, scope_end, 2, budget):
                    self._metric(resource, scope, _metric(body, metric_start, metric_end, budget))

    def decoded(self) -> Decoded:
        """What the walk found, after the checks that are cheaper on all points at once."""
        batch = self._columns.batch()
        faults = _faults(batch, self._columns.counts())
        if faults:
            self._rejected.update({reason: int(faulty.sum()) for reason, faulty in faults.items()})
            batch = _select(batch, ~np.logical_or.reduce(list(faults.values())))
        return Decoded(batch, dict(self._rejected), dict(self._ignored))

    def _metric(self, resource: bytes, scope: bytes, metric: _Metric) -> None:
        if not metric.spans:
            return
        if not metric.name.startswith(_OURS):
            self._ignored["foreign"] += len(metric.spans)
        elif len(resource) + len(scope) + len(metric.name) > _MAX_IDENTITY_BYTES:
            self._rejected["too_large"] += len(metric.spans)
        elif self._decoder.scope(scope) == semconv.DRIFT_SCOPE:
            self._ignored["own_output"] += len(metric.spans)
        elif metric.shape not in _KINDS:
            self._ignored[metric.shape] += len(metric.spans)
        elif metric.temporality not in (DELTA, CUMULATIVE):
            self._rejected["no_temporality"] += len(metric.spans)
        elif metric.shape == "sum" and not metric.monotonic:
            self._rejected["not_monotonic"] += len(metric.spans)
        else:
            kind = next(kind for kind in _KINDS if kind == metric.shape)
            try:
                slot = self._decoder.slot(resource, scope, metric.name, kind)
            except Unusable as unusable:
                self._rejected[unusable.reason] += len(metric.spans)
            else:
                self._points(slot, metric)

    def _points(self, slot: _Slot, metric: _Metric) -> None:
        for start, end in metric.spans:
            try:
                if end - start > self._max_point_bytes:
                    raise Unusable("too_large")
                point, bounds = self._point(slot, metric.data, start, end)
                series = slot.series.get(point.attributes) or self._decoder.series(slot, point.attributes)
            except Unusable as unusable:
                counter = self._rejected if unusable.faulty else self._ignored
                counter[unusable.reason] += 1
                continue
            self._columns.add(series, point, bounds, metric.temporality)

    def _point(self, slot: _Slot, data: bytes, start: int, end: int) -> tuple[WirePoint, Bounds]:
        if slot.kind == "sum":
            return sum_point(data, start, end, slot.series), ()
        if slot.kind == "histogram":
            point = histogram_point(data, start, end, slot.series)
            return point, self._bounds(point)
        point = exponential_point(data[start:end], self._limits.max_buckets)
        assert point.layout is not None
        return point, point.layout

    def _bounds(self, point: WirePoint) -> tuple[float, ...]:
        if len(point.values) != len(point.bounds) + 8:
            raise Unusable("bucket_count")
        if len(point.values) > 8 * self._limits.max_buckets:
            raise Unusable("too_many_buckets")
        bounds = self._decoder.bounds(point.bounds)
        if bounds is None:
            raise Unusable("bounds")
        return bounds


def _metric(buffer: bytes, start: int, end: int, budget: Budget) -> _Metric:
    name, shape, parts = b"", "", list[bytes]()
    for number, wire_type, first, last in fields(buffer, start, end, budget):
        if wire_type != LENGTH:
            continue
        if number == 1:
            name = buffer[first:last]
        elif number in _DATA:
            if _DATA[number] != shape:  # a oneof: the last kind stands, parts of one kind are merged
                shape, parts = _DATA[number], []
            parts.append(buffer[first:last])
    data = b"".join(parts)
    return _Metric(name, shape, *_data(data, budget))


def _data(data: bytes, budget: Budget) -> tuple[list[tuple[int, int]], bytes, int, bool]:
    """Points, temporality and monotonicity; their field numbers are the same in every kind that has them."""
    spans: list[tuple[int, int]] = []
    temporality, monotonic = 0, False
    for number, wire_type, first, last in fields(data, 0, len(data), budget):
        if number == 1 and wire_type == LENGTH:
            budget.spend_point()
            spans.append((first, last))
        elif number == 2 and wire_type == VARINT:
            temporality = first
        elif number == 3 and wire_type == VARINT:
            monotonic = bool(first)
    return spans, data, temporality, monotonic


def _resource(data: bytes) -> Attributes | None:
    try:
        found = scalars(Resource.FromString(data).attributes)
    except ProtobufDecodeError as error:
        raise DecodeError(f"a resource is not valid protobuf: {error}") from error
    return found if len(found) <= MAX_ATTRIBUTES else None


def _scope(data: bytes) -> str:
    try:
        return InstrumentationScope.FromString(data).name
    except ProtobufDecodeError as error:
        raise DecodeError(f"an instrumentation scope is not valid protobuf: {error}") from error


def _text(data: bytes) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise DecodeError(f"the metric name {data[:64]!r} is not UTF-8") from error


def _faults(batch: PointBatch, counts: NDArray[np.int64]) -> dict[str, NDArray[np.bool_]]:
    """(n,) masks of the points that cannot be counted, by reason; a point is in one of them at most."""
    if not len(batch):
        return {}
    starts = batch.offsets[:-1]
    time = (batch.time <= 0) | (batch.start < 0) | (batch.start > batch.time)
    beyond = np.logical_or.reduceat((batch.values < 0) | (batch.values > MAX_COUNT), starts)
    sums = np.add.reduceat(batch.values, starts)
    faults = {
        "time": time,
        "out_of_range": beyond & ~time,
        "count": (sums != counts) & ~beyond & ~time,
    }
    return {reason: faulty for reason, faulty in faults.items() if faulty.any()}


def _select(batch: PointBatch, keep: NDArray[np.bool_]) -> PointBatch:
    """The points for which `keep` is true, with the series they use."""
    lengths = np.diff(batch.offsets)
    used, index = np.unique(batch.index[keep], return_inverse=True)
    return PointBatch(
        series=tuple(batch.series[position] for position in used),
        index=index.astype(np.int64),
        start=batch.start[keep],
        time=batch.time[keep],
        temporality=batch.temporality[keep],
        values=batch.values[np.repeat(keep, lengths)],
        offsets=np.concatenate([[0], np.cumsum(lengths[keep])]).astype(np.int64),
        bounds=tuple(bounds for bounds, kept in zip(batch.bounds, keep, strict=True) if kept),
    )
