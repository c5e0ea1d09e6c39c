"""Configuration of a running service: several files, single values, and SIGHUP."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import grpc
import pytest
from integration.collector import Collector, traffic
from integration.exchange import SERVICES, call, eventually, logs, metrics, post, service, traces
from integration.sink import Sink

from otel_ml._version import __version__
from otel_ml_collector import cli

CONFIG = """
extensions: {health_check: {endpoint: "127.0.0.1:0"}}
receivers: {otlp: {protocols: {grpc: {endpoint: "127.0.0.1:0"}, http: {endpoint: "127.0.0.1:0"}}}}
processors:
  ml_drift: {window: {length: 1h, step: 1m, lateness: 1s}, interval: 500ms}
exporters: {prometheus: {endpoint: "127.0.0.1:0"}}
service:
  extensions: [health_check]
  pipelines: {metrics: {receivers: [otlp], processors: [ml_drift], exporters: [prometheus]}}
"""


def reload(collector: Collector, text: str, says: str) -> str:
    """What the collector said when it was told to read this configuration."""
    log = collector.directory / "collector.stderr"
    before = len(log.read_text())
    (collector.directory / "collector.yaml").write_text(text)
    assert collector.process is not None
    collector.process.send_signal(signal.SIGHUP)
    eventually(lambda: says in log.read_text()[before:])
    return log.read_text()[before:]


@contextmanager
def connected(collector: Collector) -> Iterator[Callable[..., bytes]]:
    """Exports on one connection that stays."""
    with grpc.insecure_channel(f"127.0.0.1:{collector.ports['grpc']}") as channel:
        yield channel.unary_unary(f"/{SERVICES['metrics']}/Export")


def test_limits_change_and_counts_stay(tmp_path: Path) -> None:
    """Other thresholds judge what was counted before; connections and ports stay."""
    with service(tmp_path / "service", CONFIG) as collector, connected(collector) as export:
        assert export(traffic((200, 800, 3000, 6000)).SerializeToString(), timeout=20) == b""
        eventually(lambda: "ml_drift_psi{" in collector.get("prometheus"))
        reload(collector, CONFIG.replace("interval:", "statistics: [hellinger], interval:"), "reloaded")
        eventually(lambda: "ml_drift_hellinger{" in collector.get("prometheus"))
        assert export(metrics(1).SerializeToString(), timeout=20) == b""


def test_a_wrong_file_changes_nothing(tmp_path: Path) -> None:
    """The problems are said with their paths, and the service goes on as before."""
    with service(tmp_path / "service", CONFIG) as collector:
        said = reload(collector, CONFIG.replace("1m", "soon"), "not reloaded")
        assert "processors.ml_drift.window.step (line 5)" in said
        eventually(lambda: "otel_ml_config_last_reload_successful 0.0" in collector.get("prometheus"))
        assert post(collector, metrics(1).SerializeToString()).status == 200


def test_what_would_lose_counts_is_refused(tmp_path: Path) -> None:
    """A window of another length needs a restart, and it is said."""
    with service(tmp_path / "service", CONFIG) as collector:
        said = reload(collector, CONFIG.replace("length: 1h", "length: 2h"), "not reloaded")
        assert "ml_drift: window.length cannot change while counts are kept; restart for that" in said
        said = reload(
            collector, CONFIG.replace("1m", "2m").replace("500ms", "2s, wal: false"), "not reloaded"
        )
        assert "ml_drift: window.step, interval cannot change" in said


def test_whether_the_last_reload_was_right_is_measured(tmp_path: Path) -> None:
    """1 from the start, 0 after one that was refused, 1 after the next right one, whose time is told."""

    def page() -> dict[str, str]:
        lines = collector.get("prometheus").splitlines()
        return dict(line.rsplit(" ", 1) for line in lines if line.startswith("otel_ml_co"))

    with service(tmp_path / "service", CONFIG) as collector:
        before = page()
        assert before["otel_ml_config_last_reload_successful"] == "1.0"
        assert before[f'otel_ml_collector_info{{version="{__version__}"}}'] == "1.0"
        reload(collector, CONFIG.replace("1m", "soon"), "not reloaded")
        refused = {**before, "otel_ml_config_last_reload_successful": "0.0"}
        eventually(lambda: page() == refused)
        reload(collector, CONFIG.replace("interval:", "statistics: [ks], interval:"), "reloaded")
        eventually(lambda: page()["otel_ml_config_last_reload_successful"] == "1.0")
        name = "otel_ml_config_last_reload_seconds"
        assert float(before[name]) < float(page()[name]) <= time.time()


def test_a_port_that_is_taken_leaves_the_old_ones_open(tmp_path: Path) -> None:
    """What ran before runs again on its ports."""
    with service(tmp_path / "other", CONFIG) as other, service(tmp_path / "service", CONFIG) as collector:
        taken = f'"127.0.0.1:{other.ports["http"]}"'
        text = CONFIG.replace('http: {endpoint: "127.0.0.1:0"}', f"http: {{endpoint: {taken}}}")
        said = reload(collector, text, "not reloaded")
        assert "receivers.otlp: endpoint" in said
        assert "is in use by another program" in said
        assert post(collector, metrics(1).SerializeToString()).status == 200
        assert call(collector, metrics(1).SerializeToString()).code is grpc.StatusCode.OK
        assert json.loads(collector.get("health", "/"))["status"] == "Server available"


def test_receivers_keep_their_ports_when_they_change(tmp_path: Path) -> None:
    """Authentication comes in without another port; who has the token goes on."""
    guarded = CONFIG.replace("extensions: {", "extensions: {bearertokenauth: {token: t0ken}, ", 1)
    guarded = guarded.replace("[health_check]", "[health_check, bearertokenauth]")
    guarded = guarded.replace(
        '"127.0.0.1:0"}}}}', '"127.0.0.1:0", auth: {authenticator: bearertokenauth}}}}}'
    )
    data = metrics(1).SerializeToString()
    with service(tmp_path / "service", CONFIG) as collector:
        reload(collector, guarded, "reloaded")
        assert post(collector, data).status == 401
        headers = {"Content-Type": "application/x-protobuf", "Authorization": "Bearer t0ken"}
        assert post(collector, data, headers).status == 200
        assert call(collector, data).code is grpc.StatusCode.OK


def test_pipelines_come_and_go(tmp_path: Path) -> None:
    """A pipeline for traces is added, and its backend changed, and nothing that was taken is lost."""
    with Sink(tmp_path / "a") as first, Sink(tmp_path / "b") as second:
        text = CONFIG.replace("pipelines: {metrics: ", "pipelines:\n    metrics: ").replace(
            "[prometheus]}}", "[prometheus]}"
        )
        with service(tmp_path / "service", text) as collector:
            assert (
                call(collector, traces(1).SerializeToString(), "traces").code is grpc.StatusCode.UNIMPLEMENTED
            )
            for sink in (first, second):
                exporter = f'otlp: {{endpoint: "{sink.grpc_endpoint}", tls: {{insecure: true}}}}, '
                changed = text.replace("exporters: {", f"exporters: {{{exporter}", 1)
                reload(
                    collector, changed + "    traces: {receivers: [otlp], exporters: [otlp]}\n", "reloaded"
                )
                reply = call(collector, traces(1).SerializeToString(), "traces")
                assert reply.code is grpc.StatusCode.OK
            reload(collector, text, "reloaded")
            assert call(collector, logs(1).SerializeToString(), "logs").code is grpc.StatusCode.UNIMPLEMENTED
            assert (
                call(collector, traces(1).SerializeToString(), "traces").code is grpc.StatusCode.UNIMPLEMENTED
            )
        assert (len(first.traces()), len(second.traces())) == (1, 1)


def test_sighup_during_the_stop_is_passed_over(tmp_path: Path) -> None:
    """While the queues drain, nothing is reloaded, and nothing breaks off."""
    text = CONFIG.replace("exporters: {", 'exporters: {otlp: {endpoint: "127.0.0.1:9"}, ', 1)
    text = text.replace("pipelines: {", "pipelines: {traces: {receivers: [otlp], exporters: [otlp]}, ")
    with service(tmp_path / "service", text) as collector:
        assert call(collector, traces(1).SerializeToString(), "traces").code is grpc.StatusCode.OK
        assert collector.process is not None
        collector.process.send_signal(signal.SIGTERM)
        eventually(lambda: "stopping" in (collector.directory / "collector.stderr").read_text())
        assert collector.stop(number=signal.SIGHUP) == 0
    assert "1 requests could not be sent before the stop" in collector.stderr


# --- files, values, and what is printed ---------------------------------------------------------------------


def test_files_are_merged_and_single_values_set(tmp_path: Path) -> None:
    """Later files go over earlier ones, --set over all of them; lists are replaced."""
    over = tmp_path / "over.yaml"
    over.write_text("processors: {ml_drift: {alpha: 0.01, statistics: [ks]}}\n")
    arguments = [
        "--config",
        str(over),
        "--set",
        "processors.ml_drift.alpha=0.02",
        "--set",
        "exporters::debug=",
    ]
    with Collector(
        tmp_path, None, "print-config", "--config", _file(tmp_path, CONFIG), *arguments, wait=False
    ) as one:
        assert one.ended() == 0
    assert "alpha: 0.02" in one.stdout
    assert "statistics: [ks]" in one.stdout
    assert "length: 1h" in one.stdout


def test_problems_name_the_file_they_are_in(tmp_path: Path) -> None:
    """Of several files, and of --set."""
    over = tmp_path / "over.yaml"
    over.write_text("processors:\n  ml_drift:\n    alhpa: 0.01\n")
    arguments = ["--config", str(over), "--set", "processors.ml_drift.window.step=soon"]
    with Collector(
        tmp_path, None, "validate", "--config", _file(tmp_path, CONFIG), *arguments, wait=False
    ) as one:
        assert one.ended() == 1
    assert f"processors.ml_drift.alhpa ({over}, line 3): unknown key; did you mean alpha?" in one.stderr
    assert "processors.ml_drift.window.step" in one.stderr


@pytest.mark.parametrize("wrong", ["novalue", "=1", "a..b=1"])
def test_values_without_a_key_are_refused(tmp_path: Path, wrong: str) -> None:
    """The way to write them is said."""
    arguments = ("validate", "--config", _file(tmp_path, CONFIG), "--set", wrong)
    with Collector(tmp_path, None, *arguments, wait=False) as one:
        assert one.ended() == 1
    assert "is not key=value" in one.stderr


def test_what_is_printed_is_a_configuration(tmp_path: Path) -> None:
    """print-config shows the default with every key, and can be read again."""
    with Collector(tmp_path, None, "print-config", wait=False) as printed:
        assert printed.ended() == 0
    assert "max_recv_msg_size_mib: 16" in printed.stdout
    again = _file(tmp_path, printed.stdout)
    with Collector(tmp_path, None, "print-config", "--config", again, wait=False) as twice:
        assert twice.ended() == 0
    assert twice.stdout == printed.stdout


def test_secrets_are_masked(tmp_path: Path) -> None:
    """Also those that come from the environment."""
    text = CONFIG.replace("extensions: {", "extensions: {bearertokenauth: {token: '${env:HOME}/s3cret'}, ", 1)
    text = text.replace("[health_check]", "[health_check, bearertokenauth]")
    with Collector(tmp_path, None, "print-config", "--config", _file(tmp_path, text), wait=False) as printed:
        assert printed.ended() == 0
    assert "s3cret" not in printed.stdout
    assert "bearertokenauth:" in printed.stdout


def test_components_and_schema_name_what_there_is(tmp_path: Path) -> None:
    """For people and for editors."""
    with Collector(tmp_path, None, "components", wait=False) as printed:
        assert printed.ended() == 0
    assert "processors: memory_limiter, ml_drift" in printed.stdout
    with Collector(tmp_path, None, "schema", wait=False) as schema:
        assert schema.ended() == 0
    described = json.loads(schema.stdout)
    assert described["required"] == ["service"]
    assert set(described["properties"]) == {"receivers", "processors", "exporters", "extensions", "service"}


def test_a_reader_that_has_enough_gets_no_traceback() -> None:
    """`schema | head` ends like any program whose pipe is closed."""
    reading, writing = os.pipe()
    os.close(reading)
    command = [sys.executable, "-m", "otel_ml_collector", "schema"]
    ended = subprocess.run(command, stdout=writing, stderr=subprocess.PIPE, check=False)
    os.close(writing)
    assert (ended.returncode, ended.stderr) == (128 + signal.SIGPIPE, b"")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--confg", "x"], "unrecognized arguments: --confg; did you mean --config?"),
        (["validate", "--confg=x"], "unrecognized arguments: --confg; did you mean --config?"),
        (["--zzz"], "unrecognized arguments: --zzz\n"),
        (["validte"], "invalid choice: 'validte'"),
    ],
)
def test_a_mistyped_argument_is_named(
    arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """It, not the value behind it."""
    with pytest.raises(SystemExit) as caught:
        cli.main(arguments)
    assert caught.value.code == 2
    assert said in capsys.readouterr().err


def _file(directory: Path, text: str) -> str:
    path = directory / "given.yaml"
    path.write_text(text)
    return str(path)
