"""What SDK tests share: real SDK providers in memory, and a way to read what came out."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from instrumented import Spans
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk._logs.export import InMemoryLogRecordExporter, SimpleLogRecordProcessor
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from support import Points, by_name
from traces import Seen

import otel_ml
from otel_ml import Baseline, pipeline


@pytest.fixture
def reader() -> InMemoryMetricReader:
    """A reader on a real MeterProvider that otel-ml exports through."""
    made = InMemoryMetricReader()
    pipeline.use(meter_provider=MeterProvider(metric_readers=[made]))
    return made


@pytest.fixture
def collect(reader: InMemoryMetricReader) -> Callable[[], Points]:
    """Collect once and return the points by metric name."""
    return lambda: by_name(reader.get_metrics_data())


@pytest.fixture
def spans() -> InMemorySpanExporter:
    """The spans that were ended, on a real TracerProvider."""
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    pipeline.use(tracer_provider=provider)
    return exporter


@pytest.fixture
def logs() -> InMemoryLogRecordExporter:
    """The events that were emitted, on a real LoggerProvider."""
    exporter = InMemoryLogRecordExporter()
    provider = LoggerProvider(shutdown_on_exit=False)
    provider.add_log_record_processor(SimpleLogRecordProcessor(exporter))
    pipeline.use(logger_provider=provider)
    return exporter


@pytest.fixture
def seen(spans: InMemorySpanExporter, logs: InMemoryLogRecordExporter) -> Seen:
    """Spans and events together."""
    return Seen(spans, logs)


@pytest.fixture
def instrumented(spans: InMemorySpanExporter) -> Iterator[Spans]:
    """scikit-learn instrumented for the time of the test."""
    otel_ml.instrument()
    yield Spans(spans)
    otel_ml.uninstrument()


@pytest.fixture(scope="session")
def training() -> np.ndarray[Any, Any]:
    """2,000 rows of three features: around 0, around -50, and small integers."""
    rng = np.random.default_rng(11)
    return np.column_stack([rng.normal(size=2000), rng.normal(-50, 5, 2000), rng.integers(0, 4, 2000)])


@pytest.fixture(scope="session")
def baseline(training: np.ndarray[Any, Any]) -> Baseline:
    """A baseline of `training`, its third column categorical, scores in [0, 1]."""
    scores = 1 / (1 + np.exp(-training[:, 0]))
    return Baseline.fit(
        training, model="churn", version="3", features=["a", "b", "c"], categorical=["c"], scores=scores
    )


@pytest.fixture
def collect_factory() -> Callable[[], Callable[[], Points]]:
    """As `collect`, made in the test, after it has set the environment."""

    def make() -> Callable[[], Points]:
        pipeline.reset()
        reader = InMemoryMetricReader()
        pipeline.use(meter_provider=MeterProvider(metric_readers=[reader]))
        return lambda: by_name(reader.get_metrics_data())

    return make
