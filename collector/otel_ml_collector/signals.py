"""The kinds of telemetry OTLP carries, and what each is called on its way through the service."""

from __future__ import annotations

from dataclasses import dataclass

from google.protobuf.message import Message
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from otel_ml import semconv
from otel_ml.semconv import Metric


@dataclass(frozen=True, slots=True)
class Signal:
    """One kind of telemetry."""

    name: str
    """Of its pipelines in a configuration."""
    service: str
    """gRPC service; its method is Export."""
    path: str
    """Of HTTP requests."""
    request: type[Message]
    items: str
    """What a request is a batch of."""
    rejected: str
    """Field of a partial success, as JSON writes it."""
    accepted_count: Metric
    refused_count: Metric
    sent_count: Metric
    failed_count: Metric
    enqueue_failed_count: Metric

    @property
    def method(self) -> str:
        """The path of the gRPC method."""
        return f"/{self.service}/Export"


_SERVICES = "opentelemetry.proto.collector"

METRICS = Signal(
    "metrics", f"{_SERVICES}.metrics.v1.MetricsService", "/v1/metrics",
    ExportMetricsServiceRequest, "data points", "rejectedDataPoints",
    semconv.RECEIVER_ACCEPTED, semconv.RECEIVER_REFUSED,
    semconv.EXPORTER_SENT, semconv.EXPORTER_SEND_FAILED, semconv.EXPORTER_ENQUEUE_FAILED,
)  # fmt: skip
TRACES = Signal(
    "traces", f"{_SERVICES}.trace.v1.TraceService", "/v1/traces",
    ExportTraceServiceRequest, "spans", "rejectedSpans",
    semconv.RECEIVER_ACCEPTED_SPANS, semconv.RECEIVER_REFUSED_SPANS,
    semconv.EXPORTER_SENT_SPANS, semconv.EXPORTER_SEND_FAILED_SPANS, semconv.EXPORTER_ENQUEUE_FAILED_SPANS,
)  # fmt: skip
LOGS = Signal(
    "logs", f"{_SERVICES}.logs.v1.LogsService", "/v1/logs",
    ExportLogsServiceRequest, "log records", "rejectedLogRecords",
    semconv.RECEIVER_ACCEPTED_LOGS, semconv.RECEIVER_REFUSED_LOGS,
    semconv.EXPORTER_SENT_LOGS, semconv.EXPORTER_SEND_FAILED_LOGS, semconv.EXPORTER_ENQUEUE_FAILED_LOGS,
)  # fmt: skip
SIGNALS = {signal.name: signal for signal in (METRICS, TRACES, LOGS)}
"""By name."""
