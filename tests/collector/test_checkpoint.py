"""Checkpoints: bytes that say what they were given or that they are broken, and files of which one is always whole."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from pointbatches import EVEN, T0, S, Service, batch, engine, reference

from otel_ml_collector.checkpoint import CheckpointError, Checkpoints, decode, encode
from otel_ml_collector.snapshot import Plain, pack, unpack

numbers = st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False, allow_infinity=False)
numeric = arrays.scalar_dtypes().filter(
    lambda dtype: dtype.kind in "iufb" and dtype.str[0] != ">" and dtype.str != "<f2"
)
tables = numeric.flatmap(
    lambda dtype: arrays.arrays(dtype, arrays.array_shapes(min_dims=0, max_dims=3, min_side=0))
)
plain = st.recursive(
    st.none() | st.booleans() | numbers | st.text(st.characters(exclude_categories=["Cs"])) | tables,
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text("abc ✓", max_size=4), inner, max_size=4)
    ),
    max_leaves=12,
)


def written(value: Plain) -> bytes:
    return b"".join(encode(value))


def filled() -> dict[str, Any]:
    """The snapshot of an engine that has something of everything."""
    into, pod = engine(), Service(T0)
    into.ingest(batch(reference(EVEN, T0)), T0)
    for k in range(1, 8):
        pod.rows(EVEN)
        pod.category("basic", 40)
        into.ingest(batch(pod.report(T0 + k * S)), T0 + k * S)
        into.advance(T0 + k * S)
    return into.snapshot()


FILLED = filled()
BYTES = written(FILLED)


def same(one: Plain, other: Plain) -> bool:
    """Whether two are the same, arrays by type and every bit."""
    if isinstance(one, np.ndarray):
        return (one.dtype, one.shape, one.tobytes()) == (other.dtype, other.shape, other.tobytes())
    if isinstance(one, list):
        return len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, dict):
        return list(one) == list(other) and all(same(one[key], other[key]) for key in one)
    return type(one) is type(other) and bool(one == other)


# --- bytes ------------------------------------------------------------------------------------------------


@settings(max_examples=60, deadline=None)
@given(plain)
def test_what_is_written_is_read(value: Plain) -> None:
    """Values, types, order and every bit of an array."""
    assert same(decode(written(value)), value)


def test_the_state_of_an_engine_comes_back_whole() -> None:
    """An engine that goes on from the bytes has the snapshot of the one they are of."""
    other = engine()
    other.restore(decode(BYTES))
    assert same(other.snapshot(), FILLED)


def test_numbers_that_json_cannot_say_are_kept() -> None:
    """A sum beyond 64 bits, infinities and NaN."""
    values = [2**70, -(2**64), float("inf"), -float("inf")]
    assert unpack(decode(written(pack(values)))) == values
    assert np.isnan(unpack(decode(written(pack([float("nan")]))))[0])


@pytest.mark.parametrize(
    "value", [object(), [1j], np.array(["a"]), np.array([object()]), {1: 2}, np.zeros((1,) * 5), b"bytes"]
)
def test_what_is_not_plain_is_refused(value: object) -> None:
    """Before anything is written."""
    with pytest.raises(TypeError):
        encode([value])


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_a_byte_that_changed_is_found(data: st.DataObject) -> None:
    """Wherever it is, there is one clear error."""
    at = data.draw(st.integers(0, len(BYTES) - 1))
    changed = bytearray(BYTES)
    changed[at] ^= data.draw(st.integers(1, 255))
    with pytest.raises(CheckpointError):
        decode(bytes(changed))


@settings(max_examples=100, deadline=None)
@given(st.integers(0, len(BYTES) - 1), st.binary(max_size=40))
def test_a_file_that_is_cut_off_or_longer_is_found(length: int, more: bytes) -> None:
    """Also when something else comes behind it."""
    for broken in (BYTES[:length], BYTES[:length] + more, BYTES + b"\0" + more):
        if broken != BYTES:
            with pytest.raises(CheckpointError):
                decode(broken)


def sealed(structure: bytes, content: bytes = b"") -> bytes:
    """A file whose checksum is right, whatever is in it."""
    head = BYTES[:8] + len(structure).to_bytes(8, "little") + len(content).to_bytes(8, "little")
    body = head + structure + content
    return body + hashlib.sha256(body).digest()


@pytest.mark.parametrize(
    ("structure", "message"),
    [
        ("", "content is not what it should be"),
        ("[1,", "content is not what it should be"),
        ("[" * 2000 + "]" * 2000, "content is not what it should be"),
        ('{"array":["<i8",[1000000000000]]}', "an array of 8000000000000 bytes has 16"),
        ('{"array":["<i8",[-1]]}', "no array has type"),
        ('{"array":["<i8",[true]]}', "no array has type"),
        ('{"array":["|O",[2]]}', "no array has type"),
        ('{"array":["<U2",[2]]}', "no array has type"),
        ('{"array":[["<i8"],[2]]}', "content is not what it should be"),
        ('{"array":["<i8"]}', "content is not what it should be"),
        ('{"array":7}', "content is not what it should be"),
        ('{"array":["<i8",[1,1,1,1,1]]}', "no array has type"),
        ('{"array":["<i8",[0,9223372036854775807,9]]}', "content is not what it should be"),
        ('{"array":["<i8",[1]]}', "8 bytes of its arrays belong to none"),
        ('[{"array":["<i8",[2]]},{"array":["|b1",[1]]}]', "an array of 1 bytes has 0"),
    ],
)
def test_a_structure_that_asks_for_what_is_not_there_is_refused(structure: str, message: str) -> None:
    """Its checksum is right: somebody made it. It gets no memory, no object and no time."""
    with pytest.raises(CheckpointError, match=message):
        decode(sealed(structure.encode(), bytes(16)))


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_whatever_is_inside_either_it_is_read_or_there_is_one_error(data: st.DataObject) -> None:
    """Bytes changed under a right checksum; and what is read then is no state, or is one that an engine takes."""
    size = int.from_bytes(BYTES[8:16], "little")
    structure, content = bytearray(BYTES[24 : 24 + size]), BYTES[24 + size : -32]
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, size - 1))
        structure[at : at + data.draw(st.integers(0, 3))] = data.draw(
            st.sampled_from([b"0", b"9", b"]", b'"', b"{", b"[],"])
        )
    try:
        read = decode(sealed(bytes(structure), content))
    except CheckpointError:
        return
    assert not same(read, FILLED) or orjson.loads(bytes(structure)) == orjson.loads(BYTES[24 : 24 + size])


# --- files ------------------------------------------------------------------------------------------------


def test_the_newest_is_first_and_the_one_before_it_is_kept(tmp_path: Path) -> None:
    """Older ones go, and so does, before it takes room, what a process that was killed had not finished."""
    kept = Checkpoints(tmp_path)
    (tmp_path / "000000000005.partial").write_bytes(b"half")
    kept.tidy()
    assert list(tmp_path.iterdir()) == []
    for number in (7, 8, 9, 10):
        assert kept.write(number, [number]) == (tmp_path / f"{number:012d}.checkpoint").stat().st_size
    assert [found.number for found in kept.newest_first()] == [10, 9]
    assert [kept.read(found) for found in kept.newest_first()] == [[10], [9]]
    assert kept.oldest() == 9
    assert len(list(tmp_path.iterdir())) == 2


def test_one_that_cannot_be_written_leaves_those_before_alone(tmp_path: Path) -> None:
    """And nothing half of itself."""
    kept = Checkpoints(tmp_path)
    kept.write(1, [1])
    with pytest.raises(TypeError):
        kept.write(2, [object()])
    assert [path.name for path in tmp_path.iterdir()] == ["000000000001.checkpoint"]


def test_a_directory_that_does_not_exist_is_an_error_of_the_disk(tmp_path: Path) -> None:
    """The caller goes on without."""
    with pytest.raises(OSError, match="No such file"):
        Checkpoints(tmp_path / "none").write(1, [])


def test_a_full_disk_leaves_nothing_half_written(tmp_path: Path) -> None:
    """ENOSPC from the system itself."""
    kept = Checkpoints(tmp_path)
    kept.write(1, [1])
    (tmp_path / "000000000002.partial").symlink_to("/dev/full")
    with pytest.raises(OSError, match="No space left"):
        kept.write(2, [2])
    assert [path.name for path in tmp_path.iterdir()] == ["000000000001.checkpoint"]
