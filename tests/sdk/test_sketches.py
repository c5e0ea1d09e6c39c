"""Sketches: exact counts that add up and whose differences are those of what was added between."""

from __future__ import annotations

import math
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.metrics.view import ExponentialBucketHistogramAggregation, View
from scipy.stats import ks_2samp

from otel_ml.semconv import INFERENCE_ROWS
from otel_ml.sketches import (
    MAX_EXPONENTIAL_BUCKETS,
    Buckets,
    Count,
    Exponential,
    Ledger,
    Probes,
    counted,
)

finite = st.floats(allow_nan=False, allow_infinity=False)
anything = st.one_of(finite, st.sampled_from([math.nan, math.inf, -math.inf, 0.0, -0.0]))


@given(
    st.lists(anything, max_size=60), st.lists(st.floats(-10, 10), max_size=8, unique=True), st.floats(0, 5)
)
def test_counts_of_a_sorted_column_equal_a_loop(values, bounds, limit):
    """Buckets, states and totals of one column, against one comparison at a time."""
    bounds = np.sort(np.array(bounds))
    probes = Probes.of(bounds, (-limit, limit))
    found = counted(probes.below(np.sort(np.array(values, dtype=float))), len(values))
    regular = [v for v in values if math.isfinite(v)]
    cells = Counter(sum(v > bound for bound in bounds) for v in regular)
    assert found.buckets.tolist() == [cells[i] for i in range(len(bounds) + 1)]
    assert found.finite == len(regular)
    assert found.missing == sum(math.isnan(v) for v in values)
    assert found.non_finite == sum(math.isinf(v) for v in values)
    assert found.out_of_range == sum(not -limit <= v <= limit for v in regular)


@given(st.lists(st.lists(finite, max_size=20), min_size=1, max_size=5))
def test_exponential_loses_nothing(batches):
    """Every finite value is in a bucket, however far apart they lie, and the buckets stay few."""
    sketch = Exponential()
    for batch in batches:
        sketch.add(np.array(batch, dtype=float))
    values = [v for batch in batches for v in batch]
    assert sketch.zero == sum(v == 0 for v in values)
    assert sum(sketch.positive.values()) == sum(v > 0 for v in values)
    assert sum(sketch.negative.values()) == sum(v < 0 for v in values)
    for side in (sketch.positive, sketch.negative):
        assert not side or max(side) - min(side) < MAX_EXPONENTIAL_BUCKETS


@settings(max_examples=50)
@given(st.lists(finite, max_size=30), st.lists(finite, max_size=30))
def test_difference_is_what_was_added_between(first, second):
    """A sketch minus its earlier copy counts only what came after it, whatever the scale became."""
    for empty in (Exponential(), Buckets(np.array([-1.0, 0.0, 2.5]))):
        empty.add(np.array(first, dtype=float))
        before = empty.copy()
        empty.add(np.array(second, dtype=float))
        rest = empty.minus(before)
        if isinstance(rest, Buckets):
            expected = Buckets(rest.bounds)
            expected.add(np.array(second, dtype=float))
            assert rest.counts.tolist() == expected.counts.tolist()
        else:
            assert rest.zero == sum(v == 0 for v in second)
            assert sum(rest.positive.values()) == sum(v > 0 for v in second)
            assert min([*rest.positive.values(), *rest.negative.values(), 0]) == 0


def test_exponential_agrees_with_the_sdk():
    """The same positive values in the SDK's own exponential histogram: the same counts at the coarser scale."""
    values = np.random.default_rng(2).lognormal(0, 2, 2_000)
    view = View(
        instrument_name="v",
        aggregation=ExponentialBucketHistogramAggregation(max_size=MAX_EXPONENTIAL_BUCKETS),
    )
    reader = InMemoryMetricReader()
    histogram = MeterProvider([reader], views=[view]).get_meter("t").create_histogram("v")
    ours = Exponential()
    ours.add(values)
    for value in values.tolist():
        histogram.record(value)
    (metric,) = reader.get_metrics_data().resource_metrics[0].scope_metrics[0].metrics
    (point,) = metric.data.data_points
    while ours.scale > point.scale:
        ours._lower_scale()
    assert ours.scale == point.scale
    theirs = {point.positive.offset + i: n for i, n in enumerate(point.positive.bucket_counts) if n}
    assert dict(sorted(ours.positive.items())) == theirs


def test_exponential_is_fine_enough_for_ks():
    """Two samples compared on shared exponential buckets: KS within 0.005 of the exact one."""
    rng = np.random.default_rng(9)
    a, b = rng.normal(50, 10, 5_000), rng.normal(55, 10, 5_000)
    both = Exponential()
    both.add(np.concatenate([a, b]))
    cells = [np.ceil(np.ldexp(np.log2(s), both.scale)) for s in (a, b)]
    binned = ks_2samp(*cells).statistic
    assert binned == pytest.approx(ks_2samp(a, b).statistic, abs=0.005)


def test_a_series_starts_at_the_collection_before_its_first_row():
    """A counter that appears late does not claim to have counted from the beginning."""
    ledger = Ledger(now=100)
    first = ledger.get(INFERENCE_ROWS, {"a": "1"}, Count())
    ledger.mark = 200
    second = ledger.get(INFERENCE_ROWS, {"a": "2"}, Count())
    again = ledger.get(INFERENCE_ROWS, {"a": "1"}, Count())
    assert (first.start, second.start) == (100, 200)
    assert again is first
