"""A service in a process of its own that predicts, and then ends in one of many ways.

Everything about telemetry comes from the OTEL_* environment. It prints one JSON line when it gets so far.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
import types
from typing import Any

import numpy as np
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import MetricExporter, PeriodicExportingMetricReader

import otel_ml
from otel_ml import _guard, pipeline, registry
from otel_ml.instrument import estimators

otel_ml.configure()
otel_ml.instrument()


@otel_ml.observe(model="churn", version="3")
def predict(X: Any) -> Any:
    """The first column."""
    if X[0, 0] < 0:
        raise ValueError("cannot score this")
    return X[:, 0]


def predict_all(rows: int = 2000) -> float:
    """Rows one by one, over a few export intervals."""
    total = 0.0
    for number in range(rows):
        total += float(predict(np.array([[0.001 * number, 1.0]]))[0])
        if number % 200 == 0:
            time.sleep(0.1)  # the exporter shall have its turns
    return total


def counted() -> int:
    """Rows that are counted in this process, exported or not."""
    producer = pipeline.producer()
    producer.drain()
    return sum(s.sketch.value for s in producer._ledger if s.metric.name == "ml.inference.rows")


def report() -> None:
    """Predict, and say what came of it."""
    total = predict_all()
    pending = pipeline.producer()._pending
    said = {"sum": total, "waiting": pending.bytes, "limit": pending.limit, "rows": counted()}
    print(json.dumps(said), flush=True)


def busy() -> None:
    """Predict for ever."""
    X = np.zeros((1, 2))
    while True:
        predict(X)
        try:
            predict(-1 - X)
        except ValueError:
            continue


def started() -> None:
    """Say that everything is under way."""
    print("started", flush=True)


class Raising(MetricExporter):
    """An exporter that never gets anything out."""

    def __init__(self, error: type[BaseException]) -> None:
        super().__init__()
        self._error = error

    def export(self, metrics_data: Any, timeout_millis: float = 0, **kwargs: Any) -> Any:
        raise self._error("no backend")

    def force_flush(self, timeout_millis: float = 0) -> bool:
        return True

    def shutdown(self, timeout_millis: float = 0, **kwargs: Any) -> None:
        """Nothing to end."""


class Thing:
    """A model of no library."""


def hold_locks() -> None:
    """A daemon thread that has our locks when the interpreter ends, as one that is stopped in a bad moment.

    The model stands in a module that something keeps alive, so that it goes before our own modules do.
    """
    held = threading.Event()
    service: Any = types.ModuleType("service")
    service.model = Thing()
    sys.modules["service"] = service
    os.register_at_fork(before=lambda: service)
    otel_ml.register(service.model, name="thing", version="1")

    def hold() -> None:
        with _guard._lock, registry._lock, estimators._lock, pipeline.producer()._lock:
            held.set()
            time.sleep(3600)

    threading.Thread(target=hold, daemon=True).start()
    held.wait()


def main(how: str) -> None:
    """End as `how` says."""
    if how.startswith("exporter raises"):
        error = SystemExit if how.endswith("SystemExit") else RuntimeError
        reader = PeriodicExportingMetricReader(Raising(error), export_interval_millis=100)
        pipeline.use(meter_provider=MeterProvider(metric_readers=[reader]))
    if how.startswith("exporter raises") or how == "predict":
        report()
        return
    if how == "locks are held":
        hold_locks()
        return
    if how.startswith("threads"):
        for _ in range(4):
            threading.Thread(target=busy, daemon=True).start()
        time.sleep(0.5)
    else:
        for _ in range(10):
            predict(np.zeros((1, 2)))
    started()
    ends = {
        "return": lambda: None,
        "sys.exit": lambda: sys.exit(3),
        "sys.exit inside": lambda: end_inside(lambda: sys.exit(3)),
        "raise": lambda: predict(-np.ones((1, 2))),
        "os._exit inside": lambda: end_inside(lambda: os._exit(4)),
        "SIGTERM inside": lambda: end_inside(lambda: os.kill(os.getpid(), signal.SIGTERM)),
        "threads return": lambda: None,
        "threads sys.exit": lambda: sys.exit(3),
        "threads sys.exit inside": lambda: end_inside(lambda: sys.exit(3)),
        "threads raise": lambda: predict(-np.ones((1, 2))),
    }
    ends[how]()


@otel_ml.observe(model="last", version="1")
def end_inside(end: Any) -> None:
    """A prediction that does not come back."""
    end()
    time.sleep(60)


if __name__ == "__main__":
    main(sys.argv[1])
