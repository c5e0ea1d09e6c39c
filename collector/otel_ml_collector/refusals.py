"""Requests that are answered with an error: by reason, and of those without the right credentials a line in the log."""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Callable

import grpc

from .access import ServerAuth
from .intake import Refusal

_LOG = logging.getLogger(__name__)
_REASONS = {
    grpc.StatusCode.INVALID_ARGUMENT: "malformed",
    grpc.StatusCode.RESOURCE_EXHAUSTED: "too_large",
    grpc.StatusCode.DEADLINE_EXCEEDED: "timeout",
    grpc.StatusCode.UNAVAILABLE: "overload",
    grpc.StatusCode.INTERNAL: "internal",
}
_BETWEEN_LINES = 60.0


class Unauthenticated(Refusal):
    """A request whose sender did not show what it must."""

    def __init__(self, challenge: str, *, shown: bool) -> None:
        message = f"the credentials given are not known here; the sender must give {challenge}"
        super().__init__(
            grpc.StatusCode.UNAUTHENTICATED, message if shown else f"the sender must give {challenge}"
        )
        self.reason = "credentials_wrong" if shown else "credentials_missing"


async def authorize(auth: ServerAuth, value: str) -> None:
    """Raises Unauthenticated when this value of the header does not let a sender in."""
    if not await auth.allows(value):
        raise Unauthenticated(auth.challenge, shown=bool(value))


class Refusals:
    """Those of one transport.

    It says at most once a minute that senders do not have the right credentials: they may try for ever, and the
    log is not theirs to fill. What they showed is never said.
    """

    def __init__(self, transport: str, clock: Callable[[], float] = time.monotonic) -> None:
        self.counts: Counter[str] = Counter()
        self._transport, self._clock = transport, clock
        self._said = -_BETWEEN_LINES
        self._unsaid = 0

    def add(self, refusal: Refusal, peer: str) -> None:
        """Count a refusal of a sender at this address."""
        if isinstance(refusal, Unauthenticated):
            self.count(refusal.reason, peer)
            self._say(refusal, peer)
        else:
            self.count("busy" if refusal.busy else _REASONS.get(refusal.code, "internal"), peer)

    def count(self, reason: str, peer: str) -> None:
        """Count a refusal for this reason."""
        self.counts[reason] += 1
        _LOG.debug("a request over %s from %s was refused: %s", self._transport, peer, reason)

    def _say(self, refusal: Unauthenticated, peer: str) -> None:
        self._unsaid += 1
        now = self._clock()
        if now - self._said < _BETWEEN_LINES:
            return
        requests = f"{self._unsaid} requests" if self._unsaid > 1 else "a request"
        what = "wrong ones" if refusal.reason == "credentials_wrong" else "none"
        _LOG.warning(
            "%s over %s refused for want of credentials, the last one from %s with %s; said once a minute "
            "at most", requests, self._transport, peer, what,
        )  # fmt: skip
        self._said, self._unsaid = now, 0
