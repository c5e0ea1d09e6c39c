"""The kinds of value a configuration holds: durations, addresses, pairs of limits."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Annotated, Any
from urllib.parse import urlsplit

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    WithJsonSchema,
    model_validator,
)

_UNITS = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "μs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
_PART = re.compile(r"(\d+\.?\d*|\.\d+)(ns|us|µs|μs|ms|s|m|h)")

MAX_INT = 2**31 - 1
"""The largest number that gRPC takes."""

SECRETS = frozenset({"headers", "token", "tokens", "password", "inline", "secret"})
"""Keys whose values are never shown."""


class Section(BaseModel):
    """A mapping of the configuration: only known keys, and an empty body means every default."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    @model_validator(mode="before")
    @classmethod
    def _empty_body(cls, value: Any) -> Any:
        return {} if value is None else value


def duration(value: object) -> float:
    """Seconds of a duration as Go writes it: `24h`, `1h30m`, `500ms`, `0`. `ValueError` when it is none."""
    text = str(value).strip()
    if text == "0":
        return 0.0
    parts = _PART.findall(text)
    if not parts or "".join(number + unit for number, unit in parts) != text:
        raise ValueError("must be a duration with its unit, like 24h, 1h30m, 60s or 500ms")
    return sum(float(number) * _UNITS[unit] for number, unit in parts)


def written(seconds: float) -> str:
    """A duration as it is written in a configuration: 5400.0 → `1h30m`."""
    if seconds < 1:
        return f"{seconds * 1000:g}ms"
    hours, rest = divmod(seconds, 3600)
    minutes, rest = divmod(rest, 60)
    parts = (f"{number:g}{unit}" for number, unit in ((hours, "h"), (minutes, "m"), (rest, "s")) if number)
    return "".join(parts)


def milliseconds(seconds: float) -> int:
    """As gRPC takes it: its numbers end after 24 days, and the largest one stands for ever."""
    return min(round(1000 * seconds), MAX_INT)


def _positive(seconds: float) -> float:
    if seconds < 0.001:
        raise ValueError("must be 1ms or longer")
    return seconds


_WRITTEN_DURATION = PlainSerializer(written, return_type=str)
_DURATION_SCHEMA = WithJsonSchema(
    {
        "type": "string",
        "pattern": r"^(0|([0-9.]+(ns|us|µs|ms|s|m|h))+)$",
        "examples": ["24h", "1h30m", "500ms"],
    }
)

Duration = Annotated[float, BeforeValidator(duration), _WRITTEN_DURATION, _DURATION_SCHEMA]
"""Seconds, 0 allowed."""
PositiveDuration = Annotated[
    float, BeforeValidator(duration), AfterValidator(_positive), _WRITTEN_DURATION, _DURATION_SCHEMA
]

Count = Annotated[int, Field(ge=1)]
Probability = Annotated[float, Field(gt=0, lt=1, allow_inf_nan=False)]
Effect = Annotated[float, Field(ge=0, allow_inf_nan=False)]


def _ordered(limits: tuple[float, float]) -> tuple[float, float]:
    warning, drifted = limits
    if warning > drifted:
        raise ValueError(f"the warning limit {warning:g} must not be above the drifted limit {drifted:g}")
    return limits


Limits = Annotated[tuple[Effect, Effect], AfterValidator(_ordered)]
"""(warning, drifted), of one statistic."""


@dataclass(frozen=True, slots=True)
class Address:
    """Host and port; an empty host means every interface."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def address(value: object) -> Address:
    """The address in `host:port`; `ValueError` when it is none."""
    if isinstance(value, Address):
        return value
    host, colon, port = str(value).strip().rpartition(":")
    if (
        not colon
        or not port.isdecimal()
        or int(port) > 65535
        or not {"/", "@"}.isdisjoint(host)
        or (":" in host and host[0] != "[")
    ):
        raise ValueError("must be host:port, like localhost:4317, 0.0.0.0:4317 or [::1]:4317")
    return Address(host.strip("[]"), int(port))


_AS_TEXT = PlainSerializer(str, return_type=str)

Listen = Annotated[
    Address,
    BeforeValidator(address),
    _AS_TEXT,
    WithJsonSchema({"type": "string", "pattern": "^.*:", "examples": ["localhost:4317"]}),
]
"""Where a server listens; port 0 takes a free one."""


@dataclass(frozen=True, slots=True)
class GrpcTarget:
    """Where a gRPC exporter sends, and what its scheme says about TLS (None: nothing)."""

    target: str
    secure: bool | None

    def __str__(self) -> str:
        scheme = {None: "", False: "http://", True: "https://"}[self.secure]
        return f"{scheme}{self.target}"


def grpc_target(value: object) -> GrpcTarget:
    """The target in `host:port`, `http://host:port` or `https://host:port`."""
    if isinstance(value, GrpcTarget):
        return value
    text = str(value).strip()
    scheme, separator, rest = text.partition("://")
    if not separator:
        scheme, rest = "", text
    if scheme not in ("", "http", "https"):
        raise ValueError("must be host:port, or that with http:// or https:// before it")
    target = address(rest.rstrip("/"))
    if not target.host or not target.port:
        raise ValueError("must name a host and a port above 0 to send to, like backend:4317")
    return GrpcTarget(str(target), {"http": False, "https": True}.get(scheme))


Target = Annotated[
    GrpcTarget,
    BeforeValidator(grpc_target),
    _AS_TEXT,
    WithJsonSchema({"type": "string", "examples": ["backend:4317"]}),
]


def base_url(value: object) -> str:
    """The URL that `/v1/metrics` is added to."""
    text = str(value).strip().rstrip("/")
    parts = urlsplit(text)
    try:
        valid = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        valid = False
    if valid and parts.username is not None:
        raise ValueError("must not hold a name and password; use basicauth, or headers")
    if not valid or parts.query or parts.fragment:
        raise ValueError(
            "must be an http:// or https:// URL without the path /v1/metrics, like http://backend:4318"
        )
    return text


def is_local(url: str) -> bool:
    """Whether a URL is one of this machine itself."""
    host = urlsplit(url).hostname or ""
    return host in ("localhost", "::1") or host.startswith("127.")


def shown(url: str) -> str:
    """A URL without its query, which may hold a key."""
    before, mark, _ = url.partition("?")
    return before + ("?[masked]" if mark else "")


Url = Annotated[str, BeforeValidator(base_url)]
