"""What an output says: scores, their type, and labels."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.dummy import DummyClassifier
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import BayesianRidge, LogisticRegression, Ridge
from sklearn.multiclass import OneVsRestClassifier
from sklearn.multioutput import MultiOutputClassifier, MultiOutputRegressor
from sklearn.neural_network import MLPClassifier

from otel_ml.model import Model
from otel_ml.prediction import read_outcome

CLASSIFIER = Model("m", "1", task="classification", classes=("no", "yes"))
REGRESSOR = Model("m", "1", task="regression")
X = np.random.default_rng(0).normal(size=(60, 3))
Y = np.column_stack([X[:, 0], X[:, 1]])
MULTI = (Y > 0).astype(int)
DETECTOR = Model("m", "1", task="outlier")
CLUSTERER = Model("m", "1", task="clustering")
RANKER = Model("m", "1", system="xgboost")
FUNCTION = Model("m", "1")


def told(output, model, operation="predict"):
    outcome = read_outcome(output, model, operation)
    scores = None if outcome.scores is None else outcome.scores.tolist()
    labels = None if outcome.labels is None else outcome.labels.tolist()
    return scores, outcome.score_type if scores is not None else None, labels


@pytest.mark.parametrize(
    ("output", "model", "operation", "expected"),
    [
        ([[0.3, 0.7]], CLASSIFIER, "predict_proba", ([0.7], "probability", ["yes"])),
        ([[0.3, 0.7], [0.8, 0.2]], CLASSIFIER, "predict_proba", ([0.7, 0.2], "probability", ["yes", "no"])),
        ([[0.2, 0.5, 0.3]], CLASSIFIER, "predict_proba", ([0.5], "probability", None)),
        ([[0.2, 0.5, 0.3]], FUNCTION, "predict_proba", ([0.5], "probability", [1])),
        ([[0.3, 0.7]], FUNCTION, "predict", ([0.7], "probability", [1])),
        ([[3.0, 7.0]], FUNCTION, "predict", (None, None, None)),
        (["yes", "no"], CLASSIFIER, "predict", (None, None, ["yes", "no"])),
        (np.array([1.0, 0.0]), CLASSIFIER, "predict", (None, None, [1.0, 0.0])),
        (np.array([1.5, -2.0]), REGRESSOR, "predict", ([1.5, -2.0], "value", None)),
        (np.array([3, 4]), REGRESSOR, "predict", ([3.0, 4.0], "value", None)),
        (np.array([[0.3, 0.7]]), REGRESSOR, "predict", (None, None, None)),
        (np.array([[1.5], [-2.0]]), REGRESSOR, "predict", ([1.5, -2.0], "value", None)),
        (np.array([0.5, -2.0]), CLASSIFIER, "decision_function", ([0.5, -2.0], "margin", None)),
        (np.array([[0.5, -2.0, 3.0]]), CLASSIFIER, "decision_function", ([3.0], "margin", None)),
        (np.array([0.5]), DETECTOR, "decision_function", ([0.5], "anomaly", None)),
        (np.array([0.5]), DETECTOR, "score_samples", ([0.5], "anomaly", None)),
        (np.array([-1, 1]), DETECTOR, "predict", (None, None, [-1, 1])),
        (np.array([[1.5, -2.0]]), CLASSIFIER, "decision_function", ([1.5], "margin", None)),
        (np.zeros((2, 3, 4)), CLASSIFIER, "decision_function", (None, None, None)),
        (np.array([[1.0]]), CLASSIFIER, "predict_proba", ([1.0], "probability", None)),
        (np.array([0.5, 0.25]), CLASSIFIER, "predict_proba", ([0.5, 0.25], "probability", None)),
        (np.array([0.5, -1.5]), RANKER, "predict", ([0.5, -1.5], "value", None)),
        (np.array([2, 0]), CLUSTERER, "predict", (None, None, [2, 0])),
        (np.array([[2], [0]]), CLUSTERER, "predict", (None, None, [2, 0])),
        (np.array([b"no", b"yes"]), CLASSIFIER, "predict", (None, None, [b"no", b"yes"])),
        # several outputs a row
        (np.array([[1.5, 2.5], [0.5, 1.5]]), REGRESSOR, "predict", (None, None, None)),
        (np.array([[1.0, 0.0], [0.0, 1.0]]), CLASSIFIER, "predict", (None, None, None)),
        (np.array([[1, 0], [1, 1]]), CLASSIFIER, "predict", (None, None, None)),
        (np.array([[0.9, 0.8], [0.1, 0.2]]), CLASSIFIER, "predict_proba", (None, None, None)),
        (np.array([[0.9, 0.8]]), CLASSIFIER, "predict_proba", (None, None, None)),
        ([np.array([[0.3, 0.7]]), np.array([[0.6, 0.4]])], CLASSIFIER, "predict_proba", (None, None, None)),
        (
            [np.array([[0.3, 0.7]]), np.array([[0.2, 0.2, 0.6]])],
            CLASSIFIER,
            "predict_proba",
            (None, None, None),
        ),
        ([np.array([[0.3, 0.7]])], CLASSIFIER, "predict_proba", (None, None, None)),
        # one column, of values near one as well
        (np.array([[0.9996]]), CLASSIFIER, "predict_proba", ([0.9996], "probability", None)),
        (
            np.array([[1.0], [0.9996], [0.2]]),
            CLASSIFIER,
            "predict_proba",
            ([1.0, 0.9996, 0.2], "probability", None),
        ),
        # a value and what goes with it
        ((np.array([1.5, 2.5]), np.array([0.1, 0.2])), REGRESSOR, "predict", ([1.5, 2.5], "value", None)),
        ((np.array([1.5]), np.array([[0.1]])), REGRESSOR, "predict", ([1.5], "value", None)),
        (0.25, FUNCTION, "predict", ([0.25], "value", None)),
        ("spam", FUNCTION, "predict", (None, None, ["spam"])),
        (True, FUNCTION, "predict", (None, None, [True])),
        (None, FUNCTION, "predict", (None, None, None)),
        ({"score": 1}, FUNCTION, "predict", (None, None, None)),
        ([[1.0], [2.0, 3.0]], FUNCTION, "predict", (None, None, None)),
        ([], FUNCTION, "predict", (None, None, None)),
        (np.zeros((2, 3, 4)), FUNCTION, "predict", (None, None, None)),
        (object(), FUNCTION, "predict", (None, None, None)),
    ],
)
def test_outcome(output, model, operation, expected):
    """Scores, score type and labels by the table of the module."""
    assert told(output, model, operation) == expected


def test_score_type_comes_from_the_baseline(baseline):
    """A function's floats are what the baseline says they are."""
    assert told([0.5], Model("m", "1", baseline=baseline)) == ([0.5], "probability", None)


def test_one_broken_row_does_not_make_a_classifier_multi_label():
    """Rows that are no distribution are few, or all of them; one with NaN is counted as it is."""
    p = np.array([[0.25, 0.75], [np.nan, np.nan], [0.5, 0.75], [0.75, 0.25]])
    scores, kind, labels = told(p, CLASSIFIER, "predict_proba")
    assert (kind, labels[0], labels[3]) == ("probability", "yes", "no")
    np.testing.assert_array_equal(scores, [0.75, np.nan, 0.75, 0.25])


ESTIMATORS = {
    "multi-output regressor": (MultiOutputRegressor(Ridge()), Y, "predict", {}),
    "multi-label forest": (RandomForestClassifier(5), MULTI, "predict_proba", {}),
    "multi-label forest's labels": (RandomForestClassifier(5), MULTI, "predict", {}),
    "multi-label network": (MLPClassifier((4,), max_iter=2000, tol=1), MULTI, "predict_proba", {}),
    "one vs rest, multi-label": (OneVsRestClassifier(LogisticRegression()), MULTI, "predict_proba", {}),
    "multi-output of classes": (MultiOutputClassifier(LogisticRegression()), MULTI, "predict_proba", {}),
    "one class only": (DummyClassifier(), np.zeros(60), "predict_proba", {"probability": 60}),
    "one vs rest, multi-class": (
        OneVsRestClassifier(LogisticRegression()), MULTI.sum(axis=1), "predict_proba", {"probability": 60}
    ),
    "a regressor with its deviation": (BayesianRidge(), Y[:, 0], "predict", {"value": 60}),
}  # fmt: skip


@pytest.mark.parametrize("kind", ESTIMATORS)
def test_scores_of_real_estimators(kind, instrumented, collect):
    """One score a row, or none where a row has several outputs; rows are counted all the same."""
    estimator, y, operation, expected = ESTIMATORS[kind]
    estimator.fit(X, y)
    options = {"return_std": True} if isinstance(estimator, BayesianRidge) else {}
    getattr(estimator, operation)(X, **options)
    points = collect()
    assert [p.value for p in points["ml.inference.rows"]] == [60]
    scores = points.get("ml.prediction.score", [])
    assert {p.attributes["ml.prediction.score.type"]: p.count for p in scores} == expected
    assert ("ml.predictions" in points) == ("probability" in expected)
