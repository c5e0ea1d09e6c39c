"""Tests of a service's own telemetry: what its model records, as plain values, with nothing to set up.

Run it, or give it to pytest:

    python examples/test_churn.py

It prints what pytest prints: a dot for each test.
"""

from collections.abc import Iterator

import numpy as np
import pytest

import otel_ml
from otel_ml import sampling
from otel_ml.testing import Recorded, Violation, recorded

# --- the application; yours is a module that the tests import ---------------------------------------------

random = np.random.default_rng(0)
X_train = {"age": random.uniform(18, 80, 5000), "plan": random.choice(["basic", "family"], 5000)}
baseline = otel_ml.Baseline.fit(X_train, model="churn", version="3")


@otel_ml.observe(
    model="churn", version="3", baseline=baseline, sampler=sampling.When(sampling.failed), capture_features=["age"]
)  # fmt: skip
def predict(X: dict[str, list]) -> list[float]:
    return [1 / age for age in X["age"]]


# --- its tests --------------------------------------------------------------------------------------------


@pytest.fixture
def seen() -> Iterator[Recorded]:
    """Everything that a test records."""
    with recorded() as seen:
        yield seen


def test_a_call_is_recorded(seen: Recorded) -> None:
    """One call, one prediction, one span, under the model's name and version."""
    predict({"age": [20.0, 40.0], "plan": ["basic", "family"]})
    [prediction] = seen.predictions
    assert (prediction.model, prediction.version, prediction.rows) == ("churn", "3", 2)
    assert prediction.scores == (0.05, 0.025)
    assert [span.name for span in seen.spans] == ["predict churn"]


def test_features_are_those_of_training(seen: Recorded) -> None:
    """What the service sends its model has the columns, types and values that it was trained on."""
    predict({"age": [20.0, 40.0, 60.0], "plan": ["basic", "family", "basic"]})
    assert seen.violations == []
    assert seen.features["age"].states == {"ok": 3}
    assert seen.features["plan"].categories == {"basic": 2, "family": 1}


def test_a_renamed_column_is_noticed(seen: Recorded) -> None:
    """This is how a mistake in the service would look."""
    predict({"age": [20.0], "tariff": ["basic"]})
    assert seen.violations == [
        Violation("churn", "3", "extra", "tariff", 1),
        Violation("churn", "3", "missing", "plan", 1),
    ]


def test_failures_leave_an_event(seen: Recorded) -> None:
    """The sampler keeps the rows of calls that raised, with the features that may leave."""
    with pytest.raises(ZeroDivisionError):
        predict({"age": [0.0], "plan": ["basic"]})
    [prediction], [event] = seen.predictions, seen.events
    assert prediction.error == "ZeroDivisionError"
    assert event.features == {"age": 0.0}


def test_feedback_names_the_prediction(seen: Recorded) -> None:
    """The truth that the service tells later is there, too."""
    otel_ml.feedback(label="left", prediction="stayed", model="churn", version="3", source="billing")
    [truth] = seen.feedback
    assert (truth.label, truth.source) == ("left", "billing")


if __name__ == "__main__":
    raise SystemExit(pytest.main([__file__, "-q", "-p", "no:cacheprovider"]))
