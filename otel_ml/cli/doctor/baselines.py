"""The directory of baselines: whether each can be read, and which would be mistaken for one another."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ...baseline import Baseline
from ...errors import BaselineError
from ...model import Model
from .finding import Finding
from .series import Series, most


@dataclass(frozen=True, slots=True)
class File:
    """A baseline that can be read."""

    path: str
    model: str
    version: str
    rows: int
    features: int
    id: str
    series: Series


def look(directory: Path) -> tuple[list[File], list[Finding]]:
    """Every `*.json` in `directory`, and what is wrong there."""
    if not directory.is_dir():
        return [], [
            Finding(
                f"{directory} is no directory",
                "models that nobody registered find their baselines there, so they have none",
                "name the directory that holds *.baseline.json in OTEL_PYTHON_ML_BASELINES or --baselines",
            )
        ]
    found: list[Finding] = []
    read = (_read(path, found) for path in sorted(directory.glob("*.json")))
    files = [file for file in read if file is not None]
    if not files and not found:
        found.append(
            Finding(f"{directory} holds no *.json", "so no model has a baseline", "otel-ml baseline create …")
        )
    return files, [*found, *_doubles(files)]


def _read(path: Path, found: list[Finding]) -> File | None:
    try:
        return _file(path, Baseline.load(path))
    except (BaselineError, OSError) as error:
        found.append(
            Finding(f"{path.name} is not used", str(error), "make it again: otel-ml baseline create …")
        )
        return None


def _file(path: Path, baseline: Baseline) -> File:
    model = Model(baseline.model, baseline.version, baseline=baseline)
    return File(
        path.name, baseline.model, baseline.version, baseline.rows, len(baseline.features), baseline.id, most(model)
    )  # fmt: skip


def _doubles(files: list[File]) -> list[Finding]:
    """Baselines of one model: a model that nobody registered gets neither, when both have its columns."""
    groups: dict[str, list[File]] = {}
    for file in files:
        groups.setdefault(file.model, []).append(file)
    return [
        Finding(
            f"{len(group)} baselines here are of {model}: {', '.join(one.path for one in group)}",
            "where both fit a model that nobody registered, none is used",
            "register the model with the one that is meant: otel_ml.register(model, …, baseline=…)",
            broken=False,
        )
        for model, group in groups.items()
        if len(group) > 1
    ]
