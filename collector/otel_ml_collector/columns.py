"""The points of a request, read all at once.

Points of a usual layout are read with numpy, whatever their number. What is not so (fields missing, reordered or
unpacked, exemplars, flags) is parsed by protobuf, point by point, which says the same about the usual layouts, only
slower.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import accumulate, chain, compress, repeat
from typing import NamedTuple, Protocol, cast

import numpy as np
from numpy.typing import NDArray

from .layouts import Bounds
from .points import Attributes, PointBatch, Series
from .usual import KINDS, NUMBERS, Extent, Ints, Layout, Mask, Octets, layout_of
from .wirepoints import ATTRIBUTE, Kind, Unusable, WirePoint, parsed_point, repeats

PATTERN = 8
"""Points from which on it pays to know by heart how a metric looked."""
_MISSES = 8
"""How often a metric may look different than before, until it is no longer expected to look the same."""


@dataclass(slots=True, eq=False)
class Slot:
    """Where the series of one metric of one resource and scope are found by their attribute bytes."""

    resource: Attributes
    scope: str
    metric: str
    kind: Kind
    series: dict[bytes, Series] = field(default_factory=dict)
    size: int = 0
    """Bytes that its points had in the last request."""
    pattern: Pattern | None = None
    """How these points looked, once they had the same size twice."""
    misses: int = 0


class Run(NamedTuple):
    """The points of one metric, and where it begins and ends, and each of them."""

    slot: Slot
    temporality: int
    start: int
    end: int
    first: list[int]
    last: list[int]


class Memory(Protocol):
    """What is remembered between requests."""

    @property
    def known_bounds(self) -> dict[bytes, tuple[float, ...] | None]:
        """Bounds by their bytes; None for those that do not rise or are not finite."""

    def series(self, slot: Slot, attributes: bytes) -> Series:
        """The series with these attribute bytes, in its slot from now on; raises Unusable."""

    def bounds(self, data: bytes) -> tuple[float, ...] | None:
        """These bounds, known from now on."""

    def keep(self, slot: Slot, pattern: Pattern) -> None:
        """Know from now on how the points of a slot look."""


@dataclass(slots=True)
class Columns:
    """Points of a request, one entry a point; `series` and `bounds` are None until they are found."""

    series: list[Series | None]
    numbers: Ints
    """(n, 3) start, time, and what the sender says that the values come to."""
    temporality: NDArray[np.int8]
    values: list[bytes]
    """Little-endian int64."""
    bounds: list[Bounds | None]

    @classmethod
    def joined(cls, parts: Sequence[Columns]) -> Columns:
        """One after the other."""
        if len(parts) == 1:
            return parts[0]
        return cls(
            list(chain.from_iterable(part.series for part in parts)),
            np.concatenate([np.empty((0, 3), np.int64), *(part.numbers for part in parts)]),
            np.concatenate([np.empty(0, np.int8), *(part.temporality for part in parts)]),
            list(chain.from_iterable(part.values for part in parts)),
            list(chain.from_iterable(part.bounds for part in parts)),
        )

    def usable(self) -> Columns:
        """Those of which everything was found."""
        found = [one is not None for one in self.series]
        if all(found):
            return self
        return Columns(
            list(compress(self.series, found)), self.numbers[found], self.temporality[found],
            list(compress(self.values, found)), list(compress(self.bounds, found)),
        )  # fmt: skip

    def batch(self) -> PointBatch:
        """The points in the form the engine takes them."""
        series, index = _indexed(cast("list[Series]", self.series))
        ends = np.fromiter(accumulate(map(len, self.values), initial=0), np.int64, len(self.values) + 1)
        return PointBatch(
            series=series,
            index=index,
            start=self.numbers[:, 0].copy(),
            time=self.numbers[:, 1].copy(),
            temporality=self.temporality,
            values=np.frombuffer(b"".join(self.values), "<i8").astype(np.int64, copy=False),
            offsets=ends // 8,
            bounds=tuple(cast("list[Bounds]", self.bounds)),
        )


def _indexed(series: Sequence[Series]) -> tuple[tuple[Series, ...], Ints]:
    """Distinct series, and which of them each one is; equal ones are the same object."""
    ids = list(map(id, series))
    distinct = dict(zip(ids, series, strict=True))
    if len(distinct) == len(ids):
        return tuple(series), np.arange(len(ids))
    position = {one: i for i, one in enumerate(distinct)}
    return tuple(distinct.values()), np.array([position[one] for one in ids], np.int64)


@dataclass(frozen=True, slots=True)
class Pattern:
    """How the points of a metric looked in a request: what of it stays the same, and where the rest is.

    A process exports the same series in the same order again and again. When all bytes but those of numbers are what
    they were, so is all that is found by them.
    """

    size: int
    fixed_at: NDArray[np.int32]
    fixed: Octets
    """Bytes that are neither numbers nor tails."""
    first: Ints
    values: Extent
    tails: Extent
    said: list[bytes]
    """The tails."""
    series: list[Series | None]
    bounds: list[Bounds | None]
    temporality: NDArray[np.int8]

    @classmethod
    def of(cls, data: bytes, run: Run, layout: Layout, columns: Columns, part: slice) -> Pattern:
        """That of a run, whose points are `part` of those of the layout; all of them must be usual."""
        first = layout.points.first[part] - run.start
        values, tails, sums, extremes = (
            extent.relative(part, run.start)
            for extent in (layout.values, layout.tails, layout.sums, layout.extremes)
        )
        free = [Extent(first + 9 * i + 1, first + 9 * i + 9) for i in range(3)]
        free += [values, tails, sums, *extremes.halves()]
        edges = np.zeros(run.end - run.start + 1, np.int64)
        for extent in free:
            np.add.at(edges, extent.first, 1)
            np.add.at(edges, extent.last, -1)
        fixed_at = np.flatnonzero(np.cumsum(edges[:-1]) == 0).astype(np.int32)
        octets = np.frombuffer(data, np.uint8)
        return cls(
            run.end - run.start, fixed_at, octets[run.start + fixed_at], first, values,
            tails, tails.of(data, run.start),
            columns.series[part], columns.bounds[part], columns.temporality[part].copy(),
        )  # fmt: skip

    def read(self, data: bytes, octets: Octets, start: int) -> Columns | None:
        """The points, if they stand at `start` as they did before."""
        if not np.array_equal(octets[self.fixed_at + start], self.fixed):
            return None
        if self.tails.of(data, start) != self.said:
            return None
        numbers = octets[(self.first + start)[:, None] + NUMBERS].view("<i8").astype(np.int64, copy=False)
        return Columns(self.series, numbers, self.temporality, self.values.of(data, start), self.bounds)


class Reader:
    """Reads points, and counts by reason those that cannot be used: through the sender's fault, and without."""

    def __init__(self, memory: Memory, *, max_buckets: int, max_point_bytes: int) -> None:
        self._memory = memory
        self._max_buckets = max_buckets
        self._max_point_bytes = max_point_bytes
        self.rejected: Counter[str] = Counter()
        self.ignored: Counter[str] = Counter()

    def again(self, slot: Slot, data: bytes, octets: Octets, start: int, end: int) -> Columns | None:
        """The points of a metric that looks as it did before; None when it does not."""
        if slot.pattern is None or slot.pattern.size != end - start:
            return None
        found = slot.pattern.read(data, octets, start)
        if found is None:
            slot.pattern, slot.misses = None, slot.misses + 1
        return found

    def read(self, data: bytes, runs: Sequence[Run]) -> Columns:
        """The usable points of these metrics, which all lie in `data`; raises DecodeError."""
        counts = [len(run.first) for run in runs]
        slots = list(chain.from_iterable(map(repeat, [run.slot for run in runs], counts)))
        extent = Extent(_joined(run.first for run in runs), _joined(run.last for run in runs))
        layout = layout_of(data, extent, np.repeat([KINDS[run.slot.kind] for run in runs], counts))
        attributes, known = layout.attributes.of(data), self._memory.known_bounds
        columns = Columns(
            [slot.series.get(one) for slot, one in zip(slots, attributes, strict=True)],
            layout.numbers,
            np.repeat(np.array([run.temporality for run in runs], np.int8), counts),
            layout.values.of(data),
            [known.get(one) for one in layout.bounds.of(data)],
        )
        usual = layout.usual & (extent.sizes <= self._max_point_bytes)
        usual &= layout.values.sizes <= 8 * self._max_buckets
        for i in np.flatnonzero(~usual).tolist():
            columns.series[i] = None
        for i, of in enumerate(zip(columns.series, columns.bounds, strict=True)):
            if of[0] is None or of[1] is None:
                learnt = usual[i] and self._learn(
                    columns, i, slots[i], attributes[i], layout.bounds.at(data, i)
                )
                if not learnt:
                    self._parse(columns, i, slots[i], extent.at(data, i))
                usual[i] &= learnt
        self._keep_patterns(data, runs, layout, columns, usual)
        return columns.usable()

    def _keep_patterns(
        self, data: bytes, runs: Sequence[Run], layout: Layout, columns: Columns, usual: Mask
    ) -> None:
        """Know by heart those metrics that had as many bytes in the request before."""
        i = 0
        for run in runs:
            slot, size, part = run.slot, run.end - run.start, slice(i, i + len(run.first))
            i = part.stop
            if len(run.first) < PATTERN or slot.misses > _MISSES:
                continue
            if slot.size == size and usual[part].all() and None not in columns.series[part]:
                self._memory.keep(slot, Pattern.of(data, run, layout, columns, part))
            slot.size = size

    def _learn(self, columns: Columns, i: int, slot: Slot, attributes: bytes, bounds: bytes) -> bool:
        """Find series and bounds of a point that has the usual layout; whether it really has."""
        if not repeats(attributes, ATTRIBUTE[slot.kind]):
            return False
        columns.series[i] = None
        with self._counted():
            columns.bounds[i] = self._bounds(bounds)
            columns.series[i] = slot.series.get(attributes) or self._memory.series(slot, attributes)
        return True

    def _parse(self, columns: Columns, i: int, slot: Slot, data: bytes) -> None:
        """Read a point of any layout."""
        columns.series[i] = None
        with self._counted():
            if len(data) > self._max_point_bytes:
                raise Unusable("too_large")
            point = parsed_point(slot.kind, data, self._max_buckets)
            columns.numbers[i] = point.start, point.time, point.total
            columns.values[i] = point.values
            columns.bounds[i] = point.layout if slot.kind == "exponential_histogram" else self._checked(point)
            found = slot.series.get(point.attributes)
            columns.series[i] = found or self._memory.series(slot, point.attributes)

    def _checked(self, point: WirePoint) -> tuple[float, ...]:
        """The bounds of a point that are not those of an exponential histogram; of a sum it has none."""
        if len(point.values) != len(point.bounds) + 8:
            raise Unusable("bucket_count")
        if len(point.values) > 8 * self._max_buckets:
            raise Unusable("too_many_buckets")
        return self._bounds(point.bounds)

    def _bounds(self, data: bytes) -> tuple[float, ...]:
        bounds = self._memory.bounds(data)
        if bounds is None:
            raise Unusable("bounds")
        return bounds

    @contextmanager
    def _counted(self) -> Iterator[None]:
        try:
            yield
        except Unusable as unusable:
            (self.rejected if unusable.faulty else self.ignored)[unusable.reason] += 1


def _joined(lists: Iterable[list[int]]) -> Ints:
    return np.array(list(chain.from_iterable(lists)), np.int64)
