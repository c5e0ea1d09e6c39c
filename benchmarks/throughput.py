"""What a data point costs the collector as a service: a process on one core, real senders on the other.

    python -m benchmarks.throughput            all of it, about seven minutes
    python -m benchmarks.throughput --quick    each for a second

Judged by the CPU time that the server's process takes until the points stand in its windows, which a busy machine
changes little: points a second on one core are its inverse. What passed in the time of the clock stands beside it.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from benchmarks._measure import Target
from benchmarks._requests import FINE
from benchmarks._sender import Load, Sent

CONFIG = """\
receivers:
  otlp: { protocols: { grpc: { endpoint: "127.0.0.1:0" }, http: { endpoint: "127.0.0.1:0" } } }
processors:
  ml_drift:
    window: { lateness: %s }
exporters:
  prometheus: { endpoint: "127.0.0.1:0" }
service:
  pipelines: { metrics: { receivers: [otlp], processors: [ml_drift], exporters: [prometheus] } }
"""
_LOST = (
    "late",
    "future",
    "duplicate",
    "reset",
    "initial",
    "overlap",
    "rejected_limit",
    "crowded",
    "malformed",
)
"""Fates of points in the engine that none of ours may have."""
_TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class Server:
    """A process that listens, on the first of the cores there are."""

    process: subprocess.Popen[bytes]
    ports: Mapping[str, int | None]

    def cpu(self) -> float:
        """Seconds of CPU it took so far."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / _TICKS

    def memory(self) -> float:
        """MiB that it holds."""
        pages = int(Path(f"/proc/{self.process.pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE") / 2**20

    def metrics(self) -> dict[str, float]:
        """Its own metrics, by name and labels."""
        url = f"http://127.0.0.1:{self.ports['prometheus']}/metrics"
        with urllib.request.urlopen(url, timeout=10) as answer:
            lines = answer.read().decode().splitlines()
        return {
            name: float(value)
            for name, _, value in (line.rpartition(" ") for line in lines if line[0] != "#")
        }


@contextmanager
def serving(module: str, *arguments: str) -> Iterator[Server]:
    """`python -m module arguments` for as long as it is needed, once it listens."""
    with tempfile.TemporaryDirectory() as directory:
        ready = Path(directory, "ready.json")
        command = [sys.executable, "-m", module, *arguments, "--ready-file", str(ready)]
        process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
        os.sched_setaffinity(process.pid, {min(os.sched_getaffinity(0))})
        try:
            while not ready.exists():
                if process.poll() is not None:
                    raise RuntimeError(f"{' '.join(command)} ended with {process.returncode}")
                time.sleep(0.05)
            yield Server(process, json.loads(ready.read_text()))
        finally:
            process.terminate()
            process.wait(20)


# --- measuring --------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Figures:
    """What a server took in, and what that took."""

    sent: Sent
    cpu: float
    seconds: float
    memory: float
    """MiB when the last point was in."""
    counted: float
    """Points that the engine found to be in order; of a server without one, all."""

    @property
    def per_core(self) -> float:
        """Points a second that one core takes in."""
        return self.sent.points / self.cpu

    @property
    def a_second(self) -> float:
        return self.sent.points / self.seconds

    def check(self) -> None:
        """RuntimeError when not every point counted."""
        if self.sent.rejected or self.counted != self.sent.points:
            raise RuntimeError(f"{self.counted:.0f} points counted, {self.sent} was sent")


def measured(server: Server, load: Load, *, settle: float) -> Figures:
    """A load on a server, after the fleet has sent twice; `settle` is how long the last points may wait there."""
    command = [sys.executable, "-m", "benchmarks._sender", json.dumps(asdict(load))]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as sender:
        assert sender.stdin is not None
        assert sender.stdout is not None
        os.sched_setaffinity(sender.pid, {max(os.sched_getaffinity(0))})
        if sender.stdout.readline() != "ready\n":
            raise RuntimeError("the sender failed")
        time.sleep(settle)
        counted, cpu, began = _counted(server), server.cpu(), time.monotonic()
        print("go", file=sender.stdin, flush=True)
        sent = Sent(**json.loads(sender.stdout.readline()))
        seconds, memory = time.monotonic() - began, server.memory()
        time.sleep(settle)
        after = _counted(server)
        return Figures(sent, server.cpu() - cpu, seconds, memory, after - counted if after else sent.points)


def _counted(server: Server) -> float:
    if not server.ports.get("prometheus"):
        return 0.0
    counts = {name.partition("reason=")[2].strip('"}'): value for name, value in server.metrics().items()
              if name.startswith("otel_ml_engine_counts_total")}  # fmt: skip
    return counts["points"] - sum(counts[reason] for reason in _LOST)


@contextmanager
def collector(lateness: str) -> Iterator[Server]:
    """An otel-ml-collector with the default window."""
    with tempfile.TemporaryDirectory() as directory:
        config = Path(directory, "collector.yaml")
        config.write_text(CONFIG % lateness)
        with serving("otel_ml_collector", "--config", str(config)) as server:
            yield server


# --- what is measured -------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Case:
    """A load, and what it must come to."""

    name: str
    load: dict[str, Any]
    least: float = 0.0
    """Points a second on one core; 0 where that is only shown."""
    lateness: str = "1s"


CASES = (
    Case("20 buckets, 100 points a message", {}, 100_000),
    Case("20 buckets, 1000 points", {"exports": 10}, 300_000),
    Case("200 buckets, 100 points", {"buckets": FINE}, lateness="500ms"),
    Case("200 buckets, 1000 points", {"buckets": FINE, "exports": 10}, 80_000, lateness="500ms"),
    Case("all that the SDK sends, 195 points", {"whole": True}),
    Case("20 buckets, 100 points, HTTP", {"protocol": "http"}),
    Case("20 buckets, 1000 points, HTTP", {"protocol": "http", "exports": 10}),
)
FLEETS = {100: (1, 1), 1_000: (2, 5), 10_000: (10, 10), 50_000: (50, 10)}
"""Models and pods by number of streams; of one service there are 80,000 at most."""
FLAT = 2.0
"""How much dearer a point may be with the most streams."""
STEADY = Load(port=0, rate=10_000, models=40, pods=4, features=22, whole=True)
"""Forty models of 22 features and 8 projections in four pods each: 8,640 series, an export every 0.9 s."""
LATENESS = "3s"
"""Two of these intervals, as is usual."""
MOST_CPU, MOST_MEMORY = 0.6, 150.0


def main() -> int:
    """Print the tables, and which targets are met; the exit code is 1 when one is not."""
    quick = "--quick" in sys.argv
    targets = [*throughput(1 if quick else 4), *flatness(1 if quick else 4), *steady(20 if quick else 75)]
    print()
    print(*targets, sep="\n")
    return 0 if all(target.met for target in targets) else 1


def throughput(seconds: float) -> Iterator[Target]:
    """Points a second, beside those of a receiver with nothing behind it and of gRPC alone."""
    print("points a second on one core, by CPU time (by the clock, on this machine now); us of CPU a message")
    print(f"{'':38}{'collector':>22}{'receiver alone':>22}{'gRPC alone':>22}{'a message':>11}")
    for case in CASES:
        figures = [_figures(case, "collector", seconds), _figures(case, "receiver", seconds)]
        if case.load.get("protocol") != "http":
            figures.append(_figures(case, "grpc", seconds))
        shown = "".join(f"{f'{one.per_core:,.0f} ({one.a_second:,.0f})':>22}" for one in figures)
        message = figures[0].cpu / figures[0].sent.requests * 1e6
        print(f"{case.name:38}{shown:66}{message:11,.0f}", flush=True)
        if case.least:
            yield Target(
                f"points a second on one core: {case.name}", figures[0].per_core, case.least, at_least=True
            )


def _figures(case: Case, what: str, seconds: float) -> Figures:
    server = collector(case.lateness) if what == "collector" else serving("benchmarks._noop", what)
    with server as running:
        port = running.ports[case.load.get("protocol", "grpc")]
        assert port is not None
        load = Load(port=port, seconds=seconds, **case.load)
        figures = measured(running, load, settle=3.0 if what == "collector" else 0.2)
    figures.check()
    return figures


def flatness(seconds: float) -> Iterator[Target]:
    """CPU a point as streams grow, at 20,000 points a second."""
    costs = {}
    for streams, (models, pods) in FLEETS.items():
        with collector("1s") as server:
            load = Load(port=server.ports["grpc"] or 0, rate=20_000, seconds=seconds, models=models, pods=pods,
                        connections=min(4, models * pods))  # fmt: skip
            figures = measured(server, load, settle=3.0)
        figures.check()
        costs[streams] = 1e6 / figures.per_core
    print("\nus of CPU a point, by number of streams, 100 points a message, 20,000 points a second")
    print("".join(f"{streams:>12,}" for streams in costs))
    print("".join(f"{cost:12.1f}" for cost in costs.values()))
    yield Target("a point at 50,000 streams over one at 1,000", costs[50_000] / costs[1_000], FLAT)


def steady(seconds: float) -> Iterator[Target]:
    """CPU and memory at a rate, drift of all models every minute included."""
    with collector(LATENESS) as server:
        figures = measured(
            server, replace(STEADY, port=server.ports["grpc"] or 0, seconds=seconds), settle=4.0
        )
        held = {
            name: value for name, value in server.metrics().items() if name.startswith("otel_ml_engine_size")
        }
    figures.check()
    share = figures.cpu / figures.seconds
    print(f"\nat {figures.a_second:,.0f} points a second in {figures.sent.requests / figures.seconds:,.0f} messages,"
          f" {seconds:.0f} s: {share:.1%} of a core, {figures.memory:.0f} MiB")  # fmt: skip
    print(*(f"{name} {value:,.0f}" for name, value in held.items()), sep="\n")
    yield Target("part of a core at 10,000 points a second", share, MOST_CPU)
    yield Target("MiB at 10,000 points a second", figures.memory, MOST_MEMORY)


if __name__ == "__main__":
    sys.exit(main())
