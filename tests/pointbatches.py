"""Services in the form of point batches, and an engine that they drive on an injected clock."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from otel_ml import semconv
from otel_ml.sketches import Exponential as ExponentialSketch
from otel_ml_collector import layouts
from otel_ml_collector.drift import Policy
from otel_ml_collector.engine import Engine, Limits
from otel_ml_collector.evaluation import Evaluation, Target, TargetEvaluation
from otel_ml_collector.layouts import Bounds, Exponential
from otel_ml_collector.points import CUMULATIVE, DELTA, PointBatch, Series
from otel_ml_collector.window import WindowSpec

S = 1_000_000_000
HOUR = 3600 * S
BOUNDS = (-1.0, -0.5, 0.0, 0.5, 1.0)


@dataclass(frozen=True)
class P:
    """One point."""

    series: Series
    start: int
    time: int
    values: tuple[int, ...]
    bounds: Bounds = ()
    temporality: int = CUMULATIVE


def batch(points: Iterable[P]) -> PointBatch:
    """One request with these points."""
    points = list(points)
    series = tuple(dict.fromkeys(p.series for p in points))
    lengths = [len(p.values) for p in points]
    return PointBatch(
        series=series,
        index=np.array([series.index(p.series) for p in points], np.int64),
        start=np.array([p.start for p in points], np.int64),
        time=np.array([p.time for p in points], np.int64),
        temporality=np.array([p.temporality for p in points], np.int8),
        values=np.array([v for p in points for v in p.values], np.int64),
        offsets=np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64),
        bounds=tuple(p.bounds for p in points),
    )


def series(
    metric: semconv.Metric,
    *,
    pod: str = "a",
    model: str = "churn",
    version: str = "3",
    service: str = "api",
    scope: str = semconv.SDK_SCOPE,
    **attributes: str,
) -> Series:
    """A series of a service; attributes by the name of their constant in semconv, in lower case."""
    named = {getattr(semconv, key.upper()): value for key, value in attributes.items()}
    everything = {semconv.MODEL_NAME: model, semconv.MODEL_VERSION: version, **named}
    resource = {semconv.SERVICE_NAME: service, semconv.SERVICE_INSTANCE_ID: pod}
    return Series(
        tuple(sorted(resource.items())),
        scope,
        metric.name,
        tuple(sorted(everything.items())),
        "histogram" if metric.kind == "histogram" else "sum",
    )


@dataclass
class Service:
    """A process that serves one model: counts rows and reports them, cumulative or delta."""

    start: int
    temporality: int = CUMULATIVE
    identity: Mapping[str, str] = field(default_factory=dict)
    totals: dict[tuple[Series, tuple[float, ...]], np.ndarray] = field(default_factory=dict)
    reported: int = 0

    def count(
        self, metric: semconv.Metric, values: Sequence[int], bounds: tuple[float, ...] = (), **at: str
    ) -> None:
        key = (series(metric, **self.identity, **at), bounds)
        self.totals[key] = self.totals.get(key, 0) + np.asarray(values, np.int64)

    def rows(
        self, values: Sequence[int], *, feature: str = "age", bounds: tuple[float, ...] = BOUNDS
    ) -> None:
        """Rows of one feature, all of them ok."""
        self.count(semconv.FEATURE_VALUE, values, bounds, feature_name=feature)
        self.state("ok", sum(values), feature=feature)
        self.count(semconv.INFERENCE_ROWS, [sum(values)])

    def state(self, state: str, rows: int, *, feature: str = "age") -> None:
        self.count(semconv.FEATURE_OBSERVATIONS, [rows], feature_name=feature, feature_state=state)

    def category(self, name: str, rows: int, *, feature: str = "plan") -> None:
        self.count(semconv.FEATURE_CATEGORIES, [rows], feature_name=feature, feature_category=name)

    def report(self, time: int) -> list[P]:
        """The points of one export interval that ends at `time`."""
        start = (self.reported or self.start) if self.temporality == DELTA else self.start
        points = [
            P(at, start, time, tuple(total.tolist()), bounds, self.temporality)
            for (at, bounds), total in self.totals.items()
        ]
        if self.temporality == DELTA:
            self.totals.clear()
        self.reported = time
        return points


def reference(
    values: Sequence[int],
    time: int,
    *,
    feature: str = "age",
    bounds: tuple[float, ...] = BOUNDS,
    baseline: str = "b1",
    created: int = 1,
    temporality: int = CUMULATIVE,
    **identity: str,
) -> list[P]:
    """The baseline of one numeric feature over the wire, all rows ok."""
    at = {"feature_name": feature, "drift_target": "feature", "baseline_id": baseline, **identity}
    ok = series(semconv.BASELINE_OBSERVATIONS, feature_state="ok", **at)
    return [
        P(series(semconv.BASELINE_VALUE, **at), created, time, tuple(values), bounds, temporality),
        P(ok, created, time, (sum(values),), (), temporality),
    ]


T0 = 500_000 * HOUR
"""A whole hour and a whole day."""
SHORT = WindowSpec(length=10, step=2, lateness=1, max_age=20, refresh=0.5, fast_length=1, initial_max_age=600)
POLICY = Policy(min_rows=20, min_reference_rows=100)
EVEN = (100, 100, 100, 100, 100, 100)
SHIFTED = (0, 0, 0, 0, 0, 100)
AGE = Target("feature", "age")


def engine(
    window: WindowSpec = SHORT, policy: Policy = POLICY, limits: Limits | None = None, **more: object
) -> Engine:
    return Engine(window, policy, limits, started=T0, **more)  # type: ignore[arg-type]


def send(into: Engine, *points: Sequence[P], now: int) -> dict[str, int]:
    return dict(into.ingest(batch([p for group in points for p in group]), now))


def the(evaluations: Sequence[Evaluation]) -> Evaluation:
    assert len(evaluations) == 1
    return evaluations[0]


def target(evaluation: Evaluation, which: Target = AGE) -> TargetEvaluation:
    return next(t for t in evaluation.targets if t.target == which)


def finals(into: Engine, until: int, *, since: int, every: int = S // 5) -> list[Evaluation]:
    """Final evaluations while the clock runs."""
    found = []
    for now in range(since, until + 1, every):
        found += [e for e in into.advance(now) if e.final]
    return found


def serve(
    into: Engine,
    service: Service,
    since: int,
    until: int,
    values: Sequence[int] = EVEN,
    *,
    every: int = S // 5,
) -> list[Evaluation]:
    """Evaluations while a service answers `values` rows an interval and reports on time."""
    found: list[Evaluation] = []
    for now in range(since + every, until + 1, every):
        service.rows(values)
        send(into, service.report(now), now=now)
        found += into.advance(now)
    return found


def exponential(values: NDArray[np.float64], buckets: int) -> tuple[Exponential, NDArray[np.int64]]:
    """Values as the SDK counts them in an exponential histogram: its layout within `buckets`, and the counts."""
    sketch = ExponentialSketch()
    sketch.add(values)
    negative, positive = (
        (np.array(sorted(side), np.int64), np.array([side[i] for i in sorted(side)], np.int64))
        for side in (sketch.negative, sketch.positive)
    )
    return layouts.exponential(sketch.scale, sketch.zero, negative, positive, buckets=buckets)
