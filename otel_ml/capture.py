"""The hot path: what a call leaves behind is appended to a queue, and counted later in bulk.

On the call a plain float or integer matrix costs one `tobytes` (copy, snapshot and layout in one) and one
`list.append`, both atomic, without a lock. Draining joins the bytes and counts all rows at once.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from opentelemetry.trace import SpanContext

from . import _guard
from ._frames import joined
from ._spare import LARGE, Lease, Spare
from .columns import SparseColumns, Table, is_sparse, stacked, table, without_default_names
from .model import Model
from .prediction import Answer, Outcome, read_outcome
from .segment import bare
from .snapshot import ENTRY_BYTES, Unread, row_count, settled, size_of, snapshot
from .tally import Example, Tally

_F8, _F4, _I8, _I4 = (np.dtype(code) for code in ("f8", "f4", "i8", "i4"))
_PLAIN = frozenset((_F8, _F4, _I8, _I4))
Plain = tuple["bytes | Lease", tuple[int, ...], "np.dtype[Any]"]
"""A plain matrix as bytes, shape and dtype."""
Layout = tuple[tuple[int, ...], "np.dtype[Any]"]
"""What plain matrices must share to be joined: their shape without the rows, and dtype."""
_PIECE_BYTES = 2**16
_WAKE_BYTES = 3 * 2**20
"""Waiting bytes at which counting begins: what waits is still near the cache then, and the copies of large matrices
go round in memory that is. With less, what every drain costs is shared by fewer rows."""


class Pending:
    """How much waits to be counted in this process, and what to do when it is too much."""

    __slots__ = ("bytes", "idle", "limit", "reason", "relieve", "spare", "wake_at")

    def __init__(self, limit: int, relieve: Callable[[], None], *, reason: str = "no_reader") -> None:
        self.bytes = 0
        self.limit = limit
        self.wake_at = min(limit // 2, _WAKE_BYTES)
        self.spare = Spare(limit // 2)
        self.relieve = relieve
        self.idle = False
        """True while calls are only counted, because nobody collects."""
        self.reason = reason
        """What such calls are counted as."""


class Capture:
    """The queue of one operation of one model. `take` before the call, `put` after it, `drain` to count."""

    __slots__ = (
        "_decisions", "_failures", "_model", "_operation", "_pending", "_queue", "_tally", "examples", "skipped",
    )  # fmt: skip

    def __init__(self, model: Model, operation: str, tally: Tally, pending: Pending) -> None:
        self._model = model
        self._operation = operation
        self._tally = tally
        self._pending = pending
        self._queue: list[tuple[Any, Any, int]] = []
        self._failures: list[tuple[int, str]] = []
        self._decisions: list[Mapping[tuple[str, bool], int]] = []
        self.examples: dict[int, Example] = {}
        """One for each power of two of nanoseconds, about a bucket of the durations; of failures below 0."""
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

    def put(self, taken: Any, output: Any, duration: int) -> Any:
        """Queue a call that succeeded, `duration` in nanoseconds; gives the entry, None when there is none."""
        pending = self._pending
        if pending.idle:
            self.skipped += 1
            return None
        if type(output) is np.ndarray and ((dtype := output.dtype) is _F8 or dtype in _PLAIN):
            data = output.tobytes()
            output, size = (data, output.shape, dtype), len(data)
        else:
            output, size = _settled(output)
        entry = taken, output, duration
        self._queue.append(entry)
        pending.bytes += ENTRY_BYTES + size + (len(taken[0]) if type(taken) is tuple else size_of(taken))
        if pending.bytes > pending.wake_at:
            pending.relieve()
        return entry

    def put_failure(self, duration: int, error_type: str) -> None:
        """Queue a call that raised; `duration` in nanoseconds."""
        pending = self._pending
        if pending.idle:
            self.skipped += 1
            return
        self._failures.append((duration, error_type))
        pending.bytes += ENTRY_BYTES
        if pending.bytes > pending.wake_at:
            pending.relieve()

    def decide(self, rows: Mapping[tuple[str, bool], int]) -> None:
        """Queue what a sampler decided: rows by (reason, whether kept)."""
        if not self._pending.idle:
            self._decisions.append(rows)

    def exemplify(self, span: SpanContext, begun: int, duration: int, error_type: str | None) -> None:
        """Keep `span`, if it is sampled, as an example of calls that took about so long; `begun` is of
        `time.perf_counter_ns`."""
        if span.trace_flags.sampled and not self._pending.idle:
            size = duration.bit_length()
            self.examples[size if error_type is None else -size] = span, begun, duration, error_type

    def drain(self) -> None:
        """Count everything that is queued. The caller holds the producer's lock."""
        examples = list(self.examples.values())  # first: the calls that they are of are queued before them
        self.examples.clear()
        n = len(self._queue)
        entries = self._queue[:n]
        del self._queue[:n]
        failures = self._failures[:]
        del self._failures[: len(failures)]
        decisions = self._decisions[:]
        del self._decisions[: len(decisions)]
        if self.skipped:
            _guard.drop(self._pending.reason, self.skipped)
            self.skipped = 0
        if failures:
            with _guard.guard("failure"):
                self._tally.add_failures(self._operation, failures)
        if decisions:
            with _guard.guard("decisions"):
                self._tally.add_decisions(decisions)
        if entries:
            try:
                self._count(entries)
            except BaseException:  # also when an interrupt ends it: they are in no queue any more
                _guard.drop("failed_drain", sum(rows_in(entry[0], self._model.width) for entry in entries))
                raise
        if examples and (entries or failures):
            with _guard.guard("examples"):
                self._tally.add_examples(self._operation, examples)

    def _count(self, entries: list[tuple[Any, Any, int]]) -> None:
        inputs, outputs, durations = zip(*entries, strict=True)
        rows = self._drain_inputs(inputs)
        self._drain_outputs(outputs)
        self._tally.add_calls(self._operation, rows, durations)

    def clear(self) -> None:
        """Forget what is queued (a forked child)."""
        self._queue.clear()
        self._failures.clear()
        self._decisions.clear()
        self.examples.clear()
        self.skipped = 0

    def _drain_inputs(self, inputs: Sequence[Any]) -> int:
        rows = 0
        plain, others = _split(inputs)
        for form, entries in plain.items():
            given = sum([shape[0] for _, shape, _ in entries])
            rows += given
            with _guard.guard("features", given):
                self._tally.add_matrices(_pieces(form, entries))
        tables: dict[Any, list[Table]] = {}
        for taken in joined(_sparse_stacked(others)):
            made = self._table(taken)
            rows += made.rows
            if isinstance(made, Table):
                made = without_default_names(made)
                tables.setdefault(_layout(made), []).append(made)
        for group in tables.values():
            with _guard.guard("features", sum(made.rows for made in group)):
                self._tally.add_table(_stacked(group))
        return rows

    def _table(self, taken: Any) -> Table | Unread:
        width = self._model.width
        try:
            made = taken if isinstance(taken, (Unread, Table)) else table(taken, width=width)
        except ValueError as error:
            made = Unread(type(taken).__name__, row_count(taken, width), str(error))
        except Exception as error:  # whatever a user's object raises when it is read as a table
            made = Unread(type(taken).__name__, row_count(taken, width), type(error).__name__)
        if isinstance(made, Unread):
            self._unreadable(made)
        return made

    def _unreadable(self, taken: Unread) -> None:
        if (
            taken.rows and taken.kind is not None
        ):  # an empty list has no columns, and is nothing to talk about
            _guard.drop("unreadable_input", taken.rows)
            _guard.say_once(
                f"unreadable:{self._model.name}:{taken.kind}",
                "model %s: an input of type %s cannot be read as rows of features; calls are counted, features are "
                "not (%s)", self._model.name, taken.kind, taken.reason,
            )  # fmt: skip

    def _drain_outputs(self, outputs: Sequence[Any]) -> None:
        plain, others = _split(outputs)
        for layout, group in plain.items():
            with _guard.guard("outcome", sum([shape[0] if shape else 1 for _, shape, _ in group])):
                self._outcome(_joined(layout, group))
        answers, outcomes, others = _told_apart(others)
        for values in [*_gathered(others), *_answers(answers), *_merged(outcomes)]:
            with _guard.guard("outcome", _answered_rows(values)):
                self._outcome(values)

    def _outcome(self, values: Any) -> None:
        if type(values) is not Outcome:
            values = read_outcome(values, self._model, self._operation)
        self._tally.add_outcome(values)


def rows_in(taken: Any, width: int | None) -> int:
    """How many rows `Capture.take` has taken."""
    taken = bare(taken)
    if isinstance(taken, Unread):
        return taken.rows
    return int(taken[1][0]) if type(taken) is tuple else row_count(taken, width)


def _split(items: Sequence[Any]) -> tuple[dict[Layout, list[Plain]], list[Any]]:
    """Plain items, the only tuples among them, by layout; and the rest."""
    groups: dict[Layout, list[Plain]] = {}
    others = []
    group: list[Plain] = []
    shape, dtype = None, None
    for item in items:
        if type(item) is not tuple:
            others.append(item)
        elif item[1] == shape and item[2] is dtype:  # as the one before, nearly always
            group.append(item)
        else:
            _, shape, dtype = item
            group = groups.setdefault((shape[1:], dtype), [])
            group.append(item)
    return groups, others


def _pieces(layout: Layout, group: list[Plain]) -> list[NDArray[Any]]:
    """The rows of `group` in a few arrays: small matrices are joined, a large one is not copied once more."""
    pieces, start, size = [], 0, 0
    for stop, (data, _, _) in enumerate(group, 1):
        size += len(data)
        if size >= _PIECE_BYTES:
            pieces.append(_joined(layout, group[start:stop]))
            start, size = stop, 0
    return [*pieces, _joined(layout, group[start:])] if start < len(group) else pieces


def _joined(layout: Layout, group: list[Plain]) -> NDArray[Any]:
    tail, dtype = layout
    rows = sum([shape[0] if shape else 1 for _, shape, _ in group])
    parts = [data if type(data) is bytes else data.block for data, _, _ in group]  # type: ignore[union-attr]
    data = parts[0] if len(parts) == 1 else b"".join(parts)
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


def _settled(output: Any) -> tuple[Any, int]:
    """An output as it can wait in the queue, and roughly its bytes."""
    if type(output) is Answer:
        own, operation, nested = output
        (own, size), (nested, more) = _settled(own), _settled(nested)
        return Answer(own, operation, nested), size + more
    if type(output) is np.ndarray and output.ndim:
        dtype = output.dtype
        if dtype is _I8 or dtype is _F8 or dtype in _PLAIN:
            data = output.tobytes()
            return (data, output.shape, dtype), len(data)
        if dtype.kind in "bU":  # labels, mostly
            return output.copy(), output.nbytes
    if type(output) is Outcome:  # made for the queue: its arrays are nobody else's
        arrays = output.scores, output.labels, output.probabilities
        return output, sum([values.nbytes for values in arrays if values is not None])
    made = settled(output)
    return made, size_of(made)


def unsettled(output: Any) -> Any:
    """What `read_outcome` reads, of an output as `Capture.put` queued it."""
    if type(output) is Answer:
        return Answer(unsettled(output.output), output.operation, unsettled(output.nested))
    if type(output) is not tuple:
        return output
    data, shape, dtype = output
    return np.frombuffer(data, dtype=dtype).reshape(shape)


def _told_apart(outputs: list[Any]) -> tuple[list[Answer], list[Outcome], list[Any]]:
    answers, outcomes, others = [], [], []
    for output in outputs:
        if type(output) is Answer:
            answers.append(output)
        elif type(output) is Outcome:
            outcomes.append(output)
        else:
            others.append(output)
    return answers, outcomes, others


def _answers(answers: list[Answer]) -> list[Answer]:
    """Plain answers of one layout joined; the others one by one."""
    groups: dict[Any, list[Answer]] = {}
    made = []
    for answer in answers:
        layouts = (*_split([answer.output])[0], *_split([answer.nested])[0])
        if len(layouts) == 2:
            groups.setdefault((layouts, answer.operation), []).append(answer)
        else:
            made.append(unsettled(answer))
    for ((own, nested), operation), group in groups.items():
        outputs, scores = [answer.output for answer in group], [answer.nested for answer in group]
        made.append(Answer(_joined(own, outputs), operation, _joined(nested, scores)))  # type: ignore[arg-type]
    return made


def _merged(outcomes: list[Outcome]) -> list[Outcome]:
    """One outcome for all scores of a type, one for all labels of a kind."""
    scores: dict[Any, list[Outcome]] = {}
    labels: dict[str, list[NDArray[Any]]] = {}
    for outcome in outcomes:
        if outcome.scores is not None:
            p = outcome.probabilities
            scores.setdefault((outcome.score_type, None if p is None else p.shape[1]), []).append(outcome)
        if outcome.labels is not None:
            labels.setdefault(outcome.labels.dtype.kind, []).append(outcome.labels)
    return [
        *(_joined_scores(kind, group) for (kind, _), group in scores.items()),
        *(Outcome(labels=np.concatenate(group)) for group in labels.values()),
    ]


def _joined_scores(kind: str, group: list[Outcome]) -> Outcome:
    probabilities = [outcome.probabilities for outcome in group if outcome.probabilities is not None]
    return Outcome(
        np.concatenate([outcome.scores for outcome in group if outcome.scores is not None]),
        kind,
        probabilities=np.concatenate(probabilities) if probabilities else None,
    )


def _answered_rows(values: Any) -> int:
    if type(values) is Outcome:
        return len(values.labels if values.scores is None else values.scores)  # type: ignore[arg-type]
    return row_count(values.output if type(values) is Answer else values, None)


def _sparse_stacked(taken: list[Any]) -> list[Any]:
    """Sparse matrices of one width and type in one, for each is counted column by column."""
    groups: dict[Any, list[Any]] = {}
    others = []
    for item in taken:
        if is_sparse(item):
            groups.setdefault((item.shape[1], item.dtype), []).append(item)
        else:
            others.append(item)
    return [*others, *map(stacked, groups.values())]


def _layout(made: Table) -> Any:
    """What tables must share to be joined. Joined with float64, the category 0.1 of a float32 would be another."""
    if isinstance(made.columns, SparseColumns):
        return id(made)
    kinds = (column.dtype if column.dtype.kind == "f" else column.dtype.kind for column in made.columns)
    return made.names, tuple(kinds)


def _stacked(tables: list[Table]) -> Table:
    if len(tables) == 1:
        return tables[0]
    columns = tuple(np.concatenate(parts) for parts in zip(*(t.columns for t in tables), strict=True))
    return Table(names=tables[0].names, rows=sum(t.rows for t in tables), columns=columns)
