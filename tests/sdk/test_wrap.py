"""`observe`: which calls are recorded, with which rows, and what stays as it was."""

from __future__ import annotations

import functools
import inspect
import logging
import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from otel_ml import ConfigurationError, _guard, config, observe, suppress
from otel_ml.observer import Observer

churn = functools.partial(observe, "churn", "3")


@pytest.fixture
def rows(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The rows that the observer was given, call by call."""
    seen: list[Any] = []
    take = Observer.take

    def spy(self: Observer, given: Any) -> Any:
        seen.append(given)
        return take(self, given)

    monkeypatch.setattr(Observer, "take", spy)
    return seen


@observe("module-level", "1")
def at_module_level(X: list[list[float]]) -> list[float]:
    return [sum(row) for row in X]


class Churn:
    """A model of a user, with every kind of method."""

    @churn()
    def predict(self, X: Any) -> Any:
        return [0.5] * len(X)

    @staticmethod
    @churn()
    def static(X: Any) -> Any:
        return [0.5] * len(X)

    @churn()
    @staticmethod
    def over_static(X: Any) -> Any:
        return [0.5] * len(X)

    @classmethod
    @churn()
    def of_class(cls, X: Any) -> Any:
        return [0.5] * len(X)

    @churn()
    @classmethod
    def over_class(cls, X: Any) -> Any:
        return [0.5] * len(X)

    @churn()
    async def later(self, X: Any) -> Any:
        return [0.5] * len(X)


X = [[1.0, 2.0], [3.0, 4.0]]


def test_a_call_makes_one_span_and_returns_what_the_function_returns(spans: InMemorySpanExporter) -> None:
    """A decorated function gives its own result and one span with the model's name and version."""
    assert at_module_level(X) == [3.0, 7.0]
    [span] = spans.get_finished_spans()
    assert span.name == "predict module-level"
    assert (span.attributes["ml.model.name"], span.attributes["ml.model.version"]) == ("module-level", "1")
    assert span.attributes["ml.batch.size"] == 2


@pytest.mark.parametrize("method", ["predict", "static", "over_static", "of_class", "over_class"])
def test_methods_of_every_kind_give_the_argument_after_self(
    method: str, rows: list[Any], spans: InMemorySpanExporter
) -> None:
    """The rows of a method are the first argument after self or cls, positional or by name."""
    assert getattr(Churn(), method)(X) == [0.5, 0.5]
    assert getattr(Churn(), method)(X=X) == [0.5, 0.5]
    assert [given is X for given in rows] == [True, True]
    assert len(spans.get_finished_spans()) == 2


async def test_a_coroutine_function_stays_one_and_is_recorded_when_awaited(
    rows: list[Any], spans: InMemorySpanExporter
) -> None:
    """`async def` is still recognised as such, and its call is recorded once it was awaited."""
    assert inspect.iscoroutinefunction(Churn.later)
    coroutine = Churn().later(X)
    assert spans.get_finished_spans() == ()
    assert await coroutine == [0.5, 0.5]
    assert [given is X for given in rows] == [True]
    assert len(spans.get_finished_spans()) == 1


def test_name_signature_and_docstring_stay(spans: InMemorySpanExporter) -> None:
    """The decorated function looks like the function."""

    def predict(X: list[float], *, threshold: float = 0.5) -> list[bool]:
        """Scores."""
        return [x > threshold for x in X]

    observed = churn()(predict)
    assert (observed.__name__, observed.__doc__) == ("predict", "Scores.")
    assert inspect.signature(observed) == inspect.signature(predict)
    assert observed.__wrapped__ is predict  # type: ignore[attr-defined]


def test_a_decorated_function_of_a_module_pickles() -> None:
    """A decorated function travels by its name, as the function would."""
    assert pickle.loads(pickle.dumps(at_module_level)) is at_module_level


def test_the_exception_of_the_function_passes_untouched(spans: InMemorySpanExporter) -> None:
    """The very exception object arrives, and the span says its type."""
    failure = KeyError("no such customer")

    @churn()
    def predict(X: Any) -> Any:
        raise failure

    with pytest.raises(KeyError) as caught:
        predict(X)
    assert caught.value is failure
    [span] = spans.get_finished_spans()
    assert span.attributes["error.type"] == "KeyError"


def test_wrong_arguments_give_the_functions_own_error(spans: InMemorySpanExporter) -> None:
    """A call that does not fit the signature raises what Python raises without us."""

    @churn()
    def predict(X: Any, threshold: float = 0.5) -> Any:
        return X

    with pytest.raises(TypeError, match="unexpected keyword argument 'treshold'"):
        predict(X, treshold=0.1)
    with pytest.raises(TypeError, match="missing 1 required positional argument: 'X'"):
        predict()
    with pytest.raises(TypeError, match="missing 1 required positional argument: 'X'"):
        Churn().predict()


def test_nothing_is_recorded_while_suppressed(spans: InMemorySpanExporter) -> None:
    """Inside `suppress()` a decorated function is the bare function."""
    with suppress():
        assert at_module_level(X) == [3.0, 7.0]
    assert spans.get_finished_spans() == ()


# --- which argument holds the rows ------------------------------------------------------------------------


def test_the_first_of_several_parameters_holds_the_rows(rows: list[Any]) -> None:
    """With a table first, the other arguments are options."""

    @churn()
    def predict(X: Any, threshold: float = 0.5) -> Any:
        return [0.5] * len(X)

    predict(X, 0.7)
    predict(X, threshold=0.7)
    predict(threshold=0.7, X=X)
    assert [given is X for given in rows] == [True, True, True]


def test_scalar_arguments_together_are_one_row(rows: list[Any]) -> None:
    """Several scalar parameters are one row by their names, with the defaults that took part."""

    @churn()
    def score(age: int, income: float, plan: str = "basic") -> float:
        return 0.5

    score(41, income=np.float32(2.5))
    score(41, 2.5, "gold")
    assert rows == [
        {"age": 41, "income": 2.5, "plan": "basic"},
        {"age": 41, "income": 2.5, "plan": "gold"},
    ]


def test_keyword_arguments_without_names_in_the_signature_are_one_row(rows: list[Any]) -> None:
    """`**features` is the row; beside other scalar parameters it adds to them."""

    @churn()
    def score(**features: float) -> float:
        return 0.5

    @churn()
    def score_with_age(age: int, **features: float) -> float:
        return 0.5

    score(a=1.0, b=2.0)
    score_with_age(41, a=1.0)
    assert rows == [{"a": 1.0, "b": 2.0}, {"age": 41, "a": 1.0}]


def test_a_variable_number_of_positional_arguments_is_one_row_or_the_one_table(rows: list[Any]) -> None:
    """`*values` is a row of its values, and what it holds when it holds one thing."""

    @churn()
    def score(*values: Any) -> float:
        return 0.5

    score(1.0, 2.0)
    score(X)
    assert rows[0] == (1.0, 2.0)
    assert rows[1] is X


def test_a_single_scalar_parameter_is_given_as_it_is(rows: list[Any]) -> None:
    """One parameter is the input whatever it holds."""

    @churn()
    def score(age: int) -> float:
        return 0.5

    score(41)
    assert rows == [41]


def test_input_names_a_parameter(rows: list[Any]) -> None:
    """`input=` picks a parameter that is not the first, by position and by name."""

    @churn(input="X")
    def predict(request: str, X: Any) -> Any:
        return [0.5] * len(X)

    predict("r-1", X)
    predict("r-1", X=X)
    assert [given is X for given in rows] == [True, True]


def test_input_takes_the_default_of_an_argument_that_was_left_out(rows: list[Any]) -> None:
    """A named parameter that the call leaves out has its default as rows."""

    @churn(input="X")
    def predict(request: str, X: Any = X) -> Any:
        return [0.5]

    predict("r-1")
    assert rows[0] is X


def test_input_can_be_a_callable_over_the_calls_arguments(rows: list[Any]) -> None:
    """A callable gets the call's arguments, self among them, and returns the rows."""

    class Service:
        factor = 2

        @churn(input=lambda self, request: [[value * self.factor for value in request["features"]]])
        def predict(self, request: dict[str, Any]) -> float:
            return 0.5

    Service().predict({"features": [1, 2]})
    assert rows == [[[2, 4]]]


def test_an_input_callable_that_fails_does_not_fail_the_call(
    rows: list[Any], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The call goes on without rows, with one log line and a count."""
    monkeypatch.setenv("OTEL_PYTHON_ML_RAISE", "0")
    config.settings.cache_clear()

    @churn(input=lambda request: request["featurs"])
    def predict(request: dict[str, Any]) -> float:
        return 0.5

    with caplog.at_level(logging.ERROR, "otel_ml"):
        assert [predict({"features": 1}), predict({"features": 2})] == [0.5, 0.5]
    assert rows == [None, None]
    assert _guard.errors["input"] == 2
    assert sum("failed in input" in record.getMessage() for record in caplog.records) == 1


# --- what is refused --------------------------------------------------------------------------------------


def _generator(X: Any) -> Iterator[Any]:
    yield X


async def _async_generator(X: Any) -> Any:
    yield X


def _two(X: Any, y: Any) -> Any:
    return X


def _none() -> float:
    return 0.5


@pytest.mark.parametrize(
    ("thing", "options", "message"),
    [
        (Churn, {}, "cannot decorate the class Churn; decorate its predict method"),
        (_generator, {}, "cannot decorate the generator _generator"),
        (_async_generator, {}, "cannot decorate the generator _async_generator"),
        ("predict", {}, "decorates a function, not 'predict'"),
        (_two, {"input": "Z"}, "input='Z' is no parameter of _two; it has: X, y"),
        (_two, {"input": 1}, "input must be the name of a parameter or a callable, not 1"),
        (_two, {"score": 1}, "score must be a callable"),
        (_two, {"spans": "none"}, "spans='none' is not known; use one of all, sampled, off"),
        (_two, {"role": "blue"}, "role='blue' is not known; use one of live, shadow, canary"),
        (_two, {"baseline": 3}, "baseline must be a Baseline or the path of its file, not int"),
        (_none, {}, "_none has no parameter to read the rows from"),
    ],
)
def test_what_cannot_be_right_is_refused_when_it_is_decorated(
    thing: Any, options: dict[str, Any], message: str
) -> None:
    """A mistake in the code is an error at decoration, with what is wrong and the way out."""
    with pytest.raises(ConfigurationError, match=message):
        churn(**options)(thing)


def test_a_decorator_without_its_arguments_says_how_to_write_it() -> None:
    """`@observe` directly on a function names the two arguments that it needs."""
    with pytest.raises(TypeError):
        observe(_two)  # type: ignore[call-arg, arg-type]
    with pytest.raises(ConfigurationError, match="write @observe"):
        observe(_two, "3")  # type: ignore[arg-type]


def test_a_baseline_that_cannot_be_read_is_logged_and_left_out(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    spans: InMemorySpanExporter,
) -> None:
    """The import goes on, one line names the file, a counter counts it, and the calls are recorded."""
    monkeypatch.setenv("OTEL_PYTHON_ML_RAISE", "0")
    config.settings.cache_clear()
    file = tmp_path / "gone.baseline.json"
    with caplog.at_level(logging.WARNING, "otel_ml"):
        predict = churn(baseline=file)(lambda X: [0.5] * len(X))
    assert [str(file) in record.getMessage() for record in caplog.records] == [True]
    assert sum(_guard.errors.values()) == 1
    assert predict(X) == [0.5, 0.5]
    assert len(spans.get_finished_spans()) == 1
