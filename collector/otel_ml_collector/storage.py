"""A directory on disk that one collector has for itself, and what becomes of files in it that cannot be read.

    directory = Directory(settings)
    await directory.start()                       # made, and locked against other collectors
    directory.place("exporters.otlp/backup")      # a sub-directory for one component
    await directory.stop(0)                       # another collector may have it now

The lock is on the directory itself, so that it needs no room and no permission to write. It ends with the process,
however that ends.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from datetime import datetime, timezone
from pathlib import Path
from urllib.parse import quote

from otel_ml.errors import ConfigurationError

from .settings import FileStorage

_MODE = 0o750
"""Of directories that are made here, as in the OpenTelemetry Collector."""
_KEPT = 3
"""Files set aside of one name; older ones go."""


class Directory:
    """The directory of a `file_storage` extension; between `start` and `stop` it is locked."""

    def __init__(self, settings: FileStorage) -> None:
        self.path = Path(settings.directory)
        self.fsync = settings.fsync
        """Whether what is written must survive a loss of power, not only the end of the process."""
        self._create = settings.create_directory
        self._lock: int | None = None

    async def start(self) -> None:
        """Make it, where that is allowed, and lock it; `ConfigurationError` says why that is not possible."""
        try:
            if self._create:
                self.path.mkdir(_MODE, parents=True, exist_ok=True)
            self._lock = _locked(self.path)
        except BlockingIOError as error:
            raise ConfigurationError(
                f"directory {self.path} is in use by another collector, or by another file_storage of this one; "
                "stop the other, or give each a directory of its own"
            ) from error
        except OSError as error:
            raise ConfigurationError(
                f"directory {self.path} cannot be used: {error.strerror}; "
                "name one on a local disk that this user may write to"
            ) from error

    async def stop(self, grace: float = 0) -> None:  # noqa: ARG002 - as of every part
        """Let another collector have it."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def place(self, component: str) -> Path:
        """A sub-directory for the component whose key has this path, like `exporters.otlp/backup`.

        It is made when it is not there. OSError when that is not possible.
        """
        place = self.path / quote(component, safe="")
        place.mkdir(_MODE, parents=True, exist_ok=True)
        return place


def _locked(path: Path) -> int:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        raise
    return descriptor


def set_aside(path: Path) -> Path:
    """Where a file that cannot be read is now: `<name>.corrupt-<UTC time>` beside it; the newest few are kept.

    OSError when it cannot be renamed.
    """
    now = datetime.now(timezone.utc).strftime("%Y%m%dT%H%M%S.%fZ")
    aside = path.with_name(f"{path.name}.corrupt-{now}")
    path.rename(aside)
    for old in sorted(path.parent.glob(f"{path.name}.corrupt-*"))[:-_KEPT]:
        with contextlib.suppress(OSError):
            old.unlink()
    return aside
