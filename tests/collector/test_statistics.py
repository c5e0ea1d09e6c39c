"""The distances and tests give published values and agree with scipy."""

from __future__ import annotations

from statistics import NormalDist

import numpy as np
import pytest
from scipy import stats
from scipy.spatial.distance import jensenshannon

from otel_ml_collector import statistics as st

NORMAL = NormalDist()
DECILES = np.array([NORMAL.inv_cdf(k / 10) for k in range(1, 10)])
DISTANCES = [
    st.psi,
    st.psi_excess,
    st.ks,
    st.ks_upper,
    st.js,
    st.hellinger,
    st.total_variation,
    st.chi_square,
]


def shifted(d: float) -> np.ndarray:
    """Exact shares of N(d, 1) on the deciles of N(0, 1)."""
    F = [0.0, *(NORMAL.cdf(x - d) for x in DECILES), 1.0]
    return np.diff(F)


def random_pairs(count: int = 300) -> list[tuple[np.ndarray, np.ndarray]]:
    """Pairs of count arrays of all sizes, a third of them with empty cells."""
    rng = np.random.default_rng(7)
    pairs = []
    for i in range(count):
        cells, size = rng.integers(2, 41), 10.0 ** rng.uniform(0.5, 6)
        a, c = (rng.multinomial(int(size) + 1, rng.dirichlet(np.ones(cells))) for _ in range(2))
        if i % 3 == 0:
            a[rng.integers(cells)] = 0
        pairs.append((a, c))
    return [(a, c) for a, c in pairs if a.sum() and c.sum()]


def test_psi_of_two_coins() -> None:
    """PSI of a fair coin that turns to 60/40 is the textbook 0.0405465."""
    assert st.psi([50, 50], [60, 40]) == pytest.approx(0.0405465, abs=1e-7)


@pytest.mark.parametrize(("d", "expected"), [(0.1, 0.00959), (0.3, 0.08606), (0.5, 0.23775), (1, 0.92614)])
def test_psi_of_a_shifted_normal(d: float, expected: float) -> None:
    """PSI of N(d, 1) on the true deciles of N(0, 1) is what numerical integration gives."""
    assert st.psi(np.full(10, 0.1), shifted(d)) == pytest.approx(expected, abs=5e-6)


@pytest.mark.parametrize("d", [0.1, 0.3, 0.5, 1, 3])
def test_ks_interval_holds_the_distance_of_shifted_normals(d: float) -> None:
    """2Φ(d/2) − 1, the distance of the raw values, lies between ks and ks_upper."""
    true = 2 * NORMAL.cdf(d / 2) - 1
    a, c = np.full(10, 0.1), shifted(d)
    assert st.ks(a, c) <= true <= st.ks_upper(a, c)


def test_js_of_a_coin_that_got_stuck() -> None:
    """The Jensen–Shannon distance of [.5, .5] and [1, 0] is 0.5579230 in bits."""
    assert st.js([1, 1], [2, 0]) == pytest.approx(0.5579230, abs=1e-7)


def test_disjoint_sides_are_as_far_apart_as_can_be() -> None:
    """The bounded distances of disjoint sides are 1, and PSI is finite."""
    a, c = [10, 0], [0, 10]
    assert [f(a, c) for f in (st.ks, st.ks_upper, st.js, st.hellinger, st.total_variation)] == [1.0] * 5
    assert st.psi(a, c) == pytest.approx(2 * (1 / 1.1) * np.log(21), rel=1e-9)


def test_psi_is_raw_unless_a_cell_is_empty() -> None:
    """Where every cell is filled, PSI is the industry formula to the last digit that matters."""
    for a, c in random_pairs():
        if a.all() and c.all():
            p, q = a / a.sum(), c / c.sum()
            assert st.psi(a, c) == pytest.approx(np.sum((q - p) * np.log(q / p)), abs=1e-12)


def test_psi_excess_takes_off_what_chance_gives() -> None:
    """Without drift about half the excesses are 0 and the others small."""
    rng = np.random.default_rng(1)
    excess = [
        st.psi_excess(rng.multinomial(5000, [0.1] * 10), rng.multinomial(500, [0.1] * 10)) for _ in range(400)
    ]
    assert np.median(excess) < 0.002
    assert np.mean(excess) < 0.005
    assert st.psi([500] * 10, rng.multinomial(500, [0.1] * 10)) > 0


def test_psi_excess_grows_by_no_more_than_the_design_effect_takes() -> None:
    """A design effect φ raises what is taken off for the window's side to φ/m."""
    a, c = [400, 600], [130, 70]
    assert st.psi_excess(a, c) - st.psi_excess(a, c, phi=3) == pytest.approx(2 / 200)


def test_js_agrees_with_scipy() -> None:
    """js is scipy's jensenshannon to the base 2."""
    for a, c in random_pairs():
        assert st.js(a, c) == pytest.approx(jensenshannon(a, c, base=2), abs=1e-7)


def test_chi_square_agrees_with_scipy() -> None:
    """X² and its p-value are those of a 2 × B contingency table."""
    for a, c in random_pairs():
        used = (a + c) > 0
        if used.sum() < 2:
            continue
        expected = stats.chi2_contingency(np.array([a[used], c[used]]), correction=False)
        x2 = st.chi_square(a, c)
        assert x2 == pytest.approx(expected.statistic, rel=1e-9, abs=1e-9)
        p = st.chi_square_p(x2, int(used.sum()), n=a.sum(), m=c.sum())
        assert p == pytest.approx(expected.pvalue, rel=1e-6, abs=1e-300)


def test_ks_interval_holds_scipys_distance_of_the_raw_values() -> None:
    """Whatever the data, ties and outliers included, ks ≤ ks_2samp ≤ ks_upper."""
    rng = np.random.default_rng(3)
    for i in range(200):
        x, y = rng.standard_t(2, 300), rng.normal(rng.normal(), 1 + i / 50, 100)
        if i % 2:
            x, y = np.round(x), np.round(y)
        y[0] = 1e6
        bounds = np.unique(np.quantile(x, np.arange(1, 20) / 20))
        a, c = (np.bincount(np.searchsorted(bounds, v), minlength=len(bounds) + 1) for v in (x, y))
        raw = stats.ks_2samp(x, y).statistic
        assert st.ks(a, c) <= raw + 1e-12
        assert raw <= st.ks_upper(a, c) + 1e-12


def test_ks_p_agrees_with_scipy() -> None:
    """With Stephens' correction the p-value is within a fifth of scipy's exact one."""
    rng = np.random.default_rng(4)
    for _ in range(30):
        x, y = rng.normal(size=400), rng.normal(0.15, 1, 300)
        exact = stats.ks_2samp(x, y, method="exact")
        assert st.ks_p(float(exact.statistic), n=400, m=300) == pytest.approx(exact.pvalue, rel=0.2, abs=1e-3)


def test_atoms_hide_nothing() -> None:
    """A constant that stays constant has the interval [0, 0] when its cell is known to be one value."""
    a, c = [0, 900, 0], [0, 80, 0]
    assert st.ks_upper(a, c) == 1.0
    assert st.ks_upper(a, c, atoms=np.array([False, True, False])) == 0.0


def test_wasserstein_agrees_with_scipy() -> None:
    """Mass spread evenly over the interior cells is as far apart as scipy finds it."""
    rng = np.random.default_rng(5)
    inside = (np.arange(400) + 0.5) / 400
    for _ in range(50):
        bounds = np.sort(rng.normal(size=rng.integers(2, 15)))
        a, c = (rng.multinomial(500, rng.dirichlet(np.ones(len(bounds) + 1))) for _ in range(2))
        grid = (bounds[:-1, None] + np.diff(bounds)[:, None] * inside).ravel()
        values = np.concatenate([bounds[:1], grid, bounds[-1:]])
        weights = [np.concatenate([s[:1], np.repeat(s[1:-1] / 400, 400), s[-1:]]) for s in (a, c)]
        expected = stats.wasserstein_distance(values, values, *weights)
        assert st.wasserstein(a, c, bounds, 2.0) == pytest.approx(expected / 2, rel=1e-3, abs=1e-6)


def test_wasserstein_of_a_shift_is_the_shift() -> None:
    """Ten even cells moved by one cell are one cell's width apart, in units of the scale."""
    bounds = np.arange(0.0, 21.0)
    a, c = np.zeros(22), np.zeros(22)
    a[1:11], c[2:12] = 1, 1
    assert st.wasserstein(a, c, bounds, 5.0) == pytest.approx(0.2)


def test_fisher_agrees_with_scipy() -> None:
    """fisher_p is scipy's two-sided fisher_exact, equal tables included."""
    rng = np.random.default_rng(6)
    for _ in range(300):
        n, m = rng.integers(1, 400, 2).tolist()
        k, j = int(rng.integers(0, min(n, 12) + 1)), int(rng.integers(0, min(m, 12) + 1))
        expected = stats.fisher_exact([[k, n - k], [j, m - j]]).pvalue
        assert st.fisher_p(k, n, j, m) == pytest.approx(expected, rel=1e-6)


def test_two_proportions_agree_with_chi_square() -> None:
    """With large counts the test is the 2 × 2 χ² test; with small ones it is Fisher's."""
    large = stats.chi2_contingency([[300, 4700], [60, 540]], correction=False).pvalue
    small = stats.fisher_exact([[2, 4998], [5, 595]]).pvalue
    assert st.two_proportion_p(300, 5000, 60, 600) == pytest.approx(large, rel=1e-9)
    assert st.two_proportion_p(2, 5000, 5, 600) == pytest.approx(small, rel=1e-6)


@pytest.mark.parametrize("share", [0, 1])
def test_two_proportions_without_any_difference(share: int) -> None:
    """Nothing is tested when no row, or every row, has the property: p is 1."""
    assert st.two_proportion_p(500 * share, 500, 80 * share, 80) == 1.0


def test_cohen_h_of_published_shares() -> None:
    """Cohen's own example: .50 against .65 is h = 0.30; 0 against 1 is π."""
    assert st.cohen_h(0.5, 0.65) == pytest.approx(0.3047, abs=1e-4)
    assert st.cohen_h(0, 1) == pytest.approx(np.pi)


def test_benjamini_hochberg_agrees_with_scipy() -> None:
    """Adjusted p-values are those of false_discovery_control, in the order given."""
    rng = np.random.default_rng(8)
    for size in (1, 2, 50):
        p = rng.uniform(size=size) ** 3
        assert st.benjamini_hochberg(p) == pytest.approx(stats.false_discovery_control(p))
    assert st.benjamini_hochberg([]).tolist() == []


def test_bonferroni_multiplies_by_the_number_of_tests() -> None:
    """Bonferroni multiplies by the number of tests and stops at 1."""
    assert st.bonferroni([0.01, 0.5]).tolist() == [0.02, 1.0]


def test_independent_rows_have_no_design_effect() -> None:
    """The design effect of independent rows averages to just over 1."""
    rng = np.random.default_rng(9)
    phis = [st.design_effect(rng.multinomial(100, [0.05] * 20, size=24)).phi for _ in range(100)]
    assert 1.0 <= np.mean(phis) < 1.1


def test_sessions_have_the_design_effect_of_their_length() -> None:
    """When every session of 50 rows repeats one value, φ is near 50."""
    rng = np.random.default_rng(10)
    panes = 50 * rng.multinomial(4, [0.1] * 10, size=60)
    assert 40 < st.design_effect(panes).phi < 60


@pytest.mark.parametrize(
    "panes", [np.zeros((0, 4)), np.zeros((3, 4)), np.eye(1, 4), [[5, 0, 0, 0], [9, 0, 0, 0]]], ids=str
)
def test_design_effect_of_too_little(panes: np.ndarray) -> None:
    """No pane, one pane or one cell tells nothing about sessions: φ is 1 and a² is 0."""
    assert st.design_effect(panes) == st.DesignEffect(1.0, 0.0)


def test_a_change_halfway_is_not_taken_for_sessions() -> None:
    """A yes/no value that turns from 10 % to 90 % within the window stays worth over 200 rows."""
    rng = np.random.default_rng(12)
    for hours in (4, 12, 20):
        shares = [[0.9, 0.1]] * (24 - hours) + [[0.1, 0.9]] * hours
        panes = np.array([rng.multinomial(100, share) for share in shares])
        assert 2400 / st.design_effect(panes).phi > 200


def test_sessions_longer_than_a_pane() -> None:
    """Sessions that fill three panes of sixty are seen whole: φ is their 150 rows."""
    rng = np.random.default_rng(13)
    panes = np.repeat(50 * rng.multinomial(1, [0.1] * 10, size=(20, 4)).sum(axis=1), 3, axis=0)
    assert 100 < st.design_effect(panes).phi < 200


def sessions(rng: np.random.Generator) -> np.ndarray:
    """Counts of four sessions of 50 rows, half of each in the cell of its user."""
    users = np.eye(10)[rng.integers(10, size=4)]
    return sum(rng.multinomial(50, 0.5 * user + 0.05) for user in users)


def test_sessions_do_not_alarm() -> None:
    """Windows of 50-row sessions are significant at 5 % in few windows; to the plain test nearly all are."""
    rng = np.random.default_rng(11)
    naive, corrected = [], []
    for _ in range(150):
        a = rng.multinomial(20_000, [0.1] * 10)
        panes = np.array([sessions(rng) for _ in range(24)])
        c = panes.sum(axis=0)
        x2 = st.chi_square(a, c)
        naive.append(st.chi_square_p(x2, 10, n=a.sum(), m=c.sum()) < 0.05)
        effect = st.design_effect(panes)
        corrected.append(st.chi_square_p(x2, 10, n=a.sum(), m=c.sum(), effect=effect) < 0.05)
    assert np.mean(naive) > 0.8
    assert np.mean(corrected) < 0.15


@pytest.mark.parametrize("statistic", DISTANCES)
def test_no_number_without_rows(statistic: object) -> None:
    """A side without rows is an error that says which side, not a number."""
    with pytest.raises(ValueError, match="reference has 0 rows and current 3"):
        statistic([0, 0], [1, 2])


@pytest.mark.parametrize("statistic", DISTANCES)
def test_no_number_on_different_cells(statistic: object) -> None:
    """Two arrays of different length are an error that says both."""
    with pytest.raises(ValueError, match=r"shape \(2,\) and current \(3,\)"):
        statistic([1, 2], [1, 2, 3])


def test_wasserstein_wants_matching_bounds() -> None:
    """Bounds that do not make the cells are an error that says both numbers."""
    with pytest.raises(ValueError, match="3 bounds do not make 3 cells"):
        st.wasserstein([1, 2, 3], [1, 2, 3], np.arange(3.0), 1.0)
