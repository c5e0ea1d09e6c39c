"""Telemetry for people at a terminal: one line a prediction, and a short table at every collection."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import IO, Any

from opentelemetry.sdk.metrics.export import MetricExporter, MetricExportResult, MetricsData
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult

from . import semconv


class ConsoleSpans(SpanExporter):
    """Prints one line a span."""

    def __init__(self, out: IO[str] | None = None) -> None:
        self._out = out or sys.stdout

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        for span in spans:
            print(describe_span(span), file=self._out)
        self._out.flush()
        return SpanExportResult.SUCCESS


def describe_span(span: ReadableSpan) -> str:
    """`predict churn  version 3  1 row  0.21 ms  probability 0.93`."""
    attributes = span.attributes or {}
    milliseconds = ((span.end_time or 0) - (span.start_time or 0)) / 1e6
    parts = [span.name]
    if semconv.MODEL_VERSION in attributes:
        parts.append(f"version {attributes[semconv.MODEL_VERSION]!s}")
    if semconv.BATCH_SIZE in attributes:
        rows = attributes[semconv.BATCH_SIZE]
        parts.append(f"{rows!s} row{'' if rows == 1 else 's'}")
    parts += [f"{milliseconds:.2f} ms", *_score(attributes)]
    if semconv.ERROR_TYPE in attributes:
        parts.append(f"failed: {attributes[semconv.ERROR_TYPE]!s}")
    return "  ".join(parts)


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


class ConsoleMetrics(MetricExporter):
    """Prints one line a metric of otel-ml: how many series, how many observations."""

    def __init__(self, out: IO[str] | None = None) -> None:
        super().__init__()
        self._out = out or sys.stdout

    def export(
        self, metrics_data: MetricsData, timeout_millis: float = 10_000, **kwargs: Any
    ) -> MetricExportResult:
        for resource in metrics_data.resource_metrics:
            for scope in resource.scope_metrics:
                for metric in scope.metrics:
                    if metric.name.startswith("ml."):
                        print(describe_metric(metric), file=self._out)
        self._out.flush()
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
