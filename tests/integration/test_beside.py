"""Beside other instrumentations: web servers above a prediction, clients below it, and the machine's own metrics."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any, NamedTuple

import flask
import httpx
import numpy as np
import pytest
import requests
from integration.sink import Sink
from opentelemetry import baggage, context, trace
from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
from opentelemetry.instrumentation.flask import FlaskInstrumentor
from opentelemetry.instrumentation.httpx import HTTPXClientInstrumentor
from opentelemetry.instrumentation.requests import RequestsInstrumentor
from opentelemetry.instrumentation.system_metrics import SystemMetricsInstrumentor
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader, PeriodicExportingMetricReader
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, ALWAYS_ON, ParentBased
from support import by_name
from traces import of_otlp, of_sdk, tree

import otel_ml
from otel_ml import pipeline

X = np.linspace(0.05, 0.95, 12).reshape(6, 2)


class Asked(NamedTuple):
    """A server of the application's that only notes what it was sent."""

    url: str
    headers: list[dict[str, str]]


@pytest.fixture
def server() -> Iterator[Asked]:
    """An HTTP server on a port of its own."""
    headers: list[dict[str, str]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            headers.append({key.lower(): value for key, value in self.headers.items()})
            self.send_response(204)
            self.end_headers()

        def log_message(self, *_: Any) -> None: ...

    with HTTPServer(("127.0.0.1", 0), Handler) as made:
        thread = threading.Thread(target=made.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        thread.start()
        yield Asked(f"http://127.0.0.1:{made.server_port}/", headers)
        made.shutdown()
        thread.join()


class Traced(NamedTuple):
    """A tracer provider that otel-ml uses, and what ended there."""

    provider: TracerProvider
    exporter: InMemorySpanExporter

    @property
    def tree(self) -> str:
        return "\n" + tree(of_sdk(self.exporter.get_finished_spans()))

    def one(self, name: str) -> Any:
        [found] = [span for span in self.exporter.get_finished_spans() if span.name == name]
        return found


def traced(sampler: Any = ALWAYS_ON) -> Traced:
    """Everything that ends goes to memory."""
    provider, exporter = TracerProvider(sampler=sampler, shutdown_on_exit=False), InMemorySpanExporter()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    pipeline.use(tracer_provider=provider, meter_provider=MeterProvider(shutdown_on_exit=False))
    return Traced(provider, exporter)


@pytest.fixture
def clients() -> Iterator[Callable[[Traced], None]]:
    """Instrument requests and httpx for the time of the test."""
    instrumentors = [RequestsInstrumentor(), HTTPXClientInstrumentor()]

    def instrument(seen: Traced) -> None:
        for one in instrumentors:
            one.instrument(tracer_provider=seen.provider)

    yield instrument
    for one in instrumentors:
        one.uninstrument()


def service(predict: Callable[[Any], Any], seen: Traced) -> flask.Flask:
    """A Flask application with one route, instrumented."""
    app = flask.Flask("scores")

    @app.post("/predict")
    def _predict() -> Any:
        return flask.jsonify(predict(np.array(flask.request.get_json())).tolist())

    FlaskInstrumentor().instrument_app(app, tracer_provider=seen.provider)
    return app


UNDER_THE_SERVER = {
    "all": """
POST /predict
  predict churn
    GET
    GET
    predict churn""",
    "sampled": """
POST /predict
  predict churn
  GET
  GET
  predict churn""",
}


@pytest.mark.parametrize("mode", UNDER_THE_SERVER)
def test_flask_above_and_clients_below(mode: Any, server: Asked, clients: Callable[[Traced], None]) -> None:
    """A prediction is under its request; what it asks of others is under it when its span is current, with
    spans="all", and beside it when its span is made after the call."""
    seen = traced()
    clients(seen)

    @otel_ml.observe(model="churn", version="4", role="shadow", spans=mode)
    def shadow(rows: Any) -> Any:
        return rows[:, 1]

    @otel_ml.observe(model="churn", version="3", spans=mode)
    def predict(rows: Any) -> Any:
        requests.get(server.url, timeout=5)
        httpx.get(server.url, timeout=5)
        shadow(rows)
        return rows[:, 0]

    with httpx.Client() as unused, service(predict, seen).test_client() as client:
        assert not unused.is_closed
        answer = client.post("/predict", json=X.tolist())
    assert answer.get_json() == X[:, 0].tolist()
    assert seen.tree == UNDER_THE_SERVER[mode]
    sent = {int(one["traceparent"].split("-")[2], 16) for one in server.headers}
    ours = {span.context.span_id for span in seen.exporter.get_finished_spans() if span.name == "GET"}
    assert sent == ours


def test_failure_is_told_by_both_and_answered_by_flask() -> None:
    """A model that refuses: Flask answers 500, and the request's span and the prediction's both say why."""
    seen = traced()

    @otel_ml.observe(model="churn", version="3")
    def predict(rows: Any) -> Any:
        raise ValueError("rows are too few")

    app = service(predict, seen)
    with app.test_client() as client:
        assert client.post("/predict", json=X.tolist()).status_code == 500
    assert seen.one("predict churn").attributes["error.type"] == "ValueError"
    assert seen.one("POST /predict").attributes["http.status_code"] == 500


def test_baggage_and_context_pass_through(server: Asked, clients: Callable[[Traced], None]) -> None:
    """What a caller put into its context reaches the model and whom it asks, and is there again afterwards."""
    seen = traced()
    clients(seen)
    inside = []

    @otel_ml.observe(model="churn", version="3")
    def predict(rows: Any) -> Any:
        inside.append(baggage.get_all())
        requests.get(server.url, timeout=5)
        return rows[:, 0]

    token = context.attach(baggage.set_baggage("customer", "gold"))
    before = context.get_current()
    predict(X)
    assert context.get_current() is before
    context.detach(token)
    assert inside == [{"customer": "gold"}]
    [headers] = server.headers
    assert headers["baggage"] == "customer=gold"
    assert int(headers["traceparent"].split("-")[1], 16) == seen.one("predict churn").context.trace_id


@pytest.mark.parametrize("sampled", [True, False])
def test_the_caller_decides_what_is_sampled(sampled: bool) -> None:
    """With a ParentBased sampler a prediction is in the trace if its request is; its rows are counted either way."""
    seen, reader = traced(ParentBased(ALWAYS_OFF)), InMemoryMetricReader()
    pipeline.use(meter_provider=MeterProvider(metric_readers=[reader], shutdown_on_exit=False))
    predict = otel_ml.observe(model="churn", version="3")(lambda rows: rows[:, 0])
    header = f"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-0{int(sampled)}"
    with service(predict, seen).test_client() as client:
        client.post("/predict", json=X.tolist(), headers={"traceparent": header})
    expected = "\nPOST /predict\n  predict churn" if sampled else "\n"
    assert seen.tree == expected
    data = reader.get_metrics_data()
    assert data is not None
    assert [point.value for point in by_name(data)["ml.inference.rows"]] == [6]


@pytest.mark.parametrize(
    ("name", "argument", "spans"), [("always_off", "", 0), ("always_on", "", 3), ("traceidratio", "0", 0)]
)
def test_sampler_of_the_environment(
    name: str, argument: str, spans: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """OTEL_TRACES_SAMPLER decides on our spans as on all others, and on no count."""
    monkeypatch.setenv("OTEL_TRACES_SAMPLER", name)
    monkeypatch.setenv("OTEL_TRACES_SAMPLER_ARG", argument)
    seen, reader = traced(None), InMemoryMetricReader()
    pipeline.use(meter_provider=MeterProvider(metric_readers=[reader], shutdown_on_exit=False))
    for mode in ("all", "sampled", "off"):
        otel_ml.observe(model=mode, version="3", spans=mode)(lambda rows: rows[:, 0])(X)  # type: ignore[arg-type]
    with trace.get_tracer("app", tracer_provider=seen.provider).start_as_current_span("request"):
        pass
    assert len(seen.exporter.get_finished_spans()) == spans
    data = reader.get_metrics_data()
    assert data is not None
    assert [point.value for point in by_name(data)["ml.inference.rows"]] == [6, 6, 6]


def test_resource_of_the_environment_and_of_detectors(monkeypatch: pytest.MonkeyPatch) -> None:
    """Our counts travel under all that the application's Resource was given, whoever found it."""
    monkeypatch.setenv("OTEL_SERVICE_NAME", "api")
    monkeypatch.setenv("OTEL_RESOURCE_ATTRIBUTES", "deployment.environment.name=test,team=risk")
    monkeypatch.setenv("OTEL_EXPERIMENTAL_RESOURCE_DETECTORS", "process,otel")
    reader = InMemoryMetricReader()
    made = MeterProvider(metric_readers=[reader], resource=Resource.create(), shutdown_on_exit=False)
    pipeline.use(meter_provider=made)
    otel_ml.observe(model="churn", version="3")(lambda rows: rows[:, 0])(X)
    data = reader.get_metrics_data()
    assert data is not None
    [ours] = [
        resource.resource.attributes for resource in data.resource_metrics for scope in resource.scope_metrics
        for metric in scope.metrics if metric.name == "ml.inference.rows"
    ]  # fmt: skip
    assert {"process.pid", "service.instance.id"} <= set(ours)
    assert (ours["service.name"], ours["team"], ours["deployment.environment.name"]) == (
        "api",
        "risk",
        "test",
    )


# --- the machine and the application, in one export ---------------------------------------------------------


@pytest.mark.parametrize("given", [{}, {"service.instance.id": "pod-7"}], ids=["no id", "id"])
def test_all_metrics_arrive_in_one_export(given: dict[str, str], tmp_path: Path) -> None:
    """CPU and memory of the process, the application's metrics, our two instruments and our counts reach a backend
    together; no Resource and no scope of it is sent twice in a request."""
    with Sink(tmp_path) as sink:
        exporter = OTLPMetricExporter(f"{sink.http_endpoint}/v1/metrics")
        provider = MeterProvider(
            metric_readers=[PeriodicExportingMetricReader(exporter, export_interval_millis=3_600_000)],
            resource=Resource({"service.name": "api", **given}), shutdown_on_exit=False,
        )  # fmt: skip
        pipeline.use(meter_provider=provider)
        system = SystemMetricsInstrumentor(
            config={"process.cpu.time": ["user"], "process.memory.usage": None}
        )
        system.instrument(meter_provider=provider)
        provider.get_meter("app").create_histogram("latency").record(0.25)
        otel_ml.observe(model="churn", version="3")(lambda rows: rows[:, 0])(X)
        provider.force_flush()
        system.uninstrument()
        provider.shutdown()
        [request, *_] = sink.metrics()
    names = [
        metric.name for resource in request.resource_metrics for scope in resource.scope_metrics
        for metric in scope.metrics
    ]  # fmt: skip
    wanted = {
        "process.cpu.time",
        "process.memory.usage",
        "latency",
        "otel_ml.collections",
        "ml.inference.rows",
    }
    assert wanted <= set(names)
    assert len(names) == len(set(names))
    resources = [str(one.resource) for one in request.resource_metrics]
    assert len(resources) == len(set(resources)) == (1 if given else 2)
    for resource in request.resource_metrics:
        scopes = [scope.scope.name for scope in resource.scope_metrics]
        assert len(scopes) == len(set(scopes))


def test_no_span_of_ours_without_a_provider(server: Asked) -> None:
    """An application with clients instrumented and no provider: calls go through, and no header is invented."""
    RequestsInstrumentor().instrument()
    try:

        @otel_ml.observe(model="churn", version="3")
        def predict(rows: Any) -> Any:
            requests.get(server.url, timeout=5)
            return rows[:, 0]

        assert predict(X).tolist() == X[:, 0].tolist()
        assert not trace.get_current_span().get_span_context().is_valid
    finally:
        RequestsInstrumentor().uninstrument()
    assert "traceparent" not in server.headers[0]


# --- the example --------------------------------------------------------------------------------------------

EXAMPLE = Path(__file__).parents[2] / "examples" / "flask_service.py"


@contextmanager
def running(sink: Sink) -> Iterator[httpx.Client]:
    """The example as a process of its own, with a client; it ends as an orchestrator would end it."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("OTEL_")}
    process = subprocess.Popen(
        [sys.executable, str(EXAMPLE), "0"], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
        env={**clean, "OTEL_EXPORTER_OTLP_ENDPOINT": sink.http_endpoint, "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf",
             "OTEL_PYTHON_ML_RAISE": "1"},
    )  # fmt: skip
    assert process.stderr is not None
    said = []
    try:
        for line in process.stderr:
            said.append(line)
            if found := re.search(r"Running on (http://[\w.:]+)", line):
                with httpx.Client(base_url=found[1], timeout=30) as client:
                    yield client
                break
        else:
            raise RuntimeError("".join(said))
    finally:
        process.terminate()
        said.append(process.communicate(timeout=30)[1])
    assert not re.search("Traceback|otel-ml failed", "".join(said)), said


def test_flask_example_sends_one_trace_and_one_set_of_metrics(tmp_path: Path) -> None:
    """The prediction is under its request, and the memory of the process stands beside the model's rows."""
    with Sink(tmp_path) as sink:
        with running(sink) as client:
            answer = client.post("/predict", json={"age": 30, "income": 42.5}).raise_for_status().json()
        assert 0.5 < answer["score"] < 1
        made = [
            span for request in sink.traces() for resource in request.resource_spans
            for scope in resource.scope_spans for span in scope.spans
        ]  # fmt: skip
        told = {
            metric.name for request in sink.metrics() for resource in request.resource_metrics
            for scope in resource.scope_metrics for metric in scope.metrics
        }  # fmt: skip
    assert tree(of_otlp(made)) == "POST /predict\n  predict churn"
    wanted = {"process.memory.usage", "http.server.duration", "ml.inference.rows", "ml.baseline.value"}
    assert wanted <= told
