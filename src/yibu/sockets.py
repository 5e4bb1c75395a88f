"""Sockets that this process was started with, by systemd or the holder of its node; and free ports."""

from __future__ import annotations

import os
import socket
from collections.abc import MutableMapping

_FIRST_FD = 3
"""SD_LISTEN_FDS_START."""


def handed(env: MutableMapping[str, str]) -> dict[str, list[int]]:
    """Descriptors by name, as sd_listen_fds(3) has it; the variables are taken out of ``env``, so that
    no child believes that they are meant for it."""
    for_whom = env.pop("LISTEN_PID", "")
    count = env.pop("LISTEN_FDS", "0")
    names = env.pop("LISTEN_FDNAMES", "").split(":")
    if for_whom != str(os.getpid()) or not count.isdigit():
        return {}
    fds = range(_FIRST_FD, _FIRST_FD + int(count))
    for fd in fds:
        os.set_inheritable(fd, False)
    found: dict[str, list[int]] = {}
    for number, fd in enumerate(fds):
        name = names[number] if number < len(names) else "unknown"
        found.setdefault(name, []).append(fd)
    return found


def port_fault(port: int, host: str = "127.0.0.1") -> OSError | None:
    """Why this machine's port cannot be listened on; None where it is free."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host.strip("[]"), port))
        except OSError as error:
            return error
    return None
