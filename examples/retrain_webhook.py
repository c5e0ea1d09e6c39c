"""A receiver of retraining triggers: it verifies each, and starts a command for it, once.

Run it, with a secret that the collector gets as well, and the command that trains:

    export WEBHOOK_SECRET="whsec_$(head -c 32 /dev/urandom | base64)"
    python examples/retrain_webhook.py 8000 python train.py

and let the collector know of it:

    exporters:
      webhook: {endpoint: "http://localhost:8000/", secret: "${env:WEBHOOK_SECRET}"}

The command gets the trigger as JSON on its standard input. It prints where it listens, and a line for each trigger with
what became of it. While a training runs, others are asked to come again later: the collector does.
"""

import base64
import hashlib
import hmac
import json
import os
import subprocess
import sys
import tempfile
import time
from http.server import BaseHTTPRequestHandler, HTTPServer

TOLERANCE = 300  # seconds that a request may take, and clocks may differ


class Retraining:
    """Starts the command, one at a time, and once for each id."""

    def __init__(self, command: list[str]) -> None:
        self.command = command
        self.seen: set[str] = set()  # a real one keeps them where a restart finds them
        self.running: subprocess.Popen[bytes] | None = None

    def take(self, message_id: str, body: bytes) -> tuple[int, str]:
        """The status to answer with, and why."""
        if message_id in self.seen:
            return 200, "seen before"
        if self.running is not None and self.running.poll() is None:
            return 503, "a training is under way"
        with tempfile.TemporaryFile() as trigger:  # a pipe would break when the command does not read it
            trigger.write(body)
            trigger.seek(0)
            self.running = subprocess.Popen(self.command, stdin=trigger)
        self.seen.add(message_id)
        data = json.loads(body)["data"]
        return 202, f"training {data['model']['name']} {data['model']['version']}: {data['reason']}"


def verified(headers: dict[str, str], body: bytes, secret: str) -> bool:
    """Whether the request was signed with the secret, a short time ago (https://www.standardwebhooks.com)."""
    timestamp = headers.get("webhook-timestamp", "")
    if not timestamp.isdecimal() or abs(time.time() - int(timestamp)) > TOLERANCE:
        return False
    key = base64.b64decode(secret.removeprefix("whsec_"))
    signed = f"{headers.get('webhook-id', '')}.{timestamp}.".encode() + body
    expected = "v1," + base64.b64encode(hmac.digest(key, signed, hashlib.sha256)).decode()
    given = headers.get("webhook-signature", "").split()
    return any(hmac.compare_digest(expected.encode(), one.encode()) for one in given)


def serve(port: int, retraining: Retraining, secret: str) -> None:
    class Handler(BaseHTTPRequestHandler):
        timeout = 10

        def do_POST(self) -> None:
            headers = {name.lower(): value for name, value in self.headers.items()}
            length = int(headers.get("content-length", 0))
            body = self.rfile.read(min(max(length, 0), 1_000_000))
            status, why = 401, "not signed with our secret"
            if verified(headers, body, secret):
                status, why = retraining.take(headers["webhook-id"], body)
            print(status, why, flush=True)
            self.send_response(status)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """A line for each trigger is enough."""

    server = HTTPServer(("127.0.0.1", port), Handler)
    print(f"listening on http://127.0.0.1:{server.server_port}/", flush=True)
    server.serve_forever()


if __name__ == "__main__":
    if len(sys.argv) < 3 or "WEBHOOK_SECRET" not in os.environ:
        sys.exit("usage: WEBHOOK_SECRET=whsec_… python retrain_webhook.py PORT COMMAND…")
    serve(int(sys.argv[1]), Retraining(sys.argv[2:]), os.environ["WEBHOOK_SECRET"])
