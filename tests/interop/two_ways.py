"""A model in a process of its own that sends the same counts two ways: straight, and through whatever is at `via`.

Straight they go with cumulative temporality, the other way as `temporality` says.
"""

from __future__ import annotations

import sys

import numpy as np
from opentelemetry import metrics
from opentelemetry.exporter.otlp.proto.grpc.metric_exporter import OTLPMetricExporter
from opentelemetry.sdk.metrics import Counter, Histogram, MeterProvider
from opentelemetry.sdk.metrics.export import AggregationTemporality, PeriodicExportingMetricReader
from opentelemetry.sdk.resources import Resource

import otel_ml

SERVICE = "credit-api"


def reader(endpoint: str, temporality: AggregationTemporality) -> PeriodicExportingMetricReader:
    """A reader that exports five times a second."""
    preferred: dict[type, AggregationTemporality] = {Counter: temporality, Histogram: temporality}
    exporter = OTLPMetricExporter(endpoint=endpoint, insecure=True, preferred_temporality=preferred)
    return PeriodicExportingMetricReader(exporter, 200)


def main(rows: str, baseline: str, straight: str, via: str, temporality: str) -> None:
    """Predict the rows of the array file `rows`, in calls of 250 rows, an export after every fourth."""
    readers = [
        reader(straight, AggregationTemporality.CUMULATIVE),
        reader(via, AggregationTemporality[temporality.upper()]),
    ]
    provider = MeterProvider(readers, resource=Resource.create({"service.name": SERVICE}))
    metrics.set_meter_provider(provider)

    @otel_ml.observe(model="credit", version="7", baseline=baseline)
    def predict(X: np.ndarray) -> np.ndarray:
        return 1 / (1 + np.exp(-X[:, 0] / 10))

    X = np.load(rows)
    for start in range(0, len(X), 250):
        predict(X[start : start + 250])
        if start % 1_000 == 0:
            provider.force_flush()
    provider.shutdown()


if __name__ == "__main__":
    main(*sys.argv[1:])
