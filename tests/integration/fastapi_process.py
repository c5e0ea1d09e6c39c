"""A FastAPI service, instrumented as OpenTelemetry does it, whose endpoints call models in every way that they can."""

import asyncio
import contextvars
import sys
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from typing import Any

import numpy as np
import uvicorn
from fastapi import BackgroundTasks, FastAPI
from opentelemetry import trace
from opentelemetry.instrumentation.fastapi import FastAPIInstrumentor
from pydantic import BaseModel
from sklearn.linear_model import LogisticRegression

import otel_ml
from otel_ml import sampling

otel_ml.configure("scoring")
otel_ml.instrument()
tracer = trace.get_tracer("service")
pool = ThreadPoolExecutor(2)

random = np.random.default_rng(0)
X = random.normal(size=(200, 2))
risk = LogisticRegression().fit(X, X[:, 0] > 0)
other = LogisticRegression(C=2.0).fit(X, X[:, 1] > 0)
otel_ml.register(risk, name="risk", version="7")


@asynccontextmanager
async def lifespan(_: FastAPI) -> AsyncIterator[None]:
    yield
    otel_ml.force_flush()


app = FastAPI(lifespan=lifespan)
keep = sampling.Random(1.0)


@otel_ml.observe("churn", "3", variant="challenger", role="shadow", spans="sampled")
def challenger(rows: Any) -> Any:
    return other.predict_proba(rows)  # not registered: a part of this call


@otel_ml.observe("churn", "3", variant="champion", sampler=keep, score=lambda answer: [answer[0]])
def champion(rows: Any) -> tuple[float, str | None]:
    with tracer.start_as_current_span("lookup"):
        prediction_id = otel_ml.current_prediction_id()
    challenger(rows)
    with tracer.start_as_current_span("blend"):
        return float(risk.predict_proba(rows)[0, 1]), prediction_id


@otel_ml.observe("rank", "1", sampler=keep)
async def rank(rows: Any) -> Any:
    with tracer.start_as_current_span("fetch"):
        await asyncio.sleep(0.01)
    first, second = await asyncio.gather(
        asyncio.to_thread(risk.predict_proba, rows), asyncio.to_thread(other.predict_proba, rows)
    )
    return (first * second)[:, 1]


@otel_ml.observe("late", "1", spans="sampled", sampler=keep)
def late(rows: Any) -> Any:
    with tracer.start_as_current_span("store"):
        return rows[:, 0]


@app.post("/sync/{customer}")
def in_a_worker_thread(customer: int, later: BackgroundTasks) -> dict[str, Any]:
    score, prediction_id = champion(np.array([[customer / 10, 0.5]]))
    later.add_task(late, np.array([[score]]))
    return {"score": score, "prediction_id": prediction_id}


@app.post("/async/{customer}")
async def on_the_loop(customer: int) -> list[float]:
    return (await rank(np.array([[customer / 10, 0.5]]))).tolist()


@app.post("/batch")
async def batch(customers: list[int]) -> list[float]:
    rows = np.array([[customer / 10, 0.5] for customer in customers])
    loop, context = asyncio.get_running_loop(), contextvars.copy_context()
    inside = await loop.run_in_executor(pool, context.run, risk.predict_proba, rows)
    await loop.run_in_executor(pool, risk.decision_function, rows)  # nobody told this thread where it belongs
    return inside[:, 1].tolist()


class Truth(BaseModel):
    prediction_id: str
    label: bool


@app.post("/truth")
def truth(told: Truth) -> None:
    otel_ml.feedback(prediction_id=told.prediction_id, label=told.label, model="churn")


FastAPIInstrumentor.instrument_app(app, exclude_spans=["receive", "send"])

if __name__ == "__main__":
    uvicorn.run(app, port=int(sys.argv[1]), log_level="info")
