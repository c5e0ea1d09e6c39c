"""The hand-over: our points reach every reader, whenever it came, with the temporality it asked for."""

from __future__ import annotations

import gc
import json
import os
import subprocess
import sys
import textwrap

import numpy as np
import pytest
from opentelemetry.sdk.metrics import Counter, Histogram, MeterProvider
from opentelemetry.sdk.metrics.export import AggregationTemporality, InMemoryMetricReader
from opentelemetry.sdk.resources import Resource
from opentelemetry.trace import SpanContext, TraceFlags
from support import by_name, select

from otel_ml import observe, pipeline
from otel_ml.model import Model
from otel_ml.observer import Observer
from otel_ml.producer import Producer
from otel_ml.recording import Recording

DELTA, CUMULATIVE = AggregationTemporality.DELTA, AggregationTemporality.CUMULATIVE


def observed(baseline):
    return observe(model="churn", version="3", baseline=baseline, spans="off")(lambda X: X[:, 0])


def rows(reader):
    return [p.value for p in by_name(reader.get_metrics_data()).get("ml.inference.rows", [])]


def add_reader(provider, reader):
    """Add a reader to a running provider, as SDKs do that can; older ones have no call for it."""
    consumer = provider._measurement_consumer
    if hasattr(consumer, "add_metric_reader"):
        consumer.add_metric_reader(reader)
    else:
        from opentelemetry.sdk.metrics._internal.metric_reader_storage import MetricReaderStorage

        consumer._reader_storages[reader] = MetricReaderStorage(
            consumer._sdk_config, reader._instrument_class_temporality, reader._instrument_class_aggregation
        )
    reader._set_collect_callback(consumer.collect)


def run(program: str) -> dict:
    """Run `program` in a fresh interpreter and return the JSON that it prints last."""
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


GLOBAL = """
import json
import numpy as np
import otel_ml
from opentelemetry import metrics
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from sklearn.linear_model import LinearRegression
X = np.arange(12.0).reshape(6, 2) - 5
model = LinearRegression().fit(X, X[:, 0])
reader = InMemoryMetricReader()

def report(reader):
    data = reader.get_metrics_data()
    counted = {}
    for resource in data.resource_metrics:
        for scope in resource.scope_metrics:
            for metric in scope.metrics:
                counted[metric.name] = sum(getattr(p, "count", getattr(p, "value", 0)) for p in metric.data.data_points)
    print(json.dumps(counted))
"""


@pytest.mark.parametrize(
    "order",
    [
        "metrics.set_meter_provider(MeterProvider([reader])); otel_ml.instrument(); model.predict(X)",
        "otel_ml.instrument(); metrics.set_meter_provider(MeterProvider([reader])); model.predict(X)",
        "otel_ml.instrument(); model.predict(X); metrics.set_meter_provider(MeterProvider([reader]))",
    ],
    ids=["provider first", "provider after instrument()", "provider after the first call"],
)
def test_first_collection_has_the_histograms(order):
    """Whenever the provider was set, its first collection carries every row that was predicted."""
    counted = run(GLOBAL + order + "\nreport(reader)")
    assert counted["ml.inference.rows"] == 6
    assert counted["ml.feature.value"] == 12


def test_reader_added_later_gets_everything_on_its_first_collection(baseline, training):
    """A reader added to a running provider gets cumulative counts since the start, at once."""
    first = InMemoryMetricReader()
    provider = MeterProvider([first])
    pipeline.use(meter_provider=provider)
    predict = observed(baseline)
    predict(training)
    assert rows(first) == [2000]
    late = InMemoryMetricReader()
    add_reader(provider, late)
    predict(training)
    assert rows(late) == [4000]
    assert rows(first) == [4000]


def test_wrapping_provider_is_looked_through(baseline, training):
    """A provider that wraps the SDK's, as logfire's does, is found."""

    class Wrapper:
        def __init__(self, provider):
            self.provider = provider

        def get_meter(self, *args, **kwargs):
            return self.provider.get_meter(*args, **kwargs)

    reader = InMemoryMetricReader()
    pipeline.use(meter_provider=Wrapper(MeterProvider([reader])))
    observed(baseline)(training)
    assert rows(reader) == [2000]


def test_delta_and_cumulative_readers_side_by_side(baseline, training):
    """Each reader gets its own temporality, and the deltas of one add up to the total of the other."""
    delta = InMemoryMetricReader(preferred_temporality={Counter: DELTA, Histogram: DELTA})
    total = InMemoryMetricReader()
    pipeline.use(meter_provider=MeterProvider([delta, total]))
    predict = observed(baseline)
    seen = np.zeros(len(baseline.features["a"].bounds) + 1, dtype=int)
    for n in (5, 1, 200, 7):
        predict(training[:n])
        points = by_name(delta.get_metrics_data())
        assert [p.value for p in points["ml.inference.rows"]] == [n]
        seen += select(points["ml.feature.value"], ml__feature__name="a")[0].bucket_counts
    points = by_name(total.get_metrics_data())
    assert [p.value for p in points["ml.inference.rows"]] == [213]
    assert list(select(points["ml.feature.value"], ml__feature__name="a")[0].bucket_counts) == seen.tolist()


def test_sums_and_histograms_can_differ_in_temporality(baseline, training):
    """A reader that wants delta histograms and cumulative sums gets just that."""
    reader = InMemoryMetricReader(preferred_temporality={Counter: CUMULATIVE, Histogram: DELTA})
    pipeline.use(meter_provider=MeterProvider([reader]))
    predict = observed(baseline)
    predict(training)
    reader.get_metrics_data()
    predict(training)
    points = by_name(reader.get_metrics_data())
    assert [p.value for p in points["ml.inference.rows"]] == [4000]
    assert select(points["ml.feature.value"], ml__feature__name="a")[0].count == 2000


def test_deltas_join_without_a_gap(baseline, training):
    """Each delta starts where the one before it ended, and the first no later than its first row."""
    reader = InMemoryMetricReader(preferred_temporality={Counter: DELTA, Histogram: DELTA})
    pipeline.use(meter_provider=MeterProvider([reader]))
    predict = observed(baseline)
    ends = []
    for _ in range(3):
        predict(training)
        (point,) = by_name(reader.get_metrics_data())["ml.inference.rows"]
        assert point.start_time_unix_nano < point.time_unix_nano
        if ends:
            assert point.start_time_unix_nano == ends[-1]
        ends.append(point.time_unix_nano)


def test_baseline_is_sent_at_first_and_then_every_five_minutes(baseline, training):
    """The first three collections carry the baseline, and then one every 300 seconds; always cumulative."""
    now = [1_000_000_000_000]
    reader = InMemoryMetricReader(preferred_temporality={Counter: DELTA, Histogram: DELTA})
    provider = MeterProvider([reader])
    pipeline.reset()
    pipeline._producer = pipeline.Producer(meter_provider=provider, clock=lambda: now[0])
    observed(baseline)(training)
    sent = []
    for _ in range(12):
        data = reader.get_metrics_data()
        kinds = {
            m.name: m.data.aggregation_temporality
            for r in data.resource_metrics for s in r.scope_metrics for m in s.metrics
            if m.name.startswith("ml.baseline.")
        }  # fmt: skip
        assert set(kinds.values()) <= {CUMULATIVE}
        sent.append(bool(kinds))
        now[0] += 60 * 10**9
    assert sent == [True] * 3 + [False] * 4 + [True] + [False] * 4


def test_baseline_on_the_wire_is_the_file(collect, baseline, training):
    """What is sent are the file's own bounds and counts, from its creation on."""
    observed(baseline)(training[:1])
    points = collect()
    (point,) = select(points["ml.baseline.value"], ml__feature__name="b")
    summary = baseline.features["b"]
    assert list(point.explicit_bounds) == summary.bounds.tolist()
    assert list(point.bucket_counts) == summary.bucket_counts.tolist()
    assert point.start_time_unix_nano == int(baseline.created_at.timestamp() * 1e9)
    categories = select(points["ml.baseline.categories"], ml__feature__name="c")
    assert {p.attributes["ml.feature.category"]: p.value for p in categories} == dict(
        baseline.features["c"].categories
    )


def test_baseline_can_be_kept_home(monkeypatch, collect_factory, baseline, training):
    """OTEL_PYTHON_ML_SEND_BASELINE=false sends none of it."""
    monkeypatch.setenv("OTEL_PYTHON_ML_SEND_BASELINE", "false")
    collect = collect_factory()
    observed(baseline)(training)
    assert not [name for name in collect() if name.startswith("ml.baseline.")]


def test_feature_points_carry_no_sum_and_no_extremes(collect, baseline, training):
    """A feature's histogram never says sum, min or max: raw values do not leave."""
    observed(baseline)(training)
    for point in collect()["ml.feature.value"]:
        assert (point.sum, point.min, point.max) == (None, None, None)


def test_resource_is_the_applications_with_an_instance_id(baseline, training):
    """Our metrics travel under the provider's resource; service.instance.id is added only when it is missing."""
    for given in ({}, {"service.instance.id": "pod-7"}):
        pipeline.reset()
        reader = InMemoryMetricReader()
        resource = Resource({"service.name": "api", **given})
        pipeline.use(meter_provider=MeterProvider([reader], resource=resource))
        observed(baseline)(training)
        ours = reader.get_metrics_data().resource_metrics[-1].resource.attributes
        assert ours["service.name"] == "api"
        assert len(ours["service.instance.id"]) == (5 if given else 36)


def test_original_data_goes_on_when_we_fail(monkeypatch, baseline, training):
    """A failure of ours at collection leaves the application's own metrics as they were."""
    monkeypatch.setenv("OTEL_PYTHON_ML_RAISE", "0")
    reader = InMemoryMetricReader()
    provider = MeterProvider([reader])
    pipeline.reset()
    pipeline.use(meter_provider=provider)
    provider.get_meter("app").create_counter("orders").add(3)
    observed(baseline)(training)
    monkeypatch.setattr(pipeline.producer(), "_produce", lambda *_: 1 / 0)
    points = by_name(reader.get_metrics_data())
    assert [p.value for p in points["orders"]] == [3]
    assert "ml.inference.rows" not in points


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this platform cannot fork")
def test_forked_child_starts_at_zero_under_its_own_identity():
    """After fork parent and child each report their own rows, once, under different instance ids."""
    program = GLOBAL + textwrap.dedent("""
        import os, sys
        metrics.set_meter_provider(MeterProvider([reader]))
        otel_ml.instrument()
        model.predict(X)
        def state():
            data = reader.get_metrics_data()
            mine = data.resource_metrics[-1]
            points = {m.name: m.data.data_points for s in mine.scope_metrics for m in s.metrics}
            rows = [p.value for p in points["ml.inference.rows"]]
            return {"rows": rows, "instance": mine.resource.attributes["service.instance.id"]}
        before = state()
        r, w = os.pipe()
        if os.fork() == 0:
            model.predict(X[:2])
            os.write(w, json.dumps(state()).encode())
            os._exit(0)
        os.wait()
        child = json.loads(os.read(r, 10000))
        print(json.dumps({"before": before, "child": child, "parent": state()}))
    """)
    told = run(program)
    assert told["before"]["rows"] == [6]
    assert told["child"]["rows"] == [2]
    assert told["parent"] == told["before"]
    assert told["child"]["instance"] != told["parent"]["instance"]


def test_queue_is_bounded(collect_factory, monkeypatch, baseline):
    """With a small queue the caller counts; the bytes that wait stay below the limit and no row is lost."""
    monkeypatch.setenv("OTEL_PYTHON_ML_QUEUE_BYTES", "65536")
    collect = collect_factory()
    predict = observed(baseline)
    X = np.zeros((100, 3))
    waiting = []
    for _ in range(500):
        predict(X)
        waiting.append(pipeline.producer()._pending.bytes)
    assert max(waiting) < 65536 + 100 * 3 * 8 + 400
    assert [p.value for p in collect()["ml.inference.rows"]] == [50_000]


def test_without_a_reader_calls_are_only_counted_after_a_minute(monkeypatch, baseline, training, caplog):
    """Nobody collects for 60 s: rows are dropped and said once; the first collection wakes it up."""
    monkeypatch.setenv("OTEL_PYTHON_ML_QUEUE_BYTES", "65536")
    now = [0]
    pipeline.reset()
    provider = MeterProvider()
    pipeline._producer = pipeline.Producer(queue_bytes=65536, meter_provider=provider, clock=lambda: now[0])
    predict = observed(baseline)
    predict(training)
    now[0] = 61 * 10**9
    predict(training)
    predict(training)
    assert "nobody has collected metrics for 60 seconds" in caplog.text
    reader = InMemoryMetricReader()
    add_reader(provider, reader)
    points = by_name(reader.get_metrics_data())
    assert [p.value for p in points["ml.inference.rows"]] == [4000]
    assert [(p.attributes["reason"], p.value) for p in points["otel_ml.dropped"]] == [("no_reader", 1)]
    predict(training)
    assert rows(reader) == [6000]


def test_producer_does_not_outlive_its_users(baseline):
    """A reader that is gone is forgotten."""
    reader = InMemoryMetricReader()
    provider = MeterProvider([reader], shutdown_on_exit=False)
    pipeline.use(meter_provider=provider)
    producer = pipeline.producer()
    reader.get_metrics_data()
    assert producer.readers == 1
    provider.shutdown()
    pipeline.use(meter_provider=MeterProvider(shutdown_on_exit=False))
    del reader, provider
    gc.collect()
    assert producer.readers == 0


def test_another_provider_takes_the_place_of_the_first(baseline, training):
    """After a change of provider the readers of the first get nothing of ours, and once more after it is back."""
    readers = [InMemoryMetricReader(), InMemoryMetricReader()]
    providers = [MeterProvider([reader], shutdown_on_exit=False) for reader in readers]
    predict = observed(baseline)
    told = []
    for provider in (providers[0], providers[1], providers[0]):
        provider.get_meter("app").create_counter("orders").add(1)
        pipeline.use(meter_provider=provider)
        predict(training)
        told.append([rows(reader) if reader.get_metrics_data() else [] for reader in readers])
    assert told == [[[2000], []], [[], [4000]], [[6000], []]]


def test_one_identity_with_other_classes_has_its_own_labels(collect):
    """A model that was fitted again on other classes names those, under the same name and version."""
    for classes in (("no", "yes"), ("stay", "go")):
        model = Model("churn", "3", task="classification", classes=classes)
        Observer(model, operation="predict_proba", recording=Recording("off")).call(
            lambda X: np.array([[0.2, 0.8]]), ([0],), {}, [0]
        )
    assert {p.attributes["ml.prediction.label"]: p.value for p in collect()["ml.predictions"]} == {
        "yes": 1, "go": 1,
    }  # fmt: skip


def test_models_without_end_take_bounded_memory(monkeypatch, collect, caplog):
    """Models beyond the limit are said once and their calls counted; the ones before go on."""
    monkeypatch.setattr("otel_ml.producer.MAX_MODELS", 2)
    predicts = [observe(model="churn", version=str(i), spans="off")(lambda X: 0.5) for i in range(5)]
    for predict in predicts:
        predict(np.zeros((1, 3)))
    points = collect()
    assert {p.attributes["ml.model.version"] for p in points["ml.inference.rows"]} == {"0", "1"}
    assert {p.attributes["reason"]: p.value for p in points["otel_ml.dropped"]} == {"too_many_models": 3}
    assert len(caplog.messages) == 1


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this platform cannot fork")
def test_a_child_does_not_wait_for_locks_of_its_parents_threads():
    """A fork while another thread makes the producer or counts an error leaves the child able to work."""
    told = run("""
        import json, os, signal, threading
        from otel_ml import _guard, pipeline
        held, done = threading.Event(), threading.Event()
        def hold():
            with pipeline._lock, _guard._lock:
                held.set()
                done.wait()
        threading.Thread(target=hold).start()
        held.wait()
        if os.fork() == 0:
            signal.alarm(20)
            _guard.drop("test", 1)
            pipeline.producer()
            os._exit(0)
        status = os.wait()[1]
        done.set()
        print(json.dumps({"status": status}))
    """)
    assert told == {"status": 0}


def test_a_platform_without_fork_works():
    """Where there is no fork there is nothing to register for it."""
    assert run("""
        import os
        del os.fork, os.register_at_fork
        import json
        import otel_ml
        from otel_ml.testing import recorded
        with recorded() as seen:
            otel_ml.observe(model="m", version="1")(lambda X: X)([[1.0]])
        print(json.dumps([one.rows for one in seen.predictions]))
    """) == [1]


def test_threads_that_find_another_provider_follow_it_once(caplog):
    """Who comes first moves on; a second gauge would be a warning of the SDK, and a callback more."""
    first, second = (MeterProvider([InMemoryMetricReader()]) for _ in range(2))
    producer = Producer(meter_provider=first)
    producer.follow()
    producer._provider = second
    assert [producer._moved() for _ in range(3)] == [True, False, False]
    producer.close()


def test_the_first_prediction_can_be_in_a_callback_of_a_meter():
    """A gauge of the application that asks an instrumented model does not deadlock its collection."""
    program = GLOBAL + textwrap.dedent("""
        import signal
        signal.alarm(30)
        metrics.set_meter_provider(MeterProvider([reader]))
        otel_ml.instrument()
        ask = lambda options: [metrics.Observation(float(model.predict(X[:1])[0]))]
        metrics.get_meter("app").create_observable_gauge("forecast", callbacks=[ask])
        reader.get_metrics_data()
        report(reader)
    """)
    assert run(program)["ml.inference.rows"] == 2  # a prediction shows in the collection that it was asked in


def test_a_signal_handler_can_predict_at_any_moment():
    """Between whichever lines of ours, and of the locks that we use, it runs: nothing waits for itself, and every row
    is counted once."""
    made, counted = run("""
        import faulthandler, json, random, sys
        import numpy as np
        from opentelemetry.sdk.metrics import MeterProvider
        from opentelemetry.sdk.metrics.export import InMemoryMetricReader
        import otel_ml
        from otel_ml import pipeline
        faulthandler.dump_traceback_later(40, exit=True)
        reader = InMemoryMetricReader()
        pipeline.use(meter_provider=MeterProvider([reader]))
        pending = pipeline.producer()._pending
        pending.wake_at, pending.limit = 1_000, 100_000
        predict = otel_ml.observe(model="m", version="1", spans="off")(lambda X: X[:, 0])
        X, made, chance = np.zeros((3, 5)), 0, random.Random(0)
        def interrupt(frame, event, _):
            global made
            name = frame.f_code.co_filename
            if event == "line" and ("otel_ml" in name or "threading" in name) and chance.random() < 0.1:
                predict(X)
                made += 3
            return interrupt
        sys.settrace(interrupt)
        for _ in range(300):
            predict(X)
            made += 3
        otel_ml.force_flush()
        sys.settrace(None)
        pipeline.producer().drain()
        data = reader.get_metrics_data()
        print(json.dumps([made, sum(
            point.value for resource in data.resource_metrics for scope in resource.scope_metrics
            for metric in scope.metrics if metric.name == "ml.inference.rows" for point in metric.data.data_points
        )]))
    """)
    assert made > 1000
    assert counted == made


def test_examples_are_of_calls_that_are_counted(collect_factory, baseline):
    """A call that fails while a drain is under way waits for the next one, with its span: no series without a count."""
    collect = collect_factory()

    @observe(model="churn", version="3", baseline=baseline, spans="off")
    def fails(X):
        raise KeyError

    class Interrupted(list):
        def __getitem__(self, part):
            found = super().__getitem__(part)
            if not capture.examples:
                capture.put_failure(1000, "LateError")
                capture.exemplify(SpanContext(1, 1, False, TraceFlags(1)), 0, 1000, "LateError")
            return found

    with pytest.raises(KeyError):
        fails(np.zeros((1, 2)))
    capture = next(iter(pipeline.producer()._captures.values()))
    capture._failures = Interrupted(capture._failures)
    pipeline.producer().drain()
    capture._failures = list(capture._failures)
    points = collect()["ml.inference.duration"]
    assert sorted((point.attributes["error.type"], point.count) for point in points) == [
        ("KeyError", 1), ("LateError", 1)
    ]  # fmt: skip
