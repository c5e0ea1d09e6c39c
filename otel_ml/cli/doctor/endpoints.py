"""Where the environment sends telemetry, and whether somebody there takes it.

An empty export request goes through the very exporter that `otel_ml.configure()` would set up, so that its address,
headers, certificates and compression are what is tried. No telemetry is in it.
"""

from __future__ import annotations

import logging
import os
import re
import socket
import threading
from collections.abc import Collection, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any
from urllib.parse import unquote, urlsplit
from urllib.request import getproxies

from ... import pipeline
from ...errors import ConfigurationError
from .finding import Finding

SIGNALS = ("metrics", "traces", "logs")
MASK = "****"
_OTLP = {
    "otlp_proto_grpc": ("gRPC", "http://localhost:4317"),
    "otlp_proto_http": ("HTTP", "http://localhost:4318"),
}


@dataclass(frozen=True, slots=True)
class Destination:
    """An exporter that the environment asks for."""

    signal: str
    exporter: str
    """Name of its entry point."""
    protocol: str | None = None
    """gRPC or HTTP; None when it is no OTLP."""
    url: str | None = None
    headers: tuple[str, ...] = ()
    """Names alone."""
    why: str | None = field(default=None, compare=False)
    """Why it cannot be reached, once that was tried."""
    needed: bool = field(default=True, compare=False)
    """False when it takes no such signal, and nobody is known to send it one."""

    @property
    def ok(self) -> bool | None:
        """None when there is nothing to reach."""
        return None if self.url is None else self.why is None

    @property
    def broken(self) -> bool:
        """Whether something that is sent there is lost."""
        return self.why is not None and self.needed


def destinations() -> list[Destination]:
    """Every exporter that `configure()` would set up. `ConfigurationError` when a variable cannot be right."""
    return [_destination(signal, name) for signal in SIGNALS for name in pipeline._exporters(signal.upper())]


def _destination(signal: str, name: str) -> Destination:
    if name not in _OTLP:
        return Destination(signal, name)
    protocol, default = _OTLP[name]
    own = os.environ.get(f"OTEL_EXPORTER_OTLP_{signal.upper()}_ENDPOINT")
    url = own or os.environ.get("OTEL_EXPORTER_OTLP_ENDPOINT") or default
    if protocol == "HTTP" and not own:
        url = f"{url.rstrip('/')}/v1/{signal}"
    headers = [name for name, _ in _headers(signal.upper())]
    return Destination(signal, name, protocol, _shown(url), tuple(headers))


def reach(wanted: Iterable[Destination], timeout: float) -> list[Destination]:
    """Each destination with what is wrong about it; all at once, each within about `timeout` seconds twice."""
    wanted = list(wanted)
    with _Log() as log, _quiet_grpc(), ThreadPoolExecutor(max_workers=max(len(wanted), 1)) as pool:
        causes = list(pool.map(lambda one: _cause(one, timeout, log), wanted))
    return [
        one if why is None else replace(one, why=masked(why or "the exporter does not say why"))
        for one, why in zip(wanted, causes, strict=True)
    ]


def weigh(found: Sequence[Destination], sent: Collection[str] | None) -> list[Destination]:
    """Each destination with whether it is `needed`, when these signals are `sent`; None when that is not known.

    otel-ml always sends metrics. Spans and events a receiver may do without, as long as nobody sends them: refused as
    unknown, they are lost to no one. Where nobody knows, something else has to get through.
    """
    reached = any(one.ok for one in found)

    def spared(one: Destination) -> bool:
        return (
            one.signal != "metrics"
            and _unknown(one)
            and (reached if sent is None else one.signal not in sent)
        )

    return [replace(one, needed=not spared(one)) for one in found]


def _unknown(destination: Destination) -> bool:
    """Whether it answers that it knows no such signal."""
    return re.search(_NO_SIGNAL, destination.why or "") is not None


def _cause(destination: Destination, timeout: float, log: _Log) -> str | None:
    """Why nothing gets through, as far as anybody says; None when it does, or when there is nothing to reach."""
    if destination.url is None:
        return None
    return _connect(destination.url, timeout) or _export(destination, timeout, log)


def _host(destination: Destination) -> str:
    return urlsplit(destination.url or "").netloc or (destination.url or "")


@contextmanager
def _quiet_grpc() -> Iterator[None]:
    """gRPC's core writes of failed handshakes on standard error."""
    name, quiet = "GRPC_VERBOSITY", "NONE"
    given = os.environ.get(name)
    os.environ.setdefault(name, quiet)
    try:
        yield
    finally:
        if given is None:
            del os.environ[name]


def _connect(url: str, timeout: float) -> str | None:
    """Why no connection can be opened; None when one can, or when a proxy stands between."""
    parts = urlsplit(url if "://" in url else f"http://{url}")
    if parts.scheme not in ("http", "https") or (getproxies() and parts.hostname not in _LOCAL):
        return None
    try:
        port = parts.port or (443 if parts.scheme == "https" else 80)
        socket.create_connection((parts.hostname or "", port), timeout).close()
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        return f"no connection to {parts.hostname} port {parts.port or 'of the scheme'}: {reason}"
    return None


_LOCAL = ("localhost", "127.0.0.1", "::1")


def _export(destination: Destination, timeout: float, log: _Log) -> str | None:
    """Why an empty request is refused, "" where nobody says; None when it is taken."""
    try:
        make = pipeline._load(f"opentelemetry_{destination.signal}_exporter", destination.exporter)
        exporter = make(timeout=timeout)
        _unfiltered()
        try:
            result = exporter.export(_nothing(destination.signal))
        finally:
            exporter.shutdown()
    except Exception as error:  # a certificate that is not there, an address that is none
        return f"{type(error).__name__}: {error}"
    said = log.taken()
    return None if result.name == "SUCCESS" else _first(said)


def _unfiltered() -> None:
    """The SDK's filters take the same words about another signal for a repetition."""
    for name in list(logging.root.manager.loggerDict):
        if name.startswith("opentelemetry."):
            logging.getLogger(name).filters.clear()


def _first(said: list[str]) -> str:
    """The first attempt has the cause, the last one says only that there were enough."""
    return re.sub(r",? retrying in [\d.]+s\.?", "", said[0]) if said else ""


def _nothing(signal: str) -> Any:
    if signal != "metrics":
        return []
    from opentelemetry.sdk.metrics.export import MetricsData

    return MetricsData(resource_metrics=[])


class _Log(logging.Handler):
    """What the exporters of each thread log, instead of printing it."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self._said: dict[int, list[str]] = {}
        self._logger = logging.getLogger("opentelemetry")

    def emit(self, record: logging.LogRecord) -> None:
        self._said.setdefault(threading.get_ident(), []).append(record.getMessage())

    def taken(self) -> list[str]:
        """What this thread has logged."""
        return self._said.pop(threading.get_ident(), [])

    def __enter__(self) -> _Log:
        self._logger.addHandler(self)
        self._before = self._logger.propagate
        self._logger.propagate = False
        return self

    def __exit__(self, *_: object) -> None:
        self._logger.removeHandler(self)
        self._logger.propagate = self._before


_NO_SIGNAL = r"UNIMPLEMENTED|\b404\b"
_WAYS_OUT = (
    (r"^no connection .*(not known|nodename|resolution)", "correct the name of the host in "
     "OTEL_EXPORTER_OTLP_ENDPOINT"),
    (r"^no connection ", "start a receiver there, such as otel-ml-collector, or set OTEL_EXPORTER_OTLP_ENDPOINT to "
     "where yours is"),
    (r"UNAUTHENTICATED|PERMISSION_DENIED|\b40[13]\b", "put the token where the exporter reads it: "
     "OTEL_EXPORTER_OTLP_HEADERS=authorization=Bearer%20…"),
    (r"WRONG_VERSION_NUMBER", "say http://, there is no TLS"),
    (r"(?i)certificate|ssl|tls|handshake|no such file", "name the authority that signed the receiver's certificate in "
     "OTEL_EXPORTER_OTLP_CERTIFICATE, or say http:// where there is no TLS"),
    (_NO_SIGNAL, "it takes no {signals}: send them elsewhere with {endpoints}, or not at all with {exporters}"),
    (r"DEADLINE|(?i:timed out|timeout)", "something takes connections there and does not answer: see what it is"),
)  # fmt: skip
_OTHER = {"gRPC": ("HTTP", "http/protobuf"), "HTTP": ("gRPC", "grpc")}
_BROKEN_OFF = r"(?i)socket closed|wrong_version|reset by peer|bad ?status ?line|remote ?disconnected|aborted"
"""What a client hears that speaks plainly to TLS."""


def _todo(destination: Destination) -> str:
    """The way out, with a place for the names of signals and of their variables."""
    why = destination.why or ""
    hidden = [name for name in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE") if os.environ.get(name)]
    if not destination.needed:
        return "where nobody sends any, {exporters}; else name who takes them in {endpoints}"
    if (
        "CERTIFICATE_VERIFY" in why
        and destination.protocol == "HTTP"
        and hidden
        and _certificate(destination.signal)
    ):
        return f"unset {' and '.join(hidden)}, which the HTTP exporter obeys before OTEL_EXPORTER_OTLP_CERTIFICATE"
    plain = not (destination.url or "").startswith("https:")
    if plain and re.search(_BROKEN_OFF, why):
        return (
            "if the receiver speaks TLS, say https:// and name its authority in OTEL_EXPORTER_OTLP_CERTIFICATE; else "
            f"{_ready(destination)}"
        )
    return next((todo for pattern, todo in _WAYS_OUT if re.search(pattern, why)), _ready(destination))


def _ready(destination: Destination) -> str:
    protocol, value = _OTHER[destination.protocol or "gRPC"]
    return (
        f"see that it is ready; if that is its address for {protocol}, set OTEL_EXPORTER_OTLP_PROTOCOL={value} (4317 "
        "usually is for gRPC, 4318 for HTTP)"
    )


def _certificate(signal: str) -> bool:
    names = (f"OTEL_EXPORTER_OTLP_{signal.upper()}_CERTIFICATE", "OTEL_EXPORTER_OTLP_CERTIFICATE")
    return any(os.environ.get(name) for name in names)


# --- secrets ----------------------------------------------------------------------------------------------


def _headers(signal: str) -> Iterator[tuple[str, str]]:
    names = (f"OTEL_EXPORTER_OTLP_{signal}_HEADERS", "OTEL_EXPORTER_OTLP_HEADERS")
    text = next((os.environ[name] for name in names if os.environ.get(name)), "")
    for part in text.split(","):
        name, _, value = part.partition("=")
        if name.strip():
            yield name.strip().lower(), value.strip()


def _shown(url: str) -> str:
    """`url` without what may be a secret in it: user and password, and the query."""
    return re.sub(r"\?.*", f"?{MASK}", _without_user(url))


def _without_user(url: str) -> str:
    return re.sub(r"//[^/@]*@", f"//{MASK}@", url)


def masked(text: str) -> str:
    """`text` without the values of headers and the passwords of addresses that are in the environment."""
    secrets = {value for signal in (*SIGNALS, "") for _, value in _headers(signal.upper())}
    addresses = [value for name, value in os.environ.items() if name.startswith("OTEL_EXPORTER_OTLP_")]
    for parts in (urlsplit(value) for value in addresses if "://" in value):
        secrets |= {parts.password or "", parts.query}
    for part in list(secrets):
        secrets |= {unquote(part), *unquote(part).split()}
    for secret in sorted(secrets - _SCHEMES, key=len, reverse=True):
        if len(secret) > 3:
            text = text.replace(secret, MASK)
    return _without_user(text)


def masked_values(told: Any) -> Any:
    """`told` with every text in its dicts and lists `masked`: not their keys, nor true, false and numbers."""
    if isinstance(told, dict):
        return {key: masked_values(value) for key, value in told.items()}
    if isinstance(told, (list, tuple)):
        return [masked_values(value) for value in told]
    return masked(told) if isinstance(told, str) else told


_SCHEMES = {"Bearer", "Basic", "bearer", "basic"}


def check(found: Iterable[Destination]) -> Iterator[Finding]:
    """One finding for each address and way out."""
    groups: dict[tuple[str, str], list[Destination]] = {}
    for one in found:
        if one.why is not None:
            groups.setdefault((_host(one), _todo(one)), []).append(one)
    for (_, todo), members in groups.items():
        yield _finding(members, todo)


def _finding(members: Sequence[Destination], todo: str) -> Finding:
    first, signals = members[0], [one.signal for one in members]
    address = first.url if len(members) == 1 else _base(first.url or "")
    return Finding(
        f"{', '.join(signals)} do not get through to {address} ({first.protocol})",
        first.why or "",
        todo.format(
            signals=" and no ".join(signals),
            endpoints=" and ".join(f"OTEL_EXPORTER_OTLP_{name.upper()}_ENDPOINT" for name in signals),
            exporters=" ".join(f"OTEL_{name.upper()}_EXPORTER=none" for name in signals),
        ),
        broken=first.needed,
    )


def _base(url: str) -> str:
    return re.sub(r"/v1/\w+$", "", url)


def planned() -> tuple[list[Destination], list[Finding]]:
    """What the environment asks for, or what is wrong with how it asks."""
    try:
        return destinations(), []
    except ConfigurationError as error:
        return [], [Finding(str(error), "configure() raises this", "correct the variable")]
