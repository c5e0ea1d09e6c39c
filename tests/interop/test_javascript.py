"""OpenTelemetry's JavaScript SDK as a sender of the same names: the drift service makes the same windows of it."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import pytest
from integration.sink import Sink
from integration.test_end_to_end import collector
from interop.build import CACHE

from otel_ml import Baseline, semconv

HERE = Path(__file__).with_name("javascript")
ROWS = 3_000
REFERENCE = "python"

SENDERS = {
    "js-grpc": ("grpc", "cumulative"),
    "js-grpc-delta": ("grpc", "delta"),
    "js-protobuf": ("http/protobuf", "cumulative"),
    "js-protobuf-delta": ("http/protobuf", "delta"),
    "js-json": ("http/json", "cumulative"),
    "js-json-delta": ("http/json", "delta"),
}

OF_THE_CLOCK = {
    metric.name
    for metric in (
        semconv.DRIFT_PSI_EXCESS, semconv.DRIFT_CHI_SQUARE, semconv.DRIFT_DESIGN_EFFECT, semconv.DRIFT_P_VALUE,
        semconv.DRIFT_CUSUM, semconv.DRIFT_STATUS, semconv.DRIFT_REASON, semconv.DRIFT_FEATURES,
        semconv.DRIFT_BIN_SHARE, semconv.DRIFT_WINDOW_END, semconv.DRIFT_EVALUATION_AGE, semconv.BASELINE_AGE,
        semconv.ACTIVITY_AGE,
    )
}  # fmt: skip
"""Gauges that depend on the minutes which the rows came in as well, or on the time of the evaluation."""

Windows = dict[tuple[str, frozenset[tuple[str, str]]], float]
"""Value by metric and attributes."""


def draw(rng: np.random.Generator, rows: int, shift: float) -> dict[str, list[Any]]:
    """A feature that can be negative, a tied one, a heavy-tailed one with gaps and outliers, and categories."""
    income = np.round(rng.lognormal(3 + shift / 5, 1, rows), 2)
    gaps = rng.random(rows) < 0.02 + shift / 20
    income[rng.random(rows) < shift / 50] = 1e6
    regions = ["north", "south", "east", *(["moon"] if shift else [])]
    return {
        "balance": rng.normal(-3 + shift, 8, rows).tolist(),
        "age": (rng.integers(18, 70, rows) + round(5 * shift)).tolist(),
        "income": [None if gap else value for gap, value in zip(gaps, income.tolist(), strict=True)],
        "region": rng.choice(regions, rows).tolist(),
    }


def scored(columns: Mapping[str, list[Any]]) -> list[float]:
    scores: list[float] = (1 / (1 + np.exp(-np.array(columns["balance"]) / 10))).tolist()
    return scores


def drift(requests: Iterable[Any]) -> dict[str, Windows]:
    """The newest gauges by the service they are about."""
    found: dict[str, Windows] = {}
    for request in requests:
        for scope in (scope for resource in request.resource_metrics for scope in resource.scope_metrics):
            for metric in scope.metrics:
                for point in metric.gauge.data_points:
                    attributes = {one.key: one.value.string_value for one in point.attributes}
                    service = attributes.pop("ml.service.name")
                    key = metric.name, frozenset(attributes.items())
                    found.setdefault(service, {})[key] = point.as_double
    return found


def of_rows(windows: Windows) -> Windows:
    """The gauges that follow from the rows alone."""
    return {key: value for key, value in windows.items() if key[0] not in OF_THE_CLOCK}


def complete(windows: Windows) -> bool:
    """All rows are in the window of all five targets."""
    rows = [value for (metric, _), value in windows.items() if metric == semconv.DRIFT_WINDOW_ROWS.name]
    return rows == [ROWS] * 5


def installed() -> Path:
    """A directory with sender.mjs and the packages it needs, as the lock file has them; made once.

    Where they cannot be had the test is skipped, on CI (`CI=true`) it fails.
    """
    for name in ("node", "npm"):
        if shutil.which(name) is None:
            _not_here(f"{name} is not installed; install it with: apt-get install nodejs npm")
    files = sorted(HERE.glob("package*.json"))
    key = hashlib.sha256(b"".join(path.read_bytes() for path in files)).hexdigest()[:12]
    place = CACHE / f"javascript-{key}"
    if not place.exists():
        _install(files, place)
    beside = place / f"{os.getpid()}.mjs"  # two runs may do this at the same time
    shutil.copy(HERE / "sender.mjs", beside)
    beside.replace(place / "sender.mjs")
    return place


def _install(files: Iterable[Path], place: Path) -> None:
    """What the lock file names, in a directory that is there only once it is whole."""
    place.parent.mkdir(parents=True, exist_ok=True)
    made = Path(tempfile.mkdtemp(dir=place.parent))
    try:
        for path in files:
            shutil.copy(path, made)
        command = ["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund"]
        done = subprocess.run(command, cwd=made, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            _not_here(f"{' '.join(command)} in tests/interop/javascript failed: {done.stderr}")
        with contextlib.suppress(OSError):  # another run was first
            made.rename(place)
    finally:
        shutil.rmtree(made, ignore_errors=True)


def _not_here(why: str) -> NoReturn:
    if os.environ.get("CI") == "true":
        pytest.fail(why)
    pytest.skip(why)


def windows_of_all(directory: Path) -> dict[str, Windows]:
    """What one drift service says of the same rows from otel-ml and from each of the JavaScript services."""
    node, rng = installed(), np.random.default_rng(5)
    trained, served = draw(rng, 4_000, 0.0), draw(rng, ROWS, 0.6)
    Baseline.fit(
        trained, model="credit", version="7", categorical=["region"], scores=scored(trained), projections=False
    ).save(directory / "baseline.json")  # fmt: skip
    (directory / "rows.json").write_text(json.dumps({"features": served, "scores": scored(served)}))
    with (
        Sink(directory / "sink") as sink,
        collector(directory, f'otlp: {{endpoint: "{sink.grpc_endpoint}", tls: {{insecure: true}}}}') as ports,
    ):
        _send_from_python(directory, ports)
        for service, (protocol, temporality) in SENDERS.items():
            _send_from_javascript(node, directory, ports, service, protocol, temporality)

        def arrived(requests: Iterable[Any]) -> bool:
            found = drift(requests)
            return found.keys() == {REFERENCE, *SENDERS} and all(map(complete, found.values()))

        sink.wait_for(arrived, timeout=30)
        return drift(sink.metrics())


def _send_from_python(directory: Path, ports: Mapping[str, int]) -> None:
    environment = {
        **os.environ,
        "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{ports['grpc']}",
        "OTEL_SERVICE_NAME": REFERENCE,
        "OTEL_TRACES_EXPORTER": "none",
        "OTEL_LOGS_EXPORTER": "none",
    }
    files = [str(path) for path in (HERE / "sender.py", directory / "rows.json", directory / "baseline.json")]
    subprocess.run([sys.executable, *files], env=environment, check=True, timeout=60)


def _send_from_javascript(
    node: Path, directory: Path, ports: Mapping[str, int], service: str, protocol: str, temporality: str
) -> None:
    endpoints = {"grpc": f"http://127.0.0.1:{ports['grpc']}"}
    settings = {
        "service": service,
        "protocol": protocol,
        "temporality": temporality,
        "endpoint": endpoints.get(protocol, f"http://127.0.0.1:{ports['http']}/v1/metrics"),
        "baseline": str(directory / "baseline.json"),
        "rows": str(directory / "rows.json"),
    }
    done = subprocess.run(
        ["node", node / "sender.mjs", json.dumps(settings)],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_the_same_windows_come_of_javascript_and_of_python(tmp_path: Path) -> None:
    """Every number that follows from the rows alone is the same to the last bit, over each protocol."""
    windows = {service: of_rows(found) for service, found in windows_of_all(tmp_path).items()}
    expected = windows.pop(REFERENCE)
    assert windows == dict.fromkeys(SENDERS, expected)

    assert {metric for metric, _ in expected} >= {
        "ml.drift.psi",
        "ml.drift.ks",
        "ml.drift.js",
        "ml.baseline.rows",
    }
    states = {
        (found[semconv.FEATURE_NAME], found[semconv.FEATURE_STATE])
        for (metric, attributes), value in expected.items()
        if metric == semconv.DRIFT_STATE_SHARE.name and value > 0 and (found := dict(attributes))
    }
    assert states >= {("income", "missing"), ("income", "out_of_range"), ("region", "unseen")}
    psi = sorted(
        (dict(attributes).get(semconv.FEATURE_NAME, "score"), value)
        for (metric, attributes), value in expected.items()
        if metric == semconv.DRIFT_PSI.name
    )
    print(
        f"\n{len(expected)} gauges equal over {ROWS} rows of {', '.join([REFERENCE, *SENDERS])};", dict(psi)
    )
