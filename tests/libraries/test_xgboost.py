"""XGBoost: what each objective and option answers, what a DMatrix tells, and training."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import scipy.sparse
import xgboost
from boosters import FRAME, NAMES, ROWS, THREE, X, xgb, y
from instrumented import Spans
from integration import test_examples
from integration.sink import Sink
from support import Points

import otel_ml
from otel_ml.instrument import xgboost as instrumentor

Collect = Callable[[], Points]
MATRIX = xgboost.DMatrix(FRAME)


def said(spans: Spans) -> tuple[str, str | None]:
    """Operation and type of the score of the only span."""
    [span] = spans.take()
    return span.name.partition(" ")[0], span.attributes.get("ml.prediction.score.type")


def states(collect: Collect) -> dict[tuple[str, str], int]:
    """How many values of each feature are in which state."""
    return {
        (p.attributes["ml.feature.name"], p.attributes["ml.feature.state"]): p.value
        for p in collect()["ml.feature.observations"]
    }


OBJECTIVES: dict[str, tuple[Any, str | None, str | None]] = {
    "binary:logistic": (y, "classification", "probability"),
    "binary:logitraw": (y, "classification", "margin"),
    "binary:hinge": (y, "classification", None),
    "multi:softprob": (THREE, "classification", "probability"),
    "multi:softmax": (THREE, "classification", None),
    "reg:squarederror": (X[:, 0], "regression", "value"),
    "count:poisson": (np.abs(X[:, 0]), "regression", "value"),
    "rank:pairwise": (y, None, "value"),
}


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_the_objective_tells_what_a_booster_answers(objective: str, spans: Spans) -> None:
    """Probability, margin, label or value, and the task; from a matrix and in place."""
    target, task, score = OBJECTIVES[objective]
    booster = xgb(target, objective=objective, **({"num_class": 3} if "multi" in objective else {}))
    booster.predict(MATRIX)
    booster.inplace_predict(FRAME)
    for span in spans.take():
        assert span.attributes.get("ml.task.type") == task
        assert span.attributes.get("ml.prediction.score.type") == score


@pytest.mark.parametrize("objective", ["binary:hinge", "multi:softmax", "multi:softprob"])
def test_labels_are_counted(objective: str, collect: Collect) -> None:
    """Numbers of classes: those that the Booster answers, or the likeliest of its probabilities."""
    target = y if "binary" in objective else THREE
    booster = xgb(target, objective=objective, **({"num_class": 3} if "multi" in objective else {}))
    answer = booster.predict(MATRIX)
    labels = answer.argmax(axis=1) if answer.ndim == 2 else answer.astype(int)
    expected = {str(label): int(n) for label, n in zip(*np.unique(labels, return_counts=True), strict=True)}
    assert {p.attributes["ml.prediction.label"]: p.value for p in collect()["ml.predictions"]} == expected


OPTIONS: dict[str, tuple[dict[str, Any], str, str | None]] = {
    "margin": ({"output_margin": True}, "predict", "margin"),
    "leaves": ({"pred_leaf": True}, "predict_leaf", None),
    "contributions": ({"pred_contribs": True}, "predict_contribs", None),
    "approximate contributions": ({"pred_contribs": True, "approx_contribs": True}, "predict_contribs", None),
    "interactions": ({"pred_interactions": True}, "predict_interactions", None),
    "strict shape": ({"strict_shape": True}, "predict", "probability"),
    "some rounds": ({"iteration_range": (0, 1)}, "predict", "probability"),
}


@pytest.mark.parametrize("option", OPTIONS)
def test_options_of_a_prediction(option: str, spans: Spans, collect: Collect) -> None:
    """A margin is a margin; the way to an answer is an operation of its own, without a score, with features."""
    arguments, operation, score = OPTIONS[option]
    xgb().predict(MATRIX, **arguments)
    assert said(spans) == (operation, score)
    assert states(collect) == {(name, "ok"): ROWS for name in NAMES}


def test_margins_in_place_and_of_the_classifier(spans: Spans) -> None:
    """predict_type and output_margin mean the same."""
    xgb().inplace_predict(FRAME, predict_type="margin")
    assert said(spans) == ("inplace_predict", "margin")
    classifier = xgboost.XGBClassifier(n_estimators=2).fit(FRAME, y)
    classifier.predict(FRAME, output_margin=True)
    assert said(spans) == ("predict", "margin")
    classifier.apply(FRAME)  # leaves as features for another model, as a transformer gives them
    assert spans.names() == []


def test_an_explanation_of_rows_that_were_predicted_counts_them_once(collect: Collect) -> None:
    """`predict` and then `pred_contribs` on one DMatrix is one prediction of its rows."""
    booster = xgb()
    booster.predict(MATRIX)
    booster.predict(MATRIX, pred_contribs=True)
    assert states(collect) == {(name, "ok"): ROWS for name in NAMES}


# --- training -----------------------------------------------------------------------------------------------


class Peeking(xgboost.callback.TrainingCallback):
    """A callback that predicts after every round."""

    def after_iteration(self, model: Any, epoch: int, evals_log: Any) -> bool:
        for booster in [pack.bst for pack in model.cvfolds] if hasattr(model, "cvfolds") else [model]:
            booster.predict(MATRIX)
        return False


def _squared(predicted: Any, data: Any) -> tuple[Any, Any]:
    return predicted - data.get_label(), np.ones_like(predicted)


def test_training_in_every_way_is_none(spans: Spans) -> None:
    """Own objective and metric, early stopping, callbacks, cross validation, own loops, more rounds."""
    data, objective = xgboost.DMatrix(FRAME, y), {"objective": "binary:logistic"}
    told: dict[str, Any] = {
        "evals": [(data, "it")], "verbose_eval": False, "early_stopping_rounds": 1, "callbacks": [Peeking()],
        "custom_metric": lambda predicted, _: ("mean", float(predicted.mean())),
    }  # fmt: skip
    booster = xgboost.train(objective, data, 3, obj=_squared, **told)
    booster = xgboost.train(objective, data, 2, xgb_model=booster)
    xgboost.cv(objective, data, 2, nfold=2, callbacks=[Peeking()])
    booster.update(data, 9)
    booster.eval(data)
    gradient = _squared(booster.predict(data, training=True), data)
    booster.boost(data, 10, grad=gradient[0], hess=gradient[1])
    classifier = xgboost.XGBClassifier(n_estimators=2, early_stopping_rounds=1, callbacks=[Peeking()])
    classifier.fit(FRAME, y, eval_set=[(FRAME, y)], verbose=False)
    assert spans.names() == []


def test_a_booster_that_learned_more_is_another_one(spans: Spans) -> None:
    """Its automatic version follows what it is now."""
    booster = xgb()
    booster.predict(MATRIX)
    booster.update(xgboost.DMatrix(FRAME, y), 3)
    booster.predict(MATRIX)
    first, second = (span.attributes["ml.model.version"] for span in spans.take())
    assert first != second


def test_a_booster_whose_features_are_renamed_is_another_one(collect: Collect) -> None:
    """Rows without names have those that it has now."""
    booster = xgb(data=X)
    booster.inplace_predict(X)
    collect()
    booster.feature_names = NAMES
    booster.inplace_predict(pd.DataFrame(X, columns=NAMES).to_numpy(), validate_features=False)
    assert {(name, "ok") for name in NAMES} <= states(collect).keys()


def test_an_estimator_that_loads_a_model_is_another_one(spans: Spans, tmp_path: Any) -> None:
    """As after a fit."""
    xgboost.XGBClassifier(n_estimators=2).fit(FRAME, 1 - y).save_model(tmp_path / "other.json")
    classifier = xgboost.XGBClassifier(n_estimators=2).fit(FRAME, y)
    classifier.predict(FRAME)
    classifier.load_model(tmp_path / "other.json")
    classifier.predict(FRAME)
    first, second = (span.attributes["ml.model.version"] for span in spans.take())
    assert first != second


@pytest.mark.parametrize("kind", ["gblinear", "dart", "multi_output_tree", "not trained"])
def test_every_kind_of_booster_has_an_identity(kind: str, spans: Spans) -> None:
    """One that cannot be cut into rounds, too; one that is not trained can be registered."""
    if kind == "not trained":
        otel_ml.register(xgboost.Booster(), name="churn", version="3")
        return
    if kind == "multi_output_tree":
        told = {"multi_strategy": kind, "objective": "reg:squarederror"}
        booster = xgb(X[:, :2], **told)
    else:
        booster = xgb(booster=kind)
    booster.predict(MATRIX)
    [span] = spans.take()
    assert span.attributes["ml.model.version"].startswith("auto-")


# --- matrices -----------------------------------------------------------------------------------------------


def test_what_a_matrix_does_not_hold_is_missing(collect: Collect) -> None:
    """As it is to the trees: NaN, what `missing` names, and what a sparse matrix leaves out."""
    holed = X.copy()
    holed[:5, 0] = np.nan
    holed[:7, 1] = -999.0
    xgb().predict(xgboost.DMatrix(pd.DataFrame(holed, columns=NAMES), missing=-999.0))
    found = states(collect)
    assert found["age", "missing"] == 5
    assert found["income", "missing"] == 7
    assert found["tenure", "ok"] == ROWS


def test_a_matrix_is_matched_by_name(collect: Collect) -> None:
    """Where the Booster knows no names, those of the DMatrix count, in whatever order."""
    booster = xgb(data=X)
    baseline = otel_ml.Baseline.fit(FRAME, model="churn", version="3")
    otel_ml.register(booster, name="churn", version="3", baseline=baseline)
    turned = FRAME[NAMES[::-1]]
    booster.predict(xgboost.DMatrix(turned))
    points = collect()
    counts = [
        {
            p.attributes["ml.feature.name"]: list(p.bucket_counts)
            for p in points[name]
            if p.attributes.get("ml.feature.name") in NAMES
        }
        for name in ("ml.feature.value", "ml.baseline.value")
    ]
    assert counts[0] == counts[1]


def test_sparse_matrices(collect: Collect) -> None:
    """Rows and columns fall into their places, in an order that is not theirs."""
    sparse = scipy.sparse.csr_matrix(X)
    sparse.indices[:3], sparse.data[:3] = [2, 1, 0], X[0, ::-1]
    booster = xgb(data=X)
    baseline = otel_ml.Baseline.fit(FRAME, model="churn", version="3")
    otel_ml.register(booster, name="churn", version="3", baseline=baseline)
    booster.predict(xgboost.DMatrix(sparse))
    points = collect()
    served = {p.attributes["ml.feature.name"]: list(p.bucket_counts) for p in points["ml.feature.value"]}
    trained = {
        p.attributes["ml.feature.name"]: list(p.bucket_counts)
        for p in points["ml.baseline.value"]
        if "ml.feature.name" in p.attributes
    }
    assert {name: served[name] for name in NAMES} == {name: trained[name] for name in NAMES}


@pytest.mark.parametrize("form", ["binned", "large"])
def test_values_that_are_not_read_back_are_said_once(
    form: str, collect: Collect, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A QuantileDMatrix has only bins, and a copy of a very large one would cost too much: rows are counted."""
    monkeypatch.setattr(instrumentor, "LIMIT", 3 * ROWS - 1 if form == "large" else 3 * ROWS)
    booster = xgb()
    matrix = MATRIX if form == "large" else xgboost.QuantileDMatrix(FRAME)
    with caplog.at_level(logging.WARNING, logger="otel_ml"):
        booster.predict(matrix)
        booster.predict(matrix)
        points = collect()
    assert [p.value for p in points["ml.inference.rows"]] == [2 * ROWS]
    assert "ml.feature.observations" not in points
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert type(matrix).__name__ in caplog.text


def test_categories_of_a_matrix_are_codes(collect: Collect, caplog: pytest.LogCaptureFixture) -> None:
    """Nobody could compare them: such rows are counted, and it is said once; in place everything is recorded."""
    frame = FRAME.assign(region=pd.Categorical(np.array(["north", "south"])[y]))
    booster = xgboost.train(
        {"objective": "binary:logistic"}, xgboost.DMatrix(frame, y, enable_categorical=True), 2
    )
    booster.predict(xgboost.DMatrix(frame, enable_categorical=True))
    assert "ml.feature.observations" not in collect()
    assert "of categories it has only codes" in caplog.text
    booster.inplace_predict(frame)
    assert states(collect) == {(name, "ok"): ROWS for name in [*NAMES, "region"]}


# --- example ------------------------------------------------------------------------------------------------


def test_the_example_sends_both_forms(tmp_path: Path) -> None:
    """Five calls under one identity, one of them an explanation; each row's features once, on the baseline's bounds."""
    with Sink(tmp_path) as sink:
        assert test_examples.run("xgboost_native.py", endpoint=sink.http_endpoint) == ""
        arrived, sent = sink.metrics(), test_examples.spans(sink)
    assert [(name, attributes["ml.batch.size"]) for name, attributes in sent] == [
        ("inplace_predict churn", 300), ("predict churn", 300), ("predict_contribs churn", 1), ("predict churn", 300),
        ("predict_proba churn", 300),
    ]  # fmt: skip
    assert [attributes.get("ml.variant.name") for _, attributes in sent] == [None] * 3 + ["scikit-learn"] * 2
    served = {
        (attributes.get("ml.variant.name"), attributes["ml.feature.name"]): point.count
        for attributes, point in test_examples.points(arrived, "ml.feature.value")
    }
    for name in NAMES:
        assert (served[None, name], served["scikit-learn", name]) == (601, 300)
    test_examples.assert_declared(arrived, sent)
