"""What a sampler does to the spans and events of observed models."""

from __future__ import annotations

import asyncio

import numpy as np
import pandas as pd
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


@pytest.mark.parametrize("n", [1, 3])
def test_calls_that_failed(n, logs, spans, collect):
    """When(failed) keeps the rows of a call that raised, and passes and counts those of one that did not."""

    @otel_ml.observe(model="churn", version="3", sampler=sampling.When(sampling.failed), spans="sampled")
    def predict(rows):
        return 1 / rows[:, 0].astype(object)

    predict(np.ones((n, 2)))
    with pytest.raises(ZeroDivisionError):
        predict(np.zeros((n, 2)))
    assert len(logs.get_finished_logs()) == n
    assert [span.status.status_code for span in spans.get_finished_spans()] == [trace.StatusCode.ERROR]
    assert decisions(collect()) == {("rule", "true"): n, ("rule", "false"): n}


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


def test_an_error_without_a_text_is_kept(spans, logs, monkeypatch):
    """An exception whose text cannot be made costs the span that text, and the rows no event."""
    monkeypatch.setenv("OTEL_PYTHON_ML_RAISE", "0")
    otel_ml.config.settings.cache_clear()

    class Unspeakable(Exception):
        def __str__(self):
            raise RuntimeError("no text")

    @otel_ml.observe(model="churn", version="3", spans="sampled", sampler=sampling.When(sampling.failed))
    def predict(rows):
        raise Unspeakable

    with pytest.raises(Unspeakable):
        predict(X[:2])
    assert len(logs.get_finished_logs()) == 2
    (span,) = spans.get_finished_spans()
    assert span.status.status_code == trace.StatusCode.ERROR


@pytest.mark.parametrize("spans_mode", ["all", "sampled"])
def test_rows_are_those_that_were_given(spans_mode, spans, logs):
    """A function that empties its input has still answered for the rows it was given."""

    @otel_ml.observe(
        model="churn", version="3", spans=spans_mode, sampler=sampling.Random(1.0), capture_features=["x0"]
    )
    def predict(rows):
        return np.array([rows.pop()[0] for _ in range(len(rows))])

    predict([[1.0, 2.0], [3.0, 4.0]])
    assert [event["ml.feature.value.x0"] for event in attributes(logs.get_finished_logs())] == [1.0, 3.0]
    (span,) = spans.get_finished_spans()
    assert span.attributes["ml.batch.size"] == 2


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ([np.nan], {}),
        ([np.nan, 1.0, 0.5, np.inf], {".min": 0.5, ".max": 1.0, ".mean": 0.75}),
        ([np.nan, np.nan], {}),
        ([0.25], {".value": 0.25}),
    ],
)
def test_spans_hold_finite_scores(given, expected, spans):
    """Scores that are not finite are left out of a span: many backends refuse one that has them."""
    otel_ml.observe(model="churn", version="3")(lambda rows: np.array(given))(X[: len(given)])
    (span,) = spans.get_finished_spans()
    prefix = "ml.prediction.score"
    found = {name.removeprefix(prefix): value for name, value in span.attributes.items() if prefix in name}
    assert found == {".type": "value", **expected}


def test_unknown_probabilities_have_no_uncertainty(spans):
    """Of a row of probabilities that are not numbers a span says nothing."""
    otel_ml.observe(model="churn", version="3", operation="predict_proba")(
        lambda rows: np.array([[np.nan, 0.5]])
    )(X[:1])
    (span,) = spans.get_finished_spans()
    assert not [name for name, value in span.attributes.items() if value != value]
    assert "ml.prediction.uncertainty.type" not in span.attributes


def test_features_to_capture_come_from_any_iterable(logs):
    """A generator of names is read once, and nothing of it is lost."""
    otel_ml.observe(
        model="churn", version="3", sampler=sampling.Random(1.0), capture_features=(name for name in ["x0"])
    )(lambda rows: rows[:, 0])(X[:1])
    assert [event["ml.feature.value.x0"] for event in attributes(logs.get_finished_logs())] == [X[0, 0]]


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


def test_names_of_features_can_be_encoded(logs):
    """A name that no exporter can encode would cost a whole batch of records; its character is replaced."""
    otel_ml.observe(
        model="churn", version="3", features=["größe", "\ud800"], sampler=sampling.Random(1.0),
        capture_features=["größe", "\ud800"],
    )(lambda rows: rows[:, 0])(np.array([[1.0, 2.0]]))  # fmt: skip
    (event,) = attributes(logs.get_finished_logs())
    found = {name: value for name, value in event.items() if name.startswith("ml.feature.value.")}
    assert found == {"ml.feature.value.größe": 1.0, "ml.feature.value.?": 2.0}


def test_each_operation_is_sampled(logs, instrumented):
    """Two operations on the same rows are two calls: each has its coins and its events, told apart by name."""
    classifier = LogisticRegression().fit(X, y)
    otel_ml.register(classifier, name="churn", version="3", sampler=sampling.Random(1.0))
    classifier.predict(X)
    classifier.predict_proba(X)
    names = [event["ml.operation.name"] for event in attributes(logs.get_finished_logs())]
    assert names == ["predict"] * len(X) + ["predict_proba"] * len(X)


def test_a_limit_of_two_models_is_of_both_together(logs):
    """A sampler that remembers is one for all it is given to."""
    shared = sampling.limit(sampling.Random(1.0), per_minute=6, per_call=5, hard=True, clock=lambda: 0.0)
    for model in ("churn", "fraud"):
        otel_ml.observe(model=model, version="3", sampler=shared)(lambda rows: rows[:, 0])(X)
    kept = [event["ml.model.name"] for event in attributes(logs.get_finished_logs())]
    assert kept == ["churn"] * 5 + ["fraud"]


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
    {"sampler": 0.01}, {"sampler": sampling.Random}, {"sampler": sampling.failed}, {"sampler": sampling.missing("a")},
    {"capture_features": "age"}, {"capture_features": 3}, {"redact": "age"}, {"spans": "some"},
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


@pytest.mark.parametrize("configured", ["features", "baseline", "fitted"])
def test_captured_names_that_the_model_does_not_have_are_refused(configured, baseline):
    """Where the columns are known beforehand, a mistyped name is an error with the nearest one; others are listed."""

    def configure(*names):
        if configured == "fitted":
            frame = pd.DataFrame(X, columns=["a", "b", "c"])
            model = LogisticRegression().fit(frame, y)
            otel_ml.register(model, name="churn", version="3", capture_features=names)
        else:
            known = {"features": ["a", "b", "c"]} if configured == "features" else {"baseline": baseline}
            otel_ml.observe(model="churn", version="3", capture_features=names, **known)(lambda rows: rows)

    configure("a", "c")
    with pytest.raises(
        ConfigurationError, match=r"names 'bb', which model churn does not have; did you mean 'b'\?"
    ):
        configure("a", "bb")
    with pytest.raises(ConfigurationError, match=r"names 'income', .* does not have; it has 'a', 'b', 'c' "):
        configure("income")


def test_captured_names_are_free_where_nothing_is_known(baseline):
    """Without columns nobody can tell; a segment's column, and one that the baseline leaves out, may be captured."""
    otel_ml.observe(model="m", version="1", capture_features=["anything"])(lambda rows: rows)
    cut = otel_ml.Segment("region", values=("eu",))
    otel_ml.observe(
        model="churn", version="3", baseline=baseline, segment=cut, capture_features=["region"],
    )(lambda rows: rows)  # fmt: skip
    trained = pd.DataFrame({"a": X[:, 0], "customer": [f"c{i}" for i in range(len(X))]})
    with pytest.warns(UserWarning, match="rows"):
        left_out = otel_ml.Baseline.fit(trained, model="m", version="1", exclude=["customer"])
    otel_ml.observe(model="m", version="1", baseline=left_out, capture_features=["customer"])(
        lambda rows: rows
    )
