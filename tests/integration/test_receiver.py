"""The receiver on real sockets: the exporters people use, and the requests that go wrong."""

from __future__ import annotations

import asyncio
import gzip
import http.client
import zlib
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from typing import Any

import grpc
import pytest
from google.rpc.error_details_pb2 import RetryInfo
from google.rpc.status_pb2 import Status
from integration.senders import (
    EXPORT,
    PROTOBUF,
    SMALL,
    Batches,
    body,
    call,
    post,
    refused,
    running,
    trailers,
)
from opentelemetry.exporter.otlp.proto.grpc.metric_exporter import OTLPMetricExporter as GrpcExporter
from opentelemetry.exporter.otlp.proto.http import Compression
from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter as HttpExporter
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceResponse,
)
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader, MetricExportResult, MetricsData

from otel_ml_collector.receiver import Overloaded, Receiver


@pytest.fixture
def batches() -> Batches:
    return Batches()


@pytest.fixture
async def receiver(batches: Batches) -> AsyncIterator[Receiver]:
    async with running(batches) as started:
        yield started


def measurements() -> MetricsData:
    """A counter and a histogram, as the SDK collects them."""
    reader = InMemoryMetricReader()
    provider = MeterProvider([reader], shutdown_on_exit=False)
    meter = provider.get_meter("otel_ml")
    meter.create_counter("ml.inference.rows").add(3)
    meter.create_histogram("ml.x", explicit_bucket_boundaries_advisory=[1.0, 2.0]).record(1.5)
    data = reader.get_metrics_data()
    provider.shutdown()
    assert data is not None
    return data


# --- the exporters of opentelemetry-python -----------------------------------------------------------------


def _grpc(compression: grpc.Compression) -> Callable[[Receiver], Any]:
    return lambda receiver: GrpcExporter(
        f"127.0.0.1:{receiver.grpc_port}", insecure=True, compression=compression
    )


def _http(compression: Compression) -> Callable[[Receiver], Any]:
    return lambda receiver: HttpExporter(
        f"http://127.0.0.1:{receiver.http_port}/v1/metrics", compression=compression
    )


@pytest.mark.parametrize(
    ("transport", "exporter_of"),
    [
        ("grpc", _grpc(grpc.Compression.NoCompression)),
        ("grpc", _grpc(grpc.Compression.Gzip)),
        ("http", _http(Compression.NoCompression)),
        ("http", _http(Compression.Gzip)),
        ("http", _http(Compression.Deflate)),
    ],
    ids=["grpc", "grpc-gzip", "http", "http-gzip", "http-deflate"],
)
async def test_real_exporters_are_understood(
    receiver: Receiver, batches: Batches, transport: str, exporter_of: Callable[[Receiver], Any]
) -> None:
    """What the SDK's own exporters send arrives, is counted by transport and reported as a success."""
    exporter = exporter_of(receiver)

    result = await asyncio.to_thread(exporter.export, measurements())
    exporter.shutdown()

    assert result is MetricExportResult.SUCCESS
    assert batches.points() == {"ml.inference.rows": [3], "ml.x": [0, 1, 0]}
    assert receiver.counts.accepted == {transport: 2}
    assert sum(receiver.counts.refused.values()) == 0


async def test_exporter_tries_again_after_overload(receiver: Receiver, batches: Batches) -> None:
    """An SDK exporter that is told to come back does, and its points arrive once."""
    batches.error = Overloaded("memory is short", retry_after=0.05)
    exporter = _grpc(grpc.Compression.NoCompression)(receiver)
    export = asyncio.create_task(asyncio.to_thread(exporter.export, measurements()))
    while not receiver.counts.refused:
        await asyncio.sleep(0.01)
    batches.error = None

    assert await export is MetricExportResult.SUCCESS
    exporter.shutdown()
    assert len(batches.taken) == 1


# --- answers over both protocols ---------------------------------------------------------------------------


async def test_empty_request_is_a_success(receiver: Receiver, batches: Batches) -> None:
    """A request without metrics is answered with success and does not reach the engine."""
    assert await call(receiver, b"") == ExportMetricsServiceResponse()
    status, answer, headers = await post(receiver, b"")

    assert (status, answer, headers["content-type"]) == (200, b"", "application/x-protobuf")
    assert batches.taken == []


async def test_rejected_points_make_a_partial_success(receiver: Receiver, batches: Batches) -> None:
    """Points that decoding or the engine rejects are numbered in the answer, with their reasons."""
    batches.rejects = {"streams": 2}
    request = body(points=5) + body(value=-1)

    rpc = await call(receiver, request)
    status, answer, _ = await post(receiver, request)

    assert status == 200
    assert ExportMetricsServiceResponse.FromString(answer) == rpc
    assert rpc.partial_success.rejected_data_points == 3
    assert rpc.partial_success.error_message == "3 data points rejected: out_of_range 1, streams 2"
    assert receiver.counts.accepted == {"grpc": 3, "http": 3}
    assert receiver.counts.refused == {"grpc": 3, "http": 3}
    assert receiver.counts.rejected == {"streams": 4, "out_of_range": 2}


async def test_bad_protobuf_is_the_senders_fault(receiver: Receiver) -> None:
    """A body that is not protobuf is INVALID_ARGUMENT, 400 with a Status body over HTTP."""
    error = await refused(receiver, b"no protobuf")
    status, answer, headers = await post(receiver, b"no protobuf")

    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert (status, headers["content-type"]) == (400, "application/x-protobuf")
    said = Status.FromString(answer)
    assert (said.code, said.message) == (grpc.StatusCode.INVALID_ARGUMENT.value[0], error.details())
    assert Status.FromString(trailers(error)["grpc-status-details-bin"]) == said


async def test_too_many_points_are_refused(receiver: Receiver, batches: Batches) -> None:
    """Too many points are RESOURCE_EXHAUSTED with no invitation to send them again, 413 over HTTP."""
    error = await refused(receiver, body(points=1001))
    status, answer, headers = await post(receiver, body(points=1001))

    assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert "google.rpc.retryinfo-bin" not in trailers(error)
    assert (status, Status.FromString(answer).message) == (413, error.details())
    assert "retry-after" not in headers
    assert batches.taken == []


async def test_large_bodies_are_refused(receiver: Receiver, batches: Batches) -> None:
    """Bodies over the limit are refused, also when only their decompressed size is over it."""
    zeros = bytes(1_000_000)
    errors = [
        await refused(receiver, zeros),
        await refused(receiver, zeros, compression=grpc.Compression.Gzip),
    ]
    answers = [
        await post(receiver, bytes(150_000)),
        await post(receiver, zeros),
        await post(receiver, gzip.compress(zeros), {**PROTOBUF, "Content-Encoding": "gzip"}),
        await post(receiver, zlib.compress(zeros), {**PROTOBUF, "Content-Encoding": "deflate"}),
    ]

    assert {error.code() for error in errors} == {grpc.StatusCode.RESOURCE_EXHAUSTED}
    assert {status for status, _, _ in answers} == {413}
    message = Status.FromString(answers[-1][1]).message
    assert message.startswith("the request body is larger than 100000 bytes")
    assert batches.taken == []


async def test_overload_asks_to_come_back(receiver: Receiver, batches: Batches) -> None:
    """An overloaded engine is UNAVAILABLE with RetryInfo, 503 with Retry-After over HTTP."""
    batches.error = Overloaded("memory is short", retry_after=2.5)

    error = await refused(receiver, body(points=3))
    status, answer, headers = await post(receiver, body(points=3))

    assert (error.code(), error.details()) == (grpc.StatusCode.UNAVAILABLE, "memory is short")
    info = RetryInfo.FromString(trailers(error)["google.rpc.retryinfo-bin"])
    assert info.retry_delay.ToTimedelta().total_seconds() == 2.5
    assert (status, headers["retry-after"]) == (503, "3")
    packed = RetryInfo()
    assert Status.FromString(answer).details[0].Unpack(packed)
    assert packed == info
    assert receiver.counts.refused == {"grpc": 3, "http": 3}


async def test_failing_engine_is_not_the_senders_fault(
    receiver: Receiver, batches: Batches, caplog: pytest.LogCaptureFixture
) -> None:
    """An exception in the engine is INTERNAL, 500 over HTTP, logged, and the receiver goes on."""
    batches.error = KeyError("secret detail")

    error = await refused(receiver, body())
    status, answer, _ = await post(receiver, body())
    batches.error = None

    assert (error.code(), error.details()) == (grpc.StatusCode.INTERNAL, "internal error: KeyError")
    assert (status, Status.FromString(answer).message) == (500, "internal error: KeyError")
    assert "could not be taken" in caplog.text
    assert await call(receiver, body()) == ExportMetricsServiceResponse()


# --- what only one of the protocols can get wrong ----------------------------------------------------------


@pytest.mark.parametrize("service", ["trace.v1.TraceService", "logs.v1.LogsService"])
async def test_other_grpc_services_are_unimplemented(receiver: Receiver, service: str) -> None:
    """There is no pipeline for traces and logs, and gRPC says so."""
    error = await refused(receiver, b"", f"/opentelemetry.proto.collector.{service}/Export")

    assert error.code() is grpc.StatusCode.UNIMPLEMENTED


@pytest.mark.parametrize(
    ("expected", "changes"),
    [
        (404, {"path": "/v1/traces"}),
        (404, {"path": "/v1/logs"}),
        (404, {"path": "/"}),
        (405, {"method": "GET"}),
        (405, {"method": "PUT"}),
        (415, {"headers": {}}),
        (400, {"headers": {"Content-Type": "application/json"}}),
        (415, {"headers": {**PROTOBUF, "Content-Encoding": "zstd"}}),
        (400, {"headers": {**PROTOBUF, "Content-Encoding": "gzip"}}),
        (400, {"headers": {**PROTOBUF, "Content-Encoding": "gzip"}, "data": gzip.compress(body())[:-4]}),
        (400, {"headers": {**PROTOBUF, "Content-Encoding": "gzip"}, "data": gzip.compress(body()) + b"tail"}),
        (200, {"headers": {"Content-Type": "Application/X-Protobuf; charset=utf-8"}}),
        (200, {"headers": {**PROTOBUF, "Content-Encoding": "GZIP"}, "data": gzip.compress(body())}),
    ],
)
async def test_http_statuses(receiver: Receiver, expected: int, changes: dict[str, Any]) -> None:
    """Wrong paths, methods, media types, encodings and broken compression get HTTP's status for them."""
    status, _, _ = await post(receiver, **{"data": body(), **changes})

    assert status == expected


async def test_chunked_bodies_are_read(receiver: Receiver, batches: Batches) -> None:
    """A body without a declared length is read to its end, and bounded all the same."""

    def send(chunks: list[bytes]) -> int:
        connection = http.client.HTTPConnection("127.0.0.1", receiver.http_port, timeout=10)
        connection.request("POST", "/v1/metrics", iter(chunks), PROTOBUF, encode_chunked=True)
        status = connection.getresponse().status
        connection.close()
        return status

    data = body(points=4)
    assert await asyncio.to_thread(send, [data[:7], data[7:]]) == 200
    assert len(batches.taken[0]) == 4
    assert await asyncio.to_thread(send, [bytes(60_000)] * 2) == 413


async def test_slow_senders_are_cut_off(receiver: Receiver) -> None:
    """A body that does not arrive in time is answered with 408, and the connection ends."""
    reader, writer = await asyncio.open_connection("127.0.0.1", receiver.http_port)
    writer.write(
        b"POST /v1/metrics HTTP/1.1\r\nHost: x\r\nContent-Type: application/x-protobuf\r\n"
        b"Content-Length: 100\r\n\r\npart"
    )

    answer = await asyncio.wait_for(reader.read(), 5)

    assert answer.startswith(b"HTTP/1.1 408 ")
    writer.close()
    await writer.wait_closed()


@pytest.mark.parametrize("sent", [b"", b"POST /v1/metrics HTT", b"POST /v1/metrics HTTP/1.1\r\nHost: x\r\n"])
async def test_idle_connections_are_closed(receiver: Receiver, sent: bytes) -> None:
    """A connection on which no request completes its head within the idle timeout is closed."""
    reader, writer = await asyncio.open_connection("127.0.0.1", receiver.http_port)
    writer.write(sent)

    assert await asyncio.wait_for(reader.read(), 5) == b""
    writer.close()
    await writer.wait_closed()


async def test_sender_that_hangs_up_does_no_harm(
    receiver: Receiver, batches: Batches, caplog: pytest.LogCaptureFixture
) -> None:
    """A connection that is closed amid its body leaves no error in the log and nothing in the engine."""
    _, writer = await asyncio.open_connection("127.0.0.1", receiver.http_port)
    writer.write(
        b"POST /v1/metrics HTTP/1.1\r\nHost: x\r\nContent-Type: application/x-protobuf\r\n"
        b"Content-Length: 100\r\n\r\npart"
    )
    await writer.drain()
    writer.close()
    await writer.wait_closed()

    assert (await post(receiver, body()))[0] == 200
    assert len(batches.taken) == 1
    assert [record for record in caplog.records if record.levelname in ("WARNING", "ERROR")] == []


# --- what is under way --------------------------------------------------------------------------------------


async def test_a_sender_with_too_much_under_way_is_asked_to_wait(batches: Batches) -> None:
    """Over both protocols together, with the time to wait: 429 over HTTP, UNAVAILABLE over gRPC."""
    async with running(batches, replace(SMALL, max_requests=4, read_timeout=5.0)) as receiver:
        reader, writer = await asyncio.open_connection("127.0.0.1", receiver.http_port)
        head = "POST /v1/metrics HTTP/1.1\r\nHost: x\r\nContent-Type: application/x-protobuf\r\n"
        writer.write(f"{head}Content-Length: {len(body())}\r\n\r\n".encode() + body()[:1])
        status = 200
        while status == 200:  # until the head has been read
            status, answer, headers = await post(receiver, body())
        error = await refused(receiver, body())
        writer.write(body()[1:])
        first = await reader.read(12)
        writer.close()
        await writer.wait_closed()

        assert (status, headers["retry-after"]) == (429, "1")
        assert Status.FromString(answer).message.startswith("one sender has 1 requests under way")
        assert error.code() is grpc.StatusCode.UNAVAILABLE
        assert RetryInfo.FromString(trailers(error)["google.rpc.retryinfo-bin"]).retry_delay.seconds == 1
        assert first == b"HTTP/1.1 200"
        assert (await post(receiver, body()))[0] == 200


async def test_a_grpc_call_without_a_message_ends(receiver: Receiver) -> None:
    """One that never sends it is cut off with a code that may be retried; one that ends without it is told."""
    never = asyncio.Event()

    async def nothing() -> AsyncIterator[bytes]:
        await never.wait()
        yield b""

    async def none() -> AsyncIterator[bytes]:
        for message in ():
            yield message

    codes = []
    async with grpc.aio.insecure_channel(f"127.0.0.1:{receiver.grpc_port}") as channel:
        for messages in (nothing(), none()):
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await channel.stream_unary(EXPORT)(messages, timeout=10)
            codes.append(caught.value.code())
    never.set()

    assert codes == [grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.INVALID_ARGUMENT]
