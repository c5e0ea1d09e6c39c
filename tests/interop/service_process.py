"""A model service with two readers at once: a Prometheus page, and OTLP to a collector.

Predicts the rows of a file, raises once, prints the port of its page, and stays until its input closes.
"""

from __future__ import annotations

import contextlib
import sys

import numpy as np
from opentelemetry import metrics
from opentelemetry.exporter.otlp.proto.grpc.metric_exporter import OTLPMetricExporter
from opentelemetry.exporter.prometheus import PrometheusMetricReader
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader
from opentelemetry.sdk.resources import Resource
from prometheus_client import start_http_server

import otel_ml


def main(rows: str, baseline: str, endpoint: str) -> None:
    """Serve until standard input closes."""
    push = PeriodicExportingMetricReader(OTLPMetricExporter(endpoint=endpoint, insecure=True), 500)
    resource = Resource.create({"service.name": "credit-api"})
    metrics.set_meter_provider(MeterProvider([PrometheusMetricReader(), push], resource=resource))

    @otel_ml.observe(model="churn", version="3", baseline=baseline)
    def predict(X: np.ndarray) -> np.ndarray:
        return 1 / (1 + np.exp(-X[:, 0] / 10))

    @otel_ml.observe(model="churn", version="3", baseline=baseline, operation="classify")
    def classify(X: np.ndarray) -> np.ndarray:
        return np.where(X[:, 0] > 0, "leaves", "stays")

    server, _ = start_http_server(0, addr="127.0.0.1")
    print(server.server_port, flush=True)
    X = np.load(rows)
    for start in range(0, len(X), 250):
        predict(X[start : start + 250])
    classify(X[:10])
    with contextlib.suppress(IndexError):
        predict(X[0][0:1])
    sys.stdin.read()


if __name__ == "__main__":
    main(*sys.argv[1:])
