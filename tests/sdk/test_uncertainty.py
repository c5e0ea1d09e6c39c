"""How sure a classifier is: three measures, all from 0 to 1."""

from __future__ import annotations

import math

import numpy as np
import pytest
from sklearn.ensemble import RandomForestClassifier
from support import select

import otel_ml
from otel_ml import Baseline, uncertainty
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


@pytest.mark.parametrize("k", [2, 3, 7, 40, 41, 60])
@pytest.mark.parametrize("rows", [1, 5, 99, 100, 5000])
def test_many_rows_are_what_each_of_them_is(k, rows):
    """Bit by bit, whichever way is taken for so many rows and columns; NaN of a row with NaN."""
    p = np.random.default_rng(k).dirichlet(np.full(k, 0.5), rows)
    p[rows // 2, k // 2] = np.nan
    ordered = np.sort(p, axis=1)
    best, second = np.where(np.isnan(p).any(axis=1), np.nan, [ordered[:, -1], ordered[:, -2]])
    np.testing.assert_array_equal(MEASURES["margin"](p), np.clip(1 - (best - second), 0, 1))
    np.testing.assert_array_equal(MEASURES["least_confidence"](p), np.clip((1 - best) * (k / (k - 1)), 0, 1))
    np.testing.assert_array_equal(uncertainty.score(p), p[:, 1] if k == 2 else best)


# --- what is counted --------------------------------------------------------------------------------------

BOUNDS = [i / 20 for i in range(1, 20)]


def margin_of(row):
    """1 less how far the largest probability is ahead of the second, one row at a time."""
    best, second = sorted(row, reverse=True)[:2]
    return 1 - (best - second)


def by_hand(values, bounds):
    """Counts in (lo, hi] buckets, one value at a time."""
    counts = [0] * (len(bounds) + 1)
    for value in values:
        counts[sum(value > bound for bound in bounds)] += 1
    return counts


def answering(answers, **options):
    """An observed function that gives these answers, one a call, each of as many rows as it is asked of."""
    remaining = iter(answers)
    watch = otel_ml.observe(model="m", version="1", spans="off", **options)
    predict = watch(lambda X: next(remaining))
    for answer in answers:
        predict(np.zeros((len(answer), 1)))


def of_three(rows=3000, seed=0, concentration=0.7):
    return np.random.default_rng(seed).dirichlet(np.full(3, concentration), rows)


def test_the_histogram_is_that_of_a_plain_loop(collect):
    """Over calls of one row and of many, in either precision: the margin of each row on twenty equal buckets."""
    p = of_three()
    calls = [*p[:50, None], p[50:1000], p[1000:1001], p[1001:2000], p[2000:].astype(np.float32)]
    answering(calls, operation="predict_proba")
    (point,) = collect()["ml.prediction.uncertainty"]
    expected = [margin_of(row) for call in calls for row in call.astype(np.float64).tolist()]
    assert list(point.bucket_counts) == by_hand(expected, BOUNDS)
    assert list(point.explicit_bounds) == pytest.approx(BOUNDS)
    assert point.sum == pytest.approx(sum(expected))
    assert dict(point.attributes) == {
        "ml.model.name": "m", "ml.model.version": "1", "ml.prediction.uncertainty.type": "margin",
    }  # fmt: skip


def test_a_baseline_of_predict_proba_gives_the_bounds(collect):
    """The service counts on them, says whose they are, and sends the baseline's own counts beside."""
    trained = of_three(seed=1)
    baseline = Baseline.fit({"a": np.arange(3000.0)}, model="m", version="1", scores=trained)
    p = of_three(seed=2, concentration=2.0)
    answering([p], baseline=baseline, operation="predict_proba")
    points = collect()
    (point,) = points["ml.prediction.uncertainty"]
    assert list(point.explicit_bounds) == baseline.uncertainty.bounds.tolist()
    assert list(point.bucket_counts) == by_hand([margin_of(row) for row in p.tolist()], point.explicit_bounds)
    assert point.attributes["ml.baseline.id"] == baseline.id
    (reference,) = select(points["ml.baseline.value"], ml__drift__target="uncertainty")
    assert list(reference.bucket_counts) == by_hand(
        [margin_of(row) for row in trained.tolist()], reference.explicit_bounds
    )
    assert "ml.feature.name" not in reference.attributes


@pytest.mark.parametrize(
    ("answer", "operation"),
    [
        (np.column_stack([1 - of_three()[:, 0], of_three()[:, 0]]), "predict_proba"),
        (of_three()[:, 0], "predict_proba"),
        (of_three() - 0.5, "decision_function"),
        (of_three()[:, :1], "predict"),
        (of_three() * 2, "predict"),
    ],
    ids=["two classes", "one probability", "margins", "values", "labels that do not exclude each other"],
)
def test_what_the_score_says_already_is_not_counted(collect, answer, operation):
    """Nor what is no distribution over classes: no series, and so no cost."""
    answering([answer], operation=operation)
    assert "ml.prediction.uncertainty" not in collect()


@pytest.mark.parametrize("form", ["two columns", "one"])
def test_of_two_classes_it_is_counted_when_the_baseline_has_it(collect, form):
    """Somebody asked for it then; a number that is no probability is left out."""
    one = np.random.default_rng(0).random(1000)
    baseline = Baseline.fit(
        {"a": np.arange(1000.0)}, model="m", version="1", scores=one, uncertainty=1 - abs(2 * one - 1)
    )
    answer = (
        np.array([0.5, 0.9, 0.9, 0.01]) if form == "one" else np.array([[0.5, 0.5], [0.1, 0.9], [0.9, 0.1]])
    )
    answering(
        [answer, np.array([1.5])] if form == "one" else [answer], baseline=baseline, operation="predict_proba"
    )
    (point,) = collect()["ml.prediction.uncertainty"]
    expected = [1.0, 0.2, 0.2, 0.02] if form == "one" else [1.0, 0.2, 0.2]
    assert list(point.bucket_counts) == by_hand(expected, baseline.uncertainty.bounds)


def test_broken_rows_are_left_out(collect):
    """NaN and infinities are in no bucket, and cost the other rows nothing."""
    broken = [[np.nan, 0.5, 0.5], [np.inf, 0.0, 0.0], [np.inf, np.inf, 0.0]]
    p = np.vstack([of_three(200), broken])
    answering([p], operation="predict_proba")
    points = collect()
    (point,) = points["ml.prediction.uncertainty"]
    assert list(point.bucket_counts) == by_hand([margin_of(row) for row in p[:200].tolist()], BOUNDS)
    assert [p.value for p in points["otel_ml.dropped"]] == [3]


def test_of_an_estimator_it_is_counted_once(collect, instrumented):
    """`predict` of a forest hears its `predict_proba`; asked of the same rows again, that tells nothing new."""
    X = np.random.default_rng(0).normal(size=(300, 4))
    forest = RandomForestClassifier(5, max_depth=3, random_state=0).fit(X, (X[:, 0] * 3).round().clip(-1, 1))
    p = forest.predict_proba(X)
    collect()
    forest.predict(X)
    forest.predict_proba(X)
    (point,) = collect()["ml.prediction.uncertainty"]
    assert point.count == 2 * 300
    once = by_hand([margin_of(row) for row in p.tolist()], BOUNDS)
    assert list(point.bucket_counts) == [2 * count for count in once]


def test_segments_have_their_own(collect):
    """Each row is counted in its segment, and all of them add up to the whole."""
    p = of_three(400)
    regions = np.array(["eu", "us"])[np.arange(400) % 2]
    watch = otel_ml.observe(
        model="m",
        version="1",
        operation="predict_proba",
        segment=otel_ml.Segment("region", values=("eu", "us")),
    )
    watch(lambda X: p)({"region": regions, "a": np.arange(400.0)})
    points = collect()["ml.prediction.uncertainty"]
    for i, region in enumerate(("eu", "us")):
        (point,) = select(points, ml__segment__region=region)
        assert list(point.bucket_counts) == by_hand([margin_of(row) for row in p[i::2].tolist()], BOUNDS)
    assert len(points) == 2
