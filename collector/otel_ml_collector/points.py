"""The columnar form in which measurements enter the engine: one `PointBatch` per request.

The engine never sees protobuf. `decode` makes a batch from OTLP bytes, `inprocess` from the SDK's MetricsData.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from .layouts import Bounds

DELTA = 1
CUMULATIVE = 2

Attributes = tuple[tuple[str, str | bool | int | float], ...]
"""Attributes sorted by key: hashable, and equal however the sender ordered them."""


@dataclass(frozen=True, slots=True)
class Series:
    """What identifies one stream of points. Start time is state of a stream, not part of its key."""

    resource: Attributes
    scope: str
    metric: str
    attributes: Attributes
    kind: Literal["sum", "histogram"]


@dataclass(frozen=True, slots=True)
class PointBatch:
    """Points of one request. Point i has `values[offsets[i]:offsets[i + 1]]` on `bounds[i]`.

    Shapes: n points; `offsets` is (n + 1,), `values` is (offsets[-1],).
    """

    series: tuple[Series, ...]
    """The distinct series of this batch."""
    index: NDArray[np.int64]
    """(n,) which of `series` a point belongs to."""
    start: NDArray[np.int64]
    """(n,) start time in Unix nanoseconds, 0 when the sender gave none."""
    time: NDArray[np.int64]
    """(n,) time in Unix nanoseconds."""
    temporality: NDArray[np.int8]
    """(n,) DELTA or CUMULATIVE."""
    values: NDArray[np.int64]
    """Bucket counts of histogram points, the one value of sum points (all our sums are integers)."""
    offsets: NDArray[np.int64]
    bounds: tuple[Bounds, ...]
    """One entry a point: the bounds of a histogram point, () for a sum."""

    def __len__(self) -> int:
        return len(self.index)
