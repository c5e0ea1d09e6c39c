"""The collector's receiver with nothing behind it, and gRPC with no receiver on it, to measure what stands below.

python -m benchmarks._noop receiver --ready-file ready.json
python -m benchmarks._noop grpc --ready-file ready.json
"""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path

import grpc

from otel_ml_collector.points import PointBatch
from otel_ml_collector.receiver import Receiver
from otel_ml_collector.signals import METRICS


async def _receiver() -> dict[str, int | None]:
    """A receiver that decodes, and drops what it decoded."""

    def consume(_batch: PointBatch, _body: bytes) -> dict[str, int]:
        return {}

    running = Receiver(consume=consume, grpc_endpoint="127.0.0.1:0", http_endpoint="127.0.0.1:0")
    await running.start()
    return {"grpc": running.grpc_port, "http": running.http_port}


async def _grpc() -> dict[str, int | None]:
    """A gRPC server that answers every request without a look at it."""

    async def export(_body: bytes, _context: object) -> bytes:
        return b""

    server = grpc.aio.server()
    handlers = {"Export": grpc.unary_unary_rpc_method_handler(export)}
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(METRICS.service, handlers),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    _kept.append(server)
    return {"grpc": port}


_kept: list[object] = []
"""A server of gRPC ends when nobody refers to it."""


async def main() -> None:
    """Listen until the process is ended."""
    what, _, ready = sys.argv[1:]
    ports = await {"receiver": _receiver, "grpc": _grpc}[what]()
    partial = Path(f"{ready}.partial")
    partial.write_text(json.dumps(ports))
    partial.rename(ready)
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main())
