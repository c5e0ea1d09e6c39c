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
from collections.abc import Iterable, Iterator
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
    problem: Finding | None = field(default=None, compare=False)
    """Why it cannot be reached, once that was tried."""

    @property
    def ok(self) -> bool | None:
        """None when there is nothing to reach."""
        return None if self.url is None else self.problem is None


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
    # the SDK logs one text once: what fails without a word fails as the others did
    known = {_host(one): why for one, why in zip(wanted, causes, strict=True) if why}
    return [
        one if why is None else _failed(one, why or known.get(_host(one), "the exporter does not say why"))
        for one, why in zip(wanted, causes, strict=True)
    ]


def _cause(destination: Destination, timeout: float, log: _Log) -> str | None:
    """Why nothing gets through, as far as anybody says; None when it does, or when there is nothing to reach."""
    if destination.url is None:
        return None
    return _connect(destination.url, timeout) or _export(destination, timeout, log)


def _failed(destination: Destination, why: str) -> Destination:
    what = f"{destination.signal} do not get through to {destination.url} ({destination.protocol})"
    return replace(destination, problem=Finding(what, masked(why), _todo(destination, why)))


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
        try:
            result = exporter.export(_nothing(destination.signal))
        finally:
            exporter.shutdown()
    except Exception as error:  # a certificate that is not there, an address that is none
        return f"{type(error).__name__}: {error}"
    said = log.taken()
    return None if result.name == "SUCCESS" else _first(said)


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


_WAYS_OUT = (
    (r"^no connection .*(not known|nodename|resolution)", "correct the name of the host in "
     "OTEL_EXPORTER_OTLP_ENDPOINT"),
    (r"^no connection ", "start a receiver there, such as otel-ml-collector, or set OTEL_EXPORTER_OTLP_ENDPOINT to "
     "where yours is"),
    (r"UNAUTHENTICATED|PERMISSION_DENIED|\b40[13]\b", "put the token where the exporter reads it: "
     "OTEL_EXPORTER_OTLP_HEADERS=authorization=Bearer%20…"),
    (r"(?i)certificate|ssl|tls|handshake|no such file", "name the authority that signed the receiver's certificate in "
     "OTEL_EXPORTER_OTLP_CERTIFICATE, or say http:// where there is no TLS"),
    (r"UNIMPLEMENTED|\b404\b", "it takes no {signal}: send them elsewhere with "
     "OTEL_EXPORTER_OTLP_{SIGNAL}_ENDPOINT, or not at all with OTEL_{SIGNAL}_EXPORTER=none"),
    (r"DEADLINE|(?i:timed out|timeout)", "something takes connections there and does not answer: see what it is"),
)  # fmt: skip
_OTHER = {"gRPC": ("HTTP", "http/protobuf"), "HTTP": ("gRPC", "grpc")}


def _todo(destination: Destination, why: str) -> str:
    signal = destination.signal
    hidden = [name for name in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE") if os.environ.get(name)]
    if "CERTIFICATE_VERIFY" in why and destination.protocol == "HTTP" and hidden and _certificate(signal):
        return f"unset {' and '.join(hidden)}, which the HTTP exporter obeys before OTEL_EXPORTER_OTLP_CERTIFICATE"
    for pattern, todo in _WAYS_OUT:
        if re.search(pattern, why):
            return todo.format(signal=signal, SIGNAL=signal.upper())
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
        if one.problem is not None:
            groups.setdefault((_host(one), one.problem.todo), []).append(one)
    for members in groups.values():
        problem = members[0].problem
        assert problem is not None
        signals = ", ".join(one.signal for one in members)
        address = members[0].url if len(members) == 1 else _base(members[0].url or "")
        what = f"{signals} do not get through to {address} ({members[0].protocol})"
        yield Finding(what, problem.why, problem.todo)


def _base(url: str) -> str:
    return re.sub(r"/v1/\w+$", "", url)


def planned() -> tuple[list[Destination], list[Finding]]:
    """What the environment asks for, or what is wrong with how it asks."""
    try:
        return destinations(), []
    except ConfigurationError as error:
        return [], [Finding(str(error), "configure() raises this", "correct the variable")]
