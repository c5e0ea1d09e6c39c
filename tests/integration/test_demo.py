"""`otel-ml demo`: the sequence it promises, and how it ends when it is stopped."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

COMMAND = [sys.executable, "-m", "otel_ml.cli", "demo", "--fast"]
PLAIN = {**os.environ, "TERM": "dumb", "NO_COLOR": "1", "COLUMNS": "100"}


def test_the_promised_sequence_happens() -> None:
    """Three things go wrong and are found, each after it began; there is a real span and three next steps."""
    done = subprocess.run(COMMAND, env=PLAIN, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    for expected in (
        "a span of one request: predict_proba diabetes-progression",
        "ml.prediction.score.mean",
        "began in hour 20: ",
        "state:missing",
        "Three next steps",
    ):
        assert expected in done.stdout
    found = re.findall(r"began in hour (\d+): (.*)", done.stdout)
    assert [hour for hour, _ in found] == ["7", "13", "20"]
    assert all("drifted in hour" in turns for _, turns in found[:2])
    assert "false alarms" not in done.stdout
    assert done.stderr == ""


def test_ctrl_c_ends_it_cleanly(tmp_path: Path) -> None:
    """Ctrl-C: one line, exit code 130, and no collector left behind."""
    environment = {**PLAIN, "TMPDIR": str(tmp_path)}  # the collector's command line names it
    process = subprocess.Popen(
        COMMAND, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    while "a span of one request" not in process.stdout.readline():
        time.sleep(0)
    process.send_signal(signal.SIGINT)
    rest, errors = process.communicate(timeout=30)
    assert process.returncode == 130, errors
    assert rest.endswith("stopped\n")
    assert "Traceback" not in errors
    left = subprocess.run(["pgrep", "-f", f"otel_ml_collector.*{tmp_path}"], capture_output=True, check=False)
    assert left.stdout == b""


def test_without_the_extras_it_says_how_to_install_them() -> None:
    """Where typer is not installed the command names the pip command and nothing else."""
    program = "import sys; sys.modules['typer'] = None; from otel_ml.cli import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 1
    assert done.stderr == "the otel-ml command needs typer; install it with: pip install 'otel-ml[cli]'\n"
