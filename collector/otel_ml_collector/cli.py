"""The command `otel-ml-collector`.

    otel-ml-collector                         listen on this machine, show drift on the console
    otel-ml-collector --config f.yaml         run what the file describes
    otel-ml-collector validate --config f.yaml

Exit codes: 0 after a stop by SIGTERM or Ctrl-C, 1 when it could not start, 2 for wrong arguments.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import os
import signal
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from otel_ml._version import __version__
from otel_ml.errors import OtelMLError

if TYPE_CHECKING:
    from .config import Config
    from .service import Ports

GRACE = 5.0
"""Seconds a stop may take."""
_PROGRAM = "otel-ml-collector"


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; the exit code."""
    arguments = _parser().parse_args(argv)
    try:
        from . import service  # noqa: F401 - what is not installed is said before anything else
    except ModuleNotFoundError as error:
        _say(f"{error.name} is not installed; install it with: pip install 'otel-ml[collector]'")
        return 1
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(levelname)s %(message)s")
    logging.getLogger("otel_ml_collector").setLevel(logging.INFO)
    try:
        return _validate(arguments) if arguments.command == "validate" else _serve(arguments)
    except OtelMLError as error:
        _say(str(error))
        return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=_PROGRAM,
        description="Receives model telemetry over OTLP, sends out how far it drifted from training.",
        epilog="Without --config it listens on localhost:4317 and 4318, prints drift to the console and "
        "serves it at http://localhost:9464/metrics.",
    )
    parser.add_argument("--version", action="version", version=f"{_PROGRAM} {__version__}")
    parser.add_argument("--config", metavar="FILE", help="a YAML file; see collector/config.example.yaml")
    parser.add_argument(
        "--ready-file", metavar="PATH", type=Path, help="write the ports as JSON here once everything listens"
    )
    commands = parser.add_subparsers(dest="command", metavar="")
    validate = commands.add_parser("validate", help="say whether a configuration is right, and start nothing")
    # No default here: it would undo a --config that stands before the command.
    validate.add_argument("--config", metavar="FILE", default=argparse.SUPPRESS, help="a YAML file")
    return parser


def _config(path: str | None) -> Config:
    from . import config

    if path is None:
        return config.parse(config.DEFAULT, source="the default configuration", environ={})
    return config.load(path, os.environ)


def _validate(arguments: argparse.Namespace) -> int:
    from . import build
    from .files import BaselineFiles

    if arguments.config is None:
        _say("validate needs the file to look at: otel-ml-collector validate --config FILE")
        return 2
    drift = _config(arguments.config).drift
    build.engine(drift, BaselineFiles(drift.baseline.path).read(), started=0)
    print(f"{arguments.config}: valid")
    return 0


def _serve(arguments: argparse.Namespace) -> int:
    config = _config(arguments.config)
    return asyncio.run(_run(config, arguments.ready_file))


async def _run(config: Config, ready_file: Path | None) -> int:
    from .service import Service

    stop = asyncio.Event()
    _stop_on_signals(stop)
    service = Service(config)
    ports = await service.start()
    _say(f"version {__version__}", *service.describe())
    if ready_file is not None:
        _write(ready_file, ports)
    await service.run(stop)
    _say("stopping")
    await service.stop(GRACE)
    return 0


def _stop_on_signals(stop: asyncio.Event) -> None:
    """The first signal asks for a clean stop, the second does not ask."""

    def on_signal() -> None:
        if stop.is_set():
            os._exit(130)
        stop.set()

    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, on_signal)


def _write(path: Path, ports: Ports) -> None:
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        partial.write_text(json.dumps(asdict(ports)) + "\n", encoding="utf-8")
        partial.replace(path)
    except OSError as error:
        raise OtelMLError(f"--ready-file {path} cannot be written: {error.strerror}") from error


def _say(head: str, *more: str) -> None:
    print("\n  ".join([f"{_PROGRAM}: {head}", *more]), file=sys.stderr, flush=True)
