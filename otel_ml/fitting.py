"""From data to a baseline: a summary of each column, and the projections over all of them."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from . import columns, semconv
from .binning import BUCKETS, count, ks_error, sorted_bounds
from .columns import Column
from .errors import BaselineError
from .summary import (
    CategoricalSummary,
    Counts,
    Floats,
    NumericSummary,
    OpaqueSummary,
    Projection,
    Summary,
    finite,
    largest_first,
    project,
    standardised,
)

NAMED = 20
"""Categories a summary names at most."""
MOST_CATEGORIES = 1000
"""With more categories than this, or with more than half of the values distinct, a column is opaque."""
PROJECTIONS = 8
MOST_PROJECTED = 200
"""Features that take part in projections, at most."""

_QUANTILES = 201
_LEAST_VARIANCE = 1e-4
"""Of a standardised projection: below this it is the rounding error of float32 input."""
_CHUNK = 65_536


@dataclass(frozen=True, slots=True, kw_only=True)
class Detail:
    """How much a numeric summary holds."""

    buckets: int = BUCKETS["standard"]
    quantiles: bool = True


# --- one column -------------------------------------------------------------------------------------------


def summarise(
    name: str,
    column: Column,
    *,
    categorical: bool = False,
    importance: float | None = None,
    allowed: tuple[float, float] | None = None,
    detail: Detail,
) -> Summary:
    """The summary of a feature, of the kind its values ask for."""
    if not categorical and columns.is_numeric(column):
        found = numeric(name, column, importance=importance, allowed=allowed, detail=detail)
        return found or opaque(name, column, importance)
    counted, missing = columns.categories(column)
    present = len(column) - missing
    if present == 0 or len(counted) > MOST_CATEGORIES or 2 * len(counted) > present:
        return opaque(name, column, importance)
    return named_categories(name, counted, missing, importance=importance)


def numeric(
    name: str,
    column: Column,
    *,
    bounds: Floats | None = None,
    threshold: float | None = None,
    importance: float | None = None,
    allowed: tuple[float, float] | None = None,
    detail: Detail,
) -> NumericSummary | None:
    """The summary of numbers on `bounds`, or on quantiles and `threshold`; None without a finite one."""
    values, missing, mismatched = columns.numbers(column)
    ordered = np.sort(values[np.isfinite(values)]) + 0.0  # no -0.0: it would show in min and bounds
    if len(ordered) == 0:
        return None
    if bounds is None:
        bounds = _with_threshold(sorted_bounds(ordered, detail.buckets), threshold)
    mean, std = moments(ordered)
    summary = NumericSummary(
        name=name,
        n=len(column),
        states=np.zeros(len(semconv.STATES), dtype=np.int64),
        importance=importance,
        bounds=bounds,
        bucket_counts=count(ordered, bounds),
        min=float(ordered[0]),
        max=float(ordered[-1]),
        mean=mean,
        std=std,
        reach=finite(_order(ordered, 999, 1000) - _order(ordered, 1, 1000)),
        ks_error=ks_error(ordered, bounds),
        quantiles=_quantiles(ordered) if detail.quantiles else None,
        allowed=allowed,
    )
    low, high = summary.limits
    outside = int(np.count_nonzero((ordered < low) | (ordered > high)))
    summary.states[:] = states_of(len(column), missing, len(values) - len(ordered), outside, mismatched)
    return summary


def categorical(
    name: str, column: Column, *, named: Collection[str] | None = None, importance: float | None = None
) -> CategoricalSummary:
    """The summary of categories, however many; `named` fixes which ones have a count of their own."""
    counted, missing = columns.categories(column)
    return named_categories(name, counted, missing, named=named, importance=importance)


def recount(summary: Summary, column: Column) -> Summary:
    """The summary of another column on the same bounds or the same named categories: the two add up."""
    if isinstance(summary, OpaqueSummary):
        return opaque(summary.name, column, summary.importance)
    if isinstance(summary, CategoricalSummary):
        return categorical(summary.name, column, named=summary.categories, importance=summary.importance)
    return recount_numeric(summary, column)


def recount_numeric(summary: NumericSummary, column: Column) -> NumericSummary:
    """`recount` of numbers. Raises `BaselineError` when there is none."""
    again = numeric(
        summary.name,
        column,
        bounds=summary.bounds,
        importance=summary.importance,
        allowed=summary.allowed,
        detail=Detail(quantiles=summary.quantiles is not None),
    )
    if again is None:
        raise BaselineError(
            f"{summary.name!r} has no finite number in these {len(column)} rows; give it more rows"
        )
    return again


def label_counts(scores: Column, labels: Column, bounds: Floats, named: Iterable[str]) -> dict[str, Counts]:
    """Rows per score bucket, by label: the named ones and `__other__` when there are others."""
    values, _, _ = columns.aligned(scores)
    names = columns.category_names(labels)
    usable = np.isfinite(values) & (names != "")
    known = np.isin(names, list(named))
    groups = {name: usable & (names == name) for name in named} | {semconv.OTHER: usable & ~known}
    return {name: count(values[rows], bounds) for name, rows in groups.items() if rows.any() or name in named}


def named_categories(
    name: str,
    counted: Mapping[str, int],
    missing: int,
    *,
    named: Collection[str] | None = None,
    importance: float | None = None,
) -> CategoricalSummary:
    """The summary of categories that are `counted` already."""
    present = sum(counted.values())
    n = present + missing
    if named is None:
        named = _worth_naming(counted, n)
    own = largest_first({category: counted.get(category, 0) for category in named})
    return CategoricalSummary(
        name=name,
        n=n,
        states=states_of(n, missing),
        importance=importance,
        categories=own,
        other=present - sum(own.values()),
        singletons=sum(times == 1 for times in counted.values()),
    )


def _worth_naming(counted: Mapping[str, int], n: int) -> list[str]:
    """The largest categories. Rare ones stay unnamed: they say nothing of drift and may point at a person."""
    reserved = (semconv.OTHER, semconv.UNSEEN)
    large = {
        c: times for c, times in counted.items() if times >= 10 and 1000 * times >= n and c not in reserved
    }
    return list(largest_first(large))[:NAMED]


def opaque(name: str, column: Column, importance: float | None) -> OpaqueSummary:
    """The states of a column, of which nothing else is worth keeping."""
    if column.dtype.kind == "f":
        _, missing, _ = columns.numbers(column)
        infinite = int(np.isinf(column).sum())
    else:
        missing, infinite = sum(map(columns.is_missing, column.tolist())), 0
    n = len(column)
    return OpaqueSummary(name=name, n=n, states=states_of(n, missing, infinite), importance=importance)


def states_of(
    n: int, missing: int, non_finite: int = 0, out_of_range: int = 0, mismatched: int = 0
) -> Counts:
    """Counts in the order of `semconv.STATES`; nothing is unseen in the data that defines what was seen."""
    ok = n - missing - non_finite - out_of_range - mismatched
    return np.array([ok, missing, non_finite, out_of_range, 0, mismatched], dtype=np.int64)


def _with_threshold(bounds: Floats, threshold: float | None) -> Floats:
    if threshold is None or np.any(bounds.astype(np.float32) == np.float32(threshold)):
        return bounds
    return np.union1d(bounds, [threshold])


def _order(ordered: Floats, numerator: int, denominator: int) -> float:
    """The order statistic of rank ⌈n · numerator / denominator⌉: the inverted distribution function."""
    return float(ordered[max(-(-len(ordered) * numerator // denominator), 1) - 1])


def _quantiles(ordered: Floats) -> Floats | None:
    points = min(_QUANTILES, len(ordered) // 10)
    if points < 2:
        return None
    return np.array([_order(ordered, k, points - 1) for k in range(points)])


def moments(ordered: Floats) -> tuple[float, float]:
    """Mean and standard deviation, also where squares overflow."""
    unit = max(abs(float(ordered[0])), abs(float(ordered[-1])))
    unit = unit if unit > 1e150 else 1.0
    scaled = ordered / unit
    return finite(float(scaled.mean()) * unit), finite(float(scaled.std()) * unit)


# --- all columns together ---------------------------------------------------------------------------------


def projections(
    summaries: Mapping[str, Summary], table: Mapping[str, Column], detail: Detail
) -> tuple[Projection, ...]:
    """Up to eight principal components of the standardised numeric features, the largest and the smallest.

    A change of correlation moves no single feature, and these it moves. What is missing counts as the mean.
    Half of the rows find the directions, the others are counted on them: rows that chose the direction of least
    variance vary less along it than any that come later, and those would look drifted.
    """
    places = {name: _middle_and_spread(table[name]) for name in _to_project(summaries)}
    names = tuple(name for name, (_, spread) in places.items() if spread > 0)
    if len(names) < 2:
        return ()
    centre, scale = np.array([places[name] for name in names]).T.copy()
    raw = [columns.aligned(table[name])[0] for name in names]
    finding = np.random.default_rng(0).permutation(len(raw[0])) % 2 == 0  # drawn: rows can alternate
    directions = _components(_correlation([values[finding] for values in raw], centre, scale))
    if not directions:
        return ()
    positions = along(
        [values[~finding] for values in raw], centre, scale, np.array(list(directions.values())).T
    )
    return tuple(
        Projection(features=names, centre=centre, scale=scale, loadings=loadings, summary=summary)
        for (name, loadings), values in zip(directions.items(), positions.T, strict=True)
        if (summary := _projected(name, values, detail)) is not None
    )


def reproject(projections: Iterable[Projection], table: Mapping[str, Column]) -> tuple[Projection, ...]:
    """The same projections of other rows, on the same bounds."""
    again = []
    for p in projections:
        raw = [columns.aligned(table[name])[0] for name in p.features]
        values = along(raw, p.centre, p.scale, p.loadings[:, None])[:, 0]
        summary = recount_numeric(p.summary, values)
        again.append(
            Projection(
                features=p.features, centre=p.centre, scale=p.scale, loadings=p.loadings, summary=summary
            )
        )
    return tuple(again)


def _to_project(summaries: Mapping[str, Summary]) -> list[str]:
    """Numeric features that vary, the most important first, then in their order."""
    varying = [s for s in summaries.values() if isinstance(s, NumericSummary) and s.std > 0]
    return [s.name for s in sorted(varying, key=lambda s: -(s.importance or 0.0))[:MOST_PROJECTED]]


def _middle_and_spread(column: Column) -> tuple[float, float]:
    """Mean and standard deviation with the outermost hundredths drawn in to the quantiles 1 % and 99 %: those of
    all values can be those of one value."""
    values = columns.aligned(column)[0]
    ordered = np.sort(values[np.isfinite(values)])
    return moments(np.clip(ordered, _order(ordered, 1, 100), _order(ordered, 99, 100)))


def _projected(name: str, values: Floats, detail: Detail) -> NumericSummary | None:
    """The summary of positions, its bounds halfway between neighbouring ones: where features have few values, so have
    projections, and a sum of float32 comes out beside the sum of float64."""
    distinct = np.unique(values)
    if not len(distinct):
        return None
    beyond = (distinct[1] - distinct[0], distinct[-1] - distinct[-2]) if len(distinct) > 1 else (1.0, 1.0)
    steps = np.concatenate([[distinct[0] - beyond[0]], distinct, [distinct[-1] + beyond[1]]])
    above = steps.searchsorted(sorted_bounds(np.sort(values), detail.buckets), "right")
    return numeric(name, values, bounds=np.unique((steps[above - 1] + steps[above]) / 2), detail=detail)


def _chunks(raw: list[Floats]) -> Iterable[Floats]:
    for start in range(0, len(raw[0]), _CHUNK):
        yield np.column_stack([values[start : start + _CHUNK] for values in raw])


def _correlation(raw: list[Floats], centre: Floats, scale: Floats) -> NDArray[np.float64]:
    total = np.zeros((len(raw), len(raw)))
    for chunk in _chunks(raw):
        z = standardised(chunk, centre, scale)
        total += z.T @ z
    return total / len(raw[0])


def _components(correlation: NDArray[np.float64]) -> dict[str, Floats]:
    """Directions by name (pc1 has the largest variance); the largest loading of each is positive."""
    variances, vectors = np.linalg.eigh(correlation)
    ranked = [(v, vectors[:, i]) for i, v in enumerate(variances)][::-1]
    named = {f"pc{rank}": vector for rank, (v, vector) in enumerate(ranked, 1) if v >= _LEAST_VARIANCE}
    if len(named) > PROJECTIONS:
        ends = [*list(named)[: PROJECTIONS // 2], *list(named)[-PROJECTIONS // 2 :]]
        named = {name: named[name] for name in ends}
    return {name: vector * np.sign(vector[np.argmax(np.abs(vector))]) for name, vector in named.items()}


def along(raw: list[Floats], centre: Floats, scale: Floats, loadings: NDArray[np.float64]) -> Floats:
    """Where rows lie on directions: (rows, directions), of columns `raw` and `loadings` (columns, directions)."""
    found = np.empty((len(raw[0]), loadings.shape[1]))
    done = 0
    for chunk in _chunks(raw):
        found[done : done + len(chunk)] = project(chunk, centre, scale, loadings)
        done += len(chunk)
    return found
