"""What waits to be sent, on disk, so that it outlives the process; in memory for as long as the disk fails.

    put     the request stands at the end of the line, in memory
    stored  it is on disk, together with all that came meanwhile: one commit
    first   the request whose turn it is, read from disk; in memory there is this one only
    done    it was sent, or given up: it is removed

The order is kept whatever happens: what is on disk is older than what is in memory, and comes first.

- The disk is full or read-only: what comes stays in memory, up to its limit; the disk is tried again every few seconds.
- The file was deleted: it is written anew, from what is still open here.
- The file is damaged, or is not ours: it is set aside, and the line goes on with an empty one.

Each is said once, and counted.
"""

from __future__ import annotations

import asyncio
import logging
import sqlite3
import time
from collections import deque
from collections.abc import Callable, Coroutine, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from .queue import MAX_BYTES, Counts, Item, Size
from .requestfile import RequestFile, Row, Unreadable, delete, discard

_LOG = logging.getLogger(__name__)
_T = TypeVar("_T")

_PAUSE = 5.0
"""Seconds between attempts to write to a disk that failed."""
_MISSING = "requests are missing in it"
_TROUBLE = (OSError, sqlite3.Error)
"""What may work later."""


@dataclass(slots=True, eq=False)
class _Waiting:
    """A request, and its place on disk once it has one."""

    item: Item
    id: int | None = None


class Backlog:
    """A line on disk for one exporter's queue; `path` gives its file, and may fail with OSError."""

    def __init__(
        self,
        name: str,
        path: Callable[[], Path],
        *,
        fsync: bool = False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.counts = Counts()
        self._name, self._path, self._fsync, self._clock = name, path, fsync, clock
        self._file: RequestFile | None = None
        self._on_disk, self._in_memory = Size(), Size()
        self._memory: deque[_Waiting] = deque()
        self._turn: _Waiting | None = None
        self._read = self._last = 0
        """Places: of the last one read, and of the last one there is."""
        self._sent: set[int] = set()
        """Places that could not be removed from a disk that fails."""
        self._trouble = self._closed = False
        self._again = 0.0
        self._lock = asyncio.Lock()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix=f"{name} queue")

    durable = True

    @property
    def settled(self) -> bool:
        """Whether the disk works, as far as is known."""
        return not self._trouble

    @property
    def size(self) -> Size:
        """What waits or is under way."""
        return self._on_disk + self._in_memory

    @property
    def memory(self) -> int:
        """Bytes of it that are in memory."""
        return self._in_memory.bytes

    def put(self, item: Item) -> None:
        """Take it as the last; call `stored` after that."""
        self._memory.append(_Waiting(item))
        self._in_memory += Size.of(item)
        if self._trouble:
            self.counts.in_memory += item.points

    async def open(self) -> None:
        """Find out what waits from before."""
        await self._alone(self._attempt(self._opened))

    async def stored(self) -> None:
        """Return once all that was put is on disk, or stays in memory because the disk fails."""
        await self._alone(self._store())

    async def first(self) -> Item | None:
        """The request whose turn it is, until it is `done`; None when none waits."""
        return await self._alone(self._first())

    async def done(self) -> None:
        """Forget the first."""
        await self._alone(self._done())

    async def close(self) -> Size:
        """Let go of the disk; what could not be put on it, which is lost."""
        self._again = 0.0
        return await self._alone(self._close())

    async def _alone(self, work: Coroutine[Any, Any, _T]) -> _T:
        """One at a time, and to its end: who asked for it may be gone before, the disk is not stopped half way."""

        async def locked() -> _T:
            async with self._lock:
                return await work

        return await asyncio.shield(locked())

    # --- one at a time ---

    async def _store(self) -> None:
        if self._closed or (self._trouble and self._clock() < self._again):
            return
        if not self._memory and not (self._trouble and self._file is None):
            return
        for _ in range(2):  # once more after a file was set aside
            waiting = list(self._memory)
            if await self._attempt(partial(self._append, waiting)):
                self._moved(waiting)
                return
            if self._trouble:
                return

    def _moved(self, waiting: Sequence[_Waiting]) -> None:
        for one in waiting:
            self._memory.popleft()
            self._on_disk += Size.of(one.item)
            self._in_memory -= Size.of(one.item)
        if self._trouble:
            _LOG.info("exporter %s: its queue is on disk again", self._name)
        self._trouble = False

    async def _first(self) -> Item | None:
        await self._store()
        if self._turn is None and self._on_disk.requests:
            row = await self._attempt(self._next)
            if row is not None:
                self._turn, self._read = _Waiting(Item(row.data, row.items), row.id), row.id
        if self._turn is None and self._memory and not self._on_disk.requests:
            self._turn = self._memory[0]
        return None if self._turn is None else self._turn.item

    async def _done(self) -> None:
        done, self._turn = self._turn, None
        if done is None:
            return
        if done.id is None:
            self._memory.popleft()
            self._in_memory -= Size.of(done.item)
            return
        self._on_disk -= Size.of(done.item)
        self._sent.add(done.id)
        await self._attempt(self._remove)

    async def _close(self) -> Size:
        if self._memory:
            await self._store()
        if self._file is not None or self._sent:
            await self._attempt(self._left_in_order)
        lost, self._in_memory = self._in_memory, Size()
        self._memory.clear()
        self._closed = True
        if self._file is not None:
            if await self._attempt(self._file.deleted):
                lost, self._on_disk = lost + self._on_disk, Size()
            await self._in_thread(self._file.close)
        self._thread.shutdown(wait=False)
        return lost

    async def _attempt(self, work: Callable[[], _T]) -> _T | None:
        """What `work` returns; None when the disk fails, which is dealt with."""
        try:
            return await self._in_thread(work)
        except Unreadable as error:
            await self._set_aside(error)
        except Exception as error:  # whatever it is: the queue goes on, and tries again
            self._fails(error)
        return None

    async def _in_thread(self, work: Callable[[], _T]) -> _T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)

    # --- what goes wrong ---

    def _fails(self, error: Exception) -> None:
        self._again = self._clock() + _PAUSE
        if self._trouble:
            return
        self._trouble = True
        self.counts.in_memory += self._in_memory.items
        _LOG.warning(
            "exporter %s: its queue cannot be written to disk: %s; up to %d MiB wait in memory until it can; "
            "free the disk, or give file_storage another directory",
            self._name, error, MAX_BYTES // 1024**2,
        )  # fmt: skip

    async def _set_aside(self, error: Unreadable) -> None:
        lost, self._on_disk, self._sent = self._on_disk, Size(), set()
        if self._turn is not None and self._turn.id is not None:  # this one is in memory as well
            lost -= Size.of(self._turn.item)
            self._turn.id = None
            self._memory.appendleft(self._turn)
            self._in_memory += Size.of(self._turn.item)
        self.counts.failed += lost.items
        try:
            aside = await self._in_thread(self._discard)
        except OSError as problem:
            self._fails(problem)
            return
        _LOG.error(
            "exporter %s: the file of its queue cannot be read: %s; it is kept as %s, and an empty one takes its "
            "place; %d requests that it is known to have had are lost",
            self._name, error, aside, lost.requests,
        )  # fmt: skip

    # --- in the thread ---

    def _opened(self) -> RequestFile:
        if self._file is not None and self._file.deleted():
            self._write_anew(self._file)
        if self._file is None:
            file = RequestFile(self._path(), fsync=self._fsync)
            try:
                if self._sent:
                    file.remove(self._sent)
                found = file.content()
                # Somebody deleted it while it was closed for a disk that failed.
                if found.requests < self._on_disk.requests:
                    raise Unreadable(_MISSING)
            except BaseException:
                file.close()
                raise
            self._sent = set()
            self._on_disk = Size(found.requests, found.items, found.bytes)
            self._last = max(self._last, found.last)
            self._file = file
        return self._file

    def _append(self, waiting: Sequence[_Waiting]) -> bool:
        file = self._opened()
        rows = [Row(self._last + i, one.item.points, one.item.data) for i, one in enumerate(waiting, 1)]
        file.append(rows)
        self._last += len(rows)
        for one, row in zip(waiting, rows, strict=True):
            one.id = row.id
        return True

    def _write_anew(self, file: RequestFile) -> None:
        self._path()  # makes the directory, if that is gone as well
        file.write_anew(without=self._sent)
        self._sent, self._file = set(), None
        _LOG.warning(
            "exporter %s: %s was deleted while it was in use; what waits was written anew, nothing is lost",
            self._name, file.path,
        )  # fmt: skip

    def _next(self) -> Row:
        file, place = self._file or self._opened(), self._read
        while (row := file.after(place)) is not None:
            if row.id not in self._sent:
                return row
            place = row.id
        raise Unreadable(_MISSING)

    def _remove(self) -> None:
        file = self._file or self._opened()
        try:
            file.remove(self._sent)
        except _TROUBLE:
            if self._on_disk.requests:
                raise
            # Nothing waits in it. To remove a row takes room, which a full disk does not have; this gives some.
            file.close()
            self._file = None
            delete(file.path)
        self._sent = set()
        if self._file is not None and not self._on_disk.requests:
            with suppress(*_TROUBLE):
                self._file.shrink()

    def _left_in_order(self) -> None:
        """The file is there, and what was sent is not in it."""
        file = self._opened()
        if self._sent:
            file.remove(self._sent)
            self._sent = set()

    def _discard(self) -> Path:
        if self._file is not None:
            self._file.close()
            self._file = None
        return discard(self._path())
