"""`observe`: the decorator that records the calls of a function of yours.

What depends on the function (where its input is, whether it is async) is decided once, when it is decorated;
the call itself only picks the input and hands over to `Observer.call`.
"""

from __future__ import annotations

import functools
import inspect
import numbers
from collections.abc import Callable, Sequence
from datetime import date
from os import PathLike
from typing import Any, TypeVar

import numpy as np

from . import _guard
from .baseline import Baseline
from .errors import ConfigurationError
from .events import Redact
from .model import Model
from .observer import Observer
from .recording import Recording, SpanMode
from .registry import check_role, load_baseline
from .sampling import SamplerLike
from .segment import Segment, resolve

F = TypeVar("F", bound=Callable[..., Any])
Input = Callable[[tuple[Any, ...], dict[str, Any]], object]
"""Finds the rows in the arguments of a call."""

MARK = "__otel_ml_observed__"
"""Attribute of a function that `observe` made, so that instrumentation leaves it alone."""


def observe(
    model: str,
    version: str,
    baseline: Baseline | str | PathLike[str] | None = None,
    features: Sequence[str] | None = None,
    *,
    input: str | Callable[..., object] | None = None,  # the word users look for
    score: Callable[..., object] | None = None,
    sampler: SamplerLike | None = None,
    capture_features: Sequence[str] = (),
    redact: Redact | None = None,
    segment: Segment | str | None = None,
    variant: str | None = None,
    role: str = "live",
    operation: str = "predict",
    spans: SpanMode = "all",
) -> Callable[[F], F]:
    """Record every call of the decorated function as a prediction of `model`.

    Works on functions, methods, static and class methods and `async def`.

    model, version: what its telemetry is named after, and drift kept apart by.
    baseline: a `Baseline` or the path of its file; one that cannot be read is logged once and left out.
    features: names of the input's columns, for input that has none.
    input: the parameter that holds the rows, or a callable that gets the call's arguments and returns them.
        Default: the first parameter after self or cls; and when the function has several parameters and a
        call passes only scalars, these arguments are one row.
    score: gets what the function returned and gives the score of each row.
    sampler: which rows are kept as `ml.prediction` events, one of `otel_ml.sampling`; without one none is.
    capture_features: features whose values these events carry; of all others no value leaves.
    redact: sees those values of a row, by name, before they leave and returns those that may.
    segment: what to count rows by as well: a `Segment`, or the name of a column that the baseline has categories of.
    variant: name of this one of several models that answer the same question, such as "challenger".
    role: "live", "shadow" for one whose answers nobody gets, or "canary".
    operation: what the call is named after, with the model, in spans and metrics.
    spans: "all" makes a current span for every call; "sampled" one after the call, of the calls of which the
        sampler keeps a row, or of all when there is no sampler; "off" none.

    Raises `ConfigurationError` on an argument that cannot be right, a class or a generator function.
    """
    if not isinstance(model, str):
        raise ConfigurationError(
            f"observe needs a model name, not {model!r}; write @observe(model='churn', version='3')"
        )
    check_role(role)
    recording = Recording(spans, sampler, capture_features, redact)
    if score is not None and not callable(score):
        raise ConfigurationError(f"score must be a callable that gets the function's result, not {score!r}")
    if input is not None and not isinstance(input, str) and not callable(input):
        raise ConfigurationError(f"input must be the name of a parameter or a callable, not {input!r}")

    def decorate(function: F) -> F:
        loaded, names = load_baseline(baseline), None if features is None else tuple(features)
        unread = baseline is not None and loaded is None
        identity = Model(
            name=model, version=str(version), baseline=loaded, variant=variant, role=role, feature_names=names,
            segment=resolve(segment, model=model, baseline=loaded, unread=unread, names=names),
        )  # fmt: skip
        recording.check_captured(identity)
        observer = Observer(identity, operation=operation, recording=recording, score=score, decorated=True)
        return _wrap(function, observer, input)  # type: ignore[no-any-return]

    return decorate


def _wrap(function: Any, observer: Observer, input: str | Callable[..., object] | None) -> Any:
    if isinstance(function, (staticmethod, classmethod)):
        return type(function)(_wrap(function.__func__, observer, input))
    _refuse_what_cannot_be_observed(function)
    rows_of, position = _input_of(function, input)
    if inspect.iscoroutinefunction(function):
        return _mark(_observed_async(function, observer, rows_of))
    if position is not None:
        return _mark(_observed_at(function, observer, position, rows_of))
    return _mark(_observed(function, observer, rows_of))


def _mark(function: Callable[..., object]) -> Callable[..., object]:
    setattr(function, MARK, True)
    return function


def _refuse_what_cannot_be_observed(function: object) -> None:
    if isinstance(function, type):
        raise ConfigurationError(
            f"observe cannot decorate the class {function.__name__}; decorate its predict method"
        )
    if not callable(function):
        raise ConfigurationError(f"observe decorates a function, not {function!r}")
    if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
        raise ConfigurationError(
            f"observe cannot decorate the generator {_name(function)}: a call of it has no one result; "
            "decorate the function that scores one batch"
        )


def _name(function: object) -> str:
    return getattr(function, "__qualname__", repr(function))


# --- the call ---------------------------------------------------------------------------------------------


def _observed_at(
    function: Callable[..., object], observer: Observer, position: int, rows_of: Input
) -> Callable[..., object]:
    """The short way for f(X): the input is the only parameter, at a known position."""
    call, pick, length = observer.call, _guarded(rows_of), position + 1

    @functools.wraps(function)
    def observed(*args: Any, **kwargs: Any) -> object:
        rows = args[position] if len(args) == length else pick(args, kwargs)
        return call(function, args, kwargs, rows)

    return observed


def _observed(function: Callable[..., object], observer: Observer, rows_of: Input) -> Callable[..., object]:
    call, pick = observer.call, _guarded(rows_of)

    @functools.wraps(function)
    def observed(*args: Any, **kwargs: Any) -> object:
        return call(function, args, kwargs, pick(args, kwargs))

    return observed


def _observed_async(function: Callable[..., Any], observer: Observer, rows_of: Input) -> Callable[..., Any]:
    call, pick = observer.call_async, _guarded(rows_of)

    @functools.wraps(function)
    async def observed(*args: Any, **kwargs: Any) -> object:
        return await call(function, args, kwargs, pick(args, kwargs))

    return observed


# --- where the input is -----------------------------------------------------------------------------------


def _guarded(rows_of: Input) -> Input:
    def pick(args: tuple[Any, ...], kwargs: dict[str, Any]) -> object:
        try:
            return rows_of(args, kwargs)
        except Exception as error:
            _guard.failed("input", error)
            return None

    return pick


def _input_of(
    function: Callable[..., object], input: str | Callable[..., object] | None
) -> tuple[Input, int | None]:
    """How to find the rows, and their position when they are the only argument a call can have."""
    if callable(input):
        return _by_callable(input), None
    signature = _signature(function)
    skip = _receiver(signature)
    parameters = list(signature.parameters)[skip:]
    if input is not None:
        if input not in parameters:
            raise ConfigurationError(
                f"input={input!r} is no parameter of {_name(function)}; "
                f"it has: {', '.join(parameters) or 'none'}"
            )
        return _by_name(signature, input), None
    if not parameters:
        raise ConfigurationError(
            f"{_name(function)} has no parameter to read the rows from; "
            "pass input= as a callable that returns them"
        )
    if len(parameters) > 1:
        return _by_scalars(signature, skip), None
    first = signature.parameters[parameters[0]]
    alone = first.kind in (first.POSITIONAL_ONLY, first.POSITIONAL_OR_KEYWORD)
    return _by_name(signature, first.name), skip if alone else None


def _signature(function: Callable[..., object]) -> inspect.Signature:
    try:
        return inspect.signature(function)
    except (ValueError, TypeError) as error:
        raise ConfigurationError(
            f"the parameters of {_name(function)} cannot be read; "
            "pass input= as a callable that returns the rows"
        ) from error


def _receiver(signature: inspect.Signature) -> int:
    return 1 if next(iter(signature.parameters), None) in ("self", "cls") else 0


def _by_callable(pick: Callable[..., object]) -> Input:
    return lambda args, kwargs: pick(*args, **kwargs)


def _by_name(signature: inspect.Signature, name: str) -> Input:
    parameters = list(signature.parameters)
    position = parameters.index(name)
    kind = signature.parameters[name].kind
    single = kind not in (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)

    def rows_of(args: tuple[Any, ...], kwargs: dict[str, Any]) -> object:
        if single and name in kwargs:
            return kwargs[name]
        if single and kind is not inspect.Parameter.KEYWORD_ONLY and len(args) > position:
            return args[position]
        given = _bind(signature, args, kwargs)
        rows = None if given is None else given.get(name)
        # def predict(*X) called as predict(X) means the one thing it was given
        return rows[0] if isinstance(rows, tuple) and not single and len(rows) == 1 else rows

    return rows_of


def _by_scalars(signature: inspect.Signature, skip: int) -> Input:
    """The first argument, or all of them as one row when each is a scalar."""
    first = _by_name(signature, list(signature.parameters)[skip])

    def rows_of(args: tuple[Any, ...], kwargs: dict[str, Any]) -> object:
        if len(args) > skip and not _is_scalar(args[skip]):
            return first(args, kwargs)
        given = _bind(signature, args, kwargs)
        if given is None:
            return None
        row = _flat(signature, given, skip)
        return row if all(map(_is_scalar, row.values())) else first(args, kwargs)

    return rows_of


def _bind(
    signature: inspect.Signature, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> dict[str, Any] | None:
    """The arguments by parameter; None when they do not fit, which the function itself will say."""
    try:
        bound = signature.bind(*args, **kwargs)
    except TypeError:
        return None
    bound.apply_defaults()
    return bound.arguments


def _flat(signature: inspect.Signature, given: dict[str, Any], skip: int) -> dict[str, Any]:
    row: dict[str, Any] = {}
    for name in list(signature.parameters)[skip:]:
        if signature.parameters[name].kind is inspect.Parameter.VAR_KEYWORD:
            row.update(given[name])
        else:
            row[name] = given[name]
    return row


def _is_scalar(value: Any) -> bool:
    return _is_scalar_type(type(value))  # type: ignore[arg-type]  # mypy takes __hash__ of its instances


@functools.lru_cache(maxsize=256)  # the abstract Number is slow to ask
def _is_scalar_type(kind: type) -> bool:
    return issubclass(kind, (type(None), str, bytes, numbers.Number, np.generic, date))
