"""Buckets: where the bounds of a distribution lie, and how values are counted on them.

One rule everywhere, on the wire and in files: bucket i holds bounds[i-1] < x <= bounds[i] (OpenTelemetry's
upper-inclusive rule, `searchsorted(bounds, x, side="left")`). `np.histogram` differs.

The bounds are order statistics x(ceil(k*n/B)), k = 1 … B-1, taken in integer arithmetic, because np.quantile
rounds its ranks. A value that alone fills more than a bucket (an atom) gets a bucket of its own. Then for any
current data against reference data of n rows, KS measured at the bounds is at most KS, and KS is at most that
plus 1/B + 1/n: between two neighbouring bounds the reference moves by at most ceil(n/B) rows.

A bound stands not on the value itself but on the last float64 that float32 rounds to the same number:
training and serving differ in precision all the time, and the same data in float64, float32 or integers must
count the same. Data that float32 cannot tell apart (timestamps in seconds) keeps its exact bounds.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import DTypeLike, NDArray

Floats = NDArray[np.float64]
Counts = NDArray[np.int64]

BUCKETS = {"standard": 20, "fine": 200}
"""Buckets before atoms are split off, by resolution."""

_NOISE = 2.0**-44
"""Relative distance under which two values are one number computed twice (0.3 and 0.1 + 0.2)."""

_UNDER_ZERO = -float(np.finfo(np.float32).tiny)
"""Edge under an atom at zero: a subnormal one would collapse onto zero where those are flushed."""


def quantile_bounds(values: NDArray[np.number], buckets: int = 20) -> Floats:
    """Strictly ascending bounds that cut `values` into about `buckets` equal parts, atoms in their own.

    `values`: 1-D numbers; those that are not finite are left out. Returns up to 2 * `buckets` - 1 bounds,
    none for no values. Untied values give `buckets` - 1, when there are that many.
    """
    ordered = np.asarray(values, dtype=np.float64)
    ordered = np.sort(ordered[np.isfinite(ordered)])
    return sorted_bounds(ordered, buckets)


def sorted_bounds(ordered: Floats, buckets: int) -> Floats:
    """`quantile_bounds` of finite values that are sorted already."""
    n = len(ordered)
    if n == 0:
        return np.empty(0)
    ranks = -(-np.arange(1, buckets) * n // buckets)
    cuts = np.unique(ordered[ranks - 1])
    cuts = cuts[cuts < ordered[-1]]
    held = np.diff(ordered.searchsorted(cuts, "right"), prepend=0, append=n)
    crowded = held > -(-n // buckets)
    atoms = cuts[crowded[:-1]]
    if crowded[-1]:
        cuts, atoms = np.append(cuts, ordered[-1]), np.append(atoms, ordered[-1])
    with np.errstate(over="ignore", under="ignore"):
        edges = np.concatenate([_edges_above(cuts, ordered), _edges_below(atoms, ordered)])
    return np.unique(edges[np.isfinite(edges)])


def count(values: NDArray[np.number], bounds: Floats) -> Counts:
    """How many of `values` lie in each of the len(bounds) + 1 buckets.

    `values`: 1-D, no NaN; infinities count in the outer buckets.
    """
    return np.diff(cumulative_counts(np.sort(values), bounds), prepend=0, append=len(values))


def cumulative_counts(ordered: NDArray[np.number], bounds: Floats) -> Counts:
    """How many of the sorted values (no NaN) are <= each bound, compared in the precision of the values."""
    return ordered.searchsorted(kernel_bounds(bounds, ordered.dtype), "right").astype(np.int64)


def kernel_bounds(bounds: Floats, dtype: DTypeLike) -> NDArray[np.floating]:
    """The bounds to compare values of `dtype` with, so that no value changes its bucket by the comparison.

    For float32 and float16 the largest number of that type that is not above the bound; else the bounds.
    """
    dtype = np.dtype(dtype)
    if dtype.kind != "f" or dtype.itemsize >= 8:
        return bounds
    with np.errstate(over="ignore", under="ignore"):
        rounded = bounds.astype(dtype)
        return np.where(rounded > bounds, np.nextafter(rounded, np.array(-np.inf, dtype)), rounded)


def ks_error(ordered: Floats, bounds: Floats) -> float:
    """Largest share of the sorted finite values in one bucket, atoms aside: what KS at the bounds misses."""
    if len(ordered) == 0:
        return 0.0
    ends = np.append(ordered.searchsorted(bounds, "right"), len(ordered))
    starts = np.concatenate([[0], ends[:-1]])
    held = ends > starts
    mixed = differ(ordered[starts[held]], ordered[ends[held] - 1])
    return float(np.max((ends - starts)[held] * mixed, initial=0) / len(ordered))


def differ(lowest: Floats, highest: Floats) -> NDArray[np.bool_]:
    """Where a bucket whose values reach from `lowest` to `highest` holds more than one number: is no atom."""
    return highest / 2 - lowest / 2 > _NOISE / 2 * np.abs(highest)


def edge_above(value: float) -> float:
    """The last float64 that float32 rounds to the same number as `value`."""
    return float(_last_of_float32(np.array([value]))[0])


def edge_below(value: float) -> float:
    """The last float64 that float32 rounds to a number below that of `value`."""
    return float(_last_below_float32(np.array([value]))[0])


def _edges_above(values: Floats, ordered: Floats) -> Floats:
    """The wide edge, or the value itself where that would swallow another reference value."""
    edges = _last_of_float32(values)
    noise = values + _NOISE * np.abs(values)
    swallows = ordered.searchsorted(edges, "right") > ordered.searchsorted(np.minimum(noise, edges), "right")
    return np.where(swallows, values, edges)


def _edges_below(values: Floats, ordered: Floats) -> Floats:
    edges = _last_below_float32(values)
    noise = values - _NOISE * np.abs(values)
    swallows = ordered.searchsorted(np.maximum(noise, edges), "left") > ordered.searchsorted(edges, "right")
    return np.where(swallows, np.nextafter(values, -np.inf), edges)


def _last_of_float32(values: Floats) -> Floats:
    with np.errstate(over="ignore", under="ignore"):
        near = values.astype(np.float32)
        middle = _middle(near, np.nextafter(near, np.float32(np.inf)))
        edges = np.where(middle.astype(np.float32) == near, middle, np.nextafter(middle, -np.inf))
    return np.where(np.isfinite(middle), edges, values)


def _last_below_float32(values: Floats) -> Floats:
    with np.errstate(over="ignore", under="ignore"):
        near = values.astype(np.float32)
        below = np.nextafter(values, -np.inf)
        middle = _middle(np.nextafter(near, np.float32(-np.inf)), near)
        edges = np.where(middle.astype(np.float32) < near, middle, np.nextafter(middle, -np.inf))
    edges = np.where(near == 0, np.minimum(_UNDER_ZERO, below), edges)
    return np.where(np.isfinite(middle), edges, below)


def _middle(low: NDArray[np.float32], high: NDArray[np.float32]) -> Floats:
    return (low.astype(np.float64) + high.astype(np.float64)) / 2
