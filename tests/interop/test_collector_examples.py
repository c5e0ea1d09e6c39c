"""The configurations in collector/examples: both collectors take them, and what they say they do, they do."""

from __future__ import annotations

import math
import subprocess
import sys
import urllib.request
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import yaml
from integration.collector import REFERENCE, Collector, traffic
from integration.exchange import logs, traces
from integration.sink import Sink
from interop.examples import EXAMPLES, pair, ported, ports_for
from interop.otelcol import OpenTelemetryCollector, export, validated
from interop.prometheus import Prometheus, eventually, program

from otel_ml import semconv

ENVIRONMENT = {
    "BACKEND": "backend.example.com:4317",
    "DD_API_KEY": "key",
    "GRAFANA_CLOUD_OTLP": "https://otlp-gateway.example.com/otlp",
    "GRAFANA_CLOUD_AUTH": "bmFtZTp0b2tlbg==",
}
BESIDE = ["fan-out", "datadog", "grafana-cloud", "kubernetes-sidecar"]
PAIRS = [*BESIDE, "in-line"]
ALONE = ["prometheus", "prometheus-otlp", "victoriametrics"]
"""Without an OpenTelemetry Collector; the last two run in test_meeting.py and test_victoriametrics.py."""
QUICK = ("--set", "processors.ml_drift.interval=200ms", "--set", "processors.ml_drift.window.lateness=5s")
DRIFTED = (3400, 1600, 1600, 3400)
PSI = sum((q - p) / 10_000 * math.log(q / p) for p, q in zip(REFERENCE, DRIFTED, strict=True))


def test_every_example_is_tested() -> None:
    """No directory of examples is left out here."""
    known = {*PAIRS, "two-tier", *ALONE}
    assert {path.name for path in EXAMPLES.iterdir() if path.is_dir()} == known


@pytest.mark.parametrize("name", [*PAIRS, "two-tier", *ALONE])
def test_otel_ml_collector_takes_its_half(name: str, tmp_path: Path) -> None:
    """`otel-ml-collector validate` has nothing against it."""
    text = (EXAMPLES / name / "otel-ml-collector.yaml").read_text() if name in ALONE else pair(name)[1]
    path = tmp_path / "otel-ml-collector.yaml"
    path.write_text(text)
    command = [sys.executable, "-m", "otel_ml_collector", "validate", "--config", str(path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, env=ENVIRONMENT)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("name", PAIRS)
def test_the_collector_takes_its_half(name: str, otelcol: Path, tmp_path: Path) -> None:
    """`otelcol validate` has nothing against it."""
    assert validated(otelcol, written(tmp_path, pair(name)[0]), environment=ENVIRONMENT) == ""


def test_the_collector_takes_two_tiers(otelcol_full: Path, tmp_path: Path) -> None:
    """`otelcol validate` has nothing against it, where the load-balancing exporter is there."""
    path = written(tmp_path, pair("two-tier")[0])
    assert validated(otelcol_full, path, environment=ENVIRONMENT) == ""


def test_the_collector_refuses_what_is_wrong(otelcol: Path, tmp_path: Path) -> None:
    """`otelcol validate` can say no."""
    wrong = pair("fan-out")[0].replace("send_batch_max_size", "send_batch_max")
    assert "send_batch_max" in validated(otelcol, written(tmp_path, wrong), environment=ENVIRONMENT)


def written(directory: Path, text: str) -> Path:
    path = directory / "otelcol.yaml"
    path.write_text(text)
    return path


# --- running ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", BESIDE)
def test_beside_a_collector(name: str, otelcol: Path, tmp_path: Path) -> None:
    """Spans, logs and metrics reach the backend once, drift reaches it as well, and baselines do not."""
    front, ours = pair(name)
    ports = ports_for(front, ours)
    with Sink(tmp_path / "sink") as sink:
        environment = {
            **ENVIRONMENT,
            "BACKEND": sink.grpc_endpoint,
            "DD_OTLP": sink.http_endpoint,
            "GRAFANA_CLOUD_OTLP": sink.http_endpoint,
        }
        config = yaml.safe_load(ported(ports, front))
        for exporter in config["exporters"].values():
            exporter["tls"] = {"insecure": True}  # the backend of the tests has no certificate
        with (
            Collector(tmp_path, ported(ports, ours), *QUICK),
            OpenTelemetryCollector(otelcol, tmp_path / "otelcol", config, environment=environment),
        ):
            for request in (traffic(DRIFTED), traces(3), logs(2)):
                export(ports[4317], request)
            psi = eventually(lambda: drift(sink), what="drift at the backend")
        assert psi == pytest.approx(PSI, abs=1e-9)
        assert spans_and_records(sink) == (3, 2)
        names = counts(sink)
    assert not [
        one for one in names if one in (semconv.BASELINE_VALUE.name, semconv.BASELINE_CATEGORIES.name)
    ]
    features = 1 if name in ("fan-out", "kubernetes-sidecar") else 0
    assert names[semconv.FEATURE_VALUE.name] == features


def test_in_line(otelcol: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Everything reaches the backend once, through otel-ml-collector, and drift with it."""
    front, ours = pair("in-line")
    ports = ports_for(front, ours)
    with Sink(tmp_path / "sink") as sink:
        with (
            Collector(tmp_path, ported(ports, ours).replace("${env:BACKEND}", sink.grpc_endpoint), *QUICK),
            OpenTelemetryCollector(otelcol, tmp_path / "otelcol", ported(ports, front)),
        ):
            for request in (traffic(DRIFTED), traces(3), logs(2)):
                export(ports[4317], request)
            psi = eventually(lambda: drift(sink), what="drift at the backend")
        assert psi == pytest.approx(PSI, abs=1e-9)
        assert spans_and_records(sink) == (3, 2)
        assert counts(sink)[semconv.FEATURE_VALUE.name] == 1


def test_prometheus(tmp_path: Path) -> None:
    """Prometheus takes its file, and finds drift on the page of otel-ml-collector."""
    directory = EXAMPLES / "prometheus"
    check = [program("promtool"), "check", "config", str(directory / "prometheus.yaml")]
    done = subprocess.run(check, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    (job,) = yaml.safe_load((directory / "prometheus.yaml").read_text())["scrape_configs"]
    assert job["static_configs"] == [{"targets": ["localhost:9464"]}]
    ours = (directory / "otel-ml-collector.yaml").read_text()
    ports = ports_for(ours)
    target = f"127.0.0.1:{ports[9464]}"
    with Collector(tmp_path, ported(ports, ours), *QUICK), Prometheus([target]) as prometheus:
        export(ports[4317], traffic(DRIFTED))
        query = 'ml_drift_psi{ml_feature_name="age"}'
        (sample,) = eventually(lambda: prometheus.query(query), what=query)
    assert float(sample["value"][1]) == pytest.approx(PSI, abs=1e-9)


@pytest.mark.parametrize("name", BESIDE)
def test_health_checks_answer(name: str, tmp_path: Path) -> None:
    """The port of the health check that the example names answers 200."""
    ours = pair(name)[1]
    ports = ports_for(ours)
    with Collector(tmp_path, ported(ports, ours)):
        number = 13134 if name == "kubernetes-sidecar" else 13133
        with urllib.request.urlopen(f"http://127.0.0.1:{ports[number]}/", timeout=10) as answer:
            assert answer.status == 200


def points(sink: Sink) -> list[tuple[str, Any]]:
    """(name, metric) of everything the backend has."""
    return [
        (metric.name, metric)
        for request in sink.metrics()
        for resource in request.resource_metrics
        for scope in resource.scope_metrics
        for metric in scope.metrics
    ]


def drift(sink: Sink) -> float | None:
    """The PSI of the feature at the backend."""
    found = [metric for name, metric in points(sink) if name == semconv.DRIFT_PSI.name]
    return float(found[-1].gauge.data_points[0].as_double) if found else None


def counts(sink: Sink) -> Counter[str]:
    """How often each metric has come."""
    return Counter(name for name, _ in points(sink))


def spans_and_records(sink: Sink) -> tuple[int, int]:
    """How many spans have come, and how many events of a model."""
    spans = [s.spans for request in sink.traces() for r in request.resource_spans for s in r.scope_spans]
    records = [
        record
        for request in sink.logs()
        for resource in request.resource_logs
        for scope in resource.scope_logs
        for record in scope.log_records
        if record.event_name == semconv.PREDICTION_EVENT
    ]
    return sum(map(len, spans)), len(records)
