"""For your own tests: what otel-ml recorded, as plain values, with no set-up and no export.

    from otel_ml.testing import recorded

    with recorded() as seen:
        predict(customers)
    assert seen.features["age"].states == {"ok": 2, "missing": 1}

It works on functions that were decorated at import, on registered objects and after `instrument()`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, TypeVar

from opentelemetry.sdk.metrics.export import ExponentialHistogramDataPoint, HistogramDataPoint

from . import _guard, pipeline, semconv
from ._memory import Memory
from .events import label_of
from .model import Model
from .prediction import read_outcome, uncertainties

__all__ = ["Event", "Feature", "Feedback", "Prediction", "Recorded", "Span", "Violation", "recorded"]

Value = str | bool | int | float
R = TypeVar("R", "Prediction", "Span", "Event", "Violation", "Feedback")


@dataclass(frozen=True, slots=True)
class Prediction:
    """One call of a model."""

    model: str
    version: str
    operation: str
    """predict, predict_proba, …"""
    rows: int
    """Rows that were answered; 0 when the call raised."""
    scores: tuple[float, ...]
    """One a row; empty when the output holds none, or another operation on the same rows has told them before."""
    score_type: str | None
    """probability, margin, anomaly or value."""
    labels: tuple[str | None, ...]
    """One a row as telemetry spells it, "true" or "1"; empty as for scores."""
    duration: float
    """Seconds."""
    error: str | None = None
    """Type of the exception that the call raised."""
    variant: str | None = None
    uncertainties: tuple[float, ...] = ()
    """One a row, 0 certain to 1 undecided, NaN where it is not known; empty where `ml.prediction.uncertainty` counts
    none."""

    @property
    def score(self) -> float | None:
        """The score of the only row; None when there is none. `ValueError` for several rows."""
        return _only("scores", self.scores)

    @property
    def label(self) -> str | None:
        """The label of the only row; None when there is none. `ValueError` for several rows."""
        return _only("labels", self.labels)


@dataclass(frozen=True, slots=True)
class Feature:
    """All values of one feature, as counts."""

    name: str
    n: int
    """Values, all states."""
    states: dict[str, int]
    """ok, missing, non_finite, out_of_range, unseen, type_mismatch: those that occurred."""
    buckets: dict[tuple[float, float], int]
    """Numbers by (lower, upper] bounds, those of the baseline if there is one; empty buckets are left out."""
    categories: dict[str, int]
    """Categories by name, `__other__` and `__unseen__` among them."""


@dataclass(frozen=True, slots=True)
class Span:
    """A span that ended."""

    name: str
    model: str
    version: str
    attributes: dict[str, Any]
    duration: float
    """Seconds."""
    error: str | None
    """Type of the exception, when the call raised."""
    span_id: str
    parent_id: str | None
    """16 hexadecimal digits each; no parent for the first span of a trace."""


@dataclass(frozen=True, slots=True)
class Event:
    """An event of a row that a sampler kept."""

    id: str
    """What `otel_ml.current_prediction_id` gives for the row."""
    model: str
    version: str
    features: dict[str, Value]
    """The values of `capture_features`, after `redact`."""
    attributes: dict[str, Any]
    """Everything it carries."""


@dataclass(frozen=True, slots=True)
class Feedback:
    """A truth that was told."""

    id: str | None
    model: str
    version: str
    label: str | None
    value: float | None
    """What was right: a label, or the value of a regressor."""
    source: str | None
    attributes: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Violation:
    """Rows whose input does not match the baseline."""

    model: str
    version: str
    reason: str
    """missing, extra, type or width."""
    feature: str | None
    rows: int


@dataclass(slots=True)
class Recorded:
    """What was recorded so far; after the block, what was recorded in it."""

    _memory: Memory
    _calls: list[Prediction]
    _wanted: dict[str, str] = field(default_factory=dict)

    def of(self, model: str, version: str | None = None) -> Recorded:
        """What was recorded of one model, or of one version of it."""
        wanted = {semconv.MODEL_NAME: model, semconv.MODEL_VERSION: version}
        return Recorded(
            self._memory, self._calls, {name: value for name, value in wanted.items() if value is not None}
        )

    @property
    def predictions(self) -> list[Prediction]:
        """The calls in the order in which they ended."""
        return self._mine(self._calls)

    @property
    def features(self) -> dict[str, Feature]:
        """Every feature by name, all models together; `of` tells those of equal names apart."""
        found: dict[str, Feature] = {}
        for metric, point in self._points(*_FEATURE_METRICS):
            name = point.attributes[semconv.FEATURE_NAME]
            feature = found.get(name, Feature(name, 0, {}, {}, {}))
            found[name] = _with(feature, metric, point)
        return found

    @property
    def spans(self) -> list[Span]:
        """Spans of predictions in the order in which they ended."""
        return self._mine(
            [_span(one) for one in self._memory.spans() if semconv.BATCH_SIZE in one.attributes]
        )

    @property
    def events(self) -> list[Event]:
        """Events of the rows that were kept."""
        return self._mine([_event(made) for made in self._memory.events(semconv.PREDICTION_EVENT)])

    @property
    def feedback(self) -> list[Feedback]:
        """Truths in the order in which they were told."""
        return self._mine([_feedback(made) for made in self._memory.events(semconv.FEEDBACK_EVENT)])

    @property
    def violations(self) -> list[Violation]:
        """Rows whose input does not match the baseline, by feature and reason."""
        return [
            Violation(
                point.attributes[semconv.MODEL_NAME], point.attributes[semconv.MODEL_VERSION],
                point.attributes[semconv.REASON], point.attributes.get(semconv.FEATURE_NAME), point.value,
            )
            for _, point in self._points(semconv.SCHEMA_VIOLATIONS)
        ]  # fmt: skip

    @property
    def dropped(self) -> dict[str, int]:
        """Rows that were not recorded, by reason, of all models."""
        return self._by_reason(semconv.DROPPED)

    @property
    def errors(self) -> dict[str, int]:
        """Failures inside otel-ml by place, of all models; `OTEL_PYTHON_ML_RAISE=1` raises them instead."""
        return self._by_reason(semconv.ERRORS)

    def _by_reason(self, metric: semconv.Metric) -> dict[str, int]:
        points = Recorded(self._memory, self._calls)._points(metric)
        return {point.attributes[semconv.REASON]: point.value for _, point in points}

    def _points(self, *wanted: semconv.Metric) -> list[tuple[str, Any]]:
        names = {metric.name for metric in wanted}
        return [
            (metric, point)
            for metric, point in self._memory.points()
            if metric in names and self._wanted.items() <= dict(point.attributes).items()
        ]

    def _mine(self, values: Sequence[R]) -> list[R]:
        name, version = (self._wanted.get(key) for key in (semconv.MODEL_NAME, semconv.MODEL_VERSION))
        return [one for one in values if name in (None, one.model) and version in (None, one.version)]


@contextmanager
def recorded() -> Iterator[Recorded]:
    """Record everything inside into the value that it gives, and nothing anywhere else.

    The providers of the application, if it has any, see nothing of it, and `configure()` sets none up meanwhile.
    Afterwards everything is as it was. It is for the whole process, threads included: not for two tests at a time in
    one process.
    """
    calls: list[Prediction] = []

    def tell(model: Model, operation: str, *told: Any) -> None:
        calls.append(_prediction(model, operation, *told))

    with _guard.set_aside():
        memory = Memory(tell)
        with pipeline.replaced(memory.producer, memory.meters, memory.tracers, memory.loggers):
            try:
                yield Recorded(memory, calls)
            finally:
                memory.close()


# --- plain values -----------------------------------------------------------------------------------------

_FEATURE_METRICS = (semconv.FEATURE_OBSERVATIONS, semconv.FEATURE_VALUE, semconv.FEATURE_CATEGORIES)
T = TypeVar("T")


def _prediction(
    model: Model, operation: str, rows: int, output: Any, duration: int, error: str | None
) -> Prediction:
    outcome = read_outcome(output, model, operation)
    scores = () if outcome.scores is None else tuple(outcome.scores.tolist())
    labels = () if outcome.labels is None else tuple(map(label_of, outcome.labels.tolist()))
    unsure = uncertainties(outcome, model)
    kind = outcome.score_type if scores else None
    seconds = duration * 1e-9
    return Prediction(
        model.name, model.version, operation, rows, scores, kind, labels, seconds, error, model.variant,
        () if unsure is None else tuple(unsure.tolist()),
    )  # fmt: skip


def _only(name: str, values: Sequence[T]) -> T | None:
    if len(values) > 1:
        raise ValueError(f"the call had {len(values)} rows; look at .{name}")
    return values[0] if values else None


def _with(feature: Feature, metric: str, point: Any) -> Feature:
    """`feature` with the counts of one more series."""
    n, states, buckets, categories = feature.n, feature.states, feature.buckets, feature.categories
    if metric == semconv.FEATURE_OBSERVATIONS.name:
        n += point.value
        states = _sum(states, {point.attributes[semconv.FEATURE_STATE]: point.value})
    elif metric == semconv.FEATURE_CATEGORIES.name:
        categories = _sum(categories, {point.attributes[semconv.FEATURE_CATEGORY]: point.value})
    else:
        buckets = dict(sorted(_sum(buckets, _buckets(point)).items()))
    return Feature(feature.name, n, states, buckets, categories)


K = TypeVar("K")


def _sum(a: Mapping[K, int], b: Mapping[K, int]) -> dict[K, int]:
    more = {key: a.get(key, 0) + value for key, value in b.items() if value}
    return {**a, **more}


def _buckets(point: HistogramDataPoint | ExponentialHistogramDataPoint) -> dict[tuple[float, float], int]:
    if isinstance(point, HistogramDataPoint):
        edges = [-math.inf, *point.explicit_bounds, math.inf]
        return dict(zip(pairwise(edges), point.bucket_counts, strict=True))
    width = 2.0**-point.scale
    found = {(0.0, 0.0): point.zero_count}
    for i, count in enumerate(point.positive.bucket_counts, point.positive.offset):
        found[_power(i * width), _power((i + 1) * width)] = count
    for i, count in enumerate(point.negative.bucket_counts, point.negative.offset):
        found[-_power((i + 1) * width), -_power(i * width)] = count
    return found


def _power(exponent: float) -> float:
    """2**exponent; the bucket of the largest numbers has no finite end."""
    return math.inf if exponent >= 1024 else 2.0**exponent


def _span(span: Any) -> Span:
    attributes = dict(span.attributes)
    return Span(
        span.name, str(attributes.get(semconv.MODEL_NAME)), str(attributes.get(semconv.MODEL_VERSION)), attributes,
        (span.end_time - span.start_time) * 1e-9, attributes.get(semconv.ERROR_TYPE), f"{span.context.span_id:016x}",
        None if span.parent is None else f"{span.parent.span_id:016x}",
    )  # fmt: skip


def _event(attributes: Mapping[str, Any]) -> Event:
    prefix = f"{semconv.FEATURE_VALUE.name}."
    features = {
        name.removeprefix(prefix): value for name, value in attributes.items() if name.startswith(prefix)
    }
    return Event(
        attributes[semconv.PREDICTION_ID], attributes[semconv.MODEL_NAME], attributes[semconv.MODEL_VERSION],
        features, dict(attributes),
    )  # fmt: skip


def _feedback(attributes: Mapping[str, Any]) -> Feedback:
    return Feedback(
        attributes.get(semconv.PREDICTION_ID), attributes.get(semconv.MODEL_NAME, ""),
        attributes.get(semconv.MODEL_VERSION, ""), attributes.get(semconv.FEEDBACK_LABEL),
        attributes.get(semconv.FEEDBACK_VALUE), attributes.get(semconv.FEEDBACK_SOURCE), dict(attributes),
    )  # fmt: skip
