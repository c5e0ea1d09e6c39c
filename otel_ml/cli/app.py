"""Commands and their options."""

from __future__ import annotations

from typing import Annotated

import typer

from .._version import __version__
from .baseline import app as baseline_commands
from .doctor.command import doctor

app = typer.Typer(
    help="OpenTelemetry instrumentation for machine-learning inference.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"otel-ml {__version__}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[  # the callback prints it
        bool,
        typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit."),
    ] = False,
) -> None:
    """OpenTelemetry instrumentation for machine-learning inference."""


app.add_typer(baseline_commands, name="baseline")
app.command(context_settings={"allow_interspersed_args": False})(doctor)


@app.command()
def demo(
    fast: Annotated[
        bool,
        typer.Option("--fast", help="Compress the clock: the same 30 simulated hours in about 15 seconds."),
    ] = False,
) -> None:
    """Watch drift being found: a model, a collector, and three things that go wrong.

    Trains a scikit-learn model on a data set that ships with scikit-learn, makes its baseline, serves traffic
    and runs otel-ml-collector beside it, over OTLP on the loopback interface. Nothing is downloaded, nothing is
    left behind. One feature drifts gradually, one changes its unit, one bursts with nulls.

    The exit code is 0 when all three, and nothing before them, were found.
    """
    from ..errors import MissingDependency, require

    try:
        for module in ("sklearn", "otel_ml_collector", "grpc", "prometheus_client"):
            require(module, extra="demo")
    except MissingDependency as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(1) from None
    from .demo import run

    raise typer.Exit(run(fast=fast))
