"""Which configurations of file_storage and of the queues in it are taken."""

from __future__ import annotations

import pytest

from otel_ml.errors import ConfigurationError
from otel_ml_collector.config import Config, parse
from otel_ml_collector.settings import FileStorage, Otlp

TEXT = """
extensions:
  health_check: {}
  file_storage/a: {directory: DIRECTORY}
  file_storage/b: {directory: DIRECTORY}
receivers: {otlp: {protocols: {grpc: }}}
processors: {ml_drift: {}}
exporters: {otlp: {endpoint: "localhost:14317", tls: {insecure: true}, sending_queue: QUEUE}}
service:
  extensions: [health_check, file_storage/a]
  pipelines: {metrics: {receivers: [otlp], processors: [ml_drift], exporters: [otlp]}}
"""


def read(queue: str, directory: str = "state") -> Config:
    text = TEXT.replace("QUEUE", queue).replace("DIRECTORY", directory)
    return parse(text, source="c.yaml", environ={})


def problem(queue: str, directory: str = "state") -> str:
    with pytest.raises(ConfigurationError) as caught:
        read(queue, directory)
    head, line = str(caught.value).splitlines()
    assert head == "c.yaml: 1 problem"
    return line


def test_a_queue_names_its_storage_and_its_room():
    """With the keys and the defaults of the OpenTelemetry Collector."""
    config = read("{storage: file_storage/a, sizer: bytes, queue_size: 1073741824}")
    exporter, storage = config.exporters["otlp"], config.extensions["file_storage/a"]
    assert isinstance(exporter, Otlp)
    assert isinstance(storage, FileStorage)
    queue = exporter.sending_queue
    assert (queue.storage, queue.sizer, queue.queue_size) == ("file_storage/a", "bytes", 2**30)
    assert (storage.directory, storage.create_directory, storage.fsync) == ("state", True, False)
    default = read("{}").exporters["otlp"]
    assert isinstance(default, Otlp)
    queue, retry = default.sending_queue, default.retry_on_failure
    assert (queue.storage, queue.sizer, queue.queue_size) == (None, "requests", 1000)
    assert (retry.randomization_factor, retry.multiplier) == (0.5, 1.5)


@pytest.mark.parametrize(
    ("queue", "key", "words"),
    [
        (
            "{storage: file_storage/b}",
            "storage",
            "'file_storage/b' is not among service.extensions; add it there",
        ),
        ("{storage: health_check}", "storage", "'health_check' is no file_storage; name one"),
        ("{storage: file_storage/a, enabled: false}", "storage", "does not go with enabled: false"),
        ("{sizer: bytes}", "queue_size", "is 1000 bytes, less than many a request has"),
        ("{sizer: rows}", "sizer", "must be 'requests', 'items' or 'bytes', got 'rows'"),
    ],
)
def test_a_queue_that_cannot_be_is_refused(queue: str, key: str, words: str):
    """With the path of its key, and the way out."""
    said = problem(queue)
    assert said.startswith(f"  exporters.otlp.sending_queue.{key} (line 8): ")
    assert words in said


def test_a_directory_that_cannot_be_is_refused(tmp_path):
    """A file in its place, and one that is not there and may not be made."""
    file = tmp_path / "file"
    file.write_text("")
    assert f"extensions.file_storage/a.directory (line 4): {file} is no directory" in problem("{}", str(file))
    missing = f"{tmp_path / 'missing'}, create_directory: false"
    assert "does not exist; make it, or let create_directory be true" in problem("{}", missing)
