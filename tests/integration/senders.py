"""Senders and a consumer for tests that talk to a running receiver."""

from __future__ import annotations

import asyncio
import http.client
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import pytest
from grpc import aio
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
    ExportMetricsServiceResponse,
)

from otel_ml_collector.decode import DecodeLimits
from otel_ml_collector.points import PointBatch
from otel_ml_collector.receiver import Receiver, ReceiverLimits

EXPORT = "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export"
PROTOBUF = {"Content-Type": "application/x-protobuf"}
SMALL = ReceiverLimits(
    max_recv_msg_size=100_000,
    max_request_body_size=100_000,
    read_timeout=0.5,
    idle_timeout=0.5,
    decode=DecodeLimits(max_points=1000),
)


class Batches:
    """Takes every batch; rejects or refuses when told to."""

    def __init__(self) -> None:
        self.taken: list[PointBatch] = []
        self.rejects: Mapping[str, int] = {}
        self.error: Exception | None = None

    def __call__(self, batch: PointBatch, body: bytes) -> Mapping[str, int]:
        if self.error is not None:
            raise self.error
        self.taken.append(batch)
        return self.rejects

    def points(self) -> dict[str, list[int]]:
        """Values by metric name."""
        return {
            batch.series[batch.index[i]].metric: batch.values[
                batch.offsets[i] : batch.offsets[i + 1]
            ].tolist()
            for batch in self.taken
            for i in range(len(batch))
        }


def body(points: int = 1, value: int = 1) -> bytes:
    """A request with this many points of one counter."""
    request = ExportMetricsServiceRequest()
    metric = request.resource_metrics.add().scope_metrics.add().metrics.add(name="ml.rows")
    metric.sum.aggregation_temporality, metric.sum.is_monotonic = 1, True  # type: ignore[assignment]
    for time in range(1, points + 1):
        metric.sum.data_points.add(time_unix_nano=time, as_int=value)
    return request.SerializeToString()


@asynccontextmanager
async def running(batches: Batches, limits: ReceiverLimits = SMALL) -> AsyncIterator[Receiver]:
    receiver = Receiver(
        consume=batches, grpc_endpoint="127.0.0.1:0", http_endpoint="127.0.0.1:0", limits=limits
    )
    await receiver.start()
    try:
        yield receiver
    finally:
        await receiver.stop(2)


async def post(
    receiver: Receiver,
    data: bytes,
    headers: Mapping[str, str] = PROTOBUF,
    path: str = "/v1/metrics",
    method: str = "POST",
) -> tuple[int, bytes, Mapping[str, str]]:
    """Status, body and headers of the answer to one HTTP request."""
    port = receiver.http_port
    assert port is not None
    return await asyncio.to_thread(exchange, port, data, headers, path, method)


def exchange(
    port: int, data: bytes, headers: Mapping[str, str], path: str, method: str
) -> tuple[int, bytes, Mapping[str, str]]:
    """Status, body and headers of the answer to one HTTP request, from a blocking client."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        connection.request(method, path, data, dict(headers))
        response = connection.getresponse()
        return response.status, response.read(), dict(response.getheaders())
    finally:
        connection.close()


async def call(
    receiver: Receiver, data: bytes, path: str = EXPORT, **options: Any
) -> ExportMetricsServiceResponse:
    """The answer to one gRPC request; raises AioRpcError."""
    async with aio.insecure_channel(f"127.0.0.1:{receiver.grpc_port}") as channel:
        answer = await channel.unary_unary(path)(data, timeout=10, **options)
        return ExportMetricsServiceResponse.FromString(answer)


async def refused(receiver: Receiver, data: bytes, path: str = EXPORT, **options: Any) -> aio.AioRpcError:
    """The error one gRPC request is answered with."""
    with pytest.raises(aio.AioRpcError) as caught:
        await call(receiver, data, path, **options)
    return caught.value


def trailers(error: aio.AioRpcError) -> dict[str, Any]:
    return dict(error.trailing_metadata() or ())
