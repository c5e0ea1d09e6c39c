"""Joint drift: features that move together differently, from the rows of a service to the words of the verdict."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray
from opentelemetry.exporter.otlp.proto.common.metrics_encoder import encode_metrics
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader, MetricsData
from opentelemetry.sdk.resources import Resource
from pointbatches import T0, P, S, batch, engine, series, the

from otel_ml import Baseline, observe, pipeline, semconv
from otel_ml_collector import emit
from otel_ml_collector.console import lines
from otel_ml_collector.decode import decode
from otel_ml_collector.drift import Policy
from otel_ml_collector.engine import Engine
from otel_ml_collector.evaluation import Evaluation, Target
from otel_ml_collector.groups import resolve
from otel_ml_collector.inprocess import InProcess
from otel_ml_collector.window import WindowSpec

SPEC = WindowSpec(length=10, step=2, lateness=0, max_age=20, refresh=0.5, fast_length=1)
POLICY = Policy()
WIDTH = 30
NAMES = tuple(f"f{i}" for i in range(WIDTH))
PC1 = Target("projection", "pc1")

Rows = Callable[[np.random.Generator, int], NDArray[np.float64]]


def correlated(random: np.random.Generator, rows: int, rho: float = 0.9) -> NDArray[np.float64]:
    """Standard normal features, each pair with the same correlation."""
    common = random.normal(size=(rows, 1))
    X: NDArray[np.float64] = rho**0.5 * common + (1 - rho) ** 0.5 * random.normal(size=(rows, WIDTH))
    return X


def independent(random: np.random.Generator, rows: int) -> NDArray[np.float64]:
    """The same features with no correlation."""
    return correlated(random, rows, rho=0.0)


def tied(random: np.random.Generator, rows: int) -> NDArray[np.float64]:
    """Counts, flags, prices, and columns that are nearly always zero."""
    X = correlated(random, rows)
    X[:, :10] = np.floor(2 * np.exp(X[:, :10]))
    X[:, 10:20] = X[:, 10:20] > 0.5
    X[:, 20:25] = np.round(X[:, 20:25], 1)
    X[:, 25] *= random.random(rows) < 0.005
    return X


def heavy(random: np.random.Generator, rows: int) -> NDArray[np.float64]:
    """Log-normal features, some of them missing, with outliers."""
    X = np.exp(2 * correlated(random, rows, rho=0.5))
    X[random.random(X.shape) < 0.1] = np.nan
    X[random.random(X.shape) < 0.0005] = 1e6
    return X


def fitted(rows: Rows = correlated, *, seed: int = 0, number: int = 5000) -> Baseline:
    X = rows(np.random.default_rng(seed), number)
    return Baseline.fit(X, model="churn", version="3", features=NAMES)


class App:
    """A service that answers rows, and collections of what it counted."""

    def __init__(self, baseline: Baseline) -> None:
        self.reader = InMemoryMetricReader()
        self.provider = MeterProvider(
            metric_readers=[self.reader], resource=Resource({semconv.SERVICE_NAME: "api"})
        )
        pipeline.use(meter_provider=self.provider)
        watch = observe(model="churn", version="3", baseline=baseline, spans="off")
        self.predict = watch(lambda X: X[:, 0] > 0)

    def collect(self, at: int) -> MetricsData:
        """What a collection gives, stamped with this time."""
        data = self.reader.get_metrics_data()
        assert data is not None
        for of_resource in data.resource_metrics:
            for of_scope in of_resource.scope_metrics:
                for metric in of_scope.metrics:
                    for point in metric.data.data_points:
                        object.__setattr__(point, "time_unix_nano", at)
                        if not metric.name.startswith("ml.baseline."):
                            object.__setattr__(point, "start_time_unix_nano", T0)
        return data


def served(baseline: Baseline, rows: Rows, into: Engine, *, seed: int = 1, number: int = 500) -> Evaluation:
    """The last verdict on a service that answers `number` rows a second for eight seconds, sent as bytes."""
    app, random = App(baseline), np.random.default_rng([seed, 1])
    final: list[Evaluation] = []
    for now in range(T0 + S, T0 + 9 * S, S):
        app.predict(rows(random, number))
        body = encode_metrics(app.collect(now)).SerializeToString()
        into.ingest(decode(body).batch, now)
        final += [evaluation for evaluation in into.advance(now) if evaluation.final]
    pipeline.reset()
    return final[-1]


def alarms(evaluation: Evaluation, *kinds: str) -> dict[str, int]:
    return {t.target.name: t.status for t in evaluation.targets if t.target.kind in kinds and t.status}


def test_a_correlation_that_vanishes_is_drift_of_a_projection_and_of_no_feature() -> None:
    """0.9 to 0 between 30 features whose own distributions stay: with nothing but what came over the wire."""
    evaluation = served(fitted(), independent, engine(SPEC, POLICY))
    assert alarms(evaluation, "feature", "score", "prediction") == {}
    assert alarms(evaluation, "projection")["pc1"] == semconv.STATUSES.index("drifted")
    (pc1,) = [t for t in evaluation.targets if t.target == PC1]
    assert pc1.rows == 4000
    assert pc1.statistics["psi.excess"] > 0.5
    assert pc1.detail.startswith("joint drift: the features move together differently; PSI excess ")


def test_with_the_file_the_verdict_names_the_largest_weights() -> None:
    """In the console, too; on the wire there are none."""
    baseline = fitted()
    evaluation = served(baseline, independent, engine(SPEC, POLICY, baselines=[baseline]))
    (pc1,) = [t for t in evaluation.targets if t.target == PC1]
    first, *_ = baseline.projections[0].largest()
    assert f"; largest weights: {first[0]} {first[1]:+.2g}, " in pc1.detail
    shown = "\n".join(lines([evaluation], "normal", set()))
    assert "drifted  projection pc1" in shown
    assert pc1.detail in shown


def test_the_headline_names_the_reasons_of_those_that_wait() -> None:
    """And of no other target, whatever their order."""
    evaluation = served(fitted(), independent, engine(SPEC, POLICY))
    headline = lines([evaluation], "normal", set())[0]
    (prediction,) = [t for t in evaluation.targets if t.target.kind == "prediction"]
    assert headline.endswith(f"8 drifted, 30 ok, 1 waiting ({prediction.reason}: prediction)")


def test_in_process_it_is_found_as_well() -> None:
    """The engine behind a reader of the service."""
    baseline = fitted()
    app, random, now = App(baseline), np.random.default_rng(1), T0
    drift = InProcess(window=SPEC, policy=POLICY, clock=lambda: now)
    found: list[Evaluation] = []
    for _ in range(8):
        now += S
        app.predict(independent(random, 500))
        found += drift.take(app.collect(now))
    assert alarms(found[-1], "feature") == {}
    assert alarms(found[-1], "projection")["pc1"] == 2


@pytest.mark.parametrize("rows", [correlated, independent, tied, heavy], ids=lambda rows: rows.__name__)
@pytest.mark.parametrize("number", [1000, 5000])
def test_without_drift_there_is_no_alarm(rows: Rows, number: int) -> None:
    """Whatever the data and the size of the baseline, seed after seed."""
    for seed in range(4):
        baseline = fitted(rows, seed=seed, number=number)
        evaluation = served(baseline, rows, engine(SPEC, POLICY, baselines=[baseline]), seed=seed)
        judged = [t for t in evaluation.targets if t.target.kind == "projection" and t.evaluated]
        assert len(judged) == 8
        assert alarms(evaluation, *semconv.TARGETS) == {}


@pytest.mark.parametrize("number", [512, 40_000])
def test_rows_that_are_drawn_raise_no_alarm(number: int) -> None:
    """Of many rows counted at once some stand for all of them, and do not pass for more than they are."""
    baseline = fitted()
    for seed in range(3):
        evaluation = served(baseline, correlated, engine(SPEC, POLICY), seed=seed, number=number)
        assert alarms(evaluation, *semconv.TARGETS) == {}


def test_tied_data_served_in_the_other_precision_has_not_drifted() -> None:
    """Trained on float64, served in float32: the same rows have the same numbers."""
    baseline = fitted(tied)

    def training(_: np.random.Generator, __: int) -> NDArray[np.float64]:
        return tied(np.random.default_rng(0), 5000)[:500]

    def short(random: np.random.Generator, number: int) -> NDArray[np.float64]:
        return training(random, number).astype(np.float32)  # type: ignore[return-value]

    as_trained = served(baseline, training, engine(SPEC, POLICY))
    as_served = served(baseline, short, engine(SPEC, POLICY))
    for one, other in zip(as_trained.targets, as_served.targets, strict=True):
        assert one.statistics == other.statistics
    assert alarms(as_served, "projection") == {}


def test_a_feature_that_drifts_is_the_one_alarm_there_is() -> None:
    """It moves projections, too, and they say so: no verdict, and the numbers all the same."""

    def moved(random: np.random.Generator, number: int) -> NDArray[np.float64]:
        return correlated(random, number) + 1.0

    evaluation = served(fitted(), moved, engine(SPEC, POLICY))
    (pc1,) = [t for t in evaluation.targets if t.target == PC1]
    assert alarms(evaluation, "projection") == {}
    assert (pc1.evaluated, pc1.reason) == (False, "features_drift")
    assert pc1.detail == "f0, f1, f2, … moved, which moves it, too"
    assert pc1.statistics["psi.excess"] > 0.25


def test_a_feature_at_a_warning_holds_projections_back_as_well() -> None:
    """It moves them as one that drifted does, only by less."""

    def moved(random: np.random.Generator, number: int) -> NDArray[np.float64]:
        X = correlated(random, number)
        X[:, 3] += 0.4
        return X

    evaluation = served(fitted(), moved, engine(SPEC, POLICY))
    assert alarms(evaluation, "feature") == {"f3": semconv.STATUSES.index("warning")}
    reasons = {t.reason for t in evaluation.targets if t.target.kind == "projection"}
    assert reasons == {"features_drift"}


def test_what_was_counted_along_other_directions_is_not_compared() -> None:
    """A baseline made anew for the same version has directions of its own."""
    into = engine(SPEC, POLICY, baselines=[fitted(seed=1)])
    points = []
    for projection in fitted(seed=0).projections:
        summary = projection.summary
        at = series(semconv.FEATURE_VALUE, drift_target="projection", feature_name=summary.name)
        counts, bounds = tuple(summary.bucket_counts.tolist()), tuple(summary.bounds.tolist())
        points.append(P(at, T0, T0 + S, counts, bounds))
    into.ingest(batch(points), T0 + S)
    evaluation = the([e for e in into.advance(T0 + 2 * S) if e.final])
    assert {t.reason for t in evaluation.targets} == {"other_direction"}
    assert {t.detail for t in evaluation.targets} == {
        "it was counted along the directions of another baseline"
    }
    assert not any(t.evaluated for t in evaluation.targets)


def test_gauges_of_a_projection_carry_its_target_and_name() -> None:
    """As those of a feature do theirs."""
    evaluation = served(fitted(), independent, engine(SPEC, POLICY))
    samples = emit.gauges([evaluation], POLICY, T0 + 9 * S)
    (status,) = [
        sample.value
        for sample in samples
        if sample.metric == semconv.DRIFT_STATUS
        and sample.attributes[semconv.DRIFT_TARGET] == "projection"
        and sample.attributes[semconv.FEATURE_NAME] == "pc1"
    ]
    assert status == 2


@pytest.mark.parametrize("other", ["score", "feature", "nonsense"])
def test_a_feature_cannot_pass_for_another_target(other: str) -> None:
    """Of the targets only projection is told apart on values of features."""
    found = resolve(series(semconv.FEATURE_VALUE, feature_name="pc1", drift_target=other))
    assert found is not None
    assert found.target == Target("feature", "pc1")
    assert resolve(series(semconv.FEATURE_VALUE, drift_target="projection")) is None
