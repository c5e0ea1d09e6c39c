"""Choosing rows to label: the ones a model is unsure of, without losing sight of all the others.

Run it:

    python examples/uncertainty_labelling.py

It prints how many rows of a day were kept, doubtful ones more often, as `ml.prediction` events for people to label,
and what the labels are good for:

- the accuracy on the whole day, each kept row weighted by 1 / the probability with which it was kept. The plain share
  of right answers would be far too low: doubtful rows are the ones that are wrong.
- a second model, trained with them too.
"""

import numpy as np
from opentelemetry import _logs
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk._logs.export import InMemoryLogRecordExporter, SimpleLogRecordProcessor
from sklearn.linear_model import LogisticRegression

import otel_ml
from otel_ml import sampling

NAMES = ["age", "income", "visits"]
events = InMemoryLogRecordExporter()  # in production: the backend that your events go to


def draw(rows: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Customers, and the truth about them, which nobody knows when they are served."""
    random = np.random.default_rng(seed)
    X = random.normal(size=(rows, 3))
    leaves = random.random(rows) < 1 / (1 + np.exp(-(4 * X[:, 0] - 3 * X[:, 1] + 2 * X[:, 2])))
    return X, leaves.astype(int)


def serve(model: LogisticRegression, X: np.ndarray) -> None:
    """Answer in calls of 500 rows, as an API under load would."""

    @otel_ml.observe(
        model="churn", version="1", features=NAMES, capture_features=NAMES, spans="off",
        sampler=sampling.Uncertainty("margin", rate=0.02),
    )  # fmt: skip
    def predict(rows: np.ndarray) -> np.ndarray:
        return model.predict_proba(rows)

    for rows in np.split(X, len(X) // 500):
        predict(rows)


def main() -> None:
    provider = LoggerProvider()
    provider.add_log_record_processor(SimpleLogRecordProcessor(events))
    _logs.set_logger_provider(provider)

    X_train, y_train = draw(40, seed=0)
    first = LogisticRegression().fit(X_train, y_train)
    X, truth = draw(50_000, seed=1)
    serve(first, X)

    kept = [record.log_record.attributes for record in events.get_finished_logs()]
    rows = np.array([[event[f"ml.feature.value.{name}"] for name in NAMES] for event in kept])
    probabilities = [event["ml.sampling.probability"] for event in kept]
    known = {tuple(row): label for row, label in zip(X.tolist(), truth.tolist(), strict=True)}
    labels = np.array([known[tuple(row)] for row in rows.tolist()])  # the people who label

    right = first.predict(rows) == labels
    accuracy = sampling.proportion(right, probabilities)
    low, high = accuracy.interval
    print(f"{len(kept)} of {len(X)} rows kept")
    print(f"accuracy on the day      {first.score(X, truth):.3f}")
    print(f"estimated, weighted      {accuracy.value:.3f}  (95 % between {low:.3f} and {high:.3f})")
    print(f"share of kept rows       {right.mean():.3f}  which is not the accuracy")

    second = LogisticRegression().fit(np.vstack([X_train, rows]), np.concatenate([y_train, labels]))
    X_next, truth_next = draw(50_000, seed=2)
    print(f"next day, first model    {first.score(X_next, truth_next):.3f}")
    print(f"next day, second model   {second.score(X_next, truth_next):.3f}")


if __name__ == "__main__":
    main()
