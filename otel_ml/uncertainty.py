"""How sure a classifier is of each row: three measures of class probabilities, 0 certain to 1 undecided.

- least confidence: (1 - p₁)·K/(K - 1)
- margin: 1 - (p₁ - p₂)
- entropy: -Σ p ln p / ln K

p₁ ≥ p₂ are the two largest of a row's K probabilities. [1] B. Settles, Active Learning Literature Survey, 2009, §3.1.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from functools import reduce

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

COUNTED = "margin"
"""The measure that is counted in histograms: one and the same for all, so that no sampler's choice looks like drift.
Of three classes or more it says what the largest probability, their score, does not."""

_NARROW = 40
"""Columns up to which many rows are gone through column by column: NumPy's reductions of short rows take ten times as
long with 3 columns, and as long with 40."""
_MANY = 100
"""Rows from which that pays."""
_BLOCK_BYTES = 2**19
"""Gone through at a time: a column of rows that left the cache takes three times as long."""


def least_confidence(p: Floats) -> Floats:
    """How far the likeliest class is from certain: `p` (n, k) probabilities, to (n,) in [0, 1].

    A row with NaN gives NaN, a single class 0.
    """
    k = p.shape[1]
    return _zero_to_one((1.0 - _largest(p)) * (k / max(k - 1, 1)))


def margin(p: Floats) -> Floats:
    """How close the two likeliest classes are: `p` (n, k) probabilities, to (n,) in [0, 1].

    A row with NaN gives NaN, a single class 0.
    """
    k = p.shape[1]
    if k == 1:
        return least_confidence(p)
    if k == 2:
        return _zero_to_one(1.0 - np.abs(p[:, 0] - p[:, 1]))
    return _zero_to_one(1.0 - _ahead(p))


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


def excludes(p: Floats) -> bool:
    """Whether rows are distributions over classes that exclude each other: most of them, for one can be broken."""
    if len(p) == 1:  # 2 µs less on every call
        return not abs(sum(p[0].tolist()) - 1.0) > 1e-3
    return 2 * int(np.count_nonzero(np.abs(p.sum(axis=1) - 1.0) > 1e-3)) <= len(p)


def score(p: Floats) -> Floats:
    """What is the score of `p` (n, k) probabilities, to (n,): of two classes that of the second, else the largest."""
    return p[:, 1] if p.shape[1] == 2 else _largest(p)


def _largest(p: Floats) -> Floats:
    """The largest number of each row of `p` (n, k), k one or more; NaN of a row with NaN."""
    found: Floats = (
        p.max(axis=1) if not _is_long(p) else np.concatenate([*map(_largest_by_column, _blocks(p))])
    )
    return found


def _largest_by_column(p: Floats) -> Floats:
    found: Floats = reduce(np.maximum, p.T)
    return found


def _ahead(p: Floats) -> Floats:
    """How far the largest number of each row is ahead of the second largest; NaN of a row with NaN."""
    return np.concatenate([*map(_ahead_by_column if _is_long(p) else _ahead_by_row, _blocks(p))])


def _ahead_by_column(p: Floats) -> Floats:
    second, first = np.minimum(p[:, 0], p[:, 1]), np.maximum(p[:, 0], p[:, 1])
    for column in p.T[2:]:
        np.maximum(second, np.minimum(first, column), out=second)
        np.maximum(first, column, out=first)
    return np.subtract(first, second, out=first)


def _ahead_by_row(p: Floats) -> Floats:
    rest = p.copy()
    best = np.arange(len(p)), p.argmax(axis=1)  # the first NaN, where there is one
    first = rest[best]
    rest[best] = -np.inf
    ahead: Floats = first - rest.max(axis=1)
    return ahead


def _blocks(p: Floats) -> Iterator[Floats]:
    step = max(_BLOCK_BYTES // (8 * p.shape[1]), 1)
    return (p[start : start + step] for start in range(0, max(len(p), 1), step))


def _is_long(p: Floats) -> bool:
    return 1 < p.shape[1] <= _NARROW and len(p) >= _MANY


def _zero_to_one(values: Floats) -> Floats:
    """Rounding, and rows that do not quite add up to one, must not leave the range."""
    return np.clip(values, 0.0, 1.0)
