"""A bounded queue in front of one backend: requests wait, are retried with backoff, are counted when lost.

`offer` never blocks. A full queue refuses the newest request, as the OpenTelemetry Collector's does.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import time
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

_LOG = logging.getLogger(__name__)

_MULTIPLIER = 1.5
_JITTER = 0.5
"""Growth and spread of the backoff, those of the OpenTelemetry Collector."""
MAX_BYTES = 128 * 1024 * 1024
"""What may wait in one queue, so that a backend that stays away does not cost all memory."""
_LONGEST_PAUSE = 3600.0
"""Seconds that a backend may ask to wait; more would be a mistake of its."""
_LAST_PAUSE = 0.5
"""Seconds between attempts while the queue drains before a stop."""


@dataclass(frozen=True, slots=True)
class Item:
    """One request as bytes, and how many data points are in it."""

    data: bytes
    points: int


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one attempt to send."""

    ok: bool
    retry: bool = False
    """The backend may take it later."""
    message: str = ""
    after: float | None = None
    """Seconds the backend asked to wait."""
    rejected: int = 0
    """Points the backend refused from a request it took."""


@dataclass(frozen=True, slots=True)
class Retry:
    """When a request is sent again; seconds. `max_elapsed` 0: for ever."""

    initial: float = 5.0
    maximum: float = 30.0
    max_elapsed: float = 300.0

    def delay(self, attempt: int, spread: float) -> float:
        """Seconds before attempt `attempt` + 1 (from 1), for a `spread` in [0, 1)."""
        exponent = min(attempt - 1, 64)
        base = min(self.maximum, self.initial * _MULTIPLIER**exponent)
        return base * (1 - _JITTER + 2 * _JITTER * spread)


@dataclass(slots=True)
class Counts:
    """Data points by what became of them."""

    sent: int = 0
    failed: int = 0
    refused: int = 0
    """The queue was full."""


Send = Callable[[bytes], Awaitable[Outcome]]
Pause = Callable[[float, asyncio.Event], Awaitable[None]]


async def pause(seconds: float, wake: asyncio.Event) -> None:
    """Wait for `seconds`, or less when `wake` is set."""
    with contextlib.suppress(asyncio.TimeoutError):
        await asyncio.wait_for(wake.wait(), seconds)


class SendingQueue:
    """Sends what it is offered, in order, one request at a time; `size` requests and `MAX_BYTES` may wait."""

    def __init__(
        self,
        name: str,
        send: Send,
        *,
        size: int = 1000,
        retry: Retry | None = None,
        clock: Callable[[], float] = time.monotonic,
        spread: Callable[[], float] = random.random,
        pause: Pause = pause,
    ) -> None:
        self.name = name
        self.capacity = size
        self.counts = Counts()
        self._send, self._retry = send, retry
        self._clock, self._spread, self._pause = clock, spread, pause
        self._items: deque[Item] = deque()
        self._bytes = 0
        self._filled = asyncio.Event()
        self._stopping = asyncio.Event()
        self._worker: asyncio.Task[None] | None = None
        self._down_since: float | None = None
        self._full = False

    def __len__(self) -> int:
        """Requests that are waiting or under way."""
        return len(self._items)

    def has_room(self, size: int) -> bool:
        """Whether a request of `size` bytes would be taken."""
        return len(self._items) < self.capacity and self._bytes + size <= MAX_BYTES

    def start(self) -> None:
        """Begin to send; needs a running event loop."""
        self._worker = asyncio.create_task(self._work(), name=f"{self.name} queue")

    def offer(self, item: Item) -> bool:
        """Take a request to send it when its turn comes; False when there is no room for it."""
        if not self.has_room(len(item.data)):
            self.counts.refused += item.points
            if not self._full:
                _LOG.warning(
                    "exporter %s: its queue is full with %d requests; new data is dropped until it has room",
                    self.name, len(self),
                )  # fmt: skip
            self._full = True
            return False
        self._full = False
        self._items.append(item)
        self._bytes += len(item.data)
        self._filled.set()
        return True

    async def stop(self, grace: float) -> None:
        """Send what is waiting for up to `grace` seconds; what is left then is counted as failed."""
        self._stopping.set()
        self._filled.set()
        if self._worker is not None:
            await asyncio.wait([self._worker], timeout=grace)
            while not self._worker.done():  # before Python 3.12 wait_for can swallow a cancellation
                self._worker.cancel()
                await asyncio.wait([self._worker], timeout=0.1)
        if self._items:
            _LOG.warning("exporter %s: %d requests could not be sent before the stop", self.name, len(self))
        self.counts.failed += sum(item.points for item in self._items)
        self._items.clear()
        self._bytes = 0

    async def _work(self) -> None:
        while True:
            while self._items:
                await self._deliver(self._items[0])
                self._bytes -= len(self._items.popleft().data)
            if self._stopping.is_set():
                return
            self._filled.clear()
            await self._filled.wait()

    async def _deliver(self, item: Item) -> None:
        first, attempt = self._clock(), 0
        while True:
            attempt += 1
            outcome = await self._attempt(item)
            if outcome.ok:
                return self._delivered(item, outcome)
            delay = self._delay(outcome, attempt, self._clock() - first)
            if delay is None:
                return self._lost(item, outcome)
            self._waiting(outcome)
            if self._stopping.is_set():
                await asyncio.sleep(min(delay, _LAST_PAUSE))
            else:
                await self._pause(delay, self._stopping)

    async def _attempt(self, item: Item) -> Outcome:
        try:
            return await self._send(item.data)
        except Exception as error:
            _LOG.exception("exporter %s: sending failed in a way it should not", self.name)
            return Outcome(ok=False, message=f"{type(error).__name__}: {error}")

    def _delay(self, outcome: Outcome, attempt: int, elapsed: float) -> float | None:
        """Seconds to the next attempt, None when there is to be none."""
        if not outcome.retry or self._retry is None:
            return None
        delay = max(self._retry.delay(attempt, self._spread()), min(outcome.after or 0.0, _LONGEST_PAUSE))
        over = self._retry.max_elapsed and elapsed + delay > self._retry.max_elapsed
        return None if over else delay

    def _delivered(self, item: Item, outcome: Outcome) -> None:
        self.counts.sent += item.points - outcome.rejected
        self.counts.failed += outcome.rejected
        if outcome.rejected or outcome.message:
            _LOG.warning(
                "exporter %s: the backend refused %d of %d points: %s",
                self.name, outcome.rejected, item.points, outcome.message,
            )  # fmt: skip
        if self._down_since is not None:
            _LOG.info("exporter %s: sending again after %.0f s", self.name, self._clock() - self._down_since)
            self._down_since = None

    def _waiting(self, outcome: Outcome) -> None:
        if self._down_since is None:
            self._down_since = self._clock()
            _LOG.warning("exporter %s: %s; it is tried again", self.name, outcome.message)

    def _lost(self, item: Item, outcome: Outcome) -> None:
        self.counts.failed += item.points
        _LOG.error("exporter %s: %d points are lost: %s", self.name, item.points, outcome.message)
