"""A model service with spans, metrics and events, which go where the OTEL_* environment says.

Predicts the rows of a file, raises once, calls a model without a baseline, asks for one prediction inside a span of its
own and prints its trace and its id, and stays until its input closes. A third argument is a second place that metrics
go to: an endpoint of OTLP over gRPC.
"""

from __future__ import annotations

import contextlib
import json
import sys

import numpy as np
from opentelemetry import metrics, trace
from opentelemetry.exporter.otlp.proto.grpc.metric_exporter import OTLPMetricExporter as OverGRPC
from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter as OverHTTP
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader

import otel_ml
from otel_ml import sampling


def send_metrics_also_to(endpoint: str) -> None:
    """A provider with two readers, in place of the one that `configure` would make."""
    exporters = OverHTTP(), OverGRPC(endpoint=endpoint, insecure=True)
    metrics.set_meter_provider(MeterProvider([PeriodicExportingMetricReader(one) for one in exporters]))


def main(rows: str, baseline: str, second: str | None = None) -> None:
    """Serve until standard input closes."""
    if second is not None:
        send_metrics_also_to(second)
    otel_ml.configure()
    told: dict[str, object] = {}

    @otel_ml.observe(model="churn", version="3", baseline=baseline, sampler=sampling.Random(0.01))
    def predict(X: np.ndarray) -> np.ndarray:
        return 1 / (1 + np.exp(-X[:, 0] / 10))

    @otel_ml.observe(model="churn", version="3", baseline=baseline, operation="classify")
    def classify(X: np.ndarray) -> np.ndarray:
        return np.where(X[:, 0] > 0, "leaves", "stays")

    @otel_ml.observe(model="bare", version="1", features=["balance", "ratio"])
    def bare(X: np.ndarray) -> np.ndarray:
        return X[:, 0]

    @otel_ml.observe(
        model="churn", version="3", baseline=baseline, operation="decide", sampler=sampling.Random(1.0)
    )
    def decide(X: np.ndarray) -> np.ndarray:
        told["id"] = otel_ml.current_prediction_id()
        return 1 / (1 + np.exp(-X[:, 0] / 10))

    X = np.load(rows)
    for start in range(0, len(X), 250):
        predict(X[start : start + 250])
    classify(X[:10])
    bare(X[:100])
    with contextlib.suppress(IndexError):
        predict(X[0][0:1])
    with trace.get_tracer("service").start_as_current_span("POST /decision") as span:
        told["trace"] = f"{span.get_span_context().trace_id:032x}"
        decide(X[:1])
    told["sent"] = otel_ml.force_flush()
    print(json.dumps(told), flush=True)
    sys.stdin.read()


if __name__ == "__main__":
    main(*sys.argv[1:])
