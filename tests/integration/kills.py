"""A collector that is killed again and again while services send to it, and what it says beside the truth."""

from __future__ import annotations

import contextlib
import http.client
import random
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np
from integration.collector import CUMULATIVE, DELTA, Collector
from integration.sink import Sink
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import KeyValue
from opentelemetry.proto.metrics.v1.metrics_pb2 import HistogramDataPoint, NumberDataPoint, ScopeMetrics

from otel_ml_collector import build, config
from otel_ml_collector.checkpoint import Checkpoints
from otel_ml_collector.decode import Decoder
from otel_ml_collector.engine import Engine

S = 1_000_000_000
BOUNDS = (-1.0, 0.0, 1.0)
REFERENCE = (1600, 3400, 3400, 1600)
FEATURES = ("age", "income", "tenure", "visits")
CREATED = 1_700_000_000 * S
EVERY = 0.1
"""Seconds between two exports of a service."""

CONFIG = """
extensions: {file_storage: {directory: STATE}}
receivers: {otlp: {protocols: {grpc: {endpoint: "127.0.0.1:0"}, http: {endpoint: "127.0.0.1:0"}}}}
processors:
  ml_drift:
    window: {type: tumbling, length: LENGTHs, lateness: LATENESSs, max_age: 3600s, min_rows: 1}
    interval: LENGTHs
    storage: file_storage
    checkpoint_interval: INTERVALs
    wal: WAL
exporters: {otlphttp: {endpoint: SINK}}
service:
  extensions: [file_storage]
  pipelines: {metrics: {receivers: [otlp], processors: [ml_drift], exporters: [otlphttp]}}
"""

Window = tuple[str, str, int]
"""Model, feature, end in Unix ns."""


class Numbers(NamedTuple):
    """What is said of a window."""

    rows: float
    psi: float | None
    ks: float | None


# --- those who send ---------------------------------------------------------------------------------------


@dataclass
class Pod:
    """A process that serves one model and sends until it is answered, as an SDK that retries does."""

    model: str
    name: str
    temporality: int
    seed: int
    sent: list[tuple[int, bytes]] = field(default_factory=list)
    """Time and body of each request that was answered."""
    rows: dict[str, list[tuple[int, int]]] = field(default_factory=lambda: {name: [] for name in FEATURES})
    """Time and rows of each feature, in these."""
    again: int = 0
    """Requests that had to be sent again."""

    def run(self, port: Callable[[], int], stop: threading.Event) -> None:
        """Send until `stop` is set."""
        rng = np.random.default_rng(self.seed)
        totals = {name: np.zeros(4, np.int64) for name in FEATURES}
        began = before = time.time_ns()
        while not stop.wait(EVERY):
            now = time.time_ns()
            counts = {name: rng.integers(1, 40, 4) for name in FEATURES}
            for name, more in counts.items():
                totals[name] += more
                self.rows[name].append((now, int(more.sum())))
            delta = self.temporality == DELTA
            body = self.request(counts if delta else totals, before if delta else began, now)
            self.again += _until_answered(body, port)
            self.sent.append((now, body))
            before = now

    def request(self, counts: dict[str, np.ndarray], start: int, now: int) -> bytes:
        """An export of its features, and of the baseline."""
        request = ExportMetricsServiceRequest()
        of_resource = request.resource_metrics.add()
        resource = {"service.name": f"{self.model}-api", "service.instance.id": self.name}
        of_resource.resource.attributes.extend(_attributes(resource))
        scope = of_resource.scope_metrics.add()
        scope.scope.name = "otel_ml"
        model = {"ml.model.name": self.model, "ml.model.version": "3"}
        for name, values in counts.items():
            of = {**model, "ml.feature.name": name, "ml.baseline.id": "b1"}
            _histogram(scope, "ml.feature.value", values.tolist(), of, self.temporality, (start, now))
            of["ml.drift.target"] = "feature"
            _histogram(scope, "ml.baseline.value", REFERENCE, of, CUMULATIVE, (CREATED, now))
        rows = scope.metrics.add(name="ml.inference.rows")
        rows.sum.aggregation_temporality = self.temporality  # type: ignore[assignment]
        rows.sum.is_monotonic = True
        total = int(counts[FEATURES[0]].sum())
        rows.sum.data_points.append(
            NumberDataPoint(
                attributes=_attributes(model), start_time_unix_nano=start, time_unix_nano=now, as_int=total
            )
        )
        return request.SerializeToString()


def _histogram(
    scope: ScopeMetrics,
    name: str,
    counts: Sequence[int],
    attributes: dict[str, str],
    temporality: int,
    times: tuple[int, int],
) -> None:
    metric = scope.metrics.add(name=name)
    metric.histogram.aggregation_temporality = temporality  # type: ignore[assignment]
    metric.histogram.data_points.append(
        HistogramDataPoint(
            attributes=_attributes(attributes),
            start_time_unix_nano=times[0],
            time_unix_nano=times[1],
            count=sum(counts),
            bucket_counts=counts,
            explicit_bounds=BOUNDS,
        )
    )


def _attributes(values: dict[str, str]) -> list[KeyValue]:
    made = []
    for key, value in values.items():
        one = KeyValue(key=key)
        one.value.string_value = value
        made.append(one)
    return made


def _until_answered(body: bytes, port: Callable[[], int]) -> int:
    """Send a request until it is taken; how many times it was not."""
    failures = 0
    while True:
        with contextlib.suppress(OSError, http.client.HTTPException):
            connection = http.client.HTTPConnection("127.0.0.1", port(), timeout=5)
            with contextlib.closing(connection):
                connection.request("POST", "/v1/metrics", body, {"Content-Type": "application/x-protobuf"})
                if connection.getresponse().status == 200:
                    return failures
        failures += 1
        time.sleep(0.05)


# --- what happened ----------------------------------------------------------------------------------------


@dataclass
class Seen:
    """What a collector said that was killed, and what it should have said."""

    pods: list[Pod]
    windows: dict[Window, set[Numbers]]
    """What was said of each window, whenever it was."""
    undisturbed: dict[Window, Numbers]
    """What an engine says that nobody killed."""
    totals: dict[tuple[str, str], int]
    """Rows of each model and feature that the last process kept."""
    away: list[float]
    """Seconds from each kill until it was ready again."""
    log: str

    def sent(self, model: str) -> dict[tuple[str, str], int]:
        """Rows of each feature of a model that were answered."""
        totals: Counter[tuple[str, str]] = Counter()
        for pod in self.pods:
            if pod.model == model:
                for name, rows in pod.rows.items():
                    totals[model, name] += sum(count for _, count in rows)
        return dict(totals)

    def kept(self, model: str) -> dict[tuple[str, str], int]:
        """As `sent`, as the collector has it."""
        return {key: rows for key, rows in self.totals.items() if key[0] == model}

    def said(self, model: str) -> dict[Window, Numbers]:
        """The windows of a model that it said something of."""
        return {key: next(iter(values)) for key, values in self.windows.items() if key[0] == model}

    def twice(self) -> list[Window]:
        """Windows of which it said different things."""
        return [window for window, values in self.windows.items() if len(values) > 1]

    def deviations(self, model: str) -> list[float]:
        """Rows by which each window differs from the truth."""
        said = self.said(model)
        return [abs(numbers.rows - self.undisturbed[window].rows) for window, numbers in said.items()]

    def rate(self, model: str) -> float:
        """Rows of a feature in a second, the most in any second."""
        seconds: Counter[int] = Counter()
        for pod in self.pods:
            if pod.model == model:
                for when, count in pod.rows[FEATURES[0]]:
                    seconds[when // S] += count
        return float(max(seconds.values()))

    def __str__(self) -> str:
        lines = [
            f"{len(self.away)} kills, away {min(self.away):.1f} to {max(self.away):.1f} s; "
            f"{sum(len(pod.sent) for pod in self.pods)} requests, {sum(pod.again for pod in self.pods)} sent again; "
            f"{len(self.windows)} windows said, {len(self.twice())} with different values"
        ]
        for model in ("total", "delta"):
            off = self.deviations(model)
            lost = sum(self.sent(model).values()) - sum(self.kept(model).values())
            lines.append(
                f"{model}: {sum(self.sent(model).values())} rows sent, {lost} of them not kept; {len(off)} windows, "
                f"{sum(one > 0 for one in off)} differ, by {max(off, default=0):.0f} rows at most; "
                f"{self.rate(model):.0f} rows in the busiest second"
            )
        return "\n  ".join(lines)


def kills(
    directory: Path,
    *,
    times: int,
    wal: bool,
    interval: float,
    length: int,
    lateness: int,
    up: tuple[float, float],
) -> Seen:
    """Kill a collector as many `times`, each after `up` to `up` seconds, and let it come to its end."""
    started, rng, pods = time.time_ns(), random.Random(7), _pods()
    with Sink(directory / "sink") as sink:
        values = {"STATE": directory / "state", "LENGTH": length, "LATENESS": lateness, "INTERVAL": interval,
                  "WAL": str(wal).lower(), "SINK": sink.http_endpoint}  # fmt: skip
        text = CONFIG
        for name, value in values.items():
            text = text.replace(name, str(value))
        with _Lives(directory, text) as lives:
            with _sending(pods, lives.port):
                for _ in range(times):
                    time.sleep(rng.uniform(*up))
                    lives.kill()
            last = (max(pod.sent[-1][0] for pod in pods) // (length * S) + 1) * length * S
            sink.wait_for(
                lambda received: any(end == last for _, _, end, _ in _windows(received[-20:])),
                timeout=3 * (length + lateness) + 30,
            )
        said: dict[Window, set[Numbers]] = {}
        for model, name, end, numbers in _windows(sink.metrics()):
            said.setdefault((model, name, end), set()).add(numbers)
    undisturbed = _undisturbed(pods, text, started, last)
    return Seen(pods, said, undisturbed, _totals(directory, text), lives.away, lives.log)


def _pods() -> list[Pod]:
    models = (("total", CUMULATIVE), ("delta", DELTA))
    return [
        Pod(model, f"{model}-{k}", temporality, seed=2 * i + k)
        for i, (model, temporality) in enumerate(models)
        for k in range(2)
    ]


@contextlib.contextmanager
def _sending(pods: Sequence[Pod], port: Callable[[], int]) -> Iterator[None]:
    """Let them send; at the end all that they sent was answered."""
    stop = threading.Event()
    threads = [threading.Thread(target=pod.run, args=(port, stop), daemon=True) for pod in pods]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        stop.set()
    for thread in threads:
        thread.join(30)
        assert not thread.is_alive()


class _Lives:
    """One collector after the other, in one directory; the last one is stopped at the end."""

    def __init__(self, directory: Path, text: str) -> None:
        self._directory, self._text = directory, text
        self.away: list[float] = []
        self.log = ""

    def __enter__(self) -> _Lives:
        self._start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end(signal.SIGTERM)

    def _start(self) -> None:
        self._running = Collector(self._directory, self._text)
        self._running.__enter__()

    def _end(self, number: int) -> None:
        self._running.stop(number=number)
        self.log += self._running.stderr

    def kill(self) -> None:
        """SIGKILL, and on with another one."""
        self._end(signal.SIGKILL)
        killed = time.monotonic()
        self._start()
        self.away.append(time.monotonic() - killed)

    def port(self) -> int:
        """Where the one that runs listens; one that nobody listens on between two of them."""
        return self._running.ports.get("http", 1)


def _windows(requests: Sequence[ExportMetricsServiceRequest]) -> Iterator[tuple[str, str, int, Numbers]]:
    """Everything that was said of windows that have ended."""
    for request in requests:
        ends: dict[str, int] = {}
        values: dict[tuple[str, str], dict[str, float]] = {}
        for metric in request.resource_metrics[0].scope_metrics[0].metrics:
            for point in metric.gauge.data_points:
                of = {one.key: one.value.string_value for one in point.attributes}
                model = of.get("ml.model.name", "")
                if metric.name == "ml.drift.window.end":
                    ends[model] = round(point.as_double * 1000) * 1_000_000
                elif metric.name in ("ml.drift.window.rows", "ml.drift.psi", "ml.drift.ks"):
                    at = values.setdefault((model, of["ml.feature.name"]), {})
                    at[metric.name.removeprefix("ml.drift.")] = point.as_double
        for (model, name), at in values.items():
            yield model, name, ends[model], Numbers(at["window.rows"], at.get("psi"), at.get("ks"))


def _engine(text: str, started: int) -> Engine:
    return build.engine(config.parse(text, source="test", environ={}).drift, started=started)


def _undisturbed(pods: Sequence[Pod], text: str, started: int, until: int) -> dict[Window, Numbers]:
    """What an engine says to the same requests, each at its time."""
    engine, decoder, said = _engine(text, started), Decoder(), dict[Window, Numbers]()

    def advance(now: int) -> None:
        for one in engine.advance(now):
            for target in one.targets if one.final else ():
                psi, ks = (target.statistics.get(name) for name in ("psi", "ks"))
                said[one.model.model, target.target.name, one.window_end] = Numbers(target.rows, psi, ks)

    for now, body in sorted(request for pod in pods for request in pod.sent):
        advance(now)
        engine.ingest(decoder.decode(body).batch, now)
    for now in range(max(now for pod in pods for now, _ in pod.sent), until + 3600 * S, S):
        advance(now)
        if now - 60 * S > until:
            break
    return said


def _totals(directory: Path, text: str) -> dict[tuple[str, str], int]:
    """Rows that the newest checkpoint has of each model and feature."""
    (place,) = (directory / "state").iterdir()
    kept = Checkpoints(place)
    engine = _engine(text, 0)
    engine.restore(kept.read(next(kept.newest_first()))["state"]["engine"])
    totals = {}
    for key, model in engine._groups.models.items():
        for target, group in model.groups.items():
            cells = np.concatenate(
                [np.arange(slot.offset, slot.offset + slot.length) for slot in group.slots()]
            )
            _, counts = engine._panes.gather(cells, 0, 2**62, width=S)
            totals[key.model, target.name] = int(counts.sum())
    return totals


def check(seen: Seen, *, wal: bool, interval: float) -> None:
    """What must hold however often it was killed."""
    assert seen.kept("total") == seen.sent("total")
    assert seen.twice() == []
    assert len(seen.said("total")) >= 2 * len(FEATURES)
    if wal:
        assert seen.kept("delta") == seen.sent("delta")
        for model in ("total", "delta"):
            said = seen.said(model)
            assert said == {window: seen.undisturbed[window] for window in said}
    else:
        # A checkpoint is looked for once a second, and what is on its way then is not in it.
        assert max(seen.deviations("total")) <= seen.rate("total") * (interval + 1)
