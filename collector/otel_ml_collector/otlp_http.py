"""OTLP over HTTP/1.1, with protobuf and with JSON bodies."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable

import grpc
from starlette.requests import ClientDisconnect, Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from .access import Access
from .intake import ENCODINGS, Intake, Refusal, too_large
from .limiter import Admission, Overloaded, Place
from .limits import ReceiverLimits
from .refusals import Refusals, authorize
from .server import HttpServer, application
from .signals import Signal

_PROTOBUF, _JSON = "application/x-protobuf", "application/json"
_STATUS = {
    grpc.StatusCode.INVALID_ARGUMENT: 400,
    grpc.StatusCode.UNAUTHENTICATED: 401,
    grpc.StatusCode.RESOURCE_EXHAUSTED: 413,
    grpc.StatusCode.UNAVAILABLE: 503,
    grpc.StatusCode.INTERNAL: 500,
}
_BUSY = 429


class HttpSide:
    """An HTTP server in front of an intake, from `start` to `stop`."""

    def __init__(
        self, endpoint: str, intake: Intake, limits: ReceiverLimits, admission: Admission, access: Access
    ) -> None:
        self._intake = intake
        self._limits = limits
        self._admission = admission
        self._auth = access.auth
        self.refusals = Refusals("http")
        routes = [Route(one.path, self._endpoint(one), methods=["POST"]) for one in intake.signals()]
        self._server = HttpServer(
            application(routes), endpoint, idle_timeout=limits.idle_timeout, tls=access.tls,
            handshake_failed=lambda: self.refusals.count("tls_handshake", "an unknown address"),
        )  # fmt: skip

    @property
    def port(self) -> int | None:
        """The bound port once started."""
        return self._server.port

    async def start(self) -> None:
        """Accept requests from here on. Raises ConfigurationError when the endpoint is taken."""
        await self._server.start()

    def renew(self) -> None:
        """Use the certificate as its files are now."""
        self._server.renew()

    async def stop(self, grace: float) -> None:
        """Accept no more, let running requests end for up to `grace` seconds."""
        await self._server.stop(grace)

    def _endpoint(self, signal: Signal) -> Callable[[Request], Awaitable[Response]]:
        async def answer(request: Request) -> Response:
            json = _media_type(request) == _JSON
            try:
                return await self._export(signal, request, json=json)
            except Refusal as refusal:
                return self._refuse(request, refusal, json=json)
            except Overloaded as error:
                return self._refuse(request, Refusal.of(error), json=json)
            except asyncio.TimeoutError:
                limit = self._limits.read_timeout
                self.refusals.count("timeout", _address(request))
                return PlainTextResponse(f"the body did not arrive within {limit:g} s\n", 408)
            except ClientDisconnect:
                return Response(status_code=400)  # nobody reads it

        return answer

    async def _export(self, signal: Signal, request: Request, *, json: bool) -> Response:
        if self._auth is not None:
            await authorize(self._auth, request.headers.get(self._auth.header, ""))
        encoding = request.headers.get("content-encoding", "identity").strip().lower() or "identity"
        if (unsupported := _unsupported(request, encoding)) is not None:
            self.refusals.count("unsupported", _address(request))
            return unsupported
        self._limits.admit()
        with self._admission.request(_address(request)) as place:
            body = await asyncio.wait_for(self._body(request, place), self._limits.read_timeout)
            answer = await self._intake.export(
                body, transport="http", signal=signal, encoding=encoding, json=json
            )
        if json:
            return Response(answer.json(signal), media_type=_JSON)
        return Response(answer.protobuf(), media_type=_PROTOBUF)

    async def _body(self, request: Request, place: Place) -> bytes:
        """The body; Refusal when it is too large.

        A sender sees the answer only once it has sent everything, so that what is over the limit is read and
        thrown away, up to a limit of its own.
        """
        limit = self._limits.max_request_body_size
        parts: list[bytes] = []
        size = 0
        async for part in request.stream():
            size += len(part)
            if size <= limit:
                place.hold(len(part))
                parts.append(part)
            elif size > 4 * limit:
                break
            else:
                parts.clear()
        if size > limit:
            raise too_large(limit)
        return b"".join(parts)

    def _refuse(self, request: Request, refusal: Refusal, *, json: bool) -> Response:
        self.refusals.add(refusal, _address(request))
        headers = {}
        if refusal.retry_after is not None:
            headers["Retry-After"] = str(math.ceil(refusal.retry_after))
        if refusal.code is grpc.StatusCode.UNAUTHENTICATED and self._auth is not None:
            headers["WWW-Authenticate"] = self._auth.challenge
        status = _BUSY if refusal.busy else _STATUS[refusal.code]
        if json:
            return Response(refusal.json(), status, headers, media_type=_JSON)
        return Response(refusal.status().SerializeToString(), status, headers, media_type=_PROTOBUF)


def _address(request: Request) -> str:
    return request.client.host if request.client else ""


def _media_type(request: Request) -> str:
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()


def _unsupported(request: Request, encoding: str) -> Response | None:
    media_type = _media_type(request)
    if media_type not in (_PROTOBUF, _JSON):
        return PlainTextResponse(
            f"unsupported media type {media_type!r}, supported: {_PROTOBUF}, {_JSON}\n", 415
        )
    if encoding != "identity" and encoding not in ENCODINGS:
        supported = ", ".join(["identity", *ENCODINGS])
        return PlainTextResponse(f"unsupported content encoding {encoding!r}, supported: {supported}\n", 415)
    return None
