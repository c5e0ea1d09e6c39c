"""Drift of uncertainty: a model that becomes less sure while its labels stay, from its rows to the verdict."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from opentelemetry.exporter.otlp.proto.common.metrics_encoder import encode_metrics
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader, MetricsData
from opentelemetry.sdk.resources import Resource
from pointbatches import T0, S, engine

from otel_ml import Baseline, observe, pipeline, semconv
from otel_ml_collector import emit
from otel_ml_collector.decode import decode
from otel_ml_collector.drift import Policy
from otel_ml_collector.engine import Engine
from otel_ml_collector.evaluation import Evaluation, Target
from otel_ml_collector.inprocess import InProcess
from otel_ml_collector.window import WindowSpec

SPEC = WindowSpec(length=10, step=2, lateness=0, max_age=20, refresh=0.5, fast_length=1)
POLICY = Policy()
UNCERTAINTY = Target("uncertainty")


def answers(random: np.random.Generator, rows: int, runner_up: float) -> NDArray[np.float64]:
    """Probabilities of three classes, the largest one always distributed alike; the second takes about the share
    `runner_up` of what that leaves."""
    best = random.uniform(0.6, 0.75, rows)
    second = (1 - best) * np.clip(random.normal(runner_up, 0.05, rows), 0.5, 1.0)
    p = np.column_stack([best, second, 1 - best - second])
    return random.permuted(p, axis=1)


def fitted() -> Baseline:
    random = np.random.default_rng(0)
    p = answers(random, 5000, 0.6)
    return Baseline.fit(
        {"age": random.normal(size=5000)}, model="plan", version="1", scores=p, predictions=p.argmax(axis=1)
    )


class App:
    """A service that gives rows the probabilities they are asked with, and collections of what it counted."""

    def __init__(self, baseline: Baseline) -> None:
        self.random = np.random.default_rng(1)
        self.reader = InMemoryMetricReader()
        provider = MeterProvider(
            metric_readers=[self.reader], resource=Resource({semconv.SERVICE_NAME: "api"})
        )
        pipeline.use(meter_provider=provider)
        self.answer = np.empty((0, 3))
        watch = observe(model="plan", version="1", baseline=baseline, spans="off", operation="predict_proba")
        self.predict = watch(lambda X: self.answer)

    def collect(self, at: int, runner_up: float) -> MetricsData:
        """Answer 500 rows; what a collection gives then, stamped with this time."""
        self.answer = answers(self.random, 500, runner_up)
        self.predict(self.random.normal(size=(500, 1)))
        data = self.reader.get_metrics_data()
        assert data is not None
        scopes = [scope for of_resource in data.resource_metrics for scope in of_resource.scope_metrics]
        metrics = [metric for scope in scopes for metric in scope.metrics]
        for metric in metrics:
            for point in metric.data.data_points:
                object.__setattr__(point, "time_unix_nano", at)
                if not metric.name.startswith("ml.baseline."):
                    object.__setattr__(point, "start_time_unix_nano", T0)
        return data


def served(baseline: Baseline, runner_up: float, into: Engine) -> Evaluation:
    """The last verdict on eight seconds of a service, sent as bytes."""
    app = App(baseline)
    final: list[Evaluation] = []
    for now in range(T0 + S, T0 + 9 * S, S):
        body = encode_metrics(app.collect(now, runner_up)).SerializeToString()
        into.ingest(decode(body).batch, now)
        final += [evaluation for evaluation in into.advance(now) if evaluation.final]
    pipeline.reset()
    return final[-1]


def statuses(evaluation: Evaluation) -> dict[str, int]:
    assert all(one.evaluated for one in evaluation.targets)
    return {one.target.kind: one.status for one in evaluation.targets}


@pytest.mark.parametrize("by_file", [False, True])
def test_a_model_that_is_less_sure_of_the_same_labels_has_drifted(by_file: bool) -> None:
    """In its uncertainty alone: neither features nor scores nor labels show it, over the wire and with the file."""
    baseline = fitted()
    into = engine(SPEC, POLICY, baselines=[baseline] if by_file else [])
    evaluation = served(baseline, 0.95, into)
    assert statuses(evaluation) == {"feature": 0, "score": 0, "prediction": 0, "uncertainty": 2}
    (found,) = [one for one in evaluation.targets if one.target == UNCERTAINTY]
    assert (found.rows, found.reason, found.foreign_bounds) == (4000, "psi", False)
    assert found.statistics["psi.excess"] > 0.25


def test_a_model_that_is_as_sure_as_in_training_has_not_drifted() -> None:
    """And is judged nonetheless."""
    evaluation = served(fitted(), 0.6, engine(SPEC, POLICY))
    assert statuses(evaluation) == {"feature": 0, "score": 0, "prediction": 0, "uncertainty": 0}


def test_in_process_it_is_found_as_well() -> None:
    """The engine behind a reader of the service."""
    app, now = App(fitted()), T0
    drift = InProcess(window=SPEC, policy=POLICY, clock=lambda: now)
    found: list[Evaluation] = []
    for _ in range(8):
        now += S
        found += drift.take(app.collect(now, 0.95))
    assert statuses(found[-1])["uncertainty"] == 2


def test_its_gauges_carry_the_target_and_no_feature() -> None:
    """As those of the score do."""
    evaluation = served(fitted(), 0.95, engine(SPEC, POLICY))
    gauges = emit.gauges([evaluation], POLICY, evaluation.window_end)
    (status,) = [
        gauge for gauge in gauges
        if gauge.metric == semconv.DRIFT_STATUS and gauge.attributes[semconv.DRIFT_TARGET] == "uncertainty"
    ]  # fmt: skip
    assert status.value == 2
    assert semconv.FEATURE_NAME not in status.attributes


def test_without_one_in_the_baseline_there_is_nothing_to_compare_with() -> None:
    """It is counted, and the verdict says why there is none."""
    random = np.random.default_rng(0)
    best = answers(random, 5000, 0.6).max(axis=1)
    baseline = Baseline.fit({"age": random.normal(size=5000)}, model="plan", version="1", scores=best)
    evaluation = served(baseline, 0.6, engine(SPEC, POLICY))
    (found,) = [one for one in evaluation.targets if one.target == UNCERTAINTY]
    assert (found.rows, found.evaluated, found.reason) == (4000, False, "no_baseline")
