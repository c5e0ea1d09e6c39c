"""What users' own tests see: every kind of record as plain values, and nothing left behind."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
import textwrap
import threading
from typing import Any

import numpy as np
import pandas as pd
import pytest
from instrumented import X as ROWS
from instrumented import fitted
from opentelemetry import trace

import otel_ml
from otel_ml import Baseline, _guard, pipeline, producer, sampling
from otel_ml.testing import Violation, recorded

SEEN_BY_USERS = pd.DataFrame({"age": [25.0, np.nan, 300.0], "plan": ["basic", "gold", "basic"]})


@pytest.fixture(scope="module")
def baseline() -> Baseline:
    """Ages from 18 to 80, and two plans."""
    rows = 1000
    X = pd.DataFrame({"age": np.linspace(18, 80, rows), "plan": ["basic", "family"] * (rows // 2)})
    return Baseline.fit(X, model="churn", version="3")


@otel_ml.observe(model="churn", version="3", features=["age", "income"], sampler=sampling.Random(1.0),
                 capture_features=["age"])  # fmt: skip
def predict(X: Any) -> Any:
    """Decorated at import, as an application does it."""
    return [0.25] * len(X)


def test_calls_are_plain_values():
    """A call of a function that was decorated at import: who answered, how many rows, what, how long."""
    with recorded() as seen:
        predict([[30.0, 1.0]])
        predict([[30.0, 1.0], [31.0, 2.0]])
    one, two = seen.predictions
    assert (one.model, one.version, one.operation, one.rows, one.error) == ("churn", "3", "predict", 1, None)
    assert (one.score, one.score_type, one.label, one.labels) == (0.25, "value", None, ())
    assert (two.rows, two.scores) == (2, (0.25, 0.25))
    assert 0 < one.duration < 60
    with pytest.raises(ValueError, match=r"the call had 2 rows; look at \.scores"):
        _ = two.score


def test_uncertainty_is_what_is_counted():
    """A number a row where probabilities of several classes came out, as the histogram has it; else none."""

    @otel_ml.observe(model="plan", version="1")
    def classify(X: Any) -> Any:
        return np.array([[0.5, 0.25, 0.25], [1.0, 0.0, 0.0]])[: len(X)]

    with recorded() as seen:
        classify([[1.0], [2.0]])
        predict([[30.0, 1.0]])
    assert [call.uncertainties for call in seen.predictions] == [(0.75, 0.0), ()]


def test_a_call_that_raises_is_a_prediction_with_its_error():
    """The exception reaches the test; the record has its type and no rows."""

    @otel_ml.observe(model="churn", version="3")
    def fails(X: Any) -> Any:
        raise KeyError("age")

    with recorded() as seen, pytest.raises(KeyError):
        fails([[1.0]])
    [made] = seen.predictions
    assert (made.rows, made.scores, made.error) == (0, (), "KeyError")
    assert [span.error for span in seen.spans] == ["KeyError"]
    assert seen.features == {}


def test_features_are_counted_by_bucket_category_and_state(baseline):
    """Buckets are the baseline's, categories have names, and states add up to the rows."""
    predict = otel_ml.observe(model="churn", version="3", baseline=baseline)(lambda X: [0.5] * len(X))
    with recorded() as seen:
        predict(SEEN_BY_USERS)
    age, plan = seen.features["age"], seen.features["plan"]
    assert (age.n, age.states) == (3, {"ok": 1, "missing": 1, "out_of_range": 1})
    assert [sum(low < value <= high for low, high in age.buckets) for value in (25.0, 300.0)] == [1, 1]
    assert (sum(age.buckets.values()), age.categories) == (2, {})
    assert (plan.n, plan.states, plan.buckets) == (3, {"ok": 2, "unseen": 1}, {})
    assert plan.categories == {"basic": 2, "__unseen__": 1}


def test_without_a_baseline_buckets_follow_the_values():
    """Each value is in the one bucket that holds it, negative ones and zero too."""
    with recorded() as seen:
        predict([[-3.0, 0.0], [0.001, 1.0], [5e6, 1.0]])
    values = {"age": [-3.0, 0.001, 5e6], "income": [0.0, 1.0, 1.0]}
    for name, given in values.items():
        buckets = seen.features[name].buckets
        for value in given:
            [(low, high)] = [
                (a, b) for a, b in buckets if a < value <= b or a <= value < b or a == b == value
            ]
            assert value == 0.0 or high - low < abs(value) * 0.1
    assert sum(seen.features["age"].buckets.values()) == 3
    assert list(seen.features["income"].buckets.values()) == [1, 2]


def test_violations_and_what_was_dropped(baseline):
    """What does not match the baseline is listed, by model, feature and reason."""
    predict = otel_ml.observe(model="churn", version="3", baseline=baseline)(lambda X: [0.5] * len(X))
    with recorded() as seen:
        predict(pd.DataFrame({"age": ["old"], "shoe": [1]}))
        predict(np.zeros((4, 7)))
    assert sorted(seen.violations, key=lambda one: one.reason) == [
        Violation("churn", "3", "extra", "shoe", 1),
        Violation("churn", "3", "missing", "plan", 1),
        Violation("churn", "3", "type", "age", 1),
        Violation("churn", "3", "width", None, 4),
    ]
    assert (seen.dropped, seen.errors) == ({"input_mismatch": 4}, {})


def test_spans_events_and_feedback_belong_together():
    """The event has the captured feature and the id under which the truth is told; its span is there."""
    with recorded() as seen:
        predict([[30.0, 1.0]])
        [event] = seen.events
        otel_ml.feedback(prediction_id=event.id, label="leave", model="churn", version="3", source="human")
        otel_ml.feedback(label=2.5, model="other")
    assert (event.model, event.version, event.features) == ("churn", "3", {"age": 30.0})
    [span] = seen.spans
    assert (span.name, span.model, span.parent_id) == ("predict churn", "churn", None)
    assert span.attributes["ml.batch.size"] == 1
    assert span.span_id == event.id.rpartition("-")[2]
    told, other = seen.feedback
    assert (told.id, told.label, told.value, told.source) == (event.id, "leave", None, "human")
    assert (other.id, other.model, other.label, other.value) == (None, "other", None, 2.5)


def test_models_are_told_apart():
    """`of` shows one model, or one version of it."""
    one, two = (
        otel_ml.observe(model="m", version=version, features=["a"])(lambda X: X) for version in ("1", "2")
    )
    with recorded() as seen:
        one([[1.0]])
        two([[1.0], [2.0]])
        predict([[1.0, 2.0]])
    assert [one.rows for one in seen.predictions] == [1, 2, 1]
    assert [one.rows for one in seen.of("m").predictions] == [1, 2]
    assert [one.rows for one in seen.of("m", "2").predictions] == [2]
    assert (seen.features["a"].n, seen.of("m", "2").features["a"].n) == (3, 2)
    assert [event.model for event in seen.of("m").events] == []
    assert len(seen.of("churn").events) == len(seen.of("churn").spans) == 1


def test_instrumented_estimators_are_seen():
    """After `instrument()`, before or inside the block, an estimator's calls are there, as registered."""
    model = fitted()
    otel_ml.register(model, name="churn", version="7")
    otel_ml.instrument()
    try:
        with recorded() as seen:
            labels, p = model.predict(ROWS[:2]), model.predict_proba(ROWS[:1])
    finally:
        otel_ml.uninstrument()
    first, second = seen.predictions
    assert (first.model, first.version, first.operation) == ("churn", "7", "predict")
    assert first.labels == tuple(map(str, labels))
    assert (second.operation, second.score) == ("predict_proba", p[0, 1])


def test_other_threads_are_seen():
    """A server under test answers in threads of its own."""
    with recorded() as seen:
        workers = [threading.Thread(target=predict, args=([[1.0, 2.0]],)) for _ in range(4)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
    assert len(seen.predictions) == 4


def test_what_was_there_before_is_there_again(collect, spans, caplog):
    """Providers, counts and what was said once are as before; the block's are nowhere in them."""
    predict([[1.0, 2.0]])
    _guard.drop("before", 5)
    _guard.say_once("key", "once")
    before = pipeline.producer()
    with recorded() as seen:
        predict([[1.0, 2.0]] * 10)
        _guard.say_once("key", "once")
        otel_ml.instrument(tracer_provider=trace.NoOpTracerProvider())
        otel_ml.uninstrument()
        predict([[1.0, 2.0]])
    predict([[1.0, 2.0]])
    _guard.say_once("key", "once")
    assert pipeline.producer() is before
    assert [one.rows for one in seen.predictions] == [10, 1]
    points = collect()
    assert [point.value for point in points["ml.inference.rows"]] == [2]
    assert {p.attributes["reason"]: p.value for p in points["otel_ml.dropped"]} == {"before": 5}
    assert len(spans.get_finished_spans()) == 2
    assert [record.getMessage() for record in caplog.records] == ["once", "once"]


def test_blocks_nest():
    """The inner block takes what is inside it, the outer one the rest."""
    with recorded() as outer:
        predict([[1.0, 2.0]])
        with recorded() as inner:
            predict([[1.0, 2.0]] * 2)
        predict([[1.0, 2.0]] * 3)
    assert [one.rows for one in outer.predictions] == [1, 3]
    assert [one.rows for one in inner.predictions] == [2]


def test_an_exception_passes_and_restores():
    """A test that fails inside leaves nothing behind, and what was recorded can still be read."""
    before = pipeline.producer()

    def test() -> None:
        with recorded() as seen:
            kept.append(seen)
            predict([[1.0, 2.0]])
            raise AssertionError("mine")

    kept: list[Any] = []
    with pytest.raises(AssertionError, match="mine"):
        test()
    [seen] = kept
    assert pipeline.producer() is before
    assert seen.features["age"].n == 1


PROGRAM = """
    import otel_ml
    from opentelemetry import metrics, trace
    from otel_ml import testing

    with testing.recorded() as seen:
        otel_ml.configure(service_name="app")  # as the module under test does it
        predict = otel_ml.observe(model="m", version="1")(lambda X: X)
        predict([[1.0]])
        assert otel_ml.force_flush()
    print(len(seen.predictions), len(seen.spans), seen.features["x0"].n)
    print(type(trace.get_tracer_provider()).__name__, type(metrics.get_meter_provider()).__name__)
"""


@pytest.mark.parametrize("disabled", ["", "true"])
def test_nothing_leaves_and_no_provider_is_set_up(disabled: str):
    """With an endpoint in the environment, with `configure()` in the code, and where telemetry is switched off."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", textwrap.dedent(PROGRAM)],
        env={"PATH": "", "OTEL_EXPORTER_OTLP_ENDPOINT": "http://localhost:1", "OTEL_SDK_DISABLED": disabled,
             "OTEL_PYTHON_ML_RAISE": "1"},
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.stderr == ""
    assert done.stdout.split() == ["1", "1", "1", "ProxyTracerProvider", "_ProxyMeterProvider"]


def test_blocks_of_two_tasks_may_overlap():
    """Each takes away what it has put there, whichever ends first: afterwards the application has its own again."""
    before, first, second = pipeline.producer(), recorded(), recorded()
    one = first.__enter__()
    predict([[1.0, 2.0]])
    two = second.__enter__()
    predict([[1.0, 2.0]] * 2)
    first.__exit__(None, None, None)
    predict([[1.0, 2.0]] * 3)
    second.__exit__(None, None, None)
    assert pipeline.producer() is before
    assert not pipeline._held
    assert ([made.rows for made in one.predictions], [made.rows for made in two.predictions]) == ([1], [2, 3])


def test_the_largest_numbers_have_a_bucket():
    """Its end is beyond what a float can say."""
    largest = np.finfo(np.float64).max
    with recorded() as seen:
        predict([[largest, -largest]])
    [(low, high)], [(lowest, upper)] = seen.features["age"].buckets, seen.features["income"].buckets
    assert low < largest <= high
    assert lowest <= -largest < upper


@pytest.mark.skipif(not hasattr(os, "register_at_fork"), reason="no fork here")
def test_blocks_leave_nothing_of_ours_behind(monkeypatch: pytest.MonkeyPatch):
    """What is registered for a fork stays for ever, so a block registers nothing; OpenTelemetry's providers do."""
    registered: list[str] = []

    def register(**hooks: Any) -> None:
        registered.extend(hook.__module__ for hook in hooks.values())

    monkeypatch.setattr(os, "register_at_fork", register)
    with recorded():
        predict([[1.0, 2.0]])
    assert [module for module in registered if module.startswith("otel_ml")] == []
    gc.collect()
    before = len(producer._producers)
    for _ in range(20):
        with recorded():
            predict([[1.0, 2.0]])
    predict([[1.0, 2.0]])  # it still has the last block's queue until now
    gc.collect()
    assert len(producer._producers) <= before
