"""otel-ml-collector as a branch of the OpenTelemetry Collector: what becomes of the other when this cannot go on."""

from __future__ import annotations

import re
import signal
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import grpc
import yaml
from integration.collector import Collector, traffic
from interop.examples import pair, ported, ports_for
from interop.otelcol import OpenTelemetryCollector, export, free_ports, written_metrics
from interop.prometheus import eventually
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest

from otel_ml import semconv

COUNTS = (16, 34, 34, 16)
BATCH = 40

DRIFT = """
receivers: {{otlp: {{protocols: {{grpc: {{endpoint: "127.0.0.1:{port}"}}}}}}}}
processors:
  memory_limiter: {{limit_mib: {limit}, spike_limit_mib: 1, check_interval: 100ms}}
  ml_drift: {{window: {{type: sliding, length: 10m, step: 1m, lateness: 5m}}, interval: 500ms}}
exporters: {{prometheus: {{endpoint: "127.0.0.1:{page}"}}}}
service:
  pipelines: {{metrics: {{receivers: [otlp], processors: [memory_limiter, ml_drift], exporters: [prometheus]}}}}
"""
ALWAYS_OVER, PLENTY = 2, 100_000


class Branches:
    """The fan-out example with its main branch to a file, and a sender of deltas that lie end to end."""

    def __init__(self, otelcol: OpenTelemetryCollector, file: Path, port: int) -> None:
        self.otelcol = otelcol
        self._file, self._port = file, port
        self._last = time.time_ns()
        self.sent: list[int] = []
        self.refused = 0

    def send(self, n: int) -> None:
        """Send `n` exports, twenty a second; what is refused is sent again, as SDKs do, three times."""
        for _ in range(n):
            request = traffic(COUNTS)
            point = request.resource_metrics[0].scope_metrics[0].metrics[0].histogram.data_points[0]
            point.start_time_unix_nano, self._last = self._last, point.time_unix_nano
            self.sent.append(point.time_unix_nano)
            any(self._taken(request) for _ in range(3))
            time.sleep(0.05)  # the rate is the point

    def _taken(self, request: ExportMetricsServiceRequest) -> bool:
        try:
            export(self._port, request)
        except grpc.RpcError as error:
            if error.code() != grpc.StatusCode.UNAVAILABLE:
                raise
            self.refused += 1
            return False
        return True

    def main(self) -> Counter[int]:
        """How often the export of each time is in the main branch's file."""
        return Counter(
            point.time_unix_nano
            for request in written_metrics(self._file)
            for resource in request.resource_metrics
            for scope in resource.scope_metrics
            for metric in scope.metrics
            if metric.name == semconv.FEATURE_VALUE.name
            for point in metric.histogram.data_points
        )

    def whole(self) -> bool:
        """Whether the main branch has everything, once."""
        return self.main() == Counter(self.sent)

    def branch(self) -> dict[str, int]:
        """The drift branch by the Collector's own metrics."""
        found = self.otelcol.metrics(exporter="otlp_grpc/drift")
        names = (
            "queue_size",
            "sent_metric_points",
            "send_failed_metric_points",
            "enqueue_failed_metric_points",
        )
        figures = {name: int(found.get(f"otelcol_exporter_{name}", 0)) for name in names}
        retries = len(re.findall("Will retry the request after interval", self.otelcol.log.read_text()))
        return {**figures, "retries": retries}

    def done(self, points: int) -> dict[str, int] | None:
        """`branch`, once its queue is empty and so many points were sent."""
        figures = self.branch()
        return figures if (figures["queue_size"], figures["sent_metric_points"]) == (0, points) else None


@contextmanager
def branches(executable: Path, directory: Path, drift: int, **changes: Any) -> Iterator[Branches]:
    """The fan-out example, its drift branch to the port `drift`; `changes` are made to its exporter or pipeline."""
    front, ours = pair("fan-out")
    ports = {**ports_for(front, ours), 14317: drift}
    config = yaml.safe_load(ported(ports, front))
    exporter = config["exporters"]["otlp_grpc/drift"]
    exporter["retry_on_failure"]["initial_interval"] = "500ms"
    exporter["sending_queue"]["queue_size"] = changes.get("queue_size", 1000)
    config["exporters"]["file"] = {
        "path": str(directory / "main.pb"),
        "format": "proto",
        "flush_interval": "100ms",
    }
    pipelines = config["service"]["pipelines"]
    pipelines["metrics"]["exporters"] = ["file"]
    pipelines["metrics/drift"]["processors"] = changes.get(
        "processors", pipelines["metrics/drift"]["processors"]
    )
    del pipelines["traces"], pipelines["logs"], config["exporters"]["otlp_grpc/backend"]
    config["processors"]["batch/drift"]["timeout"] = "100ms"
    with OpenTelemetryCollector(executable, directory / "otelcol", config) as otelcol:
        yield Branches(otelcol, directory / "main.pb", ports[4317])


def taken(page: int) -> float:
    """Points that otel-ml-collector took and left nothing out of, by its own page; two in each export."""
    with urlopen(f"http://127.0.0.1:{page}/metrics", timeout=10) as answer:
        text = answer.read().decode()
    names = ("otelcol_receiver_accepted_metric_points", "otel_ml_receiver_left_out")
    accepted, left_out = (
        sum(float(value) for value in re.findall(rf"^{name}_total\{{.*\}} (\S+)$", text, re.MULTILINE))
        for name in names
    )
    return accepted - left_out


def test_branch_that_is_throttled_and_then_down(otelcol: Path, tmp_path: Path) -> None:
    """The main branch has every export once, all the time; the drift branch waits, and has all of it at the end."""
    port, page = free_ports(2)
    config = tmp_path / "collector.yaml"
    short, ample = (DRIFT.format(port=port, page=page, limit=limit) for limit in (ALWAYS_OVER, PLENTY))
    with Collector(tmp_path, short) as ours, branches(otelcol, tmp_path, port) as system:
        system.send(BATCH)
        eventually(system.whole, what="every export in the main branch while the other is throttled")
        throttled = system.branch()
        assert (throttled["sent_metric_points"], throttled["queue_size"] > 0) == (0, True)
        assert throttled["retries"] > 0
        assert ours.process is not None
        config.write_text(ample)
        ours.process.send_signal(signal.SIGHUP)
        eventually(lambda: taken(page) == 2 * BATCH, what="every export in the drift branch", timeout=60)
        drained = eventually(lambda: system.done(2 * BATCH), what="an empty queue")
        ours.stop()

        system.send(BATCH)
        eventually(system.whole, what="every export in the main branch while the other is down")
        down = system.branch()
        assert down["queue_size"] > 0
        with Collector(tmp_path, ample):
            eventually(
                lambda: taken(page) == 2 * BATCH, what="what had waited, in the new process", timeout=60
            )
            back = eventually(lambda: system.done(4 * BATCH), what="an empty queue")
        assert (back["send_failed_metric_points"], back["enqueue_failed_metric_points"]) == (0, 0)
        assert (system.whole(), system.refused) == (True, 0)
    for name, figures in (("throttled", throttled), ("drained", drained), ("down", down), ("back", back)):
        print(f"\n{name}: main branch complete; drift branch {figures}", end="")


def test_full_queue_is_lost_to_its_branch_alone(otelcol: Path, tmp_path: Path) -> None:
    """When the queue of the drift branch is full, senders hear nothing of it, and the main branch has it all, once."""
    (nobody,) = free_ports(1)
    with branches(otelcol, tmp_path, nobody, queue_size=3) as system:
        system.send(BATCH)
        eventually(system.whole, what="every export in the main branch")
        figures = system.branch()
    assert (system.refused, figures["queue_size"]) == (0, 3)
    assert figures["enqueue_failed_metric_points"] > 0
    print(f"\nqueue full: main branch complete; drift branch {figures}")


def test_full_queue_without_a_batch_processor_doubles_the_main_branch(otelcol: Path, tmp_path: Path) -> None:
    """Why the example has one: without it senders are told to send again what the main branch already has."""
    (nobody,) = free_ports(1)
    alone = ["memory_limiter", "filter/models_only"]
    with branches(otelcol, tmp_path, nobody, queue_size=3, processors=alone) as system:
        system.send(BATCH)
        eventually(lambda: set(system.main()) == set(system.sent), what="every export in the main branch")
    assert system.refused > 0
    assert max(system.main().values()) > 1
    print(f"\nno batch processor: {sum(system.main().values())} exports in the main branch of {BATCH} sent")
