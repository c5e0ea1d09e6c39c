"""A backend that is a function, and a queue in front of it in which time passes only in pauses."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from otel_ml_collector.queue import Item, Line, Outcome, Retry, SendingQueue, Sizer

TAKEN = Outcome(ok=True)
LATER = Outcome(ok=False, retry=True, message="UNAVAILABLE: down")
NEVER = Outcome(ok=False, message="INVALID_ARGUMENT: no")


@dataclass
class Backend:
    """Answers one outcome after another, the last one again and again; time passes only in pauses."""

    outcomes: Sequence[Outcome | Exception] = (TAKEN,)
    received: list[bytes] = field(default_factory=list)
    pauses: list[float] = field(default_factory=list)
    now: float = 0.0

    async def send(self, data: bytes) -> Outcome:
        outcome = self.outcomes[min(len(self.received), len(self.outcomes) - 1)]
        self.received.append(data)
        await asyncio.sleep(0)
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    async def pause(self, seconds: float, wake: asyncio.Event) -> None:
        self.pauses.append(seconds)
        self.now += seconds
        await asyncio.sleep(0)

    def queue(
        self,
        *,
        size: int = 10,
        sizer: Sizer = "requests",
        line: Line | None = None,
        retry: Retry | None = None,
        spread: float = 0.5,
    ) -> SendingQueue:
        return SendingQueue(
            "otlp",
            self.send,
            size=size,
            sizer=sizer,
            line=line,
            retry=retry,
            clock=lambda: self.now,
            spread=lambda: spread,
            pause=self.pause,
        )


def item(data: bytes = b"x", points: int = 5) -> Item:
    return Item(data, points)


async def until(true: Callable[[], bool]) -> None:
    """Let the queue work until it got there."""
    deadline = asyncio.get_running_loop().time() + 30
    while not true():
        assert asyncio.get_running_loop().time() < deadline, "the queue never got there"
        await asyncio.sleep(0)
