"""Global state department: the one producer of this process, the providers it uses, and setting them up.

An application that has OpenTelemetry providers needs nothing from here. One that has none calls `configure()`.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import entry_points
from typing import TYPE_CHECKING, Any, ClassVar

from opentelemetry import _logs, metrics, trace
from opentelemetry._logs import LoggerProvider
from opentelemetry.metrics import MeterProvider
from opentelemetry.trace import TracerProvider

from . import _guard, config, ending
from .errors import ConfigurationError
from .events import has_logs
from .producer import Producer

if TYPE_CHECKING:
    from opentelemetry.sdk.resources import Resource

_CONSOLE = "friendly_console"

generation = 0
"""Grows when the producer or a provider is replaced; observers then connect anew."""

_lock = threading.RLock()  # re-entrant: a signal handler can predict or flush while this thread holds it
_ends_known = False
_producer: Producer | None = None
_tracer_provider: TracerProvider | None = None
_meter_provider: MeterProvider | None = None
_logger_provider: LoggerProvider | None = None
_held = False
"""Whether the producer and the providers stay as they are, whatever `use` and `configure` are told."""


def producer() -> Producer:
    """The producer of this process."""
    global _producer, _ends_known
    with _lock:
        if not _ends_known:
            ending.flush_in_libraries(_flush_untold)
            _ends_known = True
        if _producer is None:
            settings = config.settings()
            made = Producer(
                queue_bytes=settings.queue_bytes,
                send_baseline=settings.send_baseline,
                meter_provider=_meter_provider,
            )
            if _producer is None:  # else a signal handler was here meanwhile
                _producer = made
        return _producer


def tracer_provider() -> TracerProvider | None:
    """The provider to use instead of the global one, if any."""
    return _tracer_provider


def logger_provider() -> LoggerProvider | None:
    """The provider of events to use instead of the global one, if any."""
    return _logger_provider


def use(
    *,
    meter_provider: MeterProvider | None = None,
    tracer_provider: TracerProvider | None = None,
    logger_provider: LoggerProvider | None = None,
) -> None:
    """Use these providers instead of the global ones; None leaves the one in use."""
    global _meter_provider, _tracer_provider, _logger_provider, generation
    if _held:
        return
    if meter_provider is not None:
        _meter_provider = meter_provider
    made = producer()  # here: created on the first prediction, in a callback of a meter, it would deadlock
    if meter_provider is not None:
        made.use(meter_provider)
    if tracer_provider is not None:
        _tracer_provider = tracer_provider
    if logger_provider is not None:
        _logger_provider = logger_provider
    generation += 1


@contextmanager
def replaced(
    producer: Producer, meters: MeterProvider, tracers: TracerProvider, loggers: LoggerProvider
) -> Iterator[None]:
    """Record through these and no others inside; afterwards through what there was before.

    Blocks that overlap, as those of two tasks may, each take back what is theirs: with the last one all is as it was.
    """
    with _lock:
        mine = _Replacement((_producer, _meter_provider, _tracer_provider, _logger_provider, _held))
        _replacements.append(mine)
        _put((producer, meters, tracers, loggers, True))
    try:
        yield
    finally:
        with _lock:
            later = _replacements[_replacements.index(mine) + 1 :]
            _replacements.remove(mine)
            if later:
                later[0].before = mine.before
            else:
                _put(mine.before)


_Used = tuple[Producer | None, MeterProvider | None, TracerProvider | None, LoggerProvider | None, bool]


@dataclass(slots=True, eq=False)
class _Replacement:
    """A block of `replaced` that is not over."""

    before: _Used


_replacements: list[_Replacement] = []


def _put(used: _Used) -> None:
    global _producer, _meter_provider, _tracer_provider, _logger_provider, _held, generation
    _producer, _meter_provider, _tracer_provider, _logger_provider, _held = used
    generation += 1


def reset() -> None:
    """Forget producer and providers (tests)."""
    global _producer, _meter_provider, _tracer_provider, _logger_provider, generation
    with _lock:
        if _producer is not None:
            _producer.close()
        _producer = _meter_provider = _tracer_provider = _logger_provider = None
        generation += 1
    config.settings.cache_clear()
    _guard.reset()


def force_flush(timeout_millis: int = 10_000) -> bool:
    """Count what is queued and export it now, with the spans and events that wait.

    True when there is a provider to export through, each one there is says it did, and no exporter that `configure`
    set up has failed. OpenTelemetry's own readers and processors say yes also when their exporter failed: with
    providers of your own, its log line is what tells.
    """
    failures = _Exporter.failures
    counted = producer()
    with _guard.guard("attach"):
        counted.follow()
    counted.drain()
    counted.untold = False
    providers: tuple[Any, ...] = (
        _meter_provider or metrics.get_meter_provider(),
        _tracer_provider or trace.get_tracer_provider(),
        _logger_provider or _logs.get_logger_provider(),
    )
    flushed = []
    for flush in [found for found in (getattr(one, "force_flush", None) for one in providers) if found]:
        flushed.append(False)
        with _guard.guard("flush"):
            flushed[-1] = bool(flush(timeout_millis))
    done = bool(flushed) and all(flushed) and _Exporter.failures == failures
    counted.untold |= not done
    return done


def _flush_untold() -> None:
    """For the end of a process: one that has counted nothing, as many a child, does not wait for a backend."""
    if _producer is not None:
        _producer.drain()
        if _producer.untold:
            force_flush()


# --- setting up -------------------------------------------------------------------------------------------


def configure(service_name: str | None = None) -> None:
    """Set up tracer, meter and logger providers from the OTEL_* variables, for an application that has none.

    With no exporter and no endpoint in the environment, spans, events and a table of metrics are printed to the
    console. A provider that the application has set is left as it is. The logger provider carries events of
    otel-ml; the application's own log messages are not touched.

    service_name: the `service.name` of the Resource, under which a backend has the service.

    The providers send what is left when the interpreter ends. They may be set up before a fork: a child has
    connections of its own.

    Raises `ConfigurationError` when a variable names an exporter that is not installed.
    """
    from opentelemetry.sdk.resources import Resource

    if _held:
        return
    given = {} if service_name is None else {"service.name": service_name}
    resource = Resource.create(given)
    if isinstance(trace.get_tracer_provider(), trace.ProxyTracerProvider):
        _configure_traces(resource)
    if _is_proxy(metrics.get_meter_provider()):
        from opentelemetry.sdk.metrics import MeterProvider as SDKMeterProvider

        readers = [_reader(name) for name in _exporters("METRICS")]
        metrics.set_meter_provider(SDKMeterProvider(metric_readers=readers, resource=resource))
    if not has_logs(_logs.get_logger_provider()):
        _configure_logs(resource)


class _Exporter:
    """An exporter that a forked child makes anew: on the connections of its parent both would talk at once.

    It counts the exports that fail, of which readers and processors say nothing.
    """

    failures: ClassVar[int] = 0
    """Of all exporters of this process."""

    def __init__(self, make: Callable[[], Any]) -> None:
        self._make = make
        self._process = os.getpid()
        self._made = make()

    def __getattr__(self, name: str) -> Any:
        if self._process != os.getpid():
            self._parents = self._made  # kept: its end would end the parent's connections
            self._process, self._made = os.getpid(), self._make()
        return getattr(self._made, name)

    def export(self, *args: Any, **kwargs: Any) -> Any:
        """What the exporter answers."""
        done = False
        try:
            result = self.__getattr__("export")(*args, **kwargs)
            done = result.name == "SUCCESS"
        finally:
            _Exporter.failures += not done
        return result

    @property  # type: ignore[misc]
    def __class__(self) -> type:
        return type(self._made)  # it passes for what it stands for


def _configure_traces(resource: Resource) -> None:
    from opentelemetry.sdk.trace import TracerProvider as SDKTracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor, SimpleSpanProcessor

    provider = SDKTracerProvider(resource=resource)
    for name in _exporters("TRACES"):
        exporter: Any = _Exporter(_load("opentelemetry_traces_exporter", name))
        at_once = name == _CONSOLE
        provider.add_span_processor(
            SimpleSpanProcessor(exporter) if at_once else BatchSpanProcessor(exporter)
        )
    trace.set_tracer_provider(provider)


def _configure_logs(resource: Resource) -> None:
    from opentelemetry.sdk._logs import LoggerProvider as SDKLoggerProvider
    from opentelemetry.sdk._logs.export import BatchLogRecordProcessor, SimpleLogRecordProcessor

    provider = SDKLoggerProvider(resource=resource)
    for name in _exporters("LOGS"):
        exporter: Any = _Exporter(_load("opentelemetry_logs_exporter", name))
        at_once = name == _CONSOLE
        provider.add_log_record_processor(
            SimpleLogRecordProcessor(exporter) if at_once else BatchLogRecordProcessor(exporter)
        )
    _logs.set_logger_provider(provider)


def _is_proxy(provider: object) -> bool:
    return type(provider).__name__ == "_ProxyMeterProvider"


def _exporters(signal: str) -> list[str]:
    """Names of the exporters that the environment asks for, of entry points or our console."""
    names = os.environ.get(f"OTEL_{signal}_EXPORTER", "").strip()
    endpoint = os.environ.get("OTEL_EXPORTER_OTLP_ENDPOINT") or os.environ.get(
        f"OTEL_EXPORTER_OTLP_{signal}_ENDPOINT"
    )
    if not names:
        names = "otlp" if endpoint else _CONSOLE
    return [
        _protocol(signal) if name == "otlp" else name
        for name in map(str.strip, names.split(","))
        if name != "none"
    ]


def _protocol(signal: str) -> str:
    protocol = os.environ.get(
        f"OTEL_EXPORTER_OTLP_{signal}_PROTOCOL", os.environ.get("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc")
    )
    known = {"grpc": "otlp_proto_grpc", "http/protobuf": "otlp_proto_http"}
    if protocol not in known:
        raise ConfigurationError(f"OTEL_EXPORTER_OTLP_PROTOCOL={protocol!r} is not one of {', '.join(known)}")
    return known[protocol]


def _load(group: str, name: str) -> Any:
    if name == _CONSOLE:
        from . import console

        return console.EXPORTERS[group]
    found = list(entry_points(group=group, name=name))
    if not found:
        available = sorted({entry.name for entry in entry_points(group=group)})
        raise ConfigurationError(
            f"the exporter {name!r} is not installed; installed are: {', '.join(available)}"
        )
    return found[0].load()


def _reader(name: str) -> Any:
    from opentelemetry.sdk.metrics.export import MetricReader, PeriodicExportingMetricReader

    make: Any = _load("opentelemetry_metrics_exporter", name)
    if isinstance(make, type) and issubclass(make, MetricReader):  # as that of Prometheus
        return make()
    exporter: Any = _Exporter(make)
    return PeriodicExportingMetricReader(exporter)


def post_instrument() -> None:
    """Hook of `opentelemetry-instrument`: set providers up when no distro did and the environment asks for it."""
    asked = any(
        name.startswith("OTEL_EXPORTER_OTLP_") or (name.startswith("OTEL_") and name.endswith("_EXPORTER"))
        for name in os.environ
    )
    proxies = isinstance(trace.get_tracer_provider(), trace.ProxyTracerProvider) and _is_proxy(
        metrics.get_meter_provider()
    )
    if asked and proxies:
        with _guard.guard("configure"):
            configure()


def _renew_lock() -> None:
    global _lock
    _lock = threading.RLock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew_lock)  # a thread that held it does not exist in the child
