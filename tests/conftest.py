"""Every test starts with no providers, no registrations and our own failures raised."""

from __future__ import annotations

import os
from collections.abc import Iterator
from importlib.util import find_spec

import pytest

os.environ["OTEL_PYTHON_ML_RAISE"] = "1"
SIGNALS = ("OTEL_EXPORTER", "OTEL_METRIC", "OTEL_TRACES", "OTEL_LOGS")
for name in [name for name in os.environ if name.startswith(SIGNALS)]:
    del os.environ[name]

LIBRARIES = ("xgboost", "lightgbm", "catboost", "onnxruntime", "mlflow")
absent = [name for name in LIBRARIES if find_spec(name) is None]
collect_ignore = ["libraries"] if absent else []


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """What is not collected is said, with the way to run it."""
    if absent and "tests" in terminalreporter.config.args:
        terminalreporter.write_line(
            f"tests/libraries not run, for want of {', '.join(absent)}: make libraries"
        )


@pytest.fixture(autouse=True)
def _fresh_state() -> Iterator[None]:
    from otel_ml import pipeline, registry

    yield
    pipeline.reset()
    registry.reset()
