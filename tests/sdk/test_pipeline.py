"""Setting up: what `configure()` does with the environment, and that it never replaces what is there."""

from __future__ import annotations

import json
import subprocess
import sys
import textwrap

import pytest


def run(program: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run `program` in a fresh interpreter: providers can be set once a process."""
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", textwrap.dedent(program)],
        env={"PATH": "", **environment}, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip


DESCRIBE = """
import json, os
from opentelemetry import metrics, trace
def describe():
    meters, tracers = metrics.get_meter_provider(), trace.get_tracer_provider()
    readers = [type(getattr(r, "_exporter", r)).__module__ for r in meters._measurement_consumer._reader_storages]
    processors = [type(p.span_exporter).__module__ for p in tracers._active_span_processor._span_processors]
    print(json.dumps([readers, processors, tracers.resource.attributes["service.name"]]), flush=True)
    os._exit(0)
"""


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, ["otel_ml.console", "otel_ml.console", "api"]),
        ({"OTEL_SERVICE_NAME": "given"}, ["otel_ml.console", "otel_ml.console", "given"]),
        (
            {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1"},
            ["otlp.proto.grpc", "otlp.proto.grpc", "api"],
        ),
        (
            {
                "OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1",
                "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf",
            },
            ["otlp.proto.http", "otlp.proto.http", "api"],
        ),
        ({"OTEL_METRICS_EXPORTER": "otlp", "OTEL_TRACES_EXPORTER": "none"}, ["otlp.proto.grpc", None, "api"]),
        (
            {"OTEL_EXPORTER_OTLP_METRICS_ENDPOINT": "http://127.0.0.1:1", "OTEL_TRACES_EXPORTER": "console"},
            ["otlp.proto.grpc", "sdk.trace", "api"],
        ),
    ],
)
def test_exporters_follow_the_environment(environment, expected):
    """Console without any variable, OTLP with an endpoint, and whatever OTEL_*_EXPORTER names."""
    program = DESCRIBE + "import otel_ml; otel_ml.configure('api'); describe()"
    done = run(program, **environment)
    assert done.returncode == 0, done.stderr
    readers, processors, name = json.loads(done.stdout)
    metrics, traces, service = expected
    assert [metrics in reader for reader in readers] == [True]
    assert [traces in processor for processor in processors] == ([True] if traces else [])
    assert name == service


def test_providers_of_the_application_stay():
    """configure() leaves a provider that was set before, and says nothing."""
    done = run("""
        from opentelemetry import metrics, trace
        from opentelemetry.sdk.metrics import MeterProvider
        from opentelemetry.sdk.trace import TracerProvider
        import otel_ml
        meters, tracers = MeterProvider(), TracerProvider()
        metrics.set_meter_provider(meters); trace.set_tracer_provider(tracers)
        otel_ml.configure()
        print(metrics.get_meter_provider() is meters, trace.get_tracer_provider() is tracers)
    """)
    assert (done.stdout, done.stderr) == ("True True\n", "")


@pytest.mark.parametrize(
    ("environment", "message"),
    [
        (
            {"OTEL_METRICS_EXPORTER": "carrier-pigeon"},
            "the exporter 'carrier-pigeon' is not installed; installed are: ",
        ),
        (
            {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://x", "OTEL_EXPORTER_OTLP_PROTOCOL": "morse"},
            "OTEL_EXPORTER_OTLP_PROTOCOL='morse' is not one of grpc, http/protobuf",
        ),
    ],
)
def test_wrong_names_are_refused_with_the_right_ones(environment, message):
    """An exporter or protocol that does not exist is an error that names those that do."""
    done = run("import otel_ml; otel_ml.configure()", **environment)
    assert done.returncode == 1
    assert message in done.stderr.splitlines()[-1]


def test_console_shows_predictions_and_counts():
    """With nothing configured a prediction is a line, and the end of the process a table of counts."""
    done = run("""
        import otel_ml
        otel_ml.configure()
        @otel_ml.observe(model="churn", version="3")
        def predict(X): return 0.25
        predict([[1.0, 2.0]])
    """)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0].startswith("predict churn  version 3  1 row  ")
    assert lines[0].endswith("value 0.25")
    assert any(line.split() == ["ml.inference.rows", "1", "series", "1", "observations"] for line in lines)
    assert any(line.split() == ["ml.feature.value", "2", "series", "2", "observations"] for line in lines)
