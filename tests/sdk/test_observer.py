"""The order of work for one call: what is recorded, and that the caller never notices."""

from __future__ import annotations

import asyncio
import contextvars
import threading

import numpy as np
import pytest
from opentelemetry import trace
from opentelemetry.trace import StatusCode
from support import select

import otel_ml
from otel_ml import config, pipeline
from otel_ml.capture import Capture
from otel_ml.model import Model
from otel_ml.observer import Observer, owner
from otel_ml.recording import Recording


def probability(X):
    return 1 / (1 + np.exp(-np.asarray(X)[:, 0]))


@pytest.mark.parametrize("mode", ["all", "sampled", "off"])
def test_result_is_passed_on_untouched(mode, reader, spans, baseline, training):
    """The caller gets the very object that the function returned."""
    answer = object()
    observer = Observer(Model("churn", "3", baseline=baseline), recording=Recording(mode))
    assert observer.call(lambda X: answer, (training,), {}, training) is answer


@pytest.mark.parametrize("mode", ["all", "sampled", "off"])
def test_exception_is_passed_on_untouched(mode, collect, spans, baseline, training):
    """The caller gets the very exception that the function raised, and the call is counted as failed."""
    error = KeyError("x")

    def fails(X):
        raise error

    observer = Observer(Model("churn", "3", baseline=baseline), recording=Recording(mode))
    with pytest.raises(KeyError) as caught:
        observer.call(fails, (training,), {}, training)
    assert caught.value is error
    points = collect()
    assert [p.count for p in select(points["ml.inference.duration"], error__type="KeyError")] == [1]
    assert "ml.inference.rows" not in points
    assert owner.get() is None


@pytest.mark.parametrize("mode", ["all", "sampled"])
def test_span_of_one_row(mode, reader, spans, baseline):
    """A single row's span has identity, rows, score and its type, and the name `{operation} {model}`."""
    observer = Observer(
        Model("churn", "3", baseline=baseline, system="sklearn", task="classification"),
        operation="predict_proba",
        recording=Recording(mode),
    )
    X = np.array([[0.0, -50.0, 1.0]])
    observer.call(lambda X: np.array([[0.25, 0.75]]), (X,), {}, X)
    (span,) = spans.get_finished_spans()
    assert span.name == "predict_proba churn"
    assert span.kind == trace.SpanKind.INTERNAL
    assert dict(span.attributes) == {
        "ml.model.name": "churn",
        "ml.model.version": "3",
        "ml.operation.name": "predict_proba",
        "ml.system.name": "sklearn",
        "ml.task.type": "classification",
        "ml.baseline.id": baseline.id,
        "ml.batch.size": 1,
        "ml.prediction.score.type": "probability",
        "ml.prediction.score.value": 0.75,
        "ml.prediction.label": "1",
        "ml.prediction.uncertainty.value": 0.5,
        "ml.prediction.uncertainty.type": "margin",
    }
    assert span.status.status_code == StatusCode.UNSET


@pytest.mark.parametrize("mode", ["all", "sampled"])
def test_span_of_a_batch(mode, reader, spans, baseline):
    """A batch's span has the range and mean of its scores and no single label."""
    observer = Observer(Model("churn", "3", baseline=baseline), recording=Recording(mode))
    X = np.zeros((3, 3))
    observer.call(lambda X: np.array([0.1, 0.2, 0.6]), (X,), {}, X)
    (span,) = spans.get_finished_spans()
    assert span.attributes["ml.batch.size"] == 3
    assert span.attributes["ml.prediction.score.min"] == 0.1
    assert span.attributes["ml.prediction.score.max"] == 0.6
    assert span.attributes["ml.prediction.score.mean"] == pytest.approx(0.3)
    assert "ml.prediction.score.value" not in span.attributes


@pytest.mark.parametrize("mode", ["all", "sampled"])
def test_span_of_a_failure(mode, reader, spans, training):
    """A failed call's span has an error status, error.type and the exception as an event."""
    observer = Observer(Model("churn", "3"), recording=Recording(mode))
    with pytest.raises(ZeroDivisionError):
        observer.call(lambda X: 1 / 0, (training,), {}, training)
    (span,) = spans.get_finished_spans()
    assert span.status.status_code == StatusCode.ERROR
    assert span.attributes["error.type"] == "ZeroDivisionError"
    assert [event.name for event in span.events] == ["exception"]


def test_span_around_the_call_is_current(reader, spans, training):
    """With spans="all" what the function starts becomes a child."""
    tracer = trace.get_tracer("user", tracer_provider=pipeline.tracer_provider())

    def predict(X):
        with tracer.start_as_current_span("inner"):
            return probability(X)

    Observer(Model("churn", "3"), recording=Recording("all")).call(predict, (training,), {}, training)
    inner, outer = spans.get_finished_spans()
    assert inner.parent.span_id == outer.context.span_id
    assert not trace.get_current_span().get_span_context().is_valid


def test_span_after_the_call_has_the_surrounding_parent(reader, spans, training):
    """With spans="sampled" the span is made after the call, as a child of what surrounds it."""
    tracer = trace.get_tracer("user", tracer_provider=pipeline.tracer_provider())
    with tracer.start_as_current_span("request"):
        Observer(Model("churn", "3"), recording=Recording("sampled")).call(
            probability, (training,), {}, training
        )
    predict, request = spans.get_finished_spans()
    assert predict.parent.span_id == request.context.span_id
    assert request.start_time <= predict.start_time <= predict.end_time <= request.end_time


def test_input_is_taken_before_the_model_changes_it(collect, baseline):
    """A function that scales its input in place does not change what is counted."""

    def predict(X):
        X += 1000.0
        return X[:, 0]

    X = np.zeros((4, 3))
    Observer(Model("churn", "3", baseline=baseline), recording=Recording("off")).call(predict, (X,), {}, X)
    (point,) = select(collect()["ml.feature.value"], ml__feature__name="a")
    expected = np.zeros(len(baseline.features["a"].bounds) + 1, dtype=int)
    expected[np.searchsorted(baseline.features["a"].bounds, 0.0)] = 4
    assert list(point.bucket_counts) == expected.tolist()


def test_nothing_is_recorded_while_suppressed(collect, spans, training):
    """Inside suppress() a call passes through."""
    observer = Observer(Model("churn", "3"))
    with otel_ml.suppress():
        observer.call(probability, (training,), {}, training)
    assert "ml.inference.rows" not in collect()
    assert spans.get_finished_spans() == ()


async def test_concurrent_coroutines_keep_their_spans_apart(reader, spans, training):
    """Interleaved async calls each have their own span, none the child of another."""

    async def predict(X):
        await asyncio.sleep(0)
        return probability(X)

    observer = Observer(Model("churn", "3"))
    await asyncio.gather(*(observer.call_async(predict, (training,), {}, training) for _ in range(5)))
    assert [span.parent for span in spans.get_finished_spans()] == [None] * 5


def test_own_failure_never_reaches_the_caller(monkeypatch, collect, spans, training, caplog):
    """When capture fails the prediction still arrives, the failure is counted and said once."""
    monkeypatch.setenv("OTEL_PYTHON_ML_RAISE", "0")
    config.settings.cache_clear()

    def broken(*_):
        raise RuntimeError("disk on fire")

    observer = Observer(Model("churn", "3"))
    monkeypatch.setattr(Capture, "take", broken)
    monkeypatch.setattr(Capture, "put", broken)
    for _ in range(3):
        assert observer.call(lambda X: 42, (training,), {}, training) == 42
    points = collect()
    assert {p.attributes["reason"]: p.value for p in points["otel_ml.errors"]} == {"take": 3, "put": 3}
    assert sum("disk on fire" in record.getMessage() for record in caplog.records) == 2


def test_threads_lose_no_row(collect, baseline):
    """Eight threads that predict at once: every row is counted."""
    observer = Observer(Model("churn", "3", baseline=baseline), recording=Recording("off"))
    X = np.zeros((1, 3))

    def work():
        for _ in range(2_000):
            observer.call(probability, (X,), {}, X)

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    points = collect()
    assert [p.value for p in points["ml.inference.rows"]] == [16_000]
    assert [p.count for p in select(points["ml.feature.value"], ml__feature__name="a")] == [16_000]


@pytest.mark.parametrize("mode", ["all", "sampled", "off"])
def test_score_is_asked_once(mode, reader, spans, baseline, training):
    """The user's `score` runs once a call, whoever needs its answer."""
    asked = []

    def score(output):
        asked.append(output)
        return output[:, 1]

    observer = Observer(Model("churn", "3", baseline=baseline), recording=Recording(mode), score=score)
    output = np.array([[0.25, 0.75]])
    observer.call(lambda X: output, (training[:1],), {}, training[:1])
    assert [id(output)] == [id(given) for given in asked]


@pytest.mark.parametrize("mode", ["all", "sampled", "off"])
def test_score_that_fails_costs_only_the_score(mode, monkeypatch, collect, spans, baseline, training):
    """A `score` that raises is counted once as an error; rows, features and the result are as ever."""
    monkeypatch.setenv("OTEL_PYTHON_ML_RAISE", "0")
    config.settings.cache_clear()
    observer = Observer(
        Model("churn", "3", baseline=baseline), recording=Recording(mode), score=lambda output: output.gone
    )
    assert observer.call(len, (training[:1],), {}, training[:1]) == 1
    points = collect()
    assert [p.value for p in points["ml.inference.rows"]] == [1]
    assert [p.value for p in select(points["otel_ml.errors"], reason="score")] == [1]


def test_unknown_span_mode_is_refused():
    """A span mode that does not exist is named with the ones that do."""
    with pytest.raises(
        otel_ml.ConfigurationError, match="spans='always' is not known; use one of all, sampled, off"
    ):
        Observer(Model("churn", "3"), recording=Recording("always"))


def test_observed_function_survives_cloudpickle(collect, baseline, training):
    """A decorated function that is sent to another process by value still answers and counts there."""
    cloudpickle = pytest.importorskip("cloudpickle", reason="pip install cloudpickle")
    predict = otel_ml.observe(model="churn", version="3", baseline=baseline, spans="off")(lambda X: X[:, 0])
    copy = cloudpickle.loads(cloudpickle.dumps(predict))
    assert copy(training).tolist() == training[:, 0].tolist()
    assert [p.value for p in collect()["ml.inference.rows"]] == [2000]


class Unspeakable(Exception):
    """An error of a user whose text cannot be had."""

    def __str__(self) -> str:
        raise RuntimeError("no words")


class Sizeless:
    """An input whose length cannot be had."""

    def __len__(self):
        raise RuntimeError("no length")


@pytest.mark.parametrize("mode", ["all", "sampled"])
def test_a_span_ends_whatever_the_users_objects_raise(mode, monkeypatch, collect, spans):
    """Objects that raise when they are looked at cost attributes, never an open span that others get under."""
    monkeypatch.setenv("OTEL_PYTHON_ML_RAISE", "0")
    config.settings.cache_clear()

    def fails(X):
        raise Unspeakable

    observer = Observer(Model("churn", "3"), recording=Recording(mode))
    with pytest.raises(Unspeakable):
        observer.call(fails, (None,), {}, None)
    observer.call(lambda X: 0.5, (None,), {}, Sizeless())
    assert not trace.get_current_span().is_recording()
    assert [span.attributes.get("error.type", "").rpartition(".")[2] for span in spans.get_finished_spans()] == [
        "Unspeakable", "",
    ]  # fmt: skip
    assert [p.value for p in collect()["ml.inference.rows"]] == [1]


def test_a_coroutine_can_be_closed_in_another_context(reader, spans):
    """A task that is thrown away where it did not begin ends as it would without us."""

    class Pause:
        def __await__(self):
            yield

    async def predict(X):
        await Pause()

    coroutine = Observer(Model("churn", "3"), recording=Recording("off")).call_async(predict, (1,), {}, 1)
    contextvars.copy_context().run(coroutine.send, None)
    coroutine.close()
    assert owner.get() is None
