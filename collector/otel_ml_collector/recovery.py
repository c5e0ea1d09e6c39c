"""Goes on from where a process before left off: by checkpoints of its state, and a journal of what came after.

    await recovery.start()          # the state of the newest checkpoint that is whole, then the journal once more
    recovery.accepted(body, now)    # a request that is about to be answered
    recovery.advances(now)          # … and what the engine is asked besides, so that it can be asked the same again
    await recovery.save(now)        # all of it is on disk

A disk that is full, read-only or slow is said once and counted, and tried again after the interval; work goes on.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from otel_ml.errors import ConfigurationError

from . import supervisor
from .checkpoint import Checkpoints, Found
from .decode import DecodeLimits, Decoder
from .journal import ADVANCE, REQUEST, Journal, JournalError, Record, read
from .points import PointBatch
from .snapshot import Plain
from .storage import Directory, set_aside

_LOG = logging.getLogger(__name__)

SEGMENT = 64 * 1024 * 1024
"""Bytes of a journal after which a checkpoint is made early."""
_MOST = 4 * SEGMENT
"""Bytes of journals that wait for a checkpoint that cannot be made; what comes then is not written."""
_PATIENCE = 10.0
"""Seconds that a disk has to take a checkpoint; work goes on then, and the next one waits for it."""
_TELL = 10.0
"""Seconds after which it is said how far a journal is done again."""
_AHEAD = 3_600_000_000_000
"""How far (ns) ahead of our clock a checkpoint may be: nothing would count until the clock got there."""
_SET_ASIDE = 4
"""Files that could not be used and are kept for people to look at."""
FAILURES = ("checkpoint", "journal", "checkpoint_unreadable", "journal_unreadable")
"""What could not be written (of the journal, records), and what could not be read."""
_S = 1_000_000_000


@dataclass(frozen=True, slots=True)
class Work:
    """What is kept."""

    capture: Callable[[], Callable[[], Plain]]
    """All of it as it is now: what makes plain data of that, in another thread."""
    resume: Callable[[Mapping[str, Any]], None]
    """Be as when a state was captured, or as before when that raises: ConfigurationError for one that does not fit."""
    ingest: Callable[[PointBatch, int], object]
    """Take points that came at a time, Unix ns."""
    advancing: Callable[[int], Iterator[object]]
    """Advance to a time (Unix ns), one evaluation at a time."""
    kept_by: Callable[[Recovery], None]
    """Is told who keeps it, before there is anything new to keep."""


@dataclass(frozen=True, slots=True)
class Keeping:
    """How a state is kept."""

    interval: float
    """Seconds between two checkpoints."""
    wal: bool
    limits: DecodeLimits
    """Of the requests in the journal."""


class Recovery:
    """Keeps the state of `work` in a place of its own in `directory`; `path` is the key of its component."""

    def __init__(
        self, work: Work, directory: Directory, path: str, keeping: Keeping, clock: Callable[[], int]
    ) -> None:
        self._work, self._directory, self._path, self._keeping = work, directory, path, keeping
        self._clock = clock
        self._checkpoints: Checkpoints | None = None
        self._journal: Journal | None = None
        self._number = 0
        self._taken = 0
        """Evaluations that were taken of the advance under way."""
        self._advance: Iterator[object] = iter(())
        """The advance under way, while a journal is replayed."""
        self._decoder = Decoder(keeping.limits)
        self._unsaved = 0
        """Bytes of journals since the last checkpoint."""
        self._tried = 0
        self._writing: asyncio.Task[int] | None = None
        self._wrong: set[str] = set()
        """What does not work at the moment."""
        self._unwanted = False
        """Whether a stop came before the journal was done again."""
        self._damaged: list[Found] = []
        """Segments of the journal that are of no use once there is a new checkpoint."""
        self.failures: Counter[str] = Counter()
        """By `FAILURES`."""
        self.saved = 0
        """Of when the newest checkpoint is, Unix ns; 0: there is none."""
        self.size = 0
        """Its bytes."""
        self.resumed = False
        """Whether there was a state to go on from."""

    # --- taking up ---

    async def start(self) -> None:
        """Take up what is there, and begin to keep. When it is cancelled, all that is there stays as it is."""
        recovering = asyncio.create_task(asyncio.to_thread(self._recover))
        try:
            await asyncio.shield(recovering)
        except asyncio.CancelledError:
            self._unwanted = True
            await asyncio.wait([recovering])
            raise
        if await self.save(self._clock()):
            # Not before: what is good in them would be lost if this were killed now.
            self._discard(self._damaged, "it is damaged, or what came before it is")
        self._work.kept_by(self)

    def _recover(self) -> None:
        if not self._open() or self._checkpoints is None or self._journal is None:
            return
        with contextlib.suppress(OSError):
            self._checkpoints.tidy()
        found = list(self._checkpoints.newest_first())
        newest = next((one for one in found if self._resume(one)), None)
        segments = self._journal.segments()
        self._number = max([one.number for one in (*found, *segments)], default=0)
        if newest is not None:
            replayed = self._replay([one for one in segments if one.number >= newest.number])
            age = (self._clock() - self.saved) / _S
            if self._unwanted:
                return
            _LOG.info("goes on from a checkpoint of %.1f s ago and %d requests since", age, replayed)
        elif found or segments:
            self._discard(segments, "they belong to no checkpoint that can be used")
            _LOG.error(
                "no checkpoint in %s can be used; counts, windows and verdicts start empty", self._place
            )

    def _open(self) -> bool:
        """Whether there is a place to write to."""
        try:
            self._place = self._directory.place(self._path)
        except OSError as error:
            self._failed("checkpoint", error)
            return False
        self._checkpoints = Checkpoints(self._place)
        self._journal = Journal(self._place, fsync=self._directory.fsync)
        return True

    def _resume(self, found: Found) -> bool:
        """Whether a checkpoint could be taken up; one that could not is set aside."""
        try:
            plain = Checkpoints.read(found)
            saved = int(plain["saved"])
            if saved > self._clock() + _AHEAD:
                raise ConfigurationError(
                    f"it is {(saved - self._clock()) / _S:.0f} s ahead of this machine's clock; set the clock, or "
                    "start empty"
                )
            self._work.resume(plain["state"])
        except Exception as error:  # whatever is in a file, a start must not fail for it
            said = str(error) if isinstance(error, ConfigurationError | OSError) else repr(error)
            self._discard([found], said)
            return False
        self.saved, self.resumed = saved, True
        return True

    def _replay(self, segments: list[Found]) -> int:
        """Do once more what the journal has; the number of its requests."""
        replayed = 0
        for i, found in enumerate(segments):
            requests, problem = self._segment(found)
            replayed += requests
            if problem is not None:
                _LOG.error("%s; %d requests before it count, none behind it does", problem, replayed)
                self._damaged = segments[i:]
                break
        self._finish()
        self._decoder = Decoder(self._keeping.limits)  # without its memory, which is not needed any more
        return replayed

    def _segment(self, found: Found) -> tuple[int, Exception | None]:
        """How many requests of a segment were done once more, and what kept the others from it."""
        requests, said = 0, time.monotonic()
        try:
            for record in read(found.path):
                if self._unwanted:
                    break
                self._again(record)
                requests += record.what == REQUEST
                if time.monotonic() - said >= _TELL:
                    said = time.monotonic()
                    _LOG.info("%d requests of %s are done again so far", requests, found.path)
                    supervisor.starting(f"goes on from {found.path}")
        except (JournalError, OSError) as error:
            return requests, error
        return requests, None

    def _again(self, record: Record) -> None:
        if record.what == ADVANCE or not record.taken:
            self._finish()
        if record.what == ADVANCE:
            self._advance = self._work.advancing(record.at)
            return
        with self._survived():
            while self._taken < record.taken and not self._unwanted:
                self._taken += 1
                next(self._advance, None)
        with self._survived():
            self._work.ingest(self._decoder.decode(record.body).batch, record.at)

    def _finish(self) -> None:
        """Take the advance under way to its end."""
        with self._survived():
            for _ in self._advance:
                if self._unwanted:
                    break
        self._advance, self._taken = iter(()), 0

    @contextlib.contextmanager
    def _survived(self) -> Iterator[None]:
        """What failed the first time fails again, and must not keep the rest from being done."""
        try:
            yield
        except Exception as error:
            self.failures["journal_unreadable"] += 1
            if self.failures["journal_unreadable"] == 1:
                _LOG.warning("something in the journal could not be done again: %r", error)

    def _discard(self, files: list[Found], reason: str) -> None:
        for found in files:
            self.failures[f"{found.path.suffix.removeprefix('.')}_unreadable"] += 1
            aside: Path | str = "where it is"
            with contextlib.suppress(OSError):
                aside = set_aside(found.path)
                for old in sorted(found.path.parent.glob("*.corrupt-*"))[:-_SET_ASIDE]:
                    old.unlink()
            _LOG.error("%s cannot be used: %s. It is kept as %s", found.path, reason, aside)

    # --- keeping ---

    def accepted(self, body: bytes, at: int) -> None:
        """Note a request that the engine took at `at` (Unix ns), before it is answered."""
        if self._keeping.wal:
            self._append(Record(REQUEST, at, self._taken, body))

    def advances(self, to: int) -> None:
        """Note that the engine begins to advance to `to` (Unix ns)."""
        self._taken = 0
        if self._keeping.wal:
            self._append(Record(ADVANCE, to, 0))

    def evaluated(self) -> None:
        """Note that one more evaluation of the advance was taken."""
        self._taken += 1

    def advanced(self) -> None:
        """Note that the advance came to its end."""
        self._taken = 0

    def _append(self, record: Record) -> None:
        try:
            if self._journal is None or self._unsaved > _MOST or not self._journal.append(record):
                self.failures["journal"] += 1
                return
        except OSError as error:
            self._failed("journal", error)
            return
        self._unsaved += len(record.body)

    def due(self, now: int, *, changed: bool) -> bool:
        """Whether to `save` at `now` (Unix ns); `changed`: before what was evaluated goes out."""
        if abs(now - self._tried) >= round(self._keeping.interval * _S):
            return True
        full = self._journal is not None and self._journal.size > SEGMENT
        return (changed or full) and "checkpoint" not in self._wrong

    async def save(self, now: int, *, patience: float | None = None) -> bool:
        """Write all down as it is now (Unix ns); False when that is not possible, which is said and counted.

        The disk has `patience` seconds for it, `_PATIENCE` at most.
        """
        self._tried = now
        patience = _PATIENCE if patience is None else min(patience, _PATIENCE)
        try:
            if self._writing is None or self._writing.done():
                self._begin(now)
            else:
                raise TimeoutError("the checkpoint before it is not written yet")
            assert self._writing is not None
            done, _ = await asyncio.wait([self._writing], timeout=patience)
            if not done:
                raise TimeoutError(f"it is not written after {patience:.1f} s")
            self.size = self._writing.result()
        except Exception as error:  # of whatever kind: to keep the state must not end the work
            self._failed("checkpoint", error)
            return False
        self.saved = now
        self._works("checkpoint")
        return True

    def _begin(self, now: int) -> None:
        if self._checkpoints is None and not self._open():
            raise OSError(f"there is no place for it in {self._directory.path}")
        self._number += 1
        number, make = self._number, self._work.capture()
        if self._keeping.wal and self._journal is not None:
            # In the same moment: what comes from now on is not in the checkpoint.
            try:
                self._journal.begin(number)
                self._works("journal")
            except OSError as error:
                self._failed("journal", error)
        self._writing = asyncio.create_task(asyncio.to_thread(self._write, number, now, make))
        # One that failed after nobody waited for it any more was said when its time was over.
        self._writing.add_done_callback(lambda task: task.cancelled() or task.exception())

    def _write(self, number: int, now: int, make: Callable[[], Plain]) -> int:
        assert self._checkpoints is not None
        assert self._journal is not None
        size = self._checkpoints.write(number, {"saved": now, "state": make()})
        self._journal.prune(self._checkpoints.oldest())
        self._unsaved = self._journal.size
        return size

    def _failed(self, what: str, error: Exception) -> None:
        self.failures[what] += 1
        if what not in self._wrong:
            self._wrong.add(what)
            _LOG.error(
                "the %s cannot be written: %s; work goes on, a restart would go on from what was written before, and "
                "it is tried again every %g s", what, error, self._keeping.interval,
            )  # fmt: skip

    def _works(self, what: str) -> None:
        if what in self._wrong:
            self._wrong.discard(what)
            _LOG.info("the %s is written again", what)

    async def stop(self, grace: float) -> None:
        """Let what is being written come to its end."""
        if self._writing is not None and not self._writing.done():
            await asyncio.wait([self._writing], timeout=grace)
        if self._journal is not None:
            self._journal.close()
