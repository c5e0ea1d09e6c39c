"""Statuses that changed: each once, whatever comes in between."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import pytest
from evaluations import AGE, EVALUATION
from hypothesis import given, settings
from hypothesis import strategies as st
from pointbatches import AGE as AGE_TARGET
from pointbatches import EVEN, SHIFTED, T0, S, Service, engine, reference, send, serve

from otel_ml_collector.changes import ACTIVITY, activity_after, after, changes, deciding
from otel_ml_collector.evaluation import Activity, Target

QUIET = Activity(age=0.0, rows=100, usual=None, status=0, reason="ok", detail="", vanished=())


def moves(said: dict[Target, int], *verdicts: tuple[bool, int]) -> list[tuple[int | None, int]]:
    """Previous and new status of the changes that these verdicts, (evaluated, status), make."""
    evaluated = [after(said, replace(AGE, evaluated=judged, status=status)) for judged, status in verdicts]
    found = [change for one in evaluated for change in changes(replace(EVALUATION, targets=(one,)))]
    return [(change.previous, change.status) for change in found]


def test_a_status_that_stays_is_no_change() -> None:
    """Refreshes repeat what was said."""
    assert moves({}, (True, 0), (True, 2), (True, 2), (True, 1), (True, 0), (True, 0)) == [
        (0, 2),
        (2, 1),
        (1, 0),
    ]


def test_the_first_verdict_is_a_change_when_it_is_not_ok() -> None:
    """What was before is not known then."""
    assert moves({}, (True, 0)) == []
    assert moves({}, (True, 2)) == [(None, 2)]


def test_a_window_without_a_verdict_changes_nothing() -> None:
    """What is held is not said again when rows are enough once more."""
    assert moves({}, (True, 2), (False, 2), (False, 0), (True, 2)) == [(None, 2)]


@settings(max_examples=50)
@given(st.lists(st.tuples(st.booleans(), st.integers(0, 2)), max_size=30), st.integers(0, 30))
def test_there_are_as_many_changes_as_moves_of_the_status(
    verdicts: list[tuple[bool, int]], restart: int
) -> None:
    """Also when the memory is taken over by another process in between."""
    said: dict[Target, int] = {}
    found = moves(said, *verdicts[:restart])
    found += moves(dict(said), *verdicts[restart:])
    statuses = [0, *(status for judged, status in verdicts if judged)]
    expected = [pair for pair in pairwise(statuses) if pair[0] != pair[1]]
    assert [(before or 0, now) for before, now in found] == expected


def test_silence_is_a_change_of_the_activity() -> None:
    """The rows of a model have a status of their own, with its reason."""
    said: dict[Target, int] = {}
    silent = replace(QUIET, status=2, reason="silent", detail="no rows for 3.0 h")
    evaluations = [
        replace(EVALUATION, targets=(), activity=activity_after(said, one)) for one in (QUIET, silent, silent)
    ]
    (change,) = [change for one in evaluations for change in changes(one)]
    assert (change.target, change.previous, change.status, change.reason) == (ACTIVITY, 0, 2, "silent")
    assert activity_after(said, None) is None


@pytest.mark.parametrize(
    ("reason", "expected"),
    [
        ("psi", {"psi.excess": 0.31, "ks": 0.2, "p_value": 1e-9}),
        ("slow", {"psi.excess": 0.31, "ks": 0.2, "cusum": 3.0, "p_value": 1e-9}),
        (
            "state:missing",
            {"psi.excess": 0.31, "ks": 0.2, "p_value": 1e-9, "state.share": 0.1, "state.effect": 0.64},
        ),
    ],
)
def test_a_change_has_the_numbers_that_decided(reason: str, expected: dict[str, float]) -> None:
    """Those of the distribution always, others where the reason is theirs."""
    assert deciding(replace(AGE, reason=reason)) == expected


def test_the_engine_tells_of_each_change_once_and_so_does_the_one_that_goes_on_from_its_snapshot() -> None:
    """Hours of drift are one change, and over a restart none is lost or said again."""
    first, pod = engine(), Service(T0, identity={"baseline_id": "b1"})
    send(first, reference(EVEN, T0 + S), now=T0 + S)
    drifting = serve(first, pod, T0 + S, T0 + 12 * S, SHIFTED)
    second = engine()
    second.restore(first.snapshot())
    recovering = serve(second, pod, T0 + 12 * S, T0 + 20 * S, SHIFTED)
    recovering += serve(second, pod, T0 + 20 * S, T0 + 50 * S, EVEN)
    before, later = ([change for one in found for change in changes(one)] for found in (drifting, recovering))
    assert [(change.target, change.status) for change in before] == [(AGE_TARGET, 2)]
    assert before[0].baseline_id == "b1"
    assert [change.previous for change in later] == [2, *(change.status for change in later[:-1])]
    assert later[-1].status < 2  # what adds up over windows may keep a warning for longer


def test_rows_are_counted_since_the_baseline_is_in_use() -> None:
    """Those from before it was known count; another baseline of the version begins anew; a snapshot keeps them."""
    first, pod = engine(), Service(T0, identity={"baseline_id": "b1"})
    serve(first, pod, T0, T0 + 2 * S)
    send(first, reference(EVEN, T0 + 3 * S), now=T0 + 3 * S)
    (known,) = {one.rows_served for one in serve(first, pod, T0 + 2 * S, T0 + 6 * S, [0] * 6)[-1:]}
    assert known == 10 * sum(EVEN)
    second = engine()
    second.restore(first.snapshot())
    send(second, reference(EVEN, T0 + 7 * S, baseline="b2", created=2), now=T0 + 7 * S)
    pod.identity = {"baseline_id": "b2"}
    new = serve(second, pod, T0 + 7 * S, T0 + 12 * S)
    assert [one.baseline_id for one in new[-1:]] == ["b2"]
    assert 0 < new[-1].rows_served <= 25 * sum(EVEN)


@settings(max_examples=10, deadline=None)
@given(st.lists(st.sampled_from([EVEN, SHIFTED, [0] * 6]), min_size=1, max_size=6))
def test_changes_are_the_moves_of_what_the_engine_says(served: list[list[int]]) -> None:
    """Whatever is served, every final evaluation and every refresh looked at, none is missing and none is twice."""
    made, pod = engine(), Service(T0, identity={"baseline_id": "b1"})
    send(made, reference(EVEN, T0 + S), now=T0 + S)
    found, statuses = [], [0]
    for i, values in enumerate(served):
        for one in serve(made, pod, T0 + (1 + 6 * i) * S, T0 + (7 + 6 * i) * S, values, every=S):
            found += [(change.previous or 0, change.status) for change in changes(one)]
            statuses += [target.status for target in one.targets if target.evaluated]
    assert found == [pair for pair in pairwise(statuses) if pair[0] != pair[1]]
