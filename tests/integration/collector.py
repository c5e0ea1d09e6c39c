"""A collector in a process of its own, and telemetry of a model to send it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Mapping, Sequence
from pathlib import Path

from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import KeyValue
from opentelemetry.proto.metrics.v1.metrics_pb2 import Metric

BOUNDS = (-1.0, 0.0, 1.0)
REFERENCE = (1600, 3400, 3400, 1600)
DELTA, CUMULATIVE = 1, 2


class Collector:
    """`python -m otel_ml_collector` for the length of a `with` block.

    SIGTERM stops it at the end, unless it ended before; then `returncode`, `stdout` and `stderr` are known.
    """

    def __init__(
        self, directory: Path, config: str | None = None, *arguments: str, wait: bool = True
    ) -> None:
        self.directory = directory
        self.ports: dict[str, int] = {}
        self.returncode: int | None = None
        self.stdout = self.stderr = ""
        self._wait = wait
        self._command = [sys.executable, "-m", "otel_ml_collector", *arguments]
        if config is not None:
            path = directory / "collector.yaml"
            path.write_text(config)
            self._command += ["--config", str(path)]
        self.process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Collector:
        ready = self.directory / "ready.json"
        ready.unlink(missing_ok=True)
        # Files, not pipes: nobody reads while the test runs.
        with self._file("stdout").open("wb") as out, self._file("stderr").open("wb") as err:
            command = [*self._command, "--ready-file", str(ready)] if self._wait else self._command
            self.process = subprocess.Popen(command, stdout=out, stderr=err, env=self._environment())
        if self._wait:
            self._until_ready(ready)
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _environment(self) -> dict[str, str]:
        outer = {name: value for name, value in os.environ.items() if not name.startswith("OTEL_")}
        return {**outer, "STATE_DIRECTORY": str(self.directory / "state")}  # of the examples

    def stop(self, *, number: int = signal.SIGTERM, timeout: float = 20) -> int:
        """The exit code after this signal."""
        assert self.process is not None
        if self.process.poll() is None:
            self.process.send_signal(number)
        return self.ended(timeout)

    def ended(self, timeout: float = 20) -> int:
        """The exit code, once it has ended."""
        assert self.process is not None
        try:
            self.returncode = self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise
        finally:
            self.stdout, self.stderr = (self._file(name).read_text() for name in ("stdout", "stderr"))
        return self.returncode

    def send(self, request: ExportMetricsServiceRequest) -> int:
        """The status of the answer to this request, over HTTP."""
        url = f"http://127.0.0.1:{self.ports['http']}/v1/metrics"
        headers = {"Content-Type": "application/x-protobuf"}
        post = urllib.request.Request(url, request.SerializeToString(), headers)
        with urllib.request.urlopen(post, timeout=10) as answer:
            return int(answer.status)

    def get(self, port: str, path: str = "/metrics") -> str:
        """The body of a page."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.ports[port]}{path}", timeout=10) as answer:
            return str(answer.read().decode())

    def _file(self, name: str) -> Path:
        return self.directory / f"collector.{name}"

    def _until_ready(self, ready: Path) -> None:
        assert self.process is not None
        deadline = time.monotonic() + 30
        while not ready.exists():
            if self.process.poll() is not None or time.monotonic() > deadline:
                self.process.kill()
                self.process.wait()
                raise RuntimeError(f"the collector did not start: {self._file('stderr').read_text()}")
            time.sleep(0.02)
        self.ports = json.loads(ready.read_text())


# --- telemetry of a model ---------------------------------------------------------------------------------


def traffic(counts: Sequence[int] = REFERENCE, *, baseline: bool = True) -> ExportMetricsServiceRequest:
    """One delta export of the feature `age` of the model `churn`, with its baseline."""
    now = time.time_ns()
    request = ExportMetricsServiceRequest()
    resource = request.resource_metrics.add()
    identity = {"service.name": "churn-api", "service.instance.id": "pod-1"}
    resource.resource.attributes.extend(_attributes(identity))
    scope = resource.scope_metrics.add()
    scope.scope.name = "otel_ml"
    model = {
        "ml.model.name": "churn",
        "ml.model.version": "3",
        "ml.feature.name": "age",
        "ml.baseline.id": "b1",
    }
    _add(scope.metrics.add(name="ml.feature.value"), counts, model, DELTA, (now - 10**9, now))
    if baseline:
        of = {**model, "ml.drift.target": "feature"}
        _add(
            scope.metrics.add(name="ml.baseline.value"), REFERENCE, of, CUMULATIVE, (now - 3600 * 10**9, now)
        )
    return request


def _add(
    metric: Metric,
    counts: Sequence[int],
    attributes: Mapping[str, str],
    temporality: int,
    times: tuple[int, int],
) -> None:
    metric.histogram.aggregation_temporality = temporality  # type: ignore[assignment]
    metric.histogram.data_points.add(
        attributes=_attributes(attributes),
        start_time_unix_nano=times[0],
        time_unix_nano=times[1],
        count=sum(counts),
        bucket_counts=counts,
        explicit_bounds=BOUNDS,
    )


def _attributes(values: Mapping[str, str]) -> list[KeyValue]:
    made = []
    for key, value in values.items():
        one = KeyValue(key=key)
        one.value.string_value = value
        made.append(one)
    return made
