"""A collector that goes on from where one before it was killed, or stopped, or could not write any more."""

from __future__ import annotations

import contextlib
import re
import signal
import time
from pathlib import Path

import pytest
from integration.collector import REFERENCE, Collector, traffic
from integration.kills import check, kills
from integration.test_service import DRIFTED, eventually

from otel_ml_collector.journal import ADVANCE, Record, packed

CONFIG = """
extensions: {file_storage: {directory: STATE}}
receivers: {otlp: {protocols: {grpc: {endpoint: "127.0.0.1:0"}, http: {endpoint: "127.0.0.1:0"}}}}
processors:
  ml_drift:
    window: {length: 600s, step: 1s, lateness: 200ms}
    interval: 500ms
    storage: file_storage
    MORE
exporters: {prometheus: {endpoint: "127.0.0.1:0"}}
service:
  extensions: [file_storage]
  pipelines: {metrics: {receivers: [otlp], processors: [ml_drift], exporters: [prometheus]}}
"""
PLACE = "processors.ml_drift"


def config(directory: Path, more: str = "") -> str:
    """A configuration that keeps its state in `directory`."""
    return CONFIG.replace("STATE", str(directory)).replace("MORE", more)


def value(page: str, name: str) -> float | None:
    """The value of the first series of this name."""
    found = re.search(rf"^{name}(?:{{.*}})? (\S+)$", page, re.MULTILINE)
    return float(found[1]) if found else None


def failures(page: str, reason: str) -> float | None:
    """How often something went wrong."""
    return value(page, rf'otel_ml_errors_total(?={{reason="{reason}"}})')


@pytest.mark.parametrize("wal", [False, True], ids=["checkpoints", "wal"])
def test_kills_under_load(tmp_path: Path, wal: bool) -> None:
    """Totals are kept, windows are off by an interval at most or, with a journal, not at all; none is said twice."""
    seen = kills(tmp_path, times=3, wal=wal, interval=1, length=5, lateness=20, up=(1.5, 3.0))
    check(seen, wal=wal, interval=1)


def test_after_a_kill_the_verdict_is_there_before_anything_is_sent(tmp_path: Path) -> None:
    """Gauges, baselines and statuses are those of before: services need not send theirs again."""
    text = config(tmp_path / "state")
    with Collector(tmp_path, text) as collector:
        assert collector.send(traffic(DRIFTED)) == 200
        eventually(lambda: value(collector.get("prometheus"), "ml_drift_status") == 2)
        before = collector.get("prometheus")
        collector.stop(number=signal.SIGKILL)
    with Collector(tmp_path, text) as collector:
        after = collector.get("prometheus")
        assert collector.send(traffic(DRIFTED, baseline=False)) == 200
        eventually(lambda: (value(collector.get("prometheus"), "ml_drift_window_rows") or 0) > sum(DRIFTED))
        page = collector.get("prometheus")
    for name in ("ml_drift_status", "ml_drift_psi", "ml_drift_window_rows", "ml_baseline_rows"):
        assert value(after, name) == value(before, name)
    assert value(page, "ml_drift_evaluated") == 1
    assert "no_baseline" not in page
    assert "goes on from a checkpoint" in collector.stderr
    received = 'otel_ml_engine_counts_total(?={reason="points"})'
    assert value(page, received) == 3  # two of the first process and one of this


def test_a_stop_ends_no_window_early(tmp_path: Path) -> None:
    """What waited for others at SIGTERM still waits after it, and what comes then is not too late."""
    text = config(tmp_path / "state").replace("lateness: 200ms", "lateness: 120s")
    waiting = 'otel_ml_engine_size(?={kind="pending"})'
    with Collector(tmp_path, text) as collector:
        assert collector.send(traffic()) == 200
        before = traffic()
        assert collector.stop() == 0
    with Collector(tmp_path, text) as collector:
        assert value(collector.get("prometheus"), waiting) == 1
        assert collector.send(before) == 200
        eventually(lambda: value(collector.get("prometheus"), waiting) == 2)
        page = collector.get("prometheus")
    assert value(page, 'otel_ml_engine_counts_total(?={reason="late"})') == 0


def test_a_checkpoint_that_is_damaged_is_set_aside_and_the_one_before_it_is_used(tmp_path: Path) -> None:
    """With the journal nothing is lost even so; with no checkpoint left it starts empty, and says so."""
    text = config(tmp_path / "state", "wal: true")
    with Collector(tmp_path, text) as collector:
        for _ in range(3):
            assert collector.send(traffic()) == 200
        eventually(lambda: value(collector.get("prometheus"), "ml_drift_window_rows") == 3 * sum(REFERENCE))
        collector.stop(number=signal.SIGKILL)
    place = tmp_path / "state" / PLACE
    _, newest_one = sorted(place.glob("*.checkpoint"))
    newest_one.write_bytes(newest_one.read_bytes()[:-40])
    with Collector(tmp_path, text) as collector:
        page = collector.get("prometheus")
        collector.stop(number=signal.SIGKILL)
    assert "cannot be used" in collector.stderr
    assert failures(page, "checkpoint_unreadable") == 1
    assert len(list(place.glob("*.checkpoint.corrupt-*"))) == 1
    assert value(page, "ml_drift_window_rows") == 3 * sum(REFERENCE)
    for path in place.glob("*.checkpoint"):
        path.write_bytes(b"nothing")
    with Collector(tmp_path, text) as collector:
        page = collector.get("prometheus")
    assert "no checkpoint in" in collector.stderr
    assert "start empty" in collector.stderr
    assert value(page, "ml_drift_window_rows") is None
    assert failures(page, "checkpoint_unreadable") == 2


def test_a_checkpoint_of_another_window_is_set_aside_with_the_way_out(tmp_path: Path) -> None:
    """A changed configuration is no reason not to start."""
    with Collector(tmp_path, config(tmp_path / "state")) as collector:
        assert collector.send(traffic()) == 200
        assert collector.stop() == 0
    other = config(tmp_path / "state").replace("length: 600s, step: 1s", "length: 1200s, step: 400s")
    with Collector(tmp_path, other) as collector:
        assert collector.send(traffic()) == 200
    assert "keep length and step of the window, or start empty" in collector.stderr
    with Collector(tmp_path, other) as collector:
        pass
    assert "goes on from a checkpoint" in collector.stderr


def test_a_disk_that_is_full_stops_nothing(tmp_path: Path) -> None:
    """It is said once and counted, tried again every interval, and drift goes out all the while."""
    text = config(tmp_path / "state", "checkpoint_interval: 200ms\n    wal: true")
    with Collector(tmp_path, text) as collector:
        place = tmp_path / "state" / PLACE
        eventually(lambda: list(place.glob("*.checkpoint")))
        aside = place.rename(place.with_name("moved"))
        place.write_text("no directory")
        eventually(lambda: (failures(collector.get("prometheus"), "checkpoint") or 0) >= 3)
        assert collector.send(traffic(DRIFTED)) == 200
        eventually(lambda: value(collector.get("prometheus"), "ml_drift_status") == 2)
        place.unlink()
        aside.rename(place)
        eventually(lambda: (value(collector.get("prometheus"), "otel_ml_checkpoint_age_seconds") or 9) < 0.5)
        collector.stop(number=signal.SIGKILL)
    assert collector.stderr.count("the checkpoint cannot be written") == 1
    assert "the checkpoint is written again" in collector.stderr
    with Collector(tmp_path, text) as collector:
        assert value(collector.get("prometheus"), "ml_drift_status") == 2


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="open files are found in /proc")
def test_a_stop_does_not_wait_for_a_long_journal(tmp_path: Path) -> None:
    """It ends with 0 long before all of it is done again, and leaves it for the next one."""
    text = config(tmp_path / "state", "wal: true")
    with Collector(tmp_path, text) as collector:
        assert collector.send(traffic()) == 200
        eventually(lambda: value(collector.get("prometheus"), "ml_drift_window_rows") == sum(REFERENCE))
        collector.stop(number=signal.SIGKILL)
    place = tmp_path / "state" / PLACE
    journal, now = max(place.glob("*.journal")), time.time_ns()
    with journal.open("ab") as file:
        file.writelines(packed(Record(ADVANCE, now + k * 10**9, 0)) for k in range(100_000))
    before = {path: path.read_bytes() for path in place.iterdir()}
    with Collector(tmp_path, text, wait=False) as collector:
        assert collector.process is not None
        opened = Path(f"/proc/{collector.process.pid}/fd")
        eventually(lambda: journal in _targets(opened))
        assert collector.stop() == 0
    assert "goes on from a checkpoint" not in collector.stderr
    assert {path: path.read_bytes() for path in place.iterdir()} == before


def _targets(directory: Path) -> list[Path]:
    found = []
    for link in directory.iterdir():
        with contextlib.suppress(OSError):  # it may be gone by now
            found.append(link.readlink())
    return found


def test_two_collectors_do_not_share_a_state(tmp_path: Path) -> None:
    """The second one says which directory it is about."""
    text = config(tmp_path / "state")
    (tmp_path / "second").mkdir()
    with Collector(tmp_path, text), Collector(tmp_path / "second", text, wait=False) as second:
        assert second.ended() == 1
    assert f"directory {tmp_path / 'state'} is in use by another collector" in second.stderr


def test_without_storage_nothing_is_written(tmp_path: Path) -> None:
    """A restart begins empty, as it says."""
    text = config(tmp_path / "state").replace("storage: file_storage", "")
    with Collector(tmp_path, text) as collector:
        assert collector.send(traffic()) == 200
        time.sleep(1)
    assert list((tmp_path / "state").rglob("*")) == []
