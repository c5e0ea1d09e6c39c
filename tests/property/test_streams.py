"""Whatever order points come in, windows are the same and equal a sum by hand."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from pointbatches import BOUNDS, P, S, batch, series

from otel_ml import semconv
from otel_ml_collector.drift import Policy
from otel_ml_collector.engine import Engine
from otel_ml_collector.points import CUMULATIVE, DELTA
from otel_ml_collector.window import WindowSpec

T0 = 1_000_000 * S
SPEC = WindowSpec(length=6, step=2, lateness=20, max_age=6, refresh=2, fast_length=2)
AGE, ROWS = series(semconv.FEATURE_VALUE, feature_name="age"), series(semconv.INFERENCE_ROWS)

Windows = list[tuple[int, int, int, bool]]

counts = st.lists(st.integers(0, 3), min_size=6, max_size=6)


@st.composite
def histories(draw: st.DrawFn) -> tuple[list[P], list[tuple[int, int]]]:
    """Reports of up to three pods that restart now and then, and the rows as (time, rows)."""
    points: list[P] = []
    truth: list[tuple[int, int]] = []
    for pod in range(draw(st.integers(1, 3))):
        temporality = draw(st.sampled_from([CUMULATIVE, DELTA]))
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
            points.append(P(age, begun, time, tuple(values.tolist()), BOUNDS, temporality))
            points.append(P(rows, begun, time, (int(values.sum()),), (), temporality))
            truth.append((time, int(new.sum())))
            previous = time
    return points, truth


def windows(points: Sequence[P], arrivals: Sequence[int]) -> tuple[Windows, list[list[float]]]:
    """What the engine makes of points that come one by one at these times."""
    engine = Engine(SPEC, Policy(min_rows=1), started=T0)
    found = []
    for arrival, k in sorted(zip(arrivals, range(len(points)), strict=True)):
        found += engine.advance(arrival)
        assert engine.ingest(batch([points[k]]), arrival) == {}
    for now in range(max(arrivals), T0 + 80 * S, S):
        found += engine.advance(now)
    finals = [e for e in found if e.final]
    shares = [list(t.state_shares.values()) for e in finals for t in e.targets]
    return [(e.window_start, e.window_end, e.rows, e.final) for e in finals], shares


@settings(max_examples=40, deadline=None)
@given(history=histories(), data=st.data())
def test_reorder_and_repetition_within_lateness_change_nothing(
    history: tuple[list[P], list[tuple[int, int]]], data: st.DataObject
) -> None:
    """Any arrival within the lateness, with any points twice, gives the windows of the right order."""
    points, _ = history
    expected = windows(points, [p.time for p in points])
    again = points + data.draw(st.lists(st.sampled_from(points), max_size=5))
    delays = data.draw(st.lists(st.integers(0, 19 * S), min_size=len(again), max_size=len(again)))
    assert windows(again, [p.time + delay for p, delay in zip(again, delays, strict=True)]) == expected


@settings(max_examples=40, deadline=None)
@given(history=histories())
def test_windows_sum_the_rows_that_were_reported_in_them(
    history: tuple[list[P], list[tuple[int, int]]],
) -> None:
    """Rows of every window equal a sum over all reports, restarts and both temporalities included."""
    points, truth = history
    found, _ = windows(points, [p.time for p in points])
    for start, end, rows, _ in found:
        assert rows == sum(new for time, new in truth if start < time <= end)
    seen = {end for _, end, _, _ in found}
    first = min((time for time, new in truth if new), default=None)
    if first is not None:
        step = SPEC.step_ns
        assert -(-first // step) * step in seen
