"""The way in: OTLP over gRPC and over HTTP, with protobuf and with JSON bodies.

Metrics are always taken. Traces and logs are taken when they are passed on; else they are answered as a
Collector without their pipelines does: UNIMPLEMENTED over gRPC, 404 over HTTP.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from .access import OPEN, Access
from .intake import Consume, Forward, Intake, IntakeCounts
from .limiter import Admission, Overloaded
from .limits import ReceiverLimits
from .otlp_grpc import GrpcSide
from .otlp_http import HttpSide
from .signals import METRICS, Signal

__all__ = ["Consume", "Overloaded", "Receiver", "ReceiverLimits"]

_DEFAULT_LIMITS = ReceiverLimits()


class Receiver:
    """Listens from `start` to `stop` and hands every batch to `consume`, in the event loop, one at a time.
    Without `consume` metrics are not taken.

    An endpoint is `host:port`, port 0 for any free one, or None to leave the protocol out. Signals in
    `forward` are passed on as they came.
    """

    def __init__(
        self,
        *,
        consume: Consume | None,
        grpc_endpoint: str | None = "127.0.0.1:4317",
        http_endpoint: str | None = "127.0.0.1:4318",
        limits: ReceiverLimits = _DEFAULT_LIMITS,
        forward: Mapping[Signal, Forward] | None = None,
        grpc_access: Access = OPEN,
        http_access: Access = OPEN,
    ) -> None:
        largest = max(limits.max_recv_msg_size, limits.max_request_body_size)
        held = max(limits.max_held_bytes, 2 * largest)  # one sender's half has room for one request
        admission = Admission(requests=limits.max_requests, held_bytes=held)
        self._intake = Intake(consume, limits.decode, max_body=limits.max_request_body_size, forward=forward)
        self._grpc = self._http = None
        if grpc_endpoint is not None:
            self._grpc = GrpcSide(grpc_endpoint, self._intake, limits, admission, grpc_access)
        if http_endpoint is not None:
            self._http = HttpSide(http_endpoint, self._intake, limits, admission, http_access)

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
        """Data points accepted and refused by transport, rejected and ignored by reason; metrics are taken."""
        return self._intake.counts[METRICS]

    @property
    def counts_by_signal(self) -> Mapping[Signal, IntakeCounts]:
        """The same for everything that is taken in."""
        return self._intake.counts

    @property
    def refusals(self) -> Mapping[str, Mapping[str, int]]:
        """Requests that were answered with an error, by transport and reason."""
        sides = (("grpc", self._grpc), ("http", self._http))
        return {transport: side.refusals.counts for transport, side in sides if side is not None}

    def renew(self) -> None:
        """Use certificates as their files are now."""
        for side in self._sides():
            side.renew()

    async def start(self) -> None:
        """Listen on every endpoint, or on none: ConfigurationError names the one that cannot be had."""
        started: list[GrpcSide | HttpSide] = []
        try:
            for side in self._sides():
                started.append(side)
                await side.start()
        except BaseException:
            for side in started:
                await side.stop(0)
            self._intake.close()
            raise

    async def stop(self, grace: float) -> None:
        """Accept no more requests and let running ones end for up to `grace` seconds."""
        await asyncio.gather(*(side.stop(grace) for side in self._sides()))
        self._intake.close()

    def _sides(self) -> list[GrpcSide | HttpSide]:
        return [side for side in (self._grpc, self._http) if side is not None]
