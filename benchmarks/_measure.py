"""Measures calls side by side: rounds in which every case takes its turn, so that a busy machine slows all of them.

Ratios are taken within a round and the median of the rounds is shown.
"""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import cycle
from typing import Any

DRAINS = 12
"""How often `Case.every` runs in the timed region of a round."""


@dataclass(frozen=True, slots=True)
class Case:
    """What to call how often in a round; `every` runs `DRAINS` times and `after` once, both inside the timing."""

    call: Callable[[], object]
    calls: int
    every: Callable[[], object] | None = None
    after: Callable[[], object] | None = None


@dataclass(frozen=True, slots=True)
class Cost:
    """Nanoseconds a call in each round: on the clock, and on the processor over all threads."""

    wall: tuple[float, ...]
    cpu: tuple[float, ...]

    def minus(self, other: Cost) -> Cost:
        """The cost without `other`, round by round."""
        return Cost(_each(float.__sub__, self.wall, other.wall), _each(float.__sub__, self.cpu, other.cpu))

    def over(self, other: Cost) -> tuple[float, float]:
        """The ratio to `other` by wall and by CPU time: the median of the rounds."""
        return (
            statistics.median(_each(float.__truediv__, self.wall, other.wall)),
            statistics.median(_each(float.__truediv__, self.cpu, other.cpu)),
        )

    @property
    def microseconds(self) -> float:
        """Wall time a call: the median of the rounds."""
        return statistics.median(self.wall) / 1000


def _each(
    operation: Callable[[float, float], float], left: tuple[float, ...], right: tuple[float, ...]
) -> tuple[float, ...]:
    return tuple(operation(a, b) for a, b in zip(left, right, strict=True))


def measure(cases: Mapping[str, Case], *, rounds: int) -> dict[str, Cost]:
    """The cost of every case over `rounds` rounds; a round before them warms up and is not counted."""
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in cases}
    for _ in range(rounds + 1):
        for name, case in cases.items():
            times[name].append(_round(case))
    return {
        name: Cost(tuple(wall for wall, _ in found[1:]), tuple(cpu for _, cpu in found[1:]))
        for name, found in times.items()
    }


def _round(case: Case) -> tuple[float, float]:
    call, every = case.call, case.every
    step = max(case.calls // DRAINS, 1)
    gc.collect()
    wall, cpu = time.perf_counter_ns(), time.process_time_ns()
    for i in range(case.calls):
        call()
        if every is not None and i % step == step - 1:
            every()
    if case.after is not None:
        case.after()
    return (time.perf_counter_ns() - wall) / case.calls, (time.process_time_ns() - cpu) / case.calls


def median_call(call: Callable[[], object], calls: int) -> float:
    """Median nanoseconds of one call on the clock: what a caller notices, work left to others apart."""
    clock, times = time.perf_counter_ns, []
    for _ in range(calls):
        start = clock()
        call()
        times.append(clock() - start)
    return statistics.median(times)


def medians(
    calls: Mapping[str, Callable[[Any], object]], inputs: Sequence[Any], turns: int
) -> dict[str, float]:
    """Median nanoseconds of one call of each of `calls`, which take turns.

    Every call is given the next one of `inputs`, so that none finds the rows that the call before it warmed up.
    """
    clock, given = time.perf_counter_ns, cycle(inputs)
    times: dict[str, list[int]] = {name: [] for name in calls}
    for _ in range(turns):
        for name, call in calls.items():
            rows = next(given)
            start = clock()
            call(rows)
            times[name].append(clock() - start)
    return {name: statistics.median(found) for name, found in times.items()}


@dataclass(frozen=True, slots=True)
class Target:
    """A ratio and the limit that it keeps or misses."""

    name: str
    value: float
    limit: float
    at_least: bool = False

    @property
    def met(self) -> bool:
        return self.value >= self.limit if self.at_least else self.value <= self.limit

    def __str__(self) -> str:
        bound = "at least" if self.at_least else "at most"
        verdict = "met" if self.met else "MISSED"
        return f"{verdict:7}{self.value:8.2f}  ({bound} {self.limit:g})  {self.name}"
