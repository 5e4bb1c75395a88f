"""What can be an API key of the gateway's, and where it needs one."""

from __future__ import annotations

import ipaddress

from yibu.messages import tr

MINIMUM_LENGTH = 8


def key_fault(key: str) -> str:
    """Why a text cannot be a key, without repeating it; ``""`` where it can."""
    if len(key) < MINIMUM_LENGTH or not key.isascii() or not key.isprintable() or " " in key:
        return tr(
            "{key_count} characters; a key has at least {MINIMUM_LENGTH} printable ASCII "
            "characters without spaces",
            key_count=len(key),
            MINIMUM_LENGTH=MINIMUM_LENGTH,
        )
    return ""


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches ``host``; a name other than localhost counts as public."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False
