"""The real OpenTelemetry Collector in a process of its own, and what it wrote.

with OpenTelemetryCollector(executable, tmp_path, CONFIG) as otelcol:
    otelcol.metrics()["otelcol_receiver_accepted_metric_points"]
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
from collections import defaultdict
from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any, TypeVar
from urllib.request import urlopen

import grpc
import yaml
from google.protobuf.message import Message
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from prometheus_client.parser import text_string_to_metric_families

READY = "Everything is ready. Begin running and processing data."

_Request = TypeVar("_Request", bound=Message)


class OpenTelemetryCollector:
    """`otelcol --config` for the length of a `with` block; `log` is the file of what it says.

    `config` is a document or its text. It gets a page of the Collector's own metrics, see `metrics`. `prefix` are words
    in front of the command.
    """

    def __init__(
        self,
        executable: Path,
        directory: Path,
        config: str | Mapping[str, Any],
        *,
        prefix: Iterable[str] = (),
        environment: Mapping[str, str] | None = None,
    ) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self.log = directory / "otelcol.log"
        (self._page,) = free_ports(1)
        path = directory / "otelcol.yaml"
        path.write_text(yaml.safe_dump(with_metrics_page(config, self._page)))
        self._command = [*prefix, str(executable), "--config", str(path)]
        self._environment = {**os.environ, **(environment or {})}
        self.process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> OpenTelemetryCollector:
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                self._command, stdout=log, stderr=subprocess.STDOUT, env=self._environment
            )
        deadline = time.monotonic() + 60
        while READY not in self.log.read_text():
            if self.process.poll() is not None or time.monotonic() > deadline:
                self.stop()
                raise RuntimeError(f"the OpenTelemetry Collector did not start: {self.log.read_text()}")
            time.sleep(0.02)
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        """End it as an operator does; what it has batched goes out first."""
        assert self.process is not None
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(30)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise

    def metrics(self, **labels: str) -> dict[str, float]:
        """Its own metrics as it serves them: the sums of the series that have all of `labels`, without `_total`."""
        with urlopen(f"http://127.0.0.1:{self._page}/metrics", timeout=10) as answer:
            page = answer.read().decode()
        sums = defaultdict[str, float](float)
        for family in text_string_to_metric_families(page):
            for sample in family.samples:
                if labels.items() <= sample.labels.items():
                    sums[sample.name.removesuffix("_total")] += sample.value
        return dict(sums)


def with_metrics_page(config: str | Mapping[str, Any], port: int) -> dict[str, Any]:
    """The configuration with the Collector's own metrics served on `port`."""
    document: dict[str, Any] = yaml.safe_load(config) if isinstance(config, str) else dict(config)
    page = {"pull": {"exporter": {"prometheus": {"host": "127.0.0.1", "port": port}}}}
    telemetry = {"metrics": {"readers": [page]}}
    return {**document, "service": {**document["service"], "telemetry": telemetry}}


def validated(executable: Path, *configs: Path, environment: Mapping[str, str] | None = None) -> str:
    """What `otelcol validate` has against the configurations, merged in this order; empty when nothing."""
    arguments = [word for path in configs for word in ("--config", str(path))]
    done = subprocess.run(
        [executable, "validate", *arguments], env={**os.environ, **(environment or {})},
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    return "" if done.returncode == 0 else done.stderr


def export(port: int, request: Message) -> None:
    """Send an export request over gRPC, as an SDK does; an answer that is no success is an error."""
    package = request.DESCRIPTOR.file.package
    service = f"{package}.{package.split('.')[3].capitalize()}Service"
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        channel.unary_unary(f"/{service}/Export", None, None)(request.SerializeToString(), timeout=20)


def written(path: Path, kind: type[_Request]) -> list[_Request]:
    """The requests in a file of the file exporter with `format: proto`: each behind its length, four bytes.

    A last one may be half written.
    """
    data = path.read_bytes() if path.exists() else b""
    requests, at = [], 0
    while at + 4 <= len(data):
        end = at + 4 + int.from_bytes(data[at : at + 4], "big")
        if end > len(data):
            break
        requests.append(kind.FromString(data[at + 4 : end]))
        at = end
    return requests


def written_metrics(path: Path) -> list[ExportMetricsServiceRequest]:
    """The metrics in a file of the file exporter."""
    return written(path, ExportMetricsServiceRequest)


def free_ports(n: int) -> list[int]:
    """Ports on 127.0.0.1 that nobody has. The Collector does not say what a port of 0 became."""
    with ExitStack() as stack:
        probes = [stack.enter_context(socket.socket()) for _ in range(n)]
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [probe.getsockname()[1] for probe in probes]
