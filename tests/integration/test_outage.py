"""Half a minute without a backend, in line, at 10,000 points a second; `make soak` has ten minutes of it."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest
from integration.outage import check, outage


def test_what_comes_while_the_backend_is_away_waits_on_disk(tmp_path: Path) -> None:
    """The sender notices nothing, memory does not grow with what waits, and nothing comes twice without need."""
    seen = outage(tmp_path, up=8, down=30)
    print(seen)
    check(seen)
    backlog = seen.peak(seen.on_disk, seen.went, seen.came_back)
    grown = seen.peak(seen.resident, seen.went, seen.drained) - seen.peak(seen.resident, 0, seen.went)
    assert grown < backlog / 2


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_restart_in_the_middle_of_it_loses_nothing(tmp_path: Path, number: signal.Signals) -> None:
    """However the collector ends, the next one goes on with what waits."""
    seen = outage(tmp_path, up=2, down=8, restart=number)
    check(seen)
    assert ("requests stay on disk" in seen.said) == (number == signal.SIGTERM)
