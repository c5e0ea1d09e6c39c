"""A queue on disk: what outlives the process, what a disk that fails costs, what is in a damaged file's place."""

from __future__ import annotations

import asyncio
import errno
import os
import resource
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from queues import LATER, NEVER, TAKEN, Backend, item, until

from otel_ml_collector import backlog
from otel_ml_collector.backlog import Backlog
from otel_ml_collector.queue import Outcome, Retry, SendingQueue, Size
from otel_ml_collector.requestfile import RequestFile, Row, Unreadable

FOR_EVER = Retry(initial=1, max_elapsed=0)
AWAY = (LATER,)


@dataclass
class Disk:
    """Queues one after another on one file, as a collector that is started again has them."""

    path: Path
    now: float = 0.0
    backends: list[Backend] = field(default_factory=list)

    def backlog(self) -> Backlog:
        return Backlog("otlp", lambda: self.path, clock=lambda: self.now)

    def queue(self, outcomes: Sequence[Outcome | Exception] = (TAKEN,), *, size: int = 1000) -> SendingQueue:
        self.backends.append(Backend(outcomes))
        return self.backends[-1].queue(size=size, line=self.backlog(), retry=FOR_EVER)

    @property
    def received(self) -> list[bytes]:
        return self.backends[-1].received


@pytest.fixture
def disk(tmp_path: Path) -> Disk:
    return Disk(tmp_path / "metrics.sqlite")


async def offered(queue: SendingQueue, *data: bytes) -> None:
    for one in data:
        assert queue.offer(item(one))
    await queue.stored()


async def left(disk: Disk, *data: bytes) -> None:
    """A collector that took these and was stopped before its backend came back."""
    queue = disk.queue(AWAY)
    await queue.open()
    await offered(queue, *data)
    await queue.stop(0)


async def drained(disk: Disk, *more: bytes) -> list[bytes]:
    """What the next collector, which is offered `more`, sends."""
    queue = disk.queue()
    await queue.open()
    await offered(queue, *more)
    queue.start()
    await until(lambda: len(queue) == 0)
    await queue.stop(10)
    return disk.received


def numbers(*range_: int) -> list[bytes]:
    return [b"%d" % i for i in range(*range_)]


# --- order, restarts ----------------------------------------------------------------------------------------


async def test_what_waits_is_sent_after_a_restart_in_order(disk):
    """What came before the stop goes before what comes after it."""
    await left(disk, b"1", b"2", b"3")
    assert await drained(disk, b"4", b"5") == numbers(1, 6)


async def test_a_stored_request_outlives_a_process_that_is_killed(disk):
    """Nothing of it is only in memory once `stored` returned: here the file is read while the queue lives on."""
    queue = disk.queue(AWAY)
    await offered(queue, b"1", b"2")
    copy = Disk(disk.path.with_name("copy.sqlite"))
    for ending in ("", "-wal"):
        Path(f"{copy.path}{ending}").write_bytes(Path(f"{disk.path}{ending}").read_bytes())
    assert await drained(copy) == [b"1", b"2"]
    await queue.stop(0)


async def test_how_much_waits_is_known_after_a_restart(disk):
    """Requests, what is in them, and their bytes; room is counted with them."""
    await left(disk, b"1", b"23", b"456")
    line = disk.backlog()
    queue = Backend().queue(size=4, line=line)
    await queue.open()
    assert (line.size, line.memory) == (Size(3, 15, 6), 0)
    assert [queue.offer(item(b"7")), queue.offer(item(b"8"))] == [True, False]
    await queue.stop(0)


async def test_what_was_sent_is_gone(disk):
    """The next collector sends none of it again."""
    assert await drained(disk, b"1", b"2", b"3") == [b"1", b"2", b"3"]
    assert await drained(disk) == []


async def test_a_stop_sends_what_the_backend_takes_and_leaves_the_rest(disk):
    """No waiting for a backend that is away, and nothing is counted as lost."""
    queue = disk.queue([TAKEN, LATER])
    await offered(queue, b"1", b"2", b"3")
    queue.start()
    await asyncio.wait_for(queue.stop(30), 10)
    assert disk.received == [b"1", b"2"]
    assert (queue.counts.sent, queue.counts.failed, len(queue)) == (5, 0, 2)
    assert await drained(disk) == [b"2", b"3"]


async def test_a_request_under_way_at_the_stop_is_sent_again(disk):
    """A backend that hangs may or may not have it: at least once."""

    async def hang(data: bytes) -> Outcome:
        await asyncio.Event().wait()
        return TAKEN

    queue = SendingQueue("otlp", hang, line=disk.backlog())
    await offered(queue, b"1", b"2")
    queue.start()
    await asyncio.wait_for(queue.stop(0.05), 10)
    assert (queue.counts.failed, len(queue)) == (0, 2)
    assert await drained(disk) == [b"1", b"2"]


async def test_a_request_that_is_refused_for_good_does_not_wait(disk):
    """It is counted as failed, and the next one has its turn."""
    queue = disk.queue([NEVER, TAKEN])
    await offered(queue, b"1", b"2")
    queue.start()
    await until(lambda: len(queue) == 0)
    await queue.stop(10)
    assert (queue.counts.sent, queue.counts.failed) == (5, 5)
    assert await drained(disk) == []


async def test_a_queue_that_is_stopping_takes_nothing(disk):
    """What it could not write any more would be lost."""
    queue = disk.queue()
    await queue.stop(0)
    assert not queue.offer(item(b"1"))


async def test_senders_that_come_together_are_stored_together(disk):
    """Each knows that its request is on disk, and the order is that of the offers."""
    queue = disk.queue(AWAY)
    await asyncio.gather(*(offered(queue, one) for one in numbers(100)))
    await queue.stop(0)
    assert await drained(disk) == numbers(100)


async def test_a_sender_that_goes_away_leaves_no_half_request(disk):
    """Its request was taken; it is stored once."""
    queue = disk.queue(AWAY)
    for one in numbers(20):
        task = asyncio.create_task(offered(queue, one))
        await asyncio.sleep(0)
        task.cancel()
    await queue.stop(0)
    assert await drained(disk) == numbers(20)


async def test_memory_holds_one_request_however_many_wait(disk):
    """The others are on disk only."""
    line = disk.backlog()
    for _ in range(50):
        line.put(item(b"x" * 1000))
        await line.stored()
    assert (await line.first(), line.memory, line.size.bytes) == (item(b"x" * 1000), 0, 50_000)
    await line.close()


async def test_room_on_disk_is_given_back(disk):
    """A file that was large is small again once all of it was sent, while the queue runs on."""
    line = disk.backlog()
    for _ in range(40):
        line.put(item(bytes(1024 * 1024)))
        await line.stored()
    assert disk.path.stat().st_size > 32 * 1024 * 1024
    while await line.first() is not None:
        await line.done()
    assert disk.path.stat().st_size < 100_000
    line.put(item(b"1"))
    await line.stored()
    await line.close()
    assert await drained(disk) == [b"1"]


# --- a disk that fails --------------------------------------------------------------------------------------


@contextmanager
def full(limit: int) -> Iterator[None]:
    """No file can grow beyond `limit` bytes."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


BODY = bytes(100_000)


async def test_what_a_full_disk_does_not_take_waits_in_memory_and_goes_there_later(disk, caplog):
    """In order, said once, counted; once there is room all of it is on disk."""
    queue, sent = disk.queue(AWAY), [BODY + one for one in numbers(10)]
    with full(500_000):
        await offered(queue, *sent[:3])
        for one in sent[3:9]:
            await offered(queue, one)
            disk.now += 10
        assert caplog.text.count("its queue cannot be written to disk") == 1
        assert 0 < queue.counts.in_memory <= 6 * 5
    disk.now += 10
    await offered(queue, sent[9])
    await queue.stop(0)
    assert (queue.counts.failed, len(queue)) == (0, 10)
    assert await drained(disk) == sent


async def test_a_full_disk_is_not_asked_again_and_again(disk, monkeypatch):
    """After it failed, requests go to memory without it for some seconds."""
    line, tries = disk.backlog(), []
    monkeypatch.setattr(line, "_append", lambda waiting: tries.append(len(waiting)) or _no_space())
    for _ in range(10):
        line.put(item(b"1"))
        await line.stored()
        disk.now += 1
    assert tries == [1, 6]
    await line.close()


def _no_space() -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


async def test_all_that_waits_on_a_full_disk_and_in_memory_is_sent_once_and_in_order(disk):
    """To remove what was sent takes room, too; it is not sent again for the lack of it."""
    queue, sent = disk.queue(), [BODY + one for one in numbers(8)]
    with full(500_000):
        for one in sent:
            await offered(queue, one)
        assert queue.counts.in_memory > 0
        queue.start()
        await until(lambda: len(queue) == 0)
    await queue.stop(10)
    assert disk.received == sent
    assert await drained(disk) == []


async def test_what_is_in_memory_at_the_stop_is_lost_and_counted(disk):
    """The disk has what it took before."""
    queue, sent = disk.queue(AWAY), [BODY + one for one in numbers(8)]
    with full(500_000):
        for one in sent:
            await offered(queue, one)
        waiting = queue.counts.in_memory
        await queue.stop(0)
    assert 0 < waiting < 40
    assert queue.counts.failed == waiting
    assert await drained(disk) == sent[: 8 - waiting // 5]


async def test_a_directory_that_cannot_be_had_leaves_the_queue_in_memory(disk, caplog):
    """A file stands where the directory should be; when it is gone the queue moves in."""
    blocking = disk.path.parent / "directory"
    blocking.write_text("in the way")
    disk.path = blocking / "metrics.sqlite"
    queue = disk.queue(AWAY)
    await queue.open()
    await offered(queue, b"1", b"2")
    assert caplog.text.count("cannot be written to disk") == 1
    assert queue.counts.in_memory == 10
    blocking.unlink()
    blocking.mkdir()
    disk.now += 10
    await offered(queue, b"3")
    await queue.stop(0)
    assert await drained(disk) == [b"1", b"2", b"3"]


async def test_what_waits_from_before_is_found_when_the_disk_comes_back(disk):
    """The disk was not there at the start, and nobody offers anything."""
    await left(disk, b"1", b"2")
    away = disk.path.rename(disk.path.with_name("away"))
    disk.path.mkdir()
    queue = disk.queue()
    await queue.open()
    queue.start()
    await until(lambda: bool(disk.backends[-1].pauses))
    assert disk.received == []
    disk.path.rmdir()
    away.rename(disk.path)
    disk.now += 10
    await until(lambda: disk.received == [b"1", b"2"])
    await queue.stop(10)


async def test_what_cannot_be_removed_is_not_sent_again(disk, monkeypatch):
    """Not while the queue runs, not after the disk works again, not from a file that is written anew."""
    queue = disk.queue()
    with monkeypatch.context() as context:
        context.setattr(RequestFile, "remove", lambda file, ids: _no_space())
        context.setattr(backlog, "delete", lambda path: _no_space())
        await offered(queue, b"1", b"2", b"3")
        queue.start()
        await until(lambda: len(queue) == 0)
    assert disk.received == [b"1", b"2", b"3"]
    disk.now += 10
    await offered(queue, b"4")
    await queue.stop(10)
    assert disk.received == [b"1", b"2", b"3", b"4"]
    assert (await drained(disk), aside(disk)) == ([], [])


async def test_a_full_disk_that_nothing_waits_on_is_freed(disk, monkeypatch):
    """The file goes when its last request was sent, since to remove that takes room."""
    queue = disk.queue()
    monkeypatch.setattr(RequestFile, "remove", lambda file, ids: _no_space())
    await offered(queue, b"1", b"2")
    queue.start()
    await until(lambda: len(queue) == 0 and not disk.path.exists())
    await offered(queue, b"3")
    await until(lambda: len(queue) == 0)
    assert disk.received == [b"1", b"2", b"3"]
    await queue.stop(10)


async def test_a_request_that_went_to_disk_while_it_was_sent_is_sent_once(disk, monkeypatch):
    """It was sent from memory, the disk came back, and failed again when it was to be removed."""
    line = disk.backlog()
    with monkeypatch.context() as context:
        context.setattr(RequestFile, "append", lambda file, rows: _no_space())
        line.put(item(b"1"))
        await line.stored()
        assert await line.first() == item(b"1")
    disk.now += 10
    line.put(item(b"2"))
    await line.stored()
    assert line.memory == 0
    with monkeypatch.context() as context:
        context.setattr(RequestFile, "remove", lambda file, ids: _no_space())
        await line.done()
        assert await line.first() == item(b"2")
    await line.done()
    assert await line.first() is None
    await line.close()
    assert await drained(disk) == []


async def test_what_is_offered_is_stored_though_nobody_waits_for_it(disk):
    """Drift is offered and left alone."""
    line = disk.backlog()
    queue = Backend(AWAY).queue(line=line)
    assert queue.offer(item(b"1"))
    await until(lambda: line.memory == 0)
    await queue.stop(0)
    assert await drained(disk) == [b"1"]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root mounts file systems")
async def test_a_file_system_without_room(tmp_path):
    """A real one: ENOSPC, until somebody frees it."""
    mount = tmp_path / "small"
    mount.mkdir()
    if os.system(f"mount -t tmpfs -o size=1m tmpfs {mount} 2>/dev/null"):
        pytest.skip("this root may not mount file systems")
    try:
        (mount / "other").write_bytes(bytes(300_000))
        disk, sent = Disk(mount / "metrics.sqlite"), [BODY + one for one in numbers(9)]
        queue = disk.queue(AWAY)
        for one in sent:
            await offered(queue, one)
        assert queue.counts.in_memory > 0
        (mount / "other").unlink()
        await queue.stop(0)
        found = await drained(disk)
        assert len(found) > 5
        assert (found, queue.counts.failed) == (sent[: len(found)], 5 * (len(sent) - len(found)))
    finally:
        os.system(f"umount {mount}")


# --- a file that is not what it should be -------------------------------------------------------------------


def aside(disk: Disk) -> list[bytes]:
    return [one.read_bytes() for one in sorted(disk.path.parent.glob("metrics.sqlite.corrupt-*"))]


async def test_a_file_of_garbage_is_set_aside(disk, caplog):
    """It is kept, said, and an empty queue takes its place."""
    disk.path.write_bytes(b"garbage" * 1000)
    assert await drained(disk, b"1") == [b"1"]
    assert aside(disk) == [b"garbage" * 1000]
    assert caplog.text.count("cannot be read: file is not a database; it is kept as") == 1


async def test_a_file_of_another_program_is_set_aside(disk, caplog):
    """What another program wrote is not written to."""
    with sqlite3.connect(disk.path) as db:
        db.execute("CREATE TABLE requests (id INTEGER)")
    db.close()
    written = disk.path.read_bytes()
    assert await drained(disk, b"1") == [b"1"]
    assert aside(disk) == [written]
    assert "another program, or another version of this one, wrote it" in caplog.text


@pytest.mark.parametrize("column", ["items", "size", "id"])
@pytest.mark.parametrize("number", [2**62, -(2**62)])
async def test_a_file_of_numbers_that_cannot_be_is_set_aside(disk, column, number):
    """They would be what the room of the queue is counted in, for as long as the file is there."""
    await left(disk, b"1", b"2")
    with sqlite3.connect(disk.path) as db:
        db.execute(f"UPDATE requests SET {column} = ? + rowid", (number,))
    db.close()
    assert await drained(disk, b"new") == [b"new"]
    assert len(aside(disk)) == 1


@pytest.mark.parametrize("kept", [5000, 30_000, 100_000])
async def test_a_truncated_file_is_set_aside(disk, kept):
    """Whether that shows at the start or when a request is read: what comes is sent."""
    await left(disk, *(BODY[:20_000] for _ in range(10)))
    os.truncate(disk.path, kept)
    assert (await drained(disk, b"new"))[-1] == b"new"
    assert len(aside(disk)) == 1


async def test_a_file_that_is_damaged_while_it_is_used_costs_what_was_in_it(disk, caplog):
    """What could not be read is counted as failed; the request under way and what comes is not."""
    queue = disk.queue([LATER, TAKEN])
    await offered(queue, *(BODY + one for one in numbers(100)))
    queue.start()
    await until(lambda: len(disk.received) == 1)
    with disk.path.open("r+b") as file:
        file.seek(4096)
        file.write(os.urandom(disk.path.stat().st_size - 4096))
    await until(lambda: len(queue) == 0)
    await offered(queue, b"new")
    await queue.stop(10)
    assert disk.received[:2] == [BODY + b"0"] * 2
    assert disk.received[-1] == b"new"
    assert queue.counts.sent + queue.counts.failed == 101 * 5
    assert queue.counts.failed > 0
    assert len(aside(disk)) == 1
    assert caplog.text.count("are lost") == 1


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="open files are found in /proc")
async def test_a_disk_that_cannot_be_read_does_not_hold_up_what_comes(disk, caplog):
    """What was on it is counted as failed and set aside; the queue goes on."""
    queue = disk.queue()
    await offered(queue, *(BODY + one for one in numbers(50)))
    for descriptor in Path("/proc/self/fd").iterdir():
        if os.path.islink(descriptor) and os.readlink(descriptor).startswith(str(disk.path)):
            _not_readable(int(descriptor.name))
    queue.start()
    await until(lambda: len(queue) == 0)
    await offered(queue, b"new")
    await until(lambda: len(queue) == 0)
    await queue.stop(10)
    assert disk.received[-1] == b"new"
    assert queue.counts.sent + queue.counts.failed == 51 * 5
    assert caplog.text.count("cannot be read: disk I/O error; it is kept as") == 1


def _not_readable(descriptor: int) -> None:
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, descriptor)
    os.close(null)


async def test_a_deleted_file_is_written_anew_and_nothing_is_lost(disk, caplog):
    """Somebody cleaned up; what was in it is still open."""
    queue = disk.queue(AWAY)
    await offered(queue, b"1", b"2")
    for one in disk.path.parent.glob("metrics.sqlite*"):
        one.unlink()
    await offered(queue, b"3")
    assert caplog.text.count("was deleted while it was in use") == 1
    await offered(queue, b"4")
    await queue.stop(0)
    assert await drained(disk) == numbers(1, 5)


async def test_a_file_that_is_deleted_while_the_disk_fails_is_counted_as_lost(disk, monkeypatch, caplog):
    """It was closed then, so that nobody has what was in it but for the request under way."""
    line = disk.backlog()
    for one in numbers(3):
        line.put(item(one))
    await line.stored()
    assert await line.first() == item(b"0")
    disk.path.unlink()
    with monkeypatch.context() as context:
        context.setattr(RequestFile, "content", lambda file: _no_space())
        line.put(item(b"3"))
        await line.stored()  # written anew, and not to be opened
    disk.path.unlink()
    disk.now += 10
    await line.stored()
    assert (line.size, line.counts.failed) == (Size(2, 10, 2), 10)
    assert "requests are missing in it" in caplog.text
    await line.done()
    await line.close()
    assert await drained(disk) == [b"3"]


async def test_a_deleted_file_that_cannot_be_written_anew_is_sent_from_and_counted(disk):
    """Its content is there as long as the process; what is left of it at the stop is lost, and said."""
    directory = disk.path.parent / "directory"
    directory.mkdir()
    disk.path = directory / disk.path.name
    queue = disk.queue([TAKEN, TAKEN, LATER])
    await offered(queue, b"1", b"2", b"3", b"4")
    for one in directory.iterdir():
        one.unlink()
    directory.rmdir()
    directory.write_text("in the way")
    await offered(queue, b"5")
    assert queue.counts.in_memory == 5
    queue.start()
    await until(lambda: len(disk.received) > 2)
    await queue.stop(0)
    assert disk.received[:3] == [b"1", b"2", b"3"]
    assert (queue.counts.sent, queue.counts.failed, len(queue)) == (10, 15, 0)


async def test_what_was_sent_is_not_written_anew(disk, monkeypatch):
    """It could not be removed before the file was deleted."""
    queue = disk.queue([TAKEN, LATER])
    with monkeypatch.context() as context:
        context.setattr(RequestFile, "remove", lambda file, ids: _no_space())
        await offered(queue, b"1", b"2")
        queue.start()
        await until(lambda: len(disk.received) > 1)
    disk.path.unlink()
    disk.now += 10
    await queue.stop(0)
    assert await drained(disk) == [b"2"]


async def test_a_request_under_way_when_its_file_is_set_aside_is_not_lost(disk, monkeypatch):
    """It is in memory as well, and goes into the next file, as the first."""
    line = disk.backlog()
    line.put(item(b"1"))
    await line.stored()
    assert await line.first() == item(b"1")
    with monkeypatch.context() as context:
        context.setattr(RequestFile, "append", _damaged(RequestFile.append))
        line.put(item(b"2"))
        await line.stored()
    assert (line.size, line.memory, line.counts.failed) == (Size(2, 10, 2), 0, 0)
    await line.close()
    assert await drained(disk) == [b"1", b"2"]


def _damaged(
    append: Callable[[RequestFile, Iterable[Row]], None],
) -> Callable[[RequestFile, Iterable[Row]], None]:
    """The method, but the first time a page turns out to be damaged."""
    found: list[bool] = []

    def appending(file: RequestFile, rows: Iterable[Row]) -> None:
        if not found:
            found.append(True)
            raise Unreadable("database disk image is malformed")
        append(file, rows)

    return appending


def test_a_commit_that_is_repeated_is_one(disk):
    """The disk said that it failed, and it had not."""
    file = RequestFile(disk.path)
    for _ in range(2):
        file.append([Row(1, 5, b"1"), Row(2, 5, b"2")])
    assert file.content() == (2, 10, 2, 2)
    file.close()


async def test_a_file_that_was_replaced_is_not_written_to(disk):
    """What took its place is kept aside."""
    queue = disk.queue(AWAY)
    await offered(queue, b"1")
    disk.path.unlink()
    disk.path.write_bytes(b"something else")
    await offered(queue, b"2")
    await queue.stop(0)
    assert await drained(disk) == [b"1", b"2"]
    assert aside(disk) == [b"something else"]


async def test_a_file_that_somebody_looks_into_is_waited_for(disk, monkeypatch):
    """A backup holds it for a moment: nothing is set aside, nothing is lost."""
    await left(disk, b"1")
    monkeypatch.setattr("otel_ml_collector.requestfile._LOCKED_FOR", 0.0)
    other = sqlite3.connect(disk.path, isolation_level=None)
    other.execute("BEGIN EXCLUSIVE")
    queue = disk.queue(AWAY)
    await queue.open()
    await offered(queue, b"2")
    assert queue.counts.in_memory == 5
    other.close()
    disk.now += 10
    await offered(queue, b"3")
    await queue.stop(0)
    assert aside(disk) == []
    assert await drained(disk) == [b"1", b"2", b"3"]


def test_not_everybody_may_read_the_file(tmp_path: Path) -> None:
    """Nor its log; one that others could read is narrowed when it is opened."""
    path, log = tmp_path / "a.sqlite", tmp_path / "a.sqlite-wal"
    file = RequestFile(path)
    file.append([Row(1, 1, b"x")])
    assert [one.stat().st_mode & 0o137 for one in (path, log)] == [0, 0]
    file.close()
    path.chmod(0o644)
    RequestFile(path).close()
    assert path.stat().st_mode & 0o777 == 0o640
