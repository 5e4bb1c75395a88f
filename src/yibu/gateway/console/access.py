"""Who may use the console: a session, an admin's key, or, without keys, the node's own user."""

from __future__ import annotations

import asyncio

from yibu.accounts.live import ANYBODY, Caller
from yibu.errors import UnauthorizedError
from yibu.gateway.console.owner import is_own
from yibu.gateway.http.exchange import Exchange
from yibu.gateway.sessions import (
    Authentication,
    ForbiddenError,
    SignedOutError,
    check_admin,
    check_same_origin,
)

API = "/console/api/"


def guard(exchange: Exchange, path: str) -> None:
    """Keep pages of other origins from the console, those of ``gateway.cors_origins`` too.

    Raises:
        ForbiddenError: one asks.
    """
    exchange.cors = None
    if path.startswith(API):
        check_same_origin(exchange.headers)


async def admit(exchange: Exchange, authentication: Authentication) -> Caller:
    """Return who uses the console.

    Raises:
        UnauthorizedError: nobody who may, as far as is known.
        ForbiddenError: somebody who may not.
    """
    if not authentication.keys.closed:
        scope = exchange.scope
        if await asyncio.to_thread(is_own, scope.get("client"), scope.get("server")):
            return ANYBODY
        raise ForbiddenError(
            "This connection is another user's, and without API keys the console is for "
            "the node's own user: it can start programs",
            hint="yibu key add NAME --admin makes a key to sign in with",
            code="not_the_owner",
        )
    headers = exchange.headers
    try:
        caller = authentication.check(exchange.method, headers)
    except UnauthorizedError:
        if b"authorization" in headers or b"x-api-key" in headers:
            raise
        raise SignedOutError("Nobody is signed in here, or the session has ended") from None
    check_admin(caller)
    return caller
