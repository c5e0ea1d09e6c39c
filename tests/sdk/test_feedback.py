"""Ground truth: events, links to the prediction's span, and counts."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import pandas as pd
import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from support import select

import otel_ml
from otel_ml import _guard, config, ids, pipeline, semconv, truths
from otel_ml.events import Logs
from otel_ml.ids import CallId, PredictionId

ID = "0123456789ab-65000000-7-0"


def attributes(logs: Any) -> list[dict[str, Any]]:
    """The attributes of every event."""
    return [dict(one.log_record.attributes or {}) for one in logs.get_finished_logs()]


def test_event_links_to_the_span_of_the_prediction(logs, spans):
    """The event is in a span of its own trace, whose link leads to the prediction's span."""
    tracer = pipeline.tracer_provider().get_tracer("t")
    with tracer.start_as_current_span("predict churn") as predicting:
        prediction_id = CallId(predicting.get_span_context()).of(3)
    otel_ml.feedback(prediction_id=prediction_id, label="leave", model="churn", version="3", source="human")
    first, span = spans.get_finished_spans()
    assert (first.name, span.name) == ("predict churn", "feedback churn")
    assert span.context.trace_id != first.context.trace_id
    [link] = span.links
    assert (link.context.trace_id, link.context.span_id) == (first.context.trace_id, first.context.span_id)
    identity = {"ml.model.name": "churn", "ml.model.version": "3", "ml.feedback.source": "human"}
    assert dict(span.attributes) == identity
    [record] = [one.log_record for one in logs.get_finished_logs()]
    assert (record.event_name, record.body, record.severity_text) == ("ml.feedback", None, "INFO")
    assert (record.trace_id, record.span_id) == (span.context.trace_id, span.context.span_id)
    assert dict(record.attributes) == {
        "ml.prediction.id": prediction_id,
        "ml.feedback.label": "leave",
        **identity,
    }


def test_without_a_span_there_is_nothing_to_link(logs, spans):
    """The id of a call that had no span makes no span; the event is in the trace of whoever gives the truth."""
    tracer = pipeline.tracer_provider().get_tracer("t")
    with tracer.start_as_current_span("webhook") as webhook:
        otel_ml.feedback(prediction_id=ID, label=True)
    assert [span.name for span in spans.get_finished_spans()] == ["webhook"]
    [record] = [one.log_record for one in logs.get_finished_logs()]
    assert record.span_id == webhook.get_span_context().span_id
    assert dict(record.attributes) == {"ml.prediction.id": ID, "ml.feedback.label": "true"}


def test_feedback_is_part_of_the_request_that_brings_it(logs, spans):
    """Given inside a span, the span of the feedback is its child, and the link still leads to the other trace."""
    prediction_id = str(PredictionId("0" * 12, 1, 1, 0, trace_id=5, span_id=6))
    with pipeline.tracer_provider().get_tracer("t").start_as_current_span("webhook") as webhook:
        otel_ml.feedback(prediction_id=prediction_id, label=1)
        assert trace.get_current_span() is webhook
    feedback, _ = spans.get_finished_spans()
    assert (feedback.name, feedback.parent.span_id) == ("feedback", webhook.get_span_context().span_id)
    assert [(one.context.trace_id, one.context.span_id) for one in feedback.links] == [(5, 6)]


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"label": "leave"}, {"ml.feedback.label": "leave"}),
        ({"label": 1}, {"ml.feedback.label": "1"}),
        ({"label": np.int64(1)}, {"ml.feedback.label": "1"}),
        ({"label": np.bool_(False)}, {"ml.feedback.label": "false"}),
        ({"label": 12.5}, {"ml.feedback.value": 12.5}),
        ({"label": np.float32(1.0)}, {"ml.feedback.value": 1.0}),
        (
            {"label": "leave", "prediction": "stay", "score": 0.25},
            {"ml.feedback.label": "leave", "ml.prediction.label": "stay", "ml.prediction.score.value": 0.25},
        ),
        ({"label": 2.0, "prediction": 2.5}, {"ml.feedback.value": 2.0, "ml.prediction.value": 2.5}),
    ],
)
def test_truth_by_value(logs, given, expected):
    """Without an id the model is named; a float is a value, anything else a label, of truth and prediction alike."""
    otel_ml.feedback(**given, model="churn")
    assert attributes(logs) == [{**expected, "ml.model.name": "churn"}]


def test_many_at_once(logs, spans, collect):
    """Columns of ids and labels become an event each; their spans link to all predictions, and lose no link."""
    made = [str(PredictionId("0" * 12, 1, i, 0, trace_id=9, span_id=i + 1)) for i in range(300)]
    frame = pd.DataFrame({"id": made, "label": np.arange(300) % 2})
    otel_ml.feedback(prediction_id=frame["id"], label=frame["label"], score=np.linspace(0, 1, 300))
    said = attributes(logs)
    assert [one["ml.prediction.id"] for one in said] == made
    assert [one["ml.feedback.label"] for one in said] == ["0", "1"] * 150
    finished = spans.get_finished_spans()
    assert [len(span.links) for span in finished] == [128, 128, 44]
    assert [link.context.span_id for span in finished for link in span.links] == list(range(1, 301))
    points = collect()
    assert {p.attributes["ml.feedback.label"]: p.value for p in points["ml.feedback.labels"]} == {
        "0": 150,
        "1": 150,
    }
    assert [p.count for p in points["ml.feedback.delay"]] == [300]


def test_rows_of_one_call_are_linked_once(logs, spans):
    """Ten rows of one call share its span, so that is one link."""
    call = CallId(trace.SpanContext(7, 8, is_remote=False))
    otel_ml.feedback(prediction_id=[call.of(row) for row in range(10)], label=[0] * 10)
    [span] = spans.get_finished_spans()
    assert len(span.links) == 1
    assert len(logs.get_finished_logs()) == 10


def test_delay_is_the_time_since_the_id_was_made(logs, collect):
    """An id of two hours ago counts between one and six hours; one from a clock ahead of ours counts as no delay."""
    now = int(time.time())
    for seconds in (now - 7200, now + 7200):
        otel_ml.feedback(prediction_id=str(PredictionId("0" * 12, seconds, 1, 0)), label=1, source="human")
    [point] = collect()["ml.feedback.delay"]
    counts = dict(zip([*point.explicit_bounds, np.inf], point.bucket_counts, strict=True))
    assert {bound: count for bound, count in counts.items() if count} == {1.0: 1, 6 * 3600.0: 1}
    assert 7200 <= point.sum < 7260
    assert dict(point.attributes) == {"ml.feedback.source": "human"}


def test_labels_are_counted_without_events_and_capped(collect):
    """With no logger provider truths still count: by label up to 20 of a model, by source, and values without one."""
    for label in range(25):
        otel_ml.feedback(label=label, model="churn", version="3")
    otel_ml.feedback(label=0, model="churn", version="4", source="human")
    otel_ml.feedback(label=0.5, model="churn", version="3")
    points = collect()["ml.feedback.labels"]
    third = select(points, ml__model__version="3")
    assert {p.attributes.get("ml.feedback.label"): p.value for p in third} == {
        **{str(label): 1 for label in range(20)}, "__other__": 5, None: 1,
    }  # fmt: skip
    [fourth] = select(points, ml__model__version="4")
    assert (fourth.value, fourth.attributes["ml.feedback.source"]) == (1, "human")


def test_sources_and_models_are_capped(collect, monkeypatch):
    """A program that makes ever new sources or models makes no ever new series, and loses no count."""
    monkeypatch.setattr(truths, "MAX_MODELS", 3)
    for i in range(30):
        otel_ml.feedback(label=1, model="churn", source=f"user {i}")
    for i in range(9):
        otel_ml.feedback(label=1, model=f"m{i}")
    points = collect()["ml.feedback.labels"]
    assert sum(p.value for p in points) == 39
    assert [p.value for p in select(points, ml__feedback__source="__other__")] == [10]
    assert [p.value for p in select(points, ml__model__name="__other__")] == [7]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"label": 1}, r"nobody can tell what this is the truth of; give prediction_id=, or model="),
        ({"label": 1, "version": "3", "prediction_id": ID}, "version='3' says nothing without a model; add model="),
        ({"label": 1, "prediction_id": "order-17"}, "'order-17' is not a prediction id; give what "),
        ({"label": [1, 0], "prediction_id": [ID, None], "model": "m"}, None),
        ({"label": [1, 0], "prediction_id": [ID]}, r"^label has 2 values and prediction_id has 1; give every"),
        ({"label": 1, "score": [], "prediction_id": [ID] * 2}, "^label has 1 value and prediction_id has 2, score"),
        ({"label": 1, "prediction_id": None}, "^prediction_id=None is no id: .* leave prediction_id out and say"),
        ({"label": 1, "prediction_id": None, "model": "m", "score": 0.5}, "prediction_id=None is no id"),
        ({"label": None, "prediction_id": ID}, "label is None; leave out what is not known yet"),
        ({"label": [1.0, float("nan")], "model": "m"}, "label is nan; leave out what is not known yet"),
        ({"label": float("inf"), "model": "m"}, "label=inf is not a finite number"),
        ({"label": {1: 2}, "model": "m"}, "label is a dict; give one value or a list of them"),
        ({"label": {1, 2}, "model": "m"}, "label is a set; give one value or a list of them"),
        ({"label": object(), "model": "m"}, "label is a object; give one value or a list"),
        ({"label": [[1]], "model": "m"}, r"label=\[1\] is no label and no value; give a str, int, bool or float"),
        ({"label": np.eye(2), "model": "m"}, "label has 2 dimensions; give a list, a value each"),
        ({"label": 1, "model": "m", "score": "high"}, "score='high' is not a finite number"),
        ({"label": [1, 0], "prediction_id": [ID, None]}, "nobody can tell what this is the truth of"),
        ({"label": 1, "model": 7}, r"model, version and source are strings, not \[7\]"),
    ],
)  # fmt: skip
def test_arguments_that_cannot_be_right_are_refused(logs, collect, given, message):
    """What is wrong is said before anything is recorded, of a list too; an id may be missing where others have one."""
    if message is None:
        otel_ml.feedback(**given)
        assert len(logs.get_finished_logs()) == 2
        return
    with pytest.raises(otel_ml.ConfigurationError, match=message):
        otel_ml.feedback(**given)
    assert logs.get_finished_logs() == ()
    assert semconv.FEEDBACK_LABELS.name not in collect()


def test_nothing_else_is_raised(logs, spans, monkeypatch, caplog):
    """A logger that fails costs the event, one log line and a count; the span is ended, the caller goes on."""
    monkeypatch.delenv("OTEL_PYTHON_ML_RAISE")
    config.settings.cache_clear()

    def fail(*_: Any, **__: Any) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(Logs, "emit", fail)
    otel_ml.feedback(prediction_id=str(PredictionId("0" * 12, 1, 1, 0, 5, 6)), label=1)
    assert _guard.collect(_guard.errors) == {"feedback": 1}
    assert len(spans.get_finished_spans()) == 1
    assert len(caplog.records) == 1


def test_nothing_is_recorded_where_it_is_suppressed(logs, collect):
    """Inside `suppress()` a truth is checked and not recorded."""
    with otel_ml.suppress():
        otel_ml.feedback(prediction_id=ID, label=1)
        with pytest.raises(otel_ml.ConfigurationError):
            otel_ml.feedback(prediction_id="x", label=1)
    assert logs.get_finished_logs() == ()
    assert semconv.FEEDBACK_LABELS.name not in collect()


def test_user_can_sample_feedback_away(logs):
    """A head sampler that keeps no spans keeps none of ours; the event is there and says it was not sampled."""
    from opentelemetry.sdk.trace.sampling import ALWAYS_OFF

    pipeline.use(tracer_provider=TracerProvider(sampler=ALWAYS_OFF, shutdown_on_exit=False))
    otel_ml.feedback(prediction_id=str(PredictionId("0" * 12, 1, 1, 0, 5, 6)), label=1)
    [record] = [one.log_record for one in logs.get_finished_logs()]
    assert not record.trace_flags.sampled
    assert ids.parse(record.attributes["ml.prediction.id"]).trace_id == 5
