"""A baseline made at training time from a pandas DataFrame, saved beside the model, and read again.

Run it:

    python examples/make_baseline.py [PATH]

It writes PATH (default: churn.baseline.json) and prints what is in it: a line for each feature and one for
the scores.
"""

import sys

import numpy as np
import pandas as pd

from otel_ml import Baseline
from otel_ml.baseline import CategoricalSummary, NumericSummary, Summary


def training_data(rows: int = 5000) -> pd.DataFrame:
    """What the model was trained on: an identifier, two numbers with gaps, a code and a text."""
    random = np.random.default_rng(0)
    income = np.round(random.lognormal(10, 0.5, rows))
    income[random.random(rows) < 0.02] = np.nan
    return pd.DataFrame(
        {
            "customer_id": np.arange(rows),
            "age": random.integers(18, 80, rows),
            "income": income,
            "region": random.choice([1, 2, 3], rows, p=[0.5, 0.3, 0.2]),
            "plan": random.choice(["basic", "family", "business"], rows),
        }
    )


def describe(summary: Summary) -> str:
    """One line a person can check."""
    if isinstance(summary, NumericSummary):
        return f"{summary.min:g} to {summary.max:g}, mean {summary.mean:.4g}, {len(summary.bounds)} bounds"
    if isinstance(summary, CategoricalSummary):
        return ", ".join(f"{name} {count}" for name, count in summary.categories.items())
    return "states only"


def main(path: str = "churn.baseline.json") -> None:
    X = training_data()
    Baseline.fit(
        X,
        model="churn",
        version="3",
        scores=1 / (1 + np.exp(0.05 * (X["age"] - 40))),  # in real life: model.predict_proba(X)[:, 1]
        categorical=["region"],  # a number that means a category
        exclude=["customer_id"],  # stays a column, gets no summary
    ).save(path)

    baseline = Baseline.load(path)
    print(f"{path}: {baseline.model} {baseline.version}, {baseline.rows} rows, id {baseline.id}")
    for name, summary in baseline.features.items():
        print(f"  {name:<8} {describe(summary)}")
    if baseline.scores is not None:
        print(f"  {'score':<8} {describe(baseline.scores)}")


if __name__ == "__main__":
    main(*sys.argv[1:])
