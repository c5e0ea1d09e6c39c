"""An ONNX model served with ONNX Runtime, recorded without touching the code that calls it.

`instrument()` records every InferenceSession, `register()` says which model this one is.

    pip install otel-ml scikit-learn onnxruntime skl2onnx

Run it:

    python examples/onnx_model.py

It prints a line for each call and, at the end, a table of metrics. With OTEL_EXPORTER_OTLP_ENDPOINT set,
all that goes to the endpoint instead.
"""

import onnxruntime
from skl2onnx import to_onnx
from sklearn.datasets import load_breast_cancer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import otel_ml


def main() -> None:
    otel_ml.configure(service_name="tumour-api")
    otel_ml.instrument()

    # at training time
    data = load_breast_cancer()
    X_train, X_serve, y_train, _ = train_test_split(
        data.data.astype("float32"), data.target, test_size=0.1, random_state=0
    )
    model = make_pipeline(StandardScaler(), LogisticRegression()).fit(X_train, y_train)
    with otel_ml.suppress():  # training scores are no predictions
        scores = model.predict_proba(X_train)[:, 1]
    baseline = otel_ml.Baseline.fit(
        X_train, model="tumour", version="1", features=list(data.feature_names), scores=scores
    )
    exported = to_onnx(model, X_train[:1], options={"zipmap": False}).SerializeToString()

    # in the service
    session = onnxruntime.InferenceSession(exported, providers=["CPUExecutionProvider"])
    otel_ml.register(session, name="tumour", version="1", baseline=baseline)

    session.run(None, {"X": X_serve[:1]})
    session.run(["probabilities"], {"X": X_serve})


if __name__ == "__main__":
    main()
