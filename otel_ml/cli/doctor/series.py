"""How many series a model makes, at most: what a backend will be asked to hold.

Over OTLP a histogram is one series. On a Prometheus page it is one for each bucket, beside `_sum` and `_count`
where there is a sum. A state or label that never occurs makes none.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from ... import semconv, wire
from ...model import Model
from ...segment import MAX_FEATURES as MAX_SEGMENTED
from ...semconv import OTHER, STATES
from ...summary import CategoricalSummary, NumericSummary, Summary

_UNIFORM = 20
"""Buckets of a probability without a baseline."""
_NUMERIC_STATES = len(STATES) - 1  # a number is never unseen


@dataclass(frozen=True, slots=True)
class Series:
    """Series of a model, by where they go."""

    otlp: int
    baseline: int
    """Over OTLP, the baseline's own counts; included in `otlp`."""
    prometheus: int

    def __add__(self, other: Series) -> Series:
        return Series(
            self.otlp + other.otlp, self.baseline + other.baseline, self.prometheus + other.prometheus
        )


def most(model: Model, operations: int = 1) -> Series:
    """The most series that `operations` of `model` make."""
    segments = 1 if model.segment is None else len(model.segment.names)
    # of each operation: rows, and the durations of calls that succeed
    otlp, scraped = 2 * operations, (len(semconv.DURATION_BOUNDS) + 4) * operations
    for live, page in (_scores(model), _uncertainty(model), _labels(model)):
        otlp, scraped = otlp + live * segments, scraped + page * segments
    features = list(_features(model, segments))
    otlp += sum(live * times for live, _, times in features) + _projections(model)
    room = wire.PROMETHEUS_FEATURES
    for _, page, times in features:
        if times <= room:
            room -= times
            scraped += page * times
    sent = sum(len(metric.data.data_points) for metric in wire.baselines([model], 0))
    return Series(otlp + sent, sent, scraped)


def _scores(model: Model) -> tuple[int, int]:
    scores = None if model.baseline is None else model.baseline.scores
    if scores is None:
        return 1, _UNIFORM + 2
    assert model.baseline is not None
    sums = 2 if model.baseline.score_type == "probability" else 0
    return 1, len(scores.bounds) + 1 + sums


def _uncertainty(model: Model) -> tuple[int, int]:
    known = None if model.baseline is None else model.baseline.uncertainty
    if known is not None:
        return 1, len(known.bounds) + 3
    return (1, _UNIFORM + 2) if len(model.classes or ()) > 2 else (0, 0)


def _labels(model: Model) -> tuple[int, int]:
    predictions = None if model.baseline is None else model.baseline.predictions
    known = () if predictions is None else (*predictions.categories, *[OTHER] * (predictions.other > 0))
    names = len(known or model.classes or ())
    return names, names


def _features(model: Model, segments: int) -> Iterator[tuple[int, int, int]]:
    """Series of each feature over OTLP, on a Prometheus page, and how many segments it is counted in."""
    known: dict[str, Summary | None] = {**model.features()}
    if model.baseline is None:
        known = dict.fromkeys(model.feature_names or ())
    listed = frozenset(known) if model.segment is None else model.segment.listed(model.baseline)
    if listed is None:
        listed = frozenset(list(known)[:MAX_SEGMENTED])
    for name, summary in known.items():
        yield *_feature(summary), segments if name in listed else 1


def _feature(summary: Summary | None) -> tuple[int, int]:
    if summary is None:  # an exponential histogram, which no Prometheus page can hold
        return 1 + _NUMERIC_STATES, _NUMERIC_STATES
    if isinstance(summary, NumericSummary):
        return 1 + _NUMERIC_STATES, len(summary.bounds) + 1 + _NUMERIC_STATES
    if isinstance(summary, CategoricalSummary):
        amount = len(summary.categories) + 1 + (3 if summary.complete else 2)
        return amount, amount
    return 2, 2


def _projections(model: Model) -> int:
    return 0 if model.baseline is None else len(model.baseline.projections)
