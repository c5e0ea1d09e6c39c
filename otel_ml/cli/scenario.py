"""The story of the demo: a model of diabetes progression, thirty simulated hours, three things that go wrong."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..baseline import Baseline

MODEL = "diabetes-progression"
VERSION = "1"
REFERENCE_ROWS = 5_000
ROWS_PER_HOUR = 400
HOURS = 30
DRIFT_FROM, UNIT_FROM, NULLS_FROM, NULLS_TO = 7, 13, 20, 25
MMHG_TO_KPA = 0.133322

Row = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Expectation:
    """What the demo must find, and when it may be found."""

    feature: str
    story: str
    begins: int
    """Simulated hour in which the cause begins; being found earlier is a false alarm."""
    status: int
    """Least status: 1 warning, 2 drifted."""


EXPECTED = (
    Expectation("bmi", "patients grow heavier: the mean drifts up, hour by hour", DRIFT_FROM, 2),
    Expectation(
        "bp", "a device is replaced: blood pressure now arrives in kPa instead of mmHg", UNIT_FROM, 2
    ),
    Expectation("s5", "an upstream join breaks: a third of the values is null", NULLS_FROM, 1),
)


class Scenario:
    """Data, model and baseline, and the traffic of each simulated hour. Deterministic."""

    def __init__(self, seed: int = 7) -> None:
        from sklearn.datasets import load_diabetes
        from sklearn.impute import SimpleImputer
        from sklearn.linear_model import LogisticRegression
        from sklearn.pipeline import make_pipeline
        from sklearn.preprocessing import StandardScaler

        self._random = np.random.default_rng(seed)
        data = load_diabetes(scaled=False)
        self.names: tuple[str, ...] = tuple(data.feature_names)
        self._patients = np.asarray(data.data, dtype=np.float64)
        progressed = data.target > np.median(data.target)
        self.model: Any = make_pipeline(SimpleImputer(), StandardScaler(), LogisticRegression())
        self.model.fit(self._patients, progressed)
        self._spread = self._patients[:, self.names.index("bmi")].std()

    def baseline(self) -> Baseline:
        """Fitted on rows like those of training, their scores beside them."""
        X = self._draw(REFERENCE_ROWS)
        return Baseline.fit(
            X,
            model=MODEL,
            version=VERSION,
            features=self.names,
            scores=self.model.predict_proba(X)[:, 1],
            predictions=self.model.predict(X),
            categorical=["sex"],
            description="Whether diabetes progresses faster than the median within a year",
        )

    def traffic(self, hour: float, rows: int) -> Row:
        """`rows` requests of the simulated `hour`, with whatever goes wrong by then."""
        X = self._draw(rows)
        bmi, bp, s5 = (self.names.index(name) for name in ("bmi", "bp", "s5"))
        if hour >= DRIFT_FROM:
            X[:, bmi] += self._spread * min(0.12 * (hour - DRIFT_FROM), 1.5)
        if hour >= UNIT_FROM:
            X[:, bp] *= MMHG_TO_KPA
        if NULLS_FROM <= hour < NULLS_TO:
            X[self._random.random(rows) < 1 / 3, s5] = np.nan
        return X

    def _draw(self, rows: int) -> Row:
        drawn: Row = self._patients[self._random.integers(0, len(self._patients), rows)]
        return drawn
