"""How often drift is reported where there is none, and how soon where there is: the tables of docs/statistics.md.

    python -m benchmarks.calibration            everything, about twenty minutes of an idle core
    python -m benchmarks.calibration --quick    the same with few repetitions

Data are drawn as counts, on bounds made by the code that makes baselines; comparisons, verdicts and windows are
those of the collector. The seed is fixed: the same numbers come out every time.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from benchmarks._month import Month, drifting_month
from benchmarks._worlds import FEATURES, KINDS, MEANING, PANES, STEADY, Drift, Kind, World, sides, world
from otel_ml_collector import statistics
from otel_ml_collector.drift import DriftResult, Policy, compare
from otel_ml_collector.evaluation import Target
from otel_ml_collector.verdict import Slow, Verdict, judge

REFERENCES = (500, 1_000, 100_000)
ROWS = (200, 500, 2_000, 10_000)
SESSION = 50
FIXED_RULE = 0.1
SEED = 20_261_121


@dataclass(frozen=True, slots=True)
class Effort:
    """How often everything is repeated."""

    worlds: int = 12
    """Baselines per cell of a table."""
    windows: int = 5
    """Windows per baseline."""
    months: int = 2
    feature_days: int = 3_000
    runs: int = 200
    """Runs until a slow drift is found."""


FULL = Effort()
QUICK = Effort(worlds=4, windows=2, months=1, feature_days=200, runs=4)


@dataclass(frozen=True, slots=True)
class Seen:
    """One window of all features."""

    results: dict[Target, DriftResult]
    verdicts: dict[Target, Verdict]

    @property
    def alarm(self) -> bool:
        return any(verdict.status for verdict in self.verdicts.values())

    @property
    def first(self) -> bool:
        """Whether the first feature, the one that drifts, is found."""
        return self.verdicts[_target(0)].status > 0

    @property
    def fixed(self) -> bool:
        """Whether the rule PSI ≥ 0.1 alarms."""
        return any(result.statistics.get("psi", 0.0) >= FIXED_RULE for result in self.results.values())

    @property
    def fixed_drifted(self) -> bool:
        return any(result.statistics.get("psi", 0.0) >= 0.25 for result in self.results.values())

    @property
    def evaluated(self) -> float:
        return float(np.mean([verdict.evaluated for verdict in self.verdicts.values()]))


def _target(i: int) -> Target:
    return Target("feature", f"x{i:02}")


def look(
    model: World, rng: np.random.Generator, rows: int, drift: Drift = STEADY, *, session: int = 1
) -> Seen:
    """A window of `rows` rows, compared and judged."""
    panes = session * rng.multinomial(rows // session, np.full(PANES, 1 / PANES))
    drawn = model.window(rng, panes, drift, session=session)
    policy = Policy()
    results = {
        _target(i): compare(*sides(feature, *counts), policy)
        for i, (feature, counts) in enumerate(zip(model.features, drawn, strict=True))
    }
    return Seen(results, dict(judge(results, {}, policy, final=True)))


def windows(
    kind: Kind, n: int, rows: int, effort: Effort, drift: Drift = STEADY, *, session: int = 1
) -> Iterator[Seen]:
    """Windows of `effort.worlds` models, each with a baseline of its own."""
    rng = np.random.default_rng([SEED, KINDS.index(kind), n, rows, session])
    for _ in range(effort.worlds):
        model = world(kind, rng, n)
        for _ in range(effort.windows):
            yield look(model, rng, rows, drift, session=session)


# --- tables -----------------------------------------------------------------------------------------------


def false_alarms(effort: Effort) -> Iterator[list[str]]:
    """Share of windows with any alarm among all features, without drift."""
    yield ["data", "baseline rows", *(f"{m:,} rows" for m in ROWS)]
    for kind in KINDS:
        for n in REFERENCES:
            yield [MEANING[kind], f"{n:,}", *(_beside(windows(kind, n, m, effort)) for m in ROWS)]


def _beside(seen: Iterable[Seen]) -> str:
    """Ours, and that of the fixed rule at its two limits."""
    all_of = list(seen)
    shares = [np.mean([getattr(one, name) for one in all_of]) for name in ("alarm", "fixed", "fixed_drifted")]
    few = np.mean([one.evaluated for one in all_of]) < 0.5
    return f"{'–' if few else _percent(shares[0])} ({_percent(shares[1])}, {_percent(shares[2])})"


def sessions(effort: Effort) -> Iterator[list[str]]:
    """Share of windows with any alarm when rows come in sessions of 50 that are all alike."""
    counts = (100, 200, 400, 1_000)
    yield ["data", "baseline rows", *(f"{count:,} sessions" for count in counts)]
    for kind in ("equal", "zipf"):
        for n in (1_000, 100_000):
            cells = (_beside(windows(kind, n, SESSION * count, effort, session=SESSION)) for count in counts)
            yield [MEANING[kind], f"{n:,}", *cells]


POWER: tuple[tuple[str, Drift, int], ...] = (
    ("0.5 σ", Drift(shift=0.5), 200),
    ("0.3 σ", Drift(shift=0.3), 2_000),
    ("a sentinel on 10 % of rows", Drift(sentinel=0.1), 2_000),
    ("nulls 0 → 6 %", Drift(nulls=0.06), 500),
)


def power(effort: Effort) -> Iterator[list[str]]:
    """Share of windows in which the one drifting feature of all is found."""
    yield ["drift of one feature", "rows", *(f"baseline of {n:,}" for n in REFERENCES)]
    for name, drift, rows in POWER:
        found = (_mean(one.first for one in windows("equal", n, rows, effort, drift)) for n in REFERENCES)
        yield [name, f"{rows:,}", *(_percent(share) for share in found)]


def to_detection(effort: Effort) -> Iterator[list[str]]:
    """Mean number of windows of new rows until the drifting feature is found."""
    yield ["shift", *(f"{m:,} rows" for m in ROWS)]
    for shift in (0.2, 0.3, 0.5, 1.0):
        shares = [_mean(one.first for one in windows("equal", 5_000, m, effort, Drift(shift))) for m in ROWS]
        yield [f"{shift:g} σ", *(f"{1 / share:.1f}" if share >= 0.05 else "> 20" for share in shares)]


def months(effort: Effort) -> Iterator[list[str]]:
    """Episodes in 30 days of the default windows without drift."""
    yield ["rows a day", "episodes a month", "months"]
    for rows, count in ((216, 3 * effort.months), (504, effort.months)):
        found = [Month(rows, 5_000, SEED + i).episodes() for i in range(count)]
        yield [f"{rows:,}", f"{np.mean(found):.1f}", str(len(found))]


def drifting_months(effort: Effort) -> Iterator[list[str]]:
    """State changes in 30 days of a constant drift of 0.35 σ, traffic by day and night."""
    yield ["rows a day", "state changes a month", "worst month", "hours to the first", "months"]
    for rows in (216, 504, 1_000, 5_000):
        changes = [drifting_month(rows, 5_000, SEED + i, shift=0.35) for i in range(5 * effort.months)]
        first = np.mean([when[0] for when in changes if when])
        numbers = [len(when) for when in changes]
        yield [f"{rows:,}", f"{np.mean(numbers):.1f}", str(max(numbers)), f"{first:.0f}", str(len(changes))]


def slow(effort: Effort) -> Iterator[list[str]]:
    """Alarms of the cumulative sum without drift, and windows until it finds a shift."""
    yield ["baseline rows", "rows a window", "alarms without drift",
           "0.2 σ: median to slowest (found in 150)", "0.3 σ"]  # fmt: skip
    for n in (1_000, 5_000, 10_000, 100_000):
        for rows in (200, 2_000):
            alarms = undrifted_alarms(n, rows, effort)
            found = (_run_length(n, rows, shift, effort) for shift in (0.2, 0.3))
            yield [f"{n:,}", f"{rows:,}", f"{alarms} in {effort.feature_days:,} feature-days", *found]


def undrifted_alarms(n: int, rows: int, effort: Effort) -> int:
    """Features whose cumulative sum alarms within days without drift, a window a day."""
    rng = np.random.default_rng([SEED, n, rows])
    days = effort.feature_days // FEATURES
    return sum(
        when is not None for when in detections(world("equal", rng, n), rng, rows, STEADY, days, FEATURES)
    )


def _run_length(n: int, rows: int, shift: float, effort: Effort) -> str:
    """Median and slowest number of windows until the first feature's sum alarms, and the share within 150."""
    rng = np.random.default_rng([SEED, n, rows, int(100 * shift)])
    longest = 300
    found = [
        when
        for _ in range(effort.runs)
        for when in detections(world("equal", rng, n, features=1), rng, rows, Drift(shift), longest, 1)
    ]
    lengths = sorted(longest if when is None else when for when in found)
    middle, last = lengths[len(lengths) // 2], lengths[-1]
    within = _percent(_mean(one <= 150 for one in lengths))
    return " to ".join("> 300" if one == longest else str(one) for one in (middle, last)) + f" ({within})"


def detections(
    model: World, rng: np.random.Generator, rows: int, drift: Drift, longest: int, features: int
) -> list[int | None]:
    """In which window the cumulative sum of each feature reaches its limit, of at most `longest`."""
    policy, sums = Policy(), [Slow() for _ in range(features)]
    found: list[int | None] = [None] * features
    for day in range(longest):
        drawn = model.window(rng, rng.multinomial(rows, np.full(PANES, 1 / PANES)), drift)
        for i, (feature, counts) in enumerate(zip(model.features, drawn, strict=True)):
            result = compare(*sides(feature, *counts), policy)
            sums[i] = sums[i].after(result, start=day, end=day + 1, baseline_id="", policy=policy)
            if found[i] is None and sums[i].score >= statistics.CUSUM_LIMIT:
                found[i] = day + 1
        if None not in found:
            break
    return found


# --- output -----------------------------------------------------------------------------------------------


def _mean(values: Iterable[bool]) -> float:
    return float(np.mean(list(values)))


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %"


def markdown(rows: Sequence[Sequence[str]]) -> str:
    """A table: the first row is its head."""
    head, *body = rows
    lines = [head, ["---"] * len(head), *body]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


TABLES = (
    ("Windows with any alarm among 50 features, without drift (fixed rule PSI 0.1, 0.25)", false_alarms),
    ("The same, rows in sessions of 50 that are alike", sessions),
    ("Windows in which one drifting feature of 50 is found", power),
    ("Windows until it is found, baseline of 5,000 rows", to_detection),
    ("A month of the default windows, 50 features, without drift", months),
    ("A month of constant drift of 0.35 σ, ten times the traffic by day", drifting_months),
    ("Slow drift: the cumulative sum", slow),
)


def main() -> None:
    """Print every table."""
    parser = argparse.ArgumentParser(description="calibration of the drift verdict")
    parser.add_argument("--quick", action="store_true", help="few repetitions")
    effort = QUICK if parser.parse_args().quick else FULL
    for title, rows in TABLES:
        began = time.monotonic()
        print(f"\n**{title}**\n\n{markdown(list(rows(effort)))}", flush=True)
        print(f"\n<!-- {time.monotonic() - began:.0f} s -->", flush=True)


if __name__ == "__main__":
    main()
