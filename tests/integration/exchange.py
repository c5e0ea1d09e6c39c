"""Exchanges with a collector in a process of its own, and the services that the conformance tests talk to."""

from __future__ import annotations

import http.client
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Any, NamedTuple

import grpc
from google.protobuf.message import Message
from google.rpc.status_pb2 import Status
from integration.collector import Collector
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

_MODELS = count()
"""A model for every request: points of one series that wait are bounded."""
PROTOBUF = {"Content-Type": "application/x-protobuf"}
JSON = {"Content-Type": "application/json"}
SERVICES = {
    "metrics": "opentelemetry.proto.collector.metrics.v1.MetricsService",
    "traces": "opentelemetry.proto.collector.trace.v1.TraceService",
    "logs": "opentelemetry.proto.collector.logs.v1.LogsService",
}

SINK_MODE = """
receivers:
  otlp:
    protocols:
      grpc: {endpoint: "127.0.0.1:0", max_recv_msg_size_mib: 1}
      http: {endpoint: "127.0.0.1:0", max_request_body_size: 1000000, read_timeout: 1s, idle_timeout: 1s}
processors: {ml_drift: {limits: {max_data_points_per_request: 1000}}}
exporters: {prometheus: {endpoint: "127.0.0.1:0"}}
service: {pipelines: {metrics: {receivers: [otlp], processors: [ml_drift], exporters: [prometheus]}}}
"""
"""Metrics only; small limits."""

PASS_THROUGH = """
receivers: {otlp: {protocols: {grpc: {endpoint: "127.0.0.1:0"}, http: {endpoint: "127.0.0.1:0"}}}}
processors: {ml_drift: {forward: true}}
exporters:
  otlp: {endpoint: "BACKEND", tls: {insecure: true}, sending_queue: {queue_size: 100}}
  prometheus: {endpoint: "127.0.0.1:0"}
service:
  pipelines:
    metrics: {receivers: [otlp], processors: [ml_drift], exporters: [otlp, prometheus]}
    traces: {receivers: [otlp], exporters: [otlp]}
    logs: {receivers: [otlp], exporters: [otlp]}
"""
"""Everything is passed on to one backend."""

FULL = """
receivers: {otlp: {protocols: {grpc: {endpoint: "127.0.0.1:0"}, http: {endpoint: "127.0.0.1:0"}}}}
processors: {ml_drift: {}, memory_limiter: {limit_mib: 2, spike_limit_mib: 1}}
exporters: {prometheus: {endpoint: "127.0.0.1:0"}}
service:
  pipelines: {metrics: {receivers: [otlp], processors: [memory_limiter, ml_drift], exporters: [prometheus]}}
"""
"""Always over its memory limit."""


@contextmanager
def service(directory: Path, config: str) -> Iterator[Collector]:
    """A running collector in a directory of its own."""
    directory.mkdir()
    with Collector(directory, config) as collector:
        yield collector


def eventually(true: Callable[[], object], timeout: float = 20) -> None:
    """Return once it is true."""
    deadline = time.monotonic() + timeout
    while not true():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.05)


# --- requests ---------------------------------------------------------------------------------------------


def metrics(*values: int, name: str = "ml.inference.rows") -> ExportMetricsServiceRequest:
    """A counter with a point for each value; a negative one is a point in error."""
    request = ExportMetricsServiceRequest()
    metric = request.resource_metrics.add().scope_metrics.add().metrics.add(name=name)
    metric.sum.aggregation_temporality, metric.sum.is_monotonic = 1, True  # type: ignore[assignment]
    now, model = time.time_ns(), f"churn-{next(_MODELS)}"
    for i, value in enumerate(values):
        at = now + 1000 * i
        point = metric.sum.data_points.add(start_time_unix_nano=at - 1000, time_unix_nano=at, as_int=value)
        point.attributes.add(key="ml.model.name").value.string_value = model
    return request


def traces(spans: int = 1) -> ExportTraceServiceRequest:
    request = ExportTraceServiceRequest()
    scope = request.resource_spans.add().scope_spans.add()
    for i in range(spans):
        scope.spans.add(trace_id=bytes(15) + b"\1", span_id=bytes(7) + bytes([i + 1]), name=f"predict {i}")
    return request


def logs(records: int = 1) -> ExportLogsServiceRequest:
    request = ExportLogsServiceRequest()
    scope = request.resource_logs.add().scope_logs.add()
    for i in range(records):
        scope.log_records.add(event_name="ml.prediction", time_unix_nano=i + 1)
    return request


def with_unknown_fields(request: Message) -> bytes:
    """The request with a field that no version of OTLP has yet, at the end and in a resource."""
    unknown = b"\xfa\x3f\x05hello"  # field 1023, five bytes
    data = request.SerializeToString()
    return data + unknown + b"\x0a" + bytes([len(unknown)]) + unknown


# --- over gRPC --------------------------------------------------------------------------------------------


class Reply(NamedTuple):
    """What a gRPC call ended with."""

    code: grpc.StatusCode
    message: str
    body: bytes
    trailers: dict[str, Any]

    def status(self) -> Status:
        return Status.FromString(self.trailers["grpc-status-details-bin"])


def call(
    collector: Collector,
    data: bytes,
    signal: str = "metrics",
    *,
    credentials: grpc.ChannelCredentials | None = None,
    options: tuple[tuple[str, Any], ...] = (),
    **more: Any,
) -> Reply:
    """The reply to one export, on a connection of its own."""
    target = f"127.0.0.1:{collector.ports['grpc']}"
    channel = (
        grpc.insecure_channel(target, options)
        if credentials is None
        else grpc.secure_channel(target, credentials, options)
    )
    with channel:
        export = channel.unary_unary(f"/{SERVICES[signal]}/Export")
        try:
            body, done = export.with_call(data, timeout=20, **more)
        except grpc.RpcError as error:
            return Reply(error.code(), error.details(), b"", dict(error.trailing_metadata() or ()))
        return Reply(grpc.StatusCode.OK, "", body, dict(done.trailing_metadata() or ()))


# --- over HTTP --------------------------------------------------------------------------------------------


class Answer(NamedTuple):
    """The answer to an HTTP request; header names in lower case."""

    status: int
    body: bytes
    headers: dict[str, str]

    @property
    def media_type(self) -> str:
        return self.headers["content-type"]


def post(
    collector: Collector,
    data: bytes | Iterator[bytes],
    headers: Mapping[str, str] = PROTOBUF,
    path: str = "/v1/metrics",
    *,
    method: str = "POST",
    connection: http.client.HTTPConnection | None = None,
) -> Answer:
    """The answer to one request, on a connection of its own unless one is given."""
    opened = connection or http.client.HTTPConnection("127.0.0.1", collector.ports["http"], timeout=20)
    try:
        opened.request(method, path, data, dict(headers))
        answer = opened.getresponse()
        names = {name.lower(): value for name, value in answer.getheaders()}
        return Answer(answer.status, answer.read(), names)
    finally:
        if connection is None:
            opened.close()
