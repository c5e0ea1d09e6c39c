"""What holds for every pair of count arrays."""

from __future__ import annotations

from math import isfinite

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as some

from otel_ml_collector import cells
from otel_ml_collector import statistics as st
from otel_ml_collector.drift import OPTIONAL_STATISTICS, Policy, Side, compare

BOUNDED = [st.ks, st.ks_upper, st.js, st.hellinger, st.total_variation]
DISTANCES = [*BOUNDED, st.psi, st.chi_square]

count = some.one_of(some.integers(0, 20), some.just(0), some.integers(0, 10**12))


@some.composite
def sides(draw: some.DrawFn) -> tuple[np.ndarray, np.ndarray]:
    """Two count arrays on the same cells, each with at least one row."""
    size = draw(some.integers(1, 30))
    arrays = [np.array(draw(some.lists(count, min_size=size, max_size=size)), np.int64) for _ in range(2)]
    for array in arrays:
        if not array.sum():
            array[draw(some.integers(0, size - 1))] = 1
    return arrays[0], arrays[1]


@pytest.mark.parametrize("statistic", DISTANCES)
@given(pair=sides())
@settings(max_examples=60, deadline=None)
def test_symmetric_finite_and_not_negative(statistic, pair) -> None:
    """Distances are finite, at least 0, at most 1 where bounded, and do not care which side is which."""
    a, c = pair
    value = statistic(a, c)
    assert isfinite(value)
    assert value >= 0
    assert statistic(c, a) == pytest.approx(value, rel=1e-9, abs=1e-12)
    if statistic in BOUNDED:
        assert value <= 1


@pytest.mark.parametrize("statistic", [s for s in DISTANCES if s is not st.ks_upper])
@given(pair=sides(), factor=some.integers(1, 1000))
@settings(max_examples=40, deadline=None)
def test_zero_for_proportional_counts(statistic, pair, factor) -> None:
    """Nothing is far from a multiple of itself."""
    a = pair[0]
    assert statistic(a, a * factor) == pytest.approx(0, abs=1e-7)


@given(pair=sides())
@settings(max_examples=60, deadline=None)
def test_coarser_cells_never_show_more(pair) -> None:
    """Adding up cells cannot raise KS or total variation, and ks stays below ks_upper."""
    a, c = pair
    groups = cells.psi_groups(a)
    A, C = cells.regroup(a, groups), cells.regroup(c, groups)
    assert (A.sum(), C.sum()) == (a.sum(), c.sum())
    assert st.ks(A, C) <= st.ks(a, c) + 1e-12
    assert st.total_variation(A, C) <= st.total_variation(a, c) + 1e-12
    assert st.ks(a, c) <= st.ks_upper(a, c) <= st.ks_upper(A, C) + 1e-12


@given(pair=sides())
@settings(max_examples=60, deadline=None)
def test_pooled_cells_expect_five_rows(pair) -> None:
    """Every pooled cell expects 5 rows of the smaller side, unless all rows together do not."""
    a, c = pair
    groups = cells.pooled_groups(a, c)
    both = cells.regroup(a + c, groups)
    n, m = a.sum(), c.sum()
    assert both.sum() == n + m
    assert len(both) == 1 or (both * float(min(n, m)) / float(n + m)).min() >= 5 * (1 - 1e-12)


@given(
    pair=sides(),
    panes=some.integers(0, 5),
    states=some.lists(count, min_size=12, max_size=12),
    categorical=some.booleans(),
    scale=some.sampled_from([1e-300, 1.0, 1e306]),
)
@settings(max_examples=150, deadline=None)
def test_compare_gives_only_finite_numbers(pair, panes, states, categorical, scale) -> None:
    """Whatever the counts, states, bounds and panes, no number that leaves is inf or NaN."""
    a, c = pair
    bounds = None if categorical else np.arange(len(a) - 1) * (scale / 3)
    names = tuple(f"c{i}" for i in range(len(a))) if categorical else None
    split = np.stack([c // panes] * panes) if panes else None
    before, now = np.array(states, np.int64).reshape(2, 6)
    result = compare(
        Side(a, bounds, names, before),
        Side(c, bounds, names, now, split),
        Policy(statistics=OPTIONAL_STATISTICS),
    )
    numbers = [
        result.phi,
        result.phi_at_least,
        result.s,
        *(value for name, value in result.statistics.items() if "shift" not in name),
        *result.state_shares.values(),
        *result.state_effects.values(),
    ]
    chances = [*result.state_p_values.values(), *([] if result.p_value is None else [result.p_value])]
    assert all(isfinite(number) and number >= 0 for number in numbers)
    assert all(isfinite(value) for value in result.statistics.values())
    assert all(isfinite(step) for step in result.cusum_steps)
    assert all(0 <= p <= 1 for p in chances)
    assert {"psi", "psi.excess"} <= result.statistics.keys()
    assert ("ks" in result.statistics) == (not categorical)
