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

from typing import NamedTuple, cast

import numpy as np
from numpy.typing import NDArray

from .model import Model


class Outcome(NamedTuple):  # made on every call: a fifth of what a frozen dataclass takes
    """What the output of a call says about its n rows."""

    scores: NDArray[np.float64] | None = None
    """(n,) or None when the output holds no score."""
    score_type: str = "value"
    labels: NDArray[np.generic] | None = None
    """(n,) of any dtype, or None when the output names no label."""


class Prediction(NamedTuple):
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
_F8 = np.dtype("f8")
_READ = (float, int, str, list, tuple, np.ndarray, np.generic)


def read_outcome(output: object, model: Model, operation: str) -> Outcome:
    """Scores and labels of `output`, by the table above; an output of another form says nothing."""
    values = as_array(output)
    if values is None or values.size == 0:
        return NOTHING
    if operation in ("decision_function", "score_samples"):
        return _margins(values, model, operation)
    if values.ndim == 2 and values.shape[1] == 1:
        values = values[:, 0]
    if values.ndim == 2 and model.task != "regression":
        return _rows_of_probabilities(values, model, operation)
    if values.ndim != 1:
        return NOTHING
    if _names_labels(values, model):
        return Outcome(labels=values)
    if values.dtype.kind not in "fiub":
        return NOTHING
    return Outcome(scores=_floats(values), score_type=_score_type(model))


def _floats(values: NDArray[np.generic]) -> NDArray[np.float64]:
    if values.dtype is _F8:  # the call of one row is short: even an astype that does nothing shows in it
        return cast("NDArray[np.float64]", values)
    return values.astype(np.float64, copy=False)


def as_array(output: object) -> NDArray[np.generic] | None:
    """Numbers, labels or rows of them; None for anything else, which is neither walked through nor computed."""
    if type(output) is np.ndarray and output.ndim and output.dtype.kind in "fiubU":
        return output
    kind = type(output)
    if not isinstance(output, _READ) and (not hasattr(kind, "__array__") or hasattr(kind, "__dask_graph__")):
        return None
    try:
        values = np.asarray(output)
    except Exception:  # ragged, or an object that refuses to be an array in a way of its own
        return None
    if values.dtype.kind not in "fiubUO":
        return None
    if values.dtype.kind == "O" and not all(isinstance(value, (str, int, float)) for value in values.flat):
        return None
    return values.reshape(1) if values.ndim == 0 else values


def _margins(values: NDArray[np.generic], model: Model, operation: str) -> Outcome:
    if values.dtype.kind not in "fiu":
        return NOTHING
    numbers = _floats(values)
    anomaly = operation == "score_samples" or model.task == "outlier"
    score = numbers if numbers.ndim == 1 else numbers.max(axis=1)
    return Outcome(scores=score, score_type="anomaly" if anomaly else "margin")


def _rows_of_probabilities(values: NDArray[np.generic], model: Model, operation: str) -> Outcome:
    if values.dtype.kind != "f":
        return NOTHING
    p = _floats(values)
    if operation != "predict_proba" and not _sums_to_one(p):
        return NOTHING
    scores = p[:, 1] if p.shape[1] == 2 else p.max(axis=1)
    return Outcome(scores=scores, score_type="probability", labels=_likeliest(p, model.classes))


def _likeliest(p: NDArray[np.float64], classes: tuple[object, ...] | None) -> NDArray[np.generic] | None:
    if classes is None:
        return np.asarray(p.argmax(axis=1))
    if len(classes) != p.shape[1]:
        return None
    if len(p) == 1:  # one label, without an array of all of them on every call
        best = int(p.argmax())
        return np.asarray(classes[best : best + 1])
    return np.asarray(np.asarray(classes)[p.argmax(axis=1)])


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
