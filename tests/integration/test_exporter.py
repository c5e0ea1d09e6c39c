"""The OTLP exporters against real servers: what arrives, and what each kind of refusal leads to."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import socket
import threading
from collections.abc import Iterator
from concurrent import futures
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import grpc
import pytest
from google.protobuf.any_pb2 import Any as AnyMessage
from google.rpc.error_details_pb2 import RetryInfo
from google.rpc.status_pb2 import Status
from integration.sink import Sink
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
    ExportMetricsServiceResponse,
)

from otel_ml_collector.exporter import GrpcSender, HttpSender, OtlpExporter
from otel_ml_collector.queue import Item, Outcome
from otel_ml_collector.settings import Otlp, OtlpHttp

BODY = ExportMetricsServiceRequest()
BODY.resource_metrics.add().scope_metrics.add().metrics.add(name="ml.drift.psi")
DATA = BODY.SerializeToString()
PARTIAL = ExportMetricsServiceResponse()
PARTIAL.partial_success.rejected_data_points = 3
PARTIAL.partial_success.error_message = "too old"

INFO = RetryInfo()
INFO.retry_delay.seconds = 7
DETAIL = AnyMessage()
DETAIL.Pack(INFO)
NO_PORT = "127.0.0.1:1"
"""Nothing listens there."""


def grpc_settings(endpoint: str, **more: Any) -> Otlp:
    return Otlp.model_validate({"endpoint": endpoint, "tls": {"insecure": True}, **more})


def http_settings(endpoint: str, **more: Any) -> OtlpHttp:
    return OtlpHttp.model_validate({"endpoint": endpoint, **more})


async def over_grpc(settings: Otlp) -> Outcome:
    sender = GrpcSender(settings)
    try:
        return await sender.send(DATA)
    finally:
        await sender.close()


# --- servers ----------------------------------------------------------------------------------------------


@contextmanager
def grpc_backend(
    *, code: grpc.StatusCode | None = None, trailers: tuple[tuple[str, bytes], ...] = (), answer: bytes = b""
) -> Iterator[tuple[str, list[dict[str, str]]]]:
    """A gRPC backend that answers the same to everything: its endpoint, and the metadata it saw."""
    seen: list[dict[str, str]] = []

    def export(body: bytes, context: grpc.ServicerContext) -> bytes:
        seen.append({str(key): str(value) for key, value in context.invocation_metadata()})
        context.set_trailing_metadata(trailers)
        if code is not None:
            context.abort(code, "no")
        return answer

    server = grpc.server(futures.ThreadPoolExecutor(1))
    handlers = {"Export": grpc.unary_unary_rpc_method_handler(export)}
    name = "opentelemetry.proto.collector.metrics.v1.MetricsService"
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(name, handlers),))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield f"127.0.0.1:{port}", seen
    server.stop(0).wait()


@contextmanager
def http_backend(
    status: int, headers: dict[str, str] | None = None, body: bytes = b""
) -> Iterator[tuple[str, list[tuple[str, dict[str, str], bytes]]]]:
    """An HTTP backend that answers the same to everything: its URL, and the requests it saw."""
    seen: list[tuple[str, dict[str, str], bytes]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            data = self.rfile.read(int(self.headers["Content-Length"]))
            seen.append((self.path, dict(self.headers.items()), data))
            self.send_response(status)
            for name, value in (headers or {}).items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: Any) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}", seen
    server.shutdown()
    thread.join()
    server.server_close()


# --- what arrives -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("protocol", ["grpc", "http"])
async def test_requests_arrive_as_they_were_offered(tmp_path, protocol):
    """The same bytes in the same order, through a queue, at a backend that only speaks the protocol."""
    with Sink(tmp_path) as sink:
        settings = (
            grpc_settings(sink.grpc_endpoint) if protocol == "grpc" else http_settings(sink.http_endpoint)
        )
        exporter = OtlpExporter("backend", settings)
        await exporter.start()
        for _ in range(3):
            exporter.queue.offer(Item(DATA, 1))
        await exporter.stop(10)
        assert [path.read_bytes() for path in sink.files("metrics")] == [DATA] * 3
    assert exporter.queue.counts.sent == 3


async def test_compression_can_be_turned_off_over_http():
    """Then the body is the request."""
    with http_backend(200) as (url, seen):
        assert await HttpSender(http_settings(url, compression="none")).send(DATA) == Outcome(ok=True)
    ((_, headers, data),) = seen
    assert data == DATA
    assert "Content-Encoding" not in headers


@pytest.mark.parametrize(("compression", "packed"), [(None, True), ("gzip", True), ("none", False)])
async def test_requests_are_compressed_over_grpc(compression, packed):
    """By default, as the Collector's are: the text of a request is not on the wire."""
    body = DATA * 100
    more = {} if compression is None else {"compression": compression}
    with grpc_backend() as (endpoint, _), tapped(endpoint) as (through, seen):
        sender = GrpcSender(grpc_settings(through, **more))
        assert await sender.send(body) == Outcome(ok=True)
        await sender.close()
    assert (b"ml.drift.psi" in b"".join(seen)) is not packed


@contextmanager
def tapped(endpoint: str) -> Iterator[tuple[str, list[bytes]]]:
    """An endpoint that leads to another: its address, and what clients sent to it."""
    host, _, port = endpoint.partition(":")
    seen: list[bytes] = []

    def pump(source: socket.socket, sink: socket.socket, tap: list[bytes]) -> None:
        with contextlib.suppress(OSError):
            while part := source.recv(65536):
                tap.append(part)
                sink.sendall(part)
            sink.shutdown(socket.SHUT_WR)

    with (
        socket.create_server(("127.0.0.1", 0)) as listener,
        socket.create_connection((host, int(port))) as out,
    ):

        def serve() -> None:
            with listener.accept()[0] as client:
                back = threading.Thread(target=pump, args=(out, client, []))
                back.start()
                pump(client, out, seen)
                back.join()

        thread = threading.Thread(target=serve)
        thread.start()
        yield f"127.0.0.1:{listener.getsockname()[1]}", seen
        thread.join()


@pytest.mark.parametrize(("waits", "code"), [(False, "UNAVAILABLE"), (True, "DEADLINE_EXCEEDED")])
async def test_wait_for_ready_waits_for_a_connection(waits, code):
    """Up to the timeout of the request; without it, a backend that is not there is noticed at once."""
    outcome = await over_grpc(grpc_settings(NO_PORT, wait_for_ready=waits, timeout="300ms"))
    assert (outcome.ok, outcome.retry) == (False, True)
    assert outcome.message.startswith(code)


async def test_a_connection_that_went_silent_is_noticed_by_keepalive():
    """Where nothing comes back, not even the answer to a ping, a request fails before its timeout."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        endpoint = f"127.0.0.1:{silent.getsockname()[1]}"
        keepalive = {"time": "200ms", "timeout": "200ms"}
        sender = GrpcSender(grpc_settings(endpoint, keepalive=keepalive, timeout="60s"))
        sending = asyncio.create_task(sender.send(DATA))
        client, _ = await asyncio.to_thread(silent.accept)
        with client:
            client.sendall(b"\0\0\0\4\0\0\0\0\0")  # SETTINGS: the connection is up, and then nothing
            outcome = await asyncio.wait_for(sending, 30)
        await sender.close()
    assert (outcome.retry, outcome.message.split(":")[0]) == (True, "UNAVAILABLE")


async def test_headers_are_sent_over_grpc():
    """As metadata, whose names are lower case."""
    with grpc_backend() as (endpoint, seen):
        outcome = await over_grpc(grpc_settings(endpoint, headers={"X-Team": "ml"}))
    assert outcome == Outcome(ok=True)
    assert seen[0]["x-team"] == "ml"


async def test_headers_are_sent_over_http():
    """Beside the content type that says it is protobuf, to the path of metrics."""
    with http_backend(200) as (url, seen):
        outcome = await HttpSender(http_settings(url + "/otlp/", headers={"X-Team": "ml"})).send(DATA)
    assert outcome == Outcome(ok=True)
    ((path, headers, data),) = seen
    assert (path, gzip.decompress(data)) == ("/otlp/v1/metrics", DATA)
    assert headers["Content-Encoding"] == "gzip"
    assert (headers["X-Team"], headers["Content-Type"]) == ("ml", "application/x-protobuf")


# --- refusals ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("code", "retry"),
    [
        (grpc.StatusCode.UNAVAILABLE, True),
        (grpc.StatusCode.ABORTED, True),
        (grpc.StatusCode.DATA_LOSS, True),
        (grpc.StatusCode.RESOURCE_EXHAUSTED, False),
        (grpc.StatusCode.INVALID_ARGUMENT, False),
        (grpc.StatusCode.UNAUTHENTICATED, False),
        (grpc.StatusCode.UNIMPLEMENTED, False),
    ],
)
async def test_the_grpc_code_says_whether_another_attempt_makes_sense(code, retry):
    """The table of the OTLP specification."""
    with grpc_backend(code=code) as (endpoint, _):
        outcome = await over_grpc(grpc_settings(endpoint))
    assert (outcome.ok, outcome.retry, outcome.after) == (False, retry, None)
    assert code.name in outcome.message


@pytest.mark.parametrize(
    "trailer",
    [
        ("google.rpc.retryinfo-bin", INFO.SerializeToString()),
        ("grpc-status-details-bin", Status(code=8, message="no", details=[DETAIL]).SerializeToString()),
    ],
    ids=["retryinfo", "status"],
)
async def test_a_retry_info_says_how_long_to_wait(trailer):
    """With it RESOURCE_EXHAUSTED means later, in either place servers put it."""
    with grpc_backend(code=grpc.StatusCode.RESOURCE_EXHAUSTED, trailers=(trailer,)) as (endpoint, _):
        outcome = await over_grpc(grpc_settings(endpoint))
    assert (outcome.ok, outcome.retry, outcome.after) == (False, True, 7.0)


@pytest.mark.parametrize(
    ("status", "retry"),
    [
        (429, True),
        (502, True),
        (503, True),
        (504, True),
        (500, False),
        (400, False),
        (401, False),
        (302, False),
    ],
)
async def test_the_http_status_says_whether_another_attempt_makes_sense(status, retry):
    """The table of the OTLP specification; a redirect is not followed."""
    headers = {"Retry-After": "9", "Location": "http://127.0.0.1:1/elsewhere"}
    with http_backend(status, headers) as (url, _):
        outcome = await HttpSender(http_settings(url)).send(DATA)
    assert (outcome.ok, outcome.retry, outcome.after) == (False, retry, 9.0)
    assert str(status) in outcome.message


async def test_a_partial_success_is_read_over_grpc():
    """The points a backend refused from a request it took."""
    with grpc_backend(answer=PARTIAL.SerializeToString()) as (endpoint, _):
        assert await over_grpc(grpc_settings(endpoint)) == Outcome(ok=True, rejected=3, message="too old")


async def test_a_partial_success_is_read_over_http():
    """The points a backend refused from a request it took."""
    with http_backend(200, body=PARTIAL.SerializeToString()) as (url, _):
        outcome = await HttpSender(http_settings(url)).send(DATA)
    assert outcome == Outcome(ok=True, rejected=3, message="too old")


async def test_a_backend_that_is_not_there_is_tried_again():
    """Nobody listens: both protocols say so, and that it may work later."""
    outcomes = [
        await over_grpc(grpc_settings(NO_PORT)),
        await HttpSender(http_settings(f"http://{NO_PORT}")).send(DATA),
    ]
    assert [(outcome.ok, outcome.retry) for outcome in outcomes] == [(False, True)] * 2
    assert all("refused" in outcome.message for outcome in outcomes)


async def test_a_backend_that_speaks_something_else_is_a_success_without_details():
    """An answer of 200 took the request, whatever stands in its body."""
    with http_backend(200, body=b"\xff\xff<html>") as (url, _):
        assert await HttpSender(http_settings(url)).send(DATA) == Outcome(ok=True)


async def test_an_answer_that_trickles_does_not_hold_up_the_queue():
    """Each byte comes within the timeout of the socket; the whole answer has a deadline of its own."""

    connections: list[asyncio.Task[None]] = []

    async def trickle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connections.append(asyncio.current_task())
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n")
        try:
            with contextlib.suppress(ConnectionError):
                while not reader.at_eof():
                    writer.write(b"x")
                    await writer.drain()
                    await asyncio.sleep(0.05)
        finally:
            writer.close()
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()

    server = await asyncio.start_server(trickle, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    sender = HttpSender(http_settings(f"http://127.0.0.1:{port}").model_copy(update={"timeout": 0.2}))
    outcome = await asyncio.wait_for(sender.send(DATA), 5)
    server.close()
    for connection in connections:
        connection.cancel()
    await asyncio.wait(connections)
    assert (outcome.ok, outcome.retry) == (False, True)
    assert "did not finish its answer within 0.4 s" in outcome.message
