"""What happens to an export request whichever protocol brought it: unpack, decode, consume, count, answer."""

from __future__ import annotations

import asyncio
import logging
import zlib
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from threading import Lock
from typing import Any, NamedTuple

import grpc
import orjson
from google.protobuf.duration_pb2 import Duration
from google.rpc.error_details_pb2 import RetryInfo  # type: ignore[import-untyped]
from google.rpc.status_pb2 import Status  # type: ignore[import-untyped]
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceResponse

from . import otlp_json
from .decode import Decoded, DecodeError, DecodeLimits, Decoder, TooManyPoints
from .limiter import Overloaded
from .points import PointBatch
from .scan import Budget, messages
from .signals import METRICS, Signal

Consume = Callable[[PointBatch, bytes], Mapping[str, int]]
"""Takes a batch, and the request it is of as protobuf bytes; says how many points it rejected, by reason.

Raises Overloaded to refuse all for now."""
Forward = Callable[[bytes, int], Awaitable[None]]
"""Takes a request as protobuf bytes and the number of items in it; raises Overloaded to refuse it for now."""

ENCODINGS = {"gzip": 31, "deflate": 15}
"""Content encodings besides identity, and their zlib window bits."""
_SMALL_BODY, _FEW_POINTS = 64 * 1024, 1000
"""Bodies up to this size are read in the loop: to hand them to the thread costs as much as to read so many points."""
_CHUNK = 1024 * 1024
_MAX_STREAMS = 100
"""Streams of gzip that may follow one another; each costs a copy of a chunk."""
_VALUES_A_POINT = 5
"""JSON values for each point the limits allow; a histogram has a hundred, and requests far fewer points."""

_log = logging.getLogger(__name__)


class Refusal(Exception):
    """A request that is answered with an error, in the terms of google.rpc."""

    def __init__(
        self, code: grpc.StatusCode, message: str, *, retry_after: float | None = None, busy: bool = False
    ) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.retry_after = retry_after
        self.busy = busy

    @classmethod
    def of(cls, error: Overloaded) -> Refusal:
        """The refusal of a request there is no room for."""
        return cls(grpc.StatusCode.UNAVAILABLE, str(error), retry_after=error.retry_after, busy=error.busy)

    def retry_info(self) -> RetryInfo | None:
        """When to try again; None when trying again does not help."""
        if self.retry_after is None:
            return None
        delay = Duration()
        delay.FromNanoseconds(round(self.retry_after * 1e9))
        return RetryInfo(retry_delay=delay)

    def status(self) -> Status:
        """The body of an OTLP error answer."""
        status = Status(code=self.code.value[0], message=self.message)
        if (info := self.retry_info()) is not None:
            status.details.add().Pack(info)
        return status

    def json(self) -> bytes:
        """The same in protobuf's JSON."""
        status: dict[str, Any] = {"code": self.code.value[0], "message": self.message}
        if self.retry_after is not None:
            info = {
                "@type": "type.googleapis.com/google.rpc.RetryInfo",
                "retryDelay": f"{self.retry_after:g}s",
            }
            status["details"] = [info]
        return orjson.dumps(status)


class Answer(NamedTuple):
    """The answer to a request that was taken: full success when nothing is rejected."""

    rejected: int = 0
    message: str = ""

    def protobuf(self) -> bytes:
        """The response; those of all signals have the same fields."""
        response = ExportMetricsServiceResponse()
        if self.rejected:
            response.partial_success.rejected_data_points = self.rejected
            response.partial_success.error_message = self.message
        return response.SerializeToString()

    def json(self, signal: Signal) -> bytes:
        """The response as OTLP/JSON; 64-bit numbers are strings there."""
        if not self.rejected:
            return b"{}"
        partial = {signal.rejected: str(self.rejected), "errorMessage": self.message}
        return orjson.dumps({"partialSuccess": partial})


@dataclass(frozen=True, slots=True)
class IntakeCounts:
    """Data points, spans or log records since start."""

    accepted: Counter[str] = field(default_factory=Counter)
    """By transport: taken."""
    refused: Counter[str] = field(default_factory=Counter)
    """By transport: answered with an error or in a partial success, as far as they could be counted."""
    rejected: Counter[str] = field(default_factory=Counter)
    """By reason: left out of a request that was otherwise taken."""
    ignored: Counter[str] = field(default_factory=Counter)
    """By reason: in order, and not for this service."""


class Intake:
    """Answers export requests; raises Refusal for those that are answered with an error.

    Metrics are decoded and consumed, unless nothing consumes them. What has an entry in `forward` is passed
    on, byte for byte; metrics before they are consumed, and then whether they can be is no longer the
    sender's concern.
    """

    def __init__(
        self,
        consume: Consume | None,
        limits: DecodeLimits,
        *,
        max_body: int,
        forward: Mapping[Signal, Forward] | None = None,
    ) -> None:
        self._consume = consume
        self._limits = limits
        self._max_body = max_body
        self._forward = dict(forward or {})
        self.counts = {signal: IntakeCounts() for signal in self.signals()}
        self._decoder = Decoder(limits)
        self._closed = False
        self._reading = Lock()
        """Held by whoever uses the decoder: the loop for what is small, else the thread."""
        # One thread: requests are unpacked one at a time, in the order of arrival, and the loop stays free.
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="otlp-decode")

    def signals(self) -> tuple[Signal, ...]:
        """What is taken in."""
        metrics = () if self._consume is None else (METRICS,)
        return (*metrics, *(signal for signal in self._forward if signal is not METRICS))

    async def export(
        self,
        body: bytes,
        *,
        transport: str,
        signal: Signal = METRICS,
        encoding: str = "identity",
        json: bool = False,
    ) -> Answer:
        """The answer to a request body."""
        if self._closed:
            raise Refusal.of(Overloaded("the receiver is stopping; send it again"))
        try:
            body, held = await self._unpacked(signal, body, encoding, json)
        except DecodeError as error:
            raise Refusal(grpc.StatusCode.INVALID_ARGUMENT, str(error)) from error
        except TooManyPoints as error:
            raise Refusal(grpc.StatusCode.RESOURCE_EXHAUSTED, str(error)) from error
        except Refusal:
            raise
        except Exception as error:
            _log.exception("a request with %d bytes could not be read", len(body))
            raise _internal(error) from error
        if isinstance(held, Decoded):
            return await self._metrics(body, held, transport)
        await self._passed_on(signal, body, held, transport)
        self.counts[signal].accepted[transport] += held
        return Answer()

    async def _unpacked(
        self, signal: Signal, body: bytes, encoding: str, json: bool
    ) -> tuple[bytes, Decoded | int]:
        plain = signal is METRICS and encoding == "identity" and not json
        decoded = self._at_once(body) if plain and len(body) <= _SMALL_BODY else None
        if decoded is not None:
            return body, decoded
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._thread, self._read_alone, signal, body, encoding, json)

    def _at_once(self, body: bytes) -> Decoded | None:
        """What is in a small request; None when the decoder is in use or there is more in it than it seems."""
        if not self._reading.acquire(blocking=False):
            return None
        try:
            return self._decoder.decode(body, at_most=_FEW_POINTS)
        except TooManyPoints:
            return None
        finally:
            self._reading.release()

    def close(self) -> None:
        """End the decoding thread."""
        self._closed = True
        self._thread.shutdown(wait=False, cancel_futures=True)

    def _read_alone(
        self, signal: Signal, body: bytes, encoding: str, json: bool
    ) -> tuple[bytes, Decoded | int]:
        with self._reading:
            return self._read(signal, body, encoding, json)

    def _read(self, signal: Signal, body: bytes, encoding: str, json: bool) -> tuple[bytes, Decoded | int]:
        """The request as plain protobuf, and what is in it."""
        if encoding != "identity":
            body = decompress(body, encoding, limit=self._max_body)
        if json:
            values = _VALUES_A_POINT * self._limits.max_points + 1000
            body = otlp_json.protobuf(signal.request, body, max_values=values)
        if signal is METRICS:
            return body, self._decoder.decode(body)
        return body, count_items(body, self._limits.max_points)

    async def _metrics(self, body: bytes, decoded: Decoded, transport: str) -> Answer:
        counts, points = self.counts[METRICS], len(decoded.batch) + sum(decoded.rejected.values())
        if METRICS in self._forward:
            points += sum(decoded.ignored.values())
            await self._passed_on(METRICS, body, points, transport)
            self._left_out(decoded, self._looked_at(decoded.batch, body))
            counts.accepted[transport] += points
            return Answer()
        try:
            rejected = self._left_out(decoded, self._consumed(decoded.batch, body))
        except Refusal:
            counts.refused[transport] += len(decoded.batch)
            raise
        refused = sum(rejected.values())
        counts.refused[transport] += refused
        counts.accepted[transport] += points - refused
        return _answer(rejected)

    def _left_out(self, decoded: Decoded, by_consumer: Mapping[str, int]) -> Counter[str]:
        rejected = Counter(decoded.rejected)
        rejected.update(by_consumer)
        self.counts[METRICS].ignored.update(decoded.ignored)
        self.counts[METRICS].rejected.update(rejected)
        return rejected

    def _looked_at(self, batch: PointBatch, body: bytes) -> Mapping[str, int]:
        """As `_consumed`, of points that are passed on already."""
        try:
            return self._consumed(batch, body)
        except Refusal as refusal:
            return {"overload" if refusal.retry_after is not None else "error": len(batch)}

    def _consumed(self, batch: PointBatch, body: bytes) -> Mapping[str, int]:
        if self._consume is None or not len(batch):
            return {}
        try:
            return self._consume(batch, body)
        except Overloaded as error:
            raise Refusal.of(error) from error
        except Exception as error:
            _log.exception("a metrics request with %d points could not be taken", len(batch))
            raise _internal(error) from error

    async def _passed_on(self, signal: Signal, body: bytes, items: int, transport: str) -> None:
        if not items:
            return
        try:
            await self._forward[signal](body, items)
        except Overloaded as error:
            self.counts[signal].refused[transport] += items
            raise Refusal.of(error) from error


def count_items(body: bytes, limit: int) -> int:
    """Spans or log records of an export request; what is inside of them is not looked at.

    Raises DecodeError when `body` is not such a request, TooManyPoints when there are more than `limit`.
    """
    budget = Budget(limit)
    for start, end in messages(body, 0, len(body), 1, budget):
        for scope_start, scope_end in messages(body, start, end, 2, budget):
            for _ in messages(body, scope_start, scope_end, 2, budget):
                budget.spend_point()
    return limit - budget.points


def decompress(body: bytes, encoding: str, *, limit: int) -> bytes:
    """The body without its encoding; Refusal when it exceeds `limit` bytes, DecodeError when it is broken."""
    parts: list[bytes] = []
    size = 0
    try:
        for part in _inflated(memoryview(body), encoding):
            size += len(part)
            if size > limit:
                raise too_large(limit)
            parts.append(part)
    except zlib.error as error:
        raise DecodeError(f"the body is not valid {encoding}: {error}") from error
    return b"".join(parts)


def _inflated(body: memoryview, encoding: str) -> Iterator[bytes]:
    """A piece at a time: what is too large is noticed after a piece too many, not after all."""
    for _ in range(_MAX_STREAMS if encoding == "gzip" else 1):
        inflate, start = zlib.decompressobj(ENCODINGS[encoding]), 0
        while start < len(body) and not inflate.eof:
            packed: bytes | memoryview = body[start : start + _CHUNK]
            start += len(packed)
            while packed:
                yield inflate.decompress(packed, _CHUNK)
                packed = inflate.unconsumed_tail
        yield inflate.flush()
        if not inflate.eof:
            break
        body = body[start - len(inflate.unused_data) :]
        if not body:
            return
    raise DecodeError(f"the body is not one complete {encoding} stream")


def too_large(limit: int) -> Refusal:
    """The refusal of a body that is too large, before or after decompression."""
    return Refusal(
        grpc.StatusCode.RESOURCE_EXHAUSTED,
        f"the request body is larger than {limit} bytes; send smaller batches or raise max_request_body_size",
    )


def _internal(error: Exception) -> Refusal:
    return Refusal(grpc.StatusCode.INTERNAL, f"internal error: {type(error).__name__}")


def _answer(rejected: Mapping[str, int]) -> Answer:
    total = sum(rejected.values())
    if not total:
        return Answer()
    reasons = ", ".join(f"{reason} {count}" for reason, count in sorted(rejected.items()) if count)
    return Answer(total, f"{total} data points rejected: {reasons}")
