"""The keys of a webhook: when a retraining is asked for, where, and in what envelope."""

from __future__ import annotations

import base64
import binascii
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    PlainSerializer,
    SecretStr,
    SerializerFunctionWrapHandler,
    WithJsonSchema,
    model_serializer,
)

from .fields import SECRETS, Count, Duration, PositiveDuration, Section, shown
from .settings import Auth, Headers, HttpTls, RetryOnFailure

PREFIX = "whsec_"
"""Begins a secret, as https://www.standardwebhooks.com has it."""
_LENGTHS = range(24, 65)
"""Bytes of a secret, as there."""


def key(secret: str) -> bytes:
    """The bytes of a secret; `ValueError` says what is wrong with it, and not what it is."""
    try:
        found = base64.b64decode(secret.removeprefix(PREFIX), validate=True)
    except (binascii.Error, ValueError):
        found = b""
    if not secret.startswith(PREFIX) or len(found) not in _LENGTHS:
        raise ValueError(
            f"must be {PREFIX} and the base64 of 24 to 64 random bytes; make one with: "
            f'echo "{PREFIX}$(head -c 32 /dev/urandom | base64)"'
        )
    return found


def _secret(value: SecretStr) -> SecretStr:
    key(value.get_secret_value())
    return value


Secret = Annotated[SecretStr, AfterValidator(_secret)]


def _webhook_url(value: object) -> str:
    text = str(value).strip()
    try:
        parts = urlsplit(text)
        valid = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        raise ValueError("must be an https:// URL") from None
    if not valid or parts.fragment or not text.isascii() or not text.isprintable() or " " in text:
        raise ValueError("must be an https:// URL, like https://airflow.example.com/hooks/retrain")
    if parts.username is not None:
        raise ValueError("must not hold a name and password; use basicauth, or headers")
    return text


WebhookUrl = Annotated[
    str,
    BeforeValidator(_webhook_url),
    PlainSerializer(shown, return_type=str),
    WithJsonSchema({"type": "string", "pattern": "^https?://"}),
]


def _on(value: object) -> object:
    return {} if value is None else value


class DriftTrigger(Section):
    status: Literal["warning", "drifted"] = "drifted"
    targets: Count = 1
    """As many targets, over all rows, have that status or a worse one."""
    lasting: Duration = 0.0
    """And had it all that time."""


class Triggers(Section):
    drift: Annotated[DriftTrigger | None, BeforeValidator(_on)] = None
    baseline_age: PositiveDuration | None = None
    rows: Count | None = None
    """Served since the baseline is in use."""

    @model_serializer(mode="wrap")
    def _set(self, written: SerializerFunctionWrapHandler) -> dict[str, Any]:
        # A key without a body would switch the trigger on.
        return {name: body for name, body in written(self).items() if body is not None}


def _masked(values: dict[str, Any]) -> dict[str, Any]:
    return {key: "**********" if key in SECRETS else value for key, value in values.items()}


class Envelope(Section):
    under: Annotated[str, Field(min_length=1)]
    """The key that the payload stands under."""
    beside: Annotated[dict[str, Any], PlainSerializer(_masked)] = Field(default_factory=dict)
    """What stands beside it, as it is."""


class WebhookTls(HttpTls):
    insecure: bool = False
    """True: http:// is allowed for other machines, too."""


class WebhookRetry(RetryOnFailure):
    max_interval: PositiveDuration = 300.0
    max_elapsed_time: Duration = 86_400.0


class Webhook(Section):
    endpoint: WebhookUrl
    secret: Secret | None = None
    secret_file: str | None = None
    """One secret a line, every one of which signs; read again when it changes."""
    tls: WebhookTls = WebhookTls()
    auth: Auth | None = None
    headers: Headers = Field(default_factory=dict)
    timeout: PositiveDuration = 10.0
    retry_on_failure: WebhookRetry = WebhookRetry()
    models: tuple[str, ...] = ()
    """Names; empty: all."""
    triggers: Triggers = Triggers(drift=DriftTrigger())
    min_interval: Duration = 3600.0
    """Between two triggers of one model; 0s: none."""
    envelope: Envelope | None = None
    runbook: str | None = None
    """A link that goes along."""
