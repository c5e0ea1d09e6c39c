"""Rotel, a collector written in Rust, in front of otel-ml-collector and behind it."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from urllib.request import Request, urlopen

import numpy as np
import pytest
from integration.collector import Collector
from integration.sink import Sink
from integration.test_end_to_end import FEATURES, draw
from interop.otelcol import free_ports
from interop.prometheus import eventually
from interop.test_collector_paths import DRIFT, EXACT, ROWS, Gauges, gauges, rows

from otel_ml import Baseline, semconv

PSI = semconv.DRIFT_PSI.name
BOTH = DRIFT.replace("}}}}}}}}", '}}, http: {{endpoint: "127.0.0.1:0"}}}}}}}}', 1)
"""The configuration of the tests with an OpenTelemetry Collector, and HTTP."""


@pytest.fixture(scope="session")
def agent() -> Path:
    """The program in Rotel's Python package. Not there: the test is skipped, in `make interop` it fails."""
    found = importlib.util.find_spec("rotel")
    if found is None or not found.submodule_search_locations:
        message = "Rotel is not installed; install it with: make interop"
        if os.environ.get("INTEROP") == "all":
            pytest.fail(message)
        pytest.skip(message)
    return Path(found.submodule_search_locations[0]) / "rotel-agent"


@contextmanager
def rotel(agent: Path, directory: Path, protocol: str, endpoint: str) -> Iterator[str]:
    """A Rotel that passes everything on to `endpoint`; yields its own."""
    directory.mkdir()
    grpc, http = free_ports(2)
    settings = {
        "ROTEL_PID_FILE": directory / "pid",
        "ROTEL_LOG_FILE": directory / "rotel.log",
        "ROTEL_OTLP_GRPC_ENDPOINT": f"127.0.0.1:{grpc}",
        "ROTEL_OTLP_HTTP_ENDPOINT": f"127.0.0.1:{http}",
        "ROTEL_EXPORTER": "otlp",
        "ROTEL_OTLP_EXPORTER_PROTOCOL": protocol,
        "ROTEL_OTLP_EXPORTER_ENDPOINT": endpoint,
    }
    environment = {**os.environ, **{name: str(value) for name, value in settings.items()}}
    with (directory / "output").open("wb") as output:
        process = subprocess.Popen([agent, "start"], env=environment, stdout=output, stderr=subprocess.STDOUT)
    try:
        eventually(lambda: process.poll() is not None or listens(http), what="Rotel listens")
        assert process.poll() is None, (directory / "output").read_text()
        yield f"127.0.0.1:{grpc}"
    finally:
        process.terminate()
        process.wait(20)


def listens(port: int) -> bool:
    """Whether somebody answers OTLP over HTTP on this port."""
    empty = Request(f"http://127.0.0.1:{port}/v1/metrics", b"", {"Content-Type": "application/x-protobuf"})
    try:
        with urlopen(empty, timeout=5) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


def train(directory: Path) -> None:
    """The files of a model: its baseline and the rows that it is going to see."""
    rng = np.random.default_rng(42)
    trained, served = draw(rng, 5_000, 0.0), draw(rng, ROWS, 0.6)
    scores = 1 / (1 + np.exp(-trained[:, 0] / 10))
    Baseline.fit(
        trained, model="credit", version="7", scores=scores, features=FEATURES, categorical=["region"]
    ).save(directory / "credit.baseline.json")
    np.save(directory / "rows.npy", served)


@pytest.mark.parametrize("temporality", ["cumulative", "delta"])
@pytest.mark.parametrize("protocol", ["grpc", "http"])
def test_drift_equals_that_of_the_direct_path(
    agent: Path, tmp_path: Path, protocol: str, temporality: str
) -> None:
    """SDK → Rotel → otel-ml-collector → Rotel → backend has the numbers of SDK → otel-ml-collector → backend."""
    train(tmp_path)
    port = {"grpc": "grpc_endpoint", "http": "http_endpoint"}[protocol]
    with ExitStack() as stack:
        sinks = [stack.enter_context(Sink(tmp_path / name)) for name in ("straight-sink", "sink")]
        behind = rotel(agent, tmp_path / "behind", protocol, url(getattr(sinks[1], port)))
        endpoints = (sinks[0].grpc_endpoint, stack.enter_context(behind))
        services = []
        for name, endpoint in zip(("straight", "drift"), endpoints, strict=True):
            (tmp_path / name).mkdir()
            service = Collector(tmp_path / name, BOTH.format(endpoint=endpoint))
            services.append(stack.enter_context(service))
        to = url(f"127.0.0.1:{services[1].ports[protocol]}")
        front = stack.enter_context(rotel(agent, tmp_path / "front", protocol, to))
        predict(tmp_path, [f"127.0.0.1:{services[0].ports['grpc']}", front], temporality)
        eventually(
            lambda: all(rows(gauges(one.metrics())) == ROWS for one in sinks),
            what="every row in both windows",
        )
        straight, through = (of_rows(gauges(sink.metrics())) for sink in sinks)
    assert {metric for metric, _ in straight} == EXACT - {semconv.DRIFT_BIN_SHARE.name}
    assert through == straight
    psi = {dict(of).get(semconv.FEATURE_NAME, "score"): v for (m, of), v in straight.items() if m == PSI}
    print(f"\n{protocol}, {temporality}: {len(straight)} gauges equal over {ROWS} rows;", psi)


def of_rows(found: Gauges) -> Gauges:
    """Without the cells of drifted targets: whether a target has drifted is told once a minute."""
    return {key: value for key, value in found.items() if key[0] != semconv.DRIFT_BIN_SHARE.name}


def url(endpoint: str) -> str:
    return endpoint if endpoint.startswith("http://") else f"http://{endpoint}"


def predict(directory: Path, endpoints: list[str], temporality: str) -> None:
    """Run the model's process."""
    program = str(Path(__file__).with_name("two_ways.py"))
    files = [str(directory / "rows.npy"), str(directory / "credit.baseline.json")]
    command = [sys.executable, program, *files, *map(url, endpoints), temporality]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, "")
