"""The collector's engine: points in, evaluations out.

`ingest` resolves series and puts their points into the reorder buffer; `advance` applies what the watermark
has passed, credits it to panes, and evaluates the windows that ended. There is no I/O and no clock in here:
the same calls give the same answers.

The watermark is `now` minus the allowed lateness. Points stamped ahead of `now` are a sender's clock that
runs ahead; they say nothing about whether the points of others are complete, and do not move it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from otel_ml import semconv

from .assess import View, assess, grown
from .baselines import DELTA_REASON, Baselines
from .drift import Policy
from .evaluation import Evaluation, Target
from .groups import NO_ROOM, Destination, Groups, Monitored, Owner, resolve
from .points import PointBatch, Series
from .streams import Applied, Points, Streams, ragged
from .window import MAX_STEPS, Panes, WindowSpec, nanoseconds, steps_between

if TYPE_CHECKING:
    from otel_ml.baseline import Baseline

FUTURE = 60 * 1_000_000_000
"""How far ahead of us (ns) a sender's clock may run, or as far as the lateness if that is more."""
KEEP_SENDER = 3600 * 1_000_000_000
"""How long (ns) the series of a silent process are kept at least when room gets scarce: pods come and go."""
KEEP_BASELINE = 3600 * 1_000_000_000
"""How long (ns) a baseline from the wire is kept at least; services repeat theirs every few minutes."""

COUNTERS = (
    "points", "late", "future", "duplicate", "reset", "restart", "initial", "initial_rows", "overlap", "gap",
    "rejected_limit", "crowded", "malformed", "loop", "ignored", "baseline_delta", "baseline_empty", "errors",
)  # fmt: skip
"""What `Engine.counters` counts: points by their fate, rows from before our time, comparisons that failed."""

_IGNORED, _LOOP, _BASELINE, _LIMIT = -1, -2, -3, -4
_UNPLACED = -1

_SHARED_IDENTITY = (
    "two senders of service {service!r} share one identity, so that their counts cannot be told apart; "
    "give every process a service.instance.id of its own (seen in {metric} of model {model!r})"
)
_DELTA_BASELINE = (
    "the baseline of model {model!r} arrives as delta and cannot be used: a cumulative-to-delta processor "
    "stands in front of this collector. Leave the baseline out of it: "
    "processors: {{cumulativetodelta: {{exclude: {{match_type: regexp, metrics: ['ml\\.baseline\\..*']}}}}}}"
)


@dataclass(frozen=True, slots=True)
class Limits:
    """How much the engine may hold; what goes beyond is refused and counted."""

    max_streams: int = 100_000
    """Series of all senders."""
    max_groups: int = 20_000
    """Targets of all models, and as many targets of baselines."""
    max_buckets: int = 512
    """Buckets of a histogram, categories of a target."""


class Engine:
    """All monitored models of one collector.

    `started` is when the collector began (Unix ns): cumulative series that are older count from their second
    point on. Raises nothing after construction.
    """

    def __init__(
        self,
        window: WindowSpec,
        policy: Policy,
        limits: Limits | None = None,
        *,
        baselines: Sequence[Baseline] = (),
        started: int,
    ) -> None:
        self._window = window
        self._policy = policy
        self._limits = limits or Limits()
        caps = self._limits
        self._lateness = nanoseconds(window.lateness)
        self._future = max(self._lateness, FUTURE)
        self._streams = Streams(
            started=started,
            initial_max_age=nanoseconds(window.initial_max_age),
            watermark=started - self._lateness,
        )
        self._groups = Groups(max_groups=caps.max_groups, max_buckets=caps.max_buckets)
        self._baselines = Baselines(baselines, max_targets=caps.max_groups, max_buckets=caps.max_buckets)
        self._panes = Panes(window)
        self._shapes: dict[tuple[float, ...], int] = {(): 0}
        self._bounds: dict[int, tuple[float, ...]] = {0: ()}
        self._next_shape = 1
        self._routes: dict[int, tuple[Series, int]] = {}
        self._destinations: dict[int, Destination] = {}
        self._owners: dict[int, Owner] = {}
        self._place = np.full(64, _UNPLACED, np.int64)
        self._place_shape = np.zeros(64, np.int64)
        self._counts: Counter[str] = Counter(dict.fromkeys(COUNTERS, 0))
        self._said: set[tuple[str, ...]] = set()
        self._messages: list[str] = []
        self._stepped = started - self._lateness
        self._refreshed = 0

    # --- points in ----------------------------------------------------------------------------------------

    def ingest(self, batch: PointBatch, now: int) -> Mapping[str, int]:
        """Take the points of one request; how many were not accepted, by reason. `now` is Unix ns."""
        self._counts["points"] += len(batch)
        rejected: Counter[str] = Counter()
        if not len(batch):
            return rejected
        code = np.array([self._route(series, now) for series in batch.series], np.int64)[batch.index]
        for name, value in (("loop", _LOOP), ("ignored", _IGNORED)):
            self._counts[name] += int((code == value).sum())
        rejected["limit"] = int((code == _LIMIT).sum())
        self._take_baselines(batch, np.flatnonzero(code == _BASELINE), now, rejected)
        usable = self._usable(batch, code, now, rejected)
        self._streams.push(self._points(batch, code, usable), now)
        rejected = +rejected
        self._counts.update(
            {"rejected_limit" if name == "limit" else name: n for name, n in rejected.items()}
        )
        return rejected

    def _route(self, series: Series, now: int) -> int:
        """The stream of a series, or why it has none."""
        # Decoders hand out the same object for the same series; its identity is much cheaper than its hash.
        known = self._routes.get(id(series))
        if known is not None and known[0] is series:
            return known[1]
        code = self._find(series, now)
        if len(self._routes) > 2 * self._limits.max_streams:
            self._routes.clear()
        if code != _LIMIT:
            self._routes[id(series)] = (series, code)
        return code

    def _find(self, series: Series, now: int) -> int:
        stream = self._streams.find(series)
        if stream is not None:
            return stream
        if series.scope == semconv.DRIFT_SCOPE:
            return _LOOP
        destination = resolve(series)
        if destination is None:
            return _IGNORED
        if destination.reference:
            return _BASELINE
        if len(self._streams) >= self._limits.max_streams:
            return _LIMIT
        return self._new_stream(series, destination, now)

    def _new_stream(self, series: Series, destination: Destination, now: int) -> int:
        stream = self._streams.add(series, now)
        self._destinations[stream] = destination
        if stream >= len(self._place):
            more = np.full(stream + 1, _UNPLACED, np.int64)
            self._place = np.concatenate([self._place, more])
            self._place_shape = np.concatenate([self._place_shape, more])
        self._place[stream] = _UNPLACED
        return stream

    def _take_baselines(
        self, batch: PointBatch, which: NDArray[np.int64], now: int, rejected: Counter[str]
    ) -> None:
        for i in which.tolist():
            about = resolve(batch.series[batch.index[i]])
            assert about is not None
            values = batch.values[batch.offsets[i] : batch.offsets[i + 1]]
            if not self._well_formed(about.part == "histogram", len(values), len(batch.bounds[i])):
                rejected["malformed"] += 1
                continue
            reason = self._baselines.observe(
                about, values, batch.bounds[i],
                start=int(batch.start[i]), time=int(batch.time[i]),
                temporality=int(batch.temporality[i]), now=now,
            )  # fmt: skip
            if reason is not None:
                rejected[reason] += 1
            if reason == DELTA_REASON:
                self._say(_DELTA_BASELINE, model=about.model.model)

    @staticmethod
    def _well_formed(histogram: bool, values: int, bounds: int) -> bool:
        return values == (bounds + 1 if histogram else 1)

    def _usable(
        self, batch: PointBatch, code: NDArray[np.int64], now: int, rejected: Counter[str]
    ) -> NDArray[np.int64]:
        """Positions of the points that go into the reorder buffer."""
        which = np.flatnonzero(code >= 0)
        lengths = np.diff(batch.offsets)
        expected = np.fromiter(map(len, batch.bounds), np.int64, len(batch)) + 1
        late, repeated = self._streams.late(code[which], batch.start[which], batch.time[which])
        negative = np.zeros(len(batch), bool)
        if len(batch.values) and int(batch.values.min()) < 0:
            negative[np.repeat(np.arange(len(batch)), lengths)[batch.values < 0]] = True
        unusable = {
            "malformed": ((lengths != expected) | negative)[which],
            "limit": lengths[which] > self._limits.max_buckets,
            "future": batch.time[which] > now + self._future,
            "late": late,
            "duplicate": repeated,
            "crowded": self._streams.crowded(code[which]),
        }
        accepted = np.ones(len(which), bool)
        for reason, mask in unusable.items():
            found = int((mask & accepted).sum())
            if reason == "duplicate":
                self._counts["duplicate"] += found
            elif found:
                rejected[reason] += found
            accepted &= ~mask
        return which[accepted]

    def _points(self, batch: PointBatch, code: NDArray[np.int64], which: NDArray[np.int64]) -> Points:
        lengths = np.diff(batch.offsets)[which]
        shapes = np.array([self._shape(batch.bounds[i]) for i in which.tolist()], np.int64)
        whole = len(which) == len(batch)
        values = batch.values if whole else batch.values[ragged(batch.offsets[:-1][which], lengths)]
        return Points(
            code[which],
            batch.start[which],
            batch.time[which],
            batch.temporality[which],
            shapes,
            lengths,
            values,
        )

    def _shape(self, bounds: tuple[float, ...]) -> int:
        shape = self._shapes.get(bounds)
        if shape is None:
            shape = self._shapes[bounds] = self._next_shape
            self._bounds[shape] = bounds
            self._next_shape += 1  # never used again: what remembers a shape must not take another for it
        return shape

    def _forget_shapes(self) -> None:
        """Let go of bounds that no stream has any more, once they are many."""
        if len(self._bounds) > 2 * len(self._streams) + 1000:
            used = {0, *self._streams.shapes()}
            self._bounds = {shape: bounds for shape, bounds in self._bounds.items() if shape in used}
            self._shapes = {bounds: shape for shape, bounds in self._bounds.items()}

    # --- evaluations out ----------------------------------------------------------------------------------

    def advance(self, now: int) -> list[Evaluation]:
        """Evaluations that became due by `now` (Unix ns): final ones at a step, a refresh in between."""
        return list(self.advancing(now))

    def advancing(self, now: int) -> Iterator[Evaluation]:
        """As `advance`, one evaluation at a time. To be taken to its end; until then only `ingest` may be called."""
        watermark = max(now - self._lateness, self._streams.watermark)
        applied = self._streams.apply(watermark)
        if applied is not None:
            self._credit(applied)
        yield from self._due(watermark, now)

    def _due(self, watermark: int, now: int) -> Iterator[Evaluation]:
        window = self._window
        ends = steps_between(self._stepped, watermark, window.step_ns)[-MAX_STEPS:]
        refresh = watermark // nanoseconds(window.refresh)
        if not ends and refresh <= self._refreshed:
            return
        self._refreshed = max(self._refreshed, refresh)
        for end in ends:
            self._stepped = end
            fast = watermark if end == ends[-1] else None
            yield from self._evaluate(end - window.length_ns, end, fast=fast, final=True)
        if not ends:
            start = (watermark // window.step_ns + 1) * window.step_ns - window.length_ns
            yield from self._evaluate(start, watermark, fast=watermark, final=False)
        self._panes.roll(watermark)
        self._expire(watermark, now)

    def _evaluate(self, start: int, end: int, *, fast: int | None, final: bool) -> Iterator[Evaluation]:
        # Whoever expired before this end is left out, however seldom `advance` is called.
        idle = end - self._window.expiry_ns
        models = [
            model for model in self._groups.models.values() if model.first <= end and model.last >= idle
        ]
        for model in models:
            model.latest = self._evaluate_model(model, start, end, fast=fast, final=final)
            yield model.latest

    def _evaluate_model(
        self, model: Monitored, start: int, end: int, *, fast: int | None, final: bool
    ) -> Evaluation:
        def failed(target: Target, error: Exception) -> None:
            self._counts["errors"] += 1
            self._say("the comparison of {target} failed: {error}", target=repr(target), error=repr(error))

        view = grown(model, self._panes, self._window, start=start, end=end, min_rows=self._policy.min_rows)
        ids = [name for name, last in model.baselines.items() if last > view.start]
        reference = self._baselines.reference(model.key, ids)
        short = self._short(model, fast) if fast is not None else None
        targets = assess(view, short, reference, self._policy, final=final, failed=failed)
        return Evaluation(
            model=model.key,
            window_name="",
            window_start=view.start,
            window_end=end,
            rows=int(view.rows().sum()),
            final=final,
            baseline_id=reference.id if reference else "",
            baseline_created=reference.created if reference else 0,
            baseline_rows=reference.rows if reference else 0,
            targets=targets,
        )

    def _short(self, model: Monitored, end: int) -> View | None:
        """The fast lane up to `end`; None when the window has none."""
        length = self._window.fast_ns
        if not length:
            return None
        width = self._window.fine_ns
        return View.of(model, self._panes, -(-end // width) * width - length, end, width=width)

    def current(self, now: int) -> tuple[Evaluation, ...]:
        """The latest evaluation of every model that is not idle for too long at `now` (Unix ns)."""
        before = now - self._lateness - self._window.expiry_ns
        models = self._groups.models.values()
        return tuple(model.latest for model in models if model.latest is not None and model.last >= before)

    # --- what the numbers are kept in ---------------------------------------------------------------------

    def _credit(self, applied: Applied) -> None:
        """Add increments up in the panes of their time."""
        self._counts.update(applied.counts)
        self._note_overlaps(applied.overlapping)
        self._note_initial(applied.initial)
        points = applied.increments
        if not len(points):
            return
        points = points.take(np.flatnonzero(points.sums() > 0))
        place = self._places(points)
        placed = np.flatnonzero(place != NO_ROOM)
        self._counts["rejected_limit"] += len(points) - len(placed)
        points, place = points.take(placed), place[placed]
        cells = ragged(place, points.lengths)
        some = np.flatnonzero(points.values)
        if len(some):
            times = np.repeat(points.time, points.lengths)
            self._panes.add(times[some], cells[some], points.values[some])
        for stream, time in zip(points.stream.tolist(), points.time.tolist(), strict=True):
            self._owners[stream].touch(time)

    def _places(self, points: Points) -> NDArray[np.int64]:
        """First cell of each point."""
        stream, shape = points.stream, points.shape
        place = np.where(self._place_shape[stream] == shape, self._place[stream], _UNPLACED)
        for i in np.flatnonzero(place == _UNPLACED).tolist():
            bounds = self._bounds[int(shape[i])]
            destination = self._destinations[int(stream[i])]
            place[i] = self._groups.place(destination, bounds, int(points.lengths[i]))
            self._place[stream[i]], self._place_shape[stream[i]] = place[i], shape[i]
            if place[i] != NO_ROOM:
                self._owners[int(stream[i])] = self._groups.owner(destination)
        return place

    def _note_overlaps(self, streams: Sequence[int]) -> None:
        for stream in streams:
            model = self._destinations[stream].model
            metric = self._streams.series(stream).metric
            self._say(_SHARED_IDENTITY, once=model.service_name, service=model.service_name, metric=metric,
                      model=model.model)  # fmt: skip

    def _note_initial(self, points: Points) -> None:
        for stream, rows in zip(points.stream.tolist(), points.sums().tolist(), strict=True):
            if self._destinations[stream].part == "rows":
                self._counts["initial_rows"] += rows

    def _expire(self, watermark: int, now: int) -> None:
        """Forget models, streams and baselines that have been idle for too long."""
        expiry = self._window.expiry_ns
        if self._groups.expire(watermark - expiry):
            self._panes.keep(self._groups.compact())
            self._place[:] = _UNPLACED
            self._owners.clear()
        quiet = max(expiry, nanoseconds(self._window.initial_max_age))
        gone = self._streams.expire(now - quiet - self._lateness)
        if 2 * len(self._streams) > self._limits.max_streams:
            quiet = max(KEEP_SENDER, nanoseconds(self._window.initial_max_age))
            gone += self._streams.expire(now - quiet - self._lateness, senders=True)
        for stream in gone:
            del self._destinations[stream]
            self._owners.pop(stream, None)
        if gone:
            self._routes.clear()
        self._forget_shapes()
        named = {key: model.baselines for key, model in self._groups.models.items()}
        self._baselines.expire(now - max(expiry, KEEP_BASELINE), named)

    # --- how it is ----------------------------------------------------------------------------------------

    def counters(self) -> Mapping[str, int]:
        """Totals since the start, see `COUNTERS`."""
        return dict(self._counts)

    def stats(self) -> Mapping[str, int]:
        """Current sizes."""
        return {
            "streams": len(self._streams),
            "groups": len(self._groups),
            "models": len(self._groups.models),
            "baselines": len(self._baselines),
            "pending": self._streams.pending,
            "panes": len(self._panes),
        }

    @property
    def pending_values(self) -> int:
        """Numbers that wait in the reorder buffer, 8 bytes each."""
        return self._streams.pending_values

    def messages(self) -> list[str]:
        """What is worth saying once and was not said yet."""
        messages, self._messages = self._messages, []
        return messages

    def _say(self, text: str, *, once: str = "", **values: str) -> None:
        key = (text, once or repr(sorted(values.items())))
        if key not in self._said and len(self._said) < 1000:
            self._said.add(key)
            self._messages.append(text.format(**values))
