"""Queues on disk in a running service: two of them, other backends, other directories, disks that fail."""

from __future__ import annotations

import signal
from pathlib import Path

import grpc
from integration.collector import Collector, traffic
from integration.exchange import call, eventually, logs, metrics, service, traces
from integration.sink import Sink

CONFIG = """
extensions: {file_storage: {directory: "STATE"}}
receivers: {otlp: {protocols: {grpc: {endpoint: "127.0.0.1:0"}, http: {endpoint: "127.0.0.1:0"}}}}
processors: {ml_drift: {forward: FORWARD, window: {length: 1h, step: 1m, lateness: 1s}, interval: 500ms}}
exporters:
  otlp:
    endpoint: "BACKEND"
    tls: {insecure: true}
    sending_queue: {storage: file_storage}
    retry_on_failure: {initial_interval: 100ms, max_interval: 200ms, max_elapsed_time: 0s}
  prometheus: {endpoint: "127.0.0.1:0"}
service:
  extensions: [file_storage]
  pipelines:
    metrics: {receivers: [otlp], processors: [ml_drift], exporters: [otlp, prometheus]}
    traces: {receivers: [otlp], exporters: [otlp]}
    logs: {receivers: [otlp], exporters: [otlp]}
"""
NOWHERE = "127.0.0.1:9"


def config(state: Path, backend: str = NOWHERE, *, forward: bool = True) -> str:
    text = CONFIG.replace("STATE", str(state)).replace("FORWARD", str(forward).lower())
    return text.replace("BACKEND", backend)


def export_all(collector: Collector) -> None:
    for signal_name, made in (("metrics", metrics(1)), ("traces", traces(1)), ("logs", logs(1))):
        assert call(collector, made.SerializeToString(), signal_name).code is grpc.StatusCode.OK


def reload(collector: Collector, text: str, says: str = "reloaded") -> str:
    """What the collector said when it was told to read this configuration."""
    log = collector.directory / "collector.stderr"
    before = len(log.read_text())
    (collector.directory / "collector.yaml").write_text(text)
    assert collector.process is not None
    collector.process.send_signal(signal.SIGHUP)
    eventually(lambda: says in log.read_text()[before:])
    return log.read_text()[before:]


def test_every_signal_waits_on_disk_over_a_stop(tmp_path: Path) -> None:
    """Metrics, traces and logs that were taken go out after the next start; how many wait is said and shown."""
    state = tmp_path / "state"
    with service(tmp_path / "first", config(state)) as collector:
        export_all(collector)
    assert collector.stderr.count("1 requests stay on disk; they are sent once this exporter runs again") >= 2
    assert "could not be sent" not in collector.stderr
    with service(tmp_path / "second", config(state)) as collector:
        for signal_name in ("traces", "logs"):
            line = f'otelcol_exporter_queue_size{{data_type="{signal_name}",exporter="otlp"}} 1.0'
            assert line in collector.get("prometheus")
    with Sink(tmp_path / "sink") as sink, service(tmp_path / "third", config(state, sink.grpc_endpoint)):
        eventually(lambda: (len(sink.traces()), len(sink.logs())) == (1, 1))
        eventually(lambda: any(b"ml.inference.rows" in file.read_bytes() for file in sink.files("metrics")))


def test_drift_waits_on_disk_too(tmp_path: Path) -> None:
    """The gauges that a backend missed are sent to it after a restart."""
    state = tmp_path / "state"
    with service(tmp_path / "first", config(state, forward=False)) as collector:
        assert collector.send(traffic((200, 800, 3000, 6000))) == 200
        eventually(lambda: "ml_drift_psi{" in collector.get("prometheus"))
    with (
        Sink(tmp_path / "sink") as sink,
        service(tmp_path / "second", config(state, sink.grpc_endpoint, forward=False)),
    ):
        eventually(lambda: any(b"ml.drift.psi" in file.read_bytes() for file in sink.files("metrics")))


def test_two_collectors_do_not_share_a_directory(tmp_path: Path) -> None:
    """The second does not start; it says which directory that is, and what to do."""
    state = tmp_path / "state"
    with service(tmp_path / "first", config(state)):
        (tmp_path / "second").mkdir()
        with Collector(tmp_path / "second", config(state), wait=False) as second:
            assert second.ended() == 1
    assert f"extensions.file_storage: directory {state} is in use by another collector" in second.stderr


def test_what_waits_goes_to_the_new_backend_after_a_reload(tmp_path: Path) -> None:
    """The queue belongs to the exporter, wherever that sends."""
    state = tmp_path / "state"
    with Sink(tmp_path / "sink") as sink, service(tmp_path / "service", config(state)) as collector:
        export_all(collector)
        reload(collector, config(state, sink.grpc_endpoint))
        eventually(lambda: (len(sink.traces()), len(sink.logs())) == (1, 1))
        export_all(collector)
        eventually(lambda: (len(sink.traces()), len(sink.logs())) == (2, 2))


def test_another_directory_begins_empty_and_the_old_one_is_kept(tmp_path: Path) -> None:
    """What waits in a directory is there when the configuration names it again."""
    old, new = tmp_path / "old", tmp_path / "new"
    with Sink(tmp_path / "sink") as sink, service(tmp_path / "service", config(old)) as collector:
        export_all(collector)
        reload(collector, config(new))
        assert 'queue_size{data_type="traces",exporter="otlp"} 0.0' in _page(collector)
        reload(collector, config(old, sink.grpc_endpoint))
        eventually(lambda: (len(sink.traces()), len(sink.logs())) == (1, 1))


def test_a_directory_that_cannot_be_had_leaves_everything_as_it_was(tmp_path: Path) -> None:
    """The reload is refused, and the queue goes on where it was."""
    first, second = tmp_path / "first", tmp_path / "second"
    with (
        service(tmp_path / "other", config(second)),
        Sink(tmp_path / "sink") as sink,
        service(tmp_path / "service", config(first, sink.grpc_endpoint)) as collector,
    ):
        assert "is in use by another collector" in reload(collector, config(second), "not reloaded")
        export_all(collector)
        eventually(lambda: (len(sink.traces()), len(sink.logs())) == (1, 1))


def test_a_queue_that_cannot_be_written_passes_on_from_memory(tmp_path: Path) -> None:
    """Senders and backend notice nothing; it is said once for each queue, and counted."""
    state = tmp_path / "state"
    state.mkdir()
    (state / "exporters.otlp").write_text("in the way")
    with (
        Sink(tmp_path / "sink") as sink,
        service(tmp_path / "service", config(state, sink.grpc_endpoint)) as collector,
    ):
        for _ in range(3):
            export_all(collector)
        eventually(lambda: (len(sink.traces()), len(sink.logs())) == (3, 3))
        eventually(
            lambda: (
                'otel_ml_exporter_in_memory_total{data_type="traces",exporter="otlp"} 3.0' in _page(collector)
            )
        )
    assert collector.stderr.count("its queue cannot be written to disk") == 3


def test_garbage_in_place_of_a_queue_does_not_stop_the_service(tmp_path: Path) -> None:
    """It is set aside, said, and the service runs on a new file."""
    state = tmp_path / "state"
    (state / "exporters.otlp").mkdir(parents=True)
    (state / "exporters.otlp" / "traces.sqlite").write_bytes(b"garbage" * 1000)
    with (
        Sink(tmp_path / "sink") as sink,
        service(tmp_path / "service", config(state, sink.grpc_endpoint)) as collector,
    ):
        export_all(collector)
        eventually(lambda: len(sink.traces()) == 1)
    assert collector.stderr.count("file is not a database; it is kept as") == 1


def _page(collector: Collector) -> str:
    return collector.get("prometheus")
