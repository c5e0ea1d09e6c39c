"""The engine behind a reader of the service's own provider."""

from __future__ import annotations

import logging

import numpy as np
import pytest
from opentelemetry.exporter.otlp.proto.common.metrics_encoder import encode_metrics
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader, MetricsData
from opentelemetry.sdk.metrics.view import (
    ExplicitBucketHistogramAggregation,
    ExponentialBucketHistogramAggregation,
    View,
)
from opentelemetry.sdk.resources import Resource
from pointbatches import AGE, POLICY, T0, S, engine, target

from otel_ml import semconv
from otel_ml.baseline import Baseline
from otel_ml_collector.decode import decode
from otel_ml_collector.inprocess import InProcess
from otel_ml_collector.window import WindowSpec

SPEC = WindowSpec(length=10, step=2, lateness=0, max_age=20, refresh=0.5, fast_length=1)
RNG = np.random.default_rng(0)
BASELINE = Baseline.fit({"age": RNG.lognormal(size=5000)}, model="churn", version="3")
IDENTITY = {semconv.MODEL_NAME: "churn", semconv.MODEL_VERSION: "3"}


class Clock:
    now = T0

    def __call__(self) -> int:
        return self.now


class App:
    """A service with a provider of its own, that records through OpenTelemetry's API."""

    def __init__(self, *, exponential: bool = False) -> None:
        bounds = BASELINE.features["age"].bounds.tolist()  # type: ignore[union-attr]
        aggregation = (
            ExponentialBucketHistogramAggregation()
            if exponential
            else ExplicitBucketHistogramAggregation(boundaries=bounds)
        )
        self.reader = InMemoryMetricReader()
        self.provider = MeterProvider(
            metric_readers=[self.reader],
            views=[View(instrument_name=semconv.FEATURE_VALUE.name, aggregation=aggregation)],
            resource=Resource({semconv.SERVICE_NAME: "api"}),
        )
        meter = self.provider.get_meter(semconv.SDK_SCOPE)
        self.values = meter.create_histogram(semconv.FEATURE_VALUE.name)
        self.rows = meter.create_counter(semconv.INFERENCE_ROWS.name)

    def predict(self, n: int, scale: float = 1.0) -> None:
        for value in (scale * RNG.lognormal(size=n)).tolist():
            self.values.record(value, {**IDENTITY, semconv.FEATURE_NAME: "age"})
        self.rows.add(n, IDENTITY)

    def collect(self, at: int) -> MetricsData:
        """What a collection gives, stamped with this time."""
        data = self.reader.get_metrics_data()
        assert data is not None
        for of_resource in data.resource_metrics:
            for of_scope in of_resource.scope_metrics:
                for metric in of_scope.metrics:
                    for point in metric.data.data_points:
                        object.__setattr__(point, "time_unix_nano", at)
                        object.__setattr__(point, "start_time_unix_nano", T0)
        return data


@pytest.mark.parametrize("exponential", [False, True])
def test_a_collection_counts_as_it_does_over_the_wire(exponential: bool) -> None:
    """The same evaluations as of a collector that gets the bytes."""
    app, clock = App(exponential=exponential), Clock()
    drift = InProcess(baselines=[BASELINE], window=SPEC, policy=POLICY, clock=clock)
    collector = engine(SPEC, POLICY, baselines=[BASELINE])
    for k in range(1, 9):
        app.predict(60, scale=1 if k < 5 else 3)
        clock.now = T0 + k * S
        data = app.collect(clock.now)
        collector.ingest(decode(encode_metrics(data).SerializeToString()).batch, clock.now)
        here, there = drift.take(data), collector.advance(clock.now)
        assert [repr(one) for one in here] == [repr(one) for one in there]
    assert target(here[-1], AGE).rows == 480
    assert target(here[-1], AGE).foreign_bounds is exponential


def test_gauges_go_to_the_providers_readers_and_are_not_counted_again() -> None:
    """Every gauge that has a value stands in the next collection, under the scope of drift."""
    app, clock = App(), Clock()
    drift = InProcess(baselines=[BASELINE], window=SPEC, policy=POLICY, clock=clock)
    drift.report(app.provider)
    for k in range(1, 7):
        app.predict(60, scale=3)
        clock.now = T0 + k * S
        data = app.collect(clock.now)
        drift.take(data)
    scopes = {of_scope.scope.name: of_scope.metrics for of_scope in data.resource_metrics[0].scope_metrics}
    by_name = {metric.name: metric.data.data_points for metric in scopes[semconv.DRIFT_SCOPE]}
    (status,) = by_name[semconv.DRIFT_STATUS.name]
    assert status.value == 2
    assert status.attributes[semconv.FEATURE_NAME] == "age"
    assert status.attributes[semconv.MONITORED_SERVICE_NAME] == "api"
    assert drift._engine.stats()["streams"] == 2


def test_a_status_that_moves_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    """When drift comes; evaluations that say the same again are not."""
    app, clock = App(), Clock()
    drift = InProcess(baselines=[BASELINE], window=SPEC, policy=POLICY, clock=clock)
    with caplog.at_level(logging.WARNING):
        for k in range(1, 13):
            app.predict(60, scale=3)
            clock.now = T0 + k * S
            drift.take(app.collect(clock.now))
    (said,) = caplog.messages
    assert "drifted" in said
    assert "feature age" in said


def test_a_reader_feeds_the_engine() -> None:
    """It is an ordinary reader of a provider, and a failure inside is the reader's to report, not the service's."""
    drift = InProcess(baselines=[BASELINE], window=SPEC, policy=POLICY)
    provider = MeterProvider(metric_readers=[drift.reader(3600)])
    provider.get_meter(semconv.SDK_SCOPE).create_counter(semconv.INFERENCE_ROWS.name).add(5, IDENTITY)
    provider.force_flush()
    assert drift._engine.stats()["streams"] == 1
    provider.shutdown()
