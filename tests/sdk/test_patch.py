"""Patched classes: pickles, conditional methods, signatures and odd members stay as they were."""

from __future__ import annotations

import copy
import gc
import inspect
import logging
import pickle
import sys
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cloudpickle
import numpy as np
import pytest
import sklearn
from instrumented import KMeansLike, Spans, X, fitted, run, y
from sklearn import svm
from sklearn.base import BaseEstimator, ClassifierMixin, clone
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.metaestimators import available_if

import otel_ml
from otel_ml import config


class Conditional(ClassifierMixin, BaseEstimator):
    """A user's class with a method that only some instances have."""

    def __init__(self, probabilities: bool = True) -> None:
        self.probabilities = probabilities

    def fit(self, X: Any, y: Any) -> Conditional:
        self.classes_ = np.unique(y)
        return self

    def predict(self, X: Any, *, sample_weight: Any = None) -> Any:
        return self.classes_[(np.asarray(X)[:, 0] > 0).astype(int)]

    @available_if(lambda self: self.probabilities)
    def predict_proba(self, X: Any) -> Any:
        """Chances."""
        return np.full((len(X), 2), 0.5)


PICKLED: dict[str, Callable[[], Any]] = {
    "model": fitted,
    "bound method": lambda: fitted().predict,
    "method of a pipeline": lambda: (
        make_pipeline(StandardScaler(), LogisticRegression()).fit(X, y).predict_proba
    ),
    "method of a class": lambda: LogisticRegression.predict,
}


@pytest.mark.parametrize("dumps", [pickle.dumps, cloudpickle.dumps])
@pytest.mark.parametrize("kind", PICKLED)
def test_models_and_their_methods_pickle_and_need_nothing_of_ours(
    kind: str, dumps: Any, instrumented: Spans
) -> None:
    """What was pickled here can be read where otel-ml is not installed, and does the same."""
    thing = PICKLED[kind]()
    data = dumps(thing)
    assert b"otel_ml" not in data
    again = pickle.loads(data)
    call = {"model": lambda m: m.predict(X), "method of a class": lambda m: m(fitted(), X)}.get(
        kind, lambda m: m(X)
    )
    np.testing.assert_array_equal(call(again), call(thing))


def test_a_class_pickled_by_value_is_whole_and_is_observed_where_it_arrives(
    instrumented: Spans, tmp_path: Path
) -> None:
    """A notebook's class with conditional methods arrives in another process and is instrumented there."""

    class Notebook(Conditional):
        def predict(self, X: Any) -> Any:
            return super().predict(X)

        @available_if(lambda self: self.probabilities)
        def predict_proba(self, X: Any) -> Any:
            return np.full((len(X), 2), 0.25)

    cloudpickle.register_pickle_by_value(sys.modules[__name__])
    try:
        data = cloudpickle.dumps([Notebook(True).fit(X, y), Notebook(False).fit(X, y), Notebook.predict])
    finally:
        cloudpickle.unregister_pickle_by_value(sys.modules[__name__])
    (tmp_path / "models").write_bytes(data)
    program = """
import pickle, sys
import numpy as np
import otel_ml
from otel_ml.observer import Observer
calls, call = [], Observer.call
def spy(self, *arguments):
    calls.append(self.operation)
    return call(self, *arguments)
Observer.call = spy
otel_ml.instrument()
one, two, predict = pickle.load(open(sys.argv[1], 'rb'))
one.predict(np.ones((2, 3))); one.predict_proba(np.ones((2, 3))); two.predict(np.ones((2, 3)))
print(calls, hasattr(one, 'predict_proba'), hasattr(two, 'predict_proba'))
"""
    assert run(program, str(tmp_path / "models")) == "['predict', 'predict_proba', 'predict'] True False"


def test_conditional_methods_stay_conditional(instrumented: Spans) -> None:
    """hasattr says of an instance what it said before, with scikit-learn's own error."""
    with_probabilities = make_pipeline(StandardScaler(), LogisticRegression())
    without = make_pipeline(StandardScaler(), svm.LinearSVC())
    assert [hasattr(p, "predict_proba") for p in (with_probabilities, without)] == [True, False]
    assert [hasattr(Conditional(flag), "predict_proba") for flag in (True, False)] == [True, False]
    with pytest.raises(AttributeError, match="has no attribute 'predict_proba'"):
        without.predict_proba  # noqa: B018
    assert Conditional.predict_proba.__doc__ == "Chances."


def test_clones_and_deep_copies_are_made_as_before(instrumented: Spans) -> None:
    """clone gives an unfitted twin, deepcopy a fitted one."""
    model = make_pipeline(StandardScaler(), LogisticRegression(C=2.0)).fit(X, y)
    np.testing.assert_array_equal(copy.deepcopy(model).predict(X), model.predict(X))
    assert clone(model).get_params()["logisticregression__C"] == 2.0
    with pytest.raises(NotFittedError):
        clone(model).predict(X)
    assert copy.deepcopy(LogisticRegression.predict) == LogisticRegression.predict


def test_methods_look_like_the_functions_they_are() -> None:
    """Signature, name, documentation, kind and metadata routing are those of the bare methods."""

    def looks() -> list[object]:
        methods = [LogisticRegression.predict, fitted().predict, Conditional(True).predict_proba]
        return [
            [inspect.signature(method) for method in methods],
            [(method.__name__, method.__qualname__, method.__doc__, method.__module__) for method in methods],
            [inspect.isfunction(methods[0]), inspect.ismethod(methods[1]), inspect.getsource(methods[1])],
            repr(Conditional().get_metadata_routing()),
            Conditional.set_predict_request.__doc__,
        ]

    bare = looks()
    otel_ml.instrument()
    try:
        assert looks() == bare
    finally:
        otel_ml.uninstrument()


def test_classes_written_after_us_ask_for_metadata_as_before(instrumented: Spans) -> None:
    """A late class gets the set_*_request methods that scikit-learn derives from its signatures."""

    class Late(Conditional):
        def predict(self, X: Any, *, groups: Any = None) -> Any:
            return super().predict(X)

    with sklearn.config_context(enable_metadata_routing=True):
        routed = Late().set_predict_request(groups=True)
        assert routed.get_metadata_routing().predict.requests == {"groups": True}


def test_late_classes_their_mixins_and_their_super_calls_are_one_emission(instrumented: Spans) -> None:
    """A class written after us is observed where it defines the method, in a mixin too, once a call."""

    class Mixin:
        def predict(self, X: Any) -> Any:
            return super().predict(X)  # type: ignore[misc]

    class Late(Mixin, KMeansLike):
        def predict(self, X: Any) -> Any:
            return super().predict(X)

    class Inheriting(Mixin, KMeansLike):
        pass

    Late().fit(X, y).predict(X)
    Inheriting().fit(X, y).predict(X)
    assert instrumented.names() == ["predict Late", "predict Inheriting"]


def test_a_mixin_in_a_class_that_is_no_estimator_is_not_observed(instrumented: Spans) -> None:
    """Only estimators make predictions."""

    class Mixin:
        def predict(self, X: Any) -> Any:
            return len(X)

    class Estimator(Mixin, BaseEstimator):
        pass

    class Plain(Mixin):
        pass

    assert [Plain().predict(X), Estimator().predict(X)] == [80, 80]
    assert instrumented.names() == ["predict Estimator"]


def test_odd_things_named_predict_are_left_alone(instrumented: Spans) -> None:
    """Properties, static methods, nested classes and coroutine functions stay what they are."""

    class Odd(BaseEstimator):
        class predict:  # noqa: N801
            pass

        predict_proba = property(lambda self: lambda X: "probabilities")

        @staticmethod
        def decision_function(X: Any) -> str:
            return "decision"

        async def score_samples(self, X: Any) -> str:
            return "later"

    assert isinstance(Odd().predict(), Odd.predict)
    assert [Odd().predict_proba(X), Odd().decision_function(X)] == ["probabilities", "decision"]
    assert inspect.iscoroutinefunction(Odd.score_samples)
    assert instrumented.names() == []


def test_an_abstract_method_stays_abstract(instrumented: Spans) -> None:
    """A late abstract class can still not be instantiated."""
    from abc import ABC, abstractmethod

    class Abstract(BaseEstimator, ABC):
        @abstractmethod
        def predict(self, X: Any) -> Any: ...

    with pytest.raises(TypeError, match="abstract"):
        Abstract()


def test_an_exception_passes_untouched_and_is_recorded(instrumented: Spans) -> None:
    """The caller gets scikit-learn's own exception, the span its type."""
    with pytest.raises(NotFittedError, match="not fitted yet"):
        LogisticRegression().predict(X)
    with pytest.raises(TypeError, match="missing 1 required positional argument: 'X'"):
        fitted().predict()
    with pytest.raises(TypeError, match="missing 2 required positional arguments"):
        LogisticRegression.predict()
    seen = instrumented.take()
    assert [span.attributes["error.type"].rpartition(".")[2] for span in seen] == [
        "NotFittedError",
        "TypeError",
    ]


def test_a_failure_of_ours_costs_only_the_record(
    instrumented: Spans, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """An estimator that cannot be described still predicts, with one log line."""

    class Broken(KMeansLike):
        def get_params(self, deep: bool = True) -> dict[str, Any]:
            raise RuntimeError("no parameters today")

    monkeypatch.setenv("OTEL_PYTHON_ML_RAISE", "0")
    config.settings.cache_clear()
    model = Broken().fit(X, y)
    with caplog.at_level(logging.ERROR, "otel_ml"):
        assert len(model.predict(X)) == len(model.predict(X)) == 80
    assert len(caplog.records) == 1


def test_a_class_of_the_user_can_be_collected(instrumented: Spans) -> None:
    """Patching a class does not keep it alive."""

    def make() -> weakref.ref[type]:
        class Short(KMeansLike):
            def predict(self, X: Any) -> Any:
                return super().predict(X)

        Short().fit(X, y).predict(X)
        return weakref.ref(Short)

    reference = make()
    gc.collect()
    assert reference() is None
