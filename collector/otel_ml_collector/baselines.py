"""References to compare with: from baseline files, and from points that services send about theirs.

Baseline points describe totals. They are never differenced: the newest value of each is taken, so that they
may come before or after the data, again and again.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from otel_ml import semconv
from otel_ml.summary import CategoricalSummary, NumericSummary, Summary

from .evaluation import ModelKey, Target
from .groups import Destination, resolve
from .layouts import Exponential
from .points import CUMULATIVE, PointBatch
from .reference import Reference, ReferenceTarget

if TYPE_CHECKING:
    from otel_ml.baseline import Baseline

Counts = NDArray[np.int64]

DELTA_REASON = "baseline_delta"
EMPTY_REASON = "baseline_empty"
MALFORMED_REASON = "malformed"
LIMIT_REASON = "limit"


@dataclass(slots=True)
class Latest:
    """Newest value of what the points of one target say, with its time."""

    histogram: tuple[int, tuple[float, ...], Counts] | None = None
    categories: dict[str, tuple[int, int]] = field(default_factory=dict)
    states: dict[str, tuple[int, int]] = field(default_factory=dict)

    def has_room(self, about: Destination, length: int, max_buckets: int) -> bool:
        """Whether a point about it keeps its histogram and its categories within `max_buckets`."""
        known = about.part != "category" or about.name in self.categories
        return length <= max_buckets and (known or len(self.categories) < max_buckets)

    def take(self, part: str, name: str, time: int, values: Counts, bounds: tuple[float, ...]) -> None:
        if part == "histogram":
            if self.histogram is None or time >= self.histogram[0]:
                self.histogram = (time, bounds, values.copy())
            return
        latest = self.categories if part == "category" else self.states
        if time >= latest.get(name, (0, 0))[0]:
            latest[name] = (time, int(values[0]))

    def target(self) -> ReferenceTarget:
        made = ReferenceTarget(
            categories={name: value for name, (_, value) in self.categories.items()} or None,
            states=np.array([self.states.get(state, (0, 0))[1] for state in semconv.STATES], np.int64)
            if self.states
            else None,
        )
        if self.histogram is None:
            return made
        return replace(made, bounds=self.histogram[1], counts=self.histogram[2])


@dataclass(slots=True)
class OverWire:
    """One baseline as its points tell it."""

    created: int = 0
    received: int = 0
    latest: dict[Target, Latest] = field(default_factory=dict)
    made: Reference | None = None

    def reference(self, baseline_id: str) -> Reference:
        if self.made is None:
            targets = {target: latest.target() for target, latest in self.latest.items()}
            rows = max((target.rows for target in targets.values()), default=0)
            self.made = Reference(baseline_id, self.created, rows, targets)
        return self.made


class Baselines:
    """Every baseline the collector knows, and which of them a model is compared with."""

    def __init__(self, files: Sequence[Baseline] = (), *, max_targets: int, max_buckets: int) -> None:
        self.use_files(files)
        self._wire: dict[ModelKey, dict[str, OverWire]] = {}
        self._max_targets = max_targets
        self._max_buckets = max_buckets
        self._targets = 0

    def use_files(self, files: Sequence[Baseline]) -> None:
        """Take these for what files say, instead of those before."""
        self._files = [(baseline.model, baseline.version, from_file(baseline)) for baseline in files]

    def state(self) -> dict[str, object]:
        """What came over the wire, for `restore`; files are read anew."""
        wire = {
            model: {name: replace(one, made=None) for name, one in known.items()}
            for model, known in self._wire.items()
        }
        return {"wire": wire, "targets": self._targets}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Know what was known over the wire when `state` was taken."""
        self._wire, self._targets = state["wire"], state["targets"]

    def __len__(self) -> int:
        return len(self._files) + sum(len(known) for known in self._wire.values())

    def take(self, batch: PointBatch, which: Iterable[int], now: int) -> Iterator[tuple[str, ModelKey]]:
        """Take these points, which arrived at `now` (Unix ns); of those that are refused the reason and the model."""
        for i in which:
            about, bounds = resolve(batch.series[batch.index[i]]), batch.bounds[i]
            assert about is not None
            values = batch.values[batch.offsets[i] : batch.offsets[i + 1]]
            reason: str | None = MALFORMED_REASON
            if len(values) == (len(bounds) + 1 if about.part == "histogram" else 1):
                reason = self.observe(
                    about, values, tuple(bounds.edges.tolist()) if isinstance(bounds, Exponential) else bounds,
                    start=int(batch.start[i]), time=int(batch.time[i]),
                    temporality=int(batch.temporality[i]), now=now,
                )  # fmt: skip
            if reason is not None:
                yield reason, about.model

    def observe(
        self,
        about: Destination,
        values: Counts,
        bounds: tuple[float, ...],
        *,
        start: int,
        time: int,
        temporality: int,
        now: int,
    ) -> str | None:
        """Take one baseline point; the reason when it is refused. `now` is when it arrived, Unix ns."""
        if temporality != CUMULATIVE:
            return DELTA_REASON
        if about.part == "histogram" and not values.any():
            return EMPTY_REASON
        if not values.any():
            return None  # nothing was counted there, which is what a category or state not sent says, too
        latest = self._latest(about, start, now)
        if latest is None or not latest.has_room(about, len(values), self._max_buckets):
            return LIMIT_REASON
        latest.take(about.part, about.name, time, values, bounds)
        return None

    def _latest(self, about: Destination, start: int, now: int) -> Latest | None:
        assert about.target is not None
        known = self._wire.get(about.model, {}).get(about.baseline_id)
        if known is None or about.target not in known.latest:
            if self._targets >= self._max_targets:
                return None
            known = self._wire.setdefault(about.model, {}).setdefault(about.baseline_id, OverWire())
            known.latest[about.target] = Latest()
            self._targets += 1
        known.created = max(known.created, start)
        known.received = now
        known.made = None
        return known.latest[about.target]

    def reference(self, model: ModelKey, ids: Collection[str]) -> Reference | None:
        """What `model` is compared with: the newest baseline that its data name, else that of its version.

        A file wins over the points of the same baseline.
        """
        known = {r.id: r for r in self._over_wire(model)}
        known |= {
            r.id: r
            for name, version, r in self._files
            if r.id in ids or (name, version) == (model.model, model.version)
        }
        named = [known[i] for i in ids if i in known]
        return max(named or known.values(), key=lambda r: (r.created, r.id), default=None)

    def _over_wire(self, model: ModelKey) -> list[Reference]:
        known = self._wire.get(replace(model, variant="", role="live"), {})
        return [baseline.reference(baseline_id) for baseline_id, baseline in known.items()]

    def expire(self, before: int, models: Mapping[ModelKey, Collection[str]]) -> None:
        """Forget what was last received before `before` (Unix ns) and is of no use any more.

        Of use to the live `models` are the baselines that their data name, and the newest one.
        """
        named: dict[ModelKey, set[str]] = {}
        for model, ids in models.items():
            named.setdefault(replace(model, variant="", role="live"), set()).update(ids)
        for model, known in list(self._wire.items()):
            used = named.get(model, set())
            if model in named:
                used.add(max(known, key=lambda i: (known[i].created, i)))
            for baseline_id in [i for i, one in known.items() if one.received < before and i not in used]:
                self._targets -= len(known.pop(baseline_id).latest)
            if not known:
                del self._wire[model]


def from_file(baseline: Baseline) -> Reference:
    """A baseline file's content in the form the engine compares with."""
    targets = {Target("feature", name): _summary(summary) for name, summary in baseline.features.items()}
    # Outputs have a value in every row, so their states are not compared.
    outputs = (
        ("score", baseline.scores), ("prediction", baseline.predictions), ("uncertainty", baseline.uncertainty),
    )  # fmt: skip
    for kind, summary in outputs:
        if summary is not None:
            targets[Target(kind)] = replace(_summary(summary), states=None)
    for projection in baseline.projections:
        known = replace(_summary(projection.summary), states=None, loadings=tuple(projection.largest()))
        targets[Target("projection", projection.summary.name)] = known
    created = int(baseline.created_at.timestamp() * 1e9)
    return Reference(baseline.id, created, baseline.rows, targets)


def _summary(summary: Summary) -> ReferenceTarget:
    states = np.asarray(summary.states, np.int64)
    if isinstance(summary, NumericSummary):
        counts = np.asarray(summary.bucket_counts, np.int64)
        return ReferenceTarget(
            bounds=tuple(summary.bounds.tolist()), counts=counts, quantiles=summary.quantiles, states=states
        )
    if isinstance(summary, CategoricalSummary):
        named = {name: times for name, times in summary.categories.items() if times}
        other = {semconv.OTHER: summary.other} if summary.other else {}
        return ReferenceTarget(categories={**named, **other}, states=states)
    return ReferenceTarget(states=states)
