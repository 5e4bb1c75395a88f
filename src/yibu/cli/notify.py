"""What systemd is told of ``yibu up``: ready, alive, stopping. Nothing where nobody asked.

Source: sd_notify(3), for NOTIFY_SOCKET, WATCHDOG_USEC and WATCHDOG_PID.
"""

from __future__ import annotations

import contextlib
import logging
import os
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from yibu.cli.context import Context
from yibu.errors import YibuError
from yibu.node.client import Client

_log = logging.getLogger(__name__)


@contextmanager
def serving(context: Context, status: str) -> Iterator[None]:
    """Ready inside the block, and alive for as long as the node answers; stopping after it."""
    ended = threading.Event()
    tell(context, READY="1", STATUS=status)
    if seconds := _watchdog(context):
        threading.Thread(
            target=_keep_alive, args=(context, seconds / 3, ended), name="watchdog", daemon=True
        ).start()
    try:
        yield
    finally:
        ended.set()
        tell(context, STOPPING="1")


def tell(context: Context, **state: str) -> None:
    """Send ``NAME=value`` lines to whoever supervises this process."""
    address = context.env.get("NOTIFY_SOCKET", "")
    if not address.startswith(("/", "@")):
        return
    lines = "\n".join(f"{name}={value}" for name, value in state.items())
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as one:
        try:
            one.sendto(lines.encode(), address.replace("@", "\0", 1))
        except OSError as error:  # the service goes on, and systemd says what it misses
            _log.warning("cannot tell systemd %s: %s", lines, error)


def _watchdog(context: Context) -> float:
    """Seconds within which systemd wants a sign of life; 0 when it wants none."""
    owner = context.env.get("WATCHDOG_PID", str(os.getpid()))
    with contextlib.suppress(ValueError):
        if owner == str(os.getpid()):
            return int(context.env.get("WATCHDOG_USEC", "0")) / 1e6
    return 0.0


def _keep_alive(context: Context, interval: float, ended: threading.Event) -> None:
    while not ended.wait(interval):
        try:
            Client(context.paths).call("ping", timeout=interval)
        except YibuError as error:
            _log.warning("the node gives no sign of life: %s", error.message)
            continue
        tell(context, WATCHDOG="1")
