"""Rows by stratum: a rate for each, or an expected number of each a minute.

Q rows of a stratum a minute: p = min(1, h·Q/max(N̂, seen)) with h = 1 + 1.65/√Q + 1.5/Q, N̂ the rows of the smallest of
the last three minutes that had any, `seen` this minute's rows with this call's. While traffic
does not fall, h is what Q kept rows need for fewer than Q to be kept in one minute of twenty only. A stratum smaller
than its quota is kept whole.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .. import _guard, semconv
from ..columns import Column, category, is_missing, series
from ..errors import ConfigurationError
from ..model import Model
from ..prediction import Prediction
from .decision import STRATUM, Decision, Stateful, positive, share
from .window import Window

MAX_STRATA = 100
"""Strata that have numbers of their own, beside those that `rates` names; all others are one, `__other__`."""
LABEL = "label"
By = str | Callable[[Prediction], Any]


class Stratified(Stateful):
    """Rows by the stratum they are in.

    - `by`: a feature's name, "label" for the predicted label, or a function of the prediction that gives (n,)
      names. Rows without a value are the stratum `__missing__`.
    - `rates`: share of rows by stratum. `rate`: that of every other stratum.
    - `per_minute`: instead of `rate`, the number of rows of every other stratum to keep each minute, in each
      process; of a stratum that has fewer, all.
    """

    def __init__(
        self,
        by: By,
        *,
        rate: float | None = None,
        rates: Mapping[str, float] | None = None,
        per_minute: float | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__()
        if (rate is None) == (per_minute is None):
            raise ConfigurationError(
                f"Stratified(by={by!r}, rate={rate}, per_minute={per_minute}): give either rate, a share, or "
                "per_minute, a number of rows; rates= is beside both"
            )
        if not isinstance(by, str) and not callable(by):
            raise ConfigurationError(
                f"Stratified(by={by!r}): give the name of one feature, {LABEL!r}, or a function of the prediction"
            )
        self.by = by
        self.rate = None if rate is None else share("rate", rate)
        self.rates = {category(name): share(f"rates[{name!r}]", r) for name, r in (rates or {}).items()}
        self.per_minute = None if per_minute is None else positive("per_minute", per_minute)
        self._wanted = 0.0 if per_minute is None else per_minute + 1.65 * math.sqrt(per_minute) + 1.5
        self._clock = clock
        self._minutes: dict[str, Window] = {}

    def check(self, model: Model) -> None:
        """`ConfigurationError` when the model has no such feature."""
        known = model.feature_names or (() if model.baseline is None else model.baseline.columns)
        if isinstance(self.by, str) and self.by != LABEL and known and self.by not in known:
            raise ConfigurationError(
                f"Stratified(by={self.by!r}): model {model.name} has no such feature; it has {_some(known)}"
            )

    def __call__(self, prediction: Prediction) -> Decision:
        if prediction.rows == 1:
            return self._all_of(self._value(prediction), 1)
        n, values = prediction.rows, self._values(prediction)
        if values is None:
            return self._all_of(None, n)
        if len(values) != n:
            raise ValueError(f"by={self.by!r} gave {len(values)} strata for {n} rows")
        minute = int(self._clock() // 60)
        distinct, codes = strata(values)
        rows = np.bincount(codes, minlength=len(distinct)).tolist()
        with self._lock:
            for name, count in zip(distinct, rows, strict=True):  # first all rows: several may be `__other__`
                self._of(name, count, minute)
            found = [self._of(name, 0, minute) for name in distinct]
        names = np.array([name for name, _ in found], dtype=object)
        p = np.array([one for _, one in found], dtype=np.float64)
        return Decision(p[codes], STRATUM, names[codes])

    def _all_of(self, value: object, rows: int) -> Decision:
        """Every row is in the stratum of `value`."""
        name = (_of_number if type(value) in (float, int) else category_of)(value)
        minute = int(self._clock() // 60)
        with self._lock:
            name, every = self._of(name, rows, minute)
        return Decision(every, STRATUM, name)

    def _value(self, prediction: Prediction) -> object:
        """What the only row has."""
        if not callable(self.by) and self.by != LABEL:
            return prediction.value(self.by)
        values = self._values(prediction)
        if values is not None and len(values) != 1:
            raise ValueError(f"by={self.by!r} gave {len(values)} strata for 1 rows")
        return None if values is None else values[0]

    def _values(self, prediction: Prediction) -> Column | None:
        if callable(self.by):
            return series(self.by(prediction))
        if self.by == LABEL:
            return prediction.outcome.labels
        found = prediction.column(self.by)
        if found is None and prediction.error_type is None:
            _guard.say_once(
                f"strata:{prediction.model.name}:{self.by}",
                "model %s: its input has no column %r to take strata from; its rows are all in %s",
                prediction.model.name, self.by, semconv.MISSING_STRATUM,
            )  # fmt: skip
        return found

    def _of(self, name: str, rows: int, minute: int) -> tuple[str, float]:
        """What a stratum counts as, and the probability of its rows; `rows` of them are new. Under the lock."""
        fixed = self.rates.get(name)
        if fixed is not None:
            return name, fixed
        window = self._minutes.get(name)
        if window is None:
            if len(self._minutes) >= MAX_STRATA:
                name = semconv.OTHER
            window = self._minutes.setdefault(name, Window())
        if self.rate is not None:
            return name, self.rate
        window.add(rows, minute)
        return name, min(1.0, self._wanted / max(min(window.past, default=0.0), window.seen, 1.0))


def category_of(value: object) -> str:
    """The stratum of one value."""
    return semconv.MISSING_STRATUM if is_missing(value) else category(value)


_of_number = lru_cache(maxsize=1024, typed=True)(category_of)  # most strata that are numbers come again


def strata(values: Column) -> tuple[list[str], NDArray[np.intp]]:
    """The distinct strata of a column, and which of them each row is in."""
    if values.dtype.kind in "iufb":
        found, codes = np.unique(values, return_inverse=True)
        return [category_of(value) for value in found], codes
    listed: list[Any] = list(values) if values.dtype.kind in "Mm" else values.tolist()
    if bool in (kinds := set(map(type, listed))) and len(kinds) > 1:  # True and 1 are one key, and two strata
        listed = list(map(category_of, listed))
    try:
        place = {value: i for i, value in enumerate(dict.fromkeys(listed))}
    except TypeError:  # unhashable values
        listed = list(map(category_of, listed))
        place = {value: i for i, value in enumerate(dict.fromkeys(listed))}
    codes = np.fromiter(map(place.__getitem__, listed), dtype=np.intp, count=len(listed))
    return [category_of(value) for value in place], codes


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:10]) + (", …" if len(names) > 10 else "")
