"""The panels of the dashboard, section by section.

A panel's id is written out, so that links to it survive a change of order.
"""

from __future__ import annotations

from collections.abc import Sequence

import _promql as q
from _grafana import (
    COLORS,
    FEATURE_LEGEND,
    LIST_LEGEND,
    TARGET_LEGEND,
    Json,
    Panel,
    Query,
    dashed,
    limit_lines,
    override,
    stat,
    status_mapping,
    timeseries,
)

from otel_ml import semconv


def now() -> list[Panel]:
    """The first row: one number each."""
    warning, drifted = COLORS[1:]
    return [
        stat(
            id=1,
            title="Rows per second",
            unit="short",
            description="Rows given to the model, over all instances of the service.",
            queries=(Query(f"sum({q.rate(q.sdk(semconv.INFERENCE_ROWS))})"),),
        ),
        stat(
            id=2,
            title="Errors",
            unit="percentunit",
            steps=((None, "green"), (0.01, warning), (0.05, drifted)),
            description="Share of inference calls that raised.",
            queries=(Query(q.share(q.calls(f'{q.ERROR_TYPE}!=""'), q.calls())),),
        ),
        stat(
            id=3,
            title="Latency p95",
            unit="s",
            description="95 % of the inference calls took less than this.",
            queries=(Query(q.quantile(0.95, semconv.INFERENCE_DURATION)),),
        ),
        stat(
            id=4,
            title="Drifted targets",
            steps=((None, "green"), (1, drifted)),
            description="Features, score, prediction and uncertainty that have drifted from the baseline.",
            queries=(Query(q.targets_with("drifted")),),
        ),
        stat(
            id=5,
            title="Targets with a warning",
            steps=((None, "green"), (1, warning)),
            description="Targets past the first limit of a statistic, but not past the second.",
            queries=(Query(q.targets_with("warning")),),
        ),
        stat(
            id=6,
            title="Baseline age",
            unit="s",
            steps=((None, "green"), (90 * 86400, warning)),
            description="Time since the baseline that the windows are compared with was made.",
            queries=(Query(f"max({q.drift(semconv.BASELINE_AGE)})"),),
        ),
    ]


def serving() -> list[Panel]:
    """What any service shows: traffic, errors, latency."""
    version = f"{{{{{q.VERSION}}}}}"
    rows = q.rate(q.sdk(semconv.INFERENCE_ROWS, version=False))
    return [
        timeseries(
            id=11,
            title="Rows by version",
            width=8,
            unit="short",
            description=(
                "Rows per second for every version of the model, whichever version is chosen above."
            ),
            queries=(Query(f"sum by ({q.VERSION}) ({rows})", version),),
        ),
        timeseries(
            id=12,
            title="Errors by type",
            width=8,
            unit="percentunit",
            description="Share of inference calls that raised, and the exceptions they raised.",
            queries=(
                Query(q.share(q.calls(f'{q.ERROR_TYPE}!=""'), q.calls()), "all"),
                Query(errors_by_type(), f"{{{{{q.ERROR_TYPE}}}}}"),
            ),
            defaults={"min": 0, "max": 1},
        ),
        timeseries(
            id=13,
            title="Latency",
            width=8,
            unit="s",
            description=(
                "Quantiles of the time one inference call takes, by interpolation in the histogram."
            ),
            queries=tuple(
                Query(q.quantile(p, semconv.INFERENCE_DURATION), f"p{p * 100:g}") for p in (0.5, 0.95, 0.99)
            ),
        ),
    ]


def errors_by_type() -> str:
    """Share of calls by exception."""
    raised = q.calls(f'{q.ERROR_TYPE}!=""')
    return q.or_zero(f"sum by ({q.ERROR_TYPE}) ({raised}) / scalar(sum({q.calls()}))", q.ERROR_TYPE)


def predictions() -> list[Panel]:
    """What the model answers."""
    buckets = q.sdk(semconv.PREDICTION_SCORES, suffix="_bucket")
    total = q.rate(q.sdk(semconv.PREDICTION_SCORES, 'le="+Inf"', suffix="_bucket"))
    mean = f"sum({q.rate(q.sdk(semconv.PREDICTION_SCORES, suffix='_sum'))}) / sum({total})"
    label = q.label(semconv.PREDICTION_LABEL)
    return [
        Panel(
            id=21,
            title="Scores over time",
            kind="heatmap",
            width=8,
            unit="short",
            description=(
                "How many rows got which score. Compare the shape with what it was after the release."
            ),
            queries=(
                Query(f"sum by (le) (increase({buckets}[$__rate_interval]))", "{{le}}", format="heatmap"),
            ),
            options={
                "calculate": False,
                "cellGap": 1,
                "color": {"mode": "scheme", "scheme": "Blues", "steps": 64, "exponent": 0.5, "fill": "blue"},
                "legend": {"show": True},
                "rowsFrame": {"layout": "auto"},
                "tooltip": {"mode": "single", "yHistogram": True},
                "yAxis": {"axisPlacement": "left", "unit": "short"},
            },
        ),
        timeseries(
            id=22,
            title="Score mean and quantiles",
            width=8,
            unit="short",
            description=(
                "Quantiles are interpolated in the score's histogram. Prometheus clients leave the sum out "
                "where a bound is negative (margins, values), and the mean with it."
            ),
            queries=(
                Query(mean, "mean"),
                *(Query(q.quantile(p, semconv.PREDICTION_SCORES), f"p{p * 100:g}") for p in (0.1, 0.5, 0.9)),
            ),
        ),
        timeseries(
            id=23,
            title="Predictions by label",
            width=8,
            unit="short",
            description=(
                "Predictions per second, stacked to 100 %. Labels beyond the twentieth are __other__."
            ),
            queries=(Query(f"sum by ({label}) ({q.rate(q.sdk(semconv.PREDICTIONS))})", f"{{{{{label}}}}}"),),
            defaults={
                "custom": {"fillOpacity": 60, "lineWidth": 0, "stacking": {"mode": "percent", "group": "A"}}
            },
        ),
    ]


def verdicts() -> list[Panel]:
    """What the collector says about each target."""
    reason = q.label(semconv.DRIFT_REASON_CODE)
    by_reason = f"max by ({q.EACH_TARGET}, {reason}) ({q.drift(semconv.DRIFT_REASON, q.CHOSEN)} == 1)"
    return [
        Panel(
            id=31,
            title="Status",
            kind="state-timeline",
            width=16,
            height=10,
            description="Verdict by target. A gap: the window did not allow a verdict (see Reasons).",
            queries=(Query(q.by_feature(semconv.DRIFT_STATUS), TARGET_LEGEND),),
            defaults={
                "mappings": status_mapping(),
                "custom": {"fillOpacity": 80, "lineWidth": 0},
                "color": {"mode": "thresholds"},
            },
            options={
                "alignValue": "left",
                "legend": {"displayMode": "list", "placement": "bottom", "showLegend": False},
                "mergeValues": True,
                "rowHeight": 0.9,
                "showValue": "never",
                "tooltip": {"mode": "single"},
            },
        ),
        Panel(
            id=32,
            title="Reasons",
            kind="table",
            width=8,
            height=10,
            description="Why each target has the verdict it has, now.",
            queries=(Query(by_reason, instant=True, format="table"),),
            transformations=(
                columns({q.TARGET: "Target", q.FEATURE: "Name", reason: "Reason"}, hide=("Value",)),
            ),
        ),
        numbers(),
    ]


def numbers() -> Panel:
    """A table of every target's numbers, now."""
    shown = {
        "Status": semconv.DRIFT_STATUS,
        "PSI": semconv.DRIFT_PSI,
        "PSI excess": semconv.DRIFT_PSI_EXCESS,
        "KS": semconv.DRIFT_KS,
        "KS at most": semconv.DRIFT_KS_UPPER,
        "p": semconv.DRIFT_P_VALUE,
        "Rows": semconv.DRIFT_WINDOW_ROWS,
    }
    names = {f"Value #{chr(ord('A') + index)}": title for index, title in enumerate(shown)}
    return Panel(
        id=33,
        title="Targets now",
        kind="table",
        width=24,
        height=10,
        unit="none",
        description=(
            "The statistics of the current window. KS is measured at the baseline's bounds; the distance of"
            " the full distributions lies between KS and KS at most. p is corrected for the number of "
            "targets."
        ),
        queries=tuple(Query(q.by_feature(metric), instant=True, format="table") for metric in shown.values()),
        defaults={"decimals": 3},
        overrides=(
            override(
                "byName", "Status", mappings=status_mapping(), custom__cellOptions={"type": "color-text"}
            ),
            override("byName", "Rows", decimals=0),
            override("byName", "p", decimals=6),
        ),
        transformations=(
            {"id": "merge", "options": {}},
            columns({q.TARGET: "Target", q.FEATURE: "Name", **names}),
        ),
        options={"showHeader": True, "sortBy": [{"desc": True, "displayName": "PSI excess"}]},
    )


def columns(names: dict[str, str], hide: Sequence[str] = ()) -> Json:
    """Names and order of a table's columns; the time is hidden."""
    return {
        "id": "organize",
        "options": {
            "excludeByName": dict.fromkeys(("Time", *hide), True),
            "indexByName": {name: index for index, name in enumerate(names)},
            "renameByName": names,
        },
    }


def drift() -> list[Panel]:
    """The statistics over time."""
    limit = f"limit: {{{{{q.LEVEL}}}}}"
    return [
        timeseries(
            id=41,
            title="PSI by target, with limits",
            width=12,
            unit="none",
            legend=LIST_LEGEND,
            description=(
                "Population stability index between baseline and window, as the industry computes it. The "
                "limits apply to the part above sampling noise, in the next panel."
            ),
            queries=(
                Query(q.by_feature(semconv.DRIFT_PSI), TARGET_LEGEND),
                Query(q.limits(semconv.DRIFT_PSI), limit),
            ),
            overrides=limit_lines(),
        ),
        timeseries(
            id=42,
            title="PSI above sampling noise, with limits",
            width=12,
            unit="none",
            legend=LIST_LEGEND,
            description=(
                "What is left of the PSI after taking off what a window of this size shows without drift."
            ),
            queries=(
                Query(q.by_feature(semconv.DRIFT_PSI_EXCESS), TARGET_LEGEND),
                Query(q.limits(semconv.DRIFT_PSI), limit),
            ),
            overrides=limit_lines(),
        ),
        timeseries(
            id=43,
            title="KS by target, with limits",
            width=12,
            unit="none",
            legend=LIST_LEGEND,
            description=(
                "Kolmogorov-Smirnov distance at the baseline's bounds: a lower bound of the full distance."
            ),
            queries=(
                Query(q.by_feature(semconv.DRIFT_KS), TARGET_LEGEND),
                Query(q.limits(semconv.DRIFT_KS), limit),
            ),
            defaults={"min": 0},
            overrides=limit_lines(),
        ),
        timeseries(
            id=44,
            title="KS interval of the largest",
            width=12,
            unit="none",
            description=(
                "The distance of the full distributions lies inside the band. Choose one feature above to "
                "see that feature's; with all of them it is the largest lower and the largest upper bound."
            ),
            queries=(
                Query(q.largest(semconv.DRIFT_KS), "KS at least"),
                Query(q.largest(semconv.DRIFT_KS_UPPER), "KS at most"),
                Query(q.limits(semconv.DRIFT_KS), limit),
            ),
            defaults={"min": 0},
            overrides=(
                override("byName", "KS at most", custom__fillBelowTo="KS at least", custom__fillOpacity=25),
                *limit_lines(),
            ),
        ),
    ]


def quality() -> list[Panel]:
    """Values that are missing or out of range: live from the SDK, and over the collector's window."""
    titles = {"missing": "Missing values", "out_of_range": "Values out of range"}
    return [
        timeseries(
            id=51 + index,
            title=f"{title} by feature",
            width=12,
            unit="percentunit",
            legend=LIST_LEGEND,
            description=(
                "Solid: live share, from the service. Dashed: share in the window that is compared with the"
                " baseline, from the collector."
            ),
            queries=(
                Query(q.state_share(state), FEATURE_LEGEND),
                Query(window_share(state), f"{FEATURE_LEGEND} (window)"),
            ),
            defaults={"min": 0},
            overrides=(dashed("B"),),
        )
        for index, (state, title) in enumerate(titles.items())
    ]


def window_share(state: str) -> str:
    """Share of a state in the collector's window, by feature."""
    selector = q.drift(semconv.DRIFT_STATE_SHARE, q.CHOSEN, f'{q.STATE}="{state}"')
    return f"max by ({q.FEATURE}) ({selector})"


def pipeline() -> list[Panel]:
    """Whether the numbers above can be trusted."""
    reason = q.label(semconv.REASON)
    violations = q.sdk(semconv.SCHEMA_VIOLATIONS)
    dropped = f"{q.prometheus_name(semconv.DROPPED)}{{{q.IN_SERVICE}}}"
    return [
        timeseries(
            id=61,
            title="Window rows",
            width=8,
            unit="short",
            description=(
                "Rows in the window that is compared, and in the baseline. Too few, and there is no verdict."
            ),
            queries=(
                Query(q.largest(semconv.DRIFT_WINDOW_ROWS), "window"),
                Query(f"max({q.drift(semconv.BASELINE_ROWS)})", "baseline"),
            ),
            defaults={"min": 0},
        ),
        timeseries(
            id=62,
            title="Age of the evaluation",
            width=8,
            unit="s",
            description="Time since the end of the window that the collector evaluated last.",
            queries=(Query(f"max({q.drift(semconv.DRIFT_EVALUATION_AGE)})", "age"),),
            defaults={"min": 0},
        ),
        timeseries(
            id=63,
            title="Not recorded, or not as the baseline has it",
            width=8,
            unit="short",
            description=(
                "Rows that the SDK did not record, by reason, and calls whose columns or types differ from "
                "the baseline's, per second."
            ),
            queries=(
                Query(
                    q.or_zero(f"sum by ({reason}) ({q.rate(dropped)})", reason), f"dropped {{{{{reason}}}}}"
                ),
                Query(
                    q.or_zero(f"sum by ({reason}) ({q.rate(violations)})", reason), f"schema {{{{{reason}}}}}"
                ),
            ),
            defaults={"min": 0},
        ),
    ]


SECTIONS = {
    "": now,
    "Serving": serving,
    "Predictions": predictions,
    "Drift status": verdicts,
    "Drift statistics": drift,
    "Data quality": quality,
    "Pipeline": pipeline,
}
"""Heading and panels of each section, from the top."""
