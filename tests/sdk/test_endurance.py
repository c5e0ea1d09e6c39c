"""Many calls: no count is lost between threads, and memory stays where it was.

`OTEL_ML_ENDURANCE=1 python -m pytest tests/sdk/test_endurance.py` takes the numbers that
stand behind `FULL`: a million calls almost everywhere.
"""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from opentelemetry.sdk.metrics import Counter, Histogram, MeterProvider
from opentelemetry.sdk.metrics.export import AggregationTemporality, InMemoryMetricReader
from sklearn.base import BaseEstimator, ClassifierMixin
from support import by_name, select

import otel_ml
from otel_ml import Baseline, pipeline

FULL = bool(os.environ.get("OTEL_ML_ENDURANCE"))
THREADS = 8
CALLS = 100_000
"""Of each thread."""

ROW = np.array([[0.0, -50.0, 1.0]])
ANSWER = np.array([1])


class Cheap(ClassifierMixin, BaseEstimator):
    """An estimator that takes no time: only what we add is left."""

    def __init__(self) -> None:
        self.classes_ = np.array([0, 1])

    def predict(self, X: Any) -> Any:
        return ANSWER


class Totals:
    """What a reader was told in all its collections."""

    def __init__(self, reader: InMemoryMetricReader, *, delta: bool) -> None:
        self._reader = reader
        self._delta = delta
        self._said: dict[str, int] = {}

    def collect(self) -> dict[str, int]:
        """Rows, calls, labels and values of one feature so far."""
        points = by_name(self._reader.get_metrics_data())
        feature = points.get("ml.feature.value", [])
        names = sorted({p.attributes["ml.feature.name"] for p in feature})
        now = {
            "rows": sum(p.value for p in points.get("ml.inference.rows", [])),
            "calls": sum(p.count for p in points.get("ml.inference.duration", [])),
            "labels": sum(p.value for p in points.get("ml.predictions", [])),
            "values": sum(p.count for p in select(feature, ml__feature__name=names[0])) if names else 0,
            "lost": sum(
                p.value for name in ("otel_ml.dropped", "otel_ml.errors") for p in points.get(name, [])
            ),
        }
        self._said = {key: value + self._said.get(key, 0) * self._delta for key, value in now.items()}
        return self._said


@pytest.fixture
def readers() -> list[Totals]:
    """A reader that wants totals and one that wants deltas."""
    delta = AggregationTemporality.DELTA
    made = [
        InMemoryMetricReader(),
        InMemoryMetricReader(preferred_temporality={Counter: delta, Histogram: delta}),
    ]
    pipeline.use(meter_provider=MeterProvider(metric_readers=made))
    return [Totals(made[0], delta=False), Totals(made[1], delta=True)]


def _in_threads(call: Callable[[Any], Any], readers: list[Totals]) -> None:
    """`CALLS` calls in each of `THREADS` threads, while both readers collect."""

    def work() -> None:
        for _ in range(CALLS):
            call(ROW)

    threads = [threading.Thread(target=work) for _ in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        while thread.is_alive():
            thread.join(0.05)
            for reader in readers:
                reader.collect()
    n = THREADS * CALLS
    exactly = {"rows": n, "calls": n, "labels": n, "values": n, "lost": 0}
    assert [reader.collect() for reader in readers] == [exactly, exactly]


def test_a_decorated_function_in_threads_loses_no_count(readers: list[Totals], baseline: Baseline) -> None:
    """Eight threads, a hundred thousand calls each, two readers in between: every row is told once to each."""
    predict = otel_ml.observe(model="churn", version="3", baseline=baseline, spans="off")(lambda X: ANSWER)
    _in_threads(predict, readers)


def test_an_estimator_in_threads_loses_no_count(readers: list[Totals]) -> None:
    """The same for an estimator that is observed without being touched."""
    otel_ml.instrument()
    try:
        _in_threads(Cheap().predict, readers)
    finally:
        otel_ml.uninstrument()


# --- memory -------------------------------------------------------------------------------------------------

PROGRAM = """
import gc, os, pickle, resource, sys
import numpy as np, otel_ml
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from otel_ml import pipeline
from sklearn.base import BaseEstimator, ClassifierMixin

class Cheap(ClassifierMixin, BaseEstimator):
    def __init__(self, c=0):
        self.c = c
    def __sklearn_is_fitted__(self):
        return True
    def predict(self, X):
        return ANSWER

kind, calls = sys.argv[1], int(sys.argv[2])
ROW, ANSWER = np.zeros((1, 30)), np.array([1])
reader = None if kind == "no reader" else InMemoryMetricReader()
if reader is not None:
    pipeline.use(meter_provider=MeterProvider(metric_readers=[reader]))
otel_ml.instrument()
function = otel_ml.observe(model="churn", version="3", spans="off")(lambda X: ANSWER)
model, dumped = Cheap(), pickle.dumps(Cheap())
call = {
    "function": lambda i: function(ROW),
    "no reader": lambda i: function(ROW),
    "estimator": lambda i: model.predict(ROW),
    "copies": lambda i: pickle.loads(dumped).predict(ROW),
    "new models": lambda i: Cheap(i).predict(ROW),
    "failures": lambda i: fails(i),
}[kind]

@otel_ml.observe(model="churn", version="3", spans="off")
def refuse(X):
    raise ValueError("no")

def fails(i):
    try:
        refuse(ROW)
    except ValueError:
        pass

def held():
    pipeline.producer().drain()  # rows that wait are no leak
    gc.collect()
    with open("/proc/self/statm") as file:
        return sys.getallocatedblocks(), int(file.read().split()[1]) * resource.getpagesize()

def run(start, stop):
    for i in range(start, stop):
        call(i)
        if reader is not None and i % 10_000 == 0:
            reader.get_metrics_data()

warm = calls // 5
run(0, warm)
before = held()
run(warm, warm + calls)
print(*(now - then for now, then in zip(held(), before)))
"""

BLOCKS = 1000
"""Growth over all calls, in blocks of Python's allocator: a call that left one object behind would leave a million."""

RESIDENT = 32 * 1024**2
"""Growth in bytes of resident memory, which arrays take beside those blocks.

What may move is what the C allocator keeps of a queue that was as long as it may be. A call that left a row of 30
numbers behind would take 240 MB.
"""

MILLION = 1_000_000


@pytest.mark.skipif(
    not os.path.exists("/proc/self/statm"), reason="reads the resident memory where Linux shows it"
)
@pytest.mark.parametrize(
    ("kind", "calls"),
    [
        ("function", MILLION),
        ("failures", MILLION if FULL else 200_000),
        ("estimator", MILLION if FULL else 500_000),
        ("no reader", MILLION),
        ("copies", MILLION if FULL else 100_000),
        ("new models", 250_000 if FULL else 50_000),
    ],
)
def test_memory_is_flat(kind: str, calls: int) -> None:
    """Calls leave nothing behind, nor do models that come and go, nor a program in which nobody collects."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, kind, str(calls)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    blocks, resident = map(int, done.stdout.split())
    print(f"{kind}: {blocks} blocks and {resident} bytes more after {calls} calls")
    assert blocks < BLOCKS
    assert resident < RESIDENT
