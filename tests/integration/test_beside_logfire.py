"""Beside logfire, whose providers stand before the SDK's and can be set up anew: its readers and spans have ours."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("logfire", reason="pip install logfire")

PROGRAM = """
import gc, json, sys
import logfire
import numpy as np
import otel_ml
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

X, spans = np.linspace(0.05, 0.95, 12).reshape(6, 2), InMemorySpanExporter()

def configure(reader):
    logfire.configure(
        send_to_logfire=False, console=False, inspect_arguments=False,
        metrics=logfire.MetricsOptions(additional_readers=[reader]),
        additional_span_processors=[SimpleSpanProcessor(spans)],
    )

def model():
    return otel_ml.observe(model="churn", version="3")(lambda rows: rows[:, 0])

def told(reader):
    data = reader.get_metrics_data()
    points = {
        metric.name: metric.data.data_points for resource in data.resource_metrics
        for scope in resource.scope_metrics for metric in scope.metrics
    }
    bounds = [len(point.explicit_bounds) for point in points["ml.inference.duration"]]
    return [point.value for point in points["ml.inference.rows"]] + bounds

readers, seen = [InMemoryMetricReader(), InMemoryMetricReader()], []
"""

MODES = {
    "logfire first": ("configure(readers[0]); model()(X); seen += told(readers[0])", [6, 19]),
    "logfire after the first call": (
        "predict = model(); predict(X); configure(readers[0]); predict(X); seen += told(readers[0])", [12, 19],
    ),
    "logfire set up anew": (
        "configure(readers[0]); predict = model(); predict(X); seen += told(readers[0])\n"
        "configure(readers[1]); gc.collect(); predict(X); seen += told(readers[1])", [6, 19, 12, 19],
    ),
}  # fmt: skip


def run(program: str) -> Any:
    """What the program prints, as JSON; it must end well and complain of nothing."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("OTEL_", "LOGFIRE_"))}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM + program], capture_output=True, text=True, timeout=120, check=False,
        env={**clean, "OTEL_PYTHON_ML_RAISE": "1", "LOGFIRE_IGNORE_NO_CONFIG": "1"},
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    return json.loads(done.stdout)


@pytest.mark.parametrize(("program", "expected"), MODES.values(), ids=MODES)
def test_readers_of_logfire_get_our_counts(program: str, expected: list[int]) -> None:
    """All rows, and durations on our bounds where logfire makes every other histogram exponential."""
    assert run(program + "\nprint(json.dumps(seen))") == expected


def test_delta_reader_after_logfire_was_set_up_anew() -> None:
    """The reader of the second set-up is found at a collection, then again by a new model: it is told each row once."""
    told_each = run("""
from opentelemetry.sdk.metrics import Counter, Histogram
from opentelemetry.sdk.metrics.export import AggregationTemporality
delta = {Counter: AggregationTemporality.DELTA, Histogram: AggregationTemporality.DELTA}
readers = [InMemoryMetricReader(preferred_temporality=delta) for _ in range(2)]
predict = None
for reader in readers:
    configure(reader)
    predict = predict or model()
    for version in "12":
        predict(X)
        seen += told(reader)[:-1]
        otel_ml.observe(model="other", version=version)(lambda rows: rows[:, 0])
print(json.dumps(seen))
""")
    assert told_each == [6, 6, 18, 6]


def test_spans_of_logfire_are_above_ours() -> None:
    """A prediction inside a span of logfire is in its trace, and logfire shows it by its name."""
    names = run("""
configure(readers[0])
with logfire.span("request"):
    model()(X)
made = {span.name: span for span in spans.get_finished_spans()}
below, above = made["predict churn"], made["request"]
print(json.dumps([below.parent.span_id == above.context.span_id, below.attributes["logfire.msg"]]))
""")
    assert names == [True, "predict churn"]


def test_the_block_of_the_page_runs() -> None:
    """What docs/howto/beside.md shows of logfire is a program, and nobody complains of it."""
    page = (Path(__file__).parents[2] / "docs" / "howto" / "beside.md").read_text(encoding="utf-8")
    [block] = re.findall(r"^```python logfire\n(.*?)^```$", page, re.DOTALL | re.MULTILINE)
    assert run(block + "\nprint(predict(X).tolist())") == [
        row[0] for row in np.linspace(0.05, 0.95, 12).reshape(6, 2)
    ]
