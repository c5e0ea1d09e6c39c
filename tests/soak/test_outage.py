"""Ten minutes without a backend, in line, at 10,000 points a second."""

from __future__ import annotations

import signal
from pathlib import Path

from integration.outage import check, outage


def test_ten_minutes_without_a_backend(tmp_path: Path) -> None:
    """Nothing is lost within the disk cap, the queue drains in order, and the collector's memory is flat."""
    seen = outage(tmp_path, up=60, down=600)
    print(f"\noutage: {seen}")
    check(seen)
    first, *_, last = seen.tenths()
    assert last - first < 16 * 2**20
    assert seen.peak(seen.resident, seen.went, seen.drained) < first + 64 * 2**20
    assert seen.on_disk[-1][1] < 32 * 2**20


def test_two_minutes_without_a_backend_and_a_kill_in_the_middle(tmp_path: Path) -> None:
    """What was taken before SIGKILL is sent by the next collector."""
    seen = outage(tmp_path, up=30, down=120, restart=signal.SIGKILL)
    print(f"\noutage with SIGKILL: {seen}")
    check(seen)
