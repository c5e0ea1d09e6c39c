"""Baselines: what fit makes of data, what a file holds, and what a wrong one is told."""

from __future__ import annotations

import copy
import json
import os
import pickle
import warnings
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pytest

from otel_ml.baseline import Baseline, CategoricalSummary, NumericSummary, OpaqueSummary
from otel_ml.errors import BaselineError, BoundsMismatch
from otel_ml.semconv import STATES

N = 1000
CREATED = datetime(2026, 1, 31, 12, tzinfo=timezone.utc)


def frame(seed: int = 0) -> pd.DataFrame:
    """A table with every kind of column: 1000 rows, some values missing, one infinite."""
    random = np.random.default_rng(seed)
    income = random.lognormal(size=N)
    income[:50], income[50] = np.nan, np.inf
    return pd.DataFrame(
        {
            "age": random.integers(18, 80, N),
            "income": income,
            "city": random.choice(["Oslo", "Bonn", "Rome"], N, p=[0.6, 0.395, 0.005]),
            "member": random.random(N) < 0.3,
            "user": [f"u{i}" for i in range(N)],
            "noise": random.normal(size=N),
        }
    )


def fitted(seed: int = 0, **changes: Any) -> Baseline:
    """A baseline of `frame` with scores, predictions and labels."""
    scores = np.random.default_rng(seed + 1).random(N)
    options: dict[str, Any] = {
        "scores": scores,
        "predictions": scores > 0.5,
        "labels": np.where(scores > 0.4, "yes", "no"),
        "uncertainty": 1 - abs(2 * scores - 1),
        "exclude": ["noise"],
        "threshold": 0.5,
        "created_at": CREATED,
    }
    return Baseline.fit(frame(seed), model="churn", version="3", **(options | changes))


def numeric(baseline: Baseline, name: str) -> NumericSummary:
    """The summary of a numeric feature."""
    summary = baseline.features[name]
    assert isinstance(summary, NumericSummary)
    return summary


# --- fit --------------------------------------------------------------------------------------------------


def test_columns_get_the_kind_their_values_ask_for() -> None:
    """Numbers, categories, and what is neither; an excluded column stays known as a column."""
    baseline = fitted()
    assert {name: summary.kind for name, summary in baseline.features.items()} == {
        "age": "numeric",
        "income": "numeric",
        "city": "categorical",
        "member": "categorical",
        "user": "opaque",
    }
    assert baseline.columns == ("age", "income", "city", "member", "user", "noise")


def test_a_numeric_summary_describes_its_finite_values() -> None:
    """Moments as NumPy has them, a count for each bucket, states for the rest."""
    values = frame()["income"].to_numpy()[51:]
    summary = numeric(fitted(), "income")
    assert (summary.min, summary.max) == (values.min(), values.max())
    assert summary.mean == pytest.approx(values.mean(), rel=1e-12)
    assert summary.std == pytest.approx(values.std(), rel=1e-12)
    assert (summary.n, summary.missing, summary.non_finite) == (1000, 50, 1)
    assert summary.bucket_counts.sum() == 949
    assert dict(zip(STATES, summary.states.tolist(), strict=True)) == {
        "ok": 949, "missing": 50, "non_finite": 1, "out_of_range": 0, "unseen": 0, "type_mismatch": 0,
    }  # fmt: skip


def test_quantiles_invert_the_distribution_function() -> None:
    """n / 10 points, at most 201, from the minimum to the maximum; they can be left out."""
    values = np.sort(frame()["age"].to_numpy(dtype=float))
    quantiles = numeric(fitted(), "age").quantiles
    assert quantiles is not None
    assert quantiles.tolist() == np.quantile(values, np.linspace(0, 1, 100), method="inverted_cdf").tolist()
    assert numeric(fitted(quantiles=False), "age").quantiles is None
    large = Baseline.fit({"x": np.arange(5000.0)}, model="m", version="1")
    assert np.shape(numeric(large, "x").quantiles) == (201,)


def test_a_value_is_out_of_range_beyond_the_spread_of_training() -> None:
    """The limits are min and max, each with q99.9 - q0.1 to spare."""
    summary = numeric(Baseline.fit({"x": np.arange(1001.0)}, model="m", version="1"), "x")
    assert summary.limits == pytest.approx((0 - 998, 1000 + 998))


def test_an_allowed_range_decides_what_is_out_of_range() -> None:
    """Training rows beyond it count as such; a limit holds in float32 as well."""
    summary = numeric(fitted(allowed={"age": (20, 70.1)}), "age")
    outside = int(((frame()["age"] < 20) | (frame()["age"] > 70.1)).sum())
    assert outside > 0
    assert summary.states[STATES.index("out_of_range")] == outside
    low, high = summary.limits
    assert low <= np.float32(20) <= high
    assert low <= float(np.float32(70.1)) <= high
    assert not high >= 70.2
    assert summary.bucket_counts.sum() == N


def test_only_categories_with_enough_rows_are_named() -> None:
    """Rome has a few rows: it is counted under other, and the list is not complete."""
    summary = fitted().features["city"]
    assert isinstance(summary, CategoricalSummary)
    cities = frame()["city"].value_counts()
    assert summary.categories == {"Oslo": cities["Oslo"], "Bonn": cities["Bonn"]}
    assert 0 < cities["Rome"] < 10
    assert summary.other == cities["Rome"]
    assert not summary.complete


def test_twenty_categories_are_named_at_most_the_largest_first() -> None:
    """25 categories of 20 to 44 rows: the five smallest are other."""
    values = [f"c{i}" for i in range(25) for _ in range(20 + i)]
    summary = Baseline.fit({"x": values}, model="m", version="1").features["x"]
    assert isinstance(summary, CategoricalSummary)
    assert list(summary.categories) == [f"c{i}" for i in range(24, 4, -1)]
    assert summary.other == sum(20 + i for i in range(5))


def test_a_category_that_occurs_once_is_a_singleton() -> None:
    """They say how often a new one comes; their names stay out of the file."""
    baseline = Baseline.fit({"x": ["a"] * 600 + ["b", "c"]}, model="m", version="1")
    summary = baseline.features["x"]
    assert isinstance(summary, CategoricalSummary)
    assert (summary.singletons, summary.other) == (2, 2)
    assert '"b"' not in baseline.to_json()


def test_a_complete_list_of_categories_is_known_as_such() -> None:
    """Then a later category is unseen rather than other."""
    summary = fitted().features["member"]
    assert isinstance(summary, CategoricalSummary)
    assert summary.complete
    assert set(summary.categories) == {"true", "false"}


def test_numbers_are_categories_when_said_so() -> None:
    """Codes of categories look like numbers."""
    codes = {"code": np.arange(600) % 3}
    summary = Baseline.fit(codes, model="m", version="1", categorical=["code"]).features["code"]
    assert isinstance(summary, CategoricalSummary)
    assert summary.categories == {"0": 200, "1": 200, "2": 200}


@pytest.mark.parametrize("nothing", [[None] * 600, [float("nan")] * 600])
def test_a_column_of_nothing_is_opaque(nothing: list[Any]) -> None:
    """Only that it is missing is known."""
    summary = Baseline.fit({"x": nothing}, model="m", version="1").features["x"]
    assert isinstance(summary, OpaqueSummary)
    assert summary.missing == 600


def test_scores_have_the_decision_threshold_as_a_bound() -> None:
    """So that the share above it is known exactly."""
    with_it, without = fitted().scores, fitted(threshold=None).scores
    assert with_it is not None
    assert without is not None
    assert set(with_it.bounds) - set(without.bounds) == {0.5}
    assert fitted().score_type == "probability"


@pytest.mark.parametrize(
    ("scores", "given", "expected"),
    [
        ([0.0, 1.0], None, "probability"),
        ([0.0, 1.1], None, "value"),
        ([-1.0, 1.0], "margin", "margin"),
    ],
)
def test_the_type_of_scores_follows_from_their_range(scores: list[float], given: Any, expected: str) -> None:
    """Unless it is given."""
    many = np.repeat(scores, 300)
    assert (
        Baseline.fit({"x": many}, model="m", version="1", scores=many, score_type=given).score_type
        == expected
    )


def probabilities(k: int = 3) -> Any:
    return np.random.default_rng(4).dirichlet(np.full(k, 0.5), N)


@pytest.mark.parametrize("form", [np.asarray, pd.DataFrame, lambda p: p.astype(np.float32)])
def test_scores_may_be_the_rows_of_predict_proba(form: Any) -> None:
    """The score is the largest of each row, and its uncertainty stands beside it: 1 less the margin."""
    p = form(probabilities())
    rows = np.asarray(p, dtype=np.float64).tolist()
    made = fitted(scores=p, uncertainty=None, predictions=None)
    by_hand = fitted(
        scores=[max(row) for row in rows],
        uncertainty=[1 - (sorted(row)[-1] - sorted(row)[-2]) for row in rows],
        predictions=None,
    )
    assert made == by_hand
    assert (made.score_type, made.scores is None, made.uncertainty is None) == ("probability", False, False)
    assert made.label_counts["yes"].sum() == made.outcomes.categories["yes"]  # type: ignore[union-attr]


def test_of_two_classes_the_score_is_the_second_and_says_it_all() -> None:
    """No uncertainty, unless somebody gives it."""
    p = probabilities(2)
    made = fitted(scores=p, uncertainty=None)
    assert made == fitted(scores=p[:, 1], uncertainty=None)
    assert made.uncertainty is None
    given = 1 - abs(p[:, 0] - p[:, 1])
    assert fitted(scores=p, uncertainty=given) == fitted(scores=p[:, 1], uncertainty=given)


def test_an_uncertainty_that_is_given_is_taken() -> None:
    """Also where the probabilities would tell another."""
    p, given = probabilities(), np.linspace(0, 1, N)
    assert fitted(scores=p, uncertainty=given).uncertainty.mean == pytest.approx(0.5)  # type: ignore[union-attr]


def test_parts_with_probabilities_merge_into_the_whole() -> None:
    """`count` reads them as `fit` does."""
    whole = fitted(scores=probabilities(), uncertainty=None, predictions=None, labels=None)
    a, b = (
        whole.count(frame()[part], scores=probabilities()[part]) for part in (slice(0, 300), slice(300, N))
    )
    merged = a.merge(b)
    assert merged.uncertainty.histogram == whole.uncertainty.histogram  # type: ignore[union-attr]
    assert merged.scores.histogram == whole.scores.histogram  # type: ignore[union-attr]


def test_a_file_without_uncertainty_stays_what_it_was() -> None:
    """No key for it, and so the id it always had."""
    baseline = fitted(scores=probabilities(2)[:, 1], uncertainty=None)
    content = json.loads(baseline.to_json())
    assert "uncertainty" not in content
    assert Baseline.from_json(json.dumps(content)).id == baseline.id == content["id"]


def test_labels_are_counted_in_each_bucket_of_the_scores() -> None:
    """The buckets of all labels together are those of the scores."""
    baseline = fitted()
    assert baseline.scores is not None
    yes, no = baseline.label_counts["yes"], baseline.label_counts["no"]
    assert (yes + no).tolist() == baseline.scores.bucket_counts.tolist()
    assert no[0] == baseline.scores.bucket_counts[0]
    assert yes[0] == 0


def test_numeric_labels_of_a_regression_are_numbers() -> None:
    """Few whole numbers are classes; anything else is a number and has no count by label."""
    y = np.random.default_rng(0).normal(size=600)
    baseline = Baseline.fit({"x": y}, model="m", version="1", labels=y, scores=y)
    assert isinstance(baseline.outcomes, NumericSummary)
    assert baseline.label_counts == {}
    classes = Baseline.fit({"x": y}, model="m", version="1", labels=(y > 0).astype(int))
    assert isinstance(classes.outcomes, CategoricalSummary)


def test_projections_see_a_correlation_that_no_feature_shows() -> None:
    """Two features of correlation 0.9: the components have variances in the ratio of 1.9 to 0.1."""
    random = np.random.default_rng(0)
    a = random.normal(size=20_000)
    b = 0.9 * a + np.sqrt(1 - 0.81) * random.normal(size=20_000)
    largest, smallest = Baseline.fit({"a": a, "b": b}, model="m", version="1").projections
    assert (largest.summary.name, smallest.summary.name) == ("pc1", "pc2")
    assert (largest.summary.std / smallest.summary.std) ** 2 == pytest.approx(19, abs=1)
    assert largest.loadings == pytest.approx([np.sqrt(0.5)] * 2, abs=0.005)


def test_many_features_have_eight_projections_the_outer_ones() -> None:
    """The four largest and the four smallest components; one that never varies is none."""
    X = np.random.default_rng(0).normal(size=(600, 12))
    X[:, 11] = X[:, 0] + X[:, 1]
    baseline = Baseline.fit(X, model="m", version="1", features=[f"x{i}" for i in range(12)])
    assert [p.summary.name for p in baseline.projections] == [
        "pc1", "pc2", "pc3", "pc4", "pc8", "pc9", "pc10", "pc11",
    ]  # fmt: skip


def test_rows_count_the_same_on_projections_in_either_precision() -> None:
    """As the values of a projection lie on its bounds; a missing value stands at the centre."""
    X = np.random.default_rng(0).normal(size=(600, 4)).astype(np.float32)
    X[:2, 0] = np.nan
    baseline = Baseline.fit(X, model="m", version="1", features=list("abcd"))
    assert len(baseline.projections) == 4
    for kind in (np.float32, np.float64):
        for projection in baseline.count(X.astype(kind)).projections:
            where = np.searchsorted(projection.summary.bounds, projection.values(X))
            expected = np.bincount(where, minlength=len(projection.summary.bucket_counts))
            assert projection.summary.bucket_counts.tolist() == expected.tolist()
            assert sum(expected) == 600


def test_what_describes_the_model_is_kept() -> None:
    """Owner, purpose and performance for the model card, importance by feature or by column."""
    baseline = fitted(
        owner="risk", description="who leaves", intended_use="offers", performance={"auc": 0.8},
        importance={"age": 0.7},
    )  # fmt: skip
    again = Baseline.from_json(baseline.to_json())
    assert (again.owner, again.description, again.intended_use) == ("risk", "who leaves", "offers")
    assert again.performance == {"auc": 0.8}
    assert again.features["age"].importance == 0.7
    assert fitted(importance=[6, 5, 4, 3, 2, 1]).features["city"].importance == 4.0


def test_a_frame_of_any_library_gives_the_same_baseline() -> None:
    """pandas, polars and a dict of columns hold the same data."""
    data = frame()
    for x in (pl.from_pandas(data), {name: data[name].to_numpy() for name in data}):
        same = Baseline.fit(x, model="m", version="1", created_at=CREATED)
        assert same == Baseline.fit(data, model="m", version="1", created_at=CREATED)


def test_fine_resolution_has_ten_times_the_buckets() -> None:
    """For those who want KS to 0.005."""
    x = {"x": np.random.default_rng(0).normal(size=5000)}
    assert len(numeric(Baseline.fit(x, model="m", version="1", resolution="fine"), "x").bounds) == 199


def test_values_that_overflow_when_squared_keep_finite_moments() -> None:
    """No infinity gets into a file."""
    x = {"x": np.concatenate([np.full(300, -1e308), np.full(300, 1e308)])}
    summary = numeric(Baseline.fit(x, model="m", version="1"), "x")
    assert summary.std == pytest.approx(1e308)
    assert np.isfinite([*summary.limits, summary.reach]).all()


def test_few_rows_are_warned_of() -> None:
    """A verdict needs 500."""
    with pytest.warns(UserWarning, match="has 499 rows; drift verdicts need 500"):
        Baseline.fit({"x": np.arange(499.0)}, model="m", version="1")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        Baseline.fit({"x": np.arange(500.0)}, model="m", version="1")


X = np.arange(1200.0).reshape(600, 2)


@pytest.mark.parametrize(
    ("x", "options", "message"),
    [
        (X, {}, r"2 columns without names; give features="),
        (X, {"features": ["a"]}, "features= has 1 names, the training data has 2 columns"),
        (X, {"features": ["a", "a"]}, "two columns have the name 'a'"),
        (X[:0], {"features": ["a", "b"]}, "has no rows"),
        (X[:, :0], {"features": []}, "has no columns"),
        (X.reshape(300, 2, 2), {"features": ["a"]}, r"shape \(300, 2, 2\)"),
        ({"a": X[:, 0]}, {"features": ["b"]}, "features= names 'b', which is no column; the columns are a"),
        ({"a": X[:, 0]}, {"categorical": ["b"]}, "categorical= names 'b', which is no column"),
        ({"a": X[:, 0]}, {"categorical": "a"}, r"write categorical=\['a'\]"),
        ({"a": X[:, 0]}, {"exclude": ["b"]}, "exclude= names 'b'"),
        ({"a": X[:, 0]}, {"allowed": {"b": (0, 1)}}, "allowed= names 'b'"),
        ({"a": X[:, 0]}, {"allowed": {"a": (1, 0)}}, r"allowed= of 'a' must be \(lowest, highest\)"),
        ({"a": ["x"] * 600}, {"allowed": {"a": (0, 1)}}, "'a', which is no numeric feature"),
        ({"a": X[:, 0]}, {"importance": [1, 2]}, "importance= has 2 numbers, the data has 1 columns"),
        ({"a": X[:, 0]}, {"importance": {"a": float("nan")}}, "must be a finite number"),
        ({"a": X[:, 0]}, {"scores": [0.5]}, "scores= has 1 values, the training data has 600 rows"),
        ({"a": X[:, 0]}, {"scores": X}, r"of a classifier give predict_proba\(X\), whose rows add up to 1"),
        ({"a": X[:, 0]}, {"scores": ["high"] * 600}, "score has no finite number in 600 rows"),
        ({"a": X[:, 0]}, {"labels": [1, 0]}, "labels= has 2 values"),
        ({"a": X[:, 0]}, {"threshold": 0.5}, "give scores= too"),
        ({"a": X[:, 0]}, {"scores": X[:, 0], "score_type": "odds"}, "score_type is one of probability"),
        ({"a": X[:, 0]}, {"resolution": "coarse"}, "resolution is one of standard, fine, not 'coarse'"),
        ({"a": X[:, 0]}, {"created_at": datetime(2026, 1, 1)}, "needs a time zone"),
    ],
)
def test_what_does_not_fit_together_is_refused(x: Any, options: dict[str, Any], message: str) -> None:
    """The error names the argument, what came, and what to give instead."""
    with pytest.raises(BaselineError, match=message):
        Baseline.fit(x, model="m", version="1", **options)


# --- count and merge --------------------------------------------------------------------------------------


def halves(baseline: Baseline) -> list[Baseline]:
    """The rows of `fitted()` counted in two parts of unequal size."""
    data, scores = frame(), np.random.default_rng(1).random(N)
    labels = np.where(scores > 0.4, "yes", "no")
    return [
        baseline.count(
            data[part],
            scores=scores[part],
            predictions=scores[part] > 0.5,
            labels=labels[part],
            uncertainty=1 - abs(2 * scores[part] - 1),
        )
        for part in (slice(0, 300), slice(300, N))
    ]


def test_parts_that_were_counted_merge_into_the_whole() -> None:
    """Counts exactly, moments to rounding; quantiles are lost."""
    whole = fitted()
    a, b = halves(whole)
    merged = a.merge(b)
    assert merged.rows == N
    for name, expected in whole.features.items():
        found = merged.features[name]
        assert found.states.tolist() == expected.states.tolist()
        if isinstance(expected, NumericSummary) and isinstance(found, NumericSummary):
            assert found.histogram == expected.histogram
            assert (found.mean, found.std) == pytest.approx((expected.mean, expected.std), rel=1e-12)
            assert found.quantiles is None
        if isinstance(expected, CategoricalSummary) and isinstance(found, CategoricalSummary):
            assert (found.categories, found.other) == (expected.categories, expected.other)
    assert {k: v.tolist() for k, v in merged.label_counts.items()} == {
        k: v.tolist() for k, v in whole.label_counts.items()
    }
    for found_p, expected_p in zip(merged.projections, whole.projections, strict=True):
        assert found_p.summary.bounds.tolist() == expected_p.summary.bounds.tolist()
        assert found_p.summary.histogram.total == N  # the whole counted half of the rows


def test_baselines_with_their_own_bounds_do_not_merge() -> None:
    """Quantiles of two samples differ; the error shows both."""
    with pytest.raises(BoundsMismatch, match="equal bounds"):
        fitted(0, exclude=["noise", "age"]).merge(fitted(5, exclude=["noise", "age"]))


@pytest.mark.parametrize(
    ("other", "message"),
    [
        ({"exclude": []}, "same features"),
        ({"score_type": "value"}, "same score_type, not 'probability' and 'value'"),
        ({"uncertainty": None}, "only one of the two baselines has uncertainty"),
        ({"categorical": ["age"]}, "'age' is numeric on one side and categorical on the other|'age'"),
    ],
)
def test_baselines_of_different_things_do_not_merge(other: dict[str, Any], message: str) -> None:
    """The error says what differs."""
    with pytest.raises(BaselineError, match=message):
        fitted().merge(fitted(**other))


def test_counting_needs_the_outputs_the_baseline_has() -> None:
    """Else merged parts would not add up to one whole."""
    with pytest.raises(BaselineError, match="the baseline has scores; give scores="):
        fitted().count(frame())
    with pytest.raises(BaselineError, match="the baseline has no outcomes; leave out labels="):
        Baseline.fit(frame(), model="m", version="1").count(frame(), labels=np.ones(N))


# --- the file ---------------------------------------------------------------------------------------------


def test_a_saved_baseline_loads_as_it_was(tmp_path: Path) -> None:
    """Every number exactly, the id with them."""
    baseline = fitted()
    path = tmp_path / "churn.baseline.json"
    baseline.save(path)
    again = Baseline.load(path)
    assert again == baseline
    assert again.id == baseline.id
    assert again.to_json() == baseline.to_json() == path.read_text(encoding="utf-8")
    assert again.created_at == CREATED
    assert numeric(again, "age").bounds.tolist() == numeric(baseline, "age").bounds.tolist()


def test_saving_replaces_the_file_and_leaves_nothing_else(tmp_path: Path) -> None:
    """Also when writing fails: then the old file stays."""
    path = tmp_path / "b.json"
    path.write_text("old")
    broken = fitted()
    object.__setattr__(broken, "owner", "\ud800")  # cannot be written as UTF-8
    with pytest.raises(UnicodeEncodeError):
        broken.save(path)
    assert path.read_text() == "old"
    fitted().save(path)
    assert os.listdir(tmp_path) == ["b.json"]


def test_the_id_follows_from_the_content() -> None:
    """Equal for equal content, another for any change; the layout of the file does not matter."""
    baseline = fitted()
    assert fitted().id == baseline.id
    assert fitted(owner="me").id != baseline.id
    content = json.loads(baseline.to_json())
    assert Baseline.from_json(json.dumps(content, indent=7)).id == baseline.id
    content["features"]["age"]["allowed"] = [0, 120]
    assert Baseline.from_json(json.dumps(content)).id != baseline.id


def test_baselines_can_be_copied_and_pickled() -> None:
    """They travel with models into worker processes."""
    baseline = fitted()
    assert pickle.loads(pickle.dumps(baseline)) == copy.deepcopy(baseline) == baseline


def test_the_file_is_made_for_people() -> None:
    """One key a line, arrays on one line, text as it is."""
    text = fitted(owner="Müller").to_json()
    lines = text.splitlines()
    assert '  "owner": "Müller",' in lines
    assert any(line.startswith('      "bucket_counts": [') and line.endswith("],") for line in lines)
    assert '      "states": {"ok": 1000},' in lines


def changed(*keys: str, to: Any) -> str:
    """The text of a file in which one value is another."""
    content = json.loads(fitted().to_json())
    place = content
    for key in keys[:-1]:
        place = place[key]
    if to is ...:
        del place[keys[-1]]
    else:
        place[keys[-1]] = to
    return json.dumps(content)


@pytest.mark.parametrize(
    ("keys", "to", "message"),
    [
        (
            ("schema",),
            2,
            r"has schema 2, this version reads 1; make it again with Baseline.fit, or: pip install",
        ),
        (("schema",), ..., "has no 'schema'"),
        (("model",), 5, "model must be a text"),
        (("created_at",), "yesterday", "created_at must be a time"),
        (("created_at",), "2026-01-31T12:00:00", "created_at must be a time"),
        (("rows",), -1, "rows must be a count"),
        (("rows",), True, "rows must be a count"),
        (("surprise",), 1, "has the unknown key 'surprise'"),
        (("columns",), ["age", "age"], "columns must not hold a name twice"),
        (("columns",), ["age"], "features.income is not among the columns"),
        (("columns",), ["x"] * 1_000_001, "columns has 1000001 values, more than 1000000"),
        (("features", "age", "kind"), "text", "features.age.kind must be numeric, categorical or opaque"),
        (("features", "age", "alowed"), [0, 1], "features.age has the unknown key 'alowed'"),
        (("features", "age", "allowed"), [1, 0], r"features.age.allowed must be \[lowest, highest\]"),
        (("features", "age", "bounds"), [2, 1], "features.age.bounds must ascend strictly"),
        (("features", "age", "bounds"), list(range(513)), "has 513 values, more than 512"),
        (("features", "age", "bounds"), [1, "2"], "must hold a finite number at position 1, not '2'"),
        (("features", "age", "bounds"), [1, 10**400], "must hold a finite number at position 1"),
        (
            ("features", "age", "bucket_counts"),
            [1],
            r"features.age.bucket_counts must hold \d+ values, not 1",
        ),
        (("features", "age", "min"), 1e9, "features.age.min must not be above max"),
        (("features", "age", "std"), -1, "features.age.std must not be negative"),
        (("features", "age", "quantiles"), [2, 1], "features.age.quantiles must ascend"),
        (("features", "age", "states"), {"ok": 1}, "features.age.states must add up to n = 1000, not 1"),
        (("features", "age", "states"), {"fine": 1000}, "unknown key 'fine'"),
        (("features", "city", "other"), 900, "features.city.categories and other must add up"),
        (("features", "city", "categories"), [1], "features.city.categories must be an object"),
        (("scores", "kind"), "opaque", "scores"),
        (("score_type",), "odds", "score_type must be one of probability, margin, anomaly, value"),
        (("label_counts", "yes"), [1], r"label_counts.yes must hold \d+ values, not 1"),
        (("projections", "scale"), [0, 1], "projections.scale must be positive"),
        (("projections", "features"), ["age", "city"], "projections.features must name numeric features"),
        (
            ("projections", "components", "pc1", "loadings"),
            [0, 2],
            "projections.components.pc1.loadings must be those of a direction",
        ),
        (("performance",), {"auc": None}, "performance.auc must be a finite number"),
    ],
)
def test_a_wrong_file_is_refused_by_file_key_and_way_out(
    keys: tuple[str, ...], to: Any, message: str
) -> None:
    """Nothing in a file is taken on trust."""
    with pytest.raises(BaselineError, match=message) as raised:
        Baseline.from_json(changed(*keys, to=to), source="models/churn.json")
    assert str(raised.value).startswith("baseline 'models/churn.json'")
    assert "make it again with Baseline.fit" in str(raised.value)


@pytest.mark.parametrize("text", ["", "{", "[1]", "NaN", "null", "[" * 100_000, '{"schema": 1, "rows": NaN}'])
def test_what_is_no_baseline_is_refused(text: str) -> None:
    """Half a file, another file, a file made to break the parser."""
    with pytest.raises(BaselineError, match=r"baseline 'x\.json'"):
        Baseline.from_json(text, source="x.json")


def test_a_nan_in_a_file_is_refused() -> None:
    """Python's JSON reader takes NaN; a baseline does not."""
    content = json.loads(fitted().to_json())
    content["features"]["age"]["mean"] = float("nan")
    with pytest.raises(BaselineError, match=r"features\.age\.mean must be a finite number, not nan"):
        Baseline.from_json(json.dumps(content))


def test_a_file_that_is_not_there_says_how_to_make_one(tmp_path: Path) -> None:
    """As does one that is no text."""
    with pytest.raises(BaselineError, match=r"cannot be read \(No such file or directory\); make it with"):
        Baseline.load(tmp_path / "none.json")
    (tmp_path / "model.pkl").write_bytes(b"\x80\x04\xff")
    with pytest.raises(BaselineError, match="cannot be read"):
        Baseline.load(tmp_path / "model.pkl")
