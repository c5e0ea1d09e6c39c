"""Which service.instance.id a process counts under."""

from __future__ import annotations

import os
import sys
import types
from collections.abc import Iterator
from typing import Any

import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.resources import Resource

import otel_ml
from otel_ml import identity, pipeline


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("OTEL_RESOURCE_ATTRIBUTES", "service.instance.id=pod-1,service.namespace=shop")
    identity._in_environment.cache_clear()
    yield
    identity._in_environment.cache_clear()


def test_an_identity_of_the_environment_is_that_of_the_only_process() -> None:
    """Where nobody has made several processes of the service, nothing is inherited."""
    assert identity.inherited() is None


def test_workers_of_gunicorn_inherit_the_identity_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """All of them have the one that stands there."""
    monkeypatch.setitem(sys.modules, "gunicorn.arbiter", types.ModuleType("gunicorn.arbiter"))
    assert identity.inherited() == "pod-1"


def told(reader: InMemoryMetricReader) -> Any:
    """The identity that our metrics are under."""
    data = reader.get_metrics_data()
    assert data is not None
    return data.resource_metrics[-1].resource.attributes["service.instance.id"]


def predicting(instance: str) -> InMemoryMetricReader:
    """A reader of a process that has predicted under a Resource with this identity, and has not collected yet."""
    reader = InMemoryMetricReader()
    resource = Resource({"service.instance.id": instance})
    pipeline.use(meter_provider=MeterProvider([reader], resource=resource))
    predict(0.0)
    return reader


@otel_ml.observe(model="churn", version="3", spans="off")
def predict(x: float = 0.0) -> float:
    """One row."""
    return 0.5


@pytest.mark.parametrize(("instance", "own"), [("pod-1", False), ("mine", True)])
def test_a_worker_keeps_only_an_identity_that_was_given_to_it(
    instance: str, own: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """That of the environment is everybody's; one that the worker's own code has set is its own."""
    monkeypatch.setitem(sys.modules, "gunicorn.arbiter", types.ModuleType("gunicorn.arbiter"))
    assert (told(predicting(instance)) == instance) == own


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_child_does_not_keep_the_identity_of_its_parent() -> None:
    """Also when the parent has never collected before the fork; the parent keeps it."""
    reader = predicting("mine")
    out, into = os.pipe()
    child = os.fork()
    if child == 0:
        predict(0.0)
        os.write(into, str(told(reader)).encode())
        os._exit(0)
    os.waitpid(child, 0)
    found = os.read(out, 100).decode()
    assert found != "mine"
    assert len(found) == 36
    assert told(reader) == "mine"
