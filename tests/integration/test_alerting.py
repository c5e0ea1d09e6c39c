"""What the service tells of its own accord: events at real OTLP backends, and triggers at real HTTP endpoints."""

from __future__ import annotations

import signal
import socket
import time
from collections.abc import Iterator, Sequence
from concurrent import futures
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

import grpc
import pytest
from integration.collector import REFERENCE, Collector, traffic
from integration.hooks import SECRET, Hook, hooks
from integration.sink import Sink

from otel_ml import semconv
from otel_ml_collector.exporter import OtlpExporter
from otel_ml_collector.queue import Item
from otel_ml_collector.settings import Otlp, OtlpHttp
from otel_ml_collector.signals import LOGS, METRICS

DRIFTED = (200, 800, 3000, 6000)
SENT = 'otelcol_exporter_sent_triggers_total{exporter="webhook"} 2.0'
CONFIG = """
receivers: {otlp: {protocols: {http: {endpoint: "127.0.0.1:0"}}}}
processors:
  ml_drift:
    window: {length: 2s, step: 500ms, lateness: 100ms, max_age: 60s}
    interval: 250ms
exporters:
  prometheus: {endpoint: "127.0.0.1:0"}
  webhook: WEBHOOK
  EXPORTER
service: {pipelines: {metrics: {receivers: [otlp], processors: [ml_drift], exporters: [prometheus, webhook NAME]}}}
"""


def config(webhook: str, exporter: str = "") -> str:
    """A configuration with a webhook of these settings, and one exporter more."""
    text = CONFIG.replace("WEBHOOK", "{" + webhook + ", min_interval: 0s}").replace("EXPORTER", exporter)
    return text.replace(" NAME", f", {exporter.partition(':')[0]}" if exporter else "")


def records(sink: Sink) -> list[tuple[Any, dict[str, Any]]]:
    """Every log record that arrived, with its attributes."""
    return [
        (record, {a.key: getattr(a.value, str(a.value.WhichOneof("value"))) for a in record.attributes})
        for request in sink.logs()
        for record in request.resource_logs[0].scope_logs[0].log_records
    ]


def statuses(sink: Sink) -> list[str]:
    """What the events said so far."""
    return [said["ml.drift.status.name"] for _, said in records(sink)]


def serve(collector: Collector, counts: Sequence[int], until: Any, timeout: float = 30) -> None:
    """Serve rows with this distribution until something is so."""
    deadline = time.monotonic() + timeout
    while not until():
        assert time.monotonic() < deadline, "it did not happen in time"
        collector.send(traffic(counts))
        time.sleep(0.1)


@pytest.mark.parametrize("protocol", ["otlp", "otlphttp"])
def test_every_change_of_status_is_one_event_and_every_drift_one_trigger(
    tmp_path: Path, protocol: str
) -> None:
    """Drift, back to ok, and drift again: an event for each move, two triggers, and nothing for refreshes."""
    with Sink(tmp_path / "sink") as sink, hooks() as endpoint:
        backend = (
            f"'{sink.grpc_endpoint}', tls: {{insecure: true}}" if protocol == "otlp" else sink.http_endpoint
        )
        text = config(
            f"endpoint: '{endpoint.url}/retrain', secret: {SECRET}", f"{protocol}: {{endpoint: {backend}}}"
        )
        with Collector(tmp_path, text) as collector:
            serve(collector, DRIFTED, lambda: statuses(sink)[-1:] == ["drifted"])
            serve(collector, REFERENCE, lambda: statuses(sink)[-1:] == ["ok"])
            serve(collector, DRIFTED, lambda: statuses(sink)[-1:] == ["drifted"] and len(endpoint.seen) > 1)
            serve(collector, DRIFTED, lambda: SENT in collector.get("prometheus"))
            metrics = collector.get("prometheus")
        found, arrived = records(sink), endpoint.seen
        refreshes = len(sink.metrics())
    assert collector.returncode == 0
    # A status may pass through warning on its way; none is said twice.
    moves = [said["ml.drift.status.name"] for _, said in found]
    first, *later = [said["ml.drift.status.previous"] for _, said in found]
    assert (first in ("unknown", "ok"), later) == (True, moves[:-1])
    assert all(before != after for before, after in pairwise(moves))
    assert (len(arrived), moves.count("ok")) == (2, 1)
    assert refreshes > 2 * len(found)
    severities = {"ok": "INFO", "warning": "WARN", "drifted": "ERROR"}
    assert [record.severity_text for record, _ in found] == [severities[one] for one in moves]
    assert len({said["log.record.uid"] for _, said in found}) == len(found)
    for record, said in found:
        assert record.event_name == semconv.STATE_CHANGE_EVENT
        assert not record.HasField("body")
        assert (said["ml.model.name"], said["ml.feature.name"]) == ("churn", "age")
        assert record.time_unix_nano <= record.observed_time_unix_nano <= time.time_ns()
    assert all(hook.signed_with(SECRET) for hook in arrived)
    assert len({hook.id for hook in arrived}) == 2
    assert SECRET not in collector.stderr + metrics


def _trigger(hook: Hook) -> tuple[str, str, list[str]]:
    data = hook.payload["data"]
    return data["trigger"], data["model"]["name"], [target["name"] for target in data["targets"]]


def test_an_endpoint_that_is_down_gets_the_trigger_once_when_it_is_back(tmp_path: Path) -> None:
    """Tried again with one id, whatever is evaluated meanwhile; the first answer of success is the end of it."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    retry = "retry_on_failure: {initial_interval: 50ms, max_interval: 100ms}"
    with Collector(
        tmp_path, config(f"endpoint: 'http://127.0.0.1:{port}', secret: {SECRET}, {retry}")
    ) as collector:
        serve(collector, DRIFTED, lambda: "it is tried again" in (tmp_path / "collector.stderr").read_text())
        with hooks(status=lambda number: 503 if number < 2 else 200, port=port) as endpoint:
            endpoint.wait_for(lambda seen: len(seen) == 3)
            done = time.monotonic() + 1.5
            serve(collector, DRIFTED, lambda: time.monotonic() > done)
            assert len(endpoint.seen) == 3
    assert len({hook.id for hook in endpoint.seen}) == 1
    assert [_trigger(hook) for hook in endpoint.seen] == [("drift", "churn", ["age"])] * 3


def test_what_an_endpoint_did_not_take_waits_for_another_configuration(tmp_path: Path) -> None:
    """A reload with the right endpoint delivers what the wrong one refused, with the id it had."""
    text = f"endpoint: 'WRONG', secret: {SECRET}"
    with (
        hooks(status=lambda _: 401) as wrong,
        hooks() as right,
        Collector(tmp_path, config(text.replace("WRONG", wrong.url))) as collector,
    ):
        serve(collector, DRIFTED, lambda: wrong.seen)
        path = tmp_path / "collector.yaml"
        path.write_text(path.read_text().replace(wrong.url, right.url))
        assert collector.process is not None
        collector.process.send_signal(signal.SIGHUP)
        serve(collector, DRIFTED, lambda: right.seen)
    assert (len(wrong.seen), [hook.id for hook in right.seen]) == (1, [wrong.seen[0].id])
    assert f"1 triggers are lost: {wrong.url} answered 401 Unauthorized" in collector.stderr


@contextmanager
def without_logs(protocol: str) -> Iterator[str]:
    """A backend that knows nothing of logs: its endpoint."""
    if protocol == "otlphttp":
        with hooks(status=lambda _: 404) as endpoint:
            yield endpoint.url
        return
    server = grpc.server(futures.ThreadPoolExecutor(1))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield f"127.0.0.1:{port}"
    server.stop(0).wait()


@pytest.mark.parametrize(
    ("protocol", "said"),
    [("otlp", "UNIMPLEMENTED: Method not found!"), ("otlphttp", "answered 404 Not Found")],
)
async def test_a_backend_without_logs_is_told_of_once(
    protocol: str, said: str, caplog: pytest.LogCaptureFixture
) -> None:
    """With the way out; events that follow are lost without a word, and not tried again."""
    with without_logs(protocol) as endpoint:
        settings: Otlp | OtlpHttp = (
            Otlp.model_validate({"endpoint": endpoint, "tls": {"insecure": True}})
            if protocol == "otlp"
            else OtlpHttp.model_validate({"endpoint": endpoint})
        )
        exporter = OtlpExporter("backend", settings, [METRICS, LOGS], events_only=True)
        await exporter.start()
        for _ in range(3):
            exporter.queues[LOGS].offer(Item(b"", 2))
        await exporter.stop(10)
    (message,) = [record.getMessage() for record in caplog.records]
    assert said in message
    assert message.endswith("Let it take them, or set events: false at ml_drift")
    assert exporter.queues[LOGS].counts.failed == 6


def test_without_events_no_log_record_is_sent(tmp_path: Path) -> None:
    """`events: false` is for a backend of metrics only; gauges go on."""
    with Sink(tmp_path / "sink") as sink:
        text = config(
            f"endpoint: 'http://127.0.0.1:1', secret: {SECRET}",
            f"otlphttp: {{endpoint: {sink.http_endpoint}}}",
        )
        with Collector(
            tmp_path, text.replace("interval: 250ms", "interval: 250ms\n    events: false")
        ) as collector:
            serve(collector, DRIFTED, lambda: drifted(collector))
            serve(collector, DRIFTED, lambda: sink.metrics())
    assert sink.logs() == []


def drifted(collector: Collector) -> bool:
    """Whether the page says so."""
    lines = collector.get("prometheus").splitlines()
    return any(line.startswith("ml_drift_status{") and line.endswith(" 2.0") for line in lines)


def test_a_process_that_goes_on_says_nothing_again_and_delivers_what_was_left(tmp_path: Path) -> None:
    """Killed with a trigger that waits: the next process delivers it once, and tells of no change that was told."""
    up = False
    with Sink(tmp_path / "sink") as sink, hooks(status=lambda _: 200 if up else 503) as endpoint:
        text = config(
            f"endpoint: '{endpoint.url}', secret: {SECRET}", f"otlphttp: {{endpoint: {sink.http_endpoint}}}"
        )
        text = text.replace("interval: 250ms", "interval: 250ms\n    storage: file_storage").replace(
            "service: {",
            f"extensions: {{file_storage: {{directory: {tmp_path}/state}}}}\nservice: {{extensions: [file_storage], ",
        )
        with Collector(tmp_path, text) as collector:
            serve(collector, DRIFTED, lambda: endpoint.seen and statuses(sink)[-1:] == ["drifted"])
            told = len(records(sink))
            collector.stop(number=signal.SIGKILL)
        up = True
        refused = len(endpoint.seen)
        with Collector(tmp_path, text) as collector:
            serve(collector, DRIFTED, lambda: len(endpoint.seen) > refused)
            done = time.monotonic() + 2
            serve(collector, DRIFTED, lambda: time.monotonic() > done)
    assert len({hook.id for hook in endpoint.seen}) == 1
    assert len(endpoint.seen) == refused + 1
    assert len({said["log.record.uid"] for _, said in records(sink)}) == told
