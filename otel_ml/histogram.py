"""A histogram with fixed bounds and exact counts: what adds up over pods, panes and partitions."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .errors import BoundsMismatch


@dataclass(frozen=True, slots=True, eq=False)
class Histogram:
    """Counts of len(bounds) + 1 buckets; bucket i holds bounds[i-1] < x <= bounds[i]."""

    bounds: NDArray[np.float64]
    counts: NDArray[np.int64]

    def __post_init__(self) -> None:
        if len(self.counts) != len(self.bounds) + 1:
            raise BoundsMismatch(
                f"{len(self.bounds)} bounds need {len(self.bounds) + 1} counts, not {len(self.counts)}"
            )

    @property
    def total(self) -> int:
        """Number of values counted."""
        return int(self.counts.sum())

    @property
    def cdf(self) -> NDArray[np.float64]:
        """Share of the values at or below each bound; zeros when nothing was counted."""
        return np.cumsum(self.counts[:-1]) / max(self.total, 1)

    def __add__(self, other: Histogram) -> Histogram:
        """Both counted together. Raises `BoundsMismatch` unless the bounds are equal."""
        if not isinstance(other, Histogram):
            return NotImplemented
        if not np.array_equal(self.bounds, other.bounds):
            raise BoundsMismatch(
                f"histograms add up only on equal bounds, not {show(self.bounds)} and {show(other.bounds)}"
            )
        return Histogram(self.bounds, self.counts + other.counts)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Histogram):
            return NotImplemented
        return np.array_equal(self.bounds, other.bounds) and np.array_equal(self.counts, other.counts)

    __hash__ = None  # type: ignore[assignment]  # holds arrays

    def collapse(self, onto: NDArray[np.float64]) -> Histogram:
        """The same values on fewer bounds, exactly. `BoundsMismatch` unless all of `onto` are bounds here."""
        foreign = ~np.isin(onto, self.bounds)
        if foreign.any():
            raise BoundsMismatch(
                f"{show(self.bounds)} does not collapse onto {show(onto)}: "
                f"{onto[foreign][0]:.12g} is no bound of it"
            )
        below = np.cumsum(self.counts)[np.searchsorted(self.bounds, onto)]
        return Histogram(onto, np.diff(below, prepend=0, append=self.total))


def show(bounds: NDArray[np.float64]) -> str:
    """Bounds for an error message: the number of them and the outer ones."""
    if len(bounds) <= 4:
        return f"[{', '.join(f'{b:.12g}' for b in bounds)}]"
    return f"[{bounds[0]:.12g}, {bounds[1]:.12g}, … {bounds[-1]:.12g}] ({len(bounds)} bounds)"
