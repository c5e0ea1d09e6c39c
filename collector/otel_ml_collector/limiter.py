"""Who may come in: bounds on memory, and on what is under way for all senders and for each.

Both refuse with `Overloaded`, which senders take as "later", never as "drop it".
"""

from __future__ import annotations

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
    def request(self, sender: str) -> Iterator[Callable[[int], None]]:
        """A place for one request, and what to call with the bytes it comes to hold; both raise Overloaded."""
        held = 0

        def hold(size: int) -> None:
            nonlocal held
            self._bytes.take(sender, size)
            held += size

        self._requests.take(sender, 1)
        try:
            yield hold
        finally:
            self._bytes.give(sender, held)
            self._requests.give(sender, 1)


class _Share:
    def __init__(self, what: str, limit: int, limit_of_one: int) -> None:
        self._what, self._limit, self._limit_of_one = what, limit, limit_of_one
        self._taken = 0
        self._of: Counter[str] = Counter()

    def take(self, sender: str, amount: int) -> None:
        if self._taken + amount > self._limit:
            raise self._busy(f"all senders together have {self._limit} {self._what} at most")
        if self._of[sender] + amount > self._limit_of_one:
            raise self._busy(f"one sender has {self._limit_of_one} {self._what} at most")
        self._taken += amount
        self._of[sender] += amount

    def give(self, sender: str, amount: int) -> None:
        self._taken -= amount
        self._of[sender] -= amount
        if not self._of[sender]:
            del self._of[sender]

    @staticmethod
    def _busy(what: str) -> Overloaded:
        return Overloaded(f"{what}; try again later", retry_after=_BUSY_RETRY, busy=True)
