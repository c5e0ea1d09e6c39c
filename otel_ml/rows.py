"""The input of one call, read when it is asked for: most calls are decided on without it."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from functools import lru_cache
from struct import Struct
from typing import Any

import numpy as np
from numpy.typing import NDArray

from . import _guard
from ._spare import Lease
from .columns import Column, Table, column, series, table, without_default_names
from .model import Model
from .segment import Codes, Cut, bare
from .snapshot import Unread


def names_of(model: Model, width: int) -> Sequence[str] | None:
    """Names of `width` columns that came without any; None when they cannot be matched with what is known."""
    known: list[Sequence[str]] = [] if model.feature_names is None else [model.feature_names]
    if model.baseline is not None:
        known += [model.baseline.columns, tuple(model.baseline.features)]
    if not known:
        return [f"x{i}" for i in range(width)]
    return next((names for names in known if len(names) == width), None)


_CODES = {np.dtype("f8"): Struct("d"), np.dtype("i8"): Struct("q")}
"""Numbers that Python has, too, as they stand in a matrix."""


@lru_cache(maxsize=64)
def _places(model: Model, width: int) -> dict[str, int]:
    """Where the column of a name is, of equal names the first; kept, for a call of one row asks for little else."""
    names = names_of(model, width) or ()
    return {name: place for place, name in reversed(list(enumerate(names)))}


class Rows:
    """The n rows given to a model, by column. Reads the snapshot taken before the call, never the caller's object.

    `taken` is a plain matrix as (bytes, shape, dtype), or what `snapshot` made of anything else; what cannot be
    read has no columns. A column is good for as long as its rows are kept: the memory of a large matrix is used again.
    """

    __slots__ = ("_cache", "_cut", "_model", "_table", "_taken", "rows")

    def __init__(self, taken: Any, model: Model, rows: int) -> None:
        self.rows = rows
        self._cut = taken if type(taken) is Cut else None
        self._taken = bare(taken)
        self._model = model
        self._cache: dict[str, Column | None] = {}
        self._table: Table | None = None

    def column(self, name: str) -> Column | None:
        """The (n,) values of a column, None when the input has none of that name or cannot be read."""
        if name not in self._cache:
            found = self._column(name)
            self._cache[name] = found if found is not None and len(found) == self.rows else None
        return self._cache[name]

    def value(self, name: str) -> object:
        """What the only row has in a column; None when it has none of that name or cannot be read."""
        taken = self._taken
        if type(taken) is tuple and (one := _CODES.get(taken[2])) is not None:
            place = _places(self._model, taken[1][1]).get(name)
            return None if place is None else one.unpack_from(_bytes(taken[0]), place * one.size)[0]
        found = self.column(name)
        return None if found is None else found[0]

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the columns in order; of columns that came without any, the model's or the baseline's."""
        matrix = self.matrix
        if matrix is not None:
            return tuple(names_of(self._model, matrix.shape[1]) or ())
        made = self._read()
        named = without_default_names(made).names
        return tuple(names_of(self._model, len(made.columns)) or ()) if named is None else named

    @property
    def matrix(self) -> NDArray[Any] | None:
        """The rows as a matrix (n, d) when they came as a plain one of floats or integers."""
        taken = self._taken
        if type(taken) is tuple:
            data, shape, dtype = taken
            made: NDArray[Any] = np.frombuffer(_bytes(data), dtype=dtype).reshape(shape)
            return made
        return None

    def codes(self) -> Codes:
        """Which of the names of the model's segment each row is; only for a model that has one."""
        if self._cut is None:  # the snapshot failed
            assert self._model.segment is not None
            return self._model.segment.other
        if self._cut.codes is None:
            self._cut.codes = self._read_codes()
        return self._cut.codes

    def segment_of(self, row: int) -> str:
        """The value of a row in the model's segment."""
        codes = self.codes()
        assert self._model.segment is not None
        return self._model.segment.names[codes if isinstance(codes, int) else codes[row]]

    def _read_codes(self) -> Codes:
        segment = self._model.segment
        assert segment is not None
        try:
            column = self.column(str(segment.by))
            if column is not None:
                return segment.codes(column)
        except Exception as error:  # whatever a user's values raise
            _guard.failed("segment", error)
            return segment.other
        if not isinstance(self._taken, Unread):
            _guard.say_once(
                f"segment:{self._model.name}:{segment.by}",
                "model %s: its input has no column %r, which its segment is by; its rows count as %s",
                self._model.name, segment.by, segment.names[-1],
            )  # fmt: skip
        return segment.other

    def _column(self, name: str) -> Column | None:
        taken = self._taken
        if type(taken) is tuple:
            return self._of_matrix(name)
        if type(taken) is dict and name in taken and self.rows == 1:
            value = taken[name]
            return column([value]) if np.isscalar(value) or value is None else series(value)
        if _is_frame(taken) and name in taken.columns and taken.columns.is_unique:
            return series(taken[name])
        names, columns = self.names, self._read().columns
        return columns[names.index(name)] if name in names else None

    def _of_matrix(self, name: str) -> Column | None:
        data, (rows, width), dtype = self._taken
        place = _places(self._model, width).get(name)
        if place is None:
            return None
        if rows == 1:
            return np.frombuffer(_bytes(data), dtype, 1, place * dtype.itemsize)
        return np.frombuffer(_bytes(data), dtype).reshape(rows, width)[:, place]

    def _read(self) -> Table:
        if self._table is None:
            self._table = Table(names=(), rows=self.rows, columns=())
            if not isinstance(self._taken, Unread):
                with suppress(
                    Exception
                ):  # whatever a user's object raises; it is accounted for where rows are counted
                    self._table = table(self._taken, width=self._model.width)
        return self._table


def _bytes(data: bytes | Lease) -> bytes | bytearray:
    return data.block if isinstance(data, Lease) else data


def _is_frame(taken: object) -> bool:
    kind = type(taken)
    return kind.__name__ == "DataFrame" and kind.__module__.partition(".")[0] == "pandas"
