"""Notifications of ``yibu up`` to systemd: ready, alive, stopping. None where systemd did not ask.

It is given the listening socket too, and gives it to the ``yibu up`` that it starts next, when all of
this one was killed. A ``.socket`` unit would have it from boot on, but start the service again for the
first client after ``yibu down``, and after a failure that starting again does not help.

Sources: sd_notify(3), for NOTIFY_SOCKET, WATCHDOG_USEC, WATCHDOG_PID and FDSTORE.
"""

from __future__ import annotations

import contextlib
import logging
import os
import socket
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from yibu.errors import YibuError
from yibu.management.context import Context

_log = logging.getLogger(__name__)


@contextmanager
def serving(context: Context, status: str) -> Iterator[None]:
    """Ready inside the block, alive while the node answers, stopping after it."""
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


def keep_listeners(context: Context) -> None:
    """Have systemd keep the listening sockets open while it starts this service again."""
    if not context.env.get("NOTIFY_SOCKET"):
        return
    try:
        listeners = context.client.listeners()
    except YibuError as error:  # an older node that runs already: without it, as ever
        _log.warning("systemd is not given the listening socket: %s", error.message)
        return
    tell(context, FDSTOREREMOVE="1", FDNAME="gateway")  # those of another address, before a change
    tell(context, listeners, FDSTORE="1", FDNAME="gateway")
    for listener in listeners:
        listener.close()


def tell(context: Context, listeners: Sequence[socket.socket] = (), **state: str) -> None:
    """Send ``NAME=value`` lines to this process's supervisor."""
    address = context.env.get("NOTIFY_SOCKET", "")
    if not address.startswith(("/", "@")):
        return
    lines = "\n".join(f"{name}={value}" for name, value in state.items())
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as one:
        try:
            one.connect(address.replace("@", "\0", 1))
            socket.send_fds(one, [lines.encode()], [each.fileno() for each in listeners])
        except OSError as error:  # the service goes on, and systemd says what it misses
            _log.warning("cannot tell systemd %s: %s", lines, error)


def _watchdog(context: Context) -> float:
    """The watchdog's interval in seconds; 0 without a watchdog."""
    owner = context.env.get("WATCHDOG_PID", str(os.getpid()))
    with contextlib.suppress(ValueError):
        if owner == str(os.getpid()):
            return int(context.env.get("WATCHDOG_USEC", "0")) / 1e6
    return 0.0


def _keep_alive(context: Context, interval: float, ended: threading.Event) -> None:
    address = None
    while not ended.wait(interval):
        try:
            before, address = address, context.client.call("ping", timeout=interval).get("url")
        except YibuError as error:
            _log.warning("the node gives no sign of life: %s", error.message)
            continue
        if before is not None and address != before:  # `yibu apply` has moved it
            keep_listeners(context)
        tell(context, WATCHDOG="1")
