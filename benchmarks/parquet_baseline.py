"""A baseline of a Parquet file that is larger than the memory it takes: time and peak memory, in one run.

Writes 10 million rows × 20 columns (17 of numbers, one of categories, scores and labels) to a temporary
directory, makes the baseline in a process of its own and prints what that took beside the size of the same data in
memory. The exit code is 1 when the peak was not below half of that size. Linux only.

    python -m benchmarks.parquet_baseline [rows]
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

ROWS = 10_000_000
NUMBERS = 17
GROUP = 500_000
LIMIT = 0.5

_CHILD = """
import json, resource, sys, time
from otel_ml import Baseline
from otel_ml.datafile import DataFile

def peak():  # not ru_maxrss, which a process inherits from the one that started it
    lines = open("/proc/self/status").read().splitlines()
    return next(int(line.split()[1]) << 10 for line in lines if line.startswith("VmHWM"))

before = peak()
began = time.perf_counter()
baseline = Baseline.fit_batches(
    DataFile(sys.argv[1]), model="bench", version="1", scores="score", labels="label", sample_rows=int(sys.argv[2])
)
seconds = time.perf_counter() - began
baseline.save(sys.argv[1] + ".baseline.json")
usage = resource.getrusage(resource.RUSAGE_SELF)
print(json.dumps({
    "rows": baseline.rows, "seconds": seconds, "cpu": usage.ru_utime + usage.ru_stime,
    "before": before, "peak": peak(),
    "ks_error": max(s.ks_error for s in baseline.features.values() if s.kind == "numeric"),
}))
"""


def table(random: np.random.Generator, first: int, rows: int) -> pa.Table:
    """Some rows: sorted by the first column, as files are."""
    numbers = {f"f{i}": random.lognormal(size=rows) for i in range(1, NUMBERS)}
    score = random.random(rows)
    return pa.table(
        {
            "f0": np.arange(first, first + rows, dtype=np.float64),
            **numbers,
            "plan": random.choice(["basic", "family", "business"], rows),
            "score": score,
            "label": random.random(rows) < score,
        }
    )


def write(path: Path, rows: int) -> int:
    """Write the file, a row group at a time; the size of the data in memory, in bytes."""
    random = np.random.default_rng(7)
    size = 0
    writer: pq.ParquetWriter | None = None
    for first in range(0, rows, GROUP):
        part = table(random, first, min(GROUP, rows - first))
        size += part.nbytes
        writer = writer or pq.ParquetWriter(path, part.schema)
        writer.write_table(part)
    if writer is not None:
        writer.close()
    return size


def main() -> int:
    """Print the figures."""
    rows = int(sys.argv[1]) if len(sys.argv) > 1 else ROWS
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "train.parquet"
        began = time.perf_counter()
        size = write(path, rows)
        print(
            f"{rows:,} rows × {NUMBERS + 3} columns: {path.stat().st_size >> 20} MiB of Parquet, "
            f"{size >> 20} MiB in memory (written in {time.perf_counter() - began:.0f} s)"
        )
        command = [sys.executable, "-c", _CHILD, str(path), "1000000"]
        found = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    share = found["peak"] / size
    print(f"baseline of {found['rows']:,} rows in {found['seconds']:.1f} s ({found['cpu']:.1f} s of CPU)")
    print(
        f"peak memory {found['peak'] >> 20} MiB ({found['before'] >> 20} MiB after import): {share:.0%} of the data"
    )
    print(f"largest ks_error {found['ks_error']:.4f}")
    return 0 if share < LIMIT else 1


if __name__ == "__main__":
    sys.exit(main())
