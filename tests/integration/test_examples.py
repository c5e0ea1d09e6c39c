"""Every example, run as its docstring says, in a process of its own; judged by what arrives at a backend."""

from __future__ import annotations

import ast
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from integration.collector import Collector, traffic
from integration.hooks import SECRET
from integration.sink import Sink

from otel_ml import Baseline, semconv

EXAMPLES = Path(__file__).parents[2] / "examples"
RUN_HERE = {
    "auto_instrumented.py",
    "batch_parquet.py",
    "decorated_function.py",
    "fastapi_service.py",
    "flask_service.py",
    "gunicorn_service.py",
    "make_baseline.py",
    "per_segment.py",
    "retrain_webhook.py",
    "shadow_deployment.py",
    "test_churn.py",
    "uncertainty_labelling.py",
}
RUN_ELSEWHERE = {
    "mlflow_model.py": "libraries/test_mlflow.py",
    "onnx_model.py": "libraries/test_onnxruntime.py",
    "xgboost_native.py": "libraries/test_xgboost.py",
}
"""Examples that need a library of their own, and the file of their test."""
RUN_BY_HAND = {"bentoml_service.py", "keras_model.py", "ray_serve.py", "torch_model.py"}
"""Examples that need more than CI installs, and say so."""

COLLECTOR = """
receivers: {otlp: {protocols: {http: {endpoint: "127.0.0.1:0"}}}}
processors: {ml_drift: {window: {length: 10m, step: 1m, lateness: 2s}, interval: 200ms}}
exporters: {otlp: {endpoint: "%s", tls: {insecure: true}}}
service: {pipelines: {metrics: {receivers: [otlp], processors: [ml_drift], exporters: [otlp]}}}
"""


def environment(endpoint: str | None = None, **more: str) -> dict[str, str]:
    """Nothing of OpenTelemetry in it but an HTTP endpoint and `more`; our own failures are raised."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("OTEL_")}
    telemetry = {"OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf", "OTEL_PYTHON_ML_RAISE": "1", **more}
    if endpoint is not None:
        telemetry["OTEL_EXPORTER_OTLP_ENDPOINT"] = endpoint
    return {**clean, **telemetry}


def run(example: str, *arguments: str, endpoint: str | None = None, **more: str) -> str:
    """What the example printed; it must end well and complain of nothing."""
    done = subprocess.run(
        [sys.executable, str(EXAMPLES / example), *arguments],
        env=environment(endpoint, **more), capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def spans(sink: Sink) -> list[tuple[str, dict[str, Any]]]:
    """Name and attributes of our spans, in the order of arrival."""
    return [
        (span.name, values(span.attributes))
        for request in sink.traces() for resource in request.resource_spans for scope in resource.scope_spans
        for span in scope.spans if scope.scope.name == "otel_ml"
    ]  # fmt: skip


def points(requests: Sequence[Any], name: str) -> list[tuple[dict[str, Any], Any]]:
    """Attributes and point of a metric, in the order of arrival."""
    found = []
    for request in requests:
        for resource in request.resource_metrics:
            for scope in resource.scope_metrics:
                for metric in scope.metrics:
                    if metric.name == name:
                        data = getattr(metric, str(metric.WhichOneof("data")))
                        found += [(values(point.attributes), point) for point in data.data_points]
    return found


def values(attributes: Any) -> dict[str, Any]:
    """Attributes as Python values."""
    return {a.key: getattr(a.value, str(a.value.WhichOneof("value"))) for a in attributes}


FORMS = {"counter": "sum", "histogram": "histogram", "gauge": "gauge", "observable_gauge": "gauge"}


def assert_declared(requests: Sequence[Any], sent: Sequence[tuple[str, dict[str, Any]]] = ()) -> None:
    """All that arrived under our scopes is in `semconv`: kind, unit, description and attributes."""
    known = {value.name: value for value in vars(semconv).values() if isinstance(value, semconv.Metric)}
    for _, attributes in sent:
        assert set(attributes) - set(semconv.SPAN_ATTRIBUTES) == set()
    for request in requests:
        for scope in (scope for resource in request.resource_metrics for scope in resource.scope_metrics):
            for metric in scope.metrics if scope.scope.name.startswith(semconv.SDK_SCOPE) else ():
                spec, form = known[metric.name], str(metric.WhichOneof("data"))
                assert (metric.unit, metric.description) == (spec.unit, spec.description)
                assert form.removeprefix("exponential_") == FORMS[spec.kind]
                for point in getattr(metric, form).data_points:
                    assert set(values(point.attributes)) - set(spec.attributes) == set(), metric.name


def last(requests: Sequence[Any], name: str, *keys: str) -> dict[Any, int]:
    """The latest count of each series of a cumulative metric, by the values of some attributes."""
    found = {}
    for attributes, point in points(requests, name):
        key = tuple(attributes[key] for key in keys)
        found[key if len(key) != 1 else key[0]] = point.count if hasattr(point, "count") else point.as_int
    return found


def test_every_example_is_run_here() -> None:
    """An example that no test runs is a defect."""
    assert {path.name for path in EXAMPLES.glob("*.py")} == (RUN_HERE | RUN_ELSEWHERE.keys() | RUN_BY_HAND)
    for example in RUN_BY_HAND:
        assert "Not run by the project's CI" in (EXAMPLES / example).read_text()
    for example, test in RUN_ELSEWHERE.items():
        assert f'run("{example}"' in (EXAMPLES.parent / "tests" / test).read_text()


@pytest.mark.parametrize("example", sorted(RUN_HERE | RUN_ELSEWHERE.keys()))
def test_docstring_says_what_how_and_what_is_printed(example: str) -> None:
    """The first thing a reader sees: what it shows, the command that runs it, what it prints."""
    said = ast.get_docstring(ast.parse((EXAMPLES / example).read_text()))
    assert said is not None
    assert f"    python examples/{example}" in said
    assert "It prints" in said or "and prints" in said


def test_decorated_function_sends_its_calls_and_its_baseline(tmp_path: Path) -> None:
    """Three calls are three spans; all 300 rows, their scores and the baseline's 5000 rows are counted."""
    with Sink(tmp_path) as sink:
        assert run("decorated_function.py", endpoint=sink.http_endpoint) == ""
        arrived = sink.metrics()
        sent = spans(sink)
    assert [(name, a["ml.batch.size"], a["ml.model.version"]) for name, a in sent] == [
        ("predict churn", 1, "3"), ("predict churn", 99, "3"), ("predict churn", 200, "3"),
    ]  # fmt: skip
    assert 0 < sent[0][1]["ml.prediction.score.value"] < 1
    assert last(arrived, "ml.inference.rows", "ml.model.name") == {"churn": 300}
    assert last(arrived, "ml.feature.value", "ml.feature.name") == {
        "age": 300, "income": 300, "pc1": 300, "pc2": 300,
    }  # fmt: skip
    assert last(arrived, "ml.prediction.score", "ml.prediction.score.type") == {"probability": 300}
    assert_declared(arrived, sent)
    reference = {a.get("ml.feature.name", "score"): p.count for a, p in points(arrived, "ml.baseline.value")}
    assert reference == {"age": 5000, "income": 5000, "score": 5000, "pc1": 2500, "pc2": 2500}


def test_decorated_function_without_an_endpoint_prints() -> None:
    """As its docstring says: a line for each call, then a table."""
    lines = run("decorated_function.py").splitlines()
    assert [line.split("  ")[0] for line in lines[:3]] == ["predict churn"] * 3
    assert any(re.fullmatch(r"ml\.inference\.rows +1 series +300 observations", line) for line in lines)


def test_decorated_function_through_a_collector(tmp_path: Path) -> None:
    """A real collector in between: rows like those of training have no drift, and the verdict says ok."""
    with Sink(tmp_path / "sink") as sink, Collector(tmp_path, COLLECTOR % sink.grpc_endpoint) as collector:
        endpoint = f"http://127.0.0.1:{collector.ports['http']}"
        run("decorated_function.py", endpoint=endpoint, OTEL_TRACES_EXPORTER="none")  # it takes metrics only
        arrived = sink.wait_for(lambda requests: points(requests, "ml.drift.status"))
    assert_declared(arrived)
    rows = {
        a.get("ml.feature.name", "score"): p.as_double for a, p in points(arrived, "ml.drift.window.rows")
    }
    assert rows == {"age": 300, "income": 300, "score": 300, "pc1": 300, "pc2": 300}
    assert {point.as_double for _, point in points(arrived, "ml.drift.status")} == {0}
    assert {a["ml.service.name"] for a, _ in points(arrived, "ml.drift.psi")} == {"churn-api"}


def test_auto_instrumented_pipeline_is_one_model(tmp_path: Path) -> None:
    """Six calls are six spans under the registered name; neither fit nor the scaler inside shows."""
    with Sink(tmp_path) as sink:
        assert run("auto_instrumented.py", endpoint=sink.http_endpoint) == ""
        arrived = sink.metrics()
        sent = spans(sink)
    assert [(name, a["ml.batch.size"]) for name, a in sent] == [
        ("predict_proba tumour", 57), *[("predict tumour", 1)] * 5,
    ]  # fmt: skip
    assert_declared(arrived, sent)
    assert {a["ml.model.type"] for _, a in sent} == {"LogisticRegression"}
    assert last(arrived, "ml.inference.rows", "ml.operation.name") == {"predict_proba": 57, "predict": 5}
    features = last(arrived, "ml.feature.value", "ml.feature.name")
    assert (len(features), set(features.values()), features["mean radius"]) == (30 + 8, {62}, 62)
    assert sum(last(arrived, "ml.predictions", "ml.prediction.label").values()) == 62


def test_make_baseline_writes_what_it_prints(tmp_path: Path) -> None:
    """The file loads, has the summaries the example asked for, and the printed id is its id."""
    path = tmp_path / "churn.baseline.json"
    printed = run("make_baseline.py", str(path))
    baseline = Baseline.load(path)
    assert baseline.columns == ("customer_id", "age", "income", "region", "plan")
    kinds = {name: type(summary).__name__ for name, summary in baseline.features.items()}
    assert kinds == {
        "age": "NumericSummary", "income": "NumericSummary",
        "region": "CategoricalSummary", "plan": "CategoricalSummary",
    }  # fmt: skip
    assert (baseline.rows, baseline.score_type) == (5000, "probability")
    assert printed.splitlines()[0] == f"{path}: churn 3, 5000 rows, id {baseline.id}"
    assert [line.split()[0] for line in printed.splitlines()[1:]] == [*kinds, "score"]


@contextmanager
def service(sink: Sink) -> Iterator[str]:
    """The FastAPI example as a server of its own; yields its URL and ends it as an orchestrator would."""
    process = subprocess.Popen(
        [sys.executable, str(EXAMPLES / "fastapi_service.py"), "0"],
        env=environment(sink.http_endpoint), stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True,
    )  # fmt: skip
    assert process.stderr is not None
    try:
        said = ""
        for line in process.stderr:
            said += line
            if found := re.search(r"running on (http://\S+)", line):
                yield found[1]
                break
        else:
            raise RuntimeError(f"the service did not start: {said}")
    finally:
        process.terminate()
        _, rest = process.communicate(timeout=30)
    assert "otel-ml" not in rest, rest


def test_fastapi_service_records_predictions_and_truth(tmp_path: Path) -> None:
    """Requests are answered as usual; each is a span, the truth links to its prediction's, and all rows arrive."""
    with Sink(tmp_path) as sink:
        with service(sink) as url:
            one = httpx.post(f"{url}/predict", json={"age": 30, "income": 42.5}).raise_for_status().json()
            two = [{"age": 30, "income": 42.5}, {"age": 60, "income": 12.5}]
            many = httpx.post(f"{url}/predict_many", json=two).raise_for_status().json()
            assert httpx.post(f"{url}/predict", json={"age": "?"}).status_code == 422
            for prediction_id, status in ((many[1]["prediction_id"], 200), ("made up", 422)):
                told = {"prediction_id": prediction_id, "churned": False}
                assert httpx.post(f"{url}/truth", json=told).status_code == status
        arrived, (single, batch, truth) = sink.metrics(), spans(sink)
    assert_declared(arrived, [single, batch])
    assert one["score"] == many[0]["score"] > 0.5 > many[1]["score"]
    assert len({one["prediction_id"], *(answer["prediction_id"] for answer in many)}) == 3
    assert [(name, a["ml.batch.size"]) for name, a in (single, batch)] == [
        ("predict churn", 1), ("predict churn", 2),
    ]  # fmt: skip
    assert single[1]["ml.prediction.score.value"] == pytest.approx(one["score"])
    assert truth[0] == "feedback churn"
    assert last(arrived, "ml.inference.rows", "ml.model.name") == {"churn": 3}
    assert last(arrived, "ml.feature.value", "ml.feature.name") == {"age": 3, "income": 3, "pc1": 3, "pc2": 3}
    assert last(arrived, "ml.prediction.score", "ml.prediction.score.type") == {"probability": 3}
    assert sum(last(arrived, "ml.sampling.decisions", "ml.sampling.reason", "ml.sampling.kept").values()) == 3
    assert last(arrived, "ml.feedback.labels", "ml.feedback.label") == {"false": 1}


def test_uncertainty_labelling() -> None:
    """Labels of doubtful rows make a better model, and tell its accuracy when they are weighted, and only then."""
    printed = run("uncertainty_labelling.py")
    said = dict(re.findall(r"^(\S.*?)  +(0\.\d+)\b", printed, re.M))
    day, estimate, plain = (
        float(said[key]) for key in ("accuracy on the day", "estimated, weighted", "share of kept rows")
    )
    assert 850 < int(printed.split()[0]) < 1150
    assert abs(estimate - day) < 0.07  # five standard errors
    assert plain < day - 0.03
    assert float(said["next day, second model"]) > float(said["next day, first model"])


def test_shadow_deployment_keeps_the_shadow_apart(tmp_path: Path) -> None:
    """Every customer is answered once, by champion or canary; what the shadow saw is counted as its own."""
    with Sink(tmp_path) as sink:
        printed = run("shadow_deployment.py", endpoint=sink.http_endpoint)
        rows = last(sink.metrics(), "ml.inference.rows", "ml.variant.name", "ml.variant.role")
        made = spans(sink)
    assert re.fullmatch(r"champion and challenger disagree about \d+ of 100 customers\n", printed)
    live, canary, shadow = (
        rows["champion", "live"], rows["challenger", "canary"], rows["challenger", "shadow"],
    )  # fmt: skip
    assert live + canary == 100
    assert shadow == live
    assert 0 < canary < 25
    assert [attributes["ml.variant.role"] for _, attributes in made].count("shadow") == shadow


def test_per_segment_adds_up() -> None:
    """The regions that are listed are told apart, all others are one, and together they are all rows."""
    found = dict(re.findall(r"^(\S+) +(\d+) rows", run("per_segment.py"), re.M))
    assert found.keys() == {"eu", "us", "__other__"}
    assert sum(map(int, found.values())) == 10_000


WEBHOOK = """
receivers: {otlp: {protocols: {http: {endpoint: "127.0.0.1:0"}}}}
processors: {ml_drift: {interval: 250ms, window: {length: 2s, step: 500ms, lateness: 100ms}}}
exporters: {webhook: {endpoint: URL, secret: SECRET}}
service: {pipelines: {metrics: {receivers: [otlp], processors: [ml_drift], exporters: [webhook]}}}
"""


def test_retrain_webhook_starts_a_training_when_a_model_drifts(tmp_path: Path) -> None:
    """A real collector asks, the example verifies it and runs the command with the trigger; a stranger is refused."""
    trained = tmp_path / "trigger.json"
    script = f"import sys; open({str(trained)!r}, 'w').write(sys.stdin.read())"
    process = subprocess.Popen(
        [sys.executable, str(EXAMPLES / "retrain_webhook.py"), "0", sys.executable, "-c", script],
        env={**os.environ, "WEBHOOK_SECRET": SECRET}, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        assert process.stdout is not None
        url = process.stdout.readline().split()[-1]
        assert httpx.post(url, content=b"{}").status_code == 401
        with Collector(tmp_path, WEBHOOK.replace("URL", f"'{url}'").replace("SECRET", SECRET)) as collector:
            deadline = time.monotonic() + 30
            while not (trained.exists() and trained.read_text()) and time.monotonic() < deadline:
                collector.send(traffic((200, 800, 3000, 6000)))
                time.sleep(0.1)
    finally:
        process.terminate()
        printed, _ = process.communicate(timeout=30)
    assert printed.splitlines() == [
        "401 not signed with our secret", "202 training churn 3: 1 of 1 targets drifted: age",
    ]  # fmt: skip
    assert json.loads(trained.read_text())["data"]["trigger"] == "drift"


def test_tests_of_a_service_pass() -> None:
    """The five tests of the example pass, with warnings as errors."""
    assert run("test_churn.py").startswith(".....")
