"""The collector's telemetry about itself, under the OpenTelemetry Collector's names where it has them."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator, Mapping

from otel_ml import semconv
from otel_ml._version import __version__
from otel_ml.errors import ConfigurationError

from .emit import Sample
from .exporter import OtlpExporter
from .limiter import resident_bytes
from .receiver import Receiver
from .recovery import FAILURES, Recovery
from .signals import METRICS
from .webhook import WebhookExporter

_BEGAN = time.monotonic() - time.process_time()
"""About when the process began: this is read while it starts."""


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
    for transport, refusals in receiver.refusals.items():
        for reason, requests in refusals.items():
            labels = {semconv.RECEIVER: name, semconv.TRANSPORT: transport, semconv.REASON: reason}
            yield Sample(semconv.RECEIVER_REFUSALS, labels, requests)


def of_exporter(exporter: OtlpExporter) -> Iterator[Sample]:
    """Items by what became of them, and the state of the queues."""
    for signal, queue in exporter.queues.items():
        labels = {semconv.EXPORTER: exporter.name}
        yield Sample(signal.sent_count, labels, queue.counts.sent)
        yield Sample(signal.failed_count, labels, queue.counts.failed)
        yield Sample(signal.enqueue_failed_count, labels, queue.counts.refused)
        of_queue = {**labels, semconv.DATA_TYPE: signal.name}
        yield Sample(semconv.EXPORTER_QUEUE_SIZE, of_queue, queue.used)
        yield Sample(semconv.EXPORTER_QUEUE_CAPACITY, of_queue, queue.capacity)
        if exporter.durable:
            yield Sample(semconv.EXPORTER_IN_MEMORY, of_queue, queue.counts.in_memory)


def of_processor(name: str, *, incoming: int, outgoing: int) -> Iterator[Sample]:
    """Points that came to ml_drift, and points of drift that it made."""
    labels = {semconv.PROCESSOR: name, semconv.OTEL_SIGNAL: METRICS.name}
    yield Sample(semconv.PROCESSOR_INCOMING, labels, incoming)
    yield Sample(semconv.PROCESSOR_OUTGOING, labels, outgoing)


def of_process() -> Iterator[Sample]:
    """Time, CPU, and, where the system tells (Linux), memory and open files."""
    yield Sample(semconv.PROCESS_UPTIME, {}, time.monotonic() - _BEGAN)
    yield Sample(semconv.PROCESS_CPU, {}, time.process_time())
    with contextlib.suppress(OSError, ConfigurationError):
        yield Sample(semconv.PROCESS_RSS, {}, resident_bytes())
        yield Sample(semconv.PROCESS_DESCRIPTORS, {}, len(os.listdir("/proc/self/fd")))


def of_collector(configured: int, *, reloaded: bool) -> Iterator[Sample]:
    """Its version, when its configuration was read (Unix ns), and whether the last reload brought it in."""
    yield Sample(semconv.COLLECTOR_INFO, {semconv.VERSION: __version__}, 1)
    yield Sample(semconv.CONFIG_RELOADED, {}, int(reloaded))
    yield Sample(semconv.CONFIG_RELOAD_TIME, {}, configured / 1e9)


def of_webhook(webhook: WebhookExporter) -> Iterator[Sample]:
    """Triggers by what became of them, and the state of the queue."""
    labels, queue = {semconv.EXPORTER: webhook.name}, webhook.queue
    yield Sample(semconv.EXPORTER_SENT_TRIGGERS, labels, queue.counts.sent)
    yield Sample(semconv.EXPORTER_SEND_FAILED_TRIGGERS, labels, queue.counts.failed)
    of_queue = {**labels, semconv.DATA_TYPE: semconv.TRIGGERS}
    yield Sample(semconv.EXPORTER_QUEUE_SIZE, of_queue, len(queue))
    yield Sample(semconv.EXPORTER_QUEUE_CAPACITY, of_queue, queue.capacity)


def of_recovery(recovery: Recovery, now: int) -> Iterator[Sample]:
    """The newest checkpoint at `now` (Unix ns), and what could not be written or read."""
    if recovery.saved:
        yield Sample(semconv.CHECKPOINT_AGE, {}, max(0.0, (now - recovery.saved) / 1e9))
        yield Sample(semconv.CHECKPOINT_SIZE, {}, recovery.size)
    for reason in FAILURES:
        yield Sample(semconv.ERRORS, {semconv.REASON: reason}, recovery.failures[reason])


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
