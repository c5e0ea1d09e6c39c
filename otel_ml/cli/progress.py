"""A fit over batches that shows how far it has come and what memory it takes."""

from __future__ import annotations

import warnings
from typing import Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    SpinnerColumn,
    TaskProgressColumn,
    TextColumn,
    TimeElapsedColumn,
)

from .. import batches
from ..baseline import Baseline
from ..datafile import DataFile

_STEPS = {"sample": "1/2 sampling", "count": "2/2 counting"}


def fit(data: DataFile, **options: Any) -> Baseline:
    """`Baseline.fit_batches` with a bar on a terminal; warnings come as lines of their own."""
    console = Console(stderr=True)
    with _bar(console) as shown, warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        task = shown.add_task(_STEPS["sample"], total=data.rows, rows=0, memory="")

        def tell(done: batches.Progress) -> None:
            shown.update(
                task,
                description=_STEPS[done.step],
                completed=done.rows,
                total=done.total or data.rows,
                rows=done.rows,
                memory=_memory(),
            )

        baseline = Baseline.fit_batches(data, progress=tell, **options)
    for warning in said:
        console.print(f"warning: {warning.message}", style="yellow", soft_wrap=True, highlight=False)
    return baseline


def _bar(console: Console) -> Progress:
    return Progress(
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        TextColumn("{task.fields[rows]:,} rows  {task.fields[memory]}"),
        TimeElapsedColumn(),
        console=console,
        transient=True,
        disable=not console.is_terminal,
    )


def _memory() -> str:
    """What the process holds; nothing where the system does not say."""
    try:
        with open("/proc/self/statm", encoding="ascii") as file:
            pages = int(file.read().split()[1])
        from resource import getpagesize
    except (OSError, ImportError):
        return ""
    return f"{pages * getpagesize() >> 20:,} MB"
