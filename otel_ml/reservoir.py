"""A uniform sample of rows that arrive batch by batch, however they are sorted.

Algorithm R [1]: the first k rows fill the sample; row i > k takes the place of a random one with probability
k / i. Every row is kept with the same probability, and the first k rows keep their order until row k + 1 comes.

[1] J. S. Vitter, "Random sampling with a reservoir", ACM TOMS 11 (1985) 37–57.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from .columns import Column

Places = NDArray[np.int64]

K = TypeVar("K")

_MOST_SHARED = 1_000
"""Distinct texts of a column that are kept once each: more are no categories."""


class Reservoir(Generic[K]):
    """At most `size` rows, uniform over all that were added. The same rows give the same sample."""

    def __init__(self, size: int, *, seed: int = 0) -> None:
        self.seen = 0
        self._size = size
        self._random = np.random.default_rng(seed)
        self._kept: dict[K, Column] = {}
        self._texts: dict[K, dict[str, str]] = {}

    def add(self, columns: Mapping[K, Column]) -> None:
        """Offer more rows: the same columns each time, of equal length."""
        rows = len(next(iter(columns.values())))
        fresh = min(max(self._size - self.seen, 0), rows)
        if fresh:
            places = np.arange(self.seen, self.seen + fresh)
            self._put(columns, places, np.arange(fresh))
        if rows > fresh:
            places = self._random.integers(0, np.arange(self.seen + fresh, self.seen + rows) + 1)
            chosen = np.flatnonzero(places < self._size)
            self._put(columns, places[chosen], fresh + chosen)
        self.seen += rows

    def take(self) -> dict[K, Column]:
        """The sample; the reservoir is empty afterwards."""
        rows = min(self.seen, self._size)
        kept, self._kept = self._kept, {}
        return {key: column[:rows] for key, column in kept.items()}

    def _put(self, columns: Mapping[K, Column], places: Places, rows: Places) -> None:
        for key, column in columns.items():
            incoming = self._own(key, column[rows])
            kept = self._room(
                self._kept.get(key, incoming[:0]), incoming.dtype, int(places.max(initial=-1)) + 1
            )
            kept[places] = incoming  # of two for the same place the later one stays
            self._kept[key] = kept

    def _room(self, kept: Column, dtype: np.dtype[Any], rows: int) -> Column:
        """`kept` as a type that holds `dtype` too, with room for `rows`: doubled, so that copies are few."""
        kept = kept.astype(_common(kept.dtype, dtype), copy=False)
        if rows <= len(kept):
            return kept
        roomy: Column = np.empty(min(max(rows, 2 * len(kept)), self._size), dtype=kept.dtype)
        roomy[: len(kept)] = kept
        return roomy

    def _own(self, key: K, column: Column) -> Column:
        """The column with one object for all texts that are equal."""
        if column.dtype.kind not in "OUS":
            return column
        texts = self._texts.setdefault(key, {})
        owned: Column = np.empty(len(column), dtype=object)
        owned[:] = [_shared(value, texts) for value in column.tolist()]
        return owned


def _shared(value: Any, texts: dict[str, str]) -> Any:
    if type(value) is not str:
        return value
    if len(texts) < _MOST_SHARED:
        return texts.setdefault(value, value)
    return texts.get(value, value)


def _common(a: np.dtype[Any], b: np.dtype[Any]) -> np.dtype[Any]:
    """The type that holds both and says the same: numbers as numbers, a mixture as objects."""
    if a == b:
        return a
    if (a.kind in "iuf" and b.kind in "iuf") or (a.kind == b.kind and a.kind in "Mm"):
        return np.result_type(a, b)
    return np.dtype(object)
