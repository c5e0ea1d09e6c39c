"""What one observed call of 1 × 30 floats costs, beside the same information recorded the stock way.

Everything is measured in this one run and shown as ratios: absolute times say more about the machine. The timed
region of otel-ml includes every drain of its queue (at least ten) and the process's CPU time is shown beside the
wall time, so that work handed to another thread is not hidden.
"""

from __future__ import annotations

import gc
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider

import otel_ml
from otel_ml import pipeline

FEATURES = 30
CALLS = 20_000
ROUNDS = 5
DRAINS = 12
ATTRIBUTES = {"ml.model.name": "churn", "ml.model.version": "3", "ml.operation.name": "predict"}


@dataclass(frozen=True, slots=True)
class Cost:
    """Nanoseconds a call: median of the rounds."""

    wall: float
    cpu: float

    def minus(self, other: Cost) -> Cost:
        return Cost(self.wall - other.wall, self.cpu - other.cpu)


def measure(
    call: Callable[[], object], *, calls: int = CALLS, every: Callable[[], object] | None = None
) -> Cost:
    """Cost of `call`; `every` runs `DRAINS` times inside the timed region of each round."""
    step = max(calls // DRAINS, 1)
    walls, cpus = [], []
    for _ in range(ROUNDS):
        gc.collect()
        wall, cpu = time.perf_counter_ns(), time.process_time_ns()
        for i in range(calls):
            call()
            if every is not None and i % step == step - 1:
                every()
        walls.append((time.perf_counter_ns() - wall) / calls)
        cpus.append((time.process_time_ns() - cpu) / calls)
    return Cost(statistics.median(walls), statistics.median(cpus))


def main() -> int:
    """Print the table; the exit code is 1 when a target is missed."""
    from sklearn.linear_model import LogisticRegression

    rng = np.random.default_rng(7)
    X = rng.normal(size=(5_000, FEATURES))
    y = (X[:, 0] + rng.normal(size=5_000) > 0).astype(int)
    classifier = LogisticRegression().fit(X, y)
    names = [f"f{i}" for i in range(FEATURES)]
    scores = classifier.predict_proba(X)[:, 1]
    baseline = otel_ml.Baseline.fit(X, model="churn", version="3", features=names, scores=scores)
    row = X[:1].copy()
    answer = np.array([0.5])

    reader = InMemoryMetricReader()
    meters, tracers = MeterProvider(metric_readers=[reader]), TracerProvider()
    pipeline.use(meter_provider=meters, tracer_provider=tracers)
    meter, tracer = meters.get_meter("bench"), tracers.get_tracer("bench")
    counter, histogram = meter.create_counter("rows"), meter.create_histogram("feature")
    ten = {f"ml.attribute.{i}": i for i in range(10)}
    per_feature = [
        {"ml.model.name": "churn", "ml.model.version": "3", "ml.feature.name": name} for name in names
    ]

    def bare(X: object) -> object:  # noqa: ARG001  # the model that costs nothing
        return answer

    observed = {
        spans: otel_ml.observe(model="churn", version="3", baseline=baseline, spans=spans)(bare)
        for spans in ("off", "sampled", "all")
    }

    def bare_span() -> None:
        with tracer.start_as_current_span("predict churn", attributes=ten):
            pass

    def stock() -> None:
        with tracer.start_as_current_span("predict churn", attributes=ten):
            bare(row)
        values = row[0].tolist()
        for value, attributes in zip(values, per_feature, strict=True):
            histogram.record(abs(value), attributes)

    drain = pipeline.producer().drain
    costs = {
        "bare call": measure(lambda: bare(row)),
        "counter.add, 3 attributes": measure(lambda: counter.add(1, ATTRIBUTES)),
        "SDK span, 10 attributes": measure(bare_span),
        "stock: span + 30 records": measure(stock, calls=2_000),
        "otel-ml, spans off": measure(lambda: observed["off"](row), every=drain),
        "otel-ml, span after the call": measure(lambda: observed["sampled"](row), every=drain),
        "otel-ml, span around the call": measure(lambda: observed["all"](row), every=drain),
        "LogisticRegression.predict": measure(lambda: classifier.predict(row), calls=3_000),
    }
    collected = reader.get_metrics_data()
    if collected is None:
        print("nothing was collected", file=sys.stderr)
        return 1
    return show(costs)


def show(costs: dict[str, Cost]) -> int:
    bare, unit = costs["bare call"], costs["counter.add, 3 attributes"].minus(costs["bare call"])
    print(
        f"one call of 1 x {FEATURES} floats; the bare call is subtracted; 1.00 = one counter.add with 3 attributes"
    )
    print(f"{'':34}{'wall':>9}{'CPU':>9}{'wall, us':>11}")
    for name, cost in costs.items():
        net = cost if name == "bare call" else cost.minus(bare)
        print(f"{name:34}{net.wall / unit.wall:9.2f}{net.cpu / unit.cpu:9.2f}{net.wall / 1000:11.2f}")
    ours = costs["otel-ml, spans off"].minus(bare)
    stock = costs["stock: span + 30 records"].minus(bare)
    targets = {
        "all but the span, per counter.add (at most 1.0)": (ours.wall / unit.wall, ours.wall <= unit.wall),
        "stock way per all but the span (at least 50)": (
            stock.wall / ours.wall,
            stock.wall >= 50 * ours.wall,
        ),
    }
    print()
    for name, (value, met) in targets.items():
        print(f"{'met ' if met else 'MISSED'}  {name}: {value:.2f}")
    return 0 if all(met for _, met in targets.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
