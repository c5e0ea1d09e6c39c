"""Setting up: what `configure()` does with the environment, and that it never replaces what is there."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import textwrap

import pytest
from opentelemetry.sdk._logs import LoggerProvider

import otel_ml
from otel_ml import config, pipeline


def run(program: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run `program` in a fresh interpreter: providers can be set once a process."""
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", textwrap.dedent(program)],
        env={"PATH": "", **environment}, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip


DESCRIBE = """
import json, os
from opentelemetry import _logs, metrics, trace
def describe():
    meters, tracers = metrics.get_meter_provider(), trace.get_tracer_provider()
    readers = [getattr(r, "_exporter", r).__class__.__module__ for r in meters._measurement_consumer._reader_storages]
    processors = [p.span_exporter.__class__.__module__ for p in tracers._active_span_processor._span_processors]
    logs = _logs.get_logger_provider()
    emitters = logs._multi_log_record_processor._log_record_processors
    exporters = [getattr(p, "_exporter", None) or p._batch_processor._exporter for p in emitters]
    events = [exporter.__class__.__module__ for exporter in exporters]
    names = [provider.resource.attributes["service.name"] for provider in (tracers, logs)]
    print(json.dumps([readers, processors, events, names]), flush=True)
    os._exit(0)
"""


GRPC, HTTP, OURS = "otlp.proto.grpc", "otlp.proto.http", "otel_ml.console"


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, [OURS, OURS, OURS, "api"]),
        ({"OTEL_SERVICE_NAME": "environment"}, [OURS, OURS, OURS, "api"]),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1"}, [GRPC, GRPC, GRPC, "api"]),
        (
            {
                "OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1",
                "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf",
            },
            [HTTP, HTTP, HTTP, "api"],
        ),
        (
            {"OTEL_METRICS_EXPORTER": "otlp", "OTEL_TRACES_EXPORTER": "none", "OTEL_LOGS_EXPORTER": "none"},
            [GRPC, None, None, "api"],
        ),
        (
            {
                "OTEL_EXPORTER_OTLP_METRICS_ENDPOINT": "http://127.0.0.1:1",
                "OTEL_TRACES_EXPORTER": "console",
                "OTEL_LOGS_EXPORTER": "console",
            },
            [GRPC, "sdk.trace", "sdk._logs", "api"],
        ),
        (
            {
                "OTEL_EXPORTER_OTLP_LOGS_ENDPOINT": "http://127.0.0.1:1",
                "OTEL_EXPORTER_OTLP_LOGS_PROTOCOL": "http/protobuf",
            },
            [OURS, OURS, HTTP, "api"],
        ),
    ],
)
def test_exporters_follow_the_environment(environment, expected):
    """Console without any variable, OTLP with an endpoint, and whatever OTEL_*_EXPORTER names."""
    program = DESCRIBE + "import otel_ml; otel_ml.configure('api'); describe()"
    done = run(program, **environment)
    assert done.returncode == 0, done.stderr
    *found, names = json.loads(done.stdout)
    *wanted, service = expected
    assert [
        [part in module for module, part in zip(modules, [want], strict=bool(want))]
        for modules, want in zip(found, wanted, strict=True)
    ] == [[True] if want else [] for want in wanted]
    assert names == [service] * 2


def test_providers_of_the_application_stay():
    """configure() leaves a provider that was set before, and says nothing."""
    done = run("""
        from opentelemetry import _logs, metrics, trace
        from opentelemetry.sdk._logs import LoggerProvider
        from opentelemetry.sdk.metrics import MeterProvider
        from opentelemetry.sdk.trace import TracerProvider
        import otel_ml
        meters, tracers, logs = MeterProvider(), TracerProvider(), LoggerProvider()
        metrics.set_meter_provider(meters); trace.set_tracer_provider(tracers); _logs.set_logger_provider(logs)
        otel_ml.configure()
        print(metrics.get_meter_provider() is meters, trace.get_tracer_provider() is tracers)
        print(_logs.get_logger_provider() is logs)
    """)
    assert (done.stdout, done.stderr) == ("True True\nTrue\n", "")


def test_messages_of_the_application_are_not_touched():
    """configure() puts no handler on any logger of the standard library, and exports none of its messages."""
    done = run("""
        import logging, otel_ml
        otel_ml.configure()
        logging.getLogger("app").warning("mine")
        loggers = [logging.getLogger(), *map(logging.getLogger, logging.root.manager.loggerDict)]
        print([handler for logger in loggers for handler in logger.handlers if "Null" not in type(handler).__name__])
    """)
    assert (done.stdout, done.stderr) == ("[]\n", "mine\n")


def test_events_find_a_provider_that_is_set_later():
    """What was observed before configure() emits as soon as it was called, a line an event on the console."""
    done = run("""
        import time, numpy as np, otel_ml
        from dataclasses import replace
        from otel_ml.events import Events
        from otel_ml.ids import CallId
        from otel_ml.model import Model
        from otel_ml.prediction import Outcome, Prediction
        from otel_ml.sampling import Random
        from otel_ml.sampling.coin import COIN, select
        model = Model("churn", "3")
        events = Events(model, "predict")
        print(events.active)
        otel_ml.configure()
        print(events.active)
        made = Prediction(model, "predict", 1, Outcome(np.array([0.25]), "probability", np.array([True])), 0, 1)
        events.emit(made, select(Random(1.0)(made), 1, COIN), ids=CallId())
        failed = replace(made, outcome=Outcome(), error_type="ValueError")
        events.emit(failed, select(Random(0.5)(made)._replace(probability=1.0), 1, COIN), ids=CallId())
        otel_ml.feedback(label="leave", prediction="stay", score=0.81, model="churn", source="human")
        otel_ml.feedback(label=12.5, prediction_id=CallId().of())
    """)
    assert done.stderr == ""
    assert re.sub(r"id [0-9a-f-]+", "id …", done.stdout).splitlines()[:6] == [
        "False",
        "True",
        "ml.prediction churn  version 3  probability 0.25  label true  kept at 100 % (random)  id …",
        "ml.prediction churn  version 3  failed: ValueError  kept at 100 % (random)  id …",
        "ml.feedback churn  score 0.81  label stay  truth leave  from human",
        "ml.feedback  truth 12.5  id …",
    ]


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


class Logs(LoggerProvider):
    """A provider whose flush ends as told."""

    def __init__(self, answer: bool | Exception) -> None:
        super().__init__(shutdown_on_exit=False)
        self.answer = answer
        self.asked: list[int] = []

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        self.asked.append(timeout_millis)
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


def test_flush_without_a_provider_is_not_a_success():
    """Nothing can have been exported where nobody exports."""
    assert otel_ml.force_flush() is False


def test_flush_asks_every_provider(reader, spans):
    """True when all providers said so, False when the events did not leave in time."""
    logs = Logs(True)
    pipeline.use(logger_provider=logs)
    assert otel_ml.force_flush(timeout_millis=1234) is True
    assert logs.asked == [1234]
    pipeline.use(logger_provider=Logs(False))
    assert otel_ml.force_flush() is False


def test_flush_that_raises_is_a_failure_and_no_more(reader, monkeypatch):
    """An exception in a provider's flush does not reach the caller, who learns that it failed."""
    monkeypatch.delenv("OTEL_PYTHON_ML_RAISE")
    config.settings.cache_clear()
    pipeline.use(logger_provider=Logs(RuntimeError("gone")))
    assert otel_ml.force_flush() is False


def test_a_signal_handler_can_flush_while_the_producer_is_made():
    """Whatever thread and moment the signal finds; there is one producer afterwards."""
    done = run(
        """
        import os, signal
        from otel_ml import pipeline
        from otel_ml.producer import Producer
        made = []
        class Interrupted(Producer):
            def __init__(self, **more):
                super().__init__(**more)
                made.append(self)
                if len(made) == 1:
                    os.kill(os.getpid(), signal.SIGTERM)
        pipeline.Producer = Interrupted
        signal.signal(signal.SIGTERM, lambda *_: pipeline.force_flush())
        signal.alarm(20)
        assert pipeline.producer() is pipeline.producer() is made[1]
        """
    )
    assert (done.returncode, done.stderr) == (0, "")
