"""Evaluations as gauges `ml.drift.*`, and gauges as the bytes of an OTLP request.

The resource of what goes out is this collector, with an instance id of its own: a single writer. The
monitored service stands in `ml.service.*`. Only finite values leave; attributes without a value are left out.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import isfinite
from typing import Protocol

from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue

from otel_ml import semconv
from otel_ml.semconv import Metric

from .evaluation import Activity, Evaluation, ModelKey, Target, TargetEvaluation

_STATISTICS = {
    metric.name.removeprefix("ml.drift."): metric
    for metric in (
        semconv.DRIFT_PSI,
        semconv.DRIFT_PSI_EXCESS,
        semconv.DRIFT_KS,
        semconv.DRIFT_KS_UPPER,
        semconv.DRIFT_JS,
        semconv.DRIFT_HELLINGER,
        semconv.DRIFT_WASSERSTEIN,
        semconv.DRIFT_CHI_SQUARE,
        semconv.DRIFT_TOTAL_VARIATION,
        semconv.DRIFT_MEAN_SHIFT,
        semconv.DRIFT_QUANTILE_SHIFT,
        semconv.DRIFT_DISTINCT,
        semconv.DRIFT_DESIGN_EFFECT,
        semconv.DRIFT_CUSUM,
    )
}
_LEVELS = semconv.STATUSES[1:]

BATCH = 2000
"""Gauges in one request: a gRPC server takes no more than 4 MiB unless told otherwise."""

Judged = tuple[ModelKey, str, Target]
"""A target of a model in the window of that name."""


class Thresholds(Protocol):
    """The part of a policy that is shown: (warning, drifted) of each statistic."""

    @property
    def psi(self) -> tuple[float, float]: ...
    @property
    def ks(self) -> tuple[float, float]: ...
    @property
    def states(self) -> tuple[float, float]: ...


@dataclass(frozen=True, slots=True)
class Sample:
    """One value of a metric, as it is now."""

    metric: Metric
    attributes: Mapping[str, str]
    value: float


def judged(evaluations: Iterable[Evaluation]) -> set[Judged]:
    """The targets that these evaluations gave a verdict."""
    return {
        (evaluation.model, evaluation.window_name, target.target)
        for evaluation in evaluations
        for target in evaluation.targets
        if target.evaluated
    }


def gauges(
    evaluations: Iterable[Evaluation],
    policy: Thresholds,
    now: int,
    *,
    held: Collection[Judged] = (),
) -> list[Sample]:
    """Every gauge these evaluations fill at `now` (Unix nanoseconds).

    `held` are targets that had a verdict before: it is exported while the window is too small for a new one.
    """
    made = (gauge for one in evaluations for gauge in _of_evaluation(one, policy, now, held))
    return [gauge for gauge in made if isfinite(gauge.value)]


def _of_evaluation(
    evaluation: Evaluation, policy: Thresholds, now: int, held: Collection[Judged]
) -> Iterator[Sample]:
    attributes = identity(evaluation.model, evaluation.window_name)
    yield Sample(semconv.DRIFT_WINDOW_END, attributes, evaluation.window_end / 1e9)
    yield Sample(semconv.DRIFT_EVALUATION_AGE, attributes, max(0.0, (now - evaluation.window_end) / 1e9))
    yield from _of_baseline(evaluation, attributes, now)
    yield from _of_policy(policy, attributes)
    statuses = {
        target.target: target.status
        for target in evaluation.targets
        if target.evaluated or (evaluation.model, evaluation.window_name, target.target) in held
    }
    whole = [status for target, status in statuses.items() if not target.segment]
    for status, name in enumerate(semconv.STATUSES):
        count = sum(status == one for one in whole)
        yield Sample(semconv.DRIFT_FEATURES, {**attributes, semconv.DRIFT_STATUS_NAME: name}, count)
    if evaluation.activity is not None:
        yield from _of_activity(evaluation, evaluation.activity, attributes, now)
    for target in evaluation.targets:
        yield from _of_target(target, attributes, statuses.get(target.target))


def _of_activity(
    evaluation: Evaluation, activity: Activity, attributes: dict[str, str], now: int
) -> Iterator[Sample]:
    yield Sample(semconv.ACTIVITY_STATUS, attributes, activity.status)
    yield Sample(semconv.ACTIVITY_REASON, {**attributes, semconv.DRIFT_REASON_CODE: activity.reason}, 1)
    since = max(0.0, (now - evaluation.window_end) / 1e9)
    yield Sample(semconv.ACTIVITY_AGE, attributes, activity.age + since)
    yield Sample(semconv.ACTIVITY_ROWS, attributes, activity.rows)
    if activity.usual is not None:
        yield Sample(semconv.ACTIVITY_ROWS_USUAL, attributes, activity.usual)
    for one in evaluation.targets:
        if one.target.kind == "feature" and not one.target.segment:
            named = {**attributes, **of_target(one.target)}
            yield Sample(semconv.ACTIVITY_VANISHED, named, one.target in activity.vanished)


def of_target(target: Target) -> dict[str, str]:
    """The attributes that say which target of a model it is."""
    named = {semconv.DRIFT_TARGET: target.kind}
    if target.name:
        named[semconv.FEATURE_NAME] = target.name
    if target.segment:
        key, segment = target.segment
        named |= {semconv.DRIFT_SEGMENT: key, semconv.SEGMENT_PREFIX + key: segment}
    return named


def _of_baseline(evaluation: Evaluation, attributes: dict[str, str], now: int) -> Iterator[Sample]:
    if not evaluation.baseline_id:
        return
    attributes = {**attributes, semconv.BASELINE_ID: evaluation.baseline_id}
    yield Sample(semconv.BASELINE_ROWS, attributes, evaluation.baseline_rows)
    if evaluation.baseline_created > 0:
        yield Sample(semconv.BASELINE_AGE, attributes, max(0.0, (now - evaluation.baseline_created) / 1e9))


def _of_policy(policy: Thresholds, attributes: dict[str, str]) -> Iterator[Sample]:
    for statistic, limits in (("psi", policy.psi), ("ks", policy.ks), ("states", policy.states)):
        for level, limit in zip(_LEVELS, limits, strict=True):
            labels = {semconv.DRIFT_STATISTIC: statistic, semconv.DRIFT_LEVEL: level}
            yield Sample(semconv.DRIFT_THRESHOLD, {**attributes, **labels}, limit)


def _of_target(target: TargetEvaluation, model: dict[str, str], status: int | None) -> Iterator[Sample]:
    attributes = {**model, **of_target(target.target)}
    yield Sample(semconv.DRIFT_WINDOW_ROWS, attributes, target.rows)
    yield Sample(semconv.DRIFT_EVALUATED, attributes, target.evaluated)
    if status is not None:
        yield Sample(semconv.DRIFT_STATUS, attributes, status)
    if target.reason:
        yield Sample(semconv.DRIFT_REASON, {**attributes, semconv.DRIFT_REASON_CODE: target.reason}, 1)
    if target.p_value is not None:
        yield Sample(semconv.DRIFT_P_VALUE, attributes, target.p_value)
    for name, value in target.statistics.items():
        statistic, _, level = name.partition("@")
        if statistic in _STATISTICS:
            labels = {semconv.DRIFT_QUANTILE: level} if level else {}
            yield Sample(_STATISTICS[statistic], {**attributes, **labels}, value)
    yield from _by_state(semconv.DRIFT_STATE_SHARE, target.state_shares, attributes)
    yield from _by_state(semconv.DRIFT_STATE_EFFECT, target.state_effects, attributes)
    if status:
        yield from _bin_shares(target, attributes)


def _by_state(metric: Metric, values: Mapping[str, float], attributes: dict[str, str]) -> Iterator[Sample]:
    for state, value in values.items():
        yield Sample(metric, {**attributes, semconv.FEATURE_STATE: state}, value)


def _bin_shares(target: TargetEvaluation, attributes: dict[str, str]) -> Iterator[Sample]:
    if target.bins is None:
        return
    for side, shares in (("baseline", target.bins.reference), ("current", target.bins.current)):
        for label, share in zip(target.bins.labels, shares.tolist(), strict=True):
            labels = {semconv.DRIFT_BIN: label, semconv.DRIFT_SIDE: side}
            yield Sample(semconv.DRIFT_BIN_SHARE, {**attributes, **labels}, share)


def identity(key: ModelKey, window_name: str) -> dict[str, str]:
    """The attributes that say which model of which service it is, and in which window."""
    attributes = {
        semconv.MONITORED_SERVICE_NAME: key.service_name,
        semconv.MONITORED_SERVICE_NAMESPACE: key.service_namespace,
        semconv.MONITORED_ENVIRONMENT: key.environment,
        semconv.MODEL_NAME: key.model,
        semconv.MODEL_VERSION: key.version,
        semconv.VARIANT_NAME: key.variant,
        # As the SDK writes it: the role of a model without variants is not said, so that both join.
        semconv.VARIANT_ROLE: key.role if key.variant or key.role != "live" else "",
        semconv.DRIFT_WINDOW_NAME: window_name,
    }
    return {name: value for name, value in attributes.items() if value}


def batches(gauges: Sequence[Sample]) -> Iterator[Sequence[Sample]]:
    """The gauges in parts that make requests of a size every backend takes; each a few hundred kB."""
    return (gauges[first : first + BATCH] for first in range(0, len(gauges), BATCH))


def request(gauges: Sequence[Sample], resource: Mapping[str, str], time: int) -> ExportMetricsServiceRequest:
    """The gauges as one OTLP request of `resource`, all at `time` (Unix nanoseconds)."""
    message = ExportMetricsServiceRequest()
    of_resource = message.resource_metrics.add()
    of_resource.resource.attributes.extend(_key_values(resource))
    of_scope = of_resource.scope_metrics.add()
    of_scope.scope.name = semconv.DRIFT_SCOPE
    for metric, members in by_metric(gauges).items():
        written = of_scope.metrics.add(name=metric.name, unit=metric.unit, description=metric.description)
        for gauge in members:
            written.gauge.data_points.add(
                time_unix_nano=time, as_double=gauge.value, attributes=_key_values(gauge.attributes)
            )
    return message


def by_metric(samples: Iterable[Sample]) -> dict[Metric, list[Sample]]:
    """Samples by the metric they belong to, in the order metrics come up."""
    grouped: dict[Metric, list[Sample]] = {}
    for sample in samples:
        grouped.setdefault(sample.metric, []).append(sample)
    return grouped


def _key_values(attributes: Mapping[str, str]) -> list[KeyValue]:
    return [
        KeyValue(key=name, value=AnyValue(string_value=value)) for name, value in sorted(attributes.items())
    ]
