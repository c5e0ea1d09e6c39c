"""OTLP metrics, as bytes, into the columnar batch the engine works on.

The request is walked on the wire, never parsed as a whole: nothing is built for what is not ours, memory
stays in proportion to the points that are kept, and a series that was seen before is found by its bytes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import groupby
from operator import itemgetter
from typing import Literal, NamedTuple

import numpy as np
from google.protobuf.message import DecodeError as ProtobufDecodeError
from numpy.typing import NDArray
from opentelemetry.proto.common.v1.common_pb2 import InstrumentationScope
from opentelemetry.proto.resource.v1.resource_pb2 import Resource

from otel_ml import semconv

from .columns import Columns, Pattern, Reader, Run, Slot
from .points import CUMULATIVE, DELTA, Attributes, PointBatch, Series
from .scan import LENGTH, VARINT, Budget, DecodeError, TooManyPoints, fields, message, messages, run
from .wirepoints import MAX_COUNT, Kind, Unusable, attributes_of, scalars

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


class Decoder:
    """Decodes requests and remembers series, so that a stream is the same `Series` object in every batch.

    Equal series are one object as long as the memory holds; it is emptied, between requests, when it outgrows
    its limits. Not for use by two threads at once.
    """

    def __init__(self, limits: DecodeLimits = _DEFAULT_LIMITS) -> None:
        self._limits = limits
        self._slots: dict[tuple[bytes, bytes, bytes, Kind], Slot] = {}
        self._series: dict[Series, Series] = {}
        self._resources: dict[bytes, Attributes | None] = {}
        self._scopes: dict[bytes, str] = {}
        self.known_bounds: dict[bytes, tuple[float, ...] | None] = {}
        """Bounds by their bytes; None for those that do not rise or are not finite."""
        self._attributes: dict[bytes, tuple[bytes, Attributes]] = {}
        self._texts: dict[str, str] = {}
        self._tails: dict[bytes, bytes] = {}
        """Bounds and attributes as they were sent: the pods of a model send the same ones."""
        self._cached_bytes = 0

    def decode(self, body: bytes, *, at_most: int | None = None) -> Decoded:
        """The points of an ExportMetricsServiceRequest.

        Raises DecodeError when `body` is not one, TooManyPoints when it holds more than the limits allow, or more
        than `at_most`.
        """
        if len(self._series) > self._limits.max_cached_series or self._cached_bytes > _MAX_CACHED_BYTES:
            self._forget()
        request = _Request(
            self, body, self._limits, min(at_most or self._limits.max_points, self._limits.max_points)
        )
        request.walk()
        return request.decoded()

    def slot(self, resource: bytes, scope: bytes, metric: bytes, kind: Kind) -> Slot:
        """The place of a metric's series, made when it is new; raises Unusable."""
        key = (resource, scope, metric, kind)
        slot = self._slots.get(key)
        if slot is None:
            slot = Slot(self._resource(resource), self.scope(scope), _text(metric), kind)
            self._slots[key] = slot
            self._cached_bytes += len(resource) + len(scope) + len(metric)
        return slot

    def find(self, resource: bytes, scope: bytes, metric: bytes, kind: Kind) -> Slot | None:
        """The place of a metric's series, if there is one."""
        return self._slots.get((resource, scope, metric, kind))

    def keep(self, slot: Slot, pattern: Pattern) -> None:
        """Know from now on how the points of a slot look."""
        for i, said in enumerate(pattern.said):
            pattern.said[i] = self._tails.setdefault(said, said)
            if pattern.said[i] is said:
                self._cached_bytes += len(said)
        slot.pattern = pattern
        self._cached_bytes += 5 * len(pattern.fixed) + 64 * len(pattern.series)

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

    def series(self, slot: Slot, attributes: bytes) -> Series:
        """The series with these attribute bytes, remembered in its slot from now on; raises Unusable."""
        if len(attributes) > _MAX_POINT_IDENTITY_BYTES:
            raise Unusable("too_large")
        attributes, parsed = self._parsed(slot.kind, attributes)
        if len(parsed) > MAX_ATTRIBUTES:
            raise Unusable("too_many_attributes")
        kind: Literal["sum", "histogram"] = "sum" if slot.kind == "sum" else "histogram"
        made = Series(slot.resource, slot.scope, slot.metric, parsed, kind)
        found = slot.series[attributes] = self._series.setdefault(made, made)
        self._cached_bytes += 200
        return found

    def _parsed(self, kind: Kind, data: bytes) -> tuple[bytes, Attributes]:
        """Attributes and their bytes, the same objects for all pods of a model."""
        found = self._attributes.get(data)
        if found is None:
            text = self._texts.setdefault
            pairs = attributes_of(kind, data)
            shared = tuple((text(key, key), text(v, v) if isinstance(v, str) else v) for key, v in pairs)
            found = self._attributes[data] = data, shared
            self._cached_bytes += 2 * len(data)
        return found

    def bounds(self, data: bytes) -> tuple[float, ...] | None:
        """Bounds as a tuple, shared by all who have them; None when they do not rise or are not finite."""
        try:
            return self.known_bounds[data]
        except KeyError:
            array = np.frombuffer(data, "<f8")
            valid = bool(np.isfinite(array).all() and (np.diff(array) > 0).all())
            bounds = self.known_bounds[data] = tuple(array.tolist()) if valid else None
            self._cached_bytes += 6 * len(data)
            return bounds

    def _forget(self) -> None:
        self._slots, self._series, self._tails, self._cached_bytes = {}, {}, {}, 0
        self._resources, self._scopes, self.known_bounds = {}, {}, {}
        self._attributes, self._texts = {}, {}


def decode(body: bytes, *, limits: DecodeLimits = _DEFAULT_LIMITS) -> Decoded:
    """The points of one request, on its own; as `Decoder.decode`, without a memory between requests."""
    return Decoder(limits).decode(body)


class _Metric(NamedTuple):
    name: bytes
    shape: str
    """One of the values of `_DATA`, or empty."""
    data: bytes
    """What the points lie in: the request, if it is in the usual form."""
    start: int
    end: int


class _Request:
    """The walk over one request, from its resources down to its metrics; then all points are read at once."""

    def __init__(self, decoder: Decoder, body: bytes, limits: DecodeLimits, max_points: int) -> None:
        self._decoder = decoder
        self._body = body
        self._octets = np.frombuffer(body, np.uint8)
        self._reader = Reader(
            decoder,
            max_buckets=limits.max_buckets,
            max_point_bytes=32 * limits.max_buckets + _MAX_IDENTITY_BYTES,
        )
        self._budget = Budget(max_points)
        self._runs: list[tuple[bytes, Run]] = []
        self._known: list[Columns] = []

    def walk(self) -> None:
        """Visit every ResourceMetrics, ScopeMetrics and Metric of the request."""
        body, budget = self._body, self._budget
        for start, end in messages(body, 0, len(body), 1, budget):
            resource = message(body, start, end, 1, budget)
            for scope_start, scope_end in messages(body, start, end, 2, budget):
                scope = message(body, scope_start, scope_end, 1, budget)
                for metric_start, metric_end in messages(body, scope_start, scope_end, 2, budget):
                    self._metric(resource, scope, _metric(body, metric_start, metric_end, budget))

    def _metric(self, resource: bytes, scope: bytes, metric: _Metric) -> None:
        if not self._again(resource, scope, metric):
            self._points(resource, scope, metric)

    def _again(self, resource: bytes, scope: bytes, metric: _Metric) -> bool:
        """Take the points of a metric that looks as it did before."""
        if metric.shape not in _KINDS or metric.data is not self._body:
            return False
        slot = self._decoder.find(resource, scope, metric.name, _kind(metric.shape))
        if slot is None:
            return False
        found = self._reader.again(slot, self._body, self._octets, metric.start, metric.end)
        if found is None:
            return False
        self._budget.spend_points(len(found.series))
        self._known.append(found)
        return True

    def _points(self, resource: bytes, scope: bytes, metric: _Metric) -> None:
        first, last, temporality, monotonic = _data(metric.data, metric.start, metric.end, self._budget)
        rejected, ignored, points = self._reader.rejected, self._reader.ignored, len(first)
        if not points:
            return
        if not metric.name.startswith(_OURS):
            ignored["foreign"] += points
        elif len(resource) + len(scope) + len(metric.name) > _MAX_IDENTITY_BYTES:
            rejected["too_large"] += points
        elif self._decoder.scope(scope) == semconv.DRIFT_SCOPE:
            ignored["own_output"] += points
        elif metric.shape not in _KINDS:
            ignored[metric.shape] += points
        elif temporality not in (DELTA, CUMULATIVE):
            rejected["no_temporality"] += points
        elif metric.shape == "sum" and not monotonic:
            rejected["not_monotonic"] += points
        else:
            try:
                slot = self._decoder.slot(resource, scope, metric.name, _kind(metric.shape))
            except Unusable as unusable:
                rejected[unusable.reason] += points
            else:
                run = Run(slot, temporality, metric.start, metric.end, first, last)
                self._runs.append((metric.data, run))

    def decoded(self) -> Decoded:
        """What the walk found."""
        read = [
            self._reader.read(data, [run for _, run in runs])
            for data, runs in groupby(self._runs, key=itemgetter(0))
        ]
        columns = Columns.joined([*self._known, *read])
        batch = columns.batch()
        rejected = self._reader.rejected
        faults = _faults(batch, columns.numbers[:, 2])
        if faults:
            rejected.update({reason: int(faulty.sum()) for reason, faulty in faults.items()})
            batch = _select(batch, ~np.logical_or.reduce(list(faults.values())))
        return Decoded(batch, dict(rejected), dict(self._reader.ignored))


def _kind(shape: str) -> Kind:
    return next(kind for kind in _KINDS if kind == shape)


def _metric(buffer: bytes, start: int, end: int, budget: Budget) -> _Metric:
    name, shape, parts, extent = b"", "", list[bytes](), (0, 0)
    for number, wire_type, first, last in fields(buffer, start, end, budget):
        if wire_type != LENGTH:
            continue
        if number == 1:
            name = buffer[first:last]
        elif number in _DATA:
            if _DATA[number] != shape:  # a oneof: the last kind stands, parts of one kind are merged
                shape, parts = _DATA[number], []
            extent = first, last
            parts.append(buffer[first:last])
    if len(parts) == 1:
        return _Metric(name, shape, buffer, *extent)
    merged = b"".join(parts)
    return _Metric(name, shape, merged, 0, len(merged))


def _data(buffer: bytes, start: int, end: int, budget: Budget) -> tuple[list[int], list[int], int, bool]:
    """Where points begin and end, temporality and monotonicity; their field numbers are the same in every kind
    that has them."""
    firsts, lasts, position = run(buffer, start, end, 1, budget)
    temporality, monotonic = 0, False
    for number, wire_type, first, last in fields(buffer, position, end, budget):
        if number == 1 and wire_type == LENGTH:
            budget.spend_point()
            firsts.append(first)
            lasts.append(last)
        elif number == 2 and wire_type == VARINT:
            temporality = first
        elif number == 3 and wire_type == VARINT:
            monotonic = bool(first)
    return firsts, lasts, temporality, monotonic


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
    starts, values = batch.offsets[:-1], batch.values
    time = (batch.time <= 0) | (batch.start < 0) | (batch.start > batch.time)
    beyond = np.zeros(len(batch), bool)
    if values.min() < 0 or values.max() > MAX_COUNT:
        beyond = np.logical_or.reduceat((values < 0) | (values > MAX_COUNT), starts)
    sums = np.add.reduceat(values, starts)
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
