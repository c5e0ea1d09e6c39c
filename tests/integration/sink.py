"""An OTLP backend that only speaks the protocol: it keeps every export request it is sent as a file.

It imports nothing of this project, so that what arrives is judged by the protocol alone.

As a program it prints one JSON line with its ports and runs until SIGTERM:

    python tests/integration/sink.py --out DIR [--refuse-until FILE] [--grpc-port N] [--http-port N]

As a helper:

    with Sink(tmp_path / "sink") as sink:
        ...  # export to sink.grpc_endpoint or sink.http_endpoint
        requests = sink.wait_for(lambda received: len(received) >= 2, timeout=10)
"""

from __future__ import annotations

import argparse
import gzip
import itertools
import json
import os
import select
import signal
import subprocess
import sys
import threading
import time
import zlib
from collections.abc import Callable
from concurrent import futures
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, TypeVar

import grpc
from google.protobuf.message import Message
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

SERVICES = {
    "opentelemetry.proto.collector.metrics.v1.MetricsService": "metrics",
    "opentelemetry.proto.collector.trace.v1.TraceService": "traces",
    "opentelemetry.proto.collector.logs.v1.LogsService": "logs",
}
PATHS = {f"/v1/{signal_name}": signal_name for signal_name in SERVICES.values()}
MAX_MESSAGE = 256 * 1024 * 1024

_Request = TypeVar("_Request", bound=Message)


class Store:
    """Numbered files `000001-metrics-grpc.pb`, each complete as soon as its name exists."""

    def __init__(self, out: Path, refuse_until: Path | None) -> None:
        out.mkdir(parents=True, exist_ok=True)
        self._out = out
        self._refuse_until = refuse_until
        self._numbers = itertools.count(1 + len(list(out.glob("*.pb"))))
        self._lock = threading.Lock()

    def refuses(self) -> bool:
        """True while the file that opens the sink does not exist."""
        return self._refuse_until is not None and not self._refuse_until.exists()

    def keep(self, signal_name: str, transport: str, body: bytes) -> None:
        """Write one request atomically; numbers follow the order of arrival."""
        with self._lock:
            name = f"{next(self._numbers):06d}-{signal_name}-{transport}.pb"
            partial = self._out / f".{name}.partial"
            partial.write_bytes(body)
            os.replace(partial, self._out / name)


def grpc_server(store: Store, port: int) -> tuple[grpc.Server, int]:
    """A running gRPC server for the three OTLP services, and its port."""

    def handler_of(signal_name: str) -> grpc.RpcMethodHandler[bytes, bytes]:
        def export(body: bytes, context: grpc.ServicerContext) -> bytes:
            if store.refuses():
                context.abort(grpc.StatusCode.UNAVAILABLE, "this sink refuses for now")
            store.keep(signal_name, "grpc", body)
            return b""

        return grpc.unary_unary_rpc_method_handler(export)

    options = [("grpc.max_receive_message_length", MAX_MESSAGE), ("grpc.so_reuseport", 0)]
    server = grpc.server(futures.ThreadPoolExecutor(4), options=options)
    for service, signal_name in SERVICES.items():
        handlers = {"Export": handler_of(signal_name)}
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, handlers),))
    bound = server.add_insecure_port(f"127.0.0.1:{port}")
    server.start()
    return server, bound


def http_server(store: Store, port: int) -> ThreadingHTTPServer:
    """An HTTP server for /v1/metrics, /v1/traces and /v1/logs; the caller runs it."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            signal_name = PATHS.get(self.path)
            if signal_name is None:
                return self._answer(404)
            if store.refuses():
                return self._answer(503)
            try:
                store.keep(signal_name, "http", self._decompressed(body))
            except (OSError, EOFError, zlib.error):
                return self._answer(400)
            return self._answer(200)

        def _decompressed(self, body: bytes) -> bytes:
            match self.headers.get("Content-Encoding", "identity"):
                case "gzip":
                    return gzip.decompress(body)
                case "deflate":
                    return zlib.decompress(body)
            return body

        def _answer(self, status: int) -> None:
            self.send_response(status)
            self.send_header("Content-Type", "application/x-protobuf")
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, format: str, *args: Any) -> None:
            """Stay quiet: stdout belongs to the line with the ports."""

    return ThreadingHTTPServer(("127.0.0.1", port), Handler)


def main(arguments: list[str] | None = None) -> int:
    """Run the sink until SIGTERM or SIGINT."""
    parser = argparse.ArgumentParser(description="Keep every OTLP export request as a file.")
    parser.add_argument("--out", type=Path, required=True, help="directory for the .pb files")
    parser.add_argument("--refuse-until", type=Path, help="answer UNAVAILABLE / 503 until this file exists")
    parser.add_argument("--grpc-port", type=int, default=0)
    parser.add_argument("--http-port", type=int, default=0)
    options = parser.parse_args(arguments)

    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    store = Store(options.out, options.refuse_until)
    rpc, rpc_port = grpc_server(store, options.grpc_port)
    http = http_server(store, options.http_port)
    threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
    print(json.dumps({"grpc_port": rpc_port, "http_port": http.server_address[1]}), flush=True)
    stop.wait()
    http.shutdown()
    http.server_close()
    rpc.stop(grace=1).wait()
    return 0


class Sink:
    """The sink in a process of its own, for the length of a `with` block.

    `out` is the directory of the files. With `refuse_until` the sink answers UNAVAILABLE / 503 until that
    file exists. Fixed ports and the same directory let a test stop one sink and start another in its place.
    """

    def __init__(
        self, out: Path | str, *, refuse_until: Path | None = None, grpc_port: int = 0, http_port: int = 0
    ) -> None:
        self.out = Path(out)
        self.grpc_port = grpc_port
        self.http_port = http_port
        self._refuse_until = refuse_until
        self._process: subprocess.Popen[str] | None = None

    def __enter__(self) -> Sink:
        command = [sys.executable, str(Path(__file__).resolve()), "--out", str(self.out)]
        command += ["--grpc-port", str(self.grpc_port), "--http-port", str(self.http_port)]
        if self._refuse_until is not None:
            command += ["--refuse-until", str(self._refuse_until)]
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        ports = json.loads(self._first_line(self._process, timeout=30))
        self.grpc_port, self.http_port = ports["grpc_port"], ports["http_port"]
        return self

    def __exit__(self, *_: object) -> None:
        process = self._process
        assert process is not None
        process.terminate()
        try:
            process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            raise
        finally:
            if process.stdout is not None:
                process.stdout.close()

    @property
    def grpc_endpoint(self) -> str:
        """`host:port`, for an insecure channel."""
        return f"127.0.0.1:{self.grpc_port}"

    @property
    def http_endpoint(self) -> str:
        """Base URL; OTLP/HTTP senders add /v1/metrics, /v1/traces or /v1/logs."""
        return f"http://127.0.0.1:{self.http_port}"

    def files(self, signal_name: str = "*") -> list[Path]:
        """The files kept so far, in the order of arrival; `signal_name` is metrics, traces or logs."""
        return sorted(self.out.glob(f"[0-9]*-{signal_name}-*.pb"))

    def metrics(self) -> list[ExportMetricsServiceRequest]:
        """Metric requests so far, in the order of arrival."""
        return self._parsed("metrics", ExportMetricsServiceRequest)

    def traces(self) -> list[ExportTraceServiceRequest]:
        """Trace requests so far, in the order of arrival."""
        return self._parsed("traces", ExportTraceServiceRequest)

    def logs(self) -> list[ExportLogsServiceRequest]:
        """Log requests so far, in the order of arrival."""
        return self._parsed("logs", ExportLogsServiceRequest)

    def wait_for(
        self, predicate: Callable[[list[ExportMetricsServiceRequest]], object], timeout: float = 30
    ) -> list[ExportMetricsServiceRequest]:
        """The metric requests once `predicate` of them is true; TimeoutError after `timeout` seconds."""
        deadline = time.monotonic() + timeout
        while not predicate(received := self.metrics()):
            if time.monotonic() > deadline:
                raise TimeoutError(f"nothing fits after {timeout} s; {len(received)} metric requests so far")
            time.sleep(0.05)
        return received

    def _parsed(self, signal_name: str, kind: type[_Request]) -> list[_Request]:
        return [kind.FromString(path.read_bytes()) for path in self.files(signal_name)]

    @staticmethod
    def _first_line(process: subprocess.Popen[str], timeout: float) -> str:
        assert process.stdout is not None
        ready, _, _ = select.select([process.stdout], [], [], timeout)
        line = process.stdout.readline() if ready else ""
        if not line:
            process.kill()
            raise RuntimeError(f"the sink did not start within {timeout} s")
        return line


if __name__ == "__main__":
    sys.exit(main())
