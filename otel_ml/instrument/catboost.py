"""Recording the predictions of CatBoost: CatBoost, CatBoostClassifier, CatBoostRegressor and CatBoostRanker.

`predict` says by `prediction_type` what it answers; its default is Class for a classifier, RawFormulaVal otherwise.

| prediction_type | read as |
|---|---|
| Class | labels |
| Probability, as predict_proba | probabilities |
| LogProbability, as predict_log_proba | probabilities |
| RawFormulaVal | margin of a classifier, else value |
| Exponent | value, of a regressor |
| any other | nothing |

Whether a plain `CatBoost` is a classifier, its loss function says.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import numpy as np

from ..library import Library, Question, teach
from ..model import Model, Task
from ..patch import Patches
from ..snapshot import Unread
from .instrumentor import LibraryInstrumentor
from .methods import first, suppressing, training
from .native import around, given, predictions

_PREDICT = ("self", "data", "prediction_type")
_READINGS = {
    "Class": "predict",
    "Probability": "predict_proba",
    "LogProbability": "predict_log_proba",
}
_TASKS: dict[str, Task | None] = {
    "CatBoostClassifier": "classification",
    "CatBoostRegressor": "regression",
    "CatBoostRanker": None,
}
_CLASSIFYING = (
    "Logloss",
    "CrossEntropy",
    "Focal",
    "MultiClass",
    "MultiClassOneVsAll",
    "MultiLogloss",
    "MultiCrossEntropy",
)
_RANKING = (
    "LambdaMart", "PairLogit", "PairLogitPairwise", "QueryCrossEntropy", "QueryRMSE", "QuerySoftMax",
    "StochasticFilter", "StochasticRank", "YetiRank", "YetiRankPairwise",
)  # fmt: skip
_HASHED = 1024
"""Leaf values at either end of a model that tell it from others."""


class CatBoostInstrumentor(LibraryInstrumentor):
    """Switches the recording of CatBoost on and off; CatBoost itself need not be imported yet."""

    distributions = ("catboost",)
    versions = ">= 1.2.5"


class _Models(Library):
    """CatBoost and what derives from it."""

    def task(self, obj: Any) -> Task | None:
        """By its class, else by its loss function; a ranker has none."""
        for kind in type(obj).__mro__:
            if kind.__name__ in _TASKS:
                return _TASKS[kind.__name__]
        loss = _loss(obj)
        if loss in _CLASSIFYING:
            return "classification"
        return "regression" if loss and loss not in _RANKING and not loss.startswith("Python") else None

    def feature_names(self, obj: Any) -> tuple[str, ...] | None:
        """Those of the data it was trained on; numbers that it gives by itself are none."""
        names = obj.feature_names_
        return None if names is None or names == list(map(str, range(len(names)))) else tuple(names)

    def content(self, obj: Any) -> Iterator[str]:
        """Loss function, names, classes, number of trees, scale, bias, and the values of the first and last leaves."""
        if not obj.is_fitted():
            return
        yield repr((_loss(obj), obj.feature_names_, obj.tree_count_, obj.get_scale_and_bias()))
        yield repr(self.classes(obj))
        leaves = np.asarray(obj.get_leaf_values())
        ends = leaves if len(leaves) <= 2 * _HASHED else np.r_[leaves[:_HASHED], leaves[-_HASHED:]]
        yield hashlib.sha256(ends.tobytes()).hexdigest()

    def answers(self, obj: Any) -> str:
        """As what a raw value is read."""
        return "decision_function" if self.task(obj) == "classification" else "predict"

    def asked(
        self, operation: str, answers: str, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Question | None:
        """What `prediction_type` says; the answer about a single row is made one row."""
        pick = _row if _is_row(first(args, kwargs)) else None
        if operation != "predict":
            return Question(operation, operation, pick)
        kind = given(_PREDICT, args, kwargs).get("prediction_type")
        if not isinstance(kind, str):  # of a ranker something else stands in its place
            kind = "Class" if _is_classifier(args[0]) else "RawFormulaVal"
        if kind == "RawFormulaVal":
            return Question(operation, answers, pick)
        if kind == "Exponent" and answers == "predict":
            return Question(operation, operation, pick)
        return Question(operation, _READINGS.get(kind), pick)

    def rows(self, data: Any, model: Model) -> Any:
        """A single row as rows; of a Pool, which keeps only what its values were binned to, their number."""
        if _is_row(data):
            return data.reshape(1, -1) if isinstance(data, np.ndarray) else [list(data)]
        counting = getattr(data, "num_row", None) or getattr(data, "get_object_count", None)
        if counting is None:
            return data
        return Unread(
            type(data).__name__, counting(), "predict what it is made from, a data frame or an array"
        )


teach(_Models(), "catboost.core.CatBoost")


def _is_classifier(obj: Any) -> bool:
    return any(kind.__name__ == "CatBoostClassifier" for kind in type(obj).__mro__)


def _is_row(data: Any) -> bool:
    """Whether CatBoost takes `data` for one object."""
    if isinstance(data, list):
        return bool(data) and np.ndim(data[0]) == 0
    return getattr(data, "ndim", 2) == 1


def _row(output: Any) -> Any:
    return np.asarray(output)[np.newaxis]


def _loss(obj: Any) -> str:
    """The loss function, as the model's file has it; empty of one that is not trained or does not tell."""
    told = obj.get_metadata()
    for key in ("loss_function", "params"):
        if key in told.keys():  # noqa: SIM118  # it is no dict and has no `in`
            found = json.loads(told[key])
            return str(found.get("loss_function", found).get("type", ""))
    return ""


# --- hooks ------------------------------------------------------------------------------------------------


def _patch_models(module: ModuleType, patches: Patches) -> None:
    predictions(patches, module.CatBoost, "predict", "predict_proba", "predict_log_proba")
    changing = (
        "fit", "load_model", "grid_search", "randomized_search", "select_features", "shrink", "set_scale_and_bias",
        "set_feature_names", "set_leaf_values", "drop_unused_features",
    )  # fmt: skip
    around(patches, module._CatBoostBase, training, *changing)
    showing = ("score", "eval_metrics", "compare", "calc_feature_statistics", "plot_predictions")
    around(patches, module.CatBoost, suppressing, *showing)


CatBoostInstrumentor.hooks = {"catboost.core": _patch_models}
