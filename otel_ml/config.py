"""Every setting, declared once with its environment variable and default: argument > environment > default."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, field, fields
from functools import lru_cache
from typing import Any, TypeVar

from .errors import ConfigurationError

T = TypeVar("T")


def _flag(text: str) -> bool:
    value = text.strip().lower()
    if value not in ("1", "true", "yes", "on", "0", "false", "no", "off", ""):
        raise ValueError("expected true or false")
    return value in ("1", "true", "yes", "on")


def _size(text: str) -> int:
    value = int(text)
    if not 64 * 1024 <= value <= 1024**3:
        raise ValueError("expected a number of bytes between 65536 and 1073741824")
    return value


def _amount(text: str) -> int:
    value = int(text)
    if not 1 <= value <= 10**9:
        raise ValueError("expected a number between 1 and 1000000000")
    return value


def _setting(environment: str, default: T, parse: Callable[[str], T]) -> T:
    made: T = field(default=default, metadata={"environment": environment, "parse": parse})
    return made


@dataclass(frozen=True, slots=True)
class Settings:
    """The settings of the SDK as read from the environment."""

    queue_bytes: int = _setting("OTEL_PYTHON_ML_QUEUE_BYTES", 16 * 1024**2, _size)
    """Most bytes of rows that wait to be counted; above it the caller counts them itself."""
    send_baseline: bool = _setting("OTEL_PYTHON_ML_SEND_BASELINE", True, _flag)
    """Whether the baseline's counts are exported beside the data."""
    baselines: str = _setting("OTEL_PYTHON_ML_BASELINES", "", str)
    """Directory of baselines for models nobody registered, matched by columns or, failing that, by model name."""
    events_per_call: int = _setting("OTEL_PYTHON_ML_EVENTS_PER_CALL", 2000, _amount)
    """Most events of one call; rows beyond are counted as dropped. The log SDK's own queue holds 2048 by default."""
    events_per_second: int = _setting("OTEL_PYTHON_ML_EVENTS_PER_SECOND", 5000, _amount)
    """Most events a second of one operation of one model."""
    raise_errors: bool = _setting("OTEL_PYTHON_ML_RAISE", False, _flag)
    """Raise failures of otel-ml itself instead of logging them once."""


def read(environment: dict[str, str] | None = None) -> Settings:
    """Read every setting from `environment` (default: os.environ).

    Raises `ConfigurationError` that names the variable, the value and what is expected.
    """
    source = os.environ if environment is None else environment
    values: dict[str, Any] = {}
    for item in fields(Settings):
        name = item.metadata["environment"]
        if name not in source:
            continue
        try:
            values[item.name] = item.metadata["parse"](source[name])
        except ValueError as error:
            raise ConfigurationError(f"{name}={source[name]!r} is not valid: {error}") from error
    return Settings(**values)


@lru_cache(maxsize=1)
def settings() -> Settings:
    """The settings of this process; a bad variable is said in one log line and its default is used."""
    try:
        return read()
    except ConfigurationError as error:
        import logging

        logging.getLogger("otel_ml").error("%s; the defaults are used", error)
        return Settings()


# --- OpenTelemetry's own ----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Variable:
    """A variable of OpenTelemetry that matters to otel-ml. It is read by `configure()`, by OpenTelemetry's SDK and
    by its exporters; where an application sets its providers up itself, by these only."""

    name: str
    default: str
    """For people; empty where there is none."""
    text: str
    argument: str = ""
    """The argument that goes before it."""


_SIGNALS = "`_METRICS_`, `_TRACES_` and `_LOGS_` after `OTLP` make it that of one signal"

VARIABLES = (
    Variable(
        "OTEL_SERVICE_NAME", "`unknown_service`", "`service.name`; drift is kept apart by it",
        "configure(service_name=)",
    ),
    Variable(
        "OTEL_RESOURCE_ATTRIBUTES", "", "`deployment.environment.name=prod,service.namespace=shop`; drift is kept "
        "apart by these, too",
    ),
    Variable(
        "OTEL_EXPORTER_OTLP_ENDPOINT", "", "where metrics, spans and events go; without it, and without an exporter "
        f"below, `configure()` prints them; {_SIGNALS}",
    ),
    Variable("OTEL_EXPORTER_OTLP_PROTOCOL", "`grpc`", f"or `http/protobuf`; {_SIGNALS}"),
    Variable("OTEL_EXPORTER_OTLP_HEADERS", "", "`authorization=Bearer%20…`, sent with every request"),
    Variable("OTEL_EXPORTER_OTLP_TIMEOUT", "`10`", "seconds for an export with all its attempts"),
    Variable("OTEL_EXPORTER_OTLP_COMPRESSION", "none", "or `gzip`"),
    Variable("OTEL_EXPORTER_OTLP_CERTIFICATE", "the system's", "file of the authority that signed the backend's"),
    Variable(
        "OTEL_EXPORTER_OTLP_INSECURE", "`false`", "gRPC without TLS, for an endpoint that begins with neither "
        "`http://` nor `https://`",
    ),
    Variable(
        "OTEL_METRICS_EXPORTER", "`otlp` with an endpoint", "`otlp`, `prometheus`, `console`, `none`, several with "
        "commas",
    ),
    Variable("OTEL_TRACES_EXPORTER", "`otlp` with an endpoint", "`otlp`, `console`, `none`"),
    Variable("OTEL_LOGS_EXPORTER", "`otlp` with an endpoint", "the same, for events"),
    Variable("OTEL_METRIC_EXPORT_INTERVAL", "`60000`", "milliseconds between exports of metrics"),
    Variable(
        "OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE", "`cumulative`", "or `delta`, which costs the service a "
        "copy of each series, and what is not delivered is lost",
    ),
    Variable(
        "OTEL_TRACES_SAMPLER", "`parentbased_always_on`", "the head sampler of spans; metrics and events do not "
        "depend on it",
    ),
    Variable(
        "OTEL_BLRP_MAX_QUEUE_SIZE", "`2048`", "events that wait to be sent; the SDK drops what is beyond"
    ),
    Variable("OTEL_EXPORTER_PROMETHEUS_PORT", "`9464`", "where a Prometheus exporter serves its page"),
    Variable(
        "OTEL_PYTHON_DISABLED_INSTRUMENTATIONS", "", "names that `opentelemetry-instrument` leaves out: "
        "`otel_ml_sklearn`",
    ),
    Variable(
        "OTEL_SDK_DISABLED", "`false`", "`true`, and nothing else, switches all of OpenTelemetry "
        "off, not otel-ml alone: models predict, nothing is recorded. Read when the process starts",
    ),
)  # fmt: skip
"""In the order of docs/settings.md."""
