"""What the kept rows say of all rows: totals, means, proportions and quantiles, with how sure that is.

Rows were kept independently, row i with probability p_i; w_i = 1/p_i. Sums are over the kept rows.

- total: Ŷ = Σ w y, variance Σ (1 - p) w² y² (Horvitz & Thompson [1]); y = 1 counts the rows.
- mean: ȳ = Σ w y / Σ w, variance Σ (1 - p) w² (y - ȳ)² / (Σ w)², the first term of its Taylor series (Hájek [2, §5.7]).
- proportion: Wilson's interval [3] at Kish's [4] n_eff = (Σ w)²/Σ w².
- quantile: where the weighted distribution reaches q; its interval is that of the proportion below it, read off the
  same distribution (Woodruff [5]).

[1] Horvitz & Thompson 1952, JASA 47. [2] Särndal, Swensson & Wretman 1992, Model Assisted Survey Sampling.
[3] Wilson 1927, JASA 22. [4] Kish 1965, Survey Sampling, §11.7. [5] Woodruff 1952, JASA 47.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
_ROUNDING = 1 - 1e-10
"""A sum of weights that ends a hair below its target has reached it."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """A number about all rows, made from some of them."""

    value: float
    standard_error: float
    interval: tuple[float, float]
    """Lower and upper end at the level asked for."""


def total(values: Any, probabilities: Any, *, level: float = 0.95) -> Estimate:
    """Sum over all rows of what the (k,) kept rows have; a value of 1 each counts the rows.

    Raises `ValueError` as `mean` does.
    """
    y, p = _read(values, probabilities, level, least=0)
    found = float((y / p).sum())
    error = math.sqrt(float(((1.0 - p) * (y / p) ** 2).sum()))
    return _normal(found, error, level)


def mean(values: Any, probabilities: Any, *, level: float = 0.95) -> Estimate:
    """Mean over all rows, from the (k,) values of the kept ones and the probabilities they were kept with.

    Raises `ValueError` when there is no row, the lengths differ, a value is not finite, or a probability is
    not in (0, 1]: rows kept under a hard limit have none, and say nothing of the others.
    """
    y, p = _read(values, probabilities, level)
    w = 1.0 / p
    found = float(np.average(y, weights=w))
    error = math.sqrt(float(((1.0 - p) * (w * (y - found)) ** 2).sum())) / float(w.sum())
    return _normal(found, error, level)


def proportion(chosen: Any, probabilities: Any, *, level: float = 0.95) -> Estimate:
    """Share of all rows for which `chosen`, (k,) booleans of the kept rows, is true.

    The interval holds where few or none of the kept rows are chosen. Raises `ValueError` as `mean` does, and for
    anything but booleans, 0 and 1: a row whose truth is not known is neither.
    """
    given = np.asarray(chosen)
    if not bool(np.isin(given, (0, 1)).all()):
        raise ValueError(
            "chosen holds more than booleans; compare first: labels == 'yes', of rows with a label"
        )
    y, p = _read(given, probabilities, level)
    found = mean(y, p, level=level)
    return Estimate(found.value, found.standard_error, _wilson(found.value, _effective(p), level))


def quantile(values: Any, q: float, probabilities: Any, *, level: float = 0.95) -> Estimate:
    """The `q` quantile of all rows, from the (k,) values of the kept ones.

    Its standard error is the half width of the interval over that of the normal distribution. Raises
    `ValueError` as `mean` does, and for a `q` that is not between 0 and 1.
    """
    if not 0.0 < q < 1.0:
        raise ValueError(f"q={q!r} is not between 0 and 1")
    y, p = _read(values, probabilities, level)
    order = np.argsort(y, kind="stable")
    y, w = y[order], 1.0 / p[order]
    ends = _wilson(q, _effective(p), level)
    places = np.searchsorted(np.cumsum(w), np.array([ends[0], q, ends[1]]) * w.sum() * _ROUNDING)
    low, middle, high = y[np.minimum(places, len(y) - 1)].tolist()
    return Estimate(middle, (high - low) / (2 * _z(level)), (low, high))


def _read(values: Any, probabilities: Any, level: float, least: int = 1) -> tuple[Floats, Floats]:
    y, p = np.asarray(values, dtype=np.float64), np.asarray(probabilities, dtype=np.float64)
    if y.ndim != 1 or y.shape != p.shape:
        raise ValueError(
            f"values of shape {y.shape} and probabilities of shape {p.shape}; give one of each a kept row"
        )
    if len(y) < least:
        raise ValueError("no row was kept, so nothing is known of the others")
    if not np.isfinite(y).all():
        raise ValueError("a value is missing or infinite; leave its row out, or put a number in its place")
    if not bool(((p > 0.0) & (p <= 1.0)).all()):
        raise ValueError("a probability is not above 0 and at most 1; rows kept under a hard limit have none")
    if not 0.0 < level < 1.0:
        raise ValueError(f"level={level!r} is not between 0 and 1")
    return y, p


def _effective(p: Floats) -> float:
    """How many rows, all of one weight, would say as much."""
    w = 1.0 / p
    return float(w.sum()) ** 2 / float((w**2).sum())


def _z(level: float) -> float:
    return NormalDist().inv_cdf((1.0 + level) / 2.0)


def _normal(value: float, error: float, level: float) -> Estimate:
    half = _z(level) * error
    return Estimate(value, error, (value - half, value + half))


def _wilson(share: float, n: float, level: float) -> tuple[float, float]:
    z2 = _z(level) ** 2
    centre = share + z2 / (2 * n)
    half = math.sqrt(z2 * share * (1.0 - share) / n + (z2 / (2 * n)) ** 2)
    return max((centre - half) / (1.0 + z2 / n), 0.0), min((centre + half) / (1.0 + z2 / n), 1.0)
