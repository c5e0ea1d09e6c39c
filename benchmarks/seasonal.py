"""False alarms on a model whose inputs follow the day and the week: docs/statistics.md has the table.

    python -m benchmarks.seasonal

Ten features swing over the day, each at its own hour, and differ at the weekend; traffic does, too. Two weeks to learn
from, four weeks in which nothing drifts, and one in which one feature does. The engine is configured as by the
collector's file; a static baseline is a fair sample of whole weeks. The seed is fixed.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timezone

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr

from benchmarks._load import HOUR, START, Counted, batch, series
from benchmarks.calibration import markdown
from otel_ml import Baseline
from otel_ml_collector import build
from otel_ml_collector.points import DELTA
from otel_ml_collector.settings import MlDrift

Floats = NDArray[np.float64]

FEATURES = 10
TRAINING = 20_000
WEEK = 7 * 24
LEARNING, STEADY, DRIFTING = 2 * WEEK, 4 * WEEK, WEEK
DRIFT = 0.5
"""Standard deviations by which the first feature moves in the last week."""
ROWS = (300, 1_500)
"""An hour in the night and by day."""
MONDAY = START + (-(START // HOUR // 24 - 4) % 7) * 24 * HOUR
"""The first Monday from there on: day 0 of the epoch was a Thursday."""
CYCLES = ((0.25, 0.0), (0.5, 0.0), (1.0, 0.0), (0.5, 0.3))
"""Swing over the day, either way, and shift at weekends, in standard deviations within an hour."""
HOURLY = {"type": "tumbling", "length": "1h", "lateness": "0s"}
DEFAULT = {"lateness": "0s"}


@dataclass(frozen=True, slots=True)
class World:
    """Features with unit spread within an hour, whose mean follows the clock."""

    daily: float
    weekend: float

    def means(self, hour: int) -> Floats:
        """(FEATURES,) at an hour since Monday 0:00."""
        phases = np.arange(FEATURES) * 24 / FEATURES
        swing = self.daily * np.sin(2 * np.pi * (hour - phases) / 24)
        return swing + self.weekend * (hour // 24 % 7 >= 5)

    def rows(self, hour: int) -> float:
        """Expected rows in an hour; at weekends half as many."""
        night, day = ROWS
        usual = (night + day) / 2 - (day - night) / 2 * np.cos(2 * np.pi * hour / 24)
        return float(usual / (2 if hour // 24 % 7 >= 5 else 1))

    def training(self, rng: np.random.Generator) -> Floats:
        """(TRAINING, FEATURES), a sample of all hours of the week as they have rows."""
        share = np.array([self.rows(hour) for hour in range(WEEK)])
        hours = rng.choice(WEEK, TRAINING, p=share / share.sum())
        means = np.array([self.means(hour) for hour in range(WEEK)])
        return means[hours] + rng.normal(size=(TRAINING, FEATURES))


def statuses(world: World, window: dict[str, str], *, seasonal: bool) -> Iterator[tuple[int, list[int]]]:
    """Hour since Monday and the status of every feature, of each window that was judged."""
    rng = np.random.default_rng([20_261_121, round(100 * world.daily)])
    names = [f"x{i}" for i in range(FEATURES)]
    created = datetime.fromtimestamp(START / 1e9, tz=timezone.utc)
    baseline = Baseline.fit(
        world.training(rng), model="m0", version="1", features=names, projections=False, created_at=created
    )
    bounds = [baseline.features[name].bounds for name in names]  # type: ignore[union-attr]
    sources = {"sources": ["seasonal"]} if seasonal else {"sources": ["file"], "path": "."}
    settings = MlDrift.model_validate({"window": window, "interval": "1h", "baseline": sources})
    engine = build.engine(settings, [] if seasonal else [baseline], started=MONDAY)
    named = [series("explicit", i) for i in range(FEATURES)]
    for hour in range(LEARNING + STEADY + DRIFTING):
        now = MONDAY + (hour + 1) * HOUR
        means = world.means(hour) + DRIFT * (np.arange(FEATURES) == 0) * (hour >= LEARNING + STEADY)
        rows = int(rng.poisson(world.rows(hour)))
        counts: list[Counted] = [
            (tuple(at.tolist()), rng.multinomial(rows, np.diff(ndtr(at - mean), prepend=0, append=1)))
            for at, mean in zip(bounds, means, strict=True)
        ]
        engine.ingest(batch(named, counts, now - HOUR, now, DELTA), now)
        for one in engine.advance(now):
            if one.final and all(target.evaluated for target in one.targets):
                yield hour, [target.status for target in one.targets]


def row(world: World, window: dict[str, str], *, seasonal: bool) -> list[str]:
    """Hours in alarm and episodes in four steady weeks; hours until the drift is found."""
    found = [
        (hour, status) for hour, status in statuses(world, window, seasonal=seasonal) if hour >= LEARNING
    ]
    steady = np.array([status for hour, status in found if hour < LEARNING + STEADY]) > 0
    alarms = steady.any(axis=1)
    episodes = int((steady[1:] & ~steady[:-1]).sum() + steady[0].sum())
    late = (hour - LEARNING - STEADY + 1 for hour, status in found if hour >= LEARNING + STEADY and status[0])
    first = next(late, None)
    share = "–" if not len(steady) else f"{100 * alarms.mean():.1f} %"
    return [f"{len(alarms)}", share, str(episodes), "not found" if first is None else f"{first} h"]


def table() -> Iterator[list[str]]:
    """Every cycle, window and reference."""
    yield ["daily swing, weekend", "window", "reference", "windows judged", "of these with any alarm",
           "episodes in 4 weeks", f"{DRIFT:g} σ found after"]  # fmt: skip
    for daily, weekend in CYCLES:
        for name, window in (("1 h, tumbling", HOURLY), ("24 h, default", DEFAULT)):
            for seasonal in (False, True):
                found = row(World(daily, weekend), window, seasonal=seasonal)
                reference = "seasonal" if seasonal else "static"
                yield [f"±{daily:g} σ, {weekend:g} σ", name, reference, *found]


def main() -> None:
    """Print the table."""
    print(markdown(list(table())))


if __name__ == "__main__":
    main()
