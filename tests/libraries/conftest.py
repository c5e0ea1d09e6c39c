"""What tests of libraries share: a library that is there, recorded, and a look at what came out."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator

os.environ.setdefault(
    "OMP_NUM_THREADS", "1"
)  # small models: threads that wait for one another take all the time

import pytest
from instrumented import Spans
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from support import Points, by_name

import otel_ml


@pytest.fixture
def collect() -> Iterator[Callable[[], Points]]:
    """Every library instrumented for the time of the test; collects once and gives the points by metric name."""
    reader = InMemoryMetricReader()
    otel_ml.instrument(meter_provider=MeterProvider(metric_readers=[reader]))
    yield lambda: by_name(reader.get_metrics_data())
    otel_ml.uninstrument()


@pytest.fixture
def spans(collect: Callable[[], Points]) -> Spans:
    """The spans that were made since the last look."""
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    otel_ml.instrument(tracer_provider=provider)
    return Spans(exporter)
