"""A scikit-learn Pipeline that is recorded without touching the code that calls it.

`instrument()` records every scikit-learn model, `register()` says which one this is.

Run it:

    python examples/auto_instrumented.py

It prints a line for each prediction and, at the end, a table of metrics. With OTEL_EXPORTER_OTLP_ENDPOINT
set, all that goes to the endpoint instead.
"""

from sklearn.datasets import load_breast_cancer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import otel_ml


def main() -> None:
    otel_ml.configure(service_name="tumour-api")
    otel_ml.instrument()

    data = load_breast_cancer()
    X_train, X_serve, y_train, _ = train_test_split(data.data, data.target, test_size=0.1, random_state=0)
    model = make_pipeline(StandardScaler(), LogisticRegression())
    model.fit(X_train, y_train)  # fitting is no prediction and is not recorded

    with otel_ml.suppress():  # nor are the training scores
        scores = model.predict_proba(X_train)[:, 1]
    baseline = otel_ml.Baseline.fit(
        X_train, model="tumour", version="1", features=list(data.feature_names), scores=scores
    )
    otel_ml.register(model, name="tumour", version="1", baseline=baseline)

    model.predict_proba(X_serve)
    for row in X_serve[:5]:
        model.predict(row.reshape(1, -1))


if __name__ == "__main__":
    main()
