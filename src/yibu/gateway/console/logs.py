"""Logs of the node and its engines: the last lines, and new ones as they come."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncGenerator, Callable
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response

from yibu.errors import InvalidRequestError
from yibu.gateway.access import allow
from yibu.gateway.console.answers import answer
from yibu.gateway.console.console import Console
from yibu.gateway.console.events import ConsoleStream, Event

_LOOK = 0.5
_MOST = 5000
_BURST = 1000
"""Lines sent at a time; of more in half a second the first are dropped."""

Names = Annotated[list[str], Query()]
Take = Callable[[], list[dict[str, object]]]


def add_logs(router: APIRouter, console: Console) -> None:
    @router.get("/console/api/logs", openapi_extra=allow("console"))
    async def logs() -> Response:
        return answer({"logs": await asyncio.to_thread(console.manager.logs)})

    @router.get("/console/api/logs/lines", openapi_extra=allow("console"))
    async def lines(request: Request, log: Names = []) -> Response:  # noqa: B006 - FastAPI copies it
        wanted = _wanted(request)
        return answer({"lines": await asyncio.to_thread(console.manager.lines, log, wanted)})

    @router.get("/console/api/logs/follow", openapi_extra=allow("console"))
    async def follow(request: Request, log: Names = []) -> Response:  # noqa: B006 - FastAPI copies it
        take = await asyncio.to_thread(console.manager.follow, log, _wanted(request))
        return ConsoleStream(console, request, lambda: _lines(take))


def _wanted(request: Request) -> dict[str, Any]:
    given = request.query_params
    lines = given.get("lines", "200")
    if not re.fullmatch(r"[0-9]{1,4}", lines) or not 1 <= int(lines) <= _MOST:
        raise InvalidRequestError(
            "Invalid 'lines': expected 1 to {limit}, found {lines!r}",
            limit=_MOST,
            lines=lines[:40],
            param="lines",
        )
    texts = {name: given.get(name, "")[:500] for name in ("level", "search", "since")}
    return {"lines": int(lines), **texts}


async def _lines(take: Take) -> AsyncGenerator[Event | None]:
    first = True
    while True:
        rows = await asyncio.to_thread(take)
        if not first and len(rows) > _BURST:
            yield "lost", {"lines": len(rows) - _BURST}
            rows = rows[-_BURST:]
        first = False
        for row in rows:
            yield "line", row
        yield None
        await asyncio.sleep(_LOOK)
