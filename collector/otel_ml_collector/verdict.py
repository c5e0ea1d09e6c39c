"""Turns the numbers of all targets of one model and window into statuses, each with its reason.

A status rises when an effect reaches its limit and its corrected p-value is below alpha: both, since with
many rows everything is significant and with few everything moves. From warning to drifted it rises only when the
effect is clearly beyond its limit, so that a drift between the two limits does not go up and down. It falls only
when the effects are clearly below the limit that held it, twice in a row.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from math import inf, sqrt

from otel_ml import semconv

from . import statistics
from .drift import SPIKE_GAIN, DriftResult, Policy
from .evaluation import Target

CLEAR_SHARE = 0.8
"""The share of a limit that effects must fall below before the status may."""

CLEAR_EVALUATIONS = 2

_WARNING, _DRIFTED = (semconv.STATUSES.index(name) for name in ("warning", "drifted"))
_DISTRIBUTION = ""
"""Key of the test of the distributions; a state's test has the state's name."""
_SLOW = "slow"
"""Key of an effect that is its own test."""


@dataclass(frozen=True, slots=True)
class Held:
    """What a target carries from one evaluation to the next."""

    status: int = 0
    """Index into `semconv.STATUSES`."""
    clear: int = 0
    """Evaluations in a row that allowed a lower status."""
    streak: int = 0
    """Evaluations in a row that asked for a higher status."""


@dataclass(frozen=True, slots=True)
class Slow:
    """The cumulative sums of one target over windows that do not overlap: slow drift adds up in them."""

    sums: tuple[float, ...] = ()
    """Of changes of any shape and, for numbers, of shifts up and down."""
    until: int = 0
    """End of the last window in them, Unix ns."""
    baseline_id: str = ""
    """What those windows were compared with: the sums start anew with another baseline, and only then."""

    @property
    def score(self) -> float:
        """The largest of them."""
        return max(self.sums, default=0.0)

    def after(self, result: DriftResult, *, start: int, end: int, baseline_id: str, policy: Policy) -> Slow:
        """With the window (start, end], if that has rows enough and shares none with those before."""
        before = self if baseline_id == self.baseline_id else Slow(baseline_id=baseline_id)
        low = _gate(result.values, result.reference_values, result, policy) is not None
        if not result.cusum_steps or low or start < before.until:
            return before
        same = len(before.sums) == len(result.cusum_steps)
        sums = before.sums if same else (0.0,) * len(result.cusum_steps)
        after = (statistics.cusum(score, step) for score, step in zip(sums, result.cusum_steps, strict=True))
        return replace(before, sums=tuple(after), until=end)


@dataclass(frozen=True, slots=True)
class Verdict:
    """The status of one target and why it has it."""

    status: int
    """Index into `semconv.STATUSES`; the held one when not evaluated."""
    evaluated: bool
    reason: str
    """ok, effect_below, not_significant, rows_low, reference_small, psi, ks, spike, slow, fast, state:<state>,
    held."""
    detail: str
    """The reason in words, with its numbers."""
    p_value: float | None
    """After correction, of the test behind the reason; with the reason fast that of the whole window."""
    held: Held
    """For the next evaluation."""


@dataclass(frozen=True, slots=True)
class _Effect:
    """One effect of a target against its limits."""

    reason: str
    test: str
    size: float
    limits: tuple[float, float]
    words: str
    """What was seen, to be followed by "≥ limit"."""
    noise: float = 0.0
    """Its standard deviation between windows of the same distribution, about."""
    tested: bool = True
    """Whether it holds a status only while its test finds it significant."""

    def level(self, held: int) -> int:
        """The status it asks for: that of the last limit reached, in case of a held warning by a margin."""
        level = sum(self.size >= limit for limit in self.limits)
        sure = self.size - statistics.ONE_SIDED_95 * self.noise >= self.limits[-1]
        return held if level > held == _WARNING and not sure else level

    def said(self, level: int) -> str:
        """The effect beside the limit of this level, or the first one when it reached none."""
        limit = self.limits[max(0, level - 1)]
        return f"{self.words} {'≥' if level else '<'} {limit:g}"

    def blocks(self, level: int, significant: bool) -> bool:
        """Whether the effect is still too near the limit of `level` to leave it."""
        ceiling = self.size + statistics.ONE_SIDED_95 * self.noise
        return (significant or not self.tested) and ceiling >= CLEAR_SHARE * self.limits[level - 1]


@dataclass(frozen=True, slots=True)
class _Examined:
    """A target before the correction: what can be judged, and what keeps the rest from it."""

    rows: int
    effects: tuple[_Effect, ...]
    p_values: Mapping[str, float]
    blocked: tuple[tuple[str, str], ...]
    """Reason and detail of each part that has too few rows."""


@dataclass(frozen=True, slots=True)
class _Opinion:
    """What this window alone says, whatever was held."""

    status: int
    reason: str
    detail: str
    p_value: float | None
    evaluated: bool
    floor: int
    """The lowest status that the clear rule allows."""


def judge(
    results: Mapping[Target, DriftResult],
    held: Mapping[Target, Held],
    policy: Policy,
    *,
    final: bool,
    fast: Mapping[Target, DriftResult] | None = None,
    slow: Mapping[Target, Slow] | None = None,
) -> Mapping[Target, Verdict]:
    """A verdict for every target of `results`, which together are the family of the correction.

    `final` says that the window stands at a step: only then does a status move, but for the `fast` results of
    a short window, which raise one at once. `slow` can add a warning. `held` may lack targets; theirs is ok.
    """
    sums = slow or {}
    examined = {
        target: _examine(result, sums.get(target, Slow()).score, policy) for target, result in results.items()
    }
    corrected = _correct(examined, policy)
    verdicts = {}
    for target, found in examined.items():
        before = held.get(target, Held())
        opinion = _opinion(found, corrected[target], before.status, policy)
        alarm = _fast_alarm((fast or {}).get(target), policy)
        verdict = _settle(opinion, Held(_DRIFTED) if alarm else before, policy, final=final)
        # Where the whole window says the same, its reason and its numbers belong together.
        if alarm and opinion.status < _DRIFTED:
            verdict = replace(verdict, evaluated=True, reason="fast", detail=alarm, held=Held(_DRIFTED))
        verdicts[target] = verdict
    return verdicts


def _examine(result: DriftResult, cusum: float, policy: Policy) -> _Examined:
    effects: list[_Effect] = []
    p_values: dict[str, float] = {}
    blocked: list[tuple[str, str]] = []
    if result.has_cells or not result.state_effects:
        gate = _gate(result.values, result.reference_values, result, policy)
        if gate is None:
            effects += _distribution_effects(result, policy)
            effects.append(_slow_effect(cusum))
            p_values |= {} if result.p_value is None else {_DISTRIBUTION: result.p_value}
        else:
            blocked.append(gate)
    if result.state_effects:
        gate = _gate(result.rows, result.reference_rows, result, policy)
        if gate is None:
            effects += _state_effects(result, policy)
            p_values |= result.state_p_values
        else:
            blocked.append(gate)
    return _Examined(result.rows, tuple(effects), p_values, tuple(blocked))


def _gate(rows: int, reference_rows: int, result: DriftResult, policy: Policy) -> tuple[str, str] | None:
    """Why there are too few rows to judge by, or None.

    Rows are worth less only as far as that is certain: φ of a small window is noisy, and half the windows of
    just enough independent rows would have too few.
    """
    phi = result.phi_at_least
    if reference_rows < policy.min_reference_rows:
        return (
            "reference_small",
            f"{reference_rows:,} rows in the baseline, fewer than {policy.min_reference_rows:,}",
        )
    if rows / phi >= policy.min_rows:
        return None
    worth = f", worth {rows / phi:,.0f} independent ones at most," if phi > 1 else ","
    return "rows_low", f"{rows:,} rows in the window{worth} fewer than {policy.min_rows:,}"


def _distribution_effects(result: DriftResult, policy: Policy) -> Iterator[_Effect]:
    excess = result.statistics.get("psi.excess")
    if excess is not None:
        words = f"PSI excess {excess:.2g}"
        noise = sqrt(2 * (result.psi_cells - 1) * result.s**2 + 4 * result.s * excess)
        yield _Effect("psi", _DISTRIBUTION, excess, policy.psi, words, noise, tested=False)
    ks = result.statistics.get("ks")
    if ks is not None:
        # A share's standard deviation, at its largest, in the middle.
        yield _Effect("ks", _DISTRIBUTION, ks, policy.ks, f"KS {ks:.2g}", sqrt(result.s) / 2)
    if result.spike is not None:
        cell, gain = result.spike
        words = f"spike at {cell}: gain of share {gain:.2g}"
        noise = sqrt(gain * (1 - gain) * result.s)
        yield _Effect("spike", _DISTRIBUTION, gain, (SPIKE_GAIN, inf), words, noise)


def _slow_effect(cusum: float) -> _Effect:
    limit = statistics.CUSUM_LIMIT
    words = f"a small difference that lasts: cumulative sum {cusum:.2g}"
    return _Effect("slow", _SLOW, cusum, (limit, inf), words)


def _state_effects(result: DriftResult, policy: Policy) -> Iterator[_Effect]:
    # Cohen's h has the variance 1/n + 1/m whatever the shares: that is what its arcsines are for.
    noise = sqrt(1 / result.reference_rows + result.phi / result.rows)
    for state, h in result.state_effects.items():
        before, now = result.reference_state_shares[state], result.state_shares[state]
        words = f"{state} {_percent(before)} → {_percent(now)}, Cohen's h {h:.2g}"
        yield _Effect(f"state:{state}", state, h, policy.states, words, noise)


def _percent(share: float) -> str:
    return f"{100 * share:.3g} %"


def _correct(examined: Mapping[Target, _Examined], policy: Policy) -> dict[Target, dict[str, float]]:
    """Corrected p-values of every target; all tests of all targets are one family."""
    keys = [(target, test) for target, found in examined.items() for test in found.p_values]
    raw = [examined[target].p_values[test] for target, test in keys]
    if policy.correction == "bh":
        raw = statistics.benjamini_hochberg(raw).tolist()
    elif policy.correction == "bonferroni":
        raw = statistics.bonferroni(raw).tolist()
    corrected: dict[Target, dict[str, float]] = {target: {} for target in examined}
    for (target, test), p in zip(keys, raw, strict=True):
        corrected[target][test] = p
    return corrected


def _opinion(found: _Examined, p: Mapping[str, float], held: int, policy: Policy) -> _Opinion:
    """The status this window asks for: the worst of its effects that are no chance."""
    significant = {_SLOW, *(test for test, value in p.items() if value < policy.alpha)}
    levels = [(effect.level(held), effect) for effect in found.effects if effect.test in significant]
    status, worst = max(levels, key=lambda one: one[0], default=(0, None))  # the first of equals
    floor = _floor(found, significant, held)
    if status and worst:
        chance = "" if worst.test == _SLOW else f" and p {p[worst.test]:.1g} < {policy.alpha:g}"
        detail = f"{worst.said(status)}{chance} over {found.rows:,} rows"
        return _Opinion(status, worst.reason, detail, p.get(worst.test), True, floor)
    if found.blocked:
        reason, detail = found.blocked[0]
        return _Opinion(0, reason, detail, None, False, floor)
    reason, detail, test = _why_ok(found, p, significant - {_SLOW}, policy)
    return _Opinion(0, reason, detail, p.get(test), True, floor)


def _floor(found: _Examined, significant: set[str], held: int) -> int:
    if found.blocked:
        return held
    near = [
        level
        for level in (1, 2)
        if any(effect.blocks(level, effect.test in significant) for effect in found.effects)
    ]
    return max(near, default=0)


def _why_ok(
    found: _Examined, p: Mapping[str, float], significant: set[str], policy: Policy
) -> tuple[str, str, str]:
    """Reason, detail and test of a target that asks for no alarm."""
    over = f"over {found.rows:,} rows"
    for effect in found.effects:
        level = effect.level(held=0)
        if level:
            chance = f"p {p[effect.test]:.1g} ≥ {policy.alpha:g}" if effect.test in p else "nothing to test"
            return "not_significant", f"{effect.said(level)} but {chance} {over}", effect.test
    if significant:
        test = min(significant, key=lambda name: (name != _DISTRIBUTION, p[name]))
        small = " and ".join(effect.said(0) for effect in found.effects if effect.test == test)
        return "effect_below", f"p {p[test]:.1g} < {policy.alpha:g} but {small} {over}", test
    test = _DISTRIBUTION if _DISTRIBUTION in p or not p else min(p, key=lambda name: p[name])
    said = " and ".join(effect.said(0) for effect in found.effects if effect.test == _DISTRIBUTION)
    return "ok", f"{said or 'shares of states as in the baseline'} {over}", test


def _fast_alarm(result: DriftResult | None, policy: Policy) -> str | None:
    """What to say when a short window is far off beyond doubt, so that the target has drifted at once."""
    if result is None or _gate(result.values, result.reference_values, result, policy) is not None:
        return None
    psi, p = result.statistics.get("psi", 0.0), result.p_value
    if p is None or psi < policy.fast_psi or p >= policy.fast_p:
        return None
    return (
        f"PSI {psi:.2g} ≥ {policy.fast_psi:g} and p {p:.1g} < {policy.fast_p:g} over {result.rows:,} rows "
        "of the short window, which raises at once; the gauges show the whole window"
    )


def _settle(opinion: _Opinion, before: Held, policy: Policy, *, final: bool) -> Verdict:
    """The verdict, from what this window says and what was held."""
    after = _next(opinion, before, policy) if final and opinion.evaluated else before
    reason, detail = opinion.reason, opinion.detail
    if opinion.evaluated and opinion.status > after.status:
        waiting = f"{after.streak} of {policy.consecutive} evaluations" if final else "moves at the next step"
        detail += f" ({waiting})"
    elif opinion.evaluated and opinion.status < after.status:
        reason = "held"
        status, clearing = semconv.STATUSES[after.status], _clearing(opinion, after)
        detail = f"{status} is held until clearly over: {clearing}; {detail}"
    return Verdict(after.status, opinion.evaluated, reason, detail, opinion.p_value, after)


def _next(opinion: _Opinion, before: Held, policy: Policy) -> Held:
    if opinion.status > before.status:
        streak = before.streak + 1
        agreed = streak >= policy.consecutive
        return Held(opinion.status) if agreed else Held(before.status, streak=streak)
    lowest = max(opinion.status, opinion.floor)
    if lowest < before.status:
        clear = before.clear + 1
        return Held(lowest) if clear >= CLEAR_EVALUATIONS else Held(before.status, clear)
    return Held(before.status)


def _clearing(opinion: _Opinion, after: Held) -> str:
    if opinion.floor >= after.status:
        return f"an effect is not yet below {CLEAR_SHARE:g} of its limit"
    return f"{after.clear} of {CLEAR_EVALUATIONS} evaluations"
