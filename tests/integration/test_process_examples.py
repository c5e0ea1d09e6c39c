"""The examples that are about processes, run as their docstrings say; judged by what arrives at a backend."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from integration.sink import Sink
from integration.test_examples import EXAMPLES, assert_declared, environment, last, points, run, spans
from integration.test_gunicorn import rows_by_instance


@contextmanager
def service(sink: Sink, log: Path) -> Iterator[str]:
    """The gunicorn example; gives its URL and ends it as an orchestrator would."""
    with log.open("wb") as out:
        process = subprocess.Popen(
            [sys.executable, str(EXAMPLES / "gunicorn_service.py"), "0"],
            env=environment(sink.http_endpoint, HOME=str(log.parent)), stdout=out, stderr=out,
        )  # fmt: skip
    try:
        while not (found := re.search(r"Listening at: (http://\S+)", log.read_text())):
            assert process.poll() is None, log.read_text()
        yield found[1]
    finally:
        process.terminate()
        process.wait(timeout=40)
    assert "Traceback" not in log.read_text(), log.read_text()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="gunicorn needs fork")
def test_gunicorn_service(tmp_path: Path) -> None:
    """All answers are counted by the workers that gave them, and the warm call by the parent."""
    customer = {"age": 30, "income": 42.5}
    with Sink(tmp_path / "sink") as sink:
        with service(sink, tmp_path / "log") as url, httpx.Client(base_url=url, timeout=30) as client:
            said = [client.post("/predict", json=customer).raise_for_status().json() for _ in range(6)]
            said += [httpx.post(f"{url}/predict", json=customer).json() for _ in range(6)]
        rows = [point.as_int for point in rows_by_instance(sink).values() if point.as_int]
        assert_declared(sink.metrics(), spans(sink))
        assert len(spans(sink)) == 13
    workers = [answer["worker"] for answer in said]
    assert sorted(rows) == sorted([1, *map(workers.count, set(workers))])


def test_batch_parquet(tmp_path: Path) -> None:
    """Without a file the job makes one: 50,000 rows in five calls, sent before it ends."""
    with Sink(tmp_path / "sink") as sink:
        printed = run("batch_parquet.py", endpoint=sink.http_endpoint).splitlines()
        arrived, sent = sink.metrics(), spans(sink)
    assert [line.partition(",")[0] for line in printed] == [
        *(f"row group {n} of 5: {n}0000 rows" for n in range(1, 6)), "50000 rows scored",
    ]  # fmt: skip
    assert printed[-1] == "50000 rows scored, telemetry sent"
    assert [attributes["ml.batch.size"] for _, attributes in sent] == [10_000] * 5
    assert last(arrived, "ml.feature.value", "ml.feature.name")["age"] == 50_000
    assert {
        p.count for a, p in points(arrived, "ml.baseline.value") if a.get("ml.feature.name") == "age"
    } == {5000}


def test_batch_parquet_with_files_and_without_a_backend(tmp_path: Path) -> None:
    """The scores are written where telemetry is switched off."""
    table = pa.table({"age": [25, 70, 40], "income": [20.0, 30.0, 40.0], "name": ["a", "b", "c"]})
    pq.write_table(table, tmp_path / "in.parquet", row_group_size=2)
    none = {f"OTEL_{signal}_EXPORTER": "none" for signal in ("TRACES", "LOGS", "METRICS")}
    printed = run("batch_parquet.py", str(tmp_path / "in.parquet"), str(tmp_path / "out.parquet"), **none)
    assert "row group 2 of 2: 3 rows" in printed
    first, second, third = pq.read_table(tmp_path / "out.parquet")["score"].to_pylist()
    assert first > third > second


@pytest.mark.parametrize("protocol", ["grpc", "http/protobuf"])
def test_batch_parquet_says_that_the_backend_is_away(protocol: str) -> None:
    """OpenTelemetry's readers say yes after an export that failed; the job is told the truth."""
    away = environment(
        "http://127.0.0.1:9", OTEL_EXPORTER_OTLP_PROTOCOL=protocol, OTEL_EXPORTER_OTLP_TIMEOUT="1"
    )
    done = subprocess.run(
        [sys.executable, str(EXAMPLES / "batch_parquet.py")],
        env=away, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0
    assert done.stdout.splitlines()[-1] == "50000 rows scored, telemetry not sent"
