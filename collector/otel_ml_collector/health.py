"""Whether the service is ready, for those who route to it: over HTTP and as the gRPC health service."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import datetime, timezone
from typing import Protocol

from grpc import aio
from grpc_health.v1 import health, health_pb2_grpc
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from .server import HttpServer, application


class HealthServicer(Protocol):
    """The gRPC health service of a server."""

    async def enter_graceful_shutdown(self) -> None:
        """Say NOT_SERVING from now on."""


class HealthEndpoint:
    """Answers GET / with 200 while `ready()` is true, else with 503; the body is the Collector's."""

    def __init__(
        self, endpoint: str, ready: Callable[[], bool], *, clock: Callable[[], float] = time.time
    ) -> None:
        self._ready = ready
        self._clock = clock
        self._up_since: float | None = None
        routes = [Route("/", self._answer, methods=["GET"])]
        self._server = HttpServer(application(routes), endpoint)

    @property
    def port(self) -> int | None:
        """The bound port once started."""
        return self._server.port

    async def start(self) -> None:
        """Start to answer; ConfigurationError when the endpoint is taken."""
        await self._server.start()

    async def stop(self, grace: float) -> None:
        """Stop to answer."""
        await self._server.stop(grace)

    async def _answer(self, _: Request) -> JSONResponse:
        if not self._ready():
            self._up_since = None
            return JSONResponse({"status": "Server not available"}, 503)
        now = self._clock()
        if self._up_since is None:
            self._up_since = now
        since = datetime.fromtimestamp(self._up_since, timezone.utc).isoformat()
        uptime = f"{now - self._up_since:.3f}s"
        return JSONResponse({"status": "Server available", "upSince": since, "uptime": uptime})


def register_health(server: aio.Server) -> HealthServicer:
    """Add grpc.health.v1.Health to the server; it says SERVING until `enter_graceful_shutdown`."""
    servicer: HealthServicer = health.aio.HealthServicer()  # type: ignore[attr-defined]  # the stubs lack it
    health_pb2_grpc.add_HealthServicer_to_server(servicer, server)
    return servicer
