"""Failures of our own at every step of a call, a drain and a collection: what the caller gets is never touched."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from opentelemetry import trace
from opentelemetry.sdk.metrics import Counter, Histogram, MeterProvider
from opentelemetry.sdk.metrics.export import AggregationTemporality, InMemoryMetricReader
from opentelemetry.sdk.trace import Span
from sklearn.base import BaseEstimator, ClassifierMixin
from support import Points, by_name, select

import otel_ml
from otel_ml import _guard, capture, config, observer, pipeline, readers, registry, wire, wrap
from otel_ml.capture import Capture
from otel_ml.events import Events
from otel_ml.instrument import calls, estimators
from otel_ml.instrument.calls import EstimatorCall
from otel_ml.model import Model
from otel_ml.observer import Observer, owner
from otel_ml.producer import Producer
from otel_ml.recording import Recording
from otel_ml.sketches import Buckets, Count, Ledger
from otel_ml.tally import Tally
from otel_ml.telemetry import Spans

X = np.random.default_rng(0).normal(size=(5, 3))
OFF = Recording(spans="off")
COLUMNS = {"a": [1.0, 2.0], "b": ["x", None]}


class Refusal(Exception):
    """An error of a user's model."""


class Constant(ClassifierMixin, BaseEstimator):
    """An estimator that gives the very object it was made with, or raises it."""

    def __init__(self, answer: Any = None) -> None:
        self.answer = answer
        self.classes_ = np.array([0, 1])

    def predict(self, X: Any) -> Any:
        return _give(self.answer)


class Scoring(Constant):
    """An estimator whose predict asks its own predict_proba, as many do."""

    def predict_proba(self, X: Any) -> Any:
        return np.full((len(X), 2), 0.5)

    def predict(self, X: Any) -> Any:
        self.predict_proba(X)
        return _give(self.answer)


def _give(answer: Any) -> Any:
    if isinstance(answer, BaseException):
        raise answer
    return answer


# --- one call, four ways -------------------------------------------------------------------------------------


def _function(spans: Any) -> Callable[[Any, Any], Any]:
    def call(answer: Any, rows: Any) -> Any:
        return otel_ml.observe(model="churn", version="3", spans=spans)(lambda X: _give(answer))(rows)

    return call


def _kept(answer: Any, rows: Any) -> Any:
    """A call of which every row is kept, as an event with the values of a feature."""
    keep = otel_ml.observe(
        model="churn", version="3", sampler=otel_ml.sampling.Random(1.0), capture_features=["a"]
    )
    return keep(lambda X: _give(answer))(rows)


def _coroutine(answer: Any, rows: Any) -> Any:
    @otel_ml.observe(model="churn", version="3")
    async def predict(X: Any) -> Any:
        await asyncio.sleep(0)
        return _give(answer)

    return asyncio.run(predict(rows))


def _several_parameters(answer: Any, rows: Any) -> Any:
    @otel_ml.observe(model="churn", version="3", input="X")
    def predict(other: Any, *X: Any) -> Any:
        return _give(answer)

    return predict(1, rows)


def _estimator(answer: Any, rows: Any) -> Any:
    return Constant(answer).predict(rows)


def _twice(answer: Any, rows: Any) -> Any:
    """The second call gives probabilities of rows that the first has just predicted."""
    model = Scoring(answer)
    given = model.predict(rows)
    model.predict_proba(rows)
    return given


CALLS: dict[str, Callable[[Any, Any], Any]] = {
    "function": _function("all"),
    "function, span after it": _function("sampled"),
    "function, no span": _function("off"),
    "function, rows kept": _kept,
    "coroutine": _coroutine,
    "several parameters": _several_parameters,
    "estimator": _estimator,
    "estimator, asked twice": _twice,
}

# --- the steps -----------------------------------------------------------------------------------------------

STEPS: dict[str, tuple[Any, str]] = {
    # before and after a call
    "find the rows": (wrap, "_bind"),
    "connect": (Observer, "_connect"),
    "the producer": (pipeline, "producer"),
    "a queue": (Producer, "capture"),
    "a tally": (Tally, "__init__"),
    "a span maker": (Spans, "__init__"),
    "take": (Capture, "take"),
    "snapshot": (capture, "snapshot"),
    "put": (Capture, "put"),
    "settle": (capture, "settled"),
    "put a failure": (Capture, "put_failure"),
    "an example": (Capture, "exemplify"),
    "error type": (observer, "error_type"),
    "span start": (Spans, "start"),
    "span finish": (Spans, "finish"),
    "span fail": (Spans, "fail"),
    "span end": (Span, "end"),
    "span after": (Spans, "emit"),
    "span of a failure": (Spans, "fail"),
    "prediction": (observer, "Rows"),
    "outcome for the span": (observer, "read_outcome"),
    "row count": (observer, "rows_in"),
    "keep": (observer, "keep"),
    "decide": (Capture, "decide"),
    "events": (Events, "__init__"),
    "event": (Events, "emit"),
    # whose call it is
    "registry": (registry, "find"),
    "fingerprint": (estimators, "fingerprint"),
    "identity": (estimators, "_make"),
    "an observer": (estimators, "_add_observer"),
    "baseline": (estimators, "_matching_baseline"),
    "nested score": (EstimatorCall, "depth"),
    "an answer with its score": (calls, "Answer"),
    "asked before": (calls.repeats, "last"),
    "remember": (calls.repeats, "remember"),
    "what is new": (EstimatorCall, "_news"),
    # a drain
    "drain": (Capture, "drain"),
    "split": (capture, "_split"),
    "pieces": (capture, "_pieces"),
    "drain of inputs": (Capture, "_drain_inputs"),
    "drain of outputs": (Capture, "_drain_outputs"),
    "table": (capture, "table"),
    "stack": (capture, "_stacked"),
    "gather": (capture, "_gathered"),
    "outcome": (capture, "read_outcome"),
    "matrices": (Tally, "add_matrices"),
    "tables": (Tally, "add_table"),
    "outcomes": (Tally, "add_outcome"),
    "calls": (Tally, "add_calls"),
    "failures": (Tally, "add_failures"),
    "examples": (Tally, "add_examples"),
    "features": (Tally, "_by_name"),
    "series": (Ledger, "get"),
    "count": (Count, "add"),
    "buckets": (Buckets, "add"),
    # a collection
    "drain of all": (Producer, "drain"),
    "attach": (Producer, "_attach"),
    "readers": (readers, "readers_of"),
    "produce": (Producer, "_produce"),
    "our own counters": (Producer, "_count_ourselves"),
    "temporality": (readers, "wants_delta"),
    "resource": (Producer, "_resource"),
    "points": (Producer, "_points"),
    "metrics": (wire, "metrics"),
    "baselines": (wire, "baselines"),
    "metric": (wire, "_metric"),
    "resource metrics": (wire, "resource_metrics"),
    "exemplar filter": (readers, "exemplar_filter"),
    "joined": (wire, "joined"),
}  # fmt: skip


@pytest.fixture(autouse=True)
def _as_in_production(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_PYTHON_ML_RAISE", "0")
    config.settings.cache_clear()


@pytest.fixture
def instrumented_quietly(spans: Any, logs: Any) -> Iterator[None]:
    """As `instrumented`, with failures of ours kept away, and with somebody who takes events."""
    otel_ml.instrument()
    yield
    otel_ml.uninstrument()


@pytest.fixture
def delta_reader() -> InMemoryMetricReader:
    """A second temporality: what a delta left out is never told again."""
    delta = AggregationTemporality.DELTA
    made = InMemoryMetricReader(preferred_temporality={Counter: delta, Histogram: delta})
    pipeline.use(meter_provider=MeterProvider(metric_readers=[made]))
    return made


def _check_answers(call: Callable[[Any, Any], Any]) -> None:
    scores, listed = np.array([0.25, 0.5, 0.75, 0.5, 0.5]), [0.25, 0.75]
    assert call(scores, X) is scores
    assert call(listed, COLUMNS) is listed


def _check_refusal(call: Callable[[Any, Any], Any]) -> None:
    error = Refusal("cannot score this")
    with pytest.raises(Refusal) as caught:
        call(error, X)
    assert caught.value is error
    assert caught.traceback[-1].frame.code.raw is _give.__code__
    assert (error.__context__, error.__cause__) == (None, None)


def _total(points: Points, name: str, **attributes: str) -> int:
    return sum(p.value for p in select(points.get(name, []), **attributes))


def _accounted(points: Points) -> int:
    """Rows that were counted, and rows of calls that were not and are counted as such."""
    reasons = ("failed_put", "failed_drain", "failed_describe")
    lost = sum(_total(points, "otel_ml.dropped", reason=reason) for reason in reasons)
    return _total(points, "ml.inference.rows") + lost


UNKNOWN = {
    **dict.fromkeys(["registry", "fingerprint", "identity", "an observer", "baseline"], 2 * len(X)),
    "find the rows": 2 - len(X) - 2,
}
"""Rows too many when it is not yet known that the model refuses them; too few when nobody can find them."""


@pytest.mark.parametrize("error", [RuntimeError("a fault"), MemoryError()], ids=lambda e: type(e).__name__)
@pytest.mark.parametrize("step", STEPS)
def test_a_failing_step_changes_nothing_for_the_caller(
    step: str,
    error: Exception,
    monkeypatch: pytest.MonkeyPatch,
    reader: InMemoryMetricReader,
    instrumented_quietly: None,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Results and errors are the very objects of the model; the fault is counted, said once, and then forgotten."""
    holder, name = STEPS[step]
    reached = []

    def fault(*args: Any, **kwargs: Any) -> Any:
        reached.append(step)
        raise error

    with monkeypatch.context() as faulty:
        faulty.setattr(holder, name, fault)
        for call in CALLS.values():
            _check_answers(call)
            _check_refusal(call)
            assert owner.get() is None
            assert not trace.get_current_span().is_recording()
        reader.get_metrics_data()
    assert reached
    for call in CALLS.values():
        _check_answers(call)
    points = by_name(reader.get_metrics_data())
    rows = (len(CALLS) + 1) * (len(X) + 2)  # one of the calls is two
    assert _total(points, "otel_ml.errors") + _total(points, "otel_ml.dropped") >= 1
    assert _accounted(points) == 2 * rows + UNKNOWN.get(step, 0)
    assert _total(points, "ml.inference.rows") >= rows
    said = [r.getMessage() for r in caplog.records if r.levelno >= logging.WARNING]
    assert len(said) == len(set(said)) >= 1


PRODUCING = [name for name in STEPS if STEPS[name][0] is wire or STEPS[name][1] in ("_produce", "_resource")]


@pytest.mark.parametrize("step", PRODUCING)
def test_what_a_failed_collection_left_out_is_in_the_next_delta(
    step: str, monkeypatch: pytest.MonkeyPatch, delta_reader: InMemoryMetricReader, baseline: otel_ml.Baseline
) -> None:
    """Deltas of failed collections are not lost: the first that succeeds has them all, from where the last ended."""
    model = Model("churn", "3", baseline=baseline)
    call = Observer(model, recording=Recording("off")).call

    def count(rows: int) -> None:
        call(lambda X: np.zeros(len(X)), (X[:rows],), {}, X[:rows])

    def fault(*args: Any, **kwargs: Any) -> Any:
        raise RuntimeError("a fault")

    count(1)
    by_name(delta_reader.get_metrics_data())
    count(2)
    ((before,),) = [by_name(delta_reader.get_metrics_data())["ml.inference.rows"]]
    with monkeypatch.context() as faulty:
        faulty.setattr(*STEPS[step], fault)
        for _ in range(2):
            count(1)
            assert "ml.inference.rows" not in by_name(delta_reader.get_metrics_data())
    count(1)
    ((after,),) = [by_name(delta_reader.get_metrics_data())["ml.inference.rows"]]
    assert (before.value, after.value) == (2, 3)
    assert after.start_time_unix_nano == before.time_unix_nano


INTERRUPTED = [
    "take",
    "put",
    "put a failure",
    "span start",
    "span finish",
    "span after",
    "outcome for the span",
]


@pytest.mark.parametrize("step", INTERRUPTED)
@pytest.mark.parametrize("interrupt", [KeyboardInterrupt, SystemExit])
def test_an_interrupt_inside_our_code_is_the_callers(
    step: str,
    interrupt: type[BaseException],
    monkeypatch: pytest.MonkeyPatch,
    reader: InMemoryMetricReader,
    instrumented_quietly: None,
) -> None:
    """Ctrl-C and a worker's exit are not held up by us, and leave nothing behind that silences later calls."""

    def interrupted(*args: Any, **kwargs: Any) -> Any:
        raise interrupt

    reached = 0
    for call in CALLS.values():
        for answer in (0.5, Refusal()):
            with monkeypatch.context() as faulty:
                faulty.setattr(*STEPS[step], interrupted)
                try:
                    call(answer, X)
                except interrupt:
                    reached += 1
                except Refusal:
                    pass
            assert owner.get() is None
            assert not trace.get_current_span().is_recording()
    assert reached
    before = _total(by_name(reader.get_metrics_data()), "ml.inference.rows")
    for call in CALLS.values():
        call(0.5, X)
    after = _total(by_name(reader.get_metrics_data()), "ml.inference.rows")
    assert after - before == (len(CALLS) + 1) * len(X)


def test_an_interrupted_count_is_accounted_for(
    monkeypatch: pytest.MonkeyPatch, reader: InMemoryMetricReader
) -> None:
    """Rows that were taken off the queue when an interrupt came are dropped and counted as such."""
    call = Observer(Model("churn", "3"), recording=Recording("off")).call
    call(lambda X: 0.5, (X,), {}, X)

    def interrupted(*args: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as faulty:
        faulty.setattr(Tally, "add_calls", interrupted)
        with pytest.raises(KeyboardInterrupt):
            pipeline.producer().drain()
    call(lambda X: 0.5, (X,), {}, X)
    points = by_name(reader.get_metrics_data())
    assert _total(points, "ml.inference.rows") == len(X)
    assert _total(points, "otel_ml.dropped", reason="failed_drain") == len(X)


class Wordless(Exception):
    """An error without a text."""

    def __str__(self) -> str:
        raise RuntimeError("no words")


@pytest.mark.parametrize("where", ["handler", "filter"])
def test_logging_that_fails_reaches_nobody(
    where: str, monkeypatch: pytest.MonkeyPatch, reader: InMemoryMetricReader
) -> None:
    """An application whose log handler or filter raises gets its predictions all the same."""

    def fault(*args: Any) -> Any:
        raise Wordless

    handler = logging.Handler()
    handler.addFilter(fault) if where == "filter" else monkeypatch.setattr(handler, "emit", fault)
    monkeypatch.setattr(Capture, "take", fault)
    _guard.logger.addHandler(handler)
    try:
        _check_answers(CALLS["function"])
    finally:
        _guard.logger.removeHandler(handler)
    assert _total(by_name(reader.get_metrics_data()), "otel_ml.errors", reason="take") == 2


def test_ever_new_messages_are_said_up_to_a_limit(caplog: pytest.LogCaptureFixture) -> None:
    """A program that gives us ever new reasons to speak fills neither its memory nor its log."""
    for number in range(_guard.MAX_SAID + 10):
        _guard.say_once(f"key {number}", "message %d", number)
    assert len(caplog.records) == len(_guard._said) == _guard.MAX_SAID


def test_without_threads_the_caller_counts(monkeypatch: pytest.MonkeyPatch, collect_factory: Any) -> None:
    """Where no thread can be started the queue stays within its limit and no row is lost."""
    monkeypatch.setenv("OTEL_PYTHON_ML_QUEUE_BYTES", "65536")
    config.settings.cache_clear()
    collect = collect_factory()

    def no_thread(self: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    observer = Observer(Model("churn", "3"), recording=Recording("off"))
    waiting = []
    with monkeypatch.context() as faulty:
        faulty.setattr(threading.Thread, "start", no_thread)
        for _ in range(1000):
            observer.call(lambda X: 0.5, (X,), {}, X)
            waiting.append(pipeline.producer()._pending.bytes)
    points = collect()
    assert max(waiting) < 65536
    assert _total(points, "ml.inference.rows") == 1000 * len(X)
    assert _total(points, "otel_ml.errors", reason="flusher") >= 1
    assert _total(points, "otel_ml.dropped") == 0


@pytest.mark.parametrize("spans", ["all", "off"])
async def test_a_task_that_outlives_its_call_is_observed_by_itself(
    spans: Any, reader: InMemoryMetricReader, instrumented_quietly: None
) -> None:
    """What a task predicts belongs to the call it was started in as long as that runs, and then to nobody."""
    answered = asyncio.Event()
    model = Constant(0.5)

    async def background() -> None:
        model.predict(X)
        await answered.wait()
        model.predict(X[:1])

    @otel_ml.observe(model="churn", version="3", spans=spans)
    async def predict(X: Any) -> Any:
        task = asyncio.create_task(background())
        await asyncio.sleep(0)
        return task

    task = await predict(X[:2])
    answered.set()
    await task
    rows = by_name(reader.get_metrics_data())["ml.inference.rows"]
    assert {p.attributes["ml.model.name"]: p.value for p in rows} == {"churn": 2, "Constant": 1}


def test_what_a_function_schedules_is_observed_by_itself(
    reader: InMemoryMetricReader, instrumented_quietly: None
) -> None:
    """A callback that a plain function schedules runs after it: it is no part of its call."""
    model = Constant(0.5)

    @otel_ml.observe(model="churn", version="3", spans="off")
    def predict(X: Any) -> Any:
        asyncio.get_running_loop().call_soon(model.predict, X[:1])
        return 0.5

    async def serve() -> None:
        predict(X)
        await asyncio.sleep(0)

    asyncio.run(serve())
    rows = by_name(reader.get_metrics_data())["ml.inference.rows"]
    assert {p.attributes["ml.model.name"]: p.value for p in rows} == {"churn": 5, "Constant": 1}
