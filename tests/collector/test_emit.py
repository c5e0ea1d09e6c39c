"""Evaluations as gauges, as an OTLP request, as a scrape page and as lines on a console."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from io import StringIO
from math import inf, nan

import numpy as np
import pytest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from pointbatches import EVEN, SHORT, T0, Service, engine, reference, send, serve
from prometheus_client.parser import text_string_to_metric_families

from otel_ml import semconv
from otel_ml_collector import console, emit, scrape
from otel_ml_collector.drift import OPTIONAL_STATISTICS, Policy
from otel_ml_collector.emit import Sample
from otel_ml_collector.evaluation import Bins, Evaluation, ModelKey, Target, TargetEvaluation

S = 1_000_000_000
NOW = 1_800_000_000 * S

AGE = TargetEvaluation(
    target=Target("feature", "age"),
    rows=1000,
    evaluated=True,
    status=2,
    reason="psi",
    detail="psi.excess 0.31 is at least 0.25",
    statistics={"psi": 0.33, "psi.excess": 0.31, "ks": 0.2, "ks.upper": 0.25, "js": 0.1},
    p_value=1e-9,
    state_shares={"ok": 0.9, "missing": 0.1},
    state_effects={"missing": 0.64},
    bins=Bins(("(-inf, 3]", "(3, inf]"), np.array([0.5, 0.5]), np.array([0.2, 0.8])),
)
SCORE = replace(AGE, target=Target("score"), status=0, reason="ok", state_shares={}, state_effects={})
EVALUATION = Evaluation(
    model=ModelKey("shop", "churn-api", "prod", "churn", "3"),
    window_name="",
    window_start=NOW - 3700 * S,
    window_end=NOW - 100 * S,
    rows=1000,
    final=True,
    baseline_id="abc",
    baseline_created=NOW - 5000 * S,
    baseline_rows=5000,
    targets=(AGE, SCORE),
)
IDENTITY = {
    "ml.service.name": "churn-api",
    "ml.service.namespace": "shop",
    "ml.service.environment": "prod",
    "ml.model.name": "churn",
    "ml.model.version": "3",
}
OF_AGE = {**IDENTITY, "ml.drift.target": "feature", "ml.feature.name": "age"}


def with_target(**changes: object) -> Evaluation:
    return replace(EVALUATION, targets=(replace(AGE, **changes),))  # type: ignore[arg-type]


def values(evaluation: Evaluation, metric: semconv.Metric, **options: object) -> dict[str, float]:
    """Values of a metric by the attributes that tell its points apart."""
    samples = emit.gauges([evaluation], Policy(), NOW, **options)  # type: ignore[arg-type]
    return {
        ",".join(value for key, value in sample.attributes.items() if key not in IDENTITY): sample.value
        for sample in samples
        if sample.metric == metric
    }


@pytest.mark.parametrize(
    ("metric", "expected"),
    [
        (semconv.DRIFT_PSI, {"feature,age": 0.33, "score": 0.33}),
        (semconv.DRIFT_PSI_EXCESS, {"feature,age": 0.31, "score": 0.31}),
        (semconv.DRIFT_KS, {"feature,age": 0.2, "score": 0.2}),
        (semconv.DRIFT_KS_UPPER, {"feature,age": 0.25, "score": 0.25}),
        (semconv.DRIFT_JS, {"feature,age": 0.1, "score": 0.1}),
        (semconv.DRIFT_P_VALUE, {"feature,age": 1e-9, "score": 1e-9}),
        (semconv.DRIFT_STATE_SHARE, {"feature,age,ok": 0.9, "feature,age,missing": 0.1}),
        (semconv.DRIFT_STATE_EFFECT, {"feature,age,missing": 0.64}),
        (semconv.DRIFT_STATUS, {"feature,age": 2, "score": 0}),
        (semconv.DRIFT_REASON, {"feature,age,psi": 1, "score,ok": 1}),
        (semconv.DRIFT_EVALUATED, {"feature,age": 1, "score": 1}),
        (semconv.DRIFT_WINDOW_ROWS, {"feature,age": 1000, "score": 1000}),
        (semconv.DRIFT_WINDOW_END, {"": NOW / S - 100}),
        (semconv.DRIFT_EVALUATION_AGE, {"": 100}),
        (semconv.DRIFT_FEATURES, {"ok": 1, "warning": 0, "drifted": 1}),
        (semconv.BASELINE_AGE, {"abc": 5000}),
        (semconv.BASELINE_ROWS, {"abc": 5000}),
        (
            semconv.DRIFT_THRESHOLD,
            {
                "psi,warning": 0.1, "psi,drifted": 0.25, "ks,warning": 0.1, "ks,drifted": 0.2,
                "states,warning": 0.2, "states,drifted": 0.5,
            },
        ),
        (
            semconv.DRIFT_BIN_SHARE,
            {
                "feature,age,(-inf, 3],baseline": 0.5, "feature,age,(3, inf],baseline": 0.5,
                "feature,age,(-inf, 3],current": 0.2, "feature,age,(3, inf],current": 0.8,
            },
        ),
    ],
    ids=lambda value: value.name if isinstance(value, semconv.Metric) else "",
)  # fmt: skip
def test_an_evaluation_fills_this_gauge(metric, expected):
    """Each number of an evaluation has its gauge; cells are shown of targets that are not ok only."""
    assert values(EVALUATION, metric) == expected


@pytest.mark.parametrize(
    ("name", "metric"),
    [
        ("total_variation", semconv.DRIFT_TOTAL_VARIATION),
        ("mean_shift", semconv.DRIFT_MEAN_SHIFT),
        ("distinct", semconv.DRIFT_DISTINCT),
        ("design_effect", semconv.DRIFT_DESIGN_EFFECT),
        ("cusum", semconv.DRIFT_CUSUM),
    ],
)
def test_every_statistic_has_a_gauge(name, metric):
    """What is computed leaves under a name of its own."""
    assert values(with_target(statistics={name: 1.5}), metric) == {"feature,age": 1.5}


def test_every_optional_statistic_has_a_gauge():
    """None is computed for nothing."""
    for name in OPTIONAL_STATISTICS:
        samples = emit.gauges([with_target(statistics={name: 0.25})], Policy(), NOW)
        assert [s.metric.name for s in samples if s.metric.name == f"ml.drift.{name}"] == [f"ml.drift.{name}"]


def test_a_quantile_shift_says_which_quantile():
    """One metric, a point a level."""
    shifted = with_target(statistics={"quantile_shift@0.05": -0.5, "quantile_shift@0.5": 0.25})
    expected = {"feature,age,0.05": -0.5, "feature,age,0.5": 0.25}
    assert values(shifted, semconv.DRIFT_QUANTILE_SHIFT) == expected


def test_every_gauge_names_its_model_and_only_what_its_metric_declares():
    """The monitored service stands in attributes, and no attribute is made up on the way."""
    for sample in emit.gauges([EVALUATION], Policy(), NOW):
        assert IDENTITY.items() <= sample.attributes.items()
        assert set(sample.attributes) <= set(sample.metric.attributes)


def test_what_is_not_given_is_left_out():
    """An empty service namespace, environment or variant is no attribute, and neither is the role live."""
    bare = replace(EVALUATION, model=ModelKey("", "", "", "churn", "3"), baseline_id="")
    samples = emit.gauges([bare], Policy(), NOW)
    assert all("" not in sample.attributes.values() for sample in samples)
    assert samples[0].attributes == {"ml.model.name": "churn", "ml.model.version": "3"}
    assert not [one for one in samples if one.metric in (semconv.BASELINE_AGE, semconv.BASELINE_ROWS)]


def test_a_variant_carries_its_role():
    """Models with variants say which one they are, and whether it is live."""
    varied = replace(EVALUATION, model=replace(EVALUATION.model, variant="b", role="shadow"))
    attributes = emit.gauges([varied], Policy(), NOW)[0].attributes
    assert attributes == {**IDENTITY, "ml.variant.name": "b", "ml.variant.role": "shadow"}


def test_only_finite_values_leave():
    """A NaN or an infinity would poison what a backend adds up."""
    broken = with_target(statistics={"psi": nan, "ks": inf, "js": 0.1}, p_value=nan)
    samples = emit.gauges([broken], Policy(), NOW)
    assert np.isfinite([sample.value for sample in samples]).all()
    assert values(broken, semconv.DRIFT_JS) == {"feature,age": 0.1}
    assert values(broken, semconv.DRIFT_PSI) == values(broken, semconv.DRIFT_P_VALUE) == {}


def test_a_target_without_a_verdict_has_no_status():
    """Before the first verdict nothing is said, rather than ok."""
    waiting = with_target(evaluated=False, status=0, reason="rows_low")
    assert values(waiting, semconv.DRIFT_STATUS) == {}
    assert values(waiting, semconv.DRIFT_EVALUATED) == {"feature,age": 0}
    assert values(waiting, semconv.DRIFT_FEATURES) == {"ok": 0, "warning": 0, "drifted": 0}
    assert values(waiting, semconv.DRIFT_REASON) == {"feature,age,rows_low": 1}


def test_a_verdict_stands_while_the_window_is_too_small_for_a_new_one():
    """Once judged, a target keeps its status through the windows that allow none."""
    held = emit.judged([with_target(status=1)])
    waiting = with_target(evaluated=False, status=1, reason="rows_low")
    assert values(waiting, semconv.DRIFT_STATUS, held=held) == {"feature,age": 1}
    assert values(waiting, semconv.DRIFT_FEATURES, held=held) == {"ok": 0, "warning": 1, "drifted": 0}
    assert values(waiting, semconv.DRIFT_EVALUATED, held=held) == {"feature,age": 0}


# --- as a request -----------------------------------------------------------------------------------------


def parsed(samples: list[Sample]) -> ExportMetricsServiceRequest:
    sent = emit.request(samples, {"service.name": "otel-ml-collector"}, NOW).SerializeToString()
    return ExportMetricsServiceRequest.FromString(sent)


def order(sample: Sample) -> tuple[str, list[tuple[str, str]]]:
    return sample.metric.name, sorted(sample.attributes.items())


def test_a_request_has_one_resource_one_scope_and_every_gauge_at_the_time_of_the_export():
    """The writer is this collector; backends see values of now, however old the window is."""
    samples = emit.gauges([EVALUATION], Policy(), NOW)
    (resource,) = parsed(samples).resource_metrics
    (scope,) = resource.scope_metrics
    assert [(one.key, one.value.string_value) for one in resource.resource.attributes] == [
        ("service.name", "otel-ml-collector")
    ]
    assert scope.scope.name == "otel_ml.drift"
    arrived = [
        Sample(
            next(one.metric for one in samples if one.metric.name == metric.name),
            {one.key: one.value.string_value for one in point.attributes},
            point.as_double,
        )
        for metric in scope.metrics
        for point in metric.gauge.data_points
    ]
    assert sorted(arrived, key=order) == sorted(samples, key=order)
    assert {point.time_unix_nano for metric in scope.metrics for point in metric.gauge.data_points} == {NOW}


def test_units_and_descriptions_are_those_of_the_semantic_conventions():
    """A backend shows what is declared, once for each metric."""
    (resource,) = parsed(emit.gauges([EVALUATION], Policy(), NOW)).resource_metrics
    metrics = {metric.name: (metric.unit, metric.description) for metric in resource.scope_metrics[0].metrics}
    assert len(metrics) == len(resource.scope_metrics[0].metrics)
    assert metrics["ml.drift.window.rows"] == ("{row}", semconv.DRIFT_WINDOW_ROWS.description)
    assert metrics["ml.drift.psi"] == ("", semconv.DRIFT_PSI.description)


# --- as a page --------------------------------------------------------------------------------------------


def page(samples: list[Sample]) -> Mapping[str, list[tuple[dict[str, str], float]]]:
    from prometheus_client import CollectorRegistry, generate_latest

    registry = CollectorRegistry()
    registry.register(scrape._Pages(lambda: samples))
    families = text_string_to_metric_families(generate_latest(registry).decode())
    return {
        sample.name: [(one.labels, one.value) for one in family.samples]
        for family in families
        for sample in family.samples
    }


def test_a_page_has_the_names_that_prometheus_gives_otlp():
    """Dots become underscores, seconds stand in the name, braces are dropped, counters end in _total."""
    counter = Sample(semconv.EXPORTER_SENT, {"exporter": "otlp"}, 3)
    names = page([*emit.gauges([EVALUATION], Policy(), NOW), counter])
    assert {"ml_drift_psi", "ml_drift_psi_excess", "ml_drift_ks_upper", "ml_drift_window_rows"} <= set(names)
    assert {"ml_drift_window_end_seconds", "ml_baseline_age_seconds"} <= set(names)
    assert names["otelcol_exporter_sent_metric_points_total"] == [({"exporter": "otlp"}, 3.0)]


def test_a_page_gives_all_samples_of_a_metric_the_same_labels():
    """The score has no feature name: an empty label, which Prometheus takes as none."""
    psi = page(emit.gauges([EVALUATION], Policy(), NOW))["ml_drift_psi"]
    of_age = {key.replace(".", "_"): value for key, value in OF_AGE.items()}
    assert (of_age, 0.33) in psi
    assert ({**of_age, "ml_drift_target": "score", "ml_feature_name": ""}, 0.33) in psi


# --- as lines ---------------------------------------------------------------------------------------------


def test_the_console_shows_a_line_a_model_and_the_targets_that_are_not_ok():
    """What a person needs to see first: how many, which, how far, why."""
    head, row = console.lines([EVALUATION], "normal")
    assert head == (
        "churn 3 in shop/churn-api: 2027-01-15 06:58:20 to 2027-01-15 07:58:20 UTC, "
        "1000 rows, 1 drifted, 1 ok"
    )
    assert " ".join(row.split()) == (
        "drifted feature age psi 0.330 ks 0.200 ▆▆ → ▃█ psi.excess 0.31 is at least 0.25"
    )


@pytest.mark.parametrize(("verbosity", "count"), [("basic", 1), ("normal", 2), ("detailed", 3)])
def test_the_verbosity_says_how_many_lines_there_are(verbosity, count):
    """Models only; with the targets that are not ok; with all of them."""
    assert len(console.lines([EVALUATION], verbosity)) == count


def test_a_target_that_is_about_to_move_is_shown():
    """Between two steps the status is held; what is coming shows with the time at which it may move."""
    spec = replace(SHORT, length=10, step=10, refresh=1)
    into, service = engine(spec), Service(T0)
    send(into, reference(EVEN, T0), now=T0)
    seen = serve(into, service, T0, T0 + 5 * S, (50, 50, 100, 100, 100, 300))
    assert [one.final for one in seen] == [False] * len(seen)
    _, row, *_ = console.lines([seen[-1]], "normal")
    assert " ".join(row.split()).startswith("ok feature age psi")
    assert row.endswith("(moves at the next step)")


def test_a_target_without_a_verdict_is_waiting():
    """It is not counted among the ok."""
    (head,) = console.lines([with_target(evaluated=False, status=0, reason="rows_low")], "basic")
    assert head.endswith("1 waiting (rows_low)")


def test_targets_without_a_baseline_are_named():
    """The first three of them; how many more there are is said."""
    waiting = with_target(evaluated=False, status=0, reason="no_baseline").targets[0]
    names = [replace(waiting, target=Target("feature", name)) for name in "abcde"]
    heads = [
        console.lines([replace(EVALUATION, targets=tuple(names[:count]))], "basic")[0] for count in (1, 5)
    ]
    assert heads[0].endswith("1 waiting (no_baseline: feature a)")
    assert heads[1].endswith("5 waiting (no_baseline: feature a, feature b, feature c and 2 more)")


def test_the_console_prints_what_was_exported_before_it_stops():
    """Nothing that was taken is lost at the stop."""
    out = StringIO()
    exporter = console.ConsoleExporter("basic", out)
    exporter.export([EVALUATION])
    exporter.stop(10)
    assert out.getvalue().splitlines() == console.lines([EVALUATION], "basic")


def test_names_cannot_steer_the_console():
    """Names come from senders; what is no plain character is shown as a replacement."""
    out = StringIO()
    exporter = console.ConsoleExporter("basic", out)
    exporter.export([replace(EVALUATION, model=replace(EVALUATION.model, model="a\x1b[2J\nb"))])
    exporter.stop(10)
    (line,) = out.getvalue().splitlines()
    assert line.startswith("a\ufffd[2J\ufffdb ")
