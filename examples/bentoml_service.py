"""A scikit-learn model behind BentoML: every worker records its predictions under one name and version.

A worker is a process of its own, so telemetry is set up in it and not in the program that starts it. BentoML traces
requests itself and by default keeps none; OTEL_TRACES_SAMPLER keeps our spans, which are children of its own.
Not run by the project's CI, for BentoML is large:

    pip install otel-ml scikit-learn bentoml

Run it:

    OTEL_TRACES_SAMPLER=always_on python examples/bentoml_service.py

It starts a server with two workers, asks it 20 times and prints the answers' mean. The workers print a line for each
call and, as each ends, a table of metrics. With OTEL_EXPORTER_OTLP_ENDPOINT set, all that goes to the endpoint
instead.
"""

from pathlib import Path

import bentoml
from sklearn.datasets import load_breast_cancer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import otel_ml


@bentoml.service(workers=2)
class Tumour:
    def __init__(self) -> None:
        otel_ml.configure(service_name="tumour-api")
        otel_ml.instrument()
        data = load_breast_cancer()
        self.model = make_pipeline(StandardScaler(), LogisticRegression()).fit(data.data, data.target)
        otel_ml.register(self.model, name="tumour", version="1")

    @bentoml.api
    def score(self, rows: list[list[float]]) -> list[float]:
        return self.model.predict_proba(rows)[:, 1].tolist()


def main() -> None:
    rows = load_breast_cancer().data.tolist()
    here = Path(__file__)
    server = bentoml.serve(f"{here.stem}:Tumour", working_dir=str(here.parent), port=3999)
    with server, bentoml.SyncHTTPClient("http://localhost:3999", server_ready_timeout=60) as client:
        scores = [score for i in range(0, 40, 2) for score in client.score(rows=rows[i : i + 2])]
    print(f"{len(scores)} rows, mean score {sum(scores) / len(scores):.3f}")


if __name__ == "__main__":
    main()
