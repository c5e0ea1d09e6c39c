"""The score of a `predict`: what the estimator itself computed on its way, and nothing that it did not."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from instrumented import Spans, X, fitted, y
from sklearn import calibration, ensemble, model_selection, multiclass, svm, tree
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.parallel import Parallel, delayed
from support import Points

import otel_ml
from otel_ml import registry
from otel_ml.model import Model
from otel_ml.prediction import Answer, read_outcome

pytestmark = pytest.mark.usefixtures("instrumented")

Collect = Callable[[], Points]


def said(instrumented: Spans) -> tuple[str, float, float, float] | None:
    """Type, smallest, largest and mean score on the one span that was made."""
    [span] = instrumented.take()
    if "ml.prediction.score.type" not in span.attributes:
        return None
    low, high, mean = (span.attributes[f"ml.prediction.score.{name}"] for name in ("min", "max", "mean"))
    return span.attributes["ml.prediction.score.type"], low, high, mean


def expected(kind: str, scores: Any) -> Any:
    return kind, *(pytest.approx(value) for value in (scores.min(), scores.max(), scores.mean()))


def logistic() -> LogisticRegression:
    return LogisticRegression()


PROBABILITIES: dict[str, Callable[[], Any]] = {
    "forest": lambda: ensemble.RandomForestClassifier(10, random_state=0),
    "forest in threads": lambda: ensemble.RandomForestClassifier(10, n_jobs=2, random_state=0),
    "bagging": lambda: ensemble.BaggingClassifier(logistic(), 3, random_state=0),
    "soft voting": lambda: ensemble.VotingClassifier([("a", logistic()), ("b", logistic())], voting="soft"),
    "calibrated": lambda: calibration.CalibratedClassifierCV(logistic(), cv=2),
    "pipeline": lambda: make_pipeline(StandardScaler(), ensemble.RandomForestClassifier(5, random_state=0)),
    "grid search": lambda: model_selection.GridSearchCV(
        make_pipeline(StandardScaler(), ensemble.RandomForestClassifier(random_state=0)),
        {"randomforestclassifier__n_estimators": [3, 5]},
        cv=2,
    ),
    "threshold": lambda: model_selection.FixedThresholdClassifier(
        ensemble.RandomForestClassifier(5, random_state=0), threshold=0.2, response_method="predict_proba"
    ),
}


@pytest.mark.parametrize("kind", PROBABILITIES)
def test_probability_that_predict_computed_is_its_score(
    kind: str, instrumented: Spans, collect: Collect
) -> None:
    """It is that of the model's own predict_proba, on the span and in the metrics; labels are predict's."""
    model = PROBABILITIES[kind]().fit(X, y)
    with otel_ml.suppress():
        scores, labels = model.predict_proba(X)[:, 1], model.predict(X)
    assert np.array_equal(model.predict(X), labels)
    assert said(instrumented) == expected("probability", scores)
    points = collect()
    [score] = points["ml.prediction.score"]
    assert (score.count, score.sum) == (80, pytest.approx(scores.sum()))
    counted = {p.attributes["ml.prediction.label"]: p.value for p in points["ml.predictions"]}
    assert counted == {"0": sum(labels == 0), "1": sum(labels == 1)}


MARGINS: dict[str, Callable[[], Any]] = {
    "logistic regression": logistic,
    "linear SVC": svm.LinearSVC,
    "boosting": lambda: ensemble.GradientBoostingClassifier(n_estimators=3),
    "adaboost": lambda: ensemble.AdaBoostClassifier(n_estimators=3, random_state=0),
    "pipeline in a pipeline": lambda: make_pipeline(StandardScaler(), make_pipeline(logistic())),
    "stacking": lambda: ensemble.StackingClassifier([("a", logistic()), ("b", svm.SVC())], cv=2),
}


@pytest.mark.filterwarnings("ignore:The SAMME.R algorithm:FutureWarning")  # scikit-learn 1.5
@pytest.mark.parametrize("kind", MARGINS)
def test_margin_that_predict_computed_is_its_score(kind: str, instrumented: Spans) -> None:
    """It is that of the model's own decision_function: of a stack the last estimator's, of no base one."""
    model = MARGINS[kind]().fit(X, y)
    with otel_ml.suppress():
        scores = model.decision_function(X)
    model.predict(X)
    assert said(instrumented) == expected("margin", scores)


def test_anomaly_that_predict_computed_is_its_score(instrumented: Spans) -> None:
    """An outlier detector's decision_function gives anomalies."""
    model = ensemble.IsolationForest(n_estimators=3, random_state=0).fit(X)
    with otel_ml.suppress():
        scores = model.decision_function(X)
    model.predict(X)
    assert said(instrumented) == expected("anomaly", scores)


NONE: dict[str, Callable[[], Any]] = {
    "SVC": svm.SVC,
    "hard voting": lambda: ensemble.VotingClassifier([("a", logistic()), ("b", logistic())]),
    "one against the rest": lambda: multiclass.OneVsRestClassifier(logistic()),
    "stack that ends in a hard vote": lambda: ensemble.StackingClassifier(
        [("a", logistic())], final_estimator=svm.SVC(), cv=2
    ),
}


@pytest.mark.parametrize("kind", NONE)
def test_nothing_is_a_score_that_is_not_the_models(kind: str, instrumented: Spans) -> None:
    """What the parts of an ensemble say is not what it says; where predict computed none, there is none."""
    NONE[kind]().fit(X, y).predict(X)
    assert said(instrumented) is None


def test_a_tree_has_no_score_of_its_own(instrumented: Spans) -> None:
    """A tree looks its label up."""
    tree.DecisionTreeClassifier().fit(X, y).predict(X)
    assert said(instrumented) is None


def test_a_frozen_last_step_is_looked_through(instrumented: Spans) -> None:
    """It hands its calls on to what it holds."""
    frozen = pytest.importorskip("sklearn.frozen", reason="scikit-learn 1.6")
    model = make_pipeline(StandardScaler(), frozen.FrozenEstimator(fitted())).fit(X, y)
    with otel_ml.suppress():
        scores = model.decision_function(X)
    model.predict(X)
    assert said(instrumented) == expected("margin", scores)


def test_no_probability_is_computed_for_us(instrumented: Spans) -> None:
    """predict computes the probabilities once, as it does without us."""
    calls = []

    class Counting(ensemble.RandomForestClassifier):
        def predict_proba(self, X: Any) -> Any:
            calls.append(len(X))
            return super().predict_proba(X)

    model = Counting(5, random_state=0).fit(X, y)
    model.predict(X)
    assert calls == [80]
    assert said(instrumented) == expected("probability", model.predict_proba(X)[:, 1])
    assert calls == [80, 80]


class Both(ClassifierMixin, BaseEstimator):
    """Computes whatever `asks` names before it answers."""

    def __init__(self, asks: Any = ()) -> None:
        self.asks = asks

    def fit(self, X: Any, y: Any) -> Both:
        self.classes_ = np.unique(y)
        return self

    def predict_proba(self, X: Any) -> Any:
        return np.full((len(X), 2), 0.5)

    def decision_function(self, X: Any) -> Any:
        return np.full(len(X), -3.0)

    def predict(self, X: Any) -> Any:
        for ask in self.asks:
            ask(self, X)
        return np.zeros(len(X), dtype=int)


def probabilities(model: Both, X: Any) -> None:
    model.predict_proba(X)


def margins(model: Both, X: Any) -> None:
    model.decision_function(X)


ASKS: dict[str, tuple[Any, Any]] = {
    "probability first": ([probabilities, margins], "probability"),
    "probability last": ([margins, probabilities], "probability"),
    "margins": ([margins], "margin"),
    "a part of the rows": ([lambda self, X: self.predict_proba(X[:10])], None),
    "all rows, then a part": ([margins, lambda self, X: self.decision_function(X[:1])], None),
    "another model": ([lambda self, X: Both().fit(X, [0, 1]).predict_proba(X)], None),
    "workers": ([lambda self, X: Parallel()(delayed(self.predict_proba)(X) for _ in range(2))], None),
    "threads": ([lambda self, X: ThreadPoolExecutor(1).submit(self.predict_proba, X).result()], None),
}


@pytest.mark.parametrize("case", ASKS)
def test_which_of_several_is_the_score(case: str, instrumented: Spans) -> None:
    """Probabilities before margins, the last of its kind, of all the rows, in the call itself."""
    asks, kind = ASKS[case]
    Both(asks).fit(X, y).predict(X)
    spans = [span for span in instrumented.take() if span.name == "predict Both"]
    assert [span.attributes.get("ml.prediction.score.type") for span in spans] == [kind]


@pytest.mark.parametrize("mode", ["all", "sampled", "off"])
def test_every_span_mode_counts_the_score(mode: Any, instrumented: Spans, collect: Collect) -> None:
    """A span that is current during the call gets it, too; without spans the metrics do."""
    model = fitted()
    registry.register(model, name="m", version="1", spans=mode)
    for _ in range(3):
        model.predict(X)
        model.predict(X[:1])
    assert len(instrumented.take()) == (0 if mode == "off" else 6)
    assert [
        (p.attributes["ml.prediction.score.type"], p.count) for p in collect()["ml.prediction.score"]
    ] == [("margin", 243)]


def test_labels_of_text_have_scores_too(instrumented: Spans, collect: Collect) -> None:
    """Labels that cannot be joined as numbers are counted with their margins."""
    model = LogisticRegression().fit(X, np.where(y, "spam", "ham"))
    model.predict(X)
    model.predict(X[:3])
    points = collect()
    assert [p.count for p in points["ml.prediction.score"]] == [83]
    assert sum(p.value for p in points["ml.predictions"]) == 83


def test_a_call_that_raised_leaves_nothing_to_the_next(instrumented: Spans) -> None:
    """What was computed before an exception is not the score of another call."""

    def fail(self: Any, X: Any) -> None:
        raise RuntimeError

    model = Both([probabilities, fail]).fit(X, y)
    with pytest.raises(RuntimeError):
        model.predict(X)
    model.asks = []
    instrumented.take()
    model.predict(X)
    assert said(instrumented) is None


def test_an_answer_has_the_outputs_labels_and_the_nested_scores() -> None:
    """The probabilities are there for whoever needs them all."""
    p = np.array([[0.3, 0.7], [0.8, 0.2]])
    model = Model("m", "1", task="classification", classes=("no", "yes"))
    outcome = read_outcome(Answer(np.array(["yes", "yes"]), "predict_proba", p), model, "predict")
    assert [None if part is None else part.tolist() for part in (outcome.labels, outcome.scores)] == [
        ["yes", "yes"],
        [0.7, 0.2],
    ]
    assert outcome.score_type == "probability"
    assert outcome.probabilities is p


def test_a_value_of_its_own_is_the_score_of_a_call() -> None:
    """Of an output that holds scores the nested ones are no concern."""
    answer = Answer(np.array([1.5, 2.5]), "decision_function", np.array([0.0, 0.0]))
    outcome = read_outcome(answer, Model("m", "1", task="regression"), "predict")
    assert outcome.scores is not None
    assert (outcome.scores.tolist(), outcome.score_type) == ([1.5, 2.5], "value")
