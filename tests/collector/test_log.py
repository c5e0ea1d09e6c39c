"""The service's own log: levels, encodings, components, and lines that come again and again."""

from __future__ import annotations

import asyncio
import io
import json
import logging
from collections.abc import Iterator
from typing import Any

import pytest

from otel_ml_collector import log
from otel_ml_collector.settings import TelemetryLogs

LOG = logging.getLogger("otel_ml_collector.test")


@pytest.fixture(autouse=True)
def _as_before() -> Iterator[None]:
    root, ours = logging.getLogger(), logging.getLogger("otel_ml_collector")
    handlers, level, our_level = root.handlers[:], root.level, ours.level
    root.handlers = []
    yield
    root.handlers = handlers
    root.setLevel(level)
    ours.setLevel(our_level)


def writing(**settings: Any) -> io.StringIO:
    """What is logged from here on."""
    out = io.StringIO()
    log.configure(TelemetryLogs.model_validate(settings), out)
    return out


def test_lines_for_people_have_time_level_and_text() -> None:
    """Set apart by tabs, as the Collector's, with the component as JSON at the end."""
    out = writing()
    with log.about("exporters.otlp/backend"):
        LOG.warning("its queue is full with %d requests", 3)
    time, level, text, fields = out.getvalue().rstrip("\n").split("\t")
    assert time.endswith("Z")
    assert (level, text) == ("warn", "its queue is full with 3 requests")
    component = {"otelcol.component.kind": "exporter", "otelcol.component.id": "otlp/backend"}
    assert json.loads(fields) == component


def test_lines_in_json_are_one_object_each() -> None:
    """Text with lines of its own and tracebacks stay in theirs."""
    out = writing(encoding="json")
    LOG.info("a\nb\x1b[2J")
    try:
        raise ValueError("no")
    except ValueError:
        LOG.exception("failed")
    first, second = map(json.loads, out.getvalue().splitlines())
    assert first.keys() == {"level", "ts", "logger", "msg"}
    assert (first["level"], first["msg"], first["logger"]) == ("info", "a\nb\x1b[2J", LOG.name)
    assert second["level"] == "error"
    assert second["stacktrace"].splitlines()[-1] == "ValueError: no"


def test_text_of_others_cannot_forge_a_line() -> None:
    """What a backend answers may hold anything: its lines are indented, and nothing moves the cursor."""
    out = writing()
    LOG.warning("%s", "no\n2026-01-01T00:00:00.000Z\tinfo\tall is well\x1b[2J\r")
    assert len([line for line in out.getvalue().splitlines() if not line.startswith("  ")]) == 1
    assert "\x1b" not in out.getvalue()
    assert "\r" not in out.getvalue()


@pytest.mark.parametrize(
    ("level", "written"),
    [
        ("debug", ["debug", "info", "warn", "error"]), ("info", ["info", "warn", "error"]),
        ("warn", ["warn", "error"]), ("error", ["error"]),
    ],
)  # fmt: skip
def test_lines_below_the_level_are_left_out(level: str, written: list[str]) -> None:
    """Those of libraries below warnings as well, at any level."""
    out = writing(level=level, encoding="json")
    for method in (LOG.debug, LOG.info, LOG.warning, LOG.error):
        method("text")
    logging.getLogger("hypercorn").info("text")
    assert [json.loads(line)["level"] for line in out.getvalue().splitlines()] == written


async def test_tasks_are_about_the_component_they_began_in() -> None:
    """A record that names another one is about that."""
    out = writing(encoding="json")

    async def work() -> None:
        LOG.info("one")
        LOG.info("two", extra={"about": "processors.ml_drift"})

    with log.about("receivers.otlp"):
        task = asyncio.create_task(work())
        LOG.warning("exporter %s: its queue is full", "otlp/backend")
    await task
    LOG.info("three")
    lines = [json.loads(line) for line in out.getvalue().splitlines()]
    about = [(line.get("otelcol.component.kind"), line.get("otelcol.component.id")) for line in lines]
    assert about == [
        ("exporter", "otlp/backend"), ("receiver", "otlp"), ("processor", "ml_drift"), (None, None),
    ]  # fmt: skip


def test_alike_lines_are_few_in_a_minute() -> None:
    """Those that differ in values only; the next minute's first says how many were left out."""
    now = [0.0]
    repeats = log.Repeats(clock=lambda: now[0])

    def passes(text: str, *values: object) -> logging.LogRecord | None:
        record = LOG.makeRecord(LOG.name, logging.WARNING, "", 0, text, values, None)
        return record if repeats.filter(record) else None

    passed = [passes("%d points are lost", i) for i in range(1000)]
    assert len([one for one in passed if one]) == log.ALIKE
    assert all(passes("%s", f"text {i}") for i in range(50))
    now[0] = 60.0
    record = passes("%d points are lost", 1)
    assert record is not None
    assert record.left_out == 1000 - log.ALIKE  # type: ignore[attr-defined]


def test_a_second_configuration_replaces_the_first() -> None:
    """As a reload does: a line is written once."""
    before, after = writing(), writing(level="warn")
    LOG.info("left out")
    LOG.warning("written")
    assert before.getvalue() == ""
    assert after.getvalue().count("written") == 1
