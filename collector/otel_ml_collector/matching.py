"""Brings a reference and counts on other bounds to the same cells.

Where all bounds of the reference are edges of the counts, or the other way round, that is exact. Else the cells
end at the edges of the *counts* that lie nearest to the reference's bounds, measured in its distribution, and
the reference is evaluated there. Counts are never spread over cells they were not counted in: that looks like
drift where there is none (PSI 5 to 20), while the distribution function of the reference is smooth between its
bounds and known within 0.003. (But for an edge in a gap of the reference: there it may err by the share of one
cell, a twentieth.)

Counts on several layouts in one window are added up cell by cell. Each has its own edges near the common ones,
so the reference is the mean of what each of them should hold, weighted by their rows: equal when nothing drifts.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from otel_ml.histogram import Histogram

from . import cells

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Counted = tuple[Floats, NDArray[np.int64]]
"""Edges of one layout, and the counts (P, len(edges) + 1) of each pane on it."""

_GRIDS = (1.0, 10.0, 100.0)
"""Points to 1 of the grids that data is looked for on."""
_STEP = 2.0**-22
"""Bounds stand beside their values by no more than this, relatively."""
_TELLS_APART = 2.0**18
"""Up to here a bound beside a point of a grid cannot be any number."""


@dataclass(frozen=True, slots=True)
class Matched:
    """Both sides on the same bounds."""

    reference: Histogram
    panes: NDArray[np.int64]
    """(P, len(reference.bounds) + 1)"""
    exact: bool
    """False when the reference had to be evaluated between its bounds, or counts had no edge where it is known."""


def match(
    reference: Histogram, counted: Sequence[Counted], panes: int, *, quantiles: Floats | None = None
) -> Matched:
    """The reference and all that was counted, in `panes` panes, on common bounds; one layout or more.

    `quantiles` of the reference, where they are known, tell how it runs between its bounds and beyond them.
    """
    nested = _nested(reference, counted, panes)
    if nested is not None:
        return nested
    below = distribution(reference, quantiles)
    layouts = [_Layout.of(edges, counts, below(edges)) for edges, counts in counted if counts.any()]
    layouts.sort(key=lambda layout: (-layout.counts.sum(), layout.edges.tolist()))
    usable = [layout for layout in layouts if len(layout.edges)]
    # Some counts left out, or some of the reference evaluated between its bounds.
    exact, layouts = len(usable) == len(layouts), usable or layouts
    bounds, wanted = _common(layouts[0], reference)
    # Effective counts, of a decayed window, are no integers.
    total = np.zeros((panes, len(bounds) + 1), layouts[0].counts.dtype)
    shares = np.zeros(len(bounds))
    rows = sum(int(layout.counts.sum()) for layout in layouts)
    for layout in layouts:
        at = layout.nearest(bounds, wanted)
        total += _collapsed(layout.counts, at)
        shares += layout.levels[at] * (int(layout.counts.sum()) / rows)
        exact &= bool(np.isin(layout.edges[at], reference.bounds).all())
    cumulative = np.rint(shares * reference.total).astype(np.int64)
    known = np.diff(cumulative, prepend=0, append=reference.total)
    return Matched(Histogram(bounds, known), total, exact)


def _nested(reference: Histogram, counted: Sequence[Counted], panes: int) -> Matched | None:
    """Counts that all came on the reference's bounds, or on these and others; None when some did not."""
    total = np.zeros((panes, len(reference.counts)), np.int64)
    for edges, counts in counted:
        at = np.searchsorted(edges, reference.bounds)
        if not np.array_equal(np.append(edges, np.nan)[at], reference.bounds):
            if counts.any():
                return None
            continue
        # Effective counts, of a decayed window, are no integers.
        total = total + (_collapsed(counts, at) if len(edges) > len(at) else counts)
    return Matched(reference, total, True)


def _common(most: _Layout, reference: Histogram) -> tuple[Floats, Floats]:
    """Bounds that all layouts are brought near to, and the reference's distribution function there: edges of the
    layout with the most rows."""
    if not len(most.edges):
        return np.zeros(0), np.zeros(0)
    at = np.unique(most.nearest(reference.bounds, reference.cdf))
    return most.edges[at], most.levels[at]


@dataclass(frozen=True, slots=True)
class _Layout:
    """Counts between those of their edges at which the reference is known."""

    edges: Floats
    levels: Floats
    """The reference's distribution function at the edges."""
    counts: NDArray[np.int64]
    """(P, len(edges) + 1)"""

    @classmethod
    def of(cls, edges: Floats, counts: NDArray[np.int64], levels: Floats) -> _Layout:
        known = np.flatnonzero(~np.isnan(levels))
        return cls(edges[known], levels[known], _collapsed(counts, known))

    def nearest(self, bounds: Floats, wanted: Floats) -> Ints:
        """Position of the edge nearest to each bound: the bound itself, else by distribution function.

        `wanted` is the reference's distribution function at the bounds.
        """
        if not len(bounds):
            return np.zeros(0, np.int64)
        above = np.searchsorted(self.edges, bounds)
        under, above = np.maximum(above - 1, 0), np.minimum(above, len(self.edges) - 1)
        far, near = np.abs(self.levels[above] - wanted), np.abs(self.levels[under] - wanted)
        # Where the reference has nothing in between, the nearer one by value.
        closer = np.abs(self.edges[above] - bounds) < np.abs(self.edges[under] - bounds)
        take = (self.edges[above] == bounds) | (far < near) | ((far == near) & closer)
        return np.maximum.accumulate(np.where(take, above, under))


def _collapsed(counts: NDArray[np.int64], at: Ints) -> NDArray[np.int64]:
    """Counts (P, cells) between the edges at these positions, of which some may be the same."""
    below = np.cumsum(counts, axis=1)
    ends = np.concatenate([np.zeros_like(below[:, :1]), below[:, at], below[:, -1:]], axis=1)
    return np.diff(ends, axis=1)


def distribution(reference: Histogram, quantiles: Floats | None = None) -> Callable[[Floats], Floats]:
    """The reference's distribution function: exact at its bounds and monotone between them.

    `quantiles`, the inverted distribution function at equal steps from 0 to 1, leave it no more room than one
    step, and say where the smallest and the largest value lie. It is NaN beyond the outermost bounds as far as
    there is anything beyond, or may be.
    """
    between = _between(reference, quantiles)
    if quantiles is None:
        return between
    levels = np.concatenate([[0.0], np.linspace(0, 1, len(quantiles)), [1.0]])

    def below(at: Floats) -> Floats:
        passed = np.searchsorted(quantiles, at, "right")
        low, high = levels[passed], levels[passed + 1]
        known = np.where(low == high, low, np.clip(between(at), low, high))
        bound = np.searchsorted(reference.bounds, at)
        exact = np.append(reference.bounds, np.nan)[bound] == at
        return np.where(exact, np.append(reference.cdf, 1.0)[bound], known)

    return below


def _between(reference: Histogram, quantiles: Floats | None) -> Callable[[Floats], Floats]:
    """The distribution function, smooth between what is known of it.

    Values that stand alone in a cell are steps. The rest is a piecewise cubic (Fritsch and Carlson 1980). Of
    data on a grid, as whole numbers or hundredths, it is one over the points of the grid.
    """
    # Here: it takes 26 MB, and only bounds that are not the baseline's need it.
    from scipy.interpolate import PchipInterpolator

    if not len(reference.bounds):
        return lambda at: np.full(len(at), np.nan)
    grid = _grid(reference.bounds)
    knots, cdf = _knots(reference, quantiles, grid)
    single = np.diff(knots) == 1 if grid else cells.atoms(knots)[1:-1]
    values = (knots[1:] if grid else cells.single_values(knots))[single]
    steps = np.append(0.0, np.cumsum(np.diff(cdf)[single]))
    passed = np.append(0, np.cumsum(single))  # steps up to each knot
    keep = np.append(True, ~single)
    # On a grid a step is as wide as the grid: left out, so that the rest does not rise over it as well.
    width = 1 if grid else 0
    smooth = cdf - steps[passed]
    curve = PchipInterpolator((knots - width * passed)[keep], smooth[keep]) if keep.sum() > 1 else None

    def below(at: Floats) -> Floats:
        at = _on(grid, at)
        count = np.searchsorted(values, at, "right")
        known: Floats = steps[count] + (curve(at - width * count) if curve else smooth[0])
        known = np.where(at < knots[0], np.nan if cdf[0] else 0.0, known)
        return np.where(at > knots[-1], np.nan if cdf[-1] < 1 else 1.0, known)

    return below


def _knots(reference: Histogram, quantiles: Floats | None, grid: float) -> tuple[Floats, Floats]:
    """Where the distribution function is known, as numbers of points of a grid if there is one, and its values."""
    knots, cdf = _on(grid, reference.bounds), reference.cdf
    if quantiles is not None and not grid:  # on a grid all quantiles are steps
        at, levels = _told(reference, quantiles)
        order = np.argsort(np.append(knots, at), kind="stable")
        knots, cdf = np.append(knots, at)[order], np.append(cdf, levels)[order]
    apart = np.append(True, np.diff(knots) > 0)
    return knots[apart], cdf[apart]


def _told(reference: Histogram, quantiles: Floats) -> tuple[Floats, Floats]:
    """Quantiles between the bounds that stand alone, and the distribution function there.

    Of one that repeats only the range is known in which the distribution function jumps.
    """
    levels = np.linspace(0, 1, len(quantiles))
    cell = np.searchsorted(reference.bounds, quantiles)
    low, high = np.append(0.0, reference.cdf)[cell], np.append(reference.cdf, 1.0)[cell]
    inside = (cell > 0) & (cell < len(reference.bounds)) & ~np.isin(quantiles, reference.bounds)
    apart = np.diff(quantiles, prepend=-np.inf, append=np.inf) > 0
    told = inside & apart[:-1] & apart[1:] & ~cells.atoms(reference.bounds)[cell]
    told &= (low <= levels) & (levels <= high)
    return quantiles[told], levels[told]


def _grid(bounds: Floats) -> float:
    """How many points to 1 the grid has that all values lie on, as their bounds tell; 0 when there is none."""
    for points in _GRIDS:
        scaled = bounds * points
        beside = np.abs(scaled - np.rint(scaled))
        near = beside <= np.maximum(np.abs(scaled) * _STEP, 2.0**-100)
        if near.all() and (np.abs(scaled) < _TELLS_APART).all():
            return points
    return 0.0


def _on(grid: float, at: Floats) -> Floats:
    """The number of the last point of a grid that is not above; without a grid as it is."""
    if not grid:
        return at
    nearest = np.rint(at * grid)
    return nearest - (nearest / grid > at)
