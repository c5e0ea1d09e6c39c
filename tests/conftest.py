"""Every test starts with no providers, no registrations and our own failures raised."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

os.environ["OTEL_PYTHON_ML_RAISE"] = "1"
SIGNALS = ("OTEL_EXPORTER", "OTEL_METRIC", "OTEL_TRACES", "OTEL_LOGS")
for name in [name for name in os.environ if name.startswith(SIGNALS)]:
    del os.environ[name]


@pytest.fixture(autouse=True)
def _fresh_state() -> Iterator[None]:
    from otel_ml import pipeline, registry

    yield
    pipeline.reset()
    registry.reset()
