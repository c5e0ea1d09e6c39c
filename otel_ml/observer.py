"""The heart of the SDK: the order of work for one call of a model.

Snapshot the input, time the call, pass its result or its exception on untouched, queue what was seen, and make
the span. Whatever fails on our side stays here.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from contextlib import suppress as suppress_error
from contextvars import ContextVar, Token
from types import TracebackType
from typing import Any, Final, Literal

from . import _guard, pipeline
from .capture import row_count
from .errors import ConfigurationError
from .model import Model
from .prediction import NOTHING as NO_OUTCOME
from .prediction import Prediction, read_outcome
from .telemetry import ActiveSpan, Spans, error_type

SpanMode = Literal["all", "sampled", "off"]
SPAN_MODES = ("all", "sampled", "off")


class _Nothing:
    """The owner of calls that must not be recorded."""


NOTHING: Final = _Nothing()
owner: ContextVar[Observer | _Nothing | None] = ContextVar("otel_ml_owner", default=None)
"""The observed call that is running in this context."""


def suppressed() -> bool:
    """Whether calls in this context are not recorded."""
    return owner.get() is NOTHING


@contextmanager
def suppress() -> Iterator[None]:
    """Record nothing inside: no span, no rows, no features."""
    token = owner.set(NOTHING)
    try:
        yield
    finally:
        owner.reset(token)


class Observer:
    """Observes one operation of one model; thread-safe and kept for as long as the model is called.

    `spans`: "all" makes a span that is current during the call, "sampled" one after it, when its score is
    known, "off" none. `score` maps the output to (n,) scores where the output alone does not tell.
    """

    def __init__(
        self,
        model: Model,
        *,
        operation: str = "predict",
        spans: SpanMode = "all",
        score: Callable[[Any], Any] | None = None,
        decorated: bool = False,
    ) -> None:
        if spans not in SPAN_MODES:
            raise ConfigurationError(f"spans={spans!r} is not one of {', '.join(SPAN_MODES)}")
        self.model = model
        self.operation = operation
        self.decorated = decorated
        """True for a decorated function: registered models called inside make spans of their own."""
        self.mode: SpanMode = spans
        self._score = score
        self._width = model.width
        self._connect()

    def _connect(self) -> None:
        """Take queue and tracer from the pipeline; again when it was set up anew."""
        generation = pipeline.generation
        self._capture = pipeline.producer().capture(self.model, self.operation)
        self.spans = Spans(self.model, self.operation, pipeline.tracer_provider())
        self._generation = generation  # last: another thread that sees it uses what belongs to it

    def call(
        self, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any], rows: Any
    ) -> Any:
        """Call `function(*args, **kwargs)`, of which `rows` is the input, and record what it did."""
        if owner.get() is NOTHING:
            return function(*args, **kwargs)
        if self.mode == "all":
            with _Running(self, rows) as running:
                running.output = function(*args, **kwargs)
            return running.output
        taken = self.take(rows)
        token = owner.set(self)
        start = time.perf_counter_ns()
        try:
            output = function(*args, **kwargs)
        except BaseException as error:
            self.failed(error, time.perf_counter_ns() - start)
            raise
        finally:
            owner.reset(token)
        duration = time.perf_counter_ns() - start
        answer = output if self._score is None else self.scored(output)
        self.put(taken, answer, duration)
        if self.mode == "sampled":
            self.emit(rows, answer, duration)
        return output

    async def call_async(
        self,
        function: Callable[..., Awaitable[Any]],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        rows: Any,
    ) -> Any:
        """As `call`, for a coroutine function; its span is current also where "sampled" is asked for."""
        if owner.get() is NOTHING:
            return await function(*args, **kwargs)
        with _Running(self, rows) as running:
            running.output = await function(*args, **kwargs)
        return running.output

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickled by value inside a function that cloudpickle sends away: another process has its own queue."""
        return _observer, (self.model, self.operation, self.mode, self._score, self.decorated)

    # --- the steps; none of them raises

    def take(self, rows: Any) -> Any:
        """Snapshot the input."""
        try:
            if self._generation != pipeline.generation:
                self._connect()
            return self._capture.take(rows)
        except Exception as error:
            _guard.failed("take", error)
            return None

    def scored(self, output: Any) -> Any:
        """What the user's `score` makes of the output; None when it fails."""
        try:
            return output if self._score is None else self._score(output)
        except Exception as error:
            _guard.failed("score", error)
            return None

    def put(self, taken: Any, answer: Any, duration: int) -> None:
        """Queue a call that succeeded."""
        try:
            self._capture.put(taken, answer, duration)
        except Exception as error:
            _guard.failed("put", error)

    def emit(self, rows: Any, answer: Any, duration: int) -> None:
        """Make the span of a call that has just ended."""
        try:
            if self.spans.active:
                self.spans.emit(self.prediction(rows, answer, duration))
        except Exception as error:
            _guard.failed("span", error)

    def failed(self, error: BaseException, duration: int) -> None:
        """Queue a call that raised, with a span where spans are made after the call."""
        with _guard.guard("failure"):
            self._capture.put_failure(duration, error_type(error))
            if self.mode == "sampled" and self.spans.active:
                self.spans.emit_failure(error, time.time_ns() - duration, duration)

    def prediction(self, rows: Any, answer: Any, duration: int) -> Prediction:
        """What the span says of a call that has just ended."""
        try:
            outcome = read_outcome(answer, self.model, self.operation)
        except Exception as error:
            _guard.failed("outcome", error)
            outcome = NO_OUTCOME
        return Prediction(
            model=self.model,
            operation=self.operation,
            rows=row_count(rows, self._width),
            outcome=outcome,
            start=time.time_ns() - duration,
            duration=duration,
        )


def _observer(
    model: Model, operation: str, spans: SpanMode, score: Callable[[Any], Any] | None, decorated: bool
) -> Observer:
    return Observer(model, operation=operation, spans=spans, score=score, decorated=decorated)


class _Running:
    """A call under way whose span, if any, is current."""

    __slots__ = ("_observer", "_rows", "_span", "_start", "_taken", "_token", "output")

    def __init__(self, observer: Observer, rows: Any) -> None:
        self._observer = observer
        self._rows = rows
        self.output: Any = None

    def __enter__(self) -> _Running:
        self._taken = self._observer.take(self._rows)
        self._span: ActiveSpan | None = None
        if self._observer.mode != "off":
            with _guard.guard("span"):
                self._span = self._observer.spans.start()
        self._token: Token[Observer | _Nothing | None] = owner.set(self._observer)
        self._start = time.perf_counter_ns()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        duration = time.perf_counter_ns() - self._start
        with suppress_error(ValueError):  # a coroutine can be closed in another context than it began in
            owner.reset(self._token)
        answer = None
        if error is not None:
            with _guard.guard("failure"):
                self._observer._capture.put_failure(duration, error_type(error))
        else:
            answer = self._observer.scored(self.output)
            self._observer.put(self._taken, answer, duration)
        if self._span is not None:
            with _guard.guard("span"):
                self._finish(self._span, error, answer, duration)

    def _finish(self, span: ActiveSpan, error: BaseException | None, answer: Any, duration: int) -> None:
        try:
            if error is not None:
                self._observer.spans.fail(span.span, error)
            elif span.span.is_recording():
                self._observer.spans.finish(
                    span.span, self._observer.prediction(self._rows, answer, duration)
                )
        finally:  # else it would stay the current span of this thread
            span.end()
