"""How tests look at a trace: as the tree that its spans make."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from textwrap import dedent
from typing import Any, NamedTuple

from opentelemetry import trace
from opentelemetry.sdk._logs.export import InMemoryLogRecordExporter
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

import otel_ml
from otel_ml import pipeline, sampling


class Node(NamedTuple):
    """A span, whoever made or received it."""

    name: str
    id: int | bytes
    parent: int | bytes | None
    start: int


def tree(nodes: Iterable[Node]) -> str:
    """A line for each span: its name, indented under its parent's, in the order in which they started."""
    ordered = sorted(nodes, key=lambda node: node.start)
    known = {node.id for node in ordered}
    roots = [node for node in ordered if node.parent not in known]
    return "\n".join(line for root in roots for line in _lines(root, ordered, 0))


def _lines(node: Node, nodes: list[Node], depth: int) -> Iterator[str]:
    yield "  " * depth + node.name
    for child in nodes:
        if child.parent == node.id:
            yield from _lines(child, nodes, depth + 1)


def of_sdk(spans: Iterable[Any]) -> Iterator[Node]:
    """Spans that an SDK has ended."""
    for span in spans:
        yield Node(
            span.name, span.context.span_id, span.parent.span_id if span.parent else None, span.start_time
        )


def of_otlp(spans: Iterable[Any]) -> Iterator[Node]:
    """Spans that arrived over OTLP."""
    for span in spans:
        yield Node(span.name, span.span_id, span.parent_span_id or None, span.start_time_unix_nano)


Predict = Callable[[Any], Any]


def observed(mode: str, model: str = "churn", **options: Any) -> Callable[[Predict], Predict]:
    """Every row of the decorated function is an event."""
    return otel_ml.observe(model=model, version="3", spans=mode, sampler=sampling.Random(1.0), **options)  # type: ignore[arg-type]


def span(name: str) -> Any:
    """A span of the application."""
    tracer = trace.get_tracer("application", tracer_provider=pipeline.tracer_provider())
    return tracer.start_as_current_span(name)


class Seen:
    """What was made, as a reader of a trace would see it."""

    def __init__(self, spans: InMemorySpanExporter, logs: InMemoryLogRecordExporter) -> None:
        self._spans, self._logs = spans, logs

    @property
    def spans(self) -> dict[str, Any]:
        return {one.name: one for one in self._spans.get_finished_spans()}

    @property
    def tree(self) -> str:
        return tree(of_sdk(self._spans.get_finished_spans()))

    @property
    def records(self) -> list[Any]:
        return [one.log_record for one in self._logs.get_finished_logs()]

    @property
    def events(self) -> list[tuple[str, str | None]]:
        """Model of each event, and the span that it is in."""
        names = {
            (one.context.trace_id, one.context.span_id): one.name for one in self._spans.get_finished_spans()
        }
        return [
            (one.attributes["ml.model.name"], names.get((one.trace_id, one.span_id))) for one in self.records
        ]


def of_mode(mode: str, **expected: str) -> str:
    """The tree that is expected with this span mode."""
    return dedent(expected[mode]).strip()
