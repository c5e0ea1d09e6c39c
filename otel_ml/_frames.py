"""Rows that came in many small pandas frames, put together before they are read.

To give up the values of one row of mixed types takes pandas twenty times as long as to join it to the rows before it.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from typing import Any

from .columns import table

_SHORT = 100
"""Rows below which frames are joined: a long one is read faster than it is copied."""

Layout = tuple[Any, list[Any], list[bytes]]
"""Columns of a frame, and type and columns of each of its blocks."""


def joined(items: Iterable[Any]) -> Iterator[Any]:
    """The items in their order, each run of short pandas frames of one layout as the `Table` of all their rows."""
    run: list[Any] = []
    last: Layout | None = None
    for item in items:
        layout = _layout(item)
        if run and (layout is None or last is None or not _same(layout, last)):
            yield from _together(run)
            run = []
        if layout is None:
            yield item
        else:
            run.append(item)
        last = layout
    yield from _together(run)


def _together(run: list[Any]) -> list[Any]:
    if len(run) < 2:
        return run
    try:
        return [table(sys.modules["pandas"].concat(run, ignore_index=True))]
    except Exception:  # then what is wrong with one of them is found where it is read alone
        return run


def _layout(item: Any) -> Layout | None:
    """None for what is no short frame, and where pandas keeps its blocks in another way than we know."""
    frame = getattr(sys.modules.get("pandas"), "DataFrame", None)
    if type(item) is not frame or not 0 < len(item) < _SHORT:
        return None
    try:  # to ask for the dtypes takes longer than to join
        blocks = item._mgr.blocks
        return item.columns, [b.dtype for b in blocks], [b.mgr_locs.as_array.tobytes() for b in blocks]
    except AttributeError:
        return None


def _same(one: Layout, other: Layout) -> bool:
    """Whether joined frames are read as each would be alone: with types that are equal, and not only alike."""
    return one[1:] == other[1:] and _same_names(one[0], other[0])


def _same_names(one: Any, other: Any) -> bool:
    if one.is_(other):
        return True
    if one.dtype != other.dtype or not one.equals(other):
        return False
    return one.dtype != object or bool(
        one.inferred_type == "string"
    )  # 1 and 1.0 are equal, but not the same name
