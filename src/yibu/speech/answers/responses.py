"""Responses: JSON, OpenAI's error object, server-sent events, and clients that leave."""

from __future__ import annotations

import asyncio
import json
import logging
import math
from collections.abc import AsyncGenerator, Coroutine
from contextlib import ExitStack, aclosing
from typing import Any, TypeVar

from starlette.responses import Response
from starlette.types import Message, Receive, Scope, Send

from yibu.errors import RequestError
from yibu.messages import ENGLISH, render

log = logging.getLogger(__name__)

Result = TypeVar("Result")

CLIENT_GONE = 499
"""nginx's status for a client that closed the connection; nobody receives it, metrics count it."""


class ClientGoneError(Exception):
    """The client closed the connection before its answer was ready."""


class JSONAnswer(Response):
    """JSON as UTF-8, Chinese readable."""

    media_type = "application/json"

    def render(self, content: Any) -> bytes:
        return encoded(content)


def encoded(content: Any) -> bytes:
    return json.dumps(content, ensure_ascii=False, separators=(",", ":")).encode()


def error_object(error: RequestError, language: str = ENGLISH) -> dict[str, Any]:
    """OpenAI's error envelope, its message in the reader's language."""
    return {
        "error": {
            "message": render(error.message, language),
            "type": error.type,
            "param": error.param,
            "code": error.code,
        }
    }


def as_refusal(error: Exception) -> RequestError:
    """The error itself, or for a bug a 500 that keeps its details in the log."""
    if isinstance(error, RequestError):
        return error
    return RequestError("The server failed on this request; its log says why", code="internal")


def error_answer(error: RequestError, *, plain: bool = False, language: str = ENGLISH) -> Response:
    """An error as a response; ``plain`` as the ``/recognize/`` script words it."""
    content = {"error": render(error.message, language)} if plain else error_object(error, language)
    answer = JSONAnswer(content, status_code=error.status)
    if error.retry_after is not None:
        answer.headers["retry-after"] = str(math.ceil(error.retry_after))
    if error.status == 401:
        answer.headers["www-authenticate"] = "Bearer"
    if error.status == 408:
        answer.headers["connection"] = "close"  # the rest of the body is not worth receiving
    return answer


async def unless_gone(receive: Receive, work: Coroutine[Any, Any, Result]) -> Result:
    """Await ``work``, whose request's body was read to its end; cancel it as soon as the client
    closes the connection.

    Raises:
        ClientGoneError: it did.
    """
    task = asyncio.create_task(work, name="request")
    watch = asyncio.create_task(_until_disconnect(receive), name="disconnect watch")
    try:
        await asyncio.wait({task, watch}, return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise ClientGoneError
        return await task
    finally:
        watch.cancel()
        task.cancel()
        await asyncio.wait({task, watch})


async def _until_disconnect(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


class EventStream(Response):
    """Server-sent events. The status line waits for the first event, so that a file that cannot
    be read still answers 400; an error after it is an event of its own.

    ``owned`` is what the events need (the upload, the place in the queue): closed at their end.
    """

    media_type = "text/event-stream"

    def __init__(self, events: AsyncGenerator[dict[str, Any], None], owned: ExitStack) -> None:
        super().__init__(headers={"cache-control": "no-cache", "x-accel-buffering": "no"})
        del self.headers["content-length"]
        self._events = events
        self._owned = owned

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002
        with self._owned:
            await unless_gone(receive, self._send_events(send))

    async def _send_events(self, send: Send) -> None:
        started = False
        async with aclosing(self._events) as events:
            try:
                async for event in events:
                    if not started:
                        started = True
                        await send(self._head())
                    await send(_body(b"data: " + encoded(event) + b"\n\n"))
            except Exception as error:  # the status line is long sent: a bug is told here too
                if not started:
                    raise
                if not isinstance(error, RequestError):
                    log.exception("a stream failed")
                await send(_body(b"data: " + encoded(error_object(as_refusal(error))) + b"\n\n"))
        await send({"type": "http.response.body", "body": b""})

    def _head(self) -> Message:
        return {
            "type": "http.response.start",
            "status": self.status_code,
            "headers": self.raw_headers,
        }


def _body(data: bytes) -> Message:
    return {"type": "http.response.body", "body": data, "more_body": True}
