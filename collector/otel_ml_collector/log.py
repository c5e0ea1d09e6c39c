"""The service's own log on standard error: lines for people or JSON, each with the component it is about.

Levels, encodings and field names are the OpenTelemetry Collector's.
"""

from __future__ import annotations

import contextlib
import json
import logging
import sys
import time
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from datetime import datetime, timezone
from typing import Any, TextIO

from .settings import TelemetryLogs

_LEVELS = {
    "debug": logging.DEBUG, "info": logging.INFO, "warn": logging.WARNING, "error": logging.ERROR,
}  # fmt: skip
_KINDS = {
    "receivers": "receiver",
    "processors": "processor",
    "exporters": "exporter",
    "extensions": "extension",
}
_ABOUT: ContextVar[str] = ContextVar("about", default="")

ALIKE = 10
"""Lines of one kind that are written in a minute; the others are counted in the first of the next."""
_MINUTE = 60.0
_KINDS_OF_LINE = 1000


def configure(settings: TelemetryLogs, out: TextIO | None = None) -> None:
    """Write what is logged from here on to `out`, by default standard error; a second call replaces the first."""
    level = _LEVELS[settings.level]
    handler = logging.StreamHandler(out or sys.stderr)
    handler.setFormatter(_Json() if settings.encoding == "json" else _Console())
    handler.addFilter(Repeats())
    # What libraries have to say about their work is not about ours.
    logging.basicConfig(level=max(level, logging.WARNING), handlers=[handler], force=True)
    logging.getLogger("otel_ml_collector").setLevel(level)


@contextlib.contextmanager
def about(path: str) -> Iterator[None]:
    """What is logged inside, and by tasks that begin inside, is about the component at `path`: exporters.otlp.

    A record with `extra={"about": path}`, or whose text begins with "exporter %s:", is about that one instead.
    """
    token = _ABOUT.set(path)
    try:
        yield
    finally:
        _ABOUT.reset(token)


class Repeats(logging.Filter):
    """Lets `ALIKE` lines of one kind through a minute. A kind is what differs in its values only."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._clock = clock
        self._kinds: dict[tuple[int, str, str], tuple[float, int]] = {}
        """When its minute began, and how many came in it."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether to write it; `record.left_out` says how many were not in the minute before."""
        kind, now = _kind(record), self._clock()
        began, count = self._kinds.get(kind, (now, 0))
        if now - began >= _MINUTE:
            record.left_out = max(0, count - ALIKE)
            began, count = now, 0
        if len(self._kinds) >= _KINDS_OF_LINE:
            self._kinds.clear()
        self._kinds[kind] = began, count + 1
        return count < ALIKE


def _kind(record: logging.LogRecord) -> tuple[int, str, str]:
    # A template that is all value says nothing about the kind.
    text = record.getMessage() if record.msg == "%s" else str(record.msg)
    return record.levelno, _component(record), text


def _component(record: logging.LogRecord) -> str:
    # That a queue is full shows where something is put into it, in a receiver.
    if str(record.msg).startswith("exporter %s:") and isinstance(record.args, tuple):
        return f"exporters.{record.args[0]}"
    return str(getattr(record, "about", "") or _ABOUT.get())


def _fields(record: logging.LogRecord) -> dict[str, Any]:
    """What a line has beside its text."""
    section, _, id_ = _component(record).partition(".")
    fields: dict[str, Any] = {}
    if kind := _KINDS.get(section):
        fields |= {"otelcol.component.kind": kind, "otelcol.component.id": id_}
    if left_out := getattr(record, "left_out", 0):
        fields["left_out"] = left_out
    return fields


def _time(record: logging.LogRecord) -> str:
    at = datetime.fromtimestamp(record.created, timezone.utc)
    return at.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _level(record: logging.LogRecord) -> str:
    return "warn" if record.levelno == logging.WARNING else record.levelname.lower()


class _Json(logging.Formatter):
    """One object a line."""

    def format(self, record: logging.LogRecord) -> str:
        line = {
            "level": _level(record), "ts": _time(record), "logger": record.name, "msg": record.getMessage(),
            **_fields(record),
        }  # fmt: skip
        if record.exc_info:
            line["stacktrace"] = self.formatException(record.exc_info)
        return json.dumps(line)


class _Console(logging.Formatter):
    """Time, level, text and fields, with tabs between them; further lines are indented."""

    def format(self, record: logging.LogRecord) -> str:
        parts = [_time(record), _level(record), _printable(record.getMessage())]
        if fields := _fields(record):
            parts.append(json.dumps(fields))
        if record.exc_info:
            parts[-1] += "\n" + _printable(self.formatException(record.exc_info))
        return "\t".join(parts).replace("\n", "\n  ")


def _printable(text: str) -> str:
    """The text without what would move the cursor: parts of it come from senders and backends."""
    return "".join(one if one.isprintable() or one == "\n" else "\ufffd" for one in text)
