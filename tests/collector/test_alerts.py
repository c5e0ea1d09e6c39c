"""Changes and triggers on their way out of the service, on an injected clock."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from evaluations import AGE, EVALUATION

from otel_ml_collector import config, service
from otel_ml_collector.alerts import MAX_CHANGES, Alerts
from otel_ml_collector.evaluation import Evaluation, Target
from otel_ml_collector.exporter import OtlpExporter
from otel_ml_collector.signals import LOGS
from otel_ml_collector.webhook import WebhookExporter

SECRET = "whsec_" + "A" * 32
CONFIG = """
receivers: {otlp: {protocols: {http: {endpoint: "127.0.0.1:0"}}}}
processors: {ml_drift: {events: true}}
exporters:
  otlphttp: {endpoint: "http://127.0.0.1:1"}
  webhook: {endpoint: "http://127.0.0.1:1", secret: SECRET}
  webhook/fraud: {endpoint: "http://127.0.0.1:1", secret: SECRET, models: [fraud]}
service:
  pipelines:
    metrics: {receivers: [otlp], processors: [ml_drift], exporters: [otlphttp, webhook, webhook/fraud]}
""".replace("SECRET", SECRET)
NOW = EVALUATION.window_end


def running(text: str = CONFIG) -> service.Service:
    return service.Service(config.parse(text, source="test", environ={}))


def of(count: int) -> Evaluation:
    """An evaluation in which as many features drifted."""
    targets = (replace(AGE, target=Target("feature", f"x{i}"), status=1 + i % 2) for i in range(count))
    return replace(EVALUATION, targets=tuple(targets))


def waiting(collector: service.Service) -> tuple[int, int]:
    """Requests with events, and records in them, that wait for their turn."""
    size = collector._parts.of(OtlpExporter)["otlphttp"].queues[LOGS]._line.size
    return size.requests, size.items


async def test_a_thousand_changes_at_once_are_two_requests() -> None:
    """And none when the same is refreshed."""
    collector = running()
    await collector.start()
    collector._alerts.take(of(1000))
    collector._alerts.send({}, NOW)
    assert waiting(collector) == (2, 1000)
    collector._alerts.send({}, NOW)
    assert waiting(collector) == (2, 1000)
    await collector.stop(0)


async def test_more_changes_than_there_is_room_for_are_cut_off_and_said(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The worst of an evaluation come first; what is left out is counted among the collector's own metrics."""
    collector = running()
    await collector.start()
    for _ in range(2):
        collector._alerts.take(of(MAX_CHANGES - 1000))
    collector._alerts.send({}, NOW)
    assert waiting(collector)[1] == MAX_CHANGES
    assert [line for line in caplog.messages if "at once" in line] == [
        "more than 5000 statuses changed at once; events tell of so many, gauges of all"
    ]
    collector._refresh_own()
    counted = {sample.attributes.get("reason"): sample.value for sample in collector._own}
    assert counted["event_limit"] == MAX_CHANGES - 2000
    await collector.stop(0)


async def test_what_was_not_handed_over_is_part_of_the_state() -> None:
    """Changes and triggers of a process that ends before it could send them go out from the next."""
    first, second = running(), running()
    first._alerts.take(of(3))
    first._alerts.look([of(3)], NOW)
    second._alerts.restore(first._alerts.state())
    await second.start()
    second._alerts.send({}, NOW)
    assert waiting(second) == (1, 3)
    webhooks = second._parts.of(WebhookExporter)
    assert [len(webhooks[name].queue) for name in ("webhook", "webhook/fraud")] == [1, 0]
    second._alerts.look([of(3)], NOW)
    second._alerts.send({}, NOW)
    assert (waiting(second), len(webhooks["webhook"].queue)) == ((1, 3), 1)
    await second.stop(0)


async def test_a_state_of_webhooks_that_are_no_more_is_left_out() -> None:
    """And a delivered trigger is not part of it."""
    first = running()
    first._alerts.look([of(3)], NOW)
    (trigger,) = first._alerts._retraining["webhook"].waiting
    first._alerts.delivered("webhook", trigger)
    first._alerts.delivered("another", trigger)
    second = running(CONFIG.replace("webhook/fraud", "webhook/other"))
    second._alerts.restore(first._alerts.state())
    assert _waiting(second._alerts) == {"webhook": [], "webhook/other": []}
    second._alerts.look([of(3)], NOW)
    assert _waiting(second._alerts) == {"webhook": [], "webhook/other": []}


def _waiting(alerts: Alerts) -> dict[str, list[Any]]:
    return {name: list(one.waiting) for name, one in alerts._retraining.items()}
