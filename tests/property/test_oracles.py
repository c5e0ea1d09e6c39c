"""Every statistic against scipy or brute force, on thousands of random and adversarial pairs of counts.

The pairs are drawn with a fixed seed, and the oracles are computed for all pairs at once where scipy allows.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from itertools import pairwise

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import special, stats
from scipy.spatial.distance import jensenshannon

from otel_ml import binning
from otel_ml_collector import cells
from otel_ml_collector import statistics as st
from otel_ml_collector.drift import OPTIONAL_STATISTICS, Policy, Side, compare

Counts = NDArray[np.int64]
Floats = NDArray[np.float64]

CASES = 4_000
CELLS = (1, 2, 3, 10, 20, 40, 200)


def _empty_some(rng: np.random.Generator, p: Floats) -> Floats:
    kept = p * (rng.random(p.shape) < 0.6)
    return np.where(kept.sum(axis=1, keepdims=True) > 0, kept, p)


def _spread(rng: np.random.Generator, rows: int, cells: int) -> Floats:
    """(rows, cells) shares: even, uneven, one cell that holds nearly all, and many that are empty."""
    weight = rng.gamma(rng.choice([0.05, 1.0, 50.0], (rows, 1)), size=(rows, cells)) + 1e-12
    weight[rng.random(rows) < 0.1, 0] *= 1e6
    return _empty_some(rng, weight / weight.sum(axis=1, keepdims=True))


@cache
def pairs() -> tuple[tuple[Counts, Counts], ...]:
    """Both sides of each case, from one row to 10¹² of them: unlike, alike, the same, disjoint, in one cell."""
    rng, found = np.random.default_rng(20_261_121), []
    each = -(-CASES // len(CELLS))
    for width in CELLS:
        p, q = _spread(rng, each, width), _spread(rng, each, width)
        near, same, apart = rng.random((3, each)) < [[0.3], [0.1], [0.05]]
        q[near] = (p[near] + 0.1 * q[near]) / 1.1
        q[same] = p[same]
        left = np.arange(width) < -(-width // 2)
        p[apart], q[apart] = p[apart] * left + 1e-9 * left, q[apart] * ~left + 1e-9 * (~left | (width == 1))
        sides = []
        for share in (p, q):
            rows = np.maximum(1, 10 ** rng.uniform(0, 6, each)).astype(np.int64)
            counts = rng.multinomial(rows, share / share.sum(axis=1, keepdims=True))
            counts[rng.random(each) < 0.05] *= 10**6
            sides.append(counts)
        sides[1][same] = sides[0][same] * rng.integers(1, 1000, (int(same.sum()), 1))
        found += list(zip(*sides, strict=True))
    return tuple(found[:CASES])


def shares(a: Counts, c: Counts) -> tuple[Floats, Floats]:
    return a / a.sum(), c / c.sum()


def check(
    statistic: Callable[..., float], oracle: Callable[..., float], *, rel: float, abs: float = 1e-12
) -> None:
    """The statistic is what the oracle says, in every case."""
    for a, c in pairs():
        expected = oracle(a, c)
        found = statistic(a, c)
        assert np.isfinite(found), (a, c)
        assert found == pytest.approx(expected, rel=rel, abs=abs), (a, c)


def mixed(a: Counts, c: Counts) -> tuple[Floats, Floats]:
    """κ = 0.5/min(n, m) added to each share of the cells that some row is in."""
    used, kappa = np.maximum(a, c) > 0, 0.5 / min(a.sum(), c.sum())
    p, q = (x[used] + kappa for x in shares(a, c))
    return p / p.sum(), q / q.sum()


def divergence(p: Floats, q: Floats) -> float:
    """The population stability index as scipy has it: relative entropies both ways."""
    return float(stats.entropy(p, q) + stats.entropy(q, p))


def test_psi() -> None:
    """The symmetric relative entropy of the shares, mixed where a cell is empty."""
    check(
        st.psi,
        lambda a, c: divergence(*(shares(a, c) if (a * c).all() else mixed(a, c))),
        rel=1e-9,
        abs=1e-11,
    )


def test_psi_excess() -> None:
    """What is above the mean that chance gives, (B − 1)(1/n + 1/m)."""

    def oracle(a: Counts, c: Counts) -> float:
        chance = (np.count_nonzero(a + c) - 1) * (1 / a.sum() + 1 / c.sum())
        return max(0.0, divergence(*mixed(a, c)) - chance)

    check(st.psi_excess, oracle, rel=1e-8, abs=1e-11)


def test_js() -> None:
    """scipy's distance; below 10⁻⁷ rounding is all there is."""
    check(st.js, lambda a, c: np.nan_to_num(jensenshannon(a, c, base=2)), rel=1e-6, abs=2e-7)


def test_hellinger() -> None:
    """√(1 − Bhattacharyya coefficient)."""
    check(st.hellinger, lambda a, c: max(0.0, 1 - np.sqrt(np.prod(shares(a, c), axis=0)).sum()) ** 0.5,
          rel=1e-6, abs=5e-8)  # fmt: skip


def test_total_variation() -> None:
    """The shares that one side has more of."""
    check(st.total_variation, lambda a, c: np.maximum(0, np.subtract(*shares(a, c))).sum(), rel=1e-9)


def test_ks() -> None:
    """The largest distance of the two steps, by a loop over the bounds."""

    def oracle(a: Counts, c: Counts) -> float:
        return max(
            (abs(a[:i].sum() / a.sum() - c[:i].sum() / c.sum()) for i in range(1, len(a))), default=0.0
        )

    check(st.ks, oracle, rel=1e-9)


def test_chi_square() -> None:
    """Pearson's statistic by expected counts, and scipy's p-value of it."""

    def oracle(a: Counts, c: Counts) -> float:
        both = (a + c).astype(float)
        total = both.sum()
        expected = np.outer([a.sum() / total, c.sum() / total], both)
        used = expected > 0
        return float((((np.array([a, c]) - expected) ** 2)[used] / expected[used]).sum())

    check(st.chi_square, oracle, rel=1e-6, abs=1e-6)
    for a, c in pairs():
        x2, used = st.chi_square(a, c), int(np.count_nonzero(a + c))
        if used > 1:
            assert st.chi_square_p(x2, used) == pytest.approx(
                stats.chi2.sf(x2, used - 1), rel=1e-9, abs=1e-300
            )


def test_rank_sum() -> None:
    """Mann and Whitney's U, its variance with ties, and the normal tail, by hand; scipy's where rows are few."""

    def oracle(a: Counts, c: Counts) -> float:
        n, m = float(a.sum()), float(c.sum())
        h = (a + c) / (n + m)
        u = float(
            (c * (np.cumsum(a) - a / 2)).sum()
        )  # pairs in which the window's row is larger; ties are halves
        variance = n * m * (n + m) / 12 * (1 - float((h**3).sum()))
        return 1.0 if variance <= 0 else float(2 * special.ndtr(-abs(u - n * m / 2) / variance**0.5))

    check(st.rank_sum_p, oracle, rel=1e-5, abs=1e-7)
    for a, c in pairs():
        if min(a.sum(), c.sum()) > 100 and max(a.sum(), c.sum()) < 5000 and np.count_nonzero(a + c) > 1:
            x, y = (np.repeat(np.arange(len(a)), side) for side in (a, c))
            expected = stats.mannwhitneyu(x, y, use_continuity=False, method="asymptotic").pvalue
            # scipy's variance has n + m + 1 in place of n + m in one term: a part in the number of rows.
            assert st.rank_sum_p(a, c) == pytest.approx(expected, rel=0.1, abs=3e-3), (a, c)


def test_rank_shift() -> None:
    """The mean rank of the window's rows among the reference's, in standard deviations of their own ranks."""

    def oracle(a: Counts, c: Counts) -> float:
        rank = np.cumsum(a) - (a - 1) / 2
        mean, n = (rank * a).sum() / a.sum(), float(a.sum())
        spread = (((rank - mean) ** 2) * a).sum() / n
        return 0.0 if spread <= 0 else float((rank * c).sum() / c.sum() - mean) / spread**0.5

    for a, c in pairs():
        found = st.rank_shift(a, c)
        assert np.isfinite(found)
        if (a / a.sum()).max() < 1 - 1e-6:  # beyond that one side's rounding is all there is
            assert found == pytest.approx(oracle(a, c), rel=1e-5, abs=1e-6), (a, c)
        assert np.isfinite([st.cusum_step(a, c), *st.cusum_shift_steps(a, c)]).all()


def test_largest_gain() -> None:
    """The cell that gains most, by a loop, and its own test times the cells in use."""
    for a, c in pairs():
        p, q = shares(a, c)
        gains = [y - x for x, y in zip(p.tolist(), q.tolist(), strict=True)]
        cell, gain = st.largest_gain(a, c)
        assert (gains[cell], gain) == (max(gains), max(0.0, *gains))
        alone = st.two_proportion_p(float(a[cell]), float(a.sum()), float(c[cell]), float(c.sum()))
        assert st.largest_gain_p(a, c) == pytest.approx(min(1.0, np.count_nonzero(a + c) * alone))


def test_wasserstein_and_the_shift_of_means() -> None:
    """Integrals of |F − G| and of F − G over straight lines, each cell cut into a hundred."""
    rng = np.random.default_rng(1)
    inside = (np.arange(100) + 0.5) / 100
    for a, c in pairs():
        if len(a) < 3:
            continue
        bounds = np.cumsum(rng.exponential(size=len(a) - 1))
        D = (np.cumsum(a) / a.sum() - np.cumsum(c) / c.sum())[:-1]
        height = D[:-1, None] + np.diff(D)[:, None] * inside
        area = height * np.diff(bounds)[:, None] / 100
        assert st.wasserstein(a, c, bounds, 2.0) == pytest.approx(np.abs(area).sum() / 2, rel=1e-3, abs=1e-9)
        assert st.mean_shift(a, c, bounds, 2.0) == pytest.approx(area.sum() / 2, rel=1e-6, abs=1e-9)


def test_quantile_shift() -> None:
    """Where the cumulative shares, drawn as straight lines, cross the level."""
    rng = np.random.default_rng(2)
    for a, c in pairs():
        if len(a) < 3:
            continue
        bounds = np.cumsum(rng.uniform(1, 2, size=len(a) - 1))  # no cell of a single value
        level = float(rng.uniform(0.01, 0.99))
        at = []
        for side in (a, c):
            below = np.append(0.0, np.cumsum(side) / side.sum())
            ends = np.concatenate([bounds[:1], bounds, bounds[-1:]])
            rising = np.flatnonzero(np.diff(below) > 0)
            i = next(i for i in rising if below[i + 1] >= level - 1e-15)
            at.append(ends[i] + (ends[i + 1] - ends[i]) * (level - below[i]) / (below[i + 1] - below[i]))
        found = st.quantile_shift(a, c, bounds, 2.0, level=level)
        assert found == pytest.approx((at[1] - at[0]) / 2, rel=1e-6, abs=1e-6)


def test_two_proportions() -> None:
    """The pooled z test by hand, Fisher's exact test by scipy where few rows are expected."""
    rng = np.random.default_rng(3)
    n, m = (np.ceil(10 ** rng.uniform(0, 4, CASES // 2)).astype(int) for _ in range(2))
    share = rng.beta(0.5, 0.5, len(n)) * rng.choice([0.02, 1.0], len(n))
    k, j = rng.binomial(n, share), rng.binomial(m, np.clip(share * rng.uniform(0.5, 1.5, len(n)), 0, 1))
    for case in zip(k.tolist(), n.tolist(), j.tolist(), m.tolist(), strict=True):
        (K, N, J, M), found = case, st.two_proportion_p(*case)
        pooled = (K + J) / (N + M)
        if pooled in (0, 1):
            expected = 1.0
        elif min(pooled, 1 - pooled) * min(N, M) < st.EXACT:
            expected = fisher(*case)
        else:
            z = (K / N - J / M) / (pooled * (1 - pooled) * (1 / N + 1 / M)) ** 0.5
            expected = float(2 * special.ndtr(-abs(z)))
        assert found == pytest.approx(expected, rel=1e-5, abs=1e-300), case


def fisher(k: int, n: int, j: int, m: int) -> float:
    """Tables that are at most as probable as this one, by scipy's hypergeometric distribution."""
    law = stats.hypergeom(n + m, k + j, m)
    probable = law.pmf(np.arange(max(0, k + j - n), min(k + j, m) + 1))
    return float(min(1.0, probable[probable <= law.pmf(j) * (1 + 1e-7)].sum()))


def test_cohen_h() -> None:
    """The difference of angles whose sines squared are the shares."""
    p, q = np.random.default_rng(4).uniform(size=(2, CASES)) ** 4
    expected = 2 * np.abs(np.arccos(np.sqrt(1 - p)) - np.arccos(np.sqrt(1 - q)))
    found = [st.cohen_h(x, y) for x, y in zip(p.tolist(), q.tolist(), strict=True)]
    assert found == pytest.approx(expected, abs=1e-7)


def test_benjamini_hochberg() -> None:
    """scipy's adjustment, of families of all sizes, with ties, zeros and ones."""
    rng = np.random.default_rng(5)
    for _ in range(CASES // 4):
        p = rng.uniform(size=rng.integers(1, 120)) ** rng.choice([1, 4, 30])
        p[rng.random(len(p)) < 0.1] = rng.choice([0.0, 1.0, 0.5])
        assert st.benjamini_hochberg(p) == pytest.approx(stats.false_discovery_control(p))
        assert st.bonferroni(p) == pytest.approx(np.minimum(1, p * len(p)))


def test_design_effect() -> None:
    """φ and a² by loops over the differences of neighbouring panes."""
    rng = np.random.default_rng(6)
    for _ in range(CASES // 4):
        width, session = int(rng.integers(2, 21)), int(rng.choice([1, 1, 7, 50]))
        panes = session * rng.multinomial(
            rng.integers(0, 40, rng.integers(2, 20)), rng.dirichlet(np.ones(width))
        )
        C = panes[panes.sum(axis=1) > 0][:, panes.sum(axis=0) > 0].astype(float)
        found = st.design_effect(panes)
        assert np.isfinite([found.phi, found.spread, found.at_least]).all()
        assert 1 <= found.at_least <= found.phi
        if min(C.shape) < 2:
            assert found == st.DesignEffect()
            continue
        q, W, weights = C.sum(axis=0) / C.sum(), 0.0, 0.0
        for before, after in pairwise(C):
            b, m = before.sum(), after.sum()
            d = (after / m - before / b) / np.sqrt(q * (1 / m + 1 / b))
            W, weights = W + (m + b) * np.outer(d, d), weights + m + b
        values = np.linalg.eigvalsh(W / weights)
        freedom = C.shape[1] - 1
        assert found.phi == pytest.approx(max(1.0, values.sum() / freedom), rel=1e-9)
        if values.sum() > 0:
            uneven = (values**2).sum() / values.sum() ** 2 - 1 / (2 * (len(C) - 1) / 3)
            assert found.spread == pytest.approx(max(0.0, freedom * uneven - 1), rel=1e-6, abs=1e-9)


# --- the interval of the raw distance ---------------------------------------------------------------------


def samples(rng: np.random.Generator, count: int) -> tuple[Floats, Floats]:
    """Two samples: smooth, tied, constant, disjoint, with outliers, of one row."""
    kinds: list[Callable[[int], Floats]] = [
        lambda n: rng.normal(rng.normal(), rng.uniform(0.2, 3), n),
        lambda n: rng.poisson(rng.uniform(0, 4), n).astype(float),
        lambda n: np.full(n, float(rng.integers(3))),
        lambda n: rng.choice([0.0, 1.0], n),
        lambda n: rng.standard_t(1, n) * 1e6,
        lambda n: rng.normal(1000 * rng.integers(2), 1, n),
        lambda n: np.where(rng.random(n) < 0.3, 0.0, rng.exponential(1, n)),
        lambda n: np.append(rng.normal(0.5, 1, n), 1e6),
    ]
    x, y = (kinds[int(rng.integers(len(kinds)))](int(rng.choice([1, 2, 20, count]))) for _ in range(2))
    return x, y


def test_the_interval_of_ks_holds_in_all_cases() -> None:
    """ks ≤ scipy's distance of the raw values ≤ ks_upper, whatever the samples, on the bounds of a baseline."""
    rng = np.random.default_rng(15)
    for _ in range(CASES):
        x, y = samples(rng, 300)
        bounds = binning.quantile_bounds(x)
        a, c = binning.count(x, bounds), binning.count(y, bounds)
        grid = np.sort(np.concatenate([x, y]))
        F, G = (np.searchsorted(np.sort(v), grid, side="right") / len(v) for v in (x, y))
        raw = float(np.abs(F - G).max())
        assert st.ks(a, c) <= raw + 1e-12
        assert raw <= st.ks_upper(a, c, atoms=cells.atoms(bounds)) + 1e-12


# --- nothing but numbers comes out ------------------------------------------------------------------------


def test_compare_gives_finite_numbers_in_all_cases() -> None:
    """No inf and no NaN of any statistic, p-value or step, of numbers and categories, with panes and states."""
    rng, policy = np.random.default_rng(8), Policy(statistics=OPTIONAL_STATISTICS)
    for i, (a, c) in enumerate(pairs()[::2]):
        scale = rng.choice([1e-300, 1.0, 1e306])
        bounds = None if i % 3 == 0 else np.arange(len(a) - 1) * (scale / 3)
        names = tuple(f"c{k}" for k in range(len(a))) if i % 3 == 0 else None
        panes = rng.multinomial(np.minimum(c, 10**6), np.full(5, 0.2)).T if i % 2 else None
        before, now = rng.integers(0, 20, (2, 6)) * (rng.random((2, 6)) < 0.5)
        result = compare(Side(a, bounds, names, before), Side(c, bounds, names, now, panes), policy)
        chances = [*result.state_p_values.values(), *([] if result.p_value is None else [result.p_value])]
        numbers = [
            result.phi, result.phi_at_least, result.s, *result.statistics.values(), *result.state_shares.values(),
            *result.state_effects.values(), *result.cusum_steps,
        ]  # fmt: skip
        assert np.isfinite(numbers).all(), (a, c)
        assert all(0 <= p <= 1 for p in chances), (a, c)
