"""A model in a process of its own: predicts the rows of a file in calls of uneven size, then exits.

Everything about telemetry comes from the OTEL_* environment, as in a deployment.
"""

from __future__ import annotations

import sys
import time

import numpy as np

import otel_ml


def main(rows: str, baseline: str) -> None:
    """Predict the rows of the array file `rows` under the baseline file `baseline`."""
    otel_ml.configure()

    @otel_ml.observe(model="credit", version="7", baseline=baseline)
    def predict(X: np.ndarray) -> np.ndarray:
        return 1 / (1 + np.exp(-X[:, 0] / 10))

    X = np.load(rows)
    start = 0
    for size in (1, 2, 500, 3, 1000, *[700] * 20):
        if start < len(X):
            predict(X[start : start + size])
            time.sleep(0.03)
        start += size
    if start < len(X):
        predict(X[start:])
    otel_ml.force_flush()


if __name__ == "__main__":
    main(*sys.argv[1:])
