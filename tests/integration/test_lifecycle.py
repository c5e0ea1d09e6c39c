"""Starting, stopping and health of the receiver, on real sockets."""

from __future__ import annotations

import asyncio
import http.client
import json
import socket

import pytest
from grpc import aio
from grpc_health.v1 import health_pb2, health_pb2_grpc
from integration.senders import (
    PROTOBUF,
    Batches,
    body,
    call,
    exchange,
    post,
    running,
)
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceResponse

from otel_ml.errors import ConfigurationError
from otel_ml_collector.health import HealthEndpoint
from otel_ml_collector.receiver import Receiver, ReceiverLimits
from otel_ml_collector.settings import HealthCheck


@pytest.fixture
def batches() -> Batches:
    return Batches()


# --- start and stop ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("protocol", ["grpc_endpoint", "http_endpoint"])
async def test_taken_endpoint_is_named(batches: Batches, protocol: str) -> None:
    """An address in use is a configuration error that names it, and nothing keeps listening."""
    with socket.create_server(("127.0.0.1", 0)) as taken, socket.create_server(("127.0.0.1", 0)) as free:
        endpoint, other = (f"127.0.0.1:{held.getsockname()[1]}" for held in (taken, free))
        free.close()
        others = {"grpc_endpoint": other, "http_endpoint": other, protocol: endpoint}
        receiver = Receiver(consume=batches, **others)

        with pytest.raises(ConfigurationError, match=f"endpoint '{endpoint}' is in use by another program"):
            await receiver.start()

    with socket.create_server(("127.0.0.1", int(other.rpartition(":")[2]))):
        pass


async def test_part_of_a_name_in_use_is_an_error(batches: Batches) -> None:
    """localhost counts as taken when another program has 127.0.0.1, even if ::1 is free."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        endpoint = f"localhost:{taken.getsockname()[1]}"
        for protocol in ("grpc_endpoint", "http_endpoint"):
            sides = {"grpc_endpoint": None, "http_endpoint": None, protocol: endpoint}
            with pytest.raises(ConfigurationError, match=f"endpoint '{endpoint}' is in use"):
                await Receiver(consume=batches, **sides).start()


@pytest.mark.parametrize(
    ("endpoint", "message"),
    [
        ("localhost", "'localhost' is not host:port"),
        ("localhost:port", "is not host:port"),
        ("localhost:70000", "is not host:port"),
        ("nowhere.invalid:0", "host of endpoint 'nowhere.invalid:0' is unknown"),
        ("192.0.2.1:0", "cannot listen on endpoint '192.0.2.1:0'"),
    ],
)
async def test_unusable_endpoints_are_explained(batches: Batches, endpoint: str, message: str) -> None:
    """An endpoint that cannot be listened on is a configuration error with the way out."""
    with pytest.raises(ConfigurationError, match=message):
        await Receiver(consume=batches, grpc_endpoint=None, http_endpoint=endpoint).start()


async def test_protocols_can_be_left_out(batches: Batches) -> None:
    """A receiver with one protocol has no port for the other."""
    only_grpc = Receiver(consume=batches, grpc_endpoint="localhost:0", http_endpoint=None)
    await only_grpc.start()
    assert await call(only_grpc, body()) == ExportMetricsServiceResponse()
    assert only_grpc.http_port is None
    await only_grpc.stop(1)

    only_http = Receiver(consume=batches, grpc_endpoint=None, http_endpoint="localhost:0")
    await only_http.start()
    assert (await post(only_http, body()))[0] == 200
    assert only_http.grpc_port is None
    await only_http.stop(1)


async def test_stop_is_prompt_with_idle_connections(batches: Batches) -> None:
    """Connections kept alive between requests do not hold up a stop, and the ports are free after it."""
    async with running(batches, ReceiverLimits()) as receiver:
        connection = http.client.HTTPConnection("127.0.0.1", receiver.http_port, timeout=10)
        await asyncio.to_thread(connection.request, "POST", "/v1/metrics", body(), PROTOBUF)
        assert (await asyncio.to_thread(connection.getresponse)).status == 200
        await asyncio.wait_for(receiver.stop(30), 5)
        connection.close()

    for port in (receiver.grpc_port, receiver.http_port):
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection("127.0.0.1", port)


async def test_stop_breaks_off_requests_after_the_grace(batches: Batches) -> None:
    """A request that does not end is broken off when the grace is over."""
    async with running(batches, ReceiverLimits()) as receiver:
        reader, writer = await asyncio.open_connection("127.0.0.1", receiver.http_port)
        writer.write(
            b"POST /v1/metrics HTTP/1.1\r\nHost: x\r\nContent-Type: application/x-protobuf\r\n"
            b"Content-Length: 100\r\n\r\npart"
        )
        await writer.drain()
        await asyncio.sleep(0.05)
        await asyncio.wait_for(receiver.stop(0.2), 5)
        await asyncio.wait_for(reader.read(), 5)
        writer.close()


# --- health ------------------------------------------------------------------------------------------------


async def test_grpc_health_service(batches: Batches) -> None:
    """The gRPC port answers the standard health check."""
    async with (
        running(batches) as receiver,
        aio.insecure_channel(f"127.0.0.1:{receiver.grpc_port}") as channel,
    ):
        answer = await health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=5)

    assert answer.status == health_pb2.HealthCheckResponse.SERVING


async def test_health_endpoint_follows_readiness() -> None:
    """The health endpoint says 503 until the service is ready, then 200 with the time since."""
    now, ready = 1_000_000.0, False
    health = HealthEndpoint(
        HealthCheck(endpoint="127.0.0.1:0"), lambda: ready, lambda: True, clock=lambda: now
    )
    await health.start()
    port = health.port
    assert port is not None

    before = await asyncio.to_thread(exchange, port, b"", {}, "/", "GET")
    ready = True
    await asyncio.to_thread(exchange, port, b"", {}, "/", "GET")
    now += 12.5
    after = await asyncio.to_thread(exchange, port, b"", {}, "/", "GET")
    await health.stop(1)

    assert (before[0], json.loads(before[1])) == (503, {"status": "Server not available"})
    expected = {"status": "Server available", "upSince": "1970-01-12T13:46:40+00:00", "uptime": "12.500s"}
    assert (after[0], json.loads(after[1])) == (200, expected)
