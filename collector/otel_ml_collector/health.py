"""Whether the service is ready and whether it lives, over HTTP, and the same as the gRPC health service.

Ready: it listens and takes requests; who routes to it looks at this. Alive: its work goes on; who restarts it
looks at that. A backend that is away changes neither: the queue is there for that.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Collection
from datetime import datetime, timezone

import grpc
from google.protobuf.message import DecodeError
from grpc import aio
from grpc_health.v1 import health_pb2
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from .server import HttpServer, application
from .settings import HealthCheck

LIVENESS = "/livez"


class HealthEndpoint:
    """Answers GET with 200 while it is so, else with 503: ready at the path of the settings, alive at /livez."""

    def __init__(
        self,
        settings: HealthCheck,
        ready: Callable[[], bool],
        alive: Callable[[], bool],
        *,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._ready, self._alive = ready, alive
        self._body = settings.response_body
        self._clock = clock
        self._up_since: float | None = None
        # Under `/` every path is that one, as in the Collector.
        path = "/{any:path}" if settings.path == "/" else settings.path
        routes = [
            Route(LIVENESS, self._liveness, methods=["GET"]),
            Route(path, self._readiness, methods=["GET"]),
        ]
        self._server = HttpServer(application(routes), str(settings.endpoint))

    @property
    def port(self) -> int | None:
        """The bound port once started."""
        return self._server.port

    async def start(self) -> None:
        """Start to answer; ConfigurationError when the endpoint is taken."""
        self._up_since = self._clock()
        await self._server.start()

    async def stop(self, grace: float) -> None:
        """Stop to answer."""
        await self._server.stop(grace)

    async def _readiness(self, _: Request) -> Response:
        ready = self._ready()
        status = 200 if ready else 503
        if self._body is not None:
            return PlainTextResponse(self._body.healthy if ready else self._body.unhealthy, status)
        return JSONResponse(self._state(ready), status)

    def _state(self, ready: bool) -> dict[str, str]:
        """What the Collector says of itself."""
        if not ready:
            self._up_since = None
            return {"status": "Server not available"}
        now = self._clock()
        if self._up_since is None:
            self._up_since = now
        since = datetime.fromtimestamp(self._up_since, timezone.utc).isoformat()
        return {"status": "Server available", "upSince": since, "uptime": f"{now - self._up_since:.3f}s"}

    async def _liveness(self, _: Request) -> Response:
        if self._alive():
            return JSONResponse({"status": "alive"})
        return JSONResponse({"status": "the work does not go on"}, 503)


# --- gRPC -------------------------------------------------------------------------------------------------

_Context = aio.ServicerContext[bytes, bytes]
_State = health_pb2.HealthCheckResponse


class GrpcHealth:
    """grpc.health.v1.Health of a server with these services; SERVING until `shut_down`.

    It asks for no credentials: a probe has none, and learns no more than a connection tells it.
    """

    def __init__(self, services: Collection[str]) -> None:
        self._services = {"", *services}
        self._shut = asyncio.Event()

    def handler(self) -> grpc.GenericRpcHandler[bytes, bytes]:
        """Of raw bytes: generated code logs a traceback for what is not protobuf, and anybody can send that."""
        methods = {
            "Check": grpc.unary_unary_rpc_method_handler(self._check),
            "Watch": grpc.unary_stream_rpc_method_handler(self._watch),
        }
        return grpc.method_handlers_generic_handler("grpc.health.v1.Health", methods)

    def shut_down(self) -> None:
        """Say NOT_SERVING from now on, and let those who watch go."""
        self._shut.set()

    async def _check(self, request: bytes, context: _Context) -> bytes:
        """The state of one service, of the whole server without a name; NOT_FOUND for one it does not have."""
        service = await _service(request, context)
        if service not in self._services:
            await context.abort(grpc.StatusCode.NOT_FOUND, f"there is no service {service[:100]!r}")
        return self._state(service)

    async def _watch(self, request: bytes, context: _Context) -> AsyncIterator[bytes]:
        """The state, and the next one when it changes."""
        service = await _service(request, context)
        yield self._state(service)
        # What waits here must not hold up the stop of the server.
        await self._shut.wait()
        yield self._state(service)

    def _state(self, service: str) -> bytes:
        status = _State.NOT_SERVING if self._shut.is_set() else _State.SERVING
        known = service in self._services
        return bytes(_State(status=status if known else _State.SERVICE_UNKNOWN).SerializeToString())


async def _service(request: bytes, context: _Context) -> str:
    try:
        return str(health_pb2.HealthCheckRequest.FromString(request).service)
    except DecodeError:
        await context.abort(grpc.StatusCode.INVALID_ARGUMENT, "the message is not a HealthCheckRequest")
