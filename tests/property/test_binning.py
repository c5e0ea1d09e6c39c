"""Bounds and counts hold for any data, judged by plain loops and by scipy."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.stats import ks_2samp

from otel_ml.binning import count, edge_above, edge_below, kernel_bounds, ks_error, quantile_bounds
from otel_ml.histogram import Histogram

Floats = NDArray[np.float64]

single = st.floats(width=32, allow_nan=False, allow_infinity=False)
tied = st.sampled_from([-3.0, 0.0, 0.5, 1.0, 1e-30, 16777216.0, 1e30])
samples = st.lists(st.one_of(single, tied), min_size=1, max_size=120).map(np.array)
buckets = st.sampled_from([2, 3, 10, 20])
decimals = st.lists(st.integers(-(10**6), 10**6), min_size=1, max_size=120).map(lambda xs: np.array(xs) / 100)


def in_loops(values: Floats, bounds: Floats) -> list[int]:
    """The bucket rule, (lo, hi], as it reads."""
    edges = [-math.inf, *bounds.tolist(), math.inf]
    first = [sum(x <= edges[1] for x in values)]
    return first + [sum(lo < x <= hi for x in values) for lo, hi in pairwise(edges[1:])]


@given(samples, samples, buckets)
@settings(max_examples=150, deadline=None)
def test_counts_equal_those_of_a_plain_loop(reference: Floats, current: Floats, b: int) -> None:
    """For values the bounds were made from, and for any others."""
    bounds = quantile_bounds(reference, b)
    for values in (reference, current):
        counts = count(values, bounds)
        assert in_loops(values, bounds) == counts.tolist()
        assert len(values) == counts.sum()


@given(samples, buckets)
@settings(max_examples=200, deadline=None)
def test_bounds_ascend_are_finite_and_few(values: Floats, b: int) -> None:
    """At most twice the buckets, however many atoms there are."""
    bounds = quantile_bounds(values, b)
    assert np.isfinite(bounds).all()
    assert (np.diff(bounds) > 0).all()
    assert len(bounds) <= 2 * b - 1


@given(samples, buckets)
@settings(max_examples=200, deadline=None)
def test_a_bucket_with_several_values_holds_no_more_than_its_part(values: Floats, b: int) -> None:
    """More than ceil(n / B) rows lie together only when they are one value."""
    bounds = quantile_bounds(values, b)
    where = np.searchsorted(bounds, values, side="left")
    for bucket in set(where.tolist()):
        inside = values[where == bucket]
        assert len(inside) <= math.ceil(len(values) / b) or len(set(inside.tolist())) == 1
    assert ks_error(np.sort(values), bounds) <= math.ceil(len(values) / b) / len(values)


@given(samples, samples, buckets)
@settings(max_examples=200, deadline=None)
def test_ks_at_the_bounds_brackets_the_exact_one(reference: Floats, current: Floats, b: int) -> None:
    """KS at the bounds is at most KS, and KS at most that plus 1/B + 1/n."""
    bounds = quantile_bounds(reference, b)
    f, g = (Histogram(bounds, count(values, bounds)).cdf for values in (reference, current))
    binned = float(np.max(np.abs(f - g), initial=0))
    # twice the rows: the distance is the same, and scipy's p-value (not used) is defined for one row too
    exact = float(ks_2samp(np.repeat(reference, 2), np.repeat(current, 2), method="asymp").statistic)
    assert binned <= exact + 1e-12
    assert exact <= binned + 1 / b + 1 / len(reference) + 1e-12


@given(decimals, st.booleans(), buckets)
@settings(max_examples=200, deadline=None)
def test_precision_does_not_move_a_value(values: Floats, trained_in_single: bool, b: int) -> None:
    """The same decimals in float64 and float32 count the same, whichever of them made the bounds."""
    single = values.astype(np.float32)
    bounds = quantile_bounds(single if trained_in_single else values, b)
    assert count(values, bounds).tolist() == count(single, bounds).tolist()
    assert count(single, bounds).tolist() == in_loops(single.astype(np.float64), bounds)


@given(st.lists(st.integers(-(2**24), 2**24), min_size=1, max_size=120).map(np.array), buckets)
@settings(max_examples=100, deadline=None)
def test_integers_count_like_their_floats(values: NDArray[np.int64], b: int) -> None:
    """int64, float64 and float32 columns of the same integers agree on every bucket."""
    bounds = quantile_bounds(values, b)
    counted = [count(values.astype(kind), bounds).tolist() for kind in (np.int64, np.float64, np.float32)]
    assert counted[0] == counted[1] == counted[2]


@given(samples, st.lists(single, min_size=1, max_size=50))
@settings(max_examples=100, deadline=None)
def test_kernel_bounds_decide_like_the_bounds(reference: Floats, values: list[float]) -> None:
    """x <= bound in float64 exactly when x <= kernel bound in float32."""
    bounds = quantile_bounds(reference)
    rounded = kernel_bounds(bounds, np.float32).astype(np.float64)
    for x in values:
        assert (x <= bounds).tolist() == (x <= rounded).tolist()


@given(st.lists(st.integers(0, 1000), min_size=4, max_size=4), st.data())
@settings(max_examples=100, deadline=None)
def test_collapsed_counts_are_those_counted_on_the_fewer_bounds(
    counts: list[int], data: st.DataObject
) -> None:
    """Nested bounds lose no value."""
    reference = data.draw(samples)
    bounds = quantile_bounds(reference)
    chosen = data.draw(st.lists(st.booleans(), min_size=len(bounds), max_size=len(bounds)))
    onto = bounds[np.array(chosen, dtype=bool)]
    fine = Histogram(bounds, count(reference, bounds))
    assert Histogram(onto, count(reference, onto)) == fine.collapse(onto)


@given(st.floats(-(2.0**126), 2.0**126, width=32))
@settings(max_examples=200, deadline=None)
def test_edges_are_the_last_of_their_float32_neighbourhood(value: float) -> None:
    """One float64 further rounds to another float32; zero has the smallest normal number under it."""
    above, below, single = edge_above(value), edge_below(value), np.float32(value)
    assert np.float32(above) == single < np.float32(np.nextafter(above, np.inf))
    assert np.float32(below) < single
    assert value == 0 or np.float32(np.nextafter(below, np.inf)) == single
