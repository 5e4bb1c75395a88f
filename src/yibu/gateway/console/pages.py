"""The console's page, its files, and sign-in."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Annotated, Any

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse, RedirectResponse
from pydantic import BaseModel, Field

from yibu.errors import RequestError
from yibu.gateway.access import EXCHANGE, allow
from yibu.gateway.console.access import admit
from yibu.gateway.console.answers import NO_STORE, NotFoundError, body_of
from yibu.gateway.console.console import Console
from yibu.gateway.http.exchange import Exchange
from yibu.gateway.sessions import Authentication, BrowserSession, set_cookie

if TYPE_CHECKING:
    from yibu.gateway.deps import GatewayDeps


class SignIn(BaseModel):
    """The sign-in form."""

    key: Annotated[str, Field(min_length=1, max_length=512, pattern=r"^[!-~]+$")]


def add_pages(router: APIRouter, console: Console) -> None:
    """``/``, ``/console`` and the files."""
    deps = console.deps

    async def page(request: Request) -> Response | None:
        accepts = request.headers.get("accept-encoding", "")
        known = request.headers.get("if-none-match")
        return await asyncio.to_thread(console.assets.page, accepts, known)

    @router.get("/", openapi_extra=allow("open"))
    async def index(request: Request) -> Response:
        if "text/html" in request.headers.get("accept", ""):
            return await page(request) or RedirectResponse("/docs", status_code=307)
        greeting = {
            "message": "yibu is running",
            "version": deps.version,
            "models": "/v1/models",
            "docs": "/docs",
            "console": "/console",
        }
        return JSONResponse(greeting, headers={"vary": "accept"})

    @router.get("/console", openapi_extra=allow("open"))
    async def console_page(request: Request) -> Response:
        return await page(request) or RedirectResponse("/docs", status_code=307)

    @router.get("/console/assets/{digest}/{name:path}", openapi_extra=allow("open"))
    async def asset(digest: str, name: str, request: Request) -> Response:
        accepts = request.headers.get("accept-encoding", "")
        known = request.headers.get("if-none-match")
        found = await asyncio.to_thread(console.assets.file, digest, name, accepts, known)
        if found is None:
            raise NotFoundError("The console has no file {name!r}", name=name[:100])
        return found

    _add_session(router, deps, console.authentication)


def _add_session(router: APIRouter, deps: GatewayDeps, authentication: Authentication) -> None:
    sessions = authentication.sessions

    def shown(name: str | None, session: BrowserSession | None) -> dict[str, Any]:
        return {
            "signed_in": name is not None,
            "keys": authentication.keys.closed,
            "name": name if name != "-" else None,
            "csrf": session and session.csrf,
            "expires": session and sessions.expires(session),
            "version": deps.version,
        }

    @router.get("/console/api/session", openapi_extra=allow("open"))
    async def session(request: Request) -> JSONResponse:
        exchange: Exchange = request.scope[EXCHANGE]
        found = sessions.find(exchange.headers) if authentication.keys.closed else None
        try:
            caller = await admit(exchange, authentication)
        except RequestError:
            return JSONResponse(shown(None, None), headers=NO_STORE)
        return JSONResponse(shown(caller.name, found and found[0]), headers=NO_STORE)

    @router.post("/console/api/session", openapi_extra=allow("open"))
    async def sign_in(request: Request) -> Response:
        exchange: Exchange = request.scope[EXCHANGE]
        given = await body_of(request, SignIn)
        if not authentication.keys.closed:
            return await session(request)
        client = request.client.host if request.client else ""
        value, begun, caller = sessions.sign_in(given.key, client)
        await sessions.saved.write()
        headers = {**NO_STORE, "set-cookie": set_cookie(exchange.headers, value)}
        return JSONResponse(shown(caller.name, begun), headers=headers)

    @router.delete("/console/api/session", openapi_extra=allow("open"))
    async def sign_out(request: Request) -> Response:
        exchange: Exchange = request.scope[EXCHANGE]
        if sessions.find(exchange.headers) is not None:
            authentication.check(exchange.method, exchange.headers)  # the token, above all
        sessions.sign_out(exchange.headers)
        await sessions.saved.write()
        headers = {**NO_STORE, "set-cookie": set_cookie(exchange.headers, None)}
        return Response(status_code=204, headers=headers)
