"""How sure a classifier is: three measures, all from 0 to 1."""

from __future__ import annotations

import math

import numpy as np
import pytest

from otel_ml import uncertainty
from otel_ml.model import Model
from otel_ml.prediction import Prediction, read_outcome
from otel_ml.uncertainty import MEASURES

CLASSIFIER = Model("m", "1", task="classification", classes=("no", "yes"))
REGRESSOR = Model("m", "1", task="regression")
FUNCTION = Model("m", "1")


@pytest.mark.parametrize(
    ("measure", "row", "expected"),
    [  # by hand; entropy: -(.5 ln .5 + .3 ln .3 + .2 ln .2)/ln 3 = 1.0296530/1.0986123
        ("least_confidence", [0.5, 0.3, 0.2], 0.75),
        ("margin", [0.5, 0.3, 0.2], 0.8),
        ("entropy", [0.5, 0.3, 0.2], 0.9372306),
        ("least_confidence", [0.9, 0.1], 0.2),
        ("margin", [0.9, 0.1], 0.2),
        ("entropy", [0.9, 0.1], 0.4689956),  # in bits
        ("margin", [0.2, 0.4, 0.0, 0.4], 1.0),
        ("entropy", [1.0, 0.0, 0.0], 0.0),
    ],
)
def test_worked_values(measure, row, expected):
    """The formulas of the module on numbers done by hand."""
    assert MEASURES[measure](np.array([row, row])) == pytest.approx([expected, expected], abs=1e-7)


@pytest.mark.parametrize("measure", list(MEASURES))
@pytest.mark.parametrize("k", [1, 2, 3, 10])
def test_range_and_ends(measure, k):
    """Everything is in [0, 1]: a certain row 0, an even one 1; a single class is always certain."""
    rng = np.random.default_rng(1)
    p = np.vstack([rng.dirichlet(np.full(k, 0.2), 200), np.eye(k), np.full(k, 1 / k)])
    found = MEASURES[measure](p)
    assert found.shape == (len(p),)
    assert found.min() >= 0
    assert found.max() <= 1
    assert found[200:-1] == pytest.approx(np.zeros(k), abs=1e-12)
    assert found[-1] == pytest.approx(1.0 if k > 1 else 0.0)


@pytest.mark.parametrize("measure", list(MEASURES))
@pytest.mark.parametrize("k", [1, 2, 3, 10])
def test_one_row_is_as_many(measure, k):
    """The short way for one row gives what the vectorised one gives, NaN included."""
    p = np.random.default_rng(2).dirichlet(np.full(k, 0.5), 50)
    p[7, k - 1] = np.nan
    expected = MEASURES[measure](p)
    assert math.isnan(expected[7])
    assert [uncertainty.of_row(measure, row) for row in p.tolist()] == pytest.approx(
        expected.tolist(), nan_ok=True
    )


@pytest.mark.parametrize("measure", list(MEASURES))
def test_zero_rows(measure):
    """No rows give no numbers."""
    assert MEASURES[measure](np.empty((0, 3))).shape == (0,)


@pytest.mark.parametrize("measure", list(MEASURES))
def test_one_probability_of_two(measure):
    """A probability alone is that of one of two classes; what is none gives NaN."""
    scores = np.array([0.0, 0.3, 0.5, 1.0, -0.1, 1.5, np.nan])
    found = uncertainty.binary(measure, scores)
    both = MEASURES[measure](np.column_stack([1 - scores[:4], scores[:4]]))
    assert found[:4] == pytest.approx(both)
    assert np.isnan(found[4:]).all()
    alone = [uncertainty.of_score(measure, score) for score in scores.tolist()]
    assert alone == pytest.approx(found.tolist(), nan_ok=True)


def of(output, model, operation="predict"):
    outcome = read_outcome(np.asarray(output), model, operation)
    made = Prediction(model, operation, len(output), outcome, 0, 0)
    many = made.uncertainty("margin").tolist()
    if len(many) == 1:
        assert [made.row_uncertainty("margin")] == pytest.approx(many, nan_ok=True)
    return many


def test_of_a_prediction(baseline):
    """It comes from the probabilities, else from a score that is one or may be; labels and values tell nothing."""
    assert of([[0.7, 0.3], [0.5, 0.5]], CLASSIFIER, "predict_proba") == pytest.approx([0.6, 1.0])
    assert of([[0.7, 0.3]], FUNCTION) == pytest.approx([0.6])
    assert of([0.3], FUNCTION) == pytest.approx([0.6])
    assert of([0.3], Model("m", "1", baseline=baseline)) == pytest.approx([0.6])
    assert of([0.3, 7.0], FUNCTION) == pytest.approx([0.6, np.nan], nan_ok=True)
    assert np.isnan(of([0.3], REGRESSOR)).all()
    assert np.isnan(of([0.3], CLASSIFIER, "decision_function")).all()
    assert np.isnan(of(["no", "yes"], CLASSIFIER)).all()
