"""SDK → OpenTelemetry Collector → otel-ml-collector → OpenTelemetry Collector → a file and a Prometheus page.

The same process sends the same counts straight to another otel-ml-collector: the drift must be the same.
"""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import numpy as np
import pytest
import yaml
from integration.collector import Collector
from integration.sink import Sink
from integration.test_end_to_end import FEATURES, draw
from interop.otelcol import OpenTelemetryCollector, free_ports, written_metrics
from interop.prometheus import eventually
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from prometheus_client.parser import text_string_to_metric_families

from otel_ml import Baseline, semconv

ROWS = 5_000
ROOT = Path(__file__).parents[2]

FRONT = """
receivers: {{otlp: {{protocols: {{grpc: {{endpoint: "127.0.0.1:{front}"}}}}}}}}
processors: {processors}
exporters: {{otlp_grpc: {{endpoint: "127.0.0.1:{drift}", tls: {{insecure: true}}}}}}
service: {{pipelines: {{metrics: {{receivers: [otlp], processors: {order}, exporters: [otlp_grpc]}}}}}}
"""
BACK = """
receivers: {{otlp: {{protocols: {{grpc: {{endpoint: "127.0.0.1:{back}"}}}}}}}}
exporters:
  file: {{path: "{file}", format: proto, flush_interval: 100ms}}
  prometheus: {{endpoint: "127.0.0.1:{page}"}}
service: {{pipelines: {{metrics: {{receivers: [otlp], exporters: [file, prometheus]}}}}}}
"""
DRIFT = """
receivers: {{otlp: {{protocols: {{grpc: {{endpoint: "127.0.0.1:0"}}}}}}}}
processors:
  ml_drift:
    window: {{type: sliding, length: 10m, step: 1m, lateness: 4s}}
    interval: 500ms
    statistics: [psi, ks, js, hellinger, wasserstein, total_variation]
exporters: {{otlp: {{endpoint: "{endpoint}", tls: {{insecure: true}}}}}}
service: {{pipelines: {{metrics: {{receivers: [otlp], processors: [ml_drift], exporters: [otlp]}}}}}}
"""

EXACT = {
    one.name
    for one in (
        semconv.DRIFT_PSI,
        semconv.DRIFT_KS,
        semconv.DRIFT_KS_UPPER,
        semconv.DRIFT_JS,
        semconv.DRIFT_HELLINGER,
        semconv.DRIFT_WASSERSTEIN,
        semconv.DRIFT_TOTAL_VARIATION,
        semconv.DRIFT_STATE_SHARE,
        semconv.DRIFT_STATE_EFFECT,
        semconv.DRIFT_WINDOW_ROWS,
        semconv.BASELINE_ROWS,
    )
}
"""Gauges of counts alone. The others depend on the minute that a row is counted in as well."""

Gauges = dict[tuple[str, frozenset[tuple[str, str]]], float]


@dataclass
class Paths:
    """Both otel-ml-collectors, the file and the page behind the one, and what a model sends to both."""

    straight: Collector
    drift: Collector
    front: int
    sink: Sink
    file: Path
    page: str
    directory: Path

    def predict(self, temporality: str) -> None:
        """Run the model's process."""
        program = str(Path(__file__).with_name("two_ways.py"))
        endpoints = [f"http://127.0.0.1:{port}" for port in (self.straight.ports["grpc"], self.front)]
        files = [str(self.directory / "rows.npy"), str(self.directory / "credit.baseline.json")]
        command = [sys.executable, program, *files, *endpoints, temporality]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        assert (done.returncode, done.stderr) == (0, "")

    def scraped(self) -> dict[str, float]:
        """By feature: the PSI on the Prometheus exporter's page."""
        with urlopen(self.page, timeout=10) as answer:
            page = answer.read().decode()
        return {
            sample.labels["ml_feature_name"]: sample.value
            for family in text_string_to_metric_families(page)
            for sample in family.samples
            if sample.name == "ml_drift_psi" and sample.labels.get("ml_drift_target") == "feature"
        }


@contextmanager
def paths(executable: Path, directory: Path, processors: dict[str, Any]) -> Iterator[Paths]:
    """Everything in a process of its own, with these processors in front of otel-ml-collector."""
    rng = np.random.default_rng(42)
    trained, served = draw(rng, 5_000, 0.0), draw(rng, ROWS, 0.6)
    scores = 1 / (1 + np.exp(-trained[:, 0] / 10))
    baseline = Baseline.fit(
        trained, model="credit", version="7", features=FEATURES, categorical=["region"], scores=scores
    )
    baseline.save(directory / "credit.baseline.json")
    np.save(directory / "rows.npy", served)
    front, back, page = free_ports(3)
    for name in ("straight", "drift"):
        (directory / name).mkdir()
    with ExitStack() as stack:
        sink = stack.enter_context(Sink(directory / "sink"))
        written = BACK.format(back=back, file=directory / "drift.pb", page=page)
        stack.enter_context(OpenTelemetryCollector(executable, directory / "back", written))
        straight, drift = (
            stack.enter_context(Collector(directory / name, DRIFT.format(endpoint=endpoint)))
            for name, endpoint in (("straight", sink.grpc_endpoint), ("drift", f"127.0.0.1:{back}"))
        )
        config = FRONT.format(
            front=front, drift=drift.ports["grpc"], processors=yaml.safe_dump(processors, default_flow_style=True),
            order=list(processors),
        )  # fmt: skip
        stack.enter_context(OpenTelemetryCollector(executable, directory / "front", config))
        url = f"http://127.0.0.1:{page}/metrics"
        yield Paths(straight, drift, front, sink, directory / "drift.pb", url, directory)


def gauges(requests: list[ExportMetricsServiceRequest]) -> Gauges:
    """Latest value by metric and attributes, those of counts alone."""
    return {
        (metric.name, frozenset((a.key, a.value.string_value) for a in point.attributes)): point.as_double
        for request in requests
        for resource in request.resource_metrics
        for scope in resource.scope_metrics
        for metric in scope.metrics
        if metric.name in EXACT
        for point in metric.gauge.data_points
    }


def rows(found: Gauges) -> float:
    """Rows in the score's window, which every row is in."""
    (value, *more) = [
        value
        for (metric, attributes), value in found.items()
        if metric == semconv.DRIFT_WINDOW_ROWS.name and (semconv.DRIFT_TARGET, "score") in attributes
    ] or [0.0]
    assert more == []
    return value


def snippet() -> dict[str, Any]:
    """The exclusion that collector/README.md shows."""
    text = (ROOT / "collector" / "README.md").read_text()
    (shown,) = re.findall(r"```yaml\n((?:(?!```).)*?cumulativetodelta.*?)```", text, re.DOTALL)
    processors: dict[str, Any] = yaml.safe_load(shown)["processors"]
    return processors


PROCESSORS: dict[str, tuple[str, dict[str, Any]]] = {
    "cumulative": ("cumulative", {}),
    "delta": ("delta", {}),
    "cumulative to delta": ("cumulative", snippet()),
    "delta to cumulative": ("delta", {"delta_to_cumulative": {}}),
}


@pytest.mark.parametrize("path", PROCESSORS)
def test_drift_equals_that_of_the_direct_path(path: str, otelcol: Path, tmp_path: Path) -> None:
    """Every gauge of counts has the same number to the last bit, in the file and on the Prometheus page."""
    temporality, processors = PROCESSORS[path]
    with paths(otelcol, tmp_path, processors) as system:
        system.predict(temporality)
        eventually(lambda: rows(gauges(system.sink.metrics())) == ROWS, what="every row on the direct path")
        eventually(lambda: rows(gauges(written_metrics(system.file))) == ROWS, what="every row in the file")
        straight, through = gauges(system.sink.metrics()), gauges(written_metrics(system.file))
        psi = {
            dict(attributes)[semconv.FEATURE_NAME]: value
            for (metric, attributes), value in straight.items()
            if metric == semconv.DRIFT_PSI.name and (semconv.DRIFT_TARGET, "feature") in attributes
        }
        eventually(lambda: system.scraped() == psi, what="the same PSI on the Prometheus page")
    assert sorted(psi) == sorted(FEATURES)
    assert {metric for metric, _ in straight} == EXACT
    assert through == straight
    print(f"\n{path}: {len(straight)} gauges equal over {ROWS} rows;", *(f"{n} {psi[n]:.6f}" for n in psi))


def test_baseline_made_a_delta_is_said_once(otelcol: Path, tmp_path: Path) -> None:
    """Without the exclusion, otel-ml-collector says in one line what is wrong and what to write, and counts rows."""
    with paths(otelcol, tmp_path, {"cumulativetodelta": {}}) as system:
        system.predict("cumulative")
        eventually(lambda: rows(gauges(written_metrics(system.file))) == ROWS, what="every row in the file")
        found = gauges(written_metrics(system.file))
        assert system.drift.stop() == 0
    said = [line for line in system.drift.stderr.splitlines() if "\twarn\t" in line]
    assert len(said) == 1, system.drift.stderr
    assert "the baseline of model 'credit' arrives as delta and cannot be used" in said[0]
    assert "cumulativetodelta: {exclude: {match_type: regexp, metrics: ['ml\\.baseline\\..*']}}" in said[0]
    assert not [metric for metric, _ in found if metric == semconv.DRIFT_PSI.name]
    print(f"\n{said[0]}")
