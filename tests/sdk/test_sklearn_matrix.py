"""Every scikit-learn estimator that has `predict`: instrumented it is what it was, and each call is one emission."""

from __future__ import annotations

import copy
import inspect
import io
import pickle
from collections.abc import Callable, Iterator
from typing import Any

import cloudpickle
import estimators
import joblib
import numpy as np
import pytest
from estimators import CANNOT_RUN, DENSITIES, OPERATIONS, Case
from instrumented import Spans
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from sklearn.base import clone
from support import Points

import otel_ml

pytestmark = [
    # tiny data does not converge, and what is deprecated is still to be observed
    pytest.mark.filterwarnings("ignore::UserWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::RuntimeWarning"),
]

CASES = estimators.cases()


@pytest.fixture(params=sorted(CASES.keys() - CANNOT_RUN.keys()))
def case(request: pytest.FixtureRequest) -> Case:
    """One estimator."""
    return CASES[request.param]


@pytest.fixture(autouse=True)
def _random_numbers() -> Iterator[None]:
    """numpy's global generator is left as it was found."""
    state = np.random.get_state()
    yield
    np.random.set_state(state)


@pytest.fixture
def switch(spans: InMemorySpanExporter) -> Iterator[Callable[[], Spans]]:
    """Instruments scikit-learn when it is called; gives the spans that are made from then on."""

    def on() -> Spans:
        otel_ml.instrument()
        return Spans(spans)

    yield on
    otel_ml.uninstrument()


def test_the_matrix_is_complete() -> None:
    """Every estimator is here, and those that are not run exist and say why."""
    assert len(CASES) >= 115
    assert CANNOT_RUN.keys() <= CASES.keys()
    assert all(CANNOT_RUN.values())


# --- emissions and answers ----------------------------------------------------------------------------------


def _fitted(case: Case) -> Any:
    np.random.seed(1)  # for the few that take no random_state
    return case.fit()


def _offered(model: Any) -> list[str]:
    return [name for name in OPERATIONS if hasattr(model, name)]


def _answers(model: Any, case: Case) -> dict[str, Any]:
    """What every operation answers, and evaluation and a fit_predict after them."""
    answers = {name: getattr(model, name)(case.data.X) for name in _offered(model)}
    if hasattr(model, "score"):
        answers["score"] = model.score(case.data.X, case.data.y)
    if hasattr(case.make(), "fit_predict"):
        answers["fit_predict"] = case.make().fit_predict(case.data.X, case.data.y)
    return answers


def _same(one: Any, other: Any) -> bool:
    if type(one) is not type(other):
        return False
    if isinstance(one, (list, tuple)):  # an array for every output
        return len(one) == len(other) and all(map(_same, one, other))
    return np.array_equal(one, other, equal_nan=np.asarray(one).dtype.kind in "fc")


def test_each_call_is_one_emission_and_a_fit_or_a_score_is_none(
    case: Case, switch: Callable[[], Spans], collect: Callable[[], Points]
) -> None:
    """One span and one call in the metrics for every operation; fit, fit_predict and score leave nothing."""
    spans = switch()
    model = _fitted(case)
    if hasattr(model, "score"):
        model.score(case.data.X, case.data.y)
    if hasattr(case.make(), "fit_predict"):
        case.make().fit_predict(case.data.X, case.data.y)
    assert spans.names() == []
    expected = [name for name in _offered(model) if not (name == "score_samples" and case.name in DENSITIES)]
    for name in _offered(model):
        getattr(model, name)(case.data.X)
        assert [said.partition(" ")[0] for said in spans.names()] == [name] * (name in expected)
    points = collect()
    rows = {p.attributes["ml.operation.name"]: p.value for p in points["ml.inference.rows"]}
    calls = {p.attributes["ml.operation.name"]: p.count for p in points["ml.inference.duration"]}
    assert rows == dict.fromkeys(expected, len(case.data.X))
    assert calls == dict.fromkeys(expected, 1)


def test_the_answers_are_those_of_the_library_alone(case: Case, switch: Callable[[], Spans]) -> None:
    """Trained and asked under instrumentation, it answers to the last bit what it answers without."""
    alone = _answers(_fitted(case), case)
    switch()
    observed = _answers(_fitted(case), case)
    assert observed.keys() == alone.keys()
    assert [name for name in alone if not _same(alone[name], observed[name])] == []


# --- the object ---------------------------------------------------------------------------------------------


def _has(model: Any, name: str) -> bool | str:
    try:
        return hasattr(model, name)
    except Exception as error:  # some properties of unfitted estimators
        return repr(error)


def _looks(model: Any) -> dict[str, Any]:
    """Everything by which a program can tell what sort of object `model` is, without calling it."""
    pickle.dumps(model)  # leaves `__slotnames__` in the class, the first time
    names = sorted({*dir(model), *OPERATIONS, "score", "fit_predict", "transform"})
    has = {name: _has(model, name) for name in names}
    methods = [name for name in (*OPERATIONS, "fit", "score", "fit_predict") if has.get(name) is True]
    return {
        "dir": dir(model),
        "hasattr": has,
        "hasattr of the class": {name: hasattr(type(model), name) for name in names},
        "state": sorted(vars(model)),
        "repr": repr(model),
        "signatures": {name: str(inspect.signature(getattr(model, name))) for name in methods},
        "docstrings": {name: getattr(model, name).__doc__ for name in methods},
        "names": {name: getattr(model, name).__qualname__ for name in methods},
    }


def _bytes(model: Any) -> list[bytes]:
    return [pickle.dumps(model), cloudpickle.dumps(model), _dumped(model)]


def _dumped(model: Any) -> bytes:
    buffer = io.BytesIO()
    joblib.dump(model, buffer)
    return buffer.getvalue()


def test_the_object_looks_as_before(case: Case, switch: Callable[[], Spans]) -> None:
    """hasattr, dir, state, signatures, docstrings and pickled bytes are the same, fitted or not."""
    pickled = pickle.dumps(_fitted(case))
    alone, observed, unfitted = pickle.loads(pickled), pickle.loads(pickled), case.make()
    _answers(alone, case)  # some keep something of their calls
    before = _looks(unfitted), _looks(alone), _bytes(unfitted), _bytes(alone)
    switch()
    _answers(observed, case)
    after = _looks(unfitted), _looks(observed), _bytes(unfitted), _bytes(observed)
    assert [part for part in range(4) if after[part] != before[part]] == []


COPIES: dict[str, Callable[[Any], Any]] = {
    "pickle": lambda model: pickle.loads(pickle.dumps(model)),
    "joblib": lambda model: joblib.load(io.BytesIO(_dumped(model))),
    "cloudpickle": lambda model: pickle.loads(cloudpickle.dumps(model)),
    "deepcopy": copy.deepcopy,
    "copy": copy.copy,
}


def test_its_copies_answer_as_it_does(case: Case, switch: Callable[[], Spans]) -> None:
    """Pickled or copied in any way, whole or as a bound method, it answers the same, with one emission each."""
    alone = _fitted(case)
    expected = alone.predict(case.data.X)
    spans = switch()
    for way in COPIES.values():
        assert _same(way(alone).predict(case.data.X), expected)
        assert _same(way(alone.predict)(case.data.X), expected)
    assert [name.partition(" ")[0] for name in spans.names()] == ["predict"] * 2 * len(COPIES)


def test_its_clone_learns_the_same(case: Case, switch: Callable[[], Spans]) -> None:
    """A clone has the same parameters, is not fitted, and answers the same once it is."""
    alone = _fitted(case)
    expected = alone.predict(case.data.X)
    spans = switch()
    cloned = clone(alone)
    assert repr(cloned) == repr(alone)
    assert sorted(vars(cloned)) == sorted(vars(case.make()))
    np.random.seed(1)
    assert _same(cloned.fit(case.data.X, case.data.y).predict(case.data.X), expected)
    assert len(spans.names()) == 1
