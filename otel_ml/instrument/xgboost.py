"""Recording the predictions of XGBoost: its classes of scikit-learn's kind, and Boosters themselves.

What a Booster answers is told by its objective:

| objective | output | read as |
|---|---|---|
| binary:logistic | (n,) | probability of the second class |
| binary:logitraw | (n,) | margin |
| binary:hinge, multi:softmax | (n,) | labels |
| multi:softprob | (n, K) | probabilities |
| any other, of ranking too | (n,) | value |
| any, with output_margin or predict_type="margin" | | margin |
| any, with pred_leaf, pred_contribs, pred_interactions | | features only, as an operation of their own |
"""

from __future__ import annotations

import ctypes
import hashlib
import json
import sys
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..library import Library, Question, teach
from ..model import Model, Task
from ..patch import Patches
from ..snapshot import Unread
from .instrumentor import LibraryInstrumentor
from .methods import suppressing, training
from .native import around, estimators_too, given, predictions

LIMIT = 2**24
"""Cells of a DMatrix above which its values are not read back: they are a copy, made while the caller waits."""

_ARGUMENTS = {
    "predict": (
        "self", "data", "output_margin", "pred_leaf", "pred_contribs", "approx_contribs", "pred_interactions",
        "validate_features", "training", "iteration_range", "strict_shape",
    ),
    "inplace_predict": (
        "self", "data", "iteration_range", "predict_type", "missing", "validate_features", "base_margin",
        "strict_shape",
    ),
}  # fmt: skip
_ESTIMATOR = ("self", "X", "output_margin")
_EXPLAINING = {
    "pred_leaf": "predict_leaf",
    "pred_contribs": "predict_contribs",
    "pred_interactions": "predict_interactions",
}
"""Options that ask for the way to an answer, and the operations that these calls are."""
_ANSWERS = {
    "binary:logistic": "predict_proba",
    "multi:softprob": "predict_proba",
    "binary:logitraw": "decision_function",
}


class XGBoostInstrumentor(LibraryInstrumentor):
    """Switches the recording of XGBoost on and off; XGBoost itself need not be imported yet."""

    distributions = ("xgboost", "xgboost-cpu")
    versions = ">= 2.1"


class _Estimators(Library):
    """XGBModel and what derives from it."""

    def content(self, obj: Any) -> Iterator[str]:
        """Of two models of equal parameters the trees differ."""
        yield from super().content(obj)
        yield from _content(getattr(obj, "_Booster", None))

    def asked(
        self, operation: str, answers: str, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Question | None:
        """A margin where one is asked for."""
        margin = given(_ESTIMATOR, args, kwargs).get("output_margin")
        return Question(operation, "decision_function" if margin else operation)


class _Boosters(Library):
    """Booster."""

    def task(self, obj: Any) -> Task | None:
        """By the objective; a ranker has no task."""
        kind = _objective(obj).partition(":")[0]
        if kind in ("binary", "multi"):
            return "classification"
        return None if kind == "rank" else "regression"

    def classes(self, obj: Any) -> None:
        """A Booster knows its classes by number only."""
        return

    def feature_names(self, obj: Any) -> tuple[str, ...] | None:
        """Those of the data it was trained on."""
        names = obj.feature_names
        return None if names is None else tuple(names)

    def content(self, obj: Any) -> Iterator[str]:
        """Objective, names, number of rounds, and the trees of the first and the last round."""
        yield from _content(obj)

    def answers(self, obj: Any) -> str:
        """As the table says."""
        return _ANSWERS.get(_objective(obj), "predict")

    def asked(
        self, operation: str, answers: str, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Question | None:
        """What the options say; what is predicted for training is no prediction."""
        plain = Question(operation, operation if answers == "predict" else answers)
        if len(args) <= 2 and not kwargs:
            return plain
        options = given(_ARGUMENTS[operation], args, kwargs)
        if options.get("training"):
            return None
        for option, explaining in _EXPLAINING.items():
            if options.get(option):
                return Question(explaining, None)
        margin = options.get("output_margin") or options.get("predict_type") == "margin"
        return Question(operation, "decision_function") if margin else plain

    def rows(self, data: Any, model: Model) -> Any:
        """The values of a DMatrix, read back; everything else as it is."""
        core: Any = sys.modules["xgboost.core"]
        return _of_dmatrix(data, core, model) if isinstance(data, core.DMatrix) else data


teach(_Estimators(), "xgboost.sklearn.XGBModel")
teach(_Boosters(), "xgboost.core.Booster")


# --- what a Booster tells ---------------------------------------------------------------------------------


def _objective(booster: Any) -> str:
    try:
        return str(json.loads(booster.save_config())["learner"]["objective"]["name"])
    except Exception:  # one that has not been trained yet
        return ""


def _content(booster: Any) -> Iterator[str]:
    objective = "" if booster is None else _objective(booster)
    if not objective:
        return
    yield objective
    yield repr(booster.feature_names)
    rounds = booster.num_boosted_rounds()
    yield str(rounds)
    yield from _rounds(booster, {0, rounds - 1} if rounds else ())


def _rounds(booster: Any, places: Any) -> Iterator[str]:
    """Texts of the trees of some rounds; of a model that cannot be cut or told in text, a hash of the whole."""
    try:
        yield from [tree for place in sorted(places) for tree in booster[place : place + 1].get_dump()]
    except Exception:
        yield hashlib.sha256(booster.save_raw()).hexdigest()


# --- what a DMatrix holds ---------------------------------------------------------------------------------


def _of_dmatrix(data: Any, core: Any, model: Model) -> Any:
    rows, width = data.num_row(), data.num_col()
    kind = type(data).__name__
    if type(data) is not core.DMatrix:
        return Unread(
            kind,
            rows,
            "its values are binned; predict a DMatrix, or what it is made from with inplace_predict",
        )
    if rows * width > LIMIT:
        return Unread(kind, rows, f"more than {LIMIT} values are not read back; predict in batches")
    if "c" in (data.feature_types or ()):
        return Unread(
            kind, rows, "of categories it has only codes; predict what it is made from with inplace_predict"
        )
    values = _dense(data, core, rows, width)
    names = data.feature_names
    if names is None or tuple(names) == model.feature_names:
        return values
    return dict(zip(names, values.T, strict=True))


def _dense(matrix: Any, core: Any, rows: int, width: int) -> NDArray[np.float32]:
    """What is absent is missing, as it is to the trees.

    Asks the C API, in a fifth of the time of `get_data`, which makes a matrix of scipy of it.
    """
    stored = matrix.num_nonmissing()
    starts = np.empty(rows + 1, dtype=np.uint64)
    columns, found = np.empty(stored, dtype=np.uint32), np.empty(stored, dtype=np.float32)
    places = [ctypes.c_void_p(part.ctypes.data) for part in (starts, columns, found)]
    if core._LIB.XGDMatrixGetDataAsCSR(matrix.handle, b"{}", *places):
        raise RuntimeError("XGBoost does not give the values of a DMatrix")
    if stored == rows * width and bool((columns.reshape(rows, width) == np.arange(width)).all()):
        return found.reshape(rows, width)
    values = np.full((rows, width), np.nan, dtype=np.float32)
    values[np.repeat(np.arange(rows), (starts[1:] - starts[:-1]).astype(np.int64)), columns] = found
    return values


# --- hooks ------------------------------------------------------------------------------------------------


def _patch_boosters(module: ModuleType, patches: Patches) -> None:
    predictions(patches, module.Booster, "predict", "inplace_predict")
    changing = ("update", "boost", "load_model", "load_config", "set_param", "_set_feature_info")
    around(patches, module.Booster, training, *changing)
    around(patches, module.Booster, suppressing, "eval", "eval_set")


def _patch_callbacks(module: ModuleType, patches: Patches) -> None:
    """What a callback of the user predicts while a model is trained is no prediction."""
    methods = ("before_training", "before_iteration", "after_iteration", "after_training")
    around(patches, module.CallbackContainer, suppressing, *methods)


def _patch_estimators(module: ModuleType, patches: Patches) -> None:
    estimators_too(patches, module.XGBModel)
    around(patches, module.XGBModel, training, "load_model")
    around(patches, module.XGBModel, suppressing, "apply")


XGBoostInstrumentor.hooks = {
    "xgboost.core": _patch_boosters,
    "xgboost.callback": _patch_callbacks,
    "xgboost.sklearn": _patch_estimators,
}
