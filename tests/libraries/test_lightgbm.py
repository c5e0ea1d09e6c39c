"""LightGBM: what each objective and option answers, and training."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightgbm
import numpy as np
import pandas as pd
import pytest
from boosters import FRAME, GROUPS, NAMES, ROWS, THREE, X, lgb, y
from instrumented import Spans
from support import Points

import otel_ml
from otel_ml import config

Collect = Callable[[], Points]


def said(spans: Spans) -> tuple[str, str | None]:
    """Operation and type of the score of the only span."""
    [span] = spans.take()
    return span.name.partition(" ")[0], span.attributes.get("ml.prediction.score.type")


def _centred(predicted: Any, data: Any) -> tuple[Any, Any]:
    return predicted - data.get_label(), np.ones_like(predicted)


OBJECTIVES: dict[str, tuple[Any, dict[str, Any], str | None, str | None]] = {
    "binary": (y, {}, "classification", "probability"),
    "multiclass": (THREE, {"num_class": 3}, "classification", "probability"),
    "multiclassova": (
        THREE,
        {"num_class": 3},
        "classification",
        None,
    ),  # classes that need not exclude each other
    "regression": (X[:, 0], {}, "regression", "value"),
    "poisson": (np.abs(X[:, 0]), {}, "regression", "value"),
    "cross_entropy": (np.abs(np.tanh(X[:, 0])), {}, "regression", "value"),
    "own": (y, {"objective": _centred}, None, "value"),
}


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_the_objective_tells_what_a_booster_answers(objective: str, spans: Spans) -> None:
    """Probability or value, and the task."""
    target, more, task, score = OBJECTIVES[objective]
    lgb(target, **{"objective": objective, **more}).predict(FRAME)
    [span] = spans.take()
    assert span.attributes.get("ml.task.type") == task
    assert span.attributes.get("ml.prediction.score.type") == score


def test_a_ranker_has_values(spans: Spans) -> None:
    """And no task."""
    data = lightgbm.Dataset(FRAME, y, group=[10] * (GROUPS[-1] + 1))
    lightgbm.train({"objective": "lambdarank", "verbose": -1}, data, 2).predict(FRAME)
    [span] = spans.take()
    assert "ml.task.type" not in span.attributes
    assert span.attributes["ml.prediction.score.type"] == "value"


def test_labels_of_several_classes_are_counted(collect: Collect) -> None:
    """The likeliest, by its number."""
    answer = lgb(THREE, objective="multiclass", num_class=3).predict(FRAME)
    expected = {
        str(k): int(n) for k, n in zip(*np.unique(answer.argmax(axis=1), return_counts=True), strict=True)
    }
    assert {p.attributes["ml.prediction.label"]: p.value for p in collect()["ml.predictions"]} == expected


OPTIONS: dict[str, tuple[dict[str, Any], str, str | None]] = {
    "margin": ({"raw_score": True}, "", "margin"),
    "leaves": ({"pred_leaf": True}, "predict_leaf", None),
    "contributions": ({"pred_contrib": True}, "predict_contrib", None),
    "some rounds": ({"num_iteration": 1}, "", "probability"),
}


@pytest.mark.parametrize(
    "operation", ["Booster.predict", "LGBMClassifier.predict", "LGBMClassifier.predict_proba"]
)
@pytest.mark.parametrize("option", OPTIONS)
def test_options_of_a_prediction(option: str, operation: str, spans: Spans, collect: Collect) -> None:
    """A margin is a margin; the way to an answer is an operation of its own, without a score, with features."""
    arguments, name, score = OPTIONS[option]
    kind, method = operation.split(".")
    model = lgb() if kind == "Booster" else lightgbm.LGBMClassifier(n_estimators=3, verbose=-1).fit(FRAME, y)
    getattr(model, method)(FRAME, **arguments)
    assert said(spans) == (name or method, score)
    observed = collect()["ml.feature.observations"]
    assert {p.attributes["ml.feature.name"]: p.value for p in observed} == dict.fromkeys(NAMES, ROWS)


@pytest.mark.filterwarnings("ignore:Cannot compute class probabilities:UserWarning")
def test_an_own_objective_gives_margins_for_labels_and_probabilities(spans: Spans, collect: Collect) -> None:
    """LightGBM cannot make probabilities, nor labels, of them; a regressor's are values as ever."""

    def objective(true: Any, predicted: Any) -> tuple[Any, Any]:
        return predicted - true, np.ones_like(predicted)

    told: dict[str, Any] = {"n_estimators": 2, "verbose": -1, "objective": objective}
    classifier = lightgbm.LGBMClassifier(**told).fit(FRAME, y)
    classifier.predict_proba(FRAME)
    assert said(spans) == ("predict_proba", "margin")
    classifier.predict(FRAME)
    assert said(spans) == ("predict", "margin")
    lightgbm.LGBMRegressor(**told).fit(FRAME, y).predict(FRAME)
    assert said(spans) == ("predict", "value")
    assert "ml.predictions" not in collect()


# --- training -----------------------------------------------------------------------------------------------


def _peek(told: Any) -> None:
    told.model.predict(FRAME)


_MEAN = [lambda predicted, _: ("mean", float(np.mean(predicted)), True)]


@pytest.mark.filterwarnings("ignore:The argument 'eval_set' is deprecated")
def test_training_in_every_way_is_none(spans: Spans) -> None:
    """Own metric, early stopping, callbacks, cross validation, more rounds, refitting."""
    told: dict[str, Any] = {"objective": "binary", "verbose": -1}

    def data() -> Any:
        return lightgbm.Dataset(FRAME, y, free_raw_data=False)

    first = data()
    stopping = lightgbm.early_stopping(1, verbose=False)
    booster = lightgbm.train(told, first, 3, valid_sets=[first], feval=_MEAN, callbacks=[_peek, stopping])
    lightgbm.engine.train(told, data(), 2, init_model=booster, callbacks=[_peek])
    lightgbm.cv(told, data(), 2, nfold=2, callbacks=[_peek])
    booster.refit(FRAME, y)
    loop = lightgbm.Booster(told, first)
    loop.update()
    loop.eval_train(lambda predicted, _: ("asked", float(loop.predict(FRAME).mean()), True))
    lightgbm.LGBMClassifier(n_estimators=2, verbose=-1).fit(
        FRAME, y, eval_set=[(FRAME, y)], callbacks=[_peek]
    )
    assert spans.names() == []


def test_functions_of_training_keep_their_faces() -> None:
    """Name, documentation and signature; and both names of one function stay one."""
    otel_ml.instrument()
    try:
        assert lightgbm.train is lightgbm.engine.train
        assert lightgbm.train.__name__ == "train"
        assert lightgbm.train.__doc__ == lightgbm.train.__wrapped__.__doc__
    finally:
        otel_ml.uninstrument()


def test_a_booster_that_learned_more_is_another_one(spans: Spans) -> None:
    """Its automatic version follows what it is now."""
    booster = lightgbm.Booster({"objective": "binary", "verbose": -1}, lightgbm.Dataset(FRAME, y))
    booster.predict(FRAME)
    booster.update()
    booster.predict(FRAME)
    booster.model_from_string(lgb().model_to_string())
    booster.predict(FRAME)
    assert len({span.attributes["ml.model.version"] for span in spans.take()}) == 3


# --- inputs -------------------------------------------------------------------------------------------------


def test_names_that_lightgbm_gives_are_none(collect: Collect) -> None:
    """Column_0 is no name: the columns go by position, as of a model of scikit-learn, and by the baseline's names."""
    booster = lgb(data=X)
    booster.predict(X)
    named = {p.attributes["ml.feature.name"] for p in collect()["ml.feature.observations"]}
    assert named == {"x0", "x1", "x2"}
    baseline = otel_ml.Baseline.fit(FRAME, model="churn", version="3")
    otel_ml.register(booster, name="churn", version="3", baseline=baseline)
    booster.predict(X)
    points = [p for p in collect()["ml.feature.observations"] if p.attributes["ml.model.name"] == "churn"]
    assert {p.attributes["ml.feature.name"] for p in points} == set(NAMES)


@pytest.mark.filterwarnings("ignore:X does not have valid feature names:UserWarning")
@pytest.mark.parametrize("kind", ["Booster", "LGBMClassifier"])
@pytest.mark.parametrize("registered", [True, False])
def test_spaces_in_names_are_no_other_names(
    kind: str, registered: bool, collect: Collect, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """LightGBM keeps `my age` as `my_age`; a matrix has the baseline's names all the same."""
    named = ["my age", "income", "total tenure"]
    frame = FRAME.set_axis(named, axis=1)
    model: Any = (
        lgb(data=frame)
        if kind == "Booster"
        else lightgbm.LGBMClassifier(n_estimators=2, verbose=-1).fit(frame, y)
    )
    baseline = otel_ml.Baseline.fit(frame, model="churn", version="3")
    if registered:
        otel_ml.register(model, name="churn", version="3", baseline=baseline)
    else:
        baseline.save(tmp_path / "churn.json")
        monkeypatch.setenv("OTEL_PYTHON_ML_BASELINES", str(tmp_path))
        config.settings.cache_clear()
    model.predict(X)
    points = collect()["ml.feature.value"]
    counts = {p.attributes["ml.feature.name"]: p.count for p in points}
    assert [counts.get(name) for name in named] == [ROWS] * 3


def test_categories_of_a_frame_are_recorded(collect: Collect) -> None:
    """By their names."""
    frame = FRAME.assign(region=pd.Categorical(np.array(["north", "south"])[y]))
    booster = lgb(data=frame)
    otel_ml.register(
        booster, name="churn", version="3", baseline=otel_ml.Baseline.fit(frame, model="churn", version="3")
    )
    booster.predict(frame)
    found = {p.attributes["ml.feature.category"]: p.value for p in collect()["ml.feature.categories"]}
    assert {name: found[name] for name in ("north", "south")} == {
        "north": int((y == 0).sum()),
        "south": int(y.sum()),
    }


def test_a_file_is_one_row(collect: Collect, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Nobody reads it twice; it is said once."""
    np.savetxt(tmp_path / "rows.csv", X, delimiter=",")
    lgb(data=X).predict(tmp_path / "rows.csv")
    points = collect()
    assert [p.value for p in points["ml.inference.rows"]] == [1]
    assert "read it yourself" in caplog.text
