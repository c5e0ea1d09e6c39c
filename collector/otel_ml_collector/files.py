"""Files that are read again when they change: baselines, certificates, tokens."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

from otel_ml.baseline import Baseline
from otel_ml.errors import BaselineError, ConfigurationError

_LOG = logging.getLogger(__name__)
_Stamp = tuple[int, int, int]


class Changes:
    """Tells whether files were written, have come or have gone since it was last asked."""

    def __init__(self, paths: Sequence[str]) -> None:
        self._stamps: dict[Path, _Stamp | None] | None = None
        self._paths = [Path(path) for path in paths]

    def seen(self) -> bool:
        """True the first time, and when something changed."""
        before, self._stamps = self._stamps, {path: _stamp(path) for path in self._paths}
        return before != self._stamps


class BaselineFiles:
    """One file, or the *.baseline.json files of a directory; None: none at all."""

    def __init__(self, path: str | None) -> None:
        self._path = None if path is None else Path(path)
        self._stamps: dict[Path, _Stamp | None] = {}
        self._good: dict[Path, Baseline] = {}

    def read(self) -> list[Baseline]:
        """All of them, at the start; `ConfigurationError` names every file that cannot be used."""
        files = self._files()
        if self._path is not None and not files:
            _LOG.warning("%s has no *.baseline.json file", self._path)
        problems = [str(error) for error in map(self._load, files) if error is not None]
        if problems:
            raise ConfigurationError("\n".join(problems))
        return list(self._good.values())

    def renew(self) -> list[Baseline] | None:
        """All of them, when a file has changed, come or gone since the last time; else None.

        A file that cannot be used leaves the baseline that was read from it before in its place, and says so.
        """
        files = self._files()
        changed = [file for file in files if _stamp(file) != self._stamps.get(file)]
        gone = [file for file in self._stamps if file not in files]
        for file in gone:
            del self._stamps[file]
            self._good.pop(file, None)
            _LOG.info("baseline file %s is gone, and its baseline with it", file)
        for file in changed:
            error = self._load(file)
            if error is None:
                _LOG.info("baseline file %s was read again", file)
            else:
                kept = "the one read before stays in use" if file in self._good else "it is left out"
                _LOG.warning("%s; %s", error, kept)
        return list(self._good.values()) if changed or gone else None

    def _files(self) -> list[Path]:
        if self._path is None:
            return []
        if self._path.is_dir():
            return sorted(self._path.glob("*.baseline.json"))
        return [self._path]

    def _load(self, file: Path) -> BaselineError | None:
        # Before the content: what is written meanwhile is seen the next time.
        self._stamps[file] = _stamp(file)
        try:
            self._good[file] = Baseline.load(file)
        except BaselineError as error:
            return error
        return None


def _stamp(file: Path) -> _Stamp | None:
    try:
        found = file.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino
