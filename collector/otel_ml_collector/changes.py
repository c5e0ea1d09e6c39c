"""Statuses that changed: each verdict beside the one before it.

What was said of a target moves on with the verdict itself, in the state of the engine: whoever takes the changes of
each evaluation that `Engine.advancing` yields has every change once, also over a snapshot. A target without rows
enough keeps what was said; one that expired is forgotten without a change.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from math import isfinite, nan

from otel_ml import semconv

from .evaluation import Activity, Evaluation, ModelKey, Target, TargetEvaluation

ACTIVITY = Target(semconv.ACTIVITY_TARGET)
"""Stands for the rows of a model."""
_DECIDING = ("psi.excess", "ks", "cusum")
_STATE = "state:"
"""Begins the reason of a verdict by the share of a state."""


def after(said: dict[Target, int], one: TargetEvaluation) -> TargetEvaluation:
    """The evaluation with the status that was said before; `said` moves on to its own."""
    previous = said.get(one.target)
    if one.evaluated:
        said[one.target] = one.status
    return replace(one, previous=previous)


def activity_after(said: dict[Target, int], one: Activity | None) -> Activity | None:
    """As `after`, for the rows of a model."""
    if one is None:
        return None
    previous = said.get(ACTIVITY)
    said[ACTIVITY] = one.status
    return replace(one, previous=previous)


@dataclass(frozen=True, slots=True)
class Change:
    """One status that moved, with what decided it."""

    model: ModelKey
    window_name: str
    window_start: int
    window_end: int
    """Unix nanoseconds."""
    baseline_id: str
    rows: int
    """Of the target in the window; of its activity, of the model."""
    target: Target
    """What moved; `ACTIVITY` for the rows of the model."""
    previous: int | None
    """Index into `semconv.STATUSES`, None before the first verdict."""
    status: int
    reason: str
    detail: str
    statistics: Mapping[str, float]
    """psi.excess, ks, p_value and, where they decided, cusum or state.share and state.effect: those that are known."""

    @property
    def state(self) -> str:
        """The state of a value whose share decided; "" when none did."""
        return _state(self.reason)


def _state(reason: str) -> str:
    return reason.removeprefix(_STATE) if reason.startswith(_STATE) else ""


def changes(evaluation: Evaluation) -> Iterator[Change]:
    """The statuses that moved with this evaluation."""
    activity = evaluation.activity
    if activity is not None and activity.changed:
        yield _change(evaluation, ACTIVITY, activity, evaluation.rows, {})
    for one in evaluation.targets:
        if one.changed:
            yield _change(evaluation, one.target, one, one.rows, deciding(one))


def deciding(one: TargetEvaluation) -> dict[str, float]:
    """The numbers behind a verdict."""
    found = {
        name: one.statistics[name]
        for name in _DECIDING
        if isfinite(one.statistics.get(name, nan)) and (name != "cusum" or one.reason == "slow")
    }
    if one.p_value is not None:
        found["p_value"] = one.p_value
    state = _state(one.reason)
    if state in one.state_shares:
        found |= {"state.share": one.state_shares[state], "state.effect": one.state_effects.get(state, 0.0)}
    return found


def _change(
    evaluation: Evaluation,
    target: Target,
    verdict: TargetEvaluation | Activity,
    rows: int,
    statistics: Mapping[str, float],
) -> Change:
    return Change(
        model=evaluation.model,
        window_name=evaluation.window_name,
        window_start=evaluation.window_start,
        window_end=evaluation.window_end,
        baseline_id=evaluation.baseline_id,
        rows=rows,
        target=target,
        previous=verdict.previous,
        status=verdict.status,
        reason=verdict.reason,
        detail=verdict.detail,
        statistics=statistics,
    )
