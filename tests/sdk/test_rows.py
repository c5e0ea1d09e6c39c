"""The input of a call by column, whatever form it came in."""

from __future__ import annotations

import numpy as np
import pandas as pd
import polars as pl
import pytest

from otel_ml._spare import Spare
from otel_ml.model import Model
from otel_ml.rows import Rows, names_of
from otel_ml.snapshot import snapshot

NAMES = ("age", "income", "region")
MODEL = Model("m", "1", feature_names=NAMES)
COLUMNS = {"age": [20, 30], "income": [1.5, 2.5], "region": ["eu", "us"]}


def plain(values):
    matrix = np.array(values, dtype=np.float64)
    return matrix.tobytes(), matrix.shape, matrix.dtype


def listed(column):
    return None if column is None else column.tolist()


RECORDS = [{"age": 20, "income": 1.5, "region": "eu"}, {"age": 30, "income": 2.5, "region": "us"}]
VALUES = [list(row.values()) for row in RECORDS]


@pytest.mark.parametrize(
    "given",
    [
        COLUMNS, pd.DataFrame(COLUMNS), pl.DataFrame(COLUMNS), RECORDS, VALUES, pd.DataFrame(VALUES),
        np.array(VALUES, dtype=object),
    ],
    ids=["dict", "pandas", "polars", "list of dicts", "list of lists", "numbered frame", "objects"],
)  # fmt: skip
def test_column_by_name(given):
    """A column is found by its name, or by the place that the model gives the name; others are not there."""
    rows = Rows(snapshot(given, 3), MODEL, 2)
    assert rows.names == NAMES
    assert rows.matrix is None
    assert listed(rows.column("age")) == [20, 30]
    assert listed(rows.column("region")) == ["eu", "us"]
    assert rows.column("age") is rows.column("age")
    assert rows.column("nowhere") is None


@pytest.mark.parametrize("values", [[[20, 1.5, 7]], [[20, 1.5, 7], [30, 2.5, 8]]])
def test_column_of_a_matrix(values):
    """In a plain matrix a name is a place."""
    rows = Rows(plain(values), MODEL, len(values))
    assert listed(rows.column("income")) == [row[1] for row in values]
    assert rows.column("nowhere") is None
    assert rows.names == NAMES
    assert listed(rows.matrix) == values


def test_column_of_a_large_matrix():
    """A matrix in borrowed memory reads the same; the rows keep what they borrowed."""
    matrix = np.arange(60_000.0).reshape(-1, 3)
    spare = Spare(2**24)
    rows = Rows((spare.copy(matrix), matrix.shape, matrix.dtype), MODEL, len(matrix))
    spare.copy(np.zeros_like(matrix))
    assert (rows.column("income") == matrix[:, 1]).all()
    assert (rows.matrix == matrix).all()


def test_one_row_of_a_dict():
    """Scalars are one row; what is missing stays so."""
    rows = Rows({"region": "eu", "age": None, "tags": [1, 2]}, MODEL, 1)
    assert [listed(rows.column(name)) for name in ("region", "age", "income")] == [["eu"], [None], None]
    assert rows.column("tags") is None  # two values for one row


def test_names_of_unnamed_columns(baseline):
    """They are the model's, else the baseline's, when there are as many; x0, x1, … when nothing is known."""
    assert names_of(MODEL, 3) == NAMES
    assert names_of(MODEL, 4) is None
    assert names_of(Model("m", "1", baseline=baseline), 3) == ("a", "b", "c")
    assert names_of(Model("m", "1"), 2) == ["x0", "x1"]
    assert Rows(plain([[1, 2]]), MODEL, 1).column("age") is None


@pytest.mark.parametrize("given", [object(), "text", [[1.0], [1.0, 2.0]], None])
def test_what_is_no_table_has_no_columns(given):
    """A sampler decides without it."""
    rows = Rows(snapshot(given, 3), MODEL, 1)
    assert rows.column("age") is None
    assert rows.column("x0") is None
    assert rows.matrix is None
