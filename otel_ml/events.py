"""The `ml.prediction` event: one log record for a row that was kept, in the trace of its call, without a body.

An attribute without a value is left out, and so is a number that is not finite: many backends refuse a record
that holds one. Feature values are there only for the features that were listed, after the redaction hook.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import date
from decimal import Decimal
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from opentelemetry import _logs
from opentelemetry._logs import LoggerProvider, SeverityNumber
from opentelemetry.context import Context
from opentelemetry.util.types import AttributeValue

from . import _guard, config, semconv
from ._version import __version__
from .columns import category, is_missing
from .errors import ConfigurationError
from .ids import CallId
from .model import Model
from .prediction import Prediction
from .sampling.coin import Selection, randomness_text, threshold_text

Plain = str | bool | int | float
Redact = Callable[[dict[str, Plain]], Mapping[str, Plain]]
"""Takes the listed feature values of one row by name and returns those that may leave."""

MAX_FEATURES: Final = 100
"""Features of an event: the SDK keeps 128 attributes of a record, and silently loses the first ones beyond."""
MAX_TEXT: Final = 256
"""Characters of a text value; longer ones are cut."""
_IDLE = ("ProxyLoggerProvider", "NoOpLoggerProvider")  # the API does not export the first


class Logs:
    """Where events go: the logger of `provider` or of the global one, also one that is set later."""

    __slots__ = ("_active", "_logger", "_provider")

    def __init__(self, provider: LoggerProvider | None = None) -> None:
        self._provider = provider
        self._logger = _logs.get_logger(semconv.SDK_SCOPE, __version__, logger_provider=provider)
        self._active = False

    @property
    def active(self) -> bool:
        """Whether a logger provider is there to receive an event; one that was set stays."""
        if not self._active:
            provider = self._provider or _logs.get_logger_provider()
            # of a provider that OTEL_SDK_DISABLED has switched off every logger does nothing
            self._active = has_logs(provider) and not getattr(provider, "_disabled", False)
        return self._active

    def emit(
        self,
        event_name: str,
        attributes: dict[str, AttributeValue],
        *,
        timestamp: int,
        context: Context | None = None,
        failed: bool = False,
    ) -> None:
        """One event at `timestamp`, Unix nanoseconds, in the trace of `context` or else of the current span."""
        severity = SeverityNumber.ERROR if failed else SeverityNumber.INFO
        self._logger.emit(
            event_name=event_name, timestamp=timestamp, observed_timestamp=time.time_ns(), context=context,
            severity_number=severity, severity_text=severity.name, attributes=attributes,
        )  # fmt: skip


def has_logs(provider: LoggerProvider) -> bool:
    """Whether somebody has set `provider`, and not to nothing."""
    return type(provider).__name__ not in _IDLE


class Events:
    """Emits the events of one operation of one model. Thread-safe.

    capture_features: names of the features whose values events carry; of all others no value leaves.
    redact: sees the listed values of each row by name before they leave and returns what may; a failure costs
        the event its values, and never lets them out as they were.
    uncertainty: the measure that is recorded where the output holds class probabilities.
    provider: where events go, instead of the global LoggerProvider.
    clock: monotonic seconds, for the limit per second.

    Raises `ConfigurationError` when an argument cannot be used.
    """

    def __init__(
        self,
        model: Model,
        operation: str,
        *,
        capture_features: Sequence[str] = (),
        redact: Redact | None = None,
        uncertainty: str = "margin",
        provider: LoggerProvider | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._features = check_content(capture_features, redact)
        self._redact = redact
        self._model = model
        self._measure = uncertainty
        self._logs = Logs(provider)
        self._limit = _Limit(clock)
        self._fixed: dict[str, AttributeValue] = {**model.attributes(), semconv.OPERATION_NAME: operation}
        if model.baseline is not None:
            self._fixed[semconv.BASELINE_ID] = model.baseline.id

    @property
    def active(self) -> bool:
        """Whether a logger provider is there to receive an event."""
        return self._logs.active

    def emit(
        self, prediction: Prediction, selection: Selection, *, ids: CallId, context: Context | None = None
    ) -> None:
        """One event for each row of `selection`, at the end of the call.

        context: the one that holds the call's span; by default the current one.
        """
        asked = len(selection.indices)
        allowed, whole = self._limit.admit(asked)
        if allowed < asked:
            self._cut(asked - allowed)
        if not allowed:
            return
        rows = selection.indices[:allowed]
        adjustable = whole and selection.adjustable
        fixed = {**self._fixed, **_of_call(prediction, adjustable=adjustable)}
        columns = {**self._outcome(prediction, rows), **_sampling(selection, allowed, adjustable=adjustable)}
        features = self._values(prediction, rows)
        for i, row in enumerate(rows.tolist()):
            attributes = {  # features first: when there is not room for all, the SDK loses the first ones
                **features[i], **fixed, semconv.PREDICTION_ID: ids.of(row),
                **{name: column[i] for name, column in columns.items() if column[i] is not None},
            }  # fmt: skip
            self._logs.emit(
                semconv.PREDICTION_EVENT, attributes, timestamp=prediction.start + prediction.duration,
                context=context, failed=prediction.error_type is not None,
            )  # fmt: skip

    def _cut(self, rows: int) -> None:
        _guard.drop("event_limit", rows)
        _guard.say_once(
            f"events:{self._model.name}",
            "model %s: more rows were kept than events are allowed (%d a call, %d a second), the rest is counted in "
            "otel_ml.dropped; lower the rate of its sampler, or raise OTEL_PYTHON_ML_EVENTS_PER_CALL or "
            "OTEL_PYTHON_ML_EVENTS_PER_SECOND",
            self._model.name, self._limit.per_call, self._limit.per_second,
        )  # fmt: skip

    def _outcome(self, prediction: Prediction, rows: NDArray[Any]) -> dict[str, list[Any]]:
        """What the output says of each of `rows`, by attribute."""
        labels, scores = (
            values[rows] if values is not None and len(values) == prediction.rows else None
            for values in (prediction.outcome.labels, prediction.outcome.scores)
        )
        columns: dict[str, list[Any]] = {}
        if labels is not None:
            columns[semconv.PREDICTION_LABEL] = [label_of(label) for label in labels.tolist()]
        if scores is not None:
            values = [_finite(score) for score in scores.tolist()]
            columns[semconv.PREDICTION_SCORE] = values
            columns[semconv.SCORE_TYPE] = [prediction.outcome.score_type] * len(rows)
            if self._model.task == "regression":
                columns[semconv.PREDICTION_VALUE] = values
        segment = self._model.segment
        if segment is not None and prediction.input is not None:
            columns[segment.attribute] = [prediction.input.segment_of(row) for row in rows.tolist()]
        uncertain = [_finite(value) for value in _of(prediction, rows).uncertainty(self._measure).tolist()]
        columns[semconv.PREDICTION_UNCERTAINTY] = uncertain
        columns[semconv.UNCERTAINTY_TYPE] = [None if value is None else self._measure for value in uncertain]
        return columns

    # --- feature values

    def _values(self, prediction: Prediction, rows: NDArray[Any]) -> list[dict[str, AttributeValue]]:
        """The attributes of the listed features of each of `rows`."""
        found: list[dict[str, Plain]] = [{} for _ in range(len(rows))]
        for name in self._features if prediction.input is not None else ():
            column = prediction.column(name)
            if column is None:
                _guard.say_once(
                    f"capture:{self._model.name}:{name}", "model %s: capture_features names %r, which its input does "
                    "not have; its events go without", self._model.name, name,
                )  # fmt: skip
                continue
            for values, value in zip(found, column[rows], strict=True):
                made = plain(value)
                if made is not None:
                    values[name] = made
        return [self._redacted(values) for values in found]

    def _redacted(self, values: dict[str, Plain]) -> dict[str, AttributeValue]:
        allowed: Mapping[str, object] = values
        if self._redact is not None and values:
            try:
                allowed = dict(self._redact(values))
            except Exception as error:
                _guard.drop("redact", 1)
                _guard.say_once(  # without the message of the error, which may hold a value
                    f"redact:{self._model.name}", "model %s: redact failed (%s), events go without feature values",
                    self._model.name, type(error).__name__,
                )  # fmt: skip
                return {}
        prefix = semconv.FEATURE_VALUE.name
        made = {f"{prefix}.{text(str(name))}": plain(value) for name, value in allowed.items()}
        return {name: value for name, value in made.items() if value is not None}


class _Limit:
    """Most events of a call and of a second. Without a lock: a race lets a few more through, and no more."""

    def __init__(self, clock: Callable[[], float]) -> None:
        settings = config.settings()
        self.per_call, self.per_second = settings.events_per_call, settings.events_per_second
        self._clock = clock
        self._second, self._used, self._missing = 0, 0, False

    def admit(self, rows: int) -> tuple[int, bool]:
        """How many of `rows` may go, and whether every row kept since the event before is among them."""
        second = int(self._clock())
        if second != self._second:
            self._second, self._used = second, 0
        allowed = max(min(rows, self.per_call, self.per_second - self._used), 0)
        self._used += allowed
        whole = allowed == rows and not self._missing
        if rows:
            self._missing = not allowed
        return allowed, whole


def check_content(capture_features: Iterable[str], redact: object) -> tuple[str, ...]:
    """The names once each; `ConfigurationError` when they are no list of names, are too many, or `redact` is no
    function."""
    listable = isinstance(capture_features, Iterable) and not isinstance(capture_features, str)
    names = tuple(capture_features) if listable else ()
    if not listable or not all(isinstance(name, str) for name in names):
        raise ConfigurationError(
            f"capture_features={capture_features!r} is not a list of names; write capture_features=['age', 'region']"
        )
    if redact is not None and not callable(redact):
        raise ConfigurationError(
            f"redact={redact!r} cannot be called; give it a function of a dict that returns one"
        )
    listed = tuple(dict.fromkeys(names))
    if len(listed) > MAX_FEATURES:
        raise ConfigurationError(
            f"capture_features has {len(listed)} names, an event holds {MAX_FEATURES}; list the ones that are needed"
        )
    return listed


def _of(prediction: Prediction, rows: NDArray[Any]) -> Prediction:
    """`prediction` with nothing but `rows`, which are few, of its output."""
    outcome = prediction.outcome
    scores, probabilities = (
        values[rows] if values is not None and len(values) == prediction.rows else None
        for values in (outcome.scores, outcome.probabilities)
    )
    few = outcome._replace(scores=scores, labels=None, probabilities=probabilities)
    return Prediction(
        prediction.model, prediction.operation, len(rows), few, prediction.start, prediction.duration
    )


def _of_call(prediction: Prediction, *, adjustable: bool) -> dict[str, AttributeValue]:
    attributes: dict[str, AttributeValue] = {}
    if prediction.error_type is not None:
        attributes[semconv.ERROR_TYPE] = prediction.error_type
    if not adjustable:
        attributes[semconv.SAMPLING_ADJUSTABLE] = False
    return attributes


def _sampling(selection: Selection, allowed: int, *, adjustable: bool) -> dict[str, list[Any]]:
    """How each row came to be kept. Threshold and randomness are always both there: a sampler downstream that
    finds one of them alone refuses the record."""
    columns: dict[str, list[Any]] = {
        semconv.SAMPLING_REASON: selection.reasons[:allowed].tolist(),
        semconv.SAMPLING_THRESHOLD: [
            threshold_text(value) for value in selection.thresholds[:allowed].tolist()
        ],
        semconv.SAMPLING_RANDOMNESS: [
            randomness_text(value) for value in selection.randomness[:allowed].tolist()
        ],
    }
    if adjustable:
        columns[semconv.SAMPLING_PROBABILITY] = selection.probabilities[:allowed].tolist()
    if selection.strata is not None:
        columns[semconv.SAMPLING_STRATUM] = [
            label_of(stratum) or None for stratum in selection.strata[:allowed].tolist()
        ]
    return columns


# --- values -----------------------------------------------------------------------------------------------


def plain(value: object) -> Plain | None:
    """`value` as an attribute that every exporter can send; None for one that is missing, not finite or no scalar."""
    if is_missing(value):
        return None
    if isinstance(value, np.generic):  # a date of numpy has no faithful value of Python
        value = str(value) if value.dtype.kind in "mM" else value.item()
    if isinstance(value, (bool, str)):
        return value if isinstance(value, bool) else text(value)
    if isinstance(value, int):  # beyond 64 bits one record would fail the export of its whole batch
        return value if -(2**63) <= value < 2**63 else text(str(value))
    if isinstance(value, (float, Decimal)):
        return _finite(float(value))
    if isinstance(value, date):
        return value.isoformat()
    return text(value.decode("utf-8", "replace")) if isinstance(value, bytes) else None


def text(value: str) -> str:
    """`value` as text that can be encoded, cut to `MAX_TEXT` characters."""
    return value[:MAX_TEXT].encode("utf-8", "replace").decode()


def label_of(value: object) -> str | None:
    """A label, or any other category, in its canonical form; None for a missing one."""
    return None if is_missing(value) else text(category(value))


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
