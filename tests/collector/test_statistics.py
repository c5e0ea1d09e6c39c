"""The distances and tests give published values and agree with scipy."""

from __future__ import annotations

from statistics import NormalDist

import numpy as np
import pytest
from scipy import stats

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


def test_psi_excess_takes_off_what_chance_gives() -> None:
    """Without drift about half the excesses are 0 and the others small."""
    rng = np.random.default_rng(1)
    excess = [
        st.psi_excess(rng.multinomial(5000, [0.1] * 10), rng.multinomial(500, [0.1] * 10)) for _ in range(400)
    ]
    assert np.median(excess) < 0.002
    assert np.mean(excess) < 0.005
    assert st.psi([500] * 10, rng.multinomial(500, [0.1] * 10)) > 0


def test_rank_sum_of_one_value_tests_nothing() -> None:
    """All rows in one cell have no order: p is 1."""
    assert st.rank_sum_p([0, 500, 0], [0, 30, 0]) == 1.0


def test_clustered_rows_weaken_every_test() -> None:
    """A design effect raises the p-values of the gain and of the ranks."""
    a, c = np.full(20, 50), np.array([*[25] * 10, *[35] * 9, 60])
    effect = st.DesignEffect(5.0, 0.5, 4.0)
    assert st.largest_gain_p(a, c) < st.largest_gain_p(a, c, effect=effect)
    assert st.rank_sum_p(a, c) < st.rank_sum_p(a, c, effect=effect)
    assert st.chi_square_p(40.0, 20) < st.chi_square_p(40.0, 20, spread=0.5)


def test_atoms_hide_nothing() -> None:
    """A constant that stays constant has the interval [0, 0] when its cell is known to be one value."""
    a, c = [0, 900, 0], [0, 80, 0]
    assert st.ks_upper(a, c) == 1.0
    assert st.ks_upper(a, c, atoms=np.array([False, True, False])) == 0.0


def test_wasserstein_of_a_shift_is_the_shift() -> None:
    """Ten even cells moved by one cell are one cell's width apart, in units of the scale."""
    bounds = np.arange(0.0, 21.0)
    a, c = np.zeros(22), np.zeros(22)
    a[1:11], c[2:12] = 1, 1
    assert st.wasserstein(a, c, bounds, 5.0) == pytest.approx(0.2)


def spread_out(counts: np.ndarray, bounds: np.ndarray) -> np.ndarray:
    """Values that have these counts, evenly inside their cells and at the bounds of the open ones."""
    lower, upper = np.append(bounds[0], bounds), np.append(bounds, bounds[-1])
    cells = zip(lower, upper, counts, strict=True)
    return np.concatenate([low + (high - low) * (np.arange(n) + 0.5) / max(n, 1) for low, high, n in cells])


def test_shifts_agree_with_brute_force() -> None:
    """The mean and the quantiles of binned values are those of values spread evenly over their cells."""
    rng = np.random.default_rng(14)
    for _ in range(100):
        bounds = np.sort(rng.normal(size=rng.integers(2, 15)))
        a, c = (rng.multinomial(4000, rng.dirichlet(np.ones(len(bounds) + 1))) for _ in range(2))
        x, y = spread_out(a, bounds), spread_out(c, bounds)
        assert st.mean_shift(a, c, bounds, 2.0) == pytest.approx((y.mean() - x.mean()) / 2, abs=1e-9)
        for level in (0.05, 0.5, 0.95):
            q = [np.quantile(v, level, method="hazen") for v in (x, y)]
            found = st.quantile_shift(a, c, bounds, 2.0, level=level)
            assert found == pytest.approx((q[1] - q[0]) / 2, abs=0.02)


@pytest.mark.parametrize("d", [-0.5, 0.1, 0.3, 0.5])
def test_shifts_of_a_shifted_normal(d: float) -> None:
    """N(0, 1) → N(d, 1) has moved its mean and its median by about d σ, sign included."""
    bounds = np.array([NORMAL.inv_cdf(k / 20) for k in range(1, 20)])
    a, c = (np.diff([0.0, *(NORMAL.cdf(x - e) for x in bounds), 1.0]) for e in (0, d))
    sigma = 0.93  # of N(0, 1) pulled in to its 5 % and 95 % quantiles
    assert st.mean_shift(a, c, bounds, sigma) == pytest.approx(d, abs=0.03)
    assert st.quantile_shift(a, c, bounds, 1.0, level=0.5) == pytest.approx(d, abs=0.02)


def test_distinct_counts_cells_with_rows() -> None:
    """Cells that no row is in do not count."""
    assert st.distinct([3, 0, 1, 0]) == 2


def test_cusum_falls_without_drift_and_climbs_with_it() -> None:
    """A window as expected takes away from the sum, a shift of 0.3 σ adds, and it stays within its ends."""
    a = np.full(20, 250)
    assert st.cusum_step(a, np.full(20, 10)) < -st.CUSUM_SLACK
    bounds = np.array([NORMAL.inv_cdf(k / 20) for k in range(1, 20)])
    shifted = 2000 * np.diff([0.0, *(NORMAL.cdf(x - 0.3) for x in bounds), 1.0])
    assert st.cusum_step(a, shifted) > 1
    up, down = st.cusum_shift_steps(a, shifted)
    assert (up > 7, down < -17) == (True, True)
    assert max(st.cusum_shift_steps(a, np.full(20, 100))) < -5
    assert st.cusum(0.1, -5.0) == 0.0
    assert st.cusum(20.0, 100.0) == 2 * st.CUSUM_LIMIT


ADVERSARIAL = [
    ("one row each", [1, 0], [0, 1]),
    ("one row against a billion", [0, 1, 0], [10**9, 0, 5]),
    ("disjoint", [500, 500, 0, 0], [0, 0, 3, 4]),
    ("a constant", [0, 900, 0], [0, 7, 0]),
    ("two cells", [999, 1], [1, 999]),
    ("512 cells", [1] * 512, [0] * 511 + [512]),
    ("512 cells, mostly empty", [10**12] + [0] * 511, [0] * 511 + [1]),
    ("huge", [10**15, 10**15], [10**15, 10**15 + 1]),
    ("all ties but one", [0, 10**6, 1], [1, 10**6, 0]),
]


@pytest.mark.parametrize(
    ("a", "c"), [case[1:] for case in ADVERSARIAL], ids=[case[0] for case in ADVERSARIAL]
)
def test_adversarial_counts_give_finite_numbers(a: list[int], c: list[int]) -> None:
    """Whatever the counts, distances are finite and not negative, and p-values lie in [0, 1]."""
    for x, y in ((a, c), (c, a)):
        numbers = [distance(x, y) for distance in DISTANCES]
        assert np.isfinite(numbers).all()
        assert min(numbers) >= 0
        chances = [st.rank_sum_p(x, y), st.largest_gain_p(x, y), st.chi_square_p(st.chi_square(x, y), len(x))]
        assert all(0 <= p <= 1 for p in chances)
        assert np.isfinite(st.cusum_step(x, y))
        if len(x) > 2:
            bounds = np.arange(len(x) - 1.0)
            shifts = [st.quantile_shift(x, y, bounds, 1.0, level=level) for level in (0.05, 0.5, 0.95)]
            assert np.isfinite([*shifts, st.mean_shift(x, y, bounds, 1.0)]).all()


def test_two_proportions_agree_with_chi_square() -> None:
    """With large counts the test is the 2 × 2 χ² test; with small ones it is Fisher's."""
    large = stats.chi2_contingency([[500, 4500], [100, 500]], correction=False).pvalue
    small = stats.fisher_exact([[2, 4998], [5, 595]]).pvalue
    assert st.two_proportion_p(500, 5000, 100, 600) == pytest.approx(large, rel=1e-9)
    assert st.two_proportion_p(2, 5000, 5, 600) == pytest.approx(small, rel=1e-6)


@pytest.mark.parametrize("share", [0, 1])
def test_two_proportions_without_any_difference(share: int) -> None:
    """Nothing is tested when no row, or every row, has the property: p is 1."""
    assert st.two_proportion_p(500 * share, 500, 80 * share, 80) == 1.0


def test_cohen_h_of_published_shares() -> None:
    """Cohen's own example: .50 against .65 is h = 0.30; 0 against 1 is π."""
    assert st.cohen_h(0.5, 0.65) == pytest.approx(0.3047, abs=1e-4)
    assert st.cohen_h(0, 1) == pytest.approx(np.pi)


def test_bonferroni_multiplies_by_the_number_of_tests() -> None:
    """Bonferroni multiplies by the number of tests and stops at 1."""
    assert st.bonferroni([0.01, 0.5]).tolist() == [0.02, 1.0]


def test_independent_rows_have_no_design_effect() -> None:
    """The design effect of independent rows averages to just over 1."""
    rng = np.random.default_rng(9)
    phis = [st.design_effect(rng.multinomial(100, [0.05] * 20, size=24)).phi for _ in range(100)]
    assert 1.0 <= np.mean(phis) < 1.1


def test_the_lower_end_of_the_design_effect_is_one_unless_rows_do_cluster() -> None:
    """Independent rows are certainly worth less in few windows, rows in sessions of 50 in all."""
    rng = np.random.default_rng(16)
    independent = [st.design_effect(rng.multinomial(10, [0.05] * 20, size=24)).at_least for _ in range(100)]
    clustered = [st.design_effect(50 * rng.multinomial(10, [0.05] * 20, size=24)) for _ in range(20)]
    assert np.mean(np.array(independent) > 1) < 0.1
    assert all(30 < effect.at_least < effect.phi for effect in clustered)


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
        naive.append(st.chi_square_p(x2, 10) < 0.05)
        effect = st.design_effect(panes)
        x2 = st.chi_square(a, c / effect.phi)
        corrected.append(st.chi_square_p(x2, 10, spread=effect.spread) < 0.05)
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
