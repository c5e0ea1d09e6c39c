"""What those who run the service rely on: health, logs, its own metrics, the service manager, ports that come back."""

from __future__ import annotations

import asyncio
import json
import re
import signal
import socket
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from integration.collector import Collector, traffic
from integration.exchange import SERVICES, call, eventually, metrics, post, service, traces
from integration.test_reload import reload

from otel_ml_collector.health import HealthEndpoint
from otel_ml_collector.settings import HealthCheck

CONFIG = """
extensions: {health_check: {endpoint: "127.0.0.1:0"}}
receivers: {otlp: {protocols: {grpc: {endpoint: "127.0.0.1:0"}, http: {endpoint: "127.0.0.1:0"}}}}
processors:
  ml_drift: {window: {length: 1h, step: 1m, lateness: 1s}, interval: 500ms}
exporters: {prometheus: {endpoint: "127.0.0.1:0"}}
service:
  telemetry: {logs: {level: info}}
  extensions: [health_check]
  pipelines: {metrics: {receivers: [otlp], processors: [ml_drift], exporters: [prometheus]}}
"""
AWAY = CONFIG.replace("exporters: {", 'exporters: {otlp: {endpoint: "127.0.0.1:9", tls: {insecure: true}}, ')
AWAY = AWAY.replace("pipelines: {", "pipelines: {traces: {receivers: [otlp], exporters: [otlp]}, ")
"""Traces are passed on to a backend that is away, so that a stop takes its time."""
State = health_pb2.HealthCheckResponse


@pytest.fixture(scope="module")
def collector(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Collector]:
    with service(tmp_path_factory.mktemp("operations") / "service", CONFIG) as running:
        yield running


def log_of(collector: Collector) -> str:
    return (collector.directory / "collector.stderr").read_text()


# --- health -----------------------------------------------------------------------------------------------


def asked(collector: Collector, path: str = "/") -> tuple[int, str]:
    """Status and body of the health page."""
    try:
        with urllib.request.urlopen(
            f"http://127.0.0.1:{collector.ports['health']}{path}", timeout=5
        ) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()


def test_while_it_stops_it_is_alive_and_not_ready(tmp_path: Path) -> None:
    """Who routes to it goes elsewhere; who would restart it leaves it to end its work."""
    with service(tmp_path / "service", AWAY) as collector:
        assert [asked(collector, path)[0] for path in ("/", "/health/status")] == [200, 200]
        assert asked(collector, "/livez") == (200, '{"status":"alive"}')
        assert call(collector, traces(1).SerializeToString(), "traces").code is grpc.StatusCode.OK
        assert collector.process is not None
        collector.process.send_signal(signal.SIGTERM)
        eventually(lambda: asked(collector)[0] == 503)
        assert json.loads(asked(collector)[1]) == {"status": "Server not available"}
        assert asked(collector, "/livez")[0] == 200


def test_path_and_bodies_are_those_that_are_configured(tmp_path: Path) -> None:
    """With the Collector's keys; any other path is not found."""
    settings = "path: /ready, response_body: {healthy: fine, unhealthy: not so}"
    text = AWAY.replace(
        'health_check: {endpoint: "127.0.0.1:0"', f'health_check: {{endpoint: "127.0.0.1:0", {settings}'
    )
    with service(tmp_path / "service", text) as collector:
        assert f"health    http://127.0.0.1:{collector.ports['health']}/ready" in log_of(collector)
        assert asked(collector, "/ready") == (200, "fine")
        assert asked(collector)[0] == 404
        assert call(collector, traces(1).SerializeToString(), "traces").code is grpc.StatusCode.OK
        assert collector.process is not None
        collector.process.send_signal(signal.SIGTERM)
        eventually(lambda: asked(collector, "/ready") == (503, "not so"))


async def test_readiness_and_liveness_are_asked_apart() -> None:
    """What is not ready may live, and what lives no more may still say that it is ready."""
    ready, alive = [True], [True]
    endpoint = HealthEndpoint(
        HealthCheck.model_validate({"endpoint": "127.0.0.1:0"}), lambda: ready[0], lambda: alive[0]
    )
    await endpoint.start()
    try:
        for ready[0], alive[0] in ((True, True), (False, True), (True, False), (False, False)):
            for path, true in (("/", ready[0]), ("/livez", alive[0])):
                url = f"http://127.0.0.1:{endpoint.port}{path}"
                assert await asyncio.to_thread(status_of, url) == (200 if true else 503)
    finally:
        await endpoint.stop(1)


async def test_the_time_it_is_up_counts_from_its_start() -> None:
    """Not from when it was first asked; and anew once it was not ready."""
    now, ready = [100.0], [True]
    settings = HealthCheck.model_validate({"endpoint": "127.0.0.1:0"})
    endpoint = HealthEndpoint(settings, lambda: ready[0], lambda: True, clock=lambda: now[0])
    await endpoint.start()
    try:
        said = []
        for now[0], ready[0] in ((160.0, True), (170.0, False), (180.0, True), (190.0, True)):
            said.append(await asyncio.to_thread(uptime, endpoint.port))
    finally:
        await endpoint.stop(1)
    assert said == ["60.000s", None, "0.000s", "10.000s"]


def uptime(port: int | None) -> str | None:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=5) as answer:
            return str(json.load(answer)["uptime"])
    except urllib.error.HTTPError as error:
        error.close()
        return None


def status_of(url: str) -> int:
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        with error:
            return error.code


def health(channel: grpc.Channel, name: str = "") -> Any:
    return (
        health_pb2_grpc.HealthStub(channel)
        .Check(health_pb2.HealthCheckRequest(service=name), timeout=10)
        .status
    )


def test_grpc_health_knows_the_services_that_are_served(collector: Collector) -> None:
    """By the client that ships with gRPC: the server, and metrics; traces are not taken here."""
    with grpc.insecure_channel(f"127.0.0.1:{collector.ports['grpc']}") as channel:
        assert health(channel) == State.SERVING
        assert health(channel, SERVICES["metrics"]) == State.SERVING
        with pytest.raises(grpc.RpcError) as caught:
            health(channel, SERVICES["traces"])
    assert caught.value.code() is grpc.StatusCode.NOT_FOUND


def test_what_is_no_health_request_is_refused_and_fills_no_log(collector: Collector) -> None:
    """Anybody can send it: the one who asks is told, and nobody else."""
    with grpc.insecure_channel(f"127.0.0.1:{collector.ports['grpc']}") as channel:
        for method in (channel.unary_unary("/grpc.health.v1.Health/Check"), watching(channel)):
            with pytest.raises(grpc.RpcError) as caught:
                method(b"\x0a\xff\xff", timeout=10)
            assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert "DecodeError" not in log_of(collector)


def watching(channel: grpc.Channel) -> Any:
    watch = channel.unary_stream("/grpc.health.v1.Health/Watch")
    return lambda request, timeout: next(watch(request, timeout=timeout))


def test_grpc_health_is_watched_until_the_stop(tmp_path: Path) -> None:
    """NOT_SERVING comes before the connection goes, and who watches does not hold up the stop."""
    request = health_pb2.HealthCheckRequest(service=SERVICES["metrics"])
    with (
        service(tmp_path / "service", CONFIG) as collector,
        grpc.insecure_channel(f"127.0.0.1:{collector.ports['grpc']}") as channel,
    ):
        watch = health_pb2_grpc.HealthStub(channel).Watch(request, timeout=30)
        assert next(watch).status == State.SERVING
        assert collector.stop() == 0
        assert [one.status for one in watch] == [State.NOT_SERVING]


def test_connections_end_at_their_greatest_age(tmp_path: Path) -> None:
    """So that senders behind a balancer of connections are spread over new replicas."""
    aged = "keepalive: {server_parameters: {max_connection_age: 500ms, max_connection_age_grace: 500ms}}"
    text = CONFIG.replace('grpc: {endpoint: "127.0.0.1:0"', f'grpc: {{endpoint: "127.0.0.1:0", {aged}')
    with (
        service(tmp_path / "service", text) as collector,
        grpc.insecure_channel(f"127.0.0.1:{collector.ports['grpc']}") as channel,
    ):
        watch = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest(), timeout=30)
        assert next(watch).status == State.SERVING
        with pytest.raises(grpc.RpcError) as caught:
            next(watch)
        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
        assert health(channel) == State.SERVING  # on a new connection


def test_the_command_asks_for_health(collector: Collector, tmp_path: Path) -> None:
    """Exit code 0 when it is ready, 1 when it is not or is not there: what a container runtime asks for."""
    command = [sys.executable, "-m", "otel_ml_collector", "health"]
    url, page = (f"http://127.0.0.1:{collector.ports[port]}" for port in ("health", "prometheus"))
    answers = [
        subprocess.run([*command, one], capture_output=True, text=True, timeout=30, check=False)
        for one in (f"{url}/", f"{page}/nothing", "http://127.0.0.1:9/", "nonsense")
    ]
    assert [one.returncode for one in answers] == [0, 1, 1, 1]
    assert "Server available" in answers[0].stdout
    assert "answered 404" in answers[1].stderr
    assert "cannot be asked" in answers[2].stderr
    assert [len(one.stderr.splitlines()) for one in answers] == [0, 1, 1, 1]


# --- ports that come back ----------------------------------------------------------------------------------


class Squatter(threading.Thread):
    """Takes a port as soon as it is free, until `leave`."""

    def __init__(self, port: int) -> None:
        super().__init__()
        self.taken = threading.Event()
        self._port, self._leave = port, threading.Event()

    def run(self) -> None:
        while not self._leave.is_set():
            with socket.socket() as one:
                one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                try:
                    one.bind(("127.0.0.1", self._port))
                    one.listen()
                except OSError:
                    continue
                self.taken.set()
                self._leave.wait()

    def leave(self) -> None:
        self._leave.set()
        self.join()


def test_a_port_lost_in_a_failed_reload_makes_it_not_ready_until_it_is_back(tmp_path: Path) -> None:
    """The new configuration cannot listen, and meanwhile another program has taken the old port."""
    with service(tmp_path / "other", CONFIG) as other, service(tmp_path / "service", CONFIG) as collector:
        text = CONFIG.replace(
            'grpc: {endpoint: "127.0.0.1:0"}', f'grpc: {{endpoint: "127.0.0.1:{other.ports["grpc"]}"}}'
        )
        squatter = Squatter(collector.ports["http"])
        squatter.start()
        try:
            said = reload(collector, text, "it is tried again, and until then this is not ready")
            assert squatter.taken.is_set()
            eventually(lambda: "not reloaded" in log_of(collector))
            assert (
                f"receivers.otlp: endpoint '127.0.0.1:{collector.ports['http']}' is in use by another program"
                in said
            )
            assert asked(collector)[0] == 503
            assert asked(collector, "/livez")[0] == 200
        finally:
            squatter.leave()
        eventually(lambda: asked(collector)[0] == 200)
        assert "receivers.otlp runs again" in log_of(collector)
        assert post(collector, metrics(1).SerializeToString()).status == 200
        assert call(collector, metrics(1).SerializeToString()).code is grpc.StatusCode.OK
        assert log_of(collector).count("it is tried again") == 1
        reload(collector, CONFIG, "reloaded")
        assert post(collector, metrics(1).SerializeToString()).status == 200
    assert collector.returncode == 0


def posting(collector: Collector, data: bytes, sent: int) -> socket.socket:
    """A connection with a request of which so many bytes were sent."""
    head = f"POST /v1/metrics HTTP/1.1\r\nHost: a\r\nContent-Length: {len(data)}"
    connection = socket.create_connection(("127.0.0.1", collector.ports["http"]), timeout=20)
    connection.sendall(f"{head}\r\nContent-Type: application/x-protobuf\r\n\r\n".encode() + data[:sent])
    return connection


def test_it_is_not_ready_while_a_reload_has_a_port_closed(tmp_path: Path) -> None:
    """The receiver that goes lets its last request end, and takes no other meanwhile."""
    data = metrics(1).SerializeToString()
    with service(tmp_path / "service", CONFIG) as collector, posting(collector, data, 1) as slow:
        assert asked(collector)[0] == 200
        http = 'http: {endpoint: "127.0.0.1:0"'
        (collector.directory / "collector.yaml").write_text(
            CONFIG.replace(http, f"{http}, idle_timeout: 59s")
        )
        assert collector.process is not None
        collector.process.send_signal(signal.SIGHUP)
        eventually(lambda: asked(collector)[0] == 503)
        assert asked(collector, "/livez")[0] == 200
        slow.sendall(data[1:])
        assert slow.recv(100).startswith(b"HTTP/1.1 200")
        eventually(lambda: asked(collector)[0] == 200)
        assert post(collector, data).status == 200


def test_a_request_that_is_broken_off_at_the_stop_is_no_error(tmp_path: Path) -> None:
    """Of a sender that sends no more, nothing is said."""
    with service(tmp_path / "service", CONFIG) as collector, posting(collector, b"1234", 1):
        assert asked(collector)[0] == 200
        assert collector.stop() == 0
    assert {line.split("\t")[1] for line in collector.stderr.splitlines()} == {"info"}


# --- logs -------------------------------------------------------------------------------------------------


def test_json_logs_are_json_from_start_to_stop(tmp_path: Path) -> None:
    """One object a line, with the component that it is about; nothing about single requests; no secrets."""
    text = AWAY.replace("level: info", "encoding: json").replace(
        'endpoint: "127.0.0.1:9"', 'endpoint: "127.0.0.1:9", headers: {authorization: "Bearer s3cret"}'
    )
    with service(tmp_path / "service", text) as collector:
        collector.send(traffic())
        for _ in range(50):
            assert call(collector, traces(1).SerializeToString(), "traces").code is grpc.StatusCode.OK
        eventually(lambda: "UNAVAILABLE" in log_of(collector))
    lines = [json.loads(line) for line in collector.stderr.splitlines()]
    assert (lines[0]["msg"], lines[0]["level"]) == ("version 0.1.0", "info")
    (away,) = [line for line in lines if "UNAVAILABLE" in line["msg"]]
    assert (away["level"], away["otelcol.component.kind"], away["otelcol.component.id"]) == (
        "warn",
        "exporter",
        "otlp",
    )
    assert len(lines) < 20
    assert "s3cret" not in collector.stderr


def test_what_keeps_it_from_starting_is_json_as_well(tmp_path: Path) -> None:
    """A pipeline that reads JSON meets nothing else once the configuration is read."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        text = CONFIG.replace("level: info", "encoding: json")
        text = text.replace(
            'http: {endpoint: "127.0.0.1:0"', f'http: {{endpoint: "127.0.0.1:{taken.getsockname()[1]}"'
        )
        with Collector(tmp_path, text, wait=False) as collector:
            assert collector.ended() == 1
    (line,) = map(json.loads, collector.stderr.splitlines())
    assert line["level"] == "error"
    assert line["msg"].startswith("not started: receivers.otlp: endpoint")


def test_a_reload_changes_level_and_encoding(tmp_path: Path) -> None:
    """From the next line on."""
    with service(tmp_path / "service", CONFIG.replace("level: info", "level: error")) as collector:
        assert log_of(collector) == ""
        said = reload(collector, CONFIG.replace("level: info", "level: info, encoding: json"), "reloaded")
        assert json.loads(said.splitlines()[0])["msg"] == "reloaded"
    assert json.loads(collector.stderr.splitlines()[-1])["msg"] == "stopping"


def test_a_refusal_shows_at_level_debug(tmp_path: Path) -> None:
    """With its reason and the address; at level info it is counted only."""
    with service(tmp_path / "service", CONFIG) as quiet:
        assert post(quiet, b"\xff").status == 400
    assert "refused" not in quiet.stderr
    with service(tmp_path / "loud", CONFIG.replace("level: info", "level: debug")) as loud:
        assert post(loud, b"\xff").status == 400
        assert call(loud, b"\xff").code is grpc.StatusCode.INVALID_ARGUMENT
    for transport in ("http", "grpc"):
        assert f"a request over {transport} from 127.0.0.1 was refused: malformed" in loud.stderr


# --- its own metrics --------------------------------------------------------------------------------------


def values(page: str) -> dict[str, float]:
    """The samples of a page."""
    return {name: float(value) for name, value in re.findall(r"^([^#\s]\S*) (\S+)$", page, re.MULTILINE)}


def test_the_process_and_the_processor_are_measured(collector: Collector) -> None:
    """Under the Collector's names: time, CPU, memory; points that came to ml_drift and that it made."""
    labels = '{otel_signal="metrics",processor="ml_drift"}'
    incoming, outgoing = (f"otelcol_processor_{way}_items_total{labels}" for way in ("incoming", "outgoing"))
    before = values(collector.get("prometheus"))
    collector.send(traffic())
    eventually(lambda: values(collector.get("prometheus"))[incoming] == before[incoming] + 2)
    eventually(lambda: values(collector.get("prometheus"))[outgoing] > before[outgoing])
    page = values(collector.get("prometheus"))
    assert 0 < page["otelcol_process_cpu_seconds_total"] < 100
    assert 0 < page["otelcol_process_uptime_seconds_total"] < 1000
    assert 2**24 < page["otelcol_process_memory_rss_bytes"] < 2**30
    assert 5 < page["otel_ml_process_open_file_descriptors"] < 1000


def test_refused_requests_are_counted_by_reason(collector: Collector) -> None:
    """Over both transports: bodies that are not OTLP, and media types that are not read."""

    def refused(transport: str, reason: str) -> float:
        name = "otel_ml_receiver_refused_requests_total"
        labels = f'reason="{reason}",receiver="otlp",transport="{transport}"'
        return values(collector.get("prometheus")).get(f"{name}{{{labels}}}", 0)

    assert post(collector, b"\xff").status == 400
    assert post(collector, b"", {"Content-Type": "text/plain"}).status == 415
    assert call(collector, b"\xff").code is grpc.StatusCode.INVALID_ARGUMENT
    eventually(lambda: refused("http", "malformed") == 1)
    eventually(lambda: refused("http", "unsupported") == 1)
    eventually(lambda: refused("grpc", "malformed") == 1)


# --- the service manager ----------------------------------------------------------------------------------


def test_the_service_manager_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """READY, signs of life, RELOADING and READY again, STOPPING: systemd's protocol on a real socket."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        manager.settimeout(20)
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))

        def told() -> dict[str, str]:
            return dict(line.split("=", 1) for line in manager.recv(4096).decode().splitlines())

        def beyond_signs_of_life() -> dict[str, str]:
            while (said := told()) == {"WATCHDOG": "1"}:
                pass
            return said

        with service(tmp_path / "service", CONFIG) as collector:
            assert told()["READY"] == "1"
            assert told() == {"WATCHDOG": "1"}
            reload(collector, CONFIG.replace("level: info", "level: warn"), "")
            reloading = beyond_signs_of_life()
            assert reloading.keys() == {"RELOADING", "MONOTONIC_USEC"}
            assert int(reloading["MONOTONIC_USEC"]) > 0
            assert beyond_signs_of_life() == {"READY": "1", "STATUS": "reloaded"}
            assert collector.process is not None
            collector.process.send_signal(signal.SIGTERM)
            assert beyond_signs_of_life()["STOPPING"] == "1"


def test_a_service_manager_that_is_gone_does_not_matter(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The service runs as it would without one."""
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "nobody"))
    with service(tmp_path / "service", CONFIG) as collector:
        assert post(collector, metrics(1).SerializeToString()).status == 200
    assert collector.returncode == 0
