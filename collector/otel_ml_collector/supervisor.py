"""Tells the service manager that started this process, by systemd's protocol, how it fares; nothing without one.

https://www.freedesktop.org/software/systemd/man/latest/sd_notify.html
"""

from __future__ import annotations

import contextlib
import os
import socket
import time


def ready(status: str) -> None:
    """It serves, for the first time or again."""
    _tell("READY=1", f"STATUS={status}")


def starting(status: str) -> None:
    """It is not ready yet, and needs up to a minute more."""
    _tell("EXTEND_TIMEOUT_USEC=60000000", f"STATUS={status}")


def reloading() -> None:
    """It reads its configuration; `ready` says that it is done."""
    _tell("RELOADING=1", f"MONOTONIC_USEC={time.monotonic_ns() // 1000}")


def stopping() -> None:
    """It is about to end."""
    _tell("STOPPING=1", "STATUS=sends what waits")


def alive() -> None:
    """Its work goes on; a manager that misses this for WatchdogSec starts it anew."""
    _tell("WATCHDOG=1")


def _tell(*lines: str) -> None:
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address:
        return
    # An abstract socket is written with @ for the zero byte.
    address = f"\0{address[1:]}" if address.startswith("@") else address
    # A manager that is gone or busy must not end us.
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as opened:
        opened.setblocking(False)
        opened.sendto("\n".join(lines).encode(), address)
