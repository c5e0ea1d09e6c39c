"""Samplers made of samplers: several at once, a limit on what one keeps, another one for a while."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar

import numpy as np
from numpy.typing import NDArray

from .. import semconv
from ..errors import ConfigurationError
from ..model import Model
from ..prediction import Prediction
from .decision import Decision, Names, Sampler, SamplerLike, Stateful, check, positive, usable
from .window import Window

_CODES = {reason: code for code, reason in enumerate(semconv.SAMPLING_REASONS)}


def any_of(*samplers: SamplerLike) -> Sampler:
    """Rows that any of the samplers keeps: p is the largest of theirs, and one coin serves all.

    The reason is that of the sampler with the largest p, the first of equal ones. Raises `ConfigurationError`
    for fewer than two samplers, for one that is none, or when one has a hard limit: that must be around all.
    """
    if len(samplers) < 2:
        raise ConfigurationError(f"any_of needs two samplers or more, not {len(samplers)}")
    for sampler in samplers:
        usable("in any_of ", sampler)
    if any(getattr(sampler, "hard", False) for sampler in samplers):
        raise ConfigurationError("a hard limit inside any_of; put it around: limit(any_of(…), …, hard=True)")
    return _AnyOf(samplers)


class _AnyOf(Sampler):
    def __init__(self, samplers: Sequence[SamplerLike]) -> None:
        self.samplers = tuple(samplers)
        self.measure = next(filter(None, map(measure_of, samplers)), None)

    def check(self, model: Model) -> None:
        for sampler in self.samplers:
            check(sampler, model)

    def __call__(self, prediction: Prediction) -> Decision:
        made = [sampler(prediction) for sampler in self.samplers]
        best, stratum = made[0], None
        for one in made:
            p, reason, found, _ = one
            if type(p) is not float or type(reason) is not str:
                return _by_row(made, prediction.rows)
            if p > best.probability:
                best = one
            if stratum is None:
                stratum = found
        return best if stratum is None or best.stratum is not None else best._replace(stratum=stratum)


def measure_of(sampler: SamplerLike) -> str | None:
    """The measure of uncertainty that a sampler, or the first inside it that has one, goes by."""
    found: str | None = getattr(sampler, "measure", None)
    return found


def _by_row(made: Sequence[Decision], rows: int) -> Decision:
    p = np.array([np.broadcast_to(one.probability, rows) for one in made])
    codes = np.array([_codes(one, rows) for one in made])
    best = p.argmax(axis=0), np.arange(rows)
    return Decision(p[best], codes[best], _stratum(made))


def _stratum(made: Sequence[Decision]) -> str | Names | None:
    return next((one.stratum for one in made if one.stratum is not None), None)


def _codes(decision: Decision, rows: int) -> NDArray[np.int8]:
    reason = decision.reason
    return np.full(rows, _CODES[reason], dtype=np.int8) if isinstance(reason, str) else reason


def limit(
    sampler: SamplerLike,
    *,
    per_minute: float | None = None,
    per_second: float | None = None,
    per_call: float | None = None,
    hard: bool = False,
    clock: Callable[[], float] = time.monotonic,
) -> Sampler:
    """`sampler`, its probabilities scaled down where it would keep more than so many rows, in each process.

    - `per_minute` or `per_second`: Q expected rows in each, by p·min(1, Q/max(N̂, seen)) with N̂ what the sampler
      wanted in the last three that had any, on average, and `seen` what it wants in this one, with this call. Every
      row keeps its chance: of a burst of k times the usual traffic Q·(1 + ln k) rows are expected.
    - `per_call`: expected rows of one call.
    - `hard`: never more than the number, also by chance. What is kept then says nothing of what is not: in a
      burst it is the first rows, so they carry no probability and no estimate can be made from them.

    Raises `ConfigurationError` unless there is a number above 0, of a hard limit 1 or more, and for a hard limit
    inside another limit.
    """
    if per_minute is not None and per_second is not None:
        raise ConfigurationError(
            "limit with both per_minute and per_second; one limit inside another does both"
        )
    if per_minute is None and per_second is None and per_call is None:
        raise ConfigurationError("limit without a number; give per_minute=, per_second= or per_call=")
    if getattr(sampler, "hard", False):
        raise ConfigurationError("a hard limit inside a limit; put it outermost")
    usable("in limit ", sampler)
    names = {"per_minute": per_minute, "per_second": per_second, "per_call": per_call}
    given = {name: positive(name, number) for name, number in names.items() if number is not None}
    few = {name: number for name, number in given.items() if hard and number < 1.0}
    if few:
        raise ConfigurationError(
            f"a hard limit of {few} keeps no row at all; give it 1 or more, or a longer time"
        )
    each = given.get("per_minute", given.get("per_second", math.inf))
    seconds = 60.0 if per_minute is not None else 1.0
    return (_HardLimit if hard else _Limit)(sampler, each, seconds, given.get("per_call", math.inf), clock)


class _Limit(Stateful):
    """`each` rows in so many seconds."""

    def __init__(
        self, sampler: SamplerLike, each: float, seconds: float, per_call: float, clock: Callable[[], float]
    ) -> None:
        super().__init__()
        self.sampler = sampler
        self.measure = measure_of(sampler)
        self._each = each
        self._seconds = seconds
        self._per_call = per_call
        self._clock = clock
        self._window = Window()

    def check(self, model: Model) -> None:
        check(self.sampler, model)

    def __call__(self, prediction: Prediction) -> Decision:
        made = self.sampler(prediction)
        p, n = made.probability, prediction.rows
        wanted = float(p.sum()) if isinstance(p, np.ndarray) else p * n
        scale = min(1.0, self._per_call / wanted) if wanted else 1.0
        if self._each < math.inf:
            scale *= self._share(wanted * scale)
        return made if scale == 1.0 else made._replace(probability=p * scale)

    def _share(self, wanted: float) -> float:
        with self._lock:
            window = self._window
            window.add(wanted, int(self._clock() // self._seconds))
            usual = sum(window.past) / len(window.past) if window.past else 0.0
            most = max(usual, window.seen)
        return self._each / most if most > self._each else 1.0


class _HardLimit(_Limit):
    """After the coin: the first rows that come."""

    hard = True

    def __call__(self, prediction: Prediction) -> Decision:
        return self.sampler(prediction)._replace(bucket=self._stay)

    def _stay(self, kept: int) -> int:
        with self._lock:
            self._window.add(0, int(self._clock() // self._seconds))
            stay = int(min(kept, self._per_call, self._each - self._window.seen))
            self._window.seen += stay
        return stay


override: ContextVar[SamplerLike | None] = ContextVar("otel_ml_sampler", default=None)
"""The sampler that stands in for every other one in this context."""


@contextmanager
def using(sampler: SamplerLike) -> Iterator[None]:
    """Decide by `sampler` on every call inside, whatever sampler its model has.

    Raises `ConfigurationError` when it is none.
    """
    usable("", sampler)
    token = override.set(sampler)
    try:
        yield
    finally:
        override.reset(token)
