"""Every value is counted where it belongs, whatever form the input has."""

from __future__ import annotations

import warnings
from collections import Counter

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from support import by_name, select

from otel_ml import Baseline, observe, pipeline

NAMES = ["a", "b", "c"]


def count(baseline, *inputs, names=None):
    """Feed `inputs` to an observed function and return the points of a first collection."""
    pipeline.reset()
    reader = InMemoryMetricReader()
    pipeline.use(meter_provider=MeterProvider([reader], shutdown_on_exit=False))
    predict = observe(model="churn", version="3", baseline=baseline, features=names, spans="off")(
        lambda X: None
    )
    for rows in inputs:
        predict(rows)
    return by_name(reader.get_metrics_data())


def states(points, feature):
    found = select(points["ml.feature.observations"], ml__feature__name=feature)
    return {p.attributes["ml.feature.state"]: p.value for p in found if p.value}


def buckets(points, feature):
    (point,) = select(points["ml.feature.value"], ml__feature__name=feature)
    return list(point.bucket_counts)


def categories(points, feature):
    found = select(points["ml.feature.categories"], ml__feature__name=feature)
    return {p.attributes["ml.feature.category"]: p.value for p in found}


def brute_force(bounds, values):
    """Counts in (lo, hi] buckets, one value at a time."""
    counts = [0] * (len(bounds) + 1)
    for value in values:
        counts[sum(value > bound for bound in bounds)] += 1
    return counts


def test_every_form_of_input_gives_the_same_counts(baseline, training):
    """Arrays, lists, dicts and data frames of the same rows are counted alike."""
    X = training[:50].copy()
    X[3, 0] = np.nan
    frame = pd.DataFrame(X, columns=NAMES)
    forms = {
        "array": X,
        "fortran order": np.asfortranarray(X),
        "every other row of a larger array": np.repeat(X, 2, axis=0)[::2],
        "read-only": np.frombuffer(X.tobytes()).reshape(X.shape),
        "list of rows": X.tolist(),
        "list of dicts": frame.to_dict("records"),
        "dict of columns": {name: X[:, j] for j, name in enumerate(NAMES)},
        "pandas": frame,
        "pandas, columns reordered": frame[["c", "a", "b"]],
        "polars": pl.DataFrame({name: X[:, j] for j, name in enumerate(NAMES)}),
        "pyarrow": pa.table({name: X[:, j] for j, name in enumerate(NAMES)}),
    }
    expected = brute_force(baseline.features["a"].bounds, [v for v in X[:, 0] if v == v])
    for form, rows in forms.items():
        points = count(baseline, rows)
        assert buckets(points, "a") == expected, form
        assert states(points, "a") == {"ok": 49, "missing": 1}, form
        assert buckets(points, "b") == brute_force(baseline.features["b"].bounds, X[:, 1]), form
        assert categories(points, "c") == Counter(str(int(v)) for v in X[:, 2]), form
        assert [p.value for p in points["ml.inference.rows"]] == [50], form


@pytest.mark.parametrize(
    "row",
    [
        np.array([0.0, -50.0, 1.0]),
        [0.0, -50.0, 1.0],
        {"a": 0.0, "b": -50.0, "c": 1},
        pd.Series({"a": 0.0, "b": -50.0, "c": 1.0}),
        np.array([[0, -50, 1]]),
        np.array([[0, -50, 1]], dtype=np.int8),
        np.array([[0, -50, 1]], dtype=np.float16),
        np.array([[0, -50, 1]], dtype=object),
    ],
    ids=["1-D array", "list", "dict", "Series", "int64", "int8", "float16", "object"],
)
def test_every_form_of_one_row(baseline, row):
    """One row is one row, however it is given."""
    points = count(baseline, row)
    assert [p.value for p in points["ml.inference.rows"]] == [1]
    assert buckets(points, "a") == brute_force(baseline.features["a"].bounds, [0.0])
    assert buckets(points, "b") == brute_force(baseline.features["b"].bounds, [-50.0])
    assert categories(points, "c") == {"1": 1}


values = st.one_of(
    st.floats(-80, 80),
    st.sampled_from([np.nan, np.inf, -np.inf, -0.0, 1e300, -1e300, 5e-324]),
    st.just(-50.0),
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(values, values, st.integers(-1, 6)), min_size=1, max_size=40), st.integers(1, 5))
def test_counts_equal_a_brute_force_count(baseline, rows, calls):
    """Buckets hold every finite value, the states are exclusive and add up to the rows."""
    X = np.array(rows, dtype=float)
    points = count(baseline, *np.array_split(X, min(calls, len(X))))
    for j, name in enumerate(["a", "b"]):
        summary = baseline.features[name]
        low, high = summary.limits
        finite = [v for v in X[:, j] if np.isfinite(v)]
        assert buckets(points, name) == brute_force(summary.bounds, finite)
        expected = Counter(
            "missing"
            if v != v
            else "non_finite"
            if np.isinf(v)
            else "ok"
            if low <= v <= high
            else "out_of_range"
            for v in X[:, j]
        )
        assert states(points, name) == expected
    assert sum(states(points, "c").values()) == len(X)


@pytest.mark.parametrize("kind", [np.float64, np.float32, np.int64, np.int32])
def test_precision_does_not_matter(kind):
    """The same integers as float64, float32 or int give the same counts, trained on either."""
    rng = np.random.default_rng(5)
    X = rng.integers(-20, 20, size=(3000, 2))
    expected = None
    for trained in (np.float64, np.float32, np.int64):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            reference = Baseline.fit(X.astype(trained), model="m", version="1", features=["a", "b"])
        points = count(reference, X.astype(kind))
        got = (buckets(points, "a"), buckets(points, "b"))
        expected = expected or got
        assert got == expected


def test_decimals_in_float32_fall_where_float64_does():
    """0.1 as a float32 is counted with 0.1 as a float64, whichever of the two was trained on."""
    rng = np.random.default_rng(5)
    X = rng.integers(0, 30, size=(3000, 1)) / 10
    for trained, served in ((np.float64, np.float32), (np.float32, np.float64)):
        reference = Baseline.fit(X.astype(trained), model="m", version="1", features=["a"])
        points = count(reference, X.astype(served))
        assert buckets(points, "a") == reference.features["a"].bucket_counts.tolist()


def test_unseen_category(baseline):
    """A category that training did not have is counted as unseen, in category and state."""
    points = count(baseline, {"a": [0.0, 0.0], "b": [-50.0, -50.0], "c": [9, 1]})
    assert categories(points, "c") == {"__unseen__": 1, "1": 1}
    assert states(points, "c") == {"ok": 1, "unseen": 1}


def test_missing_column(baseline, caplog):
    """A column of the baseline that the input lacks counts as missing, once said and always counted."""
    points = count(
        baseline, pd.DataFrame({"a": [0.0] * 4, "c": [1] * 4}), pd.DataFrame({"a": [0.0], "c": [1]})
    )
    assert states(points, "b") == {"missing": 5}
    (violation,) = points["otel_ml.schema.violations"]
    assert (violation.attributes["reason"], violation.attributes["ml.feature.name"]) == ("missing", "b")
    assert caplog.messages == [
        "model churn version 3: the feature 'b' is not in the input; its rows count as missing"
    ]


def test_extra_and_renamed_columns(baseline, caplog):
    """A renamed column is one missing and one extra; the extra one is not recorded."""
    points = count(baseline, pd.DataFrame({"a": [0.0], "B": [-50.0], "c": [1]}))
    found = {
        (p.attributes["reason"], p.attributes["ml.feature.name"]) for p in points["otel_ml.schema.violations"]
    }
    assert found == {("missing", "b"), ("extra", "B")}
    assert not select(points["ml.feature.observations"], ml__feature__name="B")


def test_retyped_column(baseline, caplog):
    """Text where the baseline has numbers counts as type_mismatch."""
    points = count(baseline, pd.DataFrame({"a": ["low", "high"], "b": [-50.0, -51.0], "c": [1, 1]}))
    assert states(points, "a") == {"type_mismatch": 2}
    assert (
        "feature 'a' is a number in the baseline; values that are none count as type_mismatch" in caplog.text
    )


def test_wrong_width(baseline, caplog):
    """Unnamed columns of another number than the baseline's: rows are counted, features are not, and it is said."""
    points = count(baseline, np.zeros((7, 5)))
    assert [p.value for p in points["ml.inference.rows"]] == [7]
    assert [(p.attributes["reason"], p.value) for p in points["otel_ml.dropped"]] == [("input_mismatch", 7)]
    assert [p.attributes["reason"] for p in points["otel_ml.schema.violations"]] == ["width"]
    assert "the input has 5 columns, expected are 3; its features are not recorded." in caplog.text


def test_unreadable_input(baseline, caplog):
    """An input that is no table still counts as a call."""
    points = count(baseline, object())
    assert [p.value for p in points["ml.inference.rows"]] == [1]
    assert "cannot be read as rows of features" in caplog.text


def test_without_a_baseline_numbers_go_into_exponential_histograms():
    """No baseline: every finite value is counted, negative ones too, in buckets that need no bounds."""
    points = count(None, np.array([[-3.0, 0.0], [2.0, np.nan], [np.inf, 1e-9]]))
    (first,) = select(points["ml.feature.value"], ml__feature__name="x0")
    assert (first.count, first.zero_count) == (2, 0)
    assert (sum(first.positive.bucket_counts), sum(first.negative.bucket_counts)) == (1, 1)
    assert states(points, "x0") == {"ok": 2, "non_finite": 1}
    assert states(points, "x1") == {"ok": 2, "missing": 1}


def test_without_a_baseline_no_category_is_named():
    """No baseline: categories stay home, only their states are counted."""
    points = count(None, [{"plan": "gold"}, {"plan": None}])
    assert "ml.feature.categories" not in points
    assert states(points, "plan") == {"ok": 1, "missing": 1}


def test_positional_input_skips_excluded_columns():
    """Unnamed input is matched with all training columns; an excluded one is not recorded."""
    X = np.column_stack([np.arange(1000), np.random.default_rng(1).normal(size=1000)])
    reference = Baseline.fit(X, model="m", version="1", features=["id", "a"], exclude=["id"])
    points = count(reference, X)
    assert buckets(points, "a") == reference.features["a"].bucket_counts.tolist()
    assert not select(points["ml.feature.observations"], ml__feature__name="id")


def test_booleans_in_a_matrix_of_numbers():
    """A column trained as booleans and served as 1.0 and 0.0 is not unseen."""
    frame = pd.DataFrame({"a": np.linspace(-1, 1, 1000), "paid": [True, False] * 500})
    reference = Baseline.fit(frame, model="m", version="1")
    points = count(reference, frame.to_numpy(dtype=float))
    assert categories(points, "paid") == {"true": 500, "false": 500}
    assert states(points, "paid") == {"ok": 1000}


class Hostile:
    """An object that fails at whatever it is asked."""

    @property
    def shape(self):
        raise RuntimeError("shape")

    def __len__(self):
        raise RuntimeError("len")

    def __array__(self, *args, **kwargs):
        raise RuntimeError("array")


def test_an_input_that_fails_at_everything_costs_only_its_own_row(baseline):
    """An object that raises when it is looked at is one unreadable row; the calls around it are counted."""
    points = count(baseline, np.zeros((3, 3)), Hostile(), np.zeros((4, 3)))
    assert [p.value for p in points["ml.inference.rows"]] == [8]
    assert states(points, "a") == {"ok": 7}


def test_columns_with_the_same_name(baseline):
    """Of two columns of one name the first is counted."""
    points = count(baseline, pd.DataFrame([[0.0, 9.0, -50.0, 1.0]] * 5, columns=["a", "a", "b", "c"]))
    assert states(points, "a") == {"ok": 5}
    assert buckets(points, "a") == brute_force(baseline.features["a"].bounds, [0.0] * 5)


def test_a_frame_without_column_names_goes_by_position(baseline, training):
    """Columns that pandas numbered by itself are matched like those of an array."""
    points = count(baseline, pd.DataFrame(training))
    assert buckets(points, "a") == baseline.features["a"].bucket_counts.tolist()
    assert "otel_ml.schema.violations" not in points


def test_ever_new_columns_do_not_make_ever_new_series(baseline):
    """A dict with other keys at each call names at most 20 of them; the others are counted together."""
    row = {"a": 0.0, "b": -50.0, "c": 1}
    points = count(baseline, *[{**row, f"request-{i}": i} for i in range(100)])
    named = {p.attributes["ml.feature.name"]: p.value for p in points["otel_ml.schema.violations"]}
    assert named == {f"request-{i}": 1 for i in range(20)} | {"__other__": 80}


def test_a_matrix_is_read_like_an_array(baseline, training):
    """numpy.matrix, whose columns stay two-dimensional, is counted."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", PendingDeprecationWarning)
        points = count(baseline, np.matrix(training[:5]))
    assert states(points, "a") == {"ok": 5}


def test_categories_in_float32_are_those_of_float64():
    """A category 0.1 that arrives in a float32 matrix is the category 0.1."""
    X = np.column_stack([np.tile([0.1, 0.5, 0.7, 0.9], 250), np.linspace(0, 1, 1000)])
    reference = Baseline.fit(X, model="m", version="1", features=["k", "v"], categorical=["k"])
    points = count(reference, X.astype(np.float32))
    assert categories(points, "k") == {"0.1": 250, "0.5": 250, "0.7": 250, "0.9": 250}
    assert states(points, "k") == {"ok": 1000}


def test_a_missing_first_value_does_not_decide_the_kind():
    """A feature whose first rows are null is numeric as soon as it has a number."""
    for first in ({"income": [None, None]}, [[None], [None]]):
        points = count(None, first, {"income": [1.5, 2.5]} if isinstance(first, dict) else [[1.5], [2.5]])
        (point,) = points["ml.feature.value"]
        assert point.count == 2
        assert states(points, point.attributes["ml.feature.name"]) == {"missing": 2, "ok": 2}


def test_columns_of_one_form_are_not_missing_in_another():
    """Without a baseline nothing says which columns there should be: arrays and frames are counted apart."""
    points = count(None, np.zeros((2, 2)), pd.DataFrame({"a": [0.0] * 3}))
    assert [states(points, name) for name in ("x0", "x1", "a")] == [{"ok": 2}, {"ok": 2}, {"ok": 3}]
    assert "otel_ml.schema.violations" not in points


def test_a_value_that_cannot_be_read_costs_its_own_column(monkeypatch, baseline):
    """The other features of its row, and of all rows counted with it, are recorded."""

    class Unreadable:
        def __str__(self):
            raise RuntimeError("no text")

    monkeypatch.setenv("OTEL_PYTHON_ML_RAISE", "0")
    points = count(
        baseline,
        {"c": [1, 2], "a": [0.0] * 2, "b": [-50.0] * 2},
        {"c": [Unreadable()], "a": [0.0], "b": [-50.0]},
    )
    assert states(points, "a") == states(points, "b") == {"ok": 3}


def test_a_model_of_many_features_sends_the_baseline_of_the_recorded_ones():
    """Data and baseline on the wire are about the same features, the most important ones."""
    names = [f"f{i}" for i in range(201)]
    X = np.random.default_rng(3).normal(size=(600, 201))
    important = [float(i > 0) for i in range(201)]
    reference = Baseline.fit(X, model="m", version="1", features=names, importance=important)
    points = count(reference, X)
    for metric in ("ml.feature.value", "ml.baseline.value"):
        features = [p for p in points[metric] if p.attributes.get("ml.drift.target") != "projection"]
        assert {p.attributes["ml.feature.name"] for p in features} == set(names[1:])


def test_widths_and_error_types_without_end_take_bounded_memory():
    """Inputs of ever new widths and errors of ever new classes do not grow what is kept."""
    points = count(None, *(np.zeros((1, width)) for width in range(1, 300)))
    ((_, tallies),) = pipeline.producer()._tallies.values()
    tally = tallies.calls
    assert len(tally._positional) <= 16
    assert states(points, "x0") == {"ok": 299}
    tally.add_failures("predict", [(1, f"Error{i}") for i in range(100)])
    durations = [s for s in tally._ledger if s.metric.name == "ml.inference.duration"]
    types = {s.attributes.get("error.type"): int(s.sketch.counts.sum()) for s in durations}
    assert len(types) == 22
    assert types["__other__"] == 80
