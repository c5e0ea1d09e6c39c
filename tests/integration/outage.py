"""A backend that goes away: a sender that notices nothing, a collector that keeps what comes on disk.

As a program it is the sender: it exports numbered requests, `RATE` a second with `POINTS` points each, in order,
and repeats one until it is taken, as an SDK does; each number that was taken is a line of the file `--taken`.

    cd tests && python -m integration.outage --port PORT --taken FILE
"""

from __future__ import annotations

import argparse
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from statistics import median

import grpc
from integration.collector import Collector
from integration.sink import Sink
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import KeyValue

RATE, POINTS, PODS = 10, 1000, 5
NUMBER = "outage.request"
_BOUNDS = [i / 20 for i in range(1, 20)]
_DELTA = 1


# --- the sender ---------------------------------------------------------------------------------------------


def request(number: int) -> ExportMetricsServiceRequest:
    """One export of one of a few pods, with its number."""
    now, pod = time.time_ns(), number % PODS
    made = ExportMetricsServiceRequest()
    resource = made.resource_metrics.add()
    resource.resource.attributes.extend(
        _attributes({"service.name": "churn-api", "k8s.pod.name": f"pod-{pod}"})
    )
    scope = resource.scope_metrics.add()
    scope.scope.name = "otel_ml"
    scope.metrics.add(name=NUMBER).gauge.data_points.add(time_unix_nano=now, as_int=number)
    histogram = scope.metrics.add(name="ml.feature.value").histogram
    histogram.aggregation_temporality = _DELTA
    for i in range(POINTS - 1):
        labels = {
            "ml.model.name": "churn",
            "ml.model.version": str(i // 200),
            "ml.feature.name": f"f{i % 200}",
        }
        histogram.data_points.add(
            attributes=_attributes(labels),
            start_time_unix_nano=now - 10**9 * PODS // RATE,
            time_unix_nano=now,
            explicit_bounds=_BOUNDS,
            bucket_counts=[1] * 20,
            count=20,
        )
    return made


def _attributes(values: Mapping[str, str]) -> list[KeyValue]:
    made = []
    for key, value in values.items():
        made.append(KeyValue(key=key))
        made[-1].value.string_value = value
    return made


def send(port: int, taken: Path) -> None:
    """Export until SIGTERM."""
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    options = [("grpc.max_reconnect_backoff_ms", 200), ("grpc.initial_reconnect_backoff_ms", 100)]
    with (
        grpc.insecure_channel(f"127.0.0.1:{port}", options) as channel,
        taken.open("w", buffering=1) as lines,
    ):
        export = channel.unary_unary("/opentelemetry.proto.collector.metrics.v1.MetricsService/Export")
        began, number = time.monotonic(), 0
        while not stop.wait(began + number / RATE - time.monotonic()):
            data = request(number).SerializeToString()
            while not stop.is_set():
                try:
                    export(data, timeout=10)
                except grpc.RpcError:
                    stop.wait(0.2)
                    continue
                lines.write(f"{number}\n")
                break
            number += 1


@contextmanager
def sender(port: int, taken: Path) -> Iterator[None]:
    """The sender in a process of its own, which has ended after the block."""
    command = [sys.executable, "-m", "integration.outage", "--port", str(port), "--taken", str(taken)]
    process = subprocess.Popen(command, cwd=Path(__file__).parents[1])
    try:
        yield
    finally:
        process.terminate()
        process.wait(30)


# --- the collector between them -----------------------------------------------------------------------------

CONFIG = """
extensions: {{file_storage: {{directory: {state}}}}}
receivers: {{otlp: {{protocols: {{grpc: {{endpoint: "127.0.0.1:{port}"}}}}}}}}
processors: {{ml_drift: {{forward: true, window: {{length: 1h, step: 1m, lateness: 1s}}, interval: 10s}}}}
exporters:
  otlp:
    endpoint: "{backend}"
    tls: {{insecure: true}}
    sending_queue: {{storage: file_storage, sizer: bytes, queue_size: {cap}}}
    retry_on_failure: {{initial_interval: 500ms, max_interval: 2s, max_elapsed_time: 0s}}
  prometheus: {{endpoint: "127.0.0.1:0"}}
service:
  extensions: [file_storage]
  pipelines: {{metrics: {{receivers: [otlp], processors: [ml_drift], exporters: [otlp, prometheus]}}}}
"""
CAP = 4 * 1024**3


QUEUE = 'otelcol_exporter_queue_size{data_type="metrics",exporter="otlp"} '
LOST = 'otelcol_exporter_send_failed_metric_points_total{exporter="otlp"} '


@dataclass
class Outage:
    """What was seen; times are seconds since the sender began."""

    taken: list[int] = field(default_factory=list)
    """Numbers of requests that the sender was told were taken."""
    arrived: list[int] = field(default_factory=list)
    """Numbers of requests that the backend got, in the order of arrival."""
    resident: list[tuple[float, int]] = field(default_factory=list)
    """Bytes of memory that the collector held."""
    on_disk: list[tuple[float, int]] = field(default_factory=list)
    """Bytes of its files."""
    went: float = 0.0
    came_back: float = 0.0
    drained: float = 0.0
    lost: float = 0.0
    """Points, as the collector counts them."""
    said: str = ""

    def peak(self, of: list[tuple[float, int]], since: float, until: float) -> int:
        """The largest one in these seconds."""
        return max(size for at, size in of if since <= at <= until)

    def tenths(self) -> list[int]:
        """The memory that the collector held in each tenth of the time its backend was away, the median."""
        step = (self.came_back - self.went) / 10
        edges = [self.went + i * step for i in range(11)]
        return [
            int(median(size for at, size in self.resident if since <= at <= until))
            for since, until in pairwise(edges)
        ]

    def __str__(self) -> str:
        before = self.peak(self.resident, self.went / 2, self.went)
        away = ", ".join(f"{size / 2**20:.0f}" for size in self.tenths())
        return (
            f"{len(self.taken)} requests of {POINTS} points at {RATE * POINTS} points/s; backend away for "
            f"{self.came_back - self.went:.0f} s, drained {self.drained - self.came_back:.0f} s after; "
            f"{len(set(self.taken) - set(self.arrived))} requests missing, "
            f"{len(self.arrived) - len(set(self.arrived))} came twice; memory in MiB: {before / 2**20:.0f} before, "
            f"{self.peak(self.resident, self.went, self.came_back) / 2**20:.0f} at most while it was away ({away}), "
            f"{self.peak(self.resident, self.came_back, self.drained) / 2**20:.0f} at most while draining; "
            f"disk in MiB: {self.peak(self.on_disk, 0, self.drained) / 2**20:.0f} at most, "
            f"{self.on_disk[-1][1] / 2**20:.1f} at the end"
        )


class _Run:
    """One collector after another in a directory, watched from outside."""

    def __init__(self, directory: Path, backend: str, cap: int) -> None:
        self.port, self.state, self.directory = _free_port(), directory / "state", directory
        self._config = CONFIG.format(state=self.state, port=self.port, backend=backend, cap=cap)
        self.seen = Outage()
        self._began = time.monotonic()
        self.collector = self._started()

    def now(self) -> float:
        return time.monotonic() - self._began

    def _started(self) -> Collector:
        return Collector(self.directory, self._config).__enter__()

    def stop(self, number: int = signal.SIGTERM) -> None:
        self.collector.stop(number=number)
        self.seen.said += self.collector.stderr

    def restart(self, number: int) -> None:
        """End it with this signal, and start another in its place."""
        self.stop(number)
        self.collector = self._started()

    def watch(self, seconds: float, until: Callable[[], bool] = lambda: False) -> None:
        """Look at it every second, for so long at most."""
        end = self.now() + seconds
        while self.now() < end and not until():
            assert self.collector.process is not None
            self.seen.resident.append((self.now(), resident(self.collector.process.pid)))
            self.seen.on_disk.append((self.now(), self.disk()))
            time.sleep(min(1.0, max(0.0, end - self.now())))

    def disk(self) -> int:
        return sum(map(_size, self.state.rglob("*.sqlite*")))

    def value(self, series: str) -> float:
        """Of one of its own metrics."""
        lines = self.collector.get("prometheus").splitlines()
        return next(float(line.removeprefix(series)) for line in lines if line.startswith(series))


def outage(directory: Path, *, up: float, down: float, restart: int | None = None, cap: int = CAP) -> Outage:
    """What is seen while a backend is there for `up` seconds, away for `down`, and there again.

    With `restart` the collector is ended by this signal in the middle, and another is started.
    """
    taken = directory / "taken"
    with Sink(directory / "backend") as sink:
        run = _Run(directory, sink.grpc_endpoint, cap)
        with ExitStack() as sending:
            sending.enter_context(sender(run.port, taken))
            run.watch(up)
            run.seen.went = run.now()
            sink.__exit__()
            with _refusing(sink.grpc_port):
                run.watch(down / 2)
                if restart is not None:
                    run.restart(restart)
                run.watch(down / 2)
            run.seen.came_back = run.now()
            sink.__enter__()
            run.watch(120 + down, until=lambda: run.value(QUEUE) < 1_000_000)
            run.seen.drained = run.now()
        run.watch(60, until=lambda: run.value(QUEUE) == 0)
        run.seen.lost = run.value(LOST)
        run.stop()
        run.seen.on_disk.append((run.now(), run.disk()))
        run.seen.taken = [int(line) for line in taken.read_text().split()]
        run.seen.arrived = numbers(sink.metrics())
    return run.seen


def check(seen: Outage) -> None:
    """All that was taken arrived, in order; nothing came twice but what was under way at an end; no loss is counted."""
    assert set(seen.taken) - set(seen.arrived) == set()
    first_of_each = list(dict.fromkeys(seen.arrived))
    assert first_of_each == sorted(first_of_each)
    assert len(seen.arrived) - len(first_of_each) <= 2
    assert seen.lost == 0


def _free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


@contextmanager
def _refusing(port: int) -> Iterator[None]:
    """Nobody else gets the port, who would take what is meant for the backend; who connects is refused."""
    with socket.socket() as one:
        one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        one.bind(("127.0.0.1", port))
        yield


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def resident(pid: int) -> int:
    """Bytes of memory that a process holds."""
    status = Path(f"/proc/{pid}/status").read_text()
    return 1024 * int(next(line.split()[1] for line in status.splitlines() if line.startswith("VmRSS")))


def numbers(requests: list[ExportMetricsServiceRequest]) -> list[int]:
    """Of those that came from the sender, in the order of arrival."""
    return [
        metric.gauge.data_points[0].as_int
        for one in requests
        for resource in one.resource_metrics
        for scope in resource.scope_metrics
        for metric in scope.metrics
        if metric.name == NUMBER
    ]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Export numbered requests until SIGTERM.")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--taken", type=Path, required=True)
    chosen = parser.parse_args()
    send(chosen.port, chosen.taken)
