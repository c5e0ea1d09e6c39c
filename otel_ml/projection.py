"""Where rows lie on the projections of a baseline, counted: what shows that features move together differently.

To standardise and multiply a matrix costs nearly as much as to count its columns. So of many rows that are counted at
once, one in each run of up to 64 is projected, and counted for all of its run: quiet hours weigh no more than busy
ones, and how much such counts scatter shows from one pane to the next.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from . import columns, semconv
from .columns import SparseColumns, Table
from .model import Model
from .rows import names_of
from .sketches import Buckets, Ledger
from .summary import project

ALL_ROWS = 512
"""Up to so many rows at a time all are projected."""
LONGEST_RUN = 64
MAX_LAYOUTS = 16
"""Orders of columns that are remembered."""


class Projected:
    """Counts of one model on the projections of its baseline. Not thread-safe."""

    def __init__(self, model: Model, ledger: Ledger) -> None:
        self._model = model
        self._ledger = ledger
        self._projections = () if model.baseline is None else model.baseline.projections
        self._sketches: list[Buckets] = []
        self._layouts: dict[Sequence[str], list[int] | None] = {}
        self._random = np.random.default_rng()
        if self._projections:
            self._loadings = np.column_stack([p.loadings for p in self._projections])

    def add_matrices(self, parts: Sequence[NDArray[np.generic]]) -> None:
        """Count rows of shape (n, d), of one d, whose columns have no names."""
        places = self._places(None, parts[0].shape[1])
        if places is not None:
            at, run = self._drawn(sum(map(len, parts)))
            rows = _taken(parts, at)
            self._count(rows if places == list(range(rows.shape[1])) else rows[:, places], run)

    def add_table(self, table: Table) -> None:
        """Count rows of a table; of one that lacks a feature none, nor of a sparse one."""
        if isinstance(table.columns, SparseColumns):
            return
        places = self._places(table.names, len(table.columns))
        if places is not None:
            at, run = self._drawn(table.rows)
            raw = [columns.aligned(table.columns[place][at])[0] for place in places]
            self._count(np.column_stack(raw), run)

    def _places(self, names: Sequence[str] | None, width: int) -> list[int] | None:
        """Where the features of the projections are; None when one is absent, or nothing is to be projected."""
        if not self._projections:
            return None
        names = names_of(self._model, width) if names is None else names
        if names is None:
            return None
        if names not in self._layouts:
            if len(self._layouts) >= MAX_LAYOUTS:
                self._layouts.clear()
            known = {name: place for place, name in reversed(list(enumerate(names)))}
            features = self._projections[0].features
            present = all(name in known for name in features)
            self._layouts[names] = [known[name] for name in features] if present else None
        return self._layouts[names]

    def _drawn(self, rows: int) -> tuple[NDArray[np.intp], int]:
        """Rows to project, one at random of each run, and the length of a run; of the last one maybe none."""
        run = min(max(-(-rows // ALL_ROWS), 1), LONGEST_RUN)
        at = np.arange(0, rows, run)
        if run > 1:
            at += self._random.integers(0, run, len(at))
        return at[: at.searchsorted(rows)], run

    def _count(self, X: NDArray[np.number], run: int) -> None:
        """Count each row of `X`, the features in their order, `run` times."""
        first = self._projections[0]
        positions = project(X, first.centre, first.scale, self._loadings).T.copy()
        positions.sort(axis=1)
        for buckets, column in zip(self._buckets(), positions, strict=True):
            buckets.add_below(run * column.searchsorted(buckets.bounds, "right"), run * len(column))

    def _buckets(self) -> list[Buckets]:
        """The series of the projections, made with the first row."""
        if not self._sketches:
            assert self._model.baseline is not None
            common = {
                **self._model.attributes(),
                semconv.DRIFT_TARGET: "projection",
                semconv.BASELINE_ID: self._model.baseline.id,
            }
            for summary in (p.summary for p in self._projections):
                attributes = {**common, semconv.FEATURE_NAME: summary.name}
                series = self._ledger.get(semconv.FEATURE_VALUE, attributes, Buckets(summary.bounds))
                self._sketches.append(series.sketch)
        return self._sketches


def _taken(parts: Sequence[NDArray[np.generic]], at: NDArray[np.intp]) -> NDArray[np.number]:
    """Rows at ascending positions of parts that follow one another."""
    taken, first, before = [], 0, 0
    for part in parts:
        stop = int(at.searchsorted(before + len(part)))
        taken.append(part.take(at[first:stop] - before, axis=0))
        first, before = stop, before + len(part)
    return np.concatenate(taken)
