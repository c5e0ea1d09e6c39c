"""The queue in front of a backend: order, room, backoff, giving up, draining."""

from __future__ import annotations

import asyncio
from datetime import datetime, timezone

import pytest
from queues import LATER, NEVER, TAKEN, Backend, item, until

from otel_ml_collector import queue as queue_module
from otel_ml_collector.http_client import retry_after
from otel_ml_collector.queue import Outcome, Retry, SendingQueue, Sizer


async def test_requests_are_sent_in_order_and_counted_in_points():
    """What was offered first is sent first."""
    backend = Backend()
    queue = backend.queue()
    queue.start()
    assert [queue.offer(item(data)) for data in (b"1", b"2", b"3")] == [True] * 3
    await queue.stop(10)
    assert backend.received == [b"1", b"2", b"3"]
    assert (queue.counts.sent, queue.counts.failed, queue.counts.refused) == (15, 0, 0)


async def test_a_full_queue_refuses_the_newest_and_counts_it():
    """As the OpenTelemetry Collector does; what waits already is kept."""
    backend = Backend()
    queue = backend.queue(size=2)
    assert [queue.offer(item(data)) for data in (b"1", b"2", b"3")] == [True, True, False]
    queue.start()
    await queue.stop(10)
    assert backend.received == [b"1", b"2"]
    assert (queue.counts.sent, queue.counts.refused) == (10, 5)


async def test_a_request_is_sent_again_until_the_backend_takes_it():
    """Nothing is lost while the backend is away, and the pauses grow up to their maximum."""
    backend = Backend([LATER] * 5 + [TAKEN])
    queue = backend.queue(retry=Retry(initial=4, maximum=10, max_elapsed=300))
    queue.start()
    queue.offer(item(b"1"))
    await until(lambda: queue.counts.sent == 5)
    assert backend.received == [b"1"] * 6
    assert backend.pauses == [4.0, 6.0, 9.0, 10.0, 10.0]
    await queue.stop(10)
    assert queue.counts.failed == 0


@pytest.mark.parametrize(("spread", "expected"), [(0.0, 2.0), (0.5, 4.0), (1.0, 6.0)])
def test_the_pauses_are_spread_by_half(spread, expected):
    """Many collectors that lost one backend must not come back in step."""
    assert Retry(initial=4, maximum=10).delay(1, spread) == expected


def test_the_hundred_thousandth_pause_is_the_maximum():
    """Backing off for days does not overflow."""
    assert Retry(initial=5, maximum=30).delay(100_000, 0.5) == 30


@pytest.mark.parametrize(("after", "paused"), [(25.0, 25.0), (float("inf"), 3600.0)])
async def test_what_the_backend_asks_to_wait_is_waited(after, paused):
    """A RetryInfo or Retry-After beats a shorter pause of ours; one that would stop the queue does not."""
    backend = Backend([Outcome(ok=False, retry=True, message="busy", after=after), TAKEN])
    queue = backend.queue(retry=Retry(initial=1, max_elapsed=0))
    queue.start()
    queue.offer(item())
    await until(lambda: queue.counts.sent == 5)
    assert backend.pauses == [paused]
    await queue.stop(10)


async def test_a_request_is_given_up_after_the_longest_time():
    """The next one has its turn then, with a time of its own."""
    backend = Backend([LATER] * 3 + [TAKEN])
    queue = backend.queue(retry=Retry(initial=10, maximum=10, max_elapsed=25))
    queue.start()
    queue.offer(item(b"1"))
    queue.offer(item(b"2"))
    await until(lambda: queue.counts.sent == 5)
    assert backend.received == [b"1", b"1", b"1", b"2"]
    assert (queue.counts.failed, len(queue)) == (5, 0)
    await queue.stop(10)


async def test_without_a_longest_time_it_is_tried_for_ever():
    """0 is no limit."""
    backend = Backend([LATER] * 1000 + [TAKEN])
    queue = backend.queue(retry=Retry(initial=10, maximum=10, max_elapsed=0))
    queue.start()
    queue.offer(item())
    await until(lambda: queue.counts.sent == 5)
    assert backend.now == 10_000
    await queue.stop(10)


@pytest.mark.parametrize(
    ("outcome", "retry"), [(NEVER, Retry()), (LATER, None), (RuntimeError("bug"), Retry())]
)
async def test_what_cannot_work_is_not_tried_again(outcome, retry):
    """A refusal for good, retries that are off, a failure of ours: counted, and the next one is sent."""
    backend = Backend([outcome, TAKEN])
    queue = backend.queue(retry=retry)
    queue.start()
    queue.offer(item(b"1"))
    queue.offer(item(b"2"))
    await until(lambda: queue.counts.sent == 5)
    assert backend.received == [b"1", b"2"]
    assert queue.counts.failed == 5
    await queue.stop(10)


async def test_points_that_a_backend_refused_from_a_request_it_took_are_counted():
    """Partial success is no success for all of them."""
    backend = Backend([Outcome(ok=True, rejected=2, message="too old")])
    queue = backend.queue()
    queue.start()
    queue.offer(item(points=5))
    await queue.stop(10)
    assert (queue.counts.sent, queue.counts.failed) == (3, 2)


async def test_a_stop_sends_what_waits_without_the_long_pauses():
    """A request in the middle of a pause is tried at once."""
    backend = Backend([LATER, TAKEN])
    queue = SendingQueue("otlp", backend.send, retry=Retry(initial=3600, maximum=3600, max_elapsed=0))
    queue.start()
    queue.offer(item(b"1"))
    queue.offer(item(b"2"))
    await until(lambda: backend.received == [b"1"])
    await asyncio.wait_for(queue.stop(30), 10)
    assert backend.received == [b"1", b"1", b"2"]
    assert (queue.counts.sent, queue.counts.failed) == (10, 0)


async def test_what_is_left_when_the_grace_is_over_is_counted_as_failed():
    """A backend that hangs does not hold up a stop."""

    async def hang(data: bytes) -> Outcome:
        await asyncio.Event().wait()
        return TAKEN

    queue = SendingQueue("otlp", hang, retry=Retry())
    queue.start()
    queue.offer(item())
    queue.offer(item())
    await asyncio.wait_for(queue.stop(0.05), 10)
    assert (queue.counts.failed, len(queue)) == (10, 0)


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        (None, None),
        ("12", 12.0),
        ("Wed, 01 Jan 2020 00:01:00 GMT", 60.0),
        ("Tue, 31 Dec 2019 00:00:00 GMT", 0.0),
        ("soon", None),
        ("Wed, 01 Jan 99999999999999999999 00:01:00 GMT", None),
    ],
)
def test_a_retry_after_header_is_a_number_of_seconds_or_a_date(value, seconds):
    """Both forms of RFC 9110."""
    assert retry_after(value, datetime(2020, 1, 1, tzinfo=timezone.utc)) == seconds


async def test_what_waits_is_bounded_in_bytes_too(monkeypatch):
    """A thousand large requests for a backend that stays away would cost all memory."""
    monkeypatch.setattr(queue_module, "MAX_BYTES", 5)
    backend = Backend()
    queue = backend.queue()
    assert [queue.offer(item(data)) for data in (b"123", b"45", b"6")] == [True, True, False]
    queue.start()
    await until(lambda: len(queue) == 0)
    assert queue.offer(item(b"12345"))
    await queue.stop(10)
    assert backend.received == [b"123", b"45", b"12345"]


@pytest.mark.parametrize(
    ("sizer", "taken", "used"),
    [
        ("requests", [True, True, False], 2),
        ("items", [True, False, True], 2),
        ("bytes", [True, False, False], 2),
    ],
)
def test_the_sizer_says_what_room_is_counted_in(sizer: Sizer, taken: list[bool], used: int):
    """Requests, what is in them, or their bytes, as in the OpenTelemetry Collector."""
    queue = Backend().queue(size=2, sizer=sizer)
    offered = [item(b"12", points=1), item(b"3", points=2), item(b"4", points=1)]
    assert [queue.offer(one) for one in offered] == taken
    assert (queue.used, queue.capacity) == (used, 2)


def test_a_request_that_is_larger_than_the_queue_is_taken_when_nothing_waits():
    """Else its sender would come back with it for ever."""
    queue = Backend().queue(size=2, sizer="bytes")
    assert [queue.offer(item(b"123")), queue.offer(item(b"4"))] == [True, False]


def test_the_pauses_grow_and_spread_as_configured():
    """`multiplier` and `randomization_factor`, as in the OpenTelemetry Collector."""
    retry = Retry(initial=1, maximum=100, multiplier=3, randomization=0.25)
    assert [retry.delay(attempt, 0.5) for attempt in (1, 2, 3)] == [1, 3, 9]
    assert [retry.delay(1, spread) for spread in (0, 1)] == [0.75, 1.25]
