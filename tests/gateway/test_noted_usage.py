"""What a long answer has used is counted while it goes on, and corrected by what its engine says at last."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from yibu.accounts.live import LiveAccounts
from yibu.accounts.store import AccountStore
from yibu.accounts.types import Account, TokenBudget
from yibu.config.types import Limits
from yibu.gateway.proxy import relay

from .conftest import FakeBackend, Serve, chat
from .upstream import LLAMA_CHAT_STREAM, LLAMA_USAGE, STREAM_HEAD, Upstream, chunked

HOUR = 3600
DAY = 1_760_054_400.0
SENT = 40


@pytest.fixture(autouse=True)
def _at_each_part(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(relay, "_NOTE_EVERY", 0)


@pytest.mark.parametrize("later", [0, HOUR], ids=["within the hour", "over the hour"])
@pytest.mark.parametrize("ends", ["counted", "cut"])
async def test_a_long_answer(
    serve: Serve, backend: FakeBackend, tmp_path: Path, later: int, ends: str
) -> None:
    """The engine's count, of 31 and 2 tokens, is far below what the events let expect."""
    now = DAY
    accounts = LiveAccounts(tmp_path / "accounts.db", clock=lambda: now)
    go_on = asyncio.Event()

    async def behave(_: Any, writer: Any) -> bool:
        writer.write(STREAM_HEAD)
        for number in range(SENT):
            writer.write(chunked(b"data: " + LLAMA_CHAT_STREAM[1 if number else 0] + b"\n\n"))
            await writer.drain()
            await asyncio.sleep(0.005)
        await go_on.wait()
        if ends == "cut":
            return False
        for event in (LLAMA_CHAT_STREAM[3], LLAMA_USAGE, b"[DONE]"):
            writer.write(chunked(b"data: " + event + b"\n\n"))
        writer.write(b"0\r\n\r\n")
        return True

    with AccountStore.open(accounts.path) as store:
        alice = Account("alice", budget=TokenBudget(1000, "month"), limits=Limits(tpm=500))
        key = store.add(alice)
    async with accounts.running(), Upstream(behave) as up, serve(accounts=accounts) as gateway:
        backend.add("m", up)
        headers = {"authorization": f"Bearer {key}"}
        caller = accounts.find(key.encode())
        assert caller is not None
        meter = caller.meter
        assert meter is not None
        assert meter.spending is not None
        assert meter.tokens is not None
        body = {**chat(stream=True), "user": "x" * 400}
        url = gateway.url + "/v1/chat/completions"
        async with gateway.http.post(url, json=body, headers=headers) as answer:
            text = b""
            while text.count(b"\n\n") < SENT:
                text += await answer.content.readany()
            [row] = await accounts.usage("hour", DAY)
            assert (row["requests"], row["errors"], row["estimated"]) == (1, 0, 1)
            assert row["prompt_tokens"] > 100
            assert row["completion_tokens"] >= SENT - 1
            assert row["compute_seconds"] > 0.1
            assert meter.spending.spent == row["total_tokens"]
            assert meter.in_flight == 1
            noted = row
            now += later
            go_on.set()
            await answer.content.read()
        async with asyncio.timeout(30):
            while meter.in_flight:
                await asyncio.sleep(0.01)
        rows = await accounts.usage("hour", DAY)
        [whole] = await accounts.usage("key", DAY)
        minute = 500 - meter.tokens.level
        assert meter.spending.spent == whole["total_tokens"]
        assert (
            whole["total_tokens"] - 3 <= minute <= whole["total_tokens"]
        )  # some came back meanwhile
    assert all(value >= 0 for row in rows for value in row.values() if value != row["hour"])
    assert whole["requests"] == 1
    if ends == "counted":
        assert (whole["prompt_tokens"], whole["completion_tokens"]) == (31, 2)
        assert (whole["estimated"], whole["errors"]) == (0, 0)
    else:
        assert whole["total_tokens"] >= noted["total_tokens"]
        assert (whole["estimated"], whole["errors"]) == (1, 1)
