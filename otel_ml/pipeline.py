"""Global state department: the one producer of this process, the providers it uses, and setting them up.

An application that has OpenTelemetry providers needs nothing from here. One that has none calls `configure()`.
"""

from __future__ import annotations

import os
import threading
from importlib.metadata import entry_points
from typing import Any

from opentelemetry import metrics, trace
from opentelemetry.metrics import MeterProvider
from opentelemetry.trace import TracerProvider

from . import _guard, config
from .errors import ConfigurationError
from .producer import Producer

generation = 0
"""Grows when the producer or a provider is replaced; observers then connect anew."""

_lock = threading.Lock()
_producer: Producer | None = None
_tracer_provider: TracerProvider | None = None
_meter_provider: MeterProvider | None = None


def producer() -> Producer:
    """The producer of this process."""
    global _producer
    with _lock:
        if _producer is None:
            settings = config.settings()
            _producer = Producer(
                queue_bytes=settings.queue_bytes,
                send_baseline=settings.send_baseline,
                meter_provider=_meter_provider,
            )
        return _producer


def tracer_provider() -> TracerProvider | None:
    """The provider to use instead of the global one, if any."""
    return _tracer_provider


def use(
    *, meter_provider: MeterProvider | None = None, tracer_provider: TracerProvider | None = None
) -> None:
    """Use these providers instead of the global ones; None leaves the one in use."""
    global _meter_provider, _tracer_provider, generation
    if meter_provider is not None:
        _meter_provider = meter_provider
    made = producer()  # here: created on the first prediction, in a callback of a meter, it would deadlock
    if meter_provider is not None:
        made.use(meter_provider)
    if tracer_provider is not None:
        _tracer_provider = tracer_provider
    generation += 1


def reset() -> None:
    """Forget producer and providers (tests)."""
    global _producer, _meter_provider, _tracer_provider, generation
    with _lock:
        if _producer is not None:
            _producer.close()
        _producer = _meter_provider = _tracer_provider = None
        generation += 1
    config.settings.cache_clear()
    _guard.reset()


def force_flush(timeout_millis: int = 10_000) -> bool:
    """Count what is queued and export it now; True when every provider said it did."""
    producer().drain()
    providers: tuple[Any, ...] = (
        _meter_provider or metrics.get_meter_provider(),
        _tracer_provider or trace.get_tracer_provider(),
    )
    done = True
    for provider in providers:
        flush = getattr(provider, "force_flush", None)
        with _guard.guard("flush"):
            done = (flush is None or bool(flush(timeout_millis))) and done
    return done


# --- setting up -------------------------------------------------------------------------------------------


def configure(service_name: str | None = None) -> None:
    """Set up tracer and meter providers from the OTEL_* variables, for an application that has none.

    `service_name` stands where OTEL_SERVICE_NAME does not. With no exporter and no endpoint in the environment,
    spans and a table of metrics are printed to the console. A provider that the application has set is left
    as it is.

    Raises `ConfigurationError` when a variable names an exporter that is not installed.
    """
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider as SDKTracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor, SimpleSpanProcessor

    given = (
        {} if service_name is None or os.environ.get("OTEL_SERVICE_NAME") else {"service.name": service_name}
    )
    resource = Resource.create(given)
    if isinstance(trace.get_tracer_provider(), trace.ProxyTracerProvider):
        provider = SDKTracerProvider(resource=resource)
        for name in _exporters("TRACES"):
            exporter = _load("opentelemetry_traces_exporter", name)()
            at_once = name == "friendly_console"
            provider.add_span_processor(
                SimpleSpanProcessor(exporter) if at_once else BatchSpanProcessor(exporter)
            )
        trace.set_tracer_provider(provider)
    if _is_proxy(metrics.get_meter_provider()):
        from opentelemetry.sdk.metrics import MeterProvider as SDKMeterProvider

        readers = [_reader(name) for name in _exporters("METRICS")]
        metrics.set_meter_provider(SDKMeterProvider(metric_readers=readers, resource=resource))


def _is_proxy(provider: object) -> bool:
    return type(provider).__name__ == "_ProxyMeterProvider"


def _exporters(signal: str) -> list[str]:
    """Names of the exporters that the environment asks for, of entry points or our console."""
    names = os.environ.get(f"OTEL_{signal}_EXPORTER", "").strip()
    endpoint = os.environ.get("OTEL_EXPORTER_OTLP_ENDPOINT") or os.environ.get(
        f"OTEL_EXPORTER_OTLP_{signal}_ENDPOINT"
    )
    if not names:
        names = "otlp" if endpoint else "friendly_console"
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
    if name == "friendly_console":
        from . import console

        return console.ConsoleSpans if "traces" in group else console.ConsoleMetrics
    found = list(entry_points(group=group, name=name))
    if not found:
        available = sorted({entry.name for entry in entry_points(group=group)})
        raise ConfigurationError(
            f"the exporter {name!r} is not installed; installed are: {', '.join(available)}"
        )
    return found[0].load()


def _reader(name: str) -> Any:
    from opentelemetry.sdk.metrics.export import MetricReader, PeriodicExportingMetricReader

    made = _load("opentelemetry_metrics_exporter", name)()
    return made if isinstance(made, MetricReader) else PeriodicExportingMetricReader(made)


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
    _lock = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew_lock)  # a thread that held it does not exist in the child
