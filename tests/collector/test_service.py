"""The service around the engine, on an injected clock and without sockets."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from pathlib import Path

import numpy as np
import pytest
from pointbatches import EVEN, T0, S, Service, batch

from otel_ml.baseline import Baseline
from otel_ml.errors import ConfigurationError
from otel_ml_collector import config, limiter, service
from otel_ml_collector.emit import BATCH
from otel_ml_collector.exporter import OtlpExporter
from otel_ml_collector.limiter import Overloaded

CONFIG = """
receivers: {otlp: {protocols: {http: {endpoint: "127.0.0.1:0"}}}}
processors: {ml_drift: {interval: 1s, window: {lateness: 1s}}}
exporters: {otlphttp: {endpoint: "http://127.0.0.1:1"}}
service: {pipelines: {metrics: {receivers: [otlp], processors: [ml_drift], exporters: [otlphttp]}}}
"""

START = T0 + 10 * S
"""Amid a step of the window."""


class Clock:
    def __init__(self) -> None:
        self.now = START

    def __call__(self) -> int:
        return self.now


def collector(clock: Clock) -> service.Service:
    return service.Service(config.parse(CONFIG, source="test", environ={}), clock=clock)


def with_models(count: int) -> tuple[service.Service, Clock]:
    """A collector that has as many models to evaluate."""
    clock = Clock()
    running = collector(clock)
    for model in range(count):
        pod = Service(START, identity={"model": f"m{model}"})
        pod.rows(EVEN)
        running._consume(batch(pod.report(START + S)), b"")
    clock.now = START + 3 * S
    return running, clock


async def test_requests_have_their_turn_between_two_models() -> None:
    """Many models are evaluated in one tick, and the event loop serves others in between."""
    running, clock = with_models(5)
    turns = 0

    async def others() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    task = asyncio.create_task(others())
    await running.tick()
    task.cancel()
    assert len(running._engine.current(clock.now)) == 5
    assert turns >= 10  # for every model once when it is evaluated and once when it is exported


async def test_what_goes_out_is_split_into_requests_that_backends_take() -> None:
    """A gRPC server refuses more than 4 MiB for good: no request holds more than `BATCH` gauges."""
    running, _ = with_models(150)
    await running.start()
    await running.tick()
    (exporter,) = running._parts.of(OtlpExporter).values()
    sizes = [item.points for item in exporter.queue._line._items]
    assert len(sizes) > 1
    assert max(sizes) == BATCH
    assert sum(sizes) == len(running._gauges)
    await running.stop(0)


async def test_a_full_reorder_buffer_asks_senders_to_come_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """What waits for its window is bounded; nothing that was taken is dropped for it."""
    monkeypatch.setattr(service, "_MAX_PENDING", 5)
    running = collector(Clock())
    pod = Service(START)
    pod.rows(EVEN)
    assert running._consume(batch(pod.report(START + S)), b"") == {}
    with pytest.raises(Overloaded, match="later"):
        running._consume(batch(pod.report(START + 2 * S)), b"")


async def test_a_baseline_file_that_changes_is_used_without_a_restart(tmp_path: Path) -> None:
    """From the next refresh on, windows are compared with what the file holds now."""
    path, clock = tmp_path / "churn.baseline.json", Clock()
    ages = np.random.default_rng(0).normal(size=1000)
    first, second = (Baseline.fit({"age": ages + shift}, model="churn", version="3") for shift in (0, 5))
    first.save(path)
    sources = f"baseline: {{sources: [file], path: {path}}}"
    text = CONFIG.replace("interval: 1s,", f"interval: 1s, {sources},")
    running = service.Service(config.parse(text, source="test", environ={}), clock=clock)
    pod = Service(START)
    used = []
    for k, baseline in ((1, first), (2, second)):
        baseline.save(path)
        pod.rows(EVEN)
        clock.now = START + 3 * k * S
        running._consume(batch(pod.report(clock.now - S // 2)), b"")
        clock.now += 2 * S
        await running.tick()
        (evaluation,) = running._engine.current(clock.now)
        used.append(evaluation.baseline_id)
    assert used == [first.id, second.id]


async def test_a_stop_does_not_wait_for_more_models_than_it_has_time_for() -> None:
    """Those that are left out are as they were evaluated before, and what is known is sent."""
    running, clock = with_models(5)
    await running.stop(0)
    assert len(running._engine.current(clock.now)) == 1
    assert {sample.attributes["ml.model.name"] for sample in running._gauges} == {"m0"}


# --- parts ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("section", "key"),
    [("server_parameters", key) for key in
     ("max_connection_idle", "max_connection_age", "max_connection_age_grace", "time", "timeout")]
    + [("enforcement_policy", "min_time")],
)  # fmt: skip
async def test_times_that_grpc_cannot_say_are_for_ever(section: str, key: str) -> None:
    """Its numbers end after 24 days: of the server, of a handshake and of the client."""
    grpc = f'grpc: {{endpoint: "127.0.0.1:0", keepalive: {{{section}: {{{key}: 5000h}}}}}}'
    text = CONFIG.replace("protocols: {", f"protocols: {{{grpc}, ").replace(
        '0.1:0"}}}}', '0.1:0", idle_timeout: 5000h}}}}'
    )
    exporter = 'otlp: {endpoint: "127.0.0.1:1", keepalive: {time: 5000h, timeout: 5000h}}, otlphttp: {'
    text = text.replace("otlphttp: {", exporter).replace("[otlphttp]", "[otlp, otlphttp]")
    running = service.Service(config.parse(text, source="test", environ={}))

    assert (await running.start()).grpc
    await running.stop(0.1)


async def test_a_reload_that_stops_at_a_part_which_cannot_be_made_leaves_all_as_it_was(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Nothing was stopped for it, so nothing is down; and what runs is what is stopped in the end."""
    text = CONFIG.replace("processors: {", "processors: {memory_limiter: {limit_mib: 100}, ")
    limited = text.replace("[ml_drift]", "[memory_limiter, ml_drift]")
    running = collector(Clock())
    ports = await running.start()
    monkeypatch.setattr(limiter, "_STATM", tmp_path / "nothing")

    with pytest.raises(ConfigurationError, match="memory_limiter needs"):
        await running.reload(config.parse(limited, source="test", environ={}))

    assert running._parts.complete
    assert running.ports() == ports
    await running.stop(0.5)
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection("127.0.0.1", ports.http)


async def test_each_model_that_is_evaluated_is_a_sign_of_life(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """To the service manager as well: many of them must not look like a service that hangs."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        manager.setblocking(False)
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        running, _ = with_models(5)
        await running.tick()

        told = []
        with contextlib.suppress(BlockingIOError):
            while True:
                told.append(manager.recv(100))
    assert len(told) >= 5
    assert set(told) == {b"WATCHDOG=1"}


async def test_a_model_that_is_forgotten_is_told_once(caplog: pytest.LogCaptureFixture) -> None:
    """In one line, when nothing came for it in all its time."""
    caplog.set_level("INFO")
    running, clock = with_models(2)
    await running.tick()
    assert "forgotten" not in caplog.text
    for _ in range(3):
        clock.now += running._window.expiry_ns + 3600 * S
        await running.tick()
    told = sorted(record.getMessage() for record in caplog.records if "forgotten" in record.getMessage())
    assert [line.split(" of ")[0] for line in told] == ["model 'm0' '3'", "model 'm1' '3'"]
    assert all(line.endswith("is forgotten: nothing came for 120h") for line in told)
