"""Chaos: engines that misbehave by prompt, clients that keep books, and things that are killed.

``make chaos`` runs it for three minutes, ``make soak`` for an hour. The seed is printed, and given
again by ``--chaos-seed`` it makes the same clients ask the same things.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections import Counter

import pytest

from tests.chaos.books import Books
from tests.chaos.client import Customer, Ration
from tests.chaos.events import EVENTS
from tests.chaos.world import CALM, WILD, World
from tests.e2e.home import Home
from yibu.paths import Paths

_CLIENTS = 16
_REQUEST_TIMEOUT = 5.0
"""Seconds without a byte: no calm engine is silent for as long on a machine that is busy otherwise."""
_LIMIT = 60.0
"""Seconds for a request: two time-outs, a wait for a replica, and slow readers on a slow machine."""
_SETTLE_EVERY = 20.0


@pytest.mark.chaos
@pytest.mark.timeout(0)
async def test_chaos(home: Home, request: pytest.FixtureRequest) -> None:
    seed: int = request.config.getoption("chaos_seed")
    seconds: float = request.config.getoption("chaos_seconds")
    books = Books(_LIMIT)
    books.notes.append(f"chaos of {seconds:g} s with --chaos-seed={seed}")
    world = World(home, books, _REQUEST_TIMEOUT)
    await world.start_node()
    await drive(world, books, seed, seconds)
    assert await world.stop_node() == 0
    left = world.marked()
    print("\n" + books.summary())
    assert not left, f"left behind: {left}"
    log = f"the node's log: {Paths.from_env(home.env).node_log}, {home.root}/node.out"
    assert not books.wrong, "\n".join([books.summary(), *books.wrong[:40], log])
    assert sum(books.counts.values()) > seconds, books.summary()


async def drive(world: World, books: Books, seed: int, seconds: float) -> None:
    """Let the clients ask and the events happen, then let all of it come to rest."""
    ration = Ration(2.0)
    customers = [
        Customer(books, world.port, random.Random(f"{seed}/{n}"), {CALM: False, WILD: True}, ration)
        for n in range(_CLIENTS)
    ]
    chance = random.Random(f"{seed}/events")
    happened: Counter[str] = Counter()
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(customer.run()) for customer in customers]
        end = time.monotonic() + seconds
        settle = time.monotonic() + _SETTLE_EVERY / 4
        while time.monotonic() < end:
            await asyncio.sleep(chance.uniform(0.2, 2.0))
            (event,) = chance.choices(EVENTS, [event.weight for event in EVENTS])
            happened[event.name] += 1
            await event.run(world, chance)
            await world.recovered(event.name)
            if time.monotonic() > settle:
                await rest(world, books, customers)
                settle = time.monotonic() + _SETTLE_EVERY
        await rest(world, books, customers, resume=False)
        for task in tasks:
            task.cancel()
    books.notes.append(", ".join(f"{name} {n}" for name, n in happened.items()))
    books.wrong += world.grown()


async def rest(
    world: World, books: Books, customers: list[Customer], *, resume: bool = True
) -> None:
    """Stop asking, see what the node holds then, and go on."""
    for customer in customers:
        customer.pause()
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(_LIMIT + 10):
            await asyncio.gather(*(customer.idle.wait() for customer in customers))
    books.overdue()
    await world.settle()
    if resume:
        for customer in customers:
            customer.resume()
