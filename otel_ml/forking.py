"""Keeps forks and collections apart: a child that is forked while another thread collects is born with locks of the SDK
that nobody will ever release, and would never tell what it counts.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager

PATIENCE = 1.0
"""Seconds that a fork waits at most for the collection that is under way."""

_collecting = threading.RLock()
_forking = threading.local()


@contextmanager
def held_off() -> Iterator[None]:
    """No fork begins inside, unless what is inside takes longer than `PATIENCE`."""
    with _collecting:
        yield


def _before() -> None:
    _forking.acquired = _collecting.acquire(timeout=PATIENCE)


def _after_in_parent() -> None:
    if _forking.acquired:
        _collecting.release()


def _after_in_child() -> None:
    global _collecting
    _collecting = threading.RLock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before, after_in_parent=_after_in_parent, after_in_child=_after_in_child)
