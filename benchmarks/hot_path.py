"""What an observed call costs, beside the model and beside the same information recorded the stock way.

Everything is measured in this one run and judged as ratios: absolute times say more about the machine. The timed
region of otel-ml includes every drain of its queue (at least ten) and the process's CPU time is shown beside the
wall time, so that work handed to another thread is not hidden.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping
from itertools import cycle
from typing import Any

import numpy as np

import otel_ml
from benchmarks import samplers
from benchmarks._measure import DRAINS, Case, Cost, Target, measure, median_call, medians
from benchmarks._scene import BATCH, FEATURES, NAMES, Scene, answering, bare, scene

ATTRIBUTES = {"ml.model.name": "churn", "ml.model.version": "3", "ml.operation.name": "predict"}
TEN = {f"ml.attribute.{i}": i for i in range(10)}
ROUNDS = 9
SPAN = "SDK span, 10 attributes"
OFF = "otel-ml, spans off"
BESIDE = "the same, and a bare SDK span"
SAMPLED = "otel-ml, span after the call"


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
    estimators = one_row_of_estimators(stage, labels)
    batches = batch(stage, predict)
    show(
        batches, base="bare call", unit="LogisticRegression.predict", title=f"a call of {BATCH} x {FEATURES}"
    )
    waited = foreground(stage, predict)
    show_forms(batches, waited)
    show_estimators(estimators)
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
            SPAN: Case(_stock_span(stage), 2_000),
            "stock: span + 30 records": Case(_stock_way(stage, row), 400),
            OFF: Case(lambda: watched["off"](row), 10_000, every=stage.drain),
            SAMPLED: Case(lambda: watched["sampled"](row), 10_000, every=stage.drain),
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


def one_row_of_estimators(stage: Scene, labels: np.ndarray) -> dict[str, dict[str, float]]:
    """What `otel_ml.instrument()` adds to a call of one row of LogisticRegression, as shares of the call, by spans.

    Between rounds it is switched off, so that both ways are measured on the same object. CPU time, with
    a drain in the timed region.
    """
    from sklearn.linear_model import LogisticRegression

    row = stage.X[:1].copy()
    added: dict[str, dict[str, list[float]]] = {}
    for spans in ("off", "sampled"):
        made = LogisticRegression().fit(stage.X, labels)
        otel_ml.register(made, name=f"lr {spans}", version="3", baseline=stage.baseline, spans=spans)
        shares = added.setdefault(spans, {"predict": [], "predict_proba": []})
        for _ in range(ROUNDS):
            plain = _one_row_calls(made, row, None)
            otel_ml.instrument()
            watched = _one_row_calls(made, row, stage.drain)
            otel_ml.uninstrument()
            for name, found in shares.items():
                found.append(watched[name].cpu[0] / plain[name].cpu[0] - 1)
    return {
        spans: {name: float(np.median(found)) for name, found in shares.items()}
        for spans, shares in added.items()
    }


def _one_row_calls(model: Any, row: np.ndarray, drain: Callable[[], object] | None) -> dict[str, Cost]:
    # a copy, for a second operation on the same object would not count its rows again
    other = row.copy()
    return measure(
        {
            "predict": Case(lambda: model.predict(row), 480, after=drain),
            "predict_proba": Case(lambda: model.predict_proba(other), 480, after=drain),
        },
        rounds=1,
    )


def show_estimators(added: Mapping[str, Mapping[str, float]]) -> None:
    """Print what auto-instrumentation adds to one row."""
    print(f"\n1 x {FEATURES}, LogisticRegression under otel_ml.instrument(): added CPU, % of the bare call")
    for spans, found in added.items():
        shares = "".join(f"{name:>16} {100 * share:5.1f}" for name, share in found.items())
        print(f"{'with a span' if spans == 'sampled' else 'no span':12}{shares}")


def single_targets(costs: Mapping[str, Cost]) -> list[Target]:
    """The targets of one row."""
    net = {name: cost.minus(costs["bare call"]) for name, cost in costs.items()}
    ours = net[OFF]
    return [
        Target(
            f"1 x {FEATURES}: all but the span, per counter.add with 3 attributes",
            max(ours.over(net["counter.add, 3 attributes"])), 0.5,
        ),
        Target(
            f"1 x {FEATURES}: whole call with a sampled span, per bare SDK span with 10 attributes",
            max(net[SAMPLED].over(net[SPAN])), 1.25,
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

    def ours(call: Callable[[Any], object]) -> Case:
        return Case(lambda: call(next(batches)), 240, every=stage.drain, after=stage.reader.get_metrics_data)

    return measure(
        {
            "bare call": Case(lambda: nothing(next(batches)), 10_000),
            "LogisticRegression.predict": Case(lambda: predict(next(batches)), 240),
            SPAN: Case(_stock_span(stage), 2_000),
            **{name: ours(call) for name, call in _forms(stage, nothing).items()},
        },
        rounds=ROUNDS,
    )


def _forms(stage: Scene, model: Callable[[Any], object]) -> dict[str, Callable[[Any], object]]:
    """The model observed without a span, with a bare one beside it, which nothing of ours can make cheaper, and with
    one of ours."""
    off, sampled, span = stage.watch(model, "off"), stage.watch(model, "sampled"), _stock_span(stage)

    def beside(X: Any) -> None:
        off(X)
        span()

    return {OFF: off, BESIDE: beside, SAMPLED: sampled}


def foreground(stage: Scene, predict: Callable[[object], object]) -> dict[str, float]:
    """What the caller of many rows waits for, as shares of the model: medians of single calls that take turns.

    The observed function calls the model, too, so that caches are as a model leaves them, and counting goes on in
    the flusher's thread. Beside it what no recording of the rows with a span can do without: a span, a copy.
    """
    model = answering(predict, BATCH)
    watched = _forms(stage, model)
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


def cell(costs: Mapping[str, Cost], name: str) -> float:
    """CPU time of a form of the call of many rows, all told: nanoseconds a cell."""
    return float(np.median(costs[name].minus(costs["bare call"]).cpu)) / (BATCH * FEATURES)


def batch_targets(costs: Mapping[str, Cost], waited: Mapping[str, float]) -> list[Target]:
    """The targets of many rows: both hold for the whole call, with its span; beside them the call without one."""
    many = f"{BATCH} x {FEATURES}"
    return [
        Target(f"{many}: foreground, the whole call with a span, % of the model", 100 * waited[SAMPLED], 25),
        Target(f"{many}: foreground without a span, % of the model", 100 * waited[OFF], 25),
        Target(f"{many}: CPU all told with a span, ns a cell", cell(costs, SAMPLED), 6),
        Target(f"{many}: CPU all told without a span, ns a cell", cell(costs, OFF), 6),
    ]


def show_forms(costs: Mapping[str, Cost], waited: Mapping[str, float]) -> None:
    """Print what many rows cost without a span, with a bare one and with one of otel-ml, side by side."""
    print(f"\n{BATCH} x {FEATURES}{'':28}{'no span':>10}{'bare span':>11}{'with span':>11}{'target':>8}")
    forms = OFF, BESIDE, SAMPLED
    for title, limit, found in (
        ("foreground, % of the model", 25, [100 * waited[name] for name in forms]),
        ("CPU all told, ns a cell", 6, [cell(costs, name) for name in forms]),
    ):
        print(f"{title:37}{found[0]:10.1f}{found[1]:11.1f}{found[2]:11.1f}{limit:8}")


def show_limits(single: Mapping[str, Cost], waited: Mapping[str, float]) -> None:
    """Print what is left when everything of ours is taken away."""
    span = float(np.median(single[SPAN].cpu)) / 1000
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
