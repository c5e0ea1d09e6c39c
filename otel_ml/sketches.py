"""What rows are reduced to: counts that add up. Every sketch knows its difference to an earlier copy of itself.

A `Series` is a sketch under a metric name and attributes; the `Ledger` holds every series of this process.
Exponential histograms follow the OpenTelemetry data model: bucket i at scale s holds (2**(i/2**s), 2**((i+1)/2**s)].
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Generic, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray
from opentelemetry.sdk.metrics import Exemplar

from .semconv import Metric

MAX_EXPONENTIAL_BUCKETS = 320
_MAX_SCALE = 20
_LARGEST = float(np.finfo(np.float64).max)


class Count:
    """A number of things."""

    __slots__ = ("value",)

    def __init__(self, value: int = 0) -> None:
        self.value = value

    def add(self, amount: int) -> None:
        self.value += amount

    def copy(self) -> Count:
        return Count(self.value)

    def minus(self, earlier: Count) -> Count:
        return Count(self.value - earlier.value)

    def clear(self) -> None:
        self.value = 0


class Buckets:
    """A histogram with fixed upper-inclusive bounds, shape (b,), and exact counts, shape (b + 1,)."""

    __slots__ = ("bounds", "counts", "exemplars", "sum")

    def __init__(self, bounds: NDArray[np.float64], *, with_sum: bool = False) -> None:
        self.bounds = bounds
        self.counts: NDArray[np.int64] = np.zeros(len(bounds) + 1, dtype=np.int64)
        self.sum: float | None = 0.0 if with_sum else None
        self.exemplars: dict[int, Exemplar] = {}
        """The last one of each bucket that was shown one; copies share them."""

    def add(self, values: NDArray[np.float64]) -> None:
        """Count finite `values` of shape (n,)."""
        below = np.sort(values).searchsorted(self.bounds, "right")  # a fifth of looking every value up
        self.add_below(below, len(values))
        if self.sum is not None:
            self.sum += float(values.sum())

    def add_below(self, below: NDArray[np.intp], rows: int) -> None:
        """Count `rows` values of which so many are <= each bound."""
        self.counts[:-1] += below
        self.counts[1:] -= below
        self.counts[-1] += rows

    def show(self, exemplar: Exemplar) -> None:
        """Keep `exemplar` as that of its bucket."""
        self.exemplars[int(self.bounds.searchsorted(exemplar.value))] = exemplar

    def copy(self) -> Buckets:
        twin = Buckets(self.bounds)
        twin.counts, twin.sum, twin.exemplars = self.counts.copy(), self.sum, self.exemplars
        return twin

    def minus(self, earlier: Buckets) -> Buckets:
        rest = self.copy()
        rest.counts -= earlier.counts
        if rest.sum is not None and earlier.sum is not None:
            rest.sum -= earlier.sum
        return rest

    def clear(self) -> None:
        self.counts[:] = 0
        self.sum = None if self.sum is None else 0.0
        self.exemplars.clear()


class Exponential:
    """An exponential histogram of finite values: bounds that need no baseline.

    The scale starts fine and is lowered until at most `MAX_EXPONENTIAL_BUCKETS` buckets span each sign.
    """

    __slots__ = ("negative", "positive", "scale", "zero")

    def __init__(self) -> None:
        self.scale = _MAX_SCALE
        self.zero = 0
        self.positive: dict[int, int] = {}
        self.negative: dict[int, int] = {}

    def add(self, values: NDArray[np.float64]) -> None:
        """Count finite `values` of shape (n,)."""
        self.zero += int(np.count_nonzero(values == 0))
        positive = np.log2(values[values > 0])
        negative = np.log2(-values[values < 0])
        while (
            max(self._span(self.positive, positive), self._span(self.negative, negative))
            > MAX_EXPONENTIAL_BUCKETS
        ):
            self._lower_scale()
        self._add_side(self.positive, positive)
        self._add_side(self.negative, negative)

    def _index(self, exponents: NDArray[np.float64]) -> NDArray[np.int64]:
        return np.ceil(np.ldexp(exponents, self.scale)).astype(np.int64) - 1

    def _span(self, side: dict[int, int], exponents: NDArray[np.float64]) -> int:
        if not exponents.size:
            return 0
        ends = self._index(np.array([exponents.min(), exponents.max()])).tolist()
        return int(max(ends[1], *side, ends[0]) - min(ends[0], *side, ends[1]) + 1)

    def _add_side(self, side: dict[int, int], exponents: NDArray[np.float64]) -> None:
        index, counts = np.unique(self._index(exponents), return_counts=True)
        for i, n in zip(index.tolist(), counts.tolist(), strict=True):
            side[i] = side.get(i, 0) + n

    def _lower_scale(self) -> None:
        self.scale -= 1
        self.positive, self.negative = _halved(self.positive), _halved(self.negative)

    def copy(self) -> Exponential:
        twin = Exponential()
        twin.scale, twin.zero = self.scale, self.zero
        twin.positive, twin.negative = dict(self.positive), dict(self.negative)
        return twin

    def minus(self, earlier: Exponential) -> Exponential:
        then = earlier.copy()
        while then.scale > self.scale:
            then._lower_scale()
        rest = Exponential()
        rest.scale, rest.zero = self.scale, self.zero - then.zero
        rest.positive = {i: n - then.positive.get(i, 0) for i, n in self.positive.items()}
        rest.negative = {i: n - then.negative.get(i, 0) for i, n in self.negative.items()}
        return rest

    def clear(self) -> None:
        self.scale, self.zero, self.positive, self.negative = _MAX_SCALE, 0, {}, {}


def _halved(side: dict[int, int]) -> dict[int, int]:
    coarse: dict[int, int] = {}
    for index, count in side.items():
        coarse[index >> 1] = coarse.get(index >> 1, 0) + count
    return coarse


Sketch = Count | Buckets | Exponential
S = TypeVar("S", bound=Sketch)


@dataclass(slots=True, eq=False)
class Series(Generic[S]):
    """A sketch with its place on the wire."""

    metric: Metric
    attributes: Mapping[str, str]
    start: int
    """Unix nanoseconds of the collection before the first row."""
    sketch: S


class Ledger:
    """Every series of this process, by metric and attributes."""

    def __init__(self, now: int) -> None:
        self._series: dict[tuple[str, frozenset[tuple[str, str]]], Series[Any]] = {}
        self.mark = now
        """Unix nanoseconds of the last collection: where a series that is new now starts."""

    def __iter__(self) -> Iterator[Series[Any]]:
        return iter(list(self._series.values()))

    def get(self, metric: Metric, attributes: Mapping[str, str], empty: S) -> Series[S]:
        """The series of `metric` and `attributes`, made from `empty` when it is new."""
        key = (metric.name, frozenset(attributes.items()))
        found = self._series.get(key)
        if found is None:
            found = self._series[key] = Series(metric, dict(attributes), self.mark, empty)
        return found

    def count(self, metric: Metric, attributes: Mapping[str, str], amount: int) -> None:
        """Add `amount` to a counter."""
        self.get(metric, attributes, Count()).sketch.add(amount)

    def restart(self, now: int) -> None:
        """Start every series at zero: a forked child must not report what its parent counted."""
        self.mark = now
        for series in self:
            series.start = now
            series.sketch.clear()


@dataclass(frozen=True, slots=True)
class Probes:
    """Where one numeric feature is cut: its bounds, and the limits beyond which a value is out of range."""

    bounds: NDArray[np.float64]
    cuts: NDArray[np.float64]
    """-inf, the bounds, the largest float, +inf: ascending. Then just under the lower limit, the upper limit."""

    @classmethod
    def of(cls, bounds: NDArray[np.float64], limits: tuple[float, float]) -> Probes:
        low, high = np.nextafter(limits[0], -np.inf), limits[1]
        return cls(bounds, np.concatenate([[-np.inf], bounds, [_LARGEST, np.inf, low, high]]))

    def below(self, column: NDArray[np.float64]) -> NDArray[np.int64]:
        """The number of values <= each cut, of a sorted column with its NaNs last.

        Differences of neighbours are the counts of (lo, hi] buckets: one binary search a cut, at a cost that
        hardly depends on the number of bounds.
        """
        return column.searchsorted(self.cuts, "right")


class Counted(NamedTuple):  # one a column and drain: a third of what a frozen dataclass takes
    """One numeric column as counts."""

    buckets: NDArray[np.int64]
    """(b + 1,) every finite value, whatever its state."""
    finite: int
    missing: int
    non_finite: int
    out_of_range: int


def counted(below: NDArray[np.int64], rows: int) -> Counted:
    """Counts from `Probes.below`, which may be summed over several columns."""
    finite, valid, under, upto = below[-4:].tolist()
    negative = below.item(0)
    return Counted(
        below[1:-3] - below[:-4],
        finite - negative,
        rows - valid,
        negative + valid - finite,
        max(under - negative, 0) + max(finite - upto, 0),
    )
