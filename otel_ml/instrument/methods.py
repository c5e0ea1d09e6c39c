"""What stands around a method: recording what it answers, or keeping what runs inside from being a prediction.

One call of a user is one prediction, however many models take part in it: what runs inside an observed call, or inside
a fit, passes straight through.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from .. import _guard
from ..observer import NOTHING, Observer, _Nothing, owner
from ..patch import Around
from ..snapshot import row_count
from ..wrap import Input, _guarded
from . import estimators
from .calls import SCORING, EstimatorCall


def first(args: tuple[Any, ...], kwargs: dict[str, Any]) -> object:
    """What is given first: the input, of nearly every method that predicts."""
    if len(args) > 1:
        return args[1]
    named = (kwargs[name] for name in ("X", "data") if name in kwargs)
    return next(named, next(iter(kwargs.values()), None))


def predicting(operation: str, base: type, *, native: bool = False, rows_of: Input = first) -> Around:
    """Around a method whose outermost call is a prediction, on objects that are a `base`.

    As what a `native` object is heard inside another's call, its library says.
    """
    scoring, heard = native or operation in SCORING, _heard_natively if native else _heard
    alone, pick = rows_of is first, _guarded(rows_of)

    def around(function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            outer = owner.get()
            running = outer[0] if isinstance(outer, list) else outer
            if running is not None and not (isinstance(running, Observer) and running.decorated):
                if scoring and isinstance(outer, EstimatorCall) and outer.listening:
                    return heard(outer, operation, function, args, kwargs)
                return function(*args, **kwargs)
            # a mixin's method can belong to a class that is no estimator
            if not args or not isinstance(args[0], base):
                return function(*args, **kwargs)
            rows = args[1] if alone and len(args) > 1 else pick(args, kwargs)
            begun = _begun(operation, running, rows, args, kwargs)
            if begun is None:
                return function(*args, **kwargs)
            if isinstance(begun, _Nothing):  # its parts are no predictions of their own
                return suppressing(function)(*args, **kwargs)
            return begun.observer.call(function, args, kwargs, rows, begun)

        return call

    return around


def _begun(
    operation: str, decorated: Observer | None, rows: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> EstimatorCall | _Nothing | None:
    """A call to observe; None when it is part of the call of a decorated function, NOTHING when we failed."""
    try:
        if decorated is not None and not estimators.speaks_in(args[0], decorated.model):
            return None
        return estimators.call(args[0], operation, args, kwargs)
    except Exception as error:
        _guard.failed("describe", error, row_count(rows, None))
        return NOTHING


def _heard(
    outer: EstimatorCall, operation: str, function: Callable[..., Any], args: Any, kwargs: dict[str, Any]
) -> Any:
    output = function(*args, **kwargs)
    try:
        outer.hear(args[0], operation, output)
    except Exception as error:
        _guard.failed("nested", error)
    return output


def _heard_natively(
    outer: EstimatorCall, operation: str, function: Callable[..., Any], args: Any, kwargs: dict[str, Any]
) -> Any:
    output = function(*args, **kwargs)
    try:
        if outer.depth(args[0]) is not None:
            reading = estimators.reading(args[0], operation, args, kwargs)
            if reading in SCORING:
                outer.hear(args[0], reading, output)
    except Exception as error:
        _guard.failed("nested", error)
    return output


def suppressing(function: Callable[..., Any]) -> Callable[..., Any]:
    def call(*args: Any, **kwargs: Any) -> Any:
        token = owner.set(NOTHING)
        try:
            return function(*args, **kwargs)
        finally:
            owner.reset(token)

    return call


def suppressing_each(function: Callable[..., Any]) -> Callable[..., Any]:
    """A generator runs in the context of whoever asks it for more, so only its own steps are suppressed."""

    def call(*args: Any, **kwargs: Any) -> Iterator[Any]:
        step = suppressing(function(*args, **kwargs).__next__)
        while True:
            try:
                value = step()
            except StopIteration:
                return
            yield value

    return call


def training(function: Callable[..., Any]) -> Callable[..., Any]:
    suppressed = suppressing(function)

    def call(*args: Any, **kwargs: Any) -> Any:
        try:
            return suppressed(*args, **kwargs)
        finally:
            if args:
                with _guard.guard("fit"):
                    estimators.forget(args[0])

    return call
