"""Distances and tests between two count arrays on the same cells: counts in, a float out.

Notation: a_i and c_i are the reference's and the window's counts in cell i, n and m their sums, p = a/n,
q = c/m, F and G the cumulative shares. Cells are taken as given; `cells` forms them. Distances raise
`ValueError` when the two arrays differ in length or a side is empty: no number is right there.

References
[1] Yurdakul, Naranjo (2020), Statistical properties of the population stability index, J. Risk Model Valid.
[2] Mann, Whitney (1947), On a test of whether one of two random variables …, Ann. Math. Statist. 18.
[3] Rao, Scott (1981), The analysis of categorical data from complex sample surveys, JASA 76.
[4] Lin (1991), Divergence measures based on the Shannon entropy, IEEE Trans. Inf. Theory 37.
[5] Cohen (1988), Statistical power analysis for the behavioral sciences, chapter 6.
[6] Benjamini, Hochberg (1995), Controlling the false discovery rate, JRSS B 57.
[7] Page (1954), Continuous inspection schemes, Biometrika 41.
[8] Bross (1958), How to use ridit analysis, Biometrics 14.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import asin, erfc, sqrt

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special

from . import cells

Floats = NDArray[np.float64]

CUSUM_SLACK = 0.25
CUSUM_LIMIT = 12.0
"""k and h of the cumulative sums, in standard deviations of what a window adds."""
CUSUM_SHIFT = 0.12
"""Shift of the mean rank, in standard deviations, that the cumulative sums tolerate."""
CUSUM_REFERENCE = 4.0
"""Standard errors of the reference that they tolerate: it is off by the same in every window, for ever."""

EXACT = 50
"""Expected rows below which a share is tested exactly: far out, where corrected p-values lie, the normal test of
ten rows finds chance five times too often."""

ONE_SIDED_95 = 1.645
ONE_SIDED_999 = 3.09
"""Standard deviations that hold 95 % and 99.9 % of a normal distribution on one side."""


def _pair(reference: ArrayLike, current: ArrayLike) -> tuple[Floats, Floats, float, float]:
    """Both sides as floats with their sums, after the checks every statistic needs."""
    a, c = np.asarray(reference, np.float64), np.asarray(current, np.float64)
    if a.shape != c.shape or a.ndim != 1:
        raise ValueError(
            f"reference has shape {a.shape} and current {c.shape}; count both sides on the same cells"
        )
    n, m = float(a.sum()), float(c.sum())
    if not (n > 0 and m > 0):
        raise ValueError(f"reference has {n:g} rows and current {m:g}; a statistic needs rows on both sides")
    return a, c, n, m


def _shares(reference: ArrayLike, current: ArrayLike) -> tuple[Floats, Floats]:
    a, c, n, m = _pair(reference, current)
    return a / n, c / m


def mixed_shares(reference: ArrayLike, current: ArrayLike) -> tuple[Floats, Floats]:
    """Shares of both sides that are all above 0, without the cells that are empty on both sides.

    p' = (a/n + κ) / (1 + κB) with κ = 0.5 / min(n, m), q' likewise, over the B cells that are left;
    proportional counts stay equal.
    """
    a, c, n, m = _pair(reference, current)
    used = (a + c) > 0
    kappa = 0.5 / min(n, m)
    total = 1 + kappa * np.count_nonzero(used)
    return (a[used] / n + kappa) / total, (c[used] / m + kappa) / total


def _psi(p: Floats, q: Floats) -> float:
    return max(0.0, float(np.sum((q - p) * np.log(q / p))))


def psi(reference: ArrayLike, current: ArrayLike) -> float:
    """Population stability index Σ(q − p)·ln(q / p), ≥ 0 and finite [1].

    The raw industry value when no cell is empty, else that of `mixed_shares`.
    """
    a, c, n, m = _pair(reference, current)
    if a.all() and c.all():
        return _psi(a / n, c / m)
    return _psi(*mixed_shares(a, c))


def psi_excess(reference: ArrayLike, current: ArrayLike) -> float:
    """Population stability index above what sampling alone gives, ≥ 0 [1].

    PSI of `mixed_shares` less its expectation without drift, (B − 1)(1/n + 1/m) over the B cells in use.
    """
    _, _, n, m = _pair(reference, current)
    p, q = mixed_shares(reference, current)
    return max(0.0, _psi(p, q) - (len(p) - 1) * (1 / n + 1 / m))


def ks(reference: ArrayLike, current: ArrayLike) -> float:
    """Kolmogorov–Smirnov distance at the bounds, in [0, 1]: at most the distance of the raw values."""
    p, q = _shares(reference, current)
    return min(1.0, float(np.max(np.abs(np.cumsum(p - q)[:-1]), initial=0.0)))


def ks_upper(reference: ArrayLike, current: ArrayLike, *, atoms: NDArray[np.bool_] | None = None) -> float:
    """Upper bound of the Kolmogorov–Smirnov distance of the raw values, in [0, 1].

    max over cells of F(upper) − G(lower) and G(upper) − F(lower). `atoms` marks cells that hold one single
    value: both sides step there together, so nothing is hidden inside.
    """
    p, q = _shares(reference, current)
    F, G = np.cumsum(p), np.cumsum(q)
    inside = np.maximum(F - (G - q), G - (F - p))
    if atoms is not None:
        inside = inside[~atoms]
    return float(min(1.0, max(ks(reference, current), np.max(inside, initial=0.0))))


def js(reference: ArrayLike, current: ArrayLike) -> float:
    """Jensen–Shannon distance, the root of the divergence in bits, in [0, 1] [4]."""
    p, q = _shares(reference, current)
    middle = (p + q) / 2
    nats = special.rel_entr(p, middle).sum() + special.rel_entr(q, middle).sum()
    return sqrt(min(1.0, max(0.0, float(nats) / 2 / np.log(2))))


def hellinger(reference: ArrayLike, current: ArrayLike) -> float:
    """Hellinger distance √(½ Σ(√p − √q)²), in [0, 1]."""
    p, q = _shares(reference, current)
    return min(1.0, sqrt(0.5 * float(np.sum((np.sqrt(p) - np.sqrt(q)) ** 2))))


def total_variation(reference: ArrayLike, current: ArrayLike) -> float:
    """Total variation distance ½ Σ|p − q|, in [0, 1]: the share of rows that moved to another cell."""
    p, q = _shares(reference, current)
    return min(1.0, 0.5 * float(np.sum(np.abs(p - q))))


def wasserstein(reference: ArrayLike, current: ArrayLike, bounds: Floats, scale: float) -> float:
    """Wasserstein-1 distance between the first and the last bound, over `scale` (> 0, in the values' unit).

    ∫|F − G| with both curves straight between two bounds, as mass spread evenly inside a cell makes them.
    What lies beyond the first and the last bound has no width, so one outlier cannot carry the distance.
    `bounds` has one entry less than the counts.
    """
    p, q = _shares(reference, current)
    _check_bounds(p, bounds)
    D = np.cumsum(p - q)[:-1]
    return float(np.sum(_area(D[:-1], D[1:], np.diff(bounds / scale))))


def mean_shift(reference: ArrayLike, current: ArrayLike, bounds: Floats, scale: float) -> float:
    """Mean of `current` less that of `reference`, over `scale`: ∫(F − G) where `wasserstein` has |F − G|.

    So it is the shift of means after values beyond the outermost bounds are pulled in to them.
    """
    p, q = _shares(reference, current)
    _check_bounds(p, bounds)
    D = np.cumsum(p - q)[:-1]
    return float(np.sum((D[:-1] + D[1:]) / 2 * np.diff(bounds / scale)))


def quantile_shift(
    reference: ArrayLike, current: ArrayLike, bounds: Floats, scale: float, *, level: float
) -> float:
    """Quantile of `current` less that of `reference`, over `scale`; `level` is in (0, 1).

    Quantiles lie on a straight line inside their cell, those of the open cells at the outermost bounds.
    """
    a, c, _, _ = _pair(reference, current)
    _check_bounds(a, bounds)
    return cells.quantile(c, bounds, level) / scale - cells.quantile(a, bounds, level) / scale


def distinct(current: ArrayLike) -> int:
    """Cells that some row is in."""
    return int(np.count_nonzero(current))


def _check_bounds(counts: Floats, bounds: Floats) -> None:
    if len(bounds) != len(counts) - 1:
        raise ValueError(
            f"{len(bounds)} bounds do not make {len(counts)} cells; give one bound less than counts"
        )


def _area(left: Floats, right: Floats, width: Floats) -> Floats:
    """∫|D| over cells where D runs straight from `left` to `right`."""
    size = np.abs(left) + np.abs(right)
    crossing = (left * right < 0) & (size > 0)
    return width * np.where(crossing, (left**2 + right**2) / np.where(size > 0, size, 1.0), size) / 2


def chi_square(reference: ArrayLike, current: ArrayLike) -> float:
    """Two-sample homogeneity statistic X² = Σ (a·m − c·n)² / ((a + c)·n·m), ≥ 0.

    Without drift and with independent rows it follows χ² with one degree of freedom less than cells.
    """
    a, c, n, m = _pair(reference, current)
    both = a + c
    used = both > 0
    difference = a[used] * m - c[used] * n
    return float(np.sum(difference**2 / both[used])) / n / m


@dataclass(frozen=True, slots=True)
class DesignEffect:
    """How much more a window's counts scatter than independent rows would [3]."""

    phi: float = 1.0
    """φ ≥ 1, the mean inflation of variances: m rows are worth m/φ independent ones."""
    spread: float = 0.0
    """a² ≥ 0, the squared coefficient of variation of the inflations (Satterthwaite)."""
    at_least: float = 1.0
    """φ is not below this, with 99.9 % confidence."""


def design_effect(panes: ArrayLike) -> DesignEffect:
    """φ and a² of a window from its counts (P, B) per pane in time order; 1 and 0 from too few.

    W is the mean of d_t d_tᵀ, weighted by rows, with d_t = (q_t − q_{t−1}) / √(q (1/m_t + 1/m_{t−1})) between
    neighbours among about 20 blocks of panes; φ = max(1, tr W / (B − 1)) [3]. Neighbours, since deviations
    from the window's mean would take a change halfway for sessions and hide it until the window has passed.
    """
    C = _blocks(np.asarray(panes, np.float64))
    C = C[C.sum(axis=1) > 0][:, C.sum(axis=0) > 0]
    cells = C.shape[1]  # what no row is in does not scatter
    if min(C.shape) < 2:
        return DesignEffect()
    m_t, q = C.sum(axis=1, keepdims=True), C.sum(axis=0) / C.sum()
    share, after, before = C / m_t, m_t[1:], m_t[:-1]
    d = (share[1:] - share[:-1]) * np.sqrt(after * before / (after + before)) / np.sqrt(q)
    weight = (after + before) / np.sum(after + before)
    W = (d * weight).T @ d
    trace, trace_of_square = float(np.trace(W)), float(np.sum(W * W))
    if trace <= 0:
        return DesignEffect()
    independent = 2 * (len(C) - 1) / 3  # differences that share a block are worth less
    spread = max(0.0, (cells - 1) * (trace_of_square / trace**2 - 1 / independent) - 1)
    phi = trace / (cells - 1)
    noise = sqrt(2 * (1 + spread) / ((cells - 1) * independent))
    return DesignEffect(max(1.0, phi), spread, max(1.0, phi / (1 + ONE_SIDED_999 * noise)))


def _blocks(panes: Floats) -> Floats:
    """Neighbouring panes added up to about 20, so that sessions of a twentieth of the window lie in one."""
    return np.add.reduceat(panes, np.arange(0, len(panes), max(1, len(panes) // 20))) if len(panes) else panes


def chi_square_p(statistic: float, cells: int, *, spread: float = 0.0) -> float:
    """P-value of `chi_square` over `cells` cells, with the window's counts as effective ones, c/φ [3].

    `spread` is a² of the design effect (Satterthwaite).
    """
    return float(special.chdtrc((cells - 1) / (1 + spread), statistic / (1 + spread)))


def largest_gain(reference: ArrayLike, current: ArrayLike) -> tuple[int, float]:
    """The cell whose share grew most, and by how much, in [0, 1]."""
    p, q = _shares(reference, current)
    cell = int(np.argmax(q - p))
    return cell, max(0.0, float(q[cell] - p[cell]))


def largest_gain_p(reference: ArrayLike, current: ArrayLike, *, effect: DesignEffect | None = None) -> float:
    """P-value of `largest_gain`: its two-proportion test, times the number of cells in use (Bonferroni).

    It sees what χ² spreads over all cells. One cell can cluster more than they do on average, so a row counts
    as 1/(φ(1 + a²)), the inflation of those that cluster most.
    """
    a, c, n, m = _pair(reference, current)
    effect = effect or DesignEffect()
    cell, _ = largest_gain(a, c)
    worth = effect.phi * (1 + effect.spread)
    p = two_proportion_p(float(a[cell]), n, float(c[cell]) / worth, m / worth)
    return min(1.0, int(np.count_nonzero(a + c)) * p)


def rank_sum_p(reference: ArrayLike, current: ArrayLike, *, effect: DesignEffect | None = None) -> float:
    """P-value of the Wilcoxon–Mann–Whitney test on ordered cells, two-sided, a cell's values tied [2].

    The sharpest of the tests for values that moved up or down. z = Σ(q − p)·r / √((1/n + 1/m)·(1 − Σh³)/12),
    h the shares of both sides together and r their mid-ranks. Rows count as in `largest_gain_p`.
    """
    a, c, n, m = _pair(reference, current)
    effect = effect or DesignEffect()
    m /= effect.phi * (1 + effect.spread)
    p, q = a / n, c / c.sum()
    h = (n * p + m * q) / (n + m)
    variance = (1 / n + 1 / m) * (1 - float(np.sum(h**3))) / 12
    if variance <= 0:
        return 1.0
    z = float(np.sum((q - p) * (np.cumsum(h) - h / 2))) / sqrt(variance)
    return erfc(abs(z) / sqrt(2))


def cohen_h(p: float, q: float) -> float:
    """Cohen's h |2·asin√q − 2·asin√p| of two shares, in [0, π] [5]."""
    return abs(2 * asin(sqrt(q)) - 2 * asin(sqrt(p)))


def two_proportion_p(k: float, n: float, j: float, m: float) -> float:
    """P-value of "k of n and j of m have the same share", two-sided.

    Pooled normal test; Fisher's exact test on rounded counts when a pooled expected count is below `EXACT`. 1
    when no row or every row has the property.
    """
    share = (k + j) / (n + m)
    if share <= 0 or share >= 1:
        return 1.0
    if min(share, 1 - share) * min(n, m) < EXACT:
        return fisher_p(round(k), round(n), round(j), round(m))
    z = abs(k / n - j / m) / sqrt(share * (1 - share) * (1 / n + 1 / m))
    return erfc(z / sqrt(2))


def fisher_p(k: int, n: int, j: int, m: int) -> float:
    """P-value of Fisher's exact test of k of n against j of m: tables at most as probable as this one."""
    successes = k + j
    low, high = max(0, successes - n), min(successes, m)
    x = np.arange(low, high + 1, dtype=np.float64)
    log_p = _log_binomial(m, x) + _log_binomial(n, successes - x) - _log_binomial(n + m, successes)
    # The relative slack keeps tables that are equally probable, whatever the rounding of their logarithms.
    return float(min(1.0, np.exp(log_p[log_p <= log_p[j - low] + 1e-7]).sum()))


def _log_binomial(n: float, k: float | Floats) -> Floats:
    return np.asarray(special.gammaln(n + 1) - special.gammaln(k + 1) - special.gammaln(n - k + 1))


def rank_shift(reference: ArrayLike, current: ArrayLike) -> float:
    """Mean rank of `current` among the reference's values, in standard deviations of these ranks; + is up [8].

    On ordered cells: Σ q·r / √((1 − Σp³)/12), r = (shares below) + p/2 − ½ of the reference. A normal
    distribution that moves by a small d σ moves it by 0.977·d. 0 when the reference lies in one cell.
    """
    p, q = _shares(reference, current)
    variance = (1 - float(np.sum(p**3))) / 12
    if variance <= 0:
        return 0.0
    return float(np.sum(q * (np.cumsum(p) - p / 2 - 0.5))) / sqrt(variance)


def cusum_shift_steps(reference: ArrayLike, current: ArrayLike) -> tuple[float, float]:
    """What one window adds to the cumulative sums that find a slow shift up, and down [7].

    (±d − d₀)·√m − k with d the `rank_shift` and d₀ = max(0.12, 4/√n): its standard deviation between windows is
    1/√m, while the error of the reference, 1/√n, is the same in all of them. `current` are effective rows.
    """
    _, _, n, m = _pair(reference, current)
    shift, tolerated = rank_shift(reference, current), max(CUSUM_SHIFT, CUSUM_REFERENCE / sqrt(n))
    up, down = ((side * shift - tolerated) * sqrt(m) - CUSUM_SLACK for side in (1, -1))
    return up, down


def cusum_step(reference: ArrayLike, current: ArrayLike) -> float:
    """What one window adds to the cumulative sum of changes of any shape; below 0 where nothing changes [7].

    z − k with z = (X² − (B − 1 + λ₀)) / √(2(B − 1 + 2λ₀)): X² in standard deviations above what is tolerated.
    λ₀ = max(0.02, χ²(B − 1, 99.9 %)/n) / (1/n + 1/m) tolerates a shift of 0.14 σ and what the baseline's own
    sampling may be off, which every window shows again. `current` are effective rows, on test cells.
    """
    a, _, n, m = _pair(reference, current)
    freedom = len(a) - 1
    tolerated = max(0.02, float(special.chdtri(freedom, 0.001)) / n) / (1 / n + 1 / m)
    excess = chi_square(reference, current) - freedom - tolerated
    return excess / sqrt(2 * (freedom + 2 * tolerated)) - CUSUM_SLACK


def cusum(score: float, step: float) -> float:
    """A cumulative sum after one more window, within 0 and twice `CUSUM_LIMIT` so that it can come back."""
    return min(2 * CUSUM_LIMIT, max(0.0, score + step))


def benjamini_hochberg(p_values: ArrayLike) -> Floats:
    """Adjusted p-values that hold the false discovery rate, in the order given [6]."""
    p = np.asarray(p_values, np.float64)
    order = np.argsort(p)[::-1]
    ranks = np.arange(len(p), 0, -1)
    adjusted = np.empty_like(p)
    adjusted[order] = np.minimum(1.0, np.minimum.accumulate(p[order] * len(p) / ranks))
    return adjusted


def bonferroni(p_values: ArrayLike) -> Floats:
    """Adjusted p-values that hold the chance of any false alarm, in the order given: p times their number."""
    p = np.asarray(p_values, np.float64)
    return np.minimum(1.0, p * len(p))
