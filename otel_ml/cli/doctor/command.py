"""The options of `otel-ml doctor`."""

from __future__ import annotations

import os
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from .page import show
from .program import Program
from .report import as_json, examine

_USAGE = 2


def doctor(
    program: Annotated[
        list[str] | None, typer.Argument(help="Program to look into, with its arguments: app.py --port 0.")
    ] = None,
    module: Annotated[
        str | None, typer.Option("--module", "-m", help="Module to run as a program; arguments follow.")
    ] = None,
    auto: Annotated[
        bool, typer.Option("--auto", help="Run it as opentelemetry-instrument does, with no code of its own.")
    ] = False,
    baselines: Annotated[
        Path | None, typer.Option(help="Directory of baselines; OTEL_PYTHON_ML_BASELINES by default.")
    ] = None,
    calls: Annotated[int, typer.Option(min=1, help="Predictions after which enough is seen.")] = 100,
    seconds: Annotated[float, typer.Option(min=0.1, help="Seconds after which a program is stopped.")] = 20.0,
    json: Annotated[bool, typer.Option("--json", help="Print the report as JSON.")] = False,
) -> None:
    """Say what is recorded, what is not and why, and what to do about it.

    Alone it looks at the environment: versions, variables, baselines, and whether the endpoint takes what is sent to
    it, with an empty request. Given a program it runs it, as it always runs, until it has made some predictions, and
    looks from inside: providers, instrumented libraries, models and their baselines, the number of series.

    Options stand before the program: otel-ml doctor --seconds 60 app.py --port 8000. Those of a module come after a
    double hyphen: otel-ml doctor -m uvicorn -- app:app --port 8000

    The exit code is 0 when nothing is broken, 1 when something is, 2 when the command is wrong.
    """
    given = baselines or (Path(found) if (found := os.environ.get("OTEL_PYTHON_ML_BASELINES")) else None)
    arguments = list(program or ())
    chosen = None
    if module is not None or arguments:
        target = module if module is not None else arguments.pop(0)
        _must_exist(target, module=module is not None)
        chosen = Program(
            target=target, module=module is not None, arguments=arguments, calls=calls, seconds=seconds, auto=auto,
            baselines=None if baselines is None else baselines.resolve(),
        )  # fmt: skip
    report = examine(given, chosen)
    if json:
        typer.echo(as_json(report))
    else:
        show(Console(), report)
    raise typer.Exit(0 if report.ok else 1)


def _must_exist(target: str, *, module: bool) -> None:
    if not module and not Path(target).is_file():
        typer.echo(f"error: there is no program {target!r}; name a file, or a module with -m", err=True)
        raise typer.Exit(_USAGE)
    here = (Path(target), Path(f"{target}.py"))  # python -m looks there first
    if module and "." not in target and find_spec(target) is None and not any(path.exists() for path in here):
        typer.echo(f"error: there is no module {target!r} here", err=True)
        raise typer.Exit(_USAGE)
