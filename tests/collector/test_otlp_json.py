"""OTLP/JSON: against another implementation's writer, and rule by rule."""

from __future__ import annotations

import importlib
import json
import math
from typing import Any

import pytest
from google.protobuf.message import Message
from hypothesis import given, settings
from hypothesis import strategies as st
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue
from otlp import exponential, exponential_point, histogram, histogram_point, request

from otel_ml_collector import otlp_json
from otel_ml_collector.scan import DecodeError, TooManyPoints

# --- the oracle: opentelemetry-proto-json, generated from the same definitions ------------------------------


def oracle(message: Message) -> Any:
    """The same message as an object of opentelemetry-proto-json."""
    descriptor = message.DESCRIPTOR
    name = descriptor.file.name.replace("opentelemetry/proto/", "opentelemetry/proto_json/")
    made = importlib.import_module(name.removesuffix(".proto").replace("/", "."))
    for part in descriptor.full_name.removeprefix(descriptor.file.package + ".").split("."):
        made = getattr(made, part)
    return made(**{field.name: _value(field, value) for field, value in message.ListFields()})


def _value(field: Any, value: Any) -> Any:
    if field.message_type is None:
        return list(value) if field.is_repeated else value
    return [oracle(one) for one in value] if field.is_repeated else oracle(value)


def read(text: str | bytes, kind: type[Message] = ExportMetricsServiceRequest) -> Any:
    data = text.encode() if isinstance(text, str) else text
    return kind.FromString(otlp_json.protobuf(kind, data, max_values=10_000))


scalar = st.one_of(
    st.builds(lambda v: AnyValue(string_value=v), st.text(max_size=5)),
    st.builds(lambda v: AnyValue(int_value=v), st.integers(-(2**63), 2**63 - 1)),
    st.builds(lambda v: AnyValue(double_value=v), st.floats(allow_nan=False)),
    st.builds(lambda v: AnyValue(bool_value=v), st.booleans()),
    st.builds(lambda v: AnyValue(bytes_value=v), st.binary(max_size=5)),
)


def _listed(values: list[AnyValue]) -> AnyValue:
    made = AnyValue()
    made.array_value.SetInParent()
    made.array_value.values.extend(values)
    return made


value = st.recursive(scalar, lambda inner: st.builds(_listed, st.lists(inner, max_size=3)), max_leaves=5)


@settings(max_examples=60, deadline=None)
@given(value, st.binary(min_size=16, max_size=16), st.integers(0, 2**64 - 1), st.integers(0, 5))
def test_spans_and_logs_read_as_another_writer_wrote_them(
    attribute: AnyValue, trace_id: bytes, time: int, kind: int
) -> None:
    """Ids, nested values, 64-bit times and enums survive the way through opentelemetry-proto-json."""
    traces, logs = ExportTraceServiceRequest(), ExportLogsServiceRequest()
    span = (
        traces.resource_spans.add()
        .scope_spans.add()
        .spans.add(trace_id=trace_id, span_id=trace_id[:8], start_time_unix_nano=time, kind=kind)
    )
    span.attributes.add(key="a").value.CopyFrom(attribute)
    record = logs.resource_logs.add().scope_logs.add().log_records.add(time_unix_nano=time, trace_id=trace_id)
    record.body.CopyFrom(attribute)

    assert read(oracle(traces).to_json(), ExportTraceServiceRequest) == traces
    assert read(oracle(logs).to_json(), ExportLogsServiceRequest) == logs


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.integers(0, 2**63 - 1), min_size=2, max_size=6),
    st.floats(allow_nan=False),
    st.integers(-10, 20),
)
def test_metrics_read_as_another_writer_wrote_them(counts: list[int], bound: float, scale: int) -> None:
    """Histograms of both kinds survive the way through opentelemetry-proto-json."""
    point = histogram_point(
        [1] * len(counts), [bound + i for i in range(len(counts) - 1)], ml_model_name="churn"
    )
    point.bucket_counts[:] = counts
    wide = exponential_point(scale=scale, zero_count=3, positive=(-7, [1, 2]), negative=(0, [4]))
    made = ExportMetricsServiceRequest.FromString(request(histogram(point), exponential(wide)))

    assert read(oracle(made).to_json()) == made


# --- rule by rule: https://opentelemetry.io/docs/specs/otlp/#json-protobuf-encoding --------------------------


def point(**fields: Any) -> Any:
    """The one data point of a sum, after the way through JSON."""
    metric = {"name": "ml.rows", "sum": {"dataPoints": [fields]}}
    body = {"resourceMetrics": [{"scopeMetrics": [{"metrics": [metric]}]}]}
    return read(json.dumps(body)).resource_metrics[0].scope_metrics[0].metrics[0].sum.data_points[0]


def span(**fields: Any) -> Any:
    body = {"resourceSpans": [{"scopeSpans": [{"spans": [fields]}]}]}
    return read(json.dumps(body), ExportTraceServiceRequest).resource_spans[0].scope_spans[0].spans[0]


@pytest.mark.parametrize("written", [5, "5", 5.0])
def test_64_bit_integers_may_be_numbers_or_strings(written: object) -> None:
    """Both forms of a 64-bit integer are the same number."""
    assert (point(asInt=written).as_int, point(timeUnixNano=written).time_unix_nano) == (5, 5)


@pytest.mark.parametrize(
    "wrong", [5.5, "five", "", " 5", "٥", True, [5], {}, 2**63, "-9223372036854775809", 1e300]
)
def test_what_is_no_64_bit_integer_is_refused(wrong: object) -> None:
    """The field and the value are named."""
    with pytest.raises(DecodeError, match=r"NumberDataPoint.asInt cannot be "):
        point(asInt=wrong)


@pytest.mark.parametrize(
    ("written", "expected"), [(1, 1.0), ("1.5", 1.5), ("Infinity", math.inf), ("-Infinity", -math.inf)]
)
def test_doubles_may_be_numbers_or_strings(written: object, expected: float) -> None:
    """So that infinities can be written, too."""
    assert point(asDouble=written).as_double == expected


@pytest.mark.parametrize("wrong", ["", "nan", "inf", "1_0", " 1", "0x10", "१", True, [1.5], {}])
def test_what_is_no_double_is_refused(wrong: object) -> None:
    """Forms that only Python reads are none of JSON's."""
    with pytest.raises(DecodeError, match=r"NumberDataPoint.asDouble cannot be "):
        point(asDouble=wrong)


def test_wrong_values_are_shown_as_json_writes_them() -> None:
    """And containers by their kind: they can be as large as the body."""
    for wrong, shown in ((True, "true"), ([1], "an array"), ({"a": 1}, "an object"), ("x" * 99, '"xxx')):
        with pytest.raises(DecodeError, match=f"Span.kind cannot be {shown}"):
            span(kind=wrong)


def test_nan_is_written_as_a_string() -> None:
    """JSON has no NaN; "NaN" in a string is one, and bare it is bad JSON."""
    assert math.isnan(point(asDouble="NaN").as_double)
    with pytest.raises(DecodeError, match="not valid JSON"):
        read('{"resourceMetrics": NaN}')


def test_ids_are_hexadecimal_in_any_case() -> None:
    """trace_id, span_id and parent_span_id are not base64; an empty one is none."""
    made = span(traceId="5B8EFFF798038103D269B633813FC60C", spanId="eee19b7ec3c1b174", parentSpanId="")

    assert made.trace_id.hex() == "5b8efff798038103d269b633813fc60c"
    assert (made.span_id.hex(), made.parent_span_id) == ("eee19b7ec3c1b174", b"")


@pytest.mark.parametrize("wrong", ["abc", "zz", "5b 8e", 5, "W47/95g="])
def test_ids_that_are_not_hexadecimal_are_refused(wrong: object) -> None:
    """Base64, as protobuf's own JSON writes ids, is refused rather than misread."""
    with pytest.raises(DecodeError, match=r"Span.traceId cannot be "):
        span(traceId=wrong)


@pytest.mark.parametrize("written", ["+/8=", "-_8=", "-_8", "+/8"])
def test_other_bytes_are_base64(written: str) -> None:
    """Both alphabets, padded or not, as protobuf's JSON allows."""
    made = span(attributes=[{"key": "a", "value": {"bytesValue": written}}])

    assert made.attributes[0].value.bytes_value == b"\xfb\xff"


def test_enums_are_numbers_and_their_names_are_understood() -> None:
    """Numbers are the rule; a number of a later version is kept."""
    assert [span(kind=kind).kind for kind in (2, "SPAN_KIND_SERVER", 77)] == [2, 2, 77]
    with pytest.raises(DecodeError, match=r'Span.kind cannot be "server"'):
        span(kind="server")


def test_only_lower_camel_case_names_are_known() -> None:
    """ "…original field names are not valid": they are unknown fields, which are passed over."""
    made = span(name="predict", trace_id="00", start_time_unix_nano="5", Kind=2, later={"version": [1]})

    assert [field.name for field, _ in made.ListFields()] == ["name"]


def test_null_is_a_field_that_is_not_there() -> None:
    """As in protobuf's JSON."""
    assert span(name=None, attributes=None, status=None).ListFields() == []


def test_values_are_bounded_before_anything_is_built() -> None:
    """Three bytes of JSON become a hundred in memory; what could not be honest is not read."""
    with pytest.raises(TooManyPoints, match="more than 10000 JSON values"):
        read(b'{"resourceMetrics": [' + b"{}," * 10_000 + b"{}]}")


def test_nesting_is_bounded() -> None:
    """Nested values end where protobuf ends, well before Python does."""
    deep = '{"arrayValue":{"values":[' * 60 + '{"intValue":"1"}' + "]}}" * 60
    with pytest.raises(DecodeError, match="nested deeper than 90 messages"):
        span(attributes=[{"key": "a", "value": json.loads(deep)}])
    with pytest.raises(DecodeError, match="not valid JSON"):
        read("[" * 5000 + "]" * 5000)
