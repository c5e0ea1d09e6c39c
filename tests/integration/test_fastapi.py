"""A real FastAPI service over real OTLP: the trace that a backend shows is the way that each request went."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import pytest
from integration.sink import Sink
from traces import of_otlp, tree

PROGRAM = Path(__file__).with_name("fastapi_process.py")


class Told(NamedTuple):
    """What the service answered, and what a backend received."""

    score: float
    prediction_id: str
    spans: list[Any]
    records: list[Any]

    def trace_of(self, root: str) -> list[Any]:
        """The spans of the request or of the call that begins with `root`."""
        [first] = [span for span in self.spans if span.name == root and not span.parent_span_id]
        return [span for span in self.spans if span.trace_id == first.trace_id]


@contextmanager
def service(sink: Sink) -> Iterator[httpx.Client]:
    """The service as a process of its own, with a client; it ends as an orchestrator would end it."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("OTEL_")}
    process = subprocess.Popen(
        [sys.executable, str(PROGRAM), "0"], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
        env={**clean, "OTEL_EXPORTER_OTLP_ENDPOINT": sink.http_endpoint, "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf",
             "OTEL_PYTHON_ML_RAISE": "1"},
    )  # fmt: skip
    assert process.stderr is not None
    said = []
    try:
        for line in process.stderr:
            said.append(line)
            if found := re.search(r"running on (http://\S+)", line):
                with httpx.Client(base_url=found[1], timeout=30) as client:
                    yield client
                break
    finally:
        process.terminate()
        said.append(process.communicate(timeout=30)[1])
    assert [line for line in "".join(said).splitlines() if not line.startswith("INFO: ")] == []


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> Told:
    """One request of each kind, the truth of the first one last."""
    with Sink(tmp_path_factory.mktemp("sink")) as sink:
        with service(sink) as client:
            answer = client.post("/sync/3").raise_for_status().json()
            client.post("/async/3").raise_for_status()
            client.post("/batch", json=[1, 2, 3]).raise_for_status()
            truth = {"prediction_id": answer["prediction_id"], "label": True}
            client.post("/truth", json=truth).raise_for_status()
        spans = [
            span for request in sink.traces() for resource in request.resource_spans
            for scope in resource.scope_spans for span in scope.spans
        ]  # fmt: skip
        records = [
            record for request in sink.logs() for resource in request.resource_logs
            for scope in resource.scope_logs for record in scope.log_records if scope.scope.name == "otel_ml"
        ]  # fmt: skip
    return Told(answer["score"], answer["prediction_id"], spans, records)


TREES = {
    "POST /sync/{customer}": """
POST /sync/{customer}
  predict churn
    lookup
    predict churn
    blend
      predict_proba risk
  BackgroundTask late
    predict late
    store""",
    "POST /async/{customer}": """
POST /async/{customer}
  predict rank
    fetch
    predict_proba risk""",
    "POST /batch": """
POST /batch
  predict_proba risk""",
    "decision_function risk": """
decision_function risk""",
    "POST /truth": """
POST /truth
  feedback churn""",
}


@pytest.mark.parametrize("root", TREES)
def test_trace_of_a_request(root: str, told: Told) -> None:
    """Every call is under what called it: in a worker thread, on the loop, in threads, and after the answer."""
    printed = tree(of_otlp(told.trace_of(root)))
    print(printed)
    assert f"\n{printed}" == TREES[root]


def test_nothing_else_was_traced(told: Told) -> None:
    """There are the traces above and no others: nothing has lost its parent."""
    traces = {span.trace_id for span in told.spans}
    assert len(traces) == len(TREES)
    assert Counter(span.name for span in told.spans if not span.parent_span_id) == Counter(TREES.keys())


def test_events_are_in_the_spans_of_their_calls(told: Told) -> None:
    """Each event leads to the span of its own call, also where that span was made after the call."""
    spans = {(span.trace_id, span.span_id): span for span in told.spans}
    found = {}
    for record in told.records:
        attributes = {one.key: one.value.string_value for one in record.attributes}
        span = spans[record.trace_id, record.span_id]
        found[record.event_name, attributes["ml.model.name"]] = span.name
        assert record.flags & 1 == 1
    assert found == {
        ("ml.prediction", "churn"): "predict churn",
        ("ml.prediction", "rank"): "predict rank",
        ("ml.prediction", "late"): "predict late",
        ("ml.feedback", "churn"): "feedback churn",
    }


def test_live_and_shadow_are_told_apart(told: Told) -> None:
    """Of the two spans of one name the outer is the live model's and has its score, the inner the shadow's."""
    both = [span for span in told.trace_of("POST /sync/{customer}") if span.name == "predict churn"]
    values = {span.span_id: {one.key: one.value for one in span.attributes} for span in both}
    roles = {key: found["ml.variant.role"].string_value for key, found in values.items()}
    [live] = [span for span in both if roles[span.span_id] == "live"]
    [shadow] = [span for span in both if roles[span.span_id] == "shadow"]
    assert shadow.parent_span_id == live.span_id
    assert values[live.span_id]["ml.prediction.score.value"].double_value == pytest.approx(told.score)
    assert "ml.prediction.uncertainty.value" in values[shadow.span_id]


def test_feedback_links_to_the_prediction(told: Told) -> None:
    """The id went out in an answer and came back in another request: its truth is linked to the live model's span."""
    [feedback] = [span for span in told.spans if span.name == "feedback churn"]
    [link] = feedback.links
    [linked] = [span for span in told.spans if span.span_id == link.span_id]
    assert linked.trace_id == link.trace_id
    assert linked in told.trace_of("POST /sync/{customer}")
    assert linked not in told.trace_of("POST /truth")
    [event] = [record for record in told.records if record.span_id == linked.span_id]
    ids = {one.key: one.value.string_value for one in event.attributes}
    assert ids["ml.prediction.id"] == told.prediction_id
    assert ids["ml.variant.role"] == "live"
