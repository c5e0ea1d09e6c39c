"""Spans and events belong where the call belongs, however it is made: coroutines, threads, generators, tasks."""

from __future__ import annotations

import asyncio
import contextvars
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from instrumented import X as ROWS
from instrumented import fitted
from opentelemetry import trace
from opentelemetry.trace import StatusCode
from traces import Predict, Seen, observed, of_mode, span

import otel_ml
from otel_ml import ids
from otel_ml.observer import owner

MODES = ["all", "sampled", "off"]
X = np.array([[0.25, 0.5]])


@pytest.fixture(autouse=True)
def _nothing_is_left_over() -> Iterator[None]:
    """Whatever a test does, afterwards no call is under way here and no span is current."""
    yield
    assert owner.get() is None
    assert otel_ml.current_prediction_id() is None
    assert trace.get_current_span() is trace.INVALID_SPAN


# --- who calls --------------------------------------------------------------------------------------------


def plain(predict: Predict) -> Any:
    return predict(X)


def in_a_thread(predict: Predict) -> Any:
    answers: list[Any] = []
    thread = threading.Thread(target=lambda: answers.append(predict(X)))
    thread.start()
    thread.join()
    return answers[0]


def in_a_pool(predict: Predict) -> Any:
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(predict, X).result()


def in_a_pool_with_context(predict: Predict) -> Any:
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(contextvars.copy_context().run, predict, X).result()


def in_a_generator(predict: Predict) -> Any:
    def answers() -> Iterator[Any]:
        yield from (predict(row) for row in [X])

    [answer] = answers()
    return answer


def as_a_callback_of_a_future(predict: Predict) -> Any:
    answers: list[Any] = []
    future: Future[Any] = Future()
    future.add_done_callback(lambda done: answers.append(predict(done.result())))
    future.set_result(X)
    return answers[0]


def to_thread(predict: Predict) -> Any:
    return asyncio.run(asyncio.to_thread(predict, X))  # type: ignore[arg-type]


def in_an_executor(predict: Predict) -> Any:
    async def main() -> Any:
        return await asyncio.get_running_loop().run_in_executor(None, predict, X)

    return asyncio.run(main())


def in_a_coroutine(predict: Predict) -> Any:
    async def main() -> Any:
        return predict(X)

    return asyncio.run(main())


def in_a_task(predict: Predict) -> Any:
    async def one() -> Any:
        return predict(X)

    async def main() -> Any:
        return await asyncio.create_task(one())

    return asyncio.run(main())


def in_an_async_generator(predict: Predict) -> Any:
    async def answers() -> Any:
        for row in [X]:
            await asyncio.sleep(0)
            yield predict(row)

    async def main() -> Any:
        [answer] = [one async for one in answers()]
        return answer

    return asyncio.run(main())


def as_a_callback_of_the_loop(predict: Predict) -> Any:
    async def main() -> Any:
        loop = asyncio.get_running_loop()
        answer = loop.create_future()
        loop.call_soon(lambda: answer.set_result(predict(X)))
        return await answer

    return asyncio.run(main())


WITH_CONTEXT = [
    plain, in_a_pool_with_context, in_a_generator, as_a_callback_of_a_future, to_thread, in_a_coroutine, in_a_task,
    in_an_async_generator, as_a_callback_of_the_loop,
]  # fmt: skip
WITHOUT_CONTEXT = [in_a_thread, in_a_pool, in_an_executor]


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("caller", WITH_CONTEXT)
def test_call_with_the_callers_context(caller: Callable[[Predict], Any], mode: str, seen: Seen) -> None:
    """The span is a child of the caller's, what the function starts is a child of a span that was current in it,
    and the event is in the span of its call or, without one, in the caller's."""
    told = []

    @observed(mode)
    def predict(rows: Any) -> Any:
        with span("lookup"):
            told.append(otel_ml.current_prediction_id())
            return rows[:, 0]

    with span("request"):
        assert caller(predict).tolist() == [0.25]
        assert trace.get_current_span() is not trace.INVALID_SPAN
    assert seen.tree == of_mode(
        mode,
        all="""
            request
              predict churn
                lookup""",
        sampled="""
            request
              predict churn
              lookup""",
        off="""
            request
              lookup""",
    )
    assert seen.events == [("churn", "request" if mode == "off" else "predict churn")]
    assert [one.attributes["ml.prediction.id"] for one in seen.records] == told
    named = ids.parse(told[0]).span
    linked = seen.spans["predict churn" if mode == "all" else "lookup"].context
    assert named is not None
    assert (named.trace_id, named.span_id) == (linked.trace_id, linked.span_id)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("caller", WITHOUT_CONTEXT)
def test_call_without_the_callers_context(caller: Callable[[Predict], Any], mode: str, seen: Seen) -> None:
    """A thread that was given no context starts a trace of its own, as every span in it would."""

    @observed(mode)
    def predict(rows: Any) -> Any:
        with span("lookup"):
            return rows[:, 0]

    with span("request"):
        caller(predict)
    assert seen.tree == of_mode(
        mode,
        all="""
            request
            predict churn
              lookup""",
        sampled="""
            request
            predict churn
            lookup""",
        off="""
            request
            lookup""",
    )
    assert seen.events == [("churn", None if mode == "off" else "predict churn")]


# --- coroutines -------------------------------------------------------------------------------------------


class Barrier:
    """asyncio's, which Python 3.10 does not have."""

    def __init__(self, parties: int) -> None:
        self._parties, self._waiting, self._gate = parties, 0, asyncio.Event()

    async def wait(self) -> None:
        self._waiting += 1
        if self._waiting == self._parties:
            self._gate.set()
            self._waiting, self._gate = 0, asyncio.Event()
        else:
            await self._gate.wait()


@pytest.mark.parametrize("mode", MODES)
async def test_interleaved_coroutines(mode: str, seen: Seen) -> None:
    """Calls that are under way at the same time have their own parents, children, events and ids."""
    everybody_is_in, told = Barrier(3), {}

    async def ask(name: str) -> None:
        @observed(mode, model=name)
        async def predict(rows: Any) -> Any:
            told[name] = otel_ml.current_prediction_id()
            await everybody_is_in.wait()
            with span(f"lookup {name}"):
                await everybody_is_in.wait()
            assert otel_ml.current_prediction_id() == told[name]
            return rows[:, 0]

        with span(f"request {name}"):
            await predict(X)

    with span("service"):
        await asyncio.gather(ask("a"), ask("b"), ask("c"))
    assert seen.tree.splitlines()[0] == "service"
    found = seen.spans
    for name in "abc":
        request = found[f"request {name}"].context.span_id
        predict = request if mode == "off" else found[f"predict {name}"].context.span_id
        assert found[f"request {name}"].parent.span_id == found["service"].context.span_id
        assert found[f"lookup {name}"].parent.span_id == (predict if mode == "all" else request)
        assert mode == "off" or found[f"predict {name}"].parent.span_id == request
        [record] = [one for one in seen.records if one.attributes["ml.model.name"] == name]
        assert (record.span_id, record.attributes["ml.prediction.id"]) == (predict, told[name])
    assert len({*told.values()}) == 3


@pytest.mark.parametrize("mode", MODES)
async def test_cancelled_call(mode: str, seen: Seen, collect: Any) -> None:
    """A cancellation reaches the caller, and is what the call's span, event and duration say."""
    running = asyncio.Event()

    @observed(mode)
    async def predict(rows: Any) -> Any:
        with span("lookup"):
            running.set()
            await asyncio.Event().wait()

    async def request() -> None:
        with span("request"):
            await predict(X)

    task = asyncio.create_task(request())
    await running.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    [record] = seen.records
    assert record.attributes["error.type"] == "asyncio.exceptions.CancelledError"
    assert seen.events == [("churn", "request" if mode == "off" else "predict churn")]
    if mode != "off":
        failed = seen.spans["predict churn"]
        assert failed.parent.span_id == seen.spans["request"].context.span_id
        assert failed.status.status_code == StatusCode.ERROR
    [point] = collect()["ml.inference.duration"]
    assert (point.count, point.attributes["error.type"]) == (1, "asyncio.exceptions.CancelledError")


class Pause:
    """Something to wait for, without an event loop."""

    def __await__(self) -> Iterator[None]:
        yield


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("where", ["here", "elsewhere"])
def test_closed_coroutine(mode: str, where: str, seen: Seen, caplog: pytest.LogCaptureFixture) -> None:
    """A coroutine that is thrown away half-way ends its span and leaves nothing behind; nothing is logged."""

    @observed(mode)
    async def predict(rows: Any) -> Any:
        await Pause()

    coroutine = predict(X)
    begun = contextvars.copy_context()
    send = coroutine.send if where == "here" else lambda value: begun.run(coroutine.send, value)
    send(None)
    coroutine.close()
    assert [one.attributes["error.type"] for one in seen.records] == ["GeneratorExit"]
    assert [one.name for one in seen.spans.values()] == ([] if mode == "off" else ["predict churn"])
    assert caplog.records == []


@pytest.mark.parametrize("mode", MODES)
def test_coroutine_that_never_ran(mode: str, seen: Seen, collect: Any) -> None:
    """A coroutine that is closed before it was awaited was no call."""

    @observed(mode)
    async def predict(rows: Any) -> Any:
        return rows

    predict(X).close()
    assert (seen.tree, seen.records) == ("", [])
    assert "ml.inference.duration" not in collect()


@pytest.mark.parametrize("mode", MODES)
async def test_task_that_outlives_its_call(mode: str, seen: Seen, instrumented: Any) -> None:
    """What a call leaves running is a part of it while it lasts; later it keeps its place in the trace and its id."""
    model, over, told, tasks = fitted(), asyncio.Event(), [], []

    async def later() -> None:
        model.predict(ROWS[:1])  # a part of the call, which is still under way
        told.append(otel_ml.current_prediction_id())
        await over.wait()
        told.append(otel_ml.current_prediction_id())
        with span("cleanup"):
            model.predict(ROWS[:1])

    @observed(mode)
    async def predict(rows: Any) -> Any:
        told.append(otel_ml.current_prediction_id())
        tasks.append(asyncio.create_task(later()))
        while len(told) < 2:
            await asyncio.sleep(0)
        return rows[:, 0]

    with span("request"):
        await predict(X)
    over.set()
    await asyncio.gather(*tasks)
    assert told == [told[0]] * 3 != [None] * 3
    assert seen.tree == of_mode(
        mode,
        all="""
            request
              predict churn
                cleanup
                  predict LogisticRegression""",
        sampled="""
            request
              predict churn
              cleanup
                predict LogisticRegression""",
        off="""
            request
              cleanup
                predict LogisticRegression""",
    )
    assert [name for name, _ in seen.events] == ["churn"]


async def test_id_that_is_asked_for_after_the_call(seen: Seen) -> None:
    """A task that asks when its call is over gets the id of the call's event, which names the call's own span."""
    over, told = asyncio.Event(), []

    async def later() -> None:
        await over.wait()
        told.append(otel_ml.current_prediction_id())

    @observed("sampled")
    async def predict(rows: Any) -> Any:
        return asyncio.create_task(later())

    with span("request"):
        task = await predict(X)
    over.set()
    await task
    [record] = seen.records
    assert told == [record.attributes["ml.prediction.id"]]
    assert ids.parse(told[0]).span_id == seen.spans["predict churn"].context.span_id
