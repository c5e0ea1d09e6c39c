"""What an output says: scores, their type, and labels."""

from __future__ import annotations

import numpy as np
import pytest

from otel_ml.model import Model
from otel_ml.prediction import read_outcome

CLASSIFIER = Model("m", "1", task="classification", classes=("no", "yes"))
REGRESSOR = Model("m", "1", task="regression")
DETECTOR = Model("m", "1", task="outlier")
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
