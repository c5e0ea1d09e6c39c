"""Children, frozen processes and restarted notebooks over real OTLP: each row is counted once, by who predicted it."""

from __future__ import annotations

import gzip
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

import pytest
from integration.sink import Sink
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest

HERE = Path(__file__).parent

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="this platform cannot fork")


def environment(sink: Sink, protocol: str = "http/protobuf", **more: str) -> dict[str, str]:
    """Metrics to the sink, and only when a process ends or says so."""
    clean = {key: value for key, value in os.environ.items() if not key.startswith("OTEL_")}
    endpoint = f"http://{sink.grpc_endpoint}" if protocol == "grpc" else sink.http_endpoint
    return {
        **clean, "OTEL_EXPORTER_OTLP_ENDPOINT": endpoint, "OTEL_EXPORTER_OTLP_PROTOCOL": protocol,
        "OTEL_TRACES_EXPORTER": "none", "OTEL_LOGS_EXPORTER": "none", "OTEL_METRIC_EXPORT_INTERVAL": "60000",
        "OTEL_PYTHON_ML_RAISE": "1", **more,
    }  # fmt: skip


def points(sink: Sink) -> list[tuple[str, Any]]:
    """Every point of the model's rows with its `service.instance.id`, in the order of arrival."""
    found = []
    for resource in (resource for request in sink.metrics() for resource in request.resource_metrics):
        instance = {a.key: a.value.string_value for a in resource.resource.attributes}.get(
            "service.instance.id"
        )
        for metric in (metric for scope in resource.scope_metrics for metric in scope.metrics):
            if metric.name == "ml.inference.rows":
                found += [(str(instance), point) for point in metric.sum.data_points]
    return found


def by_instance(sink: Sink, *, delta: bool = False) -> Counter[str]:
    """Rows by `service.instance.id`: the latest of totals, or the sum of deltas."""
    rows: Counter[str] = Counter()
    for instance, point in points(sink):
        rows[instance] = point.as_int + (rows[instance] if delta else 0)
    return rows


def run(sink: Sink, *arguments: str, **more: str) -> tuple[int, int]:
    """Rows of the parent and of the children together, as the program says that it made them."""
    done = subprocess.run(
        [sys.executable, str(HERE / "jobs.py"), *arguments],
        env=environment(sink, **more), capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    parents, children = done.stdout.split()
    return int(parents), int(children)


# --- children ------------------------------------------------------------------------------------------------

WAYS = [
    ("processes", "fork"), ("processes", "forkserver"), ("pool", "fork"), ("pool", "spawn"), ("executor", "fork"),
    ("executor", "spawn"), ("executor", "forkserver"), ("joblib",), ("loky",), ("fork",), ("flushed",),
]  # fmt: skip


@pytest.mark.parametrize("way", WAYS, ids=" ".join)
def test_children_count_what_they_predict(way: tuple[str, ...], tmp_path: Path) -> None:
    """Rows of the parent before, and of every child until its end, arrive once, under an identity for each."""
    with Sink(tmp_path) as sink:
        parents, children = run(sink, *way)
        rows = by_instance(sink)
    assert sum(rows.values()) == parents + children
    assert parents in rows.values()
    assert len(rows) > 1


@pytest.mark.parametrize("protocol", ["grpc", "http/protobuf"])
def test_deltas_of_children(protocol: str, tmp_path: Path) -> None:
    """With delta temporality a forked child does not send again what its parent has sent."""
    with Sink(tmp_path) as sink:
        preference = {"OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE": "delta"}
        parents, children = run(sink, "processes", "fork", protocol=protocol, **preference)
        rows = by_instance(sink, delta=True)
    assert sorted(rows.values()) == [*[children // 4] * 4, parents]


class Backend(BaseHTTPRequestHandler):
    """Takes what it is sent, and notes which processes speak on each connection."""

    protocol_version = "HTTP/1.1"
    speakers: ClassVar[dict[Any, set[str]]] = {}

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.headers.get("Content-Encoding") == "gzip":
            body = gzip.decompress(body)
        request = ExportMetricsServiceRequest.FromString(body)
        for resource in request.resource_metrics:
            if any(scope.scope.name == "otel_ml" for scope in resource.scope_metrics):
                for one in resource.resource.attributes:
                    if one.key == "service.instance.id":
                        self.speakers.setdefault(self.client_address, set()).add(one.value.string_value)
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: Any) -> None:
        """Stay quiet."""


def test_a_child_has_connections_of_its_own(tmp_path: Path) -> None:
    """What the parent has open is not spoken on by its children: their requests would be mixed up."""
    Backend.speakers.clear()
    with ThreadingHTTPServer(("127.0.0.1", 0), Backend) as backend, Sink(tmp_path) as sink:
        threading.Thread(target=backend.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        endpoint = f"http://127.0.0.1:{backend.server_address[1]}"
        run(sink, "flushed", OTEL_EXPORTER_OTLP_ENDPOINT=endpoint)
        backend.shutdown()
    assert len(set.union(*Backend.speakers.values())) == 4
    assert [len(speakers) for speakers in Backend.speakers.values()] == [1] * len(Backend.speakers)


def test_a_child_that_predicts_nothing_sends_nothing(tmp_path: Path) -> None:
    """Children that have nothing to tell do not wait for a backend when they end."""
    with Sink(tmp_path) as sink:
        parents, _ = run(sink, "idle", "fork")
        assert list(by_instance(sink).values()) == [parents]


def test_a_child_that_is_cut_off_loses_what_it_has_not_sent(tmp_path: Path) -> None:
    """`os._exit` of a child forked by hand leaves no time: its rows are lost, those of the parent are not."""
    with Sink(tmp_path) as sink:
        parents, children = run(sink, "cut_off")
        rows = by_instance(sink)
    assert list(rows.values()) == [parents]
    assert children > 0


FORKING = """
import os, signal, sys, threading, time
import numpy as np
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import (
    MetricExporter, MetricExportResult, PeriodicExportingMetricReader,
)
import otel_ml
from otel_ml import pipeline
PAUSE = float(sys.argv[1])
class Exporter(MetricExporter):
    def export(self, metrics_data, timeout_millis=0, **kwargs):
        PAUSE and time.sleep(PAUSE)
        return MetricExportResult.SUCCESS
    def force_flush(self, timeout_millis=0):
        return True
    def shutdown(self, timeout_millis=0, **kwargs):
        pass
reader = PeriodicExportingMetricReader(Exporter())
pipeline.use(meter_provider=MeterProvider([reader]))
predict = otel_ml.observe(model="m", version="1", spans="off")(lambda X: X[:, 0])
predict(np.zeros((3, 30)))
def collect_for_ever():
    while True:
        reader.collect()
threading.Thread(target=collect_for_ever, daemon=True).start()
for number in range(60):
    child = os.fork()
    if child == 0:
        signal.alarm(10)
        predict(np.zeros((3, 30)))
        reader.collect()
        os._exit(0)
    print(os.waitpid(child, 0)[1])
os._exit(0)
"""


@pytest.mark.parametrize("pause", ["0", "0.001"], ids=["collecting", "exporting"])
def test_children_of_a_parent_that_collects_all_the_time(pause: str) -> None:
    """Forked while another thread is anywhere in a collection or an export, a child has no lock that is held for ever,
    and tells what it counts."""
    done = subprocess.run(
        [sys.executable, "-u", "-c", FORKING, pause], capture_output=True, text=True, timeout=90, check=True
    )
    assert done.stdout.split() == ["0"] * 60


# --- a process that is frozen ---------------------------------------------------------------------------------


@pytest.mark.parametrize("temporality", ["cumulative", "delta"])
def test_a_process_that_is_frozen_between_invocations(temporality: str, tmp_path: Path) -> None:
    """Stopped for many export intervals, it goes on where it was: no row is lost, none is sent as new once more."""
    with Sink(tmp_path) as sink:
        preference = {"OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE": temporality}
        process = subprocess.Popen(
            [sys.executable, str(HERE / "invoked.py")], text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            env=environment(sink, **preference, OTEL_METRIC_EXPORT_INTERVAL="50"),
        )  # fmt: skip
        assert process.stdin is not None
        assert process.stdout is not None
        arrived = []
        for rows in (5, 7, 11):
            process.stdin.write(f"{rows}\n")
            process.stdin.flush()
            assert process.stdout.readline() == "True\n"
            arrived.append(sum(by_instance(sink, delta=temporality == "delta").values()))
            process.send_signal(signal.SIGSTOP)
            time.sleep(0.5)  # what is under test: ten intervals pass without it
            process.send_signal(signal.SIGCONT)
        process.communicate(timeout=30)
        rows_in_the_end = by_instance(sink, delta=temporality == "delta")
        starts = {point.start_time_unix_nano for _, point in points(sink)}
    assert arrived == [5, 12, 23]
    assert list(rows_in_the_end.values()) == [23]
    if temporality == "cumulative":
        assert len(starts) == 1


# --- a notebook ------------------------------------------------------------------------------------------------

CELLS = """
import importlib
import numpy as np
from sklearn.linear_model import LogisticRegression
import otel_ml
otel_ml.configure("notebook")
otel_ml.instrument()
X = np.arange(20.0).reshape(-1, 1)
# %%
model = LogisticRegression().fit(X, X[:, 0] > 9)
otel_ml.register(model, name="risk", version="1")
model.predict(X)
# %%
@otel_ml.observe(model="churn", version="3")
def predict(X):
    return X[:, 0]
predict(X)
# %%
otel_ml.force_flush()
"""
AGAIN = [
    "",
    "importlib.reload(otel_ml); otel_ml.configure(); otel_ml.instrument()",
    "import otel_ml; otel_ml.instrument()",
]


def rows_by_model(sink: Sink) -> dict[tuple[str, str], int]:
    """The latest count of each process and model."""
    found = {}
    for instance, point in points(sink):
        model = {a.key: a.value.string_value for a in point.attributes}["ml.model.name"]
        found[instance, model] = point.as_int
    return found


def test_a_notebook_that_is_run_again_and_again(tmp_path: Path) -> None:
    """Cells run anew, a module that is loaded anew and a second `instrument()` leave one count a prediction; a
    restarted kernel is a process of its own."""
    program = textwrap.dedent("""
        import sys
        namespace = {"__name__": "__main__"}
        for cell in sys.stdin.read().split("# %%"):
            exec(cell, namespace)
    """)
    cells = "# %%".join([CELLS] + [f"{again}\n# %%{CELLS}" for again in AGAIN])
    with Sink(tmp_path) as sink:
        for _ in range(2):
            done = subprocess.run(
                [sys.executable, "-c", program], input=cells, env=environment(sink), capture_output=True, text=True,
                timeout=60, check=False,
            )  # fmt: skip
            assert (done.returncode, done.stderr) == (0, "")
        rows = rows_by_model(sink)
    times = 1 + len(AGAIN)
    assert len({instance for instance, _ in rows}) == 2
    assert sorted((model, count) for (_, model), count in rows.items()) == [
        ("churn", 20 * times), ("churn", 20 * times), ("risk", 20 * times), ("risk", 20 * times),
    ]  # fmt: skip
