"""What a service runs, in words for people."""

from __future__ import annotations

from collections.abc import Iterator

from .config import Config
from .fields import Address, shown, written
from .health import HealthEndpoint
from .parts import Parts
from .receiver import Receiver
from .retraining import Webhook
from .scrape import ScrapeServer
from .settings import HealthCheck, Otlp, OtlpHttp, Prometheus
from .window import WindowSpec


def lines(config: Config, parts: Parts, window: WindowSpec) -> list[str]:
    """What runs, in a few lines for people."""
    drift = config.drift
    sources = " and ".join(drift.baseline.sources)
    return [
        f"receives  {'; '.join(_receiving(config, parts))}",
        f"compares  {_window_in_words(window)} with baselines from {sources}",
        f"exports   {'; '.join(_exporting(config, parts))}, every {written(window.refresh)}",
        *_keeping(config),
        *(f"health    {url}" for url in _answering(config, parts)),
    ]


def _keeping(config: Config) -> Iterator[str]:
    drift = config.drift
    if drift.storage is not None:
        requests = ", and every request" if drift.wal else ""
        yield f"keeps     its state in {drift.storage}, every {written(drift.checkpoint_interval)}{requests}"


def _answering(config: Config, parts: Parts) -> Iterator[str]:
    for name, health in parts.of(HealthEndpoint).items():
        settings = config.extensions[name]
        if isinstance(settings, HealthCheck):
            yield f"http://{_at(settings.endpoint, health.port)}{settings.path}"


def _receiving(config: Config, parts: Parts) -> Iterator[str]:
    for name, settings in config.receivers.items():
        running, protocols = parts.of(Receiver)[name], settings.protocols
        if protocols.grpc is not None:
            yield f"OTLP gRPC on {_at(protocols.grpc.endpoint, running.grpc_port)}"
        if protocols.http is not None:
            yield f"OTLP HTTP on {_at(protocols.http.endpoint, running.http_port)}"


def _exporting(config: Config, parts: Parts) -> Iterator[str]:
    for name, settings in config.exporters.items():
        if isinstance(settings, Otlp | OtlpHttp | Webhook):
            yield f"{name} to {shown(str(settings.endpoint))}"
        elif isinstance(settings, Prometheus):
            page = parts.of(ScrapeServer)[name]
            yield f"Prometheus page http://{_at(settings.endpoint, page.port)}/metrics"
        else:
            yield "this console"


def _at(asked: Address, port: int | None) -> Address:
    return Address(asked.host or "0.0.0.0", port or asked.port)


def _window_in_words(window: WindowSpec) -> str:
    if window.type == "tumbling":
        return f"tumbling windows of {written(window.length)}"
    if window.type == "count":
        return f"windows of {window.rows:,} rows, at most {written(window.length)} long"
    if window.type == "decayed":
        return f"all rows, weighing half as much after {written(window.length)}"
    return f"a window of {written(window.length)} that slides by {written(window.step)}"
