"""Bounds on memory and on what is under way, with memory and a clock that the test holds."""

from __future__ import annotations

import asyncio
import contextlib

import pytest

from otel_ml_collector import limiter
from otel_ml_collector.limiter import Admission, MemoryLimiter, Overloaded

MIB = 1024 * 1024


class Process:
    """Memory and time as the test says."""

    def __init__(self) -> None:
        self.held, self.now, self.measured = 0, 0.0, 0

    def limiter(self) -> MemoryLimiter:
        return MemoryLimiter(
            limit=100 * MIB, spike=20 * MIB, check_interval=1, measure=self.measure, clock=lambda: self.now
        )

    def measure(self) -> int:
        self.measured += 1
        return self.held


def test_requests_are_refused_above_the_soft_limit() -> None:
    """limit - spike is where it begins; the message says both, and when to come back."""
    process = Process()
    memory = process.limiter()
    process.held = 80 * MIB
    memory.check()

    process.now, process.held = 1, 81 * MIB
    with pytest.raises(Overloaded, match="81 MiB are in use, requests are taken below 80 MiB") as caught:
        memory.check()
    assert (caught.value.retry_after, caught.value.busy) == (5, False)

    process.now, process.held = 2, 10 * MIB
    memory.check()


def test_memory_is_measured_once_an_interval() -> None:
    """Many requests cost one look."""
    process = Process()
    memory = process.limiter()
    before = process.measured
    for _ in range(100):
        memory.check()

    assert process.measured - before == 1


def test_this_process_has_a_size() -> None:
    """What is measured is in a plausible range, and giving memory back does not fail."""
    limiter.give_back()

    assert MIB < limiter.resident_bytes() < 64 * 1024 * MIB


def test_one_sender_has_a_quarter_of_the_requests() -> None:
    """Another one comes in all the same, until all places are taken; places are given back."""
    admission = Admission(requests=8, held_bytes=100)
    with admission.request("a"), admission.request("a"):
        with pytest.raises(Overloaded, match="one sender has 2 requests") as caught, admission.request("a"):
            pass
        assert caught.value.busy
        with contextlib.ExitStack() as others:
            for sender in "bbccdd":
                others.enter_context(admission.request(sender))
            with pytest.raises(Overloaded, match="all senders together"), admission.request("e"):
                pass
    with admission.request("a"):
        pass


def test_one_sender_holds_half_of_the_bytes() -> None:
    """What a request held is given back with it, whatever it ended with."""
    admission = Admission(requests=8, held_bytes=100)
    with admission.request("a") as of_a, admission.request("b") as of_b:
        of_a.hold(30)
        of_a.hold(20)
        with pytest.raises(Overloaded, match="one sender has 50 bytes"):
            of_a.hold(1)
        of_b.hold(50)
    with pytest.raises(Overloaded), admission.request("a") as of_a:
        of_a.hold(51)
    with admission.request("a") as of_a:
        of_a.hold(50)


def test_bytes_that_are_taken_are_waited_for() -> None:
    """A reservation comes in when another one shrinks; one that waits too long is refused."""

    async def run() -> None:
        admission = Admission(requests=8, held_bytes=100)
        with admission.request("a") as first, admission.request("a") as second:
            await first.reserve(50, timeout=0)
            with pytest.raises(Overloaded, match="one sender has 50 bytes"):
                await second.reserve(40, timeout=0.01)
            waiting = asyncio.create_task(second.reserve(40, timeout=60))
            await asyncio.sleep(0)
            first.keep(10)
            await waiting
            with pytest.raises(Overloaded):
                first.hold(1)

    asyncio.run(run())
