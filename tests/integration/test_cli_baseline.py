"""`otel-ml baseline create|show|diff`, as a user runs them."""

from __future__ import annotations

import os
import pty
import re
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from otel_ml.baseline import Baseline, NumericSummary
from otel_ml.cli.comparison import Change, compare, least_ks
from otel_ml.cli.tables import shape

COMMAND = [sys.executable, "-m", "otel_ml.cli", "baseline"]
PLAIN = {**os.environ, "TERM": "dumb", "NO_COLOR": "1", "COLUMNS": "120"}
OPTIONS = ["--model", "churn", "--version", "3", "--scores", "score", "--labels", "churned"]


def run(*arguments: str | Path, cwd: Path) -> subprocess.CompletedProcess[str]:
    """The command, in a directory."""
    return subprocess.run(
        [*COMMAND, *map(str, arguments)],
        cwd=cwd,
        env=PLAIN,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def rows(n: int = 5_000, *, seed: int = 0, shift: float = 0.0) -> pd.DataFrame:
    """Customers; `shift` moves incomes by that many standard deviations of their logarithm."""
    random = np.random.default_rng(seed)
    score = random.random(n)
    return pd.DataFrame(
        {
            "income": random.lognormal(10 + shift / 2, 0.5, n),
            "plan": random.choice(["basic", "family"], n, p=[0.75, 0.25]),
            "code": random.integers(1, 4, n),
            "customer": [f"c{i}" for i in range(n)],
            "score": score,
            "churned": random.random(n) < score,
        }
    )


def baseline(data: pd.DataFrame, **changes: pd.Series) -> Baseline:
    """A baseline of the features only."""
    X = data.drop(columns=["score", "churned", "customer"]).assign(**changes)
    return Baseline.fit(X, model="churn", version="3", categorical=["code"])


def test_create_writes_the_baseline_of_the_file(tmp_path: Path) -> None:
    """The file holds what fit makes of the same data; the last lines say where it is and what to do next."""
    rows().to_parquet(tmp_path / "train.parquet")
    options = [*OPTIONS, "--categorical", "code", "--exclude", "customer"]
    done = run("create", "train.parquet", *options, cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    made, data = Baseline.load(tmp_path / "churn.baseline.json"), rows()
    assert done.stdout == (
        f"churn.baseline.json: 5,000 rows, 3 features, id {made.id}\n"
        "look at it with: otel-ml baseline show churn.baseline.json\n"
    )
    expected = Baseline.fit(
        data.drop(columns=["score", "churned"]),
        model="churn",
        version="3",
        scores=data["score"],
        labels=data["churned"],
        categorical=["code"],
        exclude=["customer"],
        created_at=made.created_at,
    )
    assert made == expected


def test_create_shows_a_bar_and_ctrl_c_leaves_nothing_behind(tmp_path: Path) -> None:
    """On a terminal there is a bar with rows and memory; Ctrl-C: one line, exit code 130, no file."""
    rows(300_000).to_parquet(tmp_path / "train.parquet", row_group_size=50_000)
    ours, its = pty.openpty()
    environment = {**PLAIN, "TERM": "xterm"}
    process = subprocess.Popen(
        [*COMMAND, "create", "train.parquet", *OPTIONS],
        cwd=tmp_path,
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=its,
    )
    os.close(its)
    shown = b""
    while not re.search(rb"[1-9][\d,]+ rows", shown):
        shown += os.read(ours, 4096)
    process.send_signal(signal.SIGINT)
    with suppress(OSError):  # when the other end is closed
        while True:
            shown += os.read(ours, 4096)
    os.close(ours)
    assert process.wait(timeout=60) == 130
    assert b"1/2 sampling" in shown
    assert b" MB" in shown
    assert b"stopped; nothing was written" in shown
    assert b"Traceback" not in shown
    assert [path.name for path in tmp_path.iterdir()] == ["train.parquet"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["create", "gone.parquet", *OPTIONS], "data file 'gone.parquet' does not exist"),
        (["create", "few.csv", *OPTIONS, "--exclude", "nope"], "exclude= names 'nope', which is no column"),
        (["create", "few.csv", *OPTIONS, "-o", "/proc/x.json"], "baseline '/proc/x.json' cannot be written"),
        (["create", "few.csv", *OPTIONS, "-o", "no/x.json"], "there is no directory 'no'"),
        (["show", "few.csv"], "baseline 'few.csv' is not JSON"),
        (["diff", "few.csv", "gone.json"], "baseline 'few.csv' is not JSON"),
    ],
)
def test_errors_name_the_file_and_the_way_out(tmp_path: Path, arguments: list[str], message: str) -> None:
    """One line on standard error, exit code 2, nothing written."""
    rows(50).to_csv(tmp_path / "few.csv", index=False)
    done = run(*arguments, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["few.csv"]


def test_few_rows_are_warned_of(tmp_path: Path) -> None:
    """The warning of fit is a line on standard error; the file is written all the same."""
    rows(50).to_csv(tmp_path / "few.csv", index=False)
    done = run("create", "few.csv", *OPTIONS, "--output", "few.json", cwd=tmp_path)
    assert done.returncode == 0
    assert done.stderr.startswith("warning: baseline of 'churn' has 50 rows; drift verdicts need 500")
    assert Baseline.load(tmp_path / "few.json").rows == 50


def test_show_is_a_table_of_features(tmp_path: Path) -> None:
    """A line a feature: kind, missing, mean, range, bars, largest categories; warnings below."""
    data = rows(400)
    data.loc[:99, "income"] = np.nan
    rare = np.where(np.arange(400) < 100, np.linspace(1, 2, 400), 0.0)
    with pytest.warns(UserWarning, match="400 rows"):
        baseline(data, rare=pd.Series(rare)).save(tmp_path / "b.json")
    done = run("show", "b.json", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    lines = {line.split()[0]: line.split() for line in done.stdout.splitlines() if line}
    assert lines["income"][1:3] == ["numeric", "25.0%"]
    assert lines["plan"][1:4] == ["categorical", "0%", "2"]
    assert lines["plan"][-4] == "basic"
    assert lines["rare"][4:7] == ["0", "…", "1.248"]
    assert "▁" in done.stdout
    assert "warning: 400 rows; drift verdicts need 500" in done.stdout


def test_diff_says_what_changed_and_fails_when_told_to(tmp_path: Path) -> None:
    """New, gone, retyped and drifted features; the exit code is 1 only for what --fail-on asks for."""
    before, after = rows(), rows(seed=1, shift=1.0)
    columns = {"was": before["income"], "kind": before["income"]}
    baseline(before, **columns).save(tmp_path / "a.json")
    baseline(after, now=after["income"], kind=after["plan"]).save(tmp_path / "b.json")
    done = run("diff", "a.json", "b.json", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    status = {line.split()[0]: line.split()[-1] for line in done.stdout.splitlines() if line}
    expected = {
        "income": "drifted",
        "plan": "ok",
        "code": "ok",
        "was": "gone",
        "kind": "retyped",
        "now": "new",
    }
    assert {name: status[name] for name in expected} == expected
    for level in ("schema", "drifted", "warning"):
        assert run("diff", "a.json", "b.json", "--fail-on", level, cwd=tmp_path).returncode == 1
    same = ["--fail-on", "schema", "--fail-on", "warning"]
    assert run("diff", "a.json", "a.json", *same, cwd=tmp_path).returncode == 0


def test_help_teaches_with_an_example(tmp_path: Path) -> None:
    """Every command has an example that can be copied."""
    for command in ("create", "show", "diff"):
        done = run(command, "--help", cwd=tmp_path)
        assert done.returncode == 0
        assert f"otel-ml baseline {command} " in done.stdout


# --- comparing, without a process -------------------------------------------------------------------------


def change(before: Baseline, after: Baseline, name: str) -> Change:
    """What changed of one target."""
    return {found.name: found for found in compare(before, after)}[name]


def income(data: pd.DataFrame) -> NumericSummary:
    """The summary of incomes."""
    summary = baseline(data).features["income"]
    assert isinstance(summary, NumericSummary)
    return summary


def exact_ks(a: np.ndarray, b: np.ndarray) -> float:
    """Brute force."""
    x = np.sort(np.concatenate([a, b]))
    sides = (np.sort(side).searchsorted(x, "right") / len(side) for side in (a, b))
    return float(np.max(np.abs(np.subtract(*sides))))


@pytest.mark.parametrize("shift", [0.0, 0.2, 0.5, 1.0, 4.0])
def test_the_least_ks_is_never_above_ks_and_near_it(shift: float) -> None:
    """Between foreign bounds the shown distance is certain, and misses little where quantiles are kept."""
    a, b = rows(), rows(seed=1, shift=shift)
    least, exact = least_ks(income(a), income(b)), exact_ks(a["income"].to_numpy(), b["income"].to_numpy())
    assert exact - 0.015 < least <= exact


def test_the_least_ks_of_the_same_data_in_float32_is_nothing() -> None:
    """Precision is no drift: discrete values in float32 and float64 are the same."""
    values = np.random.default_rng(0).integers(0, 50, 5_000) / 10
    one, other = (
        Baseline.fit({"x": side}, model="m", version="1").features["x"]
        for side in (values, values.astype(np.float32))
    )
    assert isinstance(one, NumericSummary)
    assert isinstance(other, NumericSummary)
    assert least_ks(one, other) == 0.0


def test_counts_on_equal_bounds_are_compared_exactly() -> None:
    """Rows counted on the reference's bounds have PSI and KS; nested bounds are collapsed onto the coarser."""
    a, b = rows(), rows(seed=1, shift=1.0)
    before = baseline(a)
    found = change(before, before.count(b), "income")
    assert found.ks == pytest.approx(exact_ks(a["income"].to_numpy(), b["income"].to_numpy()), abs=0.05)
    assert found.psi == pytest.approx(0.926, abs=0.15)  # N(0, 1) against N(1, 1) on ten true deciles
    assert (found.status, found.at_least) == ("drifted", False)


def test_categories_that_only_one_side_names_are_compared_with_the_others() -> None:
    """A category unnamed where the list is incomplete counts with the others; where complete, it has none."""
    n = 5_000
    few = pd.Series(["a"] * 3_000 + ["b"] * 2_000)
    more = pd.Series(["a"] * 3_000 + ["b"] * 1_000 + ["c"] * 995 + [f"rare{i}" for i in range(5)])
    before, after = (baseline(rows(n), kind=side) for side in (few, more))
    found = change(before, after, "kind")
    assert found.ks == pytest.approx(0.2)
    assert found.status == "drifted"


def test_a_category_that_one_side_counts_with_the_others_is_counted_so_on_both() -> None:
    """Too rare to be named on one side: it is among the others there, and the other side's are put there too."""
    before = baseline(rows(5_000), kind=pd.Series(["a"] * 4_980 + ["z"] * 20))
    after = baseline(rows(5_000), kind=pd.Series(["a"] * 4_990 + ["z"] * 9 + ["y"]))
    assert change(before, after, "kind").ks == pytest.approx(0.002)


def test_a_change_of_missing_values_is_a_change() -> None:
    """A tenth of the values missing is a warning, a third is drift, by the collector's limits."""
    for share, status in ((0.0, "ok"), (0.03, "warning"), (0.33, "drifted")):
        data = rows()
        data.loc[: share * len(data) - 1, "code"] = np.nan
        assert change(baseline(rows()), baseline(data), "code").status == status


def test_the_shape_of_a_summary_shows_where_rows_are() -> None:
    """Cells of equal width: flat for uniform rows, one high cell for one value, not squeezed by an outlier."""
    random = np.random.default_rng(0)

    def drawn(values: np.ndarray) -> list[float]:
        summary = Baseline.fit({"x": values}, model="m", version="1").features["x"]
        assert isinstance(summary, NumericSummary)
        return shape(summary)

    flat = drawn(random.random(10_000))
    assert max(flat) < 1.2 * min(flat)
    assert drawn(np.full(1_000, 7.0)) == [1.0]
    bell = drawn(np.append(random.normal(size=10_000), 1e6))
    assert np.argmax(bell) in (4, 5, 6, 7)
    assert bell[0] < 0.3 * max(bell)
