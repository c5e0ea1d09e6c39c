"""The running collector: receivers → engine → exporters, in one event loop.

    start()    listen, or fail with the component that cannot; nothing is left running then
    run(stop)  advance the engine on a timer and export what it says, until `stop` is set
    stop()     receive no more, export the last evaluation, let the queues drain

The engine is called in the loop and one call at a time, so it needs no locks. Between two models, and between
two requests that go out, requests that come in have their turn.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import sys
import time
import uuid
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, TextIO

from otel_ml import semconv
from otel_ml._version import __version__
from otel_ml.errors import ConfigurationError

from . import build, describe, emit, supervisor, telemetry
from .alerts import Alerts
from .config import Config
from .conflicts import unguarded
from .emit import Judged, Sample
from .evaluation import Evaluation, ModelKey
from .exporter import OtlpExporter
from .fields import written
from .files import BaselineFiles
from .health import HealthEndpoint
from .limiter import Overloaded
from .parts import Console, Parts, Supply
from .points import PointBatch
from .queue import Item
from .receiver import Receiver
from .recovery import Recovery, Work
from .scrape import ScrapeServer
from .settings import Prometheus
from .snapshot import Plain, pack, unpack
from .webhook import WebhookExporter

_LOG = logging.getLogger(__name__)

_S = 1_000_000_000
_MAX_PENDING = 2**25
"""Numbers that may wait in the reorder buffer, 256 MiB; beyond it senders are asked to come back later."""
_STUCK = 60.0
"""Seconds without a sign of life after which the work does not go on; evaluating one model takes milliseconds."""
_MAX_MESSAGES = 1000
"""Different messages of the engine that are logged; more would be noise."""


@dataclass(frozen=True, slots=True)
class Ports:
    """The ports that are listened on; None for what does not run."""

    grpc: int | None = None
    http: int | None = None
    prometheus: int | None = None
    health: int | None = None


class Service:
    """One collector, as `config` describes it; make it inside a running event loop."""

    def __init__(
        self, config: Config, *, clock: Callable[[], int] = time.time_ns, out: TextIO = sys.stdout
    ) -> None:
        drift = config.drift
        self._config, self._clock = config, clock
        self._policy, self._window = build.policy(drift), build.window_spec(drift)
        self._files = BaselineFiles(drift.baseline.path)
        self._new_engine = partial(build.engine, drift, self._files.read(), started=clock())
        self._engine = self._new_engine()
        self._wire = "wire" in drift.baseline.sources
        self._resource = {
            semconv.SERVICE_NAME: "otel-ml-collector",
            semconv.SERVICE_INSTANCE_ID: str(uuid.uuid4()),
            semconv.SERVICE_VERSION: __version__,
        }
        self._gauges: Sequence[Sample] = ()
        self._own: Sequence[Sample] = ()
        self._held: set[Judged] = set()
        self._said: set[str] = set()
        self._models: set[ModelKey] = set()
        """Those with a verdict at the last export."""
        self._failures: Counter[str] = Counter()
        self._reloaded, self._configured = True, clock()
        self._exported = clock()
        self._ready = False
        self._beat = time.monotonic()
        self._points_in = self._points_out = 0
        self._recovery: Recovery | None = None
        self._under_way: Iterator[Evaluation] = iter(())
        self._whole = True
        """Whether the advance came to its end: one that a stop broke off leaves a state that cannot be kept."""
        self._hurry: Callable[[], bool] = lambda: False
        """Whether there is no time left to evaluate more models."""
        self._parts = Parts(
            Supply(
                consume=self._consume,
                gauges=lambda: (*self._gauges, *self._own),
                own=lambda: self._own,
                ready=lambda: self._ready and self._parts.complete,
                alive=lambda: time.monotonic() - self._beat < _STUCK,
                work=Work(self._capture, self._resume, self._ingest, self._evaluations, self._kept_by),
                clock=clock,
                delivered=lambda name, trigger: self._alerts.delivered(name, trigger),
                out=out,
            )
        )
        self._alerts = Alerts(config, self._parts)

    # --- life ---

    async def start(self) -> Ports:
        """Listen everywhere; `ConfigurationError` names the component whose endpoint cannot be had."""
        self._warn()
        await self._parts.change(self._config)
        if self._recovery is not None and self._recovery.resumed:
            await self._send(self._clock())
        self._refresh_own()
        self._beat = time.monotonic()
        self._ready = True
        # What is alive now stays alive: the collector of garbage need not look at it again.
        gc.collect()
        gc.freeze()
        return self.ports()

    async def reload(self, config: Config) -> None:
        """Run on with another configuration: what did not change in it is not touched, no count is lost.

        Raises ConfigurationError, and everything is as before, when that cannot be had. Not while the engine
        advances: call it between two ticks.
        """
        old, new = self._config.drift, config.drift
        differ = build.changed(old, new) if build.fixed(new) != build.fixed(old) else []
        if new.storage and config.drift_id != self._config.drift_id:
            differ.append(f"its name ({self._config.drift_id} before)")
        if new.storage and config.extensions[new.storage] != self._config.extensions.get(new.storage):
            differ.append(f"extensions.{new.storage}")
        if differ:
            raise ConfigurationError(
                f"processors.{config.drift_id}: {', '.join(differ)} cannot change while counts are kept; "
                "restart for that"
            )
        files = BaselineFiles(new.baseline.path)
        baselines = await asyncio.to_thread(files.read)
        await self._parts.change(config)
        self._config, self._files = config, files
        self._alerts.use(config)
        self._policy = self._engine.policy = build.policy(new)
        self._engine.use_files(baselines)
        self._warn()
        self._refresh_own()

    def note_reload(self, *, successful: bool) -> None:
        """Let the own metrics say whether the last configuration that was read is in use."""
        self._reloaded = successful
        if successful:
            self._configured = self._clock()
        self._refresh_own()

    def _warn(self) -> None:
        for path in unguarded(self._config.receivers):
            _LOG.warning(
                "%s listens on every interface without authentication; give it auth or client_ca_file, or "
                "an endpoint like localhost", path,
            )  # fmt: skip

    async def run(self, stop: asyncio.Event, between: Callable[[], Awaitable[None]] | None = None) -> None:
        """Work until `stop` is set; between two ticks `between` has its turn, which may `reload`."""
        self._hurry = stop.is_set
        period = min(1.0, self._window.step / 2, self._window.refresh / 2)
        while not stop.is_set():
            await self.tick()
            if between is not None:
                await between()
            try:
                await asyncio.wait_for(stop.wait(), period)
            except asyncio.TimeoutError:
                continue

    async def stop(self, grace: float) -> None:
        """Receive no more, export what is known, and send what is waiting, all within `grace` seconds."""
        deadline = time.monotonic() + grace

        def left() -> float:
            return max(0.0, deadline - time.monotonic())

        self._ready = False
        self._hurry = lambda: left() <= grace / 4
        await self._parts.stop(left() / 2, Receiver)
        # A stop can come while the state is taken up.
        if self._recovery is not None or self._config.drift.storage is None:
            await self._last_tick(left)
        await self._parts.stop(left(), OtlpExporter, WebhookExporter)
        await self._parts.stop(min(left(), 0.5))

    def ports(self) -> Ports:
        """The ports that are listened on; of several components of a kind, the first one's."""
        receivers = self._parts.of(Receiver).values()
        pages = [name for name, one in self._config.exporters.items() if isinstance(one, Prometheus)]
        return Ports(
            grpc=next((one.grpc_port for one in receivers if one.grpc_port is not None), None),
            http=next((one.http_port for one in receivers if one.http_port is not None), None),
            prometheus=self._parts.of(ScrapeServer)[pages[0]].port if pages else None,
            health=next((health.port for health in self._parts.of(HealthEndpoint).values()), None),
        )

    # --- work ---

    def _consume(self, batch: PointBatch, body: bytes) -> Mapping[str, int]:
        if self._engine.pending_values > _MAX_PENDING:
            raise Overloaded("too many points wait for their window; send them again later")
        now = self._clock()
        rejected = self._ingest(batch, now)
        if self._recovery is not None:
            self._recovery.accepted(body, now)
        return rejected

    def _ingest(self, batch: PointBatch, now: int) -> Mapping[str, int]:
        if not self._wire:
            batch = build.without_baselines(batch)
        self._points_in += len(batch)
        return self._engine.ingest(batch, now) if len(batch) else {}

    async def tick(self) -> None:
        """Advance the engine to now, and export when it has something new or it is time."""
        self._lives()
        now = self._clock()
        # A clock that was set back must not keep anything from going out until it gets there again.
        due = abs(now - self._exported) >= round(self._window.refresh * _S)
        if due:
            await self._renew_baselines()
        new = await self._advance(now)
        # Before it goes out: what was said of a window is not said otherwise after a restart.
        await self._save(now, changed=new)
        if (new or due) and not self._hurry():
            await self._send(now)
        with self._guarded("parts"):
            await self._parts.revive()
        with self._guarded("certificates"):
            for receiver in self._parts.of(Receiver).values():
                receiver.renew()
        with self._guarded("telemetry"):
            self._refresh_own()

    async def _renew_baselines(self) -> None:
        with self._guarded("baselines"):
            # In a thread: a large file must not hold up the receivers.
            renewed = await asyncio.to_thread(self._files.renew)
            if renewed is not None:
                self._engine.use_files(renewed)

    async def _last_tick(self, left: Callable[[], float]) -> None:
        """Evaluate and export all that was received, or keep it, where the state is kept, in the seconds `left`.

        What is kept is not evaluated: windows would end before their time.
        """
        now, refresh = self._clock(), round(self._window.refresh * _S)
        if self._recovery is None:
            # The engine refreshes its numbers at whole multiples of the interval, once the lateness is over.
            await self._advance(-(-now // refresh) * refresh + round(self._window.lateness * _S))
            await self._send(now)
        else:
            if not self._whole:
                await self._evaluate(now)
            if self._whole:
                await self._recovery.save(now, patience=left())
                await self._send(now)
            else:
                _LOG.warning(
                    "there was no time to evaluate all models; a restart goes on from what was kept before"
                )
        with self._guarded("telemetry"):
            self._refresh_own()

    async def _advance(self, to: int) -> bool:
        """True when the engine has something new."""
        if self._recovery is not None:
            self._recovery.advances(to)
        self._under_way = self._evaluations(to)
        return await self._evaluate(to)

    async def _evaluate(self, to: int) -> bool:
        """Go on with the advance under way until it ends, or a stop breaks it off: what it leaves out is as it was."""
        new, self._whole = not self._whole, False
        with self._guarded("advance"):
            for _ in self._under_way:
                new = True
                if self._recovery is not None:
                    self._recovery.evaluated()
                await self._others()
                if self._hurry():
                    return new
        self._whole = True
        if self._recovery is not None:
            self._recovery.advanced()
        with self._guarded("alerts"):
            if new:
                self._alerts.look(self._engine.current(to), self._clock())
        with self._guarded("messages"):
            self._say()
        return new

    def _evaluations(self, to: int) -> Iterator[Evaluation]:
        self._beat = time.monotonic()  # a journal that is replayed is a sign of life
        for evaluation in self._engine.advancing(to):
            self._beat = time.monotonic()
            self._held |= emit.judged([evaluation])
            self._alerts.take(evaluation)
            yield evaluation

    # --- what is kept -------------------------------------------------------------------------------------

    async def _save(self, now: int, *, changed: bool) -> None:
        if self._recovery is not None and self._whole and self._recovery.due(now, changed=changed):
            await self._recovery.save(now)

    def _kept_by(self, recovery: Recovery) -> None:
        self._recovery = recovery

    def _capture(self) -> Callable[[], Plain]:
        engine, held, alerts = self._engine.capture(), self._held.copy(), self._alerts.state()
        return lambda: {"engine": pack(engine), "held": pack(held), "alerts": alerts}

    def _resume(self, state: Mapping[str, Any]) -> None:
        engine, held = self._new_engine(), unpack(state["held"])
        engine.restore(state["engine"])
        if not self._wire:
            engine.forget_wire()
        self._alerts.restore(state["alerts"])
        self._engine, self._held = engine, held

    async def _send(self, now: int) -> None:
        self._exported = now
        with self._guarded("export"):
            await self._export(now)
        with self._guarded("alerts"):
            self._alerts.send(self._resource, now)

    async def _others(self) -> None:
        """Let the requests that wait have their turn."""
        self._lives()
        await asyncio.sleep(0)

    def _lives(self) -> None:
        """Note that the work goes on, for who asks and for the service manager."""
        self._beat = time.monotonic()
        supervisor.alive()

    @contextlib.contextmanager
    def _guarded(self, place: str) -> Iterator[None]:
        """A failure inside is logged and counted, and the next tick is another chance."""
        try:
            yield
        except Exception:
            self._failures[place] += 1
            if self._failures[place] == 1:
                _LOG.exception("%s failed; it is tried again, further failures are only counted", place)

    def _say(self) -> None:
        for message in self._engine.messages():
            if message not in self._said and len(self._said) < _MAX_MESSAGES:
                self._said.add(message)
                _LOG.warning("%s", message, extra={"about": f"processors.{self._config.drift_id}"})

    async def _export(self, now: int) -> None:
        current = self._engine.current(now)
        self._forget(current)
        gauges: list[Sample] = []
        for evaluation in current:
            gauges += emit.gauges([evaluation], self._policy, now, held=self._held)
            await self._others()
        self._gauges = gauges
        self._points_out += len(gauges)
        for part in emit.batches(gauges) if self._parts.drift_queues else ():
            data = emit.request(part, self._resource, now).SerializeToString()
            for queue in self._parts.drift_queues:
                queue.offer(Item(data, len(part)))
            await self._others()
        for console in self._parts.of(Console).values():
            console.export(current, self._held)

    def _forget(self, current: Sequence[Evaluation]) -> None:
        """Let go of verdicts on what is no longer there."""
        models = {one.model for one in current}
        for key in self._models - models:
            self._say_forgotten(key)
        self._models = models
        live = {(one.model, one.window_name) for one in current}
        self._held = {judged for judged in self._held if judged[:2] in live}

    def _say_forgotten(self, key: ModelKey) -> None:
        idle = written(self._window.expiry_ns / _S)
        message = f"model {key.model!r} {key.version!r} of {key.service_name!r} is forgotten: nothing came for {idle}"
        if message not in self._said and len(self._said) < _MAX_MESSAGES:
            self._said.add(message)
            _LOG.info("%s", message, extra={"about": f"processors.{self._config.drift_id}"})

    def _refresh_own(self) -> None:
        samples: list[Sample] = []
        for name, receiver in self._parts.of(Receiver).items():
            samples.extend(telemetry.of_receiver(name, receiver))
        for exporter in self._parts.of(OtlpExporter).values():
            samples.extend(telemetry.of_exporter(exporter))
        for webhook in self._parts.of(WebhookExporter).values():
            samples.extend(telemetry.of_webhook(webhook))
        drift = self._config.drift_id
        samples.extend(telemetry.of_processor(drift, incoming=self._points_in, outgoing=self._points_out))
        samples.extend(telemetry.of_process())
        samples.extend(telemetry.of_collector(self._configured, reloaded=self._reloaded))
        if self._recovery is not None:
            samples.extend(telemetry.of_recovery(self._recovery, self._clock()))
        failures = {**self._failures, "event_limit": self._alerts.left_out}
        samples.extend(telemetry.of_engine(self._engine.counters(), self._engine.stats(), failures))
        self._own = samples

    def describe(self) -> list[str]:
        """What runs, in a few lines for people."""
        return describe.lines(self._config, self._parts, self._window)
