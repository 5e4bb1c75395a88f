"""What a long answer has used is counted while it goes on, and corrected by what its engine says at last."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from yibu.accounts.live import LiveAccounts
from yibu.accounts.store import AccountStore
from yibu.accounts.types import Account, Period, TokenBudget
from yibu.config.types import Limits

from .conftest import FakeBackend, Serve, chat
from .upstream import LLAMA_CHAT_STREAM, LLAMA_USAGE, STREAM_HEAD, Upstream, chunked

HOUR = 3600
DAY = 1_760_054_400.0
SENT = 40


class _SlowEngine:
    """Sends events in so many parts, each when it is let ``go_on``, then its count, or cuts the stream."""

    def __init__(self, parts: int, *, cut: bool) -> None:
        self._parts, self._cut = parts, cut
        self.go_on = asyncio.Queue[bool]()

    async def __call__(self, _: Any, writer: Any) -> bool:
        writer.write(STREAM_HEAD)
        for number in range(self._parts * SENT):
            writer.write(chunked(b"data: " + LLAMA_CHAT_STREAM[1 if number else 0] + b"\n\n"))
            await writer.drain()
            await asyncio.sleep(0.005)
            if number % SENT == SENT - 1:
                await self.go_on.get()
        if self._cut:
            return False
        for event in (LLAMA_CHAT_STREAM[3], LLAMA_USAGE, b"[DONE]"):
            writer.write(chunked(b"data: " + event + b"\n\n"))
        writer.write(b"0\r\n\r\n")
        return True


@pytest.mark.parametrize("hours", [[0], [1], [1, 2, 3], [23, 24, 25]], ids=repr)
@pytest.mark.parametrize("ends", ["counted", "cut"])
@pytest.mark.parametrize("period", ["day", "month"])
async def test_a_long_answer(
    serve: Serve, backend: FakeBackend, tmp_path: Path, hours: list[int], ends: str, period: Period
) -> None:
    """The engine's count, of 31 and 2 tokens, is far below what the events let expect; more of them come
    in each of the ``hours`` of the day and of the next."""
    now = DAY
    accounts = LiveAccounts(tmp_path / "accounts.db", clock=lambda: now)
    engine = _SlowEngine(1 + len(hours), cut=ends == "cut")

    with AccountStore.open(accounts.path) as store:
        alice = Account("alice", budget=TokenBudget(1000, period), limits=Limits(tpm=500))
        key = store.add(alice)
    async with accounts.running(), Upstream(engine) as up, serve(accounts=accounts) as gateway:
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
            for number, hour in enumerate(hours):
                now = DAY + hour * HOUR
                engine.go_on.put_nowait(True)
                while text.count(b"\n\n") < SENT * (2 + number):
                    text += await answer.content.readany()
                [noted] = await accounts.usage("key", DAY)
            engine.go_on.put_nowait(True)
            await answer.content.read()
        async with asyncio.timeout(30):
            while meter.in_flight:
                await asyncio.sleep(0.01)
        rows = await accounts.usage("hour", DAY)
        [whole] = await accounts.usage("key", DAY)
        minute = 500 - meter.tokens.level
        meter.spending.roll(now)
        await accounts.sync()
        since = now // 86400 * 86400 if period == "day" else DAY
        here = await accounts.usage("key", since)
        assert meter.spending.spent == sum(row["total_tokens"] for row in here)
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
