"""Training data in files, read batch by batch: Parquet by row groups, CSV by lines."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from .errors import BaselineError, require

BATCH_ROWS = 65_536

_BUFFER = 1 << 16
"""Bytes read at a time from each column of a Parquet file; without it a whole row group is."""
_CSV_BLOCK = 16 << 20
"""Bytes that one batch is made of. The types of a CSV file's columns follow from the first."""
_CSV = (".csv", ".csv.gz", ".csv.bz2")
_PARQUET = (".parquet", ".parq", ".pq")


class DataFile:
    """The rows of a Parquet or CSV file, or of a directory of Parquet files, as batches: for `fit_batches`.

    May be iterated any number of times; each batch is a pyarrow table of up to `batch_rows` rows (of a CSV file,
    of 16 MiB). Raises `BaselineError` that names the file when it cannot be read, and `MissingDependency`
    without pyarrow: pip install 'otel-ml[parquet]'.
    """

    def __init__(self, path: str | os.PathLike[str], *, batch_rows: int = BATCH_ROWS) -> None:
        self.path = Path(path)
        self._batch_rows = batch_rows
        self._csv = self.path.name.lower().endswith(_CSV)
        self._arrow = require("pyarrow", extra="parquet")
        self._format = require("pyarrow.csv" if self._csv else "pyarrow.parquet", extra="parquet")
        self._files = _files(self.path, csv=self._csv)

    def __repr__(self) -> str:
        return f"DataFile({os.fspath(self.path)!r})"

    def __iter__(self) -> Iterator[Any]:
        for file in self._files:
            with self._reading(file):
                yield from (self._csv_batches(file) if self._csv else self._parquet_batches(file))

    @property
    def rows(self) -> int | None:
        """Rows in all, from the metadata; None for CSV, which has none."""
        if self._csv:
            return None
        total = 0
        for file in self._files:
            with self._reading(file):
                total += self._format.read_metadata(file).num_rows
        return total

    def _parquet_batches(self, file: Path) -> Iterator[Any]:
        with self._format.ParquetFile(file, buffer_size=_BUFFER, pre_buffer=False) as opened:
            for batch in opened.iter_batches(batch_size=self._batch_rows):
                yield self._arrow.Table.from_batches([batch])

    def _csv_batches(self, file: Path) -> Iterator[Any]:
        options = self._format.ReadOptions(block_size=_CSV_BLOCK)
        with self._format.open_csv(file, read_options=options) as opened:
            for batch in opened:
                yield self._arrow.Table.from_batches([batch])

    @contextmanager
    def _reading(self, file: Path) -> Iterator[None]:
        try:
            yield
        except (OSError, self._arrow.ArrowException) as error:
            reason = error.strerror if isinstance(error, OSError) and error.strerror else error
            kind = "CSV" if self._csv else "Parquet"
            raise BaselineError(
                f"data file {os.fspath(file)!r} cannot be read ({reason}); give a valid {kind} file"
            ) from error


def _files(path: Path, *, csv: bool) -> list[Path]:
    if not path.exists():
        raise BaselineError(f"data file {os.fspath(path)!r} does not exist; name a Parquet or CSV file")
    if path.is_dir():
        found = sorted(file for file in path.rglob("*") if file.suffix.lower() in _PARQUET and file.is_file())
        if not found:
            raise BaselineError(
                f"directory {os.fspath(path)!r} holds no file named *.parquet; name a data file"
            )
        return found
    if not csv and path.suffix.lower() not in _PARQUET:
        raise BaselineError(
            f"data file {os.fspath(path)!r} is neither Parquet nor CSV by its name; "
            f"name it one of *{', *'.join((*_PARQUET, *_CSV))}"
        )
    return [path]
