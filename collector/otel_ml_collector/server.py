"""Endpoints as sockets, and an HTTP server on them that runs inside the service's event loop."""

from __future__ import annotations

import asyncio
import errno
import logging
import socket
import ssl
from collections.abc import Callable, Sequence
from typing import Any

from hypercorn.asyncio import serve
from hypercorn.config import Config
from starlette.applications import Starlette
from starlette.routing import Route

from otel_ml.errors import ConfigurationError

from .tls import RenewedContext, ServerTls

_log = logging.getLogger(__name__)
_BACKLOG = 128


def parse_endpoint(endpoint: str) -> tuple[str, int]:
    """Host and port of `host:port`, `[v6 address]:port` or `:port` (every IPv4 interface)."""
    host, separator, port = endpoint.rpartition(":")
    if not separator or not port.isascii() or not port.isdigit() or int(port) > 65535:
        raise ConfigurationError(
            f"endpoint {endpoint!r} is not host:port; write for example localhost:4317 (port 0: any free one)"
        )
    return host.strip("[]") or "0.0.0.0", int(port)


def open_sockets(endpoint: str) -> list[socket.socket]:
    """Listening sockets for every address of the endpoint's host, all with the same port.

    `localhost` is 127.0.0.1 and, where the machine has IPv6, ::1. Raises ConfigurationError, naming the
    endpoint, when one of them cannot be had.
    """
    host, port = parse_endpoint(endpoint)
    sockets: list[socket.socket] = []
    try:
        for family, address in _addresses(host):
            sockets.append(_listen(family, address, port))
            port = sockets[0].getsockname()[1]
    except OSError as error:
        close_sockets(sockets)
        raise ConfigurationError(_explanation(endpoint, error)) from error
    return sockets


def close_sockets(sockets: list[socket.socket]) -> None:
    """Close every one of them."""
    for opened in sockets:
        opened.close()


def _addresses(host: str) -> list[tuple[int, str]]:
    """Address family and numeric address of `host`, IPv4 first; families this machine lacks are left out."""
    found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    pairs = sorted({(int(family), str(address[0])) for family, _, _, _, address in found})
    return [pair for pair in pairs if len(pairs) == 1 or _available(*pair)]


def _available(family: int, address: str) -> bool:
    try:
        _listen(family, address, 0).close()
    except OSError:
        return False
    return True


def _listen(family: int, address: str, port: int) -> socket.socket:
    opened = socket.socket(family, socket.SOCK_STREAM)
    try:
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            opened.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        opened.setblocking(False)
        opened.bind((address, port))
        opened.listen(_BACKLOG)
    except OSError:
        opened.close()
        raise
    return opened


def _explanation(endpoint: str, error: OSError) -> str:
    if isinstance(error, socket.gaierror):
        return (
            f"the host of endpoint {endpoint!r} is unknown ({error.strerror}); use an address of this machine"
        )
    if error.errno == errno.EADDRINUSE:
        return f"endpoint {endpoint!r} is in use by another program; stop that one or choose another port"
    if error.errno == errno.EACCES:
        return f"endpoint {endpoint!r} needs more rights than this process has; choose a port above 1023"
    return f"cannot listen on endpoint {endpoint!r} ({error.strerror}); use an address of this machine"


class _Config(Config):
    """Hypercorn's configuration with a context of ours, which can follow its files."""

    def __init__(self, renewed: RenewedContext | None) -> None:
        super().__init__()
        self._renewed = renewed

    @property
    def ssl_enabled(self) -> bool:
        return self._renewed is not None

    def create_ssl_context(self) -> ssl.SSLContext | None:
        return self._renewed.context if self._renewed is not None else None


def application(routes: Sequence[Route]) -> Starlette:
    """An application with these routes; any other path is 404, with a slash at its end, too."""
    app = Starlette(routes=routes)
    app.router.redirect_slashes = False
    return app


class HttpServer:
    """Serves an ASGI application on an endpoint, from `start` to `stop`."""

    def __init__(
        self,
        app: Starlette,
        endpoint: str,
        *,
        idle_timeout: float = 60,
        tls: ServerTls | None = None,
        handshake_failed: Callable[[], None] = lambda: None,
    ) -> None:
        self._app = app
        self._endpoint = endpoint
        self._idle_timeout = idle_timeout
        self._tls = tls
        self._handshake_failed = handshake_failed
        self._context: RenewedContext | None = None
        self._stopping = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._port: int | None = None

    @property
    def port(self) -> int | None:
        """The bound port once started."""
        return self._port

    async def start(self) -> None:
        """Accept connections from here on. Raises ConfigurationError when the endpoint is taken."""
        if self._tls is not None:
            self._context = RenewedContext(self._tls, self._handshake_failed)
        sockets = open_sockets(self._endpoint)
        self._port = sockets[0].getsockname()[1]
        config = self._config(sockets)
        self._task = asyncio.create_task(serve(self._app, config, shutdown_trigger=self._stopping.wait))  # type: ignore[arg-type]
        self._task.add_done_callback(self._ended)

    def renew(self) -> None:
        """Use the certificate as its files are now."""
        if self._context is not None:
            self._context.renew()

    async def stop(self, grace: float) -> None:
        """Accept no more, let running requests end for up to `grace` seconds, then break them off."""
        self._stopping.set()
        if self._task is None:
            return
        await asyncio.wait({self._task}, timeout=grace)
        while not self._task.done():  # before Python 3.12 wait_for can swallow a cancellation
            self._task.cancel()
            await asyncio.wait({self._task}, timeout=0.1)

    def _config(self, sockets: list[socket.socket]) -> Config:
        config: Any = _Config(self._context)
        config.bind = [f"fd://{opened.detach()}" for opened in sockets]
        config.errorlog = logging.getLogger(f"{__name__}.http")
        config.errorlog.setLevel(logging.WARNING)
        config.include_server_header = False
        # Covers a connection between requests and one whose request line or headers do not arrive.
        config.keep_alive_timeout = self._idle_timeout
        config.ssl_handshake_timeout = self._idle_timeout
        config.graceful_timeout = 3600.0  # `stop` knows the grace
        return config  # type: ignore[no-any-return]

    def _ended(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            _log.error("the HTTP server on %s ended: %s", self._endpoint, error, exc_info=error)
