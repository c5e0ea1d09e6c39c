"""Beside an application's own metrics: its readers, exporters, Views and providers stay as they are, and get ours."""

from __future__ import annotations

import io
import json
import math
import os
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from integration.sink import Sink
from opentelemetry import metrics
from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
from opentelemetry.exporter.prometheus import PrometheusMetricReader
from opentelemetry.sdk.metrics import Counter, Histogram, MeterProvider
from opentelemetry.sdk.metrics.export import (
    AggregationTemporality,
    ConsoleMetricExporter,
    InMemoryMetricReader,
    MetricReader,
    MetricsData,
    PeriodicExportingMetricReader,
)
from opentelemetry.sdk.metrics.view import (
    DropAggregation,
    ExplicitBucketHistogramAggregation,
    ExponentialBucketHistogramAggregation,
    View,
)
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, ALWAYS_ON
from opentelemetry.util._once import Once
from prometheus_client import generate_latest
from support import by_name

import otel_ml
from otel_ml import pipeline, semconv

DELTA, CUMULATIVE = AggregationTemporality.DELTA, AggregationTemporality.CUMULATIVE
ANCHORS = (semconv.COLLECTIONS.name, semconv.COLLECT_DURATION.name)
X = np.linspace(0.05, 0.95, 12).reshape(6, 2)


def model() -> Callable[[Any], Any]:
    """A decorated function that answers with its first column."""
    return otel_ml.observe(model="churn", version="3", spans="off")(lambda rows: rows[:, 0])


def provider(*readers: MetricReader, **options: Any) -> MeterProvider:
    """A provider of the application, with a counter of its own, that otel-ml uses."""
    made = MeterProvider(metric_readers=readers, shutdown_on_exit=False, **options)
    made.get_meter("app").create_counter("orders").add(3)
    pipeline.use(meter_provider=made)
    return made


def rows(data: MetricsData | None) -> list[int]:
    """Values of the row counter in one collection."""
    return [] if data is None else [p.value for p in by_name(data).get("ml.inference.rows", [])]


def kinds(data: MetricsData) -> dict[str, AggregationTemporality]:
    """The temporality of each metric that counts calls of models."""
    return {
        metric.name: metric.data.aggregation_temporality
        for resource in data.resource_metrics for scope in resource.scope_metrics for metric in scope.metrics
        if metric.name.startswith("ml.inference.")
    }  # fmt: skip


# --- Views ------------------------------------------------------------------------------------------------

DROP = DropAggregation()
VIEWS = {
    "our two instruments dropped": [View(instrument_name=name, aggregation=DROP) for name in ANCHORS],
    "all of our instruments dropped": [View(meter_name="otel_ml", aggregation=DROP)],
    "everything dropped": [View(instrument_name="*", aggregation=DROP)],
    "everything dropped but the application's": [
        View(instrument_name="*", aggregation=DROP), View(instrument_name="orders"),
    ],
    "renamed": [View(instrument_name=name, name=f"renamed.{i}") for i, name in enumerate(ANCHORS)],
    "other buckets": [
        View(instrument_type=Histogram, aggregation=ExplicitBucketHistogramAggregation([1.0, 2.0]))
    ],
    "exponential": [View(instrument_type=Histogram, aggregation=ExponentialBucketHistogramAggregation())],
    "no attributes": [View(instrument_name="*", attribute_keys=set())],
}  # fmt: skip


@pytest.mark.parametrize("preferred", [CUMULATIVE, DELTA], ids=["cumulative", "delta"])
@pytest.mark.parametrize("views", VIEWS.values(), ids=VIEWS)
def test_no_view_keeps_our_counts_from_a_reader(views: list[View], preferred: AggregationTemporality) -> None:
    """From the first collection on: all rows, on our bounds, with our attributes, as the reader wants them."""
    reader = InMemoryMetricReader(preferred_temporality={Counter: preferred, Histogram: preferred})
    provider(reader, views=views)
    predict = model()
    predict(X)
    first = reader.get_metrics_data()
    predict(X[:2])
    second = reader.get_metrics_data()
    assert first is not None
    assert second is not None
    assert (rows(first), rows(second)) == (([6], [2]) if preferred is DELTA else ([6], [8]))
    assert set(kinds(first).values()) == set(kinds(second).values()) == {preferred}
    [duration] = by_name(second)["ml.inference.duration"]
    assert duration.explicit_bounds == list(semconv.DURATION_BOUNDS)
    assert duration.attributes["ml.model.name"] == "churn"


def test_what_views_drop_stays_dropped() -> None:
    """A reader that has nothing but ours gets nothing of the application's, under the application's Resource."""
    reader = InMemoryMetricReader()
    resource = Resource({"service.name": "api"})
    provider(reader, views=[View(instrument_name="*", aggregation=DROP)], resource=resource)
    assert reader.get_metrics_data() is None  # and nothing at all as long as there is nothing to tell
    model()(X)
    data = reader.get_metrics_data()
    assert data is not None
    assert "orders" not in by_name(data)
    [told] = data.resource_metrics
    assert told.resource.attributes["service.name"] == "api"


# --- readers and exporters --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("preference", "sums"), [("delta", 1), ("lowmemory", 1), ("cumulative", 2)], ids=lambda one: str(one)
)
@pytest.mark.parametrize("histograms", ["base2_exponential_bucket_histogram", "explicit_bucket_histogram"])
def test_exporter_preferences_from_the_environment(
    preference: str, sums: int, histograms: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Our counts have the temporality that OTEL_EXPORTER_OTLP_METRICS_* asks for, and keep their own bounds."""
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE", preference)
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_METRICS_DEFAULT_HISTOGRAM_AGGREGATION", histograms)
    with Sink(tmp_path) as sink:
        exporter = OTLPMetricExporter(f"{sink.http_endpoint}/v1/metrics")
        reader = PeriodicExportingMetricReader(exporter, export_interval_millis=math.inf)
        made = provider(reader)
        made.get_meter("app").create_histogram("latency").record(0.2)
        model()(X)
        made.force_flush()
        made.shutdown()
        received = {
            metric.name: metric for request in sink.metrics()[:1] for resource in request.resource_metrics
            for scope in resource.scope_metrics for metric in scope.metrics
        }  # fmt: skip
    theirs = "exponential_histogram" if histograms.startswith("base2") else "histogram"
    assert received["latency"].WhichOneof("data") == theirs
    duration, counted = received["ml.inference.duration"].histogram, received["ml.inference.rows"].sum
    assert duration.aggregation_temporality == counted.aggregation_temporality == sums
    assert list(duration.data_points[0].explicit_bounds) == list(semconv.DURATION_BOUNDS)
    assert [point.as_int for point in counted.data_points] == [6]


class Counting(PeriodicExportingMetricReader):
    """A reader as applications write them: it looks at what it passes on."""

    def __init__(self, exporter: ConsoleMetricExporter) -> None:
        super().__init__(exporter, export_interval_millis=math.inf)
        self.seen: list[str] = []

    def _receive_metrics(
        self, metrics_data: MetricsData, timeout_millis: float = 10_000, **kwargs: Any
    ) -> None:
        self.seen += by_name(metrics_data)
        super()._receive_metrics(metrics_data, timeout_millis, **kwargs)


def test_own_reader_and_the_console_exporter() -> None:
    """A reader with a `_receive_metrics` of its own sees ours too, and the console prints all of it as JSON."""
    out = io.StringIO()
    reader = Counting(ConsoleMetricExporter(out=out))
    made = provider(reader)
    model()(X)
    made.force_flush()
    made.shutdown()
    assert {"orders", "ml.inference.rows"} <= set(reader.seen)
    printed = json.loads(out.getvalue().split("\n}\n")[0] + "}")
    names = {
        metric["name"] for resource in printed["resource_metrics"] for scope in resource["scope_metrics"]
        for metric in scope["metrics"]
    }  # fmt: skip
    assert {"orders", "ml.inference.rows", "ml.inference.duration"} <= names


def test_prometheus_beside_otlp(tmp_path: Path) -> None:
    """One process is scraped and pushes: both tell the same rows, and only the push carries the baseline."""
    baseline = otel_ml.Baseline.fit(np.tile(X, (900, 1)), model="churn", version="3", features=["a", "b"])
    with Sink(tmp_path) as sink:
        scraped = PrometheusMetricReader()
        exporter = OTLPMetricExporter(f"{sink.http_endpoint}/v1/metrics")
        pushed = PeriodicExportingMetricReader(exporter, export_interval_millis=math.inf)
        made = provider(scraped, pushed)
        otel_ml.observe(model="churn", version="3", baseline=baseline)(lambda rows: rows[:, 0])(X)
        text = generate_latest().decode()
        pushed.force_flush()
        made.shutdown()
        names = {
            metric.name for request in sink.metrics() for resource in request.resource_metrics
            for scope in resource.scope_metrics for metric in scope.metrics
        }  # fmt: skip
    told = {line.rpartition(" ")[0].partition("{")[0]: line for line in text.splitlines()}
    assert told["ml_inference_rows_total"].endswith(" 6.0")
    assert "ml_baseline_value_bucket" not in told
    assert {"ml.inference.rows", "ml.feature.value", "ml.baseline.value"} <= names


def test_a_reader_that_somebody_else_has_wrapped() -> None:
    """An instance's own `_receive_metrics`, put there before or after ours, is still there when we are gone."""
    reader, said = InMemoryMetricReader(), list[str]()

    def put(word: str) -> Callable[..., None]:
        before = reader._receive_metrics

        def receive(*args: Any, **kwargs: Any) -> None:
            said.append(word)
            before(*args, **kwargs)

        return receive

    first = put("before")
    reader._receive_metrics = first  # type: ignore[method-assign]
    made = provider(reader)
    model()(X)
    assert rows(reader.get_metrics_data()) == [6]
    pipeline.use(meter_provider=MeterProvider(shutdown_on_exit=False))
    assert reader._receive_metrics is first
    pipeline.use(meter_provider=made)
    assert rows(reader.get_metrics_data()) == [6]
    reader._receive_metrics = put("after")  # type: ignore[method-assign]
    pipeline.use(meter_provider=MeterProvider(shutdown_on_exit=False))
    assert rows(reader.get_metrics_data()) == []
    pipeline.use(meter_provider=made)
    assert rows(reader.get_metrics_data()) == [6]
    assert said == ["before", "before", "after", "before", "after", "before"]


@pytest.mark.skipif(not hasattr(MeterProvider, "remove_metric_reader"), reason="older SDKs cannot")
def test_reader_that_is_taken_away_and_put_back() -> None:
    """It is told what was counted meanwhile, the others never notice."""
    stays, goes = InMemoryMetricReader(), InMemoryMetricReader()
    made = provider(stays, goes)
    predict = model()
    told = []
    for change in (
        lambda: None,
        lambda: made.remove_metric_reader(goes),
        lambda: made.add_metric_reader(goes),
    ):
        change()
        predict(X)
        told.append((rows(stays.get_metrics_data()), rows(goes.get_metrics_data())))
    assert told == [([6], [6]), ([12], []), ([18], [18])]


# --- providers --------------------------------------------------------------------------------------------


class Delegating:
    """A provider that passes on what it does not have itself."""

    def __init__(self, behind: MeterProvider) -> None:
        self._behind = behind

    def __getattr__(self, name: str) -> Any:
        return getattr(self._behind, name)


class Named:
    """A provider that holds the SDK's under a name of its own."""

    def __init__(self, behind: Any) -> None:
        self._its_own_name_for_it = behind

    def get_meter(self, *args: Any, **kwargs: Any) -> Any:
        return self._its_own_name_for_it.get_meter(*args, **kwargs)


@pytest.mark.parametrize(
    "wrap", [Delegating, Named, lambda one: Named(Named(one))], ids=["delegating", "named", "two"]
)
def test_any_wrapping_provider_is_looked_through(wrap: Callable[[MeterProvider], Any]) -> None:
    """Whatever a wrapping provider calls the one behind it, that one's readers get our counts."""
    reader = InMemoryMetricReader()
    pipeline.use(meter_provider=wrap(MeterProvider(metric_readers=[reader], shutdown_on_exit=False)))
    model()(X)
    assert rows(reader.get_metrics_data()) == [6]


class Opaque:
    """A provider behind which nobody can look."""

    __slots__ = ("get_meter",)

    def __init__(self, behind: MeterProvider) -> None:
        self.get_meter = behind.get_meter


def test_a_provider_behind_which_nobody_can_look(caplog: pytest.LogCaptureFixture) -> None:
    """Its readers collect and get nothing of ours: it is said once, with the way out."""
    reader = InMemoryMetricReader()
    pipeline.use(meter_provider=Opaque(MeterProvider(metric_readers=[reader], shutdown_on_exit=False)))  # type: ignore[arg-type]
    model()(X)
    assert [rows(reader.get_metrics_data()) for _ in range(3)] == [[], [], []]
    [said] = [record.getMessage() for record in caplog.records]
    assert said.startswith("the readers of Opaque cannot be found")


def test_two_providers() -> None:
    """Ours go through one provider, and the other's reader gets nothing of them."""
    used, other = InMemoryMetricReader(), InMemoryMetricReader()
    second = MeterProvider(metric_readers=[other], shutdown_on_exit=False)
    second.get_meter("app").create_counter("orders").add(1)
    provider(used)
    model()(X)
    assert rows(used.get_metrics_data()) == [6]
    data = other.get_metrics_data()
    assert data is not None
    assert set(by_name(data)) == {"orders"}


@pytest.fixture
def settable() -> Iterator[Callable[[MeterProvider], None]]:
    """Set the global provider as often as a test likes, as tests of applications do."""
    from opentelemetry.metrics import _internal

    before = _internal._METER_PROVIDER, _internal._METER_PROVIDER_SET_ONCE

    def put(made: MeterProvider) -> None:
        _internal._METER_PROVIDER_SET_ONCE = Once()
        metrics.set_meter_provider(made)

    yield put
    _internal._METER_PROVIDER, _internal._METER_PROVIDER_SET_ONCE = before


def test_provider_that_takes_the_place_of_one_that_was_shut_down(
    settable: Callable[[MeterProvider], None],
) -> None:
    """Calls go on after a shutdown; the readers of the next provider get them, told by a new model or a flush."""
    first, second, third = (InMemoryMetricReader() for _ in range(3))
    one, two, three = (
        MeterProvider(metric_readers=[reader], shutdown_on_exit=False) for reader in (first, second, third)
    )
    settable(one)
    predict = model()
    predict(X)
    assert rows(first.get_metrics_data()) == [6]
    one.shutdown()
    predict(X)
    settable(two)
    model()(X)
    assert rows(second.get_metrics_data()) == [18]
    settable(three)
    predict(X)
    otel_ml.force_flush()
    assert rows(third.get_metrics_data()) == [24]
    assert rows(first.get_metrics_data()) == []


def test_nothing_grows_after_a_shutdown() -> None:
    """Nobody will ever collect again: calls go on, and what they leave behind stays within the limit."""
    made = provider(InMemoryMetricReader())
    predict = model()
    predict(X)
    made.shutdown()
    waiting, large = [], np.zeros((5000, 10))
    for _ in range(200):
        predict(large)
        waiting.append(pipeline.producer()._pending.bytes)
    assert max(waiting) <= 16 * 1024**2


def test_reader_that_collects_rarely(caplog: pytest.LogCaptureFixture) -> None:
    """A reader with an interval of hours gets every row: it is known before it collects."""
    now, reader = [0], InMemoryMetricReader()
    made = MeterProvider(metric_readers=[reader], shutdown_on_exit=False)
    pipeline._producer = pipeline.Producer(queue_bytes=65536, meter_provider=made, clock=lambda: now[0])
    predict = model()
    for _ in range(10):
        now[0] += 3600 * 10**9
        predict(np.zeros((2000, 2)))
    assert rows(reader.get_metrics_data()) == [20_000]
    assert caplog.records == []


# --- exemplars ----------------------------------------------------------------------------------------------


class Traces(NamedTuple):
    """A tracer provider that otel-ml uses, and what ended there."""

    provider: TracerProvider
    exporter: InMemorySpanExporter

    def ids(self) -> set[tuple[int, int]]:
        return {(one.context.trace_id, one.context.span_id) for one in self.exporter.get_finished_spans()}


def traces(sampler: Any = ALWAYS_ON) -> Traces:
    """Everything that ends goes to memory."""
    made, exporter = TracerProvider(sampler=sampler, shutdown_on_exit=False), InMemorySpanExporter()
    made.add_span_processor(SimpleSpanProcessor(exporter))
    pipeline.use(tracer_provider=made)
    return Traces(made, exporter)


def durations(reader: InMemoryMetricReader) -> dict[str | None, Any]:
    """The points of the calls' durations in one collection, by error type."""
    data = reader.get_metrics_data()
    assert data is not None
    return {one.attributes.get("error.type"): one for one in by_name(data)["ml.inference.duration"]}


def bucket(point: Any, value: float) -> int:
    """The bucket of `point` that `value` is in."""
    return int(np.searchsorted(point.explicit_bounds, value))


@pytest.mark.parametrize("mode", ["all", "sampled"])
@pytest.mark.parametrize("preferred", [CUMULATIVE, DELTA], ids=["cumulative", "delta"])
def test_durations_lead_to_traces(mode: Any, preferred: AggregationTemporality) -> None:
    """In each collection a bucket with new calls has an exemplar, of a span that took as long; failures too."""
    reader = InMemoryMetricReader(preferred_temporality={Counter: preferred, Histogram: preferred})
    provider(reader)
    seen = traces()

    @otel_ml.observe(model="churn", version="3", spans=mode)
    def predict(waits: float, fails: bool = False) -> float:
        time.sleep(waits)
        return 1 / (not fails)

    for waits in (0, 0.03):
        predict(waits)
    with pytest.raises(ZeroDivisionError):
        predict(0, fails=True)
    first = durations(reader)
    spans = {one.context.span_id: one for one in seen.exporter.get_finished_spans()}
    for error_type, point in first.items():
        shown = {bucket(point, one.value) for one in point.exemplars}
        assert shown == {i for i, count in enumerate(point.bucket_counts) if count}
        for one in point.exemplars:
            span = spans[one.span_id]
            assert span.context.trace_id == one.trace_id
            assert span.attributes.get("error.type") == error_type
            assert abs(one.time_unix_nano - span.end_time) < 1e9
    assert set(first) == {None, "ZeroDivisionError"}
    predict(0.03)
    second = durations(reader)[None]
    before = 0 if preferred is DELTA else np.array(first[None].bucket_counts)
    new = np.flatnonzero(np.array(second.bucket_counts) - before)
    assert [bucket(second, one.value) for one in second.exemplars] == new.tolist()
    assert all(not point.exemplars for point in durations(reader).values())


@pytest.mark.parametrize(
    ("chosen", "sampler", "shown"),
    [("trace_based", ALWAYS_ON, 1), ("always_on", ALWAYS_ON, 1), ("always_off", ALWAYS_ON, 0),
     ("trace_based", ALWAYS_OFF, 0), ("always_on", ALWAYS_OFF, 0)],
    ids=lambda one: one.get_description() if hasattr(one, "get_description") else str(one),
)  # fmt: skip
def test_exemplar_filter(chosen: str, sampler: Any, shown: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """OTEL_METRICS_EXEMPLAR_FILTER decides; a call whose span was not sampled is no exemplar in any case."""
    monkeypatch.setenv("OTEL_METRICS_EXEMPLAR_FILTER", chosen)
    reader = InMemoryMetricReader()
    provider(reader)
    traces(sampler)
    otel_ml.observe(model="churn", version="3")(lambda rows: rows[:, 0])(X)
    [point] = durations(reader).values()
    assert len(point.exemplars) == shown


def test_exemplars_over_otlp(tmp_path: Path) -> None:
    """A backend receives the ids of the trace and of the span with the point."""
    with Sink(tmp_path) as sink:
        exporter = OTLPMetricExporter(f"{sink.http_endpoint}/v1/metrics")
        made = provider(PeriodicExportingMetricReader(exporter, export_interval_millis=math.inf))
        seen = traces()
        otel_ml.observe(model="churn", version="3")(lambda rows: rows[:, 0])(X)
        made.force_flush()
        made.shutdown()
        [shown] = [
            exemplar for request in sink.metrics()[:1] for resource in request.resource_metrics
            for scope in resource.scope_metrics for metric in scope.metrics
            if metric.name == "ml.inference.duration" for point in metric.histogram.data_points
            for exemplar in point.exemplars
        ]  # fmt: skip
    assert {(int.from_bytes(shown.trace_id, "big"), int.from_bytes(shown.span_id, "big"))} == seen.ids()


# --- switched off -----------------------------------------------------------------------------------------

DISABLED = """
import numpy as np
import otel_ml
from otel_ml import pipeline, sampling
otel_ml.configure(service_name="api")

@otel_ml.observe(model="churn", version="3", sampler=sampling.Random(1.0))
def predict(X):
    return X[:, 0]

for _ in range(1000):
    predict(np.zeros((100, 3)))
producer = pipeline.producer()
print(predict(np.eye(3)), producer._pending.bytes, len(list(producer._ledger)), producer.readers)
otel_ml.feedback(model="churn", version="3", score=0.5, label=True)
otel_ml.force_flush()
"""


@pytest.mark.parametrize("endpoint", [None, "http://127.0.0.1:9"])
def test_disabled_sdk(endpoint: str | None) -> None:
    """OTEL_SDK_DISABLED=true: models answer, nothing waits, nothing is counted or sent, and one line says so."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("OTEL_")}
    more = {} if endpoint is None else {"OTEL_EXPORTER_OTLP_ENDPOINT": endpoint}
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(DISABLED)], capture_output=True, text=True, timeout=60, check=False,
        env={**clean, **more, "OTEL_SDK_DISABLED": "true", "OTEL_PYTHON_ML_RAISE": "1"},
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (0, "[1. 0. 0.] 0 0 0\n"), done.stderr
    assert done.stderr == "OTEL_SDK_DISABLED=true: predictions are made, and nothing is recorded of them\n"
