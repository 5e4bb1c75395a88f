"""Usage by key, as /v1/usage and the console list it."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Literal

from yibu.accounts.database import AccountsError
from yibu.accounts.types import parse_duration
from yibu.errors import InvalidRequestError, NotReadyError, UsageError
from yibu.gateway.schemas.answers import UsageList
from yibu.messages import joined

if TYPE_CHECKING:
    from yibu.accounts.live import LiveAccounts
    from yibu.accounts.usage import By


def usage_group(by: str, groups: tuple[By, ...]) -> By:
    """Raises InvalidRequestError for another than these."""
    for group in groups:
        if by == group:
            return group
    raise InvalidRequestError(
        "Invalid 'by': expected {groups}, found {by!r}",
        groups=joined(" or ", groups),
        by=by[:40],
        param="by",
    )


async def usage_list(
    accounts: LiveAccounts | None, by: By, since: str, key: str | None
) -> UsageList:
    """Usage since a duration ago, of all keys or of one. Raises RequestError."""
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
