"""Events of kept rows, as real log records of a real SDK."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from datetime import date, datetime, timezone
from decimal import Decimal
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from opentelemetry import trace
from opentelemetry._logs import SeverityNumber
from opentelemetry.sdk._logs.export import InMemoryLogRecordExporter
from opentelemetry.sdk.trace import TracerProvider

import otel_ml
from otel_ml import _guard, config, ids, pipeline
from otel_ml.events import MAX_TEXT, Events, plain
from otel_ml.ids import CallId
from otel_ml.model import Model
from otel_ml.prediction import NOTHING, Outcome, Prediction
from otel_ml.rows import Rows
from otel_ml.sampling.coin import Selection

MODEL = Model("churn", "3", task="classification", feature_names=("age", "region"))
START, DURATION = 1_700_000_000_000_000_000, 5_000_000


def kept(*rows: int, **given: Any) -> Selection:
    """A selection of these rows at one in four."""
    n = len(rows)
    return Selection(
        indices=np.array(rows, dtype=np.int64), probabilities=np.full(n, 0.25),
        reasons=np.array(["random"] * n, dtype=object), strata=None, thresholds=np.full(n, 3 * 2**54),
        randomness=np.arange(n) + 2**56 - n,
    )._replace(**given)  # fmt: skip


def call(outcome: Outcome, rows: int, taken: Any = None, **more: Any) -> Prediction:
    """A call of `rows` rows with this outcome and input."""
    made = None if taken is None else Rows(taken, MODEL, rows)
    return Prediction(MODEL, "predict", rows, outcome, START, DURATION, input=made, **more)


P = np.array([[0.9, 0.1], [0.25, 0.75], [0.5, 0.5]])
CLASSIFIED = Outcome(P[:, 1], "probability", np.array(["stay", "leave", "stay"]), P)


def emitter(**options: Any) -> Events:
    """What an observer would make."""
    return Events(MODEL, "predict", provider=pipeline.logger_provider(), **options)


def attributes(logs: InMemoryLogRecordExporter) -> list[dict[str, Any]]:
    """The attributes of every event."""
    return [dict(one.log_record.attributes or {}) for one in logs.get_finished_logs()]


def test_event_says_everything_of_its_row(logs, baseline):
    """Identity, id, outcome, uncertainty and sampling of each kept row, as plain values of the right types."""
    model = Model("churn", "3", baseline=baseline, variant="b", role="canary")
    events = Events(model, "predict_proba", provider=pipeline.logger_provider())
    call_id = CallId()
    selection = kept(1, 2, strata=np.array(["north", "south"], dtype=object))
    events.emit(replace(call(CLASSIFIED, 3), model=model), selection, ids=call_id)
    first, second = attributes(logs)
    assert first == {
        "ml.model.name": "churn",
        "ml.model.version": "3",
        "ml.variant.name": "b",
        "ml.variant.role": "canary",
        "ml.operation.name": "predict_proba",
        "ml.baseline.id": baseline.id,
        "ml.prediction.id": call_id.of(1),
        "ml.prediction.label": "leave",
        "ml.prediction.score.value": 0.75,
        "ml.prediction.score.type": "probability",
        "ml.prediction.uncertainty.value": 0.5,
        "ml.prediction.uncertainty.type": "margin",
        "ml.sampling.reason": "random",
        "ml.sampling.probability": 0.25,
        "ml.sampling.stratum": "north",
        "sampling.threshold": "c",
        "sampling.randomness": "fffffffffffffe",
    }
    assert {type(value) for value in first.values()} == {str, float}
    assert second["ml.prediction.id"] == call_id.of(2)
    assert (second["ml.sampling.stratum"], second["ml.prediction.uncertainty.value"]) == ("south", 1.0)


def test_event_has_a_name_and_no_body(logs):
    """An event is a log record with an event name, at the end of its call, of severity INFO."""
    before = time.time_ns()
    emitter().emit(call(CLASSIFIED, 3), kept(0), ids=CallId())
    [one] = logs.get_finished_logs()
    record = one.log_record
    assert (record.event_name, record.body) == ("ml.prediction", None)
    assert (record.severity_number, record.severity_text) == (SeverityNumber.INFO, "INFO")
    assert record.timestamp == START + DURATION
    assert before <= record.observed_timestamp <= time.time_ns()
    assert one.instrumentation_scope.name == "otel_ml"
    assert one.instrumentation_scope.version == otel_ml.__version__


def test_failed_call_is_an_error_without_an_outcome(logs):
    """A row of a call that raised says which class of error, at severity ERROR, and no score."""
    emitter().emit(call(NOTHING, 1, error_type="ValueError"), kept(0), ids=CallId())
    [one] = logs.get_finished_logs()
    assert one.log_record.severity_number == SeverityNumber.ERROR
    said = dict(one.log_record.attributes)
    assert said["error.type"] == "ValueError"
    assert [name for name in said if name.startswith("ml.prediction.")] == ["ml.prediction.id"]


def test_regressor_has_a_value_and_no_label(logs):
    """What a regressor predicted is value and score; without probabilities there is no uncertainty."""
    model = Model("price", "1", task="regression")
    events = Events(model, "predict", provider=pipeline.logger_provider())
    events.emit(replace(call(Outcome(np.array([3.5])), 1), model=model), kept(0), ids=CallId())
    [said] = attributes(logs)
    assert said["ml.prediction.value"] == said["ml.prediction.score.value"] == 3.5
    assert said["ml.prediction.score.type"] == "value"
    assert not {
        "ml.prediction.label",
        "ml.prediction.uncertainty.value",
        "ml.prediction.uncertainty.type",
    } & set(said)


def test_what_is_not_finite_or_does_not_fit_is_left_out(logs):
    """A score that is NaN, a missing label, and an output of another length than the input say nothing."""
    outcome = Outcome(np.array([np.nan, 0.5]), "probability", np.array([None, 1.0], dtype=object))
    emitter().emit(call(outcome, 2), kept(0, 1), ids=CallId())
    emitter().emit(call(outcome, 5), kept(4), ids=CallId())
    first, second, third = attributes(logs)
    assert not {"ml.prediction.score.value", "ml.prediction.label"} & set(first)
    assert (second["ml.prediction.score.value"], second["ml.prediction.label"]) == (0.5, "1")
    assert not {"ml.prediction.score.value", "ml.prediction.label"} & set(third)


@pytest.mark.parametrize("where", ["given", "current", "nowhere"])
def test_event_is_in_the_trace_of_its_call(logs, where):
    """The given context's span, though it is over; without one the current span; without any, no trace."""
    tracer = TracerProvider(shutdown_on_exit=False).get_tracer("t")
    span = tracer.start_span("predict churn")
    if where == "given":
        span.end()
        context = trace.set_span_in_context(span)
        emitter().emit(call(CLASSIFIED, 3), kept(0), ids=CallId(), context=context)
    elif where == "current":
        with trace.use_span(span, end_on_exit=True):
            emitter().emit(call(CLASSIFIED, 3), kept(0), ids=CallId())
    else:
        emitter().emit(call(CLASSIFIED, 3), kept(0), ids=CallId())
    record = logs.get_finished_logs()[0].log_record
    expected = span.get_span_context() if where != "nowhere" else trace.INVALID_SPAN_CONTEXT
    assert (record.trace_id, record.span_id, record.trace_flags) == (
        expected.trace_id, expected.span_id, expected.trace_flags,
    )  # fmt: skip


# --- feature values


def test_only_listed_features_leave(logs):
    """The value of a listed feature is on the event, that of another nowhere."""
    data = call(CLASSIFIED, 3, {"age": np.array([31, 47, 58]), "region": ["north", "secret", "west"]})
    emitter().emit(data, kept(1), ids=CallId())
    emitter(capture_features=["age"]).emit(data, kept(1), ids=CallId())
    without, listed = attributes(logs)
    assert [name for name in without if name.startswith("ml.feature.")] == []
    assert {name: value for name, value in listed.items() if name.startswith("ml.feature.")} == {
        "ml.feature.value.age": 47
    }
    assert type(listed["ml.feature.value.age"]) is int
    assert "secret" not in str([without, listed])


NOON = datetime(2024, 5, 1, 12, tzinfo=timezone.utc)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (True, True), (np.bool_(False), False), (7, 7), (np.int8(-7), -7), (2**63, str(2**63)), (np.float32(0.5), 0.5),
        (Decimal("1.5"), 1.5), ("north", "north"), (np.str_("north"), "north"), (b"\xff\x00", "�\x00"),
        ("x" * 1000, "x" * MAX_TEXT), ("a\udc80b", "a?b"), (date(2024, 5, 1), "2024-05-01"),
        (NOON, "2024-05-01T12:00:00+00:00"), (np.datetime64("2024-05-01T12", "ns"), "2024-05-01T12:00:00.000000000"),
        (None, None), (float("nan"), None), (float("inf"), None), (-np.inf, None), (np.datetime64("NaT"), None),
        ([1, 2], None), ({"a": 1}, None), (object(), None),
    ],
)  # fmt: skip
def test_values_are_plain(value, expected):
    """Values become bool, int, float or text that every exporter takes; what is missing or no scalar is left out."""
    assert plain(value) == expected
    assert type(plain(value)) is type(expected)


@settings(max_examples=100)
@given(st.one_of(st.text(), st.integers(), st.floats(), st.binary(), st.decimals(), st.dates(), st.none()))
def test_no_value_can_fail_an_export(value):
    """Whatever a row holds, what is left of it fits into the protocol's types and can be encoded."""
    made = plain(value)
    assert made is None or type(made) in (str, bool, int, float)
    if isinstance(made, str):
        assert len(made.encode()) <= 4 * MAX_TEXT
    elif type(made) is int:
        assert -(2**63) <= made < 2**63
    elif made is not None:
        assert np.isfinite(made)


def test_redact_decides_what_leaves(logs):
    """The hook sees the listed values of one row and its answer is all that leaves."""
    seen: list[dict[str, Any]] = []

    def redact(values: dict[str, Any]) -> dict[str, Any]:
        seen.append(dict(values))
        return {"decade": values.pop("age") // 10 * 10, "nothing": None}

    data = call(CLASSIFIED, 3, {"age": [31, 47, 58], "region": ["north", None, "west"]})
    emitter(capture_features=["age", "region"], redact=redact).emit(data, kept(0, 1), ids=CallId())
    assert seen == [{"age": 31, "region": "north"}, {"age": 47}]
    values = [{k: v for k, v in one.items() if k.startswith("ml.feature")} for one in attributes(logs)]
    assert values == [{"ml.feature.value.decade": 30}, {"ml.feature.value.decade": 40}]


def raising(values: dict[str, Any]) -> dict[str, Any]:
    raise KeyError(values["region"])


@pytest.mark.parametrize("redact", [raising, lambda values: None, lambda values: values["region"]])
def test_failing_redact_costs_the_values_and_nothing_else(logs, caplog, redact):
    """No value leaves unredacted, not by the log either; the event does, and the loss is counted and said once."""
    data = call(CLASSIFIED, 3, {"age": [31, 47, 58], "region": ["north", "south", "west"]})
    emitter(capture_features=["age", "region"], redact=redact).emit(data, kept(0, 1), ids=CallId())
    said = attributes(logs)
    assert [one["ml.prediction.label"] for one in said] == ["stay", "leave"]
    assert [name for one in said for name in one if name.startswith("ml.feature.")] == []
    assert _guard.collect(_guard.dropped) == {"redact": 2}
    [message] = [record.getMessage() for record in caplog.records]
    assert message.startswith("model churn: redact failed (")
    assert "north" not in message


def test_feature_that_is_not_there_is_said_once(logs, caplog):
    """A listed name that the input does not have is one log line, and the events go without."""
    events = emitter(capture_features=["agee"])
    data = call(CLASSIFIED, 3, {"age": [31, 47, 58]})
    events.emit(data, kept(0), ids=CallId())
    events.emit(data, kept(1), ids=CallId())
    events.emit(call(NOTHING, 1, error_type="ValueError"), kept(0), ids=CallId())  # its input was not kept
    assert len(attributes(logs)) == 3
    assert [record.getMessage() for record in caplog.records] == [
        "model churn: capture_features names 'agee', which its input does not have; its events go without"
    ]


def test_a_hundred_features_fit(logs):
    """An event with as many features as may be listed loses none of its attributes."""
    names = [f"f{i}" for i in range(100)]
    data = call(CLASSIFIED, 3, {name: [1.0, 2.0, 3.0] for name in names})
    emitter(capture_features=names).emit(data, kept(2), ids=CallId())
    [said] = attributes(logs)
    assert [said[f"ml.feature.value.{name}"] for name in names] == [3.0] * 100
    assert {"ml.model.name", "ml.prediction.id", "sampling.randomness"} <= set(said)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"capture_features": "age"},
            "capture_features='age' is not a list of names; write capture_features=",
        ),
        ({"capture_features": [1]}, r"capture_features=\[1\] is not a list of names"),
        (
            {"capture_features": [str(i) for i in range(101)]},
            "capture_features has 101 names, an event holds 100",
        ),
        ({"redact": {"age": None}}, "redact={'age': None} cannot be called; give it a function of a dict"),
    ],
)
def test_wrong_arguments_are_refused(options, message):
    """What cannot work is an error before the first call, with the way out."""
    with pytest.raises(otel_ml.ConfigurationError, match=message):
        emitter(**options)


# --- limits


@pytest.fixture
def limited(logs, monkeypatch) -> Callable[..., Events]:
    """Emitters with a limit of 3 events a call and 5 a second."""
    monkeypatch.setenv("OTEL_PYTHON_ML_EVENTS_PER_CALL", "3")
    monkeypatch.setenv("OTEL_PYTHON_ML_EVENTS_PER_SECOND", "5")
    config.settings.cache_clear()
    return emitter


def test_call_is_cut_counted_and_marked(limited, logs, caplog):
    """Of a call with too many kept rows the first ones go, without a weight; the others are counted and said once."""
    events = limited(clock=lambda: 0.0)
    many = call(NOTHING, 9)
    events.emit(many, kept(0, 2, 4, 6, 8), ids=CallId())
    said = attributes(logs)
    assert [ids.parse(one["ml.prediction.id"]).row for one in said] == [0, 2, 4]
    assert [one["ml.sampling.adjustable"] for one in said] == [False] * 3
    assert all("ml.sampling.probability" not in one for one in said)
    assert all({"sampling.threshold", "sampling.randomness"} <= set(one) for one in said)
    assert _guard.collect(_guard.dropped) == {"event_limit": 2}
    assert [record.getMessage() for record in caplog.records] == [
        "model churn: more rows were kept than events are allowed (3 a call, 5 a second), the rest is counted in "
        "otel_ml.dropped; lower the rate of its sampler, or raise OTEL_PYTHON_ML_EVENTS_PER_CALL or "
        "OTEL_PYTHON_ML_EVENTS_PER_SECOND"
    ]


def test_second_is_cut_and_the_next_event_says_so(limited, logs):
    """Calls beyond the second's limit emit nothing; the first event after them, and only that, has no weight."""
    now = [10.2]
    events = limited(clock=lambda: now[0])
    for row in range(8):
        events.emit(call(NOTHING, 9), kept(row), ids=CallId())
    assert [one.get("ml.sampling.adjustable") for one in attributes(logs)] == [None] * 5
    assert _guard.collect(_guard.dropped) == {"event_limit": 3}
    now[0] = 11.0
    logs.clear()
    for row in range(3):
        events.emit(call(NOTHING, 9), kept(row), ids=CallId())
    assert [one.get("ml.sampling.adjustable") for one in attributes(logs)] == [False, None, None]


def test_hard_limit_of_a_sampler_is_passed_on(logs):
    """Rows that a sampler itself could not give a probability carry none, and the mark."""
    emitter().emit(
        call(NOTHING, 1), kept(0, adjustable=False, probabilities=np.array([np.nan])), ids=CallId()
    )
    [said] = attributes(logs)
    assert said["ml.sampling.adjustable"] is False
    assert "ml.sampling.probability" not in said


# --- the provider


def test_active_as_soon_as_a_provider_is_there(logs):
    """Without a logger provider there is nobody to emit to; with one there is."""
    assert not Events(MODEL, "predict").active
    assert emitter().active
