"""Laws of a queue on disk: whatever happens to the disk, order is kept, and what is lost is said."""

from __future__ import annotations

import asyncio
import errno
import itertools
import os
import tempfile
from pathlib import Path
from unittest.mock import patch

from hypothesis import given, settings
from hypothesis import strategies as st

from otel_ml_collector import backlog
from otel_ml_collector.backlog import Backlog
from otel_ml_collector.queue import Item, Size
from otel_ml_collector.requestfile import RequestFile


class _Disk:
    """A directory, and whether files in it can be written to; time passes with every look at the clock."""

    def __init__(self, directory: Path) -> None:
        self.path, self.broken = directory / "queue.sqlite", False
        self._times = itertools.count(0, 10)

    def backlog(self) -> Backlog:
        return Backlog("otlp", lambda: self.path, clock=lambda: float(next(self._times)))

    def file(self, path: Path, *, fsync: bool) -> RequestFile:
        made = RequestFile(path, fsync=fsync)
        append, remove = made.append, made.remove
        made.append = lambda rows: self._works() or append(rows)  # type: ignore[method-assign,func-returns-value]
        made.remove = lambda ids: self._works() or remove(ids)  # type: ignore[method-assign,func-returns-value]
        return made

    def _works(self) -> None:
        if self.broken:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def delete(self, names: str) -> None:
        for one in self.path.parent.glob(names):
            one.unlink()


EVENTS = st.lists(
    st.sampled_from(
        ["offer", "offer", "offer", "send", "send", "look", "break", "mend", "*", "queue.sqlite", "restart"]
    ),
    max_size=40,
)


@settings(max_examples=60, deadline=None)
@given(EVENTS)
def test_everything_is_sent_in_order_but_what_a_stop_lost(events: list[str]) -> None:
    """Requests come first in the order they were offered in; only what was still sent off a broken disk comes twice."""
    with tempfile.TemporaryDirectory() as directory:
        disk = _Disk(Path(directory))
        with patch.object(backlog, "RequestFile", disk.file):
            asyncio.run(_play(disk, events))


async def _play(disk: _Disk, events: list[str]) -> None:
    line, offered, sent, lost, twice = disk.backlog(), 0, [], set(), False
    for event in events:
        if event == "offer":
            line.put(Item(b"%d" % offered, 1))
            await line.stored()
            offered += 1
        elif event == "send" and (item := await line.first()) is not None:
            sent.append(int(item.data))
            await line.done()
        elif event == "look":
            await line.first()
        elif event in ("*", "queue.sqlite") and not disk.broken:
            disk.delete(event)
        elif event == "restart":
            waiting = line.size
            left = (await line.close()).requests
            lost |= set(range(offered - left, offered))
            twice |= disk.broken
            line = disk.backlog()
            await line.open()
            assert twice or line.size == waiting - Size(left, left, waiting.bytes - line.size.bytes)
        elif event in ("break", "mend"):
            disk.broken = event == "break"
    disk.broken = False
    while (item := await line.first()) is not None:
        sent.append(int(item.data))
        await line.done()
    assert (await line.close(), line.size) == (Size(), Size())
    firsts = list(dict.fromkeys(sent))
    assert firsts == [number for number in range(offered) if number in set(firsts)]
    assert set(range(offered)) - set(firsts) <= lost
    assert twice or len(firsts) == len(sent)
