"""Room for every service beside one that takes all it can get."""

from __future__ import annotations

from otlp import counter, pairs, request, sum_point

from otel_ml_collector.decode import decode
from otel_ml_collector.drift import Policy
from otel_ml_collector.engine import Engine, Limits
from otel_ml_collector.window import WindowSpec

NOW = 3_000_000_000


def rejected(engine: Engine, service: str, series: range) -> int:
    """How many of these series of a service found no room."""
    points = [sum_point(as_int=1, attributes=pairs(ml_model_name="m", ml_segment_k=str(i))) for i in series]
    batch = decode(request(counter(*points), service_name=service)).batch
    return engine.ingest(batch, NOW).get("limit", 0)


def test_a_service_leaves_a_fifth_to_others() -> None:
    """One that has its share is refused more, others are served until everything is taken."""
    engine = Engine(WindowSpec(), Policy(), Limits(max_streams=100), started=0)

    assert rejected(engine, "greedy", range(300)) == 220
    assert rejected(engine, "modest", range(15)) == 0
    assert rejected(engine, "greedy", range(300)) == 220
    assert rejected(engine, "late", range(15)) == 10
    assert engine.stats()["streams"] == 100
