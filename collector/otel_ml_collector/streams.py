"""Increments out of points: what each stream adds to the counts, whatever order its points came in.

A stream is one series of one sender. Points wait in a reorder buffer until the watermark passes their time
and are then applied in the order of time, so that any reorder within the lateness, any duplication and any
interleaving of streams gives the same increments.

Cumulative points are differenced. Same start and no smaller bucket: the difference counts, on the new bounds
if the old counts can be said on them exactly, as those of an exponential histogram always can. A newer start is
a restart and counts as it is. A smaller bucket without a newer start, or bounds that cut filled buckets, are a
reset: it counts nothing and becomes the new base. Delta points count as they are, once for each (start, time).

State lies in arrays over all streams and in one arena of last values: a round applies one point of many
streams at once, and there are as many rounds as the busiest stream has points.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import ItemsView, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .layouts import Shapes
from .points import CUMULATIVE, Attributes, Series

Ints = NDArray[np.int64]
Mask = NDArray[np.bool_]

SAME_COLLECTION = 1_000_000_000
"""Series of one process whose first points are closer than this (ns) come from the same collection."""

MAX_WAITING = 1024
"""Points of one stream that may wait: a round applies one of each, so this bounds the rounds."""

_SAVED = ("_start", "_time", "_temporality", "_shape", "_resource", "_length", "_touched", "_waiting")
_COLUMNS = (*_SAVED, "_offset")
_UNSEEN = -1
_NEVER = np.iinfo(np.int64).max


def ragged(offsets: Ints, lengths: Ints) -> Ints:
    """Indices of all elements of the runs at `offsets` of these `lengths`, one run after the other."""
    ends = np.cumsum(lengths)
    total = int(ends[-1]) if len(ends) else 0
    return np.repeat(offsets - (ends - lengths), lengths) + np.arange(total)


@dataclass(frozen=True, slots=True)
class Points:
    """Points or increments of known streams; point i has `lengths[i]` consecutive `values`, at least one."""

    stream: Ints
    start: Ints
    time: Ints
    temporality: NDArray[np.int8]
    shape: Ints
    """Which bounds: an index that is equal for equal bounds."""
    lengths: Ints
    values: Ints

    def __len__(self) -> int:
        return len(self.stream)

    def take(self, which: Ints) -> Points:
        """The points at these positions, in this order."""
        offsets = np.cumsum(self.lengths) - self.lengths
        lengths = self.lengths[which]
        return Points(
            self.stream[which], self.start[which], self.time[which], self.temporality[which],
            self.shape[which], lengths, self.values[ragged(offsets[which], lengths)],
        )  # fmt: skip

    def sums(self) -> Ints:
        """Sum of the values of each point."""
        return (
            np.add.reduceat(self.values, np.cumsum(self.lengths) - self.lengths)
            if len(self)
            else self.lengths
        )


def concatenate(parts: Sequence[Points]) -> Points:
    """All points of `parts`, in order."""
    columns = zip(
        *((p.stream, p.start, p.time, p.temporality, p.shape, p.lengths, p.values) for p in parts),
        strict=True,
    )
    return Points(*(np.concatenate(column) for column in columns))


@dataclass(frozen=True, slots=True)
class Applied:
    """What the points up to a watermark came to."""

    increments: Points
    """What each point adds, ordered by round; `temporality` and `start` are those of the point."""
    initial: Points
    """First points of series that were not counted, because they began before us or too long ago."""
    counts: Counter[str]
    """duplicate, overlap, reset, restart, gap, initial: points with that fate."""
    overlapping: tuple[int, ...]
    """Streams that two writers seem to share."""
    relaid: tuple[int, ...]
    """Streams whose bounds changed, without a new start, so that the old counts do not fit on the new ones."""


class Streams:
    """State of every stream: its last start, time, and cumulative values.

    `started` (Unix ns) and `initial_max_age` (ns) decide whether a cumulative series is counted from its
    start when it is first seen.
    """

    def __init__(
        self, shapes: Shapes | None = None, *, started: int, initial_max_age: int, watermark: int = 0
    ) -> None:
        self._shapes = shapes or Shapes()
        self._started = started
        self._initial_max_age = initial_max_age
        self._index: dict[Series, int] = {}
        self._series: dict[int, Series] = {}
        self._free: list[int] = []
        self._resources: dict[Attributes, int] = {}
        self._resource_seen = np.full(64, _NEVER, np.int64)
        self._start = np.zeros(64, np.int64)
        self._time = np.full(64, _UNSEEN, np.int64)
        self._temporality = np.zeros(64, np.int8)
        self._shape = np.zeros(64, np.int64)
        self._resource = np.zeros(64, np.int64)
        self._offset = np.zeros(64, np.int64)
        self._length = np.zeros(64, np.int64)
        self._touched = np.zeros(64, np.int64)
        """When something last arrived."""
        self._waiting = np.zeros(64, np.int64)
        """Points in the reorder buffer."""
        self._arena = np.zeros(1024, np.int64)
        self._used = 0
        self._pending: list[tuple[int, Points]] = []
        """Each with the earliest time in it."""
        self._watermark = watermark

    def __len__(self) -> int:
        return len(self._index)

    @property
    def pending(self) -> int:
        """Points that wait in the reorder buffer."""
        return sum(len(points) for _, points in self._pending)

    @property
    def pending_values(self) -> int:
        """Numbers of the points that wait."""
        return sum(len(points.values) for _, points in self._pending)

    def shapes(self) -> set[int]:
        """Shapes of the streams and of the points that wait."""
        waiting = [np.unique(points.shape) for _, points in self._pending]
        return set(np.concatenate([self._shape[self._alive()], *waiting]).tolist())

    @property
    def watermark(self) -> int:
        """Up to where points have been applied, Unix ns; a point at or before it comes too late."""
        return self._watermark

    def series(self, stream: int) -> Series:
        return self._series[stream]

    def items(self) -> ItemsView[int, Series]:
        """Every stream and its series."""
        return self._series.items()

    def find(self, series: Series) -> int | None:
        return self._index.get(series)

    def add(self, series: Series, now: int) -> int:
        """The stream of a series, made if need be."""
        found = self._index.get(series)
        if found is not None:
            return found
        stream = self._free.pop() if self._free else len(self._series)
        self._grow(stream + 1)
        self._index[series] = stream
        self._series[stream] = series
        self._time[stream] = _UNSEEN
        self._length[stream] = 0
        self._touched[stream] = now
        self._resource[stream] = self._resources.setdefault(series.resource, len(self._resources))
        return stream

    def _grow(self, size: int) -> None:
        if size <= len(self._start):
            return
        for name in _COLUMNS:
            old = getattr(self, name)
            new = np.zeros(2 * size, old.dtype)
            new[: len(old)] = old
            setattr(self, name, new)
        more = 2 * size - len(self._resource_seen)
        self._resource_seen = np.concatenate([self._resource_seen, np.full(more, _NEVER, np.int64)])

    def state(self) -> dict[str, object]:
        """For `restore`; what many series have in common is said once."""
        alive, kinds = self._alive(), dict[tuple[object, ...], int]()
        kind = [
            kinds.setdefault((one.scope, one.metric, one.attributes, one.kind), len(kinds))
            for one in self._series.values()
        ]
        return {
            "streams": alive,
            "resources": list(self._resources),
            "resource_seen": self._resource_seen[: len(self._resources)],
            "kinds": list(kinds),
            "kind": np.array(kind, np.int64),
            "columns": {name: getattr(self, name)[alive] for name in _SAVED},
            "values": self._arena[ragged(self._offset[alive], self._length[alive])],
            "free": self._free,
            "pending": [points for _, points in self._pending],
            "watermark": self._watermark,
            "started": self._started,
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Be as when `state` was taken."""
        alive, columns = state["streams"], state["columns"]
        self._grow(max(len(alive) + len(state["free"]), len(state["resources"])))
        for name in _SAVED:
            getattr(self, name)[alive] = columns[name]
        self._resources = {resource: i for i, resource in enumerate(state["resources"])}
        self._resource_seen[: len(self._resources)] = state["resource_seen"]
        self._series = {
            stream: Series(state["resources"][resource], *state["kinds"][kind])
            for stream, resource, kind in zip(
                alive.tolist(), columns["_resource"].tolist(), state["kind"].tolist(), strict=True
            )
        }
        self._index = {series: stream for stream, series in self._series.items()}
        self._arena, self._used = state["values"], len(state["values"])
        self._offset[alive] = np.cumsum(columns["_length"]) - columns["_length"]
        self._free, self._started = state["free"], state["started"]
        self._pending = [(int(points.time.min()), points) for points in state["pending"]]
        self._watermark = max(self._watermark, state["watermark"])

    def late(self, stream: Ints, start: Ints, time: Ints) -> tuple[Mask, Mask]:
        """Which points come too late, and which of these only repeat the last point of their stream."""
        late = time <= self._watermark
        repeated = late & (time == self._time[stream]) & (start == self._start[stream])
        return late & ~repeated, repeated

    def crowded(self, stream: Ints) -> Mask:
        """Which points of a request are more of one stream than may wait."""
        order = np.argsort(stream, kind="stable")
        before = np.empty_like(stream)
        before[order] = _ranks(stream[order])
        return self._waiting[stream] + before >= MAX_WAITING

    def push(self, points: Points, now: int) -> None:
        """Put points into the reorder buffer."""
        if len(points):
            self._touched[points.stream] = now
            np.add.at(self._waiting, points.stream, 1)
            self._pending.append((int(points.time.min()), points))

    def apply(self, watermark: int) -> Applied | None:
        """Apply all points up to `watermark`, in the order of time; None when there are none."""
        self._watermark = max(self._watermark, watermark)
        due: list[Points] = []
        waiting: list[tuple[int, Points]] = []
        for earliest, points in self._pending:
            if earliest > self._watermark:
                waiting.append((earliest, points))
                continue
            now = points.time <= self._watermark
            due.append(points.take(np.flatnonzero(now)))
            if not now.all():
                later = points.take(np.flatnonzero(~now))
                waiting.append((int(later.time.min()), later))
        self._pending = waiting
        return self._apply(_ordered(concatenate(due))) if due else None

    def _apply(self, points: Points) -> Applied:
        np.subtract.at(self._waiting, points.stream, 1)
        self._note_resources(points)
        counts: Counter[str] = Counter()
        rounds = [self._round(points.take(which), counts) for which in _rounds(points.stream)]
        increments, initial, overlapping, relaid = zip(*rounds, strict=True)
        return Applied(
            concatenate(increments), concatenate(initial), counts, _distinct(overlapping), _distinct(relaid)
        )

    def _note_resources(self, points: Points) -> None:
        np.minimum.at(self._resource_seen, self._resource[points.stream], points.time)

    def _round(self, points: Points, counts: Counter[str]) -> tuple[Points, Points, Ints, Ints]:
        """One point of each of many streams: increments, uncounted first points, streams with two writers, and
        with bounds that do not follow from their last."""
        s = points.stream
        start, time = self._start[s], self._time[s]
        fresh = time == _UNSEEN
        cumulative = points.temporality == CUMULATIVE
        switched = ~fresh & (self._temporality[s] != points.temporality)
        duplicate = ~fresh & ~switched & (points.start == start) & (points.time == time)
        older = ~fresh & ~switched & cumulative & (points.start < start)
        restart = ~fresh & ~switched & cumulative & (points.start > start)
        following = cumulative & ~(fresh | switched | duplicate | older | restart)
        difference, reset, relaid = self._difference(points, following)
        uncounted = cumulative & (switched | (fresh & ~self._counts_from_start(points)))
        delta = ~cumulative & ~fresh & ~switched & ~duplicate
        overlap = (
            older | (restart & (points.start < time)) | (delta & (points.start < time) & (points.start > 0))
        )
        fates = {"duplicate": duplicate, "overlap": overlap, "reset": reset, "restart": restart,
                 "gap": delta & (points.start > time), "initial": uncounted}  # fmt: skip
        counts.update({name: int(fate.sum()) for name, fate in fates.items() if fate.any()})
        self._remember(points.take(np.flatnonzero(~(duplicate | older))))
        added = replace(points, values=difference).take(
            np.flatnonzero(~(duplicate | older | reset | uncounted))
        )
        return added, points.take(np.flatnonzero(uncounted)), s[overlap], s[relaid]

    def _difference(self, points: Points, following: Mask) -> tuple[Ints, Mask, Mask]:
        """Values to add, where `following` continues its stream; which of these are resets, and which of those
        because their bounds changed."""
        values, offsets = points.values.copy(), np.cumsum(points.lengths) - points.lengths
        same = self._shape[points.stream] == points.shape
        which = np.flatnonzero(following & same)
        reset, relaid = np.zeros(len(points), bool), np.zeros(len(points), bool)
        if len(which):
            lengths = points.lengths[which]
            own = ragged(offsets[which], lengths)
            values[own] -= self._arena[ragged(self._offset[points.stream[which]], lengths)]
            reset[which] = np.minimum.reduceat(values[own], np.cumsum(lengths) - lengths) < 0
        for i in np.flatnonzero(following & ~same).tolist():
            base = self._base(int(points.stream[i]), int(points.shape[i]))
            added = values[offsets[i] : offsets[i] + points.lengths[i]]
            relaid[i] = base is None
            if base is not None:
                added -= base
            reset[i] = base is None or int(added.min()) < 0
        return values, reset, relaid

    def _base(self, stream: int, shape: int) -> Ints | None:
        """The last values of a stream on another shape; None when they cannot be said on it."""
        first = self._offset[stream]
        last = self._arena[first : first + self._length[stream]]
        return self._shapes.express(last, int(self._shape[stream]), shape)

    def _counts_from_start(self, points: Points) -> Mask:
        """Which first points of cumulative series count as they are."""
        young = (points.start >= self._started) & (points.time - points.start <= self._initial_max_age)
        seen = self._resource_seen[self._resource[points.stream]]
        return young | (points.time - seen > SAME_COLLECTION)

    def _remember(self, points: Points) -> None:
        s = points.stream
        moved = self._length[s] != points.lengths
        if moved.any():
            self._move(s[moved], points.lengths[moved])
        self._start[s], self._time[s] = points.start, points.time
        self._temporality[s], self._shape[s] = points.temporality, points.shape
        self._arena[ragged(self._offset[s], points.lengths)] = points.values

    def _move(self, streams: Ints, lengths: Ints) -> None:
        """Give streams new places in the arena."""
        self._length[streams] = 0
        needed = int(lengths.sum())
        if self._used + needed > len(self._arena):
            self._repack(needed)
        ends = self._used + np.cumsum(lengths)
        self._offset[streams], self._length[streams] = ends - lengths, lengths
        self._used = int(ends[-1])

    def _repack(self, room: int = 0) -> None:
        """Close the holes in the arena and leave `room` for more."""
        alive = self._alive()
        lengths = self._length[alive]
        kept = self._arena[ragged(self._offset[alive], lengths)]
        self._used = len(kept)
        self._arena = np.concatenate([kept, np.zeros(1024 + room + len(kept) // 2, np.int64)])
        self._offset[alive] = np.cumsum(lengths) - lengths

    def _alive(self) -> Ints:
        return np.fromiter(self._series, np.int64, len(self._series))

    def expire(self, before: int, *, senders: bool = False) -> list[int]:
        """Forget the streams that sent nothing since `before` (Unix ns of arrival); which they were.

        With `senders` only those whose whole resource sent nothing: a process that is gone.
        """
        alive = self._alive()
        touched = self._touched[alive]
        if senders:
            newest = np.zeros(len(self._resources), np.int64)
            np.maximum.at(newest, self._resource[alive], touched)
            touched = newest[self._resource[alive]]
        gone: list[int] = alive[(touched < before) & (self._waiting[alive] == 0)].tolist()
        for stream in gone:
            del self._index[self._series.pop(stream)]
            self._free.append(stream)
        if gone:
            self._repack()
            self._forget_resources()
        return gone

    def _forget_resources(self) -> None:
        """Keep only the resources that still have streams."""
        before, self._resources = self._resource_seen, {}
        self._resource_seen = np.full(len(before), _NEVER, np.int64)
        for stream, series in self._series.items():
            resource = self._resources.setdefault(series.resource, len(self._resources))
            self._resource_seen[resource] = before[self._resource[stream]]
            self._resource[stream] = resource


def _distinct(streams: Iterable[Ints]) -> tuple[int, ...]:
    return tuple(np.unique(np.concatenate(list(streams))).tolist())


def _ordered(points: Points) -> Points:
    """Sorted by stream, time and start; ties go by the sum of values: order of arrival never matters."""
    return points.take(np.lexsort((points.sums(), points.start, points.time, points.stream)))


def _rounds(stream: Ints) -> list[Ints]:
    """Positions of the first points of all streams, then of the second ones, …; `stream` is sorted."""
    rank = _ranks(stream)
    order = np.argsort(rank, kind="stable")
    return np.split(order, np.cumsum(np.bincount(rank))[:-1])


def _ranks(stream: Ints) -> Ints:
    """How many points of the same stream stand before each; `stream` is sorted."""
    first = np.flatnonzero(np.diff(stream, prepend=-1))
    return np.arange(len(stream)) - np.repeat(first, np.diff(first, append=len(stream)))
