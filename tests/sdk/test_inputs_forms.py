"""What a form of input means: its names, its limits, and what is said of the ones that cannot be read."""

from __future__ import annotations

import sys
from collections import namedtuple
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from decimal import Decimal
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import scipy.sparse as sp
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from support import select

import otel_ml
from otel_ml import Baseline, observe
from otel_ml.columns import Table, record, series, table
from otel_ml.snapshot import row_count, snapshot


def content(read: Table) -> tuple[Any, int, list[list[Any]]]:
    """Names, rows and plain values of a table."""
    return read.names, read.rows, [column.tolist() for column in read.columns]


def states(points: Any, feature: str) -> dict[str, int]:
    """Values of a feature by state."""
    found = select(points.get("ml.feature.observations", []), ml__feature__name=feature)
    return {p.attributes["ml.feature.state"]: p.value for p in found if p.value}


def observed(baseline: Baseline | None = None, **options: Any) -> Any:
    """A function that is recorded and does nothing."""
    return observe("churn", "3", baseline=baseline, spans="off", **options)(lambda X: None)


# --- records ----------------------------------------------------------------------------------------------


@dataclass
class Customer:
    """A row as a service has it."""

    age: int
    city: str | None = None
    since: date = field(default=date(2026, 1, 1))


class Model:
    """As pydantic's BaseModel: fields stand in `model_fields` of the class."""

    model_fields: dict[str, object] = {"age": object(), "city": object()}  # noqa: RUF012

    def __init__(self, age: int, city: str) -> None:
        self.age, self.city = age, city


Named = namedtuple("Named", ["age", "city"])


def test_records_are_rows_with_names(monkeypatch: pytest.MonkeyPatch) -> None:
    """Named tuples, dataclasses and pydantic models, one or a list of them."""
    monkeypatch.setitem(sys.modules, "pydantic", SimpleNamespace())
    expected = (("age", "city"), 1, [[31], ["Oslo"]])
    for row in (Named(31, "Oslo"), Model(31, "Oslo")):
        assert content(table(row)) == content(table([row])) == expected
    assert content(table([Customer(31), Customer(40, "Bonn")]))[2][:2] == [[31, 40], [None, "Bonn"]]
    assert [row_count(x, 3) for x in (Customer(1), [Customer(1)] * 2, Named(1, 2))] == [1, 2, 1]


@pytest.mark.parametrize(
    "value",
    [Customer, Named(np.zeros(3), 1), SimpleNamespace(age=1), (1, 2), {"age": 1}, object()],
    ids=["class", "holds arrays", "no fields", "tuple", "dict", "object"],
)
def test_what_has_no_fields_of_scalars_is_no_record(value: object) -> None:
    """A batch that holds arrays, a request that holds a frame, and a class are no rows."""
    assert record(value) is None


def test_a_record_is_read_as_it_was_at_the_call() -> None:
    """What is queued does not change with the object, and does not keep it alive."""
    row = Customer(31)
    taken = [snapshot(row, None), snapshot([row], None)[0]]
    row.age = 99
    assert taken == [{"age": 31, "city": None, "since": date(2026, 1, 1)}] * 2


# --- names ------------------------------------------------------------------------------------------------


def test_levels_of_a_name_are_joined_by_dots() -> None:
    """As a pivot table has them, with numbers and empty levels."""
    columns = pd.MultiIndex.from_tuples([("amount", 2025), ("amount", 2026), ("id", "")])
    assert table(pd.DataFrame([[1.0, 2.0, 3]], columns=columns)).names == ("amount.2025", "amount.2026", "id")


def test_a_record_batch_keeps_its_names() -> None:
    """Of pyarrow, which has tables and batches."""
    assert content(table(pa.record_batch({"a": [1, 2], "b": ["x", None]}))) == (
        ("a", "b"),
        2,
        [[1, 2], ["x", None]],
    )


def test_columns_of_masked_values_keep_their_masks() -> None:
    """Numbers, dates, texts and booleans; also as a column of a dict or a field of a structured array."""
    mask = [False, True]
    dates = np.ma.MaskedArray(np.array(["2026-01-01"] * 2, dtype="M8[D]"), mask=mask)
    assert np.isnat(series(dates)).tolist() == mask
    for values in ([1, 2], [True, False], ["a", "b"]):
        (read,) = table({"x": np.ma.MaskedArray(values, mask=mask)}).columns
        assert read.tolist() == [values[0], None]
    fields = np.ma.MaskedArray(
        [(1.0, 2), (3.0, 4)],
        mask=np.array([(0, 1), (1, 0)], dtype=[("a", "?"), ("b", "?")]),
        dtype=[("a", "f4"), ("b", "i8")],
    )
    made = table(fields)
    assert np.isnan(made.columns[0]).tolist() == [False, True]
    assert made.columns[1].tolist() == [None, 4]


def test_single_precision_behind_a_mask_stays_single() -> None:
    """The category 0.1 of a float32 would be another one in double precision."""
    (read,) = table(np.ma.MaskedArray(np.array([[0.1]], dtype="f4"), mask=[[False]])).columns
    assert read.dtype == np.float32


# --- values that are no numbers ---------------------------------------------------------------------------

FOREIGN = {
    "complex": np.array([[1j], [2j]]),
    "text": np.array([["1"], ["2"]]),
    "bytes": np.array([[b"1"], [b"2"]]),
    "dates": np.array([["2026-01-01"], ["2026-01-02"]], dtype="M8[s]"),
    "durations": np.array([[1], [2]], dtype="m8[s]"),
    "several values a row": np.array([([1, 2],), ([3, 4],)], dtype=[("a", "f8", (2,))]),
    "nested fields": np.array([((1, 2),), ((3, 4),)], dtype=[("a", [("p", "f8"), ("q", "f8")])]),
    "objects": [[datetime(2026, 1, 1)], [timedelta(1)]],
    "pandas dates with a zone": pd.DataFrame({"a": pd.to_datetime(["2026-01-01"] * 2, utc=True)}),
    "pandas periods": pd.DataFrame({"a": pd.period_range("2026", periods=2)}),
    "pandas intervals": pd.DataFrame({"a": pd.interval_range(0, 2)}),
}


@pytest.mark.parametrize("x", FOREIGN.values(), ids=FOREIGN.keys())
def test_what_is_no_number_is_a_type_mismatch(x: Any, collect: Any, caplog: pytest.LogCaptureFixture) -> None:
    """Counted, named and said once, whatever it is."""
    predict = observed(Baseline.fit({"a": np.arange(600.0)}, model="churn", version="3"))
    predict(x)
    predict(x)
    points = collect()
    assert states(points, "a") == {"type_mismatch": 4}
    (violation,) = points["otel_ml.schema.violations"]
    assert (violation.attributes["reason"], violation.attributes["ml.feature.name"]) == ("type", "a")
    assert violation.value == 4
    assert len(caplog.messages) == 1


@pytest.mark.filterwarnings("error")
def test_numbers_beyond_double_precision(collect: Any) -> None:
    """Rounded, and infinite beyond the largest double; no warning of ours reaches the application."""
    predict = observed(Baseline.fit({"a": np.arange(600.0)}, model="churn", version="3"))
    predict(np.array([[2**63 + 1], [2**64 - 1]], dtype=np.uint64))
    predict([[10**400], [Decimal("1e999")]])
    if np.finfo(np.longdouble).max > np.finfo(np.float64).max:
        predict(np.array([["1e4000"], ["nan"]], dtype=np.longdouble))
    else:
        predict(np.array([[np.inf], [np.nan]]))
    predict([[Decimal("sNaN")], [Decimal("NaN")]])
    assert states(collect(), "a") == {"out_of_range": 2, "non_finite": 3, "missing": 3}


# --- sparse matrices --------------------------------------------------------------------------------------


class Guarded(sp.csr_array):
    """A sparse matrix that nobody may make dense."""

    def toarray(self, *args: Any, **kwargs: Any) -> Any:
        raise AssertionError("made dense")

    todense = toarray


def wide(rows: int, columns: int) -> Any:
    """One entry a row, its value the row's number; too large to be dense."""
    return Guarded((np.arange(1.0, rows + 1), (np.arange(rows), np.arange(rows))), shape=(rows, columns))


def test_a_sparse_matrix_is_never_made_dense(collect: Any) -> None:
    """600 rows of 100,000 columns, half a gigabyte as an array: the columns with the most entries are declared."""
    names = [f"w{i}" for i in range(100_000)]
    X = wide(600, 100_000)
    baseline = Baseline.fit(X, model="churn", version="3", features=names)
    assert list(baseline.features) == names[:200]
    assert len(baseline.columns) == 100_000
    predict = observed(baseline)
    predict(X)
    predict(X[:3])
    points = collect()
    assert [p.value for p in points["ml.inference.rows"]] == [603]
    (point,) = select(points["ml.feature.value"], ml__feature__name="w2")
    assert list(point.bucket_counts) == [0, 601, 2]  # below zero, zeros, the entry of 3 in both calls


def test_the_important_columns_of_a_sparse_matrix_are_declared() -> None:
    """Importance goes before entries, and what is excluded is not counted among them."""
    X = sp.random(600, 300, density=0.5, format="csc", random_state=0)
    names = [f"w{i}" for i in range(300)]
    baseline = Baseline.fit(
        X, model="m", version="1", features=names, importance={"w250": 1.0, "w251": 2.0}, exclude=["w251"]
    )
    assert "w250" in baseline.features
    assert "w251" not in baseline.features
    assert len(baseline.features) == 200
    assert baseline.count(X).features["w250"].states.tolist() == baseline.features["w250"].states.tolist()


def test_without_declared_columns_only_rows_are_counted(
    collect: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """A sparse matrix of which nothing is known is counted, and it is said once."""
    predict = observed()
    for _ in range(2):
        predict(wide(5, 100_000))
    points = collect()
    assert [p.value for p in points["ml.inference.rows"]] == [10]
    assert [(p.attributes["reason"], p.value) for p in points["otel_ml.dropped"]] == [
        ("unreadable_input", 10)
    ]
    (message,) = caplog.messages
    assert "of a sparse matrix only declared columns are read; give a baseline or features=[…]" in message


def test_a_sparse_matrix_is_read_as_it_was_at_the_call(collect: Any) -> None:
    """Its entries can be written to after the call."""
    predict = observed(features=["a", "b"])
    X = sp.csr_matrix([[1.0, 0.0]])
    predict(X)
    X.data[:] = np.nan
    points = collect()
    assert states(points, "a") == states(points, "b") == {"ok": 1}


# --- text -------------------------------------------------------------------------------------------------


def test_a_text_pipeline_has_one_opaque_feature(collect: Any) -> None:
    """Found by instrumentation, with a baseline of its documents: states, and no text."""
    texts = ["good film", "bad film"] * 300
    model = make_pipeline(TfidfVectorizer(), LogisticRegression()).fit(texts, [1, 0] * 300)
    baseline = Baseline.fit(texts, model="reviews", version="1")
    otel_ml.instrument()
    try:
        otel_ml.register(model, name="reviews", version="1", baseline=baseline)
        model.predict(texts[:3])
        model.predict(pd.Series(texts[:4], name="review"))
        model.predict(np.array(texts[:1], dtype=object))
    finally:
        otel_ml.uninstrument()
    points = collect()
    assert states(points, "text") == {"ok": 8}
    assert "ml.feature.categories" not in points
    assert "otel_ml.schema.violations" not in points


def test_documents_that_are_meant_as_categories_are_counted_as_such(collect: Any) -> None:
    """`categorical=` names them."""
    baseline = Baseline.fit(["a", "b"] * 300, model="m", version="1", categorical=["text"])
    observed(baseline)(["a", "c"])
    assert states(collect(), "text") == {"ok": 1, "unseen": 1}


# --- what cannot be read ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("x", "reason"),
    [
        (np.zeros((2, 3, 4)), r"an array of shape (2, 3, 4) is not rows × features; give it 2 dimensions"),
        ([[1, 2], [3]], "rows of unequal length: 1 to 2 values"),
        ({"a": [1, 2], "b": [1]}, "columns of unequal length: {'a': 2, 'b': 1}"),
        (np.zeros(2), "one dimension of length 2 is neither a row nor a column: the number of features"),
        (iter([[1.0]]), "give an array, a list of rows, a dict or a data frame"),
    ],
)
def test_the_message_says_why_an_input_cannot_be_read(
    x: Any, reason: str, collect: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """The rows are counted as dropped, and the reason is in the one message."""
    observed()(x)
    assert [p.attributes["reason"] for p in collect()["otel_ml.dropped"]] == ["unreadable_input"]
    assert reason in caplog.messages[0]
