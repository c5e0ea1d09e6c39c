"""The spans of a service in Jaeger, sent to it straight."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from interop.backends import SERVICE, Jaeger, jaeger, service, train
from interop.prometheus import eventually


@pytest.fixture(scope="module")
def spans(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Jaeger]:
    """A Jaeger that a service has sent its spans to."""
    directory = tmp_path_factory.mktemp("jaeger")
    train(directory)
    with jaeger(directory) as found:
        environment = {
            "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": f"http://{found.otlp}",
            "OTEL_METRICS_EXPORTER": "none",
            "OTEL_LOGS_EXPORTER": "none",
        }
        with service(directory, environment) as told:
            assert told["sent"] is True
            yield found


def span(jaeger: Jaeger, operation: str, **tags: str) -> dict[str, Any]:
    """The span of this name in the only trace that has one with these tags."""
    (trace,) = eventually(lambda: jaeger.search(SERVICE, operation, **tags), what=f"a trace with {tags}")
    (found,) = [one for one in jaeger.trace(trace) if one["operationName"] == operation]
    return found


def tags(span: dict[str, Any]) -> dict[str, tuple[str, Any]]:
    """The type and value of each attribute."""
    return {tag["key"]: (tag["type"], tag["value"]) for tag in span["tags"]}


def test_attributes_keep_their_types(spans: Jaeger) -> None:
    """Numbers are numbers, so that a search can compare them."""
    found = tags(span(spans, "decide churn", **{"ml.model.name": "churn"}))
    assert found["ml.batch.size"] == ("int64", 1)
    assert found["ml.model.version"] == ("string", "3")
    assert found["ml.prediction.score.value"][0] == "float64"
    assert found["span.kind"] == ("string", "internal")


def test_a_call_that_raised_is_an_error(spans: Jaeger) -> None:
    """A search finds it by the type of its error, and the exception is in its log."""
    found = span(spans, "predict churn", **{"error.type": "IndexError"})
    assert tags(found)["otel.status_code"] == ("string", "ERROR")
    (log,) = found["logs"]
    fields = {field["key"]: field["value"] for field in log["fields"]}
    assert (fields["event"], fields["exception.type"]) == ("exception", "IndexError")
