"""The collector as a program: start, configuration, what goes out, a backend that is away, stop."""

from __future__ import annotations

import json
import signal
import socket
import time
from collections.abc import Callable
from math import log
from pathlib import Path

import pytest
from integration.collector import REFERENCE, Collector, traffic
from integration.sink import Sink
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest

DRIFTED = (200, 800, 3000, 6000)
QUEUE = 'otelcol_exporter_queue_size{data_type="metrics",exporter="otlp"}'
SHARES = [(a / sum(REFERENCE), c / sum(DRIFTED)) for a, c in zip(REFERENCE, DRIFTED, strict=True)]
PSI = sum((q - p) * log(q / p) for p, q in SHARES)

CONFIG = """
extensions: {health_check: {endpoint: "127.0.0.1:0"}}
receivers: {otlp: {protocols: {grpc: {endpoint: "127.0.0.1:0"}, http: {endpoint: "127.0.0.1:0"}}}}
processors:
  ml_drift:
    window: {length: 4s, step: 1s, lateness: 200ms, max_age: 60s}
    interval: 500ms
exporters:
  debug: {verbosity: detailed}
  prometheus: {endpoint: "127.0.0.1:0"}
  EXPORTER
service:
  extensions: [health_check]
  pipelines: {metrics: {receivers: [otlp], processors: [ml_drift], exporters: [debug, prometheus NAME]}}
"""


def config(name: str = "", body: str = "") -> str:
    """A configuration with all that needs no backend, and one exporter that does."""
    text = CONFIG.replace("EXPORTER", f"{name}: {body}" if name else "")
    return text.replace(" NAME", f", {name}" if name else "")


def eventually(true: Callable[[], object], timeout: float = 20) -> None:
    deadline = time.monotonic() + timeout
    while not true():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.05)


def names(requests: list[ExportMetricsServiceRequest]) -> set[str]:
    return {
        metric.name for request in requests for metric in request.resource_metrics[0].scope_metrics[0].metrics
    }


def newest(requests: list[ExportMetricsServiceRequest], name: str) -> float | None:
    """The value of a gauge with one point, in the newest request that has it."""
    for request in reversed(requests):
        for metric in request.resource_metrics[0].scope_metrics[0].metrics:
            if metric.name == name:
                return metric.gauge.data_points[0].as_double
    return None


# --- start and stop ---------------------------------------------------------------------------------------


def test_it_says_what_it_does_and_stops_cleanly_on_sigterm(tmp_path):
    """What listens where, with the real ports; a health page; exit code 0."""
    with Collector(tmp_path, config()) as collector:
        assert set(collector.ports) == {"grpc", "http", "prometheus", "health"}
        assert json.loads(collector.get("health", "/"))["status"] == "Server available"
        assert "otel_ml_engine_size" in collector.get("prometheus")
    assert collector.returncode == 0
    head = collector.stderr.splitlines()
    assert head[0].split("\t")[1:] == ["info", "version 0.1.0"]
    assert f"OTLP gRPC on 127.0.0.1:{collector.ports['grpc']}" in head[1]
    assert f"OTLP HTTP on 127.0.0.1:{collector.ports['http']}" in head[1]
    assert "a window of 4s that slides by 1s" in head[2]
    assert f"http://127.0.0.1:{collector.ports['prometheus']}/metrics, every 500ms" in head[3]
    assert head[-1].split("\t")[1:] == ["info", "stopping"]


def test_ctrl_c_stops_it_cleanly(tmp_path):
    """SIGINT is SIGTERM from a keyboard: no traceback."""
    with Collector(tmp_path, config()) as collector:
        assert collector.stop(number=signal.SIGINT) == 0
    assert "Traceback" not in collector.stderr


def test_a_second_ctrl_c_ends_it_at_once(tmp_path):
    """Who does not want to wait for a backend that is away need not."""
    away = "{endpoint: '127.0.0.1:1', tls: {insecure: true}}"
    with Collector(tmp_path, config("otlp", away)) as collector:
        collector.send(traffic())
        eventually(lambda: _value(collector.get("prometheus"), QUEUE) >= 1)
        collector.process.send_signal(signal.SIGINT)
        eventually(lambda: "stopping" in _stderr(tmp_path))
        assert collector.stop(number=signal.SIGINT, timeout=3) == 130


def test_a_ready_file_that_cannot_be_written_is_an_error(tmp_path):
    """Who waits for it would wait for ever."""
    path = tmp_path / "none" / "ready.json"
    with Collector(tmp_path, config(), "--ready-file", str(path), wait=False) as collector:
        assert collector.ended() == 1
    last = collector.stderr.splitlines()[-1]
    assert last == f"otel-ml-collector: --ready-file {path} cannot be written: No such file or directory"


def test_without_a_file_the_default_runs(tmp_path):
    """Its ports may be taken on this machine; then it says which one and what to do."""
    with Collector(tmp_path, wait=False) as collector:
        eventually(lambda: collector.process.poll() is not None or "receives" in _stderr(tmp_path))
    if collector.returncode == 0:
        assert "OTLP gRPC on localhost:4317; OTLP HTTP on localhost:4318" in collector.stderr
        assert "this console; Prometheus page http://localhost:9464/metrics" in collector.stderr
    else:
        assert collector.returncode == 1
        assert "is in use by another program; stop that one or choose another port" in collector.stderr


def _stderr(directory: Path) -> str:
    return (directory / "collector.stderr").read_text()


def test_a_port_that_is_taken_is_named_with_its_component(tmp_path):
    """One line, the component's path, the endpoint, the way out; exit code 1."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        endpoint = f"127.0.0.1:{taken.getsockname()[1]}"
        text = config().replace('http: {endpoint: "127.0.0.1:0"}', f'http: {{endpoint: "{endpoint}"}}')
        with Collector(tmp_path, text, wait=False) as collector:
            assert collector.ended() == 1
    assert collector.stderr == (
        f"otel-ml-collector: receivers.otlp: endpoint '{endpoint}' is in use by another program; "
        "stop that one or choose another port\n"
    )


# --- configuration ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", [(), ("validate",)])
def test_all_problems_of_a_file_are_said_at_once(tmp_path, command):
    """Starting and validating say the same, with exit code 1 and no traceback."""
    broken = config().replace("length: 4s", "lenght: 4s").replace("500ms", "500").replace("[otlp]", "[oltp]")
    with Collector(tmp_path, broken, *command, wait=False) as collector:
        assert collector.ended() == 1
    head, *problems = collector.stderr.splitlines()
    assert head.endswith("collector.yaml: 3 problems")
    assert [line.split()[0] for line in problems] == [
        "processors.ml_drift.window.lenght",
        "processors.ml_drift.interval",
        "service.pipelines.metrics.receivers.0",
    ]


def test_a_valid_file_is_called_valid(tmp_path):
    """validate starts nothing and ends with 0."""
    with Collector(tmp_path, config(), "validate", wait=False) as collector:
        assert collector.ended() == 0
    assert collector.stdout.endswith("collector.yaml: valid\n")


def test_a_baseline_file_that_cannot_be_read_is_named_before_anything_starts(tmp_path):
    """The file and the key, with exit code 1."""
    (tmp_path / "churn.baseline.json").write_text("{}")
    text = config().replace("interval:", f"baseline: {{sources: [file], path: {tmp_path}}}\n    interval:")
    with Collector(tmp_path, text, wait=False) as collector:
        assert collector.ended() == 1
    assert "churn.baseline.json" in collector.stderr
    assert "Traceback" not in collector.stderr


# --- what goes out ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("protocol", ["grpc", "http"])
def test_drift_arrives_at_a_backend_on_the_page_and_on_the_console(tmp_path, protocol):
    """The same numbers whichever way they go out."""
    with Sink(tmp_path / "sink") as sink:
        name, body = (
            ("otlp", f"{{endpoint: '{sink.grpc_endpoint}', tls: {{insecure: true}}}}")
            if protocol == "grpc"
            else ("otlphttp", f"{{endpoint: '{sink.http_endpoint}'}}")
        )
        with Collector(tmp_path, config(name, body)) as collector:
            assert collector.send(traffic(DRIFTED)) == 200
            received = sink.wait_for(lambda requests: newest(requests, "ml.drift.status") == 2, timeout=20)
            eventually(lambda: 'ml_feature_name="age"' in collector.get("prometheus"))
            page = collector.get("prometheus")
        assert collector.returncode == 0
    resource = {
        one.key: one.value.string_value for one in received[-1].resource_metrics[0].resource.attributes
    }
    assert resource["service.name"] == "otel-ml-collector"
    assert resource["service.instance.id"]
    assert {
        "ml.drift.psi",
        "ml.drift.ks",
        "ml.drift.ks.upper",
        "ml.drift.p_value",
        "ml.baseline.rows",
    } <= names(received)
    psi = newest(received, "ml.drift.psi")
    assert psi == pytest.approx(PSI, abs=1e-9)
    assert newest(received, "ml.drift.ks") == pytest.approx(0.44, abs=1e-9)
    labels = 'ml_feature_name="age",ml_model_name="churn",ml_model_version="3",ml_service_name="churn-api"'
    assert f'ml_drift_psi{{ml_drift_target="feature",{labels}}} {psi}' in page
    assert 'otelcol_receiver_accepted_metric_points_total{receiver="otlp",transport="http"} 2.0' in page
    assert "drifted  feature age" in collector.stdout


def test_gauges_are_sent_again_every_interval_with_the_time_of_the_export(tmp_path):
    """Backends forget what is not repeated, so what was said stays said."""
    with Sink(tmp_path / "sink") as sink:
        text = config("otlphttp", f"{{endpoint: '{sink.http_endpoint}'}}")
        with Collector(tmp_path, text) as collector:
            assert collector.send(traffic()) == 200
            received = sink.wait_for(lambda requests: len(requests) >= 4, timeout=20)
    times = [
        {
            p.time_unix_nano
            for m in request.resource_metrics[0].scope_metrics[0].metrics
            for p in m.gauge.data_points
        }
        for request in received
    ]
    assert all(len(one) == 1 for one in times)
    flat = [one.pop() for one in times]
    assert flat == sorted(set(flat))


def test_what_is_known_at_the_stop_is_still_sent(tmp_path):
    """Points that still waited for others are in the last export, and the queue drains."""
    with Sink(tmp_path / "sink") as sink:
        text = config("otlphttp", f"{{endpoint: '{sink.http_endpoint}'}}").replace("500ms", "60s")
        text = text.replace("{length: 4s, step: 1s, lateness: 200ms, max_age: 60s}", "{lateness: 60s}")
        with Collector(tmp_path, text) as collector:
            collector.send(traffic(DRIFTED))
            assert collector.stop() == 0
        assert newest(sink.metrics(), "ml.drift.window.rows") == sum(DRIFTED)


# --- a backend that is away -------------------------------------------------------------------------------


@pytest.mark.parametrize("protocol", ["grpc", "http"])
def test_a_backend_that_is_away_does_not_stop_the_receivers_and_gets_what_it_missed(tmp_path, protocol):
    """Senders notice nothing; requests wait and arrive when the backend is back."""
    opened = tmp_path / "open"
    retry = "retry_on_failure: {initial_interval: 100ms, max_interval: 200ms}"
    with Sink(tmp_path / "sink", refuse_until=opened) as sink:
        name, body = (
            ("otlp", f"{{endpoint: '{sink.grpc_endpoint}', tls: {{insecure: true}}, {retry}}}")
            if protocol == "grpc"
            else ("otlphttp", f"{{endpoint: '{sink.http_endpoint}', {retry}}}")
        )
        text = config(name, body).replace("interval: 500ms", "interval: 500ms\n    events: false")
        with Collector(tmp_path, text) as collector:
            collector.send(traffic(DRIFTED))
            queue = f'otelcol_exporter_queue_size{{data_type="metrics",exporter="{name}"}}'
            eventually(lambda: _value(collector.get("prometheus"), queue) >= 2)
            assert collector.send(traffic()) == 200
            assert sink.metrics() == []
            opened.touch()
            sink.wait_for(lambda requests: len(requests) >= 3, timeout=20)
            eventually(lambda: _value(collector.get("prometheus"), queue) <= 1)
            page = collector.get("prometheus")
    failed = f'otelcol_exporter_send_failed_metric_points_total{{exporter="{name}"}}'
    assert _value(page, failed) == 0
    assert collector.stderr.count("it is tried again") == 1
    assert "sending again after" in collector.stderr


def _value(page: str, series: str) -> float:
    return next(float(line.rpartition(" ")[2]) for line in page.splitlines() if line.startswith(series))


def test_a_backend_that_never_comes_back_does_not_hold_up_the_stop(tmp_path):
    """After the grace the process ends with 0 and says what it could not send."""
    away = "{endpoint: '127.0.0.1:1', tls: {insecure: true}}"
    with Collector(tmp_path, config("otlp", away)) as collector:
        collector.send(traffic())
        eventually(lambda: _value(collector.get("prometheus"), QUEUE) >= 1)
        assert collector.stop(timeout=15) == 0
    assert "could not be sent before the stop" in collector.stderr
