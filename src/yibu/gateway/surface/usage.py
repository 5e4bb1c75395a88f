"""``/v1/usage``: what a key has used, and for administrators what all have."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Annotated, Literal

from fastapi import FastAPI, Query, Request

from yibu.accounts.database import AccountsError
from yibu.accounts.types import parse_duration
from yibu.errors import InvalidRequestError, NotReadyError, UsageError
from yibu.gateway.access import CALLER, allow
from yibu.gateway.schemas.answers import Budget, UsageList

if TYPE_CHECKING:
    from yibu.accounts.live import Caller, LiveAccounts
    from yibu.accounts.usage import By

_Since = Annotated[str, Query(description="How far back: 12h, 7d, 4w.")]
_Group = Annotated[str, Query(description="What a row is of.")]


def add_usage(app: FastAPI, accounts: LiveAccounts | None) -> None:
    """Put the paths on the documented surface."""

    @app.get("/v1/usage", tags=["usage"], summary="What the caller's key has used",
             openapi_extra=allow("key"))  # fmt: skip
    async def own(request: Request, by: _Group = "model", since: _Since = "7d") -> UsageList:
        caller: Caller = request.scope[CALLER]
        groups = _group(by, ("model", "day", "hour"))
        answer = await _list(accounts, groups, since, caller.name)
        spending = caller.meter.spending if caller.meter is not None else None
        if spending is not None:
            spending.roll(time.time())
            answer.budget = Budget(
                limit=spending.budget.tokens,
                period=spending.budget.period,
                used=spending.spent,
                resets_at=int(spending.end),
            )
        return answer

    @app.get("/v1/admin/usage", tags=["usage"], summary="What all keys have used",
             openapi_extra=allow("admin"))  # fmt: skip
    async def all_keys(
        by: _Group = "key", since: _Since = "7d", key: str | None = None
    ) -> UsageList:
        return await _list(accounts, _group(by, ("key", "model", "day", "hour")), since, key)


def _group(by: str, groups: tuple[By, ...]) -> By:
    for group in groups:
        if by == group:
            return group
    raise InvalidRequestError(
        f"Invalid 'by': expected {' or '.join(groups)}, found {by[:40]!r}", param="by"
    )


async def _list(accounts: LiveAccounts | None, by: By, since: str, key: str | None) -> UsageList:
    try:
        start = time.time() - parse_duration(since)
    except UsageError as error:
        raise InvalidRequestError(error.message, hint=error.hint, param="since") from None
    try:
        rows = [] if accounts is None else await accounts.usage(by, start, key)
    except AccountsError as error:
        raise NotReadyError(
            "The usage cannot be read; the gateway's log says why",
            code="usage_unavailable",
            retry_after=5,
        ) from error
    data = [{"group": row.pop(by), **row} for row in rows]
    kind: Literal["list"] = "list"
    return UsageList.model_validate(
        {"object": kind, "by": by, "key": key, "since": int(start), "data": data}
    )
