"""Plain data in one file, so that a process can go on from where another one was.

A file is, little-endian:

    8 bytes   magic, with the version of the format in the last one
    8 + 8     length of the structure and of the arrays
    …         the structure: JSON, where {"array": [dtype, shape]} stands for an array
    …         the arrays, each as its bytes, in the order in which they stand in the structure
    32        SHA-256 of all before

Each array takes the bytes that follow those of the one before it, so that nothing in a file can ask for more than there
is. Nothing is run in reading it.

Files are numbered. A new one appears whole, under the next number, and the one before it is kept.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Iterator
from math import prod
from pathlib import Path
from struct import Struct
from typing import Any, NamedTuple

import numpy as np
import orjson
from numpy.typing import NDArray

from otel_ml.errors import OtelMLError

from .snapshot import Plain

_MAGIC = b"OTELMLC\x01"
_HEAD = Struct("<8sQQ")
_DIGEST = hashlib.sha256().digest_size
_DTYPES = {"|b1", "|i1", "|u1", *(f"<{kind}{size}" for kind in "iu" for size in (2, 4, 8)), "<f4", "<f8"}
_DIMENSIONS = 4
_ARRAY = "array"

_SUFFIX, _UNFINISHED = ".checkpoint", ".partial"
KEPT = 2
"""Checkpoints that are kept: the newest and the one before it."""


class CheckpointError(OtelMLError):
    """A checkpoint that cannot be used, and why."""


# --- bytes ------------------------------------------------------------------------------------------------


def encode(plain: Plain) -> list[bytes | memoryview]:
    """Plain data as the parts of a file, one after the other; TypeError for what is not plain."""
    arrays: list[memoryview] = []

    def array(value: object) -> object:
        if not isinstance(value, np.ndarray):
            raise TypeError(f"{type(value)} is not plain")
        values = value.astype(value.dtype.newbyteorder("<"), order="C", copy=False)
        if values.dtype.str not in _DTYPES or values.ndim > _DIMENSIONS:
            raise TypeError(f"an array of {values.dtype} with {values.ndim} dimensions cannot be written")
        if values.size:
            arrays.append(values.reshape(-1).view(np.uint8).data)
        return {_ARRAY: [values.dtype.str, list(values.shape)]}

    structure = orjson.dumps(plain, default=array)
    head = _HEAD.pack(_MAGIC, len(structure), sum(map(len, arrays)))
    digest = hashlib.sha256(head + structure)
    for values in arrays:
        digest.update(values)
    return [head, structure, *arrays, digest.digest()]


def decode(data: bytes) -> Plain:
    """What `encode` was given; its arrays are views of `data`. `CheckpointError` says what is wrong with it."""
    if len(data) < _HEAD.size + _DIGEST:
        raise CheckpointError(f"it is cut off after {len(data)} bytes")
    magic, structure, arrays = _HEAD.unpack_from(data)
    if magic[:-1] != _MAGIC[:-1]:
        raise CheckpointError("it is no checkpoint")
    if magic != _MAGIC:
        raise CheckpointError(f"it has format {magic[-1]}, this version reads {_MAGIC[-1]}")
    expected = _HEAD.size + structure + arrays + _DIGEST
    if len(data) != expected:
        raise CheckpointError(f"it has {len(data)} bytes and should have {expected}")
    content = memoryview(data)
    if hashlib.sha256(content[:-_DIGEST]).digest() != data[-_DIGEST:]:
        raise CheckpointError("its checksum does not fit its content")
    end = _HEAD.size + structure
    try:
        read = _Reader(content[end:-_DIGEST])
        plain = read.all(orjson.loads(content[_HEAD.size : end]))
    except (ValueError, TypeError, RecursionError) as error:
        raise CheckpointError(f"its content is not what it should be: {error}") from error
    if read.left:
        raise CheckpointError(f"{read.left} bytes of its arrays belong to none")
    return plain


class _Reader:
    """Puts arrays in their places, each with the bytes that come next."""

    def __init__(self, arrays: memoryview) -> None:
        self._arrays, self._at = arrays, 0

    @property
    def left(self) -> int:
        return len(self._arrays) - self._at

    def all(self, value: Any) -> Plain:
        if isinstance(value, list):
            return [self.all(one) for one in value]
        if not isinstance(value, dict):
            return value
        if len(value) == 1 and _ARRAY in value:
            return self._array(*value[_ARRAY])
        return {key: self.all(one) for key, one in value.items()}

    def _array(self, dtype: str, shape: list[int]) -> NDArray[Any]:
        sizes = isinstance(shape, list) and all(type(size) is int and size >= 0 for size in shape)
        if dtype not in _DTYPES or not sizes or len(shape) > _DIMENSIONS:
            raise ValueError(f"no array has type {dtype!r} and shape {shape!r}")
        length = prod(shape) * np.dtype(dtype).itemsize
        if length > self.left:
            raise ValueError(f"an array of {length} bytes has {self.left}")
        part = self._arrays[self._at : self._at + length]
        self._at += length
        return np.frombuffer(part, dtype).reshape(shape)


# --- files ------------------------------------------------------------------------------------------------


class Found(NamedTuple):
    """A file with a number."""

    number: int
    path: Path


def numbered(directory: Path, suffix: str) -> list[Found]:
    """The files `<number><suffix>` of a directory, the oldest first."""
    found = [Found(int(path.stem), path) for path in directory.glob(f"*{suffix}") if path.stem.isdecimal()]
    return sorted(found)


def name(number: int, suffix: str) -> str:
    """Sorts like its number."""
    return f"{number:012d}{suffix}"


class Checkpoints:
    """The checkpoints of one component, in a directory of its own; OSError when the disk does not want."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def newest_first(self) -> Iterator[Found]:
        """What there is."""
        yield from reversed(numbered(self._directory, _SUFFIX))

    @staticmethod
    def read(found: Found) -> Plain:
        """What is in one; `CheckpointError` when it is not whole."""
        return decode(found.path.read_bytes())

    def write(self, number: int, plain: Plain) -> int:
        """Write one that survives a loss of power once this returns; its size. Then remove all but `KEPT`."""
        path = self._directory / name(number, _SUFFIX)
        partial = path.with_suffix(_UNFINISHED)
        try:
            with open(partial, "wb", opener=_opened) as file:
                size = sum(file.write(part) for part in encode(plain))
                file.flush()
                os.fsync(file.fileno())
            partial.replace(path)
        except BaseException:
            with contextlib.suppress(OSError):
                partial.unlink()
            raise
        sync(self._directory)
        for old in numbered(self._directory, _SUFFIX)[:-KEPT]:
            old.path.unlink()
        return size

    def tidy(self) -> None:
        """Remove what was being written when a process was killed: the next one may need the room."""
        for unfinished in numbered(self._directory, _UNFINISHED):
            unfinished.path.unlink()

    def oldest(self) -> int:
        """The number of the oldest one that is kept; 0 for none."""
        return min((found.number for found in numbered(self._directory, _SUFFIX)), default=0)


def _opened(path: str, flags: int) -> int:
    return os.open(path, flags, 0o640)


def sync(directory: Path) -> None:
    """Let names that were given in a directory survive a loss of power."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
