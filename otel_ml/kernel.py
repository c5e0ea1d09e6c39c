"""Counts the columns of matrices at the cuts of each column, by sorting blocks that stay in the processor's cache.

Most columns are sorted in float32, in half the time of float64, and nothing is lost by it: rounding is monotone,
so where a cut c and the next float64 after it differ in float32, x <= c exactly when float32(x) <= float32(c).
The bounds of a baseline stand at such places (see `binning`). At the few cuts that do not, as the one under a
zero, a value is in doubt only when it rounds to the very number that the cut rounds to; a column of a block that
holds one is sorted once more in float64.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from .sketches import Probes

Pieces = list[NDArray[np.generic]]

_BLOCK_BYTES = 2**19
"""Sorted and counted at a time: every block is searched at all cuts, and larger ones leave the cache."""
_MAX_DOUBTFUL = 4
"""Most doubtful cuts of a column that is sorted in float32; to look at more costs what that saves."""
_F4, _F8, _I8 = np.dtype("f4"), np.dtype("f8"), np.dtype("i8")


class Kernel:
    """Counts the columns at some places of matrices, each at cuts of its own."""

    def __init__(self, columns: Mapping[int, Probes]) -> None:
        cuts = {place: probes.cuts for place, probes in columns.items()}
        doubtful = {place: _doubtful(found) for place, found in cuts.items()}
        short = {place: cuts[place] for place, found in doubtful.items() if len(found) <= _MAX_DOUBTFUL}
        self._short = _Short(short, [doubtful[place] for place in short])
        self._long = _Long({place: found for place, found in cuts.items() if place not in short})
        self._all = _Long(cuts)

    def below(self, parts: Sequence[NDArray[np.generic]]) -> dict[int, NDArray[np.int64]]:
        """How many values are <= each cut, by place, over all `parts` of shape (n, d).

        A value counts as the float64 that it is converted to; a NaN is under no cut.
        """
        if _flushes_subnormals():
            return self._all.below(parts)
        return self._short.below(parts) | self._long.below(parts)


class _Long:
    """Columns that are sorted in float64."""

    dtype: np.dtype[np.floating] = _F8

    def __init__(self, cuts: Mapping[int, NDArray[np.float64]]) -> None:
        self._places = list(cuts)
        self._lengths = list(map(len, cuts.values()))
        self._exact = _padded(list(cuts.values()))
        self._cuts: NDArray[np.floating] = self._exact

    def below(self, parts: Sequence[NDArray[np.generic]]) -> dict[int, NDArray[np.int64]]:
        total = np.zeros(self._exact.shape, dtype=np.int64)
        for block, pieces in blocks(parts, self._places, self.dtype):
            block.sort(axis=1)
            total += self._below(block, pieces)
        found = zip(self._places, total, self._lengths, strict=True)
        return {place: counts[:length] for place, counts, length in found}

    def _below(self, block: NDArray[np.floating], pieces: Pieces) -> NDArray[np.int64]:  # noqa: ARG002
        return _searched(block, self._cuts)


class _Short(_Long):
    """Columns that are sorted in float32.

    Behind the cuts of a column stand guards, each the float32 before what a doubtful cut rounds to: no value rounds
    to that where both have the same count.
    """

    dtype: np.dtype[np.floating] = _F4

    def __init__(self, cuts: Mapping[int, NDArray[np.float64]], doubtful: Sequence[NDArray[np.intp]]) -> None:
        super().__init__(cuts)
        rows, width = self._cuts.shape
        most = max(map(len, doubtful), default=0)
        at = np.array([np.resize(found, most) for found in doubtful], dtype=np.intp).reshape(rows, most)
        with np.errstate(over="ignore", under="ignore"):
            rounded = self._cuts.astype(_F4)
            guards = np.nextafter(np.take_along_axis(rounded, at, axis=1), np.float32(-np.inf))
        self._cuts = np.concatenate([rounded, guards], axis=1)
        self._doubtful = at + np.arange(rows)[:, None] * (width + most)
        self._width = width

    def _below(self, block: NDArray[np.floating], pieces: Pieces) -> NDArray[np.int64]:
        found = _searched(block, self._cuts)
        below = found[:, : self._width]
        in_doubt = (found.take(self._doubtful) != found[:, self._width :]).any(axis=1)
        in_doubt |= below[:, 0] > 0  # -inf, or what is under the lowest float32
        for j in in_doubt.nonzero()[0].tolist():
            below[j] = self._again(j, pieces)
        return below

    def _again(self, j: int, pieces: Pieces) -> NDArray[np.int64]:
        column = np.concatenate([piece[:, self._places[j]] for piece in pieces]).astype(_F8)
        return _searched(np.sort(column)[None], self._exact[j : j + 1]).reshape(-1)


def blocks(
    parts: Sequence[NDArray[np.generic]], places: Sequence[int], dtype: np.dtype[np.floating]
) -> Iterator[tuple[NDArray[np.floating], Pieces]]:
    """Columns of all parts as blocks of shape (len(places), n), and the rows that each block was filled with.

    One buffer serves all blocks.
    """
    width, rows = len(places), sum(map(len, parts))
    if not width or not rows:
        return
    columns = slice(None) if len(places) == parts[0].shape[1] else list(places)
    room = max(min(rows, _BLOCK_BYTES // (width * dtype.itemsize)), 1)
    block = np.empty((width, room), dtype)
    filled, pieces = 0, Pieces()
    for part in parts:
        done = 0
        while done < len(part):
            piece = part[done : done + room - filled]
            _fill(block[:, filled : filled + len(piece)], piece[:, columns])
            pieces.append(piece)
            done, filled = done + len(piece), filled + len(piece)
            if filled == room:
                yield block, pieces
                filled, pieces = 0, []
    if filled:
        yield block[:, :filled], pieces


def _fill(block: NDArray[np.floating], rows: NDArray[np.generic]) -> None:
    if rows.dtype == _I8 and block.dtype == _F4:
        rows = rows.astype(_F8)  # rounded twice, as the cuts are, not once
    with np.errstate(over="ignore", under="ignore", invalid="ignore"):
        np.copyto(block, rows.T, casting="unsafe")


def _searched(block: NDArray[np.floating], cuts: NDArray[np.floating]) -> NDArray[np.int64]:
    below = np.empty(cuts.shape, dtype=np.int64)
    for counts, column, wanted in zip(below, block, cuts, strict=True):
        counts[:] = column.searchsorted(wanted, "right")
    return below


def _padded(cuts: Sequence[NDArray[np.float64]]) -> NDArray[np.float64]:
    """One row a column; what is missing of the longest is filled up with +inf."""
    padded = np.full((len(cuts), max(map(len, cuts), default=0)), np.inf)
    for row, found in zip(padded, cuts, strict=True):
        row[: len(found)] = found
    return padded


def _doubtful(cuts: NDArray[np.float64]) -> NDArray[np.intp]:
    """Where finite or +inf cuts round to the same float32 as what follows them, of equal ones the first."""
    with np.errstate(over="ignore", under="ignore"):
        rounded, after = cuts.astype(_F4), np.nextafter(cuts, np.inf).astype(_F4)
    places = np.flatnonzero((after <= rounded) & (rounded > -np.inf))
    return places[np.unique(rounded[places], return_index=True)[1]]


def _flushes_subnormals() -> bool:
    """Whether this thread takes subnormal float32 for zero, as it does after some libraries were loaded."""
    with np.errstate(under="ignore"):
        return not np.array([1e-40]).astype(_F4)[0] > 0
