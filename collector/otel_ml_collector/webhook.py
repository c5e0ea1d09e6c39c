"""Triggers of retrainings to an HTTP endpoint: signed, and tried again until it takes them.

Signed as https://www.standardwebhooks.com has it: `webhook-id` is the same however often a trigger is sent,
`webhook-timestamp` is the time of the attempt, and `webhook-signature` has for each secret
`v1,` and base64(HMAC-SHA256(secret, id.timestamp.body)).
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import logging
import time
from collections.abc import Callable, Mapping, Sequence

from otel_ml._version import __version__

from .auth import ClientAuth, FromFile
from .exporter import retry_of
from .fields import shown
from .http_client import Answer, HttpClient
from .queue import Item, Outcome, SendingQueue
from .retraining import Webhook, key
from .security import client_tls
from .triggers import MAX_WAITING

_LOG = logging.getLogger(__name__)
_RETRYABLE = {408, 425, 429}
"""Beside all from 500 on: whoever starts trainings may be down for a while."""
_GONE = 410


def signature(keys: Sequence[bytes], message_id: str, timestamp: int, body: bytes) -> str:
    """The value of `webhook-signature`: one signature for each key."""
    signed = f"{message_id}.{timestamp}.".encode() + body
    made = (base64.b64encode(hmac.digest(one, signed, hashlib.sha256)).decode() for one in keys)
    return " ".join(f"v1,{one}" for one in made)


def keys_of(text: str) -> tuple[bytes, ...]:
    """The keys in a file with one secret a line; ValueError when there is none, or one that is no secret."""
    found = tuple(key(line.strip()) for line in text.splitlines() if line.strip())
    if not found:
        raise ValueError("has no secret; write one a line")
    return found


def signing(settings: Webhook) -> Callable[[], Sequence[bytes]]:
    """The keys to sign with now; none without a secret. ConfigurationError names a file that cannot be used."""
    if settings.secret_file is not None:
        return FromFile(settings.secret_file, keys_of).value
    keys = () if settings.secret is None else (key(settings.secret.get_secret_value()),)
    return lambda: keys


class WebhookExporter:
    """One endpoint behind a queue; make it inside a running event loop.

    It takes each trigger once, and says by `delivered` which ids arrived. One that it could not deliver is for the next
    exporter of its name, after a restart or with another configuration.
    """

    def __init__(
        self,
        name: str,
        settings: Webhook,
        delivered: Callable[[str], None],
        auth: ClientAuth | None = None,
        *,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.name = name
        self._endpoint = settings.endpoint
        self._headers = {
            "user-agent": f"otel-ml-collector/{__version__}",
            "content-type": "application/json",
            **{name.lower(): value.get_secret_value() for name, value in settings.headers.items()},
        }
        self._keys = signing(settings)
        self._client = HttpClient(
            settings.endpoint, client_tls(settings.tls), timeout=settings.timeout, auth=auth
        )
        self._clock = clock
        self._waiting: Mapping[str, str] = {}
        self._offered: set[str] = set()
        self._delivered = delivered
        self._gone = False
        self.queue = SendingQueue(
            name,
            self._send,
            size=MAX_WAITING,
            retry=retry_of(settings.retry_on_failure),
            unit="triggers",
        )

    async def start(self) -> None:
        """Begin to send."""
        self.queue.start()

    async def stop(self, grace: float) -> None:
        """Send what is waiting, for up to `grace` seconds."""
        await self.queue.stop(grace)

    def offer(self, waiting: Mapping[str, str]) -> None:
        """Send those of the triggers, bodies by id, that it did not take before; what goes from them is not sent."""
        self._waiting = waiting
        self._offered &= waiting.keys()
        for message_id in waiting:
            item = Item(message_id.encode(), 1)
            # One that finds no room is offered again.
            if message_id not in self._offered and not self._gone and self.queue.has_room(item):
                self._offered.add(message_id)
                self.queue.offer(item)

    async def _send(self, data: bytes) -> Outcome:
        if self._gone:
            return Outcome(ok=False, message=f"{shown(self._endpoint)} wants no more")
        message_id, timestamp = data.decode(), int(self._clock())
        if message_id not in self._waiting:  # it was given up, which was said then
            return Outcome(ok=False)
        body = self._waiting[message_id].encode()
        headers = {**self._headers, "webhook-id": message_id, "webhook-timestamp": str(timestamp)}
        if keys := self._keys():
            headers["webhook-signature"] = signature(keys, message_id, timestamp, body)
        outcome = await self._client.post(self._endpoint, body, headers, self._judge)
        if outcome.ok:
            self._delivered(message_id)
        return outcome

    def _judge(self, answer: Answer) -> Outcome:
        if answer.ok:
            return Outcome(ok=True)
        message = answer.message
        if answer.status == _GONE:
            self._gone = True
            message += (
                ": it wants no more, and gets none until a restart or another configuration of this exporter"
            )
        elif answer.status < 400:
            message += "; redirects are not followed, give the URL that it leads to"
        retry = answer.status in _RETRYABLE or answer.status >= 500
        return Outcome(ok=False, retry=retry, message=message, after=answer.retry_after)
