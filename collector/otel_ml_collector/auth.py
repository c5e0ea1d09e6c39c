"""Who a sender is, and who we are to a backend: bearer tokens, and names with passwords.

Secrets are compared in a time that does not depend on them. Files are read again when they change; one that
cannot be used leaves what was read before in its place, and says so.
"""

from __future__ import annotations

import base64
import hmac
import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Generic, Protocol, TypeVar

from otel_ml.errors import ConfigurationError

from .files import Changes
from .passwords import Passwords, users

_LOG = logging.getLogger(__name__)
_T = TypeVar("_T")


class ClientAuth(Protocol):
    """Adds to the headers of a request what a backend wants to see."""

    def headers(self) -> Mapping[str, str]:
        """Names in lower case, and values."""


class FromFile(Generic[_T]):
    """What `read` makes of a file, renewed when the file changes.

    Raises ConfigurationError at first, with the message of the ValueError of `read`.
    """

    def __init__(self, path: str, read: Callable[[str], _T]) -> None:
        self._path, self._read = path, read
        self._changes = Changes([path])
        self._changes.seen()
        self._value = self._load()

    def value(self) -> _T:
        """That of the newest file that could be used."""
        if self._changes.seen():
            try:
                self._value = self._load()
                _LOG.info("%s was read again", self._path)
            except ConfigurationError as error:
                _LOG.warning("%s; what was read before stays in use", error)
        return self._value

    def _load(self) -> _T:
        try:
            text = Path(self._path).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
            raise ConfigurationError(f"{self._path} cannot be read: {reason}") from error
        try:
            return self._read(text)
        except ValueError as error:
            raise ConfigurationError(f"{self._path} {error}") from error


def _same(one: str, other: str) -> bool:
    return hmac.compare_digest(one.encode(), other.encode())


# --- bearer tokens ----------------------------------------------------------------------------------------


class BearerToken:
    """Tokens of a server, the first of which a client shows: given, or in a file with one a line.

    Raises ConfigurationError when the file has none.
    """

    def __init__(
        self,
        *,
        tokens: Sequence[str] = (),
        filename: str | None = None,
        scheme: str = "Bearer",
        header: str = "Authorization",
    ) -> None:
        try:
            self._tokens = tuple(map(_token, tokens))
        except ValueError as error:
            raise ConfigurationError(str(error)) from error
        self._file = FromFile(filename, _tokens) if filename is not None else None
        self._prefix = f"{scheme} " if scheme else ""
        self.header = header.lower()
        self.challenge = scheme or "Bearer"

    async def allows(self, value: str) -> bool:
        """Whether the value of the header is one of the tokens, after the scheme."""
        scheme, token = value[: len(self._prefix)], value[len(self._prefix) :]
        # No early end: which token it is, and how much of it is right, does not show in time.
        right = sum(_same(token, one) for one in self._all()) > 0
        return right and scheme.lower() == self._prefix.lower()

    def headers(self) -> Mapping[str, str]:
        """The header with the first token."""
        return {self.header: self._prefix + self._all()[0]}

    def _all(self) -> Sequence[str]:
        return self._tokens if self._file is None else self._file.value()


def _tokens(text: str) -> tuple[str, ...]:
    tokens = tuple(_token(line.strip()) for line in text.splitlines() if line.strip())
    if not tokens:
        raise ValueError("has no token; write one a line")
    return tokens


def _token(text: str) -> str:
    if not text.isascii() or not text.isprintable() or text != text.strip() or not text:
        raise ValueError("has a token that is empty, or has characters that a header cannot carry")
    return text


# --- names and passwords ----------------------------------------------------------------------------------


class BasicServer:
    """Names and passwords as `htpasswd` writes them; a file's go before given ones.

    Raises ConfigurationError when there is none, or one in a form that is not read.
    """

    header = "authorization"
    challenge = 'Basic realm="otel-ml-collector"'

    def __init__(self, *, inline: str = "", file: str | None = None) -> None:
        try:
            self._inline = users(inline) if inline else {}
        except ValueError as error:
            raise ConfigurationError(f"htpasswd.inline {error}") from error
        self._file = FromFile(file, users) if file is not None else None
        self._passwords = Passwords()

    async def allows(self, value: str) -> bool:
        """Whether the value of the header names a user and the user's password."""
        scheme, _, encoded = value.partition(" ")
        try:
            name, _, password = base64.b64decode(encoded, validate=True).decode().partition(":")
        except ValueError:  # not base64, or not of text
            return False
        stored = {**self._inline, **(self._file.value() if self._file is not None else {})}
        return scheme.lower() == "basic" and await self._passwords.match(name, password, stored)


class BasicClient:
    """A name and a password for a backend."""

    def __init__(self, username: str, password: str) -> None:
        encoded = base64.b64encode(f"{username}:{password}".encode()).decode()
        self._headers = {"authorization": f"Basic {encoded}"}

    def headers(self) -> Mapping[str, str]:
        """The header, the same for every request."""
        return self._headers
