"""Baselines in files: read at the start, and again when they change."""

from __future__ import annotations

import logging
import os
from pathlib import Path

import numpy as np
import pytest

from otel_ml.baseline import Baseline
from otel_ml.errors import ConfigurationError
from otel_ml_collector.files import BaselineFiles


def save(path: Path, model: str = "churn", rows: int = 1000) -> Baseline:
    made = Baseline.fit({"age": np.arange(float(rows))}, model=model, version="1")
    made.save(path)
    return made


def test_baselines_are_read_from_every_file_of_a_directory(tmp_path: Path) -> None:
    """Files whose names end in .baseline.json; others are left alone."""
    for model in ("churn", "fraud"):
        save(tmp_path / f"{model}.baseline.json", model)
    (tmp_path / "notes.json").write_text("{")
    assert [one.model for one in BaselineFiles(str(tmp_path)).read()] == ["churn", "fraud"]


def test_every_baseline_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    """All of them at once."""
    for name in ("a", "b"):
        (tmp_path / f"{name}.baseline.json").write_text("{")
    with pytest.raises(ConfigurationError) as caught:
        BaselineFiles(str(tmp_path)).read()
    assert [name for name in ("a", "b") if f"{name}.baseline.json" in str(caught.value)] == ["a", "b"]


def test_files_are_read_again_only_when_they_change(tmp_path: Path) -> None:
    """A new content, a new file and one that is gone each show; without a change there is nothing new."""
    path, other = tmp_path / "a.baseline.json", tmp_path / "b.baseline.json"
    first = save(path)
    files = BaselineFiles(str(tmp_path))
    assert files.read() == [first]
    assert files.renew() is None
    second, third = save(path, rows=2000), save(other, "fraud")
    assert files.renew() == [second, third]
    path.unlink()
    assert files.renew() == [third]
    assert files.renew() is None


def test_a_bad_file_leaves_the_old_baseline_in_use_and_says_so(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Once for each change; when it is mended, it is read."""
    path = tmp_path / "a.baseline.json"
    first = save(path)
    files = BaselineFiles(str(path))
    files.read()
    path.write_text("{")
    with caplog.at_level(logging.WARNING):
        assert files.renew() == [first]
        assert files.renew() is None
    (said,) = caplog.messages
    assert "a.baseline.json" in said
    assert "the one read before stays in use" in said
    mended = save(path, rows=3000)
    os.utime(path, ns=(1, 1))
    assert files.renew() == [mended]


def test_without_a_path_there_is_nothing_to_read() -> None:
    """Baselines from the wire need no files."""
    assert BaselineFiles(None).read() == []
    assert BaselineFiles(None).renew() is None
