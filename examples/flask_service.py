"""A Flask service in one trace with its requests, and with the CPU and memory of the process beside its predictions.

    pip install flask opentelemetry-instrumentation-flask opentelemetry-instrumentation-system-metrics

Run it, then ask it:

    python examples/flask_service.py [PORT]
    curl localhost:8000/predict -H 'content-type: application/json' -d '{"age": 30, "income": 42.5}'

It prints two lines a request: the prediction's span, and the span of the request that it is under. With
OTEL_EXPORTER_OTLP_ENDPOINT set, spans and metrics go to the endpoint instead.
"""

import signal
import sys

import flask
import numpy as np
from opentelemetry.instrumentation.flask import FlaskInstrumentor
from opentelemetry.instrumentation.system_metrics import SystemMetricsInstrumentor
from sklearn.linear_model import LogisticRegression

import otel_ml

PROCESS = {"process.cpu.time": ["user", "system"], "process.memory.usage": None}


def load() -> tuple[LogisticRegression, otel_ml.Baseline]:
    """Model and baseline; a real service reads both from files that training left behind."""
    random = np.random.default_rng(0)
    X = np.column_stack([random.integers(18, 80, 5000), random.lognormal(3.5, 0.5, 5000)])
    model = LogisticRegression().fit(X, X[:, 0] + random.normal(0, 10, 5000) < 40)
    scores = model.predict_proba(X)[:, 1]
    return model, otel_ml.Baseline.fit(
        X, model="churn", version="3", features=["age", "income"], scores=scores
    )


model, baseline = load()
otel_ml.configure(service_name="churn-api")
SystemMetricsInstrumentor(config=PROCESS).instrument()

app = flask.Flask("churn")
FlaskInstrumentor().instrument_app(app)


@otel_ml.observe(model="churn", version="3", baseline=baseline, score=lambda answer: [answer])
def score(customer: dict[str, float]) -> float:
    return float(model.predict_proba([[customer["age"], customer["income"]]])[0, 1])


@app.post("/predict")
def predict() -> dict[str, float]:
    return {"score": score(flask.request.get_json())}


if __name__ == "__main__":
    # ended so, the interpreter sends what is left; gunicorn ends its workers by itself
    signal.signal(signal.SIGTERM, lambda *_: sys.exit())
    app.run(port=int(sys.argv[1]) if len(sys.argv) > 1 else 8000)
