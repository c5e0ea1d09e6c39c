"""From settings to parts: what follows from what, baselines in files, and leaving baselines out."""

from __future__ import annotations

import numpy as np
import pytest
from pointbatches import BOUNDS, P, S, batch, series

from otel_ml import semconv
from otel_ml.baseline import Baseline
from otel_ml.errors import ConfigurationError
from otel_ml_collector import build
from otel_ml_collector.settings import BaselineSources, MlDrift


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


def test_baselines_are_read_from_every_file_of_a_directory(tmp_path):
    """Files whose names end in .baseline.json; others are left alone."""
    for model in ("churn", "fraud"):
        rows = {"age": np.arange(1000.0)}
        Baseline.fit(rows, model=model, version="1").save(tmp_path / f"{model}.baseline.json")
    (tmp_path / "notes.json").write_text("{")
    read = build.baselines(BaselineSources(sources=("file",), path=str(tmp_path)))
    assert [baseline.model for baseline in read] == ["churn", "fraud"]


def test_every_baseline_file_that_cannot_be_read_is_named(tmp_path):
    """All of them at once."""
    for name in ("a", "b"):
        (tmp_path / f"{name}.baseline.json").write_text("{")
    with pytest.raises(ConfigurationError) as caught:
        build.baselines(BaselineSources(sources=("file",), path=str(tmp_path)))
    assert [name for name in ("a", "b") if f"{name}.baseline.json" in str(caught.value)] == ["a", "b"]


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
