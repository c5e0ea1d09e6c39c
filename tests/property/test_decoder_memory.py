"""A decoder that has seen a sender before reads the same as one that has not."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from opentelemetry.proto.metrics.v1.metrics_pb2 import HistogramDataPoint, NumberDataPoint
from otlp import SECOND, counter, histogram, pairs, request, rows

from otel_ml_collector.decode import Decoder, decode
from otel_ml_collector.points import CUMULATIVE
from otel_ml_collector.usual import Extent

POINTS = 12


@st.composite
def _histograms(draw: st.DrawFn) -> list[HistogramDataPoint]:
    """More points than it takes for a decoder to expect the same again, sum and extremes here and there."""
    made = []
    for i in range(POINTS):
        bounds = [float(b) for b in range(draw(st.integers(0, 4)))]
        point = HistogramDataPoint(explicit_bounds=bounds, attributes=pairs(ml_feature_name=f"f{i}"))
        if draw(st.booleans()):
            point.sum = 1.0
        if draw(st.booleans()):
            point.min, point.max = 0.0, 1.0
        made.append(point)
    return made


def _body(points: list[HistogramDataPoint], turn: int) -> bytes:
    """The export of a turn, with counts of its own, and as many sums beside."""
    for i, point in enumerate(points):
        counts = np.arange(len(point.explicit_bounds) + 1) + i * turn + 1
        point.bucket_counts[:] = counts.tolist()
        point.count = int(counts.sum())
        point.start_time_unix_nano, point.time_unix_nano = SECOND, (turn + 2) * SECOND
        if point.HasField("max"):
            point.max = float(turn)
    sums = [
        NumberDataPoint(
            start_time_unix_nano=1, time_unix_nano=turn + 2, as_int=turn * i, attributes=pairs(a=i)
        )
        for i in range(POINTS)
    ]
    return request(histogram(*points, temporality=CUMULATIVE), counter(*sums), service_name="api")


def _read(decoded: Any) -> tuple[Counter[object], dict[str, int]]:
    found = [(series, start, time, tuple(values), bounds)
             for series, start, time, _, values, bounds in rows(decoded.batch)]  # fmt: skip
    return Counter(found), dict(decoded.rejected)


@given(points=_histograms(), data=st.data())
@settings(max_examples=40, deadline=None)
def test_what_was_seen_before_is_read_the_same(points: list[HistogramDataPoint], data: st.DataObject) -> None:
    """Also when a byte is not what it was in the requests before."""
    decoder = Decoder()
    for turn in range(5):
        body = _body(points, turn)
        assert _read(decoder.decode(body)) == _read(decode(body))
    damaged = bytearray(_body(points, 5))
    damaged[data.draw(st.integers(0, len(damaged) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    assert _outcome(decoder.decode, bytes(damaged)) == _outcome(decode, bytes(damaged))
    assert _read(decoder.decode(_body(points, 6))) == _read(decode(_body(points, 6)))


def _outcome(read: Any, body: bytes) -> object:
    try:
        return _read(read(body))
    except ValueError as error:
        return str(error)


def test_a_metric_that_looks_the_same_is_known_by_heart() -> None:
    """From the third request on; one that always looks different is given up."""
    points = [HistogramDataPoint(attributes=pairs(a=f"{i:02}")) for i in range(POINTS)]
    decoder = Decoder()
    for turn in range(2):
        decoder.decode(_body(points, turn))
    slots = list(decoder._slots.values())
    assert [slot.pattern is not None for slot in slots] == [True, True]
    for turn in range(40):
        points.reverse()
        decoder.decode(_body(points, turn))
    assert [slot.pattern is not None for slot in slots] == [False, True]


def test_halves_leave_out_the_tag_between_two_numbers() -> None:
    """An empty extent has none."""
    low, high = Extent(np.array([3, 0]), np.array([20, 0])).halves()
    assert (low.first.tolist(), low.last.tolist()) == ([3, 0], [11, 0])
    assert (high.first.tolist(), high.last.tolist()) == ([12, 0], [20, 0])
