"""OTLP/gRPC by the letter of its specification, from a running service.

https://opentelemetry.io/docs/specs/otlp/#otlpgrpc
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import grpc
import pytest
from google.protobuf.message import Message
from google.rpc.error_details_pb2 import RetryInfo
from integration.collector import Collector
from integration.exchange import (
    FULL,
    PASS_THROUGH,
    SERVICES,
    SINK_MODE,
    call,
    eventually,
    logs,
    metrics,
    service,
    traces,
    with_unknown_fields,
)
from integration.sink import Sink
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceResponse


@pytest.fixture(scope="module")
def collector(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Collector]:
    with service(tmp_path_factory.mktemp("sink") / "mode", SINK_MODE) as running:
        yield running


@pytest.fixture(scope="module")
def backend(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sink]:
    with Sink(tmp_path_factory.mktemp("backend")) as sink:
        yield sink


@pytest.fixture(scope="module")
def passing(tmp_path_factory: pytest.TempPathFactory, backend: Sink) -> Iterator[Collector]:
    text = PASS_THROUGH.replace("BACKEND", backend.grpc_endpoint)
    with service(tmp_path_factory.mktemp("pass") / "through", text) as running:
        yield running


@pytest.fixture(scope="module")
def full(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Collector]:
    with service(tmp_path_factory.mktemp("full") / "memory", FULL) as running:
        yield running


# --- success ----------------------------------------------------------------------------------------------


def test_full_success_leaves_partial_success_unset(collector: Collector) -> None:
    """Full success: "the server MUST leave the partial_success field unset"."""
    reply = call(collector, metrics(1, 2).SerializeToString())

    assert reply.code is grpc.StatusCode.OK
    assert not ExportMetricsServiceResponse.FromString(reply.body).HasField("partial_success")


def test_empty_request_is_a_success(collector: Collector) -> None:
    """An empty telemetry request: "the server SHOULD respond with success"."""
    reply = call(collector, b"")

    assert (reply.code, reply.body) == (grpc.StatusCode.OK, b"")


def test_partial_success_says_how_many_and_why(collector: Collector) -> None:
    """Partial success: OK, with rejected_<signal> set, and error_message in plain words."""
    reply = call(collector, metrics(1, -2, 3, -4).SerializeToString())

    partial = ExportMetricsServiceResponse.FromString(reply.body).partial_success
    assert reply.code is grpc.StatusCode.OK
    assert (partial.rejected_data_points, partial.error_message) == (
        2,
        "2 data points rejected: out_of_range 2",
    )


def test_unknown_fields_are_passed_over(collector: Collector) -> None:
    """Interoperability: "unknown fields … MUST be ignored", so that newer senders are understood."""
    reply = call(collector, with_unknown_fields(metrics(1)))

    assert (reply.code, reply.body) == (grpc.StatusCode.OK, b"")


@pytest.mark.parametrize("compression", [grpc.Compression.Gzip, grpc.Compression.Deflate])
def test_compressed_messages_are_read(collector: Collector, compression: grpc.Compression) -> None:
    """gzip is the compression that every server must support."""
    reply = call(collector, metrics(*[1] * 500).SerializeToString(), compression=compression)

    assert (reply.code, reply.body) == (grpc.StatusCode.OK, b"")


def test_concurrent_unary_calls_are_all_answered(collector: Collector) -> None:
    """Concurrent requests: clients may have many unary calls in flight on one connection."""
    with grpc.insecure_channel(f"127.0.0.1:{collector.ports['grpc']}") as channel:
        export = channel.unary_unary(f"/{SERVICES['metrics']}/Export")
        calls = [export.future(metrics(1, -1).SerializeToString(), timeout=20) for _ in range(60)]
        answers = {call.result() for call in calls}

    (answer,) = answers
    assert ExportMetricsServiceResponse.FromString(answer).partial_success.rejected_data_points == 1


# --- failures that are final ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "data", [b"no protobuf", b"\x0a\xff\x01", b"\x0a\x02\x0a\x05", b"\x1f\x8b\x08\x00\x00"]
)
def test_bad_data_is_not_retryable(collector: Collector, data: bytes) -> None:
    """Failures: data that cannot be processed is InvalidArgument, and "the client MUST NOT retry"."""
    reply = call(collector, data)

    assert reply.code is grpc.StatusCode.INVALID_ARGUMENT
    assert (reply.status().code, reply.status().message) == (3, reply.message)
    assert "google.rpc.retryinfo-bin" not in reply.trailers


@pytest.mark.parametrize("compression", [grpc.Compression.NoCompression, grpc.Compression.Gzip])
def test_too_large_is_resource_exhausted_without_retry_info(
    collector: Collector, compression: grpc.Compression
) -> None:
    """A message over the limit, before or after decompression, is ResourceExhausted; that is final."""
    reply = call(collector, bytes(2_000_000), compression=compression)

    assert reply.code is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert "google.rpc.retryinfo-bin" not in reply.trailers
    assert "Traceback" not in (collector.directory / "collector.stderr").read_text()


def test_too_many_points_are_resource_exhausted_without_retry_info(collector: Collector) -> None:
    """A request that never fits is refused for good, with the way out in the message."""
    reply = call(collector, metrics(*[1] * 1001).SerializeToString())

    assert reply.code is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert "google.rpc.retryinfo-bin" not in reply.trailers
    assert reply.message == (
        "the request has more than 1000 data points; send smaller batches or raise "
        "max_data_points_per_request"
    )


@pytest.mark.parametrize("signal", ["traces", "logs"])
def test_signals_without_a_pipeline_are_unimplemented(collector: Collector, signal: str) -> None:
    """A server without a signal's service says UNIMPLEMENTED, as a Collector without its pipeline does."""
    assert call(collector, b"", signal).code is grpc.StatusCode.UNIMPLEMENTED


# --- throttling -------------------------------------------------------------------------------------------


def test_overload_is_unavailable_with_retry_info_in_both_places(full: Collector) -> None:
    """Throttling: Unavailable with RetryInfo in the status details; the Python SDK reads its own trailer."""
    reply = call(full, metrics(1).SerializeToString())

    info, packed = RetryInfo.FromString(reply.trailers["google.rpc.retryinfo-bin"]), RetryInfo()
    assert reply.code is grpc.StatusCode.UNAVAILABLE
    assert reply.message.startswith("memory_limiter: ")
    assert info.retry_delay.seconds == 5
    assert reply.status().details[0].Unpack(packed)
    assert packed == info


# --- traces and logs --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("signal", "request_"), [("traces", traces(3)), ("logs", logs(2)), ("metrics", metrics(4))]
)
def test_what_is_passed_on_is_the_same_bytes(
    passing: Collector, backend: Sink, signal: str, request_: Message
) -> None:
    """A receiver with a pipeline for the signal takes it, and the backend gets the bytes that were sent."""
    data = with_unknown_fields(request_)

    assert call(passing, data, signal, compression=grpc.Compression.Gzip).code is grpc.StatusCode.OK

    eventually(lambda: data in [file.read_bytes() for file in backend.files(signal)])


@pytest.mark.parametrize("signal", ["traces", "logs"])
def test_bad_data_of_other_signals_is_not_passed_on(passing: Collector, signal: str) -> None:
    """Traces and logs that are not protobuf are InvalidArgument, too."""
    assert call(passing, b"no protobuf", signal).code is grpc.StatusCode.INVALID_ARGUMENT


def test_a_full_queue_asks_to_come_back(tmp_path) -> None:
    """Back-pressure of a backend that is away reaches the sender as Unavailable with RetryInfo."""
    text = PASS_THROUGH.replace("BACKEND", "127.0.0.1:1").replace("queue_size: 100", "queue_size: 2")
    with service(tmp_path / "away", text) as collector:
        replies = [call(collector, traces(3).SerializeToString(), "traces") for _ in range(3)]

    assert [reply.code for reply in replies] == [
        grpc.StatusCode.OK,
        grpc.StatusCode.OK,
        grpc.StatusCode.UNAVAILABLE,
    ]
    assert "google.rpc.retryinfo-bin" in replies[2].trailers
    assert replies[2].message == "the sending queue of otlp is full; try again later"


def test_health_is_serving(collector: Collector) -> None:
    """The standard gRPC health service answers for the whole server."""
    with grpc.insecure_channel(f"127.0.0.1:{collector.ports['grpc']}") as channel:
        assert channel.unary_unary("/grpc.health.v1.Health/Check")(b"", timeout=20) == b"\x08\x01"


def test_many_connections_at_once_are_served(collector: Collector) -> None:
    """Concurrent connections of many senders: each gets its own answer."""
    with ThreadPoolExecutor(16) as pool:
        data = [metrics(*[-1] * n).SerializeToString() for n in range(1, 33)]
        replies = list(
            pool.map(lambda one: call(collector, one, options=(("grpc.use_local_subchannel_pool", 1),)), data)
        )

    rejected = [
        ExportMetricsServiceResponse.FromString(reply.body).partial_success.rejected_data_points
        for reply in replies
    ]
    assert rejected == list(range(1, 33))
