"""Buckets of exponential histograms as edges, and counts that move between edges exactly."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pointbatches import exponential

from otel_ml.binning import count
from otel_ml_collector import layouts
from otel_ml_collector.layouts import Exponential, Shapes, edges_of, express, filled

NUMBERS = st.integers(-(2**26), 2**26).map(lambda k: k / 64)
"""Not next to a power of the base: there the logarithm that senders take may round to the other side."""


def test_edges_are_powers_of_the_base_around_zero() -> None:
    """Negative buckets hold their lower end, so their edges stand one step below it; zero has its own bucket."""
    edges = Exponential(0, positive=(1, 3), negative=(-1, 1)).edges.tolist()
    below = [np.nextafter(-2.0, -9), np.nextafter(-1.0, -9), np.nextafter(-0.5, -9), np.nextafter(0.0, -9)]
    assert edges == [*below, 0.0, 2.0, 4.0, 8.0]


def test_a_zero_threshold_cuts_the_buckets_it_reaches_into() -> None:
    """What lies within it counts as zero, on both sides."""
    layout = Exponential(0, zero_threshold=3.0, positive=(0, 3), negative=(0, 3))
    under = [float(np.nextafter(-x, -9)) for x in (8.0, 4.0, 3.0)]
    assert layout.edges.tolist() == [*under, 3.0, 4.0, 8.0]


@pytest.mark.parametrize("scale", [-10, -3, 0, 5, 20])
def test_a_lower_scale_shares_its_edges_with_a_higher_one(scale: int) -> None:
    """Bit by bit, so that counts move down without an error."""
    positive, negative = ((0, 1), (0, 1)) if scale < 0 else ((3, 90), (3, 9))
    low = Exponential(scale, positive=positive, negative=negative)
    fine = Exponential(
        scale + 3, positive=(8 * positive[0], 8 * positive[1]), negative=(8 * negative[0], 8 * negative[1])
    )
    assert np.isin(low.edges, fine.edges).all()
    assert fine.lower().lower().lower() == low


@settings(max_examples=60, deadline=None)
@given(st.lists(NUMBERS, min_size=1, max_size=60), st.integers(8, 200))
def test_a_value_lies_in_the_bucket_that_its_edges_say(values: list[float], buckets: int) -> None:
    """Counting by powers and counting on the edges is the same, on every scale."""
    layout, counts = exponential(np.array(values), buckets)
    assert len(counts) <= buckets
    assert counts.tolist() == count(np.array(values), layout.edges).tolist()


@settings(max_examples=60, deadline=None)
@given(st.lists(NUMBERS, min_size=1, max_size=40), st.lists(NUMBERS, min_size=1, max_size=40))
def test_two_scales_add_up_exactly_on_a_common_one(a: list[float], b: list[float]) -> None:
    """Both said on common buckets are what all values counted together give, whoever comes first."""
    (first, in_first), (second, in_second) = exponential(np.array(a), 160), exponential(np.array(b), 40)
    both = first.together(second, 100)
    assert both == second.together(first, 100)
    moved = [
        express(counts, one.edges, both.edges) for one, counts in ((first, in_first), (second, in_second))
    ]
    assert all(one is not None for one in moved)
    assert sum(moved).tolist() == count(np.array(a + b), both.edges).tolist()  # type: ignore[arg-type]


def test_counts_move_to_edges_that_cut_no_filled_bucket() -> None:
    """Edges that are missing, or lie in empty buckets, are no obstacle; one in a filled bucket is."""
    old, counts = np.array([1.0, 2.0, 3.0]), np.array([[0, 4, 5, 0], [0, 1, 0, 0]])
    moved = express(counts, old, np.array([0.0, 2.0, 7.0]))
    assert moved is not None
    assert moved.tolist() == [[0, 4, 5, 0], [0, 1, 0, 0]]
    assert express(counts, old, np.array([1.5])) is None


@pytest.mark.parametrize(("index", "fits"), [(-1075, True), (1023, True), (-1076, False), (1024, False)])
def test_buckets_that_float64_does_not_have_are_refused(index: int, fits: bool) -> None:
    """From the smallest subnormal up to the largest number."""
    side, none = filled(index, [3]), filled(0, [])
    if fits:
        assert layouts.exponential(0, 0, none, side, buckets=9)[1].sum() == 3
    else:
        with pytest.raises(ValueError, match="beyond float64"):
            layouts.exponential(0, 0, none, side, buckets=9)


def test_equal_bounds_have_one_number() -> None:
    """Numbers are never used again; those of exponential histograms are negative."""
    shapes = Shapes()
    explicit, base = shapes.of((1.0, 2.0)), shapes.of(Exponential(1, positive=(0, 2)))
    assert (shapes.of(()), shapes.of((1.0, 2.0)), shapes.of(Exponential(1, positive=(0, 2)))) == (
        0,
        explicit,
        base,
    )
    assert base < 0 < explicit
    shapes.keep([base])
    assert len(shapes) == 2
    assert shapes.of((1.0, 2.0)) not in (0, explicit, base)
    assert edges_of(shapes[0]).tolist() == []


@settings(max_examples=60, deadline=None)
@given(
    st.lists(NUMBERS, min_size=1, max_size=40),
    st.lists(NUMBERS, min_size=1, max_size=40),
    st.sampled_from([0.0, 0.5, 100.0]),
)
def test_the_cells_of_buckets_are_where_counts_move(a: list[float], b: list[float], zero: float) -> None:
    """Bucket by bucket the same as the counts as a whole."""
    (first, counts), (second, _) = exponential(np.array(a), 160), exponential(np.array(b), 160)
    first, second = (dataclasses.replace(layout, zero_threshold=zero) for layout in (first, second))
    counts = count(np.array(a), first.edges)
    both = first.together(second, 60)
    moved = np.zeros(len(both) + 1, np.int64)
    np.add.at(moved, first.cells(both), counts)
    expected = express(counts, first.edges, both.edges)
    assert expected is not None
    assert moved.tolist() == expected.tolist()
