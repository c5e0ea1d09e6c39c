"""A FastAPI service with a synchronous and an asynchronous endpoint, and one that takes the truth when it is known.

Run it, then ask it, and tell it what was right, with the prediction_id of its answer:

    python examples/fastapi_service.py [PORT]
    curl localhost:8000/predict -H 'content-type: application/json' -d '{"age": 30, "income": 42.5}'
    curl localhost:8000/truth -H 'content-type: application/json' -d '{"prediction_id": "…", "churned": true}'

It prints a line for each prediction, and for some of them, mostly such as the model is not sure of, an event. With
OTEL_EXPORTER_OTLP_ENDPOINT set, spans, events and metrics go to the endpoint instead.
"""

import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import numpy as np
import uvicorn
from fastapi import FastAPI, HTTPException
from pydantic import BaseModel
from sklearn.linear_model import LogisticRegression

import otel_ml
from otel_ml import sampling


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


class Answer(BaseModel):
    score: float
    prediction_id: str | None
    """For the caller to keep: with it the truth finds its prediction again."""


class Truth(BaseModel):
    prediction_id: str
    churned: bool


keep = sampling.Uncertainty("margin", rate=0.1)


@app.post("/predict")
@otel_ml.observe(
    model="churn",
    version="3",
    baseline=baseline,
    input=lambda customer: customer.model_dump(),
    score=lambda answer: [answer.score],
    sampler=keep,
)
def predict(customer: Customer) -> Answer:
    score = model.predict_proba([[customer.age, customer.income]])[0, 1]
    return Answer(score=score, prediction_id=otel_ml.current_prediction_id())


@app.post("/predict_many")
@otel_ml.observe(
    model="churn",
    version="3",
    baseline=baseline,
    input=lambda customers: [one.model_dump() for one in customers],
    score=lambda answers: [answer.score for answer in answers],
    sampler=keep,
)
async def predict_many(customers: list[Customer]) -> list[Answer]:
    scores = model.predict_proba([[one.age, one.income] for one in customers])[:, 1]
    return [
        Answer(score=score, prediction_id=otel_ml.current_prediction_id(row))
        for row, score in enumerate(scores)
    ]


@app.post("/truth")
def truth(told: Truth) -> None:
    try:
        otel_ml.feedback(prediction_id=told.prediction_id, label=told.churned, model="churn", version="3")
    except otel_ml.ConfigurationError as error:  # what comes from outside can be no id at all
        raise HTTPException(422, str(error)) from error


if __name__ == "__main__":
    uvicorn.run(app, port=int(sys.argv[1]) if len(sys.argv) > 1 else 8000)
