"""What the targets of a model are compared with, wherever it comes from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .evaluation import Target

Counts = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class ReferenceTarget:
    """Reference counts of one target: numeric (bounds, counts), categorical, or states alone."""

    bounds: tuple[float, ...] | None = None
    counts: Counts | None = None
    """(len(bounds) + 1,)"""
    quantiles: NDArray[np.float64] | None = None
    """The inverted distribution function at equal steps from 0 to 1; only files have it."""
    categories: Mapping[str, int] | None = None
    states: Counts | None = None
    """(6,) in the order of `semconv.STATES`."""
    loadings: tuple[tuple[str, float], ...] = ()
    """Of a projection its features with the largest ones, where known: they are not sent."""
    past: str = ""
    """Which of its own past it was made of: previous, rolling, seasonal or learned; "" of a baseline."""

    @property
    def rows(self) -> int:
        """Rows it was made from, as far as its counts tell."""
        cells = 0 if self.counts is None else int(self.counts.sum())
        named = sum(self.categories.values()) if self.categories else 0
        states = 0 if self.states is None else int(self.states.sum())
        return max(cells, named, states)


@dataclass(frozen=True, slots=True)
class Reference:
    """One baseline as the engine uses it."""

    id: str
    created: int
    """Unix ns."""
    rows: int
    targets: Mapping[Target, ReferenceTarget]
