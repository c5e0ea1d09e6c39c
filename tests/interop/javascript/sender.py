"""A model service in Python, with otel-ml: sends of the same rows what sender.mjs sends.

Arguments: the file of rows and the baseline. Where telemetry goes comes from the OTEL_* environment. The rows are
exported in two halves.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np

import otel_ml


def main(rows: str, baseline: str) -> int:
    """Predict both halves of the rows; the exit code says whether they were exported."""
    otel_ml.configure()

    @otel_ml.observe(model="credit", version="7", baseline=baseline, input="columns")
    def predict(columns: dict[str, list[object]], scores: list[float]) -> np.ndarray:
        return np.array(scores)

    data = json.loads(Path(rows).read_text())
    half = len(data["scores"]) // 2
    for part in (slice(None, half), slice(half, None)):
        predict({name: values[part] for name, values in data["features"].items()}, data["scores"][part])
        if not otel_ml.force_flush():
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
