"""What a sampler does to the spans and events of observed models."""

from __future__ import annotations

import asyncio

import numpy as np
import pytest
from opentelemetry import trace
from sklearn.linear_model import LinearRegression, LogisticRegression

import otel_ml
from otel_ml import ConfigurationError, sampling

X = np.random.default_rng(3).normal(size=(40, 3))
y = (X[:, 0] > 0).astype(int)


def attributes(records):
    return [dict(record.log_record.attributes) for record in records]


def decisions(points):
    """Rows by (reason, kept)."""
    return {
        (point.attributes["ml.sampling.reason"], point.attributes["ml.sampling.kept"]): point.value
        for point in points.get("ml.sampling.decisions", [])
    }


@pytest.mark.parametrize("spans_mode", ["all", "sampled", "off"])
def test_every_kept_row_is_an_event(spans_mode, logs, spans, collect):
    """A batch of which a rule keeps two rows makes two events, and counts all its rows."""
    wanted = sampling.When(lambda prediction: prediction.column("x0") > 10)

    @otel_ml.observe(model="churn", version="3", sampler=wanted, spans=spans_mode)
    def predict(rows):
        return rows[:, 1]

    rows = np.array([[0.0, 0.1], [11.0, 0.2], [0.0, 0.3], [12.0, 0.4]])
    predict(rows)
    events = attributes(logs.get_finished_logs())
    assert [event["ml.prediction.score.value"] for event in events] == [0.2, 0.4]
    assert {event["ml.sampling.probability"] for event in events} == {1.0}
    assert {event["ml.sampling.reason"] for event in events} == {"rule"}
    points = collect()
    assert decisions(points) == {("rule", "true"): 2, ("rule", "false"): 2}
    assert [point.value for point in points["ml.inference.rows"]] == [4]
    assert len(spans.get_finished_spans()) == (0 if spans_mode == "off" else 1)


def test_sampled_spans_are_of_calls_with_a_kept_row(spans, logs):
    """With spans="sampled" a call that keeps nothing makes no span; one that does says why and how likely that was."""

    @otel_ml.observe(
        model="churn", version="3", spans="sampled", sampler=sampling.When(lambda p: p.outcome.scores > 0.5)
    )
    def predict(rows):
        return rows[:, 0]

    predict(np.array([[0.1], [0.2]]))
    predict(np.array([[0.1], [0.9]]))
    (span,) = spans.get_finished_spans()
    assert span.attributes["ml.sampling.reason"] == "rule"
    assert span.attributes["ml.sampling.probability"] == 1.0
    (event,) = logs.get_finished_logs()
    assert event.log_record.span_id == span.context.span_id
    assert event.log_record.trace_id == span.context.trace_id


def test_probability_of_a_call_is_that_of_any_of_its_rows(spans, logs):
    """Three rows, each kept with one half: the call is kept with seven eighths."""

    @otel_ml.observe(model="churn", version="3", spans="sampled", sampler=sampling.Random(0.5))
    def predict(rows):
        return rows[:, 0]

    for _ in range(20):
        predict(X[:3])
    made = spans.get_finished_spans()
    assert 0 < len(made) <= 20
    assert {span.attributes["ml.sampling.probability"] for span in made} == {0.875}


def test_a_failing_call_can_be_kept(spans, logs):
    """The rule `failed` keeps the rows of a call that raised; the caller gets its exception."""

    @otel_ml.observe(model="churn", version="3", spans="sampled", sampler=sampling.When(sampling.failed))
    def predict(rows):
        if rows[0, 0] > 0:
            raise KeyError("gone")
        return rows[:, 0]

    predict(np.array([[-1.0]]))
    with pytest.raises(KeyError, match="gone"):
        predict(np.array([[1.0], [1.0]]))
    assert [event["error.type"] for event in attributes(logs.get_finished_logs())] == ["KeyError"] * 2
    (span,) = spans.get_finished_spans()
    assert span.status.status_code == trace.StatusCode.ERROR
    assert span.attributes["ml.batch.size"] == 2


def test_an_event_has_the_id_its_call_was_asked_for(logs, spans):
    """What the function stored as its prediction id is that of the event."""
    stored = []

    @otel_ml.observe(model="churn", version="3", sampler=sampling.Random(1.0))
    def predict(rows):
        stored.extend(otel_ml.current_prediction_id(row) for row in range(len(rows)))
        return rows[:, 0]

    predict(X[:2])
    assert [event["ml.prediction.id"] for event in attributes(logs.get_finished_logs())] == stored


def test_async_function(logs, spans):
    """A coroutine function is sampled like any other."""

    @otel_ml.observe(model="churn", version="3", sampler=sampling.Random(1.0), spans="sampled")
    async def predict(rows):
        await asyncio.sleep(0)
        return rows[:, 0]

    asyncio.run(predict(X[:2]))
    assert len(logs.get_finished_logs()) == 2
    assert [span.name for span in spans.get_finished_spans()] == ["predict churn"]


def test_registered_estimator(logs, instrumented):
    """A registered estimator has its sampler for every operation; uncertainty comes from its own probabilities."""
    classifier = LogisticRegression().fit(X, y)
    otel_ml.register(
        classifier, name="churn", version="3", capture_features=["x0"],
        sampler=sampling.Uncertainty("least_confidence", rate=0.5),
    )  # fmt: skip
    p = classifier.predict_proba(X)
    expected = dict(zip(X[:, 0].tolist(), (2 * (1 - p.max(axis=1))).tolist(), strict=True))
    events = attributes(logs.get_finished_logs())
    assert 0 < len(events) < 40
    for event in events:
        uncertainty = expected[event["ml.feature.value.x0"]]
        assert event["ml.prediction.uncertainty.value"] == pytest.approx(uncertainty)
        assert event["ml.prediction.uncertainty.type"] == "least_confidence"
        assert event["ml.sampling.reason"] == "uncertainty"


def test_override_of_one_call(logs, spans):
    """`using` keeps what a call's own sampler, or none at all, would not have kept, and only inside."""

    @otel_ml.observe(model="churn", version="3", spans="off")
    def predict(rows):
        return rows[:, 0]

    predict(X[:3])
    with sampling.using(sampling.Random(1.0)):
        predict(X[:3])
    predict(X[:3])
    assert len(logs.get_finished_logs()) == 3


def test_a_failing_sampler_costs_events_only(logs, spans, collect, monkeypatch):
    """A sampler of the user's that raises is counted; the call is recorded and answered."""
    monkeypatch.setenv("OTEL_PYTHON_ML_RAISE", "0")
    otel_ml.config.settings.cache_clear()

    @otel_ml.observe(model="churn", version="3", sampler=lambda prediction: prediction.nothing)
    def predict(rows):
        return rows[:, 0]

    assert predict(X[:3]).tolist() == X[:3, 0].tolist()
    points = collect()
    assert {p.attributes["reason"]: p.value for p in points["otel_ml.errors"]} == {"sampler": 1}
    assert [point.value for point in points["ml.inference.rows"]] == [3]
    assert len(spans.get_finished_spans()) == 1


@pytest.mark.parametrize("options", [
    {"sampler": 0.01}, {"sampler": sampling.Random}, {"capture_features": "age"}, {"redact": "age"}, {"spans": "some"},
])  # fmt: skip
def test_what_cannot_be_right_is_refused(options):
    """Options that cannot be used are errors where they are written, with a way out."""
    with pytest.raises(ConfigurationError, match=r"write|give it|use one of"):
        otel_ml.observe(model="churn", version="3", **options)
    with pytest.raises(ConfigurationError, match=r"write|give it|use one of"):
        otel_ml.register(LogisticRegression(), name="churn", version="3", **options)


def test_uncertainty_of_a_regressor_is_refused():
    """A model that gives no class probabilities cannot be sampled by uncertainty, and that is said at once."""
    with pytest.raises(ConfigurationError, match="does regression and gives no class probabilities"):
        otel_ml.register(
            LinearRegression(), name="price", version="1", sampler=sampling.Uncertainty("margin", rate=0.1)
        )
