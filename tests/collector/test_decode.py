"""OTLP bytes to a PointBatch: what is read, what is refused and why, and what an attacker can make it do."""

from __future__ import annotations

import math
import tracemalloc
from collections import Counter
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from opentelemetry.exporter.otlp.proto.common.metrics_encoder import encode_metrics
from opentelemetry.metrics import Observation
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, ArrayValue, KeyValue
from opentelemetry.proto.metrics.v1.metrics_pb2 import (
    HistogramDataPoint,
    Metric,
    NumberDataPoint,
)
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.resources import Resource
from otlp import SECOND, counter, histogram, histogram_point, pairs, request, rows, sum_point

from otel_ml_collector import decode as decode_module
from otel_ml_collector.decode import (
    MAX_ATTRIBUTES,
    DecodeError,
    DecodeLimits,
    Decoder,
    TooManyPoints,
    decode,
)
from otel_ml_collector.points import CUMULATIVE, DELTA, Series


def test_histogram_point_arrives_as_it_was_sent() -> None:
    """A histogram point keeps its identity, times, temporality, counts and bounds."""
    body = request(
        histogram(histogram_point([1, 2, 3], [-1.5, 0.0], ml_model_name="churn")), service_name="api"
    )

    (row,) = rows(decode(body).batch)

    series = Series(
        (("service.name", "api"),), "otel_ml", "ml.feature.value", (("ml.model.name", "churn"),), "histogram"
    )
    assert row == (series, SECOND, 2 * SECOND, DELTA, [1, 2, 3], (-1.5, 0.0))


def test_sum_point_arrives_as_it_was_sent() -> None:
    """A sum point is one value without bounds."""
    body = request(counter(sum_point(as_int=7, attributes=pairs(a="x", b=True, c=2, d=0.5))))

    (row,) = rows(decode(body).batch)

    attributes = (("a", "x"), ("b", True), ("c", 2), ("d", 0.5))
    series = Series((), "otel_ml", "ml.inference.rows", attributes, "sum")
    assert row == (series, SECOND, 2 * SECOND, DELTA, [7], ())


def test_batch_has_the_promised_types() -> None:
    """Every column has the dtype that points.py promises, also when there are no points."""
    for body in (b"", request(histogram(histogram_point([1, 1], [0.0])))):
        batch = decode(body).batch
        found = [batch.index, batch.start, batch.time, batch.values, batch.offsets]
        assert [column.dtype for column in found] == [np.dtype(np.int64)] * 5
        assert batch.temporality.dtype == np.dtype(np.int8)
        assert len(batch.offsets) == len(batch) + 1


def test_real_sdk_output_is_read() -> None:
    """What the SDK encodes for a counter and a histogram comes out with the same numbers."""
    reader = InMemoryMetricReader()
    provider = MeterProvider([reader], resource=Resource({"service.name": "api"}), shutdown_on_exit=False)
    meter = provider.get_meter("otel_ml")
    meter.create_counter("ml.inference.rows").add(3, {"ml.model.name": "churn"})
    recorder = meter.create_histogram("ml.inference.duration", explicit_bucket_boundaries_advisory=[1.0, 2.0])
    for value in (0.5, 1.0, 1.5, 9.0):
        recorder.record(value, {"ml.model.name": "churn"})
    meter.create_observable_gauge("ml.gauge", callbacks=[lambda _: [Observation(1)]])
    body = encode_metrics(reader.get_metrics_data()).SerializeToString()

    decoded = decode(body)

    found = {series.metric: (values, bounds) for series, _, _, _, values, bounds in rows(decoded.batch)}
    assert found == {"ml.inference.rows": ([3], ()), "ml.inference.duration": ([2, 1, 1], (1.0, 2.0))}
    assert set(decoded.batch.temporality.tolist()) == {CUMULATIVE}
    assert decoded.ignored == {"gauge": 1}
    provider.shutdown()


@st.composite
def _point_parts(draw: st.DrawFn) -> list[bytes]:
    """A histogram point as its fields, one message each, to be put together in any order."""
    bounds = sorted(draw(st.sets(st.floats(-1e9, 1e9), max_size=5)))
    counts = draw(st.lists(st.integers(0, 2**40), min_size=len(bounds) + 1, max_size=len(bounds) + 1))
    text = st.text(max_size=200)
    fields: list[dict[str, Any]] = [
        {"start_time_unix_nano": draw(st.integers(0, 2 * SECOND))},
        {"time_unix_nano": draw(st.integers(2 * SECOND, 2**62))},
        {"count": sum(counts)},
        {"bucket_counts": counts},
        {"explicit_bounds": bounds},
        *({"attributes": pairs(**{key: draw(text)})} for key in draw(st.sets(st.sampled_from("abcd")))),
        *draw(st.sampled_from([[], [{"sum": 1.0}], [{"min": -1.0}, {"max": 3.0}], [{"min": 0.0}]])),
    ]
    return [HistogramDataPoint(**one).SerializeToString() for one in fields]


@given(parts=_point_parts(), shuffle=st.booleans(), random=st.randoms())
@settings(max_examples=150, deadline=None)
def test_any_field_order_means_the_same(parts: list[bytes], shuffle: bool, random: Any) -> None:
    """A point gives what protobuf says it holds, whatever the order of its fields on the wire."""
    if shuffle:
        random.shuffle(parts)
    data = b"".join(parts)
    said = HistogramDataPoint.FromString(data)
    metric = Metric(name="ml.x").SerializeToString()
    body = _nested(metric + _field(9, _field(1, data) + b"\x10\x02"))

    decoded = decode(body)

    ((series, start, time, temporality, values, bounds),) = rows(decoded.batch)
    assert values == list(said.bucket_counts)
    assert bounds == tuple(said.explicit_bounds)
    assert (start, time) == (said.start_time_unix_nano, said.time_unix_nano)
    assert temporality == CUMULATIVE
    assert dict(series.attributes) == {pair.key: pair.value.string_value for pair in said.attributes}
    assert not decoded.rejected


def _field(number: int, data: bytes) -> bytes:
    """A length-delimited field."""
    size, encoded = len(data), bytearray([number << 3 | 2])
    while size > 0x7F:
        encoded.append(size & 0x7F | 0x80)
        size >>= 7
    encoded.append(size)
    return bytes(encoded) + data


def _nested(metric: bytes) -> bytes:
    """A request whose one scope holds this metric, given as bytes."""
    return _field(1, _field(2, _field(2, metric)))


def test_resource_after_its_metrics_is_found() -> None:
    """Nothing in protobuf says that the resource, the scope or the metric's name comes first."""
    point = histogram_point([1], []).SerializeToString()
    data = b"\x10\x01" + _field(1, point)
    scope = _field(2, _field(9, data) + _field(1, b"ml.late")) + _field(1, _field(1, b"late"))
    resource = _field(1, pairs(host="a")[0].SerializeToString())
    body = _field(1, _field(2, scope) + _field(1, resource))

    (row,) = rows(decode(body).batch)

    assert row[0] == Series((("host", "a"),), "late", "ml.late", (), "histogram")


def test_split_messages_are_merged() -> None:
    """A histogram field that occurs twice in a metric is one histogram, as protobuf has it."""
    first, second = (_field(9, _field(1, histogram_point([n], []).SerializeToString())) for n in (1, 2))
    body = _nested(_field(1, b"ml.x") + first + second + _field(9, b"\x10\x01"))

    assert [row[4] for row in rows(decode(body).batch)] == [[1], [2]]


@pytest.mark.parametrize(
    ("reason", "metric"),
    [
        ("bucket_count", histogram(histogram_point([1, 2], [1.0, 2.0]))),
        ("bucket_count", histogram(HistogramDataPoint(time_unix_nano=1, count=3))),
        ("bounds", histogram(histogram_point([1, 2, 3], [2.0, 1.0]))),
        ("bounds", histogram(histogram_point([1, 2, 3], [1.0, 1.0]))),
        ("bounds", histogram(histogram_point([1, 2], [math.inf]))),
        ("bounds", histogram(histogram_point([1, 2], [math.nan]))),
        ("too_many_buckets", histogram(histogram_point([1] * 9, [float(i) for i in range(8)]))),
        ("no_temporality", histogram(histogram_point([1], []), temporality=0)),
        ("no_temporality", counter(sum_point(as_int=1), temporality=0)),
        ("not_monotonic", counter(sum_point(as_int=1), monotonic=False)),
        ("not_integer", counter(sum_point(as_double=1.5))),
        ("not_integer", counter(sum_point(as_double=math.nan))),
        ("not_integer", counter(sum_point(as_double=math.inf))),
        ("out_of_range", counter(sum_point(as_double=1e300))),
        ("out_of_range", counter(sum_point(as_int=-1))),
        ("out_of_range", counter(sum_point(as_int=2**60))),
        ("out_of_range", histogram(HistogramDataPoint(time_unix_nano=1, count=9, bucket_counts=[2**64 - 1]))),
        ("count", histogram(HistogramDataPoint(time_unix_nano=1, count=5, bucket_counts=[4]))),
        ("time", counter(NumberDataPoint(as_int=1))),
        ("time", counter(NumberDataPoint(as_int=1, start_time_unix_nano=3, time_unix_nano=2))),
        ("time", counter(NumberDataPoint(as_int=1, start_time_unix_nano=2**63, time_unix_nano=2**63))),
    ],
)  # fmt: skip
def test_faulty_points_are_rejected_by_reason(reason: str, metric: Metric) -> None:
    """A point that cannot be counted is left out and its reason counted, and the points beside it stay."""
    sound = histogram(histogram_point([4, 2], [0.5]), name="ml.sound")

    decoded = decode(request(metric, sound), limits=DecodeLimits(max_buckets=8))

    assert decoded.rejected == {reason: 1}
    assert [(row[0].metric, row[4]) for row in rows(decoded.batch)] == [("ml.sound", [4, 2])]
    assert [series.metric for series in decoded.batch.series] == ["ml.sound"]


def test_integral_floats_are_counts() -> None:
    """A float sum whose value is a whole number is that number."""
    decoded = decode(request(counter(sum_point(as_double=41.0))))

    assert [row[4] for row in rows(decoded.batch)] == [[41]]


def test_empty_histogram_is_a_point() -> None:
    """A cumulative histogram that has counted nothing yet is a point like any other."""
    decoded = decode(request(histogram(histogram_point([0, 0], [1.0]))))

    assert [row[4] for row in rows(decoded.batch)] == [[0, 0]]


def test_points_for_others_are_ignored_and_counted() -> None:
    """Foreign metrics, other kinds, staleness markers and own output are ignored, not rejected."""
    foreign = histogram(histogram_point([1], []), histogram_point([2], []), name="http.server.duration")
    gauge, summary = Metric(name="ml.g"), Metric(name="ml.s")
    gauge.gauge.data_points.add(as_double=1)
    summary.summary.data_points.add(count=1)
    stale = counter(NumberDataPoint(time_unix_nano=1, flags=1))

    decoded = decode(request(foreign, gauge, summary, stale))
    own = decode(request(histogram(histogram_point([1], [])), scope="otel_ml.drift"))

    expected = {"foreign": 2, "gauge": 1, "summary": 1, "no_recorded_value": 1}
    assert decoded.ignored == expected
    assert (decoded.rejected, len(decoded.batch)) == ({}, 0)
    assert (own.ignored, len(own.batch)) == ({"own_output": 1}, 0)


def test_only_scalar_attributes_are_kept() -> None:
    """Arrays and NaN are left out of an identity, which has to be hashable and equal to itself."""
    listed = KeyValue(key="list", value=AnyValue(array_value=ArrayValue(values=[AnyValue(int_value=1)])))
    point = sum_point(as_int=1, attributes=[listed, *pairs(ok="yes", nan=math.nan)])

    (series,) = decode(request(counter(point))).batch.series

    assert series.attributes == (("ok", "yes"),)


def test_attribute_order_does_not_make_another_series() -> None:
    """Two points with the same attributes in another order belong to one series."""
    points = [sum_point(as_int=1, attributes=order) for order in (pairs(a="1", b="2"), pairs(b="2", a="1"))]

    batch = decode(request(counter(*points))).batch

    assert (len(batch.series), batch.index.tolist()) == (1, [0, 0])


def test_series_are_one_object_across_requests() -> None:
    """A decoder gives the same Series object for the same stream in every batch."""
    decoder = Decoder()
    body = request(
        histogram(histogram_point([1], [], a="1"), histogram_point([1], [], a="2")), service_name="x"
    )

    first, second = decoder.decode(body).batch, decoder.decode(body).batch

    assert len(first.series) == 2
    assert all(one is other for one, other in zip(first.series, second.series, strict=True))


def test_remembered_series_are_bounded() -> None:
    """Series that keep changing do not make the decoder grow, and what it says stays right."""
    decoder = Decoder(DecodeLimits(max_cached_series=10))

    for turn in range(50):
        (row,) = rows(
            decoder.decode(request(counter(sum_point(as_int=turn, attributes=pairs(a=turn))))).batch
        )
        assert (row[0].attributes, row[4]) == ((("a", turn),), [turn])
    assert len(decoder._series) <= 11


def test_as_many_points_as_allowed() -> None:
    """The limit on points is the number that still passes; one more is refused with the way out."""
    points = [histogram_point([1], []) for _ in range(5)]

    assert len(decode(request(histogram(*points)), limits=DecodeLimits(max_points=5)).batch) == 5
    with pytest.raises(TooManyPoints, match=r"more than 4 data points.*max_data_points_per_request"):
        decode(request(histogram(*points)), limits=DecodeLimits(max_points=4))


def test_single_points_in_their_own_resources_fit_the_limit() -> None:
    """The bound on fields does not refuse the most wasteful honest request."""
    body = request(histogram(histogram_point([1], []), temporality=CUMULATIVE), service_name="api") * 2000

    assert len(decode(body, limits=DecodeLimits(max_points=2000)).batch) == 2000


@pytest.mark.parametrize(
    "body",
    [
        _nested(_field(1, b"ml.x") + _field(9, b"\x0a\x00" * 1_000_000)),  # points
        _nested(_field(1, b"foreign") + _field(9, b"\x0a\x00" * 1_000_000)),
        b"\x0a\x00" * 1_000_000,  # resources
        _field(1, b"\x12\x00" * 1_000_000),  # scopes
        _field(1, _field(2, b"\x12\x00" * 1_000_000)),  # metrics
        _nested(_field(1, b"ml.x") + b"\x4a\x00" * 1_000_000),  # histograms of one metric
    ],
    ids=["points", "foreign points", "resources", "scopes", "metrics", "histograms"],
)
def test_amplification_is_refused_without_memory(body: bytes) -> None:
    """A body of empty messages is refused before more than a few times its size is used."""
    tracemalloc.start()
    with pytest.raises(TooManyPoints):
        decode(body, limits=DecodeLimits(max_points=10_000))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert peak < 8 * len(body)


def test_oversized_identity_is_rejected() -> None:
    """Attributes without end belong to no stream: the point is rejected before they are parsed."""
    endless = b"\x4a\x00" * 100_000
    point = histogram_point([1], []).SerializeToString() + endless
    body = _nested(_field(1, b"ml.x") + _field(9, b"\x10\x01" + _field(1, point)))
    resource = _field(1, _field(1, b"\x0a\x00" * 100_000) + body[4:])

    assert decode(body).rejected == {"too_large": 1}
    assert Counter(decode(resource).rejected) == {"too_large": 1}


_POINT_OF_X = _nested(
    _field(1, b"ml.x") + _field(9, b"\x10\x01" + _field(1, histogram_point([1], []).SerializeToString()))
)


@pytest.mark.parametrize(
    "body",
    [
        b"\xff",
        b"not protobuf",
        b'{"resourceMetrics": []}',
        b"\x0a\x05abc",
        b"\x00\x00",
        b"\xff" * 11,
        b"\x09abc",
        b"\x0a",
        _field(1, _field(1, b"\xff\xff") + _POINT_OF_X[2:]),
        _field(1, _field(2, b"\x0a\x7f")),
        _POINT_OF_X.replace(b"ml.x", b"ml.\xff"),
        _nested(_field(1, b"ml.x") + _field(9, b"\x10\x01" + _field(1, b"\x32\xff"))),
        _nested(_field(1, b"ml.x") + _field(7, b"\x10\x01\x18\x01" + _field(1, b"\x3a\x02\x0a\x05"))),
    ],
)  # fmt: skip
def test_malformed_bytes_raise(body: bytes) -> None:
    """Bytes that are not an export request raise DecodeError."""
    with pytest.raises(DecodeError):
        decode(body)


@given(data=st.data())
@settings(max_examples=300, deadline=None)
def test_damaged_requests_never_crash(data: st.DataObject) -> None:
    """A request with bytes cut off or changed is read or refused; nothing else happens."""
    metric = histogram(histogram_point([1, 2], [0.5], a="x"), histogram_point([3, 4], [0.5], a="y"))
    body = bytearray(
        request(metric, counter(sum_point(as_int=5, attributes=pairs(a="z"))), service_name="api")
    )
    for _ in range(data.draw(st.integers(1, 4))):
        body[data.draw(st.integers(0, len(body) - 1))] = data.draw(st.integers(0, 255))
    del body[data.draw(st.integers(0, len(body))) :]

    try:
        decoded = decode(bytes(body))
    except (DecodeError, TooManyPoints):
        return
    batch = decoded.batch
    assert len(batch) + sum(decoded.rejected.values()) + sum(decoded.ignored.values()) <= 3
    assert int(batch.offsets[-1]) == len(batch.values)


def test_a_large_resource_is_parsed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """However many metrics stand below it, and also when it is refused."""
    parsed = []

    def counting(data: bytes) -> Any:
        parsed.append(data)
        return original(data)

    original = decode_module._resource
    monkeypatch.setattr(decode_module, "_resource", counting)
    metrics = [histogram(histogram_point([1], []), name=f"ml.m{i}") for i in range(20)]
    decoder = Decoder()

    assert len(decoder.decode(request(*metrics, service_name="x")).batch) == 20
    many = {f"k{i}": i for i in range(MAX_ATTRIBUTES + 1)}
    assert decoder.decode(request(*metrics, **many)).rejected == {"too_many_attributes": 20}
    assert len(parsed) == 2


def test_points_with_attributes_beyond_reason_are_refused() -> None:
    """Every series keeps its attributes, so their number and their size are bounded; others are taken."""
    many = histogram_point([1], [], **{f"k{i}": i for i in range(MAX_ATTRIBUTES + 1)})
    long = histogram_point([1], [], a="x" * 5000)
    decoded = decode(request(histogram(many, long, histogram_point([1], [], a="x" * 3000))))

    assert decoded.rejected == {"too_many_attributes": 1, "too_large": 1}
    assert len(decoded.batch) == 1
