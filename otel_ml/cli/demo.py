"""`otel-ml demo`: the whole of otel-ml in a minute, every part real.

This process trains the model and serves its traffic; otel-ml-collector runs in another and receives OTLP over the
loopback interface. What is shown of drift is read from the collector's own scrape page.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

import otel_ml

from .. import pipeline, semconv
from ..baseline import Baseline
from . import scrape
from .scenario import EXPECTED, HOURS, MODEL, ROWS_PER_HOUR, VERSION, Expectation, Scenario
from .scrape import Verdict
from .screen import Screen, table

HOUR, FAST_HOUR = 1.0, 0.4
"""Seconds that a simulated hour takes."""
BATCH = 40
"""Rows of one request."""

_CONFIG = """
receivers: {{otlp: {{protocols: {{grpc: {{endpoint: "127.0.0.1:0"}}}}}}}}
processors:
  ml_drift:
    window: {{type: sliding, length: {window}ms, step: {hour}ms, lateness: {hour}ms}}
    interval: {refresh}ms
    fast: {{length: {hour}ms}}
exporters: {{prometheus: {{endpoint: "127.0.0.1:0"}}}}
service: {{pipelines: {{metrics: {{receivers: [otlp], processors: [ml_drift], exporters: [prometheus]}}}}}}
"""
WINDOW_HOURS = 6

Turns = dict[str, list[tuple[float, int]]]
"""By target: the simulated hours at which its status turned, and to what."""


def run(*, fast: bool = False) -> int:
    """Run the demo; 0 when everything that went wrong, and nothing before it, was found."""
    console = Console(highlight=False)
    try:
        return _run(console, FAST_HOUR if fast else HOUR)
    except KeyboardInterrupt:
        console.print("\nstopped")
        return 130


def _run(console: Console, hour: float) -> int:
    console.print("[1/4] training a scikit-learn pipeline on load_diabetes and making its baseline")
    scenario = Scenario()
    with tempfile.TemporaryDirectory(prefix="otel-ml-demo-") as directory:
        path = Path(directory) / f"{MODEL}.baseline.json"
        scenario.baseline().save(path)
        baseline = Baseline.load(path)
        console.print(
            f"      {baseline.rows:,} reference rows, {path.stat().st_size / 1024:.0f} KiB of JSON: {path.name}"
        )
        console.print("[2/4] starting otel-ml-collector in a process of its own")
        with _collector(Path(directory), hour) as ports:
            console.print(
                f"      OTLP on 127.0.0.1:{ports['grpc']}, drift on http://127.0.0.1:{ports['prometheus']}/metrics"
            )
            with _telemetry(ports["grpc"], hour) as spans:
                otel_ml.instrument()
                otel_ml.register(scenario.model, name=MODEL, version=VERSION, baseline=baseline)
                found = _Demo(console, scenario, baseline, ports["prometheus"], hour).serve(spans)
    return _conclude(console, found)


@contextmanager
def _collector(directory: Path, hour: float) -> Iterator[dict[str, int]]:
    """The collector in a child process; yields its ports."""
    ms = hour * 1000
    config, ready = directory / "collector.yaml", directory / "ready.json"
    config.write_text(_CONFIG.format(hour=int(ms), window=int(ms * WINDOW_HOURS), refresh=int(ms)))
    command = [sys.executable, "-m", "otel_ml_collector", "--config", str(config), "--ready-file", str(ready)]
    log = (directory / "collector.log").open("w+")
    process = subprocess.Popen(command, stdout=log, stderr=log, stdin=subprocess.DEVNULL)
    try:
        yield _ports(process, ready, directory / "collector.log")
    finally:
        process.terminate()
        try:
            process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            process.kill()
        log.close()


def _ports(process: subprocess.Popen[bytes], ready: Path, log: Path) -> dict[str, int]:
    deadline = time.monotonic() + 30
    while not ready.exists():
        if process.poll() is not None or time.monotonic() > deadline:
            raise SystemExit(f"otel-ml-collector did not start:\n{log.read_text()}")
        time.sleep(0.05)
    ports: dict[str, int] = json.loads(ready.read_text())
    return ports


@contextmanager
def _telemetry(port: int, hour: float) -> Iterator[Any]:
    """Ordinary OpenTelemetry providers, as an application has them; yields the exporter that keeps spans."""
    from opentelemetry.exporter.otlp.proto.grpc.metric_exporter import OTLPMetricExporter
    from opentelemetry.sdk.metrics import MeterProvider
    from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

    resource = Resource.create({"service.name": "triage-api"})
    exporter = OTLPMetricExporter(endpoint=f"127.0.0.1:{port}", insecure=True)
    reader = PeriodicExportingMetricReader(exporter, export_interval_millis=hour * 250)
    meters, tracers = MeterProvider([reader], resource=resource), TracerProvider(resource=resource)
    spans = InMemorySpanExporter()
    tracers.add_span_processor(SimpleSpanProcessor(spans))
    pipeline.use(meter_provider=meters, tracer_provider=tracers)
    try:
        yield spans
    finally:
        otel_ml.uninstrument()
        tracers.shutdown()
        meters.shutdown()


class _Demo:
    """Serves the traffic of the story and watches what the collector says of it."""

    def __init__(
        self, console: Console, scenario: Scenario, baseline: Baseline, port: int, hour: float
    ) -> None:
        self._console = console
        self._scenario = scenario
        self._url = f"http://127.0.0.1:{port}/metrics"
        self._hour = hour
        self._rows = 0
        self._verdicts: dict[str, Verdict] = {}
        self._turns: Turns = {}
        self._reference = {name: _shares(summary) for name, summary in baseline.features.items()}

    def serve(self, spans: Any) -> Turns:
        """Thirty simulated hours; what turned when."""
        self._console.print(f"[3/4] serving {HOURS} simulated hours, {ROWS_PER_HOUR} rows each\n")
        started, quarter = time.monotonic(), -1
        with Screen(self._console, HOURS, self._reference) as screen:
            while (hour := self._rows / ROWS_PER_HOUR) < HOURS:
                self._scenario.model.predict_proba(self._scenario.traffic(hour, BATCH))
                self._rows += BATCH
                if self._rows == 2 * BATCH:
                    _show_span(self._console, spans)
                if int(hour * 4) != quarter:
                    quarter = int(hour * 4)
                    self._watch(hour, quarter, screen)
                time.sleep(max(0.0, started + hour * self._hour - time.monotonic()))
            self._watch(HOURS, -1, screen)
        self._console.print(table(self._verdicts, self._reference))
        return self._turns

    def _watch(self, hour: float, quarter: int, screen: Screen) -> None:
        for expected in EXPECTED:
            if quarter == 4 * expected.begins:
                screen.tell(hour, f"from now on: {expected.story}")
        if quarter % 20 == 0:
            screen.progress(hour, self._rows)
        self._verdicts = scrape.read(self._url)
        for name, verdict in self._verdicts.items():
            turns, status = self._turns.setdefault(name, []), verdict.status or 0
            if status != (turns[-1][1] if turns else 0):
                turns.append((hour, status))
                screen.turned(hour, name, verdict)
        screen.update(hour, self._rows, self._verdicts)


def _shares(summary: Any) -> list[float]:
    """Shares of the reference in about ten cells, for bars."""
    numeric = summary.kind == "numeric"
    counts = np.asarray(summary.bucket_counts if numeric else list(summary.categories.values()), dtype=float)
    counts = np.add.reduceat(counts, range(0, len(counts), -(-len(counts) // 10)))
    return [float(count) for count in counts / max(counts.sum(), 1.0)]


def _show_span(console: Console, spans: Any) -> None:
    span = spans.get_finished_spans()[-1]
    milliseconds = (span.end_time - span.start_time) / 1e6
    console.print(f"a span of one request: [bold]{span.name}[/bold]  {milliseconds:.2f} ms")
    for key, value in sorted(span.attributes.items()):
        console.print(f"      {key:<30} {value}", style="dim")
    console.print()


def _conclude(console: Console, turns: Turns) -> int:
    """Say what was found and what to do next; 0 when it is the story, the whole story and nothing else."""
    console.print("\n[4/4] what was found")
    complete = True
    for expected in EXPECTED:
        found, right = _outcome(expected, turns.get(expected.feature, []))
        complete = complete and right
        console.print(f"      {expected.feature:<4} {expected.story}", soft_wrap=True)
        console.print(f"           began in hour {expected.begins}: [bold]{found}[/bold]")
    followed = [name for name in ("score", "prediction") if turns.get(name)]
    if followed:
        console.print(f"      the model's {' and '.join(followed)} drifted with them")
    untouched = set(turns) - {expected.feature for expected in EXPECTED} - {"score", "prediction"}
    alarms = sorted(name for name in untouched if turns[name])
    if alarms:
        console.print(f"      false alarms: {', '.join(alarms)}", style="red")
    if not complete or alarms:
        return 1
    console.print(_NEXT, soft_wrap=True)
    return 0


def _outcome(expected: Expectation, turns: list[tuple[float, int]]) -> tuple[str, bool]:
    if turns and turns[0][0] < expected.begins:
        return f"{semconv.STATUSES[turns[0][1]]} in hour {turns[0][0]:.0f}, before it began", False
    if all(status < expected.status for _, status in turns):
        return "NOT found", False
    return ", ".join(f"{semconv.STATUSES[status]} in hour {hour:.0f}" for hour, status in turns), True


_NEXT = """
Three next steps, to copy:

  # where you train
  otel_ml.Baseline.fit(X_train, model="churn", version="3").save("churn.baseline.json")

  # in your service: every scikit-learn model emits spans and metrics
  otel_ml.instrument()
  otel_ml.register(model, name="churn", version="3", baseline="churn.baseline.json")

  # beside it: OTLP in on localhost:4317, drift out on localhost:9464/metrics
  otel-ml-collector
"""
