"""The hot path: what a call leaves behind is appended to a queue, and counted later in bulk.

On the call a plain float or integer matrix costs one `tobytes` (copy, snapshot and layout in one) and one
`list.append`, both atomic, without a lock. Draining joins the bytes and counts all rows at once.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sized
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from . import _guard
from ._spare import LARGE, Spare
from .columns import Table, table
from .model import Model
from .prediction import as_array, read_outcome
from .tally import Tally

_ENTRY_BYTES = 400
"""What an entry costs beside its rows: tuple, bytes objects, shape, integers."""
_F8, _F4, _I8, _I4 = (np.dtype(code) for code in ("f8", "f4", "i8", "i4"))
_PLAIN = frozenset((_F8, _F4, _I8, _I4))
_FRAMES = ("__dataframe__", "__arrow_c_stream__", "__narwhals_dataframe__")
"""Methods by which data frames that are not pandas' are known."""

Plain = tuple["bytes | bytearray", tuple[int, ...], "np.dtype[Any]"]
"""A plain matrix as bytes, shape and dtype."""
Layout = tuple[tuple[int, ...], "np.dtype[Any]"]
"""What plain matrices must share to be joined: their shape without the rows, and dtype."""
_PIECE_BYTES = 2**16


class Pending:
    """How much waits to be counted in this process, and what to do when it is too much."""

    __slots__ = ("bytes", "idle", "limit", "reason", "relieve", "spare", "wake_at")

    def __init__(self, limit: int, relieve: Callable[[], None], *, reason: str = "no_reader") -> None:
        self.bytes = 0
        self.limit = limit
        self.wake_at = limit // 2
        self.spare = Spare(limit // 2)
        self.relieve = relieve
        self.idle = False
        """True while calls are only counted, because nobody collects."""
        self.reason = reason
        """What such calls are counted as."""


@dataclass(frozen=True, slots=True)
class Unread:
    """Stands for an input that is no table: it is counted, and not kept alive until it is."""

    kind: str
    rows: int


class Capture:
    """The queue of one operation of one model. `take` before the call, `put` after it, `drain` to count."""

    __slots__ = ("_failures", "_model", "_operation", "_pending", "_queue", "_tally", "skipped")

    def __init__(self, model: Model, operation: str, tally: Tally, pending: Pending) -> None:
        self._model = model
        self._operation = operation
        self._tally = tally
        self._pending = pending
        self._queue: list[tuple[Any, Any, int]] = []
        self._failures: list[tuple[int, str]] = []
        self.skipped = 0
        """Calls that were only counted because nobody collects."""

    def take(self, rows: Any) -> Any:
        """Snapshot the input before the model can change it; a plain matrix becomes `Plain`."""
        if type(rows) is np.ndarray and rows.ndim == 2:
            dtype = rows.dtype
            if dtype is _F8 or dtype is _F4 or dtype is _I8 or dtype is _I4:
                data = rows.tobytes() if rows.nbytes < LARGE else self._pending.spare.copy(rows)
                return data, rows.shape, dtype
        return snapshot(rows, self._model.width)

    def put(self, taken: Any, output: Any, duration: int) -> None:
        """Queue a call that succeeded; `duration` in nanoseconds."""
        pending = self._pending
        if pending.idle:
            self.skipped += 1
            return
        if type(output) is np.ndarray and ((dtype := output.dtype) is _F8 or dtype in _PLAIN):
            data = output.tobytes()
            output, size = (data, output.shape, dtype), _ENTRY_BYTES + len(data)
        else:
            output = settled(output)
            size = _ENTRY_BYTES + size_of(output)
        self._queue.append((taken, output, duration))
        pending.bytes += size + (len(taken[0]) if type(taken) is tuple else size_of(taken))
        if pending.bytes > pending.wake_at:
            pending.relieve()

    def put_failure(self, duration: int, error_type: str) -> None:
        """Queue a call that raised; `duration` in nanoseconds."""
        pending = self._pending
        if pending.idle:
            self.skipped += 1
            return
        self._failures.append((duration, error_type))
        pending.bytes += _ENTRY_BYTES
        if pending.bytes > pending.wake_at:
            pending.relieve()

    def drain(self) -> None:
        """Count everything that is queued. The caller holds the producer's lock."""
        n = len(self._queue)
        entries = self._queue[:n]
        del self._queue[:n]
        failures = self._failures[:]
        del self._failures[: len(failures)]
        if self.skipped:
            _guard.drop(self._pending.reason, self.skipped)
            self.skipped = 0
        if failures:
            self._tally.add_failures(self._operation, failures)
        if entries:
            rows = self._drain_inputs([entry[0] for entry in entries])
            self._drain_outputs([entry[1] for entry in entries])
            self._tally.add_calls(self._operation, rows, [entry[2] for entry in entries])

    def clear(self) -> None:
        """Forget what is queued (a forked child)."""
        self._queue.clear()
        self._failures.clear()
        self.skipped = 0

    def _drain_inputs(self, inputs: list[Any]) -> int:
        rows = 0
        plain, others = _split(inputs)
        for form, entries in plain.items():
            matrices = _pieces(form, entries)
            rows += sum(map(len, matrices))
            with _guard.guard("features"):
                self._tally.add_matrices(matrices)
            matrices.clear()
            for data, _, _ in entries:
                if type(data) is bytearray:
                    self._pending.spare.give_back(data)
        tables: dict[Any, list[Table]] = {}
        for taken in others:
            if isinstance(taken, Unread):
                rows += self._unreadable(taken)
                continue
            try:
                made = table(taken, width=self._model.width)
            except Exception:  # whatever a user's object raises when it is read as a table
                rows += self._unreadable(Unread(type(taken).__name__, row_count(taken, self._model.width)))
                continue
            rows += made.rows
            made = _without_default_names(made)
            layout = (made.names, tuple(column.dtype.kind for column in made.columns))
            tables.setdefault(layout, []).append(made)
        for group in tables.values():
            with _guard.guard("features"):
                self._tally.add_table(_stacked(group))
        return rows

    def _unreadable(self, taken: Unread) -> int:
        if taken.rows:  # an empty list has no columns, and is nothing to talk about
            _guard.drop("unreadable_input", taken.rows)
            _guard.say_once(
                f"unreadable:{self._model.name}:{taken.kind}",
                "model %s: an input of type %s cannot be read as rows of features; calls are counted, features are "
                "not", self._model.name, taken.kind,
            )  # fmt: skip
        return taken.rows

    def _drain_outputs(self, outputs: list[Any]) -> None:
        plain, others = _split(outputs)
        joined = [_joined(layout, group) for layout, group in plain.items()]
        for values in [*joined, *_gathered(others)]:
            with _guard.guard("outcome"):
                self._tally.add_outcome(read_outcome(values, self._model, self._operation))


def _split(items: list[Any]) -> tuple[dict[Layout, list[Plain]], list[Any]]:
    """Plain items by layout, and the rest."""
    groups: dict[Layout, list[Plain]] = {}
    others = []
    for item in items:
        if type(item) is tuple and len(item) == 3 and type(item[0]) in (bytes, bytearray):
            groups.setdefault((item[1][1:], item[2]), []).append(item)
        else:
            others.append(item)
    return groups, others


def _pieces(layout: Layout, group: list[Plain]) -> list[NDArray[Any]]:
    """The rows of `group` in a few arrays: small matrices are joined, a large one is not copied once more."""
    pieces, small, size = [], [], 0
    for plain in group:
        small.append(plain)
        size += len(plain[0])
        if size >= _PIECE_BYTES:
            pieces.append(_joined(layout, small))
            small, size = [], 0
    return [*pieces, _joined(layout, small)] if small else pieces


def _joined(layout: Layout, group: list[Plain]) -> NDArray[Any]:
    tail, dtype = layout
    rows = sum(shape[0] if shape else 1 for _, shape, _ in group)
    data = group[0][0] if len(group) == 1 else b"".join(data for data, _, _ in group)
    return np.frombuffer(data, dtype=dtype).reshape(rows, *tail)


def _gathered(outputs: list[Any]) -> list[Any]:
    """Gather scalar outputs, one a call, into one list; leave the others as they are."""
    scalars: dict[type, list[Any]] = {}
    others = []
    for output in outputs:
        if isinstance(output, (float, int, str, np.generic)):
            scalars.setdefault(type(output), []).append(output)
        elif output is not None:
            others.append(output)
    return [*scalars.values(), *others]


def _without_default_names(made: Table) -> Table:
    """Columns that a data frame numbered by itself have no names: they go by position."""
    if made.names == tuple(map(str, range(len(made.columns)))):
        return Table(names=None, rows=made.rows, columns=made.columns)
    return made


def _stacked(tables: list[Table]) -> Table:
    if len(tables) == 1:
        return tables[0]
    columns = tuple(np.concatenate(parts) for parts in zip(*(t.columns for t in tables), strict=True))
    return Table(names=tables[0].names, rows=sum(t.rows for t in tables), columns=columns)


def settled(output: Any) -> Any:
    """An output as later changes of the caller's object cannot reach it; None when it says nothing."""
    if isinstance(output, (float, int, str, np.generic)):
        return output
    if isinstance(output, (list, tuple)):
        return list(output)
    values = as_array(output)
    return None if values is None else values.copy()


def snapshot(rows: Any, width: int | None) -> Any:
    """A copy of `rows` that later changes of the caller's object cannot reach; `Unread` of what is no table."""
    if isinstance(rows, np.ndarray):
        return rows.copy() if isinstance(rows, np.ma.MaskedArray) else np.array(rows)
    if isinstance(rows, dict):
        return {
            key: value if np.isscalar(value) or value is None else _copied(value)
            for key, value in rows.items()
        }
    if isinstance(rows, (list, tuple)):
        return [_copied(row) if isinstance(row, (list, tuple, dict, np.ndarray)) else row for row in rows]
    pandas = sys.modules.get("pandas")
    if pandas is not None and isinstance(rows, (pandas.DataFrame, pandas.Series)):
        return rows.copy(deep=int(pandas.__version__.split(".")[0]) < 3)  # copy-on-write from 3.0 on
    return _foreign(rows, width)


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
    if isinstance(rows, dict):
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
    try:
        return _size_of(taken)
    except Exception:  # as above
        return _ENTRY_BYTES


def _size_of(taken: Any) -> int:
    if isinstance(taken, dict):
        return 100 * len(taken) + sum(map(_size_of, taken.values()))
    if isinstance(taken, (list, tuple)):
        return len(taken) * (8 + _size_of(taken[0])) if taken else 0
    if isinstance(taken, (str, bytes)):
        return 40 + len(taken)
    nbytes = getattr(taken, "nbytes", None)
    if isinstance(nbytes, int):
        return nbytes
    shape = getattr(taken, "shape", None)
    if shape is not None and len(shape) == 2:
        return int(shape[0]) * int(shape[1]) * 16
    return 40
