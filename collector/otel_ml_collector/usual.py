"""Where everything stands in data points of the usual layouts, for many points at once.

Senders write fields in the order of their numbers, so nearly every point has one of two layouts:

    sum         start, time, value, attributes
    histogram   start, time, count, [sum], bucket counts, [bounds], attributes, [smallest, largest]
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .wirepoints import Kind

Ints = NDArray[np.int64]
Mask = NDArray[np.bool_]
Octets = NDArray[np.uint8]

_START, _TIME, _COUNT, _SUM, _INT = 0x11, 0x19, 0x21, 0x29, 0x31
_BUCKETS, _BOUNDS, _MIN, _MAX = 0x32, 0x3A, 0x59, 0x61
_OTHER_KIND, _SUM_KIND, _HISTOGRAM_KIND = 0, 1, 2
KINDS: Mapping[Kind, int] = {
    "sum": _SUM_KIND, "histogram": _HISTOGRAM_KIND, "exponential_histogram": _OTHER_KIND,
}  # fmt: skip
_TAGS = np.array([[0, 0, 0], [_START, _TIME, _INT], [_START, _TIME, _COUNT]], np.uint8)
"""Of the numbers that a point of each kind begins with."""
_HEAD = 27
"""Bytes of three numbers with their tags: start, time, and count or value."""
_EXTREMES = 18
"""Bytes of a smallest and a largest value with their tags."""
_BEHIND = bytes(32)
"""Put behind the data, so that a look ahead always finds something."""
NUMBERS = np.arange(_HEAD).reshape(3, 9)[:, 1:].ravel()
"""Where the bytes of the three numbers are in a point."""


@dataclass(frozen=True, slots=True)
class Extent:
    """(n,) where something begins in each point, and where it ends."""

    first: Ints
    last: Ints

    @property
    def sizes(self) -> Ints:
        """How many bytes."""
        return self.last - self.first

    def where(self, mask: Mask) -> Extent:
        """Empty where it does not hold."""
        return Extent(self.first * mask, self.last * mask)

    def relative(self, part: slice, start: int) -> Extent:
        """Those of some points, as seen from `start`; still empty where nothing is."""
        first, last = self.first[part], self.last[part]
        there = first < last
        return Extent((first - start) * there, (last - start) * there)

    def halves(self) -> tuple[Extent, Extent]:
        """All but the byte in the middle, which an extent that is empty has not."""
        there = self.first < self.last
        middle = (self.first + self.last) // 2
        return Extent(self.first, middle), Extent((middle + 1) * there, self.last)

    def at(self, data: bytes, i: int) -> bytes:
        """What stands there in point `i`."""
        return data[self.first[i] : self.last[i]]

    def of(self, data: bytes, start: int = 0) -> list[bytes]:
        """What stands there, seen from `start`."""
        first, last = (self.first + start).tolist(), (self.last + start).tolist()
        return [data[a:b] for a, b in zip(first, last, strict=True)]


@dataclass(frozen=True, slots=True)
class Layout:
    """Where everything is in points that have the usual layout; the others are empty."""

    points: Extent
    usual: Mask
    numbers: Ints
    """(n, 3)"""
    values: Extent
    bounds: Extent
    attributes: Extent
    tails: Extent
    """Bounds and attributes: what says which series a point is of."""
    sums: Extent
    extremes: Extent
    """Floats that nobody needs: the sum; the smallest and the largest value, with the tag between them."""


def layout_of(data: bytes, points: Extent, kind: Ints) -> Layout:
    """The layouts of these points of `data`. Whether attributes are nothing but that is not looked at."""
    octets = np.frombuffer(data + _BEHIND, np.uint8)
    last, is_sum = points.last, kind == _SUM_KIND
    usual = (points.sizes >= _HEAD) & (kind != _OTHER_KIND)
    head = octets[(points.first * usual)[:, None] + np.arange(_HEAD)].reshape(-1, 3, 9)
    usual &= (head[:, :, 0] == _TAGS[kind]).all(axis=1)
    after = (points.first + _HEAD) * usual
    histogram = usual & ~is_sum
    summed = histogram & (octets[after] == _SUM)
    after += 9 * summed
    counts, counts_sound = _packed(octets, after, last, _BUCKETS)
    bounds, bounds_sound = _packed(octets, counts.last, last, _BOUNDS)
    extremes = (octets[last - _EXTREMES] == _MIN) & (octets[last - 9] == _MAX)
    extremes &= histogram & (last - bounds.last >= _EXTREMES)
    sound = counts_sound & bounds_sound & (counts.sizes == bounds.sizes + 8) & (bounds.last <= last)
    usual &= is_sum | sound
    extremes &= usual
    values = Extent(np.where(is_sum, after - 8, counts.first), np.where(is_sum, after, counts.last))
    attributes = Extent(np.where(is_sum, after, bounds.last), last - _EXTREMES * extremes)
    return Layout(
        points,
        usual,
        np.ascontiguousarray(head[:, :, 1:]).view("<i8")[:, :, 0].astype(np.int64, copy=False),
        values.where(usual),
        bounds.where(usual & ~is_sum),
        attributes.where(usual),
        Extent(values.last, attributes.last).where(usual),
        Extent(after - 8, after).where(usual & summed),
        Extent(last - _EXTREMES + 1, last).where(extremes),
    )


def _packed(octets: Octets, at: Ints, last: Ints, tag: int) -> tuple[Extent, Mask]:
    """Packed numbers of eight bytes, empty where there are none; and where they are sound, if there are any."""
    there = (at < last) & (octets[at] == tag)
    low, high = octets[at + 1].astype(np.int64), octets[at + 2].astype(np.int64)
    long = low >= 0x80
    size = np.where(long, low & 0x7F | high << 7, low)
    first = at + 2 + long
    sound = ~there | ((first + size <= last) & (size % 8 == 0) & ~(long & (high >= 0x80)))
    filled = there & sound
    return Extent(np.where(filled, first, at), np.where(filled, first + size, at)), sound
