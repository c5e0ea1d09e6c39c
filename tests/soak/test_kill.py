"""A collector that is killed a hundred times while services send to it."""

from __future__ import annotations

from pathlib import Path

import pytest
from integration.kills import check, kills


@pytest.mark.parametrize("wal", [False, True], ids=["checkpoints", "wal"])
def test_a_hundred_kills(tmp_path: Path, wal: bool) -> None:
    """Totals are kept, windows are off by an interval at most or, with a journal, not at all; none is said twice."""
    seen = kills(tmp_path, times=100, wal=wal, interval=1, length=10, lateness=60, up=(1.5, 3.0))
    print(f"\nkills, {'with a journal' if wal else 'checkpoints only'}: {seen}")
    check(seen, wal=wal, interval=1)
