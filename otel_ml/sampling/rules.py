"""Rows that a rule picks out: failed and slow calls, features that are missing or out of range, or your own."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..baseline import Baseline
from ..columns import Column, aligned, is_missing
from ..errors import ConfigurationError
from ..model import Model
from ..prediction import Prediction
from ..summary import NumericSummary
from .decision import RULE, Decision, Sampler, check, positive, share

Bools = NDArray[np.bool_]
Rule = Callable[[Prediction], Any]
"""From a prediction to one bool for the whole call, or to (n,) bools."""


class When(Sampler):
    """`rate` of the rows for which `rule` is true, and none of the others.

    With another sampler, as in `any_of(When(failed), Random(0.01))`, every row has a chance and estimates from
    the kept rows speak of all.
    """

    def __init__(self, rule: Rule, *, rate: float = 1.0) -> None:
        if not callable(rule) or rule in _MAKERS:
            raise ConfigurationError(
                f"When({rule!r}): a rule is a function of the prediction, such as sampling.failed, or what "
                "sampling.missing() or sampling.slower_than(0.5) makes"
            )
        self.rule = rule
        self.rate = share("rate", rate)
        self._none, self._all = Decision(0.0, RULE), Decision(self.rate, RULE)

    def check(self, model: Model) -> None:
        """`ConfigurationError` when the rule does not suit the model."""
        check(self.rule, model)

    def __call__(self, prediction: Prediction) -> Decision:
        found = self.rule(prediction)
        if isinstance(found, (bool, np.bool_)):
            return self._all if found else self._none
        chosen = np.asarray(found, dtype=bool)
        if chosen.shape != (prediction.rows,):
            raise ValueError(f"the rule {self.rule!r} gave shape {chosen.shape} for {prediction.rows} rows")
        if len(chosen) == 1:
            return self._all if chosen[0] else self._none
        return Decision(np.where(chosen, self.rate, 0.0), RULE)


def failed(prediction: Prediction) -> bool:
    """Calls that raised."""
    return prediction.error_type is not None


def slower_than(seconds: float) -> Rule:
    """Calls that took longer than so many seconds."""
    return _SlowerThan(positive("seconds", seconds))


def missing(*features: str) -> Rule:
    """Rows in which one of the features has no value (None, NaN, NaT) or is not there; without names, any feature."""
    return _Missing(_names(features))


def out_of_range(*features: str) -> Rule:
    """Rows in which a number lies beyond the limits that the baseline has for it, infinities included; without
    names, of any feature."""
    return _OutOfRange(_names(features))


def _names(features: tuple[str, ...]) -> tuple[str, ...]:
    if not all(isinstance(name, str) for name in features):
        raise ConfigurationError(
            f"{features!r} are not all names of features; write missing('age', 'income')"
        )
    return features


_MAKERS: tuple[object, ...] = (missing, out_of_range, slower_than)


@dataclass(frozen=True, slots=True)
class _SlowerThan:
    seconds: float

    def __call__(self, prediction: Prediction) -> bool:
        return prediction.duration > self.seconds * 1e9


@dataclass(frozen=True, slots=True)
class _Missing:
    features: tuple[str, ...]

    def check(self, model: Model) -> None:
        known = model.feature_names or (() if model.baseline is None else model.baseline.columns)
        if known and not set(self.features) <= set(known):
            raise _no_feature(f"missing{self.features!r}", model, set(self.features) - set(known))

    def __call__(self, prediction: Prediction) -> bool | Bools:
        rows = prediction.input
        if rows is None:
            return False
        matrix = None if self.features else rows.matrix
        if matrix is not None:
            return _nan_in_row(matrix) if len(matrix) == 1 else np.asarray(np.isnan(matrix).any(axis=1))
        if prediction.rows == 1:
            return any(is_missing(rows.value(name)) for name in self.features or rows.names)
        return _any_of(prediction.rows, (_absent(prediction, name) for name in self.features or rows.names))


@dataclass(frozen=True, slots=True)
class _OutOfRange:
    features: tuple[str, ...]

    def check(self, model: Model) -> None:
        limits = _limits(model)
        if not limits or not set(self.features) <= set(limits):
            raise _no_feature(f"out_of_range{self.features!r}", model, set(self.features) - set(limits))

    def __call__(self, prediction: Prediction) -> Bools:
        limits = _limits(prediction.model)
        chosen = self.features or tuple(limits)
        return _any_of(
            prediction.rows,
            (_beyond(prediction.column(name), limits[name]) for name in chosen if name in limits),
        )


def _limits(model: Model) -> dict[str, tuple[float, float]]:
    return {} if model.baseline is None else _limits_of(model.baseline)


@lru_cache(maxsize=64)
def _limits_of(baseline: Baseline) -> dict[str, tuple[float, float]]:
    """Limits of the baseline's numbers; kept, for to make them takes longer than a prediction."""
    numeric = {name: one for name, one in baseline.features.items() if isinstance(one, NumericSummary)}
    return {name: summary.limits for name, summary in numeric.items()}


def _nan_in_row(matrix: NDArray[Any]) -> bool:
    """Whether the only row has a NaN; to look for a byte takes a fifth of what `any` takes."""
    return matrix.dtype.kind == "f" and 1 in np.isnan(matrix).tobytes()


def _absent(prediction: Prediction, name: str) -> Bools | None:
    column = prediction.column(name)
    if column is None:
        return np.ones(prediction.rows, dtype=bool)
    if column.dtype.kind in "iubf":
        return np.asarray(np.isnan(column))
    return np.fromiter(map(is_missing, column.tolist()), dtype=bool, count=len(column))


def _beyond(column: Column | None, limits: tuple[float, float]) -> Bools | None:
    if column is None:
        return None
    values = column if column.dtype.kind in "iuf" else aligned(column)[0]
    return np.asarray((values < limits[0]) | (values > limits[1]))


def _any_of(rows: int, masks: Iterable[Bools | None]) -> Bools:
    found = np.zeros(rows, dtype=bool)
    for mask in masks:
        if mask is not None:
            found |= mask
    return found


def _no_feature(rule: str, model: Model, unknown: set[str]) -> ConfigurationError:
    what = f"no feature {', '.join(sorted(unknown))}" if unknown else "no baseline with numbers"
    return ConfigurationError(f"{rule}: model {model.name} has {what} that this rule could look at")
