"""CatBoost: what each loss function and prediction type answers, pools, categories, and training."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import catboost
import numpy as np
import pytest
from boosters import FRAME, GROUPS, NAMES, QUIET, ROWS, THREE, X, cat, y
from instrumented import Spans
from support import Points

import otel_ml

Collect = Callable[[], Points]
CATEGORIES = FRAME.assign(region=np.array(["north", "south"])[y])


def said(spans: Spans) -> tuple[str | None, str | None]:
    """Task and type of the score of the only span."""
    [span] = spans.take()
    return span.attributes.get("ml.task.type"), span.attributes.get("ml.prediction.score.type")


def observed(collect: Collect) -> dict[str, int]:
    """How many values of each feature there were."""
    return {p.attributes["ml.feature.name"]: p.value for p in collect().get("ml.feature.observations", [])}


LOSSES: dict[str, tuple[Any, str | None, str]] = {
    "Logloss": (y, "classification", "margin"),
    "CrossEntropy": (np.abs(np.tanh(X[:, 0])), "classification", "margin"),
    "MultiClass": (THREE, "classification", "margin"),
    "RMSE": (X[:, 0], "regression", "value"),
    "Poisson": (np.abs(X[:, 0]), "regression", "value"),
    "YetiRank": (y, None, "value"),
}


@pytest.mark.parametrize("loss", LOSSES)
def test_the_loss_function_tells_what_a_plain_model_answers(loss: str, spans: Spans) -> None:
    """A margin or a value, and the task."""
    target, task, score = LOSSES[loss]
    fitting = {"group_id": GROUPS} if loss == "YetiRank" else {}
    catboost.CatBoost({"loss_function": loss, **QUIET}).fit(FRAME, target, **fitting).predict(FRAME)
    assert said(spans) == (task, score)


TYPES = {
    "Class": None,
    "Probability": "probability",
    "LogProbability": "probability",
    "RawFormulaVal": "margin",
    "Exponent": None,
}


@pytest.mark.parametrize("kind", [catboost.CatBoost, catboost.CatBoostClassifier])
@pytest.mark.parametrize("by", ["name", "position"])
@pytest.mark.parametrize("prediction", TYPES)
def test_prediction_types(prediction: str, by: str, kind: Any, spans: Spans, collect: Collect) -> None:
    """Each is read as what it is, however it is given."""
    model = cat(kind)
    if by == "name":
        model.predict(data=FRAME, prediction_type=prediction)
    else:
        model.predict(FRAME, prediction)
    assert said(spans) == ("classification", TYPES[prediction])
    assert observed(collect) == dict.fromkeys(NAMES, ROWS)


@pytest.mark.parametrize("classes", ["two", "three", "names"])
def test_labels_are_counted(classes: str, collect: Collect) -> None:
    """Those that the classifier answers, and the likeliest of its probabilities: the same, by their names."""
    target = {"two": y, "three": THREE, "names": np.array(["stays", "leaves"])[y]}[classes]
    model = cat(catboost.CatBoostClassifier, target)
    answer = model.predict(FRAME)
    labels = {str(k): int(n) for k, n in zip(*np.unique(answer, return_counts=True), strict=True)}
    assert _labels(collect) == labels
    model.predict_proba(FRAME.copy())
    assert _labels(collect) == {label: 2 * n for label, n in labels.items()}


def _labels(collect: Collect) -> dict[str, int]:
    return {p.attributes["ml.prediction.label"]: p.value for p in collect()["ml.predictions"]}


@pytest.mark.parametrize("loss", ["RMSEWithUncertainty", "MultiLogloss"])
def test_several_answers_a_row_say_nothing(loss: str, spans: Spans, collect: Collect) -> None:
    """Which of them counts only its owner knows; the features are counted."""
    kind = catboost.CatBoostRegressor if loss == "RMSEWithUncertainty" else catboost.CatBoostClassifier
    target = X[:, 0] if loss == "RMSEWithUncertainty" else np.c_[y, 1 - y]
    cat(kind, target, loss_function=loss).predict(FRAME)
    assert said(spans)[1] is None
    assert observed(collect) == dict.fromkeys(NAMES, ROWS)


@pytest.mark.parametrize("row", [list(X[0]), X[0], FRAME.iloc[0]], ids=["list", "array", "series"])
def test_one_row_without_rows_around_it(row: Any, spans: Spans, collect: Collect) -> None:
    """CatBoost takes it for one object, and so it is counted, with its probability and its label."""
    model = cat(catboost.CatBoostClassifier)
    answer = model.predict_proba(row)
    assert answer.shape == (2,)
    [span] = spans.take()
    assert span.attributes["ml.batch.size"] == 1
    assert span.attributes["ml.prediction.score.value"] == answer[1]
    assert span.attributes["ml.prediction.label"] == str(answer.argmax())
    model.predict(row)
    [span] = spans.take()
    assert span.attributes["ml.prediction.label"] == str(answer.argmax())
    assert set(observed(collect)) == set(NAMES)


def test_stages_ensembles_and_leaves_are_no_predictions(spans: Spans) -> None:
    """A hundred stages of one row are not a hundred predictions."""
    model = cat(catboost.CatBoostClassifier, posterior_sampling=True, iterations=8)
    for stages in (
        model.staged_predict(FRAME),
        model.staged_predict_proba(FRAME),
        model.staged_predict_log_proba(FRAME),
    ):
        assert len(list(stages)) == 8
    model.virtual_ensembles_predict(FRAME, virtual_ensembles_count=2)
    model.calc_leaf_indexes(FRAME)
    assert spans.names() == []


# --- training -----------------------------------------------------------------------------------------------


class Peeking:
    """A callback that predicts with another model after every round."""

    def __init__(self, model: Any) -> None:
        self._model = model

    def after_iteration(self, info: Any) -> bool:
        self._model.predict(FRAME)
        return True


def test_training_in_every_way_is_none(spans: Spans, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Early stopping, callbacks, cross validation, searches, evaluation, comparison."""
    monkeypatch.chdir(tmp_path)  # cross validation and evaluation leave files behind
    model = cat(catboost.CatBoostClassifier)
    pool = catboost.Pool(FRAME, y)
    fresh = catboost.CatBoostClassifier(**QUIET)
    fresh.fit(pool, eval_set=pool, early_stopping_rounds=1, callbacks=[Peeking(model)])
    catboost.train(pool, {"loss_function": "Logloss", **QUIET})
    catboost.cv(pool, {"loss_function": "Logloss", **QUIET}, fold_count=2)
    catboost.CatBoostClassifier(**QUIET).grid_search({"depth": [1, 2]}, pool, cv=2, verbose=False)
    model.score(FRAME, y)
    cat(catboost.CatBoostRegressor, X[:, 0]).score(FRAME, X[:, 0])
    model.eval_metrics(pool, ["AUC"])
    cat(catboost.CatBoostRanker).score(catboost.Pool(FRAME, y, group_id=GROUPS))
    assert spans.names() == []


def test_a_model_that_was_changed_is_another_one(spans: Spans) -> None:
    """Its automatic version follows what it is now."""
    model = cat()
    model.predict(FRAME)
    model.shrink(2)
    model.predict(FRAME)
    model.set_scale_and_bias(2.0, 0.0)
    model.predict(FRAME)
    assert len({span.attributes["ml.model.version"] for span in spans.take()}) == 3


@pytest.mark.parametrize("kind", ["a sum of models", "not trained"])
def test_every_kind_of_model_has_an_identity(kind: str, spans: Spans) -> None:
    """Whatever its file does not tell."""
    if kind == "not trained":
        otel_ml.register(catboost.CatBoost(), name="churn", version="3")
        return
    catboost.sum_models([cat(), cat(target=1 - y)]).predict(FRAME)
    assert said(spans) == ("classification", "margin")


# --- inputs -------------------------------------------------------------------------------------------------


def test_categories_of_a_frame_are_recorded(collect: Collect) -> None:
    """By their names."""
    model = catboost.CatBoostClassifier(**QUIET).fit(CATEGORIES, y, cat_features=["region"])
    baseline = otel_ml.Baseline.fit(CATEGORIES, model="churn", version="3")
    otel_ml.register(model, name="churn", version="3", baseline=baseline)
    model.predict(CATEGORIES)
    found = {p.attributes["ml.feature.category"]: p.value for p in collect()["ml.feature.categories"]}
    assert {name: found[name] for name in ("north", "south")} == {
        "north": int((y == 0).sum()),
        "south": int(y.sum()),
    }


@pytest.mark.parametrize("form", ["Pool", "FeaturesData"])
def test_rows_of_a_pool_are_counted_and_it_is_said_once(
    form: str, collect: Collect, caplog: pytest.LogCaptureFixture
) -> None:
    """To read back its values takes twenty times as long as to predict; its categories are hashes."""
    model = cat(catboost.CatBoostClassifier, data=X)
    data = catboost.Pool(X) if form == "Pool" else catboost.FeaturesData(num_feature_data=X.astype("f4"))
    answer = model.predict_proba(data)
    model.predict_proba(data)
    points = collect()
    assert [p.value for p in points["ml.inference.rows"]] == [2 * ROWS]
    assert sum(sum(p.bucket_counts) for p in points["ml.prediction.score"]) == 2 * len(answer)
    assert "ml.feature.observations" not in points
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert f"an input of type {form} cannot be read" in caplog.text


def test_names_that_catboost_gives_are_none(collect: Collect) -> None:
    """Of a model of arrays the columns go by position."""
    cat(data=X).predict(X)
    assert set(observed(collect)) == {"x0", "x1", "x2"}
