"""`otel-ml baseline`: make a baseline from a file of training data, look at one, compare two."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from ..errors import BaselineError, OtelMLError

if TYPE_CHECKING:
    from ..baseline import Baseline

app = typer.Typer(
    help="Make, show and compare baselines: what a model saw in training.",
    no_args_is_help=True,
    rich_markup_mode="markdown",
)

_WRONG, _STOPPED = 2, 130


class Resolution(str, Enum):
    """Choices of `--resolution`."""

    standard = "standard"
    fine = "fine"


class FailOn(str, Enum):
    """Choices of `--fail-on`."""

    schema = "schema"
    warning = "warning"
    drifted = "drifted"


@contextmanager
def _plain_errors() -> Iterator[None]:
    """What was raised on purpose, as one line; Ctrl-C, as one word."""
    try:
        yield
    except OtelMLError as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(_WRONG) from None
    except KeyboardInterrupt:
        typer.echo("stopped; nothing was written", err=True)
        raise typer.Exit(_STOPPED) from None


def _save(baseline: Baseline, target: Path) -> None:
    try:
        baseline.save(target)
    except OSError as error:
        raise BaselineError(
            f"baseline {str(target)!r} cannot be written ({error.strerror}); name another file with --output"
        ) from error


@app.command()
def create(
    data: Annotated[Path, typer.Argument(help="Parquet or CSV file, or a directory of Parquet files.")],
    model: Annotated[str, typer.Option(help="Name of the model.")],
    version: Annotated[str, typer.Option(help="Version of the model.")],
    scores: Annotated[str | None, typer.Option(help="Column of scores, no feature.")] = None,
    predictions: Annotated[str | None, typer.Option(help="Column of predicted labels, no feature.")] = None,
    labels: Annotated[str | None, typer.Option(help="Column of true labels, no feature.")] = None,
    categorical: Annotated[
        list[str] | None, typer.Option(help="Column of numbers that mean categories; may be repeated.")
    ] = None,
    exclude: Annotated[
        list[str] | None, typer.Option(help="Column that gets no summary; may be repeated.")
    ] = None,
    threshold: Annotated[float | None, typer.Option(help="Score at which decisions are made.")] = None,
    resolution: Annotated[
        Resolution, typer.Option(help="Buckets a feature: 20, or 200.")
    ] = Resolution.standard,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="File to write; MODEL.baseline.json by default.")
    ] = None,
) -> None:
    """Make a baseline from a file of training data, in bounded memory however large the file is.

    Example:

        otel-ml baseline create train.parquet --model churn --version 3 --scores score --labels churned

    The file is read twice: a uniform sample of a million rows decides the bounds, then every row is counted.
    Needs pyarrow, which the extra `parquet` of otel-ml brings.
    """
    from ..datafile import DataFile
    from .progress import fit

    target = output or Path(f"{model.replace('/', '_')}.baseline.json")
    with _plain_errors():
        if not target.parent.is_dir():
            raise typer.BadParameter(f"there is no directory {str(target.parent)!r}", param_hint="--output")
        baseline = fit(
            DataFile(data),
            model=model,
            version=version,
            scores=scores,
            predictions=predictions,
            labels=labels,
            categorical=categorical or (),
            exclude=exclude or (),
            threshold=threshold,
            resolution=resolution.value,
        )
        _save(baseline, target)
    typer.echo(f"{target}: {baseline.rows:,} rows, {len(baseline.features)} features, id {baseline.id}")
    typer.echo(f"look at it with: otel-ml baseline show {target}")


@app.command()
def show(file: Annotated[Path, typer.Argument(help="Baseline file.")]) -> None:
    """Show a baseline as a table: kind, missing values, range and shape of each feature.

    Example:

        otel-ml baseline show churn.baseline.json
    """
    from ..baseline import Baseline
    from .tables import print_baseline

    with _plain_errors():
        print_baseline(Console(), Baseline.load(file))


@app.command()
def diff(
    reference: Annotated[Path, typer.Argument(help="Baseline file.")],
    current: Annotated[Path, typer.Argument(help="Baseline file to compare with it.")],
    fail_on: Annotated[
        list[FailOn] | None,
        typer.Option(
            help="Exit with 1 when a feature is new, gone or retyped (schema), has drifted, or has drifted or is "
            "near it (warning); may be repeated."
        ),
    ] = None,
) -> None:
    """Compare two baselines: what is new, gone, of another kind, or distributed differently.

    Example, in a pipeline that retrains:

        otel-ml baseline diff churn-2.baseline.json churn-3.baseline.json --fail-on schema --fail-on drifted

    The exit code is 0, or 1 by `--fail-on`; 2 means that a file could not be read. Effect sizes are judged as the
    collector judges them: PSI 0.1 and KS 0.1 warn, 0.25 and 0.2 are drift. PSI needs equal or nested bounds and
    the extra `collector` of otel-ml; between other bounds the least possible KS is shown.
    """
    from ..baseline import Baseline
    from .comparison import compare
    from .tables import print_comparison

    with _plain_errors():
        a, b = Baseline.load(reference), Baseline.load(current)
    found = compare(a, b)
    print_comparison(Console(), a, b, found)
    if any(change.fails({choice.value for choice in fail_on or ()}) for change in found):
        raise typer.Exit(1)
