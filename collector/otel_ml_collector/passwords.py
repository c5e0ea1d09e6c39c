"""Passwords as `htpasswd` writes them: in clear, as `{SHA}`, or as bcrypt (`htpasswd -B`), which is slow on purpose."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import os
import re
from concurrent.futures import ThreadPoolExecutor

from .limiter import Overloaded

_BCRYPT = re.compile(r"\$2[aby]\$(\d\d)\$[./A-Za-z0-9]{53}")
_OTHER_HASH = re.compile(r"\{(?!SHA\}[A-Za-z0-9+/]{27}=$)[A-Z0-9-]+\}")
"""Like {SSHA}: taken for a password in clear, it would be one that whoever reads the file can use."""
MAX_COST = 12
"""Of bcrypt; checking one password takes a quarter of a second then."""
_WAITING = 8
"""Passwords that may wait to be checked; who guesses does not get more than this thread."""
_KNOWN = 10_000


def users(text: str) -> dict[str, str]:
    """Hashes of passwords by name, from lines of `name:password`; ValueError says which line is wrong."""
    found: dict[str, str] = {}
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        name, colon, password = line.strip().partition(":")
        if not colon or not name or not password:
            raise ValueError(f"line {number} is not name:password")
        if password.startswith("$"):
            _check_bcrypt(password, f"line {number}")
        elif _OTHER_HASH.match(password):
            raise _unread(f"line {number}")
        found[name] = password if password.startswith(("{SHA}", "$")) else _hashed(password)
    if not found:
        raise ValueError("has no user; write lines of name:password")
    return found


def _check_bcrypt(stored: str, line: str) -> None:
    known = _BCRYPT.fullmatch(stored)
    if known is None:
        raise _unread(line)
    if int(known[1]) > MAX_COST:
        raise ValueError(
            f"{line} has a bcrypt hash of cost {known[1]}, more than {MAX_COST}; use: htpasswd -B -C 10"
        )
    try:
        import bcrypt  # noqa: F401
    except ModuleNotFoundError as error:
        raise ValueError(
            f"{line} has a bcrypt hash, and bcrypt is not installed; install it with: pip install 'otel-ml[bcrypt]', "
            "or make the hash with: htpasswd -s (it begins with {SHA})"
        ) from error


def _unread(line: str) -> ValueError:
    return ValueError(f"{line} has a hash that is not read here; make it with: htpasswd -B, or htpasswd -s")


class Passwords:
    """Compares passwords with stored hashes. One that was right is known from then on, and costs nothing more."""

    def __init__(self) -> None:
        self._key = os.urandom(32)
        self._known: set[bytes] = set()
        self._thread: ThreadPoolExecutor | None = None
        self._waiting = 0

    async def match(self, name: str, password: str, stored: dict[str, str]) -> bool:
        """Whether it is the password of this user; a name that nobody has takes as long as a wrong password.

        Raises Overloaded when too many wait to be checked.
        """
        decoy = next((one for one in stored.values() if one.startswith("$")), "")
        right = await self._same(password, stored.get(name, decoy))
        return right and name in stored

    async def _same(self, password: str, stored: str) -> bool:
        if not stored.startswith("$"):
            return hmac.compare_digest(_hashed(password), stored)
        digest = hmac.digest(self._key, f"{stored}:{password}".encode(), "sha256")
        if digest in self._known:
            return True
        right = await self._checked(password, stored)
        if right and len(self._known) < _KNOWN:
            self._known.add(digest)
        return right

    async def _checked(self, password: str, stored: str) -> bool:
        if self._waiting >= _WAITING:
            raise Overloaded(
                "too many passwords wait to be checked; try again later", retry_after=1.0, busy=True
            )
        if self._thread is None:
            self._thread = ThreadPoolExecutor(1, "passwords")
        self._waiting += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._thread, _bcrypt, password, stored)
        finally:
            self._waiting -= 1


def _bcrypt(password: str, stored: str) -> bool:
    import bcrypt

    try:
        # Only so much of a password counts, as everywhere else.
        return bcrypt.checkpw(password.encode()[:72], stored.encode())
    except ValueError:  # a zero byte
        return False


def _hashed(password: str) -> str:
    return "{SHA}" + base64.b64encode(hashlib.sha1(password.encode()).digest()).decode()
