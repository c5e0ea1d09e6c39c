"""What people at a terminal read of an event."""

from __future__ import annotations

import io
import re

from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader, MetricExportResult

import otel_ml
from otel_ml import sampling
from otel_ml.console import ConsoleMetrics, describe_event


def test_event_line_has_what_was_captured(logs):
    """Variant, score, segment, captured features, why it was kept and the id, in one line."""

    @otel_ml.observe(
        model="churn", version="3", variant="b", sampler=sampling.Random(1.0), capture_features=["age", "region"],
        segment=otel_ml.Segment("region", values=("eu",)),
    )  # fmt: skip
    def predict(X):
        return [0.25] * len(X)

    predict([{"age": 42, "region": "eu"}])
    [record] = logs.get_finished_logs()
    line = describe_event(record)
    assert re.sub(r"(?<=id )[0-9a-f-]+", "…", line) == (
        "ml.prediction churn  version 3  b live  value 0.25  segment region=eu  age=42  region=eu  "
        "kept at 100 % (random)  id …"
    )


def test_closed_stream_is_no_failure():
    """A test run closes what it captured into before the last export; nobody is told of that."""
    out, reader = io.StringIO(), InMemoryMetricReader()
    MeterProvider([reader]).get_meter("test").create_counter("ml.inference.rows").add(1)
    data, console = reader.get_metrics_data(), ConsoleMetrics(out)
    assert console.export(data) is MetricExportResult.SUCCESS
    assert "1 series" in out.getvalue()
    out.close()
    assert console.export(data) is MetricExportResult.SUCCESS
