"""`Baseline.fit_batches`: data that comes in parts, sampled uniformly and counted whole."""

from __future__ import annotations

import tracemalloc
import warnings
from collections.abc import Iterator
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from otel_ml.baseline import Baseline, CategoricalSummary, NumericSummary, OpaqueSummary
from otel_ml.batches import Progress
from otel_ml.binning import count, ks_error, quantile_bounds
from otel_ml.datafile import DataFile
from otel_ml.errors import BaselineError, MissingDependency
from otel_ml.reservoir import Reservoir
from otel_ml.running import RunningCategories

ROWS = 20_000
CREATED = datetime(2026, 1, 31, tzinfo=timezone.utc)
OUTPUTS = {"scores": "score", "labels": "label"}


def frame(rows: int = ROWS, seed: int = 0) -> pd.DataFrame:
    """Rows sorted by their first column, as files are."""
    random = np.random.default_rng(seed)
    score = random.random(rows)
    return pd.DataFrame(
        {
            "income": np.sort(random.lognormal(10, 0.5, rows)),
            "noise": [-9.0, 9.0, *random.normal(size=rows - 2)],
            "visits": random.poisson(0.7, rows),
            "plan": random.choice(["basic", "family", "business", "odd"], rows, p=[0.6, 0.3, 0.0998, 0.0002]),
            "age": np.where(random.random(rows) < 0.1, np.nan, random.integers(18, 90, rows)),
            "customer": [f"c{i}" for i in range(rows)],
            "score": score,
            "label": random.random(rows) < score,
        }
    )


def parts(data: pd.DataFrame, size: int = 3_000) -> list[pd.DataFrame]:
    """The same rows in parts."""
    return [data.iloc[start : start + size] for start in range(0, len(data), size)]


def fitted(batches: Any, **options: Any) -> Baseline:
    """A baseline of batches that hold scores and labels."""
    given = {"model": "m", "version": "1", "created_at": CREATED, **OUTPUTS} | options
    return Baseline.fit_batches(batches, **given)


def whole(data: pd.DataFrame, **options: Any) -> Baseline:
    """A baseline of the same data in one piece."""
    X = data.drop(columns=["score", "label"])
    given = {"model": "m", "version": "1", "created_at": CREATED, **options}
    return Baseline.fit(X, scores=data["score"], labels=data["label"], **given)


def numeric(baseline: Baseline, name: str) -> NumericSummary:
    """A feature that is known to be numeric."""
    summary = baseline.features[name]
    assert isinstance(summary, NumericSummary)
    return summary


@pytest.mark.parametrize("once", [False, True])
def test_what_fits_into_the_sample_gives_the_baseline_of_fit(once: bool) -> None:
    """With no more rows than the sample holds, parts give the very baseline that the whole gives."""
    data = frame()
    options: dict[str, Any] = {
        "exclude": ["customer"],
        "categorical": ["visits"],
        "importance": {"age": 2.0},
        "allowed": {"age": (20, 80)},
        "threshold": 0.5,
        "owner": "us",
    }
    batches = iter(parts(data)) if once else parts(data)
    assert fitted(batches, **options) == whole(data, **options)


def test_every_row_is_counted_on_the_bounds_of_the_sample() -> None:
    """Beyond the sample, counts, range, moments and ks_error are those of all rows, by brute force."""
    data = frame()
    baseline = fitted(parts(data), sample_rows=2_000, allowed={"age": (20, 80)})
    assert baseline.rows == ROWS
    for name in ("income", "noise", "visits", "age"):
        summary, values = numeric(baseline, name), data[name].dropna().to_numpy(np.float64)
        assert summary.bucket_counts.tolist() == count(values, summary.bounds).tolist()
        assert (summary.min, summary.max) == (values.min(), values.max())
        assert summary.mean == pytest.approx(values.mean(), rel=1e-12)
        assert summary.std == pytest.approx(values.std(), rel=1e-12)
        assert summary.ks_error == ks_error(np.sort(values), summary.bounds)
        assert summary.missing == ROWS - len(values)
        assert summary.quantiles is not None
        assert summary.quantiles[[0, -1]].tolist() == [summary.min, summary.max]
    outside = ((data["age"] < 20) | (data["age"] > 80)).sum()
    assert numeric(baseline, "age").states.tolist()[3] == outside


def test_bounds_do_not_follow_the_first_rows_of_a_sorted_file() -> None:
    """The bounds of a sample of sorted rows are near those of all the rows: within 5 % of them in a bucket."""
    data = frame()
    exact = quantile_bounds(data["income"].to_numpy())
    summary = numeric(fitted(parts(data), sample_rows=2_000), "income")
    assert len(summary.bounds) == len(exact)
    ranks = np.searchsorted(data["income"], summary.bounds) / ROWS
    assert np.max(np.abs(ranks - np.arange(1, 20) / 20)) < 0.05
    assert summary.ks_error < 0.075


def test_categories_and_labels_are_counted_whole() -> None:
    """Named categories, others, singletons, labels by score and projections add up over all the rows."""
    data = frame()
    baseline, exact = fitted(parts(data), sample_rows=2_000), whole(data)
    plan = baseline.features["plan"]
    assert isinstance(plan, CategoricalSummary)
    assert plan.categories == data["plan"].value_counts().drop("odd").to_dict()
    assert plan.other == (data["plan"] == "odd").sum()
    assert isinstance(baseline.outcomes, CategoricalSummary)
    assert isinstance(exact.outcomes, CategoricalSummary)
    assert baseline.outcomes.categories == exact.outcomes.categories
    assert baseline.score_type == "probability"
    for label, rows in baseline.outcomes.categories.items():
        assert baseline.label_counts[label].sum() == rows
    assert [p.summary.n for p in baseline.projections] == [ROWS] * 4
    assert [p.summary.histogram.total for p in baseline.projections] == [ROWS] * 4


def test_a_category_that_comes_once_in_every_part_is_no_singleton() -> None:
    """Singletons are those of all the rows together, not of each part."""
    batches = [{"c": ["a"] * 500 + ["b"] * 499 + ["rare"], "x": list(range(1000))} for _ in range(4)]
    batches[-1]["c"][0] = "single"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # the last value of `x` is the coarse one
        baseline = Baseline.fit_batches(batches, model="m", version="1", sample_rows=600)
    summary = baseline.features["c"]
    assert isinstance(summary, CategoricalSummary)
    assert summary.singletons == 1
    assert summary.categories == {"a": 1999, "b": 1996}
    assert summary.other == 5


def test_the_type_of_scores_follows_from_all_of_them() -> None:
    """One score above 1 among all rows, however few were sampled, and they are no probabilities."""
    data = frame()
    data.loc[10_000, "score"] = 1.5
    assert fitted(iter(parts(data)), sample_rows=2_000).score_type == "probability"  # it was not sampled
    assert fitted(parts(data), sample_rows=2_000).score_type == "value"


def test_categories_beyond_those_that_are_tracked_are_counted_together() -> None:
    """Of predictions without end only so many are told apart; no row is lost."""
    sampled = OpaqueSummary(name="prediction", n=0, states=np.zeros(6, np.int64))
    running = RunningCategories(sampled, named=["a"], most=2)
    for labels in (["a", "b", None], ["c", "a", "d"]):
        running.add(np.array(labels, dtype=object))
    summary = running.summary()
    assert (summary.n, summary.missing, summary.other, summary.categories) == (6, 1, 3, {"a": 2})
    assert summary.states.sum() == 6


def test_a_column_with_more_categories_than_the_sample_showed_is_opaque() -> None:
    """Kinds follow from all the rows where the sample cannot tell: over 1000 categories is no category."""
    texts = [f"t{i // 4}" for i in range(8_000)]
    batches = [
        {"c": texts[start : start + 1_000], "x": np.arange(1_000.0)} for start in range(0, 8_000, 1_000)
    ]
    baseline = Baseline.fit_batches(batches, model="m", version="1", sample_rows=600)
    summary = baseline.features["c"]
    assert isinstance(summary, OpaqueSummary)
    assert summary.states.tolist() == [8_000, 0, 0, 0, 0, 0]


def test_an_iterator_gives_the_baseline_of_a_uniform_sample() -> None:
    """What can be read only once is sampled: `rows` says how many rows the baseline describes."""
    data = frame()
    baseline = fitted(iter(parts(data)), sample_rows=2_000)
    assert baseline.rows == 2_000
    summary = numeric(baseline, "income")
    assert summary.n == summary.histogram.total == 2_000
    ranks = np.searchsorted(data["income"], summary.bounds) / ROWS
    assert np.max(np.abs(ranks - np.arange(1, 20) / 20)) < 0.05


def test_outputs_may_be_functions_of_a_batch() -> None:
    """Scores can be made while the data is read, from each batch as it came."""
    data = frame()
    by_name = fitted(parts(data), sample_rows=2_000)
    rest = [part.drop(columns="score") for part in parts(data)]
    scores = iter([*parts(data), *parts(data)])
    by_call = fitted(rest, sample_rows=2_000, scores=lambda _: next(scores)["score"])
    assert by_call == by_name


@pytest.mark.parametrize("sample_rows", [2_000, 1_000_000])
def test_the_rows_of_predict_proba_are_read_from_each_batch(sample_rows: int) -> None:
    """Score and uncertainty, from the sample as from the second pass, are those of the rows in one piece."""
    data = frame()

    def predict_proba(X: Any) -> Any:
        best = 0.5 + 0.4 * X["score"].to_numpy()
        return np.column_stack([(1 - best) * 0.7, best, (1 - best) * 0.3])

    made = fitted(parts(data), sample_rows=sample_rows, scores=predict_proba, exclude=["score"])
    p = predict_proba(data)
    for summary, values in ((made.scores, p.max(axis=1)), (made.uncertainty, 1 - (p[:, 1] - p[:, 0]))):
        assert isinstance(summary, NumericSummary)
        assert (summary.n, summary.min, summary.max) == (ROWS, values.min(), values.max())
        expected = np.searchsorted(np.sort(values), summary.bounds, "right")
        assert np.cumsum(summary.bucket_counts)[:-1].tolist() == expected.tolist()


def test_a_function_is_called_for_every_pass() -> None:
    """A function that gives the batches from the beginning serves both passes."""
    data, calls = frame(), []

    def batches() -> Iterator[pd.DataFrame]:
        calls.append(1)
        yield from parts(data)

    assert fitted(batches, sample_rows=2_000) == fitted(parts(data), sample_rows=2_000)
    assert len(calls) == 2


def test_progress_tells_the_rows_of_each_pass() -> None:
    """One call a batch: the rows so far, and in the second pass how many there are."""
    told: list[Progress] = []
    fitted(parts(frame(), 8_000), sample_rows=2_000, progress=told.append)
    first = [Progress("sample", rows, None) for rows in (8_000, 16_000, 20_000)]
    assert told == first + [Progress("count", rows, 20_000) for rows in (8_000, 16_000, 20_000)]


def test_parts_without_rows_and_in_another_order_of_columns_are_taken() -> None:
    """Filters leave empty parts behind, and columns are found by name."""
    data = frame()
    turned = [part[part.columns[::-1]] if i % 2 else part for i, part in enumerate(parts(data))]
    assert fitted([turned[0], data.iloc[:0], *turned[1:]]) == whole(data)


def test_columns_change_their_type_between_parts() -> None:
    """A part of whole numbers and one with fractions and gaps are one column of numbers."""
    batches = [{"x": np.arange(600)}, {"x": [0.5, None, *range(598)]}, {"x": np.ones(10, np.float32)}]
    baseline = Baseline.fit_batches(batches, model="m", version="1", created_at=CREATED)
    values = np.concatenate([np.arange(600), [0.5, np.nan], np.arange(598), np.ones(10)])
    assert baseline == Baseline.fit({"x": values}, model="m", version="1", created_at=CREATED)


def vanishing() -> Any:
    """A function that gives one generator, which the first pass empties."""
    rows = iter(parts(frame(1_000), 100))
    return lambda: rows


@pytest.mark.parametrize(
    ("batches", "options", "message"),
    [
        ([], {}, "the batches hold no rows"),
        (frame(10), {}, "takes an iterable of tables, not one DataFrame; give it to Baseline.fit"),
        (parts(frame(600), 300), {"scores": "nope"}, "batch 1: scores= names 'nope', which is no column"),
        (parts(frame(600), 300), {"exclude": ["nope"]}, "batch 1: exclude= names 'nope'"),
        (
            parts(frame(600), 300),
            {"scores": None, "threshold": 0.5},
            "threshold= and score_type= describe scores",
        ),
        ([frame(600), frame(9).drop(columns="age")], {}, "batch 2: has other columns than the first.*'age'"),
        (parts(frame(600), 300), {"scores": lambda X: [0.5]}, "batch 1: scores= has 1 values, .* 300 rows"),
        ([frame(600), [1, 2]], {}, "batch 2: the training data cannot be read"),
        (parts(frame(600), 300), {"sample_rows": 0}, "sample_rows= is a number of rows, 1 or more, not 0"),
        (vanishing(), {"sample_rows": 500}, "the second pass over the batches gave 0 rows, the first 1000"),
    ],
)
def test_what_does_not_fit_together_is_refused(batches: Any, options: dict[str, Any], message: str) -> None:
    """The error names the batch, what is wrong and the way out."""
    with pytest.raises(BaselineError, match=message):
        fitted(batches, **options)


def test_memory_is_that_of_the_sample() -> None:
    """Forty times the rows take no more memory than the sample and one batch do, within a half."""

    def peak(batches: int) -> int:
        def read() -> Iterator[dict[str, Any]]:
            for seed in range(batches):
                yield {"x": np.random.default_rng(seed).normal(size=20_000)}

        tracemalloc.start()
        Baseline.fit_batches(read, model="m", version="1", sample_rows=20_000)
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        return most

    assert peak(80) < 1.5 * peak(2)


def test_few_rows_are_warned_of() -> None:
    """The same warning as that of `fit`, once, with the caller's line."""
    with pytest.warns(UserWarning, match="has 100 rows; drift verdicts need 500") as said:
        fitted(parts(frame(100), 30))
    assert [warning.filename for warning in said] == [__file__]


def test_each_row_is_kept_with_the_same_probability() -> None:
    """Over 400 seeds every tenth of the rows gives a tenth of the sample, in whatever batches they come."""
    kept = np.zeros(10)
    for seed in range(400):
        reservoir: Reservoir[str] = Reservoir(50, seed=seed)
        for start, stop in ((0, 30), (30, 270), (270, 1_000)):
            reservoir.add({"row": np.arange(start, stop)})
        sample = reservoir.take()["row"]
        assert len(set(sample.tolist())) == 50
        kept += np.bincount(sample // 100, minlength=10)
    assert np.max(np.abs(kept / kept.sum() - 0.1)) < 0.012  # 5.6 standard deviations


# --- files ------------------------------------------------------------------------------------------------


def test_a_parquet_file_gives_the_baseline_of_its_rows(tmp_path: Path) -> None:
    """Row groups are streamed, one batch at a time, and the file may be read again."""
    data = frame()
    path = tmp_path / "train.parquet"
    pq.write_table(pa.Table.from_pandas(data), path, row_group_size=7_000)
    file = DataFile(path, batch_rows=4_096)
    assert file.rows == ROWS
    assert max(batch.num_rows for batch in file) == 4_096
    assert fitted(file) == whole(data)
    assert fitted(file, sample_rows=2_000).rows == ROWS


def test_a_directory_of_parquet_files_is_one_table(tmp_path: Path) -> None:
    """Parts are read by name; other files beside them are left alone."""
    data = frame()
    for i, part in enumerate(parts(data)):
        part.to_parquet(tmp_path / f"part-{i}.parquet")
    (tmp_path / "_SUCCESS").touch()
    assert DataFile(tmp_path).rows == ROWS
    assert fitted(DataFile(tmp_path)) == whole(data)


def test_a_csv_file_gives_the_same_baseline(tmp_path: Path) -> None:
    """CSV is read by pyarrow too; it does not say how many rows it has."""
    data = frame()
    data.to_csv(tmp_path / "train.csv", index=False)
    file = DataFile(tmp_path / "train.csv")
    assert file.rows is None
    assert fitted(file) == whole(data)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("gone.parquet", None, "gone.parquet' does not exist"),
        ("bad.parquet", "no parquet", "bad.parquet' cannot be read .*; give a valid Parquet file"),
        ("bad.csv", "a,b\n1,2\n3\n", "bad.csv' cannot be read .*; give a valid CSV file"),
        ("train.xls", "?", "is neither Parquet nor CSV by its name"),
        (".", None, "holds no file named \\*.parquet"),
    ],
)
def test_a_file_that_cannot_be_read_is_named(
    tmp_path: Path, name: str, content: str | None, message: str
) -> None:
    """The error names the file and the way out."""
    if content is not None:
        (tmp_path / name).write_text(content)
    with pytest.raises(BaselineError, match=message):
        fitted(DataFile(tmp_path / name))


def test_without_pyarrow_the_error_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """The base install has no pyarrow; the command names the extra."""
    monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)
    with pytest.raises(MissingDependency, match=r"pip install 'otel-ml\[parquet\]'"):
        DataFile("train.parquet")
