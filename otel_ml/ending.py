"""Sends what is left where a process ends without the interpreter's last handlers, in which OpenTelemetry's providers
send it: as a child of `multiprocessing`, and as a server of uvicorn, which ends itself by the signal that stopped it.

There is no handler of SIGTERM here: forked children would inherit it, and a signal that reaches a child of a pool
before its interpreter is set up would be lost, so that `Pool.terminate` waits for ever.
"""

from __future__ import annotations

import asyncio
import sys
import threading
from collections.abc import Callable
from typing import Any

import wrapt

from . import _guard

PATIENCE = 5.0
"""Seconds that an end waits at most for the flush: a backend that is away shall not hold up one child after another."""

Flush = Callable[[], object]


def bounded(flush: Flush) -> None:
    """Call `flush` in a thread of its own and wait `PATIENCE` for it.

    The thread that ends may hold locks that the flush needs, and a forked child may have been born with them.
    """

    def guarded() -> None:
        with _guard.guard("last_flush"):
            flush()

    thread = threading.Thread(target=guarded, name="otel-ml-last-flush", daemon=True)
    with _guard.guard("last_flush"):  # no more threads: the interpreter is about to end
        thread.start()
        thread.join(PATIENCE)


def flush_in_libraries(flush: Flush) -> None:
    """Call `flush` at the end of each child of `multiprocessing`, this process included, and of each uvicorn server."""

    def at_exit_of_children(util: Any) -> None:
        with _guard.guard("multiprocessing"):
            _flush_in_children(util, flush)

    def after_uvicorn(server: Any) -> None:
        with _guard.guard("uvicorn"):
            wrapt.wrap_function_wrapper(server, "Server.shutdown", _flushing(flush))

    wrapt.register_post_import_hook(at_exit_of_children, "multiprocessing.util")
    wrapt.register_post_import_hook(after_uvicorn, "uvicorn.server")


def _flush_in_children(util: Any, flush: Flush) -> None:
    """Children end by `os._exit`, after the finalizers of `multiprocessing`; those of the parent they forget."""

    def register(_: object) -> None:
        util.Finalize(None, bounded, args=(flush,), exitpriority=0)

    util.register_after_fork(_flush_in_children, register)
    if sys.modules["multiprocessing.process"].parent_process() is not None:  # begun before it came to us
        register(None)


def _flushing(flush: Flush) -> Callable[..., Any]:
    async def shutdown(wrapped: Callable[..., Any], _: object, args: tuple[Any, ...], kwargs: Any) -> None:
        await wrapped(*args, **kwargs)
        with _guard.guard("last_flush"):  # the loop's threads may have ended before the server
            await asyncio.to_thread(bounded, flush)

    return shutdown
