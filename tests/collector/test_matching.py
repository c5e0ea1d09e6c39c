"""A reference and counts on other bounds, brought to the same cells."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray
from pointbatches import exponential

from otel_ml.baseline import Baseline
from otel_ml.binning import count, quantile_bounds
from otel_ml.histogram import Histogram
from otel_ml.summary import NumericSummary
from otel_ml_collector import cells, statistics
from otel_ml_collector.matching import Matched, distribution, match

Floats = NDArray[np.float64]
Draw = Callable[[np.random.Generator, int], Floats]

DATA: dict[str, Draw] = {
    "normal": lambda rng, n: rng.normal(size=n),
    "far from zero": lambda rng, n: rng.normal(100, 3, n),
    "lognormal": lambda rng, n: rng.lognormal(0, 1.5, n),
    "exponential": lambda rng, n: rng.exponential(size=n),
    "uniform": lambda rng, n: rng.uniform(size=n),
    "arcsine": lambda rng, n: rng.beta(0.5, 0.5, n),
    "cauchy": lambda rng, n: rng.standard_cauchy(n),
    "two peaks": lambda rng, n: np.where(rng.random(n) < 0.5, rng.normal(-5, 1, n), rng.normal(7, 0.5, n)),
    "ages": lambda rng, n: np.rint(rng.normal(45, 14, n)).clip(18, 95),
    "counts": lambda rng, n: rng.poisson(3, n).astype(float),
    "prices": lambda rng, n: np.round(rng.lognormal(3, 1, n), 2),
    "zeros": lambda rng, n: np.where(rng.random(n) < 0.4, 0.0, rng.lognormal(2, 1, n)),
    "constant": lambda rng, n: np.full(n, 3.0),
}
LAYOUTS: dict[str, Callable[[np.random.Generator, Floats], Floats]] = {
    "exponential": lambda rng, y: exponential(y, 192)[0].edges,
    "coarse exponential": lambda rng, y: exponential(y, 192)[0].lower().edges,
    "foreign quantiles": lambda rng, y: quantile_bounds(y[:1000], 25),
}


def histogram(values: Floats, bounds: Floats) -> Histogram:
    return Histogram(bounds, count(values, bounds))


def one(reference: Histogram, *counted: tuple[Floats, Floats], quantiles: Floats | None = None) -> Matched:
    """Values on edges, all in one pane."""
    at = [(edges, count(values, edges)[None]) for edges, values in counted]
    return match(reference, at, 1, quantiles=quantiles)


def table(values: Floats) -> Floats:
    """Quantiles as the baseline's file has them."""
    summary = Baseline.fit({"x": values}, model="m", version="1").features["x"]
    assert isinstance(summary, NumericSummary)
    assert summary.quantiles is not None
    return summary.quantiles


@pytest.mark.parametrize(
    ("data", "layout"),
    [
        (data, layout)
        for data in DATA
        for layout in LAYOUTS
        if (data, layout) != ("two peaks", "foreign quantiles")
    ],
)
def test_foreign_bounds_give_nearly_the_exact_numbers(data: str, layout: str) -> None:
    """PSI within 0.002 and KS within 0.003 of a reference that was counted on the same edges."""
    rng = np.random.default_rng(7)
    x, y = DATA[data](rng, 100_000), DATA[data](rng, 20_000)
    matched = one(histogram(x, quantile_bounds(x)), (LAYOUTS[layout](rng, y), y))
    made, current = matched.reference, matched.panes[0]
    exact = histogram(x, made.bounds)
    groups = cells.psi_groups(exact.counts)
    psi = [statistics.psi(*(cells.regroup(c, groups) for c in (h.counts, current))) for h in (exact, made)]
    assert psi[1] == pytest.approx(psi[0], abs=0.002)
    assert psi[1] < 0.01
    ks = [statistics.ks(h.counts, current) for h in (exact, made)]
    assert ks[1] == pytest.approx(ks[0], abs=0.003)
    assert current.sum() == len(y)


@pytest.mark.parametrize("n", [2_000, 50_000])
@pytest.mark.parametrize("data", DATA)
def test_quantiles_make_foreign_bounds_safe(data: str, n: int) -> None:
    """With the file's quantiles PSI is within 0.002 and KS within 0.003 on any edges, also in gaps."""
    rng = np.random.default_rng(11)
    x, y = DATA[data](rng, n), DATA[data](rng, 20_000)
    uniform = np.linspace(y.min(), y.max(), 11)[1:-1] + 1e-3
    for edges in (uniform, *(make(rng, y) for make in LAYOUTS.values())):
        matched = one(histogram(x, quantile_bounds(x)), (edges, y), quantiles=table(x))
        made, current = matched.reference, matched.panes[0]
        exact = histogram(x, made.bounds)
        groups = cells.psi_groups(exact.counts)
        psi = [
            statistics.psi(*(cells.regroup(c, groups) for c in (h.counts, current))) for h in (exact, made)
        ]
        assert psi[1] == pytest.approx(psi[0], abs=0.002)
        assert statistics.ks(made.counts, current) == pytest.approx(
            statistics.ks(exact.counts, current), abs=0.003
        )


def test_quantiles_bound_the_distribution_function_everywhere() -> None:
    """It is within one of their steps of the truth, and 0 and 1 beyond the smallest and the largest value."""
    rng = np.random.default_rng(5)
    for data, draw in DATA.items():
        x = np.sort(draw(rng, 5_000))
        at = np.concatenate(
            [x[::37], x[::41] + 1e-9, rng.uniform(x[0], x[-1], 200), [x[0] - 1, x[-1], x[-1] + 1]]
        )
        known = distribution(histogram(x, quantile_bounds(x)), table(x))(at)
        truth = np.searchsorted(x, at, "right") / len(x)
        inside = ~np.isnan(known)
        assert np.abs(known - truth)[inside].max() <= 1 / 200 + 1 / len(x), data
        assert known[-3:].tolist() == [0, 1, 1]


def test_values_that_all_lie_beyond_the_reference_are_drift() -> None:
    """An exponential histogram of nothing but larger values has no edge between the reference's bounds."""
    x = np.random.default_rng(2).lognormal(size=5_000)
    counted = exponential(1e3 * x, 192)
    matched = match(
        histogram(x, quantile_bounds(x)), [(counted[0].edges, counted[1][None])], 1, quantiles=table(x)
    )
    assert statistics.ks(matched.reference.counts, matched.panes[0]) == pytest.approx(1, abs=0.02)


def test_a_bound_in_a_gap_of_the_reference_errs_by_less_than_its_cell() -> None:
    """Without quantiles it is not known where in a cell the values lie; the cell has a twentieth of them."""
    rng = np.random.default_rng(7)
    x, y = DATA["two peaks"](rng, 100_000), DATA["two peaks"](rng, 20_000)
    matched = one(histogram(x, quantile_bounds(x)), (np.array([-5.0, 1.0, 7.0]), y))
    assert statistics.ks(matched.reference.counts, matched.panes[0]) < 0.05


@pytest.mark.parametrize("data", [name for name in DATA if name not in ("constant", "zeros")])
def test_drift_shows_on_foreign_bounds(data: str) -> None:
    """A shift by half a standard deviation is as far on an exponential histogram as on the reference's bounds."""
    rng = np.random.default_rng(7)
    x, y = DATA[data](rng, 50_000), DATA[data](rng, 20_000)
    y = y + 0.5 * np.subtract(*np.quantile(x, [0.84, 0.16])) / 2
    reference = histogram(x, quantile_bounds(x))
    matched = one(reference, (exponential(y, 192)[0].edges, y))
    native = statistics.ks(reference.counts, count(y, reference.bounds))
    assert statistics.ks(matched.reference.counts, matched.panes[0]) == pytest.approx(native, abs=0.05)


def test_nested_bounds_are_exact() -> None:
    """Finer ones collapse onto the reference's; the reference collapses onto coarser ones."""
    x, y = np.random.default_rng(1).normal(size=(2, 5000))
    bounds = quantile_bounds(x)
    reference = histogram(x, bounds)
    finer = one(reference, (np.sort(np.append(bounds, [-0.123, 0.456])), y))
    assert finer.exact
    assert finer.reference == reference
    assert finer.panes.tolist() == [count(y, bounds).tolist()]
    coarser = one(reference, (bounds[::3], y))
    assert coarser.exact
    assert coarser.reference == histogram(x, bounds[::3])
    assert coarser.panes.tolist() == [count(y, bounds[::3]).tolist()]


def test_empty_cells_of_the_reference_are_kept() -> None:
    """What the window has where the reference has nothing stays visible on nested bounds."""
    reference = Histogram(np.array([1.0, 2.0, 3.0, 4.0]), np.array([500, 0, 0, 500, 0]))
    matched = match(reference, [(np.array([1.0, 2.0, 2.5, 3.0, 4.0]), np.array([[1, 2, 3, 4, 5, 6]]))], 1)
    assert matched.exact
    assert matched.panes.tolist() == [[1, 2, 7, 5, 6]]


def test_several_layouts_add_up_and_no_drift_stays_no_drift() -> None:
    """Rows on the reference's bounds, on foreign and on exponential ones are all compared."""
    rng = np.random.default_rng(3)
    x = rng.lognormal(size=50_000)
    parts = rng.lognormal(size=(3, 10_000))
    bounds = quantile_bounds(x)
    layouts = [bounds, quantile_bounds(parts[1][:500], 30), exponential(parts[2], 192)[0].edges]
    matched = one(histogram(x, bounds), *zip(layouts, parts, strict=True))
    assert not matched.exact
    assert matched.panes.sum() == 30_000
    assert statistics.psi(matched.reference.counts, matched.panes[0]) < 0.01


def test_edges_beyond_the_reference_say_nothing() -> None:
    """Its tails are not known: without an edge inside, there is nothing to compare, and it is said."""
    reference = Histogram(np.array([0.0, 1.0]), np.array([300, 300, 300]))
    matched = match(reference, [(np.array([2.0, 3.0]), np.array([[5, 0, 0]]))], 1)
    assert (len(matched.reference.bounds), matched.exact) == (0, False)
    assert distribution(reference)(np.array([-1.0, 0.0, 1.0, 2.0])).tolist() == pytest.approx(
        [np.nan, 1 / 3, 2 / 3, np.nan], nan_ok=True
    )


def test_a_constant_is_known_everywhere() -> None:
    """It has no tails, so that any bounds around it compare."""
    x = np.full(1000, 3.0)
    below = distribution(histogram(x, quantile_bounds(x)))
    assert below(np.array([-9.0, 2.9, 3.0, 3.1, 9.0])).tolist() == [0.0, 0.0, 1.0, 1.0, 1.0]
    matched = one(histogram(x, quantile_bounds(x)), (np.array([1.0, 2.0, 4.0, 8.0]), np.full(100, 5.0)))
    assert statistics.ks(matched.reference.counts, matched.panes[0]) == 1.0


def test_without_rows_the_reference_stays_as_it_is() -> None:
    """There is nothing to bring near."""
    reference = Histogram(np.array([0.0]), np.array([1, 2]))
    matched = match(reference, [(np.array([5.0]), np.zeros((2, 2), np.int64))], 2)
    assert matched.reference == reference
    assert matched.panes.tolist() == [[0, 0], [0, 0]]
