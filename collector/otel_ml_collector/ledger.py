"""What the counts of every model are kept in: increments are credited to the cells of their targets, by pane.

A stream has one destination, the target it counts, and one more for every segment it is of. Destinations of
the same rank form a layer: nearly all streams have one only, so that a second layer costs them nothing.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from .evaluation import ModelKey, Target
from .groups import NO_ROOM, Destination, Groups, Owner
from .layouts import Exponential, Shapes
from .ragged import Points, ragged
from .window import HOUR, Panes

Ints = NDArray[np.int64]

_UNPLACED = -1

MAX_MAPS = 20_000
"""How many pairs of layouts of exponential histograms are remembered, of about 1 kB each."""


@dataclass(slots=True)
class _Layer:
    """Destinations of streams, one a stream at most, and the places that were found for them."""

    destinations: dict[int, Destination] = field(default_factory=dict)
    place: Ints = field(default_factory=lambda: np.full(64, _UNPLACED, np.int64))
    """First cell of a stream on the shape beside it."""
    shape: Ints = field(default_factory=lambda: np.zeros(64, np.int64))
    owner: Ints = field(default_factory=lambda: np.zeros(64, np.int64))
    """Number of whom a stream that has a place belongs to."""

    def add(self, stream: int, destination: Destination) -> None:
        self.destinations[stream] = destination
        if stream >= len(self.place):
            more = np.full(stream + 1, _UNPLACED, np.int64)
            self.place = np.concatenate([self.place, more])
            self.shape = np.concatenate([self.shape, more])
            self.owner = np.concatenate([self.owner, more])
        self.place[stream] = _UNPLACED


class Ledger:
    """Destinations of streams and, in `panes`, what was counted there."""

    def __init__(self, groups: Groups, panes: Panes, shapes: Shapes) -> None:
        self._groups = groups
        self._panes = panes
        self._shapes = shapes
        self._layers = [_Layer()]
        self._ranks = np.zeros(64, np.int64)
        """Number of destinations of each stream."""
        self._counts_rows = np.zeros(64, bool)
        """Which streams count the rows of a model."""
        self._owners: list[Owner] = []
        self._numbers: dict[tuple[ModelKey, Target | None, str], int] = {}
        """Where in `_owners` that of a model, a target and a baseline id stands."""
        self._maps: dict[tuple[int, Exponential], NDArray[np.int32]] = {}
        """See `_map`; by the number of what was sent and the buckets of the target."""

    def add(self, stream: int, destinations: Iterable[Destination]) -> None:
        """Let a new stream count for these destinations, that of all rows first."""
        if stream >= len(self._ranks):
            self._ranks = np.concatenate([self._ranks, np.zeros(stream + 1, np.int64)])
            self._counts_rows = np.concatenate([self._counts_rows, np.zeros(stream + 1, bool)])
        rank = 0
        for rank, destination in enumerate(destinations, start=1):
            if rank > len(self._layers):
                self._layers.append(_Layer())
            self._layers[rank - 1].add(stream, destination)
        self._ranks[stream] = rank
        self._counts_rows[stream] = self.destination(stream).part == "rows"

    def destination(self, stream: int) -> Destination:
        """What a stream counts, all segments together."""
        return self._layers[0].destinations[stream]

    def forget(self, streams: Iterable[int]) -> None:
        """Let go of streams that expired."""
        for stream in streams:
            for layer in self._layers:
                layer.destinations.pop(stream, None)

    def expire(self, before: int) -> None:
        """Forget models and targets without a row since `before` (Unix ns), and their counts."""
        if self._groups.expire(before):
            self._panes.keep(self._groups.compact())
            self._owners.clear()
            self._numbers.clear()
            for layer in self._layers:
                layer.place[:] = _UNPLACED

    def credit(self, points: Points) -> int:
        """Add increments up in the panes of their time; how many points found no room."""
        points = points.where(points.sums() > 0)
        refused = 0
        for rank, layer in enumerate(self._layers):
            here = points.where(self._ranks[points.stream] > rank)
            if len(here):
                refused += self._credit(layer, here)
        return refused

    def _credit(self, layer: _Layer, points: Points) -> int:
        place = self._places(layer, points)
        placed = place != NO_ROOM
        points, place = points.where(placed), place[placed]
        if len(points):
            self._panes.add(points.time, self._cells(layer, points, place), points.values, points.lengths)
            self._touch(layer.owner[points.stream], points.time)
            self._count_hours(layer, points)
        return len(placed) - len(points)

    def _touch(self, owner: Ints, time: Ints) -> None:
        """Note when something was counted: of each owner the oldest and the newest time."""
        numbers, which = np.unique(owner, return_inverse=True)
        oldest, newest = np.full(len(numbers), np.iinfo(np.int64).max), np.zeros(len(numbers), np.int64)
        np.minimum.at(oldest, which, time)
        np.maximum.at(newest, which, time)
        for number, first, last in zip(numbers.tolist(), oldest.tolist(), newest.tolist(), strict=True):
            self._owners[number].touch(first, last)

    def _count_hours(self, layer: _Layer, points: Points) -> None:
        rows = np.flatnonzero(self._counts_rows[points.stream])
        if layer is not self._layers[0] or not len(rows):
            return
        here = points.take(rows)
        owner = layer.owner[here.stream]
        for number, time, value in zip(owner.tolist(), here.time.tolist(), here.sums().tolist(), strict=True):
            model, hour = self._owners[number].model, (time - 1) // HOUR
            model.hours[hour] = model.hours.get(hour, 0) + value
            model.served += value

    def _places(self, layer: _Layer, points: Points) -> Ints:
        """First cell of each point's target, on the bounds that the point came on."""
        stream, shape = points.stream, points.shape
        place = np.where(layer.shape[stream] == shape, layer.place[stream], _UNPLACED)
        for i in np.flatnonzero(place == _UNPLACED).tolist():
            destination, bounds = layer.destinations[int(stream[i])], self._shapes[int(shape[i])]
            if isinstance(bounds, Exponential):
                self._widen(destination, bounds, int(shape[i]))
            place[i] = self._groups.place(destination, bounds, int(points.lengths[i]))
            layer.place[stream[i]], layer.shape[stream[i]] = place[i], shape[i]
            if place[i] != NO_ROOM:
                layer.owner[stream[i]] = self._number(destination)
        return place

    def _number(self, destination: Destination) -> int:
        """The number of whom a series with a place belongs to."""
        key = (destination.model, destination.target, destination.baseline_id)
        number = self._numbers.get(key)
        if number is None:
            number = self._numbers[key] = len(self._owners)
            self._owners.append(self._groups.owner(destination))
        return number

    def _widen(self, destination: Destination, sent: Exponential, shape: int) -> None:
        """Let the buckets of a target hold those of a point, and move what they hold."""
        found = self._groups.exponentials(destination, sent)
        if found is not None and (shape, found.layout) in self._maps:
            return
        moved = self._groups.widen(destination, sent)
        if moved is not None:
            self._panes.relay(moved.first, moved.before.edges, moved.after.edges)

    def _cells(self, layer: _Layer, points: Points, place: Ints) -> Ints:
        """The cell of every value. What exponential histograms have counted goes to the buckets of their target,
        which hold those of all of them."""
        cells = ragged(place, points.lengths)
        there = np.flatnonzero(points.shape < 0)
        if len(there):
            at = zip(layer.owner[points.stream[there]].tolist(), points.shape[there].tolist(), strict=True)
            buckets = np.concatenate([self._map(self._owners[number], shape) for number, shape in at])
            lengths = points.lengths[there]
            own = ragged((np.cumsum(points.lengths) - points.lengths)[there], lengths)
            cells[own] = np.repeat(place[there], lengths) + buckets
        return cells

    def _map(self, owner: Owner, shape: int) -> NDArray[np.int32]:
        """In which bucket of its target each bucket of an exponential histogram lies."""
        sent = self._shapes[shape]
        assert isinstance(sent, Exponential)
        assert owner.group is not None
        common = owner.group.exponentials[sent.zero_threshold].layout
        found = self._maps.get((shape, common))
        if found is None:
            if len(self._maps) >= MAX_MAPS:
                self._maps.clear()
            found = self._maps[shape, common] = sent.cells(common)
        return found
