"""A FastAPI service with a synchronous and an asynchronous endpoint, its model loaded once at start-up.

Run it, then ask it:

    python examples/fastapi_service.py [PORT]
    curl localhost:8000/predict -H 'content-type: application/json' -d '{"age": 30, "income": 42.5}'

It prints a line for each prediction. With OTEL_EXPORTER_OTLP_ENDPOINT set, spans and metrics go
to the endpoint instead.
"""

import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import numpy as np
import uvicorn
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


model, baseline = load()


@asynccontextmanager
async def lifespan(_: FastAPI) -> AsyncIterator[None]:
    """Providers before the first request; what is left is sent after the last one."""
    otel_ml.configure(service_name="churn-api")
    yield
    otel_ml.force_flush()


app = FastAPI(lifespan=lifespan)


class Customer(BaseModel):
    age: int
    income: float


@app.post("/predict")
@otel_ml.observe(model="churn", version="3", baseline=baseline, input=lambda customer: customer.model_dump())
def predict(customer: Customer) -> float:
    return float(model.predict_proba([[customer.age, customer.income]])[0, 1])


@app.post("/predict_many")
@otel_ml.observe(
    model="churn",
    version="3",
    baseline=baseline,
    input=lambda customers: [one.model_dump() for one in customers],
)
async def predict_many(customers: list[Customer]) -> list[float]:
    X = [[one.age, one.income] for one in customers]
    return model.predict_proba(X)[:, 1].tolist()


if __name__ == "__main__":
    uvicorn.run(app, port=int(sys.argv[1]) if len(sys.argv) > 1 else 8000)
