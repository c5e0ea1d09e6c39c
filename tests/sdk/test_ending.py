"""What is sent where the interpreter's last handlers do not run; the integration tests have real servers."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import uvicorn

from otel_ml import _guard, ending


def test_a_flush_that_hangs_does_not_hold_up_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """The end waits for its patience and no longer."""
    monkeypatch.setattr(ending, "PATIENCE", 0.01)
    never = threading.Event()
    ending.bounded(never.wait)
    never.set()


def test_a_flush_that_fails_does_not_fail_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """The failure is counted, and the process ends as it would have."""
    monkeypatch.setenv("OTEL_PYTHON_ML_RAISE", "0")
    _guard.config.settings.cache_clear()
    ending.bounded(lambda: 1 / 0)
    assert _guard.collect(_guard.errors) == {"last_flush": 1}


def test_a_flush_runs_in_a_thread_of_its_own() -> None:
    """The thread that ends may be inside of anything, and hold what the flush needs."""
    seen: list[str] = []
    ending.bounded(lambda: seen.append(threading.current_thread().name))
    assert seen == ["otel-ml-last-flush"]


def test_a_server_of_uvicorn_flushes_when_it_has_shut_down(monkeypatch: pytest.MonkeyPatch) -> None:
    """After its own shutdown, in whatever class is made of it."""
    order: list[str] = []

    async def own(self: uvicorn.Server, sockets: object = None) -> None:
        order.append("own")

    monkeypatch.setattr(uvicorn.Server, "shutdown", own)
    ending.flush_in_libraries(lambda: order.append("flush"))
    asyncio.run(type("Derived", (uvicorn.Server,), {})(uvicorn.Config("")).shutdown())
    assert order == ["own", "flush"]


def test_a_server_ends_when_there_is_no_thread_to_flush_in(monkeypatch: pytest.MonkeyPatch) -> None:
    """The failure is counted; what shutdown does is the application's."""
    monkeypatch.setenv("OTEL_PYTHON_ML_RAISE", "0")
    _guard.config.settings.cache_clear()

    async def own(self: uvicorn.Server, sockets: object = None) -> None:
        asyncio.get_running_loop()._default_executor = Ended()  # type: ignore[attr-defined]

    monkeypatch.setattr(uvicorn.Server, "shutdown", own)
    ending.flush_in_libraries(lambda: None)
    asyncio.run(uvicorn.Server(uvicorn.Config("")).shutdown())
    assert _guard.collect(_guard.errors) == {"last_flush": 1}


class Ended(ThreadPoolExecutor):
    """One that has been shut down."""

    def __init__(self) -> None:
        super().__init__(1)
        self.shutdown()
