"""Any input of a model as named columns, and a column as numbers or categories.

pandas, polars and scipy.sparse are recognised without being imported; narwhals is imported when a frame that is
not pandas arrives for the first time.
"""

from __future__ import annotations

import dataclasses
import hashlib
import numbers as abstract
import sys
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import date, time, timedelta
from decimal import Decimal
from enum import Enum
from typing import Any

import numpy as np
from numpy.typing import NDArray

Column = NDArray[Any]

TEXT = "text"
"""Name of the one feature that an input of documents has."""
_LONGEST = 64
_NUMBERS = frozenset({int, float, bool, np.float64, np.float32, np.float16, np.int64, np.int32, np.bool_})
_NOTHING = type(None)
_SELF_UNEQUAL = (float, np.floating, np.datetime64, np.timedelta64)
"""Types with a value that stands for a missing one and differs from itself."""
_SCALARS = (str, bytes, abstract.Number, np.generic, date, time, timedelta, Enum, _NOTHING)


@dataclass(frozen=True, slots=True)
class Table:
    """Columns of equal length. `names` is None when the input has none: then columns go by position."""

    names: tuple[str, ...] | None
    rows: int
    columns: Sequence[Column]
    documents: bool = False
    """True for one column of texts that came without a frame or a dict around them."""


class SparseColumns(Sequence[Column]):
    """Columns of a sparse matrix: each is made dense when it is asked for, never all of them together."""

    def __init__(self, matrix: Any) -> None:
        self._matrix = matrix.tocsc()

    def __len__(self) -> int:
        return int(self._matrix.shape[1])

    def __getitem__(self, place: Any) -> Any:
        if not 0 <= place < len(self):
            raise IndexError(place)
        held = slice(*self._matrix.indptr[place : place + 2])
        dense = np.zeros(self._matrix.shape[0], dtype=self._matrix.dtype)
        np.add.at(dense, self._matrix.indices[held], self._matrix.data[held])  # entries given twice add up
        return dense

    def stored(self) -> NDArray[np.int64]:
        """(columns,) how many entries each column holds."""
        counts: NDArray[np.int64] = np.diff(self._matrix.indptr)
        return counts


def without_default_names(made: Table) -> Table:
    """Columns that a data frame numbered by itself have no names: they go by position."""
    if made.names == tuple(map(str, range(len(made.columns)))):
        return Table(names=None, rows=made.rows, columns=made.columns)
    return made


def table(x: object, *, width: int | None = None) -> Table:
    """The columns of `x`: array, list of rows or of records, dict, sparse matrix, pandas, what narwhals reads.

    `width` is the number of features and decides what one dimension means: one row when it is as long,
    one column when `width` is 1, documents when it is not known and all are texts. A dict of scalars, a named
    tuple, a dataclass or a pydantic model is one row, a dict of sequences holds columns.
    Raises `ValueError` that says what came when it is none of these.
    """
    if isinstance(x, (np.ndarray, np.void)):
        return _from_array(np.asanyarray(x), width)
    if is_sparse(x):
        return Table(None, x.shape[0], SparseColumns(x))  # type: ignore[attr-defined]  # of scipy
    row = x if isinstance(x, Mapping) else record(x)
    if row is not None:
        return _from_mapping(row)
    if isinstance(x, (list, tuple)):
        return _from_sequence(x, width)
    if type(x).__module__.partition(".")[0] == "pandas":
        return _from_pandas(x, width)
    return _from_other(x, width)


# --- input forms ------------------------------------------------------------------------------------------


def _from_array(x: Column, width: int | None) -> Table:
    if x.dtype.names is not None and x.shape in ((), (x.size,), (x.size, 1)):
        return Table(x.dtype.names, x.size, tuple(_field(x.reshape(-1)[name]) for name in x.dtype.names))
    x = _unmasked(x)
    if x.ndim == 2:
        return Table(None, x.shape[0], tuple(x.T))
    if x.ndim == 0 and width == 1:
        return Table(None, 1, (x.reshape(1),))
    if x.ndim == 1:
        return _from_line(x, width)
    raise ValueError(f"an array of shape {x.shape} is not rows × features; give it 2 dimensions")


def _field(values: Column) -> Column:
    """A field of a structured array; several values a row are one object, which is no number."""
    values = _unmasked(values)
    return values if values.ndim == 1 else np.fromiter(values, dtype=object, count=len(values))


def _unmasked(x: Column) -> Column:
    """Masked values as missing ones: NaN or NaT where the type has it, else None."""
    if not isinstance(x, np.ma.MaskedArray):
        return x
    kind = x.dtype.kind
    plain: Column = np.array(x.data, dtype=None if kind in "fMm" else object)
    plain[np.ma.getmaskarray(x)] = {"f": np.nan, "M": "NaT", "m": "NaT"}.get(kind)
    return plain


def _from_line(x: Column, width: int | None) -> Table:
    """One dimension: a row, a column or documents."""
    if width is not None and len(x) == width:
        return Table(None, 1, tuple(x.reshape(-1, 1)))
    documents = _is_text(x)
    if width == 1 or (width is None and documents):
        return Table(None if width == 1 else (TEXT,), len(x), (x,), documents)
    expected = "the number of features is not known" if width is None else f"the model has {width} features"
    raise ValueError(
        f"one dimension of length {len(x)} is neither a row nor a column: {expected}; give it 2 dimensions"
    )


def _is_text(x: Column) -> bool:
    if x.dtype.kind in "OT":
        return {type(value) for value in x.tolist() if not is_missing(value)} in ({str}, {bytes})
    return x.dtype.kind in "US" and len(x) > 0


def is_sparse(x: object) -> bool:
    """True for a matrix or an array of scipy.sparse with two dimensions."""
    issparse = getattr(sys.modules.get("scipy.sparse"), "issparse", None)
    return issparse is not None and bool(issparse(x)) and len(getattr(x, "shape", ())) == 2


def stacked(matrices: Sequence[Any]) -> Any:
    """The rows of sparse matrices of one width in one."""
    from scipy import sparse

    return matrices[0] if len(matrices) == 1 else sparse.vstack(matrices, format="csr")


def record(x: object) -> dict[str, Any] | None:
    """The fields of a named tuple, a dataclass or a pydantic model; None unless `x` is one, and all are scalars."""
    kind = type(x)
    names: Iterable[str] = getattr(kind, "_fields", ()) if isinstance(x, tuple) else ()
    if dataclasses.is_dataclass(kind):
        names = [field.name for field in dataclasses.fields(kind)]
    elif "pydantic" in sys.modules and isinstance(getattr(kind, "model_fields", None), dict):
        names = list(kind.model_fields)  # type: ignore[attr-defined]  # tested above
    row = {name: getattr(x, name) for name in names}
    return row if row and all(isinstance(value, _SCALARS) for value in row.values()) else None


def _from_mapping(x: Mapping[Any, Any]) -> Table:
    names = tuple(map(_name, x))
    if not x:
        raise ValueError("an empty dict has no columns")
    if not all(map(_is_sequence, x.values())):
        return Table(names, 1, tuple(column([value]) for value in x.values()))
    columns = tuple(series(value) for value in x.values())
    lengths = {name: len(values) for name, values in zip(names, columns, strict=True)}
    if len(set(lengths.values())) > 1:
        raise ValueError(f"columns of unequal length: {lengths}")
    return Table(names, len(columns[0]), columns)


def _from_sequence(x: Sequence[Any], width: int | None) -> Table:
    if not x:
        raise ValueError("an empty list has no rows")
    if record(x[0]) is not None:
        x = [record(row) or row for row in x]
    if isinstance(x[0], Mapping):
        names = tuple(dict.fromkeys(name for row in x for name in row))
        columns = tuple(column([row.get(name) for row in x]) for name in names)
        return Table(tuple(map(_name, names)), len(x), columns)
    if not _is_sequence(x[0]):
        return _from_line(column(x), width)
    lengths = {len(row) for row in x}
    if len(lengths) > 1:
        raise ValueError(f"rows of unequal length: {min(lengths)} to {max(lengths)} values")
    return Table(None, len(x), tuple(column(values) for values in zip(*x, strict=True)))


def _from_pandas(x: Any, width: int | None) -> Table:
    if x.ndim == 1:
        read = _from_series(x.name, _pandas_column(x), width)
        is_row = read.rows == 1 and width == len(x) > 1
        return Table(tuple(map(_name, x.index)), 1, read.columns) if is_row else read
    names = tuple(map(_name, x.columns.tolist()))
    # one block of several columns has one NumPy dtype; to ask for the dtypes costs ten times the conversion
    if len(names) > 1 and getattr(getattr(x, "_mgr", None), "is_single_block", False):
        return Table(names, len(x), tuple(x.to_numpy().T))
    return Table(names, len(x), tuple(_pandas_column(column) for _, column in x.items()))


def _from_series(name: object, values: Column, width: int | None) -> Table:
    """A row when it is as long as there are features, else a column; documents go by position."""
    documents = _is_text(values)
    if isinstance(name, str) and name and (width is None or (width == 1 and not documents)):
        return Table((name,), len(values), (values,), documents)
    return _from_line(values, width)


def _name(name: object) -> str:
    """The name of a column; levels of several are joined by dots."""
    return ".".join(str(level) for level in name if level != "") if isinstance(name, tuple) else str(name)


def _pandas_column(series: Any) -> Column:
    dtype = series.dtype
    if isinstance(dtype, np.dtype):
        return np.asarray(series.to_numpy())
    if hasattr(series, "cat"):
        named = [category(value) for value in series.cat.categories]
        codes: NDArray[np.int64] = series.cat.codes.to_numpy()
        return np.array([*named, None], dtype=object)[codes]
    if getattr(dtype, "kind", "O") in "iuf":
        return np.asarray(series.to_numpy(dtype=np.float64, na_value=np.nan))
    return np.asarray(series.to_numpy())


def _from_other(x: Any, width: int | None) -> Table:
    import narwhals

    if type(x).__module__.startswith("pyarrow") and type(x).__name__ == "RecordBatch":
        x = sys.modules["pyarrow"].Table.from_batches([x])
    try:
        frame = narwhals.from_native(x, eager_only=True, allow_series=True)
    except TypeError:
        if hasattr(x, "__array__"):
            return _from_array(np.asarray(x), width)
        raise ValueError(
            f"{type(x).__module__}.{type(x).__qualname__} is no table; "
            "give an array, a list of rows, a dict or a data frame"
        ) from None
    if isinstance(frame, narwhals.Series):
        return _from_series(frame.name, _narwhals_column(frame), width)
    columns = tuple(_narwhals_column(frame[name]) for name in frame.columns)
    return Table(tuple(frame.columns), len(frame), columns)


def _narwhals_column(series: Any) -> Column:
    """Integers with nulls come as floats with NaN; categories as text, also when they are numbers."""
    values = np.asarray(series.to_numpy())
    if not str(series.dtype).startswith(("Categorical", "Enum")):
        return values
    return column(list(map(category_or_missing, values.tolist())))


def _is_sequence(value: object) -> bool:
    if isinstance(value, (str, bytes, Mapping)):
        return False
    return isinstance(value, (list, tuple)) or getattr(value, "ndim", 0) >= 1 or hasattr(value, "to_numpy")


def series(values: Any) -> Column:
    """One column out of a list, array, pandas or other series. `ValueError` unless it has one dimension."""
    if isinstance(values, (list, tuple)):
        return column(values)
    if type(values).__module__.partition(".")[0] == "pandas" and hasattr(values, "dtype"):
        return _pandas_column(values)
    array: Column = _unmasked(values) if isinstance(values, np.ndarray) else np.asarray(values)
    if array.ndim != 1:
        raise ValueError(f"a column has one dimension, not shape {array.shape}")
    return array


def column(values: Sequence[Any]) -> Column:
    """Python values as one array: numbers (None as NaN) as numbers, everything else as objects."""
    types = set(map(type, values))
    if types <= _NUMBERS:
        return np.array(values)
    if _NOTHING in types and len(types) > 1 and types - {_NOTHING} <= _NUMBERS - {bool, np.bool_}:
        return np.array(values, dtype=np.float64)
    return np.fromiter(values, dtype=object, count=len(values))


# --- what a column holds ----------------------------------------------------------------------------------


def is_missing(value: object) -> bool:
    """True for None, NaN, NaT and pandas' NA."""
    if value is None or type(value).__name__ in ("NAType", "NaTType"):
        return True
    if isinstance(value, Decimal):
        return value.is_nan()  # a signalling one cannot be compared
    return isinstance(value, _SELF_UNEQUAL) and bool(value != value)


def is_numeric(column: Column) -> bool:
    """True for a column of numbers: not of booleans, text or dates, nor of nothing at all."""
    if column.dtype.kind != "O":
        return column.dtype.kind in "iuf"
    types = {type(value) for value in column.tolist() if not is_missing(value)}
    return bool(types) and all(issubclass(t, (abstract.Real, Decimal)) and not _is_bool(t) for t in types)


def numbers(column: Column) -> tuple[NDArray[np.float64], int, int]:
    """The numbers of a column (infinities among them), how many values are missing, how many no numbers."""
    values, missing, mismatched = aligned(column)
    return (values[~np.isnan(values)] if missing + mismatched else values), missing, mismatched


def aligned(column: Column) -> tuple[NDArray[np.float64], int, int]:
    """One number a row, NaN for missing values and for what is no number; then how many there are of each."""
    kind = column.dtype.kind
    if kind in "iub":
        return column.astype(np.float64), 0, 0
    if kind == "f":
        with np.errstate(over="ignore", invalid="ignore"):  # a longdouble beyond the largest double
            return _with_nan(column.astype(np.float64, copy=False))
    if kind in "Mm":
        missing = int(np.isnat(column).sum())
        return np.full(len(column), np.nan), missing, len(column) - missing
    values = column.tolist()
    if kind == "O" and set(map(type, values)) <= {float, int, bool, _NOTHING}:
        with suppress(OverflowError):
            return _with_nan(column.astype(np.float64))
    return _one_by_one(values)


def _with_nan(values: NDArray[np.float64]) -> tuple[NDArray[np.float64], int, int]:
    return values, int(np.count_nonzero(np.isnan(values))), 0


def _one_by_one(values: Sequence[object]) -> tuple[NDArray[np.float64], int, int]:
    found = np.full(len(values), np.nan)
    missing = mismatched = 0
    for row, value in enumerate(values):
        if is_missing(value):
            missing += 1
        elif isinstance(value, (abstract.Real, Decimal, np.bool_)):
            found[row] = _float(value)
        else:
            mismatched += 1
    return found, missing, mismatched


def _float(value: Any) -> float:
    try:
        return float(value)
    except OverflowError:  # an integer beyond the largest double
        return float("inf") if value > 0 else float("-inf")


def categories(column: Column) -> tuple[dict[str, int], int]:
    """How often each category occurs, by its canonical string, and how many values are missing."""
    counted: dict[str, int] = {}
    missing = 0
    for value, times in _distinct(column):
        if is_missing(value):
            missing += times
        else:
            name = category(value)
            counted[name] = counted.get(name, 0) + times
    return counted, missing


def _distinct(column: Column) -> Iterable[tuple[Any, int]]:
    if column.dtype.kind in "iufb":
        values, times = np.unique(column, return_counts=True)
        return zip(values, times.tolist(), strict=True)  # NumPy scalars: 0.1 in float32 reads 0.1
    listed = list(column) if column.dtype.kind in "Mm" else column.tolist()
    try:
        # 1, 1.0 and True are equal to a Counter; only the last is another category, so it is told apart
        if bool in (types := set(map(type, listed))) and len(types) > 1:
            return Counter(map(category_or_missing, listed)).items()
        return Counter(listed).items()
    except TypeError:  # unhashable values
        return Counter(map(category_or_missing, listed)).items()


def category_names(column: Column) -> Column:
    """The canonical string of each row's category, empty for a missing value."""
    if column.dtype.kind not in "iufb":
        return np.array([category_or_missing(value) or "" for value in column], dtype=object)
    distinct, which = np.unique(column, return_inverse=True)
    return np.array([category_or_missing(value) or "" for value in distinct], dtype=object)[which]


def category_or_missing(value: object) -> str | None:
    """The canonical string of a category, None for a missing value."""
    return None if is_missing(value) else category(value)


def category(value: object) -> str:
    """The canonical string of a category: true and false, integral numbers as integers, else its text.

    Longer than 64 characters: the first 48, `~`, and 8 hexadecimal digits of a hash of the whole.
    """
    if isinstance(value, (bool, np.bool_)):
        return "true" if value else "false"
    if isinstance(value, (float, np.floating, Decimal)):
        text = str(int(value)) if abs(float(value)) < 1e15 and value == int(value) else str(value)
    elif isinstance(value, bytes):
        text = value.decode("utf-8", "backslashreplace")
    else:
        text = str(value)
    if len(text) <= _LONGEST:
        return text
    return f"{text[:48]}~{hashlib.sha256(text.encode('utf-8', 'backslashreplace')).hexdigest()[:8]}"


def _is_bool(kind: type) -> bool:
    return issubclass(kind, (bool, np.bool_))
