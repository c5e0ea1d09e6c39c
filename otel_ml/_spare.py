"""Memory that copies of large matrices use again.

A block of more than 128 KiB comes fresh from the operating system, at a page fault for every 4 KiB of it: for a
matrix of 1000 × 30 that costs ten times the copy itself.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

LARGE = 2**16
"""Bytes from which a copy is made in memory that is used again."""


class Lease:
    """Holds a block, which goes back when the last reference to this goes: keep it while the bytes are in use."""

    __slots__ = ("_spare", "block")

    def __init__(self, block: bytearray, spare: Spare) -> None:
        self.block = block
        self._spare = spare

    def __len__(self) -> int:
        return len(self.block)

    def __del__(self) -> None:
        self._spare.give_back(self.block)


class Spare:
    """Blocks by size, at most `limit` bytes of them. Taking and giving back are safe in threads without a lock."""

    __slots__ = ("_blocks", "_limit")

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._blocks: dict[int, list[bytearray]] = {}

    def copy(self, rows: NDArray[Any]) -> Lease:
        """The bytes of `rows` in row order."""
        try:
            block = self._blocks[rows.nbytes].pop()
        except (KeyError, IndexError):
            block = bytearray(rows.nbytes)
        np.copyto(np.frombuffer(block, dtype=rows.dtype).reshape(rows.shape), rows)
        return Lease(block, self)

    def give_back(self, block: bytearray) -> None:
        """Keep `block`, which nothing refers to any more; sizes that are no longer asked for make room."""
        if len(block) > self._limit:
            return
        kept = sum(len(blocks) * size for size, blocks in list(self._blocks.items()))
        if kept + len(block) > self._limit:
            self._blocks.clear()
        self._blocks.setdefault(len(block), []).append(block)
