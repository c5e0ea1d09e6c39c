"""Runs a user's program until it has made its first predictions, and tells what is seen from inside.

`python -m otel_ml.cli.doctor.probe REPORT CALLS SECONDS AUTO file|-m TARGET [ARGUMENTS]`; doctor starts it as a
process of its own. The program runs as it always does: with its own providers, which export as they always do.
"""

from __future__ import annotations

import json
import logging
import os
import runpy
import sys
import threading
import time
import traceback
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from . import inside, judgement
from .environment import PREFIX, libraries

FLUSH_SECONDS = 10.0
"""What the OTLP exporters allow an export by default: one that has not ended by then does not."""


class Log:
    """What otel-ml and OpenTelemetry say while the program runs, before their filters drop what looks repeated."""

    def __init__(self) -> None:
        self.ours: list[str] = []
        self.exports: list[str] = []

    def hear(self, record: logging.LogRecord) -> None:
        if record.levelno < logging.WARNING or record.name.partition(".")[0] not in (
            "otel_ml",
            "opentelemetry",
        ):
            return
        said = self.ours if record.name == "otel_ml" else self.exports
        try:
            message = record.getMessage()
        except Exception:  # arguments that do not fit: the program's call to log must not raise here
            return
        if not message.startswith((PREFIX, "OTEL_SDK_DISABLED")):  # that is told of the environment
            said.append(message)

    def listen(self) -> None:
        make = logging.getLogRecordFactory()

        def record(*arguments: Any, **more: Any) -> logging.LogRecord:
            made = make(*arguments, **more)
            self.hear(made)
            return made

        logging.setLogRecordFactory(record)


class Watch:
    """Writes the report once: when enough was predicted, when time is up, or when the program ends."""

    def __init__(self, report: Path, calls: int, seconds: float) -> None:
        self._report = report
        self._calls = calls
        self._seconds = seconds
        self._log = Log()
        self._log.listen()
        self._process = os.getpid()
        self._began = time.monotonic()
        self._lock = threading.Lock()
        self._done = False

    def start(self) -> None:
        threading.Thread(target=self._watch, name="otel-ml-doctor", daemon=True).start()

    def _watch(self) -> None:
        while not self._done:
            time.sleep(0.1)
            if time.monotonic() - self._began >= self._seconds:
                self.finish("time")
            elif inside.calls() >= self._calls:
                self.finish("predictions")

    def finish(self, ended: str, error: str | None = None) -> None:
        """Flush what the program has recorded, and tell."""
        if os.getpid() != self._process:  # a worker ends, which the program has forked
            return
        with self._lock:
            if self._done:
                return
            told = self._told(ended, error)
            unfinished = self._report.with_suffix(".part")
            unfinished.write_text(json.dumps(told), encoding="utf-8")
            unfinished.replace(self._report)
            self._done = True

    def _told(self, ended: str, error: str | None) -> dict[str, Any]:
        seconds = time.monotonic() - self._began
        flushed = inside.flush(FLUSH_SECONDS)
        seen, models = inside.look()
        findings = [
            *judgement.check(seen, models, libraries(), self._log.ours),
            *judgement.check_exports(self._log.exports, flushed),
            *judgement.check_end(error),
        ]
        return {
            "ended": ended, "error": error, "seconds": seconds, **asdict(seen),
            "sent": judgement.sent(seen, self._log.exports),
            "findings": [asdict(one) for one in findings],
        }  # fmt: skip


def main(arguments: Sequence[str]) -> int:
    """Run the program; its exit code."""
    report, calls, seconds, auto, kind, target, *rest = arguments
    watch = Watch(Path(report), int(calls), float(seconds))
    if auto == "auto":
        from opentelemetry.instrumentation.auto_instrumentation import initialize

        initialize()
    watch.start()
    sys.argv = [target, *rest]
    try:
        _run(kind, target)
    except SystemExit as stop:
        failed = stop.code not in (None, 0)
        watch.finish("failed" if failed else "finished", f"it ended with {stop.code!r}" if failed else None)
        raise
    except BaseException as error:
        traceback.print_exc()
        watch.finish("failed", "".join(traceback.format_exception_only(error)).strip())
        return 1
    watch.finish("finished")
    return 0


def _run(kind: str, target: str) -> None:
    # in place of the directory that `python -m` has put there for this module
    sys.path[0] = os.getcwd() if kind == "-m" else str(Path(target).resolve().parent)
    if kind == "-m":
        runpy.run_module(target, run_name="__main__", alter_sys=True)
    else:
        runpy.run_path(target, run_name="__main__")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
