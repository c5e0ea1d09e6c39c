"""A month of a model's life in the collector's engine, hour by hour: 24 h windows that slide by an hour."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from benchmarks._worlds import FEATURES, STEADY, Drift, World, world
from otel_ml import semconv
from otel_ml_collector.drift import Policy
from otel_ml_collector.engine import Engine
from otel_ml_collector.evaluation import Evaluation
from otel_ml_collector.points import CUMULATIVE, DELTA, PointBatch, Series
from otel_ml_collector.window import WindowSpec

DAYS = 30
HOUR = 3600 * 1_000_000_000
START = 480_000 * HOUR
DAY_TO_NIGHT = 10.0

_RESOURCE = ((semconv.SERVICE_NAME, "calibration"),)
_MODEL = ((semconv.MODEL_NAME, "m"), (semconv.MODEL_VERSION, "1"))


@dataclass(frozen=True, slots=True)
class Month:
    """30 days of `rows` rows a day, compared with a baseline of `n` rows."""

    rows: int
    n: int
    seed: int
    features: int = FEATURES
    drift: Drift = STEADY
    cycle: bool = False
    """Whether traffic by day is ten times that by night."""

    def evaluations(self) -> Iterator[Evaluation]:
        """The evaluation of every hour."""
        rng = np.random.default_rng([self.seed, self.rows, self.n])
        model = world("equal", rng, self.n, features=self.features)
        window = WindowSpec(lateness=0.0, refresh=3600.0)
        engine = Engine(window, Policy(), started=START)
        engine.ingest(_baseline(model), START)
        for hour in range(24 * DAYS):
            now = START + (hour + 1) * HOUR
            rows = np.array([rng.poisson(self.rows / 24 * self._traffic(hour))])
            counts = [panes[0] for panes, _ in model.window(rng, rows, self.drift)]
            engine.ingest(_batch(model, counts, int(rows[0]), now), now)
            yield from (one for one in engine.advance(now) if one.final)

    def _traffic(self, hour: int) -> float:
        if not self.cycle:
            return 1.0
        low = 2 / (1 + DAY_TO_NIGHT)
        return float(1 + (1 - low) * np.sin(2 * np.pi * hour / 24))

    def statuses(self) -> NDArray[np.int64]:
        """(hours, features)"""
        return np.array([[target.status for target in one.targets] for one in self.evaluations()])

    def episodes(self) -> int:
        """How often a feature goes from ok to an alarm."""
        statuses = self.statuses()
        return int(((statuses[1:] > 0) & (statuses[:-1] == 0)).sum() + (statuses[0] > 0).sum())


def drifting_month(rows: int, n: int, seed: int, *, shift: float) -> list[int]:
    """Hours at which the status of a feature that drifts all month changes."""
    month = Month(rows, n, seed, features=10, drift=Drift(shift), cycle=True)
    statuses = np.append(0, month.statuses()[:, 0])
    return (np.flatnonzero(np.diff(statuses)) + 1).tolist()


def _series(metric: semconv.Metric, feature: str = "", **attributes: str) -> Series:
    named = {semconv.FEATURE_NAME: feature} if feature else {}
    kind = "histogram" if feature else "sum"
    return Series(_RESOURCE, semconv.SDK_SCOPE, metric.name,
                  tuple(sorted({**dict(_MODEL), **named, **attributes}.items())), kind)  # fmt: skip


def _points(
    series: list[Series], values: list[NDArray[np.int64]], bounds: list[tuple[float, ...]],
    start: int, time: int, temporality: int,
) -> PointBatch:  # fmt: skip
    n = len(series)
    return PointBatch(
        tuple(series),
        np.arange(n),
        np.full(n, start),
        np.full(n, time),
        np.full(n, temporality, np.int8),
        np.concatenate(values),
        np.concatenate([[0], np.cumsum([len(one) for one in values])]),
        tuple(bounds),
    )


def _bounds(model: World) -> list[tuple[float, ...]]:
    return [tuple(() if one.bounds is None else one.bounds.tolist()) for one in model.features]


def _baseline(model: World) -> PointBatch:
    about = {semconv.DRIFT_TARGET: "feature", semconv.BASELINE_ID: "b"}
    series = [_series(semconv.BASELINE_VALUE, f"x{i:02}", **about) for i in range(len(model.features))]
    counts = [one.reference.counts for one in model.features]
    return _points(series, counts, _bounds(model), START - HOUR, START, CUMULATIVE)


def _batch(model: World, counts: list[NDArray[np.int64]], rows: int, now: int) -> PointBatch:
    series = [_series(semconv.FEATURE_VALUE, f"x{i:02}") for i in range(len(counts))]
    series.append(_series(semconv.INFERENCE_ROWS))
    values, bounds = [*counts, np.array([rows])], [*_bounds(model), ()]
    return _points(series, values, bounds, now - HOUR, now, DELTA)
