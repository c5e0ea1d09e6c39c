"""Who may talk to a server, and how: its certificate, and what it asks of senders."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from .tls import ServerTls


class ServerAuth(Protocol):
    """Knows from one header whether a sender may come in."""

    @property
    def header(self) -> str:
        """Lower-case name of the header to look at."""

    @property
    def challenge(self) -> str:
        """What is asked for, as `WWW-Authenticate` says it."""

    async def allows(self, value: str) -> bool:
        """Whether a sender with this value of the header may come in."""


@dataclass(frozen=True, slots=True)
class Access:
    """How one endpoint is guarded; by default it is open and in clear text."""

    tls: ServerTls | None = None
    auth: ServerAuth | None = None


OPEN = Access()
