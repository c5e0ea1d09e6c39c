"""OTLP over gRPC."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from typing import Any, NoReturn
from urllib.parse import unquote

import grpc
from grpc import aio

from otel_ml.errors import ConfigurationError

from .access import Access
from .fields import milliseconds
from .health import GrpcHealth
from .intake import Intake, Refusal
from .limiter import Admission, Overloaded
from .limits import Keepalive, ReceiverLimits
from .refusals import Refusals, authorize
from .server import close_sockets, open_sockets, parse_endpoint
from .signals import Signal

_LOOK = 0.1
"""Seconds between two looks at a message that is under way."""
_Context = aio.ServicerContext[bytes, bytes]
_Handler = Callable[[Any, _Context], Awaitable[bytes]]


class GrpcSide:
    """A gRPC server in front of an intake, from `start` to `stop`."""

    def __init__(
        self, endpoint: str, intake: Intake, limits: ReceiverLimits, admission: Admission, access: Access
    ) -> None:
        self._endpoint = endpoint
        self._intake = intake
        self._limits = limits
        self._admission = admission
        self._access = access
        self._server: aio.Server | None = None
        self._health = GrpcHealth([signal.service for signal in intake.signals()])
        self.refusals = Refusals("grpc")
        self.port: int | None = None

    async def start(self) -> None:
        """Accept requests from here on. Raises ConfigurationError when the endpoint is taken."""
        if self._access.tls is not None:
            self._access.tls.check()
        addresses = _bindable(self._endpoint)
        self._server = server = aio.server(options=_options(self._limits))
        for signal in self._intake.signals():
            # As a stream of one message, which is the same on the wire: who may not come in is turned away
            # before the message is read. And raw bytes: generated code answers INTERNAL to bad protobuf.
            handlers = {"Export": grpc.stream_unary_rpc_method_handler(self._handler(signal))}
            handler = grpc.method_handlers_generic_handler(signal.service, handlers)
            server.add_generic_rpc_handlers((handler,))
        server.add_generic_rpc_handlers((self._health.handler(),))
        _, port = parse_endpoint(self._endpoint)
        for address in addresses:
            port = self._bind(server, f"{address}:{port}")
        await server.start()
        self.port = port

    def renew(self) -> None:
        """Certificates are read again by gRPC itself, before a handshake."""

    async def stop(self, grace: float) -> None:
        """Accept no more, let running requests end for up to `grace` seconds."""
        self._health.shut_down()
        if self._server is not None:
            await self._server.stop(grace)

    def _bind(self, server: aio.Server, address: str) -> int:
        tls = self._access.tls
        try:
            if tls is None:
                return server.add_insecure_port(address)
            return server.add_secure_port(address, tls.grpc_credentials())
        except RuntimeError as error:  # another program took it since it was seen to be free
            raise ConfigurationError(f"cannot listen on endpoint {self._endpoint!r}: {error}") from error

    def _handler(self, signal: Signal) -> _Handler:
        async def export(_: Any, context: _Context) -> bytes:
            try:
                return await self._export(signal, context)
            except Refusal as refusal:
                await self._refuse(context, refusal)
            except Overloaded as error:
                await self._refuse(context, Refusal.of(error))

        return export

    async def _export(self, signal: Signal, context: _Context) -> bytes:
        await self._authorize(context)
        limits = self._limits
        with self._admission.request(_address(context.peer())) as place:
            # How large a message is shows only once gRPC holds all of it.
            await place.reserve(limits.max_recv_msg_size, limits.read_timeout)
            limits.admit()
            body = await self._message(context)
            place.keep(len(body))
            return (await self._intake.export(body, transport="grpc", signal=signal)).protobuf()

    async def _authorize(self, context: _Context) -> None:
        auth = self._access.auth
        if auth is None:
            return
        given = dict(context.invocation_metadata() or ()).get(auth.header, "")
        await authorize(auth, given if isinstance(given, str) else "")

    async def _refuse(self, context: _Context, refusal: Refusal) -> NoReturn:
        self.refusals.add(refusal, _address(context.peer()))
        await _abort(context, refusal)

    async def _message(self, context: _Context) -> bytes:
        """The message; a sender that takes its time is cut off at the timeout, or as soon as memory is short."""
        timeout = self._limits.read_timeout
        loop = asyncio.get_running_loop()
        deadline = loop.time() + timeout
        reading = asyncio.ensure_future(context.read())
        try:
            while not reading.done():
                if loop.time() >= deadline:
                    raise _too_slow(timeout)
                await asyncio.wait({reading}, timeout=min(_LOOK, timeout))
                if not reading.done():
                    self._limits.admit()
        finally:
            reading.cancel()
        body = reading.result()
        if not isinstance(body, bytes):
            raise Refusal(grpc.StatusCode.INVALID_ARGUMENT, "the call has no message")
        return body


def _too_slow(timeout: float) -> Refusal:
    return Refusal(grpc.StatusCode.DEADLINE_EXCEEDED, f"the message did not arrive within {timeout:g} s")


def _options(limits: ReceiverLimits) -> list[tuple[str, int]]:
    return [
        ("grpc.max_receive_message_length", limits.max_recv_msg_size),
        ("grpc.max_concurrent_streams", limits.max_concurrent_streams),
        ("grpc.so_reuseport", 0),
        # What nobody reads yet stays with the sender: no more than the first window of a call, 64 KiB, is held.
        ("grpc.http2.bdp_probe", 0),
        ("grpc.server_handshake_timeout_ms", milliseconds(limits.idle_timeout)),
        ("grpc.max_metadata_size", 16 * 1024),
        ("grpc.absolute_max_metadata_size", 64 * 1024),
        *_keepalive(limits.keepalive),
    ]


def _keepalive(keepalive: Keepalive) -> Iterator[tuple[str, int]]:
    times = {
        "grpc.max_connection_idle_ms": keepalive.max_connection_idle,
        "grpc.max_connection_age_ms": keepalive.max_connection_age,
        "grpc.max_connection_age_grace_ms": keepalive.max_connection_age_grace,
        "grpc.keepalive_time_ms": keepalive.time,
        "grpc.keepalive_timeout_ms": keepalive.timeout,
        "grpc.http2.ping_timeout_ms": keepalive.timeout,  # without it, a minute
        "grpc.http2.min_recv_ping_interval_without_data_ms": keepalive.min_time,
    }
    for name, seconds in times.items():
        if seconds is not None:
            yield name, milliseconds(seconds)
    yield "grpc.keepalive_permit_without_calls", int(keepalive.permit_without_stream)
    # One ping too early more than these, and the connection ends.
    yield "grpc.http2.max_ping_strikes", 2


def _address(peer: str) -> str:
    """Who is at the other end, as HTTP says it: `ipv4:127.0.0.1:4711` → `127.0.0.1`."""
    return unquote(peer.partition(":")[2].rpartition(":")[0]).strip("[]")


async def _abort(context: _Context, refusal: Refusal) -> NoReturn:
    trailers = [("grpc-status-details-bin", refusal.status().SerializeToString())]
    if (info := refusal.retry_info()) is not None:
        # The one the Python SDK reads.
        trailers.append(("google.rpc.retryinfo-bin", info.SerializeToString()))
    try:
        await context.abort(refusal.code, refusal.message, tuple(trailers))
    except aio.InternalError as error:
        # The sender is gone, or gRPC has refused the message itself: nobody is left to answer, and to say so
        # would let senders fill the log.
        raise asyncio.CancelledError from error


def _bindable(endpoint: str) -> list[str]:
    """Addresses of the endpoint for gRPC, once they are seen to be free.

    Left to itself gRPC is content when it gets one address of a name, and would not say that another program
    has the one that senders use.
    """
    sockets = open_sockets(endpoint)
    addresses = [str(opened.getsockname()[0]) for opened in sockets]
    close_sockets(sockets)
    return [f"[{address}]" if ":" in address else address for address in addresses]
