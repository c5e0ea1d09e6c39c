"""Telemetry for people at a terminal: one line a prediction, and a short table at every collection."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from typing import IO, Any

from opentelemetry.sdk._logs import ReadableLogRecord
from opentelemetry.sdk._logs.export import LogRecordExporter, LogRecordExportResult
from opentelemetry.sdk.metrics.export import MetricExporter, MetricExportResult, MetricsData
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult

from . import semconv


def _print(lines: Iterable[str], out: IO[str]) -> None:
    """Print `lines`; nothing where `out` is closed, as what pytest captures into is at the end of the process."""
    if not out.closed:
        for line in lines:
            print(line, file=out)
        out.flush()


class ConsoleSpans(SpanExporter):
    """Prints one line a span."""

    def __init__(self, out: IO[str] | None = None) -> None:
        self._out = out or sys.stdout

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        _print(map(describe_span, spans), self._out)
        return SpanExportResult.SUCCESS


def describe_span(span: ReadableSpan) -> str:
    """`predict churn  version 3  1 row  0.21 ms  probability 0.93`."""
    attributes = span.attributes or {}
    milliseconds = ((span.end_time or 0) - (span.start_time or 0)) / 1e6
    parts = [span.name]
    if semconv.MODEL_VERSION in attributes:
        parts.append(f"version {attributes[semconv.MODEL_VERSION]!s}")
    parts += _variant(attributes)
    if semconv.BATCH_SIZE in attributes:
        rows = attributes[semconv.BATCH_SIZE]
        parts.append(f"{rows!s} row{'' if rows == 1 else 's'}")
    parts += [f"{milliseconds:.2f} ms", *_score(attributes)]
    if semconv.ERROR_TYPE in attributes:
        parts.append(f"failed: {attributes[semconv.ERROR_TYPE]!s}")
    return "  ".join(parts)


def _variant(attributes: Any) -> list[str]:
    told = [attributes[key] for key in (semconv.VARIANT_NAME, semconv.VARIANT_ROLE) if key in attributes]
    return [" ".join(told)] if told else []


def _score(attributes: Any) -> list[str]:
    kind = attributes.get(semconv.SCORE_TYPE, "score")
    shown = []
    if semconv.PREDICTION_SCORE in attributes:
        shown.append(f"{kind} {attributes[semconv.PREDICTION_SCORE]:.4g}")
    elif semconv.PREDICTION_SCORE_MEAN in attributes:
        low, mean, high = (
            attributes[key]
            for key in (
                semconv.PREDICTION_SCORE_MIN,
                semconv.PREDICTION_SCORE_MEAN,
                semconv.PREDICTION_SCORE_MAX,
            )
        )
        shown.append(f"{kind} {low:.4g} to {high:.4g}, mean {mean:.4g}")
    if semconv.PREDICTION_LABEL in attributes:
        shown.append(f"label {attributes[semconv.PREDICTION_LABEL]}")
    return shown


class ConsoleEvents(LogRecordExporter):
    """Prints one line an event."""

    def __init__(self, out: IO[str] | None = None) -> None:
        self._out = out or sys.stdout

    def export(self, batch: Sequence[ReadableLogRecord]) -> LogRecordExportResult:
        _print(map(describe_event, batch), self._out)
        return LogRecordExportResult.SUCCESS

    def force_flush(self, timeout_millis: int = 10_000) -> bool:
        return True

    def shutdown(self) -> None:
        """Nothing is held back."""


def describe_event(record: ReadableLogRecord) -> str:
    """`ml.prediction churn  version 3  probability 0.93  region=eu  age=42  kept at 2 % (random)  id 3f…-0`."""
    attributes: Any = record.log_record.attributes or {}
    parts = [f"{record.log_record.event_name} {attributes.get(semconv.MODEL_NAME, '')}".rstrip()]
    parts += _named(attributes, {semconv.MODEL_VERSION: "version"})
    parts += _variant(attributes)
    parts += _score(attributes)
    parts += _named(attributes, _TRUTH)
    parts += [f"segment {told}" for told in _under(semconv.SEGMENT_PREFIX, attributes)]
    parts += _under(f"{semconv.FEATURE_VALUE.name}.", attributes)
    if semconv.SAMPLING_PROBABILITY in attributes:
        percent = attributes[semconv.SAMPLING_PROBABILITY] * 100
        parts.append(f"kept at {percent:.4g} % ({attributes[semconv.SAMPLING_REASON]})")
    parts += _named(attributes, {semconv.PREDICTION_ID: "id"})
    return "  ".join(parts)


_TRUTH = {
    semconv.ERROR_TYPE: "failed:",
    semconv.FEEDBACK_LABEL: "truth",
    semconv.FEEDBACK_VALUE: "truth",
    semconv.FEEDBACK_SOURCE: "from",
}


def _named(attributes: Any, names: dict[str, str]) -> list[str]:
    return [f"{word} {attributes[name]!s}" for name, word in names.items() if name in attributes]


def _under(prefix: str, attributes: Any) -> list[str]:
    """Attributes of a family, by what stands behind its prefix."""
    found = {name: value for name, value in attributes.items() if name.startswith(prefix)}
    return [f"{name.removeprefix(prefix)}={value!s}" for name, value in found.items()]


class ConsoleMetrics(MetricExporter):
    """Prints one line a metric of otel-ml: how many series, how many observations."""

    def __init__(self, out: IO[str] | None = None) -> None:
        super().__init__()
        self._out = out or sys.stdout

    def export(
        self, metrics_data: MetricsData, timeout_millis: float = 10_000, **kwargs: Any
    ) -> MetricExportResult:
        told = (
            describe_metric(metric)
            for resource in metrics_data.resource_metrics
            for scope in resource.scope_metrics
            for metric in scope.metrics
            if metric.name.startswith("ml.")
        )
        _print(told, self._out)
        return MetricExportResult.SUCCESS

    def force_flush(self, timeout_millis: float = 10_000) -> bool:
        return True

    def shutdown(self, timeout_millis: float = 30_000, **kwargs: Any) -> None:
        """Nothing is held back."""


def describe_metric(metric: Any) -> str:
    """`ml.feature.value  10 series  12,340 observations`."""
    points = metric.data.data_points
    total = sum(getattr(point, "count", getattr(point, "value", 0)) for point in points)
    return f"{metric.name:<26} {len(points):>5} series  {total:>12,} observations"


EXPORTERS: dict[str, type[Any]] = {
    "opentelemetry_traces_exporter": ConsoleSpans,
    "opentelemetry_logs_exporter": ConsoleEvents,
    "opentelemetry_metrics_exporter": ConsoleMetrics,
}
"""By the group of entry points that the exporters of other packages stand in."""
