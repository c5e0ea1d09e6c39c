"""Bounds and counts: where values fall, and what atoms and precision do to it."""

from __future__ import annotations

import numpy as np
import pytest

from otel_ml import binning
from otel_ml.binning import count, cumulative_counts, kernel_bounds, ks_error, quantile_bounds

UNDER_ZERO = -(2.0**-126)


def test_a_bound_belongs_to_the_bucket_below_it() -> None:
    """Buckets are open below and closed above, as OpenTelemetry's are."""
    assert count(np.array([1.0, 1.5, 2.0, 2.5]), np.array([1.0, 2.0])).tolist() == [1, 2, 1]


def test_infinities_count_in_the_outer_buckets() -> None:
    """Minus infinity is in the first bucket and infinity in the last."""
    assert count(np.array([np.inf, -np.inf, np.inf]), np.array([0.0, 1.0])).tolist() == [1, 0, 2]


def test_untied_values_give_buckets_of_equal_size() -> None:
    """1 to 100 in twenty buckets is five in each, and no bound more."""
    values = np.random.default_rng(1).permutation(np.arange(1.0, 101.0))
    bounds = quantile_bounds(values)
    assert count(values, bounds).tolist() == [5] * 20


def test_deciles_are_among_the_bounds_of_untied_values() -> None:
    """Every second of twenty buckets ends at a decile, so that both agree on what a decile is."""
    values = np.random.default_rng(2).normal(size=1003)
    deciles = [sorted(values)[-(-k * 1003 // 10) - 1] for k in range(1, 10)]
    above = [binning.edge_above(decile) for decile in deciles]
    assert above == quantile_bounds(values)[1::2].tolist()


def test_an_atom_has_a_bucket_of_its_own() -> None:
    """Half zeros: the zeros lie alone between two bounds, and the other values keep theirs."""
    values = np.concatenate([np.zeros(500), np.linspace(1, 2, 500)])
    bounds = quantile_bounds(values)
    assert kernel_bounds(bounds, np.float32)[:2].tolist() == [UNDER_ZERO, 0.0]
    assert count(values, bounds)[:2].tolist() == [0, 500]
    assert max(count(values, bounds)[2:]) <= 50


def test_an_atom_at_the_maximum_is_closed_on_both_sides() -> None:
    """A later value above it must not be taken for it."""
    bounds = quantile_bounds(np.concatenate([np.linspace(0, 1, 90), np.full(10, 3.0)]))
    assert count(np.full(10, 3.0), bounds)[-2:].tolist() == [10, 0]
    assert count(np.array([3.1]), bounds)[-1] == 1


@pytest.mark.parametrize("value", [0.0, 1.0, -7.5, 1e300, -1.7e308, 5e-324, 3.4028235e38])
def test_a_constant_is_told_apart_from_anything_else(value: float) -> None:
    """All of it lies in one bucket; a larger and a smaller value lie in others."""
    bounds = quantile_bounds(np.full(1000, value))
    step = max(abs(value), 1.0) * 1e-3
    where = [int(count(np.array([x]), bounds).argmax()) for x in (value - step, value, value + step)]
    assert where == [0, 1, 2]


def test_no_values_have_no_bounds() -> None:
    """Nothing, and nothing finite, are one bucket."""
    assert count(np.empty(0), quantile_bounds(np.empty(0))).tolist() == [0]
    assert len(quantile_bounds(np.array([np.nan, np.inf, -np.inf]))) == 0


def test_infinities_and_nan_do_not_move_the_bounds() -> None:
    """Only finite values decide."""
    values = np.arange(200.0)
    spoilt = np.concatenate([values, [np.nan, np.inf, -np.inf] * 20])
    assert quantile_bounds(values).tolist() == quantile_bounds(spoilt).tolist()


def test_the_same_number_computed_twice_is_one_atom() -> None:
    """0.3 and 0.1 + 0.2 share a bucket, in float64 as in float32."""
    values = np.concatenate([np.full(400, 0.3), np.full(100, 0.1 + 0.2), np.linspace(0.4, 1, 500)])
    bounds = quantile_bounds(values)
    assert count(values, bounds)[1] == 500
    assert count(values, bounds).tolist() == count(values.astype(np.float32), bounds).tolist()


def test_seconds_since_1970_keep_more_than_float32_can_tell() -> None:
    """One hour of timestamps is twenty buckets, though float32 knows 28 numbers there."""
    seconds = 1_700_000_000 + np.arange(3600.0)
    assert count(seconds, quantile_bounds(seconds)).tolist() == [180] * 20


def test_integers_at_the_middle_of_two_float32_numbers_fall_where_float32_puts_them() -> None:
    """Above 2**24 an odd integer is such a middle and rounds to even, up or down."""
    values = 2.0**24 + np.repeat([1.0, 3.0, 6.0, 9.0, 12.0], 20)
    bounds = quantile_bounds(values)
    assert count(values, bounds).tolist() == count(values.astype(np.float32), bounds).tolist()


def test_kernel_bounds_never_move_a_float32_value() -> None:
    """A float32 value is at or below the rounded bound exactly when it is at or below the bound."""
    bounds = np.sort(np.random.default_rng(3).normal(size=200))
    near = bounds.astype(np.float32)
    for values in (near, np.nextafter(near, np.float32(9)), np.nextafter(near, np.float32(-9))):
        expected = [sum(float(v) <= b for v in values) for b in bounds]
        assert expected == cumulative_counts(np.sort(values), bounds).tolist()


def test_integers_are_compared_with_the_bounds_as_they_are() -> None:
    """An integer column needs no conversion: 2 is below 2.5."""
    assert count(np.array([1, 2, 3]), np.array([2.5])).tolist() == [2, 1]


def test_ks_error_is_the_largest_share_that_is_no_atom() -> None:
    """Three quarters at one value cost nothing; the rest costs its bucket."""
    values = np.sort(np.concatenate([np.full(750, 5.0), np.linspace(6, 7, 250)]))
    assert ks_error(values, quantile_bounds(values)) == 0.05
    assert ks_error(values, np.array([5.5])) == 0.25
    assert ks_error(np.full(10, 5.0), np.empty(0)) == 0.0
