"""What of scikit-learn asks a model without being its prediction, and the forms in which a prediction is one."""

from __future__ import annotations

import sys
import types
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from instrumented import Spans, X, fitted, y
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from sklearn import (
    calibration,
    ensemble,
    feature_selection,
    inspection,
    linear_model,
    metrics,
    model_selection,
)
from sklearn.experimental import enable_iterative_imputer  # noqa: F401  # makes the next import work
from sklearn.impute import IterativeImputer
from sklearn.naive_bayes import GaussianNB
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.semi_supervised import SelfTrainingClassifier
from sklearn.tree import DecisionTreeClassifier
from support import by_name

Logistic = linear_model.LogisticRegression
HOLES = np.where(np.arange(X.size).reshape(X.shape) % 7, X, np.nan)
SOME_LABELS = np.where(np.arange(len(y)) % 3, y, -1)


def _values() -> Any:
    return X[:, 0] * 2


def _parts() -> list[tuple[str, Any]]:
    return [("a", Logistic()), ("b", DecisionTreeClassifier(random_state=0))]


# --- one prediction ------------------------------------------------------------------------------------------

WHOLE: dict[str, Callable[[], Any]] = {
    "linear": Logistic,
    "own way": GaussianNB,  # its predict_proba asks its predict_log_proba
    "pipeline": lambda: make_pipeline(StandardScaler(), Logistic()),
    "search": lambda: model_selection.GridSearchCV(Logistic(), {"C": [1.0]}, cv=2),
    "bagging": lambda: ensemble.BaggingClassifier(Logistic(), n_estimators=2),
    "forest": lambda: ensemble.RandomForestClassifier(3, n_jobs=2),
    "boosting": lambda: ensemble.AdaBoostClassifier(n_estimators=2),
    "selected features": lambda: feature_selection.RFE(Logistic()),
    "threshold": lambda: model_selection.TunedThresholdClassifierCV(Logistic(), cv=2),
}


@pytest.mark.filterwarnings("ignore:The SAMME.R algorithm:FutureWarning")  # scikit-learn 1.5
@pytest.mark.filterwarnings("ignore:divide by zero:RuntimeWarning")  # the logarithm of a forest's 0
@pytest.mark.parametrize("kind", WHOLE)
@pytest.mark.parametrize("operation", ["predict", "predict_proba", "predict_log_proba"])
def test_a_prediction_in_any_form_is_one(kind: str, operation: str, instrumented: Spans) -> None:
    """Fitting is none; classes, probabilities and their logarithms are one prediction of the whole each."""
    model = WHOLE[kind]().fit(X, y)
    assert instrumented.names() == []
    getattr(model, operation)(X)
    assert [name.partition(" ")[0] for name in instrumented.names()] == [operation]


def test_logarithms_of_probabilities_have_the_probabilities_as_scores(
    instrumented: Spans, reader: InMemoryMetricReader
) -> None:
    """predict_log_proba is recorded as the probabilities and labels that predict_proba gives."""
    model = fitted()
    model.predict_log_proba(X[:1])
    model.predict_proba(X[:1])
    logarithms, probabilities = instrumented.take()
    told = [f"ml.prediction.{name}" for name in ("score.type", "label")]
    assert [logarithms.attributes[name] for name in told] == [probabilities.attributes[name] for name in told]
    expected = probabilities.attributes["ml.prediction.score.value"]
    assert logarithms.attributes["ml.prediction.score.value"] == pytest.approx(expected)
    model.predict_log_proba(X)
    points = by_name(reader.get_metrics_data())
    assert {p.attributes["ml.prediction.score.type"] for p in points["ml.prediction.score"]} == {
        "probability"
    }


# --- no prediction -------------------------------------------------------------------------------------------


class _Boundary(inspection.DecisionBoundaryDisplay):
    def plot(self, **_: Any) -> Any:
        return self


class _Roc(metrics.RocCurveDisplay):
    def plot(self, *_: Any, **__: Any) -> Any:
        return self


class _Precision(metrics.PrecisionRecallDisplay):
    def plot(self, *_: Any, **__: Any) -> Any:
        return self


class _Confusion(metrics.ConfusionMatrixDisplay):
    def plot(self, *_: Any, **__: Any) -> Any:
        return self


class _Calibration(calibration.CalibrationDisplay):
    def plot(self, *_: Any, **__: Any) -> Any:
        return self


class _Errors(metrics.PredictionErrorDisplay):
    def plot(self, *_: Any, **__: Any) -> Any:
        return self


def _own_scorer(model: Any, X: Any, y: Any) -> float:
    return float(np.mean(model.predict(X) == y))


NO_PREDICTION: dict[str, Callable[[], Any]] = {
    "stacking as features": lambda: ensemble.StackingClassifier(_parts(), cv=2).fit(X, y).transform(X),
    "voting as features": lambda: ensemble.VotingClassifier(_parts(), voting="soft").fit(X, y).transform(X),
    "votes as features": lambda: ensemble.VotingClassifier(_parts()).fit(X, y).transform(X),
    "values as features": lambda: (
        ensemble.VotingRegressor([("a", linear_model.Ridge())]).fit(X, _values()).transform(X)
    ),
    "stacked values as features": lambda: (
        ensemble.StackingRegressor([("a", linear_model.Ridge())], cv=2).fit(X, _values()).transform(X)
    ),
    "imputing by models": lambda: (
        IterativeImputer(max_iter=5, tol=0.1).fit(HOLES).transform(HOLES),
        IterativeImputer(max_iter=5, tol=0.1).fit_transform(HOLES),
    ),
    "stages of boosting": lambda: [
        list(stages(X)) for model in [ensemble.AdaBoostClassifier(n_estimators=3).fit(X, y)]
        for stages in (model.staged_predict, model.staged_predict_proba, model.staged_decision_function)
    ],
    "scores of stages": lambda: list(
        ensemble.AdaBoostClassifier(n_estimators=3).fit(X, y).staged_score(X, y)
    ),
    "stages of gradient boosting": lambda: list(
        ensemble.GradientBoostingClassifier(n_estimators=3).fit(X, y).staged_predict(X)
    ),
    "partial dependence": lambda: inspection.partial_dependence(fitted(), X, [0], grid_resolution=5),
    "permutation importance": lambda: inspection.permutation_importance(
        fitted(), X, y, n_repeats=2, scoring=_own_scorer
    ),
    "cross_val_predict": lambda: model_selection.cross_val_predict(Logistic(), X, y, cv=2),
    "learning curve": lambda: model_selection.learning_curve(
        Logistic(), X, y, cv=2, train_sizes=[0.5, 1.0], scoring=_own_scorer
    ),
    "learning curve in steps": lambda: model_selection.learning_curve(
        linear_model.SGDClassifier(), X, y, cv=2, train_sizes=[0.5, 1.0], scoring=_own_scorer,
        exploit_incremental_learning=True,
    ),
    "validation curve": lambda: model_selection.validation_curve(
        Logistic(), X, y, param_name="C", param_range=[0.1, 1.0], cv=2
    ),
    "permutation test": lambda: model_selection.permutation_test_score(
        Logistic(), X, y, cv=2, n_permutations=2, scoring=_own_scorer
    ),
    "recursive elimination": lambda: (
        feature_selection.RFE(Logistic()).fit(X, y).transform(X),
        feature_selection.RFECV(Logistic(), cv=2).fit(X, y).score(X, y),
    ),
    "sequential selection": lambda: (
        feature_selection.SequentialFeatureSelector(Logistic(), n_features_to_select=1, cv=2).fit(X, y).transform(X)
    ),
    "self-training": lambda: SelfTrainingClassifier(Logistic()).fit(X, SOME_LABELS).score(X, y),
    "tuning a threshold": lambda: model_selection.TunedThresholdClassifierCV(Logistic(), cv=2).fit(X, y),
    "decision boundary": lambda: _Boundary.from_estimator(Logistic().fit(X[:, :2], y), X[:, :2], grid_resolution=5),
    "ROC": lambda: _Roc.from_estimator(fitted(), X, y),
    "precision and recall": lambda: _Precision.from_estimator(fitted(), X, y),
    "confusion matrix": lambda: _Confusion.from_estimator(fitted(), X, y),
    "calibration": lambda: _Calibration.from_estimator(fitted(), X, y),
    "prediction errors": lambda: _Errors.from_estimator(linear_model.Ridge().fit(X, _values()), X, _values()),
}  # fmt: skip


@pytest.fixture
def _plots(monkeypatch: pytest.MonkeyPatch) -> None:
    """What displays ask for before they compute what they would show."""
    monkeypatch.setitem(sys.modules, "matplotlib", types.ModuleType("matplotlib"))


@pytest.mark.usefixtures("_plots")
@pytest.mark.filterwarnings("ignore:The SAMME.R algorithm:FutureWarning")  # scikit-learn 1.5
@pytest.mark.parametrize("tool", NO_PREDICTION)
def test_training_inspection_and_evaluation_are_no_predictions(tool: str, instrumented: Spans) -> None:
    """What asks a model in order to train, to select, to explain or to judge it records nothing."""
    NO_PREDICTION[tool]()
    assert instrumented.names() == []


@pytest.mark.filterwarnings("ignore:The SAMME.R algorithm:FutureWarning")  # scikit-learn 1.5
def test_between_the_stages_predictions_are_recorded(instrumented: Spans) -> None:
    """Only the steps of the generator are suppressed, not what its consumer does in between."""
    model, other = ensemble.AdaBoostClassifier(n_estimators=3).fit(X, y), fitted()
    stages = model.staged_predict(X)
    next(stages)
    other.predict(X)
    stages.close()
    other.predict(X)
    assert instrumented.names() == ["predict LogisticRegression"] * 2


def test_displays_keep_their_signatures_and_get_their_own_method_back() -> None:
    """A patched `from_estimator` is documented as before, and is the very object again afterwards."""
    import inspect

    import otel_ml

    kind = metrics.RocCurveDisplay
    before, signature = vars(kind)["from_estimator"], inspect.signature(kind.from_estimator)
    otel_ml.instrument()
    assert vars(kind)["from_estimator"] is not before
    assert inspect.signature(kind.from_estimator) == signature
    otel_ml.uninstrument()
    assert vars(kind)["from_estimator"] is before
