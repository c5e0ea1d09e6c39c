"""What differs between two baselines."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from importlib import import_module
from types import ModuleType
from typing import Literal

import numpy as np

from .. import semconv
from ..baseline import Baseline
from ..binning import edge_below
from ..histogram import Histogram
from ..summary import CategoricalSummary, Counts, Floats, NumericSummary, Summary

PSI = 0.1, 0.25
"""Effect sizes from which on a difference is a warning, and drift."""
KS = 0.1, 0.2
STATES = 0.2, 0.5

Status = Literal["ok", "warning", "drifted", "new", "gone", "retyped"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """One feature, or one output, on the two sides; numbers are None where they cannot be had."""

    name: str
    status: Status
    before: Summary | None
    after: Summary | None
    psi: float | None = None
    ks: float | None = None
    """Kolmogorov–Smirnov distance; of categories, the total variation distance."""
    at_least: bool = False
    """`ks` is the least that the two sets of bounds allow, and the distance may be larger."""
    shift: float | None = None
    """Of the mean, in standard deviations of the reference."""
    missing: tuple[float, float] = (0.0, 0.0)
    """Share of missing values on each side."""

    def fails(self, on: Collection[str]) -> bool:
        """Whether this is among what a caller wants to fail on."""
        return (
            ("schema" in on and self.status in ("new", "gone", "retyped"))
            or ("warning" in on and self.status in ("warning", "drifted"))
            or ("drifted" in on and self.status == "drifted")
        )


def compare(reference: Baseline, current: Baseline) -> list[Change]:
    """One change a feature and output: those of the reference in their order, then the new ones."""
    before, after = dict(_targets(reference)), dict(_targets(current))
    return [_change(name, before.get(name), after.get(name)) for name in {**before, **after}]


def statistics() -> ModuleType | None:
    """The collector's comparison of counts, when it is installed."""
    try:
        return import_module("otel_ml_collector.drift")
    except ImportError:
        return None


def _targets(baseline: Baseline) -> Iterator[tuple[str, Summary]]:
    """Features under their names, outputs in angle brackets: a feature may be called score too."""
    yield from baseline.features.items()
    for key in ("scores", "predictions", "outcomes", "uncertainty"):
        summary = getattr(baseline, key)
        if summary is not None:
            yield f"<{key}>", summary


def _change(name: str, before: Summary | None, after: Summary | None) -> Change:
    if before is None or after is None:
        return Change(name=name, status="new" if before is None else "gone", before=before, after=after)
    if before.kind != after.kind:
        return Change(name=name, status="retyped", before=before, after=after)
    psi, ks, at_least = _distances(before, after)
    missing = before.missing / max(before.n, 1), after.missing / max(after.n, 1)
    shift = None
    if isinstance(before, NumericSummary) and isinstance(after, NumericSummary) and before.std > 0:
        shift = (after.mean - before.mean) / before.std
    return Change(
        name=name,
        status=_status(psi, ks, states_effect(before, after)),
        before=before,
        after=after,
        psi=psi,
        ks=ks,
        at_least=at_least,
        shift=shift,
        missing=missing,
    )


def states_effect(before: Summary, after: Summary) -> float:
    """Largest Cohen's h of the shares of missing, non-finite, out-of-range, unseen and mismatched values."""
    p, q = (np.arcsin(np.sqrt(side.states[1:] / max(side.n, 1))) for side in (before, after))
    return float(np.max(2 * np.abs(p - q)))


def _status(psi: float | None, ks: float | None, states: float) -> Status:
    """That of the worst distance."""
    found = ((psi, PSI), (ks, KS), (states, STATES))
    level = max(sum(value >= limit for limit in limits) for value, limits in found if value is not None)
    named: tuple[Status, Status, Status] = ("ok", "warning", "drifted")
    return named[level]


def _distances(before: Summary, after: Summary) -> tuple[float | None, float | None, bool]:
    """PSI in excess of noise, KS, and whether that is only the least it can be."""
    if isinstance(before, NumericSummary) and isinstance(after, NumericSummary):
        pair = _same_bounds(before.histogram, after.histogram)
        if pair is None:
            return None, least_ks(before, after), True
        a, b = pair
        return (
            _psi(a.counts, b.counts, bounds=a.bounds),
            float(np.max(np.abs(a.cdf - b.cdf), initial=0)),
            False,
        )
    if isinstance(before, CategoricalSummary) and isinstance(after, CategoricalSummary):
        return _of_categories(before, after)
    return None, None, False


def _same_bounds(a: Histogram, b: Histogram) -> tuple[Histogram, Histogram] | None:
    """Both on the bounds of the coarser one; None when neither's bounds are among the other's."""
    if np.isin(a.bounds, b.bounds).all():
        return a, b.collapse(a.bounds)
    if np.isin(b.bounds, a.bounds).all():
        return a.collapse(b.bounds), b
    return None


def least_ks(a: NumericSummary, b: NumericSummary) -> float:
    """The least that the KS distance can be, whatever lies between the numbers each side has kept.

    At a bound a distribution function is known, at a quantile it passes a known level; so anywhere it lies
    between two steps, and the distance is at least the largest gap between those of one side and the other's.
    """
    (low_a, high_a), (low_b, high_b) = _envelope(a), _envelope(b)
    x = np.concatenate([low_a.at, high_a.at, low_b.at, high_b.at])
    return float(np.max([low_a(x) - high_b(x), low_b(x) - high_a(x)], initial=0.0))


@dataclass(frozen=True, slots=True)
class _Steps:
    """A step function that the distribution function is never below, or never above."""

    at: Floats
    values: Floats
    outside: float
    side: Literal["left", "right"]

    def __call__(self, x: Floats) -> Floats:
        known = [*self.values, self.outside] if self.side == "left" else [self.outside, *self.values]
        found: Floats = np.array(known)[self.at.searchsorted(x, self.side)]
        return found


def _envelope(summary: NumericSummary) -> tuple[_Steps, _Steps]:
    """What the distribution function is at least, and at most; alike for the same data in float32."""
    quantiles = [summary.min, summary.max] if summary.quantiles is None else summary.quantiles.tolist()
    levels = np.concatenate([summary.histogram.cdf, np.linspace(0, 1, len(quantiles))])
    above = np.concatenate([summary.bounds, quantiles])
    below = np.concatenate([summary.bounds, [edge_below(value) for value in quantiles]])
    up, down = np.argsort(above), np.argsort(below)
    return (
        _Steps(above[up], np.maximum.accumulate(levels[up]), 0.0, "right"),
        _Steps(below[down], np.minimum.accumulate(levels[down][::-1])[::-1], 1.0, "left"),
    )


def _of_categories(
    before: CategoricalSummary, after: CategoricalSummary
) -> tuple[float | None, float | None, bool]:
    a, b = _cells(before, after)
    n, m = sum(a.values()), sum(b.values())
    if not (n and m):
        return None, None, False
    variation = sum(abs(a[name] / n - b[name] / m) for name in a) / 2
    drift = statistics()
    if drift is None:
        return None, variation, False
    names, reference, current = drift.align(a, b)
    return _psi(reference, current, categories=names), variation, False


def _cells(before: CategoricalSummary, after: CategoricalSummary) -> tuple[dict[str, int], dict[str, int]]:
    """Counts by category on both sides. One that a side does not name is none of its own when it names all of
    them, and is counted with the others when it does not."""
    named = set(before.categories) & set(after.categories)
    for one, other in ((before, after), (after, before)):
        if one.complete:
            named |= set(other.categories)
    return _counts(before, named), _counts(after, named)


def _counts(summary: CategoricalSummary, named: Collection[str]) -> dict[str, int]:
    own = {name: summary.categories.get(name, 0) for name in sorted(named)}
    return own | {semconv.OTHER: summary.n - summary.missing - sum(own.values())}


def _psi(reference: Counts, current: Counts, **cells: object) -> float | None:
    drift = statistics()
    if drift is None or not (reference.sum() and current.sum()):
        return None
    found = drift.compare(drift.Side(reference, **cells), drift.Side(current, **cells), drift.Policy())
    value: float | None = found.statistics.get("psi.excess")
    return value
