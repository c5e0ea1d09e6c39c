"""Requests in the order they came, in a file of SQLite.

Every call blocks for as long as the disk takes: a commit of 300 kB takes 0.2 ms, but every few megabytes one takes
50 ms, when SQLite moves its log into the file. So this is for a thread.

What goes wrong comes as one of two kinds: OSError and sqlite3.OperationalError when it may work later (the disk is
full, the directory is read-only), Unreadable when the content is not what it should be.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Container, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

from .storage import set_aside

_APPLICATION = 0x6F6D6C71
"""`omlq`, which tells our files from those of other programs."""
_VERSION = 1
_SETTINGS = (
    "PRAGMA journal_mode = WAL",
    "PRAGMA secure_delete = OFF",
    f"PRAGMA journal_size_limit = {16 * 1024 * 1024}",
)
_TABLE = f"""\
BEGIN;
CREATE TABLE requests (id INTEGER PRIMARY KEY, items INTEGER NOT NULL, size INTEGER NOT NULL, data BLOB NOT NULL);
PRAGMA application_id = {_APPLICATION};
PRAGMA user_version = {_VERSION};
COMMIT"""
_MODE = 0o640
_SHRINK_ABOVE = 16 * 1024 * 1024
"""Bytes of an empty file that are worth giving back; below, they are soon needed again."""
_MOST = 2**53
"""No file that is whole has as many of anything."""
_LOCKED_FOR = 1.0
"""Seconds to wait for somebody who looks into the file."""


class Unreadable(Exception):
    """The file is damaged, or is not one of ours."""


class Row(NamedTuple):
    """A request, how many items are in it, and its place in the order."""

    id: int
    items: int
    data: bytes


class Content(NamedTuple):
    """What is in a file, and its last place."""

    requests: int
    items: int
    bytes: int
    last: int


class RequestFile:
    """The file at `path`, made when it is not there; with `fsync` a commit survives a loss of power."""

    def __init__(self, path: Path, *, fsync: bool = False) -> None:
        self.path = path
        self._fsync = fsync
        self._db = _connected(path, fsync)
        self._inode = _inode(path)

    def content(self) -> Content:
        """How much is in it."""
        query = (
            # Not as sum(), which fails when damage makes them large.
            "SELECT count(*), cast(total(items) AS INTEGER), cast(total(size) AS INTEGER), ifnull(max(id), 0) "
            "FROM requests"
        )
        with _reported():
            found = self._db.execute(query).fetchone()
        if not all(isinstance(number, int) and 0 <= number < _MOST for number in found):
            raise Unreadable("its numbers are none")
        return Content(*found)

    def append(self, rows: Iterable[Row]) -> None:
        """Add all of these, or none."""
        with _reported(), self._transaction():
            self._db.executemany(
                # A commit of which the disk said that it failed may be there all the same.
                "INSERT OR REPLACE INTO requests (id, items, size, data) VALUES (?, ?, ?, ?)",
                ((row.id, row.items, len(row.data), row.data) for row in rows),
            )

    def after(self, id_: int) -> Row | None:
        """The first one that comes after this place; Unreadable also when the disk cannot read it."""
        query = "SELECT id, items, data FROM requests WHERE id > ? ORDER BY id LIMIT 1"
        try:
            found = self._db.execute(query, (id_,)).fetchone()
        except sqlite3.DatabaseError as error:
            raise Unreadable(str(error)) from error
        return None if found is None else _row(found)

    def remove(self, ids: Iterable[int]) -> None:
        """Let go of these."""
        with _reported(), self._transaction():
            self._db.executemany("DELETE FROM requests WHERE id = ?", ((id_,) for id_ in ids))

    def shrink(self) -> None:
        """Give back the room of an empty file, when it is worth it."""
        if self.path.stat().st_size > _SHRINK_ABOVE:
            with _reported():
                self._db.execute("VACUUM")
                self._db.execute("PRAGMA wal_checkpoint(TRUNCATE)")

    def deleted(self) -> bool:
        """Whether another file, or none, has this name by now; what is written would be gone with the process."""
        return _inode(self.path) != self._inode

    def write_anew(self, *, without: Container[int]) -> None:
        """Put what is in it, but for some, into a file of this name again; this one is closed then."""
        if self.path.exists():
            discard(self.path)
        beside = self.path.with_name(f"{self.path.name}.new")
        delete(beside)
        copy = RequestFile(beside, fsync=self._fsync)
        try:
            copy.append(row for row in self._all() if row.id not in without)
        finally:
            copy.close()
        # An old log would be read with the new file; and to close may remove a log by its name, so before there is one.
        remove_log(self.path)
        beside.rename(self.path)
        self.close()

    def _all(self) -> Iterator[Row]:
        with _reported():
            yield from map(_row, self._db.execute("SELECT id, items, data FROM requests ORDER BY id"))

    def close(self) -> None:
        """Let go of the file; what is in it stays."""
        with suppress(sqlite3.Error):
            self._db.close()

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        self._db.execute("BEGIN IMMEDIATE")
        try:
            yield
            self._db.execute("COMMIT")
        except BaseException:
            if self._db.in_transaction:  # some errors end it by themselves
                with suppress(sqlite3.Error):
                    self._db.execute("ROLLBACK")
            raise


def discard(path: Path) -> Path:
    """Where the file is that was at `path`: out of the way, and kept. OSError when that is not possible."""
    aside = set_aside(path)
    remove_log(path)
    return aside


def delete(path: Path) -> None:
    """Remove a file that nothing is in any more. OSError when that is not possible."""
    path.unlink(missing_ok=True)
    remove_log(path)


def remove_log(path: Path) -> None:
    """Remove SQLite's log of a file."""
    Path(f"{path}-wal").unlink(missing_ok=True)


def _connected(path: Path, fsync: bool) -> sqlite3.Connection:
    _private(path)
    # Autocommit, so that transactions begin where they are written; of one thread at a time.
    db = sqlite3.connect(path, timeout=_LOCKED_FOR, isolation_level=None, check_same_thread=False)
    try:
        with _reported():
            # Before anything is read: no file of shared memory is made, which kills the process when it is cut short.
            db.execute("PRAGMA locking_mode = EXCLUSIVE")
            empty = _is_empty(db)
            for setting in (*_SETTINGS, f"PRAGMA synchronous = {'FULL' if fsync else 'NORMAL'}"):
                db.execute(setting)
            if empty:
                db.executescript(_TABLE)
    except BaseException:
        db.close()
        raise
    return db


def _private(path: Path) -> None:
    """Make the file as other state is made, not to be read by everybody; SQLite's log takes its mode over."""
    with suppress(FileExistsError):  # one that is there is not opened: to close it would undo SQLite's locks
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, _MODE))
    for one in (path, Path(f"{path}-wal")):
        with suppress(OSError):  # not there, or not ours
            one.chmod(one.stat().st_mode & _MODE)


def _is_empty(db: sqlite3.Connection) -> bool:
    """True when nothing is in the file yet, False when it is one of ours; else Unreadable."""
    application, version, tables = (
        db.execute(query).fetchone()[0]
        for query in ("PRAGMA application_id", "PRAGMA user_version", "SELECT count(*) FROM sqlite_master")
    )
    if (application, version, tables) not in ((0, 0, 0), (_APPLICATION, _VERSION, 1)):
        raise Unreadable("another program, or another version of this one, wrote it")
    return not tables


def _row(found: tuple[object, object, object]) -> Row:
    id_, items, data = found
    if isinstance(id_, int) and isinstance(items, int) and isinstance(data, bytes):
        return Row(id_, items, data)
    raise Unreadable("a request in it is none")


def _inode(path: Path) -> tuple[int, int] | None:
    try:
        found = path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return None
    return found.st_dev, found.st_ino


@contextmanager
def _reported() -> Iterator[None]:
    """SQLite's plain DatabaseError says that a file is none or is damaged; all else has a class of its own."""
    try:
        yield
    except sqlite3.DatabaseError as error:
        if type(error) is sqlite3.DatabaseError:
            raise Unreadable(str(error)) from error
        raise
