"""One observed call of an object whose library has its own forms of input and its own meanings of output."""

from __future__ import annotations

from typing import Any

from .. import _guard
from ..library import Library, Question
from ..observer import Observer
from ..prediction import NOTHING, Outcome, read_outcome
from ..snapshot import Unread, row_count
from .calls import EstimatorCall


class LibraryCall(EstimatorCall):
    """As the call of an estimator; its library says what the rows are and as what the output is read."""

    __slots__ = ("_is_plain", "_library", "_question")

    def __init__(
        self, observer: Observer, obj: Any, key: object, library: Library, question: Question
    ) -> None:
        super().__init__(observer, obj, key)
        self._library = library
        self._question = question
        self._is_plain = question.reading == observer.operation
        # what is read in another way than its operation says has told its score
        self.listening = self.listening and self._is_plain

    def take(self, rows: Any) -> Any:
        """Snapshot what the library makes of the input."""
        model = self.observer.model
        self._rows = rows
        try:
            read = self._library.rows(rows, model)
        except Exception as error:
            lost = row_count(rows, model.width)
            _guard.failed("rows", error, lost)
            read = Unread(None, lost)
        return self.observer.take(read)

    def scored(self, output: Any) -> Any:
        """What the output says, read as the question wants it."""
        reading, pick = self._question.reading, self._question.pick
        if reading is None:
            return None
        try:
            picked = output if pick is None else pick(output)
            if self._is_plain:
                return super().scored(picked)
            return _own(read_outcome(picked, self.observer.model, reading), output)
        except Exception as error:
            _guard.failed("outcome", error)
            return NOTHING

    def put(self, taken: Any, answer: Any, duration: int) -> None:
        """Queue a call that succeeded."""
        if self._library.asked_once:
            self.observer.put(taken, answer, duration)
        else:
            super().put(taken, answer, duration)


def _own(outcome: Outcome, output: Any) -> Outcome:
    """The outcome in arrays of its own: it waits in the queue while the caller may write to the output."""
    scores, kind, labels, probabilities = outcome
    return Outcome(_apart(scores, output), kind, _apart(labels, output), _apart(probabilities, output))


def _apart(part: Any, output: Any) -> Any:
    return part.copy() if part is not None and (part is output or part.base is not None) else part
