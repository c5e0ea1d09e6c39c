"""Windows over time: how they are cut into panes, and the counts that lie in each pane.

Time is Unix nanoseconds. A pane, and so a window, is the half-open interval (start, end]: the time of a point
is the end of the interval it reports on, so a point stamped exactly at the end of a window belongs to that
window. All increments of a point are credited to the pane of its own time.

Two widths keep memory bounded: recent panes are fine (the fast lane looks at them), older ones are added up
into coarse panes, of which every window is a whole number.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from otel_ml.errors import ConfigurationError

from .layouts import express

Counts = NDArray[np.int64]
Cells = NDArray[np.int64]

PANES = 24
"""Panes a window has at least, if its widths allow: how much rows cluster is estimated from them."""
MAX_STEPS = 168
"""Steps a window that waits for rows may grow backwards, so that short steps do not keep panes for days."""

HALF_LIVES = 7
"""After as many a row weighs under a hundredth, and is left out of a decayed window."""
WEEK = 168
"""Hours of a week, each with its own usual counts."""

_MS = 1_000_000
HOUR = 3_600_000 * _MS
_UNIT = 256
"""What usual counts are kept in parts of, so that shares of them are whole numbers."""


@dataclass(frozen=True, slots=True)
class WindowSpec:
    """Which period is compared and how often. All times in seconds, to the millisecond.

    - sliding: the last `length`, every `step`; tumbling: every `length`.
    - decayed: all rows, every `step`; a row weighs half as much after `length`.
    - count: whenever `rows` rows have come since the last window, looked for every `step`, and after `length` at
      the latest.

    Raises `ConfigurationError` for a time out of range, or a length that is not a whole number of steps. The
    step of a tumbling window is its length.
    """

    type: Literal["sliding", "tumbling", "decayed", "count"] = "sliding"
    length: float = 86400.0
    step: float = 3600.0
    lateness: float = 120.0
    """How long points are waited for. A window closes this long after its end."""
    max_age: float = 259200.0
    """How far back a window with too few rows may reach, measured from its end."""
    refresh: float = 60.0
    """Time between two refreshes of the numbers, while the status waits for the next step."""
    fast_length: float = 3600.0
    """Length of the fast lane, which can raise the status at once. A window that is shorter has none."""
    initial_max_age: float = 600.0
    """A cumulative series seen for the first time is counted from its start if that is not longer ago."""
    rows: int = 0
    """Of a window by count, how many it has."""
    history: float | None = None
    """How long counts are kept beyond the window, to compare with; None: as long as the window."""

    def __post_init__(self) -> None:
        if self.type not in ("sliding", "tumbling", "decayed", "count"):
            raise ConfigurationError(
                f"window type {self.type!r} is not known; use 'sliding', 'tumbling', 'decayed' or 'count'"
            )
        if (self.type == "count") != (self.rows > 0):
            raise ConfigurationError(
                f"a window of type {self.type!r} has rows={self.rows}; give rows to a window by count, and only there"
            )
        if self.type == "tumbling":
            object.__setattr__(self, "step", self.length)
        for name in ("length", "step", "refresh", "fast_length"):
            _at_least_one_ms(name, getattr(self, name))
        for name in ("lateness", "max_age", "initial_max_age"):
            if not getattr(self, name) >= 0:
                raise ConfigurationError(f"window {name} is {getattr(self, name)!r}; it cannot be negative")
        if nanoseconds(self.length) % nanoseconds(self.step):
            raise ConfigurationError(
                f"window length {self.length:g} s is not a whole number of steps of {self.step:g} s; "
                "choose a step that divides the length"
            )

    @property
    def length_ns(self) -> int:
        return nanoseconds(self.length)

    @property
    def step_ns(self) -> int:
        return nanoseconds(self.step)

    @property
    def reach_ns(self) -> int:
        """How far back from its end a window can look, in whole steps, growth included."""
        if self.type == "decayed":
            return HALF_LIVES * self.length_ns
        growth = min(nanoseconds(self.max_age) // self.step_ns, MAX_STEPS) * self.step_ns
        return max(self.length_ns, growth)

    @property
    def kept_ns(self) -> int:
        """How long counts are kept."""
        history = self.length if self.history is None else self.history
        return max(self.reach_ns, self.length_ns + nanoseconds(history))

    @property
    def expiry_ns(self) -> int:
        """How long after its last row an idle group is kept."""
        return 2 * self.length_ns + nanoseconds(self.max_age)

    @property
    def fast_ns(self) -> int:
        """Length of the fast lane; 0 when there is none, because it would be longer than the window."""
        fast = nanoseconds(self.fast_length)
        return fast if fast <= self.length_ns else 0

    @property
    def coarse_ns(self) -> int:
        """Width of the panes that windows are made of: the largest that gives a window `PANES` of them."""
        return _part(self.step_ns, self.length_ns // PANES)

    @property
    def fine_ns(self) -> int:
        """Width of recent panes: the largest that gives the fast lane `PANES` of them."""
        return _part(self.coarse_ns, self.fast_ns // PANES) if self.fast_ns else self.coarse_ns


def nanoseconds(seconds: float) -> int:
    """Seconds as whole milliseconds in nanoseconds."""
    return round(seconds * 1000) * _MS


def _at_least_one_ms(name: str, seconds: float) -> None:
    if not seconds >= 0.001:
        raise ConfigurationError(f"window {name} is {seconds!r} s; it must be at least 0.001 s")


def _part(width: int, at_most: int) -> int:
    """Largest whole fraction of `width` that is not above `at_most`."""
    # Widths are whole milliseconds: 10**6 has enough divisors that the search ends within twice its start.
    parts = max(1, -(-width // max(1, at_most)))
    while width % parts:
        parts += 1
    return width // parts


def steps_between(after: int, until: int, step: int) -> range:
    """Ends of windows in (after, until]: the multiples of `step`, counted from the epoch."""
    return range((after // step + 1) * step, until + 1, step)


class Panes:
    """Counts by time and cell. A cell is an index into one space that all groups share.

    Every pane is one vector over all cells, so that a window of every group is a sum of a few vectors.
    """

    def __init__(self, spec: WindowSpec, *, seasonal: bool = False) -> None:
        self._seasonal = seasonal
        self._fine_ns = spec.fine_ns
        self._coarse_ns = spec.coarse_ns
        self._fast_ns = spec.fast_ns
        self._kept_ns = spec.kept_ns
        self._fine: dict[int, Counts] = {}
        self._coarse: dict[int, Counts] = {}
        """Vectors that nothing was added to lately are half as wide, where that holds them: see `_shrink`."""
        self._usual: dict[int, Counts] = {}
        """By hour of the week, in parts of `_UNIT`."""
        self._coarse_until = 0

    def __len__(self) -> int:
        return len(self._fine) + len(self._coarse)

    def state(self) -> dict[str, object]:
        """For `restore`. Vectors in it stay as they are: `_reserve` copies what is added to from now on."""
        for vector in (*self._fine.values(), *self._coarse.values(), *self._usual.values()):
            vector.flags.writeable = False
        return {
            "widths": (self._fine_ns, self._coarse_ns),
            "fine": self._fine,
            "coarse": self._coarse,
            "usual": self._usual,
            "coarse_until": self._coarse_until,
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Hold what was held when `state` was taken, which must have been in panes as wide as these."""
        if state["widths"] != (self._fine_ns, self._coarse_ns):
            raise ConfigurationError(
                f"the snapshot has panes of {_seconds(state['widths'])} s, this window needs "
                f"{_seconds((self._fine_ns, self._coarse_ns))} s; keep length and step of the window, or start empty"
            )
        self._fine, self._coarse, self._usual = state["fine"], state["coarse"], state["usual"]
        self._coarse_until = state["coarse_until"]

    def add(
        self,
        times: NDArray[np.int64],
        cells: NDArray[np.int64],
        counts: Counts,
        lengths: NDArray[np.int64] | None = None,
    ) -> None:
        """Credit `counts` to `cells`, which may repeat, in the panes of `times`.

        There is a time for each count, or with `lengths` for each of as many runs of counts.
        """
        which = (times - 1) // self._fine_ns
        # Nearly always it is one, and to see that is much cheaper than to sort.
        if len(which) and (which == which[0]).all():
            self._add(int(which[0]), cells, counts)
            return
        each = which if lengths is None else np.repeat(which, lengths)
        for pane in np.unique(which).tolist():
            here = each == pane
            self._add(pane, cells[here], counts[here])

    def _add(self, pane: int, cells: Cells, counts: Counts) -> None:
        np.add.at(_reserve(self._fine, pane, int(cells.max()) + 1), cells, counts)

    def gather(
        self, cells: NDArray[np.int64], start: int, end: int, *, width: int
    ) -> tuple[NDArray[np.int64], Counts]:
        """Starts (P,) and counts (P, len(cells)) of the panes in (start, end], oldest first.

        Finer panes are added up to `width`; empty ones are left out. Exact when `start` and `end`
        lie on boundaries of panes; a pane that an edge cuts belongs to the window in which it starts.
        """
        found = list(self._between(start, end))
        starts, row = np.unique(
            np.array([begin // width * width for begin, _ in found], np.int64), return_inverse=True
        )
        counts = np.zeros((len(starts), len(cells)), np.int64)
        for i, (_, vector) in zip(row.tolist(), found, strict=True):
            known = cells < len(vector)
            counts[i, known] += vector[cells[known]]
        return starts, counts

    def _between(self, start: int, end: int) -> Iterator[tuple[int, Counts]]:
        for panes, width in ((self._coarse, self._coarse_ns), (self._fine, self._fine_ns)):
            for index in sorted(panes):
                if start <= index * width < end:
                    yield index * width, panes[index]

    def roll(self, watermark: int, unusual: Callable[[int], Cells] | None = None) -> None:
        """Add up fine panes that the fast lane has left, and forget what no window can reach.

        With seasons, what is forgotten becomes part of what is usual at its hour of the week, but for the cells
        that `unusual` names at the start of a pane.
        """
        until = (watermark - self._fast_ns) // self._coarse_ns * self._coarse_ns
        if until <= self._coarse_until:
            return
        self._coarse_until = until
        for index in [i for i in self._fine if i * self._fine_ns < until]:
            vector = self._fine.pop(index)
            into = _reserve(self._coarse, index * self._fine_ns // self._coarse_ns, len(vector))
            into[: len(vector)] += vector
        oldest = watermark - self._kept_ns - self._coarse_ns
        if self._seasonal:
            oldest = oldest // HOUR * HOUR  # an hour is learned as a whole
        hours: dict[int, list[tuple[int, Counts]]] = {}
        for index in [i for i in sorted(self._coarse) if (i + 1) * self._coarse_ns <= oldest]:
            start = index * self._coarse_ns
            hours.setdefault(start // HOUR, []).append((start, self._coarse.pop(index)))
        if self._seasonal:
            for hour, panes in hours.items():
                self._learn(hour % WEEK, panes, unusual)
        for kept in (self._fine, self._coarse, self._usual):
            _shrink(kept)

    def _learn(
        self, hour: int, panes: list[tuple[int, Counts]], unusual: Callable[[int], Cells] | None
    ) -> None:
        """Past weeks weigh three quarters of the one after them."""
        size = max(len(vector) for _, vector in panes)
        usual, learned = _reserve(self._usual, hour, size), np.ones(size, bool)
        here = usual[:size]
        rise = -(here // 4)
        for start, vector in panes:
            rise[: len(vector)] += np.multiply(vector, _UNIT, dtype=np.int64)
            if unusual is not None:
                cells = unusual(start)
                learned[cells[cells < size]] = False
        here[learned] += rise[learned]

    def usual(self, cells: Cells, start: int, end: int) -> Counts:
        """(len(cells),) what past weeks counted in the hours of (start, end], about four weeks' worth."""
        counts = np.zeros(len(cells), np.int64)
        hours = {hour % WEEK for hour in range(start // HOUR, (end - 1) // HOUR + 1)}
        for vector in (self._usual[hour] for hour in hours if hour in self._usual):
            known = cells < len(vector)
            counts[known] += vector[cells[known]]
        return counts // _UNIT

    def relay(self, first: int, old: NDArray[np.float64], new: NDArray[np.float64]) -> None:
        """Move counts that lie from cell `first` on from old edges to new ones that hold them exactly."""
        for panes in (self._fine, self._coarse, self._usual):
            for index, vector in panes.items():
                if not vector[first : first + len(old) + 1].any():
                    continue
                vector = _reserve(panes, index, first + max(len(old), len(new)) + 1)
                moved = express(vector[first : first + len(old) + 1], old, new)
                assert moved is not None
                vector[first : first + len(old) + 1] = 0
                vector[first : first + len(new) + 1] = moved

    def keep(self, cells: NDArray[np.int64]) -> None:
        """Renumber: cell `cells[i]` becomes cell i, all others are forgotten."""
        for panes in (self._fine, self._coarse, self._usual):
            for index, vector in panes.items():
                # A pane is only as long as the last cell that was written in it.
                known = cells < len(vector)
                panes[index] = np.zeros(len(cells), vector.dtype)
                panes[index][known] = vector[cells[known]]


def _reserve(panes: dict[int, Counts], index: int, size: int) -> Counts:
    """The vector of a pane to add to: wide, and of this size at least."""
    vector = panes.get(index)
    if vector is None:
        vector = panes[index] = np.zeros(size, np.int64)
    elif len(vector) < size:
        # Half as much again: new cells come one group at a time.
        grown = np.zeros(size + size // 2, np.int64)
        grown[: len(vector)] = vector
        vector = panes[index] = grown
    elif vector.dtype != np.int64:
        vector = panes[index] = vector.astype(np.int64)
    elif not vector.flags.writeable:
        vector = panes[index] = vector.copy()
    return vector


def _shrink(panes: dict[int, Counts]) -> None:
    """Keep vectors in 32 bits a cell where no cell needs more: they are nearly all of the memory."""
    for index, vector in panes.items():
        if vector.dtype == np.int64 and (not len(vector) or vector.max() <= np.iinfo(np.int32).max):
            panes[index] = vector.astype(np.int32)


def _seconds(widths: tuple[int, ...]) -> str:
    return " and ".join(f"{width / 1e9:g}" for width in widths)


def condense(matrix: Counts) -> Counts:
    """The same counts in fewer than 2 × `PANES` rows: neighbouring panes added up."""
    together = len(matrix) // PANES
    if together < 2:
        return matrix
    return np.add.reduceat(matrix, np.arange(0, len(matrix), together), axis=0)
