"""Sends finished OTLP requests to a backend: over gRPC, or over HTTP with protobuf.

Which failures are worth another attempt is what the OTLP specification says:
https://opentelemetry.io/docs/specs/otlp/#failures and #failures-1.
"""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import logging
import ssl
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timezone
from email.utils import parsedate_to_datetime
from functools import partial
from typing import Any, Protocol
from urllib.parse import urlsplit

import grpc
from google.protobuf.message import DecodeError
from google.rpc.error_details_pb2 import RetryInfo  # type: ignore[import-untyped]
from google.rpc.status_pb2 import Status  # type: ignore[import-untyped]
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceResponse
from pydantic import SecretStr

from otel_ml.errors import ConfigurationError

from .auth import ClientAuth
from .files import Changes
from .queue import Outcome, Retry, SendingQueue
from .security import client_tls
from .settings import Otlp, OtlpHttp, RetryOnFailure
from .settings import SendingQueue as QueueSettings
from .signals import METRICS, Signal
from .tls import ClientTls

_LOG = logging.getLogger(__name__)
_GRPC_RETRYABLE = {
    grpc.StatusCode.CANCELLED,
    grpc.StatusCode.DEADLINE_EXCEEDED,
    grpc.StatusCode.ABORTED,
    grpc.StatusCode.OUT_OF_RANGE,
    grpc.StatusCode.UNAVAILABLE,
    grpc.StatusCode.DATA_LOSS,
}
_HTTP_RETRYABLE = {429, 502, 503, 504}
_MAX_ANSWER = 64 * 1024
"""Bytes of an HTTP answer that are looked at."""


class Sender(Protocol):
    """One way to a backend."""

    async def send(self, data: bytes, signal: Signal = METRICS) -> Outcome: ...
    async def close(self) -> None: ...


# --- gRPC -------------------------------------------------------------------------------------------------


class GrpcSender:
    """Sends over one gRPC channel, made anew when its certificates change; make it inside a running event loop."""

    def __init__(self, settings: Otlp, auth: ClientAuth | None = None) -> None:
        self._settings = settings
        self._timeout = settings.timeout
        self._metadata = tuple((name, value) for name, value in _headers(settings.headers).items())
        self._auth = auth
        self._tls = client_tls(settings.tls) if settings.secure() else None
        self._changes = Changes(self._tls.files() if self._tls is not None else ())
        self._changes.seen()
        self._channel = _channel(settings, self._tls)
        self._methods: dict[Signal, Any] = {}

    async def send(self, data: bytes, signal: Signal = METRICS) -> Outcome:
        """What became of one request."""
        await self._renew()
        if (export := self._methods.get(signal)) is None:
            export = self._methods[signal] = self._channel.unary_unary(signal.method, _raw, _raw)
        metadata = self._metadata if self._auth is None else (*self._metadata, *self._auth.headers().items())
        try:
            answer = await export(data, timeout=self._timeout, metadata=metadata)
        except grpc.aio.AioRpcError as error:
            return _of_rpc_error(error)
        return _accepted(answer)

    async def close(self) -> None:
        """Give the connection back."""
        await self._channel.close(None)

    async def _renew(self) -> None:
        if self._tls is None or not self._changes.seen() or not _usable(self._tls):
            return
        old, self._channel, self._methods = self._channel, _channel(self._settings, self._tls), {}
        await old.close(self._timeout)


def _raw(data: bytes) -> bytes:
    return data


def _headers(headers: Mapping[str, SecretStr]) -> dict[str, str]:
    return {name.lower(): value.get_secret_value() for name, value in headers.items()}


def _usable(tls: ClientTls) -> bool:
    """Whether the files, which have changed, can be used; what becomes of it is said."""
    try:
        tls.context()
    except ConfigurationError as error:
        _LOG.warning("%s; the certificate read before stays in use", error)
        return False
    _LOG.info("certificates were read again: %s", ", ".join(tls.files()))
    return True


def _channel(settings: Otlp, tls: ClientTls | None) -> grpc.aio.Channel:
    # gRPC's own pause between connection attempts grows to two minutes, longer than ours ever is.
    pause = int(1000 * min(settings.retry_on_failure.initial_interval, 5.0))
    options: list[tuple[str, int | str]] = [
        ("grpc.initial_reconnect_backoff_ms", max(100, pause // 2)),
        ("grpc.min_reconnect_backoff_ms", max(100, pause // 2)),
        ("grpc.max_reconnect_backoff_ms", max(100, pause)),
    ]
    if tls is None:
        return grpc.aio.insecure_channel(settings.endpoint.target, options=options)
    if tls.server_name is not None:
        options.append(("grpc.ssl_target_name_override", tls.server_name))
    return grpc.aio.secure_channel(settings.endpoint.target, tls.grpc_credentials(), options=options)


def _of_rpc_error(error: grpc.aio.AioRpcError) -> Outcome:
    code = error.code()
    after = _retry_info({**_pairs(error.initial_metadata()), **_pairs(error.trailing_metadata())})
    # RESOURCE_EXHAUSTED means "later" only together with a RetryInfo.
    retry = code in _GRPC_RETRYABLE or (code is grpc.StatusCode.RESOURCE_EXHAUSTED and after is not None)
    return Outcome(ok=False, retry=retry, message=f"{code.name}: {error.details()}", after=after)


def _pairs(metadata: Any) -> dict[str, bytes]:
    pairs = metadata or ()
    return {name: value if isinstance(value, bytes) else str(value).encode() for name, value in pairs}


def _retry_info(metadata: Mapping[str, bytes]) -> float | None:
    """Seconds of the RetryInfo in an answer's trailers, None when there is none."""
    info = RetryInfo()
    try:
        if "google.rpc.retryinfo-bin" in metadata:
            info.ParseFromString(metadata["google.rpc.retryinfo-bin"])
            return _seconds(info)
        status = Status.FromString(metadata.get("grpc-status-details-bin", b""))
        return next((_seconds(info) for detail in status.details if detail.Unpack(info)), None)
    except DecodeError:
        return None


def _seconds(info: RetryInfo) -> float:
    return float(info.retry_delay.seconds + info.retry_delay.nanos / 1e9)


# --- HTTP -------------------------------------------------------------------------------------------------


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """A redirected POST would become a GET; the redirect is the answer instead."""

    def redirect_request(self, *_: Any) -> None:
        return None


class HttpSender:
    """Sends over HTTP, each request on a connection of its own, in a thread."""

    def __init__(self, settings: OtlpHttp, auth: ClientAuth | None = None) -> None:
        self._endpoint = settings.endpoint
        self._timeout = settings.timeout
        self._headers = {**_headers(settings.headers), "content-type": "application/x-protobuf"}
        self._auth = auth
        self._tls = client_tls(settings.tls)
        self._changes = Changes(self._tls.files())
        self._changes.seen()
        self._opener = self._open(self._tls.context())

    def _open(self, context: ssl.SSLContext) -> urllib.request.OpenerDirector:
        return urllib.request.build_opener(
            urllib.request.HTTPSHandler(context=context), _NoRedirect(), _proxies(self._endpoint)
        )

    async def send(self, data: bytes, signal: Signal = METRICS) -> Outcome:
        """What became of one request."""
        url = self._endpoint + signal.path
        # The socket's timeout is one for every read: an answer that trickles would never end.
        try:
            return await asyncio.wait_for(_in_thread(lambda: self._post(url, data)), 2 * self._timeout)
        except asyncio.TimeoutError:
            message = f"{url} did not finish its answer within {2 * self._timeout:g} s"
            return Outcome(ok=False, retry=True, message=message)

    async def close(self) -> None:
        """Nothing is kept open between requests."""

    def _post(self, url: str, data: bytes) -> Outcome:
        if self._changes.seen() and _usable(self._tls):
            self._opener = self._open(self._tls.context())
        headers = self._headers if self._auth is None else {**self._headers, **self._auth.headers()}
        request = urllib.request.Request(url, data, headers, method="POST")
        try:
            with self._opener.open(request, timeout=self._timeout) as answer:
                return _accepted(answer.read(_MAX_ANSWER))
        except urllib.error.HTTPError as error:
            with error:
                return _of_http_error(error)
        except (OSError, http.client.HTTPException) as error:
            reason = getattr(error, "reason", error)
            return Outcome(ok=False, retry=True, message=f"{url} cannot be reached: {reason}")


def _proxies(url: str) -> urllib.request.ProxyHandler:
    """The proxies of the environment; none for this machine itself, as in the Collector."""
    host = urlsplit(url).hostname or ""
    local = host in ("localhost", "::1") or host.startswith("127.")
    return urllib.request.ProxyHandler({} if local else None)


async def _in_thread(work: Callable[[], Outcome]) -> Outcome:
    """The result of `work`, from a daemon thread: an executor's would keep the process alive after a stop."""
    loop = asyncio.get_running_loop()
    result: asyncio.Future[Outcome] = loop.create_future()

    def tell(outcome: Outcome) -> None:
        if not result.done():
            result.set_result(outcome)

    def run() -> None:
        try:
            outcome = work()
        except Exception as error:
            outcome = Outcome(ok=False, message=f"{type(error).__name__}: {error}")
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits
            loop.call_soon_threadsafe(tell, outcome)

    threading.Thread(target=run, name="otlphttp", daemon=True).start()
    return await result


def _of_http_error(error: urllib.error.HTTPError) -> Outcome:
    message = f"{error.url} answered {error.code} {error.reason}"
    after = retry_after(error.headers.get("Retry-After"), datetime.now(timezone.utc))
    return Outcome(ok=False, retry=error.code in _HTTP_RETRYABLE, message=message, after=after)


def retry_after(value: str | None, now: datetime) -> float | None:
    """Seconds that a Retry-After header asks to wait: a number, or the time until a date."""
    if value is None:
        return None
    if value.strip().isdecimal():
        return float(value)
    try:
        return max(0.0, (parsedate_to_datetime(value) - now).total_seconds())
    except (TypeError, ValueError):
        return None


def _accepted(answer: bytes) -> Outcome:
    try:  # the answers of all signals have the same fields
        partial = ExportMetricsServiceResponse.FromString(answer).partial_success
    except DecodeError:
        return Outcome(ok=True)
    return Outcome(ok=True, rejected=partial.rejected_data_points, message=partial.error_message)


# --- exporters --------------------------------------------------------------------------------------------


class OtlpExporter:
    """A sender behind a queue for each signal; make it inside a running event loop."""

    def __init__(
        self,
        name: str,
        settings: Otlp | OtlpHttp,
        signals: Sequence[Signal] = (METRICS,),
        *,
        auth: ClientAuth | None = None,
    ) -> None:
        self.name = name
        self._sender: Sender = (
            GrpcSender(settings, auth) if isinstance(settings, Otlp) else HttpSender(settings, auth)
        )
        self.queues = {
            signal: SendingQueue(
                name,
                partial(self._sender.send, signal=signal),
                size=_queue_size(settings.sending_queue),
                retry=_retry(settings.retry_on_failure),
            )
            for signal in signals
        }

    @property
    def queue(self) -> SendingQueue:
        """The one for metrics."""
        return self.queues[METRICS]

    async def start(self) -> None:
        """Begin to send."""
        for queue in self.queues.values():
            queue.start()

    async def stop(self, grace: float) -> None:
        """Send what is waiting, for up to `grace` seconds."""
        await asyncio.gather(*(queue.stop(grace) for queue in self.queues.values()))
        await self._sender.close()


def _queue_size(settings: QueueSettings) -> int:
    # Without a queue nothing waits: there is room for the one request that is under way.
    return settings.queue_size if settings.enabled else 1


def _retry(settings: RetryOnFailure) -> Retry | None:
    if not settings.enabled:
        return None
    return Retry(settings.initial_interval, settings.max_interval, settings.max_elapsed_time)
