"""XGBoost as it is: a native Booster, and beside it the scikit-learn form of the same model, both registered.

Run it, with `pip install xgboost`:

    python examples/xgboost_native.py

It prints which model answered how many rows, and what it made of them. With OTEL_EXPORTER_OTLP_ENDPOINT set, all
that and the histograms of the features go to the endpoint instead.
"""

import tempfile
from pathlib import Path

import numpy as np
import pandas as pd
import xgboost

import otel_ml

NAMES = ["age", "income", "tenure"]


def draw(rows: int, seed: int) -> pd.DataFrame:
    """Customers: age in years, income in thousands, tenure in months."""
    random = np.random.default_rng(seed)
    columns = random.integers(18, 80, rows), random.lognormal(3.5, 0.5, rows), random.integers(0, 120, rows)
    return pd.DataFrame(dict(zip(NAMES, columns, strict=True)))


def leaves(customers: pd.DataFrame, seed: int) -> np.ndarray:
    """Whether a customer has left: the young and the new ones do so most."""
    chance = 1 / (1 + np.exp(0.05 * (customers["age"] - 40) + 0.02 * (customers["tenure"] - 30)))
    return np.asarray(np.random.default_rng(seed).random(len(customers)) < chance, dtype=int)


def train(directory: Path) -> tuple[Path, Path]:
    """A model as XGBoost stores it, and beside it the baseline of what it learned from."""
    customers = draw(5000, seed=0)
    rows = xgboost.DMatrix(customers, leaves(customers, seed=1))
    booster = xgboost.train({"objective": "binary:logistic", "max_depth": 3}, rows, num_boost_round=20)
    baseline = otel_ml.Baseline.fit(customers, model="churn", version="3", scores=booster.predict(rows))
    model, file = directory / "churn.ubj", directory / "churn.baseline.json"
    booster.save_model(model)
    baseline.save(file)
    return model, file


def main() -> None:
    otel_ml.configure(service_name="churn-api")
    with tempfile.TemporaryDirectory() as directory:
        model, baseline = train(Path(directory))
        otel_ml.instrument()

        booster = xgboost.Booster(model_file=model)
        otel_ml.register(booster, name="churn", version="3", baseline=baseline)

        classifier = xgboost.XGBClassifier()
        classifier.load_model(model)
        otel_ml.register(classifier, name="churn", version="3", baseline=baseline, variant="scikit-learn")

    served = draw(300, seed=2)
    booster.inplace_predict(served)  # the shortest way, with nothing between rows and trees
    booster.predict(xgboost.DMatrix(served))
    booster.predict(xgboost.DMatrix(served[:1]), pred_contribs=True)  # why: an operation of its own
    classifier.predict(served)
    classifier.predict_proba(served)  # the same rows again: their features are counted once


if __name__ == "__main__":
    main()
