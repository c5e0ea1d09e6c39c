"""Rows the model is unsure of more often than others, at a rate that holds while the distribution drifts.

Budget ρ, debt D (rows that the budget allowed and were not expected to be kept), u + 0.001 in place of u, for rows
that are certain to a thousandth are equally certain: r = clip(ρ + D/H, ρ/5, ρ/β), β = 0.2, H = 2000 rows.

- A call of 64 rows or more: b = max(floor, β·r), and c such that the mean of p = min(1, b + c·u) is r.
- Fewer rows: p = min(1, max(floor, r·(β + (1 - β)·u/ū))), ū the exponentially weighted mean over 1000 rows, this
  call's included, of min(u, ū·(1/r - β)/(1 - β)): a row counts up to where its p reaches 1. What it had beyond that
  would be lost to the rate, a third of it when one row of three hundred is in doubt.

Then D += ρ·rows - Σp, within ±H·ρ·(1/β - 1). Expected numbers, not kept ones: p never depends on a coin.
"""

from __future__ import annotations

import math

import numpy as np

from .. import _guard, uncertainty
from ..errors import ConfigurationError
from ..model import Model
from ..prediction import Prediction
from .decision import UNCERTAINTY, Decision, Floats, Stateful, share

BASE = 0.2
"""β: the part of the rate that goes to all rows alike, so that certain ones are seen too."""
HORIZON = 2000
"""H: rows over which a debt is paid back."""
MEMORY = 1000
"""Rows that the mean uncertainty reaches back."""
BATCH = 64
"""Rows from which on a call holds the rate by itself."""
RESOLUTION = 0.001
"""Added to every uncertainty: smaller differences between certain rows do not matter."""


class Uncertainty(Stateful):
    """`rate` of all rows, those the model is least sure of first; each row with probability `floor` or more.

    `measure` is least_confidence, margin or entropy. Rows of which the output does not tell have probability
    `floor`. Estimates from the kept rows need their probabilities as weights.
    """

    def __init__(self, measure: str = "margin", *, rate: float | None = None, floor: float = 0.001) -> None:
        super().__init__()
        if rate is None:
            raise ConfigurationError(
                f"Uncertainty({measure!r}) needs the share of rows to keep; write Uncertainty({measure!r}, rate=0.02)"
            )
        if measure not in uncertainty.MEASURES:
            raise ConfigurationError(f"Uncertainty({measure!r}) is none of {', '.join(uncertainty.MEASURES)}")
        self.measure = measure
        self.rate = share("rate", rate)
        self.floor = share("floor", floor)
        if rate in (0.0, 1.0) or floor > rate:
            raise ConfigurationError(
                f"rate={rate!r} must be above 0 and below 1, and not below floor={floor!r}"
            )
        self._debt = 0.0
        self._mean = 0.0
        self._seen = 0

    def check(self, model: Model) -> None:
        """`ConfigurationError` when the model is no classifier, so that it gives no probabilities."""
        if model.task not in (None, "classification"):
            raise ConfigurationError(
                f"Uncertainty({self.measure!r}): model {model.name} does {model.task} and gives no class "
                "probabilities; sample it with Random or Stratified"
            )

    def __call__(self, prediction: Prediction) -> Decision:
        if prediction.rows == 1:
            u = prediction.row_uncertainty(self.measure)
            p: float | Floats = self._row(u) if u == u else self.floor
            unknown = int(u != u)
        else:
            p, unknown = self._rows_of(prediction.uncertainty(self.measure))
        if unknown and prediction.error_type is None:
            self._say_unknown(prediction, unknown)
        return Decision(p, UNCERTAINTY)

    def _rows_of(self, u: Floats) -> tuple[Floats, int]:
        """Rows of unknown uncertainty are outside the budget: nothing makes up for them, nor they for others."""
        missing = np.isnan(u)
        if not missing.any():
            return self._rows(u), 0
        p = np.full(len(u), self.floor)
        p[~missing] = self._rows(u[~missing])
        return p, int(np.count_nonzero(missing))

    def _row(self, u: float) -> float:
        u += RESOLUTION
        with self._lock:
            rate = self._current_rate()
            full = self._full(rate)
            self._remember(u if u < full else full, 1)
            p = rate * (BASE + (1.0 - BASE) * u / self._mean)
            p = self.floor if p < self.floor else 1.0 if p > 1.0 else p
            self._owe(self.rate - p)
        return p

    def _rows(self, u: Floats) -> Floats:
        n = len(u)
        if n == 0:
            return u
        u = u + RESOLUTION
        with self._lock:
            rate = self._current_rate()
            self._remember(float(np.minimum(u, self._full(rate)).mean()), n)
            if n >= BATCH:
                p = shares(u, rate, max(self.floor, BASE * rate))
            else:
                p = np.clip(rate * (BASE + (1.0 - BASE) * u / self._mean), self.floor, 1.0)
            self._owe(self.rate * n - float(p.sum()))
        return p

    def _remember(self, mean: float, rows: int) -> None:
        if self._seen < MEMORY:
            self._seen = min(self._seen + rows, MEMORY)
        self._mean += min(rows / self._seen, 1.0) * (mean - self._mean)

    def _full(self, rate: float) -> float:
        """The uncertainty from which on a row is kept for certain."""
        return self._mean * (1.0 / rate - BASE) / (1.0 - BASE) if self._seen else math.inf

    def _current_rate(self) -> float:
        wanted = self.rate + self._debt / HORIZON
        return min(max(wanted, self.rate / 5), self.rate / BASE, 1.0)

    def _owe(self, rows: float) -> None:
        most = HORIZON * self.rate * (1.0 / BASE - 1.0)
        self._debt = min(max(self._debt + rows, -most), most)

    def _say_unknown(self, prediction: Prediction, rows: int) -> None:
        _guard.drop("unknown_uncertainty", rows)
        _guard.say_once(
            f"uncertainty:{prediction.model.name}:{prediction.operation}",
            "model %s: %s gives no class probabilities, so that its uncertainty is not known; its rows are kept with "
            "probability %s. Observe predict_proba, or give observe() a score= that is one",
            prediction.model.name, prediction.operation, self.floor,
        )  # fmt: skip


def shares(u: Floats, rate: float, base: float) -> Floats:
    """p = min(1, base + c·u) with mean `rate`, or `base` where that is more; every `u` above 0."""
    n, full = len(u), np.zeros(len(u), dtype=bool)
    if base >= rate or rate >= 1.0:
        return np.full(n, max(base, rate))
    while True:  # c only grows as rows fill up, so those that are full stay so
        k = int(np.count_nonzero(full))
        room = rate * n - k - base * (n - k)
        p = np.where(full, 1.0, base + room / float(u.sum(where=~full)) * u)
        over = p > 1.0
        if not over.any():
            return p
        full |= over
