"""A model that is called by the workers of a server. Telemetry comes from the OTEL_* environment, the rest from:

CONFIGURE=elsewhere     somebody else sets the providers up
WARM_UP=n               calls of one row before the server serves, in the parent when it loads the application first
BASELINE=path           the model's baseline
"""

from __future__ import annotations

import os

import numpy as np

import otel_ml

if os.environ.get("CONFIGURE") != "elsewhere":
    otel_ml.configure("served")


@otel_ml.observe(model="churn", version="3", baseline=os.environ.get("BASELINE"), spans="sampled")
def predict(X: np.ndarray) -> np.ndarray:
    """The first column."""
    return X[:, 0]


for _ in range(int(os.environ.get("WARM_UP", "0"))):
    predict(np.zeros((1, 1)))


def answer(number: int) -> str:
    """Predict one row, and say which process did."""
    predict(np.array([[number % 1000 / 1000]]))
    return str(os.getpid())
