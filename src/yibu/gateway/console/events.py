"""Server-sent events: streams that end with their client, their session, and the gateway."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Callable, Mapping
from contextlib import aclosing
from typing import Any

import orjson
from fastapi import APIRouter, Request, Response
from starlette.types import Receive, Scope, Send

from yibu.errors import NotReadyError, UnauthorizedError
from yibu.gateway.access import EXCHANGE, allow
from yibu.gateway.console.console import Console
from yibu.gateway.console.overview import full_overview
from yibu.messages import localized

_OVERVIEW = 2.0
_LOOK = 1.0
"""Seconds between two checks whether the stream has to end."""
_SILENCE = 15.0

Event = tuple[str, Any]
"""An event's name and data; the name "" is a comment."""


def add_events(router: APIRouter, console: Console) -> None:
    @router.get("/console/api/events", openapi_extra=allow("console"))
    async def events(request: Request) -> Response:
        return ConsoleStream(console, request, lambda: _node_events(console))


class ConsoleStream(Response):
    """Sends events until the client leaves, the session ends, or the process does."""

    def __init__(
        self, console: Console, request: Request, source: Callable[[], AsyncGenerator[Event | None]]
    ) -> None:
        """``source`` yields None at least every second while nothing happens."""
        super().__init__(status_code=200, media_type="text/event-stream")
        del self.headers["content-length"]
        self.headers["cache-control"] = "no-store"
        self.headers["x-accel-buffering"] = "no"
        self._console = console
        self._source = source
        self._asked_with = request.scope[EXCHANGE].headers
        self._language = request.scope[EXCHANGE].language
        found = console.authentication.sessions.find(self._asked_with)
        self._session = found[0] if found and console.authentication.keys.closed else None

    async def __call__(self, _scope: Scope, _receive: Receive, send: Send) -> None:
        with self._console.stream():
            await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
            async with aclosing(self._source()) as source:
                await self._carry(source, send)
            await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _carry(self, source: AsyncIterator[Event | None], send: Send) -> None:
        loop = asyncio.get_running_loop()
        said = loop.time()
        async for event in source:
            if self._console.ending():
                last = {"reason": "restarting"}
            elif not self._admitted():
                last = {"reason": "signed_out"}
            elif event is not None or loop.time() - said > _SILENCE:
                said = loop.time()
                name, data = event or ("", None)
                await _say(send, (name, localized(data, self._language)))
                continue
            else:
                continue
            await _say(send, ("end", last))
            return

    def _admitted(self) -> bool:
        """Whether the stream's user may still use the console: keys are removed, and the first key
        closes an open gateway."""
        authentication = self._console.authentication
        if self._session is not None:
            return authentication.sessions.holds(self._session)
        try:
            caller = authentication.check("GET", self._asked_with)
        except UnauthorizedError:
            return False
        except (
            NotReadyError
        ):  # keys cannot be read now; those that were known are not known to have ended
            return True
        return caller.admin or not authentication.keys.closed


async def _say(send: Send, event: Event) -> None:
    await send({"type": "http.response.body", "body": _bytes(event), "more_body": True})


def _bytes(event: Event) -> bytes:
    name, data = event
    if not name:
        return b": still here\n\n"
    return b"event: " + name.encode() + b"\ndata: " + orjson.dumps(data) + b"\n\n"


async def _node_events(console: Console) -> AsyncGenerator[Event | None]:
    loop = asyncio.get_running_loop()
    due = 0.0
    told: dict[str, dict[str, Any]] = {}
    with console.manager.events() as events:
        async with aclosing(timed(events)) as several:
            async for event in several:
                if event is not None:
                    yield event["event"], {k: v for k, v in event.items() if k != "event"}
                for job in reversed(console.jobs.all()):
                    if told.get(job.id) != (plain := job.plain()):
                        told[job.id] = plain
                        yield "job", plain
                if loop.time() >= due:
                    yield "overview", await full_overview(console)
                    due = loop.time() + _OVERVIEW
                if event is None:
                    yield None


async def timed(
    events: AsyncIterable[Mapping[str, Any]],
) -> AsyncGenerator[Mapping[str, Any] | None]:
    """The events, with None first and after every second without one."""
    iterator = aiter(events)
    yield None
    coming = asyncio.ensure_future(anext(iterator))
    try:
        while True:
            done, _ = await asyncio.wait({coming}, timeout=_LOOK)
            if not done:
                yield None
                continue
            try:
                event = coming.result()
            except StopAsyncIteration:
                return
            coming = asyncio.ensure_future(anext(iterator))
            yield event
    finally:
        coming.cancel()
        await asyncio.gather(coming, return_exceptions=True)
