"""Points of known streams in columns: values of different lengths, one run after the other."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]
Mask = NDArray[np.bool_]


def ragged(offsets: Ints, lengths: Ints) -> Ints:
    """Indices of all elements of the runs at `offsets` of these `lengths`, one run after the other."""
    if _alike(lengths):
        return (offsets[:, None] + np.arange(lengths[0])).ravel()
    ends = np.cumsum(lengths)
    total = int(ends[-1]) if len(ends) else 0
    return np.repeat(offsets - (ends - lengths), lengths) + np.arange(total)


def _alike(lengths: Ints) -> bool:
    """Whether the runs are the rows of a matrix, on which numpy is several times as fast."""
    return len(lengths) > 0 and bool((lengths == lengths[0]).all())


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
        lengths = self.lengths[which]
        if _alike(self.lengths):
            values = self.values.reshape(-1, self.lengths[0])[which].ravel()
        else:
            offsets = np.cumsum(self.lengths) - self.lengths
            values = self.values[ragged(offsets[which], lengths)]
        return Points(
            self.stream[which], self.start[which], self.time[which], self.temporality[which],
            self.shape[which], lengths, values,
        )  # fmt: skip

    def where(self, mask: Mask) -> Points:
        """The points for which it holds."""
        return self if mask.all() else self.take(np.flatnonzero(mask))

    def sums(self) -> Ints:
        """Sum of the values of each point."""
        if _alike(self.lengths):
            sums: Ints = self.values.reshape(-1, self.lengths[0]).sum(axis=1)
            return sums
        return (
            np.add.reduceat(self.values, np.cumsum(self.lengths) - self.lengths)
            if len(self)
            else self.lengths
        )


def concatenate(parts: Sequence[Points]) -> Points:
    """All points of `parts`, in order."""
    if len(parts) == 1:
        return parts[0]
    columns = zip(
        *((p.stream, p.start, p.time, p.temporality, p.shape, p.lengths, p.values) for p in parts),
        strict=True,
    )
    return Points(*(np.concatenate(column) for column in columns))


def ordered(points: Points) -> Ints:
    """Positions by stream, time and start; ties go by the sum of values: order of arrival never matters."""
    order = np.lexsort((points.time, points.stream))
    stream, time = points.stream[order], points.time[order]
    if ((stream[1:] == stream[:-1]) & (time[1:] == time[:-1])).any():
        return np.lexsort((points.sums(), points.start, points.time, points.stream))
    return order


def blocks(points: Points, order: Ints, size: int) -> Iterator[Points]:
    """The points in this order, about so many values at a time; those of a stream stay together."""
    stream, ends = points.stream[order], np.cumsum(points.lengths[order])
    begins = np.flatnonzero(np.diff(stream, prepend=-1))
    block = (ends[begins] - 1) // size
    first = begins[np.flatnonzero(np.diff(block, prepend=-1))]
    for which in np.split(order, first[1:]):
        yield points.take(which)


def rounds(stream: Ints) -> list[Ints]:
    """Positions of the first points of all streams, then of the second ones, …; `stream` is sorted."""
    rank = ranks(stream)
    order = np.argsort(rank, kind="stable")
    return np.split(order, np.cumsum(np.bincount(rank))[:-1])


def ranks(stream: Ints) -> Ints:
    """How many points of the same stream stand before each; `stream` is sorted."""
    first = np.flatnonzero(np.diff(stream, prepend=-1))
    return np.arange(len(stream)) - np.repeat(first, np.diff(first, append=len(stream)))
