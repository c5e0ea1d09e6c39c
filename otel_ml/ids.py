"""Ids of predictions: made for the rows that somebody asks about, and read again when their truth is known.

nonce-seconds-counter-row, or nonce-seconds-counter-row-trace-span where there is a span. All are hexadecimal:
the nonce is a random number of the process, the seconds are the Unix time of creation, counter and row tell the
calls of a process and the rows of a call apart. To everybody else an id is opaque ASCII of at most 96 characters.
"""

from __future__ import annotations

import os
import re
import secrets
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import count
from operator import index

from opentelemetry import trace
from opentelemetry.trace import SpanContext, TraceFlags

from .errors import ConfigurationError

MAX_LENGTH = 96
_FORM = re.compile(
    r"([0-9a-f]{12})-([0-9a-f]{1,10})-([0-9a-f]{1,12})-([0-9a-f]{1,8})(?:-([0-9a-f]{32})-([0-9a-f]{16}))?"
)


@dataclass(frozen=True, slots=True)
class PredictionId:
    """What an id says: which row of which call, when, and in which span."""

    nonce: str
    """12 hexadecimal digits that the ids of a process share."""
    seconds: int
    """Unix time of creation."""
    counter: int
    row: int
    trace_id: int = 0
    span_id: int = 0
    """Both 0 when there was no span."""

    @property
    def span(self) -> SpanContext | None:
        """The prediction's span, to link to; None when there was none."""
        if not (self.trace_id and self.span_id):
            return None
        return SpanContext(self.trace_id, self.span_id, is_remote=True, trace_flags=TraceFlags(0))

    def __str__(self) -> str:
        return f"{self._head()}-{self.row:x}{self._tail()}"

    def _head(self) -> str:
        return f"{self.nonce}-{self.seconds:x}-{self.counter:x}"

    def _tail(self) -> str:
        return f"-{self.trace_id:032x}-{self.span_id:016x}" if self.trace_id and self.span_id else ""


def parse(text: object) -> PredictionId:
    """The id that `text` is. Ids come back from outside, so anything else raises `ConfigurationError`."""
    found = _FORM.fullmatch(text) if isinstance(text, str) else None
    if found is None:
        raise ConfigurationError(
            f"{_shown(text)} is not a prediction id; give what otel_ml.current_prediction_id() returned, or the "
            "ml.prediction.id of an event, whole"
        )
    nonce, seconds, counter, row, trace_id, span_id = found.groups()
    return PredictionId(
        nonce, int(seconds, 16), int(counter, 16), int(row, 16), int(trace_id or "0", 16), int(span_id or "0", 16)
    )  # fmt: skip


def _shown(text: object) -> str:
    shown = repr(text[: MAX_LENGTH + 1] if isinstance(text, (str, bytes)) else text)
    return shown if len(shown) <= MAX_LENGTH else f"{shown[:MAX_LENGTH]}…"


_nonce = secrets.token_hex(6)
_counter = count()
_lock = threading.RLock()  # re-entrant: a signal handler can predict while this thread holds it


class CallId:
    """What the ids of one call's rows share. Costs nothing until the first of them is asked for.

    `span` is the call's own span, if it has one; without it, the span that is current then. It can be set until
    the first id is made.
    """

    __slots__ = ("_made", "span")

    def __init__(self, span: SpanContext | None = None) -> None:
        self.span = span
        self._made: tuple[str, str] | None = None

    def of(self, row: int = 0, *, clock: Callable[[], float] = time.time) -> str:
        """The id of a row of this call, the same each time."""
        head, tail = self._made or self._make(clock)
        return f"{head}-{row:x}{tail}"

    def _make(self, clock: Callable[[], float]) -> tuple[str, str]:
        with _lock:  # two threads of one call must not give one row two ids
            if self._made is None:
                span = self.span or trace.get_current_span().get_span_context()
                made = PredictionId(_nonce, int(clock()), next(_counter), 0, span.trace_id, span.span_id)
                self._made = made._head(), made._tail()
            return self._made


def row_number(row: object) -> int:
    """`row` as the number of a row; `ConfigurationError` when it is none."""
    try:
        number = index(row)  # type: ignore[arg-type]  # that is the question
    except TypeError:
        number = -1
    if not 0 <= number < 2**32:
        raise ConfigurationError(f"row={row!r} is not a row number; the first row is 0")
    return number


def _after_fork() -> None:
    """A child is a process of its own, and a thread that held the lock does not exist in it."""
    global _nonce, _lock
    _nonce, _lock = secrets.token_hex(6), threading.RLock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
