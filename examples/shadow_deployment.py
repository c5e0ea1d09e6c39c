"""A challenger that answers nobody: each request is also given to it, and its answers are recorded apart.

Run it:

    python examples/shadow_deployment.py

Champion and challenger are one model in two versions and two variants. One request in ten is answered by the challenger
(the canary), always for the same customers; all others it sees as a shadow. It prints a line for each call, with the
variant and its role, and how often the two disagree.

In the telemetry, spans, metrics and events carry `ml.variant.name` and `ml.variant.role`: nothing of a shadow is
counted in what is live.
"""

import numpy as np

import otel_ml

SHARES = {"champion": 0.9, "challenger": 0.1}


@otel_ml.observe(model="churn", version="3", variant="champion", features=["age", "income"])
def champion(X: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(0.05 * (X[:, 0] - 40) + 0.02 * (X[:, 1] - 30)))


def candidate(X: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(0.09 * (X[:, 0] - 45) + 0.02 * (X[:, 1] - 30)))


observed = {"model": "churn", "version": "4", "variant": "challenger", "features": ["age", "income"]}
challenger = otel_ml.observe(**observed, role="canary")(candidate)
shadow = otel_ml.observe(**observed, role="shadow")(candidate)


def answer(customer: str, X: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """What the customer is told, and what the challenger thinks of it."""
    if otel_ml.assign_variant(customer, SHARES, experiment="churn-4") == "challenger":
        told = challenger(X)
        return told, told
    told = champion(X)
    try:
        return told, shadow(X)
    except Exception:  # a shadow must not cost an answer; its span and its error are recorded all the same
        return told, told


def main() -> None:
    otel_ml.configure(service_name="churn-api")
    random = np.random.default_rng(0)
    disagree = 0
    for number in range(100):
        X = np.array([[random.integers(18, 80), random.lognormal(3.5, 0.5)]])
        told, other = answer(f"customer-{number}", X)
        disagree += int((told[0] > 0.5) != (other[0] > 0.5))
    print(f"champion and challenger disagree about {disagree} of 100 customers")


if __name__ == "__main__":
    main()
