"""Exponential histograms of a request, as counts on ascending edges."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from opentelemetry.exporter.otlp.proto.common.metrics_encoder import encode_metrics
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.metrics.view import ExponentialBucketHistogramAggregation, View
from opentelemetry.sdk.resources import Resource
from otlp import SECOND, exponential, exponential_point, histogram, histogram_point, request, rows

from otel_ml_collector.decode import DecodeLimits, decode
from otel_ml_collector.layouts import Exponential
from otel_ml_collector.points import DELTA


def test_an_exponential_point_arrives_on_its_edges() -> None:
    """Its filled buckets, zero and both signs, in ascending order; padding with zeros changes nothing."""
    plain = exponential_point(scale=1, zero_count=4, positive=(2, [5, 0, 6]), negative=(-1, [7]))
    padded = exponential_point(
        scale=1, zero_count=4, positive=(0, [0, 0, 5, 0, 6, 0]), negative=(-2, [0, 7, 0])
    )
    for point in (plain, padded):
        (row,) = rows(decode(request(exponential(point))).batch)
        series, start, time, temporality, counts, layout = row
        assert (start, time, temporality) == (SECOND, 2 * SECOND, DELTA)
        assert layout == Exponential(1, negative=(-1, 0), positive=(2, 5))
        assert counts == [0, 7, 0, 4, 0, 5, 0, 6, 0]
        assert (series.kind, series.attributes) == ("histogram", (("ml.feature.name", "age"),))


def test_an_exponential_and_an_explicit_point_are_of_one_series() -> None:
    """How a sender counts is no part of what it counts."""
    body = request(
        exponential(exponential_point(scale=0, positive=(0, [1]))),
        histogram(histogram_point([1, 2], [0.5], ml_feature_name="age")),
    )
    assert len(decode(body).batch.series) == 1


def test_a_wide_exponential_point_comes_on_a_lower_scale() -> None:
    """As many buckets as are allowed, and every count is kept."""
    point = exponential_point(scale=20, positive=(-4000, [1] * 9000), negative=(5, [2] * 9000))
    (row,) = rows(decode(request(exponential(point)), limits=DecodeLimits(max_buckets=64)).batch)
    assert len(row[4]) <= 64
    assert sum(row[4]) == 27_000
    assert row[5].scale < 20


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"scale": 21, "positive": (0, [1])}, "scale"),
        ({"scale": -11, "positive": (0, [1])}, "scale"),
        ({"scale": 0, "positive": (2**31 - 1, [1])}, "scale"),
        ({"scale": 20, "negative": (-(2**31), [1])}, "scale"),
        ({"scale": 0, "zero_threshold": math.nan}, "scale"),
        ({"scale": 0, "zero_threshold": -1.0}, "scale"),
        ({"scale": 0, "positive": (0, [2**63])}, "out_of_range"),
        ({"scale": 0, "positive": (0, [1, 2]), "count": 4}, "count"),
    ],
)
def test_an_exponential_point_that_cannot_be_is_refused(fields: dict[str, Any], reason: str) -> None:
    """Each with its reason; the others of the request are taken."""
    if "count" not in fields:
        fields = {**fields, "count": 1}
    good = exponential_point(scale=0, positive=(0, [3]))
    decoded = decode(request(exponential(exponential_point(**fields), good)))
    assert dict(decoded.rejected) == {reason: 1}
    assert len(decoded.batch) == 1


def test_the_exponential_histogram_of_an_sdk_is_read() -> None:
    """Base-2 aggregation of the OpenTelemetry SDK: every value in the bucket its edges say."""
    reader = InMemoryMetricReader()
    view = View(instrument_name="ml.*", aggregation=ExponentialBucketHistogramAggregation(max_size=20))
    meter = MeterProvider(metric_readers=[reader], views=[view], resource=Resource({})).get_meter("otel_ml")
    values = np.random.default_rng(0).lognormal(size=500)
    for value in values.tolist():
        meter.create_histogram("ml.feature.value").record(value)
    (row,) = rows(decode(encode_metrics(reader.get_metrics_data()).SerializeToString()).batch)
    assert (
        row[4]
        == np.diff(np.searchsorted(np.sort(values), row[5].edges, "right"), prepend=0, append=500).tolist()
    )
