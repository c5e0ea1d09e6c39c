"""What one key of a component asks of another."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path as FilePath

from otel_ml.errors import ConfigurationError

from . import security
from .document import Path
from .fields import Section, is_local
from .retraining import Webhook
from .settings import (
    PAST,
    Auth,
    Authenticator,
    BaselineSources,
    BasicAuth,
    BearerTokenAuth,
    FileStorage,
    HttpTls,
    MemoryLimiter,
    MlDrift,
    Otlp,
    OtlpHttp,
    OtlpReceiver,
    SendingQueue,
    Tls,
)
from .webhook import signing

_SMALLEST_QUEUE = 1024 * 1024
"""Bytes."""
_EVERYWHERE = ("", "0.0.0.0", "::")


def conflicts(component: Section | None) -> Iterator[tuple[Path, str]]:
    """What is wrong with a component whose keys are right one by one: paths below it, and messages."""
    if isinstance(component, OtlpReceiver):
        yield from _receiver_conflicts(component)
    elif isinstance(component, MlDrift):
        yield from _window_conflicts(component)
        yield from _baseline_conflicts(component.baseline)
        yield from _past_conflicts(component)
        yield from _storage_conflicts(component)
    elif isinstance(component, Otlp | OtlpHttp):
        yield from _exporter_conflicts(component)
        yield from _queue_conflicts(component.sending_queue)
    elif isinstance(component, Webhook):
        yield from _exporter_conflicts(component)
        yield from _webhook_conflicts(component)
    elif isinstance(component, BearerTokenAuth | BasicAuth):
        authenticator = component
        yield from unusable((), lambda: security.check(authenticator))
    elif isinstance(component, FileStorage):
        yield from _directory_conflicts(component)
    elif isinstance(component, MemoryLimiter) and component.spike() >= component.limit_mib:
        yield ("spike_limit_mib",), f"must be below limit_mib, {component.limit_mib}"


def _receiver_conflicts(receiver: OtlpReceiver) -> Iterator[tuple[Path, str]]:
    grpc, http = receiver.protocols.grpc, receiver.protocols.http
    if grpc is None and http is None:
        yield ("protocols",), "must have grpc, http or both"
    elif grpc and http and grpc.endpoint == http.endpoint and grpc.endpoint.port:
        yield ("protocols", "http", "endpoint"), f"is {grpc.endpoint}, where grpc listens; take another port"
    for name, protocol in (("grpc", grpc), ("http", http)):
        tls = security.server_tls(protocol.tls) if protocol is not None else None
        if tls is not None:
            yield from unusable(("protocols", name, "tls"), tls.check)


def _window_conflicts(drift: MlDrift) -> Iterator[tuple[Path, str]]:
    window, fast = drift.window, drift.fast.length
    length = f"the length of the window, {window.length:g}s"
    if (window.type == "count") != (window.rows is not None):
        said = (
            "is missing; say how many rows end a window"
            if window.rows is None
            else "goes with type: count only"
        )
        yield ("window", "rows"), said
    if window.steps() > window.length:
        yield ("window", "step"), f"must not be longer than {length}"
    elif window.type == "tumbling" and window.steps() != window.length:
        yield ("window", "step"), f"must be {length}, or left out; a window with steps has type: sliding"
    elif not window.multiple(window.length):
        yield ("window", "step"), f"must go a whole number of times into {length}"
    if window.max_age is not None and window.type in ("decayed", "count"):
        yield (
            ("window", "max_age"),
            f"does not go with type: {window.type}, which does not grow; leave it out",
        )
    elif window.oldest() < window.length:
        yield ("window", "max_age"), f"must not be shorter than {length}"
    if fast is not None and fast > window.length:
        yield ("fast", "length"), f"must not be longer than {length}"


def _baseline_conflicts(baseline: BaselineSources) -> Iterator[tuple[Path, str]]:
    if "file" in baseline.sources:
        if baseline.path is None:
            yield ("baseline", "path"), "is missing; name the directory with the *.baseline.json files"
        elif not FilePath(baseline.path).exists():
            yield (
                ("baseline", "path"),
                f"{baseline.path} does not exist; make it, or take file out of sources",
            )
    elif baseline.path is not None:
        yield (
            ("baseline", "sources"),
            "does not have file, so path would be ignored; write sources: [wire, file]",
        )


def _past_conflicts(drift: MlDrift) -> Iterator[tuple[Path, str]]:
    baseline = drift.baseline
    made = [source for source in baseline.sources if source in PAST]
    if len(made) > 1:
        yield ("baseline", "sources"), f"has {' and '.join(made)}; one of these at most"
    for key, source in (("span", "rolling"), ("learn_rows", "learned")):
        if getattr(baseline, key) is not None and source not in made:
            yield ("baseline", key), f"goes with {source} only; add it to sources, or leave {key} out"
    if "previous" in made and drift.consecutive not in (None, 1):
        yield (
            ("consecutive",),
            "must be 1 with the previous window as baseline: a change shows in one window only",
        )


def _queue_conflicts(queue: SendingQueue) -> Iterator[tuple[Path, str]]:
    if queue.storage is not None and not queue.enabled:
        yield ("sending_queue", "storage"), "does not go with enabled: false; leave one of them out"
    if queue.sizer == "bytes" and queue.queue_size < _SMALLEST_QUEUE:
        yield (
            ("sending_queue", "queue_size"),
            f"is {queue.queue_size} bytes, less than many a request has; 1 GiB is {2**30}",
        )


def _storage_conflicts(drift: MlDrift) -> Iterator[tuple[Path, str]]:
    for key in ("checkpoint_interval", "wal"):
        if drift.storage is None and getattr(drift, key) != MlDrift.model_fields[key].default:
            yield (key,), "goes with storage only; name a file_storage there"


def _exporter_conflicts(exporter: Otlp | OtlpHttp | Webhook) -> Iterator[tuple[Path, str]]:
    yield from _pair_conflicts(exporter.tls)
    retry = exporter.retry_on_failure
    if retry.initial_interval > retry.max_interval:
        yield (
            ("retry_on_failure", "initial_interval"),
            f"must not be longer than max_interval, {retry.max_interval:g}s",
        )


def _webhook_conflicts(webhook: Webhook) -> Iterator[tuple[Path, str]]:
    if webhook.endpoint.startswith("http:") and not (webhook.tls.insecure or is_local(webhook.endpoint)):
        yield ("endpoint",), "would be spoken to in clear; write https://, or tls: {insecure: true}"
    if webhook.secret is not None and webhook.secret_file is not None:
        yield ("secret_file",), "does not go with secret; keep one of them"
    elif not (webhook.secret or webhook.secret_file or webhook.auth or webhook.headers):
        yield (
            ("secret",),
            "is missing, and so are secret_file, auth and headers; the endpoint could not know us",
        )
    else:
        yield from unusable(("secret_file",), lambda: signing(webhook))
    if not webhook.triggers.model_fields_set:
        yield ("triggers",), "has none; name drift, baseline_age or rows, or leave it out for drift"


def _pair_conflicts(tls: Tls | HttpTls) -> Iterator[tuple[Path, str]]:
    for given, missing in (("cert_file", "key_file"), ("key_file", "cert_file")):
        if getattr(tls, given) is not None and getattr(tls, missing) is None:
            yield ("tls", missing), f"is missing; {given} needs it"
            return
    yield from unusable(("tls",), security.client_tls(tls).context)


def _directory_conflicts(storage: FileStorage) -> Iterator[tuple[Path, str]]:
    directory = FilePath(storage.directory)
    if directory.exists() and not directory.is_dir():
        yield ("directory",), f"{directory} is no directory; name another"
    elif not storage.create_directory and not directory.exists():
        yield ("directory",), f"{directory} does not exist; make it, or let create_directory be true"


def unguarded(receivers: Mapping[str, OtlpReceiver]) -> Iterator[str]:
    """Paths of what listens on every interface, for everybody."""
    for id_, receiver in receivers.items():
        for name, protocol in (("grpc", receiver.protocols.grpc), ("http", receiver.protocols.http)):
            if protocol is None or protocol.auth is not None or protocol.endpoint.host not in _EVERYWHERE:
                continue
            if protocol.tls is None or protocol.tls.client_ca_file is None:
                yield f"receivers.{id_}.protocols.{name}"


_Make = Callable[[Authenticator], object]


def uses_of_auth(component: Section | None) -> Iterator[tuple[Path, Auth, _Make]]:
    """Where a component names an authenticator, and what is made of it there."""
    if isinstance(component, OtlpReceiver):
        for name, protocol in (("grpc", component.protocols.grpc), ("http", component.protocols.http)):
            if protocol is not None and protocol.auth is not None:
                yield ("protocols", name, "auth"), protocol.auth, security.server_auth
    elif isinstance(component, Otlp | OtlpHttp | Webhook) and component.auth is not None:
        yield ("auth",), component.auth, security.client_auth


def uses_of_storage(component: Section | None) -> Iterator[tuple[Path, str]]:
    """Where a component names a file_storage."""
    if isinstance(component, Otlp | OtlpHttp) and component.sending_queue.storage is not None:
        yield ("sending_queue", "storage"), component.sending_queue.storage
    elif isinstance(component, MlDrift) and component.storage is not None:
        yield ("storage",), component.storage


def unusable(path: Path, make: Callable[[], object]) -> Iterator[tuple[Path, str]]:
    """The message of what cannot be made because of a file."""
    try:
        make()
    except ConfigurationError as error:
        yield path, str(error)
