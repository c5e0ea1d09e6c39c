"""A model from MLflow's registry, recorded under the name and version that it has there.

`instrument()` records every model that `mlflow.pyfunc.load_model` gives; `register()` adds its baseline, which was
logged beside it.

    pip install otel-ml scikit-learn mlflow

Run it:

    python examples/mlflow_model.py

It writes to MLflow's tracking store, by default one in the current directory, and prints a line for each call and,
at the end, a table of metrics. With OTEL_EXPORTER_OTLP_ENDPOINT set, all that goes to the endpoint instead.
"""

import mlflow
from mlflow.models import infer_signature
from sklearn.datasets import load_breast_cancer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import otel_ml

data = load_breast_cancer(as_frame=True)
X_train, X_serve, y_train, _ = train_test_split(data.data, data.target, test_size=0.1, random_state=0)


def train() -> str:
    """Register a model, with its baseline in the same run; the version it got."""
    model = make_pipeline(StandardScaler(), LogisticRegression()).fit(X_train, y_train)
    scores = model.predict_proba(X_train)
    baseline = otel_ml.Baseline.fit(X_train, model="tumour", version="1", scores=scores[:, 1])
    with mlflow.start_run():
        mlflow.log_text(baseline.to_json(), "tumour.baseline.json")
        logged = mlflow.sklearn.log_model(
            model,
            "model",
            registered_model_name="tumour",
            signature=infer_signature(X_train, scores),
            pyfunc_predict_fn="predict_proba",  # else the service gets labels alone
            serialization_format="cloudpickle",
        )
    return str(logged.registered_model_version)


def serve(version: str) -> None:
    """What a service does."""
    model = mlflow.pyfunc.load_model(f"models:/tumour/{version}")
    baseline = mlflow.artifacts.download_artifacts(
        run_id=model.metadata.run_id, artifact_path="tumour.baseline.json"
    )
    otel_ml.register(model, name="tumour", version=version, baseline=baseline)

    model.predict(X_serve[:1])
    model.predict(X_serve)


def main() -> None:
    version = train()
    otel_ml.configure(service_name="tumour-api")
    otel_ml.instrument()
    serve(version)


if __name__ == "__main__":
    main()
