"""otel-ml beside its peers: import time and size of a base install, rows a second beside whylogs, and PSI and KS of
the same features beside those that compute drift.

Each peer has an environment of its own under .venvs/peers, because they conflict with each other: made once, used
again. One that cannot be installed or measured is in the table with the reason.
"""

from __future__ import annotations

import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
ENVIRONMENTS = ROOT / ".venvs" / "peers"
ROUNDS = 5
WHYLOGS_RATIO = 64
_INSTALLER = ("pip", "setuptools", "wheel", "_distutils_hack", "distutils-precedence")
_IMPORT = "import time; start = time.perf_counter(); import {module}; print(time.perf_counter() - start)"
_SITE = "import sysconfig; print(sysconfig.get_path('purelib'))"


class Unavailable(Exception):
    """Why a peer cannot be measured."""


@dataclass(frozen=True, slots=True)
class Peer:
    """What to install, for which Pythons, and what to import."""

    name: str
    module: str
    requirements: tuple[str, ...]
    pythons: tuple[str, ...] = ("3.12", "3.11", "3.10")
    environment: tuple[tuple[str, str], ...] = ()
    note: str = ""


OURS = Peer("otel-ml", "otel_ml", (str(ROOT),))
PEERS = (
    OURS,
    Peer("whylogs", "whylogs", ("whylogs",), note="no numpy and no pandas in its base install"),
    Peer("evidently", "evidently", ("evidently", "pandas<3")),
    Peer(
        "nannyml", "nannyml", ("nannyml", "pandas<3", "statsmodels"),
        environment=(("NML_DISABLE_USAGE_LOGGING", "1"),),
        note="statsmodels added: it is imported and not declared",
    ),
)  # fmt: skip
TOGETHER = Peer("whylogs-rows", "whylogs", ("whylogs", "numpy", "pandas<3", str(ROOT)))
"""whylogs with what it needs for DataFrames, and otel-ml, so that both see the same rows in one process."""

COMPARERS = (
    Peer("alibi-detect", "alibi_detect", ("alibi-detect",)),
    Peer("frouros", "frouros", ("frouros",)),
)
"""Peers that are here for their drift statistics alone."""
REMARKS = {
    "scipy": "ks_2samp, and PSI by hand",
    "evidently": "of KS the p-value only",
    "nannyml": "no PSI; Jensen-Shannon computed in its place",
    "alibi-detect": "KS alone, no PSI",
    "frouros": "PSI on ten bins of equal width",
}
DRIFT_ROWS, DRIFT_FEATURES, DRIFT_ROUNDS = 100_000, 50, 3
SHIFTS = (0.0, 0.1, 0.3, 0.5)
"""Of the features in turns, in standard deviations."""


def main() -> int:
    """Print all tables; the exit code is 1 when something could not be measured or the target is missed."""
    made = {peer.name: prepared(peer) for peer in (*PEERS, TOGETHER, *COMPARERS)}
    pythons = {name: python for name, python in made.items() if python is not None}
    bases = [peer for peer in PEERS if peer.name in pythons]
    failed = show_bases(bases, pythons) or len(pythons) < len(made)
    if TOGETHER.name in pythons:
        failed = show_rows(pythons[TOGETHER.name]) or failed
    failed = show_drift(pythons) or failed
    return 1 if failed else 0


# --- environments -----------------------------------------------------------------------------------------


def prepared(peer: Peer) -> Path | None:
    """The Python of the peer's environment, None with the reason printed when it cannot be made."""
    try:
        return _installed(peer)
    except Unavailable as reason:
        print(f"{peer.name}: not measured: {reason}")
        return None


def _installed(peer: Peer) -> Path:
    """The Python of the peer's environment; otel-ml in it is always the code of this tree."""
    home = ENVIRONMENTS / peer.name
    python, stamp = home / "bin" / "python", home / ".requirements"
    wanted = "\n".join(peer.requirements)
    fresh = not stamp.exists() or stamp.read_text() != wanted
    if fresh:
        print(f"installing {peer.name} into {home.relative_to(ROOT)} (once)", file=sys.stderr)
        shutil.rmtree(home, ignore_errors=True)
        run([_interpreter(peer.pythons), "-m", "venv", str(home)])
        run([str(python), "-m", "pip", "install", "--quiet", *peer.requirements])
        stamp.write_text(wanted)
    elif str(ROOT) in peer.requirements:
        again = ("--quiet", "--force-reinstall", "--no-deps", str(ROOT))
        run([str(python), "-m", "pip", "install", *again])
    return python


def _interpreter(versions: Iterable[str]) -> str:
    """An interpreter of one of `versions` that runs; a shim on the PATH may not."""
    if f"{sys.version_info[0]}.{sys.version_info[1]}" in versions:
        return sys.executable
    for version in versions:
        found = shutil.which(f"python{version}")
        if found and subprocess.run([found, "--version"], capture_output=True, check=False).returncode == 0:
            return found
    raise Unavailable(f"it needs Python {' or '.join(versions)}, and none of them is on the PATH")


def run(command: list[str], **environment: str) -> str:
    """Standard output of a command; raises `Unavailable` with the last line of what it said."""
    done = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, check=False, env={**os.environ, **environment}
    )
    if done.returncode:
        said = done.stderr.strip().splitlines() or ["no message"]
        raise Unavailable(said[-1][:200])
    return done.stdout


# --- base installs ----------------------------------------------------------------------------------------


def show_bases(peers: list[Peer], pythons: dict[str, Path]) -> bool:
    """Print import time and installed size of each; whether one failed."""
    times: dict[str, list[float]] = {peer.name: [] for peer in peers}
    problems: dict[str, str] = {}
    for _ in range(ROUNDS + 1):
        for peer in peers:
            if peer.name in problems:
                continue
            try:
                times[peer.name].append(import_seconds(pythons[peer.name], peer))
            except Unavailable as reason:
                problems[peer.name] = str(reason)
    sizes = {peer.name: installed_bytes(pythons[peer.name]) for peer in peers}
    print(f"\nbase install; imports: median of {ROUNDS} fresh processes in turns, after one to warm the disk")
    print(f"{'':12}{'import, s':>10}{'x ours':>8}{'size, MB':>10}{'x ours':>8}  remark")
    ours = statistics.median(times[OURS.name][1:]) if times.get(OURS.name) else float("nan")
    for peer in peers:
        size = sizes[peer.name]
        share = size / sizes.get(OURS.name, size)
        known = f"{'-':>10}{'-':>8}"
        if peer.name not in problems:
            seconds = statistics.median(times[peer.name][1:])
            known = f"{seconds:10.2f}{seconds / ours:8.2f}"
        remark = problems.get(peer.name, peer.note)
        print(f"{peer.name:12}{known}{size / 1e6:10.0f}{share:8.1f}  {remark}")
    return bool(problems)


def import_seconds(python: Path, peer: Peer) -> float:
    """Seconds that a fresh interpreter takes to import the peer."""
    command = [str(python), "-W", "ignore", "-c", _IMPORT.format(module=peer.module)]
    return float(run(command, **dict(peer.environment)).splitlines()[-1])


def installed_bytes(python: Path) -> int:
    """Bytes in site-packages without the installer's own."""
    site = Path(run([str(python), "-c", _SITE]).strip())
    parts = (part for part in site.iterdir() if not part.name.startswith(_INSTALLER))
    files = (file for part in parts for file in ([part] if part.is_file() else part.rglob("*")))
    return sum(file.stat().st_size for file in files if file.is_file())


# --- rows -------------------------------------------------------------------------------------------------


def show_rows(python: Path) -> bool:
    """Print what whylogs and otel-ml take for the same rows; whether the target was missed."""
    quiet = {"WHYLOGS_NO_ANALYTICS": "True", "OMP_NUM_THREADS": "1"}
    try:
        told = run([str(python), "-W", "ignore", "-m", "benchmarks._whylogs"], **quiet)
    except Unavailable as reason:
        print(f"\nwhylogs on the same rows: not measured: {reason}")
        return True
    cases = json.loads(told.splitlines()[-1])
    print("\nthe same rows in one process, in turns; otel-ml with every drain and collection")
    print(f"{'':28}{'whylogs, us/row':>17}{'otel-ml, us/row':>17}{'ratio':>9}")
    for case in cases:
        print(f"{case['case']:28}{case['theirs']:17.2f}{case['ours']:17.3f}{case['ratio']:9.0f}")
    met = all(case["ratio"] >= WHYLOGS_RATIO for case in cases)
    print(f"\n{'met' if met else 'MISSED'}  1/{WHYLOGS_RATIO} of whylogs a row or less")
    return not met


# --- drift ------------------------------------------------------------------------------------------------


def show_drift(pythons: Mapping[str, Path]) -> bool:
    """Print what PSI and KS of the same arrays take and come to, one process each in turns; whether one failed."""
    here = Path(sys.executable)
    interpreters = {OURS.name: here, "scipy": here}
    peers = ("evidently", "nannyml", *(peer.name for peer in COMPARERS))
    interpreters |= {name: pythons[name] for name in peers if name in pythons}
    runs: dict[str, list[Run]] = {name: [] for name in interpreters}
    with tempfile.TemporaryDirectory() as directory:
        _draw(Path(directory))
        for _ in range(DRIFT_ROUNDS):
            for name in list(runs):
                one = _compared(name, interpreters[name], directory)
                if one is None:
                    del runs[name]
                else:
                    runs[name].append(one)
    _show_runs(runs)
    return len(runs) < len(peers) + 2


@dataclass(frozen=True, slots=True)
class Run:
    """Seconds to prepare the reference and to compare the window, and the numbers."""

    wall: tuple[float, float]
    cpu: tuple[float, float]
    numbers: dict[str, list[float]]


def _draw(directory: Path) -> None:
    rng = np.random.default_rng(11)
    shifts = np.resize(SHIFTS, DRIFT_FEATURES)
    np.save(directory / "reference.npy", rng.normal(size=(DRIFT_ROWS, DRIFT_FEATURES)))
    np.save(directory / "current.npy", rng.normal(size=(DRIFT_ROWS, DRIFT_FEATURES)) + shifts)


def _compared(name: str, python: Path, directory: str) -> Run | None:
    command = [str(python), "-W", "ignore", "-m", "benchmarks._drift", name, directory]
    try:
        said = run(command, OMP_NUM_THREADS="1", NML_DISABLE_USAGE_LOGGING="1")
    except Unavailable as reason:
        print(f"\n{name}: drift not measured: {reason}")
        return None
    told = json.loads(said.splitlines()[-1])
    numbers = {way: told[way] for way in ("psi", "ks") if way in told}
    return Run(tuple(told["wall"]), tuple(told["cpu"]), numbers)


def _show_runs(runs: Mapping[str, list[Run]]) -> None:
    title = f"PSI and KS of {DRIFT_FEATURES} features x {DRIFT_ROWS:,} rows from arrays"
    print(f"\n{title}; seconds, median of {DRIFT_ROUNDS} processes in turns, one thread")
    print(
        f"{'':14}{'reference':>11}{'window':>9}{'window, CPU':>13}{'x ours':>9}{'both, x ours':>14}  remark"
    )
    ours = runs[OURS.name]
    for name, found in runs.items():
        reference, window = (statistics.median(one.wall[i] for one in found) for i in (0, 1))
        cpu = statistics.median(one.cpu[1] for one in found)
        pairs = list(zip(found, ours, strict=True))
        alone = statistics.median(a.cpu[1] / b.cpu[1] for a, b in pairs)
        both = statistics.median(sum(a.cpu) / sum(b.cpu) for a, b in pairs)
        print(
            f"{name:14}{reference:11.3f}{window:9.3f}{cpu:13.3f}{alone:9.1f}{both:14.1f}  {REMARKS.get(name, '')}"
        )
    columns = [(way, i) for way in ("psi", "ks") for i in range(len(SHIFTS))]
    print(f"\n{'a shift of':14}" + "".join(f"{f'{way} {SHIFTS[i]:g} s':>11}" for way, i in columns))
    for name, found in runs.items():
        numbers = found[0].numbers
        shown = (f"{numbers[way][i]:11.4f}" if way in numbers else f"{'-':>11}" for way, i in columns)
        print(f"{name:14}" + "".join(shown))


if __name__ == "__main__":
    sys.exit(main())
