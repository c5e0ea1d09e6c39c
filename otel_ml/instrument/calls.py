"""One observed call of an estimator: the score that it computes on its way, and what it repeats."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from .. import _guard
from ..capture import rows_in
from ..library import learned, library_of
from ..observer import Observer, Steps
from ..prediction import Answer, read_outcome
from ..rows import Rows
from ..segment import Cut
from ..snapshot import Unread
from . import repeats

SCORING = ("predict_proba", "decision_function")
"""Operations whose output inside a `predict` of the same estimator is the score of that call."""

_WRAPPED = ("best_estimator_", "final_estimator_", "estimator_", "_Booster")
"""Where estimators that hand a call on to one other have it."""


class EstimatorCall(Steps):
    """What stands for a call in `observer.owner`, and does those of its steps that differ for an estimator.

    It is a list for the one reason that calls are: whoever was started in it can see when it is over.
    """

    _rank: tuple[bool, int]
    __slots__ = ("_answer", "_estimator", "_key", "_rank", "_rows", "_spine", "listening", "observer")

    def __init__(self, observer: Observer, estimator: Any, key: object) -> None:
        self.append(observer)  # a third of what list's own __init__ takes
        self.observer = observer
        self._estimator = estimator
        self._key = key
        self._answer: tuple[str, Any] | None = None
        self.listening = observer.operation == "predict"
        """Whether what the estimator computes now can be the score of this call."""

    # --- the steps

    def take(self, rows: Any) -> Any:
        """Snapshot the input."""
        self._rows = rows
        return self.observer.take(rows)

    def scored(self, output: Any) -> Any:
        """The output, with the score of the same rows if one was heard."""
        if self._answer is None:
            return output
        operation, nested = self._answer
        try:
            rows = output.shape[:1] if type(output) is np.ndarray else (len(output),)
            return Answer(output, operation, nested) if rows == nested.shape[:1] else output
        except TypeError:  # it has no length
            return output
        except Exception as error:
            _guard.failed("nested", error)
            return output

    def put(self, taken: Any, answer: Any, duration: int) -> None:
        """Queue a call that succeeded; of rows that were asked about before, only what is new."""
        news = None
        try:
            asked = repeats.last(self._key)
            if asked is not None and asked.repeated(self._rows, taken, self.observer.operation):
                news = self._news(asked, taken, answer)
        except Exception as error:  # then it counts as rows that nobody has asked about
            _guard.failed("repeats", error)
        if news is not None:
            self.observer.put(*news, duration)
            return
        entry = self.observer.put(taken, answer, duration)
        if entry is not None:
            try:
                repeats.remember(self._key, self._rows, self.observer.operation, entry)
            except Exception as error:
                _guard.failed("repeats", error)

    def _news(self, asked: repeats.Asked, taken: Any, answer: Any) -> tuple[Any, Any]:
        model = self.observer.model
        outcome = read_outcome(answer, model, self.observer.operation)
        rows = rows_in(taken, model.width)
        told: Any = Unread(None, rows)
        if model.segment is not None:  # the rows are told no more, but whose the outcome is
            told = Cut(told, Rows(taken, model, rows).codes())
        return told, asked.news(outcome, model)

    # --- the score

    def hear(self, estimator: Any, operation: str, output: Any) -> None:
        """Take `output` of `estimator` for the score of this call, unless a better one was heard.

        Only those that hand the call on to one another count, from the observed estimator on: what the parts of
        an ensemble say is not what the ensemble says.
        """
        if type(output) is not np.ndarray:  # such as a list of arrays, one for each of several targets
            return
        depth = self.depth(estimator)
        if depth is None:
            return
        rank = operation == "predict_proba", -depth
        if self._answer is None or rank >= self._rank:
            self._answer, self._rank = (operation, output), rank

    def depth(self, estimator: Any) -> int | None:
        """How many hands the call goes through on its way to `estimator`; None when it does not get there."""
        if estimator is self._estimator:
            return 0
        if not hasattr(self, "_spine"):
            self._spine = tuple(_spine(self._estimator))
        return next((depth for depth, part in enumerate(self._spine) if part is estimator), None)


def _spine(estimator: Any) -> Iterator[Any]:
    """The estimator, the one it hands its calls on to, and so on."""
    seen: list[Any] = []
    while estimator is not None and not any(estimator is one for one in seen):
        yield estimator
        seen.append(estimator)
        estimator = _next(estimator)


def _next(estimator: Any) -> Any:
    inner = library_of(estimator).inner(estimator)
    if inner is not None:
        return inner
    steps = learned(estimator, "steps")
    if isinstance(steps, list) and steps:
        return steps[-1][-1]
    if type(estimator).__name__ == "FrozenEstimator":
        return learned(estimator, "estimator")
    found = (learned(estimator, name) for name in _WRAPPED)
    return next((part for part in found if part is not None), None)
