"""Counting by segment: a queue that hands each row to the tally of its segment.

All tallies of a model write into one ledger. What is not counted by segment has the same series in all of them, so
that it comes out as if there were one; what is has a series for each value. Whatever way rows are dealt out, every
row goes to one tally: the segments of a series add up to all rows.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from . import _guard
from ._spare import Lease
from .capture import Capture, Pending, unsettled
from .columns import Table, is_sparse
from .model import Model
from .prediction import Outcome, read_outcome
from .rows import Rows
from .segment import Codes, Cut, Segment, bare
from .sketches import Ledger
from .snapshot import Unread, row_count, size_of
from .tally import Tally

Places = list[tuple[int, NDArray[np.intp]]]
"""Codes, and the rows of a call that have them."""


class Tallies:
    """The tallies of one model: one for its calls, and one for the rows of each segment."""

    def __init__(self, model: Model, ledger: Ledger) -> None:
        self._model = model
        self._ledger = ledger
        self._of_code: dict[int, Tally] = {}
        # a whole tally would make series of features, of which no row would ever be
        self.calls = Tally(model if model.segment is None else _without_features(model), ledger)

    def of(self, code: int) -> Tally:
        """The tally of the rows in one segment."""
        if code not in self._of_code:
            assert self._model.segment is not None
            name = self._model.segment.names[code]
            self._of_code[code] = Tally(self._model, self._ledger, name)
        return self._of_code[code]


def _without_features(model: Model) -> Model:
    return replace(model, baseline=None, segment=None)


def capture(model: Model, operation: str, tallies: Tallies, pending: Pending) -> Capture:
    """The queue of one operation of a model."""
    if model.segment is None:
        return Capture(model, operation, tallies.calls, pending)
    return SegmentedCapture(model, operation, tallies, pending)


class SegmentedCapture(Capture):
    """As `Capture`, of a model with a segment."""

    __slots__ = ("_parts", "_segment", "_tallies")

    def __init__(self, model: Model, operation: str, tallies: Tallies, pending: Pending) -> None:
        super().__init__(model, operation, tallies.calls, pending)
        assert model.segment is not None
        self._segment: Segment = model.segment
        self._tallies = tallies
        self._parts: dict[int, Capture] = {}

    def take(self, rows: Any) -> Cut:
        """Snapshot the input; a function that tells the segments is asked now, when nobody has changed it yet."""
        taken = super().take(rows)
        codes = None if isinstance(self._segment.by, str) else self._asked(rows)
        return Cut(taken, codes, len(taken[0]) if type(taken) is tuple else size_of(taken))

    def _asked(self, rows: Any) -> Codes:
        try:
            return self._segment.asked(rows, row_count(rows, self._model.width))
        except Exception as error:
            _guard.failed("segment", error)
            return self._segment.other

    def _count(self, entries: list[tuple[Any, Any, int]]) -> None:
        inputs: dict[int, list[Any]] = {}
        outputs: dict[int, list[Any]] = {}
        for taken, output, _ in entries:
            for code, given, answer in self._dealt(taken, output):
                inputs.setdefault(code, []).append(given)
                outputs.setdefault(code, []).append(answer)
        rows = sum([self._part(code)._drain_inputs(given) for code, given in inputs.items()])
        for code, answers in outputs.items():
            self._part(code)._drain_outputs(answers)
        self._tally.add_calls(self._operation, rows, [duration for _, _, duration in entries])

    def _part(self, code: int) -> Capture:
        if code not in self._parts:
            tally = self._tallies.of(code)
            self._parts[code] = Capture(self._model, self._operation, tally, self._pending)
        return self._parts[code]

    # --- one call

    def _dealt(self, taken: Any, output: Any) -> list[tuple[int, Any, Any]]:
        """The parts of one call: code, input and output of each. What cannot be cut goes to `__other__` whole."""
        kept, other = bare(taken), self._segment.other
        try:
            codes = Rows(taken, self._model, _rows_of(kept, self._model.width)).codes()
            if isinstance(codes, int):
                return [(codes, kept, output)]
            places = [(code, np.flatnonzero(codes == code)) for code in np.unique(codes).tolist()]
            dealt = [*self._inputs(kept, places, len(codes)), *self._outcomes(output, places, len(codes))]
        except Exception as error:
            _guard.failed("segment", error)
            return [(other, kept, output)]
        return dealt

    def _inputs(self, kept: Any, places: Places, rows: int) -> Iterator[tuple[int, Any, None]]:
        if not isinstance(kept, (tuple, Unread)) and not is_sparse(kept):
            kept = self._table(kept)
            if isinstance(kept, Unread):  # accounted for
                kept = Unread(None, kept.rows)
        if isinstance(kept, Unread) or _rows_of(kept, self._model.width) != rows:
            yield self._segment.other, kept, None
            return
        for code, place in places:
            yield code, _some_rows(kept, place), None

    def _outcomes(self, output: Any, places: Places, rows: int) -> Iterator[tuple[int, Unread, Any]]:
        """What the output says of the rows of each segment; of another number of rows it is anybody's."""
        outcome = output
        if type(output) is not Outcome:
            outcome = read_outcome(unsettled(output), self._model, self._operation)
        parts = (outcome.scores, outcome.labels, outcome.probabilities)
        if any(len(values) != rows for values in parts if values is not None):
            yield self._segment.other, _NO_ROWS, outcome
            return
        for code, place in places:
            scores, labels, probabilities = (None if values is None else values[place] for values in parts)
            yield code, _NO_ROWS, Outcome(scores, outcome.score_type, labels, probabilities)


_NO_ROWS = Unread(None, 0)


def _rows_of(kept: Any, width: int | None) -> int:
    if isinstance(kept, (Unread, Table)):
        return kept.rows
    return int(kept[1][0]) if type(kept) is tuple else row_count(kept, width)


def _some_rows(kept: Any, place: NDArray[np.intp]) -> Any:
    """Rows of a plain matrix, a sparse one or a table, as what they were."""
    if isinstance(kept, Table):
        return replace(kept, rows=len(place), columns=tuple(column[place] for column in kept.columns))
    if type(kept) is not tuple:
        return kept[place]
    data, shape, dtype = kept
    buffer = data.block if isinstance(data, Lease) else data
    some = np.frombuffer(buffer, dtype=dtype).reshape(shape)[place]
    return some.tobytes(), some.shape, dtype
