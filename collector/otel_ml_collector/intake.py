"""What happens to an export request whichever protocol brought it: unpack, decode, consume, count, answer."""

from __future__ import annotations

import asyncio
import logging
import zlib
from collections import Counter
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import grpc
from google.protobuf.duration_pb2 import Duration
from google.rpc.error_details_pb2 import RetryInfo  # type: ignore[import-untyped]
from google.rpc.status_pb2 import Status  # type: ignore[import-untyped]
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceResponse

from otel_ml.errors import OtelMLError

from .decode import Decoded, DecodeError, DecodeLimits, Decoder, TooManyPoints
from .points import PointBatch

Consume = Callable[[PointBatch], Mapping[str, int]]
"""Takes a batch and says how many points it rejected, by reason; raises Overloaded to refuse all for now."""

ENCODINGS = {"gzip": 31, "deflate": 15}
"""Content encodings besides identity, and their zlib window bits."""

_log = logging.getLogger(__name__)


class Overloaded(OtelMLError):
    """The service cannot take points for now; the sender should try again after `retry_after` seconds."""

    def __init__(self, message: str, *, retry_after: float = 5.0) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class Refusal(Exception):
    """A request that is answered with an error, in the terms of google.rpc."""

    def __init__(self, code: grpc.StatusCode, message: str, *, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.retry_after = retry_after

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


@dataclass(frozen=True, slots=True)
class IntakeCounts:
    """Data points since start."""

    accepted: Counter[str] = field(default_factory=Counter)
    """By transport: taken by the engine."""
    refused: Counter[str] = field(default_factory=Counter)
    """By transport: answered with an error or in a partial success, as far as they could be counted."""
    rejected: Counter[str] = field(default_factory=Counter)
    """By reason: left out of a request that was otherwise taken."""
    ignored: Counter[str] = field(default_factory=Counter)
    """By reason: in order, and not for this service."""


class Intake:
    """Answers export requests; raises Refusal for those that are answered with an error."""

    def __init__(self, consume: Consume, limits: DecodeLimits, *, max_body: int) -> None:
        self.counts = IntakeCounts()
        self._consume = consume
        self._max_body = max_body
        self._decoder = Decoder(limits)
        # One thread: requests are unpacked one at a time, in the order of arrival, and the loop stays free.
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="otlp-decode")

    async def export(self, body: bytes, *, transport: str, encoding: str = "identity") -> bytes:
        """The ExportMetricsServiceResponse to a request body."""
        loop = asyncio.get_running_loop()
        try:
            decoded = await loop.run_in_executor(self._thread, self._decode, body, encoding)
        except DecodeError as error:
            raise Refusal(grpc.StatusCode.INVALID_ARGUMENT, str(error)) from error
        except TooManyPoints as error:
            raise Refusal(grpc.StatusCode.RESOURCE_EXHAUSTED, str(error)) from error
        return self._answer(decoded, transport)

    def close(self) -> None:
        """End the decoding thread."""
        self._thread.shutdown(wait=False, cancel_futures=True)

    def _decode(self, body: bytes, encoding: str) -> Decoded:
        if encoding != "identity":
            body = decompress(body, encoding, limit=self._max_body)
        return self._decoder.decode(body)

    def _answer(self, decoded: Decoded, transport: str) -> bytes:
        rejected = Counter(decoded.rejected)
        rejected.update(self._consumed(decoded.batch, transport))
        refused = sum(rejected.values())
        self.counts.ignored.update(decoded.ignored)
        self.counts.rejected.update(rejected)
        self.counts.refused[transport] += refused
        self.counts.accepted[transport] += len(decoded.batch) + sum(decoded.rejected.values()) - refused
        return _response(rejected).SerializeToString()

    def _consumed(self, batch: PointBatch, transport: str) -> Mapping[str, int]:
        if not len(batch):
            return {}
        try:
            return self._consume(batch)
        except Overloaded as error:
            self.counts.refused[transport] += len(batch)
            raise Refusal(grpc.StatusCode.UNAVAILABLE, str(error), retry_after=error.retry_after) from error
        except Exception as error:
            self.counts.refused[transport] += len(batch)
            _log.exception("a metrics request with %d points could not be taken", len(batch))
            raise Refusal(grpc.StatusCode.INTERNAL, f"internal error: {type(error).__name__}") from error


def decompress(body: bytes, encoding: str, *, limit: int) -> bytes:
    """The body without its encoding; Refusal when it exceeds `limit` bytes, DecodeError when it is broken."""
    inflate = zlib.decompressobj(ENCODINGS[encoding])
    try:
        plain = inflate.decompress(body, limit + 1)
    except zlib.error as error:
        raise DecodeError(f"the body is not valid {encoding}: {error}") from error
    if len(plain) > limit:
        raise too_large(limit)
    if not inflate.eof or inflate.unused_data:
        raise DecodeError(f"the body is not one complete {encoding} stream")
    return plain


def too_large(limit: int) -> Refusal:
    """The refusal of a body that is too large, before or after decompression."""
    return Refusal(
        grpc.StatusCode.RESOURCE_EXHAUSTED,
        f"the request body is larger than {limit} bytes; send smaller batches or raise max_request_body_size",
    )


def _response(rejected: Mapping[str, int]) -> ExportMetricsServiceResponse:
    response = ExportMetricsServiceResponse()
    if total := sum(rejected.values()):
        reasons = ", ".join(f"{reason} {count}" for reason, count in sorted(rejected.items()) if count)
        response.partial_success.rejected_data_points = total
        response.partial_success.error_message = f"{total} data points rejected: {reasons}"
    return response
