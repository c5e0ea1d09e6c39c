"""Statuses rise on effects that are real, fall when they are clearly gone, and say why."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from otel_ml import semconv
from otel_ml_collector.drift import DriftResult, Policy, Side, compare
from otel_ml_collector.evaluation import Target
from otel_ml_collector.verdict import Held, Slow, Verdict, judge

POLICY = Policy()
X = Target("feature", "x")
NOTHING = DriftResult(
    reference_rows=5000,
    reference_values=5000,
    rows=5200,
    values=5200,
    has_cells=True,
    phi=1.0,
    phi_at_least=1.0,
    statistics={"psi": 0.01, "psi.excess": 0.005, "ks": 0.02},
    p_value=0.4,
    state_shares={},
    reference_state_shares={},
    state_effects={},
    state_p_values={},
    spike=None,
    bins=None,
    psi_cells=10,
    s=1 / 5000 + 1 / 5200,
)


def values(excess: float, ks: float = 0.02, p: float | None = 1e-12, **changes: object) -> DriftResult:
    """A result with the given effect sizes."""
    numbers = {"psi": excess + 0.005, "psi.excess": excess, "ks": ks}
    return replace(NOTHING, statistics=numbers, p_value=p, **changes)


def missing(share: float, h: float, p: float, result: DriftResult = NOTHING) -> DriftResult:
    """A result whose missing share went from 0 to `share`."""
    rest = dict.fromkeys(semconv.STATES, 0.0)
    return replace(
        result,
        state_shares={**rest, "ok": 1 - share, "missing": share},
        reference_state_shares={**rest, "ok": 1.0},
        state_effects={**dict.fromkeys(semconv.STATES[1:], 0.0), "missing": h},
        state_p_values={"missing": p},
    )


def one(
    result: DriftResult,
    held: Held | None = None,
    policy: Policy = POLICY,
    *,
    final: bool = True,
    fast: DriftResult | None = None,
) -> Verdict:
    """The verdict of a single target."""
    before = {} if held is None else {X: held}
    return judge({X: result}, before, policy, final=final, fast=fast and {X: fast})[X]


def run(results: list[DriftResult], held: Held = Held(), policy: Policy = POLICY) -> list[int]:  # noqa: B008
    """Statuses of a series of evaluations, each carrying on from the one before."""
    statuses = []
    for result in results:
        verdict = one(result, held, policy)
        held = verdict.held
        statuses.append(verdict.status)
    return statuses


@pytest.mark.parametrize(
    ("result", "status", "reason"),
    [
        (NOTHING, 0, "ok"),
        (values(0.05), 0, "effect_below"),
        (values(0.3, p=0.01), 0, "not_significant"),
        (values(0.12), 1, "psi"),
        (values(0.41), 2, "psi"),
        (values(0.05, ks=0.12), 1, "ks"),
        (values(0.15, ks=0.22), 2, "ks"),
        (values(0.05, spike=("= 0", 0.08)), 1, "spike"),
        (missing(0.01, 0.2, 1e-9), 1, "state:missing"),
        (missing(0.12, 0.71, 1e-9), 2, "state:missing"),
        (missing(0.12, 0.71, 0.2), 0, "not_significant"),
        (missing(0.01, 0.15, 1e-9), 0, "effect_below"),
        (missing(0.01, 0.2, 1e-9, values(0.41)), 2, "psi"),
        (missing(0.12, 0.71, 1e-9, values(0.12)), 2, "state:missing"),
        (values(0.41, values=150), 0, "rows_low"),
        (values(0.41, phi=40.0, phi_at_least=30.0), 0, "rows_low"),
        (values(0.41, reference_values=499), 0, "reference_small"),
        (values(0.0, p=None), 0, "ok"),
    ],
)
def test_status_and_reason(result: DriftResult, status: int, reason: str) -> None:
    """A status needs an effect at its limit, a p-value below alpha and enough rows; the worst one counts."""
    verdict = one(result)
    assert (verdict.status, verdict.reason) == (status, reason)
    assert verdict.evaluated == (reason not in ("rows_low", "reference_small"))
    assert verdict.held.status == status


@pytest.mark.parametrize(
    ("result", "detail"),
    [
        (NOTHING, "PSI excess 0.005 < 0.1 and KS 0.02 < 0.1 over 5,200 rows"),
        (values(0.41, p=2e-12), "PSI excess 0.41 ≥ 0.25 and p 2e-12 < 0.001 over 5,200 rows"),
        (
            missing(0.12, 0.71, 1e-9),
            "missing 0 % → 12 %, Cohen's h 0.71 ≥ 0.5 and p 2e-09 < 0.001 over 5,200 rows",
        ),
        (
            values(0.05, spike=("= 0", 0.08)),
            "spike at = 0: gain of share 0.08 ≥ 0.05 and p 1e-12 < 0.001 over 5,200 rows",
        ),
        (values(0.3, p=0.01), "PSI excess 0.3 ≥ 0.25 but p 0.01 ≥ 0.001 over 5,200 rows"),
        (values(0.05), "p 1e-12 < 0.001 but PSI excess 0.05 < 0.1 and KS 0.02 < 0.1 over 5,200 rows"),
        (values(0.41, values=150), "150 rows in the window, fewer than 200"),
        (
            values(0.41, phi=40.0, phi_at_least=30.0),
            "5,200 rows in the window, worth 173 independent ones at most, fewer than 200",
        ),
        (values(0.41, reference_values=499), "499 rows in the baseline, fewer than 500"),
    ],
)
def test_detail_says_the_reason_with_its_numbers(result: DriftResult, detail: str) -> None:
    """The detail is the reason in words, with the numbers and limits it rests on."""
    assert one(result).detail == detail


def test_tests_of_all_targets_are_one_family() -> None:
    """One small p-value among many is corrected by the number of tests, states included."""
    others = {Target("feature", f"x{i}"): missing(0.001, 0.06, 0.5) for i in range(49)}
    results = {X: values(0.3, p=5e-5), **others}
    alone = judge({X: results[X]}, {}, POLICY, final=True)[X]
    among = judge(results, {}, POLICY, final=True)[X]
    assert (alone.status, alone.p_value) == (2, 5e-5)
    assert (among.status, among.reason, among.p_value) == (0, "not_significant", pytest.approx(5e-5 * 99))
    kept = judge(results, {}, replace(POLICY, correction="none"), final=True)[X]
    assert (kept.status, kept.p_value) == (2, 5e-5)
    strict = judge(
        {X: values(0.3, p=1e-5), **others}, {}, replace(POLICY, correction="bonferroni"), final=True
    )
    assert (strict[X].status, strict[X].p_value) == (2, pytest.approx(1e-5 * 99))


def test_targets_with_too_few_rows_are_no_part_of_the_family() -> None:
    """What cannot be judged does not make the others pay for it."""
    others = {Target("feature", f"x{i}"): values(0, p=1.0, values=10) for i in range(49)}
    assert judge({X: values(0.3, p=5e-5), **others}, {}, POLICY, final=True)[X].p_value == 5e-5


def test_all_missing_is_judged_by_the_states() -> None:
    """A feature that turns missing altogether is drifted though no value is left."""
    gone = missing(1.0, np.pi, 1e-300, replace(NOTHING, values=0, statistics={}, p_value=None))
    verdict = one(gone)
    assert (verdict.status, verdict.evaluated, verdict.reason) == (2, True, "state:missing")


def test_a_refresh_moves_nothing() -> None:
    """Between steps the held status stands, and the detail says what is coming."""
    held = Held(0, 0, 0)
    verdict = one(values(0.41), held, final=False)
    assert (verdict.status, verdict.reason, verdict.held) == (0, "psi", held)
    assert verdict.detail.endswith("(moves at the next step)")


def test_clearing_takes_two_clear_evaluations() -> None:
    """A status falls after two evaluations that are clearly below its limit."""
    assert run([values(0.41), NOTHING, NOTHING, NOTHING]) == [2, 2, 0, 0]
    assert run([NOTHING, values(0.12), NOTHING], Held(1, clear=1)) == [0, 1, 1]


def test_clearing_is_not_begun_just_below_the_limit() -> None:
    """An excess that could still be 80 % of the limit holds the status."""
    held = one(values(0.19), Held(2))
    assert (held.status, held.reason, held.held) == (2, "held", Held(2))
    assert "an effect is not yet below 0.8 of its limit" in held.detail
    assert run([values(0.19)] * 4, Held(2)) == [2] * 4
    assert run([values(0.14)] * 3, Held(2)) == [2, 1, 1]
    assert run([values(0.075)] * 3, Held(2)) == [2, 1, 1]


@pytest.mark.parametrize(
    ("result", "status"),
    [
        (values(0.01, ks=0.09), 1),
        (missing(0.005, 0.17, 1e-9), 1),
        (values(0, 0.09, 0.5), 0),
        (values(0.01, ks=0.06), 0),
        (values(0.01, ks=0.06, s=1 / 1000), 1),
        (values(0.0, spike=("= 0", 0.045)), 1),
    ],
)
def test_other_effects_near_their_limit_hold_too(result: DriftResult, status: int) -> None:
    """KS, spikes and states hold a warning from 80 % of their limit up, allowing for noise, unless they are chance."""
    assert run([result] * 3, Held(1))[-1] == status


def test_a_warning_becomes_drifted_by_a_margin_only() -> None:
    """A drift between the two limits does not go up and down with the noise of the window."""
    small = {"rows": 504, "values": 504, "s": 1 / 5000 + 1 / 504}
    near, far = values(0.1, 0.21, **small), values(0.1, 0.25, **small)  # the margin is 1.645 · √s/2 = 0.038
    assert run([near]) == [2]
    assert run([near, far], Held(1)) == [1, 2]
    verdict = one(near, Held(1))
    assert (verdict.reason, verdict.detail.partition(" and ")[0]) == ("psi", "PSI excess 0.1 ≥ 0.1")


def test_windows_with_too_few_rows_hold_everything() -> None:
    """A small window leaves status, clear count and streak as they were."""
    low = values(0.0, values=150)
    for held in (Held(2, 1, 0), Held(0, 0, 1)):
        verdict = one(low, held)
        assert (verdict.status, verdict.evaluated, verdict.held) == (held.status, False, held)


def test_consecutive_evaluations_have_to_agree() -> None:
    """With consecutive = 2 a single evaluation raises nothing, and a gap starts the count again."""
    twice = replace(POLICY, consecutive=2)
    assert run([values(0.41), values(0.41)], policy=twice) == [0, 2]
    assert run([values(0.41), NOTHING, values(0.41)], policy=twice) == [0, 0, 0]
    assert one(values(0.41), policy=twice).detail.endswith("(1 of 2 evaluations)")


def test_fast_lane_raises_at_once() -> None:
    """A short window that is far off beyond doubt raises between steps, even when the long one is quiet."""
    far = replace(values(5.9, ks=0.9, p=1e-80), statistics={"psi": 6.0, "psi.excess": 5.9, "ks": 0.9})
    verdict = one(NOTHING, fast=far, final=False)
    assert (verdict.status, verdict.reason, verdict.held) == (2, "fast", Held(2))
    assert verdict.p_value == one(NOTHING).p_value  # what is exported beside it is of the whole window
    assert verdict.detail.startswith("PSI 6 ≥ 2 and p 1e-80 < 1e-06 over 5,200 rows")
    after = one(NOTHING, verdict.held, final=True)
    assert (after.status, after.held) == (2, Held(2, clear=1))


def test_the_whole_window_speaks_for_itself_once_it_has_drifted() -> None:
    """The fast lane still raises at once, and the reason is the one whose numbers the gauges show."""
    far = replace(values(5.9, ks=0.9, p=1e-80), statistics={"psi": 6.0, "psi.excess": 5.9, "ks": 0.9})
    twice = replace(POLICY, consecutive=2)
    verdict = one(values(0.41), policy=twice, fast=far, final=False)
    assert (verdict.status, verdict.reason, verdict.held) == (2, "psi", Held(2))
    assert verdict.detail == one(values(0.41)).detail
    still = one(values(0.12), verdict.held, fast=far, final=True)
    assert (still.status, still.reason, still.held) == (2, "fast", Held(2))


@pytest.mark.parametrize(
    "fast",
    [values(1.2, p=1e-80), values(5.9, p=1e-5), values(5.9, p=1e-80, values=150)],
    ids=["psi", "p", "rows"],
)
def test_fast_lane_needs_all_three(fast: DriftResult) -> None:
    """A daily swing, a chance or a handful of rows does not raise at once."""
    assert one(NOTHING, fast=fast, final=False).status == 0


# --- slow drift -------------------------------------------------------------------------------------------


def test_a_small_difference_that_lasts_is_a_warning() -> None:
    """The cumulative sum raises a warning at most, says so, and holds it until it is clearly below its limit."""
    verdict = judge({X: values(0.05)}, {}, POLICY, final=True, slow={X: Slow((12.3,))})[X]
    assert (verdict.status, verdict.reason, verdict.p_value) == (1, "slow", None)
    assert verdict.detail == "a small difference that lasts: cumulative sum 12 ≥ 12 over 5,200 rows"
    assert judge({X: values(0.05)}, {}, POLICY, final=True, slow={X: Slow((24.0,))})[X].status == 1
    statuses, held = [], {X: Held(1)}
    for score in (10.0, 9.0, 8.0):
        verdict = judge({X: values(0.05)}, held, POLICY, final=True, slow={X: Slow((score,))})[X]
        statuses.append(verdict.status)
        held = {X: verdict.held}
    assert statuses == [1, 1, 0]


def test_the_largest_sum_counts() -> None:
    """Sums of shifts up and down stand beside that of any change."""
    slow = added(Slow((1.0, 2.0, 11.5)), replace(values(0.05), cusum_steps=(-3.0, 0.5, 1.0)), 0, "")
    assert (slow.sums, slow.score) == ((0.0, 2.5, 12.5), 12.5)


def test_a_larger_effect_is_the_reason_beside_a_slow_one() -> None:
    """What has drifted is called so, whatever has added up."""
    verdict = judge({X: values(0.41)}, {}, POLICY, final=True, slow={X: Slow((20.0,))})[X]
    assert (verdict.status, verdict.reason) == (2, "psi")


def added(slow: Slow, result: DriftResult, start: int, baseline: str = "b") -> Slow:
    """The sum after a window of 24 that begins at `start`."""
    return slow.after(result, start=start, end=start + 24, baseline_id=baseline, policy=POLICY)


def test_windows_that_share_rows_add_up_once() -> None:
    """Of windows that slide by an hour, one in 24 goes into the sum."""
    slow = Slow()
    for start in range(49):
        slow = added(slow, replace(values(0.05), cusum_steps=(2.0,)), start)
    assert (slow.score, slow.until) == (6.0, 72)


@pytest.mark.parametrize(
    "result",
    [
        replace(values(0.05, values=150), cusum_steps=(5.0,)),
        replace(values(0.05, reference_values=400), cusum_steps=(5.0,)),
        values(0.05),
    ],
    ids=["few rows", "small baseline", "nothing to test"],
)
def test_a_window_that_says_nothing_leaves_the_sum(result: DriftResult) -> None:
    """Too few rows, or one cell, neither add nor reset."""
    before = Slow((7.0,), 24, "b")
    assert added(before, result, 24) == before


def test_the_sum_starts_anew_with_another_baseline() -> None:
    """Only then: what was summed up is the distance to the old one."""
    window = replace(values(0.05), cusum_steps=(1.0,))
    assert added(Slow((7.0,), 24, "a"), window, 24) == Slow((1.0,), 48, "b")


# --- calibration ------------------------------------------------------------------------------------------

BOUNDS = np.array([-1.6449, -1.2816, -1.0364, -0.8416, -0.6745, -0.5244, -0.3853, -0.2533, -0.1257, 0.0])
BOUNDS = np.concatenate([BOUNDS, -BOUNDS[-2::-1]])


def counts(values: np.ndarray) -> np.ndarray:
    """Counts of each row of `values` on 20 even cells of N(0, 1)."""
    cells = np.searchsorted(BOUNDS, values) + 20 * np.arange(len(values))[:, None]
    return np.bincount(cells.ravel(), minlength=20 * len(values)).reshape(-1, 20).astype(np.int64)


def test_undrifted_windows_do_not_alarm() -> None:
    """50 features that do not drift raise an alarm in no more than 1 % of 100 windows of 500 rows."""
    rng = np.random.default_rng(42)
    references = counts(rng.normal(size=(50, 5000)))
    targets = [Target("feature", f"x{i}") for i in range(50)]
    alarms = 0
    for _ in range(100):
        currents = counts(rng.normal(size=(50, 500)))
        sides = zip(targets, references, currents, strict=True)
        results = {t: compare(Side(a, BOUNDS), Side(c, BOUNDS), POLICY) for t, a, c in sides}
        alarms += any(v.status for v in judge(results, {}, POLICY, final=True).values())
    assert alarms <= 1


@pytest.mark.parametrize(("shift", "rows", "lowest"), [(0.5, 200, 1), (0.3, 2000, 1), (1.0, 200, 2)])
def test_drifted_windows_do_alarm(shift: float, rows: int, lowest: int) -> None:
    """0.5 σ over 200 rows and 0.3 σ over 2,000 are found among 50 features in 19 of 20 windows."""
    rng = np.random.default_rng(43)
    references = counts(rng.normal(size=(50, 5000)))
    quiet = counts(rng.normal(size=(49, rows)))
    found = 0
    for _ in range(40):
        currents = [*counts(rng.normal(shift, 1, size=(1, rows))), *quiet]
        results = {
            Target("feature", str(i)): compare(Side(a, BOUNDS), Side(c, BOUNDS), POLICY)
            for i, (a, c) in enumerate(zip(references, currents, strict=True))
        }
        found += judge(results, {}, POLICY, final=True)[Target("feature", "0")].status >= lowest
    assert found >= 38
