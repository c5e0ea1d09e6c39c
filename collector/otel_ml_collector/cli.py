"""The command `otel-ml-collector`.

    otel-ml-collector                         listen on this machine, show drift on the console
    otel-ml-collector --config f.yaml         run what the file describes
    otel-ml-collector validate --config f.yaml
    otel-ml-collector print-config            what is in effect, with every default
    otel-ml-collector components              what there is to configure
    otel-ml-collector schema                  JSON Schema for editors
    otel-ml-collector health                  ask one that runs here whether it is ready

SIGHUP reads the files again.

Exit codes: 0 after a stop by SIGTERM or Ctrl-C, 1 when it could not start, 2 for wrong arguments, 130 after a
second signal, which does not wait, 141 when nobody reads what is printed.
"""

from __future__ import annotations

import argparse
import asyncio
import http.client
import json
import logging
import os
import signal
import sys
import urllib.error
import urllib.request
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import asdict
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Any

from otel_ml._version import __version__
from otel_ml.errors import OtelMLError

from . import supervisor

if TYPE_CHECKING:
    from .config import Config
    from .service import Ports, Service

GRACE = 5.0
"""Seconds a stop may take."""
HEALTH = "http://localhost:13133/"
"""Where the health_check extension answers unless it is told otherwise."""
_HEALTH_TIMEOUT = 5.0
_PROGRAM = "otel-ml-collector"
_OPTIONS = ("--config", "--set", "--ready-file", "--version", "--help")
_LOG = logging.getLogger(__name__)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; the exit code."""
    parser = _parser()
    _refuse_typos(parser, sys.argv[1:] if argv is None else argv)
    arguments = parser.parse_args(argv)
    # gRPC's library writes lines of its own: by default one for each failed handshake, which anybody can cause.
    os.environ.setdefault("GRPC_VERBOSITY", "ERROR")
    if arguments.command == "health":  # without the rest: it is asked often
        return _health(arguments)
    try:
        from . import log, settings
        from . import service as _service  # noqa: F401 - what is not installed is said before anything else
    except ModuleNotFoundError as error:
        _say(f"{error.name} is not installed; install it with: pip install 'otel-ml[collector]'")
        return 1
    log.configure(settings.TelemetryLogs())
    try:
        code = _COMMANDS[arguments.command](arguments)
        if arguments.command is not None:
            sys.stdout.flush()
        return code
    except OtelMLError as error:
        _say(str(error))
        return 1
    except BrokenPipeError:  # who read what is printed has enough, like head
        if arguments.command is None:
            raise
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 128 + signal.SIGPIPE


def _refuse_typos(parser: argparse.ArgumentParser, argv: Sequence[str]) -> None:
    """End for an option that there is not: argparse would take its value for the command, and blame that."""
    for option in (one.partition("=")[0] for one in argv if one.startswith("--")):
        if not any(known.startswith(option) for known in _OPTIONS):
            close = get_close_matches(option, _OPTIONS, n=1)
            hint = f"; did you mean {close[0]}?" if close else ""
            parser.error(f"unrecognized arguments: {option}{hint}")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=_PROGRAM,
        description="Receives model telemetry over OTLP, sends out how far it drifted from training.",
        epilog="Without --config it listens on localhost:4317 and 4318, prints drift to the console and "
        "serves it at http://localhost:9464/metrics.",
    )
    parser.add_argument("--version", action="version", version=f"{_PROGRAM} {__version__}")
    _add_source(parser, default=[])
    parser.add_argument(
        "--ready-file", metavar="PATH", type=Path, help="write the ports as JSON here once everything listens"
    )
    commands = parser.add_subparsers(dest="command", metavar="COMMAND")
    for name, what in _HELP.items():
        command = commands.add_parser(name, help=what, description=what)
        if name in ("validate", "print-config"):
            # No default here: it would undo what stands before the command.
            _add_source(command, default=argparse.SUPPRESS)
        elif name == "health":
            command.add_argument("url", nargs="?", default=HEALTH, help=f"default {HEALTH}")
    return parser


def _add_source(parser: argparse.ArgumentParser, *, default: Any) -> None:
    parser.add_argument(
        "--config", metavar="FILE", action="append", default=default,
        help="a YAML file; of several, the later ones are merged over the earlier ones",
    )  # fmt: skip
    parser.add_argument(
        "--set", metavar="KEY=VALUE", action="append", default=default, dest="assignments",
        help="one value over all files, like processors.ml_drift.window.length=12h",
    )  # fmt: skip


_HELP = {
    "validate": "say whether a configuration is right, and start nothing",
    "print-config": "print the configuration in effect, with every default and without secrets",
    "components": "print the types of component there are",
    "schema": "print the JSON Schema of configuration files",
    "health": "ask a running collector whether it is ready; exit code 0 when it is",
}


def _config(arguments: argparse.Namespace) -> Config:
    from . import config

    return config.load(arguments.config, os.environ, arguments.assignments)


def _validate(arguments: argparse.Namespace) -> int:
    from . import build
    from .files import BaselineFiles

    if not arguments.config:
        _say("validate needs the file to look at: otel-ml-collector validate --config FILE")
        return 2
    drift = _config(arguments).drift
    build.engine(drift, BaselineFiles(drift.baseline.path).read(), started=0)
    print(f"{', '.join(arguments.config)}: valid")
    return 0


def _print_config(arguments: argparse.Namespace) -> int:
    from . import printing

    print(printing.effective(_config(arguments)), end="")
    return 0


def _components(_: argparse.Namespace) -> int:
    from . import printing

    for section, types in printing.components().items():
        print(f"{section}: {', '.join(types)}")
    return 0


def _schema(_: argparse.Namespace) -> int:
    from . import printing

    print(json.dumps(printing.schema(), indent=2, ensure_ascii=False))
    return 0


def _health(arguments: argparse.Namespace) -> int:
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # a proxy would ask somebody else
    try:
        with direct.open(arguments.url, timeout=_HEALTH_TIMEOUT) as answer:
            print(answer.read(4096).decode(errors="replace"))
    except urllib.error.HTTPError as error:
        with error:
            _say(f"{arguments.url} answered {error.code}: {error.read(4096).decode(errors='replace')}")
        return 1
    except (OSError, http.client.HTTPException, ValueError) as error:
        _say(f"{arguments.url} cannot be asked: {getattr(error, 'reason', error)}")
        return 1
    return 0


def _serve(arguments: argparse.Namespace) -> int:
    from .limiter import one_heap

    one_heap()
    return asyncio.run(_run(arguments))


_COMMANDS: dict[str | None, Callable[[argparse.Namespace], int]] = {
    None: _serve,
    "validate": _validate,
    "print-config": _print_config,
    "components": _components,
    "schema": _schema,
}


async def _run(arguments: argparse.Namespace) -> int:
    from . import log
    from .service import Service

    stop = asyncio.Event()
    _stop_on_signals(stop)
    asyncio.get_running_loop().set_exception_handler(_broken_off)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # until there is something to reload
    config = _config(arguments)
    log.configure(config.service.telemetry.logs)
    service = Service(config)
    try:
        ports = await _started(service, stop)
    except OtelMLError as error:
        if config.service.telemetry.logs.encoding == "console":
            raise
        _LOG.error("not started: %s", error)
        return 1
    try:
        if ports is not None:
            _serving(f"version {__version__}", service)
            if arguments.ready_file is not None:
                _write(arguments.ready_file, ports)
            await service.run(stop, between=_reloader(service, arguments))
    finally:
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        _LOG.info("stopping")
        supervisor.stopping()
        await service.stop(GRACE)
    return 0


async def _started(service: Service, stop: asyncio.Event) -> Ports | None:
    """The ports of a service once it runs; None when a stop came before, as while it takes up a long journal."""
    starting, stopping = asyncio.create_task(service.start()), asyncio.create_task(stop.wait())
    await asyncio.wait((starting, stopping), return_when=asyncio.FIRST_COMPLETED)
    stopping.cancel()
    if not starting.done():
        starting.cancel()
    try:
        return await starting
    except asyncio.CancelledError:
        return None


def _serving(head: str, service: Service) -> None:
    for line in (head, *service.describe()):
        _LOG.info("%s", line)
    supervisor.ready(head)


def _reloader(service: Service, arguments: argparse.Namespace) -> Callable[[], Awaitable[None]]:
    """Reads the configuration again after a SIGHUP; one that is wrong changes nothing, and it is said."""
    asked, loop = asyncio.Event(), asyncio.get_running_loop()
    # Not the loop's: it leaves none behind when it closes, and then a SIGHUP would end the process.
    signal.signal(signal.SIGHUP, lambda *_: loop.call_soon_threadsafe(asked.set))

    async def between() -> None:
        if asked.is_set():
            asked.clear()
            await _reload(service, arguments)

    return between


async def _reload(service: Service, arguments: argparse.Namespace) -> None:
    from . import log

    supervisor.reloading()
    try:
        config = await asyncio.to_thread(_config, arguments)
        await service.reload(config)
    except OtelMLError as error:
        service.note_reload(successful=False)
        _LOG.error("not reloaded, the configuration before stays in use: %s", error)
        supervisor.ready("not reloaded, the configuration before stays in use")
    except Exception:
        service.note_reload(successful=False)
        _LOG.exception("the configuration was not reloaded")
        supervisor.ready("not reloaded")
    else:
        service.note_reload(successful=True)
        log.configure(config.service.telemetry.logs)
        _serving("reloaded", service)


def _broken_off(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """Before Python 3.12 asyncio takes a connection that is broken off at a stop for a failure."""
    if not isinstance(context.get("exception"), asyncio.CancelledError):
        loop.default_exception_handler(context)


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


def _say(text: str) -> None:
    print(f"{_PROGRAM}: {text}", file=sys.stderr, flush=True)
