"""Providers in memory and a producer that tells of every call: what `otel_ml.testing` reads."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, cast

from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk._logs.export import InMemoryLogRecordExporter, SimpleLogRecordProcessor
from opentelemetry.sdk.environment_variables import OTEL_SDK_DISABLED
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from . import _guard
from .capture import Capture, rows_in
from .model import Model
from .producer import Producer

Tell = Callable[[Model, str, int, Any, int, "str | None"], None]
"""Gets model, operation, rows, output, nanoseconds and the type of the error of a call."""


class Memory:
    """A producer with providers of its own, all in memory."""

    def __init__(self, tell: Tell) -> None:
        self._reader, self._spans = InMemoryMetricReader(), InMemorySpanExporter()
        self._events = InMemoryLogRecordExporter()  # type: ignore[no-untyped-call]
        self._last: list[tuple[str, Any]] | None = None
        with _enabled():
            resource = Resource({})
            self.meters = MeterProvider([self._reader], resource=resource, shutdown_on_exit=False)
            self.tracers = TracerProvider(resource=resource, shutdown_on_exit=False)
            self.loggers = LoggerProvider(resource=resource, shutdown_on_exit=False)
            self.tracers.add_span_processor(SimpleSpanProcessor(self._spans))
            self.loggers.add_log_record_processor(SimpleLogRecordProcessor(self._events))
            self.producer: Producer = _Listening(self.meters, tell)
        self._reader.collect()  # it is known from now on that somebody collects

    def points(self) -> list[tuple[str, Any]]:
        """Name and point of every series."""
        if self._last is not None:
            return self._last
        data = self._reader.get_metrics_data()
        return [
            (metric.name, point)
            for resource in ([] if data is None else data.resource_metrics)
            for scope in resource.scope_metrics
            for metric in scope.metrics
            for point in metric.data.data_points
        ]

    def spans(self) -> Sequence[Any]:
        """Spans that ended."""
        return self._spans.get_finished_spans()

    def events(self, name: str) -> list[Mapping[str, Any]]:
        """The attributes of the events of this name."""
        records = [made.log_record for made in self._events.get_finished_logs()]
        return [record.attributes or {} for record in records if record.event_name == name]

    def close(self) -> None:
        """Keep what there is, and let go of the rest."""
        self._last = self.points()
        self.producer.close()


@contextmanager
def _enabled() -> Iterator[None]:
    """OpenTelemetry switched on where the environment of the tests switches it off."""
    given = os.environ.pop(OTEL_SDK_DISABLED, None)
    try:
        yield
    finally:
        if given is not None:
            os.environ[OTEL_SDK_DISABLED] = given


class _Listening(Producer):
    def __init__(self, meters: MeterProvider, tell: Tell) -> None:
        self._tell = tell
        super().__init__(meter_provider=meters, send_baseline=False)

    def capture(self, model: Model, operation: str) -> Capture:
        return cast(Capture, _Heard(super().capture(model, operation), model, operation, self._tell))


class _Heard:
    """Stands around a capture and tells of the calls that are put there."""

    def __init__(self, inner: Capture, model: Model, operation: str, tell: Tell) -> None:
        self._inner = inner
        self._model = model
        self._operation = operation
        self._tell = tell

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def put(self, taken: Any, output: Any, duration: int) -> Any:
        with _guard.guard("testing"):
            rows = rows_in(taken, self._model.width)
            self._tell(self._model, self._operation, rows, output, duration, None)
        return self._inner.put(taken, output, duration)

    def put_failure(self, duration: int, error_type: str) -> None:
        self._tell(self._model, self._operation, 0, None, duration, error_type)
        self._inner.put_failure(duration, error_type)
