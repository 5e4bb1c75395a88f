"""What both websocket protocols send: JSON objects as text, and bytes."""

from __future__ import annotations

import json
from typing import Any

from yibu.errors import InvalidRequestError

Message = str | bytes | dict[str, Any]


def parse_object(message: Message) -> dict[str, Any]:
    """The JSON object in a text message.

    Raises:
        InvalidRequestError: it is none.
    """
    if isinstance(message, dict):
        return message
    if isinstance(message, bytes):
        raise InvalidRequestError(
            "The message is binary; events are JSON objects in text messages", code="invalid_json"
        )
    try:
        value = json.loads(message)
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        raise InvalidRequestError("The message is not a JSON object", code="invalid_json")
    return value
