"""Increments out of points: what each stream adds to the counts, whatever order its points came in.

A stream is one series of one sender. Points wait in a reorder buffer until the watermark passes their time
and are then applied in the order of time, so that any reorder within the lateness, any duplication and any
interleaving of streams gives the same increments.

Cumulative points are differenced. Same start and no smaller bucket: the difference counts, on the new bounds
if the old counts can be said on them exactly, as those of an exponential histogram always can. A newer start is
a restart and counts as it is. A smaller bucket without a newer start, or bounds that cut filled buckets, are a
reset: it counts nothing and becomes the new base. Delta points count as they are, once for each (start, time).

State lies in arrays over all streams and in one arena of last values. Points that only go on from the last of
their stream are applied all at once. Of the others a round applies one point of many streams, and there are as many
rounds as the busiest stream has points.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import ItemsView, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np

from .layouts import Shapes
from .points import CUMULATIVE, Attributes, Series
from .ragged import Ints, Mask, Points, blocks, concatenate, ordered, ragged, ranks, rounds

SAME_COLLECTION = 1_000_000_000
"""Series of one process whose first points are closer than this (ns) come from the same collection."""

MAX_WAITING = 1024
"""Points of one stream that may wait: a round applies one of each, so this bounds the rounds."""

_COLUMNS = (
    "_start", "_time", "_temporality", "_shape", "_resource", "_offset", "_length", "_touched", "_waiting",
)  # fmt: skip
_BLOCK = 2**16
"""Values that are worked on at a time: what the processor's cache holds."""
_NONE = np.empty(0, np.int64)
_UNSEEN = -1
_NEVER = np.iinfo(np.int64).max


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


_Part = tuple[Points, Points, Ints, Ints]
"""Increments, uncounted first points, streams with two writers, and with bounds that do not follow."""


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
        self._pending_values = 0
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
        return self._pending_values

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
        """For `restore`."""
        alive = self._alive()
        return {
            "streams": alive,
            "resources": list(self._resources),
            "resource_seen": self._resource_seen[: len(self._resources)],
            "series": partial(_kinds, list(self._series.values())),
            "columns": {name: getattr(self, name)[alive] for name in _COLUMNS},
            "values": self._arena[: self._used],
            "free": self._free,
            "pending": [points for _, points in self._pending],
            "watermark": self._watermark,
            "started": self._started,
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Be as when `state` was taken."""
        alive, columns, series = state["streams"], state["columns"], state["series"]
        self._grow(max(len(alive) + len(state["free"]), len(state["resources"])))
        for name in _COLUMNS:
            getattr(self, name)[alive] = columns[name]
        self._resources = {resource: i for i, resource in enumerate(state["resources"])}
        self._resource_seen[: len(self._resources)] = state["resource_seen"]
        self._series = {
            stream: Series(state["resources"][resource], *series["kinds"][kind])
            for stream, resource, kind in zip(
                alive.tolist(), columns["_resource"].tolist(), series["kind"].tolist(), strict=True
            )
        }
        self._index = {series: stream for stream, series in self._series.items()}
        self._arena, self._used = state["values"], len(state["values"])
        self._free, self._started = state["free"], state["started"]
        self._pending = [(int(points.time.min()), points) for points in state["pending"]]
        self._pending_values = sum(len(points.values) for points in state["pending"])
        self._watermark = state["watermark"]

    def late(self, stream: Ints, start: Ints, time: Ints) -> tuple[Mask, Mask]:
        """Which points come too late, and which of these only repeat the last point of their stream."""
        late = time <= self._watermark
        repeated = late & (time == self._time[stream]) & (start == self._start[stream])
        return late & ~repeated, repeated

    def crowded(self, stream: Ints) -> Mask:
        """Which points of a request are more of one stream than may wait."""
        if len(stream) and self._waiting[stream].max() + len(stream) <= MAX_WAITING:
            return np.zeros(len(stream), bool)
        order = np.argsort(stream, kind="stable")
        before = np.empty_like(stream)
        before[order] = ranks(stream[order])
        return self._waiting[stream] + before >= MAX_WAITING

    def push(self, points: Points, now: int) -> None:
        """Put points into the reorder buffer."""
        if len(points):
            self._touched[points.stream] = now
            np.add.at(self._waiting, points.stream, 1)
            self._pending.append((int(points.time.min()), points))
            self._pending_values += len(points.values)

    def apply(self, watermark: int) -> Iterator[Applied]:
        """Apply all points up to `watermark`, in the order of time, some streams at a time; to be taken to its end."""
        self._watermark = max(self._watermark, watermark)
        due: list[Points] = []
        waiting: list[tuple[int, Points]] = []
        for earliest, points in self._pending:
            if earliest > self._watermark:
                waiting.append((earliest, points))
                continue
            now = points.time <= self._watermark
            due.append(points.where(now))
            if not now.all():
                later = points.where(~now)
                waiting.append((int(later.time.min()), later))
        self._pending = waiting
        if due:
            points = concatenate(due)
            self._pending_values -= len(points.values)
            np.subtract.at(self._waiting, points.stream, 1)
            self._note_resources(points)
            yield from map(self._apply, blocks(points, ordered(points), _BLOCK))

    def _apply(self, points: Points) -> Applied:
        counts: Counter[str] = Counter()
        increments, initial, overlapping, relaid = zip(*self._block(points, counts), strict=True)
        return Applied(
            concatenate(increments), concatenate(initial), counts, _distinct(overlapping), _distinct(relaid)
        )

    def _block(self, points: Points, counts: Counter[str]) -> Iterator[_Part]:
        """All points of some streams, ordered: those of streams that go on as usual at once, the others in rounds."""
        steady = self._steady(points)
        for length in np.unique(points.lengths[steady]).tolist():
            which = steady & (points.lengths == length)
            added, fell = self._risen(points.where(which))
            steady[np.flatnonzero(which)[fell]] = False
            if len(added):
                yield added, points.take(_NONE), _NONE, _NONE
        others = points.where(~steady)
        for which in rounds(others.stream):
            yield self._round(others.take(which), counts)

    def _steady(self, points: Points) -> Mask:
        """Points of cumulative streams that all go on from the last one: the same start and bounds, a later time."""
        s, first = points.stream, _first(points.stream)
        last = np.where(first, self._time[s], np.roll(points.time, 1))
        goes_on = (points.temporality == CUMULATIVE) & (self._temporality[s] == CUMULATIVE)
        goes_on &= (last != _UNSEEN) & (points.time > last)
        goes_on &= (points.start == self._start[s]) & (points.shape == self._shape[s])
        return _of_whole_streams(goes_on, first)

    def _risen(self, points: Points) -> tuple[Points, Mask]:
        """What points add that go on from the last ones of their streams, which all have as many values; and which
        of them are of streams of which a value fell: of these nothing was added."""
        first, length = _first(points.stream), points.lengths[0]
        values = points.values.reshape(-1, length)
        added = np.empty_like(values)
        np.subtract(values[1:], values[:-1], out=added[1:])
        begins = self._offset[points.stream[first]]
        added[first] = values[first] - self._arena[begins[:, None] + np.arange(length)]
        rose = _of_whole_streams(added.min(axis=1) >= 0, first)
        last = np.roll(first, -1) & rose
        s = points.stream[last]
        self._time[s] = points.time[last]
        self._arena[self._offset[s][:, None] + np.arange(length)] = values[last]
        return replace(points, values=added.ravel()).where(rose), ~rose

    def _note_resources(self, points: Points) -> None:
        np.minimum.at(self._resource_seen, self._resource[points.stream], points.time)

    def _round(self, points: Points, counts: Counter[str]) -> _Part:
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


def _first(stream: Ints) -> Mask:
    """Which points are the first of their streams; `stream` is sorted."""
    first: Mask = np.diff(stream, prepend=-1) != 0
    return first


def _of_whole_streams(holds: Mask, first: Mask) -> Mask:
    """Where it holds for all points of the stream; `first` as from `_first`."""
    if holds.all():
        return holds
    begins = np.flatnonzero(first)
    everywhere = np.logical_and.reduceat(holds, begins)
    spread: Mask = np.repeat(everywhere, np.diff(begins, append=len(first)))
    return spread


def _kinds(series: Sequence[Series]) -> dict[str, object]:
    """What identifies series beside their resource; what many have in common is said once."""
    known = dict[tuple[object, ...], int]()
    kind = [known.setdefault((one.scope, one.metric, one.attributes, one.kind), len(known)) for one in series]
    return {"kinds": list(known), "kind": np.array(kind, np.int64)}


def _distinct(streams: Iterable[Ints]) -> tuple[int, ...]:
    return tuple(np.unique(np.concatenate(list(streams))).tolist())
