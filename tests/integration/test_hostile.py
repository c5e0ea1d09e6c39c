"""Senders that mean harm: memory stays within its limit, and the others notice nothing.

All run against one service, one after the other, so that what one leaves behind would show in the next. A
hostile sender that opens connections does so from an address of its own.
"""

from __future__ import annotations

import gzip
import json
import re
import socket
import struct
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress

import grpc
import pytest
from integration.collector import DELTA, Collector, _add, traffic
from integration.exchange import JSON, PROTOBUF, call, eventually, metrics, post, service
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
    ExportMetricsServiceResponse,
)
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from prometheus_client.parser import text_string_to_metric_families

LIMIT_MIB = 400
HOSTILE = "127.0.0.66"
CONFIG = f"""
receivers:
  otlp:
    protocols:
      grpc: {{endpoint: "127.0.0.1:0"}}
      http: {{endpoint: "127.0.0.1:0", read_timeout: 2s, idle_timeout: 2s}}
processors:
  memory_limiter: {{limit_mib: {LIMIT_MIB}, spike_limit_mib: 100, check_interval: 100ms}}
  ml_drift:
    interval: 1s
    window: {{length: 1h, step: 1m, lateness: 500ms}}
    limits: {{max_streams: 20000, max_groups: 4000}}
exporters:
  debug: {{verbosity: detailed}}
  prometheus: {{endpoint: "127.0.0.1:0"}}
service:
  pipelines:
    metrics: {{receivers: [otlp], processors: [memory_limiter, ml_drift], exporters: [debug, prometheus]}}
"""


@pytest.fixture(scope="module")
def collector(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Collector]:
    with service(tmp_path_factory.mktemp("hostile") / "service", CONFIG) as running:
        yield running


@pytest.fixture(autouse=True)
def _within_memory(collector: Collector) -> Iterator[None]:
    """After every test: the most memory the process ever held, and senders that are served."""
    yield
    assert peak_mib(collector) < LIMIT_MIB
    others_are_served(collector)


def peak_mib(collector: Collector) -> float:
    assert collector.process is not None
    with open(f"/proc/{collector.process.pid}/status") as status:
        return next(int(line.split()[1]) / 1024 for line in status if line.startswith("VmHWM:"))


def others_are_served(collector: Collector) -> None:
    """An honest sender over each protocol gets a full success."""
    answer = post(collector, traffic().SerializeToString())
    assert (answer.status, answer.body) == (200, b"")
    reply = call(collector, traffic().SerializeToString())
    assert (reply.code, reply.body) == (grpc.StatusCode.OK, b"")


@contextmanager
def connections(collector: Collector, port: str, count: int) -> Iterator[list[socket.socket]]:
    """Open connections of the hostile sender."""
    with ExitStack() as stack:
        address = ("127.0.0.1", collector.ports[port])
        yield [
            stack.enter_context(socket.create_connection(address, 10, source_address=(HOSTILE, 0)))
            for _ in range(count)
        ]


def rest(opened: socket.socket) -> bytes:
    """What comes until the other side closes."""
    parts = []
    while part := _received(opened):
        parts.append(part)
    return b"".join(parts)


def _received(opened: socket.socket) -> bytes:
    try:
        return opened.recv(65536)
    except ConnectionError:
        return b""


# --- connections ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("port", ["http", "grpc"])
def test_idle_connections(collector: Collector, port: str) -> None:
    """Connections that say nothing take no place of a request; over HTTP they are closed in time."""
    with connections(collector, port, 200) as opened:
        others_are_served(collector)
        if port == "http":
            assert {rest(one) for one in opened} == {b""}


def test_slowloris(collector: Collector) -> None:
    """Bodies that trickle use up the share of one address, and end with the read timeout."""
    head = b"POST /v1/metrics HTTP/1.1\r\nHost: x\r\nContent-Type: application/x-protobuf\r\nContent-Length: 99\r\n\r\n"
    with connections(collector, "http", 200) as opened:
        for one in opened:
            one.sendall(head)
        others_are_served(collector)
        for one in opened[:20]:
            one.sendall(b"x")
        statuses = {rest(one)[9:12] for one in opened}

    assert statuses == {b"408", b"429"}


def test_slow_heads(collector: Collector) -> None:
    """Heads that trickle end with the idle timeout, however often a byte comes."""
    with connections(collector, "http", 50) as opened:
        for one in opened:
            one.sendall(b"POST /v1/metrics HTTP/1.1\r\nX: ")
        others_are_served(collector)
        assert {rest(one) for one in opened} == {b""}


def test_endless_heads(collector: Collector) -> None:
    """A head without an end is refused before it fills memory."""
    with connections(collector, "http", 1) as (one,):
        try:
            one.sendall(b"POST /v1/metrics HTTP/1.1\r\n" + b"X: y\r\n" * 1_000_000)
        except ConnectionError:
            return
        assert rest(one)[9:12] in (b"", b"400", b"431")


def frame(kind: int, payload: bytes, *, stream: int = 0, flags: int = 0) -> bytes:
    """One HTTP/2 frame."""
    return struct.pack(">I", len(payload))[1:] + bytes([kind, flags]) + struct.pack(">I", stream) + payload


@pytest.mark.parametrize("port", ["grpc", "http"])
def test_ping_flood(collector: Collector, port: str) -> None:
    """gRPC ends a connection that pings without need; over HTTP the pings cost their sender most."""
    with connections(collector, port, 1) as (one,):
        with suppress(ConnectionError):
            one.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + frame(4, b"") + frame(6, b"pingping") * 20_000)
        if port == "grpc":
            assert b"too_many_pings" in rest(one)
        else:
            others_are_served(collector)


def test_reset_flood(collector: Collector) -> None:
    """Streams that are opened and reset at once ("rapid reset") do not hold up others."""
    headers = b"\x83\x86\x44\x01x\x41\x01x"  # POST, http, path x, authority x
    frames = [
        frame(1, headers, stream=stream, flags=4) + frame(3, bytes(4), stream=stream)
        for stream in range(1, 20_000, 2)
    ]
    with connections(collector, "grpc", 1) as (one,):
        with suppress(ConnectionError):
            one.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + frame(4, b"") + b"".join(frames))
        others_are_served(collector)


# --- bodies -----------------------------------------------------------------------------------------------


def test_gzip_bomb(collector: Collector) -> None:
    """A gigabyte in a megabyte is refused at the limit, however it is packed."""
    squeeze = zlib.compressobj(1, zlib.DEFLATED, 31)
    bomb = b"".join(squeeze.compress(bytes(1 << 20)) for _ in range(1000)) + squeeze.flush()

    for media_type in ("application/x-protobuf", "application/json"):
        answer = post(collector, bomb, {"Content-Type": media_type, "Content-Encoding": "gzip"})
        assert answer.status == 413


def test_large_messages_at_once_over_grpc(collector: Collector) -> None:
    """Each waits until there is room for the largest message there may be; none is refused for good."""
    field = b"\xfa\x3f\x80\x80\x80\x07"  # field 1023 of 14 MiB, which is passed over
    data = field + bytes(14 << 20)
    with ThreadPoolExecutor(16) as pool:
        replies = list(pool.map(lambda _: call(collector, data), range(32)))

    codes = {reply.code for reply in replies}
    assert {grpc.StatusCode.OK} <= codes <= {grpc.StatusCode.OK, grpc.StatusCode.UNAVAILABLE}
    assert call(collector, bytes(17 << 20)).code is grpc.StatusCode.RESOURCE_EXHAUSTED


def test_gzip_bomb_over_grpc(collector: Collector) -> None:
    """The same over gRPC."""
    reply = call(collector, bytes(200 << 20), compression=grpc.Compression.Gzip)

    assert reply.code is grpc.StatusCode.RESOURCE_EXHAUSTED


def nested(*numbers_and_bodies: bytes) -> bytes:
    """A request with one metric whose data is the last body."""
    inner, *outer = reversed(numbers_and_bodies)
    for tag in outer:
        size, length = b"", len(inner)
        while length > 127:
            size, length = size + bytes([length & 127 | 128]), length >> 7
        inner = tag + size + bytes([length]) + inner
    return inner


@pytest.mark.parametrize("name", [b"", b"\x0a\x07ml.rows"])
def test_two_million_empty_points(collector: Collector, name: bytes) -> None:
    """Four megabytes that protobuf would make 230 of are counted, and refused, without building anything."""
    metric = name + nested(b"\x3a", b"\x0a\x00" * 2_000_000)
    answer = post(collector, nested(b"\x0a", b"\x12", b"\x12", metric))

    assert answer.status == 413


def test_two_million_empty_values_in_json(collector: Collector) -> None:
    """The same in JSON."""
    points = b"{}," * 2_000_000 + b"{}"
    body = b'{"resourceMetrics":[{"scopeMetrics":[{"metrics":[{"sum":{"dataPoints":[' + points + b"]}}]}]}]}"

    assert post(collector, body, JSON).status == 413


def test_deep_nesting(collector: Collector) -> None:
    """Values within values, in attributes and instead of messages, are refused or passed over."""
    value = b"\x0a\x01x"
    for _ in range(2000):
        value = nested(b"\x2a", b"\x0a", value)
    attribute = nested(b"\x0a", b"\x0a", b"\x0a\x01k" + nested(b"\x12", value))
    resource = post(collector, nested(b"\x0a", attribute))
    in_a_metric = nested(
        b"\x0a", attribute + nested(b"\x12", b"\x12", b"\x0a\x03ml." + nested(b"\x3a", b"\x0a\x00"))
    )

    assert resource.status in (200, 400)
    assert post(collector, in_a_metric).status in (200, 400)
    assert post(collector, b'{"resourceMetrics":' + b"[" * 900 + b"]" * 900 + b"}", JSON).status == 400


# --- points -----------------------------------------------------------------------------------------------


def bomb(first: int, count: int) -> bytes:
    """A counter with this many series, all new."""
    request = metrics(*[1] * count)
    points = request.resource_metrics[0].scope_metrics[0].metrics[0].sum.data_points
    for i, point in enumerate(points, first):
        point.attributes.add(key="ml.segment.user").value.string_value = f"user-{i}"
    return request.SerializeToString()


def test_cardinality_bomb(collector: Collector) -> None:
    """New series beyond the limit are refused as a partial success; series that are known go on."""
    others_are_served(collector)
    rejected = 0
    for first in range(0, 60_000, 10_000):
        answer = post(collector, bomb(first, 10_000))
        assert answer.status == 200
        partial = ExportMetricsServiceResponse.FromString(answer.body).partial_success
        rejected += partial.rejected_data_points

    assert rejected >= 40_000
    assert "limit" in partial.error_message


def test_a_billion_rows(collector: Collector) -> None:
    """Counts are numbers, not work: a histogram of a billion rows is one point."""
    answer = post(collector, traffic((10**9, 3 * 10**9, 10**9, 10**9)).SerializeToString())

    assert (answer.status, answer.body) == (200, b"")


NAMES = [
    "new\nline", "tab\tand\r", "nul\0", "\x1b[31mred\x1b[0m", "<script>alert(1)</script>", '"}', "\\", "a" * 5000,
    "{{ template }}", "‮right to left", "%s%n", "é" * 300, " ", "",
]  # fmt: skip


def test_hostile_names(collector: Collector) -> None:
    """Names with anything in them reach the page escaped and the console without control characters."""
    for name in NAMES:
        request = traffic()
        for metric in request.resource_metrics[0].scope_metrics[0].metrics:
            for attribute in metric.histogram.data_points[0].attributes:
                if attribute.key in ("ml.model.name", "ml.feature.name"):
                    attribute.value.string_value = name
        assert post(collector, request.SerializeToString()).status == 200

    page = collector.get("prometheus")
    assert len(list(text_string_to_metric_families(page))) > 0
    eventually(lambda: "churn" in (collector.directory / "collector.stdout").read_text())
    for stream in ("stdout", "stderr"):
        written = (collector.directory / f"collector.{stream}").read_text()
        assert not re.search("[\x00-\x09\x0b-\x1f\x7f\u202e]", written.replace("\t", " ")), stream


def test_huge_names(collector: Collector) -> None:
    """A name of a megabyte is a rejected point, in every place where a name can be."""
    huge = "x" * 1_000_000
    rejected = 0
    for place in ("metric", "resource", "attribute", "unknown"):
        request = ExportMetricsServiceRequest()
        resource = request.resource_metrics.add()
        metric = resource.scope_metrics.add().metrics.add(name="ml.feature.value")
        _add(metric, (1, 2, 3, 4), {"ml.model.name": "m", "ml.feature.name": "f"}, DELTA, (1, 2))
        if place == "metric":
            metric.name = f"ml.{huge}"
        elif place == "resource":
            resource.resource.attributes.add(key=huge).value.string_value = huge
        elif place == "attribute":
            metric.histogram.data_points[0].attributes.add(key="k").value.string_value = huge
        else:
            metric.description = huge
        answer = post(collector, request.SerializeToString())
        assert answer.status == 200
        partial = ExportMetricsServiceResponse.FromString(answer.body).partial_success
        rejected += partial.rejected_data_points

    assert rejected >= 3


def test_lone_surrogates(collector: Collector) -> None:
    """Text that is no Unicode is bad data in JSON and in protobuf."""
    in_json = b'{"resourceMetrics":[{"schemaUrl":"\\ud800"}]}'
    assert post(collector, in_json, JSON).status == 400

    name = nested(
        b"\x0a", b"\x12", b"\x12", b"\x0a\x06ml.\xed\xa0\x80" + nested(b"\x3a", b"\x0a\x00\x10\x01\x18\x01")
    )
    assert post(collector, name).status == 400


def test_wrong_signal(collector: Collector) -> None:
    """Spans sent to the path of metrics are bad data or nothing, never an internal error."""
    request = ExportTraceServiceRequest()
    request.resource_spans.add().scope_spans.add().spans.add(name="x", trace_id=bytes(16))

    assert post(collector, request.SerializeToString()).status in (200, 400)
    assert post(collector, json.dumps({"resourceSpans": []}).encode(), JSON).status == 200
    assert post(collector, gzip.compress(b"{}"), {**PROTOBUF, "Content-Encoding": "gzip"}).status == 400
