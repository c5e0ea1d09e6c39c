"""OTLP/HTTP by the letter of its specification, from a running service.

https://opentelemetry.io/docs/specs/otlp/#otlphttp
"""

from __future__ import annotations

import gzip
import http.client
import json
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from google.protobuf.json_format import MessageToDict
from google.protobuf.message import Message
from google.rpc.error_details_pb2 import RetryInfo
from google.rpc.status_pb2 import Status
from integration.collector import Collector
from integration.exchange import (
    FULL,
    JSON,
    PASS_THROUGH,
    PROTOBUF,
    SINK_MODE,
    eventually,
    logs,
    metrics,
    post,
    service,
    traces,
    with_unknown_fields,
)
from integration.sink import Sink
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceResponse

MEDIA_TYPES = pytest.mark.parametrize("media_type", ["application/x-protobuf", "application/json"])


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
    text = PASS_THROUGH.replace("otlp: {endpoint", "otlphttp: {endpoint").replace(
        ", tls: {insecure: true}", ""
    )
    text = text.replace("exporters: [otlp", "exporters: [otlphttp").replace("BACKEND", backend.http_endpoint)
    with service(tmp_path_factory.mktemp("pass") / "through", text) as running:
        yield running


@pytest.fixture(scope="module")
def full(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Collector]:
    with service(tmp_path_factory.mktemp("full") / "memory", FULL) as running:
        yield running


def as_json(*values: int) -> bytes:
    return json.dumps(MessageToDict(metrics(*values), use_integers_for_enums=True)).encode()


def encoded(media_type: str, *values: int) -> bytes:
    return as_json(*values) if media_type in JSON.values() else metrics(*values).SerializeToString()


# --- success ----------------------------------------------------------------------------------------------


@MEDIA_TYPES
def test_full_success(collector: Collector, media_type: str) -> None:
    """Full success: 200, the same media type as the request's, and partial_success unset."""
    answer = post(collector, encoded(media_type, 1, 2), {"Content-Type": media_type})

    empty = b"{}" if media_type in JSON.values() else b""
    assert (answer.status, answer.media_type, answer.body) == (200, media_type, empty)


@pytest.mark.parametrize(("headers", "data", "expected"), [(PROTOBUF, b"", b""), (JSON, b"{}", b"{}")])
def test_empty_request_is_a_success(
    collector: Collector, headers: dict[str, str], data: bytes, expected: bytes
) -> None:
    """An empty telemetry request: "the server SHOULD respond with success"."""
    answer = post(collector, data, headers)

    assert (answer.status, answer.body) == (200, expected)


def test_partial_success_in_protobuf(collector: Collector) -> None:
    """Partial success: 200, with the number of rejected points and the reason."""
    answer = post(collector, metrics(1, -2, 3).SerializeToString())

    partial = ExportMetricsServiceResponse.FromString(answer.body).partial_success
    assert answer.status == 200
    assert (partial.rejected_data_points, partial.error_message) == (
        1,
        "1 data points rejected: out_of_range 1",
    )


def test_partial_success_in_json(collector: Collector) -> None:
    """The same in JSON, where a 64-bit number is a string."""
    answer = post(collector, as_json(1, -2, -3), JSON)

    assert answer.status == 200
    assert json.loads(answer.body) == {
        "partialSuccess": {
            "rejectedDataPoints": "2",
            "errorMessage": "2 data points rejected: out_of_range 2",
        }
    }


@pytest.mark.parametrize(
    ("headers", "data"),
    [
        (PROTOBUF, with_unknown_fields(metrics(1))),
        (JSON, b'{"new": {"deep": [1, {}]}, "resourceMetrics": [{"newer": null, "scopeMetrics": []}]}'),
    ],
)
def test_unknown_fields_are_passed_over(collector: Collector, headers: dict[str, str], data: bytes) -> None:
    """ "…receivers MUST ignore message fields with unknown names", and protobuf's unknown fields likewise."""
    assert post(collector, data, headers).status == 200


@pytest.mark.parametrize("encoding", ["gzip", "deflate", "identity", "GZIP", ""])
@MEDIA_TYPES
def test_content_encodings(collector: Collector, encoding: str, media_type: str) -> None:
    """gzip MUST be supported; deflate and identity are; the name of an encoding has no case."""
    data = encoded(media_type, 1)
    packed = {"gzip": gzip.compress, "deflate": zlib.compress}.get(encoding.lower(), bytes)(data)
    answer = post(collector, packed, {"Content-Type": media_type, "Content-Encoding": encoding})

    assert answer.status == 200


@pytest.mark.parametrize("media_type", ["Application/X-Protobuf; a=b", "application/json; charset=utf-8"])
def test_media_types_have_no_case_and_may_have_parameters(collector: Collector, media_type: str) -> None:
    """RFC 9110: types have no case, and parameters follow a semicolon."""
    data = as_json(1) if "json" in media_type else metrics(1).SerializeToString()

    assert post(collector, data, {"Content-Type": media_type}).status == 200


def test_keep_alive_and_chunked_bodies(collector: Collector) -> None:
    """Clients keep connections, and may send a body without saying its length before."""
    connection = http.client.HTTPConnection("127.0.0.1", collector.ports["http"], timeout=20)
    data = metrics(1).SerializeToString()

    statuses = [
        post(collector, body, connection=connection).status
        for body in (data, iter([data[:5], data[5:]]), data)
    ]
    connection.close()

    assert statuses == [200, 200, 200]


@MEDIA_TYPES
def test_concurrent_connections_are_all_answered(collector: Collector, media_type: str) -> None:
    """Concurrent requests: each connection gets the answer to its own request."""
    bodies = [encoded(media_type, *[1] * n) for n in range(1, 41)]
    with ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(lambda data: post(collector, data, {"Content-Type": media_type}), bodies))

    assert {answer.status for answer in answers} == {200}


# --- failures that are final ------------------------------------------------------------------------------


@pytest.mark.parametrize("data", [b"no protobuf", b"\x0a\xff\x01", b"\x0a\x02\x0a\x05"])
def test_bad_protobuf_is_a_400_with_a_status(collector: Collector, data: bytes) -> None:
    """Bad data: 400, and "the response body MUST be … a Status message that describes the bad data"."""
    answer = post(collector, data)

    assert (answer.status, answer.media_type) == (400, "application/x-protobuf")
    assert Status.FromString(answer.body).code == 3
    assert Status.FromString(answer.body).message
    assert "retry-after" not in answer.headers


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"", "not valid JSON"),
        (b"{", "not valid JSON"),
        (b"\xff\xfe", "not valid JSON"),
        (b"[]", "must be a JSON object"),
        (b'{"resourceMetrics": {}}', "must be a JSON array"),
        (b'{"resourceMetrics": [1]}', "must be a JSON object"),
        (b'{"resourceMetrics": [{"schemaUrl": 5}]}', "ResourceMetrics.schemaUrl cannot be 5"),
        (b'{"resourceMetrics": [{"schemaUrl": "\\ud800"}]}', "not valid JSON"),
        (b"[" * 100_000, ""),
    ],
)
def test_bad_json_is_a_400_with_a_status_in_json(collector: Collector, data: bytes, why: str) -> None:
    """Bad data: 400, the Status in the request's own encoding, and a message that says what is wrong."""
    answer = post(collector, data, JSON)

    status = json.loads(answer.body)
    assert (answer.status in (400, 413), answer.media_type) == (True, "application/json")
    assert status["code"] in (3, 8)
    assert why in status["message"]


@MEDIA_TYPES
def test_bodies_that_are_too_large(collector: Collector, media_type: str) -> None:
    """Too large, before or after decompression: 413 with a Status, and no Retry-After."""
    zeros = b" " * 1_500_000
    headers = {"Content-Type": media_type}
    answers = [
        post(collector, zeros, headers),
        post(collector, gzip.compress(zeros), {**headers, "Content-Encoding": "gzip"}),
        post(collector, zlib.compress(zeros), {**headers, "Content-Encoding": "deflate"}),
        post(collector, encoded(media_type, *[1] * 1001), headers),
    ]

    assert [answer.status for answer in answers] == [413] * 4
    assert {answer.media_type for answer in answers} == {media_type}
    assert all("retry-after" not in answer.headers for answer in answers)


@pytest.mark.parametrize("tail", [b"", b"\0" * 8, b"more"])
def test_broken_compression_is_bad_data(collector: Collector, tail: bytes) -> None:
    """A body that is cut off, not compressed at all, or followed by something else is a 400."""
    packed = gzip.compress(metrics(1).SerializeToString())
    data = packed + tail if tail else packed[:-6]

    assert post(collector, data, {**PROTOBUF, "Content-Encoding": "gzip"}).status == 400
    assert post(collector, b"plain", {**PROTOBUF, "Content-Encoding": "gzip"}).status == 400


def test_gzip_in_several_members(collector: Collector) -> None:
    """RFC 1952: members may follow one another; a body of nothing but members is refused."""
    data, headers = metrics(1).SerializeToString(), {**PROTOBUF, "Content-Encoding": "gzip"}
    parts = gzip.compress(data[:20]) + gzip.compress(b"") + gzip.compress(data[20:])

    assert post(collector, parts, headers).status == 200
    assert post(collector, gzip.compress(b"") * 1000, headers).status == 400


@pytest.mark.parametrize("encoding", ["zstd", "br", "gzip, gzip"])
def test_unsupported_encodings_name_the_supported_ones(collector: Collector, encoding: str) -> None:
    """RFC 9110: a content coding that is not supported is a 415."""
    answer = post(collector, b"", {**PROTOBUF, "Content-Encoding": encoding})

    assert answer.status == 415
    assert answer.body.endswith(b"supported: identity, gzip, deflate\n")


@pytest.mark.parametrize("media_type", ["text/plain", "application/grpc", "application/protobuf", ""])
def test_unsupported_media_types_name_the_supported_ones(collector: Collector, media_type: str) -> None:
    """Only application/x-protobuf and application/json are OTLP/HTTP; anything else is a 415."""
    answer = post(collector, b"", {"Content-Type": media_type})

    assert answer.status == 415
    assert answer.body.endswith(b"supported: application/x-protobuf, application/json\n")


@pytest.mark.parametrize(
    ("status", "path", "method"),
    [
        (404, "/v1/traces", "POST"),
        (404, "/v1/logs", "POST"),
        (404, "/v1/metrics/", "POST"),
        (404, "/", "POST"),
        (405, "/v1/metrics", "GET"),
    ],
)
def test_paths_and_methods(collector: Collector, status: int, path: str, method: str) -> None:
    """POST to the default path of a signal that has a pipeline; nothing else is there."""
    assert post(collector, b"", PROTOBUF, path, method=method).status == status


# --- throttling -------------------------------------------------------------------------------------------


def test_overload_is_a_503_with_retry_after(full: Collector) -> None:
    """Throttling: 503 with Retry-After, and RetryInfo in the Status."""
    answer = post(full, metrics(1).SerializeToString())

    status, info = Status.FromString(answer.body), RetryInfo()
    assert (answer.status, answer.headers["retry-after"], status.code) == (503, "5", 14)
    assert status.details[0].Unpack(info)
    assert info.retry_delay.seconds == 5


def test_overload_in_json(full: Collector) -> None:
    """The same in JSON."""
    answer = post(full, b"{}", JSON)

    status = json.loads(answer.body)
    assert (answer.status, answer.headers["retry-after"]) == (503, "5")
    assert status["message"].startswith("memory_limiter: ")
    assert (status["code"], status["details"]) == (
        14,
        [{"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "5s"}],
    )


# --- traces and logs --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("signal", "request_"), [("traces", traces(3)), ("logs", logs(2)), ("metrics", metrics(4, -1))]
)
def test_what_is_passed_on_is_the_same_bytes(
    passing: Collector, backend: Sink, signal: str, request_: Message
) -> None:
    """The backend gets the bytes that were sent, decompressed, whatever drift thinks of them."""
    data = with_unknown_fields(request_)
    headers = {**PROTOBUF, "Content-Encoding": "gzip"}

    answer = post(passing, gzip.compress(data), headers, f"/v1/{signal}")

    assert (answer.status, answer.body) == (200, b"")
    eventually(lambda: data in [file.read_bytes() for file in backend.files(signal)])


@pytest.mark.parametrize(("signal", "name"), [("traces", "trace"), ("logs", "log")])
def test_json_is_passed_on_as_protobuf(passing: Collector, backend: Sink, signal: str, name: str) -> None:
    """The specification's own examples of OTLP/JSON arrive at the backend, with ids in hexadecimal."""
    example = Path(__file__).with_name("otlp_json") / f"{name}.json"

    answer = post(passing, example.read_bytes(), JSON, f"/v1/{signal}")

    assert (answer.status, answer.body) == (200, b"{}")
    trace_id = bytes.fromhex("5B8EFFF798038103D269B633813FC60C")
    eventually(lambda: any(trace_id in file.read_bytes() for file in backend.files(signal)))


def test_items_are_counted_by_signal(passing: Collector) -> None:
    """Own metrics tell spans and log records under the Collector's names."""
    post(passing, traces(5).SerializeToString(), PROTOBUF, "/v1/traces")
    names = ("otelcol_receiver_accepted_spans_total", "otelcol_exporter_sent_spans_total")

    eventually(lambda: all(name in passing.get("prometheus") for name in names))
