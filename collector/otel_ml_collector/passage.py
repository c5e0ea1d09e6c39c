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

    async def __call__(self, body: bytes, items: int) -> None:
        """Take a request with this many items; Overloaded when a queue has no room for it.

        It returns once the request is where it waits: on disk, if the queue is there.
        """
        item, queues = Item(body, items), self.queues
        full = [queue for queue in queues if not queue.has_room(item)]
        for queue in full:
            queue.counts.refused += items
        if full:
            names = ", ".join(queue.name for queue in full)
            raise Overloaded(f"the sending queue of {names} is full; try again later", retry_after=_RETRY)
        for queue in queues:
            queue.offer(item)
        for queue in queues:
            await queue.stored()
