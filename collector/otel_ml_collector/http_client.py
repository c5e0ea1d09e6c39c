"""HTTP requests that go out: certificates, proxies, deadlines, and answers of a bounded size."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import logging
import ssl
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timezone
from email.utils import parsedate_to_datetime
from typing import Any

from otel_ml.errors import ConfigurationError

from .auth import ClientAuth
from .fields import is_local, shown
from .files import Changes
from .queue import Outcome
from .tls import ClientTls

_LOG = logging.getLogger(__name__)
_MAX_ANSWER = 64 * 1024
"""Bytes of an answer that are looked at."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What a server answered."""

    status: int
    message: str
    """For people: who answered what."""
    retry_after: float | None = None
    """Seconds the server asked to wait."""
    body: bytes = b""
    """Its beginning, of a success."""

    @property
    def ok(self) -> bool:
        """Whether it is a success."""
        return 200 <= self.status < 300


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """A redirected POST would become a GET; the redirect is the answer instead."""

    def redirect_request(self, *_: Any) -> None:
        return None


class HttpClient:
    """Posts, each request on a connection of its own, in a thread. Redirects are not followed."""

    def __init__(self, endpoint: str, tls: ClientTls, *, timeout: float, auth: ClientAuth | None) -> None:
        self._endpoint = endpoint
        self._timeout = timeout
        self._auth = auth
        self._tls = tls
        self._changes = Changes(tls.files())
        self._changes.seen()
        self._opener = self._open(tls.context())

    def _open(self, context: ssl.SSLContext) -> urllib.request.OpenerDirector:
        return urllib.request.build_opener(
            urllib.request.HTTPSHandler(context=context), _NoRedirect(), _proxies(self._endpoint)
        )

    async def post(
        self, url: str, data: bytes, headers: Mapping[str, str], judge: Callable[[Answer], Outcome]
    ) -> Outcome:
        """What became of one request: as `judge` says of the answer, or that there was none."""
        # The socket's timeout is one for every read: an answer that trickles would never end.
        limit = 2 * self._timeout
        try:
            return await asyncio.wait_for(_in_thread(lambda: self._post(url, data, headers, judge)), limit)
        except asyncio.TimeoutError:
            message = f"{shown(url)} did not finish its answer within {limit:g} s"
            return Outcome(ok=False, retry=True, message=message)

    def _post(
        self, url: str, data: bytes, headers: Mapping[str, str], judge: Callable[[Answer], Outcome]
    ) -> Outcome:
        if self._changes.seen() and usable(self._tls):
            self._opener = self._open(self._tls.context())
        authentic = {} if self._auth is None else self._auth.headers()
        request = urllib.request.Request(url, data, {**headers, **authentic}, method="POST")
        try:
            with self._opener.open(request, timeout=self._timeout) as answer:
                said = f"{shown(url)} answered {answer.status} {answer.reason}"
                return judge(Answer(answer.status, said, body=answer.read(_MAX_ANSWER)))
        except urllib.error.HTTPError as error:
            with error:
                said = f"{shown(url)} answered {error.code} {error.reason}"
                after = retry_after(error.headers.get("Retry-After"), datetime.now(timezone.utc))
                return judge(Answer(error.code, said, after))
        except (OSError, http.client.HTTPException) as error:
            reason = getattr(error, "reason", error)
            return Outcome(ok=False, retry=True, message=f"{shown(url)} cannot be reached: {reason}")


def usable(tls: ClientTls) -> bool:
    """Whether the files, which have changed, can be used; what becomes of it is said."""
    try:
        tls.context()
    except ConfigurationError as error:
        _LOG.warning("%s; the certificate read before stays in use", error)
        return False
    _LOG.info("certificates were read again: %s", ", ".join(tls.files()))
    return True


def _proxies(url: str) -> urllib.request.ProxyHandler:
    """The proxies of the environment; none for this machine itself, as in the Collector."""
    return urllib.request.ProxyHandler({} if is_local(url) else None)


async def _in_thread(work: Callable[[], Outcome]) -> Outcome:
    """The result of `work`, from a daemon thread: an executor's would keep the process alive after a stop."""
    loop = asyncio.get_running_loop()
    result: asyncio.Future[Outcome] = loop.create_future()

    def tell(outcome: Outcome) -> None:
        if not result.done():
            result.set_result(outcome)

    def run() -> None:
        try:
            outcome = work()
        except Exception as error:
            outcome = Outcome(ok=False, message=f"{type(error).__name__}: {error}")
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits
            loop.call_soon_threadsafe(tell, outcome)

    threading.Thread(target=run, name="http client", daemon=True).start()
    return await result


def retry_after(value: str | None, now: datetime) -> float | None:
    """Seconds that a Retry-After header asks to wait: a number, or the time until a date."""
    if value is None:
        return None
    if value.strip().isdecimal():
        return float(value)
    try:
        return max(0.0, (parsedate_to_datetime(value) - now).total_seconds())
    except (TypeError, ValueError, OverflowError):
        return None
