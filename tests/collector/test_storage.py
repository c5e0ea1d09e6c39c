"""The directory of a file_storage: made, locked, with a place for each component."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from otel_ml.errors import ConfigurationError
from otel_ml_collector.settings import FileStorage
from otel_ml_collector.storage import Directory, set_aside


def directory(path: Path, **settings: bool) -> Directory:
    return Directory(FileStorage(directory=str(path), **settings))


async def test_it_is_made_with_those_above_it(tmp_path):
    """For its user and group only, as the OpenTelemetry Collector makes it."""
    one = directory(tmp_path / "var" / "state")
    await one.start()
    assert (tmp_path / "var" / "state").stat().st_mode & 0o777 == 0o750 & ~_umask()
    await one.stop()


async def test_without_leave_it_is_not_made(tmp_path):
    """Where a mounted volume is missing, nothing is written beside it."""
    with pytest.raises(ConfigurationError, match="cannot be used: No such file or directory; name one"):
        await directory(tmp_path / "state", create_directory=False).start()
    assert list(tmp_path.iterdir()) == []


async def test_two_collectors_cannot_have_one(tmp_path):
    """The second is told which directory it is, and what to do; after the first has ended it can."""
    first, second = directory(tmp_path), directory(tmp_path)
    await first.start()
    with pytest.raises(ConfigurationError, match=f"{tmp_path} is in use by another collector.* or give each"):
        await second.start()
    await first.stop()
    await second.start()
    await second.stop()


async def test_the_lock_ends_with_the_process_that_had_it(tmp_path):
    """After a SIGKILL nothing has to be cleaned up."""
    program = (
        "import asyncio, os, sys\n"
        "from otel_ml_collector.settings import FileStorage\n"
        "from otel_ml_collector.storage import Directory\n"
        "asyncio.run(Directory(FileStorage(directory=sys.argv[1])).start())\n"
        "os.kill(os.getpid(), 9)\n"
    )
    assert subprocess.run([sys.executable, "-c", program, str(tmp_path)], timeout=60).returncode == -9
    one = directory(tmp_path)
    await one.start()
    await one.stop()


def test_components_have_places_of_their_own(tmp_path):
    """Whatever their names are, one is not inside the other."""
    one = directory(tmp_path)
    names = [
        "exporters.otlp",
        "exporters.otlp/b",
        "exporters.otlp%2Fb",
        "exporters.otlp/..",
        "exporters.otlp/ä",
    ]
    places = [one.place(name) for name in names]
    assert len(set(places)) == len(names)
    assert {place.resolve().parent for place in places} == {tmp_path.resolve()}
    assert all(place.is_dir() for place in places)
    assert one.place(names[0]) == places[0]


def test_a_directory_that_went_away_is_made_again(tmp_path):
    """Somebody cleaned up while the collector ran."""
    one = directory(tmp_path / "state")
    assert one.place("exporters.otlp").is_dir()


def test_what_is_set_aside_keeps_its_content_and_the_newest_three_are_kept(tmp_path):
    """A file that is damaged time and again does not fill the disk."""
    path, aside = tmp_path / "metrics.sqlite", []
    for content in ("1", "2", "3", "4", "5"):
        path.write_text(content)
        aside.append(set_aside(path))
    assert [one.read_text() for one in sorted(tmp_path.iterdir())] == ["3", "4", "5"]
    assert sorted(tmp_path.iterdir()) == aside[2:]
    assert all(one.name.startswith("metrics.sqlite.corrupt-2") for one in aside)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
