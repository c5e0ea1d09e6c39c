"""Baselines of any data: counts add up, files and merges lose nothing, precision changes nothing."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from otel_ml.baseline import Baseline, CategoricalSummary, NumericSummary
from otel_ml.columns import is_missing

numbers = st.one_of(
    st.none(),
    st.floats(width=32, allow_nan=True, allow_infinity=True),
    st.integers(-1000, 1000),
    st.sampled_from([0.0, 1.0, 0.1]),
)
categories = st.sampled_from(["a", "b", "c", None, True, 7, "x" * 80])


@st.composite
def tables(draw: st.DrawFn, rows: int = 40) -> dict[str, list[Any]]:
    """Two columns of numbers and one of categories; the first numbers are finite."""
    n = draw(st.integers(8, rows))
    table: dict[str, list[Any]] = {
        name: [1.0, 2.0, *draw(st.lists(numbers, min_size=n - 2, max_size=n - 2))] for name in ("x", "y")
    }
    return table | {"c": draw(st.lists(categories, min_size=n, max_size=n))}


def fit(table: dict[str, Any], **options: Any) -> Baseline:
    """A baseline of few rows, without the warning about them."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        return Baseline.fit(table, model="m", version="1", categorical=["c"], **options)


def part(table: dict[str, list[Any]], rows: slice) -> dict[str, list[Any]]:
    """Some rows of a table."""
    return {name: values[rows] for name, values in table.items()}


@given(tables())
@settings(max_examples=60, deadline=None)
def test_every_row_has_one_state_and_every_finite_number_one_bucket(table: dict[str, list[Any]]) -> None:
    """States add up to the rows, buckets to the finite values, categories to what is not missing."""
    for name, summary in fit(table).features.items():
        present = [value for value in table[name] if not is_missing(value)]
        assert summary.states.sum() == summary.n == len(table[name])
        assert summary.missing == len(table[name]) - len(present)
        if isinstance(summary, NumericSummary):
            assert summary.bucket_counts.sum() == sum(bool(np.isfinite(value)) for value in present)
        if isinstance(summary, CategoricalSummary):
            assert sum(summary.categories.values()) + summary.other == len(present)


@given(tables())
@settings(max_examples=60, deadline=None)
def test_a_file_loses_nothing(table: dict[str, list[Any]]) -> None:
    """Written and read, a baseline has the same content and the same id."""
    baseline = fit(table, scores=np.linspace(0, 1, len(table["c"])), labels=table["c"])
    again = Baseline.from_json(baseline.to_json())
    assert again.to_json() == baseline.to_json()
    assert again.id == baseline.id


def counts(baseline: Baseline) -> dict[str, Any]:
    """Everything of a baseline that is counted."""
    found: dict[str, Any] = {"rows": baseline.rows}
    for name, summary in baseline.features.items():
        found[name, "states"] = summary.states.tolist()
        if isinstance(summary, NumericSummary):
            found[name] = (summary.bucket_counts.tolist(), summary.min, summary.max)
        if isinstance(summary, CategoricalSummary):
            found[name] = (dict(summary.categories), summary.other)
    return found


@given(tables(), tables(), tables())
@settings(max_examples=40, deadline=None)
def test_merging_commutes_and_associates(
    first: dict[str, list[Any]], second: dict[str, list[Any]], third: dict[str, list[Any]]
) -> None:
    """Parts may be added in any order; moments agree to rounding."""
    pilot = fit(first)
    a, b, c = map(pilot.count, (first, second, third))
    assert counts(a.merge(b)) == counts(b.merge(a))
    left, right = a.merge(b).merge(c), a.merge(b.merge(c))
    assert counts(left) == counts(right)
    x, y = left.features["x"], right.features["x"]
    assert isinstance(x, NumericSummary)
    assert isinstance(y, NumericSummary)
    np.testing.assert_allclose(
        [x.mean, x.std], [y.mean, y.std], rtol=1e-9, atol=1e-9 * max(abs(x.max), abs(x.min))
    )


@given(tables(), st.integers(4, 36))
@settings(max_examples=40, deadline=None)
def test_parts_add_up_to_the_whole(table: dict[str, list[Any]], cut: int) -> None:
    """Counting two parts on the bounds of the whole gives the counts of the whole."""
    longer = {name: [*values, *values[:4]] for name, values in table.items()}
    whole = fit(longer)
    cut = min(cut, len(table["c"]))
    merged = whole.count(part(longer, slice(0, cut))).merge(whole.count(part(longer, slice(cut, None))))
    assert counts(merged) == counts(whole)


@given(st.lists(st.integers(-(10**6), 10**6), min_size=20, max_size=80), st.booleans())
@settings(max_examples=60, deadline=None)
def test_precision_changes_no_count(cents: list[int], trained_in_single: bool) -> None:
    """Amounts in float64 and float32 are the same data for a baseline, states included."""
    double = np.array(cents) / 100
    single = double.astype(np.float32)
    baseline = fit({"x": single if trained_in_single else double, "c": ["a"] * len(cents)})
    assert counts(baseline.count({"x": double, "c": ["a"] * len(cents)})) == counts(baseline) | {
        "x": (counts(baseline)["x"][0], double.min(), double.max())
    }
    served = counts(baseline.count({"x": single, "c": ["a"] * len(cents)}))
    assert served["x"][0] == counts(baseline)["x"][0]
    assert served["x", "states"] == counts(baseline)["x", "states"]
