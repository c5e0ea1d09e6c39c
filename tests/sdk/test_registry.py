"""Identities of model objects: by the object itself, and by fingerprint for its copies."""

from __future__ import annotations

import copy
import gc
import logging
import pickle
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler

from otel_ml import Baseline, BaselineError, ConfigurationError, config, registry
from otel_ml.registry import fingerprint, lookup, register

X = np.random.default_rng(0).normal(size=(40, 2))
y = (X[:, 0] > 0).astype(int)

churn = partial(register, name="churn", version="3")


def fitted(**parameters: Any) -> LogisticRegression:
    return LogisticRegression(**parameters).fit(X, y)


def test_an_object_is_what_it_was_registered_as() -> None:
    """Name, version, variant and role come back, and nothing is set on the object."""
    model = fitted()
    before = dict(vars(model))
    register(model, name="churn", version="3", variant="b", role="shadow")
    found = lookup(model)
    assert found is not None
    assert (found.name, found.version, found.variant, found.role) == ("churn", "3", "b", "shadow")
    assert vars(model) == before


def test_an_object_that_nobody_registered_is_unknown() -> None:
    """No registration, no identity, also beside a registered object."""
    assert lookup(fitted()) is None
    churn(fitted(C=2.0))
    assert lookup(fitted(C=3.0)) is None


def test_a_second_registration_replaces_the_first() -> None:
    """The last word about an object counts."""
    model = fitted()
    churn(model)
    register(model, name="churn", version="4")
    assert lookup(model).version == "4"  # type: ignore[union-attr]


@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))])
def test_copies_are_found(duplicate: Any) -> None:
    """A deep copy and an unpickled model are the model, also when the original is gone."""
    model = fitted()
    churn(model)
    other = duplicate(model)
    assert lookup(other) is lookup(model)
    del model
    gc.collect()
    assert lookup(other).name == "churn"  # type: ignore[union-attr]


def test_copies_of_two_identities_with_one_fingerprint_are_unregistered_and_it_is_said_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Where a copy could be either of two versions it is neither; the registered objects stay known."""
    third, fourth = fitted(), fitted()
    register(third, name="churn", version="3")
    register(fourth, name="churn", version="4")
    with caplog.at_level(logging.WARNING, "otel_ml"):
        assert [lookup(copy.deepcopy(third)), lookup(copy.deepcopy(fourth))] == [None, None]
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert [lookup(third).version, lookup(fourth).version] == ["3", "4"]  # type: ignore[union-attr]


def test_one_identity_on_two_objects_is_not_ambiguous() -> None:
    """Registering a model and its twin under one name and version keeps copies known."""
    churn(first := fitted())
    churn(second := fitted())
    assert lookup(copy.deepcopy(first)).version == "3"  # type: ignore[union-attr]
    assert lookup(second).version == "3"  # type: ignore[union-attr]


def test_a_model_registered_before_it_was_fitted_has_its_copies_found_afterwards() -> None:
    """`fitted` takes note of what an object has become."""
    model = LogisticRegression()
    churn(model)
    model.fit(X, y)
    assert lookup(copy.deepcopy(model)) is None
    registry.fitted(model)
    assert lookup(copy.deepcopy(model)) is lookup(model)


def test_an_object_that_took_the_place_of_a_dead_one_is_not_mistaken_for_it() -> None:
    """An identity goes with its object, though another object may get the same id()."""
    model = fitted()
    churn(model)
    del model
    gc.collect()
    assert registry._by_id == {}
    assert [lookup(fitted(C=c)) for c in (2.0, 3.0, 4.0)] == [None, None, None]


def test_an_object_without_weak_references_is_known_too() -> None:
    """A class with slots is kept alive instead, so that its id() is not given to another."""

    class Slotted:
        __slots__ = ()

    model = Slotted()
    churn(model)
    assert lookup(model).name == "churn"  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("obj", "options", "message"),
    [
        (LogisticRegression, {}, "not the class LogisticRegression; pass the fitted model"),
        (fitted(), {"role": "blue"}, "role='blue' is not known; use one of live, shadow, canary"),
        (fitted(), {"spans": "none"}, "spans='none' is not known; use one of all, sampled, off"),
        (fitted(), {"baseline": {}}, "baseline must be a Baseline or the path of its file, not dict"),
    ],
)
def test_a_wrong_argument_is_refused(obj: object, options: dict[str, Any], message: str) -> None:
    """What cannot be right is said at once, with the way out."""
    with pytest.raises(ConfigurationError, match=message):
        churn(obj, **options)


def test_a_baseline_is_taken_as_it_is_or_from_its_file(tmp_path: Path) -> None:
    """A `Baseline` and the path of one give the same."""
    rows = np.random.default_rng(1).normal(size=(600, 2))
    baseline = Baseline.fit(rows, model="churn", version="3", features=["a", "b"])
    baseline.save(tmp_path / "churn.baseline.json")
    for source in (baseline, tmp_path / "churn.baseline.json", str(tmp_path / "churn.baseline.json")):
        model = fitted()
        churn(model, baseline=source)
        assert lookup(model).baseline == baseline  # type: ignore[union-attr]


def test_a_baseline_that_cannot_be_read_raises_only_when_asked_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """By default each such file is one log line and the model is registered without."""
    files = [tmp_path / "one.json", tmp_path / "two.json"]
    with pytest.raises(BaselineError):
        churn(fitted(), baseline=files[0])
    monkeypatch.setenv("OTEL_PYTHON_ML_RAISE", "0")
    config.settings.cache_clear()
    model = fitted()
    with caplog.at_level(logging.WARNING, "otel_ml"):
        for file in [*files, *files]:
            churn(model, baseline=file)
    assert [str(file) in record.getMessage() for file, record in zip(files, caplog.records, strict=True)] == [
        True, True,
    ]  # fmt: skip
    assert lookup(model).baseline is None  # type: ignore[union-attr]


# --- fingerprint ------------------------------------------------------------------------------------------


def identity(value: Any) -> Any:
    return value


def test_the_fingerprint_is_the_same_in_another_process(tmp_path: Path) -> None:
    """No addresses and no order of hashes: pods of one deployment agree on the version."""
    pipeline = make_pipeline(
        FunctionTransformer(np.log1p), StandardScaler(), LogisticRegression(class_weight={0: 1.0, 1: 2.0})
    ).fit(np.abs(X), y)
    file = tmp_path / "pipeline.pickle"
    file.write_bytes(pickle.dumps(pipeline))
    program = (
        "import pickle, sys; from otel_ml.registry import fingerprint;"
        "print(fingerprint(pickle.load(open(sys.argv[1], 'rb'))))"
    )
    other = subprocess.run(
        [sys.executable, "-c", program, str(file)], capture_output=True, text=True, check=True
    )
    assert other.stdout.strip() == fingerprint(pipeline)


@pytest.mark.parametrize(
    "other",
    [
        LogisticRegression(C=2.0).fit(X, y),
        LogisticRegression().fit(X, y + 1),
        LogisticRegression().fit(X, y.astype(str)),
        LogisticRegression(),
        make_pipeline(LogisticRegression()).fit(X, y),
    ],
)
def test_other_parameters_classes_or_class_give_another_fingerprint(other: Any) -> None:
    """What copies share is what the fingerprint is made of."""
    assert fingerprint(other) != fingerprint(fitted())


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (np.array([1.0, 2.0]), np.array([1.0, 3.0])),
        ({"a"}, {"b"}),
        ([1, [2]], [1, [3]]),
        ({"a": 1}, {"a": 2}),
        (identity, fitted),
        (np.array(["a", None], dtype=object), np.array(["b", None], dtype=object)),
        (1, 1.0),
        (np.log, np.log1p),
    ],
)
def test_parameters_of_every_kind_count(one: Any, other: Any) -> None:
    """Arrays, sets, nested lists, dicts and functions are told apart by what they hold."""
    first, second = (FunctionTransformer(kw_args={"value": value}) for value in (one, other))
    assert fingerprint(first) != fingerprint(second)
    assert fingerprint(first) == fingerprint(copy.deepcopy(first))


def test_an_object_without_parameters_has_a_fingerprint() -> None:
    """Any class will do: a fingerprint is of the class alone when there is nothing else."""

    class Plain:
        @property
        def classes_(self) -> list[int]:
            raise RuntimeError("not fitted")

    assert fingerprint(Plain()) == fingerprint(Plain())
