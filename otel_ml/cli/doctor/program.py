"""Running a user's program as a process of its own, until it has told what is seen inside or time is up."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .finding import Finding

GRACE = 15.0
"""Seconds beyond its own that a program gets: for imports, and for its last export."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Program:
    """What to run, and for how long."""

    target: str
    """A file, or the name of a module."""
    module: bool = False
    arguments: Sequence[str] = ()
    calls: int = 100
    seconds: float = 20.0
    auto: bool = False
    """Whether as `opentelemetry-instrument` runs it."""
    baselines: Path | None = None

    def __str__(self) -> str:
        return " ".join([*(["-m"] if self.module else []), self.target, *self.arguments])


def run(program: Program) -> dict[str, Any]:
    """What was seen inside. Its output goes to our standard error, so that ours stays clean."""
    with tempfile.TemporaryDirectory(prefix="otel-ml-doctor-") as directory:
        report = Path(directory) / "report.json"
        command = [
            sys.executable, "-m", f"{__package__}.probe", str(report), str(program.calls), str(program.seconds),
            "auto" if program.auto else "as-is", "-m" if program.module else "file", program.target,
            *program.arguments,
        ]  # fmt: skip
        process = subprocess.Popen(
            command, env=_environment(program), stdin=subprocess.DEVNULL, stdout=sys.stderr.fileno(),
            start_new_session=True,
        )  # fmt: skip
        try:
            with _signals_raise():
                _wait(process, report, program.seconds + GRACE)
            return _read(report, process, program)
        finally:
            _end(process)


@contextmanager
def _signals_raise() -> Iterator[None]:
    """A signal that ends us does so as Ctrl-C does: the program, a session of its own, must not outlive us."""
    stops = [getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]
    ours = [number for number in stops if signal.getsignal(number) is signal.SIG_DFL]
    for number in ours:
        signal.signal(number, lambda number, _: sys.exit(128 + number))
    try:
        yield
    finally:
        for number in ours:
            signal.signal(number, signal.SIG_DFL)


def _environment(program: Program) -> dict[str, str]:
    more = {} if program.baselines is None else {"OTEL_PYTHON_ML_BASELINES": str(program.baselines)}
    return {**os.environ, **more}


def _wait(process: subprocess.Popen[bytes], report: Path, seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not report.exists() and process.poll() is None and time.monotonic() < deadline:
        with suppress(subprocess.TimeoutExpired):
            process.wait(0.05)


def _read(report: Path, process: subprocess.Popen[bytes], program: Program) -> dict[str, Any]:
    if report.exists():
        told: dict[str, Any] = json.loads(report.read_text(encoding="utf-8"))
        return told
    if process.poll() is None:
        what, why = f"{program} did not answer", "it holds the interpreter, or hangs while it is imported"
    else:
        what, why = f"{program} ended with {process.returncode}", "it did so before anything could be seen"
    finding = Finding(what, why, "run it by itself and see what it says")
    return {"ended": "failed", "error": what, "findings": [finding]}


def _end(process: subprocess.Popen[bytes]) -> None:
    """End the program and what it has started: they are a session of their own."""
    for kind in (signal.SIGTERM, signal.SIGKILL):
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, kind)
        with suppress(subprocess.TimeoutExpired):
            process.wait(3.0)
            if kind is signal.SIGTERM:
                continue
            return
