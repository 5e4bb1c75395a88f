"""Identifiers with the prefix that clients of each API expect."""

from __future__ import annotations

import uuid

PREFIXES = {
    "chat": "chatcmpl-",
    "completions": "cmpl-",
    "responses": "resp_",
    "messages": "msg_",
}


def new_id(kind: str) -> str:
    return PREFIXES.get(kind, "") + uuid.uuid4().hex


def with_prefix(kind: str, given: object) -> str:
    """An engine's id with the prefix of the operation; a new one where it gave none."""
    if not isinstance(given, str) or not given:
        return new_id(kind)
    prefix = PREFIXES.get(kind, "")
    if given.startswith(prefix):
        return given
    other = next((p for p in PREFIXES.values() if given.startswith(p)), "")
    return prefix + given.removeprefix(other)
