"""Changes of status as log records: events `ml.drift.state_change`, in the bytes of OTLP requests.

The time of an event is the end of the window that was judged, its resource this collector. The same change has the
same `log.record.uid` and the same content however often it is sent.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime, timezone
from math import isfinite

from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord, SeverityNumber

from otel_ml import semconv

from .changes import Change
from .emit import identity, of_target

BATCH = 500
"""Events in one request, each about a kilobyte."""
MAX_TEXT = 1024
"""Characters of an attribute: names come from senders."""
_NAMESPACE = uuid.UUID("6f0a5bd0-93a1-4d63-8a0c-7b1a4d9c5e21")
_SEVERITIES = (
    (SeverityNumber.SEVERITY_NUMBER_INFO, "INFO"),
    (SeverityNumber.SEVERITY_NUMBER_WARN, "WARN"),
    (SeverityNumber.SEVERITY_NUMBER_ERROR, "ERROR"),
)
"""By the status that a target has now."""
_STATISTICS = {
    metric.name.removeprefix("ml.drift."): metric.name
    for metric in (
        semconv.DRIFT_PSI_EXCESS,
        semconv.DRIFT_KS,
        semconv.DRIFT_CUSUM,
        semconv.DRIFT_P_VALUE,
        semconv.DRIFT_STATE_SHARE,
        semconv.DRIFT_STATE_EFFECT,
    )
}


def requests(
    changes: Sequence[Change], resource: Mapping[str, str], observed: int
) -> Iterator[tuple[ExportLogsServiceRequest, int]]:
    """The changes as requests that every backend takes, each with how many are in it; `observed` is Unix ns."""
    for first in range(0, len(changes), BATCH):
        part = changes[first : first + BATCH]
        yield _request(part, resource, observed), len(part)


def uid(*parts: object) -> str:
    """A UUID that is the same for the same parts, on every machine."""
    return str(uuid.uuid5(_NAMESPACE, json.dumps(parts, default=str)))


def time_text(nanoseconds: int) -> str:
    """A time as ISO 8601 says it, to the second."""
    return datetime.fromtimestamp(nanoseconds / 1e9, timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")


def status_name(status: int | None) -> str:
    """The name of a status, None being the one before the first verdict."""
    return semconv.UNKNOWN if status is None else semconv.STATUSES[status]


def _request(
    changes: Sequence[Change], resource: Mapping[str, str], observed: int
) -> ExportLogsServiceRequest:
    message = ExportLogsServiceRequest()
    of_resource = message.resource_logs.add()
    of_resource.resource.attributes.extend(_key_values(resource))
    of_scope = of_resource.scope_logs.add()
    of_scope.scope.name = semconv.DRIFT_SCOPE
    of_scope.log_records.extend(_record(change, observed) for change in changes)
    return message


def _record(change: Change, observed: int) -> LogRecord:
    number, text = _SEVERITIES[change.status]
    what = identity(change.model, change.window_name) | of_target(change.target)
    told = _said(change, uid(sorted(what.items()), change.window_end, change.status))
    return LogRecord(
        event_name=semconv.STATE_CHANGE_EVENT,
        time_unix_nano=change.window_end,
        observed_time_unix_nano=observed,
        severity_number=number,
        severity_text=text,
        attributes=_key_values(what | told),
    )


def _said(change: Change, record_uid: str) -> dict[str, str | int | float]:
    """What is told of a change beside what it is a change of."""
    told: dict[str, str | int | float] = {
        semconv.RECORD_UID: record_uid,
        semconv.DRIFT_STATUS_NAME: status_name(change.status),
        semconv.DRIFT_PREVIOUS_STATUS: status_name(change.previous),
        semconv.DRIFT_REASON_CODE: change.reason,
        semconv.DRIFT_REASON_DETAIL: change.detail,
        semconv.BASELINE_ID: change.baseline_id,
        semconv.FEATURE_STATE: change.state,
        semconv.DRIFT_WINDOW_ROWS.name: change.rows,
        semconv.WINDOW_START: time_text(change.window_start),
        semconv.DRIFT_WINDOW_END.name: time_text(change.window_end),
    }
    return {name: value for name, value in told.items() if value != ""} | {
        _STATISTICS[name]: value for name, value in change.statistics.items() if isfinite(value)
    }


def _key_values(attributes: Mapping[str, str | int | float]) -> list[KeyValue]:
    return [KeyValue(key=name, value=_any(value)) for name, value in sorted(attributes.items())]


def _any(value: str | int | float) -> AnyValue:
    if isinstance(value, str):
        return AnyValue(string_value=value[:MAX_TEXT])
    return AnyValue(int_value=value) if isinstance(value, int) else AnyValue(double_value=value)
