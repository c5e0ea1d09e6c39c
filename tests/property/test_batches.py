"""However data is cut into batches: the baseline of what fits is that of `fit`, and every row is counted."""

from __future__ import annotations

import warnings
from datetime import datetime, timezone
from itertools import pairwise
from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from otel_ml.baseline import Baseline, CategoricalSummary, NumericSummary
from otel_ml.binning import count

CREATED = datetime(2026, 1, 31, tzinfo=timezone.utc)
numbers = st.one_of(
    st.none(), st.floats(width=32, allow_nan=True, allow_infinity=True), st.integers(-5, 5).map(float)
)
categories = st.sampled_from(["a", "b", "c", None, "x" * 80])


@st.composite
def tables(draw: st.DrawFn) -> dict[str, list[Any]]:
    """Numbers, whole numbers, categories, scores and labels; the first number is finite."""
    n = draw(st.integers(4, 60))

    def column(values: st.SearchStrategy[Any]) -> list[Any]:
        return draw(st.lists(values, min_size=n, max_size=n))

    return {
        "x": [1.0, *column(numbers)[1:]],
        "i": column(st.integers(-3, 3)),
        "c": column(categories),
        "score": column(st.floats(0, 1, width=32)),
        "label": column(st.sampled_from(["yes", "no"])),
    }


def cut(table: dict[str, list[Any]], cuts: list[int]) -> list[dict[str, list[Any]]]:
    """The rows between the cuts, some of them none."""
    n = len(table["x"])
    edges = sorted({0, n, *(c % n for c in cuts)})
    return [{name: values[a:b] for name, values in table.items()} for a, b in pairwise(edges)]


def quiet(fit: Any, *given: Any, **options: Any) -> Baseline:
    """A baseline of few rows, without the warning about them."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        made: Baseline = fit(*given, model="m", version="1", created_at=CREATED, **options)
        return made


def in_batches(batches: Any, **options: Any) -> Baseline:
    return quiet(Baseline.fit_batches, batches, scores="score", labels="label", categorical=["i"], **options)


@given(tables(), st.lists(st.integers(0, 1000), max_size=5), st.booleans())
@settings(max_examples=80, deadline=None)
def test_any_cut_gives_the_baseline_of_the_whole(
    table: dict[str, list[Any]], cuts: list[int], once: bool
) -> None:
    """With all rows in the sample, batches of any size give the content, and the id, that one piece gives."""
    X = {name: table[name] for name in ("x", "i", "c")}
    whole = quiet(Baseline.fit, X, scores=table["score"], labels=table["label"], categorical=["i"])
    batches = cut(table, cuts)
    assert in_batches(iter(batches) if once else batches).to_json() == whole.to_json()


@given(tables(), st.lists(st.integers(0, 1000), max_size=5), st.integers(4, 30))
@settings(max_examples=80, deadline=None)
def test_every_row_is_counted_whatever_was_sampled(
    table: dict[str, list[Any]], cuts: list[int], sample_rows: int
) -> None:
    """States add up to the rows, buckets to the finite values, labels to the rows with a score."""
    table = table | {
        "x": [0.25 if value is None or not np.isfinite(value) else value for value in table["x"]]
    }
    n = len(table["x"])
    baseline = in_batches(cut(table, cuts), sample_rows=sample_rows)
    assert baseline.rows == n
    for summary in (*baseline.features.values(), baseline.scores, baseline.outcomes):
        assert summary is not None
        assert summary.n == summary.states.sum() == n
        if isinstance(summary, CategoricalSummary):
            assert sum(summary.categories.values()) + summary.other == n - summary.missing
    x = baseline.features["x"]
    assert isinstance(x, NumericSummary)
    assert x.bucket_counts.tolist() == count(np.array(table["x"]), x.bounds).tolist()
    assert sum(counts.sum() for counts in baseline.label_counts.values()) == n
    assert Baseline.from_json(baseline.to_json()) == baseline
