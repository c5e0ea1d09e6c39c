"""The programs of these tests: those that are built are built once, by `make interop`."""

from __future__ import annotations

from pathlib import Path

import pytest
from interop import build


@pytest.fixture(scope="session")
def otelcol() -> Path:
    """The OpenTelemetry Collector with core parts; .ci/run has it."""
    return build.collector("core")


@pytest.fixture(scope="session")
def otelcol_full() -> Path:
    """The OpenTelemetry Collector with the load-balancing exporter as well; only `make interop` has it."""
    return build.collector("full")
