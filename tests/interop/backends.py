"""Backends that take OTLP themselves, each in a process of its own, and the service whose telemetry they are sent."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.parse import urlencode
from urllib.request import urlopen

import numpy as np
import yaml
from interop.dashboards import RULES
from interop.examples import EXAMPLES, ported, ports_for
from interop.otelcol import free_ports
from interop.programs import JAEGER, PROMETHEUS, VICTORIA_LOGS, VICTORIA_METRICS, Program, built, running
from interop.prometheus import Prometheus

from otel_ml import Baseline
from otel_ml.summary import NumericSummary

ROWS, CLASSIFIED = 3_000, 10
FEATURES = ("balance", "ratio")
SERVICE = "credit-api"
QUICK = ("--set", "processors.ml_drift.interval=500ms", "--set", "processors.ml_drift.window.lateness=1s")
"""For otel-ml-collector: what else takes minutes."""


def prometheus(own_metrics: str, *features: str) -> Prometheus:
    """A current Prometheus, started as collector/examples/prometheus-otlp says, with the rules of dashboards/.

    `own_metrics` is the host:port at which otel-ml-collector serves its own metrics; `features` are further ones that
    Prometheus is to have.
    """
    text = (EXAMPLES / "prometheus-otlp" / "prometheus.yaml").read_text()
    config = {key: value for key, value in yaml.safe_load(text).items() if key != "scrape_configs"}
    flags = ["--web.enable-otlp-receiver", f"--enable-feature={','.join(['exemplar-storage', *features])}"]
    return Prometheus(
        [own_metrics], job="otel-ml-collector", rules=[RULES], executable=built(PROMETHEUS), flags=flags, config=config
    )  # fmt: skip


class Jaeger:
    """A Jaeger that keeps spans in memory: `otlp` is where it takes them over gRPC, `url` where its API answers."""

    def __init__(self, otlp: int, query: int) -> None:
        self.otlp, self.url = f"127.0.0.1:{otlp}", f"http://127.0.0.1:{query}"

    def trace(self, trace_id: str) -> list[dict[str, Any]]:
        """The spans of a trace; none when it is not there yet. Attributes are `tags`."""
        try:
            spans: list[dict[str, Any]] = self._get(f"traces/{trace_id}")["data"][0]["spans"]
        except HTTPError as error:
            if error.code != 404:
                raise
            return []
        return spans

    def search(self, service: str, operation: str, **tags: str) -> list[str]:
        """Ids of the traces in which a span of the service has this name and these tags."""
        asked = {"service": service, "operation": operation, "tags": json.dumps(tags), "lookback": "1h"}
        return [found["traceID"] for found in self._get(f"traces?{urlencode(asked)}")["data"]]

    def _get(self, path: str) -> Any:
        with urlopen(f"{self.url}/api/{path}", timeout=10) as answer:
            return json.load(answer)


@contextmanager
def jaeger(directory: Path) -> Iterator[Jaeger]:
    """Jaeger 2 with OTLP over gRPC."""
    otlp, query, grpc, page = free_ports(4)
    config = f"""
    extensions:
      jaeger_storage: {{backends: {{spans: {{memory: {{max_traces: 10000}}}}}}}}
      jaeger_query:
        storage: {{traces: spans}}
        http: {{endpoint: "127.0.0.1:{query}"}}
        grpc: {{endpoint: "127.0.0.1:{grpc}"}}
    receivers: {{otlp: {{protocols: {{grpc: {{endpoint: "127.0.0.1:{otlp}"}}}}}}}}
    exporters: {{jaeger_storage_exporter: {{trace_storage: spans}}}}
    service:
      extensions: [jaeger_storage, jaeger_query]
      pipelines: {{traces: {{receivers: [otlp], exporters: [jaeger_storage_exporter]}}}}
      telemetry: {{metrics: {{readers: [{{pull: {{exporter: {{prometheus: {{host: 127.0.0.1, port: {page}}}}}}}}}]}}}}
    """
    file = directory / "jaeger.yaml"
    file.write_text(config)
    found = Jaeger(otlp, query)
    command = [str(built(JAEGER)), "--config", str(file)]
    with running(command, ready=f"{found.url}/api/services", log=directory / "jaeger.log"):
        yield found


@contextmanager
def victoria_logs(directory: Path) -> Iterator[str]:
    """VictoriaLogs; yields its URL."""
    with _victoria(VICTORIA_LOGS, directory) as url:
        yield url


@contextmanager
def victoria_metrics(directory: Path) -> Iterator[str]:
    """VictoriaMetrics, started as collector/examples/victoriametrics says; yields its URL."""
    with _victoria(VICTORIA_METRICS, directory, "-opentelemetry.usePrometheusNaming") as url:
        yield url


@contextmanager
def _victoria(program: Program, directory: Path, *flags: str) -> Iterator[str]:
    (port,) = free_ports(1)
    own = [f"-httpListenAddr=127.0.0.1:{port}", f"-storageDataPath={directory / program.name}"]
    log = directory / f"{program.name}.log"
    with running([str(built(program)), *own, *flags], ready=f"http://127.0.0.1:{port}/health", log=log):
        yield f"http://127.0.0.1:{port}"


def example(name: str, ports: Mapping[int, int]) -> str:
    """The configuration of otel-ml-collector in an example, on these ports and on free ones."""
    text = (EXAMPLES / name / "otel-ml-collector.yaml").read_text()
    return ported({**ports_for(text), **ports}, text)


def numeric(baseline: Baseline, name: str) -> tuple[list[float], list[int]]:
    """Bounds and counts of a numeric feature."""
    feature = baseline.features[name]
    assert isinstance(feature, NumericSummary)
    return feature.bounds.tolist(), [int(count) for count in feature.bucket_counts]


def port_of(url: str) -> int:
    """The port in a URL or in host:port."""
    return int(url.rpartition(":")[2])


def train(directory: Path) -> tuple[Baseline, np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """A model's baseline, the rows it was trained on and those it is going to see; both are in files as well."""
    rng = np.random.default_rng(3)
    trained = np.column_stack([rng.normal(-40, 20, 4_000), rng.normal(0, 1e-3, 4_000)])
    served = np.column_stack([rng.normal(-30, 20, ROWS), rng.normal(0, 1e-3, ROWS)])
    served[:40, 1] = np.nan
    scores, labels = 1 / (1 + np.exp(-trained[:, 0] / 10)), np.where(trained[:, 0] > 0, "leaves", "stays")
    baseline = Baseline.fit(
        trained, model="churn", version="3", features=FEATURES, scores=scores, predictions=labels
    )
    baseline.save(directory / "churn.baseline.json")
    np.save(directory / "rows.npy", served)
    return baseline, trained, served


@contextmanager
def service(directory: Path, environment: Mapping[str, str], *arguments: str) -> Iterator[dict[str, Any]]:
    """The model service three_signals.py; yields what it says of its last prediction."""
    clean = {key: value for key, value in os.environ.items() if not key.startswith("OTEL_")}
    own = {"OTEL_SERVICE_NAME": SERVICE, "OTEL_METRIC_EXPORT_INTERVAL": "500", **environment}
    program = str(Path(__file__).with_name("three_signals.py"))
    files = [str(directory / "rows.npy"), str(directory / "churn.baseline.json")]
    process = subprocess.Popen(
        [sys.executable, program, *files, *arguments], env={**clean, **own},
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        assert process.stdout is not None
        yield json.loads(process.stdout.readline())
    finally:
        process.communicate("", timeout=30)
