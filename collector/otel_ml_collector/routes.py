"""Which stream a series feeds, or why it feeds none."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import repeat

import numpy as np
from numpy.typing import NDArray

from otel_ml import semconv

from .groups import Destination, resolve, segments
from .ledger import Ledger
from .points import Series
from .shares import Shares
from .streams import Streams

IGNORED, LOOP, BASELINE, LIMIT = -1, -2, -3, -4
"""In place of a stream: none of ours; our own output; what a baseline says; no room for one more."""
_UNKNOWN = -5


class Routes:
    """Finds the stream of a series, and opens it when there is none yet."""

    def __init__(self, streams: Streams, ledger: Ledger, *, max_streams: int) -> None:
        self._streams = streams
        self._ledger = ledger
        self._max_streams = max_streams
        self._shares = Shares(max_streams)
        self._known: dict[int, int] = {}
        """By the identity of a series, which is its own for as long as it is held."""
        self._held: list[Series] = []

    def of(self, series: Sequence[Series], now: int) -> NDArray[np.int64]:
        """(n,) the stream of each series, or one of the codes above."""
        # Decoders hand out the same object for the same series; its identity is much cheaper than its hash.
        codes = np.fromiter(map(self._known.get, map(id, series), repeat(_UNKNOWN)), np.int64, len(series))
        for i in np.flatnonzero(codes == _UNKNOWN).tolist():
            codes[i] = self._find(series[i], now)
            if codes[i] != LIMIT:
                self._remember(series[i], int(codes[i]))
        return codes

    def _remember(self, series: Series, code: int) -> None:
        if len(self._known) > 2 * self._max_streams:
            self.clear()
        self._known[id(series)] = code
        self._held.append(series)

    def _find(self, series: Series, now: int) -> int:
        stream = self._streams.find(series)
        if stream is not None:
            return stream
        if series.scope == semconv.DRIFT_SCOPE:
            return LOOP
        destination = resolve(series)
        if destination is None:
            return IGNORED
        if destination.reference:
            return BASELINE
        if self._shares.full(self._streams, series):
            return LIMIT
        stream = self._streams.add(series, now)
        self._open(stream, series, destination)
        return stream

    def _open(self, stream: int, series: Series, destination: Destination) -> None:
        self._ledger.add(stream, [destination, *segments(destination, series)])

    def reopen(self) -> None:
        """Let all streams that there are count again, after these were restored."""
        for stream, series in self._streams.items():
            destination = resolve(series)
            assert destination is not None
            self._open(stream, series, destination)

    def clear(self) -> None:
        """Look everything up anew, since streams are gone."""
        self._known.clear()
        self._held.clear()
