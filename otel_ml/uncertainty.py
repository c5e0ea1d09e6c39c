"""How sure a classifier is of each row: three measures of class probabilities, 0 certain to 1 undecided.

- least confidence: (1 - p₁)·K/(K - 1)
- margin: 1 - (p₁ - p₂)
- entropy: -Σ p ln p / ln K

p₁ ≥ p₂ are the two largest of a row's K probabilities. [1] B. Settles, Active Learning Literature Survey, 2009, §3.1.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


def least_confidence(p: Floats) -> Floats:
    """How far the likeliest class is from certain: `p` (n, k) probabilities, to (n,) in [0, 1].

    A row with NaN gives NaN, a single class 0.
    """
    k = p.shape[1]
    return _zero_to_one((1.0 - p.max(axis=1)) * (k / max(k - 1, 1)))


def margin(p: Floats) -> Floats:
    """How close the two likeliest classes are: `p` (n, k) probabilities, to (n,) in [0, 1].

    A row with NaN gives NaN, a single class 0.
    """
    k = p.shape[1]
    if k == 1:
        return least_confidence(p)
    if k == 2:
        return _zero_to_one(1.0 - np.abs(p[:, 0] - p[:, 1]))
    top = np.partition(p, k - 2, axis=1)[:, k - 2 :]  # NaNs go to the end, so to both or to the first
    return _zero_to_one(1.0 - (top[:, 1] - top[:, 0]))


def entropy(p: Floats) -> Floats:
    """How spread the probabilities are over all classes: `p` (n, k) probabilities, to (n,) in [0, 1].

    A row with NaN gives NaN, a single class 0.
    """
    k = p.shape[1]
    if k == 1:
        return least_confidence(p)
    logs = np.log(np.where(p > 0, p, 1.0))
    return _zero_to_one(-(p * logs).sum(axis=1) / math.log(k))


MEASURES: dict[str, Callable[[Floats], Floats]] = {
    "least_confidence": least_confidence,
    "margin": margin,
    "entropy": entropy,
}
"""The measures by the name that telemetry gives them."""


def of_row(measure: str, row: Sequence[float]) -> float:
    """The measure of one row of probabilities, in a fraction of the time that an array of one row takes."""
    if any(map(math.isnan, row)):
        return math.nan
    if len(row) < 2:
        return 0.0
    if measure == "entropy":
        found = -sum(value * math.log(value) for value in row if value > 0) / math.log(len(row))
    else:
        second, first = sorted(row)[-2:]
        found = 1.0 - (first - second) if measure == "margin" else (1.0 - first) * len(row) / (len(row) - 1)
    return min(max(found, 0.0), 1.0)


def binary(measure: str, p: Floats) -> Floats:
    """The measure of (n,) probabilities of one of two classes, to (n,); NaN where `p` is not in [0, 1]."""
    known = np.where((p >= 0) & (p <= 1), p, np.nan)
    if measure == "entropy":
        return entropy(np.column_stack([1.0 - known, known]))
    return 1.0 - np.abs(2.0 * known - 1.0)  # the other two are the same with two classes


def of_score(measure: str, p: float) -> float:
    """`binary` of one probability, in a fraction of the time."""
    if not 0.0 <= p <= 1.0:
        return math.nan
    return of_row(measure, (1.0 - p, p)) if measure == "entropy" else 1.0 - abs(2.0 * p - 1.0)


def _zero_to_one(values: Floats) -> Floats:
    """Rounding, and rows that do not quite add up to one, must not leave the range."""
    return np.clip(values, 0.0, 1.0)
