"""The dashboard and the alerts, against the names of `semconv`, promtool and a real Prometheus."""

from __future__ import annotations

import importlib
import re
import subprocess
import sys
from collections.abc import Iterator
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
import yaml
from interop.dashboards import (
    DIRECTORY,
    RULES,
    alerts,
    dashboard,
    dashboard_queries,
    load,
    names,
    rules,
    substitute,
)
from interop.exposition import METRICS, QUIET, serve
from interop.prometheus import Prometheus, eventually, program
from opentelemetry.exporter.prometheus import PrometheusMetricReader
from opentelemetry.sdk.metrics import MeterProvider
from prometheus_client import CollectorRegistry

from otel_ml import semconv
from otel_ml.semconv import Metric
from otel_ml_collector.emit import Sample
from otel_ml_collector.scrape import families

promql = load("_promql")

JOB = "shop/churn-api"
QUERIES = dashboard_queries()
PANELS = [panel for panel in dashboard()["panels"] if panel["type"] != "row"]
EXPRESSIONS = [expr for _, expr in QUERIES] + [rule["expr"] for rule in rules()]

RUNBOOK_QUERIES = [
    (path.stem, expr.strip())
    for path in sorted((DIRECTORY / "runbooks").glob("*.md"))
    for expr in re.findall(r"^ {7}(\S.*)$", path.read_text(encoding="utf-8"), flags=re.MULTILINE)
]

PROMETHEUS_METRICS = {"up"}
PROMETHEUS_LABELS = {"job", "instance", "le"}


# --- names ------------------------------------------------------------------------------------------------


def sample_names(metric: Metric) -> set[str]:
    """Names of the series that a metric becomes."""
    name = promql.prometheus_name(metric)
    return {f"{name}_bucket", f"{name}_sum"} if metric.kind == "histogram" else {name}


KNOWN_METRICS = {name for metric in METRICS for name in sample_names(metric)} | PROMETHEUS_METRICS
KNOWN_LABELS = {promql.label(key) for metric in METRICS for key in metric.attributes} | PROMETHEUS_LABELS


@pytest.mark.parametrize("expr", EXPRESSIONS)
def test_every_metric_and_label_of_a_query_is_one_that_semconv_names(expr: str) -> None:
    """A metric that is renamed or removed breaks the queries that use it here, not on somebody's wall."""
    metrics, labels = names(expr)
    recorded = {rule["record"] for rule in rules() if "record" in rule}
    assert metrics - KNOWN_METRICS - recorded == set()
    assert labels - KNOWN_LABELS == set()


def test_names_of_a_query_are_its_metrics_and_labels_without_functions_and_strings() -> None:
    """The reading of PromQL that the test above rests on finds a misspelt name wherever it stands."""
    expr = (
        'sum by (le, c) (rate(a_b{d=~"e.f{}", g!=""}[5m])) > bool 1e3 unless on (h) i:j offset 1d and time()'
    )
    assert names(expr) == ({"a_b", "i:j"}, {"le", "c", "d", "g", "h"})


def test_the_naming_rule_is_that_of_the_opentelemetry_prometheus_exporter() -> None:
    """Every metric of semconv has the name that the exporter of the OpenTelemetry SDK gives it."""
    registry = CollectorRegistry()
    provider = MeterProvider(metric_readers=[PrometheusMetricReader(registry=registry)])
    meter = provider.get_meter("test")
    for metric in METRICS:
        _record(meter, metric)
    exported = {sample.name for family in registry.collect() for sample in family.samples}
    provider.shutdown()
    expected = {name for metric in METRICS for name in sample_names(metric)}
    assert {name for name in exported if not name.endswith("_count")} - {"target_info"} == expected


def test_the_collectors_own_scrape_page_follows_the_same_naming_rule() -> None:
    """A drift gauge has one name in Prometheus, whether the collector was scraped or sent it by OTLP."""
    metrics = [metric for metric in METRICS if metric.kind in {"gauge", "counter"}]
    named = [[key.replace("<key>", "region") for key in metric.attributes] for metric in metrics]
    page = [
        Sample(metric, dict.fromkeys(keys, "x"), 1.0) for metric, keys in zip(metrics, named, strict=True)
    ]
    samples = [sample for family in families(page) for sample in family.samples]
    assert {sample.name for sample in samples} == {promql.prometheus_name(metric) for metric in metrics}
    labels = {promql.label(key) for keys in named for key in keys}
    assert {label for sample in samples for label in sample.labels} == labels


def _record(meter: Any, metric: Metric) -> None:
    arguments = {"name": metric.name, "unit": metric.unit, "description": metric.description}
    if metric.kind == "counter":
        meter.create_counter(**arguments).add(1)
    elif metric.kind == "histogram":
        meter.create_histogram(**arguments).record(1)
    else:
        meter.create_gauge(**arguments).set(1)


@pytest.mark.parametrize("alert", alerts(), ids=lambda alert: alert["alert"])
def test_the_text_of_an_alert_uses_labels_that_exist(alert: dict[str, Any]) -> None:
    """No notification says `Model  has drifted` because a label was renamed."""
    used = set(re.findall(r"\$labels\.(\w+)", " ".join(alert["annotations"].values())))
    assert used - KNOWN_LABELS == set()


# --- the generated file -----------------------------------------------------------------------------------


def test_the_dashboard_is_what_its_generator_writes() -> None:
    """model.json was written by generate.py from the names as they are now."""
    command = [sys.executable, str(DIRECTORY / "generate.py"), "--check"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_stale_dashboard_is_refused_with_the_command_that_writes_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """--check fails on a file that differs, says how to write it, and leaves it alone."""
    monkeypatch.syspath_prepend(str(DIRECTORY))
    generate = importlib.import_module("generate")
    stale = tmp_path / "model.json"
    stale.write_text("{}")
    monkeypatch.setattr(generate, "OUTPUT", stale)
    assert generate.main(["--check"]) == 1
    assert "is stale; write it again with: python" in capsys.readouterr().err
    assert stale.read_text() == "{}"
    assert generate.main([]) == 0
    assert generate.main(["--check"]) == 0


def test_panels_lie_inside_the_grid_and_do_not_overlap() -> None:
    """All panels are inside Grafana's 24 columns, none on top of another."""
    places = [panel["gridPos"] for panel in dashboard()["panels"]]
    assert [place for place in places if place["x"] + place["w"] > 24] == []
    assert [pair for pair in combinations(places, 2) if _overlap(*pair)] == []


def _overlap(a: dict[str, int], b: dict[str, int]) -> bool:
    across = a["x"] < b["x"] + b["w"] and b["x"] < a["x"] + a["w"]
    return across and a["y"] < b["y"] + b["h"] and b["y"] < a["y"] + a["h"]


def test_ids_are_unique_and_every_panel_says_what_it_shows() -> None:
    """Links to a panel have one goal, and each panel has a title, a description and a unit."""
    ids = [panel["id"] for panel in dashboard()["panels"]]
    assert len(ids) == len(set(ids))
    titles = [panel["title"] for panel in PANELS]
    assert len(titles) == len(set(titles))
    bare = [p["id"] for p in PANELS if not (p["description"] and p["fieldConfig"]["defaults"]["unit"])]
    assert bare == []


# --- the rules --------------------------------------------------------------------------------------------


def test_the_rules_pass_promtool_check() -> None:
    """promtool finds the rule file valid."""
    assert _promtool("check", "rules", "rules.yaml").startswith("Checking rules.yaml\n  SUCCESS")


def test_the_rules_pass_their_unit_tests() -> None:
    """promtool runs rules_test.yaml: who must be told, and who must not."""
    assert "SUCCESS" in _promtool("test", "rules", "rules_test.yaml")


def _promtool(*arguments: str) -> str:
    command = [program("promtool"), *arguments]
    done = subprocess.run(command, cwd=RULES.parent, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_each_alert_fires_in_a_unit_test() -> None:
    """No alert without a case in which it fires; what a case does not expect fails it."""
    cases = yaml.safe_load((RULES.parent / "rules_test.yaml").read_text())["tests"]
    fired = {check["alertname"] for case in cases for check in case["alert_rule_test"] if check["exp_alerts"]}
    assert fired == {alert["alert"] for alert in alerts()}


def test_each_alert_has_a_severity_a_text_and_a_runbook() -> None:
    """What a person on call needs is there, and no runbook is left over."""
    for alert in alerts():
        assert alert["labels"]["severity"] in {"info", "warning", "critical"}
        assert set(alert["annotations"]) == {"summary", "description", "runbook_url"}
        assert alert["annotations"]["runbook_url"] == f"dashboards/runbooks/{alert['alert']}.md"
    runbooks = {path.stem for path in (DIRECTORY / "runbooks").glob("*.md")}
    assert runbooks == {alert["alert"] for alert in alerts()}


@pytest.mark.parametrize("path", sorted((DIRECTORY / "runbooks").glob("*.md")), ids=lambda path: path.stem)
def test_a_runbook_answers_the_four_questions(path: Path) -> None:
    """What it means, how to look, what to do, when it is a false alarm."""
    headings = re.findall(r"^## (.+)$", path.read_text(encoding="utf-8"), flags=re.MULTILINE)
    assert headings == ["What it means", "How to look", "What to do", "When it is a false alarm"]


@pytest.mark.parametrize(("runbook", "expr"), RUNBOOK_QUERIES)
def test_a_query_of_a_runbook_uses_names_that_exist(runbook: str, expr: str) -> None:
    """What a person on call copies from a runbook is not out of date."""
    metrics, labels = names(expr)
    assert (metrics - KNOWN_METRICS, labels - KNOWN_LABELS) == (set(), set())


@pytest.mark.parametrize("path", sorted((DIRECTORY / "runbooks").glob("*.md")), ids=lambda path: path.stem)
def test_the_text_of_a_runbook_names_metrics_that_exist(path: Path) -> None:
    """Nobody on call looks for a metric, or for another alert, that there is not."""
    text = path.read_text(encoding="utf-8")
    named = set(re.findall(r"\b(?:ml|otel_ml|otelcol)_\w*[a-z]\b", text)) - {"ml_drift"}  # the processor
    assert named - KNOWN_METRICS - KNOWN_LABELS == set()
    assert set(re.findall(r"\bML[A-Z]\w+", text)) - {alert["alert"] for alert in alerts()} == set()


# --- against a real Prometheus ----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def prometheus() -> Iterator[Prometheus]:
    """A Prometheus that has scraped every metric at least three times and run the rules."""
    with serve() as target, Prometheus([target], job=JOB, rules=[RULES]) as server:
        scraped = f"count_over_time({promql.prometheus_name(semconv.INFERENCE_ROWS)}[1m]) >= 3"
        eventually(lambda: server.query(scraped), what="three scrapes")
        eventually(lambda: server.query("ml_version:serving"), what="the recording rules have run")
        yield server


@pytest.mark.parametrize("service", [".*", "churn-api"])
def test_every_query_of_the_dashboard_finds_something(prometheus: Prometheus, service: str) -> None:
    """Prometheus understands every query and answers with series, for all services and for the one chosen."""
    empty = [
        (title, expr) for title, expr in dashboard_queries(service=service) if not prometheus.query(expr)
    ]
    assert empty == []


def test_no_query_of_the_dashboard_finds_another_model_or_service(prometheus: Prometheus) -> None:
    """The variables select: for one that does not exist, or answers nobody, only the constant zeros are left."""
    for chosen in ({"model": "other"}, {"service": "churn"}, {"variant": "b"}, {"role": "shadow"}):
        found = [expr for _, expr in dashboard_queries(**chosen) if prometheus.query(expr)]
        if "service" not in chosen:
            found = [expr for expr in found if promql.prometheus_name(semconv.DROPPED) not in expr]
        assert [expr for expr in found if "vector(0)" not in expr] == []


def test_legends_name_labels_that_the_series_have(prometheus: Prometheus) -> None:
    """No line of a panel is called `{{ml_feature_name}}` or nothing at all."""
    targets = [target for panel in PANELS for target in panel["targets"]]
    for target, (title, expr) in zip(targets, QUERIES, strict=True):
        used = set(re.findall(r"{{(\w+)}}", target["legendFormat"]))
        found = {label for series in prometheus.query(expr) for label in series["metric"]}
        assert used - found == set(), title


def test_shares_are_zero_and_not_absent_where_nothing_went_wrong(prometheus: Prometheus) -> None:
    """A model that never failed and never saw a missing value shows 0 %, not `no data`."""
    live = [
        (title, expr)
        for title, expr in dashboard_queries(model=QUIET)
        if title
        in {"Errors", "Errors by type", "Missing values by feature", "Values out of range by feature"}
        and promql.prometheus_name(semconv.DRIFT_STATE_SHARE) not in expr
    ]
    values = [series["value"][1] for _, expr in live for series in prometheus.query(expr)]
    assert values == ["0"] * 7  # one for all calls twice, `none` of the types, two features in two states


def test_error_share_counts_the_calls_that_raised(prometheus: Prometheus) -> None:
    """Half of the calls of the served numbers raised: the panel says 0.5."""
    expr = dict(QUERIES)["Errors"]
    assert float(prometheus.query(expr)[0]["value"][1]) == pytest.approx(0.5)


def test_every_rule_runs_without_an_error(prometheus: Prometheus) -> None:
    """Prometheus evaluates every rule on live series: none fails on a label or a match."""
    expected = {rule.get("alert") or rule["record"] for rule in rules()}

    def evaluated() -> list[dict[str, Any]]:
        found = prometheus.rules()
        return found if all(rule["health"] != "unknown" for rule in found) else []

    found = eventually(evaluated, what="all rules were evaluated")
    assert {rule["name"] for rule in found} == expected
    assert [rule["lastError"] for rule in found if rule["health"] != "ok"] == []


def test_every_query_of_a_runbook_runs(prometheus: Prometheus) -> None:
    """Prometheus understands the queries of the runbooks and finds series for them."""
    assert [(runbook, expr) for runbook, expr in RUNBOOK_QUERIES if not prometheus.query(expr)] == []


def test_variables_list_what_there_is_to_choose(prometheus: Prometheus) -> None:
    """Service, model, version, variant and feature offer the names that the series have."""
    chosen = {"model": "churn", "version": "3", "variant": ".*", "role": "|live"}
    offered = {
        variable["name"]: _options(prometheus, substitute(variable["definition"], chosen))
        for variable in dashboard()["templating"]["list"]
        if variable["type"] == "query"
    }
    assert offered == {
        "service": {"churn-api"},
        "model": {"churn", QUIET},
        "version": {"3"},
        "variant": {"a"},
        "feature": {"age", "income"},
    }


def _options(prometheus: Prometheus, definition: str) -> set[str]:
    if inner := re.fullmatch(r"query_result\((.*)\)", definition):
        return {series["metric"]["service"] for series in prometheus.query(inner[1])}
    found = re.fullmatch(r"label_values\((.*), (\w+)\)", definition)
    assert found is not None, definition
    return {labels[found[2]] for labels in prometheus.series(found[1]) if found[2] in labels}
