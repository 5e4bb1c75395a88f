"""Which user a connection belongs to: without keys only the node's own user may use the console.

Whoever uses the console can start programs. Another user of the machine, who reaches an open gateway on
loopback like everybody, must not become this user by it; nor must the whole network, through a proxy that
runs under another user.
"""

from __future__ import annotations

import ipaddress
import os
import sys
from collections.abc import Sequence
from pathlib import Path

_TABLES = (Path("/proc/net/tcp"), Path("/proc/net/tcp6"))
_LOCAL, _REMOTE, _UID = 1, 2, 7
"""Columns (proc(5), /proc/net/tcp)."""

Address = Sequence[str | int]
"""Host and port, as ASGI has them."""


def is_own(client: Address | None, server: Address | None) -> bool:
    """Whether the other end of a connection is the node's own user, or root.

    Blocking. Where the system has no such table (macOS), it is taken to be.
    """
    known = [table for table in _TABLES if table.exists()]
    if not known:
        return True
    uid = None if client is None or server is None else _uid(known, client, server)
    return uid is not None and uid in (0, os.geteuid())


def _uid(tables: Sequence[Path], client: Address, server: Address) -> int | None:
    """The user of the client's socket; None where it is not found."""
    wanted = (_plain(str(client[0])), int(client[1])), (_plain(str(server[0])), int(server[1]))
    ends = f":{wanted[0][1]:04X}"
    for table in tables:
        for line in table.read_text("ascii").splitlines()[1:]:
            columns = line.split()
            if not columns[_LOCAL].endswith(ends):
                continue
            if (_address(columns[_LOCAL]), _address(columns[_REMOTE])) == wanted:
                return int(columns[_UID])
    return None


def _address(text: str) -> tuple[str, int]:
    """``0100007F:1F90`` → 127.0.0.1 and 8080: words of four bytes, in the machine's order."""
    digits, _, port = text.partition(":")
    words = [digits[n : n + 8] for n in range(0, len(digits), 8)]
    packed = b"".join(int(word, 16).to_bytes(4, sys.byteorder) for word in words)
    return _plain(str(ipaddress.ip_address(packed))), int(port, 16)


def _plain(address: str) -> str:
    """An IPv4 address mapped into IPv6, as IPv4."""
    found = ipaddress.ip_address(address.partition("%")[0])
    mapped = found.ipv4_mapped if isinstance(found, ipaddress.IPv6Address) else None
    return str(mapped or found)
