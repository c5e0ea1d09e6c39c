"""The span of a prediction: its name and attributes, on whatever tracer the application has."""

from __future__ import annotations

import math
from contextvars import Token
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from opentelemetry import context, trace
from opentelemetry.context import Context
from opentelemetry.trace import Span, SpanKind, Status, StatusCode, Tracer, TracerProvider
from opentelemetry.util.types import AttributeValue

from . import _guard, semconv
from ._version import __version__
from .columns import category
from .model import Model
from .prediction import Prediction
from .sampling.keeping import Kept

_sum = np.add.reduce
_HUGE = 1e300
_ASK_AGAIN = 1_000_000


@dataclass(frozen=True, slots=True)
class ActiveSpan:
    """A span that is current, and what makes the one before it current again."""

    span: Span
    token: Token[Context]

    def end(self, *, here: bool = True) -> None:
        """End the span; `here` is False in another context than it was started in, where it is not current."""
        if here:
            context.detach(self.token)
        self.span.end()


class Spans:
    """Makes the spans of one operation of one model."""

    def __init__(
        self, model: Model, operation: str, provider: TracerProvider | None = None, measure: str = "margin"
    ) -> None:
        self.name = f"{operation} {model.name}"
        self._measure = measure
        self._provider = provider
        self._tracer: Tracer = trace.get_tracer(semconv.SDK_SCOPE, __version__, tracer_provider=provider)
        self._fixed = _fixed_attributes(model, operation)
        self._active = False
        self._ask_at = 0

    def active(self, now: int) -> bool:
        """Whether a tracer provider is there to receive a span; one that was set stays, and that there is none is
        taken for true for a millisecond. `now` is of `time.perf_counter_ns`."""
        if not self._active and now >= self._ask_at:  # to ask costs more than to queue a row
            self._ask_at = now + _ASK_AGAIN
            provider = self._provider or trace.get_tracer_provider()
            self._active = not isinstance(provider, (trace.ProxyTracerProvider, trace.NoOpTracerProvider))
        return self._active

    def start(self) -> ActiveSpan:
        """A span that is current until it is ended."""
        span = self._tracer.start_span(self.name, kind=SpanKind.INTERNAL, attributes=self._fixed)
        return ActiveSpan(span, context.attach(trace.set_span_in_context(span)))

    def finish(
        self, span: Span, prediction: Prediction, error: BaseException | None = None, kept: Kept | None = None
    ) -> None:
        """Add what only the end of the call tells."""
        if not span.is_recording():
            return
        if error is not None:
            self.fail(span, error)
        span.set_attributes(_tell({}, prediction, kept, self._measure))

    def emit(
        self, prediction: Prediction, error: BaseException | None = None, kept: Kept | None = None
    ) -> Span:
        """A span after the call, with the call's own times: samplers see score and label."""
        attributes, start = _tell(self._fixed.copy(), prediction, kept, self._measure), prediction.start
        here = context.get_current()  # else the SDK looks it up three times
        span = self._tracer.start_span(self.name, here, attributes=attributes, start_time=start)
        try:
            if error is not None:
                self.fail(span, error)
        finally:
            span.end(start + prediction.duration)
        return span

    def fail(self, span: Span, error: BaseException) -> None:
        """Mark `span` as failed by `error`."""
        if span.is_recording():
            span.set_attribute(semconv.ERROR_TYPE, error_type(error))
            span.set_status(Status(StatusCode.ERROR))
            with _guard.guard("exception"):  # an error of a user's object need not have a text
                span.set_status(Status(StatusCode.ERROR, str(error)))
                span.record_exception(error)


def error_type(error: BaseException) -> str:
    """The class of `error` with its module, the builtins' without, as OpenTelemetry names it."""
    kind = type(error)
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"


def _fixed_attributes(model: Model, operation: str) -> dict[str, AttributeValue]:
    attributes: dict[str, AttributeValue] = {**model.attributes(), semconv.OPERATION_NAME: operation}
    optional = {
        semconv.MODEL_TYPE: model.type,
        semconv.SYSTEM_NAME: model.system,
        semconv.TASK_TYPE: model.task,
        semconv.BASELINE_ID: model.baseline.id if model.baseline is not None else None,
    }
    return attributes | {key: value for key, value in optional.items() if value is not None}


def _tell(
    attributes: dict[str, AttributeValue], prediction: Prediction, kept: Kept | None, measure: str
) -> dict[str, AttributeValue]:
    """`attributes`, with those of the result: rows, score (or its range in a batch) and, of one row, the label and by
    `measure` the uncertainty, where there are class probabilities; why rows of the call were kept, and the
    probability that any was."""
    scores, score_type, labels, probabilities = prediction.outcome
    attributes[semconv.BATCH_SIZE] = prediction.rows
    if kept is not None:
        attributes |= _sampling(kept)
    segment = prediction.model.segment
    if segment is not None and prediction.rows == 1 and prediction.input is not None:
        attributes[segment.attribute] = prediction.input.segment_of(0)
    if scores is not None and len(scores):
        attributes[semconv.SCORE_TYPE] = score_type
        if len(scores) > 1:
            _add_range(attributes, scores)
        elif math.isfinite(score := scores.item()):  # many backends refuse a number that is not
            attributes[semconv.PREDICTION_SCORE] = score
        if len(scores) == 1 and probabilities is not None:
            attributes |= _uncertainty(prediction, measure)
    if labels is not None and len(labels) == 1:
        attributes[semconv.PREDICTION_LABEL] = category(labels.tolist()[0])
    return attributes


def _uncertainty(prediction: Prediction, measure: str) -> dict[str, AttributeValue]:
    """Of the only row; nothing when it is not known."""
    found = prediction.row_uncertainty(measure)
    if not math.isfinite(found):
        return {}
    return {semconv.PREDICTION_UNCERTAINTY: found, semconv.UNCERTAINTY_TYPE: measure}


def _add_range(attributes: dict[str, AttributeValue], scores: NDArray[np.float64]) -> None:
    """Smallest, largest and mean of the finite scores of a batch."""
    # to look for the place of an extreme takes half of its ufunc, and the ufunc of the sum half of the method
    low, high = scores.item(scores.argmin()), scores.item(scores.argmax())
    if low > -_HUGE and high < _HUGE:
        mean = float(_sum(scores)) / len(scores)
    else:  # NaN, too; a sum could overflow, and NumPy would warn
        scores = scores[np.isfinite(scores)]
        if not len(scores):
            return
        low, high, mean = float(scores.min()), float(scores.max()), float(_sum(scores / len(scores)))
    attributes[semconv.PREDICTION_SCORE_MIN] = low
    attributes[semconv.PREDICTION_SCORE_MAX] = high
    attributes[semconv.PREDICTION_SCORE_MEAN] = mean


def _sampling(kept: Kept) -> dict[str, AttributeValue]:
    selection = kept.selection
    attributes: dict[str, AttributeValue] = {semconv.SAMPLING_REASON: selection.reasons[0]}
    if selection.adjustable:
        attributes[semconv.SAMPLING_PROBABILITY] = kept.probability
    else:
        attributes[semconv.SAMPLING_ADJUSTABLE] = False
    if selection.strata is not None and len(selection.strata) == 1:
        attributes[semconv.SAMPLING_STRATUM] = category(selection.strata[0])
    return attributes
