"""Events of a process of their own over real OTLP: what a backend that knows only the protocol receives."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from integration.sink import Sink
from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord, SeverityNumber

PROGRAM = Path(__file__).with_name("event_process.py")
WARNINGS = ["-W", "error", "-W", "ignore::ResourceWarning"]
"""All but that of the HTTP exporter, which leaves its socket to the interpreter's end."""


def records(sink: Sink) -> list[LogRecord]:
    """Every log record of our scope that the sink has, in order."""
    return [
        record for request in sink.logs() for resource in request.resource_logs for scope in resource.scope_logs
        for record in scope.log_records if scope.scope.name == "otel_ml"
    ]  # fmt: skip


def attributes(record: LogRecord) -> dict[str, tuple[str, Any]]:
    """Attributes by key, each with the name of its type in the protocol."""
    kinds = {one.key: one.value.WhichOneof("value") for one in record.attributes}
    return {one.key: (kinds[one.key], getattr(one.value, str(kinds[one.key]))) for one in record.attributes}


@pytest.mark.parametrize("protocol", ["grpc", "http/protobuf"])
def test_events_arrive_with_names_traces_and_types(protocol: str, tmp_path: Path) -> None:
    """Event name, no body, trace and span of the call, severity, and attributes of the protocol's own types."""
    clean = {key: value for key, value in os.environ.items() if not key.startswith("OTEL_")}
    with Sink(tmp_path) as sink:
        endpoint = f"http://{sink.grpc_endpoint}" if protocol == "grpc" else sink.http_endpoint
        done = subprocess.run(
            [sys.executable, *WARNINGS, str(PROGRAM)], capture_output=True, text=True, timeout=60, check=False,
            env={**clean, "OTEL_EXPORTER_OTLP_ENDPOINT": endpoint, "OTEL_EXPORTER_OTLP_PROTOCOL": protocol,
                 "OTEL_PYTHON_ML_RAISE": "1"},
        )  # fmt: skip
        assert (done.returncode, done.stderr) == (0, ""), done.stderr
        first, second, failed, truth = records(sink)
        traces, resources = sink.traces(), [one.resource_logs[0].resource for one in sink.logs()]
    trace_id, first_id, second_id = done.stdout.split()

    assert [one.event_name for one in (first, second, failed, truth)] == ["ml.prediction"] * 3 + [
        "ml.feedback"
    ]
    assert [one.body.WhichOneof("value") for one in (first, second, failed, truth)] == [None] * 4
    assert [one.trace_id.hex() for one in (first, second, failed)] == [trace_id] * 3
    assert (first.time_unix_nano, first.severity_number) == (
        10**18 + 5_000_000,
        SeverityNumber.SEVERITY_NUMBER_INFO,
    )
    assert first.observed_time_unix_nano > first.time_unix_nano
    assert failed.severity_number == SeverityNumber.SEVERITY_NUMBER_ERROR
    assert attributes(failed)["error.type"] == ("string_value", "ValueError")
    assert {(one.key, one.value.string_value) for one in resources[0].attributes} >= {
        ("service.name", "scoring")
    }

    said = attributes(first)
    randomness = said.pop("sampling.randomness")
    assert randomness[0] == "string_value"
    assert len(randomness[1]) == 14
    assert said == {
        "ml.feature.value.age": ("int_value", 47),
        "ml.feature.value.big": ("string_value", str(2**80)),
        "ml.feature.value.note": ("string_value", "ok"),
        "ml.feature.value.paid": ("bool_value", True),
        "ml.model.name": ("string_value", "churn"),
        "ml.model.version": ("string_value", "3"),
        "ml.operation.name": ("string_value", "predict"),
        "ml.prediction.id": ("string_value", first_id),
        "ml.prediction.label": ("string_value", "leave"),
        "ml.prediction.score.value": ("double_value", 0.75),
        "ml.prediction.score.type": ("string_value", "probability"),
        "ml.prediction.uncertainty.value": ("double_value", 0.5),
        "ml.prediction.uncertainty.type": ("string_value", "margin"),
        "ml.sampling.reason": ("string_value", "random"),
        "ml.sampling.probability": ("double_value", 1.0),
        "sampling.threshold": ("string_value", "0"),
    }
    assert attributes(second)["ml.prediction.id"] == ("string_value", second_id)
    assert attributes(second)["ml.feature.value.note"] == ("string_value", "a?b\x00")

    spans = {
        span.name: span for request in traces for resource in request.resource_spans for scope in resource.scope_spans
        for span in scope.spans
    }  # fmt: skip
    assert first.span_id == spans["request"].span_id
    assert truth.span_id == spans["feedback churn"].span_id
    [link] = spans["feedback churn"].links
    assert (link.trace_id, link.span_id) == (spans["request"].trace_id, spans["request"].span_id)
    assert attributes(truth) == {
        "ml.prediction.id": ("string_value", first_id),
        "ml.feedback.label": ("string_value", "true"),
        "ml.prediction.score.value": ("double_value", 0.75),
        "ml.model.name": ("string_value", "churn"),
        "ml.feedback.source": ("string_value", "human"),
    }
