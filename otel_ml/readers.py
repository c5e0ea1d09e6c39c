"""The readers behind whatever MeterProvider there is: finding them, what they want, and adding to what they get.

The Python SDK has no public call for any of this. All that otel-ml touches of the SDK's inside is on this page; it has
been as it is since 2022, and each look-up has a way to go on without it.
"""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Callable, Mapping
from typing import Any

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.sdk.metrics import Exemplar, ExemplarFilter, TraceBasedExemplarFilter
from opentelemetry.sdk.metrics.export import AggregationTemporality, MetricReader, MetricsData
from opentelemetry.sdk.resources import Resource
from opentelemetry.trace import NonRecordingSpan, SpanContext, TraceFlags

from . import forking, semconv

MAX_WRAPPERS = 8
"""Most providers that stand around one another and are looked through."""
_ANCHORS = {semconv.COLLECTIONS.name: "counter", semconv.COLLECT_DURATION.name: "histogram"}


def consumer_of(provider: Any) -> Any:
    """What holds the readers of the SDK's provider that `provider` is or stands around; None when there is none, or
    when OTEL_SDK_DISABLED has switched it off."""
    for _ in range(MAX_WRAPPERS):
        if getattr(provider, "_disabled", False) is True:
            return None
        consumer = getattr(provider, "_measurement_consumer", None)
        if consumer is not None:
            return consumer
        provider = _inner(provider)
        if provider is None:
            return None
    return None


def _inner(provider: Any) -> Any:
    """The provider that a wrapping one holds, whatever it calls it."""
    held = getattr(provider, "__dict__", {}).values()
    return next((one for one in held if callable(getattr(one, "get_meter", None))), None)


def readers_of(provider: Any) -> list[MetricReader]:
    """The readers behind `provider`; none when it is not the SDK's and holds none that is."""
    consumer = consumer_of(provider)
    return [] if consumer is None else list(consumer._reader_storages)


def resource_of(provider: Any) -> Resource | None:
    """The Resource that metrics of `provider` travel under, where it can be known."""
    found = getattr(getattr(consumer_of(provider), "_sdk_config", None), "resource", None)
    return found if isinstance(found, Resource) else None


def exemplar_filter(provider: Any) -> Callable[[Exemplar, Mapping[str, str]], bool]:
    """Whether the exemplar filter of `provider` lets an exemplar of a sampled span with these attributes through."""
    found = getattr(getattr(consumer_of(provider), "_sdk_config", None), "exemplar_filter", None)
    given: ExemplarFilter = found if isinstance(found, ExemplarFilter) else TraceBasedExemplarFilter()

    def wanted(one: Exemplar, attributes: Mapping[str, str]) -> bool:
        assert one.trace_id is not None
        assert one.span_id is not None
        span = SpanContext(
            one.trace_id, one.span_id, is_remote=False, trace_flags=TraceFlags(TraceFlags.SAMPLED)
        )
        context = trace.set_span_in_context(NonRecordingSpan(span), Context())
        return given.should_sample(one.value, one.time_unix_nano, attributes, context)

    return wanted


def wants_delta(reader: MetricReader, data: MetricsData) -> dict[str, bool]:
    """Whether `reader` wants deltas for counters and for histograms: as our own two instruments have come out in
    `data`, and where a View has dropped or renamed them, as the reader was told when it was made."""
    wanted = _preferred(reader)
    for resource in data.resource_metrics:
        for scope in resource.scope_metrics:
            for metric in scope.metrics:
                found = getattr(metric.data, "aggregation_temporality", None)
                if scope.scope.name == semconv.SDK_SCOPE and metric.name in _ANCHORS and found is not None:
                    wanted[_ANCHORS[metric.name]] = found
    return {kind: wanted.get(kind) == AggregationTemporality.DELTA for kind in _ANCHORS.values()}


def _preferred(reader: MetricReader) -> dict[str, AggregationTemporality]:
    """By kind of instrument; the SDK has a subclass of its own for each, with an underscore before the name."""
    found = getattr(reader, "_instrument_class_temporality", {})
    return {cls.__name__.lstrip("_").lower(): temporality for cls, temporality in found.items()}


Add = Callable[[MetricReader, MetricsData], MetricsData]


class _Addition:
    """Stands before what a reader receives."""

    def __init__(self, reader: MetricReader, add: Add) -> None:
        self._me = weakref.ref(reader)
        self._add = add
        self._receive = reader._receive_metrics
        self._before = reader.__dict__.get("_receive_metrics")
        self._collect: Any = reader._collect
        reader._receive_metrics = self  # type: ignore[method-assign]
        self._collecting = self._collected
        if self._collect is not None:  # it is not registered yet
            reader._collect = self._collecting

    def __call__(self, metrics_data: MetricsData, *args: Any, **kwargs: Any) -> None:
        reader = self._me()
        if reader is not None:
            with forking.held_off():  # a Resource, too, has a lock
                metrics_data = self._add(reader, metrics_data)
        if metrics_data.resource_metrics:
            self._receive(metrics_data, *args, **kwargs)

    def _collected(self, *args: Any, **kwargs: Any) -> Any:
        """With nothing to tell, the SDK does not call the reader: it may have dropped all but ours."""
        with forking.held_off():
            data = self._collect(*args, **kwargs)
        return MetricsData(resource_metrics=[]) if data is None else data

    def undo(self, reader: MetricReader) -> None:
        """Leave the reader as it was found; a part that somebody else has replaced since stays."""
        if reader._collect is self._collecting:
            reader._collect = self._collect
        if self._before is None:
            del reader.__dict__["_receive_metrics"]
        else:
            reader.__dict__["_receive_metrics"] = self._before


def intercept(reader: MetricReader, add: Add) -> None:
    """Let `add` add to what `reader` receives from now on; nothing here keeps the reader alive."""
    _Addition(reader, add)


def release(reader: MetricReader) -> None:
    """Take `intercept` back."""
    found = reader.__dict__.get("_receive_metrics")
    if isinstance(found, _Addition):
        found.undo(reader)


def renew_locks(reader: MetricReader) -> None:
    """For a forked child: a thread of the parent that was exporting held the lock, and does not exist here."""
    if hasattr(reader, "_export_lock"):
        reader._export_lock = threading.Lock()


def disabled() -> bool:
    """Whether OTEL_SDK_DISABLED says that OpenTelemetry does nothing in this process."""
    return os.environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true"
