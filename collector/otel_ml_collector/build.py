"""From settings to the parts they describe."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from otel_ml.baseline import Baseline

from . import security
from .access import OPEN, Access
from .decode import DecodeLimits
from .drift import Policy
from .engine import Engine, Limits
from .exporter import OtlpExporter
from .intake import Forward
from .limiter import MemoryLimiter
from .limits import Keepalive, ReceiverLimits, admit_all
from .past import LEARN_ROWS
from .points import PointBatch
from .receiver import Consume, Receiver
from .recovery import Keeping
from .retraining import Webhook
from .settings import (
    Auth,
    Authenticator,
    BasicAuth,
    BearerTokenAuth,
    Extension,
    FileStorage,
    Grpc,
    Http,
    MlDrift,
    Otlp,
    OtlpHttp,
    OtlpReceiver,
    ServerKeepalive,
)
from .settings import MemoryLimiter as MemorySettings
from .signals import Signal
from .storage import Directory
from .webhook import WebhookExporter
from .window import WindowSpec

_MIB = 1024 * 1024
_HELD_MIB = 256
"""Of requests under way; at most a quarter of the limit of a memory_limiter."""
_BASELINE_PREFIX = "ml.baseline."


def engine(drift: MlDrift, baselines: Sequence[Baseline] = (), *, started: int) -> Engine:
    """The engine these settings ask for, at `started` (Unix nanoseconds), with the baselines of files."""
    limits = Limits(drift.limits.max_streams, drift.limits.max_groups, drift.limits.max_buckets)
    return Engine(
        window_spec(drift),
        policy(drift),
        limits,
        baselines=baselines,
        past=drift.baseline.past(),
        learn_rows=drift.baseline.learn_rows or LEARN_ROWS,
        started=started,
    )


def fixed(drift: MlDrift) -> tuple[object, ...]:
    """What a running engine cannot change: its counts are kept by it."""
    baseline = drift.baseline
    sources = baseline.past(), baseline.learn_rows, "wire" in baseline.sources
    return window_spec(drift), drift.limits, sources, drift.storage, drift.checkpoint_interval, drift.wal


def changed(old: MlDrift, new: MlDrift) -> list[str]:
    """Keys of what a running engine cannot change that differ, like window.length."""
    before, after = _fixed_keys(old), _fixed_keys(new)
    return [key for key in before if before[key] != after[key]]


def _fixed_keys(drift: MlDrift) -> dict[str, object]:
    baseline = drift.baseline
    return {
        **{f"window.{key}": value for key, value in drift.window if key != "min_rows"},
        "interval": drift.interval,
        "fast.length": drift.fast.length,
        **{f"limits.{key}": value for key, value in drift.limits},
        "baseline.sources": {*baseline.sources} - {"file"},
        "baseline.span": baseline.span,
        "baseline.learn_rows": baseline.learn_rows,
        **{key: getattr(drift, key) for key in ("storage", "checkpoint_interval", "wal")},
    }


def window_spec(drift: MlDrift) -> WindowSpec:
    """The window these settings ask for."""
    window = drift.window
    return WindowSpec(
        type=window.type,
        length=window.length,
        step=window.steps(),
        lateness=window.lateness,
        max_age=window.oldest(),
        refresh=drift.interval,
        fast_length=min(3600.0, window.length) if drift.fast.length is None else drift.fast.length,
        initial_max_age=window.initial_max_age,
        rows=window.rows or 0,
        history=_history(drift),
    )


def _history(drift: MlDrift) -> float | None:
    """Seconds of counts beyond the window that its baseline is made of; None: as long as the window."""
    if drift.baseline.past() != "rolling":
        return None
    return 7 * drift.window.length if drift.baseline.span is None else drift.baseline.span


def policy(drift: MlDrift) -> Policy:
    """The limits of the verdict; what is not set follows from the type of the window."""
    tumbling = drift.window.type == "tumbling"
    return Policy(
        psi=drift.thresholds.psi,
        ks=drift.thresholds.ks,
        states=drift.thresholds.states,
        alpha=(0.01 if tumbling else 0.001) if drift.alpha is None else drift.alpha,
        correction=drift.correction,
        min_rows=drift.window.min_rows,
        min_reference_rows=drift.min_reference_rows,
        consecutive=_consecutive(drift),
        fast_psi=drift.fast.psi,
        fast_p=drift.fast.p,
        statistics=drift.statistics,
    )


def _consecutive(drift: MlDrift) -> int:
    # Compared with the window before it, a change shows in one window only.
    if drift.baseline.past() == "previous":
        return 1
    return (2 if drift.window.type == "tumbling" else 1) if drift.consecutive is None else drift.consecutive


def memory_limiter(settings: MemorySettings) -> MemoryLimiter:
    """The limiter these settings ask for."""
    return MemoryLimiter(
        limit=settings.limit_mib * _MIB,
        spike=settings.spike() * _MIB,
        check_interval=settings.check_interval,
    )


def receiver(
    settings: OtlpReceiver,
    drift: MlDrift,
    consume: Consume | None,
    *,
    extensions: Mapping[str, Extension],
    forward: Mapping[Signal, Forward] | None = None,
    memory: MemorySettings | None = None,
) -> Receiver:
    """The receiver these settings ask for; its decoder has the limits of the processor behind it."""
    grpc, http = settings.protocols.grpc, settings.protocols.http
    return Receiver(
        consume=consume,
        grpc_endpoint=str(grpc.endpoint) if grpc else None,
        http_endpoint=str(http.endpoint) if http else None,
        limits=_receiver_limits(settings, drift, memory),
        forward=forward,
        grpc_access=_access(grpc, extensions),
        http_access=_access(http, extensions),
    )


def _access(protocol: Grpc | Http | None, extensions: Mapping[str, Extension]) -> Access:
    if protocol is None:
        return OPEN
    auth = authenticator(protocol.auth, extensions)
    return Access(security.server_tls(protocol.tls), None if auth is None else security.server_auth(auth))


def authenticator(auth: Auth | None, extensions: Mapping[str, Extension]) -> Authenticator | None:
    """The extension that a component names as its authenticator."""
    found = None if auth is None else extensions[auth.authenticator]
    return found if isinstance(found, BearerTokenAuth | BasicAuth) else None


def exporter(
    name: str,
    settings: Otlp | OtlpHttp,
    signals: Sequence[Signal],
    extensions: Mapping[str, Extension],
    directory: Directory | None = None,
    *,
    events_only: bool = False,
) -> OtlpExporter:
    """The exporter these settings ask for, its queue in `directory`; make it inside a running event loop."""
    auth = authenticator(settings.auth, extensions)
    return OtlpExporter(
        name,
        settings,
        signals,
        auth=None if auth is None else security.client_auth(auth),
        directory=directory,
        events_only=events_only,
    )


def webhook(
    name: str,
    settings: Webhook,
    extensions: Mapping[str, Extension],
    delivered: Callable[[str], None],
) -> WebhookExporter:
    """The webhook these settings ask for, which tells what it delivered; make it inside a running event loop."""
    auth = authenticator(settings.auth, extensions)
    return WebhookExporter(name, settings, delivered, None if auth is None else security.client_auth(auth))


def keeping(drift: MlDrift) -> Keeping:
    """How these settings want the state to be kept."""
    return Keeping(drift.checkpoint_interval, drift.wal, _decode_limits(drift))


def storage(name: str, extensions: Mapping[str, Extension]) -> FileStorage:
    """The extension that a component names as its storage."""
    found = extensions[name]
    assert isinstance(found, FileStorage), f"{name} is no file_storage; the configuration was not checked"
    return found


def _receiver_limits(settings: OtlpReceiver, drift: MlDrift, memory: MemorySettings | None) -> ReceiverLimits:
    grpc, http = settings.protocols.grpc or Grpc(), settings.protocols.http or Http()
    return ReceiverLimits(
        max_recv_msg_size=grpc.max_recv_msg_size_mib * _MIB,
        max_held_bytes=_HELD_MIB * _MIB if memory is None else min(_HELD_MIB, memory.limit_mib // 4) * _MIB,
        max_concurrent_streams=grpc.max_concurrent_streams,
        keepalive=keepalive(grpc.keepalive),
        max_request_body_size=http.max_request_body_size,
        read_timeout=http.read_timeout,
        idle_timeout=http.idle_timeout,
        decode=_decode_limits(drift),
        admit=admit_all if memory is None else memory_limiter(memory).check,
    )


def _decode_limits(drift: MlDrift) -> DecodeLimits:
    return DecodeLimits(
        max_points=drift.limits.max_data_points_per_request,
        max_buckets=drift.limits.max_buckets,
        max_cached_series=drift.limits.max_streams,
    )


def keepalive(settings: ServerKeepalive) -> Keepalive:
    """How long connections of a gRPC server live."""
    return Keepalive(**dict(settings.server_parameters), **dict(settings.enforcement_policy))


def without_baselines(batch: PointBatch) -> PointBatch:
    """The batch without the points that tell of baselines."""
    measured = np.array([not series.metric.startswith(_BASELINE_PREFIX) for series in batch.series], bool)
    keep = measured[batch.index]
    sizes = np.diff(batch.offsets)
    return PointBatch(
        series=batch.series,
        index=batch.index[keep],
        start=batch.start[keep],
        time=batch.time[keep],
        temporality=batch.temporality[keep],
        values=batch.values[np.repeat(keep, sizes)],
        offsets=np.concatenate([[0], np.cumsum(sizes[keep])]).astype(np.int64),
        bounds=tuple(bounds for bounds, kept in zip(batch.bounds, keep, strict=True) if kept),
    )
