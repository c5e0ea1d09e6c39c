"""Recording the predictions of LightGBM: its classes of scikit-learn's kind, and Boosters themselves.

What a Booster answers is told by its objective:

| objective | output | read as |
|---|---|---|
| binary | (n,) | probability of the second class |
| multiclass | (n, K) | probabilities |
| multiclassova, whose probabilities do not sum to one | (n, K) | nothing |
| any other, of ranking too | (n,) | value |
| any, with raw_score | | margin |
| any, with pred_leaf or pred_contrib | | features only, as an operation of their own |
"""

from __future__ import annotations

from collections.abc import Iterator
from os import PathLike
from types import ModuleType
from typing import Any

from ..library import Library, Question, learned, teach
from ..model import Model, Task
from ..patch import Patches
from ..snapshot import Unread
from .instrumentor import LibraryInstrumentor
from .methods import suppressing, training
from .native import around, estimators_too, given, predictions

_ESTIMATOR = (
    "self", "X", "raw_score", "start_iteration", "num_iteration", "pred_leaf", "pred_contrib", "validate_features",
)  # fmt: skip
_BOOSTER = (
    "self", "data", "start_iteration", "num_iteration", "raw_score", "pred_leaf", "pred_contrib", "data_has_header",
    "validate_features",
)  # fmt: skip
_EXPLAINING = {"pred_leaf": "predict_leaf", "pred_contrib": "predict_contrib"}
"""Options that ask for the way to an answer, and the operations that these calls are."""
_CLASSIFYING = ("binary", "multiclass", "multiclassova")
_RANKING = ("lambdarank", "rank_xendcg")
_TRAINING = ("train", "cv")


class LightGBMInstrumentor(LibraryInstrumentor):
    """Switches the recording of LightGBM on and off; LightGBM itself need not be imported yet."""

    distributions = ("lightgbm",)
    versions = ">= 4.3"


class _LightGBM(Library):
    def spelled(self, name: str) -> str:
        """Without spaces."""
        return name.replace(" ", "_")


class _Estimators(_LightGBM):
    """LGBMModel and what derives from it."""

    def feature_names(self, obj: Any) -> tuple[str, ...] | None:
        """Those of its Booster: older versions know no others."""
        return _names(learned(obj, "feature_name_"))

    def content(self, obj: Any) -> Iterator[str]:
        """Of two models of equal parameters the trees differ."""
        yield from super().content(obj)
        yield from _content(getattr(obj, "_Booster", None))

    def answers(self, obj: Any) -> str:
        """Of a classifier with an objective of the user's own, margins in the place of labels and probabilities."""
        own = hasattr(obj, "predict_proba") and callable(learned(obj, "objective_"))
        return "decision_function" if own else "predict"

    def asked(
        self, operation: str, answers: str, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Question | None:
        """What the options say."""
        reading = operation if answers == "predict" else answers
        return _asked(operation, reading, given(_ESTIMATOR, args, kwargs))


class _Boosters(_LightGBM):
    """Booster."""

    def task(self, obj: Any) -> Task | None:
        """By the objective; a ranker has no task, and nobody knows that of an objective of the user's own."""
        objective = _objective(obj)
        if objective in _CLASSIFYING:
            return "classification"
        return "regression" if objective and objective not in _RANKING else None

    def classes(self, obj: Any) -> None:
        """A Booster knows its classes by number only."""
        return

    def feature_names(self, obj: Any) -> tuple[str, ...] | None:
        """Those of the data it was trained on."""
        return _names(obj.feature_name())

    def content(self, obj: Any) -> Iterator[str]:
        """Objective, names and ranges of the features, the first tree, and the last one."""
        yield from _content(obj)

    def answers(self, obj: Any) -> str:
        """As the table says."""
        return "predict_proba" if _objective(obj) in _CLASSIFYING else "predict"

    def asked(
        self, operation: str, answers: str, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Question | None:
        """What the options say."""
        return _asked(operation, answers, given(_BOOSTER, args, kwargs))

    def rows(self, data: Any, model: Model) -> Any:
        """Everything as it is, but files."""
        if isinstance(data, (str, PathLike)):
            return Unread("file", 1, "read it yourself and predict the rows")
        return data


teach(_Estimators(), "lightgbm.sklearn.LGBMModel")
teach(_Boosters(), "lightgbm.basic.Booster")


def _asked(operation: str, reading: str, options: dict[str, Any]) -> Question:
    if len(options) > 2:  # more than the object and its rows
        for option, explaining in _EXPLAINING.items():
            if options.get(option):
                return Question(explaining, None)
        if options.get("raw_score"):
            return Question(operation, "decision_function")
    return Question(operation, reading)


# --- what a Booster tells ---------------------------------------------------------------------------------


def _names(names: Any) -> tuple[str, ...] | None:
    """Names that LightGBM gives by itself are none."""
    if not isinstance(names, list) or names == [f"Column_{place}" for place in range(len(names))]:
        return None
    return tuple(names)


def _text(booster: Any, tree: int = 0) -> str:
    """What the model's file would say of itself and of one tree, without the parameters of its training."""
    made: str = booster.model_to_string(num_iteration=1, start_iteration=tree)
    return made.partition("end of trees")[0]


def _objective(booster: Any) -> str:
    lines = _text(booster).partition("\n\n")[0].splitlines()
    told = (line.removeprefix("objective=") for line in lines if line.startswith("objective="))
    return next(told, "").partition(" ")[0]


def _content(booster: Any) -> Iterator[str]:
    if booster is not None:
        rounds = booster.current_iteration()
        yield str(rounds)
        yield _text(booster)
        yield _text(booster, max(0, rounds - 1))


# --- hooks ------------------------------------------------------------------------------------------------


def _patch_boosters(module: ModuleType, patches: Patches) -> None:
    predictions(patches, module.Booster, "predict")
    changing = (
        "update",
        "rollback_one_iter",
        "reset_parameter",
        "model_from_string",
        "shuffle_models",
        "set_leaf_output",
    )
    around(patches, module.Booster, training, *changing)
    around(patches, module.Booster, suppressing, "eval", "eval_train", "eval_valid", "refit")


def _patch_training(module: ModuleType, patches: Patches) -> None:
    """What a callback of the user predicts while a model is trained is no prediction."""
    for name in _TRAINING:
        patches.add_function(module, name, suppressing)


def _patch_names(module: ModuleType, patches: Patches) -> None:
    """The same functions where others have taken them to: whichever they took, they get back the library's own."""
    engine = vars(module)["engine"]
    for holder in (module, vars(module)["sklearn"]):
        for name in _TRAINING:
            if name in vars(holder):
                ours = vars(engine)[name]
                setattr(holder, name, ours.__wrapped__)
                patches.set(holder, name, ours)


def _patch_estimators(module: ModuleType, patches: Patches) -> None:
    estimators_too(patches, module.LGBMModel)


LightGBMInstrumentor.hooks = {
    "lightgbm.basic": _patch_boosters,
    "lightgbm.engine": _patch_training,
    "lightgbm.sklearn": _patch_estimators,
    "lightgbm": _patch_names,
}
