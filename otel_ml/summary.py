"""What a baseline knows of one distribution: a numeric, a categorical or an opaque summary.

Each has `n` rows and `states`, the count of each of `semconv.STATES` in that order. A summary of numbers has
every finite one in a bucket, whatever its state.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from . import semconv
from .binning import edge_above, edge_below
from .errors import BaselineError
from .histogram import Histogram

Floats = NDArray[np.float64]
Counts = NDArray[np.int64]

OK, MISSING, NON_FINITE, OUT_OF_RANGE, UNSEEN, TYPE_MISMATCH = range(len(semconv.STATES))
"""Positions in an array of state counts."""

CUT = 5.0
"""Standard deviations beyond which a feature moves no projection: one value of 1e6 must not."""

_LARGEST = float(np.finfo(np.float64).max)


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class _Summary:
    name: str
    """Name of the feature; score, prediction, outcome, uncertainty or pc1, pc2, … otherwise."""
    n: int
    """Rows, all states."""
    states: Counts
    importance: float | None = None
    """Of a feature, for the model, when known."""

    @property
    def missing(self) -> int:
        """Rows with None, NaN or NaT."""
        return int(self.states[MISSING])

    @property
    def non_finite(self) -> int:
        """Rows with an infinity."""
        return int(self.states[NON_FINITE])


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class NumericSummary(_Summary):
    """Numbers: counts on bounds, moments and range, all over the finite values: there is one or more."""

    kind: ClassVar[Literal["numeric"]] = "numeric"
    bounds: Floats
    bucket_counts: Counts
    """len(bounds) + 1 counts; bucket i holds bounds[i-1] < x <= bounds[i]."""
    min: float
    max: float
    mean: float
    std: float
    """Population standard deviation."""
    reach: float
    """q99.9 - q0.1: how far beyond min and max a value may lie before it is out of range."""
    ks_error: float
    """Largest share in one bucket, atoms aside: what a KS distance at the bounds can miss."""
    quantiles: Floats | None = None
    """The inverted distribution function at equal steps from 0 to 1."""
    allowed: tuple[float, float] | None = None
    """The range its owner allows, when one was given."""

    @property
    def limits(self) -> tuple[float, float]:
        """Beyond these, either way, a value is out of range: the allowed range, else min and max ± `reach`.

        Rounded outwards to where float32 begins to differ: an allowed 0.1 is allowed as a float32 too.
        """
        low, high = self.allowed or (finite(self.min - self.reach), finite(self.max + self.reach))
        return float(np.nextafter(edge_below(low), np.inf)), edge_above(high)

    @property
    def histogram(self) -> Histogram:
        """Bounds and counts as one value."""
        return Histogram(self.bounds, self.bucket_counts)

    def __add__(self, other: NumericSummary) -> NumericSummary:
        """Both together, but for quantiles, which do not add up; `BoundsMismatch` unless bounds are equal."""
        counted = self.histogram + other.histogram
        a, b = self.histogram.total, other.histogram.total
        share = b / (a + b)
        mean, std = pooled_moments((self.mean, self.std), (other.mean, other.std), share)
        return replace(
            self,
            n=self.n + other.n,
            states=self.states + other.states,
            bucket_counts=counted.counts,
            min=min(self.min, other.min),
            max=max(self.max, other.max),
            mean=mean,
            std=std,
            reach=max(self.reach, other.reach),
            ks_error=self.ks_error * (1 - share) + other.ks_error * share,
            quantiles=None,
        )


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class CategoricalSummary(_Summary):
    """Categories: counts of the named ones, and of all others together."""

    kind: ClassVar[Literal["categorical"]] = "categorical"
    categories: Mapping[str, int]
    """Named categories and their rows, the largest first."""
    other: int
    """Rows of categories that are not named."""
    singletons: int
    """Number of categories that occurred once: their share estimates how often a new one comes."""

    @property
    def complete(self) -> bool:
        """True when every category of training is named, so that any other is unseen."""
        return self.other == 0

    def __add__(self, other: CategoricalSummary) -> CategoricalSummary:
        """Both together; `BaselineError` unless they name the same categories."""
        if set(self.categories) != set(other.categories):
            differ = sorted(set(self.categories) ^ set(other.categories))
            raise BaselineError(f"{self.name!r} names other categories on the two sides: {differ[:5]}")
        total = {name: times + other.categories[name] for name, times in self.categories.items()}
        return replace(
            self,
            n=self.n + other.n,
            states=self.states + other.states,
            categories=largest_first(total),
            other=self.other + other.other,
            singletons=self.singletons + other.singletons,
        )


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class OpaqueSummary(_Summary):
    """Text, identifiers, nothing at all: only the states are known."""

    kind: ClassVar[Literal["opaque"]] = "opaque"

    def __add__(self, other: OpaqueSummary) -> OpaqueSummary:
        """Both together."""
        return replace(self, n=self.n + other.n, states=self.states + other.states)


Summary = NumericSummary | CategoricalSummary | OpaqueSummary


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Projection:
    """A direction in the space of the standardised numeric features, and how the reference lies along it."""

    features: tuple[str, ...]
    centre: Floats
    scale: Floats
    loadings: Floats
    """One of each a feature; value = Σ loading · z, z = (x - centre) / scale within ± `CUT`."""
    summary: NumericSummary

    def values(self, X: NDArray[np.number]) -> Floats:
        """Where the rows of `X` (n, len(features)) lie; a missing value counts as the centre."""
        return project(X, self.centre, self.scale, self.loadings)

    def largest(self, most: int = 3) -> list[tuple[str, float]]:
        """The features with the largest loadings, largest first."""
        order = np.argsort(-np.abs(self.loadings), kind="stable")[:most]
        return [(self.features[i], float(self.loadings[i])) for i in order.tolist()]


def standardised(X: NDArray[np.number], centre: Floats, scale: Floats) -> Floats:
    """Rows in units of `scale`, cut off at ± `CUT`; what is missing is at the centre."""
    with np.errstate(over="ignore", invalid="ignore"):
        z: Floats = np.subtract(X, centre, dtype=np.float64)
        z /= scale
    np.clip(z, -CUT, CUT, out=z)
    missing = np.isnan(z)
    if missing.any():
        z[missing] = 0.0
    return z


def project(X: NDArray[np.number], centre: Floats, scale: Floats, loadings: Floats) -> Floats:
    """Rows along `loadings`, rounded so that another BLAS gives the same."""
    return np.round(standardised(X, centre, scale) @ loadings, 5)


def pooled_moments(a: tuple[float, float], b: tuple[float, float], share: float) -> tuple[float, float]:
    """Mean and standard deviation of both together; `share` of the rows are those of `b`."""
    mean = a[0] * (1 - share) + b[0] * share
    within = math.sqrt(1 - share) * a[1], math.sqrt(share) * b[1]
    between = math.sqrt(share * (1 - share)) * (a[0] - b[0])
    return mean, finite(math.hypot(*within, between))


def finite(value: float) -> float:
    """`value`, or the outermost number on its side when it overflowed."""
    return float(np.clip(value, -_LARGEST, _LARGEST))


def largest_first(counts: Mapping[str, int]) -> dict[str, int]:
    """The same counts, largest first, equal ones by name."""
    return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))


def add(a: Summary, b: Summary) -> Summary:
    """Two summaries of the same kind together; `BaselineError` when they are of different kinds."""
    if isinstance(a, NumericSummary) and isinstance(b, NumericSummary):
        return a + b
    if isinstance(a, CategoricalSummary) and isinstance(b, CategoricalSummary):
        return a + b
    if isinstance(a, OpaqueSummary) and isinstance(b, OpaqueSummary):
        return a + b
    raise BaselineError(f"{a.name!r} is {a.kind} on one side and {b.kind} on the other")
