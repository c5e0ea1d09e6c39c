"""Who an estimator is: registered, a copy, or named after its class, with a baseline nobody assigned."""

from __future__ import annotations

import copy
import gc
import logging
import pickle
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from instrumented import Spans, X, fitted, y
from sklearn import ensemble
from sklearn.base import clone
from sklearn.cluster import KMeans
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler

from otel_ml import Baseline, config, registry
from otel_ml.instrument import estimators
from otel_ml.instrument.sklearn import describe


def test_a_registered_model_and_its_copies_speak_under_its_name(instrumented: Spans) -> None:
    """register() names the object, its deep copies and what was pickled; a refit keeps the name."""
    model = fitted()
    model.predict(X)
    registry.register(model, name="churn", version="3", variant="b", role="canary")
    model.predict(X)
    copy.deepcopy(model).predict(X)
    pickle.loads(pickle.dumps(model)).predict(X)
    model.fit(X, y + 1).predict(X)
    copy.deepcopy(model).predict(X)
    seen = instrumented.take()
    assert [span.name for span in seen] == ["predict LogisticRegression", *["predict churn"] * 5]
    assert {span.attributes["ml.variant.name"] for span in seen[1:]} == {"b"}


def test_a_copy_that_could_be_two_models_is_unregistered(
    instrumented: Spans, caplog: pytest.LogCaptureFixture
) -> None:
    """Rather no name than the wrong version, said once."""
    one, two = fitted(), fitted()
    registry.register(one, name="churn", version="3")
    registry.register(two, name="churn", version="4")
    with caplog.at_level(logging.WARNING, "otel_ml"):
        copy.deepcopy(one).predict(X)
        copy.deepcopy(two).predict(X)
    assert instrumented.names() == ["predict LogisticRegression"] * 2
    assert len(caplog.records) == 1


def test_spans_of_a_registered_model_can_be_switched_off(instrumented: Spans) -> None:
    """`spans="off"` leaves the metrics only."""
    model = fitted()
    registry.register(model, name="churn", version="3", spans="off")
    model.predict(X)
    assert instrumented.names() == []


def test_an_estimator_is_described_by_what_it_knows() -> None:
    """Name and type of the last step, task, classes and feature names of the whole."""
    frame = pd.DataFrame(X, columns=["age", "income", "tenure"])
    pipeline = Pipeline([("scale", StandardScaler()), ("inner", make_pipeline(LogisticRegression()))])
    model = describe(pipeline.fit(frame, np.where(y, "churned", "stayed")))
    assert (model.name, model.type, model.system, model.task) == (
        "LogisticRegression", "LogisticRegression", "sklearn", "classification",
    )  # fmt: skip
    assert model.classes == ("churned", "stayed")
    assert model.feature_names == ("age", "income", "tenure")


@pytest.mark.parametrize(
    ("estimator", "task"),
    [
        (LinearRegression(), "regression"),
        (ensemble.IsolationForest(n_estimators=2), "outlier"),
        (KMeans(2), "clustering"),
        (StandardScaler(), None),
        (Pipeline([("scale", StandardScaler()), ("last", "passthrough")]), None),
    ],
)
def test_the_task_is_scikit_learns_own_word(estimator: Any, task: str | None) -> None:
    """Regression, outlier, clustering, or nothing for what predicts nothing."""
    assert describe(estimator).task == task


def test_the_automatic_version_tells_models_apart_and_copies_together() -> None:
    """Equal for clones fitted on the same classes and names, different for other parameters or classes."""
    version = describe(fitted()).version
    assert version == describe(clone(fitted()).fit(X, y)).version
    assert version != describe(fitted(C=2.0)).version
    assert version != describe(LogisticRegression().fit(X, y + 1)).version


def test_a_fit_drops_what_was_known(instrumented: Spans) -> None:
    """After a refit on other classes the next call has their version and labels."""
    model = fitted()
    model.predict(X)
    model.fit(X, y + 1)
    model.predict(X)
    first, second = instrumented.take()
    assert first.attributes["ml.model.version"] != second.attributes["ml.model.version"]
    assert describe(model).classes == (1, 2)


def test_what_is_known_goes_with_the_object(instrumented: Spans) -> None:
    """A model that is gone leaves nothing behind, and instrumentation does not keep it alive."""
    model = fitted()
    model.predict(X)
    number, reference = id(model), weakref.ref(model)
    assert number in estimators._known
    del model
    gc.collect()
    assert reference() is None
    assert number not in estimators._known


@pytest.fixture
def baselines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The directory that OTEL_PYTHON_ML_BASELINES names."""
    monkeypatch.setenv("OTEL_PYTHON_ML_BASELINES", str(tmp_path))
    config.settings.cache_clear()
    estimators.reset()
    yield tmp_path
    estimators.reset()


def _baseline(name: str, columns: list[str]) -> Baseline:
    rows = np.random.default_rng(0).normal(size=(600, len(columns)))
    return Baseline.fit(rows, model=name, version="1", features=columns)


def test_a_baseline_in_the_directory_is_found_by_columns_or_by_name(baselines: Path) -> None:
    """A model nobody registered gets the one baseline that has its columns, or else its name."""
    columns, named = _baseline("churn", ["a", "b", "c"]), _baseline("LinearRegression", ["d"])
    columns.save(baselines / "churn.baseline.json")
    named.save(baselines / "linear.baseline.json")
    frame = pd.DataFrame(X, columns=["a", "b", "c"])
    assert describe(LogisticRegression().fit(frame, y)).baseline == columns
    assert describe(LinearRegression().fit(X, y)).baseline == named
    assert describe(LogisticRegression().fit(X, y)).baseline is None


def test_of_several_fitting_baselines_none_is_taken(
    baselines: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A guess could compare with the wrong reference: it is said instead, with the way out."""
    for name in ("churn", "fraud"):
        _baseline(name, ["a", "b", "c"]).save(baselines / f"{name}.json")
    model = LogisticRegression().fit(pd.DataFrame(X, columns=["a", "b", "c"]), y)
    with caplog.at_level(logging.WARNING, "otel_ml"):
        assert describe(model).baseline is None
    assert "2 baselines" in caplog.text
    assert "otel_ml.register" in caplog.text
