"""Changes of status as log records."""

from __future__ import annotations

from dataclasses import replace
from math import inf

import pytest
from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord

from otel_ml import semconv
from otel_ml_collector import events
from otel_ml_collector.changes import ACTIVITY, Change
from otel_ml_collector.evaluation import ModelKey, Target

S = 1_000_000_000
END = 1_800_000_000 * S
CHANGE = Change(
    model=ModelKey("shop", "churn-api", "prod", "churn", "3"),
    window_name="",
    window_start=END - 3600 * S,
    window_end=END,
    baseline_id="abc",
    rows=1000,
    target=Target("feature", "age"),
    previous=0,
    status=2,
    reason="psi",
    detail="PSI excess 0.31 ≥ 0.25",
    statistics={"psi.excess": 0.31, "ks": 0.2, "p_value": 1e-9},
)
IN_EUROPE = replace(CHANGE, target=Target("feature", "age", ("region", "eu")))


def record(change: Change) -> LogRecord:
    """The only record of a request about one change."""
    ((request, count),) = events.requests([change], {"service.name": "c"}, END + 90 * S)
    (scope,) = request.resource_logs[0].scope_logs
    assert (count, scope.scope.name) == (1, semconv.DRIFT_SCOPE)
    assert [one.key for one in request.resource_logs[0].resource.attributes] == ["service.name"]
    (found,) = scope.log_records
    return found


def said(change: Change) -> dict[str, object]:
    """The attributes of its record, as Python values."""
    return {
        one.key: getattr(one.value, str(one.value.WhichOneof("value"))) for one in record(change).attributes
    }


def test_a_change_is_an_event_with_all_that_is_known_of_it() -> None:
    """Names and types of attributes; no body, and the time of what happened beside that of its discovery."""
    found = record(CHANGE)
    assert found.event_name == "ml.drift.state_change"
    assert (found.time_unix_nano, found.observed_time_unix_nano) == (END, END + 90 * S)
    assert (found.severity_text, found.severity_number) == ("ERROR", 17)
    assert not found.HasField("body")
    attributes = said(CHANGE)
    assert len(str(attributes.pop(semconv.RECORD_UID))) == 36
    assert attributes == {
        "ml.service.name": "churn-api",
        "ml.service.namespace": "shop",
        "ml.service.environment": "prod",
        "ml.model.name": "churn",
        "ml.model.version": "3",
        "ml.drift.target": "feature",
        "ml.feature.name": "age",
        "ml.drift.status.name": "drifted",
        "ml.drift.status.previous": "ok",
        "ml.drift.reason.code": "psi",
        "ml.drift.reason.detail": "PSI excess 0.31 ≥ 0.25",
        "ml.baseline.id": "abc",
        "ml.drift.window.start": "2027-01-15T07:00:00Z",
        "ml.drift.window.end": "2027-01-15T08:00:00Z",
        "ml.drift.window.rows": 1000,
        "ml.drift.psi.excess": 0.31,
        "ml.drift.ks": 0.2,
        "ml.drift.p_value": 1e-9,
    }


@pytest.mark.parametrize(("status", "severity"), [(0, ("INFO", 9)), (1, ("WARN", 13)), (2, ("ERROR", 17))])
def test_severity_is_that_of_the_new_status(status: int, severity: tuple[str, int]) -> None:
    """Back to ok is information."""
    found = record(replace(CHANGE, status=status, previous=2 - status))
    assert (found.severity_text, found.severity_number) == severity


def test_what_is_not_known_is_left_out() -> None:
    """The status before the first verdict has a name; numbers that are not finite have no place."""
    told = said(replace(CHANGE, previous=None, baseline_id="", statistics={"ks": inf}))
    assert told["ml.drift.status.previous"] == "unknown"
    assert {"ml.baseline.id", "ml.drift.ks", "ml.feature.state"} & told.keys() == set()


def test_a_change_of_a_state_names_the_state() -> None:
    """With its share and its effect."""
    told = said(replace(CHANGE, reason="state:missing", statistics={"state.share": 0.1, "state.effect": 0.6}))
    names = ("ml.feature.state", "ml.drift.state.share", "ml.drift.state.effect")
    assert [told[name] for name in names] == ["missing", 0.1, 0.6]


def test_segments_and_the_rows_of_a_model_are_targets_of_their_own() -> None:
    """As on the gauges; activity stands where the kind of the target does."""
    assert {**said(IN_EUROPE), "x": 1}.items() >= {
        "ml.drift.segment": "region",
        "ml.segment.region": "eu",
    }.items()
    silent = said(replace(CHANGE, target=ACTIVITY, reason="silent", statistics={}))
    assert (silent["ml.drift.target"], "ml.feature.name" in silent) == ("activity", False)


def test_the_same_change_has_the_same_id_and_another_change_another() -> None:
    """However often it is sent, and whatever is known of it: identity, window and status make the id."""
    others = [
        IN_EUROPE,
        replace(CHANGE, target=ACTIVITY),
        replace(CHANGE, status=1),
        replace(CHANGE, window_end=END + S),
        replace(CHANGE, model=replace(CHANGE.model, version="4")),
    ]
    ids = [said(one)[semconv.RECORD_UID] for one in (CHANGE, *others)]
    assert len(set(ids)) == len(ids)
    assert said(replace(CHANGE, detail="said otherwise", previous=None))[semconv.RECORD_UID] == ids[0]


def test_a_thousand_changes_are_a_few_requests() -> None:
    """Each of a size that every backend takes, also where names are as long as senders like."""
    hostile = replace(CHANGE, target=Target("feature", "x" * 100_000), detail="y" * 100_000)
    found = list(events.requests([hostile] * 1000, {}, END))
    assert [count for _, count in found] == [500, 500]
    assert max(request.ByteSize() for request, _ in found) < 2**21


def test_every_attribute_is_declared() -> None:
    """What an event can carry stands in semconv, and so in the documents."""
    known = {*semconv.STATE_CHANGE_ATTRIBUTES, *(one.name for one in semconv.STATE_CHANGE_NUMBERS)}
    state = replace(
        IN_EUROPE, reason="state:missing", statistics={"state.share": 0.1, "state.effect": 0.6, "cusum": 13.0}
    )
    told = {*said(CHANGE), *said(state)} - {"ml.segment.region"}
    assert told - known == set()
