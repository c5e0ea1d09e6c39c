"""Asking a sampler about a call: its decision, one coin a row, and the count of both."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from ..prediction import Prediction
from .coin import Counts, Selection, decided, select, select_row
from .decision import RANDOM, RULE, Decision, SamplerLike
from .uniform import Random

_PASSED: Counts = {(RANDOM, False): 1}
NOT_FAILED: Counts = {(RULE, False): 1}
"""What `When(failed)` decides on the one row of a call that succeeded."""


class Kept(NamedTuple):
    """A call of which rows are kept."""

    selection: Selection
    probability: float
    """That at least one row of the call is; NaN when a hard limit was in force."""


def keep(sampler: SamplerLike, prediction: Prediction, count: Callable[[Counts], None]) -> Kept | None:
    """The rows of a call that `sampler` keeps; None when it keeps none. `count` takes the decisions."""
    rows, decision = prediction.rows, sampler(prediction)
    selection = select(decision, rows)
    count(decided(decision, rows, selection))
    return None if selection is None else Kept(selection, _of_call(decision, rows))


def keep_row(sampler: Random, count: Callable[[Counts], None]) -> Kept | None:
    """`keep` for a call of one row, of which nothing need be known."""
    selection = select_row(sampler.decision, sampler.threshold)
    if selection is None:
        count(_PASSED)
        return None
    count(decided(sampler.decision, 1, selection))
    return Kept(selection, sampler.rate)


def _of_call(decision: Decision, rows: int) -> float:
    """1 - Π(1 - p) over all rows: each has a coin of its own."""
    p = decision.probability
    if decision.bucket is not None:
        return math.nan
    if rows == 1:
        return float(np.asarray(p).item())
    with np.errstate(divide="ignore"):  # one row that is certain makes the call certain
        return float(-np.expm1(np.sum(np.log1p(-np.broadcast_to(p, rows)))))
