"""One decorator on a plain function: spans, scores and feature histograms on the baseline's own bounds.

Run it:

    python examples/decorated_function.py

It prints a line for each call and, at the end, a table of metrics. With OTEL_EXPORTER_OTLP_ENDPOINT set,
all that goes to the endpoint instead.
"""

import numpy as np

import otel_ml


def draw(rows: int, seed: int) -> np.ndarray:
    """Customers: age in years, income in thousands."""
    random = np.random.default_rng(seed)
    return np.column_stack([random.integers(18, 80, rows), random.lognormal(3.5, 0.5, rows)])


def chance(X: np.ndarray) -> np.ndarray:
    """The model: the probability that a customer leaves."""
    return 1 / (1 + np.exp(0.05 * (X[:, 0] - 40) + 0.02 * (X[:, 1] - 30)))


X_train = draw(5000, seed=0)
baseline = otel_ml.Baseline.fit(
    X_train, model="churn", version="3", features=["age", "income"], scores=chance(X_train)
)


@otel_ml.observe(model="churn", version="3", baseline=baseline)
def predict(X: np.ndarray) -> np.ndarray:
    return chance(X)


def main() -> None:
    otel_ml.configure(service_name="churn-api")
    served = draw(300, seed=1)
    predict(served[:1])
    predict(served[1:100])
    predict(served[100:])


if __name__ == "__main__":
    main()
