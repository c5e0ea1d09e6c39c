"""A scikit-learn model in Ray Serve: every replica records its own predictions under one name and version.

A replica is a process of its own, so telemetry is set up in it and not in the program that starts it.
Not run by the project's CI, for Ray is large:

    pip install otel-ml scikit-learn 'ray[serve]'

Run it:

    python examples/ray_serve.py

It asks two replicas 20 times and prints the answers' mean. What the replicas print, a line for each call and a table
of metrics as each of them ends, Ray prints after them. With OTEL_EXPORTER_OTLP_ENDPOINT set, all that goes to the
endpoint instead.
"""

from ray import serve
from sklearn.datasets import load_breast_cancer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import otel_ml


@serve.deployment(num_replicas=2)
class Tumour:
    def __init__(self) -> None:
        otel_ml.configure(service_name="tumour-api")
        otel_ml.instrument()
        data = load_breast_cancer()
        self.model = make_pipeline(StandardScaler(), LogisticRegression()).fit(data.data, data.target)
        otel_ml.register(self.model, name="tumour", version="1")

    def __call__(self, rows: list[list[float]]) -> list[float]:
        return self.model.predict_proba(rows)[:, 1].tolist()

    def __del__(self) -> None:
        otel_ml.force_flush()  # Serve ends a replica without running exit handlers


def main() -> None:
    handle = serve.run(Tumour.bind())
    rows = load_breast_cancer().data.tolist()
    answers = [handle.remote(rows[i : i + 2]) for i in range(0, 40, 2)]
    scores = [score for answer in answers for score in answer.result()]
    print(f"{len(scores)} rows, mean score {sum(scores) / len(scores):.3f}")
    serve.shutdown()


if __name__ == "__main__":
    main()
