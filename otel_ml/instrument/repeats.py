"""What was asked of a model last, so that a second operation on the same input counts its features once.

`labels = clf.predict(X); p = clf.predict_proba(X)` is one prediction of the rows of X. It is known by the objects:
the same model, not fitted since; the same X, which is held weakly; with the same content as before, and an
operation that was not called on it yet. Where any of it is in doubt the rows are new ones.
"""

from __future__ import annotations

import os
import weakref
from contextvars import ContextVar
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .. import pipeline
from .._spare import Lease
from ..capture import unsettled
from ..columns import is_sparse
from ..model import Model
from ..prediction import Outcome, read_outcome
from ..segment import bare
from ..snapshot import Unread, size_of

MODELS = 4
"""Models whose last input is remembered, so that several can be asked about the same rows in turn."""
LIMIT = 2**24
"""Bytes of an input above which it is not: its copy would stay for as long as the input itself."""
_LABELS = "labels"


class Asked(weakref.ref[Any]):
    """An input, for as long as it lives, and what was counted of it."""

    __slots__ = ("entry", "generation", "key", "operations")

    key: object
    """The model: an object that is another one after a fit."""
    entry: Any
    """What the first operation put into the queue; None when the input is gone."""
    operations: dict[str, Any]
    """By name those that were called, the first one first, and in its place what all of them told."""
    generation: int
    """Of the pipeline that counts it."""

    def repeated(self, rows: object, taken: Any, operation: str) -> bool:
        """Whether `rows`, of which `taken` is the snapshot, are these, and `operation` is new to them."""
        if self() is not rows or operation in self.operations or self.generation != pipeline.generation:
            return False
        if taken is not rows and not _same(self.entry[0], bare(taken)):
            return False
        # copies of a context, in tasks and threads, share this: of two that come together one is first
        caller = object()
        return self.operations.setdefault(operation, caller) is caller

    def news(self, outcome: Outcome, model: Model) -> Outcome:
        """What no operation on these rows has told before, in arrays of its own."""
        first = next(iter(self.operations))
        given: set[str] | None = self.operations[first]
        if given is None:
            given = self.operations[first] = _kinds(read_outcome(unsettled(self.entry[1]), model, first))
        new = _kinds(outcome) - given
        given |= new
        scores = outcome.score_type in new
        return Outcome(
            _copied(outcome.scores) if scores else None,
            outcome.score_type,
            _copied(outcome.labels) if _LABELS in new else None,
            _copied(outcome.probabilities) if scores else None,
        )


# A context variable and not a thread's: it keeps the tasks of an event loop and greenlets apart, too.
_recent: ContextVar[tuple[Asked, ...]] = ContextVar("otel_ml_recent", default=())


def last(key: object) -> Asked | None:
    """What was last asked of the model `key` in this context."""
    for asked in _recent.get():
        if asked.key is key:
            return asked
    return None


def remember(key: object, rows: Any, operation: str, entry: tuple[Any, Any, int]) -> None:
    """Keep in mind that `operation` on `rows` was queued as `entry`: snapshot, answer and duration."""
    if type(rows) in (list, dict):  # nothing can refer to them weakly
        return
    taken = entry[0]
    if type(taken) is tuple:
        size = len(taken[0])
    else:
        taken = bare(taken)
        size = size_of(taken)
        entry = (None if taken is rows else taken, *entry[1:])
    if size > LIMIT:
        return
    try:
        asked = Asked(rows, _let_go)
    except TypeError:  # the same of other objects
        return
    asked.key = key
    asked.operations = {operation: None}
    asked.generation = pipeline.generation
    asked.entry = entry
    others = _recent.get()
    if others and (len(others) > 1 or others[0].key is not key):
        alive = [other for other in others if other.key is not key and other() is not None]
        _recent.set((asked, *alive[: MODELS - 1]))
    else:
        _recent.set((asked,))


def _let_go(asked: Any) -> None:
    asked.entry = None


def _kinds(outcome: Outcome) -> set[str]:
    kinds = set() if outcome.scores is None else {outcome.score_type}
    return kinds if outcome.labels is None else kinds | {_LABELS}


def _copied(values: NDArray[Any] | None) -> NDArray[Any] | None:
    return None if values is None else values.copy()


# --- the same content -------------------------------------------------------------------------------------


def _same(then: Any, now: Any) -> bool:
    """Whether two snapshots hold the same; NaN is the same as NaN."""
    try:
        return type(then) is type(now) and _equal(then, now)
    except Exception:  # whatever a user's values raise when they are compared
        return False


def _equal(then: Any, now: Any) -> bool:
    if type(then) is tuple:
        return then[1:] == now[1:] and _bytes(then[0]) == _bytes(now[0])
    if isinstance(then, np.ndarray):
        return _equal_arrays(then, now)
    if is_sparse(then):
        parts = ("data", "indices", "indptr")
        return then.shape == now.shape and all(
            _equal_arrays(getattr(then, p), getattr(now, p)) for p in parts
        )
    if isinstance(then, (Unread, dict, list)):
        return bool(then == now)
    return bool(then.equals(now))  # pandas


def _bytes(data: bytes | Lease) -> bytes | bytearray:
    return data.block if isinstance(data, Lease) else data


def _equal_arrays(then: NDArray[Any], now: NDArray[Any]) -> bool:
    if then.dtype != now.dtype or then.shape != now.shape:
        return False
    if isinstance(then, np.ma.MaskedArray):
        masks = np.ma.getmaskarray(then), np.ma.getmaskarray(now)
        return np.array_equal(*masks) and _equal_arrays(np.ma.getdata(then), np.ma.getdata(now))
    if then.dtype.hasobject:
        return bool(then.tolist() == now.tolist())  # each element is first asked whether it is the other
    return then.tobytes() == now.tobytes()


def reset() -> None:
    """Forget what was asked, in every context."""
    global _recent
    _recent = ContextVar("otel_ml_recent", default=())


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=reset)  # what the parent counted is the parent's
