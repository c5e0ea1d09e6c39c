"""An endpoint that webhooks are sent to: it keeps what it takes, and answers what it is told to.

It verifies signatures by itself, as https://www.standardwebhooks.com describes it, with nothing of this project.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

SECRET = "whsec_" + base64.b64encode(bytes(range(32))).decode()


@dataclass
class Hook:
    """One request that arrived."""

    path: str
    headers: dict[str, str]
    body: bytes

    @property
    def id(self) -> str:
        return self.headers["webhook-id"]

    @property
    def payload(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.body)
        return found

    def signed_with(self, secret: str) -> bool:
        """Whether one of the signatures is that of this secret."""
        signed = f"{self.id}.{self.headers['webhook-timestamp']}.".encode() + self.body
        key = base64.b64decode(secret.removeprefix("whsec_"))
        expected = "v1," + base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()).decode()
        return expected in self.headers.get("webhook-signature", "").split()


class Hooks:
    """What arrived so far, also what was refused."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.seen: list[Hook] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def wait_for(self, true: Callable[[list[Hook]], object], timeout: float = 30) -> list[Hook]:
        """All that arrived, once `true` of it."""
        deadline = time.monotonic() + timeout
        while not true(self.seen):
            assert time.monotonic() < deadline, f"{len(self.seen)} requests, and not what was waited for"
            time.sleep(0.02)
        return list(self.seen)


@contextmanager
def hooks(
    *, status: Callable[[int], int] = lambda _: 204, headers: dict[str, str] | None = None, port: int = 0
) -> Iterator[Hooks]:
    """A running endpoint; `status` is what the n-th request, from 0, is answered with."""
    lock = threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            with lock:
                number = len(found.seen)
                names = {name.lower(): value for name, value in self.headers.items()}
                found.seen.append(Hook(self.path, names, body))
            self.send_response(status(number))
            for name, value in (headers or {}).items():
                self.send_header(name, value)
            self.end_headers()

        def log_message(self, format: str, *args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
    found = Hooks(server.server_address[1])
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield found
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
