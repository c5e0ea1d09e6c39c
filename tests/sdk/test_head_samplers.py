"""Head samplers of the application decide on our spans as on all others, and see what the model answered."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from instrumented import X as ROWS
from instrumented import fitted
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import (
    ALWAYS_OFF,
    ALWAYS_ON,
    Decision,
    ParentBased,
    Sampler,
    SamplingResult,
    TraceIdRatioBased,
)
from traces import Seen, observed, span

import otel_ml
from otel_ml import ids, pipeline, sampling, semconv

X = np.array([[0.25, 0.5]])


def sample_by(spans: InMemorySpanExporter, sampler: Sampler) -> None:
    """Use `sampler` for everything that is exported to `spans`."""
    provider = TracerProvider(sampler=sampler)
    provider.add_span_processor(SimpleSpanProcessor(spans))
    pipeline.use(tracer_provider=provider)


class KeepUncertain(Sampler):
    """Keeps predictions that are nearly undecided; as an application would write it."""

    def __init__(self) -> None:
        self.seen: list[dict[str, Any]] = []

    def should_sample(
        self, parent_context: Any, trace_id: int, name: str, kind: Any = None, attributes: Any = None, *_: Any
    ) -> SamplingResult:
        self.seen.append(dict(attributes))
        keep = attributes.get("ml.prediction.uncertainty.value", 1.0) > 0.8
        return SamplingResult(Decision.RECORD_AND_SAMPLE if keep else Decision.DROP, attributes)

    def get_description(self) -> str:
        return "KeepUncertain"


def test_head_sampler_sees_score_label_and_uncertainty(seen: Seen, spans: InMemorySpanExporter) -> None:
    """With spans="sampled" a head sampler decides by what the model answered; the events are not its business."""
    sampler = KeepUncertain()
    sample_by(spans, sampler)

    @observed("sampled")
    def predict(rows: Any) -> Any:
        return np.column_stack([1 - rows[:, 0], rows[:, 0]])

    for p in (0.125, 0.5625, 0.9375):
        predict(np.array([[p]]))
    what = ("ml.prediction.score.value", "ml.prediction.label", "ml.prediction.uncertainty.value")
    assert [tuple(given[name] for name in what) for given in sampler.seen] == [
        (0.125, "0", 0.25), (0.5625, "1", 0.875), (0.9375, "1", 0.125),
    ]  # fmt: skip
    assert all(given["ml.sampling.reason"] == "random" for given in sampler.seen)
    assert [one.attributes["ml.prediction.score.value"] for one in spans.get_finished_spans()] == [0.5625]
    assert [(one.attributes["ml.prediction.score.value"], one.trace_flags & 1) for one in seen.records] == [
        (0.125, 0), (0.5625, 1), (0.9375, 0),
    ]  # fmt: skip


def test_head_sampler_of_a_registered_classifier(instrumented: Any, spans: InMemorySpanExporter) -> None:
    """What scikit-learn answers is seen by a head sampler, too, with no sampler of ours."""
    sampler = KeepUncertain()
    sample_by(spans, sampler)
    otel_ml.uninstrument()
    otel_ml.instrument()
    model = fitted()
    p = model.predict_proba(ROWS)
    for row in ROWS[:20]:
        model.predict_proba([row])
    uncertain = 1 - np.abs(p[:20, 1] - p[:20, 0])
    given = [one["ml.prediction.uncertainty.value"] for one in sampler.seen[1:]]
    assert given == pytest.approx(uncertain.tolist())
    assert 0 < np.count_nonzero(uncertain > 0.8) < 20
    assert len(spans.get_finished_spans()) == 1 + np.count_nonzero(uncertain > 0.8)


def test_head_sampler_before_the_call_sees_whose_call_it_is(spans: InMemorySpanExporter) -> None:
    """With spans="all" the span starts before there is an answer: a head sampler sees the model and no more."""
    sampler = KeepUncertain()
    sample_by(spans, sampler)
    observed("all")(lambda rows: np.array([[0.25, 0.75]]))(X)
    assert sampler.seen == [
        {"ml.model.name": "churn", "ml.model.version": "3", "ml.operation.name": "predict"}
    ]
    [made] = spans.get_finished_spans()
    assert made.attributes["ml.prediction.uncertainty.value"] == 0.5


@pytest.mark.parametrize("mode", ["all", "sampled"])
@pytest.mark.parametrize("measure", ["least_confidence", "margin", "entropy"])
def test_uncertainty_of_a_span_is_that_of_its_event(mode: str, measure: str, seen: Seen) -> None:
    """One measure in both, that of the sampler; a batch has none, for it has many."""

    @otel_ml.observe(model="churn", version="3", spans=mode, sampler=sampling.Uncertainty(measure, rate=0.5))  # type: ignore[arg-type]
    def predict(rows: Any) -> Any:
        return rows

    with sampling.using(sampling.Random(1.0)):
        predict(np.array([[0.25, 0.125, 0.625]]))
        predict(np.array([[0.25, 0.125, 0.625], [0.5, 0.25, 0.25]]))
    one, batch = (made.attributes for made in seen._spans.get_finished_spans())
    event = seen.records[0].attributes
    assert one["ml.prediction.uncertainty.type"] == event["ml.prediction.uncertainty.type"] == measure
    told = one["ml.prediction.uncertainty.value"], event["ml.prediction.uncertainty.value"]
    assert told[0] == pytest.approx(told[1])
    assert "ml.prediction.uncertainty.value" not in batch
    assert {*one, *batch} <= {*semconv.SPAN_ATTRIBUTES}


@pytest.mark.parametrize("mode", ["all", "sampled"])
@pytest.mark.parametrize("sampler", [ALWAYS_OFF, TraceIdRatioBased(0), ParentBased(ALWAYS_OFF)])
def test_events_of_a_trace_that_is_sampled_out(
    mode: str, sampler: Sampler, seen: Seen, spans: InMemorySpanExporter
) -> None:
    """A head sampler decides on spans: events go out as before, with the trace they would be in, marked not sampled."""
    sample_by(spans, sampler)
    contexts = []

    @observed(mode)
    def predict(rows: Any) -> Any:
        contexts.append(trace.get_current_span().get_span_context())
        return rows[:, 0]

    with span("request") as request:
        predict(X)
    assert seen.tree == ""
    [record] = seen.records
    assert record.trace_flags & 1 == 0
    assert record.trace_id == request.get_span_context().trace_id
    made = ids.parse(record.attributes["ml.prediction.id"])
    assert (made.trace_id, made.span_id) == (record.trace_id, record.span_id)
    assert (record.span_id == contexts[0].span_id) == (mode == "all")


@pytest.mark.parametrize("mode", ["all", "sampled"])
def test_parent_decides(mode: str, seen: Seen, spans: InMemorySpanExporter) -> None:
    """Under a parent-based sampler the span of a call shares the fate of the request that it is part of."""

    class Every2nd(Sampler):
        asked = 0

        def should_sample(self, *args: Any, **kwargs: Any) -> SamplingResult:
            self.asked += 1
            return (ALWAYS_ON if self.asked % 2 else ALWAYS_OFF).should_sample(*args, **kwargs)

        def get_description(self) -> str:
            return "Every2nd"

    sample_by(spans, ParentBased(Every2nd()))
    predict = observed(mode)(lambda rows: rows[:, 0])
    for i in range(4):
        with span(f"request {i}"):
            predict(X)
    assert seen.tree == "request 0\n  predict churn\nrequest 2\n  predict churn"
    assert [one.trace_flags & 1 for one in seen.records] == [1, 0, 1, 0]


def test_ratio_of_traces(spans: InMemorySpanExporter, seen: Seen) -> None:
    """A sampler by trace id keeps the spans of exactly the traces that it keeps."""
    sample_by(spans, TraceIdRatioBased(0.5))
    predict = observed("sampled")(lambda rows: rows[:, 0])
    for _ in range(64):
        predict(X)
    bound = TraceIdRatioBased.get_bound_for_rate(0.5)
    expected = [
        one.trace_id for one in seen.records if one.trace_id & TraceIdRatioBased.TRACE_ID_LIMIT < bound
    ]
    assert [one.context.trace_id for one in spans.get_finished_spans()] == expected
    assert 0 < len(expected) < 64
