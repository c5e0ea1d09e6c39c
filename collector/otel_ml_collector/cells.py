"""Forms the cells that statistics are computed on, and names them.

A grouping is an array with the group number of every fine cell; `regroup` adds counts up by it.
"""

from __future__ import annotations

from itertools import pairwise
from math import floor, inf, log10

import numpy as np
from numpy.typing import NDArray

from otel_ml import semconv

Counts = NDArray[np.int64]
Floats = NDArray[np.float64]
Groups = NDArray[np.intp]

POOLED = (semconv.OTHER, semconv.UNSEEN)
"""Categories that are one cell: which of the two a value falls into depends on how much the sender knew."""

_SMALLEST_NORMAL_FLOAT32 = 1.1754944e-38


def regroup(counts: Counts, groups: Groups) -> Counts:
    """Counts (…, cells) added up to (…, groups)."""
    member = groups[:, None] == np.arange(int(groups.max(initial=-1)) + 1)
    added: Counts = counts @ member.astype(np.int64)
    return added


def psi_groups(reference: Counts) -> Groups:
    """Groups of about a tenth of the reference, in order: exactly the deciles when the data has no ties.

    A cell with a tenth or more stands alone. Between those, cells are added up until they hold a tenth; a
    leftover of less than a twentieth joins the group before it, if that lies in the same run, else it stands
    alone, also when empty. The window has no say: cells that followed it would hide its drift.
    """
    groups = np.zeros(len(reference), np.intp)
    n, group, start = int(reference.sum()), -1, 0
    closed = False  # whether the run has a group a leftover could join
    total = 0
    for i, count in enumerate([*reference.tolist(), n + 1]):
        if 10 * count >= n:
            if start < i:
                group += not (closed and 20 * total < n)
                groups[start:i] = group
            if i < len(reference):
                group += 1
                groups[i] = group
            start, total, closed = i + 1, 0, False
            continue
        total += count
        if 10 * total >= n - 9:
            group += 1
            groups[start : i + 1] = group
            start, total, closed = i + 1, 0, True
    return groups


def pooled_groups(reference: Counts, current: Counts | Floats) -> Groups:
    """Groups in which both sides expect 5 rows or more when they do not differ, so that χ² holds.

    Cells are taken in falling order of a + c and added up until (a + c)·min(n, m)/(n + m) reaches 5; a
    leftover joins the last group.
    """
    both = reference + current
    n, m = float(reference.sum()), float(current.sum())
    need = 5 * (n + m) / min(n, m)
    groups = np.zeros(len(both), np.intp)
    order = np.argsort(-both, kind="stable")
    group, total = 0, 0.0
    for i in order.tolist():
        groups[i] = group
        total += float(both[i])
        if total >= need:
            group, total = group + 1, 0.0
    return np.minimum(groups, max(0, group - 1))


def category_groups(categories: tuple[str, ...]) -> tuple[Groups, tuple[str, ...]]:
    """Groups and names of categories, with those of `POOLED` as one cell."""
    names = tuple(dict.fromkeys(POOLED[0] if name in POOLED else name for name in categories))
    position = {name: i for i, name in enumerate(names)}
    found = [position[POOLED[0] if name in POOLED else name] for name in categories]
    return np.array(found, np.intp), names


def without_selection(reference: Counts, names: tuple[str, ...]) -> Floats:
    """Counts of categories less what naming the frequent ones overrates them by; that goes to the rest.

    Those that are named just so are named because they happened to be frequent: about 0.6 √t rows each of
    those within 2 √t of the smallest named count t, which fits simulated lists of 500 to 5,000 rows. Without
    this `semconv.OTHER` gains share for ever. Nothing is moved when no row is left unnamed.
    """
    counts = reference.astype(np.float64)
    if semconv.OTHER not in names:
        return counts
    other = names.index(semconv.OTHER)
    named = (reference > 0) & (np.arange(len(names)) != other)
    if not named.any() or not reference[other]:
        return counts
    step = float(np.sqrt(reference[named].min()))
    near = named & (reference <= step**2 + 2 * step)
    moved = min(0.6 * step, float(reference[other]) / np.count_nonzero(near))
    counts[near] -= moved
    counts[other] += moved * np.count_nonzero(near)
    return counts


def atoms(bounds: Floats) -> NDArray[np.bool_]:
    """Which of the len(bounds) + 1 cells hold one single value: those no wider than a step of float32."""
    marks = np.zeros(len(bounds) + 1, np.bool_)
    if len(bounds) > 1:
        step = np.spacing(_as_float32(np.abs(bounds[:-1] / 2 + bounds[1:] / 2))).astype(np.float64)
        marks[1:-1] = np.diff(bounds) <= np.maximum(step * (1 + 1e-9), 2 * _SMALLEST_NORMAL_FLOAT32)
    return marks


def single_values(bounds: Floats) -> Floats:
    """(len(bounds) - 1,) the one value of each inner cell that `atoms` marks; of the others their middle."""
    middle = bounds[:-1] / 2 + bounds[1:] / 2
    value = _as_float32(middle).astype(np.float64)
    return np.where(
        atoms(bounds)[1:-1], np.where(np.abs(value) <= _SMALLEST_NORMAL_FLOAT32, 0.0, value), middle
    )


def _as_float32(values: Floats) -> NDArray[np.float32]:
    limit = np.finfo(np.float32).max / 2  # at the maximum itself the next step has no float32
    return np.clip(values, -limit, limit).astype(np.float32)


def spread(reference: Counts, bounds: Floats) -> float | None:
    """The reference's interquartile range on cells, else its 1–99 % range, else its standard deviation.

    Read between the first and the last bound; None when all of them are 0, as for a constant.
    """
    q01, q25, q75, q99 = (quantile(reference, bounds, level) for level in (0.01, 0.25, 0.75, 0.99))
    with np.errstate(over="ignore", invalid="ignore"):
        widths = (q75 - q25, q99 - q01, deviation(reference, bounds))
    return next((width for width in widths if 0 < width < inf), None)


def _edges(bounds: Floats) -> tuple[Floats, Floats]:
    """Lower and upper end of every cell: open cells end at their one bound, single values in their middle."""
    lower, upper = np.append(bounds[0], bounds), np.append(bounds, bounds[-1])
    middle = lower / 2 + upper / 2
    single = atoms(bounds)
    return np.where(single, middle, lower), np.where(single, middle, upper)


def quantile(counts: Counts | Floats, bounds: Floats, level: float) -> float:
    """Quantile of binned values, on a straight line inside its cell; `level` is in (0, 1)."""
    lower, upper = _edges(bounds)
    above = np.cumsum(counts)
    rank = level * float(above[-1])
    i = int(np.searchsorted(above, rank))
    inside = (rank - float(above[i] - counts[i])) / float(counts[i])
    return float(lower[i] + (upper[i] - lower[i]) * inside)


def deviation(reference: Counts, bounds: Floats) -> float:
    """Standard deviation with the values of a cell in its middle, 0 when one cell holds them all."""
    lower, upper = _edges(bounds)
    middle = lower / 2 + upper / 2
    share = reference / reference.sum()
    if share.max() == 1:
        return 0.0  # the rounded mean would leave a crumb
    return float(np.sqrt(np.sum(share * (middle - np.sum(share * middle)) ** 2)))


def labels(bounds: Floats, groups: Groups) -> tuple[str, ...]:
    """Names of groups of numeric cells: `≤ 3.2`, `3.2 – 5`, `= 7`, `> 7`, with the digits they need."""
    single = atoms(bounds)
    first = np.searchsorted(groups, np.arange(int(groups[-1]) + 1))
    edges = [*(int(i) - 1 for i in first), len(bounds)]
    text = _written(bounds, single)
    return tuple(_label(text, single, low, high) for low, high in pairwise(edges))


def _label(text: list[str], single: NDArray[np.bool_], low: int, high: int) -> str:
    """The name of (bounds[low], bounds[high]], where −1 and len(text) are the open ends."""
    below = high < len(text) and bool(single[high + 1])  # a cell of one value follows: its edge lies under it
    if low < 0 and high == len(text):
        return "all"
    if low < 0:
        return f"{'<' if below else '≤'} {text[high]}"
    if high == len(text):
        return f"> {text[low]}"
    return f"= {text[high]}" if high == low + 1 and single[high] else f"{text[low]} – {text[high]}"


def _written(bounds: Floats, single: NDArray[np.bool_]) -> list[str]:
    """Bounds with three digits or as many as neighbours need to differ; around a single value, that value."""
    values = bounds.copy()
    for i in np.flatnonzero(single).tolist():
        value = float(_as_float32(bounds[i - 1 : i] / 2 + bounds[i : i + 1] / 2)[0])
        values[i - 1 : i + 1] = 0.0 if abs(value) <= _SMALLEST_NORMAL_FLOAT32 else value
    apart = np.diff(values) != 0
    for digits in range(3, 18):
        text = [_number(value, digits) for value in values.tolist()]
        if all(a != b for (a, b), differ in zip(pairwise(text), apart, strict=True) if differ):
            break
    return text


def _number(value: float, digits: int) -> str:
    """A number with `digits` significant digits, its integer part never rounded."""
    if value == 0:
        return "0"
    size = floor(log10(abs(value)))
    if not -4 <= size < 15:
        return f"{value:.{digits}g}"
    text = f"{value:.{max(0, digits - 1 - size)}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text
