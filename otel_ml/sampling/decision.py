"""What a sampler is and what it answers: each row's inclusion probability, and why."""

from __future__ import annotations

import os
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, NamedTuple
from weakref import WeakSet

import numpy as np
from numpy.typing import NDArray

from .. import semconv
from ..errors import ConfigurationError
from ..model import Model
from ..prediction import Prediction

Floats = NDArray[np.float64]
Names = NDArray[np.object_]
RANDOM, STRATUM, UNCERTAINTY, RULE = semconv.SAMPLING_REASONS


class Decision(NamedTuple):
    """How likely each of a call's n rows is kept; the coin comes later, once for each row."""

    probability: float | Floats
    """In [0, 1]; one for all rows, or (n,)."""
    reason: str | NDArray[np.int8]
    """One of `semconv.SAMPLING_REASONS` for all rows, or (n,) positions in it."""
    stratum: str | Names | None = None
    """One for all rows, or (n,) of str."""
    bucket: Callable[[int], int] | None = None
    """A hard limit: of so many kept rows, how many may stay. Rows that went through it carry no probability."""


class Sampler(ABC):
    """Base of the samplers here; any callable from a prediction to a decision is a sampler.

    A sampler may use the call's rows, the whole batch and what came before. It never flips a coin, so that
    the probability it gives is the one a row really has. It is called from many threads.
    """

    hard = False
    """True when its kept rows carry no probability."""

    @abstractmethod
    def __call__(self, prediction: Prediction) -> Decision:
        """Decide on the rows of one call."""

    def check(self, model: Model) -> None:  # noqa: B027  # most samplers suit every model
        """Raise `ConfigurationError` when this sampler can say nothing about `model`."""


SamplerLike = Callable[[Prediction], Decision]


def check(sampler: SamplerLike, model: Model) -> None:
    """Raise `ConfigurationError` when `sampler`, or a rule or sampler inside it, does not suit `model`."""
    look = getattr(sampler, "check", None)
    if look is not None:
        look(model)


class Stateful(Sampler):
    """A sampler that remembers, behind a lock that does not outlive a fork and does not travel in a pickle."""

    def __init__(self) -> None:
        self._renew()

    def _renew(self) -> None:
        self._lock = threading.RLock()  # re-entrant: a signal handler can predict while this thread holds it
        _stateful.add(self)

    def __getstate__(self) -> dict[str, Any]:
        return {key: value for key, value in self.__dict__.items() if key != "_lock"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._renew()


_stateful: WeakSet[Stateful] = WeakSet()


def _renew_locks() -> None:
    for sampler in list(_stateful):
        sampler._renew()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew_locks)  # a thread that held one does not exist in the child


_NUMBERS = (int, float, np.integer, np.floating)


_RULES = f"{__package__}.rules"


def usable(where: str, sampler: object) -> None:
    """`ConfigurationError` unless `sampler` is one: a class, a name or None would fail on every call."""
    if isinstance(sampler, type) or not callable(sampler):
        raise ConfigurationError(
            f"{where}{sampler!r} is no sampler; give it one, such as otel_ml.sampling.Random(0.01)"
        )
    if not isinstance(sampler, Sampler) and getattr(sampler, "__module__", None) == _RULES:
        raise ConfigurationError(
            f"{where}{sampler!r} is a rule; give it to a sampler: otel_ml.sampling.When(…)"
        )


def share(name: str, value: object) -> float:
    """`value` as a float; `ConfigurationError` unless it is from 0 to 1."""
    if not isinstance(value, _NUMBERS) or not 0.0 <= value <= 1.0:
        raise ConfigurationError(f"{name}={value!r} is not a share of rows; give a number from 0 to 1")
    return float(value)


def positive(name: str, value: object) -> float:
    """`value` as a float; `ConfigurationError` unless it is above 0 and finite."""
    if not isinstance(value, _NUMBERS) or not 0.0 < value < float("inf"):
        raise ConfigurationError(f"{name}={value!r} is not a number above 0")
    return float(value)
