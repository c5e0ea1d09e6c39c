"""References of a target's own past, and windows that decay or end by count."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from pointbatches import (
    AGE,
    BOUNDS,
    EVEN,
    HOUR,
    POLICY,
    SHIFTED,
    T0,
    S,
    Service,
    engine,
    reference,
    send,
    serve,
    target,
)

from otel_ml_collector.drift import Policy, Side, compare
from otel_ml_collector.evaluation import Evaluation, Target
from otel_ml_collector.window import WEEK, Panes, WindowSpec

FEW = (20, 20, 20, 20, 20, 20)
LATE = (0, 0, 0, 0, 60, 60)
DAILY = WindowSpec(type="tumbling", length=2, lateness=0.5, max_age=2, refresh=0.5, fast_length=3)


def finals(found: list[Evaluation]) -> list[Evaluation]:
    return [one for one in found if one.final]


def test_the_previous_window_is_the_reference() -> None:
    """A change shows in the first window that has it, and its own end is no change again while it lasts."""
    e = engine(DAILY, past="previous")
    service = Service(T0)
    found = serve(e, service, T0, T0 + 6 * S + S // 2, FEW)
    found += serve(e, service, T0 + 6 * S + S // 2, T0 + 14 * S + S // 2, LATE)
    seen = {(x.window_end - T0) // S: target(x) for x in finals(found)}
    assert (seen[2].evaluated, seen[2].reason) == (False, "no_baseline")
    assert [seen[k].status for k in (4, 6, 8, 10, 12)] == [0, 0, 2, 2, 2]
    assert {x.baseline_id for x in found[10:]} == {"previous"}


def test_a_reference_is_not_renewed_while_its_target_drifts() -> None:
    """What is back where it was clears; what stays away does not become the usual."""
    e = engine(DAILY, past="previous")
    service = Service(T0)
    serve(e, service, T0, T0 + 6 * S + S // 2, FEW)
    serve(e, service, T0 + 6 * S + S // 2, T0 + 12 * S + S // 2, LATE)
    found = finals(serve(e, service, T0 + 12 * S + S // 2, T0 + 40 * S + S // 2, FEW))
    assert target(found[-1]).statistics["psi"] < 0.01
    assert target(found[-1]).status == 0


def test_a_reference_is_not_renewed_while_a_rise_waits_for_its_second_evaluation() -> None:
    """Else the window that drifted first would be what the next one is compared with."""
    e = engine(DAILY, Policy(min_rows=100, min_reference_rows=200, consecutive=2), past="previous")
    service = Service(T0)
    serve(e, service, T0, T0 + 6 * S + S // 2, FEW)
    found = finals(serve(e, service, T0 + 6 * S + S // 2, T0 + 12 * S + S // 2, LATE))
    assert [target(one).status for one in found] == [0, 0, 2, 2]


def test_a_rolling_reference_is_what_came_before_the_window() -> None:
    """All of its span, and nothing of the window itself."""
    spec = WindowSpec(
        type="tumbling", length=2, lateness=0.5, max_age=2, refresh=0.5, fast_length=3, history=6
    )
    e = engine(spec, past="rolling")
    found = finals(serve(e, Service(T0), T0, T0 + 12 * S + S // 2, FEW))
    assert found[-1].baseline_rows == 120 * 5 * 6
    assert (found[-1].baseline_id, target(found[-1]).status) == ("rolling", 0)


def test_the_first_rows_are_learned_and_then_stay() -> None:
    """Learned once there are enough, the reference is that for good, drift or not."""
    e = engine(DAILY, past="learned", learn_rows=1000)
    service = Service(T0)
    found = finals(serve(e, service, T0, T0 + 4 * S + S // 2, FEW))
    assert [x.baseline_rows for x in found] == [1200]
    found = finals(serve(e, service, T0 + 4 * S + S // 2, T0 + 12 * S + S // 2, LATE))
    assert {x.baseline_id for x in found} == {"learned"}
    assert [target(x).status for x in found[1:]] == [2] * len(found[1:])
    few = engine(DAILY, past="learned", learn_rows=100_000)
    assert {target(x).reason for x in serve(few, Service(T0), T0, T0 + 4 * S)} == {"no_baseline"}


def test_a_baseline_goes_before_the_past() -> None:
    """Only what it does not describe is compared with its own past."""
    e = engine(DAILY, past="previous")
    service = Service(T0)
    send(e, reference(EVEN, T0), now=T0)
    found: list[Evaluation] = []
    for now in range(T0 + S // 5, T0 + 7 * S, S // 5):
        service.rows(FEW)
        service.rows(FEW, feature="income")
        send(e, service.report(now), now=now)
        found += e.advance(now)
    assert found[-1].baseline_id == "b1"
    assert {t.target.name: t.evaluated for t in found[-1].targets} == {"age": True, "income": True}


def hourly(seasonal: bool) -> list[tuple[int, int]]:
    """(hour, status) of three weeks in which the mix at noon is another than at midnight."""
    spec = WindowSpec(type="tumbling", length=3600, lateness=60, max_age=3600, refresh=3600, fast_length=7200)
    e = engine(
        spec,
        Policy(min_rows=200, min_reference_rows=500, alpha=0.01),
        past="seasonal" if seasonal else "previous",
    )
    service, found = Service(T0), []
    for hour in range(3 * WEEK):
        mix = (20, 60, 60, 20, 20, 20) if 6 <= hour % 24 < 18 else (20, 20, 20, 60, 60, 20)
        found += serve(e, service, T0 + hour * HOUR, T0 + (hour + 1) * HOUR, mix, every=HOUR // 4)
    return [((x.window_end - T0) // HOUR, target(x).status) for x in found if x.final]


def test_a_seasonal_reference_knows_the_hours_of_the_week() -> None:
    """A daily cycle is no drift against past weeks, and one against the hour before."""
    assert max(status for _, status in hourly(seasonal=True)) == 0
    assert max(status for _, status in hourly(seasonal=False)) == 2


def test_a_seasonal_reference_waits_for_all_hours_of_a_window() -> None:
    """A day is compared when past weeks know nearly all of it: an hour of it would be another distribution."""
    spec = WindowSpec(length=86_400, step=3600, lateness=60, max_age=86_400, refresh=3600, fast_length=90_000)
    e = engine(spec, Policy(min_rows=200, min_reference_rows=500), past="seasonal")
    service, found = Service(T0), []
    for hour in range(2 * WEEK):
        mix = (20, 60, 60, 20, 20, 20) if 6 <= hour % 24 < 18 else (20, 20, 20, 60, 60, 20)
        found += serve(e, service, T0 + hour * HOUR, T0 + (hour + 1) * HOUR, mix, every=HOUR)
    judged = [((x.window_end - T0) // HOUR, target(x).status) for x in found if target(x).evaluated]
    assert (judged[0][0] - WEEK) in range(20, 26)
    assert max(status for _, status in judged) == 0


def test_a_seasonal_reference_follows_the_clock_while_its_target_drifts() -> None:
    """Held at one hour it would keep the alarm up for ever; what was far off takes hours to be forgotten."""
    spec = WindowSpec(type="tumbling", length=3600, lateness=60, max_age=3600, refresh=3600, fast_length=7200)
    e = engine(spec, Policy(min_rows=200, min_reference_rows=500, alpha=0.01), past="seasonal")
    service, statuses = Service(T0), {}
    for hour in range(2 * WEEK):
        mix = (20, 60, 60, 20, 20, 20) if 6 <= hour % 24 < 18 else (20, 20, 20, 60, 60, 20)
        mix = SHIFTED if WEEK + 50 <= hour < WEEK + 53 else mix
        found = serve(e, service, T0 + hour * HOUR, T0 + (hour + 1) * HOUR, mix, every=HOUR // 4)
        statuses |= {(x.window_end - T0) // HOUR: target(x).status for x in found if x.final}
    assert {statuses[WEEK + 50 + k] for k in (1, 2, 3)} == {2}
    assert {status for hour, status in statuses.items() if hour > WEEK + 72} == {0}


def test_past_weeks_weigh_less_and_drifting_ones_nothing() -> None:
    """What is usual is about four weeks' worth, without the panes in which a target was drifting."""
    spec = WindowSpec(length=3600, step=3600, lateness=0, max_age=3600, fast_length=7200)
    panes, cells = Panes(spec, seasonal=True), np.arange(2)
    for week in range(20):
        at = week * WEEK * HOUR
        panes.add(np.array([at + 1]), np.array([0]), np.array([1000]))
        panes.add(np.array([at + 1]), np.array([1]), np.array([1000 if week != 19 else 9000]))
        panes.roll(at + 4 * HOUR, lambda start, week=week: np.array([1] if week == 19 else [], np.int64))  # type: ignore[misc]
    usual = panes.usual(cells, 0, HOUR)
    assert usual.tolist() == pytest.approx([4000, 4000], rel=0.02)
    assert panes.usual(cells, HOUR, 2 * HOUR).tolist() == [0, 0]


def test_a_decayed_window_weighs_rows_by_age() -> None:
    """Effective counts are those of n_eff equal rows, and drift shows as its share of the weight."""
    spec = WindowSpec(type="decayed", length=4, step=1, lateness=0.5, refresh=60, fast_length=5)
    e = engine(spec)
    send(e, reference(EVEN, T0), now=T0)
    service = Service(T0)
    serve(e, service, T0, T0 + 40 * S, FEW, every=S)
    found = finals(serve(e, service, T0 + 40 * S, T0 + 60 * S, LATE, every=S))
    rows = np.array([120.0] * 28)
    weights = 0.5 ** (np.arange(27, -1, -1) / 4)
    n_eff = (weights * rows).sum() ** 2 / (weights**2 * rows).sum()
    assert found[-1].rows == pytest.approx(n_eff, rel=0.01)
    assert found[-1].window_end - found[-1].window_start == 28 * S
    bins = target(found[4]).bins  # four steps of LATE: about half of the weight
    assert bins is not None
    assert bins.current[-1] == pytest.approx(1 / 6 * 0.5 + 1 / 2 * 0.5, abs=0.03)
    assert target(found[-1]).status == 2


def test_a_window_by_count_ends_when_it_has_its_rows() -> None:
    """At the first step with enough, whenever that is; a lull ends one by time."""
    spec = WindowSpec(
        type="count", rows=1000, length=20, step=1, lateness=0.5, max_age=20, refresh=0.5, fast_length=30
    )
    e = engine(spec)
    service = Service(T0)
    send(e, reference(EVEN, T0), now=T0)
    fast = finals(serve(e, service, T0, T0 + 6 * S, (50,) * 6, every=S // 2))
    assert [(x.rows, (x.window_end - x.window_start) // S) for x in fast[1:]] == [(1200, 2)] * len(fast[1:])
    assert len(fast) >= 2
    slow = finals(serve(e, service, T0 + 6 * S, T0 + 70 * S, (1,) * 6, every=S))
    assert [(x.rows, (x.window_end - x.window_start) // S) for x in slow[-2:]] == [(120, 20)] * 2


@pytest.mark.parametrize("kind", ["sliding", "tumbling", "decayed", "count"])
def test_every_window_finds_a_shift(kind: Any) -> None:
    """Whatever the type, the status rises."""
    spec = WindowSpec(
        type=kind,
        length=4,
        step=1,
        lateness=0.5,
        max_age=4,
        refresh=0.5,
        fast_length=9,
        rows=300 * (kind == "count"),
    )
    e = engine(spec, POLICY)
    service = Service(T0)
    send(e, reference(EVEN, T0), now=T0)
    found = serve(e, service, T0, T0 + 6 * S, FEW) + serve(e, service, T0 + 6 * S, T0 + 16 * S, SHIFTED)
    assert [target(x).status for x in found if x.final][-1] == 2
    assert target(found[0]).status == 0


def test_a_decayed_window_agrees_with_its_weights() -> None:
    """Its statistics are those of the weighted counts."""
    spec = WindowSpec(type="decayed", length=4, step=1, lateness=0.5, refresh=60, fast_length=5)
    e = engine(spec, Policy(min_rows=20, min_reference_rows=100, statistics=()))
    send(e, reference(EVEN, T0), now=T0)
    service = Service(T0)
    found = finals(serve(e, service, T0, T0 + 12 * S, (5, 5, 5, 5, 5, 25), every=S))
    expected = compare(
        Side(np.array(EVEN), bounds=np.array(BOUNDS)),
        Side(np.array([1, 1, 1, 1, 1, 5]) * (found[-1].rows // 10), bounds=np.array(BOUNDS)),
        POLICY,
    )
    assert target(found[-1], Target(AGE.kind, AGE.name)).statistics["psi"] == pytest.approx(
        expected.statistics["psi"], rel=0.05
    )
