"""``/v1/usage``: a key's own usage, and for administrators everybody's."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Annotated

from fastapi import FastAPI, Query, Request

from yibu.gateway.access import CALLER, allow
from yibu.gateway.console.usage import usage_group, usage_list
from yibu.gateway.schemas.answers import Budget, UsageList

if TYPE_CHECKING:
    from yibu.accounts.live import Caller, LiveAccounts

_Since = Annotated[str, Query(description="How far back: 12h, 7d, 4w.")]
_Group = Annotated[str, Query(description="What a row is of.")]


def add_usage(app: FastAPI, accounts: LiveAccounts | None) -> None:
    """Put the paths on the documented surface."""

    @app.get("/v1/usage", tags=["usage"], summary="What the caller's key has used",
             openapi_extra=allow("key"))  # fmt: skip
    async def own(request: Request, by: _Group = "model", since: _Since = "7d") -> UsageList:
        caller: Caller = request.scope[CALLER]
        groups = usage_group(by, ("model", "day", "hour"))
        answer = await usage_list(accounts, groups, since, caller.name)
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
        return await usage_list(
            accounts, usage_group(by, ("key", "model", "day", "hour")), since, key
        )
