"""Sends finished OTLP requests to a backend: over gRPC, or over HTTP with protobuf.

Which failures are worth another attempt is what the OTLP specification says:
https://opentelemetry.io/docs/specs/otlp/#failures and #failures-1.
"""

from __future__ import annotations

import asyncio
import gzip
import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import grpc
from google.protobuf.message import DecodeError
from google.rpc.error_details_pb2 import RetryInfo  # type: ignore[import-untyped]
from google.rpc.status_pb2 import Status  # type: ignore[import-untyped]
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceResponse
from pydantic import SecretStr

from .auth import ClientAuth
from .backlog import Backlog
from .fields import milliseconds
from .files import Changes
from .http_client import Answer, HttpClient, usable
from .queue import Outcome, Retry, SendingQueue
from .security import client_tls
from .settings import ClientKeepalive, Otlp, OtlpHttp, RetryOnFailure
from .settings import SendingQueue as QueueSettings
from .signals import LOGS, METRICS, Signal
from .storage import Directory
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
_HTTP_UNSUPPORTED = {404, 405, 501}
_NO_LOGS = (
    "{said}: it takes no log records, and so no events of changes of status; nothing else is affected. Let it take "
    "them, or set events: false at ml_drift"
)


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
            waits = self._settings.wait_for_ready
            answer = await export(data, timeout=self._timeout, metadata=metadata, wait_for_ready=waits)
        except grpc.aio.AioRpcError as error:
            return _of_rpc_error(error)
        return _accepted(answer)

    async def close(self) -> None:
        """Give the connection back."""
        await self._channel.close(None)

    async def _renew(self) -> None:
        if self._tls is None or not self._changes.seen() or not usable(self._tls):
            return
        old, self._channel, self._methods = self._channel, _channel(self._settings, self._tls), {}
        await old.close(self._timeout)


def _raw(data: bytes) -> bytes:
    return data


def _headers(headers: Mapping[str, SecretStr]) -> dict[str, str]:
    return {name.lower(): value.get_secret_value() for name, value in headers.items()}


def _channel(settings: Otlp, tls: ClientTls | None) -> grpc.aio.Channel:
    # gRPC's own pause between connection attempts grows to two minutes, longer than ours ever is.
    pause = int(1000 * min(settings.retry_on_failure.initial_interval, 5.0))
    options: list[tuple[str, int | str]] = [
        ("grpc.initial_reconnect_backoff_ms", max(100, pause // 2)),
        ("grpc.min_reconnect_backoff_ms", max(100, pause // 2)),
        ("grpc.max_reconnect_backoff_ms", max(100, pause)),
    ]
    options += _keepalive(settings.keepalive)
    packed = grpc.Compression.Gzip if settings.compression == "gzip" else grpc.Compression.NoCompression
    if tls is None:
        return grpc.aio.insecure_channel(settings.endpoint.target, options, packed)
    if tls.server_name is not None:
        options.append(("grpc.ssl_target_name_override", tls.server_name))
    return grpc.aio.secure_channel(settings.endpoint.target, tls.grpc_credentials(), options, packed)


def _keepalive(settings: ClientKeepalive | None) -> list[tuple[str, int | str]]:
    if settings is None:
        return []
    return [
        ("grpc.keepalive_time_ms", milliseconds(settings.time)),
        ("grpc.keepalive_timeout_ms", milliseconds(settings.timeout)),
        ("grpc.keepalive_permit_without_calls", int(settings.permit_without_stream)),
        ("grpc.http2.ping_timeout_ms", milliseconds(settings.timeout)),  # without it, a minute
        # Else it asks twice, and then no more until there is data.
        ("grpc.http2.max_pings_without_data", 0),
    ]


def _of_rpc_error(error: grpc.aio.AioRpcError) -> Outcome:
    code = error.code()
    after = _retry_info({**_pairs(error.initial_metadata()), **_pairs(error.trailing_metadata())})
    # RESOURCE_EXHAUSTED means "later" only together with a RetryInfo.
    retry = code in _GRPC_RETRYABLE or (code is grpc.StatusCode.RESOURCE_EXHAUSTED and after is not None)
    return Outcome(
        ok=False,
        retry=retry,
        message=f"{code.name}: {error.details()}",
        after=after,
        unsupported=code is grpc.StatusCode.UNIMPLEMENTED,
    )


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


class HttpSender:
    """Sends over HTTP."""

    def __init__(self, settings: OtlpHttp, auth: ClientAuth | None = None) -> None:
        self._endpoint = settings.endpoint
        self._headers = {**_headers(settings.headers), "content-type": "application/x-protobuf"}
        self._packs = settings.compression == "gzip"
        if self._packs:
            self._headers["content-encoding"] = "gzip"
        self._client = HttpClient(
            settings.endpoint, client_tls(settings.tls), timeout=settings.timeout, auth=auth
        )

    async def send(self, data: bytes, signal: Signal = METRICS) -> Outcome:
        """What became of one request."""
        if self._packs:
            # Level 1 takes a quarter of the time of level 6, and histograms become a tenth larger.
            data = await asyncio.to_thread(gzip.compress, data, 1, mtime=0)
        return await self._client.post(self._endpoint + signal.path, data, self._headers, _of_answer)

    async def close(self) -> None:
        """Nothing is kept open between requests."""


def _of_answer(answer: Answer) -> Outcome:
    if answer.ok:
        return _accepted(answer.body)
    retry, unsupported = answer.status in _HTTP_RETRYABLE, answer.status in _HTTP_UNSUPPORTED
    return Outcome(
        ok=False, retry=retry, message=answer.message, after=answer.retry_after, unsupported=unsupported
    )


def _accepted(answer: bytes) -> Outcome:
    try:  # the answers of all signals have the same fields
        partial = ExportMetricsServiceResponse.FromString(answer).partial_success
    except DecodeError:
        return Outcome(ok=True)
    return Outcome(ok=True, rejected=partial.rejected_data_points, message=partial.error_message)


# --- exporters --------------------------------------------------------------------------------------------


class OtlpExporter:
    """A sender behind a queue for each signal; make it inside a running event loop.

    `events_only` says that no log records are sent but those of changes of status.
    """

    def __init__(
        self,
        name: str,
        settings: Otlp | OtlpHttp,
        signals: Sequence[Signal] = (METRICS,),
        *,
        auth: ClientAuth | None = None,
        directory: Directory | None = None,
        events_only: bool = False,
    ) -> None:
        self.name = name
        self.durable = directory is not None
        """Whether what waits is on disk."""
        self._sender: Sender = (
            GrpcSender(settings, auth) if isinstance(settings, Otlp) else HttpSender(settings, auth)
        )
        self._without_logs = False
        """Whether the backend said that it takes no logs, which is said once."""
        self.queues = {
            signal: SendingQueue(
                name,
                self._send_events
                if events_only and signal is LOGS
                else partial(self._sender.send, signal=signal),
                size=_queue_size(settings.sending_queue),
                sizer=settings.sending_queue.sizer,
                line=None if directory is None else _backlog(name, signal, directory),
                retry=retry_of(settings.retry_on_failure),
                unit="points" if signal is METRICS else signal.items,
            )
            for signal in signals
        }

    @property
    def queue(self) -> SendingQueue:
        """The one for metrics."""
        return self.queues[METRICS]

    async def _send_events(self, data: bytes) -> Outcome:
        """As any, but a backend that takes no logs is said once: nobody asked for them."""
        outcome = await self._sender.send(data, LOGS)
        if outcome.unsupported and not self._without_logs:
            _LOG.warning("exporter %s: %s", self.name, _NO_LOGS.format(said=outcome.message))
        self._without_logs = outcome.unsupported or (self._without_logs and not outcome.ok)
        return replace(outcome, message="") if outcome.unsupported else outcome

    async def start(self) -> None:
        """Begin to send, first what waits on disk from before."""
        for queue in self.queues.values():
            await queue.open()
            queue.start()

    async def stop(self, grace: float) -> None:
        """Send what is waiting, for up to `grace` seconds."""
        await asyncio.gather(*(queue.stop(grace) for queue in self.queues.values()))
        await self._sender.close()


def _queue_size(settings: QueueSettings) -> int:
    # Without a queue nothing waits: there is room for the one request that is under way.
    return settings.queue_size if settings.enabled else 1


def _backlog(name: str, signal: Signal, directory: Directory) -> Backlog:
    def path() -> Path:
        return directory.place(f"exporters.{name}") / f"{signal.name}.sqlite"

    return Backlog(name, path, fsync=directory.fsync)


def retry_of(settings: RetryOnFailure) -> Retry | None:
    """When a request is sent again; None: never."""
    if not settings.enabled:
        return None
    return Retry(
        settings.initial_interval,
        settings.max_interval,
        settings.max_elapsed_time,
        settings.multiplier,
        settings.randomization_factor,
    )
