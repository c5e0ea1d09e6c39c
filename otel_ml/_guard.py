"""Keeps our failures away from the caller: one log line per cause, a counter, and the call goes on.

`OTEL_PYTHON_ML_RAISE=1` raises instead; the test suite of otel-ml runs with it.
"""

from __future__ import annotations

import logging
import os
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from . import config

logger = logging.getLogger("otel_ml")

errors: Counter[str] = Counter()
"""Failures inside otel-ml by place, exported as `otel_ml.errors`."""
dropped: Counter[str] = Counter()
"""Rows that were not recorded by reason, exported as `otel_ml.dropped`."""

MAX_SAID = 2000
"""Different messages in a process, at most: ever new models must not fill memory and log."""

_said: set[str] = set()
_lock = threading.RLock()  # re-entrant: a signal handler can predict while this thread holds it


def say_once(key: str, message: str, *arguments: object, level: int = logging.WARNING) -> None:
    """Log `message` the first time `key` is seen in this process."""
    with _lock:
        if key in _said or len(_said) >= MAX_SAID:
            return
        _said.add(key)
    try:
        logger.log(level, message, *arguments)
    except Exception:  # a handler or a filter of the application that fails
        if config.settings().raise_errors:
            raise


def failed(place: str, error: BaseException, rows: int = 0) -> None:
    """Account for a failure of otel-ml itself at `place` that cost `rows` rows.

    Raises it again only under OTEL_PYTHON_ML_RAISE=1.
    """
    if config.settings().raise_errors:
        raise error
    with _lock:
        errors[place] += 1
    if rows:
        drop(f"failed_{place}", rows)
    say_once(
        f"failed:{place}:{type(error).__name__}",
        "otel-ml failed in %s and recorded less; the model's result is not affected (%s: %s)",
        place, type(error).__name__, _text(error), level=logging.ERROR,
    )  # fmt: skip


def _text(error: BaseException) -> str:
    try:
        return str(error)
    except Exception:  # an error of a user's object need not have a text
        return "no text"


def drop(reason: str, rows: int) -> None:
    """Count `rows` that could not be recorded."""
    with _lock:
        dropped[reason] += rows


def collect(counts: Counter[str]) -> dict[str, int]:
    """What was counted in `errors` or `dropped` since the last time."""
    with _lock:
        taken = dict(counts)
        counts.clear()
    return taken


@contextmanager
def guard(place: str, rows: int = 0) -> Iterator[None]:
    """Run a block of ours, which records `rows`, so that its failure never reaches the caller."""
    try:
        yield
    except Exception as error:
        failed(place, error, rows)


@contextmanager
def set_aside() -> Iterator[None]:
    """Start with nothing said and counted; afterwards it is as before."""
    with _lock:
        kept = set(_said), errors.copy(), dropped.copy()
        _forget()
    try:
        yield
    finally:
        with _lock:
            _forget()
            _said.update(kept[0])
            errors.update(kept[1])
            dropped.update(kept[2])


def reset() -> None:
    """Forget what was said and counted (tests, and a forked child)."""
    global _lock
    _lock = threading.RLock()
    _forget()


def _forget() -> None:
    _said.clear()
    errors.clear()
    dropped.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=reset)  # a thread that held the lock does not exist in the child
