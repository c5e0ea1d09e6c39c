"""One call of a model as a value, and what its output says: scores and labels.

| output | scores | labels |
|---|---|---|
| predict_proba, (n, 2) | P(classes[1]), probability | classes[argmax] |
| predict_proba, (n, k) | the largest probability | classes[argmax] |
| predict_proba, (n,) | probability | - |
| predict_log_proba | as predict_proba, of the exponentials | as predict_proba |
| decision_function | margin (anomaly for outlier detectors); the largest of a row | - |
| score_samples | anomaly | - |
| predict of a classifier, clusterer or outlier detector | -, or those of an `Answer` | the values |
| predict of a regressor or ranker | value | - |
| any other function: floats | value, or the baseline's score type | - |
| any other function: integers, booleans, strings | - | the values |
| any other function: rows of probabilities (n, k) | as predict_proba | as predict_proba |
| several outputs a row: predict (n, k), predict_proba in a list or of labels that do not exclude each other | - | - |

A column (n, 1) is read as (n,). Of a tuple that begins with an array, as `predict(X, return_std=True)` gives, that
array is read. Which of several outputs counts, only its owner knows: `observe(score=…)` picks one.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple, cast

import numpy as np
from numpy.typing import NDArray

from . import uncertainty
from .model import Model

if TYPE_CHECKING:
    from .rows import Rows


class Outcome(NamedTuple):  # made on every call: a fifth of what a frozen dataclass takes
    """What the output of a call says about its n rows."""

    scores: NDArray[np.float64] | None = None
    """(n,) or None when the output holds no score."""
    score_type: str = "value"
    labels: NDArray[np.generic] | None = None
    """(n,) of any dtype, or None when the output names no label."""
    probabilities: NDArray[np.float64] | None = None
    """(n, k) probabilities of the classes, or None when the output does not hold them all."""


class Answer(NamedTuple):
    """What a call returned, with what the model's own scoring gave it on the way there."""

    output: object
    operation: str
    """What gave `nested`: predict_proba or decision_function."""
    nested: object
    """(n,) or (n, k), of the same rows as `output`."""


@dataclass(slots=True, eq=False)  # not frozen: that makes one in four times the time, on every call
class Prediction:
    """One call: who answered, what was given and answered, when and for how long. To be read, not changed."""

    model: Model
    operation: str
    rows: int
    outcome: Outcome
    start: int
    """Unix nanoseconds."""
    duration: int
    """Nanoseconds."""
    error_type: str | None = None
    """Class of the exception when the call raised; its outcome says nothing then."""
    input: Rows | None = None

    def column(self, name: str) -> NDArray[np.generic] | None:
        """The (n,) values given for a feature; None when there are none."""
        return None if self.input is None else self.input.column(name)

    def value(self, name: str) -> object:
        """What the only row has for a feature, in less time than its column; None when there is none."""
        return None if self.input is None else self.input.value(name)

    def uncertainty(self, measure: str) -> NDArray[np.float64]:
        """(n,) in [0, 1] by a measure of `uncertainty.MEASURES`, NaN where the output does not tell."""
        p, scores = self.outcome.probabilities, self.outcome.scores
        if p is not None and len(p) == self.rows:
            return uncertainty.MEASURES[measure](p)
        if scores is not None and len(scores) == self.rows and _of_two_classes(self.model, self.outcome):
            return uncertainty.binary(measure, scores)
        return np.full(self.rows, np.nan)

    def row_uncertainty(self, measure: str) -> float:
        """`uncertainty` of the only row, in less time."""
        p, scores = self.outcome.probabilities, self.outcome.scores
        if p is not None and len(p) == 1:
            return uncertainty.of_row(measure, p[0].tolist())
        if scores is not None and len(scores) == 1 and _of_two_classes(self.model, self.outcome):
            return uncertainty.of_score(measure, float(scores[0]))
        return math.nan


def uncertainties(outcome: Outcome, model: Model) -> NDArray[np.float64] | None:
    """(n,) in [0, 1], what the histogram of uncertainty counts, NaN where it is not known; None: nothing is counted.

    That of two classes follows from the score: it is counted only where the baseline has it too.
    """
    p, scores = outcome.probabilities, outcome.scores
    if scores is None or outcome.score_type != "probability":
        return None
    asked = model.baseline is not None and model.baseline.uncertainty is not None
    if not asked and (p is None or p.shape[1] < 3):
        return None
    with np.errstate(invalid="ignore"):
        found = (
            uncertainty.binary(uncertainty.COUNTED, scores)
            if p is None
            else uncertainty.MEASURES[uncertainty.COUNTED](p)
        )
    finite = np.isfinite(scores)
    return found if finite.all() else np.where(finite, found, np.nan)


NOTHING = Outcome()
_F8 = np.dtype("f8")
_OTHERWISE = frozenset(("predict_proba", "predict_log_proba", "decision_function", "score_samples"))
"""Operations whose floats are read in a way of their own."""
_READ = (float, int, str, list, tuple, np.ndarray, np.generic)


def read_outcome(output: object, model: Model, operation: str) -> Outcome:
    """Scores and labels of `output`, by the table above; an output of another form says nothing.

    Of an `Answer` the output gives the labels and the nested output what else there is.
    """
    if (
        type(output) is np.ndarray
        and output.ndim == 1
        and output.dtype is _F8
        and operation not in _OTHERWISE
    ):
        if output.size and (
            model.task is None or model.task == "regression"
        ):  # the most frequent, in half the time
            return Outcome(output, _score_type(model))
    elif type(output) is Outcome:  # read already, by those who know better than the operation's name
        return output
    elif type(output) is Answer:
        own, nested = (
            read_outcome(output.output, model, operation),
            read_outcome(output.nested, model, output.operation),
        )
        return nested._replace(labels=own.labels) if own.scores is None else own
    values = as_array(output)
    if values is None or values.size == 0:
        return NOTHING
    if operation == "predict_log_proba" and values.dtype.kind == "f":
        values, operation = np.exp(values), "predict_proba"
    if operation == "predict_proba":
        return _probabilities(values, model)
    if operation in ("decision_function", "score_samples"):
        return _margins(values, model, operation)
    if values.ndim == 2 and values.shape[1] == 1:
        values = values[:, 0]
    if values.ndim == 2 and model.task is None and _sums_to_one(values):
        return _probabilities(values, model)
    if values.ndim != 1:
        return NOTHING
    if _names_labels(values, model):
        return Outcome(labels=values)
    if values.dtype.kind not in "fiub":
        return NOTHING
    return Outcome(_floats(values), _score_type(model))


def _floats(values: NDArray[np.generic]) -> NDArray[np.float64]:
    if values.dtype is _F8:  # the call of one row is short: even an astype that does nothing shows in it
        return cast("NDArray[np.float64]", values)
    return values.astype(np.float64, copy=False)


def as_array(output: object) -> NDArray[np.generic] | None:
    """Numbers, labels or rows of them; None for anything else, which is neither walked through nor computed."""
    if type(output) is np.ndarray and output.ndim and (output.dtype is _F8 or output.dtype.kind in "fiubU"):
        return output
    output = of_rows(output)
    kind = type(output)
    if not isinstance(output, _READ) and (not hasattr(kind, "__array__") or hasattr(kind, "__dask_graph__")):
        return None
    try:
        values = np.asarray(output)
    except Exception:  # ragged, or an object that refuses to be an array in a way of its own
        return None
    if values.dtype.kind not in "fiubUSO":
        return None
    if values.dtype.kind == "O" and not all(isinstance(value, (str, int, float)) for value in values.flat):
        return None
    return values.reshape(1) if values.ndim == 0 else values


def of_rows(output: object) -> object:
    """What an output says of the rows: of a tuple of arrays the first, of a list of matrices, one an output, None."""
    if not isinstance(output, (list, tuple)) or not output or not isinstance(output[0], np.ndarray):
        return output
    if isinstance(output, tuple):
        return output[0]
    return output if output[0].ndim < 2 else None


def _margins(values: NDArray[np.generic], model: Model, operation: str) -> Outcome:
    if values.dtype.kind not in "fiu" or values.ndim > 2:
        return NOTHING
    numbers = _floats(values)
    anomaly = operation == "score_samples" or model.task == "outlier"
    score = numbers if numbers.ndim == 1 else numbers.max(axis=1)
    return Outcome(scores=score, score_type="anomaly" if anomaly else "margin")


def _probabilities(values: NDArray[np.generic], model: Model) -> Outcome:
    if values.dtype.kind != "f" or values.ndim > 2:
        return NOTHING
    p = _floats(values)
    if p.ndim == 1 or (p.shape[1] == 1 and len(model.classes or ()) != 1):
        return Outcome(p.reshape(len(p)), "probability")
    if not uncertainty.excludes(p):
        return NOTHING
    return Outcome(uncertainty.score(p), "probability", _likeliest(p, model.classes), p)


def _likeliest(p: NDArray[np.float64], classes: tuple[object, ...] | None) -> NDArray[np.generic] | None:
    if classes is None:
        return np.asarray(p.argmax(axis=1))
    if len(classes) != p.shape[1]:
        return None
    if len(p) == 1:  # one label, without an array of all of them on every call
        best = int(p.argmax())
        return np.asarray(classes[best : best + 1])
    return np.asarray(np.asarray(classes)[p.argmax(axis=1)])


def _sums_to_one(values: NDArray[np.generic]) -> bool:
    if values.dtype.kind != "f":
        return False
    p = _floats(values)
    if len(p) == 1:  # 20 µs less on every call
        row: list[float] = p[0].tolist()
        return min(row) >= 0 and abs(sum(row) - 1.0) <= 1e-3
    return bool(np.all(p >= 0) and np.all(np.abs(p.sum(axis=1) - 1.0) <= 1e-3))


def _names_labels(values: NDArray[np.generic], model: Model) -> bool:
    if model.task is not None:
        return model.task != "regression"
    kind = values.dtype.kind
    return kind != "f" if kind != "O" else not all(isinstance(value, float) for value in values)


def _score_type(model: Model) -> str:
    told = None if model.baseline is None else model.baseline.score_type
    return "value" if told is None else str(told)


def _of_two_classes(model: Model, outcome: Outcome) -> bool:
    """Whether one score a row is the probability of one of two classes: known to be, or nothing speaks against it."""
    if outcome.score_type == "probability":
        return True
    told = model.baseline is not None and model.baseline.score_type is not None
    return outcome.score_type == "value" and model.task in (None, "classification") and not told
