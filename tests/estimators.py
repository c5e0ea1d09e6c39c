"""scikit-learn's estimators that have `predict`, each with what it takes to run it on a few rows in no time."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from sklearn import linear_model, preprocessing, tree
from sklearn.utils import all_estimators

OPERATIONS = ("predict", "predict_proba", "decision_function", "score_samples")
"""What a call of is a prediction."""

DENSITIES = frozenset({"GaussianMixture", "BayesianGaussianMixture"})
"""Their `score_samples` is a density of the training data, not an answer of a model: no prediction."""

CANNOT_RUN: dict[str, str] = {}
"""Estimators with `predict` that cannot run here, each with the reason. None in scikit-learn 1.5 to 1.9."""

_ROWS = 48


def _matrix(columns: int = 4) -> np.ndarray[Any, Any]:
    return np.random.default_rng(5).normal(size=(_ROWS, columns))


def _two(X: Any) -> Any:
    return (X[:, 0] + 0.3 * X[:, 1] > 0).astype(int)


@dataclass(frozen=True, slots=True)
class Data:
    """Rows, and what an estimator shall learn of them."""

    X: Any
    y: Any


def _values(X: Any) -> Any:
    return X @ np.arange(1.0, X.shape[1] + 1)


_X = _matrix()
_COUNTS = np.abs(np.round(_X * 2)).astype(int)
CLASSES, VALUES = Data(_X, _two(_X)), Data(_X, _values(_X))
_SEVERAL_VALUES = Data(_X, np.c_[_values(_X), _X[:, 0]])
_SEVERAL_CLASSES = Data(_X, np.c_[_two(_X), 1 - _two(_X)])
_COUNTED = Data(_COUNTS, _two(_X))
_POSITIVE = Data(_X, np.abs(_values(_X)) + 1)
_ONE_COLUMN = Data(_X[:, :1], _values(_X))
_SOME_LABELS = Data(_X, np.where(np.arange(_ROWS) % 3, _two(_X), -1))

_DATA: dict[str, Data] = {
    "CCA": _SEVERAL_VALUES,
    "CategoricalNB": _COUNTED,
    "ClassifierChain": _SEVERAL_CLASSES,
    "ComplementNB": _COUNTED,
    "GammaRegressor": _POSITIVE,
    "IsotonicRegression": _ONE_COLUMN,
    "LabelPropagation": _SOME_LABELS,
    "LabelSpreading": _SOME_LABELS,
    "MultiOutputClassifier": _SEVERAL_CLASSES,
    "MultiOutputRegressor": _SEVERAL_VALUES,
    "MultiTaskElasticNet": _SEVERAL_VALUES,
    "MultiTaskElasticNetCV": _SEVERAL_VALUES,
    "MultiTaskLasso": _SEVERAL_VALUES,
    "MultiTaskLassoCV": _SEVERAL_VALUES,
    "MultinomialNB": _COUNTED,
    "PLSCanonical": _SEVERAL_VALUES,
    "PLSRegression": _SEVERAL_VALUES,
    "PoissonRegressor": _POSITIVE,
    "RegressorChain": _SEVERAL_VALUES,
    "SelfTrainingClassifier": _SOME_LABELS,
}


def _classifier() -> Any:
    return linear_model.LogisticRegression()


def _regressor() -> Any:
    return linear_model.Ridge()


_PARTS: dict[str, Callable[[], dict[str, Any]]] = {
    **dict.fromkeys(
        ["FixedThresholdClassifier", "MultiOutputClassifier", "OneVsOneClassifier", "OneVsRestClassifier",
         "OutputCodeClassifier", "RFE"],
        lambda: {"estimator": _classifier()},
    ),
    **dict.fromkeys(["CalibratedClassifierCV", "RFECV", "TunedThresholdClassifierCV"],
                    lambda: {"estimator": _classifier(), "cv": 2}),
    "MultiOutputRegressor": lambda: {"estimator": _regressor()},
    **dict.fromkeys(["GridSearchCV", "HalvingGridSearchCV"],
                    lambda: {"estimator": _classifier(), "param_grid": {"C": [0.1, 1.0]}, "cv": 2}),
    **dict.fromkeys(["RandomizedSearchCV", "HalvingRandomSearchCV"],
                    lambda: {"estimator": _classifier(), "param_distributions": {"C": [0.1, 1.0]}, "cv": 2}),
    **dict.fromkeys(["StackingClassifier", "VotingClassifier"],
                    lambda: {"estimators": [("a", _classifier()),
                                            ("b", tree.DecisionTreeClassifier(random_state=0))]}),
    **dict.fromkeys(["StackingRegressor", "VotingRegressor"],
                    lambda: {"estimators": [("a", _regressor()),
                                            ("b", tree.DecisionTreeRegressor(random_state=0))]}),
    "Pipeline": lambda: {"steps": [("scale", preprocessing.StandardScaler()), ("last", _classifier())]},
    "LocalOutlierFactor": lambda: {"novelty": True},
    "OrthogonalMatchingPursuitCV": lambda: {"max_iter": None},  # the default; not more than there are columns
    "TransformedTargetRegressor": lambda: {"regressor": _regressor()},
}  # fmt: skip
"""What an estimator cannot be made without, or would answer nothing without."""

_FIRST: dict[str, Callable[[], Any]] = {
    "ClassifierChain": _classifier,
    "RegressorChain": _regressor,
    "SelfTrainingClassifier": _classifier,
}
"""The first parameter of those that have changed its name between releases."""

_SMALL = {"n_estimators": 4, "n_init": 1, "max_iter": 30, "max_subpopulation": 50, "max_trials": 10,
          "n_clusters": 2, "random_state": 0, "n_components": 1, "radius": 20.0, "cv": 2}  # fmt: skip
"""Set where an estimator knows them: quick, and the same every time."""


@dataclass(frozen=True, slots=True)
class Case:
    """One estimator as it is run here."""

    name: str
    kind: type
    data: Data

    def make(self) -> Any:
        known = inspect.signature(self.kind).parameters
        parameters: dict[str, Any] = {key: value for key, value in _SMALL.items() if key in known}
        first = [_FIRST[self.name]()] if self.name in _FIRST else []
        return self.kind(*first, **parameters | _PARTS.get(self.name, dict)())

    def fit(self) -> Any:
        return self.make().fit(self.data.X, self.data.y)


@lru_cache
def cases() -> dict[str, Case]:
    """Every estimator of the installed scikit-learn that has `predict`, by name."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what is deprecated says so when it is merely looked at
        kinds = {name: kind for name, kind in all_estimators() if hasattr(kind, "predict")}
        return {name: Case(name, kind, _data(name, kind)) for name, kind in kinds.items()}


def _data(name: str, kind: type) -> Data:
    told = _DATA.get(name)
    if told is not None:
        return told
    regressor = any(base.__name__ == "RegressorMixin" for base in kind.__mro__)
    return VALUES if regressor else CLASSES
