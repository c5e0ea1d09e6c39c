"""The heart of the SDK: the order of work for one call of a model.

Snapshot the input, time the call, pass its result or its exception on untouched, queue what was seen, ask the
sampler which rows are kept, and make the span and the events. Whatever fails on our side stays here.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar, Token
from types import TracebackType
from typing import Any, Final

from opentelemetry import trace
from opentelemetry.trace import NonRecordingSpan, Span

from . import _guard, pipeline
from .capture import rows_in
from .events import Events
from .ids import CallId, row_number
from .model import Model
from .prediction import NOTHING as NO_OUTCOME
from .prediction import Outcome, Prediction, read_outcome
from .recording import Recording
from .rows import Rows
from .sampling import Random, SamplerLike, When, failed
from .sampling.composition import override
from .sampling.keeping import NOT_FAILED, Kept, keep, keep_row
from .snapshot import Unread, row_count
from .telemetry import ActiveSpan, Spans, error_type


class _Nothing:
    """The owner of calls that must not be recorded."""


NOTHING: Final = _Nothing()
Call = list[Any]
"""An observed call: its observer, None as soon as it is over, for a task that was started in it can outlive it; then
its `CallId`, once somebody has asked for it. A list, for that costs a tenth of an object with two attributes."""
owner: ContextVar[Call | _Nothing | None] = ContextVar("otel_ml_owner", default=None)
"""The observed call that this context belongs to."""


class Steps(Call):
    """A call that does some of the steps in a way of its own; none of them raises."""

    __slots__ = ()

    def take(self, rows: Any) -> Any:
        """As `Observer.take`."""
        raise NotImplementedError

    def scored(self, output: Any) -> Any:
        """As `Observer.scored`."""
        raise NotImplementedError

    def put(self, taken: Any, answer: Any, duration: int) -> Any:
        """As `Observer.put`."""
        raise NotImplementedError


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


def current_prediction_id(row: int = 0) -> str | None:
    """The id of a row of the observed call that is running; None outside of one.

    Ask for it inside the decorated function and give it to whoever will know the truth. The event of that row,
    when there is one, carries the same id. Rows count from 0.

    Raises `ConfigurationError` when `row` is not a row number.
    """
    number, call = row_number(row), owner.get()
    if not isinstance(call, list):
        return None
    return _ids(call).of(number)


def _ids(call: Call) -> CallId:
    if len(call) == 1:
        call.append(CallId())
    found: CallId = call[1]
    return found


class Observer:
    """Observes one operation of one model; thread-safe and kept for as long as the model is called.

    `score` maps the output to (n,) scores where the output alone does not tell. Raises `ConfigurationError` when
    the sampler cannot work with the model.
    """

    def __init__(
        self,
        model: Model,
        *,
        operation: str = "predict",
        recording: Recording | None = None,
        score: Callable[[Any], Any] | None = None,
        decorated: bool = False,
    ) -> None:
        self.recording = Recording() if recording is None else recording
        self.recording.check(model)
        self.model = model
        self.operation = operation
        self.decorated = decorated
        """True for a decorated function: registered models called inside make spans of their own."""
        self._sampler = self.recording.sampler
        self._around = self.recording.spans == "all"
        self._emits = self.recording.spans == "sampled"
        self._follows = self._emits or self._sampler is not None
        self._score = score
        self._width = model.width
        self._generation = -1
        with _guard.guard("connect"):  # each call tries it again
            self._connect()

    def _connect(self) -> None:
        """Take queue, tracer and logger from the pipeline; again when it was set up anew."""
        generation = pipeline.generation
        self._capture = pipeline.producer().capture(self.model, self.operation)
        self._shown = self._capture.examples
        self.spans = Spans(self.model, self.operation, pipeline.tracer_provider(), self.recording.measure)
        self._events = Events(
            self.model, self.operation, capture_features=self.recording.capture_features, redact=self.recording.redact,
            uncertainty=self.recording.measure, provider=pipeline.logger_provider(),
        )  # fmt: skip
        self._generation = generation  # last: another thread that sees it uses what belongs to it

    def call(
        self,
        function: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        rows: Any,
        steps: Steps | None = None,
    ) -> Any:
        """Call `function(*args, **kwargs)`, of which `rows` is the input, and record what it did.

        `steps` stand for the observer's own in this one call.
        """
        if owner.get() is NOTHING:
            return function(*args, **kwargs)
        if self._around:
            with _Running(self, rows, steps) as running:
                running.output = function(*args, **kwargs)
            return running.output
        taken = self.take(rows) if steps is None else steps.take(rows)
        call: Call = [self] if steps is None else steps
        token = owner.set(call)
        start = time.perf_counter_ns()
        try:
            output = function(*args, **kwargs)
        except BaseException as error:
            self.failed(call, taken, error, start, time.perf_counter_ns() - start)
            raise
        finally:
            call[0] = None
            owner.reset(token)
        duration = time.perf_counter_ns() - start
        if steps is None:
            answer = output if self._score is None else self.scored(output)
            self.put(taken, answer, duration)
        else:
            answer = steps.scored(output)
            steps.put(taken, answer, duration)
        if self._follows or override.get() is not None:
            self.follow(call, taken, start, duration, answer)
        return output

    async def call_async(
        self,
        function: Callable[..., Awaitable[Any]],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        rows: Any,
    ) -> Any:
        """As `call`, for a coroutine function."""
        if owner.get() is NOTHING:
            return await function(*args, **kwargs)
        with _Running(self, rows) as running:
            running.output = await function(*args, **kwargs)
        return running.output

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickled by value inside a function that cloudpickle sends away: another process has its own queue."""
        return _observer, (self.model, self.operation, self.recording, self._score, self.decorated)

    # --- the steps; none of them raises

    def take(self, rows: Any) -> Any:
        """Snapshot the input."""
        try:
            if self._generation != pipeline.generation:
                self._connect()
            return self._capture.take(rows)
        except Exception as error:
            lost = row_count(rows, self._width)
            _guard.failed("take", error, lost)
            return Unread(None, lost)

    def scored(self, output: Any) -> Any:
        """What the user's `score` makes of the output; None when it fails."""
        try:
            return output if self._score is None else self._score(output)
        except Exception as error:
            _guard.failed("score", error)
            return None

    def put(self, taken: Any, answer: Any, duration: int) -> Any:
        """Queue a call that succeeded; gives what stands in the queue then, None when nothing does."""
        try:
            return self._capture.put(taken, answer, duration)
        except Exception as error:
            _guard.failed("put", error, rows_in(taken, self._width))
            return None

    def failed(self, call: Call, taken: Any, error: BaseException, start: int, duration: int) -> None:
        """Queue a call that raised, and make what follows it."""
        self.put_failure(error, duration)
        if self._follows or override.get() is not None:
            self.follow(call, taken, start, duration, error=error)

    def put_failure(self, error: BaseException, duration: int) -> None:
        """Queue a call that raised."""
        with _guard.guard("failure"):
            self._capture.put_failure(duration, error_type(error))

    def follow(
        self,
        call: Call,
        taken: Any,
        begun: int,
        duration: int,
        answer: Any = None,
        error: BaseException | None = None,
        span: Span | None = None,
    ) -> None:
        """Make the span of a call that is over, unless `span` is its own, and events of the rows that are kept.

        `begun` is of `time.perf_counter_ns`.
        """
        try:
            sampler = override.get() or self._sampler
            one = span is None and type(taken) is tuple and taken[1][0] == 1
            # first the most frequent calls of all, of which nobody asks anything
            if one and type(sampler) is Random:
                kept = keep_row(sampler, self._capture.decide)
                if kept is None:
                    return
                ended = Ended(self, taken, begun, duration, answer, error)
            elif one and error is None and type(sampler) is When and sampler.rule is failed:
                self._capture.decide(NOT_FAILED)
                return
            elif sampler is None and span is None and not self._makes_span(begun + duration):
                return
            else:
                ended = Ended(self, taken, begun, duration, answer, error)
                kept = None if sampler is None else self._keep(sampler, ended)
            if span is not None:
                if span.is_recording():
                    self.spans.finish(span, ended, error, kept)
            elif (sampler is None or kept is not None) and self._makes_span(begun + duration):
                span = self.spans.emit(ended, error, kept)
            if kept is not None and self._events.active:
                self._send(call, ended, kept, span)
            if (
                span is not None
                and (duration.bit_length() not in self._shown or error is not None)
                and type(span) is not NonRecordingSpan
            ):
                self._capture.exemplify(span.get_span_context(), begun, duration, ended.error_type)
        except Exception as failure:
            _guard.failed("span", failure)

    def _makes_span(self, now: int) -> bool:
        return self._emits and self.spans.active(now)

    def _keep(self, sampler: SamplerLike, ended: Ended) -> Kept | None:
        try:
            return keep(sampler, ended, self._capture.decide)
        except Exception as error:
            _guard.failed("sampler", error)
            return None

    def _send(self, call: Call, prediction: Prediction, kept: Kept, span: Span | None) -> None:
        try:
            ids = _ids(call)
            if span is not None:
                ids.span = span.get_span_context()
            context = None if span is None else trace.set_span_in_context(span)
            self._events.emit(prediction, kept.selection, ids=ids, context=context)
        except Exception as error:
            _guard.failed("event", error)


class Ended(Prediction):
    """A call that has just ended: what its output says, and when it began, is worked out when somebody asks."""

    __slots__ = ("_answer", "_begun", "_input", "_outcome", "_start", "_taken")

    def __init__(
        self,
        observer: Observer,
        taken: Any,
        begun: int,
        duration: int,
        answer: Any,
        error: BaseException | None,
    ) -> None:
        self.model = observer.model
        self.operation = observer.operation
        # as they were given: the model may have changed the caller's object since
        self.rows = taken[1][0] if type(taken) is tuple else rows_in(taken, observer.model.width)
        self.duration = duration
        self.error_type = None if error is None else error_type(error)
        self._answer = answer
        self._begun = begun
        self._taken = taken
        self._outcome = None if error is None else NO_OUTCOME
        self._start: int | None = None
        self._input: Rows | None = None

    @property
    def outcome(self) -> Outcome:  # type: ignore[override]  # nobody sets it
        if self._outcome is None:
            try:
                self._outcome = read_outcome(self._answer, self.model, self.operation)
            except Exception as error:
                self._outcome = NO_OUTCOME
                _guard.failed("outcome", error)
        return self._outcome

    @property
    def start(self) -> int:  # type: ignore[override]
        if self._start is None:
            self._start = time.time_ns() - (time.perf_counter_ns() - self._begun)
        return self._start

    @property
    def input(self) -> Rows:  # type: ignore[override]
        if self._input is None:
            self._input = Rows(self._taken, self.model, self.rows)
        return self._input


def _observer(
    model: Model, operation: str, recording: Recording, score: Callable[[Any], Any] | None, decorated: bool
) -> Observer:
    return Observer(model, operation=operation, recording=recording, score=score, decorated=decorated)


class _Running:
    """A call under way whose span, if any, is current."""

    __slots__ = ("_call", "_observer", "_rows", "_span", "_start", "_steps", "_taken", "_token", "output")

    def __init__(self, observer: Observer, rows: Any, steps: Steps | None = None) -> None:
        self._observer = observer
        self._steps: Observer | Steps = observer if steps is None else steps
        self._call: Call = [observer] if steps is None else steps
        self._rows = rows
        self.output: Any = None

    def __enter__(self) -> _Running:
        self._taken = self._steps.take(self._rows)
        self._span: ActiveSpan | None = None
        if self._observer.recording.spans == "all":
            with _guard.guard("span"):
                self._span = self._observer.spans.start()
                # the ids of its rows name this span, whichever is current where they are asked for
                self._call.append(CallId(self._span.span.get_span_context()))
        self._token: Token[Call | _Nothing | None] = owner.set(self._call)
        self._start = time.perf_counter_ns()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        duration = time.perf_counter_ns() - self._start
        self._call[0] = None
        here = True
        try:
            owner.reset(self._token)
        except ValueError:  # a coroutine can be closed in another context than it began in
            here = False
        try:
            self._record(error, duration)
        finally:  # an interrupt, too, must not leave a span that others get under
            if self._span is not None:
                with _guard.guard("span"):
                    self._span.end(here=here)

    def _record(self, error: BaseException | None, duration: int) -> None:
        observer, answer = self._observer, None
        if error is not None:
            observer.put_failure(error, duration)
        else:
            answer = self._steps.scored(self.output)
            self._steps.put(self._taken, answer, duration)
        span = None if self._span is None else self._span.span
        observer.follow(self._call, self._taken, self._start, duration, answer, error, span)
