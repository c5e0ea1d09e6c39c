"""Compares two sides of one target and says how far apart they are: counts in, numbers out, nothing else.

The steps of `compare`: cells → design effect φ of the window → statistics → p-values → states → result.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import inf, isfinite
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from otel_ml import semconv
from otel_ml.errors import BoundsMismatch

from . import cells, statistics
from .evaluation import Bins

Counts = NDArray[np.int64]
Floats = NDArray[np.float64]

OPTIONAL_STATISTICS = (
    "js", "hellinger", "total_variation", "wasserstein", "mean_shift", "quantile_shift", "distinct", "chi_square",
)  # fmt: skip
"""What `Policy.statistics` may add; psi, psi.excess, ks, ks.upper and design_effect are always computed."""

QUANTILES = (0.05, 0.5, 0.95)
"""Levels of quantile_shift."""

SPIKE_GAIN = 0.05
"""The share that one fine cell must gain to count as a spike."""


@dataclass(frozen=True, slots=True)
class Policy:
    """Limits and rates of the verdict. Pairs are (warning, drifted)."""

    psi: tuple[float, float] = (0.1, 0.25)
    """Limits of psi.excess."""
    ks: tuple[float, float] = (0.1, 0.2)
    states: tuple[float, float] = (0.2, 0.5)
    """Limits of Cohen's h of a state's share."""
    alpha: float = 0.001
    """The corrected p-value has to be below this."""
    correction: Literal["bh", "bonferroni", "none"] = "bh"
    min_rows: int = 200
    """Effective rows (rows over φ) a window needs for a verdict."""
    min_reference_rows: int = 500
    consecutive: int = 1
    """Evaluations in a row that have to agree before the status rises."""
    fast_psi: float = 2.0
    fast_p: float = 1e-6
    statistics: tuple[str, ...] = ("psi", "ks", "js")
    """Which of `OPTIONAL_STATISTICS` to compute; psi and ks are always there."""


@dataclass(frozen=True, slots=True)
class Side:
    """One side of a comparison: counts of one target."""

    counts: Counts
    """(cells,): one more than bounds, or one per category; empty when only states are known."""
    bounds: NDArray[np.float64] | None = None
    """Numeric: cell i holds (bounds[i − 1], bounds[i]]."""
    categories: tuple[str, ...] | None = None
    """Categorical: both sides in the same order, see `align`."""
    states: Counts | None = None
    """(6,) in the order of `semconv.STATES`; None for scores and predictions."""
    panes: Counts | None = None
    """(P, cells) counts per pane of the window in time order; None: rows are taken as independent."""


@dataclass(frozen=True, slots=True)
class DriftResult:
    """Numbers of one target; every float is finite."""

    reference_rows: int
    """Rows of the reference, all states."""
    reference_values: int
    """Rows of the reference that have a place in a cell: n."""
    rows: int
    """Rows of the window, all states."""
    values: int
    """Rows of the window that have a place in a cell: m."""
    has_cells: bool
    """False when only states are known: there is no distribution to judge."""
    phi: float
    """Design effect of the window, ≥ 1."""
    phi_at_least: float
    """φ is not below this, with 99.9 % confidence: what too few rows are told by."""
    statistics: Mapping[str, float]
    """psi, psi.excess, ks, ks.upper, quantile_shift@0.5, …: only those that could be computed."""
    p_value: float | None
    """Of the distributions, before correction; None when there was nothing to test."""
    state_shares: Mapping[str, float]
    """Share of each of `semconv.STATES` in the window."""
    reference_state_shares: Mapping[str, float]
    state_effects: Mapping[str, float]
    """Cohen's h of each state but ok."""
    state_p_values: Mapping[str, float]
    """Before correction; only states that some row of either side is in."""
    spike: tuple[str, float] | None
    """Label and gain in share of the fine cell that gained most, when it gained `SPIKE_GAIN` or more."""
    bins: Bins | None
    """Shares of both sides on the PSI cells."""
    psi_cells: int
    """B: cells psi.excess was computed on."""
    s: float
    """1/n + φ/m; 0 when a side is empty."""
    foreign_bounds: bool = False
    """True when the reference had to be evaluated between its bounds."""
    cusum_steps: tuple[float, ...] = ()
    """What this window adds to the cumulative sums: of changes of any shape and, for numbers, of shifts up and
    down; see `statistics.cusum_step`. Empty without a test."""


def align(reference: Mapping[str, int], current: Mapping[str, int]) -> tuple[tuple[str, ...], Counts, Counts]:
    """Categories of both sides in one order, with the counts of each side.

    By falling reference count, then by name; the reserved categories come last. So the order, and with it the
    PSI cells, depends on nothing that moves from window to window but new names.
    """
    names = sorted(
        reference.keys() | current.keys(),
        key=lambda name: (name in cells.POOLED, -reference.get(name, 0), name),
    )
    counts = [np.array([side.get(name, 0) for name in names], np.int64) for side in (reference, current)]
    return tuple(names), counts[0], counts[1]


def compare(reference: Side, current: Side, policy: Policy) -> DriftResult:
    """Every number that says how far `current` is from `reference`; see `DriftResult`.

    Raises `BoundsMismatch` when the two sides are not counted on the same cells.
    """
    _check(reference, current)
    counted = _Counted.of(reference, current)
    n, m = int(counted.reference.sum()), int(counted.current.sum())
    found = _distribution(counted, policy) if n and m else _Distribution()
    states = _States.of(reference, current)
    return DriftResult(
        reference_rows=max(int(states.reference.sum()), n),
        reference_values=n,
        rows=max(int(states.current.sum()), m),
        values=m,
        has_cells=len(counted.reference) > 0,
        phi=found.phi,
        phi_at_least=found.phi_at_least,
        statistics={key: value for key, value in found.statistics.items() if isfinite(value)},
        p_value=found.p_value,
        state_shares=states.shares(states.current),
        reference_state_shares=states.shares(states.reference),
        state_effects=states.effects(),
        state_p_values=states.p_values(found.phi),
        spike=found.spike,
        bins=found.bins,
        psi_cells=found.psi_cells,
        s=found.s,
        cusum_steps=found.cusum_steps,
    )


def _check(reference: Side, current: Side) -> None:
    same = len(reference.counts) == len(current.counts) and reference.categories == current.categories
    if reference.bounds is None or current.bounds is None:
        same = same and reference.bounds is current.bounds
    else:
        same = same and np.array_equal(reference.bounds, current.bounds)
    if not same:
        raise BoundsMismatch(
            f"reference has {len(reference.counts)} cells and current {len(current.counts)}, or their bounds "
            "or categories differ; bring both sides to the same cells first (categories: drift.align)"
        )


@dataclass(frozen=True, slots=True)
class _Counted:
    """Both sides on the fine cells, where `semconv.OTHER` and `semconv.UNSEEN` are one."""

    reference: Counts
    current: Counts
    panes: Counts | None
    bounds: NDArray[np.float64] | None
    names: tuple[str, ...]

    @classmethod
    def of(cls, reference: Side, current: Side) -> _Counted:
        if reference.categories is None:
            return cls(reference.counts, current.counts, current.panes, reference.bounds, ())
        groups, names = cells.category_groups(reference.categories)
        panes = None if current.panes is None else cells.regroup(current.panes, groups)
        a, c = (cells.regroup(side.counts, groups) for side in (reference, current))
        return cls(a, c, panes, None, names)

    def expected(self) -> Floats:
        """Counts of the reference as the next sample of its rows is expected to have them."""
        if self.bounds is not None:
            return self.reference.astype(np.float64)
        return cells.without_selection(self.reference, self.names)

    def labels(self, groups: cells.Groups) -> tuple[str, ...]:
        """Names of groups of cells: ranges of numbers, or the categories one by one."""
        if self.bounds is not None:
            return cells.labels(self.bounds, groups)
        joined: dict[int, list[str]] = {}
        for name, group in zip(self.names, groups.tolist(), strict=True):
            joined.setdefault(group, []).append(name)
        return tuple(", ".join(names) for names in joined.values())


@dataclass(frozen=True, slots=True)
class _Distribution:
    """What the cells of a target say; the defaults are those of a side without rows."""

    phi: float = 1.0
    phi_at_least: float = 1.0
    statistics: Mapping[str, float] = field(default_factory=dict)
    p_value: float | None = None
    spike: tuple[str, float] | None = None
    bins: Bins | None = None
    psi_cells: int = 0
    s: float = 0.0
    cusum_steps: tuple[float, ...] = ()


def _distribution(counted: _Counted, policy: Policy) -> _Distribution:
    a, c = counted.reference, counted.current
    n, m = int(a.sum()), int(c.sum())
    test = _on_test_cells(counted)
    groups = cells.psi_groups(a)
    deciles = cells.regroup(a, groups), cells.regroup(c, groups)
    pooled = _pooled(*deciles, test.effect.phi)
    numbers = {
        "psi": statistics.psi(*deciles),
        "psi.excess": statistics.psi_excess(*pooled),
        **_of_order(counted),
        "design_effect": test.effect.phi,
        **_optional(counted, deciles, test.statistic, policy),
    }
    return _Distribution(
        phi=test.effect.phi,
        phi_at_least=test.effect.at_least,
        statistics=numbers,
        p_value=_combined_p(test, counted),
        spike=_spike(counted),
        bins=Bins(counted.labels(groups), deciles[0] / n, deciles[1] / m),
        psi_cells=len(pooled[0]),
        s=1 / n + test.effect.phi / m,
        cusum_steps=test.cusum_steps,
    )


def _pooled(a: Counts, c: Counts, phi: float) -> tuple[Counts, Floats]:
    """Both sides on cells in which χ² holds, the window's rows as what they are worth: c/φ."""
    groups = cells.pooled_groups(a, c / phi)
    return cells.regroup(a, groups), cells.regroup(c, groups) / phi


@dataclass(frozen=True, slots=True)
class _Test:
    """X² on the test cells, and how much the window's rows cluster."""

    statistic: float
    cells: int
    effect: statistics.DesignEffect
    cusum_steps: tuple[float, ...]


def _on_test_cells(counted: _Counted) -> _Test:
    groups = cells.pooled_groups(counted.reference, counted.current)
    effect = statistics.DesignEffect()
    if counted.panes is not None and groups.any():
        effect = statistics.design_effect(cells.regroup(counted.panes, groups))
    a, c = _pooled(counted.reference, counted.current, effect.phi)
    steps: tuple[float, ...] = ()
    if len(a) > 1:
        # Noise of φ, which is never below 1, would eat up what a small shift adds in every window.
        steps = (statistics.cusum_step(a, c * (effect.phi / effect.at_least)),)
        if counted.bounds is not None:
            steps += statistics.cusum_shift_steps(counted.reference, counted.current / effect.at_least)
    return _Test(statistics.chi_square(a, c), len(a), effect, steps)


def _combined_p(test: _Test, counted: _Counted) -> float | None:
    """The smallest of the p-values, times their number; None when all rows lie in one cell.

    X² sees every change a little, the rank sum (numbers only) a shift and the largest gain a spike at once.
    """
    sides = counted.reference, counted.current
    if np.count_nonzero(sides[0] + sides[1]) < 2:
        return None
    found = [statistics.largest_gain_p(counted.expected(), counted.current, effect=test.effect)]
    if test.cells > 1:
        found.append(statistics.chi_square_p(test.statistic, test.cells, spread=test.effect.spread))
    if counted.bounds is not None:
        found.append(statistics.rank_sum_p(*sides, effect=test.effect))
    return min(1.0, len(found) * min(found))


def _of_order(counted: _Counted) -> dict[str, float]:
    """Statistics that need cells in an order: those of numbers."""
    if counted.bounds is None:
        return {}
    sides = counted.reference, counted.current
    return {
        "ks": statistics.ks(*sides),
        "ks.upper": statistics.ks_upper(*sides, atoms=cells.atoms(counted.bounds)),
    }


def _optional(
    counted: _Counted, deciles: tuple[Counts, Counts], chi_square: float, policy: Policy
) -> dict[str, float]:
    numbers = {
        "js": statistics.js(*deciles),
        "hellinger": statistics.hellinger(*deciles),
        "total_variation": statistics.total_variation(*deciles),
        "chi_square": chi_square,
        **_of_values(counted, policy),
    }
    if counted.bounds is None:
        numbers["distinct"] = statistics.distinct(counted.current)
    return {name: value for name, value in numbers.items() if name.partition("@")[0] in policy.statistics}


def _of_values(counted: _Counted, policy: Policy) -> dict[str, float]:
    """Statistics in the unit of the values: how far they went."""
    bounds = counted.bounds
    wanted = {"wasserstein", "mean_shift", "quantile_shift"} & set(policy.statistics)
    if bounds is None or len(bounds) < 2 or not wanted:
        return {}
    sides = counted.reference, counted.current
    numbers = {}
    with np.errstate(over="ignore", invalid="ignore"):
        spread, sigma = cells.spread(counted.reference, bounds), cells.deviation(counted.reference, bounds)
        if spread is not None:
            numbers["wasserstein"] = statistics.wasserstein(*sides, bounds, spread)
        if 0 < sigma < inf:
            numbers["mean_shift"] = statistics.mean_shift(*sides, bounds, sigma)
            for level in QUANTILES:
                shift = statistics.quantile_shift(*sides, bounds, sigma, level=level)
                numbers[f"quantile_shift@{level:g}"] = shift
    return numbers


def _spike(counted: _Counted) -> tuple[str, float] | None:
    cell, gain = statistics.largest_gain(counted.expected(), counted.current)
    return (counted.labels(np.arange(len(counted.current)))[cell], gain) if gain >= SPIKE_GAIN else None


@dataclass(frozen=True, slots=True)
class _States:
    """Counts of both sides by state; empty when a side has none."""

    reference: Counts
    current: Counts

    @classmethod
    def of(cls, reference: Side, current: Side) -> _States:
        none = np.zeros(len(semconv.STATES), np.int64)
        sides = (none if side.states is None else side.states for side in (reference, current))
        return cls(*sides)

    def shares(self, counts: Counts) -> dict[str, float]:
        total = int(counts.sum())
        return dict(zip(semconv.STATES, (counts / total).tolist(), strict=True)) if total else {}

    def effects(self) -> dict[str, float]:
        """Cohen's h of each state but ok."""
        p, q = self.shares(self.reference), self.shares(self.current)
        return {state: statistics.cohen_h(p[state], q[state]) for state in semconv.STATES[1:] if p and q}

    def p_values(self, phi: float) -> dict[str, float]:
        """P-value of each state that some row is in, the window's rows counted as rows over φ."""
        n, m = int(self.reference.sum()), int(self.current.sum()) / phi
        if not (n and m):
            return {}
        pairs = zip(semconv.STATES, self.reference.tolist(), self.current.tolist(), strict=True)
        return {
            state: statistics.two_proportion_p(k, n, j / phi, m)
            for state, k, j in pairs
            if state != semconv.STATES[0] and k + j
        }
