"""Fuzz one target with atheris: `python -m fuzz TARGET --minutes 3`, from tests/.

The corpus grows in .fuzz/TARGET. A finding is written to tests/fuzz/findings/TARGET, where the test suite
runs it from then on.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["otel_ml", "otel_ml_collector"]):
    from fuzz.targets import TARGETS, seeds

_HERE = Path(__file__).parent
_LONGEST = 16_384
"""Bytes of an input."""


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m fuzz")
    parser.add_argument("target", choices=TARGETS)
    parser.add_argument("--minutes", type=float, default=3)
    arguments = parser.parse_args()

    corpus = _HERE.parents[1] / ".fuzz" / arguments.target
    findings = _HERE / "findings" / arguments.target
    for directory in (corpus, findings):
        directory.mkdir(parents=True, exist_ok=True)
    for i, seed in enumerate(seeds(arguments.target)):
        (corpus / f"seed-{i}").write_bytes(seed)
    options = [
        sys.argv[0], str(corpus), f"-max_total_time={round(60 * arguments.minutes)}", f"-max_len={_LONGEST}",
        f"-artifact_prefix={findings}/", "-rss_limit_mb=1024", "-timeout=10", "-print_final_stats=1",
    ]  # fmt: skip
    atheris.Setup(options, TARGETS[arguments.target])
    atheris.Fuzz()


if __name__ == "__main__":
    main()
