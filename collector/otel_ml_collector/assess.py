"""One model, one window: its groups compared with their reference and judged together."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from otel_ml import semconv
from otel_ml.histogram import Histogram

from .baselines import Reference, ReferenceTarget
from .drift import DriftResult, Policy, Side, align, compare
from .evaluation import Target, TargetEvaluation
from .groups import Group, Monitored, Slot
from .verdict import Held, Verdict, judge
from .window import Panes, WindowSpec, condense

Counts = NDArray[np.int64]
Failed = Callable[[Target, Exception], None]
"""Told of a comparison that raised; the other targets go on without it."""

_WHY = {
    "no_baseline": "no baseline is known for it",
    "bounds_differ": "it was counted on bounds that do not nest with the baseline's",
    "error": "its comparison failed",
}


@dataclass(frozen=True, slots=True)
class View:
    """The counts of one model in (start, end], pane by pane."""

    model: Monitored
    start: int
    end: int
    starts: NDArray[np.int64]
    """(P,) where each pane begins, rising."""
    matrix: Counts
    """(P, cells of the model)"""
    columns: Mapping[int, int]
    """Column of the first cell of each slot, by the slot's offset."""

    @classmethod
    def of(cls, model: Monitored, panes: Panes, start: int, end: int, *, width: int) -> View:
        """What the panes hold of a model, in panes of `width` (ns)."""
        slots = list(model.slots())
        ends = np.cumsum([slot.length for slot in slots]).tolist()
        cells = np.concatenate([np.arange(slot.offset, slot.offset + slot.length) for slot in slots])
        columns = {slot.offset: last - slot.length for slot, last in zip(slots, ends, strict=True)}
        starts, matrix = panes.gather(cells, start, end, width=width)
        return cls(model, start, end, starts, matrix, columns)

    def since(self, start: int) -> View:
        """The part of it that begins at `start`."""
        later = self.starts >= start
        return replace(self, start=start, starts=self.starts[later], matrix=self.matrix[later])

    def panes(self, slot: Slot) -> Counts:
        """(P, slot.length)"""
        column = self.columns[slot.offset]
        return self.matrix[:, column : column + slot.length]

    def rows(self) -> Counts:
        """(P,) rows of the model: those it reported, else those of the target that has the most."""
        reported = self._sum([self.model.rows] if self.model.rows else [])
        if reported.any() or not self.model.groups:
            return reported
        most: Counts = np.max([self.rows_of(group) for group in self.model.groups.values()], axis=0)
        return most

    def rows_of(self, group: Group) -> Counts:
        """(P,) rows of a target, all states."""
        values = self._sum([*group.histograms.values(), *group.categories.values()])
        return np.maximum(values, self._sum([group.states] if group.states else []))

    def _sum(self, slots: Iterable[Slot]) -> Counts:
        total = np.zeros(len(self.starts), np.int64)
        for slot in slots:
            total += self.panes(slot).sum(axis=1)
        return total


def grown(model: Monitored, panes: Panes, spec: WindowSpec, *, start: int, end: int, min_rows: int) -> View:
    """The window (start, end] of a model, grown backwards by whole steps until it has `min_rows` rows.

    If even the longest one has too few, the window as it was.
    """
    view = View.of(model, panes, start, end, width=spec.coarse_ns)
    if int(view.rows().sum()) >= min_rows:
        return view
    longest = View.of(model, panes, start + spec.length_ns - spec.reach_ns, end, width=spec.coarse_ns)
    rows = longest.rows()
    while start > longest.start:
        start -= spec.step_ns
        if int(rows[longest.starts >= start].sum()) >= min_rows:
            return longest.since(start)
    return view


def assess(
    view: View,
    fast: View | None,
    reference: Reference | None,
    policy: Policy,
    *,
    final: bool,
    failed: Failed,
) -> tuple[TargetEvaluation, ...]:
    """Numbers and verdicts of every target of a model; what the model holds moves on.

    `fast` is the short window that can raise a status at once, None to do without.
    """
    model = view.model
    results: dict[Target, DriftResult] = {}
    reasons: dict[Target, str] = {}
    for target, group in model.groups.items():
        outcome = _compare(target, group, view, reference, policy, failed)
        if isinstance(outcome, str):
            reasons[target] = outcome
        else:
            results[target] = outcome
    short = _short(fast, reference, policy, results, failed) if fast else None
    verdicts = judge(results, model.held, policy, final=final, fast=short)
    model.held |= {target: verdict.held for target, verdict in verdicts.items()}
    judged = [_judged(target, results[target], verdict) for target, verdict in verdicts.items()]
    left_out = [_left_out(target, view, reason) for target, reason in reasons.items()]
    return tuple(sorted(judged + left_out, key=lambda evaluation: evaluation.target))


def _compare(
    target: Target,
    group: Group,
    view: View,
    reference: Reference | None,
    policy: Policy,
    failed: Failed,
) -> DriftResult | str:
    """The numbers of one target, or the reason why there are none."""
    known = reference.targets.get(target) if reference else None
    if known is None:
        return "no_baseline"
    try:
        sides = _sides(known, group, view)
        return compare(*sides, policy) if sides else "bounds_differ"
    except Exception as error:  # one group's failure must not silence the others
        failed(target, error)
        return "error"


def _short(
    fast: View,
    reference: Reference | None,
    policy: Policy,
    results: Mapping[Target, DriftResult],
    failed: Failed,
) -> dict[Target, DriftResult]:
    """Results of the targets that have enough rows in the short window."""
    short = {}
    for target in results:
        group = fast.model.groups[target]
        if int(fast.rows_of(group).sum()) >= policy.min_rows:
            outcome = _compare(target, group, fast, reference, policy, failed)
            if not isinstance(outcome, str):
                short[target] = outcome
    return short


def _sides(reference: ReferenceTarget, group: Group, view: View) -> tuple[Side, Side] | None:
    """Reference and current on the same cells; None when they cannot be brought there."""
    states = view.panes(group.states).sum(axis=0) if group.states else None
    if reference.bounds is not None and reference.counts is not None:
        return _numeric(
            Histogram(np.array(reference.bounds), reference.counts), reference, group, view, states
        )
    if reference.categories is not None:
        return _categorical(reference, group, view, states)
    none = np.zeros(0, np.int64)
    return Side(none, states=reference.states), Side(none, states=states)


def _numeric(
    known: Histogram, reference: ReferenceTarget, group: Group, view: View, states: Counts | None
) -> tuple[Side, Side] | None:
    """Bounds that hold all of the reference's collapse onto these; else it collapses onto the current."""
    counted = {
        bounds: panes for bounds, slot in group.histograms.items() if (panes := view.panes(slot)).any()
    }
    own = {bounds for bounds in counted if set(known.bounds.tolist()) <= set(bounds)}
    if counted and not own:
        most = max(counted, key=lambda bounds: (int(counted[bounds].sum()), bounds))
        if not set(most) <= set(known.bounds.tolist()):
            return None
        known, own = known.collapse(np.array(most)), {most}
    panes = np.zeros((len(view.starts), len(known.counts)), np.int64)
    for bounds in own:
        panes += _collapse(counted[bounds], bounds, known.bounds)
    return (
        Side(known.counts, bounds=known.bounds, states=reference.states),
        Side(panes.sum(axis=0), bounds=known.bounds, states=states, panes=_independent(panes)),
    )


def _collapse(panes: Counts, bounds: tuple[float, ...], onto: NDArray[np.float64]) -> Counts:
    if len(bounds) == len(onto):
        return panes
    own = np.array(bounds)
    return np.stack([Histogram(own, pane).collapse(onto).counts for pane in panes])


def _categorical(
    reference: ReferenceTarget, group: Group, view: View, states: Counts | None
) -> tuple[Side, Side]:
    panes = {name: view.panes(slot)[:, 0] for name, slot in group.categories.items()}
    counted = {name: total for name, pane in panes.items() if (total := int(pane.sum()))}
    categories, known, current = align(reference.categories or {}, counted)
    none = np.zeros(len(view.starts), np.int64)
    by_pane = np.column_stack([panes.get(name, none) for name in categories])
    return (
        Side(known, categories=categories, states=reference.states),
        Side(current, categories=categories, states=states, panes=_independent(by_pane)),
    )


def _independent(panes: Counts) -> Counts | None:
    """Panes that say something about how much rows cluster: condensed, those without rows left out."""
    panes = condense(panes[panes.any(axis=1)])
    return panes if len(panes) > 1 else None


def _judged(target: Target, result: DriftResult, verdict: Verdict) -> TargetEvaluation:
    return TargetEvaluation(
        target=target,
        rows=result.rows,
        evaluated=verdict.evaluated,
        status=verdict.status,
        reason=verdict.reason,
        detail=verdict.detail,
        statistics=result.statistics,
        p_value=verdict.p_value,
        state_shares=result.state_shares,
        state_effects=result.state_effects,
        bins=result.bins,
    )


def _left_out(target: Target, view: View, reason: str) -> TargetEvaluation:
    group = view.model.groups[target]
    return TargetEvaluation(
        target=target,
        rows=int(view.rows_of(group).sum()),
        evaluated=False,
        status=view.model.held.get(target, Held()).status,
        reason=reason,
        detail=_WHY[reason],
        statistics={},
        p_value=None,
        state_shares=_shares(group, view),
        state_effects={},
        bins=None,
    )


def _shares(group: Group, view: View) -> dict[str, float]:
    states = view.panes(group.states).sum(axis=0) if group.states else np.zeros(1, np.int64)
    total = int(states.sum())
    return dict(zip(semconv.STATES, (states / total).tolist(), strict=True)) if total else {}
