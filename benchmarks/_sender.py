"""Sends telemetry of a fleet as fast as it is taken, or at a rate, in a process of its own.

    python -m benchmarks._sender '{"port": 4317, "seconds": 5}'

The fleet sends twice at first; then the line `ready` goes out, and a line is waited for. The result is a line of JSON.
"""

from __future__ import annotations

import http.client
import json
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass

import grpc
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
    ExportMetricsServiceResponse,
)
from opentelemetry.proto.metrics.v1.metrics_pb2 import ResourceMetrics

from benchmarks._requests import FEATURES, Request, exported, only, served
from otel_ml import semconv

Send = Callable[[bytes], bytes | None]
"""Sends a request; the answer, None when the server is too busy for now."""

_EXPORT = "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export"
_BASELINE = (semconv.BASELINE_VALUE.name, semconv.BASELINE_OBSERVATIONS.name)
_WHOLE = (
    semconv.FEATURE_VALUE.name, semconv.FEATURE_OBSERVATIONS.name, semconv.PREDICTION_SCORES.name,
    semconv.INFERENCE_ROWS.name, semconv.INFERENCE_DURATION.name,
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Load:
    """Who sends what to where."""

    port: int
    protocol: str = "grpc"
    seconds: float = 4.0
    rate: float = 0.0
    """Points a second, 0 for as many as are taken."""
    models: int = 10
    pods: int = 10
    features: int = FEATURES
    buckets: int = 20
    exports: int = 1
    """Exports of pods in one request: as many as a Collector in between puts together."""
    whole: bool = False
    """All that the SDK exports, the baseline at first; else only the histograms of features."""
    connections: int = 4


@dataclass(slots=True)
class Sent:
    """What came of it."""

    points: int = 0
    requests: int = 0
    rejected: int = 0
    again: int = 0
    """Requests that the server was too busy for, and that were sent again."""
    size: int = 0
    """Bytes of a request."""
    behind: float = 0.0
    """Seconds that the last request went out too late for the rate."""

    def plus(self, other: Sent) -> Sent:
        return Sent(
            self.points + other.points, self.requests + other.requests, self.rejected + other.rejected,
            self.again + other.again, max(self.size, other.size), max(self.behind, other.behind),
        )  # fmt: skip


class _Sender(threading.Thread):
    """One connection, and the requests that go over it, one after the other."""

    def __init__(self, load: Load, requests: list[Request]) -> None:
        super().__init__(daemon=True)
        self._load, self._requests = load, requests
        self._send = _PROTOCOLS[load.protocol](load.port)
        self.sent = Sent()

    def once(self) -> None:
        """An interval's requests."""
        for request in self._requests:
            self._deliver(request)

    def run(self) -> None:
        self.sent = Sent()
        points = sum(one.points for one in self._requests) / len(self._requests)
        pause = points * self._load.connections / self._load.rate if self._load.rate else 0.0
        due = began = time.monotonic()
        i = 0
        while (now := time.monotonic()) < began + self._load.seconds:
            time.sleep(max(0.0, due - now))
            self.sent.behind = max(0.0, time.monotonic() - due) if pause else 0.0
            due += pause
            self._deliver(self._requests[i % len(self._requests)])
            i += 1

    def _deliver(self, request: Request) -> None:
        body, sent = request.next(time.time_ns()), self.sent
        while (answer := self._send(body)) is None:
            sent.again += 1
            time.sleep(0.05)
        sent.points, sent.requests, sent.size = sent.points + request.points, sent.requests + 1, len(body)
        response = ExportMetricsServiceResponse.FromString(answer)
        sent.rejected += response.partial_success.rejected_data_points


def _over_grpc(port: int) -> Send:
    options = [("grpc.use_local_subchannel_pool", 1)]  # else all senders share one connection
    call = grpc.insecure_channel(f"127.0.0.1:{port}", options).unary_unary(_EXPORT, None, None)

    def send(body: bytes) -> bytes | None:
        try:
            answer: bytes = call(body)
        except grpc.RpcError as error:
            if error.code() is not grpc.StatusCode.UNAVAILABLE:
                raise
            return None
        return answer

    return send


def _over_http(port: int) -> Send:
    connection = http.client.HTTPConnection("127.0.0.1", port)
    headers = {"Content-Type": "application/x-protobuf"}

    def send(body: bytes) -> bytes | None:
        connection.request("POST", "/v1/metrics", body, headers)
        answer = connection.getresponse()
        answered = answer.read()
        if answer.status not in (200, 429, 503):
            raise RuntimeError(f"the server answered {answer.status}: {answered!r}")
        return answered if answer.status == 200 else None

    return send


_PROTOCOLS = {"grpc": _over_grpc, "http": _over_http}


def _fleet(load: Load, source: ResourceMetrics) -> list[Request]:
    """The requests that all pods of all models send in an interval."""
    sent, start = only(source, *(_WHOLE if load.whole else _WHOLE[:1])), time.time_ns()
    made = [served(sent, model=model, pod=pod) for model in range(load.models) for pod in range(load.pods)]
    return [Request(made[i : i + load.exports], start=start) for i in range(0, len(made), load.exports)]


def _send_baselines(load: Load, source: ResourceMetrics) -> None:
    send = _PROTOCOLS[load.protocol](load.port)
    for model in range(load.models):
        said = served(only(source, *_BASELINE), model=model, pod=0)
        send(ExportMetricsServiceRequest(resource_metrics=[said]).SerializeToString())


def main() -> None:
    """Send what the argument says."""
    load = Load(**json.loads(sys.argv[1]))
    source = exported(features=load.features, buckets=load.buckets)
    if load.whole:
        _send_baselines(load, source)
    requests = _fleet(load, source)
    senders = [_Sender(load, requests[i :: load.connections]) for i in range(load.connections)]
    for _ in range(2):
        for sender in senders:
            sender.once()
    print("ready", flush=True)
    sys.stdin.readline()
    for sender in senders:
        sender.start()
    sent = Sent()
    for sender in senders:
        sender.join()
        sent = sent.plus(sender.sent)
    print(json.dumps(asdict(sent)), flush=True)


if __name__ == "__main__":
    main()
