"""Real servers with several workers under load: every row that was answered is at the backend, once.

OTEL_ML_TEST_REQUESTS says how many requests the tests of a server make; 20000 is a good number for a long look.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from integration.collector import Collector
from integration.load import load
from integration.sink import Sink

from otel_ml import Baseline

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="gunicorn needs fork")

TESTS = Path(__file__).parents[1]
REQUESTS = int(os.environ.get("OTEL_ML_TEST_REQUESTS", "600"))
FLASK, FASTAPI = "integration.served_flask:app", "integration.served_fastapi:app"
GUNICORN = ("gunicorn", "--bind=127.0.0.1:0", "--workers=4")
UVICORN_WORKER = ("--worker-class=uvicorn_worker.UvicornWorker",)
COLLECTOR = """
receivers: {otlp: {protocols: {http: {endpoint: "127.0.0.1:0"}}}}
processors: {ml_drift: {window: {length: 10m, step: 1m, lateness: 2s}, interval: 200ms}}
exporters: {otlp: {endpoint: "%s", tls: {insecure: true}}}
service: {pipelines: {metrics: {receivers: [otlp], processors: [ml_drift], exporters: [otlp]}}}
"""


@contextmanager
def server(log: Path, endpoint: str, *command: str, **environment: str) -> Iterator[int]:
    """`python -m command` with metrics to `endpoint`; gives its port, and stops it as an orchestrator would."""
    clean = {key: value for key, value in os.environ.items() if not key.startswith("OTEL_")}
    variables = {
        "PYTHONPATH": str(TESTS), "OTEL_EXPORTER_OTLP_ENDPOINT": endpoint,
        "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf",
        "OTEL_TRACES_EXPORTER": "none", "OTEL_LOGS_EXPORTER": "none", "OTEL_METRIC_EXPORT_INTERVAL": "60000",
        "OTEL_PYTHON_ML_RAISE": "1", "HOME": str(log.parent), **environment,
    }  # fmt: skip
    with log.open("wb") as out:
        process = subprocess.Popen(
            [sys.executable, "-m", *command], env={**clean, **variables}, stdout=out, stderr=out
        )
    try:
        yield int(awaited(log, r"(?:Listening at:|running on) http://127.0.0.1:(\d+)")[1])
    finally:
        process.terminate()
        process.wait(timeout=40)
    said = log.read_text()
    assert process.returncode in (0, -signal.SIGTERM), said  # uvicorn ends by the signal
    assert "Traceback" not in said, said


def awaited(log: Path, pattern: str) -> re.Match[str]:
    """The first place of `pattern` in the log, as soon as it is there."""
    deadline = time.monotonic() + 30
    while not (found := re.search(pattern, log.read_text())):
        assert time.monotonic() < deadline, log.read_text()
        time.sleep(0.05)
    return found


def rows_by_instance(sink: Sink) -> dict[str, Any]:
    """The latest point of the model's rows, by `service.instance.id`."""
    found = {}
    for resource in (resource for request in sink.metrics() for resource in request.resource_metrics):
        instance = {a.key: a.value.string_value for a in resource.resource.attributes}.get(
            "service.instance.id"
        )
        for metric in (metric for scope in resource.scope_metrics for metric in scope.metrics):
            if metric.name == "ml.inference.rows":
                [found[instance]] = metric.sum.data_points
    return found


def counted(sink: Sink) -> Counter[int]:
    """How many instances have counted so many rows, those with none left out."""
    return Counter(point.as_int for point in rows_by_instance(sink).values() if point.as_int)


def stopping(number: int, requests: int = REQUESTS) -> tuple[Callable[[int, str], None], list[str]]:
    """For `on_answer`: sends the worker of the middle answer a signal; its process id is in the list then."""
    stopped: list[str] = []

    def on_answer(answers: int, worker: str) -> None:
        if answers == requests // 2:
            os.kill(int(worker), number)
            stopped.append(worker)

    return on_answer, stopped


SERVERS = {
    "gunicorn, Flask": (*GUNICORN, FLASK),
    "gunicorn with threads, Flask": (*GUNICORN, "--worker-class=gthread", "--threads=2", FLASK),
    "gunicorn with uvicorn workers, FastAPI": (*GUNICORN, *UVICORN_WORKER, FASTAPI),
    "uvicorn, FastAPI": ("uvicorn", "--port=0", "--workers=2", "--no-access-log", FASTAPI),
}


@pytest.mark.parametrize("name", SERVERS)
def test_every_answered_row_is_counted_once(name: str, tmp_path: Path) -> None:
    """A worker stopped by SIGTERM in the middle takes nothing with it; each worker counts under its own identity."""
    on_answer, stopped = stopping(signal.SIGTERM)
    with Sink(tmp_path / "sink") as sink:
        with server(tmp_path / "log", sink.http_endpoint, *SERVERS[name]) as port:
            answers = load(port, REQUESTS, on_answer=on_answer)
        by_worker = answers.counts()
        print(f"{name}: {len(answers.by)} answered, {by_worker}, stopped {stopped}, counted {counted(sink)}")
        assert counted(sink) == Counter(by_worker.values())
    assert len(answers.by) == REQUESTS
    assert len(by_worker) > 1


def test_a_killed_worker_costs_at_most_its_last_interval(tmp_path: Path) -> None:
    """By SIGKILL a worker loses what it answered since its last export, and nobody else loses anything."""
    on_answer, stopped = stopping(signal.SIGKILL)
    with Sink(tmp_path / "sink") as sink:
        with server(
            tmp_path / "log", sink.http_endpoint, *GUNICORN, FLASK, OTEL_METRIC_EXPORT_INTERVAL="200"
        ) as port:
            answers = load(port, REQUESTS, on_answer=on_answer)
        found = rows_by_instance(sink)
    by_worker = answers.counts()
    killed = by_worker.pop(stopped[0])
    missing = len(answers.by) - sum(point.as_int for point in found.values())
    left = counted_once(found, by_worker)
    # an export that is sent is on its way while the next rows are answered: it has those before it was made
    possible = answers.since(stopped[0], left.time_unix_nano) if left is not None else killed
    print(
        f"{len(answers.by)} answered, {killed} by the killed worker, {missing} missing of {possible} possible"
    )
    assert 0 <= missing <= possible <= killed


def counted_once(found: dict[str, Any], by_worker: Counter[str]) -> Any:
    """The point of the instance that is none of `by_worker`, each of which has counted what it answered."""
    points = [point for point in found.values() if point.as_int]
    for rows in by_worker.values():
        points.remove(next(point for point in points if point.as_int == rows))
    assert len(points) <= 1
    return points[0] if points else None


@pytest.mark.parametrize("protocol", ["grpc", "http/protobuf"])
def test_preloaded_application(protocol: str, tmp_path: Path) -> None:
    """Providers and 7 calls before the fork: the parent counts those once, and workers start at zero, new ones too."""
    on_answer, _ = stopping(signal.SIGTERM)
    with Sink(tmp_path / "sink") as sink:
        endpoint = f"http://{sink.grpc_endpoint}" if protocol == "grpc" else sink.http_endpoint
        with server(
            tmp_path / "log", endpoint, *GUNICORN, "--preload", FLASK,
            WARM_UP="7", OTEL_EXPORTER_OTLP_PROTOCOL=protocol, OTEL_METRIC_EXPORT_INTERVAL="200",
        ) as port:  # fmt: skip
            answers = load(port, REQUESTS, on_answer=on_answer)
        assert counted(sink) == Counter([7, *answers.counts().values()])


def test_providers_set_up_after_the_fork(tmp_path: Path) -> None:
    """With `configure()` in post_fork workers count what they answer, and nobody what the parent did before."""
    config = tmp_path / "gunicorn.conf.py"
    config.write_text("import otel_ml\n\ndef post_fork(server, worker):\n    otel_ml.configure('served')\n")
    with Sink(tmp_path / "sink") as sink:
        with server(
            tmp_path / "log", sink.http_endpoint, *GUNICORN, f"--config={config}", "--preload", FLASK,
            CONFIGURE="elsewhere", WARM_UP="7",
        ) as port:  # fmt: skip
            answers = load(port, REQUESTS)
        assert counted(sink) == Counter(answers.counts().values())


@pytest.mark.parametrize("app", [(FLASK,), (*UVICORN_WORKER, FASTAPI)], ids=["Flask", "FastAPI"])
def test_workers_that_are_replaced_after_some_requests(app: tuple[str, ...], tmp_path: Path) -> None:
    """max_requests ends workers over and over, and every row is still counted once."""
    often = ("--preload", f"--max-requests={REQUESTS // 8}")
    with Sink(tmp_path / "sink") as sink:
        with server(tmp_path / "log", sink.http_endpoint, *GUNICORN, "--workers=2", *often, *app) as port:
            answers = load(port, REQUESTS)
        assert counted(sink) == Counter(answers.counts().values())
    assert len(answers.counts()) > 2


def test_a_request_that_is_under_way_is_finished_and_counted(tmp_path: Path) -> None:
    """The server is stopped while it answers: within the graceful timeout the answer comes, and its row."""
    said = []
    with Sink(tmp_path / "sink") as sink:
        with server(tmp_path / "log", sink.http_endpoint, *GUNICORN, FLASK) as port:
            url = f"http://127.0.0.1:{port}/slow/1"
            asking = threading.Thread(target=lambda: said.append(urllib.request.urlopen(url).status))
            asking.start()
            awaited(tmp_path / "log", "the answer takes its time")
        asking.join(30)
        assert counted(sink) == Counter([1])
    assert said == [200]


@pytest.mark.parametrize("preload", [(), ("--preload",)], ids=["", "preload"])
def test_an_identity_of_the_container_is_not_that_of_each_worker(
    preload: tuple[str, ...], tmp_path: Path
) -> None:
    """A service.instance.id in the environment, as Kubernetes operators put it there, would make workers overwrite
    each other's counts: each has one of its own instead."""
    with Sink(tmp_path / "sink") as sink:
        with server(
            tmp_path / "log", sink.http_endpoint, *GUNICORN, *preload, FLASK,
            OTEL_RESOURCE_ATTRIBUTES="service.instance.id=pod-1,service.namespace=shop",
        ) as port:  # fmt: skip
            answers = load(port, 200)
        assert counted(sink) == Counter(answers.counts().values())
        assert "pod-1" not in rows_by_instance(sink)


def test_a_collector_adds_up_workers_that_come_and_go(tmp_path: Path) -> None:
    """What workers counted before they ended stays in the window, once, beside what their successors count."""
    rows = np.random.default_rng(0).uniform(0, 1, (5000, 1))
    Baseline.fit(rows, model="churn", version="3", features=["x"]).save(tmp_path / "baseline.json")
    with Sink(tmp_path / "sink") as sink, Collector(tmp_path, COLLECTOR % sink.grpc_endpoint) as collector:
        with server(
            tmp_path / "log", f"http://127.0.0.1:{collector.ports['http']}", *GUNICORN, "--preload",
            f"--max-requests={REQUESTS // 8}", FLASK,
            BASELINE=str(tmp_path / "baseline.json"),
        ) as port:  # fmt: skip
            answers = load(port, REQUESTS)
        sink.wait_for(lambda requests: REQUESTS in window_rows(requests))
    assert len(answers.counts()) > 4


def window_rows(requests: list[Any]) -> set[float]:
    """Every number of rows that a window of the feature has had."""
    return {
        point.as_double for request in requests for resource in request.resource_metrics
        for scope in resource.scope_metrics for metric in scope.metrics if metric.name == "ml.drift.window.rows"
        for point in metric.gauge.data_points
        if any(a.value.string_value == "feature" for a in point.attributes)
    }  # fmt: skip
