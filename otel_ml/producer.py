"""Hands our counts to whatever MeterProvider the application has, at collection.

The Python SDK has no MetricProducer yet, so points are added to the MetricsData that a reader receives in
`_receive_metrics`, the method that readers override to get it. The callback of an observable gauge of ours runs
before every collection of every reader: it counts what is queued and attaches to readers it has not seen. A
counter and a histogram of our own show the temporality that this reader wants for sums and for histograms.
"""

from __future__ import annotations

import os
import threading
import time
import uuid
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from opentelemetry import metrics
from opentelemetry.metrics import CallbackOptions, MeterProvider, Observation
from opentelemetry.sdk.metrics.export import (
    AggregationTemporality,
    MetricReader,
    MetricsData,
    ResourceMetrics,
)
from opentelemetry.sdk.resources import Resource

from . import _guard, semconv, wire
from ._version import __version__
from .capture import Capture, Pending
from .model import Model
from .segmentation import Tallies
from .segmentation import capture as new_capture
from .sketches import Ledger, Series
from .truths import Truths

BASELINE_FIRST = 3
"""Collections at first that carry the baseline: a receiver that starts late still gets it soon."""
BASELINE_EVERY = 300 * 10**9
"""Nanoseconds between baselines after that."""
IDLE_AFTER = 60 * 10**9
"""Nanoseconds without any collection after which calls are only counted."""
MAX_MODELS = 1000
"""Models that are recorded: a program that makes ever new ones must not grow without bound."""


@dataclass(slots=True)
class _Reader:
    """What one reader has been told so far."""

    prometheus: bool
    since: int
    """Unix nanoseconds of its last collection: where a delta starts."""
    told: dict[Series[Any], Any] = field(default_factory=dict)
    """Series to the copy of its sketch at the last collection, for deltas."""
    collections: int = 0
    baseline_sent: int = 0


class Producer:
    """Every capture of this process and the way its counts leave. Thread-safe; survives fork."""

    def __init__(
        self,
        *,
        queue_bytes: int = 16 * 1024**2,
        send_baseline: bool = True,
        meter_provider: MeterProvider | None = None,
        clock: Callable[[], int] = time.time_ns,
    ) -> None:
        self._clock = clock
        self._lock = threading.RLock()
        self._ledger = Ledger(clock())
        self._truths = Truths(self._ledger)
        self._pending = Pending(queue_bytes, self._relieve)
        self._send_baseline = send_baseline
        self._tallies: dict[tuple[Any, ...], tuple[Model, Tallies]] = {}
        self._captures: dict[tuple[Any, ...], Capture] = {}
        self._refused = Pending(0, lambda: None, reason="too_many_models")
        self._refused.idle = True
        self._readers: weakref.WeakKeyDictionary[MetricReader, _Reader] = weakref.WeakKeyDictionary()
        self._provider = meter_provider
        self._instance = str(uuid.uuid4())
        self._parents_instance: object = None
        self._forked = False
        self._wake = threading.Event()
        self._flusher: threading.Thread | None = None
        self._collected = clock()
        self._closed = False
        self._install()
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=_weakly(self._after_fork))

    # --- the way in

    def capture(self, model: Model, operation: str) -> Capture:
        """The queue for `operation` of `model`; equal identities share their counts."""
        with self._lock:
            identity = _identity(model)
            if identity not in self._tallies and len(self._tallies) >= MAX_MODELS:
                return self._refuse(model, operation)
            if identity not in self._tallies:
                self._tallies[identity] = (model, Tallies(model, self._ledger))
            key = (*identity, operation)
            if key not in self._captures:
                tallies = self._tallies[identity][1]
                self._captures[key] = new_capture(model, operation, tallies, self._pending)
            return self._captures[key]

    def _refuse(self, model: Model, operation: str) -> Capture:
        """The one capture of all models beyond the limit, which only counts that they were called."""
        _guard.say_once(
            "models",
            f"{MAX_MODELS} models are recorded, model %s version %s and later ones are not; give models a lasting "
            "name and version with otel_ml.register",
            model.name, model.version,
        )  # fmt: skip
        if () not in self._captures:
            tallies = Tallies(model, Ledger(self._clock()))
            self._captures[()] = new_capture(model, operation, tallies, self._refused)
        return self._captures[()]

    def add_truths(
        self,
        model: Mapping[str, str],
        source: str | None,
        labels: Mapping[str | None, int],
        delays: Iterable[float],
    ) -> None:
        """Count truths that arrived together, as `Truths.add` takes them."""
        with self._lock:
            self._truths.add(model, source, labels, delays)

    def drain(self) -> None:
        """Count everything that is queued."""
        with self._lock:
            self._pending.bytes = 0
            for capture in list(self._captures.values()):
                with _guard.guard("drain"):
                    capture.drain()

    def _relieve(self) -> None:
        """Too much is queued: wake the flusher, or count here when it does not keep up."""
        if self._pending.bytes >= self._pending.limit:
            with _guard.guard("drain"):
                self.drain()
        elif not self._wake.is_set():
            with _guard.guard("flusher"):  # no more threads: then the caller counts at the limit
                self._wake_flusher()
        if self._clock() - self._collected > IDLE_AFTER and not self._readers:
            self._fall_idle()

    def _wake_flusher(self) -> None:
        if self._flusher is None or not self._flusher.is_alive():
            flusher = threading.Thread(target=self._flush, name="otel-ml-flusher", daemon=True)
            flusher.start()
            self._flusher = flusher
        self._wake.set()

    def _flush(self) -> None:
        while not self._closed:
            self._wake.wait()
            self._wake.clear()
            self.drain()

    def _fall_idle(self) -> None:
        self._pending.idle = True
        _guard.say_once(
            "idle",
            "nobody has collected metrics for 60 seconds: calls are counted, rows are not. Set a MeterProvider with "
            "a reader, or call otel_ml.configure()",
        )

    def close(self) -> None:
        """Detach from every reader."""
        self._closed = True
        self._wake.set()
        self._detach()

    def _detach(self) -> None:
        for reader in list(self._readers):
            reader.__dict__.pop("_receive_metrics", None)
        self._readers.clear()

    # --- the way out

    def use(self, meter_provider: MeterProvider) -> None:
        """Export through `meter_provider` instead of the global one."""
        if meter_provider is not self._provider:
            self._detach()
            self._provider = meter_provider
            self._install()

    def _install(self) -> None:
        meter = metrics.get_meter(semconv.SDK_SCOPE, __version__, meter_provider=self._provider)
        self._collections = meter.create_counter(*_described(semconv.COLLECTIONS))
        self._collect_duration = meter.create_histogram(*_described(semconv.COLLECT_DURATION))
        name, unit, description = _described(semconv.QUEUE_SIZE)
        callback = _WeakCallback(self._on_collect)
        meter.create_observable_gauge(name, callbacks=[callback], unit=unit, description=description)

    def _on_collect(self) -> Iterable[Observation]:
        """Runs before every collection of every reader."""
        if self._closed:
            return []
        started = time.perf_counter()
        waiting = self._pending.bytes
        self._collected = self._clock()
        self._pending.idle = False
        with _guard.guard("attach"):
            self._attach()
        with _guard.guard("collect"):
            self.drain()
            self._collections.add(1)
            self._collect_duration.record(time.perf_counter() - started)
        return [Observation(waiting)]

    def _attach(self) -> None:
        for reader in _readers_of(self._provider or metrics.get_meter_provider()):
            if reader not in self._readers:
                module = type(reader).__module__
                self._readers[reader] = _Reader(prometheus="prometheus" in module, since=self._ledger.mark)
                _intercept(reader, self)

    @property
    def readers(self) -> int:
        """How many readers collect from this process."""
        return len(self._readers)

    def add_to(self, reader: MetricReader, data: MetricsData) -> MetricsData:
        """`data` with our metrics; `data` itself when anything of ours fails."""
        try:
            with self._lock:
                if reader not in self._readers:  # detached while this collection was under way
                    return data
                return replace(data, resource_metrics=[*data.resource_metrics, self._produce(reader, data)])
        except Exception as error:
            _guard.failed("produce", error)
            return data

    def _produce(self, reader: MetricReader, data: MetricsData) -> ResourceMetrics:
        state = self._readers[reader]
        now = self._clock()
        self._count_ourselves()
        told: dict[Series[Any], Any] = {}
        points = self._points(state, now, _wants_delta(data), told)
        produced = wire.metrics(points, prometheus=state.prometheus)
        baseline_due = self._baseline_due(state, now)
        if baseline_due:
            produced += wire.baselines([model for model, _ in self._tallies.values()], now)
        made = wire.resource_metrics(self._resource(data), produced)
        # only now is it told: after a failure the next delta holds what this one would have held
        state.told.update(told)
        state.since, state.collections = now, state.collections + 1
        state.baseline_sent = now if baseline_due else state.baseline_sent
        self._ledger.mark = now
        return made

    def _points(
        self, state: _Reader, now: int, delta: Mapping[str, bool], told: dict[Series[Any], Any]
    ) -> Iterator[wire.Point]:
        for series in self._ledger:
            if not delta[series.metric.kind]:
                yield wire.Point(series, series.sketch, series.start, now, AggregationTemporality.CUMULATIVE)
                continue
            earlier = state.told.get(series)
            start = series.start if earlier is None else state.since
            sketch = series.sketch.copy() if earlier is None else series.sketch.minus(earlier)
            told[series] = series.sketch.copy()
            yield wire.Point(series, sketch, start, now, AggregationTemporality.DELTA)

    def _count_ourselves(self) -> None:
        for metric, counts in ((semconv.ERRORS, _guard.errors), (semconv.DROPPED, _guard.dropped)):
            for reason, number in _guard.collect(counts).items():
                self._ledger.count(metric, {semconv.REASON: reason}, number)

    def _baseline_due(self, state: _Reader, now: int) -> bool:
        if state.prometheus or not self._send_baseline:
            return False
        return state.collections < BASELINE_FIRST or now - state.baseline_sent >= BASELINE_EVERY

    def _resource(self, data: MetricsData) -> Resource:
        resource = data.resource_metrics[0].resource if data.resource_metrics else Resource.create({})
        given = resource.attributes.get(semconv.SERVICE_INSTANCE_ID)
        if given is not None and not (self._forked and given == self._parents_instance):
            if not self._forked:
                self._parents_instance = given
            return resource
        return resource.merge(Resource({semconv.SERVICE_INSTANCE_ID: self._instance}))

    def _after_fork(self) -> None:
        """A child starts at zero under an identity of its own; what the parent queued is the parent's."""
        self._lock = threading.RLock()
        self._wake = threading.Event()
        self._flusher = None
        self._forked = True
        self._instance = str(uuid.uuid4())
        self._pending.bytes = 0
        for capture in self._captures.values():
            capture.clear()
        now = self._clock()
        self._collected = now
        self._ledger.restart(now)
        for state in self._readers.values():
            state.told.clear()
            state.since, state.collections = now, 0


def _identity(model: Model) -> tuple[Any, ...]:
    baseline = model.baseline.id if model.baseline is not None else None
    classes = repr(model.classes)  # they name the labels; 0 and False are equal, but not the same label
    return (
        model.name, model.version, model.variant, model.role, baseline, model.task, classes, model.feature_names,
        model.segment,
    )  # fmt: skip


def _described(metric: semconv.Metric) -> tuple[str, str, str]:
    return metric.name, metric.unit, metric.description


def _wants_delta(data: MetricsData) -> dict[str, bool]:
    """Whether this reader wants deltas for counters and for histograms, read off our own two instruments."""
    wanted = {"counter": False, "histogram": False}
    for resource in data.resource_metrics:
        for scope in resource.scope_metrics:
            for metric in scope.metrics:
                kind = {semconv.COLLECTIONS.name: "counter", semconv.COLLECT_DURATION.name: "histogram"}.get(
                    metric.name
                )
                if kind is not None and scope.scope.name == semconv.SDK_SCOPE:
                    temporality = getattr(metric.data, "aggregation_temporality", None)
                    wanted[kind] = temporality == AggregationTemporality.DELTA
    return wanted


def _readers_of(provider: Any) -> list[MetricReader]:
    """The readers of an SDK provider, looking through wrapping ones; the one private access of otel-ml."""
    for _ in range(8):
        consumer = getattr(provider, "_measurement_consumer", None)
        if consumer is not None:
            return list(consumer._reader_storages)
        provider = getattr(provider, "provider", None) or getattr(provider, "_real_meter_provider", None)
    return []


def _intercept(reader: MetricReader, producer: Producer) -> None:
    original = reader._receive_metrics
    owner = weakref.ref(producer)
    me = weakref.ref(reader)

    def receive(metrics_data: MetricsData, *args: Any, **kwargs: Any) -> None:
        found, producing = me(), owner()
        if found is not None and producing is not None:
            metrics_data = producing.add_to(found, metrics_data)
        original(metrics_data, *args, **kwargs)

    reader._receive_metrics = receive  # type: ignore[method-assign]


class _WeakCallback:
    """An instrument's callback that does not keep its producer alive."""

    def __init__(self, method: Callable[[], Iterable[Observation]]) -> None:
        self._method = weakref.WeakMethod(method)

    def __call__(self, options: CallbackOptions) -> Iterable[Observation]:
        method = self._method()
        return method() if method is not None else []


def _weakly(method: Callable[[], None]) -> Callable[[], None]:
    reference = weakref.WeakMethod(method)

    def call() -> None:
        found = reference()
        if found is not None:
            found()

    return call
