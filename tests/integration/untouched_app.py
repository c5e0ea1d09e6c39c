"""A script that knows nothing of telemetry."""

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

rng = np.random.default_rng(0)
X = rng.normal(size=(500, 4)) - 3
model = make_pipeline(StandardScaler(), LogisticRegression()).fit(X, X[:, 0] > -3)
for start in range(0, 500, 50):
    model.predict_proba(X[start : start + 50])
