"""One coin a row: who is kept, with what probability, in a form that other samplers downstream understand.

A row's randomness r is 56 bits, kept iff r ≥ T with T = round((1 - p)·2⁵⁶). The probability that is recorded is that
of the coin, 1 - T/2⁵⁶. These are OpenTelemetry's consistent probability samples: a sampler behind this one that
keeps iff r ≥ T' keeps a row with probability 1 - max(T, T')/2⁵⁶, because it is the same r.
"""

from __future__ import annotations

import os
import random
from collections import Counter
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from .. import semconv
from .decision import Decision, Floats, Names

BITS = 56
FULL: int = 2**BITS
_ONE = 2.0**-BITS
_REASONS = np.array(semconv.SAMPLING_REASONS, dtype=object)


class Coin:
    """Where randomness comes from: of its own, so that a seed of the application's neither steers nor feels it."""

    def __init__(self, seed: int | None = None) -> None:
        self.seed(seed)

    def seed(self, seed: int | None = None) -> None:
        """Start anew, from the operating system's randomness or, for tests, from a number."""
        self.flip = random.Random(seed).getrandbits
        self._many = np.random.default_rng(seed)

    def flips(self, n: int) -> NDArray[np.int64]:
        """(n,) of 56 bits."""
        return self._many.integers(0, FULL, n)


COIN = Coin()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=COIN.seed)  # else all children would keep the same rows


class Selection(NamedTuple):
    """The k rows of a call that are kept, in their order."""

    indices: NDArray[np.int64]
    probabilities: Floats
    """(k,) inclusion probabilities; NaN when they are not known."""
    reasons: Names
    """(k,) of `semconv.SAMPLING_REASONS`."""
    strata: Names | None
    thresholds: NDArray[np.int64]
    """(k,) of 56 bits; `threshold_text` writes them."""
    randomness: NDArray[np.int64]
    """(k,) of 56 bits; `randomness_text` writes them."""
    adjustable: bool = True
    """False when a hard limit was in force: then neither probabilities nor thresholds mean anything."""


def threshold_of(probability: float) -> int:
    """T of a probability in [0, 1]; `ValueError` for anything else, NaN included."""
    if not 0.0 <= probability <= 1.0:
        raise ValueError(f"a sampler gave the probability {probability!r}, which is not in [0, 1]")
    return FULL - round(probability * FULL)  # 1 - p would lose the last digits of a small p


def select(decision: Decision, n: int, coin: Coin = COIN) -> Selection | None:
    """Flip a coin for each of n rows; None when none is kept.

    Raises `ValueError` when a probability is not in [0, 1], or when there is neither one nor n of them, and for a
    reason that is not known: it becomes an attribute of metrics.
    """
    p, reason = decision.probability, decision.reason
    if type(reason) is str and reason not in semconv.SAMPLING_REASONS:
        raise ValueError(
            f"a sampler gave the reason {reason!r}; use one of {', '.join(semconv.SAMPLING_REASONS)}"
        )
    if n == 1 and isinstance(p, float):
        return select_row(decision, threshold_of(p), coin) if p else None
    return _limited(decision, _flipped(p, n, coin))


def select_row(decision: Decision, threshold: int, coin: Coin = COIN) -> Selection | None:
    """`select` for one row of a known threshold."""
    r = coin.flip(BITS)
    if r < threshold:
        return None
    return _limited(decision, _Kept(np.zeros(1, dtype=np.int64), np.array([threshold]), np.array([r])))


class _Kept(NamedTuple):
    indices: NDArray[np.int64]
    thresholds: NDArray[np.int64]
    randomness: NDArray[np.int64]

    def first(self, k: int) -> _Kept:
        return _Kept(self.indices[:k], self.thresholds[:k], self.randomness[:k])


def _flipped(p: float | Floats, n: int, coin: Coin) -> _Kept:
    r = coin.flips(n)
    if not isinstance(p, np.ndarray):
        threshold = threshold_of(p)
        indices = np.flatnonzero(r >= threshold)
        return _Kept(indices, np.full(len(indices), threshold), r[indices])
    if p.shape != (n,):
        raise ValueError(f"a sampler gave probabilities of shape {p.shape} for {n} rows")
    if n and not (p.min() >= 0.0 and p.max() <= 1.0):
        raise ValueError(f"a sampler gave probabilities from {p.min()} to {p.max()}, which are not in [0, 1]")
    thresholds = FULL - np.rint(p * FULL).astype(np.int64)
    indices = np.flatnonzero(r >= thresholds)
    return _Kept(indices, thresholds[indices], r[indices])


def _limited(decision: Decision, kept: _Kept) -> Selection | None:
    if decision.bucket is not None:
        kept = kept.first(decision.bucket(len(kept.indices)))
    return _selection(decision, kept) if len(kept.indices) else None


def _selection(decision: Decision, kept: _Kept) -> Selection:
    k, adjustable, stratum = len(kept.indices), decision.bucket is None, decision.stratum
    p: Floats = (FULL - kept.thresholds).astype(np.float64) * _ONE
    return Selection(
        indices=kept.indices,
        probabilities=p if adjustable else np.full(k, np.nan),
        reasons=_each(decision.reason, kept.indices),
        strata=None if stratum is None else _each(stratum, kept.indices),
        thresholds=kept.thresholds,
        randomness=kept.randomness,
        adjustable=adjustable,
    )


def _each(given: str | NDArray[Any], indices: NDArray[np.int64]) -> Names:
    """One name a kept row: of one for all, of (n,) names, or of (n,) positions of reasons."""
    if isinstance(given, str):
        return np.full(len(indices), given, dtype=object)
    chosen = given[indices]
    found: Names = _REASONS[chosen] if chosen.dtype.kind == "i" else chosen
    return found


Counts = Mapping[tuple[str, bool], int]
"""Rows by (reason, whether kept)."""
_ROW: dict[tuple[str, bool], Counts] = {
    (reason, kept): {(reason, kept): 1} for reason in semconv.SAMPLING_REASONS for kept in (True, False)
}


def decided(decision: Decision, n: int, selection: Selection | None) -> Counts:
    """What happened to n rows, for `ml.sampling.decisions`."""
    reason = decision.reason
    if n == 1 and type(reason) is str:
        return _ROW[reason, selection is not None]
    k = 0 if selection is None else len(selection.indices)
    if isinstance(reason, str):
        counts = {(reason, True): k, (reason, False): n - k}
    else:
        every = np.bincount(reason, minlength=len(_REASONS)).tolist()
        kept: Counter[str] = Counter() if selection is None else Counter(selection.reasons.tolist())
        counts = {}
        for name, rows in zip(semconv.SAMPLING_REASONS, every, strict=True):
            counts[name, True], counts[name, False] = kept[name], rows - kept[name]
    return {key: rows for key, rows in counts.items() if rows}


def threshold_text(threshold: int) -> str:
    """A threshold as OpenTelemetry writes it: 14 hexadecimal digits without the zeros at their end."""
    return f"{threshold:014x}".rstrip("0") or "0"


def randomness_text(randomness: int) -> str:
    """Randomness as OpenTelemetry writes it: 14 hexadecimal digits."""
    return f"{randomness:014x}"
