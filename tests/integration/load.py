"""A load generator: a few connections ask a server on and on, and note who has answered, and when."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

Connection = tuple[asyncio.StreamReader, asyncio.StreamWriter]
PAUSE = 0.02
"""Seconds before a connection that was refused or closed is tried again."""


@dataclass(slots=True)
class Answers:
    """What came back."""

    by: list[tuple[str, int]] = field(default_factory=list)
    """Body and Unix nanoseconds of every answer, each with status 200."""
    asked_again: int = 0
    """Requests that a closing connection left without an answer."""

    def counts(self) -> Counter[str]:
        """Answers by body."""
        return Counter(body for body, _ in self.by)

    def since(self, body: str, when: int) -> int:
        """Answers with this body after `when`."""
        return sum(said == body and at > when for said, at in self.by)


def load(
    port: int,
    requests: int,
    *,
    connections: int = 8,
    timeout: float = 30,
    on_answer: Callable[[int, str], None] = lambda number, body: None,
) -> Answers:
    """Ask for `/0`, `/1` and so on until all are answered; `on_answer` is told how many there are, and the last one.

    TimeoutError when there is no answer for `timeout` seconds.
    """
    return asyncio.run(_load(port, requests, connections, timeout, on_answer))


async def _load(
    port: int, requests: int, connections: int, timeout: float, on_answer: Callable[[int, str], None]
) -> Answers:
    answers, numbers = Answers(), iter(range(requests))
    await asyncio.gather(*(_asker(port, numbers, answers, timeout, on_answer) for _ in range(connections)))
    return answers


async def _asker(
    port: int, numbers: Iterator[int], answers: Answers, timeout: float, on_answer: Callable[[int, str], None]
) -> None:
    connection: Connection | None = None
    try:
        for number in numbers:
            body = None
            while body is None:
                try:
                    connection = connection or await asyncio.open_connection("127.0.0.1", port)
                    body, stays = await asyncio.wait_for(_ask(*connection, number), timeout)
                except (ConnectionError, asyncio.IncompleteReadError):
                    answers.asked_again += 1
                    stays = False
                    await asyncio.sleep(PAUSE)
                if not stays and connection is not None:
                    connection[1].close()
                    connection = None
            answers.by.append((body, time.time_ns()))
            on_answer(len(answers.by), body)
    finally:
        if connection is not None:
            connection[1].close()


async def _ask(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, number: int) -> tuple[str, bool]:
    """The body of the answer, and whether the connection stays open."""
    writer.write(f"GET /{number} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode())
    head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
    assert head.split()[1] == "200", head
    length = int(head.partition("content-length:")[2].split()[0])
    return (await reader.readexactly(length)).decode(), "connection: close" not in head
