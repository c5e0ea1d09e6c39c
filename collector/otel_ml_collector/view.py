"""What the panes hold of one model in a period: the counts a window is made of."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import cast

import numpy as np
from numpy.typing import NDArray

from .groups import Group, Monitored, Slot
from .window import Panes, WindowSpec

Counts = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class View:
    """The counts of one model in (start, end], pane by pane; effective ones, not whole, in a decayed window."""

    model: Monitored
    start: int
    end: int
    starts: NDArray[np.int64]
    """(P,) where each pane begins, rising."""
    matrix: Counts
    """(P, cells of the model)"""
    columns: Mapping[int, int]
    """Column of the first cell of each slot, by the slot's offset."""

    @classmethod
    def of(cls, model: Monitored, panes: Panes, start: int, end: int, *, width: int) -> View:
        """What the panes hold of a model, in panes of `width` (ns)."""
        slots = list(model.slots())
        ends = np.cumsum([slot.length for slot in slots]).tolist()
        cells = np.concatenate([np.arange(slot.offset, slot.offset + slot.length) for slot in slots])
        columns = {slot.offset: last - slot.length for slot, last in zip(slots, ends, strict=True)}
        starts, matrix = panes.gather(cells, start, end, width=width)
        return cls(model, start, end, starts, matrix, columns)

    def since(self, start: int) -> View:
        """The part of it that begins at `start`."""
        later = self.starts >= start
        return replace(self, start=start, starts=self.starts[later], matrix=self.matrix[later])

    def decayed(self, half_life: int) -> View:
        """With older rows weighing less, half as much after `half_life` (ns): its sums are effective counts.

        Weights w of panes with c rows are scaled so that all together are n_eff = (Σ w·c)² / Σ w²·c, the number
        of equal rows that would say as much.
        """
        weights = 0.5 ** ((self.end - self.starts) / half_life)
        rows = self.rows()
        squares = float((weights**2 * rows).sum())
        scale = float((weights * rows).sum()) / squares if squares else 0.0
        return replace(self, matrix=cast(Counts, self.matrix * (weights * scale)[:, None]))

    def panes(self, slot: Slot) -> Counts:
        """(P, slot.length)"""
        column = self.columns[slot.offset]
        return self.matrix[:, column : column + slot.length]

    def rows(self) -> Counts:
        """(P,) rows of the model: those it reported, else those of the target that has the most."""
        reported = self._sum([self.model.rows] if self.model.rows else [])
        if reported.any() or not self.model.groups:
            return reported
        most: Counts = np.max([self.rows_of(group) for group in self.model.groups.values()], axis=0)
        return most

    def rows_of(self, group: Group) -> Counts:
        """(P,) rows of a target, all states."""
        histograms = (slot for _, slot in group.layouts())
        values = self._sum([*histograms, *group.categories.values()])
        return np.maximum(values, self._sum([group.states] if group.states else []))

    def _sum(self, slots: Iterable[Slot]) -> Counts:
        total = np.zeros(len(self.starts), self.matrix.dtype)
        for slot in slots:
            total += self.panes(slot).sum(axis=1)
        return total


def whole(panes: NDArray[np.number]) -> Counts:
    """Counts (P, …) of all panes together; effective ones are rounded."""
    total = panes.sum(axis=0)
    return np.rint(total).astype(np.int64) if total.dtype.kind == "f" else np.asarray(total, np.int64)


def grown(model: Monitored, panes: Panes, spec: WindowSpec, *, start: int, end: int, min_rows: int) -> View:
    """The window (start, end] of a model, grown backwards by whole steps until it has `min_rows` rows.

    If even the longest one has too few, the window as it was.
    """
    view = View.of(model, panes, start, end, width=spec.coarse_ns)
    if int(view.rows().sum()) >= min_rows:
        return view
    longest = View.of(model, panes, start + spec.length_ns - spec.reach_ns, end, width=spec.coarse_ns)
    rows = longest.rows()
    while start > longest.start:
        start -= spec.step_ns
        if int(rows[longest.starts >= start].sum()) >= min_rows:
            return longest.since(start)
    return view
