"""Replicas that follow a load which rises and falls: a real node, real clients, no request lost."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from tests.e2e.home import REPOSITORY, Home, fake
from tests.support.counting import Count, ask_on
from tests.support.polling import eventually, until
from yibu.config import ModelConfig
from yibu.config.types import Autoscale
from yibu.config.wire import plain_config

_MOST = 3
_MANY, _FEW = 12, 1
_RISES = 2


@pytest.mark.chaos
@pytest.mark.timeout(900)
async def test_replicas_follow_the_load(home: Home) -> None:
    """Each rise starts what it needs and no more: a replica that was given up and started again at
    once would be counted twice."""
    entry = fake("tide", "--slow-tokens", "0.02", autoscale=Autoscale(1, _MOST, 0.5))
    model = plain_config(ModelConfig(**entry, max_concurrency=2))
    node = subprocess.Popen(
        [sys.executable, "-m", "tests.e2e.impatient_node"], cwd=REPOSITORY, env=home.env
    )
    try:
        until(home.client.running, "the node runs")
        await asyncio.to_thread(home.client.call, "up", timeout=None, models=[model])
        tide, count = Tide(home), Count()
        port = int(home.url().rpartition(":")[2])
        async with clients(port, count, _FEW):
            for rise in range(1, _RISES + 1):
                async with clients(port, count, _MANY):
                    await eventually(lambda: tide.ready() == _MOST, "more replicas", 180)
                    enough = count.answered + 300
                    await eventually(lambda most=enough: tide.ready() and count.answered > most)
                    assert tide.ready() == _MOST
                await eventually(lambda: tide.running() == 1, "one replica", 180)
                assert len(tide.seen) <= 1 + rise * (_MOST - 1), "replicas came and went"
        assert not count.lost, count
    finally:
        node.terminate()
        await asyncio.to_thread(node.wait, 60)


@asynccontextmanager
async def clients(port: int, count: Count, number: int) -> AsyncIterator[None]:
    """So many that ask without a pause until the block ends; each answer is waited for."""
    asking = Count(count.outcomes)
    async with asyncio.TaskGroup() as group:
        for _ in range(number):
            group.create_task(ask_on(port, "tide", asking))
        yield
        asking.stop = True


class Tide:
    """The model's replicas, and all that were seen so far."""

    def __init__(self, home: Home) -> None:
        self._home = home
        self.seen: set[int] = set()

    def _replicas(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self._home.model("tide")["replicas"]
        self.seen |= {replica["pid"] for replica in found if replica["pid"]}
        return found

    def ready(self) -> int:
        return sum(replica["state"] == "ready" for replica in self._replicas())

    def running(self) -> int:
        return sum(bool(replica["pid"]) for replica in self._replicas())
