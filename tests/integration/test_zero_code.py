"""`opentelemetry-instrument python app.py`: an untouched script, and nothing but an endpoint in the environment."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from integration.sink import Sink

APP = Path(__file__).with_name("untouched_app.py")


def run(command: list[str], **environment: str) -> subprocess.CompletedProcess[str]:
    """Run `command` in an environment that sets nothing of OpenTelemetry but `environment`."""
    clean = {key: value for key, value in os.environ.items() if not key.startswith("OTEL_")}
    return subprocess.run(
        command, env={**clean, **environment}, capture_output=True, text=True, timeout=120, check=False
    )


def instrumented() -> list[str]:
    """The command of opentelemetry-instrumentation, as installed beside this interpreter."""
    return [str(Path(sys.executable).with_name("opentelemetry-instrument")), sys.executable, str(APP)]


def test_untouched_script_sends_spans_rows_and_features(tmp_path: Path) -> None:
    """With an endpoint only, every call makes a span and every row is counted; with a distro installed or not."""
    with Sink(tmp_path) as sink:
        done = run(instrumented(), OTEL_EXPORTER_OTLP_ENDPOINT=f"http://{sink.grpc_endpoint}")
        assert (done.returncode, done.stdout) == (0, ""), done.stderr
        metrics, traces = sink.metrics(), sink.traces()
    spans = [
        span for request in traces for resource in request.resource_spans for scope in resource.scope_spans
        for span in scope.spans if scope.scope.name == "otel_ml"
    ]  # fmt: skip
    assert [span.name for span in spans] == ["predict_proba LogisticRegression"] * 10
    version = {a.key: a.value.string_value for a in spans[0].attributes}["ml.model.version"]
    assert version.startswith("auto-")
    counted = {
        metric.name: [point.as_int for point in metric.sum.data_points]
        for request in metrics[-1:] for resource in request.resource_metrics for scope in resource.scope_metrics
        for metric in scope.metrics
    }  # fmt: skip
    assert counted["ml.inference.rows"] == [500]
    assert counted["ml.feature.observations"] == [500] * 4


def test_without_an_endpoint_nothing_is_set_up_and_nothing_said() -> None:
    """No OTEL_ variable at all: the script runs as it always did."""
    done = run(instrumented())
    assert done.returncode == 0, done.stderr
    assert done.stdout == ""


@pytest.mark.parametrize("protocol", ["grpc", "http/protobuf"])
def test_endpoint_that_refuses_does_not_touch_the_script(protocol: str) -> None:
    """Nobody listens: the script ends normally, and the exporter's own log says why nothing arrived."""
    done = run(
        instrumented(),
        OTEL_EXPORTER_OTLP_ENDPOINT="http://127.0.0.1:1",
        OTEL_EXPORTER_OTLP_PROTOCOL=protocol,
        OTEL_EXPORTER_OTLP_TIMEOUT="1",
    )
    assert (done.returncode, done.stdout) == (0, "")
    assert re.search("failed to export|while exporting|refused", done.stderr, re.IGNORECASE)
