"""Model process → collector process → a sink that only speaks OTLP: the drift that arrives is that of the rows.

The oracle shares no code with otel-ml: PSI by its formula on cells formed by a loop over the baseline file's
counts, and the exact two-sample KS distance of the raw rows by scipy.
"""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from integration.sink import Sink
from scipy.stats import ks_2samp

from otel_ml import Baseline

FEATURES = ["balance", "age", "income", "region"]
SENDERS = 2
ROWS = 6_000

CONFIG = """
receivers:
  otlp:
    protocols:
      grpc: {{endpoint: "127.0.0.1:0"}}
      http: {{endpoint: "127.0.0.1:0"}}
processors:
  ml_drift:
    window: {{type: sliding, length: 10m, step: 1m, lateness: 1s}}
    interval: 500ms
exporters:
  {exporter}
service:
  pipelines: {{metrics: {{receivers: [otlp], processors: [ml_drift], exporters: [{name}]}}}}
"""


def draw(rng: np.random.Generator, rows: int, shift: float) -> np.ndarray:
    """Rows with a negative feature, a tied one, a heavy-tailed one with gaps, and categories."""
    X = np.column_stack(
        [
            rng.normal(-3 + shift, 8, rows),
            rng.integers(18, 70, rows) + round(5 * shift),
            np.round(rng.lognormal(3 + 0.2 * shift, 1, rows), 2),
            rng.choice([1.0, 2.0, 3.0, 4.0], rows, p=[0.4 - shift / 10, 0.3, 0.2, 0.1 + shift / 10]),
        ]
    )
    X[rng.random(rows) < 0.02 + 0.05 * shift, 2] = np.nan
    X[rng.random(rows) < 0.005, 0] = np.inf
    return X


# --- the oracle -------------------------------------------------------------------------------------------


def cells_of(reference: list[int]) -> list[list[int]]:
    """Indices of buckets pooled into cells of a tenth of the reference: the rule, one bucket at a time."""
    n = sum(reference)
    cells: list[list[int]] = []
    run: list[list[int]] = []
    group: list[int] = []

    def close_run() -> None:
        nonlocal group
        if group:
            weight = sum(reference[i] for i in group)
            if 20 * weight < n and run:
                run[-1].extend(group)
            else:
                run.append(group)
        cells.extend(run)
        run.clear()
        group = []

    for i, count in enumerate(reference):
        if 10 * count >= n:
            close_run()
            cells.append([i])
            continue
        group.append(i)
        if 10 * sum(reference[j] for j in group) >= n - 9:
            run.append(group)
            group = []
    close_run()
    return cells


def psi_of(reference: list[int], current: list[int]) -> float:
    """Σ (q - p) ln(q / p), with shared mixing when a cell is empty."""
    pairs = [(a, c) for a, c in zip(reference, current, strict=True) if a or c]
    n, m, B = sum(a for a, _ in pairs), sum(c for _, c in pairs), len(pairs)
    kappa = 0.0 if all(a and c for a, c in pairs) else 0.5 / min(n, m)
    total = 0.0
    for a, c in pairs:
        p, q = (a / n + kappa) / (1 + kappa * B), (c / m + kappa) / (1 + kappa * B)
        total += (q - p) * math.log(q / p)
    return total


def bucket_counts(values: list[float], bounds: list[float]) -> list[int]:
    """Counts in (lo, hi] buckets, one value at a time."""
    counts = Counter(sum(value > bound for bound in bounds) for value in values)
    return [counts[i] for i in range(len(bounds) + 1)]


# --- the processes ----------------------------------------------------------------------------------------


@contextmanager
def collector(directory: Path, exporter: str) -> Iterator[dict[str, int]]:
    """otel-ml-collector in a process of its own; yields its ports."""
    config, ready = directory / "collector.yaml", directory / "ready.json"
    config.write_text(CONFIG.format(exporter=exporter, name=exporter.partition(":")[0]))
    process = subprocess.Popen(
        [sys.executable, "-m", "otel_ml_collector", "--config", str(config), "--ready-file", str(ready)],
        stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        for _ in range(300):
            if ready.exists() or process.poll() is not None:
                break
            try:
                process.wait(0.1)
            except subprocess.TimeoutExpired:
                continue
        assert ready.exists(), process.communicate()[1]
        yield json.loads(ready.read_text())
    finally:
        process.terminate()
        _, errors = process.communicate(timeout=20)
        assert process.returncode == 0, errors


def serve(
    directory: Path, parts: list[np.ndarray], ports: dict[str, int], protocol: str, temporality: str
) -> None:
    """One model process for each part, all at once; waits for them."""
    endpoint = {
        "grpc": f"http://127.0.0.1:{ports['grpc']}",
        "http/protobuf": f"http://127.0.0.1:{ports['http']}",
    }
    environment = {
        **os.environ,
        "OTEL_EXPORTER_OTLP_ENDPOINT": endpoint[protocol],
        "OTEL_EXPORTER_OTLP_PROTOCOL": protocol,
        "OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE": temporality,
        "OTEL_METRIC_EXPORT_INTERVAL": "200",
        "OTEL_SERVICE_NAME": "credit-api",
        "OTEL_TRACES_EXPORTER": "none",
    }
    processes = []
    for i, part in enumerate(parts):
        np.save(directory / f"rows{i}.npy", part)
        command = [sys.executable, str(Path(__file__).with_name("model_process.py"))]
        arguments = [str(directory / f"rows{i}.npy"), str(directory / "credit.baseline.json")]
        processes.append(
            subprocess.Popen([*command, *arguments], env=environment, stderr=subprocess.PIPE, text=True)
        )
    for process in processes:
        _, errors = process.communicate(timeout=60)
        assert process.returncode == 0, errors


def gauges(requests: list[Any]) -> dict[tuple[str, str, str], float]:
    """Latest value by metric, feature (or target) and state."""
    found = {}
    for request in requests:
        for resource in request.resource_metrics:
            for scope in resource.scope_metrics:
                assert scope.scope.name == "otel_ml.drift"
                for metric in scope.metrics:
                    for point in metric.gauge.data_points:
                        a = {attribute.key: attribute.value.string_value for attribute in point.attributes}
                        feature = a.get("ml.feature.name", a.get("ml.drift.target", ""))
                        found[metric.name, feature, a.get("ml.feature.state", "")] = point.as_double
    return found


@pytest.mark.parametrize("temporality", ["cumulative", "delta"])
@pytest.mark.parametrize("protocol", ["grpc", "http/protobuf"])
def test_drift_at_the_backend_is_the_drift_of_the_rows(
    tmp_path: Path, protocol: str, temporality: str
) -> None:
    """Two senders, either protocol, either temporality: PSI to 1e-9 on the same cells, KS inside its interval."""
    rng = np.random.default_rng(42)
    trained, served = draw(rng, 5_000, 0.0), draw(rng, ROWS, 0.6)
    scores = {name: 1 / (1 + np.exp(-X[:, 0] / 10)) for name, X in (("trained", trained), ("served", served))}
    baseline = Baseline.fit(
        trained,
        model="credit",
        version="7",
        features=FEATURES,
        categorical=["region"],
        scores=scores["trained"],
    )
    baseline.save(tmp_path / "credit.baseline.json")
    file = json.loads((tmp_path / "credit.baseline.json").read_text())

    with Sink(tmp_path / "sink") as sink:
        exporter = (
            f'otlp: {{endpoint: "{sink.grpc_endpoint}", tls: {{insecure: true}}}}' if protocol == "grpc"
            else f'otlphttp: {{endpoint: "{sink.http_endpoint}"}}'
        )  # fmt: skip
        with collector(tmp_path, exporter) as ports:
            serve(tmp_path, np.array_split(served, SENDERS), ports, protocol, temporality)
            complete = ("ml.drift.window.rows", "balance", "")
            sink.wait_for(lambda requests: gauges(requests).get(complete) == ROWS, timeout=30)
            arrived = gauges(sink.metrics())

    for j, name in enumerate(FEATURES[:3]):
        feature = file["features"][name]
        before = [v for v in trained[:, j].tolist() if math.isfinite(v)]
        after = [v for v in served[:, j].tolist() if math.isfinite(v)]
        reference = bucket_counts(before, feature["bounds"])
        assert reference == feature["bucket_counts"]
        current = bucket_counts(after, feature["bounds"])
        cells = cells_of(reference)
        expected = psi_of(
            *[[sum(counts[i] for i in cell) for cell in cells] for counts in (reference, current)]
        )
        assert arrived["ml.drift.psi", name, ""] == pytest.approx(expected, abs=1e-9)
        exact = ks_2samp(before, after).statistic
        assert (
            arrived["ml.drift.ks", name, ""] - 1e-12
            <= exact
            <= arrived["ml.drift.ks.upper", name, ""] + 1e-12
        )
        missing = sum(math.isnan(v) for v in served[:, j].tolist()) / ROWS
        assert arrived["ml.drift.state.share", name, "missing"] == pytest.approx(missing, abs=1e-12)
        infinite = sum(math.isinf(v) for v in served[:, j].tolist()) / ROWS
        assert arrived["ml.drift.state.share", name, "non_finite"] == pytest.approx(infinite, abs=1e-12)

    named = Counter(trained[:, 3].tolist()), Counter(served[:, 3].tolist())
    expected = psi_of(*[[counts[c] for c in (1.0, 2.0, 3.0, 4.0)] for counts in named])
    assert arrived["ml.drift.psi", "region", ""] == pytest.approx(expected, abs=1e-9)
    exact = ks_2samp(*[s[np.isfinite(s)] for s in scores.values()]).statistic
    assert (
        arrived["ml.drift.ks", "score", ""] - 1e-12
        <= exact
        <= arrived["ml.drift.ks.upper", "score", ""] + 1e-12
    )
    assert arrived["ml.drift.window.rows", "score", ""] == ROWS
