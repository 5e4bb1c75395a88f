"""The gateway's websocket protocols, and how each reports an error."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from yibu.errors import RequestError
from yibu.gateway.access import Access
from yibu.gateway.operations import OPERATIONS, Operation


@dataclass(frozen=True, slots=True)
class LiveRoute:
    """One websocket protocol."""

    path: str
    operation: Operation
    """The operation whose models can serve it."""
    error: Callable[[RequestError], dict[str, Any]]
    """Makes the error message of the protocol."""
    access: Access


def _realtime_error(error: RequestError) -> dict[str, Any]:
    fields = {
        "type": error.type,
        "code": error.code,
        "message": error.message,
        "param": error.param,
        "event_id": None,
    }
    return {"type": "error", "event_id": f"event_{secrets.token_hex(12)}", "error": fields}


def _funasr_error(error: RequestError) -> dict[str, Any]:
    return {"mode": "2pass-offline", "text": "", "is_final": False, "error": error.message}


_SPEECH = OPERATIONS["/v1/audio/transcriptions"]
FUNASR = LiveRoute("/ws", _SPEECH, _funasr_error, access="key")
LIVE_ROUTES = {
    route.path: route
    for route in (LiveRoute("/v1/realtime", _SPEECH, _realtime_error, access="key"), FUNASR)
}
