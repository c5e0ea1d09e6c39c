"""A FastAPI service under gunicorn: four workers that share one loaded model, each counted under its own identity.

Run it, ask it a few times, and look at who answered:

    pip install otel-ml scikit-learn fastapi gunicorn uvicorn-worker
    python examples/gunicorn_service.py [PORT]
    curl localhost:8000/predict -H 'content-type: application/json' -d '{"age": 30, "income": 42.5}'

which is short for

    gunicorn --preload --workers 4 --worker-class uvicorn_worker.UvicornWorker --chdir examples gunicorn_service:app

It prints gunicorn's own lines, and with every export a table of the metrics of a worker. With
OTEL_EXPORTER_OTLP_ENDPOINT set, they go to the endpoint instead. For telemetry it takes the line with configure(), and
nothing in gunicorn's configuration: workers start at zero, and send what is left when they end.
"""

import os
import sys

import numpy as np
from fastapi import FastAPI
from pydantic import BaseModel
from sklearn.linear_model import LogisticRegression

import otel_ml


def load() -> tuple[LogisticRegression, otel_ml.Baseline]:
    """Model and baseline; a real service reads both from files that training left behind."""
    random = np.random.default_rng(0)
    X = np.column_stack([random.integers(18, 80, 5000), random.lognormal(3.5, 0.5, 5000)])
    model = LogisticRegression().fit(X, X[:, 0] + random.normal(0, 10, 5000) < 40)
    scores = model.predict_proba(X)[:, 1]
    baseline = otel_ml.Baseline.fit(X, model="churn", version="3", features=["age", "income"], scores=scores)
    return model, baseline


otel_ml.configure(service_name="churn-api")
model, baseline = load()


class Customer(BaseModel):
    age: int
    income: float


class Answer(BaseModel):
    score: float
    worker: int


@otel_ml.observe(model="churn", version="3", baseline=baseline)
def predict(X: np.ndarray) -> np.ndarray:
    return model.predict_proba(X)[:, 1]


predict(np.array([[40.0, 30.0]]))  # warm: counted once, by the process that does it

app = FastAPI()


@app.post("/predict")
def answer(customer: Customer) -> Answer:
    score = predict(np.array([[customer.age, customer.income]]))[0]
    return Answer(score=score, worker=os.getpid())


if __name__ == "__main__":
    from gunicorn.app.wsgiapp import run

    port = sys.argv[1] if len(sys.argv) > 1 else "8000"
    sys.argv[1:] = [
        *("--preload", "--workers=4", "--worker-class=uvicorn_worker.UvicornWorker"),
        *(f"--bind=127.0.0.1:{port}", "__main__:app"),
    ]
    run()
