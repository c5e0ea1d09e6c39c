"""Verdicts on the number of rows where nothing happens, and how soon silence is said: the table of docs/statistics.md.

    python -m benchmarks.activity

Traffic is ten times as heavy by day as by night and half as heavy at weekends. Each day has a level of its own and each
hour scatters around it more than Poisson's law allows. The seed is fixed: the same numbers come out every time.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from benchmarks.calibration import SEED, markdown
from otel_ml_collector.activity import activity
from otel_ml_collector.evaluation import Activity, ModelKey
from otel_ml_collector.groups import Monitored
from otel_ml_collector.window import HOUR

START = 480_000
"""Hours since the epoch."""
DAY, WEEK = 24, 168
MONTH = 30 * DAY
VOLUMES = (20, 200, 20_000)
"""Rows in an hour, on average."""
RUNS = 40


@dataclass(frozen=True, slots=True)
class Traffic:
    """How far traffic without a cause scatters: standard deviations of logarithms, of a day and of an hour."""

    name: str
    daily: float
    hourly: float

    def rows(self, rng: np.random.Generator, hours: int, volume: int) -> NDArray[np.int64]:
        """(hours,) rows of each hour."""
        hour = np.arange(hours)
        cycle = 1 + 9 / 11 * np.sin(2 * np.pi * hour / DAY)
        weekend = np.where(hour // DAY % 7 >= 5, 0.5, 1.0)
        days = np.repeat(rng.lognormal(0, self.daily, -(-hours // DAY)), DAY)[:hours]
        return rng.poisson(volume * cycle * weekend * days * rng.lognormal(0, self.hourly, hours))


TRAFFIC = (Traffic("Poisson", 0.0, 0.0), Traffic("uneven", 0.15, 0.15), Traffic("bursty", 0.3, 0.3))


def month(rows: Sequence[int], learned: int) -> list[Activity]:
    """What is said at the end of each hour of a month that follows `learned` hours."""
    model = Monitored(ModelKey("", "api", "", "churn", "3"))
    said = []
    for hour, count in enumerate(rows, start=START):
        if count:
            model.hours[hour] = int(count)
            model.last = (hour + 1) * HOUR
        if hour >= START + learned and (found := activity(model, (hour + 1) * HOUR)):
            said.append(found)
    return said


def episodes(said: Sequence[Activity], reasons: tuple[str, ...], status: int = 1) -> int:
    """How often one of these reasons comes up, at this status or a worse one."""
    on = np.array([one.status >= status and one.reason in reasons for one in said])
    return int((on[1:] & ~on[:-1]).sum() + on[0])


def delay(rng: np.random.Generator, traffic: Traffic, volume: int, learned: int) -> int | None:
    """Hours from the last row, at some hour of the week, until silence is said."""
    stop = learned + int(rng.integers(WEEK))
    rows = traffic.rows(rng, stop, volume)
    model = Monitored(ModelKey("", "api", "", "churn", "3"))
    model.hours = {START + hour: int(count) for hour, count in enumerate(rows) if count}
    model.last = (max(model.hours) + 1) * HOUR
    hours = (stop + after for after in range(1, WEEK))
    return next(
        (
            hour - stop
            for hour in hours
            if (found := activity(model, (START + hour) * HOUR)) and found.reason == "silent"
        ),
        None,
    )


def table() -> Iterator[list[str]]:
    """Every kind of traffic and volume, after a week and after five."""
    yield ["traffic", "rows an hour", "history", "silence", "volume, warning", "volume, drifted",
           "silence is said after: median, slowest"]  # fmt: skip
    for traffic in TRAFFIC:
        for volume in VOLUMES:
            for weeks in (1, 5):
                rng = np.random.default_rng([SEED, volume, weeks])
                said = [
                    month(traffic.rows(rng, weeks * WEEK + MONTH, volume).tolist(), weeks * WEEK)
                    for _ in range(RUNS)
                ]
                counts = (
                    np.mean([episodes(one, reasons, status) for one in said])
                    for reasons, status in ((("silent",), 1), (_VOLUME, 1), (_VOLUME, 2))
                )
                waits = [delay(rng, traffic, volume, weeks * WEEK) for _ in range(5 * RUNS)]
                hours = sorted(WEEK if one is None else one for one in waits)
                history = f"{weeks} week{'s' * (weeks > 1)}"
                yield [traffic.name, f"{volume:,}", history, *(f"{one:.2f}" for one in counts),
                       f"{hours[len(hours) // 2]} h, {hours[-1]} h"]  # fmt: skip


_VOLUME = ("volume_low", "volume_high")


def main() -> None:
    """Print the table."""
    print(markdown(list(table())))


if __name__ == "__main__":
    main()
