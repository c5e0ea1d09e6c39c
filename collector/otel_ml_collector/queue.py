"""A bounded queue in front of one backend: requests wait, are retried with backoff, are counted when lost.

`offer` never blocks. A full queue refuses the newest request, as the OpenTelemetry Collector's does. Where requests
wait is a Line: in memory, or on disk (`backlog`).
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
from typing import Literal, Protocol

_LOG = logging.getLogger(__name__)

MAX_BYTES = 128 * 1024 * 1024
"""What may wait in the memory of one queue, so that a backend that stays away does not cost all of it."""
_LONGEST_PAUSE = 3600.0
"""Seconds that a backend may ask to wait; more would be a mistake of its."""
_LAST_PAUSE = 0.5
"""Seconds between attempts while the queue drains before a stop."""
_DISK_PAUSE = 5.0
"""Seconds before a line that could not say what waits is asked again."""

Sizer = Literal["requests", "items", "bytes"]
"""What the room of a queue is counted in."""


@dataclass(frozen=True, slots=True)
class Item:
    """One request as bytes, and how many data points are in it."""

    data: bytes
    points: int


@dataclass(frozen=True, slots=True)
class Size:
    """How much waits."""

    requests: int = 0
    items: int = 0
    bytes: int = 0

    @classmethod
    def of(cls, item: Item) -> Size:
        """That of one request."""
        return cls(1, item.points, len(item.data))

    def __add__(self, other: Size) -> Size:
        return Size(self.requests + other.requests, self.items + other.items, self.bytes + other.bytes)

    def __sub__(self, other: Size) -> Size:
        return Size(self.requests - other.requests, self.items - other.items, self.bytes - other.bytes)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one attempt to send."""

    ok: bool
    retry: bool = False
    """The backend may take it later."""
    message: str = ""
    """Why; empty when that was said already."""
    after: float | None = None
    """Seconds the backend asked to wait."""
    rejected: int = 0
    """Points the backend refused from a request it took."""
    unsupported: bool = False
    """The backend takes nothing of this kind at all."""


@dataclass(frozen=True, slots=True)
class Retry:
    """When a request is sent again; seconds. `max_elapsed` 0: for ever."""

    initial: float = 5.0
    maximum: float = 30.0
    max_elapsed: float = 300.0
    multiplier: float = 1.5
    randomization: float = 0.5
    """A pause is spread by this part of it, both ways."""

    def delay(self, attempt: int, spread: float) -> float:
        """Seconds before attempt `attempt` + 1 (from 1), for a `spread` in [0, 1)."""
        exponent = min(attempt - 1, 64)
        base = min(self.maximum, self.initial * self.multiplier**exponent)
        return base * (1 - self.randomization + 2 * self.randomization * spread)


@dataclass(slots=True)
class Counts:
    """Data points by what became of them."""

    sent: int = 0
    failed: int = 0
    refused: int = 0
    """The queue was full."""
    in_memory: int = 0
    """Those that had to wait in memory, because the disk failed."""


class Line(Protocol):
    """Where requests wait, in order."""

    counts: Counts

    @property
    def durable(self) -> bool:
        """Whether what waits outlives the process."""
        ...

    @property
    def settled(self) -> bool:
        """Whether all that waits can be had; if not, `first` may find more later."""
        ...

    @property
    def size(self) -> Size:
        """What waits or is under way."""
        ...

    @property
    def memory(self) -> int:
        """Bytes of it that are in memory."""
        ...

    def put(self, item: Item) -> None:
        """Take it as the last; call `stored` after that."""

    async def open(self) -> None:
        """Find out what waits from before."""

    async def stored(self) -> None:
        """Return once all that was put is where it stays."""

    async def first(self) -> Item | None:
        """The request whose turn it is, until it is `done`; None when none waits."""

    async def done(self) -> None:
        """Forget the first."""

    async def close(self) -> Size:
        """End it; what is lost by that."""
        ...


class InMemory:
    """A line that ends with the process."""

    durable = False
    settled = True

    def __init__(self) -> None:
        self.counts = Counts()
        self.size = Size()
        self._items: deque[Item] = deque()

    @property
    def memory(self) -> int:
        """Bytes that wait."""
        return self.size.bytes

    def put(self, item: Item) -> None:
        """Take it as the last."""
        self._items.append(item)
        self.size += Size.of(item)

    async def open(self) -> None:
        """Nothing waits from before."""

    async def stored(self) -> None:
        """It is where it stays."""

    async def first(self) -> Item | None:
        """The request whose turn it is."""
        return self._items[0] if self._items else None

    async def done(self) -> None:
        """Forget the first."""
        self.size -= Size.of(self._items.popleft())

    async def close(self) -> Size:
        """All that waits is lost."""
        lost, self.size = self.size, Size()
        self._items.clear()
        return lost


Send = Callable[[bytes], Awaitable[Outcome]]
Pause = Callable[[float, asyncio.Event], Awaitable[None]]


async def pause(seconds: float, wake: asyncio.Event) -> None:
    """Wait for `seconds`, or less when `wake` is set."""
    with contextlib.suppress(asyncio.TimeoutError):
        await asyncio.wait_for(wake.wait(), seconds)


class SendingQueue:
    """Sends what it is offered, in order, one request at a time; so much may wait as has room in `size`."""

    def __init__(
        self,
        name: str,
        send: Send,
        *,
        size: int = 1000,
        sizer: Sizer = "requests",
        line: Line | None = None,
        retry: Retry | None = None,
        unit: str = "points",
        clock: Callable[[], float] = time.monotonic,
        spread: Callable[[], float] = random.random,
        pause: Pause = pause,
    ) -> None:
        self.name = name
        self._unit = unit
        self.capacity = size
        """In the unit of the sizer."""
        self._line: Line = InMemory() if line is None else line
        self.counts = self._line.counts
        self._send, self._retry, self._sizer = send, retry, sizer
        self._clock, self._spread, self._pause = clock, spread, pause
        self._filled = asyncio.Event()
        self._stopping = asyncio.Event()
        self._worker: asyncio.Task[None] | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._down_since: float | None = None
        self._full = False

    def __len__(self) -> int:
        """Requests that are waiting or under way."""
        return self._line.size.requests

    @property
    def used(self) -> int:
        """What is waiting or under way, in the unit of the capacity."""
        return self._in_unit(self._line.size)

    def _in_unit(self, size: Size) -> int:
        return {"requests": size.requests, "items": size.items, "bytes": size.bytes}[self._sizer]

    def has_room(self, item: Item) -> bool:
        """Whether a request would be taken; a queue that is empty takes one of any size."""
        if self._stopping.is_set() or self._line.memory + len(item.data) > MAX_BYTES:
            return False
        return not len(self) or self.used + self._in_unit(Size.of(item)) <= self.capacity

    async def open(self) -> None:
        """Find out what waits from before."""
        await self._line.open()

    def start(self) -> None:
        """Begin to send; needs a running event loop."""
        self._worker = asyncio.create_task(self._work(), name=f"{self.name} queue")

    def offer(self, item: Item) -> bool:
        """Take a request to send it when its turn comes; False when there is no room for it.

        Where a queue on disk is concerned, `stored` says when it is there.
        """
        if not self.has_room(item):
            self.counts.refused += item.points
            if not self._full:
                _LOG.warning(
                    "exporter %s: its queue is full with %d requests; new data is dropped until it has room",
                    self.name, len(self),
                )  # fmt: skip
            self._full = True
            return False
        self._full = False
        self._line.put(item)
        self._filled.set()
        if self._line.durable:
            self._keep(asyncio.create_task(self._line.stored()))
        return True

    def _keep(self, task: asyncio.Task[None]) -> None:
        # The loop holds tasks weakly.
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def stored(self) -> None:
        """Return once all that was offered is where it stays: on disk, if the queue is there."""
        await self._line.stored()

    async def stop(self, grace: float) -> None:
        """Send what is waiting for up to `grace` seconds; what is left stays on disk, or is counted as failed.

        From a disk as long as the backend takes it: what it does not take now is sent after the next start.
        """
        self._stopping.set()
        self._filled.set()
        if self._worker is not None:
            await asyncio.wait([self._worker], timeout=grace)
            while not self._worker.done():  # before Python 3.12 wait_for can swallow a cancellation
                self._worker.cancel()
                await asyncio.wait([self._worker], timeout=0.1)
        lost = await self._line.close()
        if lost.requests:
            _LOG.warning(
                "exporter %s: %d requests could not be sent before the stop", self.name, lost.requests
            )
        if len(self):
            _LOG.info(
                "exporter %s: %d requests stay on disk; they are sent once this exporter runs again",
                self.name,
                len(self),
            )
        self.counts.failed += lost.items

    async def _work(self) -> None:
        while True:
            self._filled.clear()  # before it is looked: what comes meanwhile is not overlooked
            while (item := await self._line.first()) is not None:
                if not await self._deliver(item):
                    return
                await self._line.done()
            if self._stopping.is_set():
                return
            if self._line.settled:
                await self._filled.wait()
            else:
                await self._pause(_DISK_PAUSE, self._filled)

    async def _deliver(self, item: Item) -> bool:
        """Whether the line goes on to the next; False at a stop, when this one stays."""
        first, attempt = self._clock(), 0
        while True:
            attempt += 1
            outcome = await self._attempt(item)
            if outcome.ok:
                self._delivered(item, outcome)
                return True
            delay = self._delay(outcome, attempt, self._clock() - first)
            if delay is None:
                self._lost(item, outcome)
                return True
            self._waiting(outcome)
            if not self._stopping.is_set():
                await self._pause(delay, self._stopping)
            elif self._line.durable and self._line.settled:
                return False
            else:
                await asyncio.sleep(min(delay, _LAST_PAUSE))

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
                "exporter %s: the backend refused %d of %d %s: %s",
                self.name, outcome.rejected, item.points, self._unit, outcome.message,
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
        if outcome.message:
            _LOG.error("exporter %s: %d %s are lost: %s", self.name, item.points, self._unit, outcome.message)
