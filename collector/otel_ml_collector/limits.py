"""What a sender may send."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from .decode import DecodeLimits

_MIB = 1024 * 1024


def admit_all() -> None:
    """Takes everybody in."""


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
    min_ping_interval: float = 10.0
    """Of gRPC clients; the Collector and the SDKs send none by themselves."""
    keepalive_time: float = 7200.0
    """A gRPC connection that is silent so long is asked whether it is still there."""
    keepalive_timeout: float = 20.0
    """Time for the answer to that."""
    decode: DecodeLimits = field(default_factory=DecodeLimits)
    admit: Callable[[], None] = admit_all
    """Asked before a body is read; raises Overloaded."""
