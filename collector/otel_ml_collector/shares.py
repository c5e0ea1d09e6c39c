"""A part of all streams for each service, so that others find room beside one with too many series."""

from __future__ import annotations

from collections import Counter

from otel_ml import semconv

from .points import Series
from .streams import Streams

SHARE = 0.8
"""Part of all streams that one service may have."""


class Shares:
    """Says who may have another stream; streams are counted by service only when most of them are taken."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._counts: Counter[tuple[object, object]] = Counter()
        self._counted = -1
        """Streams there were when they were last counted."""

    def full(self, streams: Streams, series: Series) -> bool:
        """Whether all streams are taken, or the service's part of them; if not, it is about to get one."""
        if len(streams) < SHARE * self._limit or len(streams) >= self._limit:
            return len(streams) >= self._limit
        if len(streams) != self._counted:
            self._counts = Counter(_service(one) for _, one in streams.items())
        service = _service(series)
        full = self._counts[service] >= SHARE * self._limit
        self._counts[service] += not full
        self._counted = len(streams) + (not full)
        return full


def _service(series: Series) -> tuple[object, object]:
    resource = dict(series.resource)
    return resource.get(semconv.SERVICE_NAMESPACE), resource.get(semconv.SERVICE_NAME)
