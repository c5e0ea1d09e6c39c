"""What is fuzzed: each decoder as a function of bytes, which may refuse in the ways it says and in no other.

python -m fuzz decode --minutes 3        (from tests/, or by `make fuzz`)
"""

from __future__ import annotations

import gzip
import hashlib
import json
import math
import tempfile
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from google.protobuf.json_format import MessageToDict
from google.protobuf.message import Message
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from otlp import (
    counter,
    exponential,
    exponential_point,
    histogram,
    histogram_point,
    request,
    rows,
    sum_point,
)

from otel_ml import Baseline
from otel_ml.errors import BaselineError, ConfigurationError
from otel_ml_collector import checkpoint, config, intake, journal, otlp_json
from otel_ml_collector.decode import DecodeError, DecodeLimits, Decoder, TooManyPoints
from otel_ml_collector.drift import Policy
from otel_ml_collector.engine import Engine, Limits
from otel_ml_collector.signals import LOGS, METRICS, TRACES
from otel_ml_collector.window import WindowSpec

_NOW = 10_000_000_000
_LIMITS = DecodeLimits(max_points=500, max_buckets=64, max_cached_series=50)
_LARGEST = 100_000
_DECODER = Decoder(_LIMITS)
_BREAK = b"\xffBREAK\xff"
"""Between the parts of an input that has two."""


def decode(data: bytes) -> None:
    """Protobuf metrics, through the decoder into an engine, to its numbers."""
    try:
        decoded = _DECODER.decode(data)
    except (DecodeError, TooManyPoints):
        return
    assert len(decoded.batch) <= _LIMITS.max_points
    window = WindowSpec(length=60, step=10, lateness=1, refresh=1)
    engine = Engine(window, Policy(min_rows=1, min_reference_rows=1), Limits(100, 100, 64), started=0)
    engine.ingest(decoded.batch, _NOW)
    for evaluation in engine.advance(_NOW + 100 * 10**9):
        for target in evaluation.targets:
            assert not math.isnan(target.rows)


def remembered(data: bytes) -> None:
    """Protobuf metrics of a sender that a decoder has seen before: they read the same as for one that has not."""
    head, _, body = data.partition(_BREAK)
    knows = Decoder(_LIMITS)
    for _ in range(3):
        _read(knows, head)
    assert _read(knows, body) == _read(Decoder(_LIMITS), body)


def _read(decoder: Decoder, data: bytes) -> object:
    try:
        decoded = decoder.decode(data)
    except (DecodeError, TooManyPoints) as error:
        return type(error)
    return Counter(map(_hashable, rows(decoded.batch))), decoded.rejected


def _hashable(row: tuple[Any, ...]) -> tuple[Any, ...]:
    series, start, time, temporality, values, bounds = row
    return series, start, time, temporality, tuple(values), repr(bounds)


def checkpoints(data: bytes) -> None:
    """Checkpoints whose checksum fits; what is accepted is written and read again the same."""
    structure, _, arrays = data.partition(_BREAK)
    head = checkpoint._HEAD.pack(checkpoint._MAGIC, len(structure), len(arrays))
    made = head + structure + arrays
    try:
        plain = checkpoint.decode(made + hashlib.sha256(made).digest())
    except checkpoint.CheckpointError:
        return
    again = checkpoint.decode(b"".join(checkpoint.encode(plain)))
    assert repr(again) == repr(plain)


def journals(data: bytes) -> None:
    """Segments of a journal, and a record whose checksums fit."""
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "segment"
        record = journal.Record(journal.REQUEST, 1, 0, data)
        for content in (data, journal._MAGIC + data, journal._MAGIC + journal.packed(record)):
            path.write_bytes(content)
            try:
                found = list(journal.read(path))
            except journal.JournalError:
                continue
            assert sum(len(one.body) for one in found) <= len(content)
        assert found == [record]


def json_metrics(data: bytes) -> None:
    """OTLP/JSON of every signal; what is accepted is valid protobuf of that signal."""
    for signal in (METRICS, TRACES, LOGS):
        try:
            made = otlp_json.protobuf(signal.request, data, max_values=5000)
        except (DecodeError, TooManyPoints):
            continue
        signal.request.FromString(made)
        intake.count_items(made, 10_000)


def items(data: bytes) -> None:
    """The count of spans in what is passed on; what protobuf reads has as many."""
    try:
        counted = intake.count_items(data, 1000)
    except (DecodeError, TooManyPoints):
        return
    try:
        parsed = ExportTraceServiceRequest.FromString(data)
    except Exception:
        return  # what is inside of a span is not looked at
    assert counted == sum(
        len(scope.spans) for resource in parsed.resource_spans for scope in resource.scope_spans
    )


def compressed(data: bytes) -> None:
    """gzip and deflate; what is unpacked is within the limit."""
    for encoding in intake.ENCODINGS:
        assert len(_unpacked(data, encoding)) <= _LARGEST


def _unpacked(data: bytes, encoding: str) -> bytes:
    try:
        return intake.decompress(data, encoding, limit=_LARGEST)
    except (DecodeError, intake.Refusal):
        return b""


def baseline(data: bytes) -> None:
    """Baseline files; what is accepted is written and read again the same."""
    try:
        read = Baseline.from_json(data.decode(errors="surrogatepass"))
    except (BaselineError, UnicodeDecodeError):
        return
    assert Baseline.from_json(read.to_json()).id == read.id


def configuration(data: bytes) -> None:
    """Configuration files."""
    try:
        config.parse(data.decode(errors="replace"), source="fuzz", environ={"A": "b"})
    except ConfigurationError:
        return


TARGETS: Mapping[str, Callable[[bytes], None]] = {
    "decode": decode,
    "remembered": remembered,
    "checkpoint": checkpoints,
    "journal": journals,
    "json": json_metrics,
    "items": items,
    "compressed": compressed,
    "baseline": baseline,
    "config": configuration,
}


# --- where they start ---------------------------------------------------------------------------------------


def seeds(target: str) -> Iterator[bytes]:
    """Honest inputs of a target."""
    yield from {
        "decode": _requests,
        "remembered": lambda: (data + _BREAK + data for data in _requests()),
        "checkpoint": _checkpoints,
        "journal": lambda: (journal.packed(journal.Record(journal.ADVANCE, 1, 0)), b""),
        "json": lambda: map(_as_json, _requests()),
        "items": _traces,
        "compressed": lambda: (pack(data) for data in _requests() for pack in (gzip.compress, zlib.compress)),
        "baseline": _baselines,
        "config": _configurations,
    }[target]()


def _requests() -> Iterator[bytes]:
    names = {"ml_model_name": "churn", "ml_model_version": "3", "ml_feature_name": "age"}
    points = [histogram_point([1, 2, 3], [0.0, 1.0], **names), histogram_point([4], [], **names)]
    age = histogram(*points)
    yield request(age, service_name="api")
    yield request(histogram(*points, name="ml.baseline.value", temporality=2), service_name="api")
    yield request(counter(sum_point(as_int=3), sum_point(as_double=2.0)))
    yield request(
        exponential(exponential_point(scale=3, zero_count=1, positive=(-2, [1, 2]), negative=(0, [5]))),
        service_name="api",
    )
    yield b""


def _checkpoints() -> Iterator[bytes]:
    plain = {"panes": [np.arange(6).reshape(2, 3), np.zeros(0, bool)], "map": [["a"], [1.5, None, True, "b"]]}
    _, structure, *arrays, _ = checkpoint.encode(plain)
    yield bytes(structure) + _BREAK + b"".join(arrays)


def _as_json(data: bytes) -> bytes:
    message: Message = ExportMetricsServiceRequest.FromString(data)
    return json.dumps(MessageToDict(message, use_integers_for_enums=True)).encode()


def _traces() -> Iterator[bytes]:
    made = ExportTraceServiceRequest()
    scope = made.resource_spans.add().scope_spans.add()
    scope.scope.name = "otel_ml"
    for name in ("predict churn", "predict fraud"):
        scope.spans.add(name=name, trace_id=bytes(16), span_id=bytes(8))
    yield made.SerializeToString()


def _baselines() -> Iterator[bytes]:
    columns = {"age": [float(i % 50) for i in range(600)], "plan": ["a", "b", "c"] * 200}
    scores = [i / 600 for i in range(600)]
    yield Baseline.fit(columns, model="churn", version="3", scores=scores).to_json().encode()


def _configurations() -> Iterator[bytes]:
    yield config.DEFAULT.encode()
    yield b"receivers: &a {otlp: *a}\nservice: ${env:A:-b}\n"
