"""Ground truth: what a prediction should have been, told minutes or months after it.

Each truth is an `ml.feedback` event. Its span links to the span of the prediction, which is in another trace and
long over. A true value is a float, a true label anything else; predictions are told apart in the same way.
"""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from collections.abc import Set as AnySet
from contextlib import contextmanager
from dataclasses import dataclass
from enum import Enum
from typing import Any, Final

import numpy as np
from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.trace import Link, SpanContext
from opentelemetry.util.types import AttributeValue

from . import _guard, ids, pipeline, semconv
from ._version import __version__
from .columns import is_missing
from .errors import ConfigurationError
from .events import Logs, label_of, text
from .ids import PredictionId
from .observer import suppressed

Truth = str | bool | int | float


class _Missing(Enum):
    """An id that was not given at all; one that is None was asked for where there was none."""

    NOT_GIVEN = "not given"

    def __repr__(self) -> str:
        return "…"


LINKS: Final = 128
"""Links that the SDK keeps of a span by default; truths of more predictions get more spans."""


def feedback(
    *,
    label: Truth | Sequence[Truth],
    prediction_id: str | Sequence[str] | _Missing = _Missing.NOT_GIVEN,
    prediction: Truth | Sequence[Truth] | None = None,
    score: float | Sequence[float] | None = None,
    model: str | None = None,
    version: str | None = None,
    source: str | None = None,
) -> None:
    """Record the truth of a prediction, or of many at once.

    label: what was right. A str, int or bool is a label, a float is the value that a regressor should have given.
    prediction_id: what `otel_ml.current_prediction_id()` returned, or the event's `ml.prediction.id`. None is refused:
        that function gives it outside of an observed call. In a list it stands for a prediction that has no id.
    prediction, score: what the model had answered, where you kept that instead of, or beside, the id.
    model, version: who had answered; `model` is needed where there is no id.
    source: who knew: "human", "chargeback", "label-tool"; at most 20 different ones are counted by name.

    label, prediction_id, prediction and score can be sequences of one length, a list, an array or a column.

    Raises `ConfigurationError`, before anything is recorded, for an id that is none, a label that is missing,
    lengths that differ. Whatever fails after that is logged and counted, never raised.
    """
    if prediction_id is None:
        raise ConfigurationError(_NO_ID)
    ids_given = None if prediction_id is _Missing.NOT_GIVEN else prediction_id
    truths = _read(label, ids_given, prediction, score)
    if version is not None and model is None:
        raise ConfigurationError(f"version={version!r} says nothing without a model; add model=")
    if model is None and any(truth.id is None for truth in truths):
        raise ConfigurationError("nobody can tell what this is the truth of; give prediction_id=, or model=")
    given = {semconv.MODEL_NAME: model, semconv.MODEL_VERSION: version, semconv.FEEDBACK_SOURCE: source}
    wrong = {name: value for name, value in given.items() if not isinstance(value, (str, type(None)))}
    if wrong:
        raise ConfigurationError(f"model, version and source are strings, not {[*wrong.values()]!r}")
    if not suppressed():
        with _guard.guard("feedback"):
            _record(truths, {name: text(value) for name, value in given.items() if value is not None})


@dataclass(frozen=True, slots=True)
class _Truth:
    """One truth, valid."""

    id: PredictionId | None
    attributes: Mapping[str, AttributeValue]

    @property
    def label(self) -> str | None:
        label = self.attributes.get(semconv.FEEDBACK_LABEL)
        return None if label is None else str(label)


def _record(truths: Sequence[_Truth], common: Mapping[str, str]) -> None:
    now = time.time_ns()
    source = common.get(semconv.FEEDBACK_SOURCE)
    model = {name: value for name, value in common.items() if name != semconv.FEEDBACK_SOURCE}
    # an id has whole seconds, and the clock that made it was perhaps another one
    delays = [max(now * 1e-9 - truth.id.seconds, 0.0) for truth in truths if truth.id is not None]
    pipeline.producer().add_truths(model, source, Counter(truth.label for truth in truths), delays)
    logs = Logs(pipeline.logger_provider())
    for start in range(0, len(truths), LINKS):
        some = truths[start : start + LINKS]
        with _span(some, common) as context:
            for truth in some if logs.active else ():
                attributes = {**truth.attributes, **common}
                logs.emit(semconv.FEEDBACK_EVENT, attributes, timestamp=now, context=context)


@contextmanager
def _span(truths: Iterable[_Truth], common: Mapping[str, str]) -> Iterator[Context | None]:
    """The context of a span that links to the spans of the predictions; None when none of them had one."""
    spans: dict[tuple[int, int], SpanContext] = {}
    for truth in truths:
        found = None if truth.id is None else truth.id.span
        if found is not None:
            spans[found.trace_id, found.span_id] = found
    if not spans:
        yield None
        return
    tracer = trace.get_tracer(semconv.SDK_SCOPE, __version__, tracer_provider=pipeline.tracer_provider())
    name = f"feedback {common.get(semconv.MODEL_NAME, '')}".rstrip()
    span = tracer.start_span(name, attributes=dict(common), links=[Link(one) for one in spans.values()])
    try:
        yield trace.set_span_in_context(span)
    finally:
        span.end()


_NO_ID: Final = (
    "prediction_id=None is no id: otel_ml.current_prediction_id() gives one inside of an observed call only. To give "
    "the truth by value, leave prediction_id out and say model= and prediction= or score="
)

# --- reading the arguments --------------------------------------------------------------------------------


def _read(label: object, prediction_id: object, prediction: object, score: object) -> list[_Truth]:
    """The truths that the arguments hold; `ConfigurationError` when one of them cannot be right."""
    labels = _several("label", label)
    columns = {
        name: [None] * len(labels) if given is None else _several(name, given)
        for name, given in (("prediction_id", prediction_id), ("prediction", prediction), ("score", score))
    }
    wrong = [f"{name} has {len(v)}" for name, v in columns.items() if len(v) != len(labels)]
    if wrong:
        raise ConfigurationError(
            f"label has {len(labels)} value{'s' * (len(labels) != 1)} and {', '.join(wrong)}; give every column one "
            "for each label, or leave it out"
        )
    return [
        _truth(*values)
        for values in zip(
            labels, columns["prediction_id"], columns["prediction"], columns["score"], strict=True
        )
    ]


def _several(name: str, given: object) -> list[Any]:
    """`given` as a list, a single one as a list of one."""
    if isinstance(given, (str, bytes)) or np.isscalar(given) or given is None:
        return [given]
    if isinstance(given, (Mapping, AnySet)) or not isinstance(given, Iterable):
        raise ConfigurationError(f"{name} is a {type(given).__name__}; give one value or a list of them")
    if getattr(given, "ndim", 1) != 1:
        raise ConfigurationError(
            f"{name} has {getattr(given, 'ndim', 0)} dimensions; give a list, a value each"
        )
    return list(given)


def _truth(label: object, prediction_id: object, prediction: object, score: object) -> _Truth:
    attributes = _told("label", label, semconv.FEEDBACK_LABEL, semconv.FEEDBACK_VALUE)
    made = None
    if prediction_id is not None:
        made = ids.parse(prediction_id)
        attributes[semconv.PREDICTION_ID] = str(made)
    if prediction is not None:
        attributes |= _told("prediction", prediction, semconv.PREDICTION_LABEL, semconv.PREDICTION_VALUE)
    if score is not None:
        attributes[semconv.PREDICTION_SCORE] = _number("score", score)
    return _Truth(made, attributes)


def _told(name: str, value: object, as_label: str, as_value: str) -> dict[str, AttributeValue]:
    """`value` under the attribute for labels or, a float, under that for values."""
    if is_missing(value):
        raise ConfigurationError(f"{name} is {value!r}; leave out what is not known yet")
    if isinstance(value, (float, np.floating)):
        return {as_value: _number(name, value)}
    if not isinstance(value, (str, int, np.bool_, np.integer)):
        raise ConfigurationError(f"{name}={value!r} is no label and no value; give a str, int, bool or float")
    return {as_label: label_of(value) or ""}


def _number(name: str, value: object) -> float:
    made = float(value) if isinstance(value, (int, float, np.number)) else math.nan
    if not math.isfinite(made):
        raise ConfigurationError(f"{name}={value!r} is not a finite number; leave out what is not known")
    return made
