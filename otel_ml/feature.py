"""One feature of one model: its values reduced to counts of buckets or categories, and of states."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from . import semconv
from .columns import categories, is_missing, is_numeric, numbers
from .semconv import OTHER, UNSEEN
from .sketches import Buckets, Count, Exponential, Ledger, Probes, counted
from .summary import CategoricalSummary, NumericSummary

_EVERYWHERE = (-np.inf, np.inf)


class Feature:
    """States of one feature; what else is counted depends on its kind."""

    kind = "opaque"

    def __init__(self, name: str, attributes: dict[str, str], ledger: Ledger) -> None:
        self.name = name
        self._attributes = {**attributes, semconv.FEATURE_NAME: name}
        self._ledger = ledger
        self._states: dict[str, Count] = {}

    def add_states(self, **counts: int) -> None:
        """Add rows by state, exclusive and summing to the rows of the call."""
        for state, amount in counts.items():
            if amount:
                count = self._states.get(state) or self._state(state)
                count.value += amount

    def _state(self, state: str) -> Count:
        attributes = {**self._attributes, semconv.FEATURE_STATE: state}
        count = self._ledger.get(semconv.FEATURE_OBSERVATIONS, attributes, Count()).sketch
        return self._states.setdefault(state, count)

    def add(self, column: NDArray[np.generic]) -> int:
        """Count a column of any dtype; returns how many of its values are of another type than the feature."""
        missing = sum(map(is_missing, column.tolist()))
        self.add_states(ok=len(column) - missing, missing=missing)
        return 0


class Numeric(Feature):
    kind = "numeric"

    def __init__(
        self, name: str, attributes: dict[str, str], ledger: Ledger, summary: NumericSummary | None
    ) -> None:
        super().__init__(name, attributes, ledger)
        if summary is None:
            self._bounded = None
            self._free = ledger.get(semconv.FEATURE_VALUE, self._attributes, Exponential()).sketch
            self.probes = Probes.of(np.empty(0), _EVERYWHERE)
        else:
            self._bounded = ledger.get(
                semconv.FEATURE_VALUE, self._attributes, Buckets(summary.bounds)
            ).sketch
            self.probes = Probes.of(summary.bounds, summary.limits)

    @property
    def free(self) -> bool:
        """True without a baseline: the buckets follow the values."""
        return self._bounded is None

    def add(self, column: NDArray[np.generic]) -> int:
        values, missing, mismatched = numbers(column)
        self.add_sorted(np.sort(values))
        self.add_states(missing=missing, type_mismatch=mismatched)
        return mismatched

    def add_sorted(self, column: NDArray[np.float64]) -> None:
        """Count a sorted column of float64, NaNs last."""
        self.add_below(self.probes.below(column), len(column))
        if self._bounded is None:
            self._free.add(column[np.isfinite(column)])

    def add_below(self, below: NDArray[np.int64], rows: int) -> None:
        """Count `rows` values of which so many are <= each cut of `probes`."""
        found = counted(below, rows)
        if self._bounded is not None:
            self._bounded.counts += found.buckets
        self.add_states(
            ok=found.finite - found.out_of_range,
            missing=found.missing,
            non_finite=found.non_finite,
            out_of_range=found.out_of_range,
        )


class Undecided(Feature):
    """A feature of which nothing but missing values was seen, so that nobody knows its kind."""

    kind = "undecided"

    def __init__(self, name: str, attributes: dict[str, str], ledger: Ledger, _: None) -> None:
        super().__init__(name, attributes, ledger)


class Categorical(Feature):
    kind = "categorical"

    def __init__(
        self, name: str, attributes: dict[str, str], ledger: Ledger, summary: CategoricalSummary | None
    ) -> None:
        super().__init__(name, attributes, ledger)
        self._summary = summary
        self._counts: dict[str, Count] = {}
        # booleans that were trained on as such arrive as 1 and 0 in a matrix of numbers
        boolean = summary is not None and set(summary.categories) <= {"true", "false"}
        self._alias = {"1": "true", "0": "false"} if boolean else {}

    def add(self, column: NDArray[np.generic]) -> int:
        counts, missing = categories(column)
        total = sum(counts.values())
        unseen = self._count_named(counts) if self._summary is not None else 0
        self.add_states(ok=total - unseen, missing=missing, unseen=unseen)
        return 0

    def _count_named(self, counts: dict[str, int]) -> int:
        assert self._summary is not None
        unknown = UNSEEN if self._summary.complete else OTHER
        outside = 0
        for given, amount in counts.items():
            name = self._alias.get(given, given)
            known = name in self._summary.categories
            self._category(name if known else unknown).add(amount)
            outside += 0 if known else amount
        return outside if self._summary.complete else 0

    def _category(self, name: str) -> Count:
        if name not in self._counts:
            attributes = {**self._attributes, semconv.FEATURE_CATEGORY: name}
            self._counts[name] = self._ledger.get(semconv.FEATURE_CATEGORIES, attributes, Count()).sketch
        return self._counts[name]


def kind_of(
    column: NDArray[np.generic] | None,
) -> Callable[[str, dict[str, str], Ledger, None], Feature]:
    """What a column without a baseline is taken for; None stands for one of a matrix of numbers."""
    if column is None or is_numeric(column):
        return Numeric
    return Undecided if all(map(is_missing, column.tolist())) else Categorical
