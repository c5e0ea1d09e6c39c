"""The parts of a running service, by the path of their key, and how one set of them becomes another.

A part has a recipe: all that it is made of. When the configuration changes, a part with the same recipe runs
on untouched, with its connections and its queue; the others are stopped and made anew.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol, TextIO, TypeVar

from otel_ml.errors import ConfigurationError

from . import build
from .config import Config
from .console import ConsoleExporter
from .emit import Sample
from .exporter import OtlpExporter
from .fields import Address
from .health import HealthEndpoint
from .intake import Consume
from .passage import Passage
from .queue import SendingQueue
from .receiver import Receiver
from .scrape import ScrapeServer
from .settings import Debug, HealthCheck, Otlp, OtlpHttp, OtlpReceiver, Prometheus
from .signals import METRICS, SIGNALS, Signal

_GRACE = 5.0
"""Seconds that a part which is no longer wanted has to end its work."""


class Part(Protocol):
    """What runs."""

    async def start(self) -> None: ...
    async def stop(self, grace: float) -> None: ...


_Part = TypeVar("_Part", bound=Part)


class Console(ConsoleExporter):
    """The console as a part."""

    async def start(self) -> None:
        """Nothing: its thread runs from the beginning."""

    async def stop(self, grace: float) -> None:  # type: ignore[override]
        """Print what waits; in the event loop, so for a moment only."""
        super().stop(min(grace, 0.5))


@dataclass(frozen=True, slots=True)
class Supply:
    """What parts take from the service."""

    consume: Consume
    gauges: Callable[[], Sequence[Sample]]
    own: Callable[[], Sequence[Sample]]
    ready: Callable[[], bool]
    out: TextIO


class _Plan(NamedTuple):
    recipe: object
    make: Callable[[], Part]


class _Running(NamedTuple):
    plan: _Plan
    part: Part


class Parts:
    """All parts of a service; `change` starts the first ones, too."""

    def __init__(self, supply: Supply) -> None:
        self._supply = supply
        self._running: dict[str, _Running] = {}
        self._passages: dict[tuple[str, Signal], Passage] = {}
        self._bound: dict[str, int | None] = {}
        """Ports that were taken, by receiver and protocol."""
        self._config: Config | None = None
        self._retiring: set[asyncio.Task[None]] = set()
        self._stopped: set[str] = set()
        self.drift_queues: list[SendingQueue] = []
        """Where the drift goes."""

    def of(self, kind: type[_Part]) -> dict[str, _Part]:
        """The parts of a kind, by the id of the component."""
        return {
            path.partition(".")[2]: part
            for path, (_, part) in self._running.items()
            if isinstance(part, kind)
        }

    async def change(self, config: Config) -> None:
        """Run what the configuration asks for.

        Raises ConfigurationError, naming the component, when a part cannot be made or cannot listen; then
        what ran before runs again.
        """
        plans = dict(self._plans(config))
        before, made = dict(self._running), dict[str, _Running]()
        kept = {path: one for path, one in before.items() if _same(one, plans.get(path))}
        gone = {path: one for path, one in before.items() if path not in kept}
        try:
            for path in plans.keys() - kept.keys():
                made[path] = _made(path, plans[path])
            await _stop(_listeners(gone), _GRACE)
            self._running = {path: kept.get(path) or made[path] for path in plans}
            self._connect(config)
            await self._start({path: made[path] for path in plans if path in made})
        except BaseException:
            await _stop(made, 0)
            await self._restore(before, gone)
            raise
        self._config = config
        self._retire([one.part for path, one in gone.items() if path not in _listeners(gone)])

    async def stop(self, grace: float, *kinds: type[Part]) -> None:
        """Stop the parts of these kinds; of all, without one, and what still ends its work from before."""
        stopping = {
            path: one
            for path, one in self._running.items()
            if path not in self._stopped and (not kinds or isinstance(one.part, kinds))
        }
        self._stopped.update(stopping)
        await _stop(stopping, grace)
        if not kinds and self._retiring:
            await asyncio.wait(self._retiring, timeout=grace)

    # --- one set becomes another ---

    async def _start(self, parts: Mapping[str, _Running]) -> None:
        """In this order: receivers come last, when all behind them is ready."""
        for path, one in parts.items():
            try:
                await one.part.start()
            except ConfigurationError as error:
                raise ConfigurationError(f"{path}: {error}") from error
            if isinstance(one.part, Receiver):
                self._bound.update({f"{path}.grpc": one.part.grpc_port, f"{path}.http": one.part.http_port})

    async def _restore(self, before: dict[str, _Running], gone: Mapping[str, _Running]) -> None:
        again = {path: _made(path, one.plan) for path, one in _listeners(gone).items()}
        self._running = {**before, **again}
        if self._config is not None:
            self._connect(self._config)
            await self._start(again)

    def _connect(self, config: Config) -> None:
        """Let requests that are passed on, and drift, go to the exporters that run now."""
        exporters = self.of(OtlpExporter)
        for route in config.routes:
            signal = SIGNALS[route.signal]
            queues = [exporters[name].queues[signal] for name in route.exporters]
            for receiver in route.receivers:
                self._passages[receiver, signal].queues = queues
        self.drift_queues = [exporters[name].queue for name in config.drift_exporters if name in exporters]

    def _retire(self, parts: Sequence[Part]) -> None:
        """Let parts that do not listen end their work beside the new ones."""
        for part in parts:
            task = asyncio.create_task(part.stop(_GRACE))
            self._retiring.add(task)
            task.add_done_callback(self._retiring.discard)

    # --- what is wanted ---

    def _plans(self, config: Config) -> Iterator[tuple[str, _Plan]]:
        supply = self._supply
        for name, extension in config.extensions.items():
            if isinstance(extension, HealthCheck):
                yield f"extensions.{name}", _plan(HealthEndpoint, str(extension.endpoint), supply.ready)
        if config.telemetry is not None:
            yield "service.telemetry.metrics", _plan(ScrapeServer, str(config.telemetry), supply.own)
        for name, exporter in config.exporters.items():
            yield f"exporters.{name}", self._exporter(name, exporter, config)
        for name, receiver in config.receivers.items():
            yield f"receivers.{name}", self._receiver(name, receiver, config)

    def _exporter(self, name: str, settings: Otlp | OtlpHttp | Prometheus | Debug, config: Config) -> _Plan:
        if isinstance(settings, Prometheus):
            return _plan(ScrapeServer, str(settings.endpoint), self._supply.gauges)
        if isinstance(settings, Debug):
            return _plan(Console, settings.verbosity, self._supply.out)
        signals = _signals_to(name, config)
        auth = build.authenticator(settings.auth, config.extensions)
        return _Plan(
            (settings, signals, auth), lambda: build.exporter(name, settings, signals, config.extensions)
        )

    def _receiver(self, name: str, settings: OtlpReceiver, config: Config) -> _Plan:
        signals = [SIGNALS[route.signal] for route in config.routes if name in route.receivers]
        forward = {signal: self._passages.setdefault((name, signal), Passage([])) for signal in signals}
        looked_at = name in config.drift_receivers
        protocols = settings.protocols
        guards = [
            build.authenticator(protocol.auth, config.extensions)
            for protocol in (protocols.grpc, protocols.http)
            if protocol is not None
        ]

        def make() -> Receiver:
            return build.receiver(
                self._with_ports(name, settings),
                config.drift,
                self._supply.consume if looked_at else None,
                extensions=config.extensions,
                forward=forward,
                memory=config.memory,
            )

        recipe = (settings, config.drift.limits, config.memory, looked_at, signals, guards)
        return _Plan(recipe, make)

    def _with_ports(self, name: str, settings: OtlpReceiver) -> OtlpReceiver:
        """The settings with the ports that the receiver had before, where any would do."""
        changed: dict[str, Any] = {}
        for protocol in ("grpc", "http"):
            section = getattr(settings.protocols, protocol)
            if section is not None and section.endpoint.port == 0:
                port = self._bound.get(f"receivers.{name}.{protocol}") or 0
                changed[protocol] = section.model_copy(
                    update={"endpoint": Address(section.endpoint.host, port)}
                )
        return settings.model_copy(update={"protocols": settings.protocols.model_copy(update=changed)})


def _plan(kind: Callable[..., Part], *arguments: Any) -> _Plan:
    return _Plan((kind, arguments), lambda: kind(*arguments))


def _made(path: str, plan: _Plan) -> _Running:
    try:
        return _Running(plan, plan.make())
    except ConfigurationError as error:
        raise ConfigurationError(f"{path}: {error}") from error


def _same(one: _Running, plan: _Plan | None) -> bool:
    return plan is not None and one.plan.recipe == plan.recipe


def _listeners(parts: Mapping[str, _Running]) -> dict[str, _Running]:
    """Those that hold a port."""
    return {path: one for path, one in parts.items() if not isinstance(one.part, OtlpExporter | Console)}


async def _stop(parts: Mapping[str, _Running], grace: float) -> None:
    await asyncio.gather(*(one.part.stop(grace) for one in parts.values()))


def _signals_to(exporter: str, config: Config) -> list[Signal]:
    """What an exporter sends: drift, what is passed on, or both."""
    names = {route.signal for route in config.routes if exporter in route.exporters}
    if exporter in config.drift_exporters:
        names.add(METRICS.name)
    return [signal for name, signal in SIGNALS.items() if name in names]
