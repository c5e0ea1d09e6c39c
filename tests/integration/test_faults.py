"""Backends that are away, hang or talk nonsense, and processes that end in the middle: the model's answers stand."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from integration.sink import Sink
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest

APP = Path(__file__).with_name("fault_process.py")
EXPECTED = sum(round(0.001 * i, 3) for i in range(2000))


def _environment(**variables: str) -> dict[str, str]:
    kept = {key: value for key, value in os.environ.items() if not key.startswith("OTEL_")}
    return {**kept, "OTEL_METRIC_EXPORT_INTERVAL": "200", "OTEL_SERVICE_NAME": "svc", **variables}


def _exporting_to(port: int, protocol: str) -> dict[str, str]:
    return _environment(
        OTEL_EXPORTER_OTLP_ENDPOINT=f"http://127.0.0.1:{port}",
        OTEL_EXPORTER_OTLP_PROTOCOL=protocol,
        OTEL_EXPORTER_OTLP_TIMEOUT="2",
    )


def _run(how: str, environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    """Run the application to its end; a process that never ends is what these tests are about."""
    return subprocess.run(
        [sys.executable, str(APP), how],
        env=environment,
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
    )


# --- backends ------------------------------------------------------------------------------------------------


@contextmanager
def _closed() -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
    yield port


@contextmanager
def _answering(answer: bytes | None) -> Iterator[int]:
    """A server that takes what it is sent and says `answer`; nothing at all with None."""
    server = socket.create_server(("127.0.0.1", 0))
    held: list[socket.socket] = []

    def serve() -> None:
        while True:
            try:
                connection, _ = server.accept()
            except OSError:
                return
            held.append(connection)
            if answer is not None:
                threading.Thread(target=talk, args=(connection,), daemon=True).start()

    def talk(connection: socket.socket) -> None:
        with connection:
            try:
                while connection.recv(65536):
                    connection.sendall(answer or b"")
            except OSError:
                return

    threading.Thread(target=serve, daemon=True).start()
    try:
        yield server.getsockname()[1]
    finally:
        server.close()
        for connection in held:
            connection.close()


BACKENDS: dict[str, Any] = {
    "closed": _closed,
    "silent": lambda: _answering(None),
    "500": lambda: _answering(b"HTTP/1.1 500 Internal Server Error\r\nContent-Length: 0\r\n\r\n"),
    "garbage": lambda: _answering(b"\x00\xff garbage \r\n\r\n"),
}


@pytest.mark.parametrize("protocol", ["grpc", "http/protobuf"])
@pytest.mark.parametrize("backend", BACKENDS)
def test_a_backend_that_fails_costs_no_answer(backend: str, protocol: str) -> None:
    """Every answer is right, the queue stays within its limit, errors of ours there are none, and the process ends."""
    with BACKENDS[backend]() as port:
        done = _run("predict", _exporting_to(port, protocol))
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout.splitlines()[-1])
    assert said["sum"] == pytest.approx(EXPECTED)
    assert said["waiting"] <= said["limit"]
    assert said["rows"] == 2000
    assert "otel-ml failed" not in done.stderr


@pytest.mark.parametrize("how", ["exporter raises", "exporter raises SystemExit"])
def test_an_exporter_that_raises_costs_no_answer(how: str) -> None:
    """Whatever an exporter raises in its thread, predictions and counts go on."""
    done = _run(how, _environment(OTEL_METRICS_EXPORTER="none", OTEL_TRACES_EXPORTER="none"))
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout.splitlines()[-1])
    assert (said["sum"], said["rows"]) == (pytest.approx(EXPECTED), 2000)
    assert said["waiting"] <= said["limit"]
    assert "otel-ml failed" not in done.stderr


# --- ends ----------------------------------------------------------------------------------------------------

ENDS = {
    "return": 0,
    "sys.exit": 3,
    "sys.exit inside": 3,
    "raise": 1,
    "threads return": 0,
    "threads sys.exit": 3,
    "threads sys.exit inside": 3,
    "threads raise": 1,
}
"""Ends in which the interpreter still runs its last handlers, with the exit code that belongs to each."""

CUT_OFF = {"os._exit inside": 4, "SIGTERM inside": -signal.SIGTERM}
"""Ends that leave no time for anything."""


@pytest.mark.parametrize("protocol", ["grpc", "http/protobuf"])
@pytest.mark.parametrize("how", ENDS)
def test_what_was_counted_leaves_when_the_interpreter_ends(how: str, protocol: str, tmp_path: Path) -> None:
    """The exit code is the application's, and the provider's last export has the rows that waited."""
    with Sink(tmp_path / "sink") as sink:
        port = sink.grpc_port if protocol == "grpc" else sink.http_port
        slow = _exporting_to(port, protocol) | {"OTEL_METRIC_EXPORT_INTERVAL": "60000"}
        done = _run(how, slow)
        rows = _rows(sink.wait_for(bool, timeout=10))
    assert done.returncode == ENDS[how], done.stderr
    assert "Fatal Python error" not in done.stderr
    assert "otel-ml failed" not in done.stderr
    assert ("ValueError: cannot score this" in done.stderr) == how.endswith("raise")
    assert rows == 10 if not how.startswith("threads") else rows > 10


@pytest.mark.parametrize("how", CUT_OFF)
def test_an_end_without_notice_is_not_held_up(how: str, tmp_path: Path) -> None:
    """A process that is ended from inside a prediction ends with the code it would have ended with."""
    with Sink(tmp_path / "sink") as sink:
        done = _run(how, _exporting_to(sink.grpc_port, "grpc"))
    assert done.returncode == CUT_OFF[how], done.stderr
    assert done.stderr == ""


def test_a_stopped_thread_that_holds_our_locks_does_not_hold_up_the_end() -> None:
    """Daemon threads are stopped for good when the interpreter ends, wherever they are; nothing waits for them."""
    environment = _environment(OTEL_METRICS_EXPORTER="none", OTEL_TRACES_EXPORTER="none")
    done = _run("locks are held", environment)
    assert (done.returncode, done.stderr) == (0, "")


def _rows(received: list[ExportMetricsServiceRequest]) -> int:
    """Rows of the model in the last export."""
    told = [
        point.as_int
        for request in received
        for resource in request.resource_metrics
        for scope in resource.scope_metrics
        for metric in scope.metrics
        if metric.name == "ml.inference.rows"
        for point in metric.sum.data_points
        if any(a.key == "ml.model.name" and a.value.string_value == "churn" for a in point.attributes)
    ]
    return int(told[-1])
