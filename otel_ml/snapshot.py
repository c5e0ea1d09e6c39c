"""What is kept of a call until it is counted: its input and output as later changes cannot reach them.

A copy where the caller could write to the object, the object itself where nobody can, of what is no table its
size alone.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sized
from dataclasses import dataclass
from typing import Any, cast

import numpy as np

from .columns import is_sparse, record
from .prediction import as_array, of_rows

ENTRY_BYTES = 400
"""What an entry costs beside its rows: tuple, bytes objects, shape, integers."""
_ATOMS = (float, int, str)
_FRAMES = ("__dataframe__", "__arrow_c_stream__", "__narwhals_dataframe__")
"""Methods by which data frames that are not pandas' are known."""


@dataclass(frozen=True, slots=True)
class Unread:
    """Stands for an input that is no table: it is counted, and not kept alive until it is."""

    kind: str | None
    """The type's name; None when nothing is to be said: lost by a failure that is accounted for, or counted before."""
    rows: int
    reason: str = "give an array, a list of rows, a dict or a data frame"


def settled(output: Any) -> Any:
    """An output as later changes of the caller's object cannot reach it; None when it says nothing."""
    if isinstance(output, (float, int, str, np.generic)):
        return output
    output = of_rows(output)
    if isinstance(output, (list, tuple)):
        return list(output)
    values = as_array(output)
    return None if values is None else values.copy()


def snapshot(rows: Any, width: int | None) -> Any:
    """A copy of `rows` that later changes of the caller's object cannot reach; `Unread` of what is no table."""
    if isinstance(rows, (np.ndarray, np.void)):
        return rows.copy() if isinstance(rows, np.ma.MaskedArray) else np.array(rows)
    if is_sparse(rows):
        return _sparse(rows, width)
    if type(rows) is Unread:  # before it is asked whether it is a record
        return rows
    if isinstance(rows, dict):
        return {
            key: value if np.isscalar(value) or value is None else _copied(value)
            for key, value in rows.items()
        }
    row = record(rows)
    if row is not None:
        return row
    if isinstance(rows, (list, tuple)):
        return [row if isinstance(row, _ATOMS) else _row(row) for row in rows]
    pandas = sys.modules.get("pandas")
    if pandas is not None and isinstance(rows, (pandas.DataFrame, pandas.Series)):
        return rows.copy(deep=int(pandas.__version__.split(".")[0]) < 3)  # copy-on-write from 3.0 on
    return _foreign(rows, width)


def _row(row: Any) -> Any:
    """One of a list of rows."""
    if isinstance(row, (list, dict, np.ndarray)):
        return _copied(row)
    made = record(row)
    return row if made is None else made


def _sparse(rows: Any, width: int | None) -> Any:
    if width is None:
        undeclared = "of a sparse matrix only declared columns are read; give a baseline or features=[…]"
        return Unread(type(rows).__name__, row_count(rows, width), undeclared)
    return rows.tocsr(copy=True)


def _foreign(rows: Any, width: int | None) -> Any:
    """A frame stays as it is, for frames do not change; a tensor becomes an array; of the rest only the size."""
    if rows is None or np.isscalar(rows) or any(hasattr(type(rows), mark) for mark in _FRAMES):
        return rows
    if isinstance(rows, Mapping):
        return snapshot(dict(rows), width)
    values = as_array(rows)
    return Unread(type(rows).__name__, row_count(rows, width)) if values is None else values.copy()


def _copied(value: Any) -> Any:
    copy = getattr(value, "copy", None)
    return copy() if copy is not None else value


def row_count(rows: Any, width: int | None) -> int:
    """Number of rows in an input as `table` would read it, without reading it; 1 when it cannot tell."""
    if type(rows) is np.ndarray and rows.ndim == 2:
        return len(rows)
    try:
        return _row_count(rows, width)
    except Exception:  # whatever a user's object raises when it is asked for its size
        return 1


def _row_count(rows: Any, width: int | None) -> int:
    shape = getattr(rows, "shape", None)
    if record(rows) is not None:
        return 1
    if isinstance(rows, dict) and shape is None:  # in older scipy a sparse matrix of keys is a dict, too
        first = next(iter(rows.values()), 0)
        return 1 if first is None or np.isscalar(first) else len(cast(Sized, first))
    if isinstance(rows, (list, tuple)) and rows and not isinstance(rows[0], (list, tuple, dict, np.ndarray)):
        shape = (len(rows),)
    if shape is not None and len(shape) == 1:
        return 1 if width is not None and width > 1 and shape[0] == width else int(shape[0])
    if shape is not None:
        return int(shape[0]) if shape else 1
    return len(rows) if hasattr(rows, "__len__") and not isinstance(rows, (str, bytes)) else 1


def size_of(taken: Any) -> int:
    """Roughly how many bytes a snapshot holds on to."""
    if type(taken) is Unread:
        return 40
    try:
        return _size_of(taken)
    except Exception:  # as above
        return ENTRY_BYTES


def _size_of(taken: Any) -> int:
    if isinstance(taken, dict):
        return 100 * len(taken) + sum(map(_size_of, taken.values()))
    if isinstance(taken, (list, tuple)):
        return len(taken) * (8 + _size_of(taken[0])) if taken else 0
    if isinstance(taken, (str, bytes)):
        return 40 + len(taken)
    if is_sparse(taken):
        return sum(int(part.nbytes) for part in (taken.data, taken.indices, taken.indptr))
    nbytes = getattr(taken, "nbytes", None)
    if isinstance(nbytes, int):
        return nbytes
    shape = getattr(taken, "shape", None)
    if shape is not None and len(shape) == 2:
        return int(shape[0]) * int(shape[1]) * 16
    return 40
