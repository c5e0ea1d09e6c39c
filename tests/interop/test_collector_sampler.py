"""Events behind the probabilistic sampler of the OpenTelemetry Collector: fewer, and still unbiased."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from interop.otelcol import OpenTelemetryCollector, free_ports, written
from opentelemetry.exporter.otlp.proto.grpc._log_exporter import OTLPLogExporter
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk._logs.export import BatchLogRecordProcessor

import otel_ml
from otel_ml import pipeline, sampling, semconv
from otel_ml.sampling.coin import COIN

ROWS, CALL = 20_000, 1_000
TEN_PERCENT = int("e666".ljust(14, "0"), 16)
"""The threshold of the Collector for 10 %, which it writes with four digits."""

CONFIG = """
receivers: {{otlp: {{protocols: {{grpc: {{endpoint: "127.0.0.1:{port}"}}}}}}}}
processors:
  probabilistic_sampler/equalizing: {{mode: equalizing, sampling_percentage: 10}}
  probabilistic_sampler/hash_seed: {{sampling_percentage: 50}}
exporters:
  file/all: {{path: "{directory}/all.pb", format: proto, flush_interval: 100ms}}
  file/equalizing: {{path: "{directory}/equalizing.pb", format: proto, flush_interval: 100ms}}
  file/hash_seed: {{path: "{directory}/hash_seed.pb", format: proto, flush_interval: 100ms}}
service:
  pipelines:
    logs/all: {{receivers: [otlp], exporters: [file/all]}}
    logs/equalizing: {{receivers: [otlp], processors: [probabilistic_sampler/equalizing], exporters: [file/equalizing]}}
    logs/hash_seed: {{receivers: [otlp], processors: [probabilistic_sampler/hash_seed], exporters: [file/hash_seed]}}
"""


@dataclass(frozen=True, slots=True)
class Event:
    """What the estimates need of an event."""

    id: str
    score: float
    threshold: int
    randomness: int

    @property
    def probability(self) -> float:
        """That of all samplers so far, as docs/events.md says."""
        return 1 - self.threshold / 2**56


def events(path: Path) -> list[Event]:
    """The events in a file of the Collector, in their order."""
    return [
        Event(
            said[semconv.PREDICTION_ID].string_value,
            said[semconv.PREDICTION_SCORE].double_value,
            bits(said[semconv.SAMPLING_THRESHOLD].string_value),
            bits(said[semconv.SAMPLING_RANDOMNESS].string_value),
        )
        for request in written(path, ExportLogsServiceRequest)
        for resource in request.resource_logs
        for scope in resource.scope_logs
        for record in scope.log_records
        for said in [{attribute.key: attribute.value for attribute in record.attributes}]
    ]


def bits(text: str) -> int:
    """56 bits in hexadecimal, without the zeros at the end."""
    return int(text.ljust(14, "0"), 16)


@pytest.fixture
def provider(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[LoggerProvider, int]]:
    """A provider that exports to a port that is still free, and the port."""
    monkeypatch.setenv("OTEL_PYTHON_ML_EVENTS_PER_SECOND", "1000000")
    (port,) = free_ports(1)
    made = LoggerProvider(shutdown_on_exit=False)
    exporter = OTLPLogExporter(endpoint=f"http://127.0.0.1:{port}", insecure=True)
    made.add_log_record_processor(BatchLogRecordProcessor(exporter, max_queue_size=10_000))
    yield made, port
    made.shutdown()


def test_estimates_survive_the_collectors_sampler(
    otelcol: Path, tmp_path: Path, provider: tuple[LoggerProvider, int]
) -> None:
    """`equalizing` at 10 %: kept by OpenTelemetry's rule, with the threshold raised, and intervals hold the truth."""
    logs, port = provider
    pipeline.use(logger_provider=logs)
    COIN.seed(11)
    rng = np.random.default_rng(5)
    scores = np.where(rng.random(ROWS) < 0.8, rng.beta(1, 30, ROWS), rng.beta(4, 4, ROWS))
    predict = otel_ml.observe(
        model="churn",
        version="3",
        features=["x"],
        sampler=sampling.Uncertainty("margin", rate=0.15, floor=0.02),
    )(proba)
    with OpenTelemetryCollector(otelcol, tmp_path, CONFIG.format(port=port, directory=tmp_path)):
        for start in range(0, ROWS, CALL):
            predict(scores[start : start + CALL, None])
        logs.force_flush()
    COIN.seed()
    everything, kept = events(tmp_path / "all.pb"), events(tmp_path / "equalizing.pb")

    raised = {e.id: (max(e.threshold, TEN_PERCENT), e.randomness) for e in everything}
    by_the_rule = {id: threshold for id, (threshold, randomness) in raised.items() if randomness >= threshold}
    assert {e.id: e.threshold for e in kept} == by_the_rule
    assert len(kept) == len(by_the_rule) < len(everything)
    assert events(tmp_path / "hash_seed.pb") == []  # docs/events.md warns of that mode

    p, y = [e.probability for e in kept], np.array([e.score for e in kept])
    found = {
        "rows": (sampling.total(np.ones(len(y)), p), ROWS),
        "mean score": (sampling.mean(y, p), scores.mean()),
        "share above 0.5": (sampling.proportion(y > 0.5, p), float((scores > 0.5).mean())),
        "median": (sampling.quantile(y, 0.5, p), float(np.median(scores))),
    }
    print(f"\n{ROWS} rows, {len(everything)} events, {len(kept)} behind the Collector's sampler")
    for name, (estimate, truth) in found.items():
        print(f"{name}: {estimate.value:.4f} {np.round(estimate.interval, 4).tolist()}, truth {truth:.4f}")
        assert estimate.interval[0] <= truth <= estimate.interval[1]
    low, high = found["mean score"][0].interval
    assert not low <= y.mean() <= high  # unweighted it is wrong


def proba(X: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """The model: a probability that is the row's only value."""
    return np.column_stack([1 - X[:, 0], X[:, 0]])
