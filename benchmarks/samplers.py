"""What samplers cost: a whole call of one row, and the decision on a batch.

The call of one row has no span; the bare call is subtracted and every drain is in the timed region. `nothing` are rates
at which no row is kept, `event` is every row kept and emitted through the SDK's batch processor to an exporter that
does nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial

import numpy as np
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk._logs.export import BatchLogRecordProcessor, LogRecordExporter, LogRecordExportResult

from benchmarks._measure import Case, Cost, measure, median_call
from benchmarks._scene import BATCH, FEATURES, NAMES, Scene, bare, scene
from otel_ml import pipeline, sampling
from otel_ml.model import Model
from otel_ml.prediction import Outcome, Prediction
from otel_ml.rows import Rows
from otel_ml.sampling import SamplerLike
from otel_ml.sampling.keeping import keep

COUNTER = "counter.add, 3 attributes"
BARE = "bare call"
NONE = "no sampler"
NEVER = 1e-12
LARGE = 100_000
TARGETED = ("Random", "When(failed)")
"""Samplers of which a call that keeps nothing is held to the target of a call without one."""
s = sampling


def of_rate(rate: float) -> dict[str, SamplerLike]:
    """One of each, at a rate from 0 to below 1."""
    certain = s.When(s.failed)
    each = s.Uncertainty("margin", rate=rate, floor=rate / 2)
    return {
        "Random": s.Random(rate),
        "Stratified, rate": s.Stratified(NAMES[3], rate=rate),
        "Stratified, per minute": s.Stratified(NAMES[3], per_minute=max(1e6 * rate, 1e-9)),
        "Uncertainty": each,
        "When(failed)": certain,
        "When(slower_than)": s.When(s.slower_than(1e-9), rate=rate),
        "When(missing one)": s.When(s.missing(NAMES[3])),
        "When(missing any)": s.When(s.missing()),
        "any_of(failed, Random)": s.any_of(certain, s.Random(rate)),
        "any_of(failed, Uncertainty, Random)": s.any_of(certain, each, s.Random(rate)),
        "limit(Random)": s.limit(s.Random(rate), per_second=1e9),
    }


def one_row(stage: Scene, rounds: int) -> tuple[dict[str, Cost], dict[str, Cost]]:
    """Costs of a call of one row by sampler: when nothing is kept, and when every row is an event."""
    logs = LoggerProvider(shutdown_on_exit=False)
    logs.add_log_record_processor(BatchLogRecordProcessor(_Nowhere()))
    pipeline.use(logger_provider=logs)
    counter = stage.meters.get_meter("bench").create_counter("calls")
    attributes = {"ml.model.name": "churn", "ml.model.version": "3", "ml.operation.name": "predict"}
    row, answer = stage.X[:1].copy(), bare(1)
    row[0, 3] = 2.0  # a stratum is a category
    absent = row.copy()
    absent[0, 3] = np.nan

    def call(function: Callable[[object], object], sampler: SamplerLike | None, rows: object, n: int) -> Case:
        options = {"sampler": sampler, "operation": "predict_proba"}
        observed = stage.watch(function, "off", **options)
        return Case(partial(_quietly if function is _fail else _call, observed, rows), n, every=stage.drain)

    basis = {
        BARE: Case(partial(_call, answer, row), 10_000),
        COUNTER: Case(partial(counter.add, 1, attributes), 5_000),
        NONE: call(answer, None, row, 10_000),
    }
    nothing = {name: call(answer, one, row, 10_000) for name, one in of_rate(NEVER).items()}
    given = {"When(missing one)": absent, "When(missing any)": absent}
    event = {
        name: call(_fail if name == "When(failed)" else answer, one, given.get(name, row), 240)
        for name, one in of_rate(1 - NEVER).items()
    }
    costs = measure(
        {**basis, **nothing, **{f"{name} event": case for name, case in event.items()}}, rounds=rounds
    )
    logs.shutdown()
    return (
        {name: costs[name] for name in (*basis, *nothing)},
        {name: costs[f"{name} event"] for name in event},
    )


class _Nowhere(LogRecordExporter):
    def export(self, batch: object) -> LogRecordExportResult:  # noqa: ARG002  # goes nowhere
        return LogRecordExportResult.SUCCESS

    def shutdown(self) -> None:
        pass

    def force_flush(self, timeout_millis: int = 30_000) -> bool:  # noqa: ARG002  # nothing waits
        return True


def _call(function: Callable[[object], object], rows: object) -> None:
    function(rows)


def _quietly(function: Callable[[object], object], rows: object) -> None:
    with suppress(ValueError):
        function(rows)


def _fail(rows: object) -> object:  # noqa: ARG001  # whatever it is given
    raise ValueError


def decisions(stage: Scene, rate: float = 0.01) -> dict[str, tuple[float, float]]:
    """Nanoseconds a row that a sampler takes to decide and to flip its coins, in a call of `BATCH` and of `LARGE`
    rows, one in a hundred of which is kept."""
    rng = np.random.default_rng(3)
    X = np.concatenate([stage.X] * (LARGE // len(stage.X)))
    X[:, 3] = rng.integers(0, 5, LARGE)  # a category: strata are few
    model = Model("churn", "3", task="classification", baseline=stage.baseline)
    scores = rng.uniform(size=LARGE)

    def took(sampler: SamplerLike, rows: int) -> float:
        taken = X[:rows].tobytes(), (rows, FEATURES), X.dtype
        outcome = Outcome(scores[:rows], "probability")

        def decide() -> None:
            made = Prediction(model, "predict_proba", rows, outcome, 0, 1000, None, Rows(taken, model, rows))
            keep(sampler, made, _uncounted)

        return median_call(decide, 200 if rows < LARGE else 15) / rows

    return {name: (took(one, BATCH), took(one, LARGE)) for name, one in of_rate(rate).items()}


def _uncounted(_: Mapping[tuple[str, bool], int]) -> None:
    pass


def show(stage: Scene, rounds: int) -> dict[str, float]:
    """Print the table; gives what a call costs by sampler when nothing is kept, in `counter.add`."""
    nothing, event = one_row(stage, rounds)
    batch = decisions(stage)
    bare_call = nothing[BARE]
    unit = nothing[COUNTER].minus(bare_call)
    print(
        f"\nsamplers, a call of 1 x {FEATURES} without a span; the bare call is subtracted; 1.00 = {COUNTER}"
    )
    print(f"{'':38}{'nothing':>9}{'event':>9}{f'ns a row of {BATCH}':>18}{f'of {LARGE}':>12}")
    ratios = {name: max(cost.minus(bare_call).over(unit)) for name, cost in nothing.items() if name != BARE}
    for name, ratio in ratios.items():
        kept = f"{max(event[name].minus(bare_call).over(unit)):9.2f}" if name in event else ""
        each = f"{batch[name][0]:18.1f}{batch[name][1]:12.1f}" if name in batch else ""
        print(f"{name:38}{ratio:9.2f}{kept}{each}")
    return {name: ratio for name, ratio in ratios.items() if name != COUNTER}


if __name__ == "__main__":
    show(scene(), 9)
