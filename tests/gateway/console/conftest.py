"""A gateway with an admin's key and an app's, and a browser's way to use it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from yibu.accounts.live import LiveAccounts
from yibu.accounts.store import AccountStore
from yibu.accounts.types import Account

SESSION = "/console/api/session"


@dataclass
class Browser:
    """One that keeps cookies, and says of its requests what a page of the gateway's own would."""

    url: str
    http: aiohttp.ClientSession
    csrf: str | None = None
    headers: dict[str, str] = field(default_factory=dict)

    async def ask(
        self, method: str, path: str, body: Any = None, **headers: str
    ) -> tuple[int, Any, aiohttp.ClientResponse]:
        """Status, JSON and the answer itself."""
        sent = {"origin": self.url, **self.headers}
        if self.csrf is not None:
            sent["x-csrf-token"] = self.csrf
        sent |= {name.replace("_", "-"): value for name, value in headers.items()}
        sent = {name: value for name, value in sent.items() if value}
        options = {} if body is None else {"json": body}
        async with self.http.request(method, self.url + path, headers=sent, **options) as answer:
            data = await answer.read()
            is_json = answer.content_type == "application/json"
            return answer.status, await answer.json() if is_json else data, answer

    async def sign_in(self, key: str) -> None:
        status, told, _ = await self.ask("POST", SESSION, {"key": key})
        assert status == 200, told
        self.csrf = told["csrf"]


@asynccontextmanager
async def browser(url: str) -> AsyncIterator[Browser]:
    jar = aiohttp.CookieJar(unsafe=True)  # keeps those of addresses, as browsers do
    async with aiohttp.ClientSession(cookie_jar=jar) as http:
        yield Browser(url, http)


@dataclass
class Keys:
    """Of one database."""

    live: LiveAccounts
    admin: str = ""
    app: str = ""

    async def change(self, account: Account) -> str:
        with AccountStore.open(self.live.path) as store:
            key = store.add(account)
        await self.live.sync()
        return key

    async def remove(self, name: str) -> None:
        with AccountStore.open(self.live.path) as store:
            store.remove(name)
        await self.live.sync()


@pytest.fixture
async def keys(tmp_path: Path) -> AsyncIterator[Keys]:
    live = LiveAccounts(tmp_path / "accounts.db")
    async with live.running():
        made = Keys(live)
        made.admin = await made.change(Account("ops", admin=True))
        made.app = await made.change(Account("app"))
        yield made
