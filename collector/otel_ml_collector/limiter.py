"""Who may come in: bounds on memory, and on what is under way for all senders and for each.

Both refuse with `Overloaded`, which senders take as "later", never as "drop it".
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import gc
import os
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

from otel_ml.errors import ConfigurationError, OtelMLError

_MIB = 1024 * 1024
_STATM = Path("/proc/self/statm")
_M_ARENA_MAX = -8
_BUSY_RETRY = 1.0
_MEMORY_RETRY = 5.0


class Overloaded(OtelMLError):
    """The service cannot take anything for now; the sender should try again after `retry_after` seconds.

    `busy`: because of too many requests, the sender's or all, rather than the state of the service.
    """

    def __init__(self, message: str, *, retry_after: float = 5.0, busy: bool = False) -> None:
        super().__init__(message)
        self.retry_after = retry_after
        self.busy = busy


# --- memory -----------------------------------------------------------------------------------------------


def resident_bytes() -> int:
    """Memory of this process that is in RAM. Raises ConfigurationError where the system does not tell."""
    try:
        pages = int(_STATM.read_text().split()[1])
    except OSError as error:
        raise ConfigurationError(
            f"memory_limiter needs {_STATM}, which only Linux has; leave it out"
        ) from error
    return pages * os.sysconf("SC_PAGE_SIZE")


def give_back() -> None:
    """Collect garbage, and hand free memory back to the system, which the C library does only when told."""
    gc.collect()
    with contextlib.suppress(OSError, AttributeError):  # not glibc
        ctypes.CDLL(None).malloc_trim(0)


def one_heap() -> None:
    """Let all threads share a heap of the C library; to be called before there are any.

    Else each has its own, keeps what it freed, and a tenth of the memory is held for nothing.
    """
    with contextlib.suppress(OSError, AttributeError):  # not glibc
        ctypes.CDLL(None).mallopt(_M_ARENA_MAX, 1)


class MemoryLimiter:
    """Refuses while the process holds more than `limit` - `spike` bytes, as the Collector's does.

    Measured when asked, at most once in `check_interval` seconds. `spike` is what may come in between two
    measurements.
    """

    def __init__(
        self,
        *,
        limit: int,
        spike: int,
        check_interval: float,
        measure: Callable[[], int] = resident_bytes,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        measure()
        self._soft, self._interval = limit - spike, check_interval
        self._measure, self._clock = measure, clock
        self._due = clock()
        self._held = 0

    def check(self) -> None:
        """Overloaded when there is too little memory left to take a request in."""
        if self._clock() >= self._due:
            self._held = self._measure()
            if self._held > self._soft:
                give_back()
                self._held = self._measure()
            self._due = self._clock() + self._interval
        if self._held > self._soft:
            raise Overloaded(
                f"memory_limiter: {self._held // _MIB} MiB are in use, requests are taken below "
                f"{self._soft // _MIB} MiB; try again later",
                retry_after=_MEMORY_RETRY,
            )


# --- requests under way -----------------------------------------------------------------------------------


class Admission:
    """Requests under way and the bytes they hold: bounds for all senders, and a share for each.

    A sender is an address. One that sends slowly, or much at once, uses up its own share only: a quarter of
    the requests, half of the bytes.
    """

    def __init__(self, *, requests: int, held_bytes: int) -> None:
        self._requests = _Share("requests under way", requests, max(1, requests // 4))
        self._bytes = _Share("bytes of requests under way", held_bytes, held_bytes // 2)

    @contextlib.contextmanager
    def request(self, sender: str) -> Iterator[Place]:
        """A place for one request, given back with all it holds at the end; raises Overloaded."""
        self._requests.take(sender, 1)
        place = Place(sender, self._bytes)
        try:
            yield place
        finally:
            place.keep(0)
            self._requests.give(sender, 1)


class Place:
    """What one request holds of the bytes there are."""

    def __init__(self, sender: str, share: _Share) -> None:
        self._sender, self._share = sender, share
        self._held = 0

    def hold(self, size: int) -> None:
        """Hold as many bytes more; raises Overloaded."""
        self._share.take(self._sender, size)
        self._held += size

    async def reserve(self, size: int, timeout: float) -> None:
        """As `hold`, but bytes that are taken are waited for; Overloaded after `timeout` seconds."""
        deadline = time.monotonic() + timeout
        while self._share.lack(self._sender, size) and (left := deadline - time.monotonic()) > 0:
            await self._share.given(left)
        self.hold(size)

    def keep(self, size: int) -> None:
        """Give back what is held beyond `size` bytes."""
        self._share.give(self._sender, self._held - size)
        self._held = size


class _Share:
    def __init__(self, what: str, limit: int, limit_of_one: int) -> None:
        self._what, self._limit, self._limit_of_one = what, limit, limit_of_one
        self._taken = 0
        self._of: Counter[str] = Counter()
        self._waiting: list[asyncio.Future[None]] = []

    def lack(self, sender: str, amount: int) -> str:
        """Why a sender cannot have so much more; empty when it can."""
        if self._taken + amount > self._limit:
            return f"all senders together have {self._limit} {self._what} at most"
        if self._of[sender] + amount > self._limit_of_one:
            return f"one sender has {self._limit_of_one} {self._what} at most"
        return ""

    def take(self, sender: str, amount: int) -> None:
        if lack := self.lack(sender, amount):
            raise Overloaded(f"{lack}; try again later", retry_after=_BUSY_RETRY, busy=True)
        self._taken += amount
        self._of[sender] += amount

    def give(self, sender: str, amount: int) -> None:
        self._taken -= amount
        self._of[sender] -= amount
        if not self._of[sender]:
            del self._of[sender]
        waiting, self._waiting = self._waiting, []
        for one in waiting:
            if not one.done():
                one.set_result(None)

    async def given(self, timeout: float) -> None:
        """Return when something was given back, or after `timeout` seconds."""
        given: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(given)
        await asyncio.wait({given}, timeout=timeout)
