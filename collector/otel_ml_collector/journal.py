"""What an engine was given, in order, so that it can be given the same once more.

A segment holds what came after the checkpoint of its number: a magic, and records one after the other. A record is,
little-endian:

    4   CRC-32 of the rest of the head
    4   CRC-32 of the body
    4   length of the body
    8   when, Unix ns
    4   how many evaluations of the advance under way were taken before it, 0 when none was under way
    1   what: a request of OTLP metrics, as protobuf, or an advance, without a body

A process that is killed can cut off the last record: that is a request that was never answered.
"""

from __future__ import annotations

import os
import zlib
from collections.abc import Iterator
from pathlib import Path
from struct import Struct
from typing import BinaryIO, NamedTuple

from otel_ml.errors import OtelMLError

from .checkpoint import Found, name, numbered, sync

REQUEST, ADVANCE = 1, 2

_SUFFIX = ".journal"
_MAGIC = b"OTELMLJ\x01"
_HEAD = Struct("<IIIqIB")
_REST = Struct("<IIqIB")
_CRC = 4


class JournalError(OtelMLError):
    """A record in the middle of a segment that cannot be read."""


class Record(NamedTuple):
    """Something an engine was given."""

    what: int
    at: int
    """Unix ns."""
    taken: int
    """Evaluations of the advance under way that were taken before it; 0: none was under way."""
    body: bytes = b""


def packed(record: Record) -> bytes:
    """A record as it is written."""
    body = record.body
    rest = _REST.pack(zlib.crc32(body), len(body), record.at, record.taken, record.what)
    return zlib.crc32(rest).to_bytes(_CRC, "little") + rest + body


def read(path: Path) -> Iterator[Record]:
    """The records of a segment; `JournalError` at one that is damaged. One that is cut off ends it."""
    with path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        if file.read(len(_MAGIC)) != _MAGIC:
            if size >= len(_MAGIC):
                raise JournalError(f"{path} is no journal that this version reads")
            return
        while (record := _next(file, size, path)) is not None:
            yield record


def _next(file: BinaryIO, size: int, path: Path) -> Record | None:
    begin = file.tell()
    head = file.read(_HEAD.size)
    if len(head) < _HEAD.size:
        return None
    head_crc, body_crc, length, at, taken, what = _HEAD.unpack(head)
    if zlib.crc32(head[_CRC:]) != head_crc or what not in (REQUEST, ADVANCE):
        raise JournalError(f"{path} is damaged at byte {begin}")
    if length > size - file.tell():
        return None
    body = file.read(length)
    if zlib.crc32(body) != body_crc:
        raise JournalError(f"{path} is damaged at byte {begin}")
    return Record(what, at, taken, body)


class Journal:
    """The segments of one component, in a directory of its own; OSError when the disk does not want.

    With `fsync` each record survives a loss of power, without it only the end of the process.
    """

    def __init__(self, directory: Path, *, fsync: bool = False) -> None:
        self._directory, self._fsync = directory, fsync
        self._file: int | None = None
        self.size = 0
        """Bytes in the segment that is written."""

    def segments(self, since: int = 0) -> list[Found]:
        """What there is, from this number on."""
        return [found for found in numbered(self._directory, _SUFFIX) if found.number >= since]

    def begin(self, number: int) -> None:
        """Write to a new segment from here on."""
        self.close()
        path = self._directory / name(number, _SUFFIX)
        self.size = 0
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o640)
        self._write(_MAGIC)
        if self._fsync:
            sync(self._directory)

    def append(self, record: Record) -> bool:
        """Write a record; False when an earlier failure left no segment to write to."""
        if self._file is None:
            return False
        self._write(packed(record))
        return True

    def _write(self, data: bytes) -> None:
        assert self._file is not None
        try:
            left = memoryview(data)
            while left:
                left = left[os.write(self._file, left) :]
            if self._fsync:
                os.fdatasync(self._file)
        except OSError:
            # What is half written ends the segment: nothing may come behind it.
            self.close()
            raise
        self.size += len(data)

    def close(self) -> None:
        """Write no more, until the next `begin`."""
        if self._file is not None:
            os.close(self._file)
            self._file = None

    def prune(self, before: int) -> None:
        """Remove the segments below this number."""
        for found in self.segments():
            if found.number < before:
                found.path.unlink()
