"""The kernel counts in float32 what it can, and never differs from one comparison in float64 at a time."""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import count
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from otel_ml import kernel
from otel_ml.binning import edge_above, edge_below, quantile_bounds
from otel_ml.kernel import Kernel, blocks
from otel_ml.sketches import Probes, counted

Floats = NDArray[np.float64]

TINY = float(np.finfo(np.float32).tiny)
LARGEST = float(np.finfo(np.float32).max)
plain = st.floats(-100, 100)
atoms = st.sampled_from([-1.0, 0.0, 0.1, 0.5, 1.0, 2.0, 3.0, 16777216.0, 16777217.0])
small = [-0.0, 5e-324, -5e-324, 1e-300, 1e-40, -1e-40, 2.0**-150, TINY, -TINY, np.nextafter(-TINY, 0.0)]
large = [LARGEST, -LARGEST, 1e39, -1e39, 1.7e308, -1.7e308, math.inf, -math.inf]
odd = st.sampled_from([*small, *large, math.nan])
values = st.one_of(plain, atoms, odd)
references = st.lists(st.one_of(plain, atoms), min_size=1, max_size=40).map(np.array)
DTYPES = [np.dtype(code) for code in ("f8", "f4", "i8", "i4")]


def in_loops(column: Floats, cuts: Floats) -> list[int]:
    """How many values are <= each cut, one comparison at a time."""
    return [sum(value <= cut for value in column.tolist()) for cut in cuts.tolist()]


def near(cuts: Floats) -> Floats:
    """The cuts, what float32 makes of them, and the neighbours of both in float64 and in float32."""
    finite = cuts[np.abs(cuts) < LARGEST]
    short = finite.astype(np.float32)
    steps = [np.nextafter(short, np.float32(to)).astype(float) for to in (-np.inf, np.inf)]
    both = np.concatenate([finite, short.astype(float), *steps])
    return np.concatenate([both, np.nextafter(both, -np.inf), np.nextafter(both, np.inf)])


def matrix(draw: Any, dtype: np.dtype[Any], cuts: list[Floats]) -> NDArray[Any]:
    """A matrix with a column for each of `cuts`, many of its values at them."""
    rows = draw(st.integers(0, 25))
    columns = []
    for found in cuts:
        if dtype.kind == "i":
            info = np.iinfo(dtype)
            edges = [info.min, info.max, 2**24 + 1, 2**31 - 65]
            integers = st.one_of(st.integers(-5, 5), st.sampled_from(edges), st.integers(info.min, info.max))
            columns.append(draw(st.lists(integers, min_size=rows, max_size=rows)))
        else:
            both = st.one_of(values, st.sampled_from(near(found).tolist()))
            columns.append(draw(st.lists(both, min_size=rows, max_size=rows)))
    with np.errstate(all="ignore"):
        return np.array(columns, dtype=float if dtype.kind == "f" else dtype).T.astype(dtype)


@st.composite
def cases(draw: Any) -> tuple[list[Probes], list[NDArray[Any]]]:
    """Columns as a baseline has them, with foreign bounds or with allowed ranges, and some matrices for them."""
    probes = []
    for _ in range(draw(st.integers(1, 4))):
        bounds = quantile_bounds(draw(references), draw(st.sampled_from([2, 5, 20])))
        if draw(st.booleans()):
            bounds = np.unique(draw(st.lists(st.one_of(plain, atoms), max_size=8)))
        limits = sorted(draw(st.tuples(plain, plain)))
        if draw(st.booleans()):
            limits = [float(np.nextafter(edge_below(limits[0]), np.inf)), edge_above(limits[1])]
        probes.append(Probes.of(np.asarray(bounds, dtype=float), (limits[0], limits[1])))
    dtype = draw(st.sampled_from(DTYPES))
    cuts = [found.cuts for found in probes]
    return probes, [matrix(draw, dtype, cuts) for _ in range(draw(st.integers(1, 4)))]


@given(cases(), st.sampled_from([1, 64, 256, 2**19]))
@settings(max_examples=250, deadline=None)
def test_counts_equal_one_comparison_at_a_time(
    case: tuple[list[Probes], list[NDArray[Any]]], size: int
) -> None:
    """For every dtype, in blocks of any size, at bounds wherever they stand and for values on both sides of them."""
    probes, parts = case
    with patch.object(kernel, "_BLOCK_BYTES", size):
        found = Kernel(dict(enumerate(probes))).below(parts)
    together = np.concatenate([part.astype(float) for part in parts])
    for place, (probe, column) in enumerate(zip(probes, together.T, strict=True)):
        assert in_loops(column, probe.cuts) == found[place].tolist()


@given(cases())
@settings(max_examples=100, deadline=None)
def test_buckets_and_states_equal_one_value_at_a_time(case: tuple[list[Probes], list[NDArray[Any]]]) -> None:
    """Every finite value is in one bucket, (lo, hi]; what is not finite and what is missing is told apart."""
    probes, parts = case
    found = Kernel(dict(enumerate(probes))).below(parts)
    together = np.concatenate([part.astype(float) for part in parts])
    for place, (probe, column) in enumerate(zip(probes, together.T, strict=True)):
        finite = column[np.isfinite(column)]
        expected = [0] * (len(probe.bounds) + 1)
        for value in finite.tolist():
            expected[sum(value > bound for bound in probe.bounds.tolist())] += 1
        result = counted(found[place], len(column))
        assert expected == result.buckets.tolist()
        assert (len(finite), np.isnan(column).sum(), np.isinf(column).sum()) == (
            result.finite, result.missing, result.non_finite,
        )  # fmt: skip


@given(cases())
@settings(max_examples=60, deadline=None)
def test_only_the_asked_places_are_counted(case: tuple[list[Probes], list[NDArray[Any]]]) -> None:
    """Columns between them, of another kind, are passed over."""
    probes, parts = case
    spread = [np.repeat(part, 2, axis=1) for part in parts]
    found = Kernel({2 * place: probe for place, probe in enumerate(probes)}).below(spread)
    together = Kernel(dict(enumerate(probes))).below(parts)
    assert {2 * place: counts.tolist() for place, counts in together.items()} == {
        place: counts.tolist() for place, counts in found.items()
    }


def test_large_integers_count_as_the_float64_that_they_become() -> None:
    """An int64 just over a bound in the middle between two float32 is rounded onto it, as everywhere else."""
    bound = 2**60 + 2**36
    column = np.array([[bound - 1], [bound], [bound + 1], [bound + 2**9]])
    assert edge_above(2.0**60) == float(bound)
    probes = Probes.of(np.array([float(bound)]), (-1e30, 1e30))
    below = Kernel({0: probes}).below([column])[0]
    assert counted(below, 4).buckets.tolist() == [3, 1]


@pytest.mark.parametrize("flushed", [False, True])
def test_subnormal_numbers_are_counted_also_where_float32_loses_them(flushed: bool) -> None:
    """A thread that takes subnormal float32 for zero counts in float64."""
    column = np.array([[0.0], [1e-40], [-1e-40], [2.0**-150], [5e-324]])
    probes = Probes.of(np.array([edge_below(0.0), edge_above(0.0)]), (-1.0, 1.0))
    with patch.object(kernel, "_flushes_subnormals", lambda: flushed):
        assert in_loops(column[:, 0], probes.cuts) == Kernel({0: probes}).below([column])[0].tolist()


def test_columns_with_bounds_of_a_baseline_need_no_second_look() -> None:
    """The bounds stand where float32 begins to differ: continuous data and atoms are counted in float32 alone."""
    rng = np.random.default_rng(0)
    X = np.column_stack([rng.normal(size=4000), rng.poisson(2.0, size=4000), rng.random(4000) < 0.3]).astype(
        float
    )
    probes = {j: Probes.of(quantile_bounds(X[:, j]), (-50.0, 50.0)) for j in range(3)}
    sorted_in: list[np.dtype[Any]] = []

    def watched(*arguments: Any) -> Iterator[Any]:
        sorted_in.append(arguments[2])
        return blocks(*arguments)

    looks = count()
    with (
        patch.object(kernel, "blocks", watched),
        patch.object(kernel._Short, "_again", lambda *_: next(looks)),
    ):
        found = Kernel(probes).below([X])
    assert next(looks) == 0
    assert np.dtype("f4") in sorted_in
    for j, probe in probes.items():
        assert in_loops(X[:, j], probe.cuts) == found[j].tolist()
