"""What a sender may send."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from .decode import DecodeLimits

_MIB = 1024 * 1024


def admit_all() -> None:
    """Takes everybody in."""


@dataclass(frozen=True, slots=True)
class Keepalive:
    """How long gRPC connections live, in seconds; None: for ever."""

    max_connection_idle: float | None = None
    max_connection_age: float | None = None
    max_connection_age_grace: float | None = None
    time: float = 7200.0
    """A connection that is silent so long is asked whether it is still there: a sender may go without a word."""
    timeout: float = 20.0
    """Time for the answer to that."""
    min_time: float = 10.0
    """Between two pings of a client; the Collector and the SDKs send none by themselves."""
    permit_without_stream: bool = False


@dataclass(frozen=True, slots=True)
class ReceiverLimits:
    """Sizes in bytes, times in seconds."""

    max_recv_msg_size: int = 16 * _MIB
    """gRPC messages, compressed and decompressed."""
    max_request_body_size: int = 64 * _MIB
    """HTTP bodies, compressed and decompressed."""
    max_concurrent_streams: int = 100
    """gRPC calls of one connection."""
    max_requests: int = 256
    """Requests under way, over gRPC and HTTP together; one address has a quarter."""
    max_held_bytes: int = 256 * _MIB
    """Bodies of requests under way; one address has half. A gRPC message holds its greatest size until it is there."""
    read_timeout: float = 30.0
    """Time a body may take to arrive."""
    idle_timeout: float = 60.0
    """Time an HTTP connection may wait for a request, and a handshake may take."""
    keepalive: Keepalive = Keepalive()
    """Of gRPC connections."""
    decode: DecodeLimits = field(default_factory=DecodeLimits)
    admit: Callable[[], None] = admit_all
    """Asked before a body is read; raises Overloaded."""
