"""Comparing two sides gives the right cells, numbers and labels, also where there is little to compare."""

from __future__ import annotations

from math import erf, isfinite, sqrt

import numpy as np
import pytest
from scipy import stats

from otel_ml import semconv
from otel_ml.errors import BoundsMismatch
from otel_ml_collector import cells
from otel_ml_collector.drift import OPTIONAL_STATISTICS, DriftResult, Policy, Side, align, compare

ALL = Policy(statistics=OPTIONAL_STATISTICS)
ULP = 2.0**-22  # of float32 between 2 and 4


def count(bounds: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Counts of (lo, hi] cells."""
    return np.bincount(np.searchsorted(bounds, values), minlength=len(bounds) + 1).astype(np.int64)


def bounds_of(values: np.ndarray, parts: int = 20) -> np.ndarray:
    """Quantile bounds of data without ties."""
    ordered = np.sort(values)
    return ordered[[-(-k * len(values) // parts) - 1 for k in range(1, parts)]]


def numeric(reference: np.ndarray, current: np.ndarray, policy: Policy = ALL) -> DriftResult:
    """Both samples compared on the reference's bounds."""
    bounds = bounds_of(reference)
    return compare(Side(count(bounds, reference), bounds), Side(count(bounds, current), bounds), policy)


def states(**counts: int) -> np.ndarray:
    """State counts from names."""
    return np.array([counts.get(state, 0) for state in semconv.STATES], np.int64)


def categorical(reference: dict[str, int], current: dict[str, int]) -> DriftResult:
    """Two dicts of category counts compared."""
    names, a, c = align(reference, current)
    return compare(Side(a, categories=names), Side(c, categories=names), ALL)


def constant(reference: list[int], current: list[int]) -> DriftResult:
    """Counts below, at and above the constant 3, whose cell is one step of float32 wide."""
    bounds = np.array([3 - ULP / 2, 3 + ULP / 2])
    return compare(Side(np.array(reference), bounds), Side(np.array(current), bounds), ALL)


# --- cells ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("n", [500, 997, 1000, 1009, 5003])
def test_psi_cells_of_untied_data_are_deciles(n: int) -> None:
    """Twenty quantile cells of data without ties become exactly ten cells of a tenth each."""
    values = np.random.default_rng(n).normal(size=n)
    counts = count(bounds_of(values), values)
    deciles = count(bounds_of(values, 10), values)
    assert cells.regroup(counts, cells.psi_groups(counts)).tolist() == deciles.tolist()


@pytest.mark.parametrize(
    ("reference", "expected"),
    [
        ([0, 900, 0], [0, 900, 0]),  # a constant keeps room on both sides, though empty
        ([0, 600, 0, 400], [0, 600, 0, 400]),  # two values
        ([60, 60, 30, 850], [150, 850]),  # a leftover under a twentieth joins its run's last group
        ([60, 60, 55, 825], [120, 55, 825]),  # a twentieth stands alone
        ([30, 970], [30, 970]),  # nothing before it in its run
        ([1000], [1000]),
    ],
)
def test_psi_cells_with_ties(reference: list[int], expected: list[int]) -> None:
    """A cell with a tenth stands alone, others are added up, leftovers join or stay, in order."""
    counts = np.array(reference)
    assert cells.regroup(counts, cells.psi_groups(counts)).tolist() == expected


def test_small_cells_are_pooled_from_the_largest_down() -> None:
    """Cells that expect fewer than 5 rows are added up in falling order; the rest joins the last group."""
    a, c = np.array([500, 2, 480, 5, 5]), np.array([500, 1, 490, 4, 4])
    assert cells.pooled_groups(a, c).tolist() == [0, 2, 1, 2, 2]


def test_categories_are_aligned_by_reference_count() -> None:
    """Categories stand by falling reference count, then name, the reserved ones last."""
    names, a, c = align({"b": 5, "a": 5, "__other__": 50, "c": 9}, {"new": 3, "c": 1})
    assert names == ("c", "a", "b", "new", "__other__")
    assert (a.tolist(), c.tolist()) == ([9, 5, 5, 0, 50], [1, 0, 0, 3, 0])


def test_other_and_unseen_are_one_cell() -> None:
    """It makes no difference whether a sender says __other__ or __unseen__."""
    known = {"a": 600, "b": 300}
    first = categorical({**known, "__other__": 100}, {**known, "__unseen__": 100})
    assert first.statistics["psi"] == 0
    assert first.bins is not None
    assert first.bins.labels == ("a", "b", "__other__")


@pytest.mark.parametrize(
    ("bounds", "expected"),
    [
        ([3.2, 5.0], ("≤ 3.2", "3.2 – 5", "> 5")),
        ([np.float64(np.float32(0.1)), 0.25], ("≤ 0.1", "0.1 – 0.25", "> 0.25")),
        ([123456.0, 123457.0], ("≤ 123456", "123456 – 123457", "> 123457")),
        ([1.00001, 1.00002], ("≤ 1.00001", "1.00001 – 1.00002", "> 1.00002")),
        ([-1e30, 2e-9], ("≤ -1e+30", "-1e+30 – 2e-09", "> 2e-09")),
        ([3 - ULP / 2, 3 + ULP / 2], ("< 3", "= 3", "> 3")),
        ([-1.1754944e-38, 0.0], ("< 0", "= 0", "> 0")),
        ([], ("all",)),
    ],
)
def test_labels_read_well(bounds: list[float], expected: tuple[str, ...]) -> None:
    """Numeric cells are named by their bounds, with as many digits as tell them apart."""
    assert cells.labels(np.array(bounds, np.float64), np.arange(len(bounds) + 1)) == expected


# --- numbers ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("d", "psi"), [(0.1, 0.00959), (0.3, 0.08606), (0.5, 0.23775), (1.0, 0.92614)])
def test_a_shift_has_the_value_of_theory(d: float, psi: float) -> None:
    """On large samples of N(0, 1) and N(d, 1), PSI and the KS interval are those of theory."""
    grid = stats.norm.ppf((np.arange(200_000) + 0.5) / 200_000)
    result = numeric(grid, grid + d)
    ks = erf(d / 2 / sqrt(2))
    assert result.statistics["psi"] == pytest.approx(psi, rel=2e-3)
    assert result.statistics["ks"] - 1e-5 <= ks <= result.statistics["ks.upper"] + 1e-5
    # Only what lies between the outer bounds counts, so a large shift is understated.
    assert 0.8 * d / 1.349 < result.statistics["wasserstein"] < d / 1.349


def test_bins_are_the_psi_cells() -> None:
    """PSI can be computed again from the shares shown."""
    rng = np.random.default_rng(0)
    result = numeric(rng.normal(size=5000), rng.normal(0.4, 1, 1000))
    assert result.bins is not None
    p, q = result.bins.reference, result.bins.current
    assert result.statistics["psi"] == pytest.approx(np.sum((q - p) * np.log(q / p)), abs=1e-12)
    assert (result.psi_cells, len(result.bins.labels)) == (10, 10)


def test_only_statistics_asked_for_are_computed() -> None:
    """psi, psi.excess, ks, ks.upper and the design effect are always there, the others by the policy."""
    x = np.random.default_rng(0).normal(size=1000)
    base = {"psi", "psi.excess", "ks", "ks.upper", "design_effect"}
    assert numeric(x, x, Policy(statistics=())).statistics.keys() == base
    for name in set(OPTIONAL_STATISTICS) - {"distinct"}:
        added = numeric(x, x, Policy(statistics=(name,))).statistics.keys() - base
        levels = {f"quantile_shift@{level}" for level in ("0.05", "0.5", "0.95")}
        assert added == (levels if name == "quantile_shift" else {name})


def test_categories_have_no_order() -> None:
    """What needs an order is left out for categories, and their p-value is that of χ² alone."""
    result = categorical({"a": 600, "b": 400}, {"a": 250, "b": 250})
    expected = stats.chi2_contingency([[600, 400], [250, 250]], correction=False).pvalue
    assert not {"ks", "ks.upper", "wasserstein", "mean_shift"} & result.statistics.keys()
    assert result.statistics["distinct"] == 2
    # Twice, since the largest gain is tested, too: here the same test.
    assert result.p_value == pytest.approx(2 * expected)


def test_panes_make_the_window_worth_less() -> None:
    """Rows that come in sessions raise φ, lower the effective rows and weaken the p-value."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=5000)
    bounds = bounds_of(x)
    panes = 25 * np.array([count(bounds, rng.normal(size=4)) for _ in range(24)])
    plain = compare(Side(count(bounds, x), bounds), Side(panes.sum(0), bounds), ALL)
    paned = compare(Side(count(bounds, x), bounds), Side(panes.sum(0), bounds, panes=panes), ALL)
    assert (plain.phi, plain.phi_at_least) == (1.0, 1.0)
    assert 15 < paned.phi < 40
    assert 5 < paned.phi_at_least < paned.phi
    assert plain.p_value is not None
    assert paned.p_value is not None
    assert plain.p_value < 1e-20 < 1e-4 < paned.p_value
    assert paned.statistics["psi"] == plain.statistics["psi"]
    assert paned.statistics["psi.excess"] < plain.statistics["psi.excess"]


def test_states_are_shares_with_effect_and_p() -> None:
    """Missing values that go from none to 12 % have h = 0.71 and a p-value; states nobody is in have none."""
    reference = Side(np.array([2500, 2500]), np.array([0.0]), states=states(ok=5000))
    current = Side(np.array([2288, 2288]), np.array([0.0]), states=states(ok=4576, missing=624))
    result = compare(reference, current, ALL)
    assert (result.rows, result.values, result.reference_rows) == (5200, 4576, 5000)
    assert result.state_shares["missing"] == pytest.approx(0.12)
    assert result.state_effects["missing"] == pytest.approx(0.7075, abs=1e-4)
    assert result.state_p_values.keys() == {"missing"}
    assert result.state_p_values["missing"] < 1e-100
    assert result.state_effects.keys() == set(semconv.STATES[1:])


def test_spike_names_the_cell() -> None:
    """A default value that 8 % of the rows suddenly have is a spike at the cell it falls into."""
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=5000), rng.normal(size=2000)
    y[:160] = 0.0
    result = numeric(x, y)
    assert result.spike is not None
    low, high = (float(part) for part in result.spike[0].split(" – "))
    assert low < 0 <= high
    assert result.spike[1] == pytest.approx(0.08, abs=0.02)


def test_different_bounds_are_refused() -> None:
    """Sides on different cells are an error, not a number."""
    counts = np.array([1, 2])
    with pytest.raises(BoundsMismatch, match="same cells"):
        compare(Side(counts, np.array([1.0])), Side(counts, np.array([2.0])), ALL)


def test_a_spike_is_significant_where_chi_square_spreads_it() -> None:
    """A sentinel on a tenth of the rows is beyond doubt even against a baseline of 500 rows."""
    a, c = np.full(20, 25), np.full(20, 90)
    c[7] += 200
    result = compare(Side(a, np.arange(19.0)), Side(c, np.arange(19.0)), ALL)
    assert result.p_value is not None
    alone = stats.chi2_contingency([a, c], correction=False).pvalue
    assert result.p_value < 1e-6 < alone


def test_naming_the_frequent_does_not_make_the_rest_a_spike() -> None:
    """Categories named by a small baseline are overrated, the others gain what those lose: no spike."""
    rng = np.random.default_rng(1)
    share = 1 / np.arange(1, 51)
    share /= share.sum()
    spikes = 0
    for _ in range(200):
        counts = rng.multinomial(500, share)
        named = counts >= 10
        known = {f"c{i}": int(n) for i, n in enumerate(counts) if named[i]}
        other = int(counts[~named].sum())
        truth = {f"c{i}": round(10_000 * share[i]) for i in np.flatnonzero(named)}
        rest = 10_000 - sum(truth.values())
        result = categorical({**known, "__other__": other}, {**truth, "__other__": rest})
        spikes += result.spike is not None and result.spike[0] == "__other__"
    assert spikes <= 10


def test_rare_categories_of_clustered_rows_are_no_alarm() -> None:
    """Sessions of 50 rows that miss a rare category altogether do not make it significant."""
    rng = np.random.default_rng(2)
    share = np.array([0.5, 0.3, 0.1, *[0.01] * 10])
    names = tuple(f"c{i:02}" for i in range(13))
    a = rng.multinomial(1000, share)
    chances = []
    for _ in range(100):
        panes = 50 * rng.multinomial(8, share, size=24)
        sides = Side(a, categories=names), Side(panes.sum(axis=0), categories=names, panes=panes)
        chances.append(compare(*sides, ALL).p_value)
    assert np.mean(np.array(chances) < 0.05) < 0.15
    assert min(chances) > 1e-5


# --- what must never happen -------------------------------------------------------------------------------


def test_a_shift_out_of_range_is_seen() -> None:
    """Values moved by 100, beyond every bound, are as far away as can be: bounds come from the reference."""
    x = np.random.default_rng(0).normal(size=5000)
    result = numeric(x, x + 100)
    assert result.statistics["psi"] > 5
    assert result.statistics["ks"] == pytest.approx(0.95, abs=1e-9)
    assert result.statistics["ks.upper"] == 1
    assert result.bins is not None
    assert result.bins.current.sum() == 1


def test_an_outlier_hides_nothing() -> None:
    """One value of 1e6 in the window, or in the reference, leaves a half-σ shift as it was."""
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=5000), rng.normal(0.5, 1, 2000)
    plain = numeric(x, y).statistics
    for a, c in ((x, np.append(y, 1e6)), (np.append(x, 1e6), y)):
        assert numeric(a, c).statistics["psi"] == pytest.approx(plain["psi"], abs=0.01)
        assert numeric(a, c).statistics["wasserstein"] == pytest.approx(plain["wasserstein"], abs=0.01)


def test_one_row_in_a_rare_category_moves_nothing() -> None:
    """A count that goes from 2 to 1 of 10,000, or to 0, in one category leaves PSI where it was."""
    reference = {"a": 5000, "b": 4000, "c": 998, "d": 2}
    values = [
        categorical(reference, {"a": 5200, "b": 3800, "c": 1000 - d, "d": d}).statistics for d in (2, 1, 0)
    ]
    for name in ("psi", "psi.excess", "js"):
        assert np.ptp([value[name] for value in values]) < 1e-3


def test_a_constant_that_stays_is_no_drift() -> None:
    """A feature that is one value on both sides has no distance and nothing to test."""
    result = constant([0, 5000, 0], [0, 300, 0])
    assert {value for name, value in result.statistics.items() if name != "design_effect"} == {0.0}
    assert result.cusum_steps == ()
    assert (result.p_value, result.spike) == (None, None)
    assert result.phi == 1


def test_a_constant_that_moves_is_drift() -> None:
    """The same feature at another value is as far away as can be, also when that lies below."""
    for moved in ([0, 0, 300], [300, 0, 0]):
        result = constant([0, 5000, 0], moved)
        assert result.statistics["psi.excess"] > 5
        assert result.statistics["ks"] == 1
        assert result.spike is not None
        assert result.p_value is not None
        assert result.p_value < 1e-100


@pytest.mark.parametrize("empty", ["reference", "current", "both"])
def test_an_empty_side_gives_no_number(empty: str) -> None:
    """Without values on a side there are no statistics, no p-value and no bars, and nothing raises."""
    filled, none = np.array([300, 400]), np.array([0, 0])
    a, c = none if empty != "current" else filled, none if empty != "reference" else filled
    result = compare(Side(a, np.array([1.0])), Side(c, np.array([1.0])), ALL)
    assert (result.statistics, result.p_value, result.bins, result.spike) == ({}, None, None, None)
    assert (result.reference_values, result.values) == (a.sum(), c.sum())


def test_all_missing_is_told_by_the_states() -> None:
    """When every value is missing, the states say so though there is no distribution."""
    bounds = np.array([0.0])
    result = compare(
        Side(np.array([250, 250]), bounds, states=states(ok=500)),
        Side(np.array([0, 0]), bounds, states=states(missing=300)),
        ALL,
    )
    assert result.statistics == {}
    assert (result.rows, result.values, result.state_shares["missing"]) == (300, 0, 1)
    assert result.state_effects["missing"] == pytest.approx(np.pi)
    assert result.state_p_values["missing"] < 1e-100


def test_states_alone_are_enough() -> None:
    """An opaque feature, of which only states are known, is compared by them."""
    none = np.zeros(0, np.int64)
    result = compare(Side(none, states=states(ok=900)), Side(none, states=states(ok=450, missing=450)), ALL)
    assert not result.has_cells
    assert result.state_effects["missing"] == pytest.approx(np.pi / 2)


def test_one_cell_has_nothing_to_test() -> None:
    """A single cell holds everything on both sides: distances 0, KS anywhere up to 1, p-value None."""
    result = compare(Side(np.array([700]), np.zeros(0)), Side(np.array([300]), np.zeros(0)), ALL)
    assert {name for name, value in result.statistics.items() if value != 0} == {"ks.upper", "design_effect"}
    assert result.p_value is None
    assert result.bins is not None
    assert result.bins.labels == ("all",)


def test_adversarial_sizes_stay_finite() -> None:
    """One row against a billion, either way round, gives finite numbers only."""
    many, one = np.array([10**9, 0, 10**9, 5]), np.array([0, 1, 0, 0])
    bounds = np.array([-1e300, 0.0, 1e300])
    for a, c in ((many, one), (one, many)):
        result = compare(Side(a, bounds), Side(c, bounds), ALL)
        assert all(isfinite(value) for value in result.statistics.values())
        assert result.p_value is not None
        assert 0 <= result.p_value <= 1
