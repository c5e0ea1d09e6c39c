"""Every telemetry name, unit and description that otel-ml emits. Nothing else spells one out.

The `ml.*` namespace is not part of OpenTelemetry's semantic conventions (open proposal:
semantic-conventions#3420). Units: gauges that are not true ratios carry no unit, because unit "1" becomes a
`_ratio` suffix on one Prometheus path and nothing on the other.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

SDK_SCOPE = "otel_ml"
DRIFT_SCOPE = "otel_ml.drift"

Kind = Literal["counter", "histogram", "gauge", "observable_gauge"]


@dataclass(frozen=True, slots=True)
class Metric:
    """A metric as it stands on the wire."""

    name: str
    kind: Kind
    unit: str
    description: str
    attributes: tuple[str, ...] = ()


# --- attributes -------------------------------------------------------------------------------------------

MODEL_NAME = "ml.model.name"
MODEL_VERSION = "ml.model.version"
MODEL_TYPE = "ml.model.type"
OPERATION_NAME = "ml.operation.name"
SYSTEM_NAME = "ml.system.name"
TASK_TYPE = "ml.task.type"
BATCH_SIZE = "ml.batch.size"
VARIANT_NAME = "ml.variant.name"
VARIANT_ROLE = "ml.variant.role"
SEGMENT_PREFIX = "ml.segment."
"""Followed by the key of a segment: `ml.segment.region`."""
SEGMENT = SEGMENT_PREFIX + "<key>"
"""Stands for all of them where attributes are listed."""
PREDICTION_ID = "ml.prediction.id"
PREDICTION_LABEL = "ml.prediction.label"
PREDICTION_VALUE = "ml.prediction.value"
PREDICTION_SCORE = "ml.prediction.score.value"
PREDICTION_SCORE_MIN = "ml.prediction.score.min"
PREDICTION_SCORE_MAX = "ml.prediction.score.max"
PREDICTION_SCORE_MEAN = "ml.prediction.score.mean"
SCORE_TYPE = "ml.prediction.score.type"
PREDICTION_UNCERTAINTY = "ml.prediction.uncertainty.value"
UNCERTAINTY_TYPE = "ml.prediction.uncertainty.type"
SAMPLING_REASON = "ml.sampling.reason"
SAMPLING_PROBABILITY = "ml.sampling.probability"
SAMPLING_STRATUM = "ml.sampling.stratum"
SAMPLING_KEPT = "ml.sampling.kept"
SAMPLING_ADJUSTABLE = "ml.sampling.adjustable"
SAMPLING_THRESHOLD = "sampling.threshold"
SAMPLING_RANDOMNESS = "sampling.randomness"
"""These two are OpenTelemetry's own: what its threshold samplers read and compose with."""
FEEDBACK_LABEL = "ml.feedback.label"
FEEDBACK_VALUE = "ml.feedback.value"
FEEDBACK_SOURCE = "ml.feedback.source"
FEATURE_NAME = "ml.feature.name"
FEATURE_CATEGORY = "ml.feature.category"
FEATURE_STATE = "ml.feature.state"
BASELINE_ID = "ml.baseline.id"
DRIFT_TARGET = "ml.drift.target"
DRIFT_SEGMENT = "ml.drift.segment"
DRIFT_STATISTIC = "ml.drift.statistic"
DRIFT_WINDOW_NAME = "ml.drift.window.name"
DRIFT_STATUS_NAME = "ml.drift.status.name"
DRIFT_PREVIOUS_STATUS = "ml.drift.status.previous"
DRIFT_REASON_CODE = "ml.drift.reason.code"
DRIFT_REASON_DETAIL = "ml.drift.reason.detail"
DRIFT_LEVEL = "ml.drift.level"
DRIFT_BIN = "ml.drift.bin"
DRIFT_QUANTILE = "ml.drift.quantile"
DRIFT_SIDE = "ml.drift.side"
WINDOW_START = "ml.drift.window.start"
MONITORED_SERVICE_NAME = "ml.service.name"
MONITORED_SERVICE_NAMESPACE = "ml.service.namespace"
MONITORED_ENVIRONMENT = "ml.service.environment"
RECORD_UID = "log.record.uid"
"""OpenTelemetry's own: records with the same one are one."""
ERROR_TYPE = "error.type"
REASON = "reason"
VERSION = "version"

SERVICE_NAME = "service.name"
SERVICE_NAMESPACE = "service.namespace"
SERVICE_INSTANCE_ID = "service.instance.id"
SERVICE_VERSION = "service.version"
DEPLOYMENT_ENVIRONMENT = "deployment.environment.name"

# --- values -----------------------------------------------------------------------------------------------

PREDICTION_EVENT = "ml.prediction"
FEEDBACK_EVENT = "ml.feedback"
STATE_CHANGE_EVENT = "ml.drift.state_change"
RETRAINING_EVENT = "ml.retraining.requested"
"""Names of log records."""

STATES = ("ok", "missing", "non_finite", "out_of_range", "unseen", "type_mismatch")
"""The exclusive states of a feature value, in the order arrays of state counts use everywhere."""

OTHER = "__other__"
UNSEEN = "__unseen__"
"""Reserved categories: outside the named ones, and outside a complete list."""

SAMPLING_REASONS = ("random", "stratum", "uncertainty", "rule")
MISSING_STRATUM = "__missing__"
"""The stratum of rows without a value."""

TARGETS = ("feature", "score", "prediction", "outcome", "uncertainty", "projection")
SCORE_TYPES = ("probability", "margin", "anomaly", "value")
ROLES = ("live", "shadow", "canary")
STATUSES = ("ok", "warning", "drifted")
"""`ml.drift.status` is the index into this tuple."""
UNKNOWN = "unknown"
"""The status before the first verdict."""
ACTIVITY_TARGET = "activity"
"""Stands for the rows of a model among targets, in events."""

DURATION_BOUNDS = (*(m * 10.0**e for e in range(-5, 1) for m in (1, 2, 5)), 10.0)
"""Bounds of `ml.inference.duration` in seconds: 1-2-5 steps from 10 µs to 10 s."""

FEEDBACK_DELAY_BOUNDS = (
    1.0, 10.0, 60.0, 600.0, 3600.0, 6 * 3600.0, *(days * 86_400.0 for days in (1, 3, 7, 14, 30, 60, 90, 180, 365)),
)  # fmt: skip
"""Bounds of `ml.feedback.delay` in seconds: a second to a year."""

ATTRIBUTES = {
    MODEL_NAME: "Name of the model.",
    MODEL_VERSION: "Version of the model.",
    MODEL_TYPE: "Class of the estimator, of a Pipeline that of its last step.",
    OPERATION_NAME: "What was asked of the model: predict, predict_proba, …",
    SYSTEM_NAME: "The library: sklearn, xgboost, …",
    TASK_TYPE: "classification, regression, outlier or clustering, where the model tells.",
    BATCH_SIZE: "Rows in the call.",
    VARIANT_NAME: "Variant of the model, when one was given.",
    VARIANT_ROLE: "live, shadow or canary, when a variant or a role was given.",
    SEGMENT: "Value of the segment `<key>`: one that was listed, or `__other__`; on spans of one row.",
    PREDICTION_ID: "Opaque id of one row's prediction: what `otel_ml.feedback` takes.",
    PREDICTION_LABEL: "Predicted label; on metrics, after 20 labels of a model the others are `__other__`.",
    PREDICTION_VALUE: "Value that a regressor predicted.",
    PREDICTION_SCORE: "Score of the row; on a span, of the only one.",
    PREDICTION_SCORE_MIN: "Smallest score of a batch.",
    PREDICTION_SCORE_MAX: "Largest score of a batch.",
    PREDICTION_SCORE_MEAN: "Mean score of a batch.",
    SCORE_TYPE: "probability, margin, anomaly or value.",
    SAMPLING_ADJUSTABLE: "false on events next to which kept rows are missing: they cannot be weighted.",
    SAMPLING_THRESHOLD: "Rejection threshold, of 56 bits, as OpenTelemetry's samplers read it.",
    SAMPLING_RANDOMNESS: "The row's 56 random bits; it was kept because they reach the threshold.",
    FEEDBACK_LABEL: "The true label; on metrics, after 20 labels of a model the others are `__other__`.",
    FEEDBACK_VALUE: "The true value.",
    FEEDBACK_SOURCE: "Who knew the truth, as given to `otel_ml.feedback`.",
    PREDICTION_UNCERTAINTY: "How unsure the model is of the row: 0 certain, 1 undecided.",
    UNCERTAINTY_TYPE: "least_confidence, margin or entropy; on metrics margin.",
    SAMPLING_REASON: "Which sampler decided: random, stratum, uncertainty or rule.",
    SAMPLING_PROBABILITY: "Probability with which the row is kept, 1 / its weight; on a span, that any row is.",
    SAMPLING_STRATUM: "Stratum of the row; after 100 strata the others are `__other__`, no value is `__missing__`.",
    SAMPLING_KEPT: "Whether the row was kept.",
    FEATURE_NAME: "Name of the feature, or of the projection: pc1, pc2, …",
    FEATURE_CATEGORY: "Category: a named one of the baseline, `__other__` or `__unseen__`.",
    FEATURE_STATE: "ok, missing, non_finite, out_of_range, unseen or type_mismatch.",
    BASELINE_ID: "Content hash of the baseline whose bounds or categories were used.",
    DRIFT_SEGMENT: "Key of the segment that is judged; absent for all rows together.",
    DRIFT_TARGET: "What is compared: feature, score, prediction, uncertainty or projection; on `ml.feature.value` "
    "only projection; on events also activity, whether rows keep coming.",
    DRIFT_STATISTIC: "The statistic that a limit is for.",
    DRIFT_WINDOW_NAME: "Name of the window, when there are several.",
    DRIFT_STATUS_NAME: "ok, warning or drifted.",
    DRIFT_PREVIOUS_STATUS: "ok, warning or drifted, as it was before; unknown before the first verdict.",
    DRIFT_REASON_CODE: "Why the verdict is what it is.",
    DRIFT_REASON_DETAIL: "The same in words, with its numbers.",
    DRIFT_LEVEL: "warning or drifted.",
    DRIFT_BIN: "The cell: its range or its category.",
    DRIFT_QUANTILE: "The level of the quantile, 0 to 1.",
    DRIFT_SIDE: "baseline or current.",
    WINDOW_START: "Start of the window that was judged, ISO 8601; its end is in `ml.drift.window.end`.",
    RECORD_UID: "Records with the same one are one, sent again; OpenTelemetry's own name.",
    MONITORED_SERVICE_NAME: "`service.name` of the service that runs the model.",
    MONITORED_SERVICE_NAMESPACE: "Its `service.namespace`.",
    MONITORED_ENVIRONMENT: "Its `deployment.environment.name`.",
    ERROR_TYPE: "Class of the exception, on failure only.",
    REASON: "What kind of event was counted.",
    VERSION: "Version of the collector.",
}
"""What every attribute of ours says, for people."""

SPAN_ATTRIBUTES = (
    MODEL_NAME, MODEL_VERSION, VARIANT_NAME, VARIANT_ROLE, SEGMENT, OPERATION_NAME, MODEL_TYPE, SYSTEM_NAME, TASK_TYPE,
    BASELINE_ID, BATCH_SIZE, SCORE_TYPE, PREDICTION_SCORE, PREDICTION_SCORE_MIN, PREDICTION_SCORE_MAX,
    PREDICTION_SCORE_MEAN, PREDICTION_LABEL, PREDICTION_UNCERTAINTY, UNCERTAINTY_TYPE, SAMPLING_REASON,
    SAMPLING_PROBABILITY, SAMPLING_STRATUM, SAMPLING_ADJUSTABLE, ERROR_TYPE,
)  # fmt: skip
"""Every attribute that the span of a call can carry."""

EVENT_ATTRIBUTES = (
    MODEL_NAME, MODEL_VERSION, VARIANT_NAME, VARIANT_ROLE, SEGMENT, OPERATION_NAME, BASELINE_ID, PREDICTION_ID,
    PREDICTION_LABEL, PREDICTION_VALUE, PREDICTION_SCORE, SCORE_TYPE, PREDICTION_UNCERTAINTY, UNCERTAINTY_TYPE,
    SAMPLING_REASON, SAMPLING_PROBABILITY, SAMPLING_STRATUM, SAMPLING_THRESHOLD, SAMPLING_RANDOMNESS,
    SAMPLING_ADJUSTABLE, ERROR_TYPE,
)  # fmt: skip
"""What the event of a kept row can carry, beside the values of features that the user listed."""

FEEDBACK_ATTRIBUTES = (
    PREDICTION_ID, FEEDBACK_LABEL, FEEDBACK_VALUE, FEEDBACK_SOURCE, MODEL_NAME, MODEL_VERSION, PREDICTION_LABEL,
    PREDICTION_VALUE, PREDICTION_SCORE,
)  # fmt: skip
"""What the event of a truth can carry."""

# --- metrics of the SDK -----------------------------------------------------------------------------------

_IDENTITY = (MODEL_NAME, MODEL_VERSION, VARIANT_NAME, VARIANT_ROLE)

INFERENCE_DURATION = Metric(
    "ml.inference.duration", "histogram", "s", "Time one inference call took.",
    (*_IDENTITY, OPERATION_NAME, ERROR_TYPE),
)  # fmt: skip
INFERENCE_ROWS = Metric(
    "ml.inference.rows", "counter", "{row}", "Rows given to the model.", (*_IDENTITY, OPERATION_NAME)
)
PREDICTION_SCORES = Metric(
    "ml.prediction.score",
    "histogram",
    "",
    "Scores the model gave.",
    (*_IDENTITY, SEGMENT, SCORE_TYPE, BASELINE_ID),
)
PREDICTION_UNCERTAINTIES = Metric(
    "ml.prediction.uncertainty",
    "histogram",
    "",
    "How unsure the model was, by the margin between its two likeliest classes: of models with more than two classes, "
    "where the output holds the probabilities of all, and of those whose baseline has uncertainty.",
    (*_IDENTITY, SEGMENT, UNCERTAINTY_TYPE, BASELINE_ID),
)
PREDICTIONS = Metric(
    "ml.predictions", "counter", "{prediction}", "Predictions by label.",
    (*_IDENTITY, SEGMENT, PREDICTION_LABEL, BASELINE_ID),
)  # fmt: skip
FEATURE_VALUE = Metric(
    "ml.feature.value", "histogram", "", "Distribution of a numeric feature, or of a projection of all of them.",
    (*_IDENTITY, SEGMENT, DRIFT_TARGET, FEATURE_NAME, BASELINE_ID),
)  # fmt: skip
FEATURE_CATEGORIES = Metric(
    "ml.feature.categories", "counter", "{value}", "Values of a categorical feature by category.",
    (*_IDENTITY, SEGMENT, FEATURE_NAME, FEATURE_CATEGORY, BASELINE_ID),
)  # fmt: skip
FEATURE_OBSERVATIONS = Metric(
    "ml.feature.observations", "counter", "{value}", "Feature values by state.",
    (*_IDENTITY, SEGMENT, FEATURE_NAME, FEATURE_STATE, BASELINE_ID),
)  # fmt: skip
SAMPLING_DECISIONS = Metric(
    "ml.sampling.decisions", "counter", "{row}", "Rows that a sampler decided on.",
    (*_IDENTITY, SAMPLING_REASON, SAMPLING_KEPT),
)  # fmt: skip
FEEDBACK_LABELS = Metric(
    "ml.feedback.labels", "counter", "{label}", "Truths that arrived, by label; true values carry none.",
    (MODEL_NAME, MODEL_VERSION, FEEDBACK_LABEL, FEEDBACK_SOURCE),
)  # fmt: skip
FEEDBACK_DELAY = Metric(
    "ml.feedback.delay", "histogram", "s", "Time from a prediction to its truth, where its id was given.",
    (MODEL_NAME, MODEL_VERSION, FEEDBACK_SOURCE),
)  # fmt: skip

_BASELINE = (MODEL_NAME, MODEL_VERSION, DRIFT_TARGET, FEATURE_NAME, BASELINE_ID)
BASELINE_VALUE = Metric(
    "ml.baseline.value",
    "histogram",
    "",
    "Reference distribution of a numeric target, from training.",
    _BASELINE,
)
BASELINE_CATEGORIES = Metric(
    "ml.baseline.categories", "counter", "{value}", "Reference counts of a categorical target, from training.",
    (*_BASELINE, FEATURE_CATEGORY),
)  # fmt: skip
BASELINE_OBSERVATIONS = Metric(
    "ml.baseline.observations", "counter", "{value}", "Reference feature values by state, from training.",
    (*_BASELINE, FEATURE_STATE),
)  # fmt: skip

SCHEMA_VIOLATIONS = Metric(
    "otel_ml.schema.violations", "counter", "{row}",
    "Rows whose input does not have the columns or types of the baseline.",
    (*_IDENTITY, FEATURE_NAME, REASON),
)  # fmt: skip
DROPPED = Metric(
    "otel_ml.dropped",
    "counter",
    "{row}",
    "Rows that were not recorded, or not in full, by reason.",
    (REASON,),
)
ERRORS = Metric("otel_ml.errors", "counter", "{error}", "Failures inside otel-ml, by place.", (REASON,))
COLLECTIONS = Metric(
    "otel_ml.collections", "counter", "{collection}", "Collections that otel-ml took part in."
)
COLLECT_DURATION = Metric(
    "otel_ml.collect.duration",
    "histogram",
    "s",
    "Time otel-ml took to count what was queued, per collection.",
)
QUEUE_SIZE = Metric(
    "otel_ml.queue.size", "observable_gauge", "By", "Bytes of rows that waited to be counted."
)

# --- metrics of the collector -----------------------------------------------------------------------------

_MONITORED = (
    MONITORED_SERVICE_NAME, MONITORED_SERVICE_NAMESPACE, MONITORED_ENVIRONMENT, *_IDENTITY, DRIFT_WINDOW_NAME,
)  # fmt: skip
_TARGET = (*_MONITORED, DRIFT_SEGMENT, SEGMENT, DRIFT_TARGET, FEATURE_NAME)


def _gauge(name: str, description: str, attributes: tuple[str, ...] = _TARGET, unit: str = "") -> Metric:
    return Metric(name, "gauge", unit, description, attributes)


DRIFT_PSI = _gauge("ml.drift.psi", "Population stability index between baseline and current window.")
DRIFT_PSI_EXCESS = _gauge(
    "ml.drift.psi.excess", "Population stability index above what sampling alone would give."
)
DRIFT_KS = _gauge("ml.drift.ks", "Kolmogorov-Smirnov distance at the baseline's bounds, a lower bound.")
DRIFT_KS_UPPER = _gauge("ml.drift.ks.upper", "Upper bound of the Kolmogorov-Smirnov distance.")
DRIFT_JS = _gauge("ml.drift.js", "Jensen-Shannon distance, base 2.")
DRIFT_HELLINGER = _gauge("ml.drift.hellinger", "Hellinger distance.")
DRIFT_WASSERSTEIN = _gauge("ml.drift.wasserstein", "Wasserstein distance over the baseline's spread.")
DRIFT_CHI_SQUARE = _gauge("ml.drift.chi_square", "Two-sample homogeneity statistic on the test cells.")
DRIFT_TOTAL_VARIATION = _gauge(
    "ml.drift.total_variation", "Total variation distance: the share of rows that moved to another cell."
)
DRIFT_MEAN_SHIFT = _gauge(
    "ml.drift.mean_shift",
    "Mean of the window less that of the baseline, in the baseline's standard deviations.",
)
DRIFT_QUANTILE_SHIFT = _gauge(
    "ml.drift.quantile_shift",
    "Quantile of the window less that of the baseline, in the baseline's standard deviations.",
    (*_TARGET, DRIFT_QUANTILE),
)
DRIFT_DISTINCT = _gauge(
    "ml.drift.distinct", "Categories that rows of the window have.", _TARGET, "{category}"
)
DRIFT_DESIGN_EFFECT = _gauge(
    "ml.drift.design_effect", "How many rows of the window are worth one independent row."
)
DRIFT_CUSUM = _gauge(
    "ml.drift.cusum", "Sum of what windows deviate beyond tolerance; from 12 on a slow change is certain."
)
DRIFT_STATE_SHARE = _gauge(
    "ml.drift.state.share",
    "Share of feature values in a state, in the current window.",
    (*_TARGET, FEATURE_STATE),
)
DRIFT_STATE_EFFECT = _gauge(
    "ml.drift.state.effect", "Cohen's h between the baseline's and the window's share of a state.",
    (*_TARGET, FEATURE_STATE),
)  # fmt: skip
DRIFT_P_VALUE = _gauge("ml.drift.p_value", "p-value after correction over the model's targets.")
DRIFT_THRESHOLD = _gauge(
    "ml.drift.threshold", "Limit that applies to a statistic.", (*_MONITORED, DRIFT_STATISTIC, DRIFT_LEVEL)
)
DRIFT_STATUS = _gauge("ml.drift.status", "Verdict of a target: 0 ok, 1 warning, 2 drifted.")
DRIFT_REASON = _gauge(
    "ml.drift.reason", "1 for the reason the verdict of a target has.", (*_TARGET, DRIFT_REASON_CODE)
)
DRIFT_EVALUATED = _gauge("ml.drift.evaluated", "1 when the window allowed a verdict, else 0.")
DRIFT_WINDOW_ROWS = _gauge("ml.drift.window.rows", "Rows in the window.", _TARGET, "{row}")
DRIFT_WINDOW_END = _gauge("ml.drift.window.end", "End of the window, Unix time.", _MONITORED, "s")
DRIFT_EVALUATION_AGE = _gauge("ml.drift.evaluation.age", "Time since the last evaluation.", _MONITORED, "s")
DRIFT_FEATURES = _gauge(
    "ml.drift.features", "Number of targets by status.", (*_MONITORED, DRIFT_STATUS_NAME), "{target}"
)
DRIFT_BIN_SHARE = _gauge(
    "ml.drift.bin.share", "Share of a cell, baseline or current, for targets that are not ok.",
    (*_TARGET, DRIFT_BIN, DRIFT_SIDE),
)  # fmt: skip
ACTIVITY_STATUS = _gauge(
    "ml.activity.status", "Verdict on the rows of a model: 0 ok, 1 warning, 2 silent or far from its usual volume.",
    _MONITORED,
)  # fmt: skip
ACTIVITY_REASON = _gauge(
    "ml.activity.reason", "1 for the reason the verdict on the rows has.", (*_MONITORED, DRIFT_REASON_CODE)
)
ACTIVITY_AGE = _gauge("ml.activity.age", "Time since the newest row of a model.", _MONITORED, "s")
ACTIVITY_ROWS = _gauge("ml.activity.rows", "Rows of a model in the last full hour.", _MONITORED, "{row}")
ACTIVITY_ROWS_USUAL = _gauge(
    "ml.activity.rows.usual", "Rows that are usual in the last full hour.", _MONITORED, "{row}"
)
ACTIVITY_VANISHED = _gauge(
    "ml.activity.vanished", "1 for a feature that is not sent any more, while its model has rows, else 0."
)
BASELINE_AGE = _gauge("ml.baseline.age", "Time since the baseline was made.", (*_MONITORED, BASELINE_ID), "s")
BASELINE_ROWS = _gauge("ml.baseline.rows", "Rows in the baseline.", (*_MONITORED, BASELINE_ID), "{row}")

STATE_CHANGE_ATTRIBUTES = (
    *_TARGET, DRIFT_STATUS_NAME, DRIFT_PREVIOUS_STATUS, DRIFT_REASON_CODE, DRIFT_REASON_DETAIL, FEATURE_STATE,
    BASELINE_ID, WINDOW_START, RECORD_UID,
)  # fmt: skip
"""What the event of a status that changed can carry, beside the numbers below."""

STATE_CHANGE_NUMBERS = (
    DRIFT_WINDOW_END, DRIFT_WINDOW_ROWS, DRIFT_PSI_EXCESS, DRIFT_KS, DRIFT_P_VALUE, DRIFT_CUSUM, DRIFT_STATE_SHARE,
    DRIFT_STATE_EFFECT,
)  # fmt: skip
"""Metrics whose values stand in that event, under their names; the end of the window as ISO 8601."""

# --- the collector's telemetry about itself, named as the OpenTelemetry Collector names it -------------------

RECEIVER = "receiver"
TRANSPORT = "transport"

RECEIVER_ACCEPTED = Metric(
    "otelcol_receiver_accepted_metric_points", "counter", "{datapoint}", "Metric points taken in.",
    (RECEIVER, TRANSPORT),
)  # fmt: skip
RECEIVER_REFUSED = Metric(
    "otelcol_receiver_refused_metric_points", "counter", "{datapoint}",
    "Metric points answered with an error or a partial success.", (RECEIVER, TRANSPORT),
)  # fmt: skip
RECEIVER_ACCEPTED_SPANS = Metric(
    "otelcol_receiver_accepted_spans", "counter", "{span}", "Spans passed on.", (RECEIVER, TRANSPORT)
)
RECEIVER_REFUSED_SPANS = Metric(
    "otelcol_receiver_refused_spans", "counter", "{span}", "Spans answered with an error.",
    (RECEIVER, TRANSPORT),
)  # fmt: skip
RECEIVER_ACCEPTED_LOGS = Metric(
    "otelcol_receiver_accepted_log_records", "counter", "{record}", "Log records passed on.",
    (RECEIVER, TRANSPORT),
)  # fmt: skip
RECEIVER_REFUSED_LOGS = Metric(
    "otelcol_receiver_refused_log_records", "counter", "{record}", "Log records answered with an error.",
    (RECEIVER, TRANSPORT),
)  # fmt: skip
EXPORTER = "exporter"
KIND = "kind"

EXPORTER_SENT = Metric(
    "otelcol_exporter_sent_metric_points",
    "counter",
    "{datapoint}",
    "Metric points a backend took.",
    (EXPORTER,),
)
EXPORTER_SEND_FAILED = Metric(
    "otelcol_exporter_send_failed_metric_points", "counter", "{datapoint}",
    "Metric points lost because a backend did not take them.", (EXPORTER,),
)  # fmt: skip
EXPORTER_ENQUEUE_FAILED = Metric(
    "otelcol_exporter_enqueue_failed_metric_points", "counter", "{datapoint}",
    "Metric points lost because the sending queue was full.", (EXPORTER,),
)  # fmt: skip
EXPORTER_SENT_SPANS = Metric(
    "otelcol_exporter_sent_spans", "counter", "{span}", "Spans a backend took.", (EXPORTER,)
)
EXPORTER_SEND_FAILED_SPANS = Metric(
    "otelcol_exporter_send_failed_spans", "counter", "{span}",
    "Spans lost because a backend did not take them.", (EXPORTER,),
)  # fmt: skip
EXPORTER_ENQUEUE_FAILED_SPANS = Metric(
    "otelcol_exporter_enqueue_failed_spans", "counter", "{span}",
    "Spans refused because the sending queue was full.", (EXPORTER,),
)  # fmt: skip
EXPORTER_SENT_LOGS = Metric(
    "otelcol_exporter_sent_log_records", "counter", "{record}", "Log records a backend took.", (EXPORTER,)
)
EXPORTER_SEND_FAILED_LOGS = Metric(
    "otelcol_exporter_send_failed_log_records", "counter", "{record}",
    "Log records lost because a backend did not take them.", (EXPORTER,),
)  # fmt: skip
EXPORTER_ENQUEUE_FAILED_LOGS = Metric(
    "otelcol_exporter_enqueue_failed_log_records", "counter", "{record}",
    "Log records refused because the sending queue was full.", (EXPORTER,),
)  # fmt: skip
EXPORTER_SENT_TRIGGERS = Metric(
    "otelcol_exporter_sent_triggers", "counter", "{trigger}", "Triggers a webhook took.", (EXPORTER,)
)
EXPORTER_SEND_FAILED_TRIGGERS = Metric(
    "otelcol_exporter_send_failed_triggers", "counter", "{trigger}",
    "Triggers that a webhook did not take; they are sent again after a restart.", (EXPORTER,),
)  # fmt: skip
DATA_TYPE = "data_type"
TRIGGERS = "triggers"
"""A data type of ours."""
PROCESSOR = "processor"
OTEL_SIGNAL = "otel_signal"

EXPORTER_QUEUE_SIZE = Metric(
    "otelcol_exporter_queue_size", "gauge", "{request}",
    "Requests that wait to be sent; items or bytes where the sizer of the queue says so.",
    (EXPORTER, DATA_TYPE),
)  # fmt: skip
EXPORTER_QUEUE_CAPACITY = Metric(
    "otelcol_exporter_queue_capacity", "gauge", "{request}",
    "Requests the sending queue has room for; items or bytes where its sizer says so.",
    (EXPORTER, DATA_TYPE),
)  # fmt: skip
EXPORTER_IN_MEMORY = Metric(
    "otel_ml.exporter.in_memory", "counter", "{item}",
    "Items that waited in memory because the disk of the sending queue failed.",
    (EXPORTER, DATA_TYPE),
)  # fmt: skip
PROCESSOR_INCOMING = Metric(
    "otelcol_processor_incoming_items", "counter", "{item}", "Metric points that were looked at for drift.",
    (PROCESSOR, OTEL_SIGNAL),
)  # fmt: skip
PROCESSOR_OUTGOING = Metric(
    "otelcol_processor_outgoing_items", "counter", "{item}", "Points of drift that were made for the exporters.",
    (PROCESSOR, OTEL_SIGNAL),
)  # fmt: skip
PROCESS_UPTIME = Metric("otelcol_process_uptime", "counter", "s", "Time since the process began.")
PROCESS_CPU = Metric(
    "otelcol_process_cpu_seconds", "counter", "s", "CPU time of the process, user and system."
)
PROCESS_RSS = Metric("otelcol_process_memory_rss", "gauge", "By", "Memory of the process that is in RAM.")
PROCESS_DESCRIPTORS = Metric(
    "otel_ml.process.open_file_descriptors", "gauge", "{descriptor}", "Files and sockets that are open."
)
RECEIVER_REFUSALS = Metric(
    "otel_ml.receiver.refused_requests", "counter", "{request}", "Requests answered with an error, by reason.",
    (RECEIVER, TRANSPORT, REASON),
)  # fmt: skip
RECEIVER_LEFT_OUT = Metric(
    "otel_ml.receiver.left_out", "counter", "{datapoint}",
    "Metric points left out of requests that were otherwise taken, by reason.", (RECEIVER, REASON),
)  # fmt: skip
ENGINE_COUNTS = Metric(
    "otel_ml.engine.counts", "counter", "", "What the engine met in the points it took, by reason.", (REASON,)
)
ENGINE_SIZE = Metric("otel_ml.engine.size", "gauge", "", "What the engine holds, by kind.", (KIND,))
CHECKPOINT_AGE = Metric(
    "otel_ml.checkpoint.age", "gauge", "s", "Time since the state was last written to disk, where it is kept."
)
CHECKPOINT_SIZE = Metric("otel_ml.checkpoint.size", "gauge", "By", "What that took on disk.")
COLLECTOR_INFO = Metric("otel_ml.collector.info", "gauge", "", "Always 1, with the version.", (VERSION,))
CONFIG_RELOADED = Metric(
    "otel_ml.config.last_reload_successful", "gauge", "",
    "1 from the start and after a reload that brought the configuration in, 0 after one that was refused.",
)  # fmt: skip
CONFIG_RELOAD_TIME = Metric(
    "otel_ml.config.last_reload", "gauge", "s", "Unix time at which the configuration in use was taken in."
)
