"""Settings: declared once, read from the environment, wrong values named."""

from __future__ import annotations

import pytest

from otel_ml import ConfigurationError, config


def test_defaults():
    """Without any variable the documented defaults hold."""
    assert config.read({}) == config.Settings(
        queue_bytes=16 * 1024**2, send_baseline=True, baselines="", events_per_call=2000, events_per_second=5000,
        raise_errors=False,
    )  # fmt: skip


def test_environment_overrides_defaults():
    """Each variable is read in its own form."""
    given = {
        "OTEL_PYTHON_ML_QUEUE_BYTES": "1048576",
        "OTEL_PYTHON_ML_SEND_BASELINE": "off",
        "OTEL_PYTHON_ML_BASELINES": "/models",
        "OTEL_PYTHON_ML_EVENTS_PER_CALL": "10",
        "OTEL_PYTHON_ML_EVENTS_PER_SECOND": "20",
        "OTEL_PYTHON_ML_RAISE": "1",
    }
    assert config.read(given) == config.Settings(
        queue_bytes=1048576, send_baseline=False, baselines="/models", events_per_call=10, events_per_second=20,
        raise_errors=True,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("OTEL_PYTHON_ML_QUEUE_BYTES", "12", "expected a number of bytes between 65536 and 1073741824"),
        ("OTEL_PYTHON_ML_QUEUE_BYTES", "lots", "invalid literal"),
        ("OTEL_PYTHON_ML_EVENTS_PER_CALL", "0", "expected a number between 1 and 1000000000"),
        ("OTEL_PYTHON_ML_SEND_BASELINE", "maybe", "expected true or false"),
    ],
)
def test_wrong_values_are_named(name, value, expected):
    """The error has the variable, its value and what is expected."""
    with pytest.raises(ConfigurationError, match=f"{name}={value!r} is not valid: {expected}"):
        config.read({name: value})


def test_a_wrong_value_does_not_stop_the_application(monkeypatch, caplog):
    """In a running application a bad variable is one log line, and its default is used."""
    monkeypatch.setenv("OTEL_PYTHON_ML_QUEUE_BYTES", "12")
    config.settings.cache_clear()
    assert config.settings() == config.Settings()
    assert "OTEL_PYTHON_ML_QUEUE_BYTES='12' is not valid" in caplog.text


def test_variables_of_opentelemetry_exist():
    """Each that the table names is one that OpenTelemetry's packages declare, once."""
    from opentelemetry import environment_variables as api
    from opentelemetry.exporter.prometheus import OTEL_EXPORTER_PROMETHEUS_PORT
    from opentelemetry.instrumentation import environment_variables as instrumentation
    from opentelemetry.sdk import environment_variables as sdk

    declared = {name for module in (api, sdk, instrumentation) for name in vars(module)}
    names = [one.name for one in config.VARIABLES]
    assert set(names) - declared - {OTEL_EXPORTER_PROMETHEUS_PORT} == set()
    assert len(set(names)) == len(names)
