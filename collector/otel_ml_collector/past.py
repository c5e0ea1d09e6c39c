"""References that the collector makes itself, of what a target looked like before.

For targets that no baseline describes:

- previous: the window before this one. A change shows once, in the first window that has it.
- rolling: all that was counted in a span before this window.
- seasonal: the same hours of the week in past weeks, the last about four.
- learned: the first rows there are enough of; from then on it stays.

None is renewed while the target has drifted or is about to, or a drift that lasts would become its own reference; a
seasonal one goes on to the next hours, but does not learn then. A segment that its baseline does not know is compared
with its previous window: it has no other that is its own.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from .evaluation import Target
from .groups import Group, Monitored, Slot
from .layouts import edges_of
from .reference import Reference, ReferenceTarget
from .view import View
from .window import Panes, WindowSpec, nanoseconds

Kind = Literal["previous", "rolling", "seasonal", "learned"]
Ints = NDArray[np.int64]

LEARN_ROWS = 5000
"""Rows of a target that make a reference of its own reliable."""
KNOWN = 0.9
"""Share of a window's rows in hours that past weeks know, for a seasonal reference."""


class Past:
    """What the targets of models are compared with when no baseline describes them; None: not at all."""

    def __init__(
        self, panes: Panes, window: WindowSpec, kind: Kind | None = None, *, learn_rows: int = LEARN_ROWS
    ) -> None:
        self._panes = panes
        self._window = window
        self.kind = kind
        self._learn_rows = learn_rows

    def complete(self, model: Monitored, known: Reference | None, view: View) -> Reference | None:
        """`known`, and with it what the past says about the targets it does not describe."""
        targets = {} if known is None else dict(known.targets)
        for target in model.groups.keys() - targets.keys():
            kind = self.kind or ("previous" if known is not None and target.segment else None)
            made = None if kind is None else self._kept(model, target, kind, view)
            if made is not None:
                targets[target] = made
        if known is not None:
            return replace(known, targets=targets)
        rows = max((one.rows for one in targets.values()), default=0)
        return Reference(self.kind, 0, rows, targets) if self.kind and targets else None

    def _kept(self, model: Monitored, target: Target, kind: Kind, view: View) -> ReferenceTarget | None:
        """The reference of a target, made anew when the window has moved on and the target has not drifted."""
        start, kept = model.kept.get(target, (0, None))
        held = model.held.get(target)
        # A seasonal one follows the clock, and leaves out of what it learns what is drifting.
        drifting = kind != "seasonal" and held is not None and held.status + held.streak > 0
        still = start == view.start or kind == "learned" or drifting
        if kept is None or not still:
            made = self._made(model, target, kind, view)
            kept = made and replace(made, past=kind)
            model.kept[target] = (view.start, kept)
        return kept

    def _made(self, model: Monitored, target: Target, kind: Kind, view: View) -> ReferenceTarget | None:
        group, spec = model.groups[target], self._window
        if kind == "seasonal":
            return self._usual(group, view)
        if kind == "learned":
            period, least = (view.end - spec.reach_ns, view.end), self._learn_rows
        else:
            length = spec.length if kind == "previous" or spec.history is None else spec.history
            period, least = (view.start - nanoseconds(length), view.start), 1
        counts = {}
        for slot in group.slots():
            _, panes = self._panes.gather(_cells(slot), *period, width=spec.coarse_ns)
            counts[slot.offset] = panes.sum(axis=0)
        made = _target(group, counts)
        return made if made is not None and made.rows >= least else None

    def _usual(self, group: Group, view: View) -> ReferenceTarget | None:
        """What past weeks counted in the hours of a window; None while they do not know nearly all of its rows."""
        cells = np.concatenate([_cells(slot) for slot in group.slots()])
        known = [self._panes.usual(cells, start, start + 1).any() for start in view.starts.tolist()]
        rows = view.rows_of(group)
        # Some hours of a day would make a reference that the whole day seems to have drifted from.
        if rows[known].sum() < KNOWN * rows.sum():
            return None
        counts = {
            slot.offset: self._panes.usual(_cells(slot), view.start, view.end) for slot in group.slots()
        }
        return _target(group, counts)

    def unusual(self, models: Iterable[Monitored], start: int) -> Ints:
        """Cells of targets that were drifting when a pane began, which no reference learns from."""
        cells = [
            _cells(slot)
            for model in models
            for target, until in model.drifting.items()
            if start < until and target in model.groups
            for slot in model.groups[target].slots()
        ]
        return np.concatenate(cells) if cells else np.zeros(0, np.int64)


def _cells(slot: Slot) -> Ints:
    return np.arange(slot.offset, slot.offset + slot.length)


def _target(group: Group, counts: dict[int, Ints]) -> ReferenceTarget | None:
    """Counts of a target, by the offset of their cells, as a reference; None when there are none."""
    states = counts[group.states.offset] if group.states else None
    layouts = [(edges_of(bounds), counts[slot.offset][: len(bounds) + 1]) for bounds, slot in group.layouts()]
    filled = [(edges, values) for edges, values in layouts if values.any()]
    if filled:
        edges, values = max(filled, key=lambda one: int(one[1].sum()))
        return ReferenceTarget(bounds=tuple(edges.tolist()), counts=values, states=states)
    categories = {name: int(counts[slot.offset][0]) for name, slot in group.categories.items()}
    if any(categories.values()):
        return ReferenceTarget(categories={name: n for name, n in categories.items() if n}, states=states)
    return ReferenceTarget(states=states) if states is not None and states.any() else None
