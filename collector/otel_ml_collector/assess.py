"""One model, one window: its groups compared with their reference and judged together."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from otel_ml import semconv
from otel_ml.histogram import Histogram

from .changes import after
from .drift import DriftResult, Policy, Side, align, compare
from .evaluation import Target, TargetEvaluation
from .groups import Group
from .layouts import edges_of
from .matching import match
from .reference import Reference, ReferenceTarget
from .verdict import Held, Slow, Verdict, judge
from .view import View, whole
from .window import condense

Counts = NDArray[np.int64]
Failed = Callable[[Target, Exception], None]
"""Told of a comparison that raised; the other targets go on without it."""

_WHY = {
    "no_baseline": "no baseline is known for it",
    "bounds_differ": "it was counted on bounds of which none lies where the baseline has values",
    "other_direction": "it was counted along the directions of another baseline",
    "error": "its comparison failed",
}
_FOREIGN = "; counted on other bounds than the baseline's, compared on the nearest ones"
_OWN_PAST = "; the baseline does not know this segment, it is compared with its own {past} window"
_NO_PAST = "the baseline does not know this segment, and it has no window of its own before this one yet"


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
    if final and reference is not None:
        _add_up(results, view, reference, policy)
    verdicts: dict[Target, Verdict] = {}
    for family, within in _families(results, policy):
        verdicts |= judge(family, model.held, within, final=final, fast=short, slow=model.slow)
    verdicts |= _of_projections(verdicts, model.held, reference)
    model.held |= {target: verdict.held for target, verdict in verdicts.items()}
    judged = [
        _judged(target, results[target], verdict, model.slow.get(target), _past(target, reference))
        for target, verdict in verdicts.items()
    ]
    left_out = [_left_out(target, view, reason, reference) for target, reason in reasons.items()]
    found = sorted(judged + left_out, key=lambda evaluation: evaluation.target)
    return tuple(after(model.said, one) for one in found)


def _add_up(results: Mapping[Target, DriftResult], view: View, reference: Reference, policy: Policy) -> None:
    """Put a window into the cumulative sums of its targets."""
    sums = view.model.slow
    for target, result in results.items():
        sums[target] = sums.get(target, Slow()).after(
            result, start=view.start, end=view.end, baseline_id=reference.id, policy=policy
        )


def _families(
    results: Mapping[Target, DriftResult], policy: Policy
) -> Iterator[tuple[Mapping[Target, DriftResult], Policy]]:
    """All rows first; then all segments together at alpha over their number, so that cutting the rows finer
    neither raises more alarms nor takes power from the whole."""
    yield {target: result for target, result in results.items() if not target.segment}, policy
    cut = {target: result for target, result in results.items() if target.segment}
    if cut:
        number = len({target.segment for target in cut})
        yield cut, replace(policy, alpha=policy.alpha / number)


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
        if target.kind == "projection":
            group = _along_the_same(known, group)
            if not group.histograms:
                return "other_direction"
        sides = _sides(known, group, view)
        if sides is None:
            return "bounds_differ"
        return replace(compare(sides.reference, sides.current, policy), foreign_bounds=sides.foreign)
    except Exception as error:  # one group's failure must not silence the others
        failed(target, error)
        return "error"


def _along_the_same(reference: ReferenceTarget, group: Group) -> Group:
    """What was counted along the direction of the reference: what is on other bounds is of another baseline, and so
    of another direction."""
    own = {bounds: slot for bounds, slot in group.histograms.items() if bounds == reference.bounds}
    return replace(group, histograms=own)


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
        if int(whole(fast.rows_of(group))) >= policy.min_rows:
            outcome = _compare(target, group, fast, reference, policy, failed)
            if not isinstance(outcome, str):
                short[target] = outcome
    return short


@dataclass(frozen=True, slots=True)
class _Sides:
    """What is compared."""

    reference: Side
    current: Side
    foreign: bool = False
    """True when the reference was evaluated between its bounds."""


def _sides(reference: ReferenceTarget, group: Group, view: View) -> _Sides | None:
    """Reference and current on the same cells; None when they cannot be brought there."""
    states = whole(view.panes(group.states)) if group.states else None
    if reference.bounds is not None and reference.counts is not None:
        return _numeric(
            Histogram(np.array(reference.bounds), reference.counts), reference, group, view, states
        )
    if reference.categories is not None:
        return _Sides(*_categorical(reference, group, view, states))
    none = np.zeros(0, np.int64)
    return _Sides(Side(none, states=reference.states), Side(none, states=states))


def _numeric(
    known: Histogram, reference: ReferenceTarget, group: Group, view: View, states: Counts | None
) -> _Sides | None:
    counted = [(edges_of(bounds), view.panes(slot)[:, : len(bounds) + 1]) for bounds, slot in group.layouts()]
    matched = match(known, counted, len(view.starts), quantiles=reference.quantiles)
    on, panes = matched.reference, matched.panes
    if not len(on.bounds) and len(known.bounds):
        return None
    return _Sides(
        Side(on.counts, bounds=on.bounds, states=reference.states),
        Side(whole(panes), bounds=on.bounds, states=states, panes=_independent(panes)),
        foreign=not matched.exact,
    )


def _categorical(
    reference: ReferenceTarget, group: Group, view: View, states: Counts | None
) -> tuple[Side, Side]:
    panes = {name: view.panes(slot)[:, 0] for name, slot in group.categories.items()}
    counted = {name: total for name, pane in panes.items() if (total := int(whole(pane)))}
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


def _of_projections(
    verdicts: Mapping[Target, Verdict], held: Mapping[Target, Held], reference: Reference | None
) -> dict[Target, Verdict]:
    """The verdicts of projections, with what they mean.

    A feature that moves takes projections along. One cause is one alarm: until it is over they keep their status.
    """
    moved = [
        target.name
        for target, verdict in verdicts.items()
        if target.kind == "feature" and not target.segment and verdict.status
    ]
    projections = {target: verdict for target, verdict in verdicts.items() if target.kind == "projection"}
    if moved:
        named = ", ".join(moved[:3]) + (", …" if len(moved) > 3 else "")
        return {
            target: _waiting(verdict, held.get(target, Held()), f"{named} moved, which moves it, too")
            for target, verdict in projections.items()
        }
    known = reference.targets if reference else {}
    return {
        target: _in_words(verdict, known.get(target))
        for target, verdict in projections.items()
        if verdict.status
    }


def _waiting(verdict: Verdict, before: Held, detail: str) -> Verdict:
    return replace(
        verdict, status=before.status, evaluated=False, reason="features_drift", detail=detail, held=before
    )


def _in_words(verdict: Verdict, reference: ReferenceTarget | None) -> Verdict:
    """What it means that a projection moved."""
    weights = ", ".join(f"{name} {loading:+.2g}" for name, loading in reference.loadings) if reference else ""
    largest = f"; largest weights: {weights}" if weights else ""
    return replace(
        verdict, detail=f"joint drift: the features move together differently{largest}; {verdict.detail}"
    )


def _past(target: Target, reference: Reference | None) -> str:
    """The kind of past that a segment is compared with because the baseline does not know it; "" when it does."""
    known = reference.targets.get(target) if reference and target.segment else None
    return known.past if known else ""


def _judged(
    target: Target, result: DriftResult, verdict: Verdict, slow: Slow | None, past: str
) -> TargetEvaluation:
    return TargetEvaluation(
        target=target,
        rows=result.rows,
        evaluated=verdict.evaluated,
        status=verdict.status,
        reason=verdict.reason,
        detail=verdict.detail
        + (_OWN_PAST.format(past=past) if past else "")
        + (_FOREIGN if result.foreign_bounds else ""),
        statistics={**result.statistics, **({"cusum": slow.score} if slow and slow.until else {})},
        p_value=verdict.p_value,
        state_shares=result.state_shares,
        state_effects=result.state_effects,
        bins=result.bins,
        foreign_bounds=result.foreign_bounds,
    )


def _left_out(target: Target, view: View, reason: str, reference: Reference | None) -> TargetEvaluation:
    group = view.model.groups[target]
    unknown = reference is not None and reason == "no_baseline" and bool(target.segment)
    return TargetEvaluation(
        target=target,
        rows=int(whole(view.rows_of(group))),
        evaluated=False,
        status=view.model.held.get(target, Held()).status,
        reason=reason,
        detail=_NO_PAST if unknown else _WHY[reason],
        statistics={},
        p_value=None,
        state_shares=_shares(group, view),
        state_effects={},
        bins=None,
    )


def _shares(group: Group, view: View) -> dict[str, float]:
    states = whole(view.panes(group.states)) if group.states else np.zeros(1, np.int64)
    total = int(states.sum())
    return dict(zip(semconv.STATES, (states / total).tolist(), strict=True)) if total else {}
