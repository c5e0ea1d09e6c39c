"""From settings to parts: what follows from what, baselines in files, and leaving baselines out."""

from __future__ import annotations

import pytest
from pointbatches import BOUNDS, P, S, batch, series

from otel_ml import semconv
from otel_ml_collector import build
from otel_ml_collector.settings import MlDrift


def settings(**values: object) -> MlDrift:
    return MlDrift.model_validate(values)


def test_what_is_not_set_follows_from_the_type_of_the_window():
    """Tumbling windows are judged one by one, so they need a larger alpha and two in agreement."""
    sliding, tumbling = (build.policy(settings(window={"type": type_})) for type_ in ("sliding", "tumbling"))
    assert (sliding.alpha, sliding.consecutive) == (0.001, 1)
    assert (tumbling.alpha, tumbling.consecutive) == (0.01, 2)
    given = build.policy(settings(window={"type": "tumbling"}, alpha=0.05, consecutive=3))
    assert (given.alpha, given.consecutive) == (0.05, 3)


def test_a_short_window_has_a_fast_lane_and_a_reach_that_fit_it():
    """An hour of fast lane and three windows of reach, no more than the window allows."""
    day, short = build.window_spec(settings()), build.window_spec(settings(window={"length": "10m"}))
    assert (day.fast_length, day.max_age) == (3600.0, 3 * 86400.0)
    assert (short.fast_length, short.max_age) == (600.0, 1800.0)


@pytest.mark.parametrize(
    ("drift", "expected"),
    [
        ({"window": {"type": "decayed", "length": "6h"}}, ("decayed", 3600.0, 0, None, 1)),
        ({"window": {"type": "count", "rows": 500}}, ("count", 600.0, 500, None, 1)),
        ({"baseline": {"sources": ["rolling"]}}, ("sliding", 3600.0, 0, 7 * 86400.0, 1)),
        ({"baseline": {"sources": ["rolling"], "span": "48h"}}, ("sliding", 3600.0, 0, 172800.0, 1)),
        (
            {"window": {"type": "tumbling", "length": "1h"}, "baseline": {"sources": ["previous"]}},
            ("tumbling", 3600.0, 0, None, 1),
        ),
    ],
)
def test_windows_and_baselines_of_every_kind_are_built(drift, expected):
    """Steps, rows, the history that is kept, and one evaluation where the previous window is the baseline."""
    made = settings(**drift)
    window = build.window_spec(made)
    assert (window.type, window.step, window.rows, window.history, build.policy(made).consecutive) == expected


def test_baselines_from_the_wire_can_be_left_out():
    """Every other point stays as it was."""
    value = P(series(semconv.FEATURE_VALUE, feature_name="age"), 0, S, (1, 2, 3, 4, 5, 6), BOUNDS)
    told = P(series(semconv.BASELINE_VALUE, feature_name="age"), 0, S, (9, 9, 9, 9, 9, 9), BOUNDS)
    rows = P(series(semconv.INFERENCE_ROWS), 0, 2 * S, (21,))
    left, expected = build.without_baselines(batch([told, value, told, rows])), batch([value, rows])
    assert len(left) == 2
    assert [left.series[i] for i in left.index] == [expected.series[i] for i in expected.index]
    assert left.bounds == expected.bounds
    for name in ("start", "time", "temporality", "values", "offsets"):
        assert getattr(left, name).tolist() == getattr(expected, name).tolist()
