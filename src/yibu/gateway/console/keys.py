"""API keys and their usage."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Annotated, Any, Literal, TypeVar

from fastapi import APIRouter, Query, Request, Response
from pydantic import BaseModel, Field

from yibu.accounts import types
from yibu.accounts.store import AccountStore
from yibu.config.types import Limits
from yibu.errors import NotReadyError, UsageError
from yibu.gateway.access import CALLER, allow
from yibu.gateway.console.answers import ConflictError, NotFoundError, answer, body_of
from yibu.gateway.console.console import Console
from yibu.gateway.console.usage import usage_group, usage_list

T = TypeVar("T")
Number = Annotated[int | None, Field(ge=1, le=2**53)]
Short = Annotated[str | None, Field(max_length=60)]


class KeySettings(BaseModel):
    """Changes to a key; fields left out stay, and null removes a limit."""

    models: Annotated[list[Annotated[str, Field(min_length=1, max_length=200)]] | None,
                      Field(max_length=200)] = None  # fmt: skip
    rpm: Number = None
    tpm: Number = None
    concurrency: Number = None
    budget: Short = None
    expires: Short = None
    priority: Literal["interactive", "batch"] = "interactive"
    weight: Annotated[int, Field(ge=1, le=types.HEAVIEST)] = 1
    admin: bool = False

    def on(self, account: types.Account) -> types.Account:
        """The account with these changes. Raises UsageError."""
        given = self.model_dump(exclude_unset=True)
        if given.get("models") is not None:
            given["models"] = tuple(given["models"])
        return types.changed(account, given)


class NewKey(KeySettings):
    """A new key's name and settings."""

    name: Annotated[str, Field(max_length=100)]


class KeyRotation(BaseModel):
    """How long the old secret stays valid."""

    grace: Short = None


def add_keys(router: APIRouter, console: Console) -> None:
    @router.get("/console/api/keys", openapi_extra=allow("console"))
    async def keys() -> Response:
        found = await _with_store(console, lambda store: [one.row() for one in store.accounts()])
        return answer({"keys": found})

    @router.post("/console/api/keys", openapi_extra=allow("console"))
    async def add(request: Request) -> Response:
        given = await body_of(request, NewKey)
        account = given.on(
            types.Account(types.check_name(given.name), created=time.time(), limits=Limits())
        )

        def added(store: AccountStore) -> dict[str, Any]:
            key = store.add(account)
            return {**store.get(account.name).row(), "key": key}

        return answer(await _with_store(console, added, change=True), 201)

    @router.patch("/console/api/keys/{name}", openapi_extra=allow("console"))
    async def change(name: str, request: Request) -> Response:
        given = await body_of(request, KeySettings)

        def changed(store: AccountStore) -> dict[str, Any]:
            def settings(account: types.Account) -> types.Account:
                account = given.on(account)
                if not account.admin:
                    _refuse_last(store, name, request)
                return account

            _get(store, name)
            return store.change(name, settings).row()

        return answer(await _with_store(console, changed, change=True))

    _add_ends(router, console)


def _add_ends(router: APIRouter, console: Console) -> None:
    @router.post("/console/api/keys/{name}/rotate", openapi_extra=allow("console"))
    async def rotate(name: str, request: Request) -> Response:
        given = await body_of(request, KeyRotation)
        grace = types.parse_duration(given.grace) if given.grace else 0

        def rotated(store: AccountStore) -> dict[str, Any]:
            _get(store, name)
            key = store.rotate(name, grace)
            return {**store.get(name).row(), "key": key}

        return answer(await _with_store(console, rotated, change=True))

    @router.delete("/console/api/keys/{name}", openapi_extra=allow("console"))
    async def remove(name: str, request: Request) -> Response:
        def removed(store: AccountStore) -> None:
            _get(store, name)
            _refuse_last(store, name, request)
            store.remove(name)

        await _with_store(console, removed, change=True)
        return Response(status_code=204)

    @router.get("/console/api/usage", openapi_extra=allow("console"))
    async def usage(
        by: Annotated[str, Query()] = "key",
        since: Annotated[str, Query()] = "7d",
        key: Annotated[str | None, Query()] = None,
    ) -> Response:
        group = usage_group(by, ("key", "model", "day", "hour"))
        listed = await usage_list(console.deps.accounts, group, since, key)
        return answer(listed.model_dump(exclude_none=True))


def _get(store: AccountStore, name: str) -> types.Account:
    try:
        return store.get(name)
    except UsageError as error:
        raise NotFoundError(error.message, param="name") from error


def _refuse_last(store: AccountStore, name: str, request: Request) -> None:
    """Raises ConflictError where the caller would take the last admin's key, its own, from itself."""
    admins = [account.name for account in store.accounts() if account.admin]
    if admins == [name] and request.scope[CALLER].name == name:
        raise ConflictError(
            "{name} is the only admin's key, and you are signed in with it",
            name=name,
            hint="Make another one first",
            code="last_admin_key",
        )


async def _with_store(
    console: Console, act: Callable[[AccountStore], T], *, change: bool = False
) -> T:
    """Change the database, and have the gateway reload it at once."""
    accounts = console.deps.accounts
    if accounts is None:
        raise NotReadyError("This gateway keeps no keys")

    def work() -> T:
        with AccountStore.open(accounts.path) as store:
            return act(store)

    result = await asyncio.to_thread(work)
    if change:
        await accounts.sync()
    return result
