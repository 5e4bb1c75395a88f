"""ASGI middleware for vLLM (``--middleware``) that asks for the key on every path, not ``/v1`` alone."""

from __future__ import annotations

import hmac
import os
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Message, Receive, Send], Awaitable[None]]
_BODY = b'{"error": {"message": "Unauthorized", "type": "invalid_request_error", "code": 401}}'


class KeyEverywhere:
    """Refuses requests without the key of ``VLLM_API_KEY``; without one it refuses all."""

    def __init__(self, app: App) -> None:
        self._app = app
        self._expected = f"Bearer {os.environ['VLLM_API_KEY']}".encode()

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan" or any(
            name == b"authorization" and hmac.compare_digest(value, self._expected)
            for name, value in scope["headers"]
        ):
            await self._app(scope, receive, send)
        elif scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008})
        else:
            headers = [(b"content-type", b"application/json")]
            await send({"type": "http.response.start", "status": 401, "headers": headers})
            await send({"type": "http.response.body", "body": _BODY})
