"""Inputs of every form become the same columns, and columns the same numbers and categories."""

from __future__ import annotations

import subprocess
import sys
from decimal import Decimal
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

from otel_ml.columns import Table, aligned, categories, category, is_numeric, numbers, table

AGES = [31, 47, 52]
CITIES = ["Oslo", "Bonn", "Oslo"]


def content(read: Table) -> tuple[Any, int, list[list[Any]]]:
    """Names, rows and plain values of a table."""
    return read.names, read.rows, [column.tolist() for column in read.columns]


NAMED = {
    "dict of columns": {"age": AGES, "city": CITIES},
    "dict of arrays": {"age": np.array(AGES), "city": np.array(CITIES)},
    "dict of series": {"age": pd.Series(AGES), "city": pl.Series(CITIES)},
    "list of dicts": [{"age": a, "city": c} for a, c in zip(AGES, CITIES, strict=True)],
    "pandas": pd.DataFrame({"age": AGES, "city": CITIES}),
    "pandas category": pd.DataFrame({"age": AGES, "city": pd.Categorical(CITIES)}),
    "pandas nullable": pd.DataFrame({"age": pd.array(AGES, dtype="Int64"), "city": CITIES}),
    "polars": pl.DataFrame({"age": AGES, "city": CITIES}),
    "polars categorical": pl.DataFrame({"age": AGES, "city": pl.Series(CITIES, dtype=pl.Categorical)}),
    "pyarrow": pa.table({"age": AGES, "city": CITIES}),
    "structured array": np.array(list(zip(AGES, CITIES, strict=True)), dtype=[("age", int), ("city", "U9")]),
}


@pytest.mark.parametrize("x", NAMED.values(), ids=NAMED.keys())
def test_inputs_with_names_give_named_columns(x: object) -> None:
    """Frames, dicts and records of the same data are the same table."""
    assert content(table(x)) == (("age", "city"), 3, [AGES, CITIES])


@pytest.mark.parametrize("x", [NAMED["pandas"], NAMED["polars"], NAMED["list of dicts"], NAMED["pyarrow"]])
def test_the_kind_of_a_column_does_not_depend_on_the_form(x: object) -> None:
    """Numbers are numeric and text is not, wherever they come from."""
    assert [is_numeric(column) for column in table(x).columns] == [True, False]


def test_inputs_without_names_go_by_position() -> None:
    """Arrays and lists of rows have columns but no names."""
    rows = [[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]]
    expected = (None, 3, [[1.0, 3.0, 5.0], [2.0, 4.0, 6.0]])
    for x in (rows, np.array(rows), np.array(rows, dtype=np.float32), tuple(map(tuple, rows))):
        assert content(table(x)) == expected


def test_a_list_of_mixed_rows_keeps_its_types() -> None:
    """A number beside a text stays a number."""
    assert content(table([[1, "a", None], [2, "b", 0.5]]))[2][:2] == [[1, 2], ["a", "b"]]
    assert numbers(table([[1, "a", None], [2, "b", 0.5]]).columns[2])[0].tolist() == [0.5]


def test_a_dict_of_scalars_is_one_row() -> None:
    """As a web service receives it; a text is a scalar."""
    assert content(table({"age": 31, "city": "Oslo", "income": None})) == (
        ("age", "city", "income"),
        1,
        [[31], ["Oslo"], [None]],
    )


@pytest.mark.parametrize(
    "one", [[1.0, 2.0, 3.0], np.array([1.0, 2.0, 3.0]), pd.Series([1.0, 2.0, 3.0]).to_numpy()]
)
def test_one_dimension_is_read_by_the_number_of_features(one: Any) -> None:
    """Three values are a row of three features, three rows of one feature, and nothing for two."""
    assert content(table(one, width=3)) == (None, 1, [[1.0], [2.0], [3.0]])
    assert content(table(one, width=1)) == (None, 3, [[1.0, 2.0, 3.0]])
    with pytest.raises(ValueError, match="length 3 is neither a row nor a column: the model has 2 features"):
        table(one, width=2)
    with pytest.raises(ValueError, match="the number of features is not known"):
        table(one)


def test_a_row_of_a_frame_keeps_its_names() -> None:
    """`df.iloc[0]` is one row whose index holds the names."""
    row = pd.DataFrame({"a": [1.0], "b": [2.0]}).iloc[0]
    assert content(table(row, width=2)) == (("a", "b"), 1, [[1.0], [2.0]])


def test_a_named_series_is_one_column() -> None:
    """Of pandas and of polars alike."""
    for series in (pd.Series([1, 2], name="a"), pl.Series("a", [1, 2])):
        assert content(table(series)) == (("a",), 2, [[1, 2]])


def test_texts_are_one_column() -> None:
    """What a text classifier is given is one feature, whatever a model of one column calls it."""
    documents = ["good", "bad"]
    forms = [documents, tuple(documents), np.array(documents), objects(*documents), pd.Series(documents)]
    for form in forms:
        assert content(table(form)) == (("text",), 2, [documents])
        assert content(table(form, width=1)) == (None, 2, [documents])
    for named in (pd.Series(documents, name="review"), pl.Series("review", documents)):
        assert content(table(named)) == (("review",), 2, [documents])
        assert content(table(named, width=1)) == (None, 2, [documents])
    assert content(table([b"good", b"bad"])) == (("text",), 2, [[b"good", b"bad"]])
    assert content(table(objects("good", None))) == (("text",), 2, [["good", None]])


def test_missing_keys_of_records_are_missing_values() -> None:
    """Records need not have every key; order is that of first appearance."""
    read = table([{"a": 1}, {"b": "x", "a": 2}])
    assert read.names == ("a", "b")
    assert categories(read.columns[1]) == ({"x": 1}, 1)


def test_masked_values_are_missing() -> None:
    """The fill value behind a mask never counts."""
    masked = np.ma.MaskedArray([[1, 9], [2, 4]], mask=[[False, True], [False, False]])
    assert numbers(table(masked).columns[1])[0].tolist() == [4.0]
    assert numbers(table(masked).columns[1])[1] == 1


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (np.zeros((2, 3, 4)), r"shape \(2, 3, 4\)"),
        ([], "no rows"),
        ({}, "no columns"),
        ([[1, 2], [3]], "unequal length: 1 to 2"),
        ({"a": [1, 2], "b": [1]}, r"unequal length: \{'a': 2, 'b': 1\}"),
        (object(), "builtins.object is no table"),
        (pl.LazyFrame({"a": [1]}), "LazyFrame is no table"),
    ],
)
def test_what_is_no_table_is_named(x: object, message: str) -> None:
    """The error says what came."""
    with pytest.raises(ValueError, match=message):
        table(x)


def test_reading_columns_imports_no_frame_library() -> None:
    """pandas, polars and narwhals are left alone until one of their frames arrives."""
    code = "import sys, otel_ml.columns as c; c.table([{'a': 1}]); print(*sys.modules)"
    loaded = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout.split()
    assert not {"pandas", "polars", "narwhals", "scipy", "sklearn"} & set(loaded)


def objects(*values: object) -> Any:
    """An object column."""
    return np.fromiter(values, dtype=object, count=len(values))


@pytest.mark.parametrize(
    ("column", "found", "missing", "mismatched"),
    [
        (np.array([1, 2], dtype=np.int8), [1.0, 2.0], 0, 0),
        (np.array([1.5, np.nan, np.inf]), [1.5, np.inf], 1, 0),
        (np.array([0.1], dtype=np.float32), [float(np.float32(0.1))], 0, 0),
        (np.array([True, False]), [1.0, 0.0], 0, 0),
        (objects(1, 2.5, None, float("nan"), True), [1.0, 2.5, 1.0], 2, 0),
        (objects(1, "2", b"3", [4], None), [1.0], 1, 3),
        (objects(Decimal("0.5"), np.float32(0.25), np.int64(7), pd.NA, pd.NaT), [0.5, 0.25, 7.0], 2, 0),
        (objects(10**400, -(10**400)), [np.inf, -np.inf], 0, 0),
        (np.array(["1", "2"]), [], 0, 2),
        (np.array(["2026-01-01", "NaT"], dtype="datetime64[s]"), [], 1, 1),
    ],
)
def test_numbers_are_told_from_missing_and_foreign_values(
    column: Any, found: list[float], missing: int, mismatched: int
) -> None:
    """A text in a numeric column is a mismatch even when it reads like a number; infinities are numbers."""
    values, *others = numbers(column)
    assert values.tolist() == found
    assert others == [missing, mismatched]


def test_aligned_numbers_keep_their_rows() -> None:
    """One number a row, NaN where there is none."""
    np.testing.assert_array_equal(aligned(objects(1, "x", None, 4))[0], [1.0, np.nan, np.nan, 4.0])


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (True, "true"),
        (np.False_, "false"),
        (3.0, "3"),
        (np.float32(3), "3"),
        (-0.0, "0"),
        (np.float32(0.1), "0.1"),
        (0.1, "0.1"),
        (Decimal("2.00"), "2"),
        (7, "7"),
        (float("inf"), "inf"),
        ("Oslo", "Oslo"),
        (b"Oslo", "Oslo"),
        ("x" * 64, "x" * 64),
        ("x" * 65, "x" * 48 + "~9537c5fd"),
    ],
)
def test_categories_have_one_spelling(value: object, expected: str) -> None:
    """The same category is the same string whatever type it comes in, and never a long one."""
    assert category(value) == expected


@pytest.mark.parametrize(
    ("column", "counted", "missing"),
    [
        (np.array([1, 2, 2]), {"1": 1, "2": 2}, 0),
        (np.array([1.0, np.nan, 1.0, np.nan]), {"1": 2}, 2),
        (np.array([0.1, 0.1], dtype=np.float32), {"0.1": 2}, 0),
        (np.array([True, False, True]), {"true": 2, "false": 1}, 0),
        (np.array(["a", "b", "a"]), {"a": 2, "b": 1}, 0),
        (objects("a", None, float("nan"), pd.NA, "a"), {"a": 2}, 3),
        (objects(True, 1, 1.0, "1"), {"true": 1, "1": 3}, 0),
        (objects([1], [1], None), {"[1]": 2}, 1),
    ],
)
def test_categories_are_counted_by_their_spelling(column: Any, counted: dict[str, int], missing: int) -> None:
    """True is not 1, 1 is 1.0, and what is missing is no category."""
    assert categories(column) == (counted, missing)


def test_numbers_that_pandas_calls_categories_are_categories() -> None:
    """A category column holds no numbers, whatever its categories are."""
    frame = pd.DataFrame({"grade": pd.Categorical([1, 2, None])})
    (column,) = table(frame).columns
    assert not is_numeric(column)
    assert categories(column) == ({"1": 1, "2": 1}, 1)


def test_a_column_of_nothing_is_not_numeric() -> None:
    """None alone says nothing about the type."""
    assert not is_numeric(objects(None, None))
    assert is_numeric(objects(None, 1))
    assert not is_numeric(objects(True, 1))
