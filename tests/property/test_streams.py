"""Whatever order points come in, windows are the same and equal a sum by hand."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from pointbatches import BOUNDS, EVEN, P, S, batch, exponential, reference, series

from otel_ml import semconv
from otel_ml_collector.drift import Policy
from otel_ml_collector.engine import Engine
from otel_ml_collector.evaluation import Evaluation
from otel_ml_collector.groups import EXPONENTIAL_CELLS
from otel_ml_collector.layouts import Bounds
from otel_ml_collector.points import CUMULATIVE, DELTA
from otel_ml_collector.window import WindowSpec

T0 = 1_000_000 * S
SPEC = WindowSpec(length=6, step=2, lateness=20, max_age=6, refresh=2, fast_length=2)
AGE, ROWS = series(semconv.FEATURE_VALUE, feature_name="age"), series(semconv.INFERENCE_ROWS)

Windows = list[tuple[int, int, int, object]]

VALUES = np.array([-2.0, -0.7, -0.2, 0.3, 0.8, 40.0])
"""One in each bucket of BOUNDS."""

counts = st.lists(st.integers(0, 3), min_size=6, max_size=6)


def point(counts: np.ndarray, bounds: bool, buckets: int = 30) -> tuple[tuple[int, ...], Bounds]:
    """Values and bounds of a histogram of VALUES: on BOUNDS, or an exponential one of what there is."""
    if bounds:
        return tuple(counts.tolist()), BOUNDS
    layout, values = exponential(np.repeat(VALUES, counts), buckets)
    return tuple(values.tolist()), layout


@st.composite
def histories(draw: st.DrawFn) -> tuple[list[P], list[tuple[int, int]]]:
    """Reports of up to three pods that restart now and then, some in exponential histograms whose scale and
    offsets move; and the rows as (time, rows)."""
    points: list[P] = []
    truth: list[tuple[int, int]] = []
    for pod in range(draw(st.integers(1, 3))):
        temporality, explicit = draw(st.sampled_from([CUMULATIVE, DELTA])), draw(st.booleans())
        age = series(semconv.FEATURE_VALUE, feature_name="age", pod=str(pod))
        rows = series(semconv.INFERENCE_ROWS, pod=str(pod))
        start = previous = T0 + draw(st.integers(0, S))
        total = np.zeros(6, np.int64)
        for step in draw(st.lists(st.integers(1, 2 * S), min_size=1, max_size=6)):
            time = previous + step
            new = np.array(draw(counts), np.int64)
            if draw(st.integers(0, 4)) == 0 and time > previous + 1:
                start, total = previous + 1, np.zeros(6, np.int64)
            total = total + new
            begun, values = (start, total) if temporality == CUMULATIVE else (previous, new)
            points.append(P(age, begun, time, *point(values, explicit), temporality))
            points.append(P(rows, begun, time, (int(values.sum()),), (), temporality))
            truth.append((time, int(new.sum())))
            previous = time
    return points, truth


def windows(points: Sequence[P], arrivals: Sequence[int]) -> Windows:
    """What the engine makes of points; those that come at the same time come in one request."""
    engine = Engine(SPEC, Policy(min_rows=1, min_reference_rows=1), started=T0)
    engine.ingest(batch(reference(EVEN, T0)), T0)
    found = []
    for arrival in sorted(set(arrivals)):
        found += engine.advance(arrival)
        here = [p for p, at in zip(points, arrivals, strict=True) if at == arrival]
        assert engine.ingest(batch(here), arrival) == {}
    for now in range(max(arrivals), T0 + 80 * S, S):
        found += engine.advance(now)
    return [(e.window_start, e.window_end, e.rows, numbers(e)) for e in found if e.final]


def numbers(evaluation: Evaluation) -> list[object]:
    return [(t.status, t.statistics, t.p_value, t.state_shares) for t in evaluation.targets]


@settings(max_examples=25, deadline=None)
@given(history=histories(), data=st.data())
def test_reorder_and_repetition_within_lateness_change_nothing(
    history: tuple[list[P], list[tuple[int, int]]], data: st.DataObject
) -> None:
    """Any order and any split into requests within the lateness, with any points twice, gives the same windows."""
    points, _ = history
    expected = windows(points, [p.time for p in points])
    again = data.draw(st.permutations(points + data.draw(st.lists(st.sampled_from(points), max_size=5))))
    steps = data.draw(st.sampled_from([1, S, 5 * S]))  # every point on its own, or requests of several
    delays = data.draw(st.lists(st.integers(0, 18 * S), min_size=len(again), max_size=len(again)))
    arrivals = [-(-(p.time + delay) // steps) * steps for p, delay in zip(again, delays, strict=True)]
    assert (
        windows(again, [min(at, p.time + 19 * S) for at, p in zip(arrivals, again, strict=True)]) == expected
    )


@settings(max_examples=25, deadline=None)
@given(history=histories())
def test_windows_sum_the_rows_that_were_reported_in_them(
    history: tuple[list[P], list[tuple[int, int]]],
) -> None:
    """Rows of every window equal a sum over all reports, restarts and both temporalities included."""
    points, truth = history
    found = windows(points, [p.time for p in points])
    for start, end, rows, _ in found:
        assert rows == sum(new for time, new in truth if start < time <= end)
    seen = {end for _, end, *_ in found}
    first = min((time for time, new in truth if new), default=None)
    if first is not None:
        step = SPEC.step_ns
        assert -(-first // step) * step in seen


@settings(max_examples=25, deadline=None)
@given(steps=st.lists(counts, min_size=1, max_size=8), explicit=st.booleans())
def test_cumulative_and_delta_senders_give_the_same_drift(steps: list[list[int]], explicit: bool) -> None:
    """Explicit and exponential alike, though the exponential ones have another scale in each interval; as fine as
    their target keeps them, since what a sender has coarsened stays so."""
    age = series(semconv.FEATURE_VALUE, feature_name="age")
    runs = []
    for temporality in (CUMULATIVE, DELTA):
        points, total = [], np.zeros(6, np.int64)
        for k, new in enumerate(steps, start=1):
            total = total + new
            counted, begun = (
                (total, T0 + 1) if temporality == CUMULATIVE else (np.array(new), T0 + k * S - S + 1)
            )
            points.append(
                P(age, begun, T0 + k * S, *point(counted, explicit, EXPONENTIAL_CELLS), temporality)
            )
        runs.append(windows(points, [p.time for p in points]))
    assert runs[0] == runs[1]
