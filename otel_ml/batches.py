"""From data larger than memory to the fields of a baseline: a uniform sample first, then every row.

The sample decides what must be known before counting: the kind of each column, bounds, reach, directions of
projections. A second pass counts every row on that (`running`). When the sample holds all the rows, or when the
batches can be read only once, the sample is summarised and that is all.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from . import training
from .columns import Column
from .errors import BaselineError
from .reservoir import Reservoir
from .running import (
    Running,
    RunningCategories,
    RunningLabels,
    RunningNumbers,
    RunningProjections,
    running,
)
from .summary import CategoricalSummary, NumericSummary, Summary
from .training import Options, Outputs

SAMPLE_ROWS = 1_000_000

Batches = Callable[[], Iterable[object]] | Iterable[object]
Output = str | Callable[[Any], object]
"""Where an output comes from: a column of the batch, or what a function makes of the batch."""

_FIELDS = {
    "scores": "scores",
    "predictions": "predictions",
    "labels": "outcomes",
    "uncertainty": "uncertainty",
}
"""Field of a baseline by output."""


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a fit has come."""

    step: Literal["sample", "count"]
    """`count` is the second pass; there is none when the sample holds all the rows."""
    rows: int
    """Rows read in this step."""
    total: int | None
    """Rows to read in this step; None in the first, where nobody knows."""


@dataclass(frozen=True, slots=True)
class _Part:
    """One batch: columns of the features that are summarised, and of the outputs."""

    features: Mapping[str, Column]
    outputs: Mapping[str, Column]

    @property
    def rows(self) -> int:
        return len(next(iter((self.features or self.outputs).values())))


def fields(
    batches: Batches,
    outputs: Mapping[str, Output | None],
    *,
    features: Sequence[str] | None,
    options: Options,
    sample_rows: int,
    progress: Callable[[Progress], None] | None,
) -> dict[str, Any]:
    """The fields of a `Baseline` that follow from data; see `Baseline.fit_batches`."""
    if sample_rows < 1:
        raise BaselineError(f"sample_rows= is a number of rows, 1 or more, not {sample_rows!r}")
    reader = _Reader(
        batches, {key: value for key, value in outputs.items() if value is not None}, features, options
    )
    tell = progress or (lambda _: None)
    table, given, rows = _sample(reader, sample_rows, tell)
    fitted = training.fields(table, Outputs(**given), options)
    if rows <= sample_rows or reader.once:
        return fitted
    count = _Count(fitted, table, options)
    del table, given
    counted = 0
    for part in reader.parts():
        count.add(part)
        counted += part.rows
        tell(Progress("count", counted, rows))
    if counted != rows:
        raise BaselineError(
            f"the second pass over the batches gave {counted} rows, the first {rows}; give a function that starts "
            "from the beginning whenever it is called, or an iterator, which is read once"
        )
    return fitted | count.fields()


def _sample(
    reader: _Reader, size: int, tell: Callable[[Progress], None]
) -> tuple[dict[str, Column], dict[str, Column], int]:
    """Columns and outputs of a uniform sample of the rows, and how many rows there are."""
    reservoir: Reservoir[tuple[str, str]] = Reservoir(size)
    for part in reader.parts():
        tagged = {("feature", name): column for name, column in part.features.items()}
        reservoir.add(tagged | {("output", name): column for name, column in part.outputs.items()})
        tell(Progress("sample", reservoir.seen, None))
    rows = reservoir.seen
    if rows == 0:
        raise BaselineError("the batches hold no rows; give the rows the model was trained on")
    kept = reservoir.take()
    left_out = np.broadcast_to(np.array(np.nan), (min(rows, size),))
    table = {name: kept.get(("feature", name), left_out) for name in reader.columns}
    return table, {name: column for (kind, name), column in kept.items() if kind == "output"}, rows


class _Reader:
    """Batches as parts that all have the same columns."""

    def __init__(
        self,
        batches: Batches,
        outputs: Mapping[str, Output],
        features: Sequence[str] | None,
        options: Options,
    ) -> None:
        if isinstance(batches, (str, bytes, Mapping, np.ndarray)) or hasattr(batches, "columns"):
            raise BaselineError(
                f"batches= takes an iterable of tables, not one {type(batches).__name__}; give it to Baseline.fit"
            )
        self._batches = batches
        self._outputs = outputs
        self._named = [source for source in outputs.values() if isinstance(source, str)]
        self._wanted = None if features is None else tuple(dict.fromkeys([*map(str, features), *self._named]))
        self._options = options
        self._every: tuple[str, ...] = ()
        self.columns: tuple[str, ...] = ()
        """Of the input, in the order of the first batch; known once that was read."""
        self.once = not callable(batches) and iter(batches) is batches

    def parts(self) -> Iterator[_Part]:
        """Every batch that has rows. Raises `BaselineError` that says which batch is wrong."""
        for number, batch in enumerate(self._batches() if callable(self._batches) else self._batches, 1):
            if _is_empty(batch):
                continue
            try:
                part = self._part(batch)
            except BaselineError as error:
                raise BaselineError(f"batch {number}: {error}") from error
            yield part

    def _part(self, batch: object) -> _Part:
        table = training.table(batch, self._wanted)
        if isinstance(table, training.Sparse):
            raise BaselineError("is a sparse matrix; give Baseline.fit a sample of its rows")
        if not self._every:
            self._begin(table)
        elif set(table) != set(self._every):
            differ = sorted(set(table) ^ set(self._every))
            raise BaselineError(
                f"has other columns than the first: only one of them has {', '.join(map(repr, differ[:5]))}; "
                "pick columns that all have with features="
            )
        rows = len(next(iter(table.values())))
        given = {
            key: table[source] if isinstance(source, str) else source(batch)
            for key, source in self._outputs.items()
        }
        outputs = Outputs.read(rows, **given)
        return _Part(
            features={name: table[name] for name in self.columns if name not in self._options.exclude},
            outputs={key: column for key in _FIELDS if (column := getattr(outputs, key)) is not None},
        )

    def _begin(self, table: Mapping[str, Column]) -> None:
        for key, source in self._outputs.items():
            if isinstance(source, str):
                training.check_known(key, [source], table)
        columns = {name: column for name, column in table.items() if name not in self._named}
        if not columns:
            raise BaselineError("has no columns but the outputs; give the features too")
        self._options.check(columns, scored="scores" in self._outputs)
        self._every, self.columns = tuple(table), tuple(columns)


def _is_empty(batch: object) -> bool:
    """Filters and partitions leave tables without rows; `len` of a dict of columns counts the columns."""
    inner = next(iter(batch.values()), None) if isinstance(batch, Mapping) else batch
    return not isinstance(inner, str) and hasattr(inner, "__len__") and len(inner) == 0


class _Count:
    """Every row counted on what a sample came to."""

    def __init__(self, fitted: Mapping[str, Any], table: Mapping[str, Column], options: Options) -> None:
        self._options = options
        self._features: dict[str, Running] = {
            name: running(summary, table[name], categorical=name in options.categorical)
            for name, summary in fitted["features"].items()
        }
        self._outputs: dict[str, Running] = {
            key: _running_output(fitted[field])
            for key, field in _FIELDS.items()
            if fitted.get(field) is not None
        }
        self._projections = RunningProjections(fitted["projections"])
        self._labels: RunningLabels | None = None
        if fitted["label_counts"]:
            self._labels = RunningLabels(fitted["scores"].bounds, list(fitted["outcomes"].categories))

    def add(self, part: _Part) -> None:
        """Count the rows of a batch."""
        for name, counting in self._features.items():
            counting.add(part.features[name])
        for key, counting in self._outputs.items():
            counting.add(part.outputs[key])
        self._projections.add(part.features)
        if self._labels is not None:
            self._labels.add(part.outputs["scores"], part.outputs["labels"])

    def fields(self) -> dict[str, Any]:
        """The fields of a baseline that depend on more than the sample."""
        features = {name: counting.summary() for name, counting in self._features.items()}
        outputs = {_FIELDS[key]: counting.summary() for key, counting in self._outputs.items()}
        found: dict[str, Any] = {
            "rows": next(iter((features or outputs).values())).n,
            "features": features,
            "projections": self._projections.summary(),
            **outputs,
        }
        scores = outputs.get("scores")
        if isinstance(scores, NumericSummary):
            found["score_type"] = training.score_type(scores, self._options.score_type)
        if self._labels is not None:
            found["label_counts"] = self._labels.summary()
        return found


def _running_output(sampled: Summary) -> Running:
    if isinstance(sampled, NumericSummary):
        return RunningNumbers(sampled)
    named = sampled.categories if isinstance(sampled, CategoricalSummary) else None
    return RunningCategories(sampled, named=named)
