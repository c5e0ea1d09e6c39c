"""What a point and a window cost the collector's engine as streams and features grow: flat, judged in this one run.

    python -m benchmarks.engine

A stream is one series of one process. Points are measured from ingestion to the panes, without decoding; windows
with nothing new to count, so that only the comparison is timed. CPU time; sizes take turns.
"""

from __future__ import annotations

import gc
import statistics
import sys
import time
import tracemalloc
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from benchmarks._load import HOUR, INTERVAL, START, Fleet, Kind, S, baseline, encoded, series
from otel_ml_collector.decode import Decoder
from otel_ml_collector.drift import Policy
from otel_ml_collector.engine import Engine, Limits
from otel_ml_collector.points import CUMULATIVE, DELTA
from otel_ml_collector.window import WindowSpec

STREAMS = (100, 1_000, 10_000, 100_000)
FEATURES = 50
TARGETS = 200
WINDOWS = ((10, 1), (100, 1), (1_000, 1), (2_000, 1), (20, 100))
"""Features and models."""
KINDS: tuple[tuple[Kind, int, str], ...] = (
    ("explicit", CUMULATIVE, "histogram, 32 buckets, cumulative"),
    ("explicit", DELTA, "histogram, 32 buckets, delta"),
    ("sum", CUMULATIVE, "sum, cumulative"),
    ("sum", DELTA, "sum, delta"),
    ("exponential", CUMULATIVE, "exponential, 120 buckets, cumulative"),
    ("exponential", DELTA, "exponential, 120 buckets, delta"),
)
ROUNDS = 3
FLAT = 2.0
"""How much dearer one may be at the largest size: what no cache holds is read from memory."""
MANY = Limits(max_streams=200_000, max_groups=50_000)
_DAY = WindowSpec(length=86_400, step=86_400, lateness=0)
_SILENT = WindowSpec(length=86_400, step=86_400, lateness=0, refresh=86_400)
"""In the hours it is used for no window ends and no number is refreshed: only points are worked on."""


def main() -> int:
    """Print the tables; the exit code is 1 when something is not flat."""
    points = {name: _points(kind, temporality) for kind, temporality, name in KINDS}
    _show("CPU time a point, us, by number of streams", [f"{n:,}" for n in STREAMS], points)
    windows = _windows()
    _show(
        "CPU time a window and target, us, by features x models",
        [f"{features:,} x {models}" for features, models in WINDOWS],
        {"20 cells, 23 hourly panes": windows},
    )
    _show_memory()
    flat = {f"a point at {STREAMS[-1]:,} streams over one at {STREAMS[1]:,}: {name}": costs[-1] / costs[1]
            for name, costs in points.items()}  # fmt: skip
    flat["a target of a window at 2,000 features over one at 100"] = windows[3] / windows[1]
    flat["a target of a window at 100 models over one at 100 features"] = windows[4] / windows[1]
    print()
    for name, ratio in flat.items():
        print(f"{'met' if ratio <= FLAT else 'MISSED':7}{ratio:8.2f}  (at most {FLAT:g})  {name}")
    return 0 if max(flat.values()) <= FLAT else 1


def _show(title: str, columns: Sequence[str], rows: Mapping[str, Sequence[float]]) -> None:
    print(f"\n{title}\n{'':40}" + "".join(f"{column:>12}" for column in columns))
    for name, values in rows.items():
        print(f"{name:40}" + "".join(f"{value:12.2f}" for value in values))


# --- points -----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Running:
    """An engine in service, and what feeds it."""

    engine: Engine
    fleet: Fleet

    def interval(self) -> int:
        """CPU nanoseconds for the points of an interval."""
        requests = self.fleet.interval()
        began = time.process_time_ns()
        for request in requests:
            self.engine.ingest(request, self.fleet.now)
        self.engine.advance(self.fleet.now)
        return time.process_time_ns() - began


def _running(kind: Kind, temporality: int, streams: int) -> _Running:
    pods = streams // FEATURES
    named = [series(kind, feature, pod=pod) for pod in range(pods) for feature in range(FEATURES)]
    return _Running(Engine(_SILENT, Policy(), MANY, started=START), Fleet(named, kind, temporality))


def _points(kind: Kind, temporality: int) -> list[float]:
    """Microseconds a point at each number of streams: the median of the rounds."""
    running = [_running(kind, temporality, streams) for streams in STREAMS]
    for one in running:
        one.interval()
    costs = [[_per_point(one) for one in running] for _ in range(ROUNDS)]
    return [statistics.median(column) / 1_000 for column in zip(*costs, strict=True)]


def _per_point(one: _Running) -> float:
    """Over as many intervals as make a few thousand points."""
    gc.collect()
    points = len(one.fleet.series)
    intervals = max(1, 5_000 // points)
    return sum(one.interval() for _ in range(intervals)) / (intervals * points)


# --- windows ----------------------------------------------------------------------------------------------


def _windows() -> list[float]:
    """Microseconds a window and target at each size: the median of the rounds."""
    engines = [_filled(features, models) for features, models in WINDOWS]
    costs = []
    for k in range(ROUNDS + 1):
        now = START + 23 * HOUR + (k + 1) * INTERVAL
        costs.append([_evaluation(engine, now) for engine in engines])
    return [statistics.median(column) / 1_000 for column in zip(*costs[1:], strict=True)]


def _filled(features: int, models: int) -> Engine:
    """An engine that saw 23 hours of one process; nothing was compared yet."""
    engine = Engine(_DAY, Policy(), MANY, started=START)
    engine.ingest(baseline(features, models), START)
    named = [series("explicit", feature, model=m) for m in range(models) for feature in range(features)]
    fleet = Fleet(named, buckets=20)
    for _ in range(23):
        for request in fleet.interval(HOUR):
            engine.ingest(request, fleet.now)
    engine.advance(fleet.now)
    return engine


def _evaluation(engine: Engine, now: int) -> float:
    """CPU nanoseconds a target of the windows up to `now`."""
    gc.collect()
    began = time.process_time_ns()
    evaluations = engine.advance(now)
    spent = time.process_time_ns() - began
    return spent / sum(len(one.targets) for one in evaluations)


# --- memory -----------------------------------------------------------------------------------------------


def _show_memory() -> None:
    """Print bytes a stream and bytes a target."""
    print("\nbytes held (tracemalloc), requests decoded from OTLP")
    for kind, _, name in KINDS[:4:2]:
        for pods in (20, 200):
            print(
                f"{'a stream, ' + name:45}{pods * FEATURES:>8,} streams{_bytes_a_stream(kind, pods):12,.0f}"
            )
    print(f"{'a target of 20 cells, all its panes filled':45}{TARGETS:>8,} targets{_bytes_a_target():12,.0f}")


def _bytes_a_stream(kind: Kind, pods: int) -> float:
    """What one more stream of targets that exist takes: engine and decoder."""
    more = _traced(lambda: _decoded(kind, pods)) - _traced(lambda: _decoded(kind, 1))
    return more / ((pods - 1) * FEATURES)


def _decoded(kind: Kind, pods: int) -> object:
    """Engine and decoder after two intervals."""
    engine, decoder = Engine(_SILENT, Policy(), MANY, started=START), Decoder()
    fleet = Fleet(
        [series(kind, feature, pod=pod) for pod in range(pods) for feature in range(FEATURES)], kind
    )
    for _ in range(2):
        for request in fleet.interval():
            engine.ingest(decoder.decode(encoded(request)).batch, fleet.now)
        engine.advance(fleet.now)
    return engine, decoder


def _bytes_a_target() -> float:
    """What one more feature of one process takes, after three days with the default window."""
    more = _traced(lambda: _three_days(TARGETS)) - _traced(lambda: _three_days(TARGETS // 10))
    return more / (TARGETS - TARGETS // 10)


def _three_days(features: int) -> Engine:
    engine = Engine(WindowSpec(lateness=0), Policy(), MANY, started=START)
    fleet = Fleet([series("explicit", feature) for feature in range(features)], buckets=20)
    for every in [HOUR] * 72 + [150 * S] * 48:
        for request in fleet.interval(every):
            engine.ingest(request, fleet.now)
        engine.advance(fleet.now)
    engine.ingest(baseline(features, 1), fleet.now)
    engine.advance(fleet.now + INTERVAL)
    return engine


def _traced(make: Callable[[], object]) -> int:
    """Bytes that are still allocated while what was made is held."""
    gc.collect()
    tracemalloc.start()
    held = make()
    gc.collect()
    size, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    del held
    return size


if __name__ == "__main__":
    sys.exit(main())
