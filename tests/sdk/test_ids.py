"""Prediction ids: opaque, unique, and read again months later."""

from __future__ import annotations

import os
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.trace import NonRecordingSpan, SpanContext, use_span

import otel_ml
from otel_ml import ids
from otel_ml.ids import CallId, PredictionId


@settings(max_examples=60)
@given(
    counter=st.integers(0, 2**48 - 1), row=st.integers(0, 2**32 - 1), seconds=st.integers(0, 2**40 - 1),
    trace_id=st.integers(1, 2**128 - 1), span_id=st.integers(1, 2**64 - 1), spanned=st.booleans(),
)  # fmt: skip
def test_what_was_put_in_comes_out(counter, row, seconds, trace_id, span_id, spanned):
    """An id reads back as what it was made of, in ASCII of at most 96 characters."""
    span = (trace_id, span_id) if spanned else (0, 0)
    made = PredictionId("0123456789ab", seconds, counter, row, *span)
    text = str(made)
    assert text.isascii()
    assert len(text) <= ids.MAX_LENGTH
    assert ids.parse(text) == made


def test_id_holds_the_span_and_the_time_of_the_call():
    """The ids of a call point at its span and know when they were made; each row has its own, the same each time."""
    span = SpanContext(0xABC, 0xDEF, is_remote=False)
    call = CallId(span)
    first, second = call.of(0, clock=lambda: 1_700_000_000.9), call.of(7)
    read = ids.parse(second)
    assert (read.row, read.seconds, read.trace_id, read.span_id) == (7, 1_700_000_000, 0xABC, 0xDEF)
    assert read.span is not None
    assert (read.span.trace_id, read.span.span_id, read.span.is_remote) == (0xABC, 0xDEF, True)
    assert call.of(0) == first
    assert ids.parse(first).counter == read.counter


def test_surrounding_span_stands_in():
    """A call without a span of its own points at the one around it, and at none where there is none."""
    tracer = TracerProvider(shutdown_on_exit=False).get_tracer("t")
    with tracer.start_as_current_span("request") as request:
        inside = ids.parse(CallId().of())
    assert inside.trace_id == request.get_span_context().trace_id
    assert inside.span_id == request.get_span_context().span_id
    alone = ids.parse(CallId().of())
    assert (alone.trace_id, alone.span_id, alone.span) == (0, 0, None)


def test_span_can_be_given_until_an_id_is_made():
    """A span that is made after the call still stands in the ids that nobody asked for before."""
    call = CallId()
    call.span = SpanContext(1, 2, is_remote=False)
    with use_span(NonRecordingSpan(SpanContext(3, 4, is_remote=False))):
        assert ids.parse(call.of()).trace_id == 1


def test_ids_are_unique_among_threads():
    """No two calls share an id, and the threads of one call agree on it."""
    with ThreadPoolExecutor(8) as pool:
        made = list(pool.map(lambda _: CallId().of(), range(2000)))
    assert len(set(made)) == 2000
    call, barrier = CallId(), threading.Barrier(8)

    def ask(_: int) -> str:
        barrier.wait()
        return call.of(3)

    with ThreadPoolExecutor(8) as pool:
        assert len(set(pool.map(ask, range(8)))) == 1


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_forked_child_makes_ids_of_its_own():
    """Parent and child continue one counter under different nonces."""
    receive, send = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(send, CallId().of().encode())
        os._exit(0)
    os.close(send)
    os.waitpid(child, 0)
    with os.fdopen(receive) as pipe:
        theirs = ids.parse(pipe.read())
    ours = ids.parse(CallId().of())
    assert theirs.counter == ours.counter
    assert theirs.nonce != ours.nonce


GOOD = "0123456789ab-6b011a02-0-0"


@pytest.mark.parametrize(
    "text",
    ["", "churn", GOOD + "-", GOOD + "\n", GOOD.upper(), GOOD + "-" + "0" * 32, " " + GOOD, "x" * 10_000_000, None, 7,
     GOOD.encode(), "٠" * 12 + GOOD[12:], GOOD + "-" + "0" * 31 + "g-" + "0" * 16],
)  # fmt: skip
def test_garbage_is_refused(text):
    """Anything but a whole id is an error that shows it, shortened, and says where ids come from."""
    with pytest.raises(otel_ml.ConfigurationError, match="is not a prediction id; give what") as caught:
        ids.parse(text)
    assert len(str(caught.value)) < 300


def test_current_id_belongs_to_the_running_call():
    """Inside a call there is an id for each of its rows, the same when asked again; outside there is none."""
    found = []

    @otel_ml.observe(model="churn", version="3")
    def predict(X):
        found.append([otel_ml.current_prediction_id(row) for row in (0, 4, 0)])
        return [0.1] * len(X)

    assert otel_ml.current_prediction_id() is None
    predict([[1.0]] * 5)
    predict([[1.0]] * 5)
    first, second = ([ids.parse(text) for text in one] for one in found)
    assert [one.row for one in first] == [0, 4, 0]
    assert first[0] == first[2]
    assert len({one.counter for one in first}) == 1
    assert first[0].counter != second[0].counter
    assert otel_ml.current_prediction_id() is None


def test_no_id_where_nothing_is_recorded():
    """Inside suppress() there is no id, also in an observed call."""

    @otel_ml.observe(model="churn", version="3")
    def predict(X):
        with otel_ml.suppress():
            return [otel_ml.current_prediction_id()]

    assert predict([[1.0]]) == [None]


@pytest.mark.parametrize("row", [-1, 2**32, 1.0, "0", None])
def test_row_must_be_a_row_number(row):
    """A row that cannot be one is an error, in a call and outside."""
    with pytest.raises(otel_ml.ConfigurationError, match="is not a row number; the first row is 0"):
        otel_ml.current_prediction_id(row=row)
