"""What doctor says of a program that it sees from inside, beyond the set-ups that its page shows."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from opentelemetry.exporter.prometheus import PrometheusMetricReader
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from sklearn.linear_model import LogisticRegression

import otel_ml
from otel_ml import Baseline, pipeline
from otel_ml.cli.doctor import inside, judgement
from otel_ml.cli.doctor.environment import libraries
from otel_ml.cli.doctor.finding import Finding

X = pd.DataFrame({"a": np.linspace(0, 1, 1000), "b": np.linspace(5, 9, 1000)})


def found(*said: str) -> dict[str, Finding]:
    """What is found now, by its first line."""
    assert inside.flush(10.0)
    seen, models = inside.look()
    return {one.what: one for one in judgement.check(seen, models, libraries(), said)}


def baseline(columns: list[str] | None = None, **identity: str) -> Baseline:
    """A baseline of some columns."""
    return Baseline.fit(
        X if columns is None else X[columns], **{"model": "churn", "version": "3", **identity}
    )


def test_a_provider_without_a_reader() -> None:
    """A MeterProvider alone collects nothing, and is named."""
    pipeline.use(meter_provider=MeterProvider(shutdown_on_exit=False))
    otel_ml.observe(model="churn", version="3", baseline=baseline())(len)(X)
    [what] = [what for what, one in found().items() if one.broken]
    assert what == "the MeterProvider (opentelemetry.sdk.metrics._internal.MeterProvider) has no reader"


def test_a_registered_model_that_is_never_called(reader: InMemoryMetricReader) -> None:
    """A baseline of another version is told before the first prediction."""
    model = LogisticRegression().fit(X, X["a"] > 0.5)
    otel_ml.register(model, name="churn", version="4", baseline=baseline(["a"]))
    told = found()
    assert "the baseline of churn 4 is one of churn 3" in told
    assert not told["no prediction was made"].broken
    [seen] = inside.look()[0].models
    assert (seen.operations, seen.calls, seen.registered) == ([], 0, True)


def test_columns_that_the_baseline_does_not_have(reader: InMemoryMetricReader) -> None:
    """Both sides of the difference are named."""
    otel_ml.observe(model="churn", version="3", baseline=baseline(), features=["a", "c"])(len)(X.to_numpy())
    told = found()["the baseline of churn 3 is of other columns than the model"]
    assert told.why == "only the model has 'c'; only the baseline has 'b'"


def test_a_baseline_behind_prometheus_alone() -> None:
    """It works, and the collector needs the file: a note."""
    page = PrometheusMetricReader()
    try:
        pipeline.use(meter_provider=MeterProvider([page], shutdown_on_exit=False))
        otel_ml.observe(model="churn", version="3", baseline=baseline())(len)(X)
        told = found()
    finally:
        page.shutdown()
    assert not told["the baseline of churn 3 does not leave by Prometheus"].broken
    assert [one for one in told.values() if one.broken] == []


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        (
            "baseline 'x.json' cannot be read (No such file); make it with Baseline.fit(…).save(…); the model is "
            "observed without a baseline",
            ("baseline 'x.json' cannot be read (No such file)",
             "make it with Baseline.fit(…).save(…); the model is observed without a baseline"),
        ),
        (
            "model m version 1: the feature 'b' is not in the input; its rows count as missing",
            ("model m version 1: the feature 'b' is not in the input",
             "give the model the columns it was trained on, or make a new baseline from those it gets"),
        ),
        ("something new", ("something new", "look it up in docs/troubleshooting.md")),
    ],
)  # fmt: skip
def test_every_warning_is_a_problem(
    said: str, expected: tuple[str, str], reader: InMemoryMetricReader
) -> None:
    """What otel-ml logs stands there with a way out."""
    otel_ml.observe(model="m", version="1")(len)(X)
    [one] = [one for one in found(said).values() if one.broken]
    assert (one.what, one.todo) == expected


def test_an_imported_library_of_another_version(reader: InMemoryMetricReader) -> None:
    """It explains that nothing is observed, so that is not said besides."""
    seen, models = inside.look()
    old = [
        replace(one, version="1.4.2", supported=False) if one.name == "scikit-learn" else one
        for one in libraries()
    ]
    told = list(judgement.check(seen, models, old, ()))
    assert [one.what for one in told] == ["scikit-learn 1.4.2 is not instrumented"]


def test_failed_exports_are_told_in_their_words() -> None:
    """The exporter's message is the reason; without one, that the flush did not end."""
    [one] = judgement.check_exports(
        ["Failed to export metrics to localhost:1, error code: UNAVAILABLE"], True
    )
    assert one.why == "Failed to export metrics to localhost:1, error code: UNAVAILABLE"
    [one] = judgement.check_exports(["harmless"], False)
    assert one.what == "the last export did not end in time"
    assert list(judgement.check_exports(["harmless"], True)) == []


@pytest.mark.parametrize(
    ("calls", "samples", "said", "expected"),
    [
        (0, True, ["Failed to export traces to localhost:1"], None),
        (1, False, ["harmless"], []),
        (1, False, ["Failed to export span batch code: 404, reason: Not Found"], ["traces"]),
        (1, True, ["Failed to export traces to localhost:1"], ["traces", "logs"]),
        (1, True, ["Failed to export logs batch code: 404, reason: Not Found"], ["logs"]),
    ],
)
def test_signals_that_are_sent(
    calls: int, samples: bool, said: list[str], expected: list[str] | None
) -> None:
    """What an exporter could not deliver was sent, and a sampler sends events; without a call, nobody knows."""
    assert judgement.sent(inside.Inside(calls=calls, samples=samples), said) == expected
