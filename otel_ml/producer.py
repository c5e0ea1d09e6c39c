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
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from queue import SimpleQueue
from typing import Any, NamedTuple

from opentelemetry import metrics
from opentelemetry.metrics import CallbackOptions, MeterProvider, Observation
from opentelemetry.sdk.metrics.export import (
    AggregationTemporality,
    MetricReader,
    MetricsData,
)
from opentelemetry.sdk.resources import Resource

from . import _guard, identity, readers, semconv, wire
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


class Overview(NamedTuple):
    """What a producer holds, for those who look at it."""

    models: list[tuple[Model, str]]
    """With an operation each."""
    series: list[Series[Any]]
    readers: list[tuple[str, bool]]
    """Class, and whether it is one of Prometheus."""


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
        self._given_instance: str | None = None
        self._parents_instance: str | None = None
        self.untold = False
        """True when something was counted since this was set to False, as what flushes does."""
        self._wake: SimpleQueue[None] = SimpleQueue()  # re-entrant: a signal handler can predict
        self._flusher: threading.Thread | None = None
        self._collected = clock()
        self._closed = False
        self._consumer: weakref.ref[Any] | None = None
        if readers.disabled():
            self._switch_off()
        self._install()
        _producers.add(self)

    # --- the way in

    def capture(self, model: Model, operation: str) -> Capture:
        """The queue for `operation` of `model`; equal identities share their counts."""
        with _guard.guard("attach"):
            self.follow()
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
            self.untold = True
            self._truths.add(model, source, labels, delays)

    def overview(self) -> Overview:
        """Models, series and readers so far; what is queued is counted first."""
        self.drain()
        with self._lock:
            models = [(self._tallies[key[:-1]][0], key[-1]) for key in self._captures if key]
            told = [(type(reader).__name__, state.prometheus) for reader, state in self._readers.items()]
            return Overview(models, list(self._ledger), told)

    def drain(self) -> None:
        """Count everything that is queued."""
        with self._lock:
            self.untold |= self._pending.bytes > 0
            self._pending.bytes = 0
            for capture in list(self._captures.values()):
                with _guard.guard("drain"):
                    capture.drain()

    def _relieve(self) -> None:
        """Too much is queued: wake the flusher, or count here when it does not keep up."""
        if self._pending.bytes >= self._pending.limit:
            with _guard.guard("drain"):
                self.drain()
        elif self._wake.empty():
            with _guard.guard("flusher"):  # no more threads: then the caller counts at the limit
                self._wake_flusher()
        if self._clock() - self._collected > IDLE_AFTER and not self._readers:
            self._fall_idle()

    def _wake_flusher(self) -> None:
        if self._flusher is None or not self._flusher.is_alive():
            flusher = threading.Thread(target=self._flush, name="otel-ml-flusher", daemon=True)
            flusher.start()
            self._flusher = flusher
        self._wake.put(None)

    def _flush(self) -> None:
        while not self._closed:
            self._wake.get()
            self.drain()

    def _fall_idle(self) -> None:
        self._pending.idle = True
        _guard.say_once(
            "idle",
            "nobody has collected metrics for 60 seconds: calls are counted, rows are not. Set a MeterProvider with "
            "a reader, or call otel_ml.configure()",
        )

    def _switch_off(self) -> None:
        self._pending.idle = True
        _guard.say_once(
            "disabled", "OTEL_SDK_DISABLED=true: predictions are made, and nothing is recorded of them"
        )

    def close(self) -> None:
        """Detach from every reader."""
        self._closed = True
        self._wake.put(None)
        self._detach()

    def _detach(self, keep: Collection[MetricReader] = ()) -> None:
        for reader in [reader for reader in list(self._readers) if reader not in keep]:
            readers.release(reader)
            self._readers.pop(reader, None)

    # --- the way out

    def use(self, meter_provider: MeterProvider) -> None:
        """Export through `meter_provider` instead of the global one."""
        if meter_provider is not self._provider:
            self._detach()
            self._provider, self._consumer = meter_provider, None
            self._install()

    def follow(self) -> None:
        """Find the readers before they collect, and move on when another provider stands where one was, as a test
        may put it there. Never from a callback: what it makes needs the locks of a provider."""
        if self._moved():
            # a wrapping provider has taken our gauge along: what its readers were told is not told again
            self._detach(keep=readers.readers_of(self._in_use))
            self._install()
        self._attach()

    def _moved(self) -> bool:
        """Whether another provider stands where one was; told to one of several threads that ask."""
        consumer = readers.consumer_of(self._in_use)
        with self._lock:
            before = self._consumer
            if consumer is None or (before is not None and before() is consumer):
                return False
            self._consumer = weakref.ref(consumer)
            return before is not None

    @property
    def _in_use(self) -> MeterProvider:
        return self._provider or metrics.get_meter_provider()

    def _install(self) -> None:
        # kept: a wrapping provider may hold what it made weakly, and then forget it when it is set up anew
        self._meter = meter = metrics.get_meter(semconv.SDK_SCOPE, __version__, meter_provider=self._provider)
        self._collections = meter.create_counter(*_described(semconv.COLLECTIONS))
        self._collect_duration = meter.create_histogram(*_described(semconv.COLLECT_DURATION))
        name, unit, description = _described(semconv.QUEUE_SIZE)
        callback = _WeakCallback(self._on_collect)
        self._queue_size = meter.create_observable_gauge(
            name, callbacks=[callback], unit=unit, description=description
        )

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
            if not self._readers:
                self._say_unreachable()
        with _guard.guard("collect"):
            self.drain()
            self._collections.add(1)
            self._collect_duration.record(time.perf_counter() - started)
        return [Observation(waiting)]

    def _attach(self) -> None:
        with self._lock:
            for reader in readers.readers_of(self._in_use):
                if reader not in self._readers:
                    prometheus = "prometheus" in type(reader).__module__
                    state = self._readers[reader] = _Reader(prometheus, since=self._ledger.mark)
                    readers.intercept(reader, _adding(self, state))

    def _say_unreachable(self) -> None:
        _guard.say_once(
            "unreachable",
            "the readers of %s cannot be found, so counts of rows, scores and features leave through none of them; a "
            "provider that stands before the SDK's must hold it as an attribute",
            type(self._in_use).__name__,
        )

    @property
    def readers(self) -> int:
        """How many readers collect from this process."""
        return len(self._readers)

    def add_to(self, reader: MetricReader, state: _Reader, data: MetricsData) -> MetricsData:
        """`data` with our metrics; `data` itself when anything of ours fails."""
        try:
            with self._lock:
                if self._readers.get(reader) is not state:  # detached while this collection was under way
                    return data
                self.drain()  # also where a provider does not run the callback of our gauge
                return self._produce(reader, data)
        except Exception as error:
            _guard.failed("produce", error)
            return data

    def _produce(self, reader: MetricReader, data: MetricsData) -> MetricsData:
        state = self._readers[reader]
        now = self._clock()
        self._count_ourselves()
        told: dict[Series[Any], Any] = {}
        points = self._points(state, now, readers.wants_delta(reader, data), told)
        produced = wire.metrics(points, prometheus=state.prometheus)
        baseline_due = self._baseline_due(state, now)
        if baseline_due:
            produced += wire.baselines([model for model, _ in self._tallies.values()], now)
        made = wire.joined(data, wire.resource_metrics(self._resource(data), produced))
        # only now is it told: after a failure the next delta holds what this one would have held
        state.told.update(told)
        state.since, state.collections = now, state.collections + 1
        state.baseline_sent = now if baseline_due else state.baseline_sent
        self._ledger.mark = now
        return made

    def _points(
        self, state: _Reader, now: int, delta: Mapping[str, bool], told: dict[Series[Any], Any]
    ) -> Iterator[wire.Point]:
        wanted = readers.exemplar_filter(self._in_use)
        for series in self._ledger:
            exemplars = [
                one for one in getattr(series.sketch, "exemplars", {}).values()
                if one.time_unix_nano > state.since and wanted(one, series.attributes)
            ]  # fmt: skip
            if not delta[series.metric.kind]:
                yield wire.Point(
                    series, series.sketch, series.start, now, AggregationTemporality.CUMULATIVE, exemplars
                )
                continue
            earlier = state.told.get(series)
            start = series.start if earlier is None else state.since
            sketch = series.sketch.copy() if earlier is None else series.sketch.minus(earlier)
            told[series] = series.sketch.copy()
            yield wire.Point(series, sketch, start, now, AggregationTemporality.DELTA, exemplars)

    def _count_ourselves(self) -> None:
        for metric, counts in ((semconv.ERRORS, _guard.errors), (semconv.DROPPED, _guard.dropped)):
            for reason, number in _guard.collect(counts).items():
                self._ledger.count(metric, {semconv.REASON: reason}, number)

    def _baseline_due(self, state: _Reader, now: int) -> bool:
        if state.prometheus or not self._send_baseline:
            return False
        return state.collections < BASELINE_FIRST or now - state.baseline_sent >= BASELINE_EVERY

    def _resource(self, data: MetricsData) -> Resource:
        if data.resource_metrics:
            resource = data.resource_metrics[0].resource
        else:
            resource = readers.resource_of(self._in_use) or Resource.create({})
        given = identity.instance_of(resource)
        if given is not None and given not in (self._parents_instance, identity.inherited()):
            return resource
        return resource.merge(Resource({semconv.SERVICE_INSTANCE_ID: self._instance}))

    def _before_fork(self) -> None:
        with _guard.guard("fork"):
            resource = readers.resource_of(self._in_use)  # looked up only: locks are held around a fork
            self._given_instance = None if resource is None else identity.instance_of(resource)

    def _after_fork(self) -> None:
        """A child starts at zero under an identity of its own; what the parent queued is the parent's."""
        self._lock = threading.RLock()
        self._wake = SimpleQueue()
        self._flusher = None
        self._parents_instance = self._given_instance
        self.untold = False
        self._instance = str(uuid.uuid4())
        self._pending.bytes = 0
        for capture in self._captures.values():
            capture.clear()
        now = self._clock()
        self._collected = now
        self._ledger.restart(now)
        for reader, state in list(self._readers.items()):
            readers.renew_locks(reader)
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


def _adding(producer: Producer, state: _Reader) -> readers.Add:
    owner = weakref.ref(producer)

    def add(reader: MetricReader, data: MetricsData) -> MetricsData:
        found = owner()
        return data if found is None else found.add_to(reader, state, data)

    return add


class _WeakCallback:
    """An instrument's callback that does not keep its producer alive."""

    def __init__(self, method: Callable[[], Iterable[Observation]]) -> None:
        self._method = weakref.WeakMethod(method)

    def __call__(self, options: CallbackOptions) -> Iterable[Observation]:
        method = self._method()
        return method() if method is not None else []


_producers: weakref.WeakSet[Producer] = weakref.WeakSet()


def _before_fork() -> None:
    for producer in list(_producers):
        producer._before_fork()


def _after_fork() -> None:
    for producer in list(_producers):
        producer._after_fork()


if hasattr(os, "register_at_fork"):  # once, for what is registered stays for ever
    os.register_at_fork(before=_before_fork, after_in_child=_after_fork)
