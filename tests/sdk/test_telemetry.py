"""The span of a prediction: when one is made, and what a batch of scores comes to in it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from otel_ml import semconv
from otel_ml.model import Model
from otel_ml.prediction import Outcome, Prediction
from otel_ml.telemetry import Spans

MODEL = Model("churn", "3")
RANGE = (semconv.PREDICTION_SCORE_MIN, semconv.PREDICTION_SCORE_MAX, semconv.PREDICTION_SCORE_MEAN)


def attributes_of(scores: Sequence[float]) -> dict[str, Any]:
    """The attributes of the span of a call that gave `scores`."""
    exporter, provider = InMemorySpanExporter(), TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    outcome = Outcome(np.array(scores, dtype=float), "value")
    Spans(MODEL, "predict", provider).emit(Prediction(MODEL, "predict", len(scores), outcome, 1, 1))
    (span,) = exporter.get_finished_spans()
    return dict(span.attributes or {})


def test_a_provider_that_is_set_late_is_found_within_a_millisecond(monkeypatch: pytest.MonkeyPatch) -> None:
    """To ask for it at every call would cost a call of one row more than it costs to queue the row."""
    found: list[trace.TracerProvider] = [trace.ProxyTracerProvider()]
    monkeypatch.setattr(trace, "get_tracer_provider", lambda: found[-1])
    spans = Spans(MODEL, "predict")
    assert not spans.active(5_000)
    found.append(TracerProvider(shutdown_on_exit=False))
    assert [spans.active(now) for now in (500_000, 1_005_000)] == [False, True]
    found.pop()
    assert spans.active(1_006_000)


@pytest.mark.parametrize(
    ("scores", "expected"),
    [
        ([0.25, 0.75, 0.5], (0.25, 0.75, 0.5)),
        ([0.25, math.nan, 0.75], (0.25, 0.75, 0.5)),
        ([math.inf, 2.0, -math.inf, 4.0], (2.0, 4.0, 3.0)),
        ([-1.0, -1.0], (-1.0, -1.0, -1.0)),
        ([1.5e308, 1.5e308, math.nan], (1.5e308, 1.5e308, 1.5e308)),
    ],
)
def test_a_batch_of_scores_is_told_by_its_finite_ones(
    scores: list[float], expected: tuple[float, ...]
) -> None:
    """Smallest, largest and mean, each a plain float."""
    attributes = attributes_of(scores)
    assert expected == tuple(attributes[name] for name in RANGE)
    assert {float} == {type(attributes[name]) for name in RANGE}


def test_a_batch_without_a_finite_score_tells_none() -> None:
    """Backends refuse numbers that are not finite."""
    assert not set(RANGE) & set(attributes_of([math.nan, math.inf]))
