"""The same rows to whylogs and to otel-ml, in turns, in the environment that has both; prints JSON."""

from __future__ import annotations

import json

import pandas as pd
from whylogs.core import DatasetProfile

from benchmarks._measure import Case, measure
from benchmarks._scene import BATCH, FEATURES, NAMES, bare, scene

ROUNDS = 5


def main() -> None:
    """Print microseconds a row and the ratio by CPU, the smaller of whylogs' two ways for one row."""
    stage = scene()
    one, many = stage.X[:1].copy(), stage.X[:BATCH].copy()
    record = dict(zip(NAMES, one[0].tolist(), strict=True))
    row_frame, frame = (pd.DataFrame(X, columns=list(NAMES)) for X in (one, many))
    profile, watched = DatasetProfile(), {n: stage.observed("off", n) for n in (1, BATCH)}
    bares = {n: bare(n) for n in (1, BATCH)}
    collect = stage.reader.get_metrics_data
    costs = measure(
        {
            "bare, 1": Case(lambda: bares[1](one), 5_000),
            "bare, batch": Case(lambda: bares[BATCH](many), 5_000),
            "whylogs, 1, dict": Case(lambda: profile.track(record), 24),
            "whylogs, 1, frame": Case(lambda: profile.track(row_frame), 12),
            "whylogs, batch": Case(lambda: profile.track(frame), 12),
            "otel-ml, 1": Case(lambda: watched[1](one), 5_000, every=stage.drain, after=collect),
            "otel-ml, batch": Case(lambda: watched[BATCH](many), 120, every=stage.drain, after=collect),
        },
        rounds=ROUNDS,
    )
    found = []
    for rows, theirs, name in (
        (1, "whylogs, 1, dict", "1"), (1, "whylogs, 1, frame", "1"), (BATCH, "whylogs, batch", "batch"),
    ):  # fmt: skip
        ours = costs[f"otel-ml, {name}"].minus(costs[f"bare, {name}"])
        found.append(
            {
                "case": f"{rows} x {FEATURES}" + (", as a dict" if "dict" in theirs else ", as a DataFrame"),
                "theirs": costs[theirs].microseconds / rows,
                "ours": ours.microseconds / rows,
                "ratio": min(costs[theirs].over(ours)),
            }
        )
    print(json.dumps(found))


if __name__ == "__main__":
    main()
