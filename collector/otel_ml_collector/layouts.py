"""Where the buckets of a histogram lie: on explicit bounds, or on powers of a base.

Both are ascending edges with buckets (edges[i - 1], edges[i]] between them and an open one at either end, so
that all that follows works on edges. An exponential histogram has these edges, base = 2 ** 2 ** -scale:

    … -base**(i + 1), -base**i …, -zero_threshold, zero_threshold, … base**i, base**(i + 1) …

Its negative buckets hold their lower end and not the upper one; the edges of that side stand one step further
down, which says the same. Two scales share every edge of the coarser one, bit by bit: i / 2**scale and
2i / 2**(scale + 1) are the same number. So counts move to a lower scale without an error.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import repeat
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Counts = NDArray[np.int64]
Range = tuple[int, int]
"""Index of the first bucket, and that behind the last; equal when there are none."""
Side = tuple[NDArray[np.int64], Counts]
"""Indices of buckets of one sign, and what they hold."""

MIN_SCALE, MAX_SCALE = -10, 20
"""What the OpenTelemetry data model allows: from one bucket for all numbers above 1 to base 1 + 7e-7."""

_UNKNOWN = np.iinfo(np.int64).min
"""No number of bounds."""
_EXPONENTS = (-1075, 1024)
"""Powers of two between which every float64 lies."""


@dataclass(frozen=True, slots=True)
class Exponential:
    """Buckets of an exponential histogram; `len` is the number of its finite edges."""

    scale: int
    zero_threshold: float = 0.0
    negative: Range = (0, 0)
    positive: Range = (0, 0)

    @property
    def edges(self) -> Floats:
        return _edges(self)

    def __len__(self) -> int:
        return len(self.edges)

    def lower(self) -> Exponential:
        """One scale down: neighbouring buckets become one."""
        return replace(
            self, scale=self.scale - 1, negative=_halved(self.negative), positive=_halved(self.positive)
        )

    def within(self, buckets: int) -> Exponential:
        """The finest scale at which it has no more than this many buckets, the open ones included."""
        fitting = self
        # Counted without the edges: a hostile range would be long.
        while fitting.scale > MIN_SCALE and fitting._most() > buckets:
            fitting = fitting.lower()
        return fitting

    def _most(self) -> int:
        return sum(stop - first + 1 for first, stop in (self.negative, self.positive)) + 3

    def together(self, other: Exponential, buckets: int) -> Exponential:
        """Buckets that hold both, of the same zero threshold, on the finest scale that `buckets` allow."""
        mine, its = self, other
        while mine.scale > its.scale:
            mine = mine.lower()
        while its.scale > mine.scale:
            its = its.lower()
        both = replace(
            mine,
            negative=_hull(mine.negative, its.negative),
            positive=_hull(mine.positive, its.positive),
        )
        return both.within(buckets)

    def cells(self, other: Exponential) -> NDArray[np.int32]:
        """(len + 1,) in which bucket of one that holds it, on its scale or a lower one, each bucket lies."""
        edges, its = self.edges, other.edges
        upper, beyond = np.searchsorted(its, edges), np.searchsorted(its, edges[-1:], "right")
        return np.append(upper, beyond).astype(np.int32)

    def place(self, scale: int, zero: int, negative: Side, positive: Side) -> Counts:
        """(len + 1,) counts on its edges, of buckets on `scale`, which is its own or a higher one."""
        edges, counts = self.edges, np.zeros(len(self) + 1, np.int64)
        counts[np.searchsorted(edges, self.zero_threshold)] = zero
        shift = scale - self.scale
        upper = _magnitudes(self, (positive[0] >> shift) + 1)
        np.add.at(counts, np.searchsorted(edges, upper), positive[1])
        upper = np.nextafter(-_magnitudes(self, negative[0] >> shift), -np.inf)
        np.add.at(counts, np.searchsorted(edges, upper), negative[1])
        return counts


Bounds = tuple[float, ...] | Exponential
"""Explicit bounds, () for a sum, or those of an exponential histogram."""


def edges_of(bounds: Bounds) -> Floats:
    """Ascending finite edges."""
    return bounds.edges if isinstance(bounds, Exponential) else np.array(bounds, np.float64)


def filled(offset: int, counts: Sequence[int]) -> Side:
    """The buckets that hold something: what a sender pads with must not change the layout."""
    array = np.array(counts, np.int64)
    indices = np.flatnonzero(array)
    return indices + offset, array[indices]


def exponential(
    scale: int, zero: int, negative: Side, positive: Side, *, buckets: int, zero_threshold: float = 0.0
) -> tuple[Exponential, Counts]:
    """Layout and counts (len + 1,) of an exponential histogram, on the finest scale that `buckets` allow.

    Raises `ValueError` for a scale or an index beyond what float64 has.
    """
    sent = Exponential(scale, zero_threshold, _range(negative), _range(positive))
    if not (MIN_SCALE <= scale <= MAX_SCALE and 0 <= zero_threshold < np.inf):
        raise ValueError(f"scale {scale} or zero threshold {zero_threshold} is out of range")
    if not (_representable(scale, sent.negative) and _representable(scale, sent.positive)):
        raise ValueError(f"buckets {sent.negative} and {sent.positive} on scale {scale} are beyond float64")
    layout = sent.within(buckets)
    return layout, layout.place(scale, zero, negative, positive)


def _range(side: Side) -> Range:
    indices, _ = side
    return (int(indices[0]), int(indices[-1]) + 1) if len(indices) else (0, 0)


def _representable(scale: int, buckets: Range) -> bool:
    """Whether float64 has numbers on both sides of every bucket."""
    low, high = (index / 2.0**scale for index in buckets)
    return buckets[0] == buckets[1] or (low >= _EXPONENTS[0] and high < _EXPONENTS[1] + 2.0**-scale)


def _halved(buckets: Range) -> Range:
    first, stop = buckets
    return (first >> 1, ((stop - 1) >> 1) + 1) if first < stop else (0, 0)


def _hull(a: Range, b: Range) -> Range:
    if a[0] == a[1] or b[0] == b[1]:
        return a if a[0] < a[1] else b
    return min(a[0], b[0]), max(a[1], b[1])


def _magnitudes(layout: Exponential, ends: NDArray[np.int64]) -> Floats:
    """Powers of the base, the zero threshold where that is larger; infinite where float64 ends."""
    with np.errstate(over="ignore", under="ignore"):
        powers: Floats = np.exp2(ends / 2.0**layout.scale)
    return np.maximum(powers, layout.zero_threshold)


def _ends(buckets: Range) -> NDArray[np.int64]:
    first, stop = buckets
    return np.arange(first, stop + 1 if first < stop else first, dtype=np.int64)


@lru_cache(maxsize=4096)
def _edges(layout: Exponential) -> Floats:
    zero = layout.zero_threshold
    negative = np.append(-_magnitudes(layout, _ends(layout.negative)), -zero)
    positive = _magnitudes(layout, _ends(layout.positive))
    edges = np.concatenate([np.nextafter(negative, -np.inf), [zero], positive])
    edges = np.unique(edges[np.isfinite(edges)])
    edges.flags.writeable = False
    return edges


def express(counts: Counts, old: Floats, new: Floats) -> Counts | None:
    """Counts (…, len(old) + 1) on other edges, exactly; None when an edge cuts a bucket that holds something."""
    cell = np.searchsorted(old, new)
    cuts = np.append(old, np.inf)[cell] != new
    if counts[..., cell[cuts]].any():
        return None
    below = np.cumsum(counts, axis=-1)
    ends = np.concatenate([np.zeros_like(below[..., :1]), below[..., cell], below[..., -1:]], axis=-1)
    return np.diff(ends, axis=-1)


class Shapes:
    """Bounds by number: equal bounds have one number, and a number is never used again.

    Numbers of exponential histograms are negative.
    """

    def __init__(self) -> None:
        self._numbers: dict[Bounds, int] = {(): 0}
        self._bounds: dict[int, Bounds] = {0: ()}
        self._known: dict[int, int] = {}
        """Numbers by the identity of bounds that `_bounds` holds."""
        self._given = 0

    def __len__(self) -> int:
        return len(self._bounds)

    def __getitem__(self, shape: int) -> Bounds:
        return self._bounds[shape]

    def numbers(self, bounds: Sequence[Bounds]) -> NDArray[np.int64]:
        """(n,) the number of each of these bounds."""
        # Decoders hand out the same object for the same bounds; its identity is much cheaper than its hash.
        found = np.fromiter(map(self._known.get, map(id, bounds), repeat(_UNKNOWN)), np.int64, len(bounds))
        for i in np.flatnonzero(found == _UNKNOWN).tolist():
            found[i] = self.of(bounds[i])
            self._know(bounds[i], int(found[i]))
        return found

    def _know(self, bounds: Bounds, shape: int) -> None:
        """Of equal bounds the newest object is the one that is known: identities last as long as it is held."""
        self._known.pop(id(self._bounds[shape]), None)
        self._bounds[shape] = bounds
        self._known[id(bounds)] = shape

    def of(self, bounds: Bounds) -> int:
        """The number of these bounds, given if need be."""
        shape = self._numbers.get(bounds)
        if shape is None:
            self._given += 1
            shape = -self._given if isinstance(bounds, Exponential) else self._given
            self._numbers[bounds], self._bounds[shape] = shape, bounds
        return shape

    def express(self, values: Counts, old: int, new: int) -> Counts | None:
        """Values of one shape on another, as the function of this name."""
        return express(values, edges_of(self._bounds[old]), edges_of(self._bounds[new]))

    def state(self) -> dict[str, object]:
        """For `restore`."""
        return {"bounds": self._bounds, "given": self._given}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Give the same numbers as when `state` was taken."""
        self._bounds, self._given = state["bounds"], state["given"]
        self._numbers = {bounds: shape for shape, bounds in self._bounds.items()}
        self._known.clear()

    def keep(self, used: Collection[int]) -> None:
        """Let go of all bounds but these."""
        kept = {0, *used}
        self._bounds = {shape: bounds for shape, bounds in self._bounds.items() if shape in kept}
        self._numbers = {bounds: shape for shape, bounds in self._bounds.items()}
        self._known.clear()
