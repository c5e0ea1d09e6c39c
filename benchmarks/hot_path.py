"""What an observed call costs, beside the model and beside the same information recorded the stock way.

Everything is measured in this one run and judged as ratios: absolute times say more about the machine. The timed
region of otel-ml includes every drain of its queue (at least ten) and the process's CPU time is shown beside the
wall time, so that work handed to another thread is not hidden.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import cycle

import numpy as np

from benchmarks import samplers
from benchmarks._measure import DRAINS, Case, Cost, measure, median_call, medians
from benchmarks._scene import BATCH, FEATURES, NAMES, Scene, answering, bare, scene

ATTRIBUTES = {"ml.model.name": "churn", "ml.model.version": "3", "ml.operation.name": "predict"}
TEN = {f"ml.attribute.{i}": i for i in range(10)}
ROUNDS = 9


@dataclass(frozen=True, slots=True)
class Target:
    """A ratio and the limit that it keeps or misses."""

    name: str
    value: float
    limit: float
    at_least: bool = False

    @property
    def met(self) -> bool:
        return self.value >= self.limit if self.at_least else self.value <= self.limit

    def __str__(self) -> str:
        bound = "at least" if self.at_least else "at most"
        verdict = "met" if self.met else "MISSED"
        return f"{verdict:7}{self.value:8.2f}  ({bound} {self.limit:g})  {self.name}"


def main() -> None:
    """Print the tables, and which targets are met."""
    from sklearn.linear_model import LogisticRegression

    stage = scene()
    labels = (stage.X[:, 0] > 0).astype(int)
    predict = LogisticRegression().fit(stage.X, labels).predict
    single = one_row(stage, predict)
    show(single, base="bare call", unit="counter.add, 3 attributes", title=f"a call of 1 x {FEATURES}")
    frames = pandas_rows(stage)
    if frames:
        show(frames, base="bare call", unit="counter.add, 3 attributes", title="a pandas row, spans off")
    batches = batch(stage, predict)
    show(
        batches, base="bare call", unit="LogisticRegression.predict", title=f"a call of {BATCH} x {FEATURES}"
    )
    waited = foreground(stage, predict)
    sampled = samplers.show(stage, ROUNDS)
    targets = [*single_targets(single), *sampler_targets(sampled), *batch_targets(batches, waited)]
    print(f"\n{DRAINS} drains in every timed region of otel-ml; medians of {ROUNDS} rounds")
    print(*targets, sep="\n")
    show_limits(single, waited)


# --- one row ----------------------------------------------------------------------------------------------


def one_row(stage: Scene, predict: Callable[[object], object]) -> dict[str, Cost]:
    """Costs of a call of one row of floats, and of what OpenTelemetry's own instruments take."""
    counter = stage.meters.get_meter("bench").create_counter("rows")
    row = stage.X[:1].copy()
    nothing = bare(1)
    watched = {spans: stage.observed(spans) for spans in ("off", "sampled", "all")}
    return measure(
        {
            "bare call": Case(lambda: nothing(row), 10_000),
            "counter.add, 3 attributes": Case(lambda: counter.add(1, ATTRIBUTES), 5_000),
            "SDK span, 10 attributes": Case(_stock_span(stage), 2_000),
            "stock: span + 30 records": Case(_stock_way(stage, row), 400),
            "otel-ml, spans off": Case(lambda: watched["off"](row), 10_000, every=stage.drain),
            "otel-ml, span after the call": Case(lambda: watched["sampled"](row), 10_000, every=stage.drain),
            "otel-ml, span around the call": Case(lambda: watched["all"](row), 10_000, every=stage.drain),
            "LogisticRegression.predict": Case(lambda: predict(row), 500),
        },
        rounds=ROUNDS,
    )


def _stock_span(stage: Scene) -> Callable[[], None]:
    tracer = stage.tracers.get_tracer("bench")

    def span() -> None:
        with tracer.start_as_current_span("predict churn", attributes=TEN):
            pass

    return span


def _stock_way(stage: Scene, row: np.ndarray) -> Callable[[], None]:
    """A span and one `Histogram.record` a feature: what an application writes without otel-ml."""
    span = _stock_span(stage)
    histogram = stage.meters.get_meter("bench").create_histogram("feature")
    per_feature = [{**ATTRIBUTES, "ml.feature.name": name} for name in NAMES]

    def record() -> None:
        span()
        for value, attributes in zip(row[0].tolist(), per_feature, strict=True):
            histogram.record(abs(value), attributes)  # it drops what is negative

    return record


def pandas_rows(stage: Scene) -> dict[str, Cost]:
    """Costs of a call of one row of a DataFrame: of one type, and of mixed types; nothing without pandas."""
    try:
        import pandas as pd
    except ImportError:
        print("pandas is not installed: its rows are not measured", file=sys.stderr)
        return {}
    floats = pd.DataFrame(stage.X[:1], columns=list(NAMES))
    mixed = floats.assign(f1=[3], f2=["basic"], f3=[True])
    counter = stage.meters.get_meter("bench").create_counter("frames")
    nothing, watched = bare(1), stage.observed("off")
    return measure(
        {
            "bare call": Case(lambda: nothing(floats), 10_000),
            "counter.add, 3 attributes": Case(lambda: counter.add(1, ATTRIBUTES), 5_000),
            "floats": Case(lambda: watched(floats), 600, every=stage.drain),
            "mixed": Case(lambda: watched(mixed), 600, every=stage.drain),
        },
        rounds=ROUNDS,
    )


def single_targets(costs: Mapping[str, Cost]) -> list[Target]:
    """The targets of one row."""
    net = {name: cost.minus(costs["bare call"]) for name, cost in costs.items()}
    ours = net["otel-ml, spans off"]
    return [
        Target(
            f"1 x {FEATURES}: all but the span, per counter.add with 3 attributes",
            max(ours.over(net["counter.add, 3 attributes"])), 0.5,
        ),
        Target(
            f"1 x {FEATURES}: whole call with a sampled span, per bare SDK span with 10 attributes",
            max(net["otel-ml, span after the call"].over(net["SDK span, 10 attributes"])), 1.25,
        ),
        Target(
            f"1 x {FEATURES}: the stock way, per all but the span",
            min(net["stock: span + 30 records"].over(ours)), 50, at_least=True,
        ),
    ]  # fmt: skip


def sampler_targets(ratios: Mapping[str, float]) -> list[Target]:
    """The target of one row with a sampler that keeps nothing."""
    return [
        Target(
            f"1 x {FEATURES}: all but the span with {name}, per counter.add with 3 attributes",
            ratios[name],
            0.5,
        )
        for name in samplers.TARGETED
    ]


# --- many rows --------------------------------------------------------------------------------------------


def batch(stage: Scene, predict: Callable[[object], object]) -> dict[str, Cost]:
    """Costs of a call of many rows, all told: every drain and a collection are in the timed region."""
    batches = cycle(stage.batches(4))  # a call that repeats its rows teaches the processor their order
    nothing = bare(BATCH)
    watched = {spans: stage.observed(spans, BATCH) for spans in ("off", "sampled")}

    def ours(spans: str) -> Case:
        return Case(
            lambda: watched[spans](next(batches)), 240, every=stage.drain, after=stage.reader.get_metrics_data
        )

    return measure(
        {
            "bare call": Case(lambda: nothing(next(batches)), 10_000),
            "LogisticRegression.predict": Case(lambda: predict(next(batches)), 240),
            "otel-ml, spans off": ours("off"),
            "otel-ml, span after the call": ours("sampled"),
        },
        rounds=ROUNDS,
    )


def foreground(stage: Scene, predict: Callable[[object], object]) -> dict[str, float]:
    """What the caller of many rows waits for, as shares of the model: medians of single calls that take turns.

    The observed function calls the model, too, so that caches are as a model leaves them, and counting goes on in
    the flusher's thread. Beside it what no recording of the rows with a span can do without: a span, a copy.
    """
    model = answering(predict, BATCH)
    watched = {spans: stage.watch(model, spans) for spans in ("off", "sampled")}
    blocks = cycle([np.empty((BATCH, FEATURES)) for _ in range(8)])
    calls = {"model": model, **watched}
    parts = {
        "model": model,
        "span": _ignoring(_stock_span(stage)),
        "copy": lambda X: np.copyto(next(blocks), X),
    }
    shares: dict[str, list[float]] = {name: [] for name in (*watched, "span", "copy")}
    for _ in range(ROUNDS):
        whole = medians(calls, stage.batches(4), 200)
        for name in watched:
            shares[name].append((whole[name] - whole["model"]) / whole["model"])
        stage.drain()
        alone = medians(parts, stage.batches(4), 200)
        for name in ("span", "copy"):
            shares[name].append(alone[name] / alone["model"])
    return {name: float(np.median(found)) for name, found in shares.items()}


def _ignoring(call: Callable[[], object]) -> Callable[[object], object]:
    return lambda _: call()


def batch_targets(costs: Mapping[str, Cost], waited: Mapping[str, float]) -> list[Target]:
    """The targets of many rows."""
    net = costs["otel-ml, span after the call"].minus(costs["bare call"])
    cell = float(np.median(net.cpu)) / (BATCH * FEATURES)
    return [
        Target(f"{BATCH} x {FEATURES}: all but the span, % of the model", 100 * waited["off"], 25),
        Target(f"{BATCH} x {FEATURES}: whole call with a span, % of the model", 100 * waited["sampled"], 25),
        Target(f"{BATCH} x {FEATURES}: CPU all told with a span, ns a cell", cell, 6),
    ]


def show_limits(single: Mapping[str, Cost], waited: Mapping[str, float]) -> None:
    """Print what is left when everything of ours is taken away."""
    span = single["SDK span, 10 attributes"].microseconds
    print(f"\nwhere the limit of {BATCH} x {FEATURES} is, in the same run")
    print(
        f"{100 * waited['span']:8.1f}  % of the model: a bare SDK span with 10 attributes, after the model ran"
    )
    print(f"{100 * waited['copy']:8.1f}  % of the model: a bare copy of the rows, after the model ran")
    cells = BATCH * FEATURES
    for name, nanoseconds in kernel_steps().items():
        print(f"{nanoseconds:8.2f}  ns a cell: {name}")
    print(f"{1000 * span / cells:8.2f}  ns a cell: a bare SDK span with 10 attributes, {span:.1f} us")


def kernel_steps() -> dict[str, float]:
    """Nanoseconds a cell of NumPy alone, on rows that come from memory as queued ones do: medians."""
    rng = np.random.default_rng(5)
    parts = [rng.normal(size=(BATCH, FEATURES)) for _ in range(20)]
    steps: dict[str, list[float]] = {"transpose to float32": [], "sort float32": [], "sort float64": []}
    block = np.empty((FEATURES, 4 * BATCH), np.float32)
    for start in range(0, 20 * ROUNDS, 4):
        chosen = [parts[(start + i) % 20] for i in range(4)]
        long = np.concatenate(chosen).T.copy()
        for step, call in (
            ("transpose to float32", lambda: _fill(block, chosen)),  # noqa: B023  # called at once
            ("sort float32", lambda: block.sort(axis=1)),
            ("sort float64", lambda: long.sort(axis=1)),  # noqa: B023  # called at once
        ):
            steps[step].append(median_call(call, 1) / block.size)
    return {name: float(np.median(found)) for name, found in steps.items()}


def _fill(block: np.ndarray, parts: list[np.ndarray]) -> None:
    for i, part in enumerate(parts):
        block[:, i * BATCH : (i + 1) * BATCH] = part.T


def show(costs: Mapping[str, Cost], *, base: str, unit: str, title: str) -> None:
    """Print what each case costs without the bare call, in units of one of them."""
    one = costs[unit].minus(costs[base])
    print(f"\n{title}; the bare call is subtracted; 1.00 = {unit}")
    print(f"{'':34}{'wall':>9}{'CPU':>9}{'wall, us':>11}")
    for name, cost in costs.items():
        net = cost if name == base else cost.minus(costs[base])
        wall, cpu = net.over(one)
        print(f"{name:34}{wall:9.3f}{cpu:9.3f}{net.microseconds:11.2f}")


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    main()
