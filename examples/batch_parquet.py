"""A batch job over a Parquet file, row group by row group: memory for one of them, however long the file is.

    pip install 'otel-ml[parquet]' scikit-learn
    python examples/batch_parquet.py [IN.parquet OUT.parquet]

It prints a line for each row group and what was sent at the end; without arguments it makes a file of 50,000 customers
to score. With OTEL_EXPORTER_OTLP_ENDPOINT set, metrics and a span for each row group go to the endpoint, else to the
console.
"""

import sys
import tempfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from sklearn.linear_model import LogisticRegression

import otel_ml

COLUMNS = ["age", "income"]


def customers(rows: int, seed: int) -> pa.Table:
    """Made up; a real job has its own."""
    random = np.random.default_rng(seed)
    return pa.table({"age": random.integers(18, 80, rows), "income": random.lognormal(3.5, 0.5, rows)})


def load() -> tuple[LogisticRegression, otel_ml.Baseline]:
    """Model and baseline; a real job reads both from files that training left behind."""
    X = matrix(customers(5000, seed=0))
    model = LogisticRegression().fit(X, X[:, 0] + np.random.default_rng(1).normal(0, 10, 5000) < 40)
    scores = model.predict_proba(X)[:, 1]
    return model, otel_ml.Baseline.fit(X, model="churn", version="3", features=COLUMNS, scores=scores)


def matrix(table: pa.Table) -> np.ndarray:
    return np.column_stack([table[name].to_numpy() for name in COLUMNS])


otel_ml.configure(service_name="churn-nightly")
model, baseline = load()


@otel_ml.observe(model="churn", version="3", baseline=baseline)
def score(X: np.ndarray) -> np.ndarray:
    return model.predict_proba(X)[:, 1]


def run(source: Path, target: Path) -> int:
    """Score `source` into `target`; gives the number of rows."""
    rows = 0
    with pq.ParquetFile(source) as file, pq.ParquetWriter(target, pa.schema({"score": pa.float64()})) as out:
        for group in range(file.num_row_groups):
            scores = score(matrix(file.read_row_group(group, columns=COLUMNS)))
            out.write_table(pa.table({"score": scores}))
            rows += len(scores)
            print(
                f"row group {group + 1} of {file.num_row_groups}: {rows} rows, mean score {scores.mean():.3f}"
            )
    return rows


def main() -> int:
    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder, "in.parquet"), Path(folder, "out.parquet")
        if len(sys.argv) > 2:
            source, target = Path(sys.argv[1]), Path(sys.argv[2])
        else:
            pq.write_table(customers(50_000, seed=2), source, row_group_size=10_000)
        rows = run(source, target)
    sent = otel_ml.force_flush()  # now, with an answer, and not somewhere in the end of the interpreter
    print(f"{rows} rows scored, telemetry {'sent' if sent else 'not sent'}")
    return 0  # the scores are there: telemetry that is not does not fail the job


if __name__ == "__main__":
    sys.exit(main())
