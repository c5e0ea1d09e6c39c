"""Models that call models: whose child a span is, and which call an event and an id belong to."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Iterator
from typing import Any

import numpy as np
import pytest
from instrumented import X as ROWS
from instrumented import fitted
from opentelemetry import trace
from support import select
from traces import Seen, observed, of_mode, span

import otel_ml
from otel_ml import sampling
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


@pytest.mark.parametrize("mode", MODES)
def test_failure_in_the_middle(mode: str, seen: Seen) -> None:
    """An exception that the outer function handles fails the inner call alone, and the outer goes on as itself."""

    @observed(mode, model="inner")
    def inner(rows: Any) -> Any:
        raise KeyError("gone")

    @observed(mode, model="outer")
    def outer(rows: Any) -> Any:
        mine = otel_ml.current_prediction_id()
        with pytest.raises(KeyError, match="gone"):
            inner(rows)
        assert otel_ml.current_prediction_id() == mine
        with span("fallback"):
            return rows[:, 0]

    with span("request"):
        outer(X)
    assert seen.tree == of_mode(
        mode,
        all="""
            request
              predict outer
                predict inner
                fallback""",
        sampled="""
            request
              predict outer
              predict inner
              fallback""",
        off="""
            request
              fallback""",
    )
    own = ["request"] * 2 if mode == "off" else ["predict inner", "predict outer"]
    assert seen.events == list(zip(["inner", "outer"], own, strict=True))
    assert [one.attributes.get("error.type") for one in seen.records] == ["KeyError", None]


@pytest.mark.parametrize("inner_mode", MODES)
@pytest.mark.parametrize("outer_mode", MODES)
async def test_decorated_in_decorated(outer_mode: str, inner_mode: str, seen: Seen) -> None:
    """A synchronous model inside an asynchronous one: each has its own id, event and, next to its parent, span."""
    told = []

    @observed(inner_mode, model="inner")
    def inner(rows: Any) -> Any:
        told.append(otel_ml.current_prediction_id())
        return rows[:, 0]

    @observed(outer_mode, model="outer")
    async def outer(rows: Any) -> Any:
        answer = await asyncio.to_thread(inner, rows)
        told.append(otel_ml.current_prediction_id())
        return answer

    with span("request"):
        await outer(X)
    parent = "predict outer" if outer_mode == "all" else "request"
    assert seen.events == [
        ("inner", parent if inner_mode == "off" else "predict inner"),
        ("outer", "request" if outer_mode == "off" else "predict outer"),
    ]
    found = seen.spans
    if inner_mode != "off":
        assert found["predict inner"].parent.span_id == found[parent].context.span_id
    if outer_mode != "off":
        assert found["predict outer"].parent.span_id == found["request"].context.span_id
    assert [one.attributes["ml.prediction.id"] for one in seen.records] == told


def test_generator_that_is_asked_by_another_call(seen: Seen) -> None:
    """A generator predicts in the context of whoever asks it for more, wherever it was made."""

    @observed("all", model="step")
    def step(rows: Any) -> Any:
        return rows[:, 0]

    def steps() -> Iterator[Any]:
        while True:
            yield step(X)

    @observed("all", model="whole")
    def whole(rows: Any) -> Any:
        return next(made)

    made = steps()
    with span("first"):
        next(made)
    with span("second"):
        whole(X)
    made.close()
    assert seen.tree == "first\n  predict step\nsecond\n  predict whole\n    predict step"


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("to_worker", [False, True])
async def test_estimators_in_decorated(
    mode: str, to_worker: bool, seen: Seen, instrumented: Any, collect: Any
) -> None:
    """A registered model inside a decorated function is a child with an event of its own, an unregistered estimator
    a part of it; so, too, in a worker that has the call's context."""
    known, unknown = fitted(), fitted(C=2.0)
    otel_ml.register(known, name="risk", version="1", sampler=sampling.Random(1.0))

    def answer(rows: Any) -> Any:
        return known.predict_proba(rows)[:, 1] * unknown.predict_proba(rows)[:, 1]

    @observed(mode)
    async def predict(rows: Any) -> Any:
        return await asyncio.to_thread(answer, rows) if to_worker else answer(rows)

    with span("request"):
        await predict(ROWS[:1])
    assert seen.tree == of_mode(
        mode,
        all="""
            request
              predict churn
                predict_proba risk""",
        sampled="""
            request
              predict churn
              predict_proba risk""",
        off="""
            request
              predict_proba risk""",
    )
    assert seen.events == [
        ("risk", "predict_proba risk"),
        ("churn", "request" if mode == "off" else "predict churn"),
    ]
    rows = {point.attributes["ml.model.name"]: point.value for point in collect()["ml.inference.rows"]}
    assert rows == {"risk": 1, "churn": 1}


def test_shadow_inside_the_live_call(seen: Seen, collect: Any) -> None:
    """The shadow's span is under the live one, says what it is, and its rows are counted apart."""

    @observed("all", variant="challenger", role="shadow")
    def challenger(rows: Any) -> Any:
        return rows[:, 1]

    @observed("all", variant="champion")
    def champion(rows: Any) -> Any:
        challenger(rows)
        return rows[:, 0]

    with span("request"):
        assert champion(X).tolist() == [0.25]
    assert seen.tree == "request\n  predict churn\n    predict churn"
    roles = [(one.attributes["ml.variant.name"], one.attributes["ml.variant.role"]) for one in seen.records]
    assert roles == [("challenger", "shadow"), ("champion", "live")]
    counted = collect()["ml.inference.rows"]
    assert [point.value for point in select(counted, ml__variant__role="live")] == [1]
    assert [point.value for point in select(counted, ml__variant__role="shadow")] == [1]


async def test_shadow_after_the_answer(seen: Seen) -> None:
    """A shadow that a task runs after the answer keeps its place in the trace, though the live span has ended."""
    tasks: list[asyncio.Task[Any]] = []

    @observed("sampled", model="shadow", role="shadow")
    async def shadow(rows: Any) -> Any:
        await asyncio.sleep(0)
        return rows[:, 1]

    @observed("all", model="live")
    async def live(rows: Any) -> Any:
        tasks.append(asyncio.create_task(_awaiting(shadow(rows))))
        return rows[:, 0]

    with span("request"):
        await live(X)
    await asyncio.gather(*tasks)
    assert seen.tree == "request\n  predict live\n    predict shadow"
    assert seen.events == [("live", "predict live"), ("shadow", "predict shadow")]


async def _awaiting(made: Awaitable[Any]) -> Any:
    return await made
