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
from grpc import aio
from grpc_health.v1 import health_pb2, health_pb2_grpc
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

_Context = aio.ServicerContext[health_pb2.HealthCheckRequest, health_pb2.HealthCheckResponse]


class GrpcHealth(health_pb2_grpc.HealthServicer):  # type: ignore[misc]  # untyped
    """grpc.health.v1.Health of a server with these services; SERVING until `shut_down`.

    It asks for no credentials: a probe has none, and learns no more than a connection tells it.
    """

    def __init__(self, services: Collection[str]) -> None:
        self._services = {"", *services}
        self._shut = asyncio.Event()

    def shut_down(self) -> None:
        """Say NOT_SERVING from now on, and let those who watch go."""
        self._shut.set()

    async def Check(  # noqa: N802 - the name of the method
        self, request: health_pb2.HealthCheckRequest, context: _Context
    ) -> health_pb2.HealthCheckResponse:
        """The state of one service, of the whole server without a name; NOT_FOUND for one it does not have."""
        if request.service not in self._services:
            await context.abort(grpc.StatusCode.NOT_FOUND, f"there is no service {request.service[:100]!r}")
        return self._state(request.service)

    async def Watch(  # noqa: N802
        self, request: health_pb2.HealthCheckRequest, _: _Context
    ) -> AsyncIterator[health_pb2.HealthCheckResponse]:
        """The state, and the next one when it changes."""
        yield self._state(request.service)
        # What waits here must not hold up the stop of the server.
        await self._shut.wait()
        yield self._state(request.service)

    def _state(self, service: str) -> health_pb2.HealthCheckResponse:
        response = health_pb2.HealthCheckResponse
        if service not in self._services:
            return response(status=response.SERVICE_UNKNOWN)
        return response(status=response.NOT_SERVING if self._shut.is_set() else response.SERVING)
