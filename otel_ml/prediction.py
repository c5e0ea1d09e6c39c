"""One call of a model as a value, and what its output says: scores and labels.

| output | scores | labels |
|---|---|---|
| predict_proba, (n, 2) | P(classes[1]), probability | classes[argmax] |
| predict_proba, (n, k) | the largest probability | classes[argmax] |
| decision_function | margin (anomaly for outlier detectors); the largest of a row | - |
| score_samples | anomaly | - |
| predict of a classifier, clusterer or outlier detector | - | the values |
| predict of a regressor | value | - |
| any other function: floats | value, or the baseline's score type | - |
| any other function: integers, booleans, strings | - | the values |
| any other function: rows of probabilities (n, k) | as predict_proba | as predict_proba |
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .model import Model


@dataclass(frozen=True, slots=True)
class Outcome:
    """What the output of a call says about its n rows."""

    scores: NDArray[np.float64] | None = None
    """(n,) or None when the output holds no score."""
    score_type: str = "value"
    labels: NDArray[np.generic] | None = None
    """(n,) of any dtype, or None when the output names no label."""


@dataclass(frozen=True, slots=True)
class Prediction:
    """One call: who answered, what was given and answered, when and for how long."""

    model: Model
    operation: str
    rows: int
    outcome: Outcome
    start: int
    """Unix nanoseconds."""
    duration: int
    """Nanoseconds."""


NOTHING = Outcome()


def read_outcome(output: object, model: Model, operation: str) -> Outcome:
    """Scores and labels of `output`, by the table above; an output of another form says nothing."""
    values = _as_array(output)
    if values is None or values.size == 0:
        return NOTHING
    if operation in ("decision_function", "score_samples"):
        return _margins(values, model, operation)
    if values.ndim == 2 and values.shape[1] == 1:
        values = values[:, 0]
    if values.ndim == 2:
        return _rows_of_probabilities(values, model, operation)
    if values.ndim != 1:
        return NOTHING
    if _names_labels(values, model):
        return Outcome(labels=values)
    if values.dtype.kind not in "fiub":
        return NOTHING
    return Outcome(scores=values.astype(np.float64, copy=False), score_type=_score_type(model))


def _as_array(output: object) -> NDArray[np.generic] | None:
    if output is None or isinstance(output, (dict, set, bytes)):
        return None
    try:
        values = np.asarray(output)
    except (ValueError, TypeError):  # ragged, or an object that refuses to be an array
        return None
    if values.dtype.kind not in "fiubUO":
        return None
    if values.dtype.kind == "O" and not all(isinstance(value, (str, int, float)) for value in values.flat):
        return None
    return values.reshape(1) if values.ndim == 0 else values


def _margins(values: NDArray[np.generic], model: Model, operation: str) -> Outcome:
    if values.dtype.kind not in "fiu":
        return NOTHING
    numbers = values.astype(np.float64, copy=False)
    anomaly = operation == "score_samples" or model.task == "outlier"
    score = numbers if numbers.ndim == 1 else numbers.max(axis=1)
    return Outcome(scores=score, score_type="anomaly" if anomaly else "margin")


def _rows_of_probabilities(values: NDArray[np.generic], model: Model, operation: str) -> Outcome:
    if values.dtype.kind != "f":
        return NOTHING
    p = values.astype(np.float64, copy=False)
    if operation != "predict_proba" and not _sums_to_one(p):
        return NOTHING
    scores = p[:, 1] if p.shape[1] == 2 else p.max(axis=1)
    classes = np.asarray(model.classes if model.classes is not None else range(p.shape[1]))
    labels = classes[p.argmax(axis=1)] if len(classes) == p.shape[1] else None
    return Outcome(scores=scores, score_type="probability", labels=labels)


def _sums_to_one(p: NDArray[np.float64]) -> bool:
    return bool(np.all(p >= 0) and np.allclose(p.sum(axis=1), 1.0, atol=1e-3))


def _names_labels(values: NDArray[np.generic], model: Model) -> bool:
    if model.task == "regression":
        return False
    if model.task is not None:
        return True
    if values.dtype.kind == "O":
        return not all(isinstance(value, float) for value in values)
    return values.dtype.kind != "f"


def _score_type(model: Model) -> str:
    told = None if model.baseline is None else model.baseline.score_type
    return "value" if told is None else str(told)
