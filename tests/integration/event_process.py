"""A service with events: two predictions of which one fails, and the truth of the first."""

import sys

import numpy as np
from opentelemetry import trace

import otel_ml
from otel_ml import pipeline
from otel_ml.events import Events
from otel_ml.ids import CallId
from otel_ml.model import Model
from otel_ml.prediction import NOTHING, Outcome, Prediction
from otel_ml.rows import Rows
from otel_ml.sampling import Random
from otel_ml.sampling.coin import select

otel_ml.configure("scoring")
model = Model("churn", "3", task="classification")
events = Events(
    model, "predict", capture_features=["age", "big", "note", "paid"], provider=pipeline.logger_provider()
)
columns = {"age": [47, 31], "big": [2**80, 1], "note": ["ok", "a\udc80b\x00"], "paid": [True, False]}
p = np.array([[0.25, 0.75], [0.5, 0.5]])
scored = Outcome(p[:, 1], "probability", np.array(["leave", "stay"]), p)
call = CallId()
with trace.get_tracer("service").start_as_current_span("request") as span:
    call.span = span.get_span_context()
    made = Prediction(model, "predict", 2, scored, 10**18, 5_000_000, input=Rows(columns, model, 2))
    chosen = select(Random(1.0)(made), 2)
    assert chosen is not None
context = trace.set_span_in_context(span)
events.emit(made, chosen, ids=call, context=context)
failed = Prediction(model, "predict", 1, NOTHING, 10**18, 1, "ValueError")
one = select(Random(1.0)(failed), 1)
assert one is not None
events.emit(failed, one, ids=CallId(), context=context)
otel_ml.feedback(prediction_id=call.of(0), label=True, score=0.75, model="churn", source="human")
print(f"{span.get_span_context().trace_id:032x} {call.of(0)} {call.of(1)}")
sys.exit(0 if otel_ml.force_flush() else 1)
