"""The collector's telemetry about itself, under the OpenTelemetry Collector's names where it has them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from otel_ml import semconv

from .emit import Sample
from .exporter import OtlpExporter
from .receiver import Receiver


def of_receiver(name: str, receiver: Receiver) -> Iterator[Sample]:
    """Items by signal and transport, and data points left out by reason."""
    for signal, counts in receiver.counts_by_signal.items():
        for metric, by_transport in (
            (signal.accepted_count, counts.accepted),
            (signal.refused_count, counts.refused),
        ):
            for transport, items in by_transport.items():
                yield Sample(metric, {semconv.RECEIVER: name, semconv.TRANSPORT: transport}, items)
        for by_reason in (counts.rejected, counts.ignored):
            for reason, points in by_reason.items():
                labels = {semconv.RECEIVER: name, semconv.REASON: reason}
                yield Sample(semconv.RECEIVER_LEFT_OUT, labels, points)


def of_exporter(exporter: OtlpExporter) -> Iterator[Sample]:
    """Items by what became of them, and the state of the queues."""
    for signal, queue in exporter.queues.items():
        labels = {semconv.EXPORTER: exporter.name}
        yield Sample(signal.sent_count, labels, queue.counts.sent)
        yield Sample(signal.failed_count, labels, queue.counts.failed)
        yield Sample(signal.enqueue_failed_count, labels, queue.counts.refused)
        of_queue = {**labels, semconv.DATA_TYPE: signal.name}
        yield Sample(semconv.EXPORTER_QUEUE_SIZE, of_queue, len(queue))
        yield Sample(semconv.EXPORTER_QUEUE_CAPACITY, of_queue, queue.capacity)


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
