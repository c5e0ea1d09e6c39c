"""PSI and KS of the same features from raw arrays, by otel-ml or by a peer; runs in the environment of that one.

    python -m benchmarks._drift PEER DIRECTORY

DIRECTORY has reference.npy and current.npy, (rows, features) each. Prints JSON: seconds of wall and CPU time to
prepare the reference and to compare the window, and the numbers. Nothing is imported here but numpy and the peer.
"""

from __future__ import annotations

import json
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

Array = np.ndarray[Any, np.dtype[np.float64]]
Numbers = dict[str, list[float]]
"""PSI and KS of every feature, those that the peer gives."""
Compare = Callable[[Array], Numbers]
"""Numbers of a window, against the reference that was prepared."""


def otel_ml(reference: Array) -> Compare:
    """Baseline.fit, then counts on its bounds and the statistics of the collector."""
    from otel_ml import Baseline
    from otel_ml.binning import count
    from otel_ml_collector import cells, statistics

    baseline = Baseline.fit(
        reference, model="bench", version="1", features=_names(reference), projections=False
    )

    def compare(current: Array) -> Numbers:
        psi, ks = [], []
        for values, summary in zip(current.T, baseline.features.values(), strict=True):
            known, seen = summary.bucket_counts, count(values, summary.bounds)  # type: ignore[union-attr]
            groups = cells.psi_groups(known)
            psi.append(statistics.psi(cells.regroup(known, groups), cells.regroup(seen, groups)))
            ks.append(statistics.ks(known, seen))
        return {"psi": psi, "ks": ks}

    return compare


def scipy(reference: Array) -> Compare:
    """What one writes by hand: ks_2samp, and PSI on the reference's deciles."""
    from scipy.stats import ks_2samp

    edges = np.quantile(reference, np.arange(1, 10) / 10, axis=0)

    def shares(values: Array, at: Array) -> Array:
        return np.bincount(np.searchsorted(at, values), minlength=10) / len(values)

    def compare(current: Array) -> Numbers:
        psi, ks = [], []
        for before, after, at in zip(reference.T, current.T, edges.T, strict=True):
            p, q = shares(before, at), shares(after, at)
            psi.append(float(np.sum((q - p) * np.log(q / p))))
            ks.append(float(ks_2samp(before, after, method="asymp").statistic))
        return {"psi": psi, "ks": ks}

    return compare


def evidently(reference: Array) -> Compare:
    """A report of ValueDrift, psi and ks; of KS it gives the p-value only."""
    import pandas as pd
    from evidently import DataDefinition, Dataset, Report
    from evidently.metrics import ValueDrift

    names = _names(reference)
    definition = DataDefinition(numerical_columns=names)
    report = Report([ValueDrift(column=name, method=way) for way in ("psi", "ks") for name in names])
    known = Dataset.from_pandas(pd.DataFrame(reference, columns=names), data_definition=definition)

    def compare(current: Array) -> Numbers:
        window = Dataset.from_pandas(pd.DataFrame(current, columns=names), data_definition=definition)
        values = [float(metric["value"]) for metric in report.run(window, known).dict()["metrics"]]
        return {"psi": values[: len(names)]}

    return compare


def nannyml(reference: Array) -> Compare:
    """Its univariate drift of one chunk; it has no PSI, Jensen-Shannon stands in for it."""
    import pandas as pd
    from nannyml import UnivariateDriftCalculator

    names = _names(reference)
    ways = ["kolmogorov_smirnov", "jensen_shannon"]
    calculator = UnivariateDriftCalculator(column_names=names, continuous_methods=ways, chunk_number=1)
    calculator.fit(pd.DataFrame(reference, columns=names))

    def compare(current: Array) -> Numbers:
        found = calculator.calculate(pd.DataFrame(current, columns=names)).filter(period="analysis").to_df()
        return {"ks": [float(found[name, "kolmogorov_smirnov", "value"].iloc[0]) for name in names]}

    return compare


def alibi_detect(reference: Array) -> Compare:
    """KSDrift; it has no PSI."""
    from alibi_detect.cd import KSDrift

    detector = KSDrift(reference, p_val=0.05)
    return lambda current: {"ks": detector.predict(current)["data"]["distance"].astype(float).tolist()}


def frouros(reference: Array) -> Compare:
    """PSI and KSTest of each feature."""
    from frouros.detectors.data_drift import PSI, KSTest

    detectors = [(PSI(), KSTest()) for _ in reference.T]
    for values, (psi, ks) in zip(reference.T, detectors, strict=True):
        psi.fit(X=values)
        ks.fit(X=values)

    def compare(current: Array) -> Numbers:
        pairs = list(zip(current.T, detectors, strict=True))
        return {
            "psi": [float(psi.compare(X=values)[0].distance) for values, (psi, _) in pairs],
            "ks": [float(ks.compare(X=values)[0].statistic) for values, (_, ks) in pairs],
        }

    return compare


def _names(values: Array) -> list[str]:
    return [f"x{i:02}" for i in range(values.shape[1])]


WAYS: dict[str, Callable[[Array], Compare]] = {
    "otel-ml": otel_ml,
    "scipy": scipy,
    "evidently": evidently,
    "nannyml": nannyml,
    "alibi-detect": alibi_detect,
    "frouros": frouros,
}


def main() -> None:
    """Print what the peer takes, and its numbers."""
    name, directory = sys.argv[1], Path(sys.argv[2])
    warnings.simplefilter("ignore")
    reference, current = (np.load(directory / f"{side}.npy") for side in ("reference", "current"))
    way = WAYS[name]
    way(reference[:1000])(current[:1000])  # imports, and what is compiled at the first use
    wall, cpu = [time.perf_counter()], [time.process_time()]

    def lap() -> None:
        wall.append(time.perf_counter())
        cpu.append(time.process_time())

    compare = way(reference)
    lap()
    numbers = compare(current)
    lap()
    print(json.dumps({"wall": np.diff(wall).tolist(), "cpu": np.diff(cpu).tolist(), **numbers}))


if __name__ == "__main__":
    main()
