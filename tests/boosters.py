"""Models of XGBoost, LightGBM and CatBoost, each in every form, with what it takes to train, ask and store it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import catboost
import lightgbm
import numpy as np
import pandas as pd
import xgboost

ROWS = 600
X = np.random.default_rng(3).normal(size=(ROWS, 3))
y = (X[:, 0] + 0.3 * X[:, 1] > 0).astype(int)
THREE = np.digitize(X[:, 0], [-0.5, 0.5])
GROUPS = np.repeat(np.arange(60), 10)
NAMES = ["age", "income", "tenure"]
FRAME = pd.DataFrame(X, columns=NAMES)

SMALL = {"n_estimators": 3, "n_jobs": 1}
QUIET = {"iterations": 3, "verbose": 0, "allow_writing_files": False, "thread_count": 1}


def xgb(target: Any = y, data: Any = FRAME, **parameters: Any) -> Any:
    """A Booster of XGBoost."""
    return xgboost.train(
        {"objective": "binary:logistic", "nthread": 1, **parameters}, xgboost.DMatrix(data, target), 3
    )


def lgb(target: Any = y, data: Any = FRAME, **parameters: Any) -> Any:
    """A Booster of LightGBM."""
    told = {"objective": "binary", "num_threads": 1, "verbose": -1, **parameters}
    return lightgbm.train(told, lightgbm.Dataset(data, target), 3)


def cat(kind: Any = catboost.CatBoost, target: Any = y, data: Any = FRAME, **parameters: Any) -> Any:
    """A model of CatBoost."""
    fitting = {"group_id": GROUPS} if kind is catboost.CatBoostRanker else {}
    return kind(**_told(kind, parameters)).fit(data, target, **fitting)


def _told(kind: Any, parameters: dict[str, Any]) -> dict[str, Any]:
    told = {**QUIET, **parameters}
    return {"params": {"loss_function": "Logloss", **told}} if kind is catboost.CatBoost else told


def _matrix(model: Any, data: Any) -> Any:
    return model.predict(xgboost.DMatrix(data))


@dataclass(frozen=True, slots=True)
class Form:
    """One way to have and to ask a model."""

    train: Callable[[], Any]
    """On FRAME, and y for a binary target."""
    ask: Callable[[Any, Any], Any]
    """Of a model and rows, one call of the user."""
    operation: str
    system: str
    name: str
    task: str | None
    score: str | None
    """`ml.prediction.score.type` of this call."""
    store: Callable[[Any, Path], Any] | None = None
    """The model written in its library's own format, and read from there."""


def _xgb_file(model: Any, path: Path) -> Any:
    model.save_model(path / "model.ubj")
    return xgboost.Booster(model_file=path / "model.ubj")


def _lgb_file(model: Any, path: Path) -> Any:
    model.save_model(path / "model.txt")
    return lightgbm.Booster(model_file=path / "model.txt")


def _cat_file(model: Any, path: Path) -> Any:
    model.save_model(str(path / "model.cbm"))
    return type(model)().load_model(str(path / "model.cbm"))


def _proba(model: Any, data: Any) -> Any:
    return model.predict_proba(data)


def _predict(model: Any, data: Any) -> Any:
    return model.predict(data)


_LGBM = {**SMALL, "verbose": -1}
BINARY, VALUES = "classification", "regression"
FORMS = {
    "xgboost Booster": Form(xgb, _matrix, "predict", "xgboost", "Booster", BINARY, "probability", _xgb_file),
    "xgboost Booster in place": Form(
        xgb, lambda model, data: model.inplace_predict(data), "inplace_predict", "xgboost", "Booster", BINARY,
        "probability", _xgb_file,
    ),
    "XGBClassifier": Form(
        lambda: xgboost.XGBClassifier(**SMALL).fit(FRAME, y), _predict, "predict", "xgboost", "XGBClassifier", BINARY,
        "probability",
    ),
    "XGBClassifier probabilities": Form(
        lambda: xgboost.XGBClassifier(**SMALL).fit(FRAME, y), _proba, "predict_proba", "xgboost", "XGBClassifier",
        BINARY, "probability",
    ),
    "XGBRegressor": Form(
        lambda: xgboost.XGBRegressor(**SMALL).fit(FRAME, X[:, 0]), _predict, "predict", "xgboost", "XGBRegressor",
        VALUES, "value",
    ),
    "XGBRanker": Form(
        lambda: xgboost.XGBRanker(**SMALL).fit(FRAME, y, qid=GROUPS), _predict, "predict", "xgboost", "XGBRanker",
        None, "value",
    ),
    "lightgbm Booster": Form(lgb, _predict, "predict", "lightgbm", "Booster", BINARY, "probability", _lgb_file),
    "LGBMClassifier": Form(
        lambda: lightgbm.LGBMClassifier(**_LGBM).fit(FRAME, y), _predict, "predict", "lightgbm", "LGBMClassifier",
        BINARY, "probability",
    ),
    "LGBMClassifier probabilities": Form(
        lambda: lightgbm.LGBMClassifier(**_LGBM).fit(FRAME, y), _proba, "predict_proba", "lightgbm", "LGBMClassifier",
        BINARY, "probability",
    ),
    "LGBMRegressor": Form(
        lambda: lightgbm.LGBMRegressor(**_LGBM).fit(FRAME, X[:, 0]), _predict, "predict", "lightgbm", "LGBMRegressor",
        VALUES, "value",
    ),
    "LGBMRanker": Form(
        lambda: lightgbm.LGBMRanker(**_LGBM).fit(FRAME, y, group=[10] * 60), _predict, "predict", "lightgbm",
        "LGBMRanker", None, "value",
    ),
    "CatBoost": Form(cat, _predict, "predict", "catboost", "CatBoost", BINARY, "margin", _cat_file),
    "CatBoostClassifier": Form(
        lambda: cat(catboost.CatBoostClassifier), _predict, "predict", "catboost", "CatBoostClassifier", BINARY, None,
        _cat_file,
    ),
    "CatBoostClassifier probabilities": Form(
        lambda: cat(catboost.CatBoostClassifier), _proba, "predict_proba", "catboost", "CatBoostClassifier", BINARY,
        "probability", _cat_file,
    ),
    "CatBoostRegressor": Form(
        lambda: cat(catboost.CatBoostRegressor, X[:, 0]), _predict, "predict", "catboost", "CatBoostRegressor", VALUES,
        "value", _cat_file,
    ),
    "CatBoostRanker": Form(
        lambda: cat(catboost.CatBoostRanker), _predict, "predict", "catboost", "CatBoostRanker", None, "value",
        _cat_file,
    ),
}  # fmt: skip
