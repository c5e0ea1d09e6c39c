"""Increments out of cumulative and delta points."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pointbatches import S, series

from otel_ml import semconv
from otel_ml_collector.layouts import Exponential, Shapes
from otel_ml_collector.points import CUMULATIVE, DELTA
from otel_ml_collector.ragged import Points, concatenate, ragged
from otel_ml_collector.streams import Streams

STARTED = 1000 * S
MAX_AGE = 600 * S
SHAPES = Shapes()


@dataclass
class Sent:
    """A point as the tests write it: times in seconds after the collector's start."""

    start: float
    time: float
    values: Sequence[int]
    temporality: int = CUMULATIVE
    feature: str = "age"
    pod: str = "a"
    bounds: tuple[float, ...] | Exponential | None = None
    """None: as many as the values need."""

    def shape(self) -> int:
        own = tuple(map(float, range(len(self.values) - 1)))
        return SHAPES.of(own if self.bounds is None else self.bounds)


def push(streams: Streams, *sent: Sent) -> None:
    for p in sent:
        at = series(semconv.FEATURE_VALUE, feature_name=p.feature, pod=p.pod)
        points = Points(
            np.array([streams.add(at, STARTED)]),
            np.array([STARTED + round(p.start * S)]),
            np.array([STARTED + round(p.time * S)]),
            np.array([p.temporality], np.int8),
            np.array([p.shape()]),
            np.array([len(p.values)]),
            np.array(p.values, np.int64),
        )
        streams.push(points, STARTED + round(p.time * S))


def streams() -> Streams:
    return Streams(SHAPES, started=STARTED, initial_max_age=MAX_AGE)


def applied(*sent: Sent, until: float = 10_000) -> tuple[list[tuple[float, list[int]]], Counter[str]]:
    """What the points add, as (time, values) in the order of time, and their fates."""
    state = streams()
    push(state, *sent)
    return collect(state, until)


def collect(state: Streams, until: float) -> tuple[list[tuple[float, list[int]]], Counter[str]]:
    results = list(state.apply(STARTED + round(until * S)))
    if not results:
        return [], Counter()
    points = concatenate([result.increments for result in results])
    counts = sum((result.counts for result in results), Counter())
    split = np.split(points.values, np.cumsum(points.lengths)[:-1]) if len(points) else []
    found = [((t - STARTED) / S, v.tolist()) for t, v in zip(points.time.tolist(), split, strict=True)]
    return sorted(found), counts


def test_ragged_lists_the_elements_of_runs() -> None:
    """Runs may be of any length, in any order, also of none."""
    assert ragged(np.array([5, 0, 9]), np.array([2, 3, 0])).tolist() == [5, 6, 0, 1, 2]
    assert ragged(np.array([], np.int64), np.array([], np.int64)).tolist() == []


def test_cumulative_points_are_differenced() -> None:
    """The first point counts from the start of its series, later ones count what they add."""
    found, counts = applied(Sent(1, 10, [1, 2]), Sent(1, 20, [4, 2]), Sent(1, 30, [4, 7]))
    assert found == [(10, [1, 2]), (20, [3, 0]), (30, [0, 5])]
    assert counts == {}


def test_delta_points_count_as_they_are() -> None:
    """Each interval counts once."""
    found, counts = applied(Sent(0, 10, [1, 2], DELTA), Sent(10, 20, [3, 0], DELTA))
    assert found == [(10, [1, 2]), (20, [3, 0])]
    assert counts == {}


@pytest.mark.parametrize("temporality", [CUMULATIVE, DELTA])
def test_a_repeated_point_counts_once(temporality: int) -> None:
    """A point with the start and time of the last one is a duplicate, in one call or in two."""
    point = Sent(1, 10, [1, 2], temporality)
    found, counts = applied(point, point, point)
    assert found == [(10, [1, 2])]
    assert counts == {"duplicate": 2}


def test_a_newer_start_is_a_restart_and_counts_as_it_is() -> None:
    """The process came back: all it reports is new."""
    found, counts = applied(Sent(1, 10, [5, 5]), Sent(15, 20, [1, 6]), Sent(15, 30, [2, 6]))
    assert found == [(10, [5, 5]), (20, [1, 6]), (30, [1, 0])]
    assert counts == {"restart": 1}


def test_a_decrease_without_a_new_start_counts_nothing_and_becomes_the_base() -> None:
    """The point of a reset is not counted; the next one is counted against it, not against the old height."""
    found, counts = applied(
        Sent(1, 10, [10, 10]), Sent(1, 20, [3, 2]), Sent(1, 30, [8, 4]), Sent(1, 40, [20, 4])
    )
    assert found == [(10, [10, 10]), (30, [5, 2]), (40, [12, 0])]
    assert counts == {"reset": 1}


def test_a_decrease_of_one_bucket_is_a_reset_though_the_total_grows() -> None:
    """Buckets are compared one by one."""
    found, counts = applied(Sent(1, 10, [10, 0]), Sent(1, 20, [9, 50]), Sent(1, 30, [9, 51]))
    assert found == [(10, [10, 0]), (30, [0, 1])]
    assert counts == {"reset": 1}


@pytest.mark.parametrize(
    "changed", [Sent(1, 20, [1, 2, 3], bounds=(-1.0, 1.0)), Sent(1, 20, [3, 4], bounds=(7.0,))]
)
def test_bounds_that_cut_filled_buckets_without_a_new_start_are_a_reset(changed: Sent) -> None:
    """What was counted before cannot be said on them; they become the base, and the stream is named."""
    following = Sent(1, 30, [v + 1 for v in changed.values], bounds=changed.bounds)
    found, counts = applied(Sent(1, 10, [1, 1]), changed, following)
    assert found == [(10, [1, 1]), (30, [1] * len(changed.values))]
    assert counts == {"reset": 1}
    state = streams()
    push(state, Sent(1, 10, [1, 1]), changed)
    (result,) = state.apply(STARTED + 30 * S)
    assert result.relaid == (0,)


def test_coarser_bounds_without_a_new_start_lose_nothing() -> None:
    """Where all new bounds are old ones, the difference is exact."""
    found, counts = applied(
        Sent(1, 10, [1, 2, 3, 4], bounds=(1.0, 2.0, 3.0)), Sent(1, 20, [5, 9], bounds=(2.0,))
    )
    assert found == [(10, [1, 2, 3, 4]), (20, [2, 2])]
    assert counts == {}


def test_an_exponential_histogram_that_grows_and_coarsens_is_differenced_exactly() -> None:
    """Its offsets move outwards and its scale drops within one start; no count is lost."""
    fine = Exponential(1, positive=(0, 4))  # (1, √2], (√2, 2], (2, 2√2], (2√2, 4]
    wide = Exponential(0, positive=(-1, 3))  # (½, 1], (1, 2], (2, 4], (4, 8]
    found, counts = applied(
        Sent(1, 10, [0, 0, 0, 1, 2, 3, 4, 0], bounds=fine),
        Sent(1, 20, [0, 0, 0, 7, 3, 8, 1, 0], bounds=wide),
    )
    assert found == [(10, [0, 0, 0, 1, 2, 3, 4, 0]), (20, [0, 0, 0, 7, 0, 1, 1, 0])]
    assert counts == {}


def test_a_bucket_below_the_new_offset_that_vanished_is_a_reset() -> None:
    """Buckets that are not sent are empty: one that held something before tells of a restart."""
    found, counts = applied(
        Sent(1, 10, [0, 0, 0, 5, 3, 8, 0], bounds=Exponential(0, positive=(0, 3))),
        Sent(1, 20, [0, 0, 0, 3, 20, 0], bounds=Exponential(0, positive=(1, 3))),
        Sent(1, 30, [0, 0, 0, 4, 20, 0], bounds=Exponential(0, positive=(1, 3))),
    )
    assert found == [(10, [0, 0, 0, 5, 3, 8, 0]), (30, [0, 0, 0, 1, 0, 0])]
    assert counts == {"reset": 1}


EXPONENTIAL = Exponential(0, positive=(0, 2))


@pytest.mark.parametrize("bounds", [None, EXPONENTIAL], ids=["explicit", "exponential"])
def test_a_point_of_a_reset_never_passes_for_an_increment(bounds: Exponential | None) -> None:
    """Its whole count is from before and after the reset, so that it counts nothing (collector-contrib#48278)."""
    found, counts = applied(
        Sent(1, 10, [0, 0, 0, 10, 10, 0], bounds=bounds), Sent(1, 20, [0, 0, 0, 2, 3, 0], bounds=bounds)
    )
    assert found == [(10, [0, 0, 0, 10, 10, 0])]
    assert counts == {"reset": 1}


@pytest.mark.parametrize("bounds", [None, EXPONENTIAL], ids=["explicit", "exponential"])
def test_a_reset_shows_in_one_bucket_though_the_total_grows(bounds: Exponential | None) -> None:
    """Buckets decide, not their sum, in both kinds of histogram (collector-contrib#49355)."""
    found, counts = applied(
        Sent(1, 10, [0, 0, 0, 10, 10, 0], bounds=bounds), Sent(1, 20, [0, 0, 0, 2, 30, 0], bounds=bounds)
    )
    assert found == [(10, [0, 0, 0, 10, 10, 0])]
    assert counts == {"reset": 1}


@pytest.mark.parametrize("bounds", [None, EXPONENTIAL], ids=["explicit", "exponential"])
def test_after_a_reset_counting_goes_on_below_the_old_height(bounds: Exponential | None) -> None:
    """The point of the reset is the new base at once, so that the next ones are no resets of the old height
    (collector-contrib#49869) and, above it, are not taken for the difference to it (collector-contrib#50828)."""
    found, counts = applied(
        Sent(1, 10, [0, 0, 0, 10, 10, 0], bounds=bounds), Sent(1, 20, [0, 0, 0, 2, 3, 0], bounds=bounds),
        Sent(1, 30, [0, 0, 0, 4, 5, 0], bounds=bounds), Sent(1, 40, [0, 0, 0, 14, 15, 0], bounds=bounds),
    )  # fmt: skip
    assert found[1:] == [(30, [0, 0, 0, 2, 2, 0]), (40, [0, 0, 0, 10, 10, 0])]
    assert counts == {"reset": 1}


def test_a_change_of_temporality_counts_no_row_twice() -> None:
    """From cumulative to delta the increments count; from delta to cumulative the total is only a base."""
    found, counts = applied(
        Sent(1, 10, [5]), Sent(10, 20, [2], DELTA), Sent(1, 30, [9]), Sent(1, 40, [10]),
    )  # fmt: skip
    assert found == [(10, [5]), (20, [2]), (40, [1])]
    assert counts == {"initial": 1}


def test_points_wait_for_the_watermark_and_are_applied_in_order() -> None:
    """Points that come in the wrong order give what the right order gives."""
    state = streams()
    push(state, Sent(1, 30, [9]), Sent(1, 10, [2]))
    assert collect(state, 5) == ([], {})
    push(state, Sent(1, 20, [5]))
    assert collect(state, 25) == ([(10, [2]), (20, [3])], {})
    assert state.pending == 1
    assert collect(state, 30) == ([(30, [4])], {})
    assert state.pending == 0


def test_only_what_the_watermark_has_passed_is_late() -> None:
    """A late point that repeats the last one is told apart: a sender that retries has lost nothing."""
    state = streams()
    push(state, Sent(1, 10, [2]))
    collect(state, 20)
    start, time = STARTED + S, STARTED + np.array([10, 15, 20, 21]) * S
    late, repeated = state.late(np.zeros(4, np.int64), np.full(4, start), time)
    assert late.tolist() == [False, True, True, False]
    assert repeated.tolist() == [True, False, False, False]


def test_a_series_from_before_us_is_a_base() -> None:
    """A cumulative series that is older than the collector counts from its second point on."""
    found, counts = applied(Sent(-50, 10, [100]), Sent(-50, 20, [103]))
    assert found == [(20, [3])]
    assert counts == {"initial": 1}


def test_a_series_that_is_too_old_when_first_seen_is_a_base() -> None:
    """Up to initial_max_age after its start it counts in full, later it does not."""
    assert applied(Sent(1, 601, [7])) == ([(601, [7])], {})
    assert applied(Sent(1, 601.001, [7])) == ([], {"initial": 1})


def test_a_new_series_of_a_known_process_counts_from_its_start() -> None:
    """Many SDKs give the process's start to every series, so that a new category looks old; it is not."""
    found, counts = applied(
        Sent(-50, 10, [100]), Sent(-50, 10.5, [40], feature="income"),
        Sent(-50, 20, [3], feature="plan"), Sent(-50, 20, [9], feature="plan", pod="b"),
    )  # fmt: skip
    assert found == [(20, [3])]
    assert counts == {"initial": 3}


def test_a_first_delta_point_always_counts() -> None:
    """An increment is an increment, whenever its interval began."""
    assert applied(Sent(-50, 10, [3], DELTA)) == ([(10, [3])], {})


def test_gaps_and_overlaps_of_delta_intervals_are_counted() -> None:
    """Both count what they hold; overlaps tell of two writers."""
    state = streams()
    push(state, Sent(0, 10, [1], DELTA), Sent(15, 20, [2], DELTA), Sent(18, 25, [4], DELTA))
    (result,) = state.apply(STARTED + 30 * S)
    assert result.increments.values.tolist() == [1, 2, 4]
    assert result.counts == {"gap": 1, "overlap": 1}
    assert result.overlapping == (0,)


def test_two_cumulative_writers_with_one_identity_do_not_corrupt_each_other() -> None:
    """The one that began later is followed; the other's points are overlap and add nothing."""
    old = [Sent(1, t, [t]) for t in (10, 20, 30)]
    new = [Sent(5, t + 1, [2 * t]) for t in (10, 20, 30)]
    found, counts = applied(*old, *new)
    assert found == [(10, [10]), (11, [20]), (21, [20]), (31, [20])]
    assert counts == {"restart": 1, "overlap": 3}


def test_streams_do_not_touch_each_other() -> None:
    """Features and pods have a state each, however their points interleave."""
    found, _ = applied(
        Sent(1, 10, [1, 1]), Sent(1, 10, [5, 5, 5], pod="b"), Sent(1, 20, [2, 9]),
        Sent(1, 20, [6, 5, 9], pod="b"), Sent(1, 20, [7], feature="plan"),
    )  # fmt: skip
    assert found == [(10, [1, 1]), (10, [5, 5, 5]), (20, [1, 0, 4]), (20, [1, 8]), (20, [7])]


def test_expired_streams_leave_the_others_as_they_were() -> None:
    """Their places are used again, and what the others had reported stays their base."""
    state = streams()
    for pod in range(100):
        push(state, Sent(1, 10 + pod, [pod] * (pod % 7 + 1), pod=str(pod)))
    collect(state, 200)
    gone = state.expire(STARTED + 90 * S)
    assert len(gone) == 80
    assert len(state) == 20
    for pod in range(75, 100):
        push(state, Sent(1, 300, [pod + 1] * (pod % 7 + 1), pod=str(pod)))
    found, counts = collect(state, 400)
    new, known = [v for _, v in found if v[0] > 1], [v for _, v in found if v[0] == 1]
    assert sorted(new) == sorted([p + 1] * (p % 7 + 1) for p in range(75, 80))
    assert len(known) == 20
    assert counts == {}


def test_a_stream_with_waiting_points_does_not_expire() -> None:
    """Its points would have nowhere to go."""
    state = streams()
    push(state, Sent(1, 10, [1]))
    assert state.expire(STARTED + 90 * S) == []
    assert collect(state, 100) == ([(10, [1])], {})
    assert state.expire(STARTED + 90 * S) == [0]


def test_bounds_that_keep_changing_do_not_leak() -> None:
    """The arena of last values is packed again before it grows."""
    state = streams()
    for k in range(2000):
        push(state, Sent(1, 10 + k, [k] * (20 + k % 2)))
        collect(state, 10 + k)
    assert len(state._arena) < 5000


def test_a_silent_process_is_forgotten_before_a_silent_series() -> None:
    """A series that comes back in a process that never stopped must find its base: nothing counts twice."""
    state = streams()
    push(state, Sent(1, 10, [1], pod="gone"), Sent(1, 10, [5]), Sent(1, 10, [1], feature="plan"))
    push(state, Sent(1, 100, [2], feature="plan"))
    collect(state, 200)
    assert state.expire(STARTED + 90 * S, senders=True) == [0]
    push(state, Sent(1, 300, [6]))
    assert collect(state, 400) == ([(300, [1])], {})


@st.composite
def _life(draw: st.DrawFn) -> list[Sent]:
    """A stream that mostly grows: now and then it falls, starts anew, has other bounds or becomes a delta."""
    start, values, bounds, sent = 1.0, [0, 0, 0], (0.0, 1.0), []
    for time in range(10, 90, 10):
        event = draw(st.sampled_from(["grows"] * 8 + ["falls", "restarts", "relaid", "delta", "repeats"]))
        values = [v + draw(st.integers(0, 5)) for v in values]
        if event == "falls":
            values = [max(0, v - 4) for v in values]
        elif event == "restarts":
            start, values = time - 5.0, [1, 0, 2]
        elif event == "relaid":
            bounds = (bounds[0] + 0.5, bounds[1] + 0.5)
        kind = DELTA if event == "delta" else CUMULATIVE
        sent.append(
            Sent(
                start,
                time,
                list(values),
                temporality=kind,
                bounds=bounds,
                feature=draw(st.sampled_from("ab")),
            )
        )
        if event == "repeats":
            sent.append(sent[-1])
    return sent


@given(sent=_life(), cut=st.integers(10, 80))
@settings(max_examples=200, deadline=None)
def test_it_does_not_matter_how_often_points_are_applied(sent: list[Sent], cut: int) -> None:
    """All at once they go in rounds; those of streams that are known and go on as usual are applied without."""
    state = streams()
    push(state, *sent)
    first, before = collect(state, cut)
    rest, after = collect(state, 1000)
    expected, counts = applied(*sent, until=1000)
    assert sorted(first + rest) == expected
    assert before + after == +counts
