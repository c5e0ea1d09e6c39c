"""The way in: OTLP metrics over gRPC and over HTTP with protobuf bodies.

There is a pipeline for metrics only, so traces and logs are answered as a Collector without their pipelines
does: UNIMPLEMENTED over gRPC, 404 over HTTP.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NoReturn

import grpc
from grpc import aio
from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from otel_ml import semconv

from .decode import DecodeLimits
from .health import HealthServicer, register_health
from .intake import ENCODINGS, Consume, Intake, IntakeCounts, Overloaded, Refusal, too_large
from .server import HttpServer, close_sockets, open_sockets, parse_endpoint

__all__ = ["Consume", "Overloaded", "Receiver", "ReceiverLimits"]

_MIB = 1024 * 1024
_METRICS_SERVICE = "opentelemetry.proto.collector.metrics.v1.MetricsService"
_PROTOBUF = "application/x-protobuf"
_HTTP_STATUS = {
    grpc.StatusCode.INVALID_ARGUMENT: 400,
    grpc.StatusCode.RESOURCE_EXHAUSTED: 413,
    grpc.StatusCode.UNAVAILABLE: 503,
    grpc.StatusCode.INTERNAL: 500,
}


@dataclass(frozen=True, slots=True)
class ReceiverLimits:
    """What a sender may send. Sizes in bytes, times in seconds."""

    max_recv_msg_size: int = 64 * _MIB
    """gRPC messages, compressed and decompressed."""
    max_request_body_size: int = 64 * _MIB
    """HTTP bodies, compressed and decompressed."""
    read_timeout: float = 30.0
    """Time an HTTP body may take to arrive."""
    idle_timeout: float = 60.0
    """Time an HTTP connection may wait for a request."""
    decode: DecodeLimits = field(default_factory=DecodeLimits)


_DEFAULT_LIMITS = ReceiverLimits()


class Receiver:
    """Listens from `start` to `stop` and hands every batch to `consume`, in the event loop, one at a time.

    An endpoint is `host:port`, port 0 for any free one, or None to leave the protocol out.
    """

    def __init__(
        self,
        *,
        consume: Consume,
        grpc_endpoint: str | None = "127.0.0.1:4317",
        http_endpoint: str | None = "127.0.0.1:4318",
        limits: ReceiverLimits = _DEFAULT_LIMITS,
    ) -> None:
        self._intake = Intake(consume, limits.decode, max_body=limits.max_request_body_size)
        self._grpc = _GrpcSide(grpc_endpoint, self._intake, limits) if grpc_endpoint is not None else None
        self._http = _HttpSide(http_endpoint, self._intake, limits) if http_endpoint is not None else None

    @property
    def grpc_port(self) -> int | None:
        """The bound port; None before the start or without gRPC."""
        return self._grpc.port if self._grpc is not None else None

    @property
    def http_port(self) -> int | None:
        """The bound port; None before the start or without HTTP."""
        return self._http.port if self._http is not None else None

    @property
    def counts(self) -> IntakeCounts:
        """Points accepted and refused by transport, rejected and ignored by reason."""
        return self._intake.counts

    @property
    def counters(self) -> Mapping[str, Mapping[str, int]]:
        """The Collector's own receiver metrics: name → transport → data points."""
        return {
            semconv.RECEIVER_ACCEPTED.name: dict(self.counts.accepted),
            semconv.RECEIVER_REFUSED.name: dict(self.counts.refused),
        }

    async def start(self) -> None:
        """Listen on every endpoint, or on none: ConfigurationError names the one that cannot be had."""
        started: list[_GrpcSide | _HttpSide] = []
        try:
            for side in (self._grpc, self._http):
                if side is not None:
                    await side.start()
                    started.append(side)
        except BaseException:
            for side in started:
                await side.stop(0)
            self._intake.close()
            raise

    async def stop(self, grace: float) -> None:
        """Accept no more requests and let running ones end for up to `grace` seconds."""
        await asyncio.gather(*(side.stop(grace) for side in (self._grpc, self._http) if side is not None))
        self._intake.close()


class _GrpcSide:
    def __init__(self, endpoint: str, intake: Intake, limits: ReceiverLimits) -> None:
        self._endpoint = endpoint
        self._intake = intake
        self._max_size = limits.max_recv_msg_size
        self._server: aio.Server | None = None
        self._health: HealthServicer | None = None
        self.port: int | None = None

    async def start(self) -> None:
        addresses = _bindable(self._endpoint)
        options = [("grpc.max_receive_message_length", self._max_size), ("grpc.so_reuseport", 0)]
        self._server = server = aio.server(options=options)
        # Raw bytes, not the generated servicer: that one answers INTERNAL to a body that is not protobuf.
        handlers = {"Export": grpc.unary_unary_rpc_method_handler(self._export)}
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(_METRICS_SERVICE, handlers),))
        self._health = register_health(server)
        _, port = parse_endpoint(self._endpoint)
        for address in addresses:
            port = server.add_insecure_port(f"{address}:{port}")
        await server.start()
        self.port = port

    async def stop(self, grace: float) -> None:
        if self._server is not None and self._health is not None:
            await self._health.enter_graceful_shutdown()
            await self._server.stop(grace)

    async def _export(self, body: bytes, context: aio.ServicerContext[bytes, bytes]) -> bytes:
        try:
            return await self._intake.export(body, transport="grpc")
        except Refusal as refusal:
            await _abort(context, refusal)


async def _abort(context: aio.ServicerContext[bytes, bytes], refusal: Refusal) -> NoReturn:
    trailers = [("grpc-status-details-bin", refusal.status().SerializeToString())]
    if (info := refusal.retry_info()) is not None:
        trailers.append(
            ("google.rpc.retryinfo-bin", info.SerializeToString())
        )  # the one the Python SDK reads
    await context.abort(refusal.code, refusal.message, tuple(trailers))


def _bindable(endpoint: str) -> list[str]:
    """Addresses of the endpoint for gRPC, once they are seen to be free.

    Left to itself gRPC is content when it gets one address of a name, and would not say that another program
    has the one that senders use.
    """
    sockets = open_sockets(endpoint)
    addresses = [str(opened.getsockname()[0]) for opened in sockets]
    close_sockets(sockets)
    return [f"[{address}]" if ":" in address else address for address in addresses]


class _HttpSide:
    def __init__(self, endpoint: str, intake: Intake, limits: ReceiverLimits) -> None:
        self._intake = intake
        self._max_size = limits.max_request_body_size
        self._read_timeout = limits.read_timeout
        app = Starlette(routes=[Route("/v1/metrics", self._export, methods=["POST"])])
        self._server = HttpServer(app, endpoint, idle_timeout=limits.idle_timeout)

    @property
    def port(self) -> int | None:
        return self._server.port

    async def start(self) -> None:
        await self._server.start()

    async def stop(self, grace: float) -> None:
        await self._server.stop(grace)

    async def _export(self, request: Request) -> Response:
        encoding = request.headers.get("content-encoding", "identity").strip().lower()
        if (unsupported := _unsupported(request, encoding)) is not None:
            return unsupported
        try:
            body = await asyncio.wait_for(self._body(request), self._read_timeout)
            answer = await self._intake.export(body, transport="http", encoding=encoding)
        except Refusal as refusal:
            return _error(refusal)
        except asyncio.TimeoutError:
            return PlainTextResponse(f"the body did not arrive within {self._read_timeout:g} s\n", 408)
        except ClientDisconnect:
            return Response(status_code=400)  # nobody reads it
        return Response(answer, media_type=_PROTOBUF)

    async def _body(self, request: Request) -> bytes:
        """The body; Refusal when it is too large.

        A sender sees the answer only once it has sent everything, so that what is over the limit is read and
        thrown away, up to a limit of its own.
        """
        parts: list[bytes] = []
        size = 0
        async for part in request.stream():
            size += len(part)
            if size <= self._max_size:
                parts.append(part)
            elif size > 4 * self._max_size:
                break
            else:
                parts.clear()
        if size > self._max_size:
            raise too_large(self._max_size)
        return b"".join(parts)


def _unsupported(request: Request, encoding: str) -> Response | None:
    media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media_type != _PROTOBUF:
        return PlainTextResponse(
            f"unsupported media type {media_type!r}, supported: {_PROTOBUF}; "
            "set the exporter's protocol to http/protobuf\n",
            415,
        )
    if encoding != "identity" and encoding not in ENCODINGS:
        supported = ", ".join(["identity", *ENCODINGS])
        return PlainTextResponse(f"unsupported content encoding {encoding!r}, supported: {supported}\n", 415)
    return None


def _error(refusal: Refusal) -> Response:
    headers = {}
    if refusal.retry_after is not None:
        headers["Retry-After"] = str(math.ceil(refusal.retry_after))
    body = refusal.status().SerializeToString()
    return Response(body, _HTTP_STATUS[refusal.code], headers, media_type=_PROTOBUF)
