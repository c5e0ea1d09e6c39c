"""Where increments go: series are resolved to models and targets, and these own cells of the panes.

A group is one target of one monitored model, in one segment or over all rows. Senders of the same service,
environment, model, version, variant and role add up in it. What a series counts is counted once over all
segments, and once more for each segment it is of; other attributes are summed over.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from otel_ml import semconv

from .evaluation import Evaluation, ModelKey, Target
from .layouts import Bounds, Exponential
from .points import Series
from .ragged import ragged
from .reference import ReferenceTarget
from .verdict import Held, Slow

Part = Literal["histogram", "category", "state", "rows"]

NO_ROOM = -1
EXPONENTIAL_CELLS = 192
"""Cells of an exponential histogram of a target: 160 buckets, as SDKs send them at most for one sign, and some."""
MAX_SEGMENT_KEYS = 4
"""Segments that one series can be of; further ones, by name, are summed over."""
MAX_SEGMENTS = 100
"""Segments of a model; those that come after are counted over all rows only."""
CELLS = 64
"""Cells there is room for, times the groups there may be: buckets and states of two baselines at once."""

_OLD_ENVIRONMENT = "deployment.environment"
"""Name of the environment attribute before semantic conventions 1.27; many senders still use it."""


@dataclass(frozen=True, slots=True)
class Destination:
    """What a series counts."""

    model: ModelKey
    """Without variant and role for a reference: a baseline is that of the version."""
    target: Target | None
    """None for the rows of the model."""
    part: Part
    name: str = ""
    """Category or state."""
    baseline_id: str = ""
    reference: bool = False
    """True when it describes the baseline, not current data."""


_CURRENT: Mapping[str, tuple[Part, str, str]] = {
    semconv.FEATURE_VALUE.name: ("histogram", "feature", ""),
    semconv.FEATURE_CATEGORIES.name: ("category", "feature", semconv.FEATURE_CATEGORY),
    semconv.FEATURE_OBSERVATIONS.name: ("state", "feature", semconv.FEATURE_STATE),
    semconv.PREDICTION_SCORES.name: ("histogram", "score", ""),
    semconv.PREDICTION_UNCERTAINTIES.name: ("histogram", "uncertainty", ""),
    semconv.PREDICTIONS.name: ("category", "prediction", semconv.PREDICTION_LABEL),
    semconv.INFERENCE_ROWS.name: ("rows", "", ""),
}
_REFERENCE: Mapping[str, tuple[Part, str]] = {
    semconv.BASELINE_VALUE.name: ("histogram", ""),
    semconv.BASELINE_CATEGORIES.name: ("category", semconv.FEATURE_CATEGORY),
    semconv.BASELINE_OBSERVATIONS.name: ("state", semconv.FEATURE_STATE),
}


def segments(destination: Destination, series: Series) -> list[Destination]:
    """What a series counts besides: the same target in each segment that its attributes name."""
    if destination.target is None or destination.reference:
        return []
    return [
        replace(destination, target=replace(destination.target, segment=segment))
        for segment in _segments(series)[:MAX_SEGMENT_KEYS]
    ]


def _segments(series: Series) -> list[tuple[str, str]]:
    return [
        (key.removeprefix(semconv.SEGMENT_PREFIX), _text(value))
        for key, value in series.attributes
        if key.startswith(semconv.SEGMENT_PREFIX)
    ]


def resolve(series: Series) -> Destination | None:
    """What a series counts; None when it is none of ours or lacks what it needs."""
    attributes = {key: _text(value) for key, value in series.attributes}
    if not attributes.get(semconv.MODEL_NAME):
        return None
    if series.metric in _REFERENCE:
        part, name_key = _REFERENCE[series.metric]
        kind = attributes.get(semconv.DRIFT_TARGET, "")
    elif series.metric in _CURRENT:
        part, kind, name_key = _CURRENT[series.metric]
        if part == "histogram" and attributes.get(semconv.DRIFT_TARGET) == "projection":
            kind = "projection"
    else:
        return None
    reference = series.metric in _REFERENCE
    target = None if part == "rows" else _target(kind, attributes)
    name = attributes.get(name_key, "")
    if not _valid(series, part, target, name):
        return None
    if reference and target is not None:
        cut = _segments(series)
        if len(cut) > 1:
            return None  # what it would be compared with is counted by one key at a time
        target = replace(target, segment=cut[0] if cut else ())
    model = _model(series, attributes, bare=reference)
    return Destination(model, target, part, name, attributes.get(semconv.BASELINE_ID, ""), reference)


def _target(kind: str, attributes: Mapping[str, str]) -> Target | None:
    if kind not in semconv.TARGETS:
        return None
    if kind not in ("feature", "projection"):
        return Target(kind, attributes.get(semconv.FEATURE_NAME, ""))
    name = attributes.get(semconv.FEATURE_NAME)
    return Target(kind, name) if name is not None else None


def _valid(series: Series, part: Part, target: Target | None, name: str) -> bool:
    if (series.kind == "histogram") != (part == "histogram") or (target is None and part != "rows"):
        return False
    return part != "state" or name in semconv.STATES


def _model(series: Series, attributes: Mapping[str, str], *, bare: bool) -> ModelKey:
    resource = {key: _text(value) for key, value in series.resource}
    return ModelKey(
        resource.get(semconv.SERVICE_NAMESPACE, ""),
        resource.get(semconv.SERVICE_NAME, ""),
        resource.get(semconv.DEPLOYMENT_ENVIRONMENT, resource.get(_OLD_ENVIRONMENT, "")),
        attributes[semconv.MODEL_NAME],
        attributes.get(semconv.MODEL_VERSION, ""),
        "" if bare else attributes.get(semconv.VARIANT_NAME, ""),
        "live" if bare else attributes.get(semconv.VARIANT_ROLE, "live"),
    )


def _text(value: str | bool | int | float) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


@dataclass(slots=True)
class Slot:
    """A run of cells."""

    offset: int
    length: int


@dataclass(slots=True)
class Exponentials:
    """The cells of all exponential histograms of a target: one scale that holds them all."""

    slot: Slot
    layout: Exponential


@dataclass(frozen=True, slots=True)
class Moved:
    """Buckets that changed, and their first cell."""

    first: int
    before: Exponential
    after: Exponential


@dataclass(slots=True)
class Group:
    """The cells of one target of one model."""

    histograms: dict[tuple[float, ...], Slot] = field(default_factory=dict)
    """By bounds: baselines that follow one another may differ in them."""
    exponentials: dict[float, Exponentials] = field(default_factory=dict)
    """By zero threshold."""
    categories: dict[str, Slot] = field(default_factory=dict)
    states: Slot | None = None
    last: int = 0
    """Time of the newest increment, Unix ns."""

    def slots(self) -> Iterator[Slot]:
        yield from self.histograms.values()
        yield from (exponentials.slot for exponentials in self.exponentials.values())
        yield from self.categories.values()
        if self.states is not None:
            yield self.states

    def layouts(self) -> Iterator[tuple[Bounds, Slot]]:
        """Bounds of every histogram, and the cells that are in use for them."""
        yield from self.histograms.items()
        for exponentials in self.exponentials.values():
            yield exponentials.layout, exponentials.slot

    def place(self, destination: Destination, bounds: Bounds) -> Slot | None:
        """Where a series counts in this group, if there is a place already."""
        if isinstance(bounds, Exponential):
            found = self.exponentials.get(bounds.zero_threshold)
            return found.slot if found else None
        if destination.part == "histogram":
            return self.histograms.get(bounds)
        if destination.part == "category":
            return self.categories.get(destination.name)
        return self.states

    def size(self) -> int:
        return sum(slot.length for slot in self.slots())


@dataclass(slots=True)
class Monitored:
    """What is known about one monitored model."""

    key: ModelKey
    groups: dict[Target, Group] = field(default_factory=dict)
    rows: Slot | None = None
    first: int = 0
    last: int = 0
    """Times of the oldest and the newest increment, Unix ns."""
    baselines: dict[str, int] = field(default_factory=dict)
    """Ids that the data named, with the time of the newest increment."""
    held: dict[Target, Held] = field(default_factory=dict)
    slow: dict[Target, Slow] = field(default_factory=dict)
    latest: Evaluation | None = None
    kept: dict[Target, tuple[int, ReferenceTarget | None]] = field(default_factory=dict)
    """References made of its own past, with the start of the window they were made for."""
    drifting: dict[Target, int] = field(default_factory=dict)
    """When targets that drift, or did, were last seen drifting, Unix ns."""
    closed: int = 0
    """End of its last window by count, Unix ns."""
    hours: dict[int, int] = field(default_factory=dict)
    """Rows by hour since the epoch, those that the model itself reported."""
    segments: set[tuple[str, ...]] = field(default_factory=set)
    """Those that it has targets of."""
    said: dict[Target, int] = field(default_factory=dict)
    """The status of the newest verdict on each target, and on its activity."""
    served: int = 0
    """Rows it reported since `served_with` is its baseline."""
    served_with: str = ""

    def rows_served(self, baseline_id: str) -> int:
        """Rows it reported since this is its baseline; what it served before it had any counts for the first."""
        if baseline_id and baseline_id != self.served_with:
            self.served = 0 if self.served_with else self.served
            self.served_with = baseline_id
        return self.served

    def admits(self, segment: tuple[str, ...]) -> bool:
        """Whether there is room for a target of this segment, () being all rows."""
        return not segment or segment in self.segments or len(self.segments) < MAX_SEGMENTS

    def slots(self) -> Iterator[Slot]:
        for group in self.groups.values():
            yield from group.slots()
        if self.rows is not None:
            yield self.rows


@dataclass(frozen=True, slots=True)
class Owner:
    """Whom the counts of a series belong to, as long as nothing expires."""

    model: Monitored
    group: Group | None
    baseline_id: str

    def touch(self, oldest: int, newest: int) -> None:
        """Note from when to when something was counted."""
        model, group = self.model, self.group
        if oldest < model.first or not model.first:
            model.first = oldest
        if newest > model.last:
            model.last = newest
        if group is not None and newest > group.last:
            group.last = newest
        if self.baseline_id and newest > model.baselines.get(self.baseline_id, 0):
            model.baselines[self.baseline_id] = newest


class Groups:
    """All monitored models and the cells they own."""

    def __init__(self, *, max_groups: int, max_buckets: int) -> None:
        self._max_groups = max_groups
        self._max_buckets = max_buckets
        # Every pane is as long as all cells: a share for each group, not the most that each may have.
        self._max_cells = CELLS * max_groups + 4 * max_buckets
        self._cells = 0
        self._count = 0
        self.models: dict[ModelKey, Monitored] = {}

    def __len__(self) -> int:
        return self._count

    def state(self) -> dict[str, object]:
        """For `restore`."""
        return {"models": list(self.models.values()), "cells": self._cells}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Be as when `state` was taken."""
        self.models = {model.key: model for model in state["models"]}
        self._cells = state["cells"]
        self._count = sum(len(model.groups) for model in self.models.values())

    def place(self, destination: Destination, bounds: Bounds, length: int) -> int:
        """First cell that a series counts in, made if need be; `NO_ROOM` when a limit forbids it."""
        model = self.models.get(destination.model)
        if destination.target is None:
            return self._rows(destination.model)
        group = model.groups.get(destination.target) if model else None
        slot = group.place(destination, bounds) if group else None
        if slot is None and not isinstance(bounds, Exponential):
            slot = self._make(destination, bounds, length)
        if slot is None:
            return NO_ROOM
        return slot.offset + (semconv.STATES.index(destination.name) if destination.part == "state" else 0)

    def _rows(self, key: ModelKey) -> int:
        model = self._model(key)
        if model is None:
            return NO_ROOM
        if model.rows is None:
            model.rows = self._allocate(1)
        return model.rows.offset

    def _model(self, key: ModelKey) -> Monitored | None:
        model = self.models.get(key)
        if model is None and len(self.models) < self._max_groups:
            model = self.models[key] = Monitored(key)
        return model

    def widen(self, destination: Destination, sent: Exponential) -> Moved | None:
        """Let the exponential histogram of a target hold `sent`; what that moves in its cells."""
        group = self._group(destination)
        if group is None:
            return None
        found = group.exponentials.get(sent.zero_threshold)
        if found is not None:
            before, found.layout = found.layout, found.layout.together(sent, EXPONENTIAL_CELLS)
            return None if before == found.layout else Moved(found.slot.offset, before, found.layout)
        slot = self._room(group, EXPONENTIAL_CELLS)
        if slot is not None:
            layout = sent.within(EXPONENTIAL_CELLS)
            group.exponentials[sent.zero_threshold] = Exponentials(slot, layout)
        return None

    def exponentials(self, destination: Destination, sent: Exponential) -> Exponentials | None:
        """Where exponential histograms of a target like this one are counted, if there is a place already."""
        model = self.models.get(destination.model)
        group = model.groups.get(destination.target) if model and destination.target else None
        return group.exponentials.get(sent.zero_threshold) if group else None

    def _group(self, destination: Destination) -> Group | None:
        """The group of a destination, made if there is room."""
        model, target = self._model(destination.model), destination.target
        assert target is not None
        if model is None:
            return None
        group = model.groups.get(target)
        if group is None and self._count < self._max_groups and model.admits(target.segment):
            group = model.groups[target] = Group()
            if target.segment:
                model.segments.add(target.segment)
            self._count += 1
        return group

    def _make(self, destination: Destination, bounds: tuple[float, ...], length: int) -> Slot | None:
        group = self._group(destination)
        if group is None:
            return None
        if destination.part == "state":
            group.states = self._allocate(len(semconv.STATES))
            return group.states
        slot = self._room(group, length)
        if slot is not None and destination.part == "histogram":
            group.histograms[bounds] = slot
        elif slot is not None:
            group.categories[destination.name] = slot
        return slot

    def _room(self, group: Group, length: int) -> Slot | None:
        # Twice: two baselines of one version may be served at the same time, and states need a place, too.
        if group.size() + length > max(2 * self._max_buckets, EXPONENTIAL_CELLS) + len(semconv.STATES):
            return None
        return self._allocate(length) if self._cells + length <= self._max_cells else None

    def _allocate(self, length: int) -> Slot:
        slot = Slot(self._cells, length)
        self._cells += length
        return slot

    def owner(self, destination: Destination) -> Owner:
        """Model and group of a series that has a place."""
        model = self.models[destination.model]
        group = None if destination.target is None else model.groups[destination.target]
        return Owner(model, group, destination.baseline_id)

    def expire(self, before: int) -> bool:
        """Forget models and groups without a row since `before`; whether there were any."""
        gone = [key for key, model in self.models.items() if model.last < before]
        for key in gone:
            self._count -= len(self.models.pop(key).groups)
        idle = [
            (model, target)
            for model in self.models.values()
            for target, group in model.groups.items()
            if group.last < before
        ]
        for model, target in idle:
            del model.groups[target]
            for held in (model.held, model.slow, model.kept, model.drifting, model.said):
                held.pop(target, None)
            self._count -= 1
        for model in self.models.values():
            if idle:
                model.segments = {target.segment for target in model.groups if target.segment}
            model.baselines = {name: time for name, time in model.baselines.items() if time >= before}
        return bool(gone or idle)

    def compact(self) -> NDArray[np.int64]:
        """Renumber the cells that are in use without holes; (n,) the old number of each."""
        slots = [slot for model in self.models.values() for slot in model.slots()]
        lengths = np.array([slot.length for slot in slots], np.int64)
        old = ragged(np.array([slot.offset for slot in slots], np.int64), lengths)
        for slot, end in zip(slots, np.cumsum(lengths).tolist(), strict=True):
            slot.offset = end - slot.length
        self._cells = len(old)
        return old
