"""Passing requests on: from a receiver into the queues of exporters, byte for byte."""

from __future__ import annotations

from collections.abc import Sequence

from .limiter import Overloaded
from .queue import Item, SendingQueue

_RETRY = 5.0


class Passage:
    """Puts each request into every one of its queues, or into none: a sender that comes back sends it once."""

    def __init__(self, queues: Sequence[SendingQueue]) -> None:
        self.queues = queues
        """They may be replaced between two requests."""

    def __call__(self, body: bytes, items: int) -> None:
        """Take a request with this many items; Overloaded when a queue has no room for it."""
        full = [queue for queue in self.queues if not queue.has_room(len(body))]
        for queue in full:
            queue.counts.refused += items
        if full:
            names = ", ".join(queue.name for queue in full)
            raise Overloaded(f"the sending queue of {names} is full; try again later", retry_after=_RETRY)
        for queue in self.queues:
            queue.offer(Item(body, items))
