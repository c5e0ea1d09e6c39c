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
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from otel_ml.errors import ConfigurationError

from . import notices
from .activity import activity, forget
from .assess import assess
from .baselines import DELTA_REASON, Baselines
from .changes import activity_after
from .drift import Policy
from .evaluation import Evaluation, Target, TargetEvaluation
from .groups import Groups, Monitored
from .layouts import Shapes
from .ledger import Ledger
from .notices import Notices
from .past import LEARN_ROWS, Past
from .past import Kind as PastKind
from .points import PointBatch
from .ragged import Points
from .routes import BASELINE, IGNORED, LIMIT, LOOP, Routes
from .snapshot import SCHEMA, Part, freeze, pack, unpack
from .streams import Applied, Streams
from .view import View, grown, whole
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


@dataclass(frozen=True, slots=True)
class Limits:
    """How much the engine may hold; what goes beyond is refused and counted."""

    max_streams: int = 100_000
    """Series of all senders; of one service `shares.SHARE` of them."""
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
        past: PastKind | None = None,
        learn_rows: int = LEARN_ROWS,
        started: int,
    ) -> None:
        self._window = window
        self.policy = policy  # another one counts from the next evaluation on
        self._limits = caps = limits or Limits()
        self._lateness = nanoseconds(window.lateness)
        self._future = max(self._lateness, FUTURE)
        self._shapes = Shapes()
        self._streams = Streams(
            self._shapes,
            started=started,
            initial_max_age=nanoseconds(window.initial_max_age),
            watermark=started - self._lateness,
        )
        self._groups = Groups(max_groups=caps.max_groups, max_buckets=caps.max_buckets)
        self._baselines = Baselines(baselines, max_targets=caps.max_groups, max_buckets=caps.max_buckets)
        self._panes = Panes(window, seasonal=past == "seasonal")
        self._past = Past(self._panes, window, past, learn_rows=learn_rows)
        self._ledger = Ledger(self._groups, self._panes, self._shapes)
        self._routes = Routes(self._streams, self._ledger, max_streams=caps.max_streams)
        self._counts: Counter[str] = Counter(dict.fromkeys(COUNTERS, 0))
        self._notices = Notices()
        self._stepped = started - self._lateness
        self._refreshed = 0

    # --- points in ----------------------------------------------------------------------------------------

    def ingest(self, batch: PointBatch, now: int) -> Mapping[str, int]:
        """Take the points of one request; how many were not accepted, by reason. `now` is Unix ns."""
        self._counts["points"] += len(batch)
        rejected: Counter[str] = Counter()
        if not len(batch):
            return rejected
        code = self._routes.of(batch.series, now)[batch.index]
        if code.min() < 0:
            for name, value in (("loop", LOOP), ("ignored", IGNORED)):
                self._counts[name] += int((code == value).sum())
            rejected["limit"] = int((code == LIMIT).sum())
            for reason, model in self._baselines.take(batch, np.flatnonzero(code == BASELINE).tolist(), now):
                rejected[reason] += 1
                if reason == DELTA_REASON:
                    self._notices.say(notices.DELTA_BASELINE, model=model.model)
        if self._all_usable(batch, code, now):
            self._streams.push(self._points(batch, code), now)
            return rejected
        usable = self._usable(batch, code, now, rejected)
        self._streams.push(self._points(batch, code).take(usable), now)
        rejected = +rejected
        self._counts.update(
            {"rejected_limit" if name == "limit" else name: n for name, n in rejected.items()}
        )
        return rejected

    def _all_usable(self, batch: PointBatch, code: NDArray[np.int64], now: int) -> bool:
        """What is nearly always so, and much cheaper to see than what is wrong with each point."""
        lengths = np.diff(batch.offsets)
        return bool(
            code.min() >= 0
            and (lengths == np.fromiter(map(len, batch.bounds), np.int64, len(batch)) + 1).all()
            and lengths.max() <= self._limits.max_buckets
            and batch.values.min() >= 0
            and batch.time.max() <= now + self._future
            and batch.time.min() > self._streams.watermark
            and not self._streams.crowded(code).any()
        )

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

    def _points(self, batch: PointBatch, code: NDArray[np.int64]) -> Points:
        return Points(
            code, batch.start, batch.time, batch.temporality,
            self._shapes.numbers(batch.bounds), np.diff(batch.offsets), batch.values,
        )  # fmt: skip

    # --- state --------------------------------------------------------------------------------------------

    def capture(self) -> object:
        """All that was seen and said so far, for `snapshot.pack`: later calls leave it alone.

        Settings are not in it, nor the baselines of files.
        """
        own = {"schema": SCHEMA, "past": self._past.kind, "counters": dict(self._counts)}
        own |= {"stepped": self._stepped, "refreshed": self._refreshed}
        return freeze({name: part.state() for name, part in self._parts().items()} | own)

    def snapshot(self) -> dict[str, Any]:
        """The same as plain data."""
        state: dict[str, Any] = pack(self.capture())
        return state

    def restore(self, snapshot: Mapping[str, Any]) -> None:
        """Go on from where another engine, of the same window, took a snapshot; to be called before all else.

        Windows that it evaluated are not evaluated again. Raises `ConfigurationError` for a snapshot of another
        schema or of panes of another width.
        """
        if snapshot["schema"] != SCHEMA:
            raise ConfigurationError(
                f"the snapshot has schema {snapshot['schema']!r}, this version reads {SCHEMA}; start empty"
            )
        state = unpack(dict(snapshot))
        for name, part in self._parts().items():
            part.restore(state[name])
        self._routes.reopen()
        if state["past"] != self._past.kind:
            for model in self._groups.models.values():
                model.kept.clear()
        self._counts.update(state["counters"])
        # Which were counted in intervals of the other one.
        refreshed = self._streams.watermark // nanoseconds(self._window.refresh)
        self._stepped, self._refreshed = state["stepped"], min(state["refreshed"], refreshed)

    def _parts(self) -> dict[str, Part]:
        """What has a state; the panes first, which can refuse theirs."""
        return {
            "panes": self._panes,
            "shapes": self._shapes,
            "streams": self._streams,
            "groups": self._groups,
            "baselines": self._baselines,
            "notices": self._notices,
        }

    def forget_wire(self) -> None:
        """Compare with baselines of files only, until others come over the wire."""
        self._baselines.restore({"wire": {}, "targets": 0})

    def use_files(self, baselines: Sequence[Baseline]) -> None:
        """Compare with these baselines of files from now on, instead of those before."""
        self._baselines.use_files(baselines)

    # --- evaluations out ----------------------------------------------------------------------------------

    def advance(self, now: int) -> list[Evaluation]:
        """Evaluations that became due by `now` (Unix ns): final ones at a step, a refresh in between."""
        return list(self.advancing(now))

    def advancing(self, now: int) -> Iterator[Evaluation]:
        """As `advance`, one evaluation at a time. To be taken to its end; until then only `ingest` may be called."""
        watermark, window = max(now - self._lateness, self._streams.watermark), self._window
        ends = steps_between(self._stepped, watermark, window.step_ns)[-MAX_STEPS:]
        for end in ends:
            # What comes after an end must not touch its window, however seldom `advance` is called.
            self._apply(end)
            self._stepped = end
            fast = end if end == ends[-1] else None
            yield from self._evaluate(end, fast=fast, final=True)
        self._apply(watermark)
        refresh = watermark // nanoseconds(window.refresh)
        if not ends and refresh <= self._refreshed:
            return
        self._refreshed = max(self._refreshed, refresh)
        if not ends:
            yield from self._evaluate(watermark, fast=watermark, final=False)
        self._panes.roll(watermark, partial(self._past.unusual, self._groups.models.values()))
        self._expire(watermark, now)

    def _apply(self, until: int) -> None:
        for applied in self._streams.apply(until):
            self._credit(applied)

    def _evaluate(self, end: int, *, fast: int | None, final: bool) -> Iterator[Evaluation]:
        # Whoever expired before this end is left out, however seldom `advance` is called.
        idle = end - self._window.expiry_ns
        models = [
            model for model in self._groups.models.values() if model.first <= end and model.last >= idle
        ]
        for model in models:
            view = self._view(model, end)
            closes = final and self._closes(model, view)
            model.latest = self._evaluate_model(model, view, fast=fast, final=closes)
            yield model.latest

    def _view(self, model: Monitored, end: int) -> View:
        """The window of a model that ends at `end`, or the one that is open then."""
        window, panes = self._window, self._panes
        if window.type == "count":
            start = max(model.closed, end - window.length_ns)
            return View.of(model, panes, start, end, width=window.coarse_ns)
        if window.type == "decayed":
            view = View.of(model, panes, end - window.reach_ns, end, width=window.coarse_ns)
            return view.decayed(window.length_ns)
        start = -(-end // window.step_ns) * window.step_ns - window.length_ns
        return grown(model, panes, window, start=start, end=end, min_rows=self.policy.min_rows)

    def _closes(self, model: Monitored, view: View) -> bool:
        """Whether a window ends at this step: one by count only when it has its rows, or is too old."""
        if self._window.type != "count":
            return True
        full = int(view.rows().sum()) >= self._window.rows
        if not full and view.end - max(model.closed, model.first) < self._window.length_ns:
            return False
        model.closed = view.end
        return True

    def _evaluate_model(self, model: Monitored, view: View, *, fast: int | None, final: bool) -> Evaluation:
        def failed(target: Target, error: Exception) -> None:
            self._counts["errors"] += 1
            self._notices.say(notices.FAILED, target=repr(target), error=repr(error))

        ids = [name for name, last in model.baselines.items() if last > view.start]
        known = self._baselines.reference(model.key, ids)
        reference = self._past.complete(model, known, view)
        short = self._short(model, fast) if fast is not None else None
        targets = assess(view, short, reference, self.policy, final=final, failed=failed)
        for one in targets:
            self._note(model, one, view.end)
        return Evaluation(
            model=model.key,
            window_name="",
            window_start=view.start,
            window_end=view.end,
            rows=int(whole(view.rows())),
            final=final,
            baseline_id=reference.id if reference else "",
            baseline_created=reference.created if reference else 0,
            baseline_rows=reference.rows if reference else 0,
            targets=targets,
            activity=activity_after(model.said, activity(model, view.end)),
            rows_served=model.rows_served(reference.id if reference else ""),
        )

    def _note(self, model: Monitored, one: TargetEvaluation, end: int) -> None:
        if one.status:
            model.drifting[one.target] = end
        if one.foreign_bounds:
            self._notices.say(
                notices.FOREIGN, target=one.target.name or one.target.kind, model=model.key.model
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
        self._note_relaid(applied.relaid)
        self._note_initial(applied.initial)
        self._counts["rejected_limit"] += self._ledger.credit(applied.increments)

    def _note_overlaps(self, streams: Sequence[int]) -> None:
        for stream in streams:
            model = self._ledger.destination(stream).model
            metric = self._streams.series(stream).metric
            self._notices.say(
                notices.SHARED_IDENTITY,
                once=model.service_name,
                service=model.service_name,
                metric=metric,
                model=model.model,
            )

    def _note_relaid(self, streams: Sequence[int]) -> None:
        for stream in streams:
            model = self._ledger.destination(stream).model
            metric = self._streams.series(stream).metric
            self._notices.say(notices.RELAID, metric=metric, model=model.model)

    def _note_initial(self, points: Points) -> None:
        for stream, rows in zip(points.stream.tolist(), points.sums().tolist(), strict=True):
            if self._ledger.destination(stream).part == "rows":
                self._counts["initial_rows"] += rows

    def _expire(self, watermark: int, now: int) -> None:
        """Forget models, streams and baselines that have been idle for too long."""
        expiry = self._window.expiry_ns
        self._ledger.expire(watermark - expiry)
        for model in self._groups.models.values():
            forget(model, watermark)
        quiet = max(expiry, nanoseconds(self._window.initial_max_age))
        gone = self._streams.expire(now - quiet - self._lateness)
        if 2 * len(self._streams) > self._limits.max_streams:
            quiet = max(KEEP_SENDER, nanoseconds(self._window.initial_max_age))
            gone += self._streams.expire(now - quiet - self._lateness, senders=True)
        if gone:
            self._ledger.forget(gone)
            self._routes.clear()
        # Bounds that no stream has any more, once they are many.
        if len(self._shapes) > 2 * len(self._streams) + 1000:
            self._shapes.keep(self._streams.shapes())
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
        return self._notices.take()
