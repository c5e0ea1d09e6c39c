"""The parts of a running service, by the path of their key, and how one set of them becomes another.

A part has a recipe: all that it is made of. When the configuration changes, a part with the same recipe runs
on untouched, with its connections and its queue; the others are stopped and made anew.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple, Protocol, TextIO, TypeVar

from otel_ml.errors import ConfigurationError

from . import build
from .components import Exporter
from .config import Config
from .console import ConsoleExporter
from .emit import Sample
from .exporter import OtlpExporter
from .fields import Address
from .health import HealthEndpoint
from .intake import Consume
from .log import about
from .passage import Passage
from .queue import SendingQueue
from .receiver import Receiver
from .recovery import Recovery, Work
from .retraining import Webhook
from .scrape import ScrapeServer
from .settings import Debug, FileStorage, HealthCheck, OtlpReceiver, Prometheus
from .signals import LOGS, METRICS, SIGNALS, Signal
from .storage import Directory

_LOG = logging.getLogger(__name__)
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
    alive: Callable[[], bool]
    work: Work
    clock: Callable[[], int]
    delivered: Callable[[str, str], None]
    """Told of the name of a webhook, and the id of a trigger that it delivered."""
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
        self._directories: dict[tuple[str, FileStorage], Directory] = {}
        self._bound: dict[str, int | None] = {}
        """Ports that were taken, by receiver and protocol."""
        self._config: Config | None = None
        self._retiring: set[asyncio.Task[None]] = set()
        self._stopped: set[str] = set()
        self._down: dict[str, str] = {}
        """Why parts that should run do not, by path: a change failed, and they could not come back."""
        self._changes = False
        """Whether parts are stopped for others that take their place."""
        self.drift_queues: list[SendingQueue] = []
        """Where the drift goes."""
        self.event_queues: list[SendingQueue] = []
        """Where changes of status go."""

    def of(self, kind: type[_Part]) -> dict[str, _Part]:
        """The parts of a kind, by the id of the component."""
        return {
            path.partition(".")[2]: part
            for path, (_, part) in self._running.items()
            if isinstance(part, kind)
        }

    @property
    def complete(self) -> bool:
        """Whether all that should run does: not during a change that stops parts, nor while one is down."""
        return not (self._down or self._changes)

    async def change(self, config: Config) -> None:
        """Run what the configuration asks for.

        Raises ConfigurationError, naming the component, when a part cannot be made or cannot listen; then
        what ran before runs again, or is `down` until `revive` succeeds.
        """
        plans = dict(self._plans(config))
        before = dict(self._running)
        kept = {path: one for path, one in before.items() if self._stays(path, one, plans.get(path))}
        gone = {path: one for path, one in before.items() if path not in kept}
        made, stopped = dict[str, _Running](), dict[str, _Running]()
        try:
            for path in plans.keys() - kept.keys():
                made[path] = _made(path, plans[path])
            stopped = {path: one for path, one in _exclusive(gone).items() if path not in self._down}
            self._changes = bool(stopped)
            await _stop(stopped, _GRACE)
            self._running = {path: kept.get(path) or made[path] for path in plans}
            self._connect(config)
            await self._start({path: made[path] for path in plans if path in made})
        except BaseException:
            await _stop(made, 0)
            await self._restore(before, stopped)
            raise
        finally:
            self._changes = False
        self._config = config
        self._down.clear()
        self._retire([one.part for path, one in gone.items() if path not in _exclusive(gone)])

    async def stop(self, grace: float, *kinds: type[Part]) -> None:
        """Stop the parts of these kinds; of all, without one, and what still ends its work from before."""
        stopping = {
            path: one
            for path, one in self._running.items()
            if path not in self._stopped | self._down.keys() and (not kinds or isinstance(one.part, kinds))
        }
        self._stopped.update(stopping)
        await _stop(stopping, grace)
        if not kinds and self._retiring:
            await asyncio.wait(self._retiring, timeout=grace)

    async def revive(self) -> None:
        """Try to bring back what is `down`."""
        for path in [path for path in self._running if path in self._down]:
            if problem := await self._again(path):
                if self._down[path] != problem:
                    _LOG.error("%s; it is tried again, and until then this is not ready", problem)
                self._down[path] = problem
            else:
                del self._down[path]
                _LOG.info("%s runs again", path)

    async def _again(self, path: str) -> str:
        """Start a part anew; what stands in the way of it, empty for nothing."""
        try:
            self._running[path] = one = _made(path, self._running[path].plan)
            if self._config is not None:
                self._connect(self._config)
            await self._start({path: one})
        except (ConfigurationError, OSError) as error:
            return str(error)
        return ""

    # --- one set becomes another ---

    async def _start(self, parts: Mapping[str, _Running]) -> None:
        """In this order: receivers come last, when all behind them is ready."""
        for path, one in parts.items():
            try:
                with about(path):
                    await one.part.start()
            except ConfigurationError as error:
                raise ConfigurationError(f"{path}: {error}") from error
            if isinstance(one.part, Receiver):
                self._bound.update({f"{path}.grpc": one.part.grpc_port, f"{path}.http": one.part.http_port})

    async def _restore(self, before: dict[str, _Running], stopped: Mapping[str, _Running]) -> None:
        self._running = before
        self._down.update(dict.fromkeys(stopped, ""))
        await self.revive()
        if self._config is not None:
            self._connect(self._config)

    def _stays(self, path: str, one: _Running, plan: _Plan | None) -> bool:
        return path not in self._down and _same(one, plan)

    def _connect(self, config: Config) -> None:
        """Let requests that are passed on, and drift, go to the exporters that run now."""
        exporters = self.of(OtlpExporter)
        for route in config.routes:
            signal = SIGNALS[route.signal]
            queues = [exporters[name].queues[signal] for name in route.exporters]
            for receiver in route.receivers:
                self._passages[receiver, signal].queues = queues
        drift = [exporters[name] for name in config.drift_exporters if name in exporters]
        self.drift_queues = [exporter.queue for exporter in drift]
        self.event_queues = [exporter.queues[LOGS] for exporter in drift] if config.drift.events else []

    def _retire(self, parts: Sequence[Part]) -> None:
        """Let parts end their work beside the new ones."""
        for part in parts:
            task = asyncio.create_task(part.stop(_GRACE))
            self._retiring.add(task)
            task.add_done_callback(self._retiring.discard)

    # --- what is wanted ---

    def _plans(self, config: Config) -> Iterator[tuple[str, _Plan]]:
        supply = self._supply
        for name, extension in config.extensions.items():
            if isinstance(extension, HealthCheck):
                yield f"extensions.{name}", _plan(HealthEndpoint, extension, supply.ready, supply.alive)
            elif isinstance(extension, FileStorage):
                yield f"extensions.{name}", _there(self._directory(name, config))
        if config.drift.storage is not None:
            yield f"processors.{config.drift_id}", self._recovery(config, config.drift.storage)
        if config.telemetry is not None:
            yield "service.telemetry.metrics", _plan(ScrapeServer, str(config.telemetry), supply.own)
        for name, exporter in config.exporters.items():
            yield f"exporters.{name}", self._exporter(name, exporter, config)
        for name, receiver in config.receivers.items():
            yield f"receivers.{name}", self._receiver(name, receiver, config)

    def _exporter(self, name: str, settings: Exporter, config: Config) -> _Plan:
        if isinstance(settings, Prometheus):
            return _plan(ScrapeServer, str(settings.endpoint), self._supply.gauges)
        if isinstance(settings, Debug):
            return _plan(Console, settings.verbosity, self._supply.out)
        auth = build.authenticator(settings.auth, config.extensions)
        if isinstance(settings, Webhook):
            delivered = partial(self._supply.delivered, name)
            return _Plan(
                (settings, auth), lambda: build.webhook(name, settings, config.extensions, delivered)
            )
        signals = _signals_to(name, config)
        events_only = LOGS not in _passed_on_to(name, config)
        storage = settings.sending_queue.storage
        directory = None if storage is None else self._directory(storage, config)
        return _Plan(
            (settings, signals, auth, directory, events_only),
            lambda: build.exporter(
                name, settings, signals, config.extensions, directory, events_only=events_only
            ),
        )

    def _recovery(self, config: Config, storage: str) -> _Plan:
        path, directory = f"processors.{config.drift_id}", self._directory(storage, config)
        keeping = build.keeping(config.drift)
        return _plan(Recovery, self._supply.work, directory, path, keeping, self._supply.clock)

    def _directory(self, name: str, config: Config) -> Directory:
        """That of a file_storage: the same one as long as its settings are the same."""
        settings = build.storage(name, config.extensions)
        return self._directories.setdefault((name, settings), Directory(settings))

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


def _there(directory: Directory) -> _Plan:
    return _Plan(directory, lambda: directory)


def _made(path: str, plan: _Plan) -> _Running:
    try:
        with about(path):
            return _Running(plan, plan.make())
    except ConfigurationError as error:
        raise ConfigurationError(f"{path}: {error}") from error


def _same(one: _Running, plan: _Plan | None) -> bool:
    return plan is not None and one.plan.recipe == plan.recipe


def _exclusive(parts: Mapping[str, _Running]) -> dict[str, _Running]:
    """Those that hold what their successors need: a port, a file, a directory."""
    return {path: one for path, one in parts.items() if not _shares(one.part)}


def _shares(part: Part) -> bool:
    return not part.durable if isinstance(part, OtlpExporter) else isinstance(part, Console)


async def _stop(parts: Mapping[str, _Running], grace: float) -> None:
    """Stop them together; directories last, when nobody writes to them any more."""
    stopping = [one.part for one in parts.values()]
    await asyncio.gather(*(part.stop(grace) for part in stopping if not isinstance(part, Directory)))
    await asyncio.gather(*(part.stop(grace) for part in stopping if isinstance(part, Directory)))


def _signals_to(exporter: str, config: Config) -> list[Signal]:
    """What an exporter sends: drift, what is passed on, or both."""
    found = _passed_on_to(exporter, config)
    if exporter in config.drift_exporters:
        found |= {METRICS, LOGS} if config.drift.events else {METRICS}
    return [signal for signal in SIGNALS.values() if signal in found]


def _passed_on_to(exporter: str, config: Config) -> set[Signal]:
    return {SIGNALS[route.signal] for route in config.routes if exporter in route.exporters}
