"""Summaries that grow batch by batch: every row is counted, no row is kept.

Bounds, reach and quantiles come from a summary of a uniform sample. Everything else is of all rows: counts,
states, smallest and largest, moments, categories, and so `ks_error`, which is the share of the fullest bucket
that holds more than one number.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import Protocol

import numpy as np

from . import columns, fitting
from .binning import cumulative_counts, differ
from .columns import Column
from .fitting import MOST_CATEGORIES, states_of
from .summary import (
    CategoricalSummary,
    Counts,
    Floats,
    NumericSummary,
    OpaqueSummary,
    Projection,
    Summary,
    pooled_moments,
)

MOST_TRACKED = 100_000
"""Distinct predictions or labels that are told apart; those beyond are counted together."""


class Running(Protocol):
    """A summary in the making."""

    def add(self, column: Column) -> None:
        """Count the values of more rows."""

    def summary(self) -> Summary:
        """What the rows so far come to."""


def running(sampled: Summary, column: Column, *, categorical: bool) -> Running:
    """What counts a feature whose sample is `column` and was summarised as `sampled`."""
    if isinstance(sampled, NumericSummary):
        return RunningNumbers(sampled)
    if categorical or not columns.is_numeric(column):
        return RunningFeature(sampled)
    return RunningStates(sampled)


class RunningNumbers:
    """Numbers on the bounds of a sample."""

    def __init__(self, sampled: NumericSummary) -> None:
        self._sampled = sampled
        buckets = len(sampled.bounds) + 1
        self._counts: Counts = np.zeros(buckets, dtype=np.int64)
        self._lowest: Floats = np.full(buckets, np.inf)
        self._highest: Floats = np.full(buckets, -np.inf)
        self._finite = self._rows = self._missing = self._non_finite = self._outside = self._mismatched = 0
        self._moments = 0.0, 0.0

    def add(self, column: Column) -> None:
        """Count the values of more rows."""
        values, missing, mismatched = columns.numbers(column)
        ordered = np.sort(values[np.isfinite(values)]) + 0.0
        self._rows += len(column)
        self._missing += missing
        self._mismatched += mismatched
        self._non_finite += len(values) - len(ordered)
        if len(ordered):
            self._add_finite(ordered)

    def _add_finite(self, ordered: Floats) -> None:
        ends = np.append(cumulative_counts(ordered, self._sampled.bounds), len(ordered))
        starts = np.concatenate([[0], ends[:-1]])
        held = ends > starts
        self._counts += ends - starts
        self._lowest[held] = np.minimum(self._lowest[held], ordered[starts[held]])
        self._highest[held] = np.maximum(self._highest[held], ordered[ends[held] - 1])
        self._finite += len(ordered)
        share = len(ordered) / self._finite
        self._moments = pooled_moments(self._moments, fitting.moments(ordered), share)
        if self._sampled.allowed is not None:  # else the limits lie beyond every row by definition
            low, high = self._sampled.limits
            self._outside += int(np.count_nonzero((ordered < low) | (ordered > high)))

    def summary(self) -> NumericSummary:
        """What the rows so far come to."""
        lowest, highest = float(self._lowest.min()), float(self._highest.max())
        mean, std = self._moments
        return replace(
            self._sampled,
            n=self._rows,
            states=states_of(self._rows, self._missing, self._non_finite, self._outside, self._mismatched),
            bucket_counts=self._counts,
            min=lowest,
            max=highest,
            mean=mean,
            std=std,
            ks_error=self._ks_error(),
            quantiles=_with_ends(self._sampled.quantiles, lowest, highest),
        )

    def _ks_error(self) -> float:
        held = self._counts > 0
        mixed = differ(self._lowest[held], self._highest[held])
        return float(np.max(self._counts[held] * mixed, initial=0) / self._finite)


class RunningStates:
    """A column of which only the states are known."""

    def __init__(self, sampled: Summary) -> None:
        self._sampled = sampled
        self._states = states_of(0, 0)

    def add(self, column: Column) -> None:
        """Count the states of more rows."""
        self.count(fitting.opaque("", column, None).states)

    def count(self, states: Counts) -> None:
        """Add rows by state."""
        self._states = self._states + states

    def summary(self) -> OpaqueSummary:
        """What the rows so far come to."""
        n = int(self._states.sum())
        return OpaqueSummary(
            name=self._sampled.name, n=n, states=self._states, importance=self._sampled.importance
        )


class RunningCategories:
    """Categories of predictions or labels; `named` fixes which ones have a count of their own."""

    def __init__(
        self, sampled: Summary, *, named: Collection[str] | None = None, most: int = MOST_TRACKED
    ) -> None:
        self._sampled = sampled
        self._named = named
        self._most = most
        self._counted: dict[str, int] = {}
        self._missing = self._untracked = 0

    def add(self, column: Column) -> None:
        """Count the categories of more rows."""
        self.count(*columns.categories(column))

    def count(self, counted: Mapping[str, int], missing: int) -> None:
        """Add rows by category, and missing ones."""
        self._missing += missing
        for category, times in counted.items():
            if category in self._counted or len(self._counted) < self._most:
                self._counted[category] = self._counted.get(category, 0) + times
            else:
                self._untracked += times

    @property
    def distinct(self) -> int:
        """Categories told apart so far."""
        return len(self._counted)

    def summary(self) -> CategoricalSummary:
        """What the rows so far come to."""
        tracked = fitting.named_categories(
            self._sampled.name,
            self._counted,
            self._missing,
            named=self._named,
            importance=self._sampled.importance,
        )
        n = tracked.n + self._untracked
        return replace(
            tracked, n=n, states=states_of(n, self._missing), other=tracked.other + self._untracked
        )


class RunningFeature:
    """A feature that is categorical until it has too many categories: then it is opaque."""

    def __init__(self, sampled: Summary) -> None:
        self._states = RunningStates(sampled)
        self._categories = RunningCategories(sampled, most=MOST_CATEGORIES + 1)

    def add(self, column: Column) -> None:
        """Count the values of more rows."""
        if self._categories.distinct > MOST_CATEGORIES:
            self._states.add(column)
            return
        counted, missing = columns.categories(column)
        self._categories.count(counted, missing)
        infinite = int(np.isinf(column).sum()) if column.dtype.kind == "f" else 0
        self._states.count(states_of(len(column), missing, infinite))

    def summary(self) -> CategoricalSummary | OpaqueSummary:
        """What the rows so far come to, by the rule that `fitting.summarise` goes by."""
        states, distinct = self._states.summary(), self._categories.distinct
        present = states.n - states.missing
        if present == 0 or distinct > MOST_CATEGORIES or 2 * distinct > present:
            return states
        return self._categories.summary()


class RunningLabels:
    """Labels in each bucket of the scores."""

    def __init__(self, bounds: Floats, named: Collection[str]) -> None:
        self._bounds = bounds
        self._named = named
        self._counted: dict[str, Counts] = {}

    def add(self, scores: Column, labels: Column) -> None:
        """Count more rows."""
        for label, counts in fitting.label_counts(scores, labels, self._bounds, self._named).items():
            self._counted[label] = self._counted.get(label, 0) + counts

    def summary(self) -> dict[str, Counts]:
        """Counts by label."""
        return self._counted


class RunningProjections:
    """Projections onto the directions of a sample."""

    def __init__(self, sampled: tuple[Projection, ...]) -> None:
        self._sampled = sampled
        self._along = [RunningNumbers(projection.summary) for projection in sampled]

    def add(self, table: Mapping[str, Column]) -> None:
        """Count more rows."""
        if not self._sampled:
            return
        first = self._sampled[0]
        raw = [columns.aligned(table[name])[0] for name in first.features]
        loadings = np.column_stack([projection.loadings for projection in self._sampled])
        positions = fitting.along(raw, first.centre, first.scale, loadings)
        for counting, values in zip(self._along, positions.T, strict=True):
            counting.add(values)

    def summary(self) -> tuple[Projection, ...]:
        """The projections with the rows so far."""
        pairs = zip(self._sampled, self._along, strict=True)
        return tuple(replace(projection, summary=counting.summary()) for projection, counting in pairs)


def _with_ends(quantiles: Floats | None, lowest: float, highest: float) -> Floats | None:
    """Quantiles of a sample that begin and end with the smallest and the largest of all rows."""
    if quantiles is None:
        return None
    return np.concatenate([[lowest], quantiles[1:-1], [highest]])
