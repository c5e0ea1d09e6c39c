"""The journal: records in order, up to where it is damaged or cut off."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from otel_ml_collector.journal import ADVANCE, REQUEST, Journal, JournalError, Record, packed, read

RECORDS = [
    Record(REQUEST, 1_000, 0, b"a request"),
    Record(ADVANCE, 2_000, 0),
    Record(REQUEST, 3_000, 2, b""),
    Record(REQUEST, 4_000, 0, bytes(range(256)) * 40),
]
FILE = [HealthCheck.function_scoped_fixture]


def segment(directory: Path, records: list[Record] = RECORDS) -> Path:
    """A segment with these records, as it is on disk."""
    journal = Journal(directory)
    journal.begin(3)
    for record in records:
        assert journal.append(record)
    assert journal.size == 8 + sum(len(packed(record)) for record in records)
    journal.close()
    (found,) = journal.segments()
    assert found.number == 3
    return found.path


def up_to_damage(path: Path) -> tuple[list[Record], bool]:
    """What can be read, and whether it ends in damage."""
    records = []
    try:
        for record in read(path):
            records.append(record)  # noqa: PERF402 - what came before an error counts
    except JournalError:
        return records, True
    return records, False


def test_what_is_written_is_read_in_order(tmp_path: Path) -> None:
    """Requests and advances, with their times, and where in an advance they came."""
    assert list(read(segment(tmp_path))) == RECORDS


def test_each_segment_begins_empty_and_old_ones_go(tmp_path: Path) -> None:
    """Numbers order them, not names or times."""
    journal = Journal(tmp_path, fsync=True)
    for number in (9, 10, 11):
        journal.begin(number)
        journal.append(RECORDS[0])
    assert [found.number for found in journal.segments(since=10)] == [10, 11]
    journal.prune(10)
    assert [found.number for found in journal.segments()] == [10, 11]
    assert [list(read(found.path)) for found in journal.segments()] == [RECORDS[:1]] * 2
    journal.close()


@pytest.mark.parametrize("fsync", [True, False])
def test_a_segment_that_must_survive_a_loss_of_power_has_its_name_synced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fsync: bool
) -> None:
    """Records of a file that has no name any more are lost, however well they were written."""
    synced: list[Path] = []
    monkeypatch.setattr("otel_ml_collector.journal.sync", synced.append)
    journal = Journal(tmp_path, fsync=fsync)
    journal.begin(1)
    journal.close()
    assert synced == [tmp_path] * fsync


def test_without_a_segment_nothing_is_written(tmp_path: Path) -> None:
    """After a failure, until a new one begins."""
    journal = Journal(tmp_path)
    assert not journal.append(RECORDS[0])
    assert list(tmp_path.iterdir()) == []


@settings(max_examples=80, deadline=None, suppress_health_check=FILE)
@given(st.data())
def test_a_record_that_is_cut_off_was_never_answered(tmp_path: Path, data: st.DataObject) -> None:
    """Wherever the process was killed, the whole records count and there is no damage."""
    path = segment(tmp_path)
    ends = [8]
    for record in RECORDS:
        ends.append(ends[-1] + len(packed(record)))
    cut = data.draw(st.integers(0, ends[-1]))
    path.write_bytes(path.read_bytes()[:cut])
    whole = [record for record, end in zip(RECORDS, ends[1:], strict=True) if end <= cut]
    assert up_to_damage(path) == (whole, False)


@settings(max_examples=120, deadline=None, suppress_health_check=FILE)
@given(st.data())
def test_damage_ends_what_is_read_and_is_told_from_a_cut(tmp_path: Path, data: st.DataObject) -> None:
    """A bit that flipped anywhere: what comes before it is as it was, nothing behind it is read."""
    path = segment(tmp_path)
    content = bytearray(path.read_bytes())
    at = data.draw(st.integers(0, len(content) - 1))
    content[at] ^= 1 << data.draw(st.integers(0, 7))
    path.write_bytes(content)
    records, damaged = up_to_damage(path)
    assert damaged
    assert records == RECORDS[: len(records)]
    assert 8 + sum(len(packed(record)) for record in records) <= max(8, at)


def test_a_file_of_something_else_is_damaged(tmp_path: Path) -> None:
    """Also when it is of a format that is yet to come."""
    path = segment(tmp_path)
    path.write_bytes(b"OTELMLJ\x02" + path.read_bytes()[8:])
    with pytest.raises(JournalError, match="is no journal that this version reads"):
        next(read(path))
