"""The collector's telemetry about itself, under the OpenTelemetry Collector's names where it has them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from otel_ml import semconv

from .emit import Sample
from .exporter import OtlpExporter
from .intake import IntakeCounts


def of_receiver(name: str, counts: IntakeCounts) -> Iterator[Sample]:
    """Points by transport, and those left out by reason."""
    for metric, by_transport in (
        (semconv.RECEIVER_ACCEPTED, counts.accepted),
        (semconv.RECEIVER_REFUSED, counts.refused),
    ):
        for transport, points in by_transport.items():
            yield Sample(metric, {semconv.RECEIVER: name, semconv.TRANSPORT: transport}, points)
    for by_reason in (counts.rejected, counts.ignored):
        for reason, points in by_reason.items():
            labels = {semconv.RECEIVER: name, semconv.REASON: reason}
            yield Sample(semconv.RECEIVER_LEFT_OUT, labels, points)


def of_exporter(exporter: OtlpExporter) -> Iterator[Sample]:
    """Points by what became of them, and the state of the queue."""
    queue = exporter.queue
    values = {
        semconv.EXPORTER_SENT: queue.counts.sent,
        semconv.EXPORTER_SEND_FAILED: queue.counts.failed,
        semconv.EXPORTER_ENQUEUE_FAILED: queue.counts.refused,
        semconv.EXPORTER_QUEUE_SIZE: len(queue),
        semconv.EXPORTER_QUEUE_CAPACITY: queue.capacity,
    }
    for metric, value in values.items():
        yield Sample(metric, {semconv.EXPORTER: queue.name}, value)


def of_engine(
    counters: Mapping[str, int], stats: Mapping[str, int], failures: Mapping[str, int]
) -> Iterator[Sample]:
    """What the engine met and holds, and the failures around it by place."""
    for reason, count in counters.items():
        yield Sample(semconv.ENGINE_COUNTS, {semconv.REASON: reason}, count)
    for kind, size in stats.items():
        yield Sample(semconv.ENGINE_SIZE, {semconv.KIND: kind}, size)
    for place, count in failures.items():
        yield Sample(semconv.ERRORS, {semconv.REASON: place}, count)
