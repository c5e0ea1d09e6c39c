"""Models in a steady world, for calibration: features whose true distribution is known, counted as in service.

A world has a baseline of n rows, binned by the code that bins baselines, and draws windows: counts per pane
and per state of every feature. A drift can be put into its first feature.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy import special, stats

from otel_ml import binning, semconv
from otel_ml_collector.drift import Side

Counts = NDArray[np.int64]
Floats = NDArray[np.float64]

FEATURES = 50
PANES = 24
LEVELS = 50
CORRELATION = 0.7
MISSING = 0.2

Kind = Literal["equal", "correlated", "tied", "zipf", "missing"]
KINDS: tuple[Kind, ...] = ("equal", "correlated", "tied", "zipf", "missing")
MEANING = {
    "equal": "independent, no ties: 20 equal cells",
    "correlated": f"every two correlated by {CORRELATION:g}",
    "tied": "counts with mean 2: a cell a value",
    "zipf": f"categories, {LEVELS} levels of frequency 1/rank",
    "missing": f"equal, {MISSING:.0%} of the values missing",
}


@dataclass(frozen=True, slots=True)
class Drift:
    """What happens to the first feature."""

    shift: float = 0.0
    """In standard deviations."""
    sentinel: float = 0.0
    """Share of rows that turn to one default value, the mean."""
    nulls: float = 0.0
    """Share of rows that turn missing."""


STEADY = Drift()


@dataclass(frozen=True, slots=True)
class Feature:
    """One feature as the baseline counted it."""

    reference: Side
    bounds: Floats | None
    cumulative: Callable[[Floats], Floats]
    """The true distribution function on standardised values; unused for categories."""
    masses: Floats
    """(cells,) true probability of each cell without drift."""
    missing: float

    def probabilities(self, drift: Drift) -> Floats:
        """(cells,) probability of each cell under a drift."""
        masses = self.masses
        if drift.shift and self.bounds is not None:
            masses = _masses(self.cumulative(self.bounds - drift.shift))
        if drift.sentinel and self.bounds is not None:
            spike = np.eye(len(masses))[int(np.searchsorted(self.bounds, 0.0))]
            masses = (1 - drift.sentinel) * masses + drift.sentinel * spike
        return masses


@dataclass(frozen=True, slots=True)
class World:
    """The features of one model."""

    kind: Kind
    features: tuple[Feature, ...]

    def window(
        self, rng: np.random.Generator, rows: NDArray[np.int64], drift: Drift = STEADY, *, session: int = 1
    ) -> list[tuple[Counts, Counts]]:
        """Counts (panes, cells) and states (panes, 6) of every feature; `rows` (panes,) come in each pane.

        With `session` > 1 rows come in sessions of that many that all have one value in each feature.
        """
        arrivals = rows // session
        if self.kind == "correlated":
            return self._correlated(rng, arrivals, drift, session)
        drawn = []
        for i, feature in enumerate(self.features):
            here = drift if i == 0 else STEADY
            gone = rng.binomial(arrivals, feature.missing + (1 - feature.missing) * here.nulls)
            counts = rng.multinomial(arrivals - gone, feature.probabilities(here))
            drawn.append((session * counts, session * _states(arrivals - gone, gone)))
        return drawn

    def _correlated(
        self, rng: np.random.Generator, rows: Counts, drift: Drift, session: int
    ) -> list[tuple[Counts, Counts]]:
        total = int(rows.sum())
        common = rng.standard_normal(total) * np.sqrt(CORRELATION)
        drawn = []
        for i, feature in enumerate(self.features):
            x = common + rng.standard_normal(total) * np.sqrt(1 - CORRELATION) + drift.shift * (i == 0)
            assert feature.bounds is not None
            cell = np.searchsorted(feature.bounds, x)
            pane = np.repeat(np.arange(len(rows)), rows)
            width = len(feature.masses)
            counts = np.bincount(pane * width + cell, minlength=len(rows) * width).reshape(-1, width)
            drawn.append((session * counts.astype(np.int64), session * _states(rows, 0 * rows)))
        return drawn


def world(kind: Kind, rng: np.random.Generator, n: int, *, features: int = FEATURES) -> World:
    """A world with a baseline of `n` rows."""
    if kind == "zipf":
        return World(kind, tuple(_category(rng, n) for _ in range(features)))
    make = _count if kind == "tied" else _normal
    missing = MISSING if kind == "missing" else 0.0
    return World(kind, tuple(make(rng, n, missing) for _ in range(features)))


def _normal(rng: np.random.Generator, n: int, missing: float) -> Feature:
    gone = int(rng.binomial(n, missing))
    return _numeric(rng.standard_normal(n - gone), special.ndtr, gone, missing)


def _count(rng: np.random.Generator, n: int, missing: float) -> Feature:
    return _numeric(rng.poisson(2.0, n).astype(np.float64), stats.poisson(2.0).cdf, 0, missing)


def _numeric(values: Floats, cumulative: Callable[[Floats], Floats], gone: int, missing: float) -> Feature:
    bounds = binning.quantile_bounds(values)
    counts = binning.count(values, bounds)
    side = Side(counts, bounds, states=_states(np.array(len(values)), np.array(gone)))
    return Feature(side, bounds, cumulative, _masses(cumulative(bounds)), missing)


def _category(rng: np.random.Generator, n: int) -> Feature:
    """Twenty named categories, those with ten training rows and a thousandth of them, the rest is other."""
    share = 1 / np.arange(1, LEVELS + 1)
    share /= share.sum()
    counts = rng.multinomial(n, share)
    order = np.argsort(-counts, kind="stable")
    named = [i for i in order[:20].tolist() if counts[i] >= max(10, n / 1000)]
    rest = np.setdiff1d(np.arange(LEVELS), named)
    names = (*(f"c{i}" for i in named), semconv.OTHER)
    known = np.append(counts[named], counts[rest].sum())
    side = Side(known, categories=names, states=_states(np.array(n), np.array(0)))
    return Feature(side, None, special.ndtr, np.append(share[named], share[rest].sum()), 0.0)


def _masses(cumulative: Floats) -> Floats:
    return np.clip(np.diff(cumulative, prepend=0.0, append=1.0), 0.0, 1.0)


def _states(ok: Counts, missing: Counts) -> Counts:
    states = np.zeros((*np.shape(ok), len(semconv.STATES)), np.int64)
    states[..., 0], states[..., 1] = ok, missing
    return states


def sides(feature: Feature, panes: Counts, states: Counts) -> tuple[Side, Side]:
    """Both sides of a feature, as the collector puts them together."""
    filled = panes[panes.any(axis=1)]
    current = Side(
        panes.sum(axis=0),
        feature.bounds,
        feature.reference.categories,
        states.sum(axis=0),
        filled if len(filled) > 1 else None,
    )
    return feature.reference, current
