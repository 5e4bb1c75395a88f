"""Many clients at once: ten times what the engine takes, and a thousand that are slow."""

from __future__ import annotations

import asyncio
import random

from tests.chaos.acts import Order
from tests.chaos.books import Entry
from tests.chaos.client import Line, request
from tests.chaos.ledger import CROWD
from tests.chaos.models import CALM, CAPACITY
from tests.chaos.world import World

SLOW = 1000
_PIECES = 5
_PAUSE = 0.6
"""Seconds between two pieces of a request that is sent slowly."""


async def ten_times_capacity(world: World, chance: random.Random) -> None:
    """Each is answered, or told when to come back."""
    clients = 10 * CAPACITY
    await _together(world, [_client(world, _entry(world, chance, "crowd")) for _ in range(clients)])


async def slow_clients(world: World, chance: random.Random) -> None:
    """Half of them send slowly, half read slowly; nobody else is kept waiting for them. They take
    time of the machine themselves: there are fewer of them where others take it too."""
    world.measure_slowness(busy=True)
    number = int(SLOW / world.slowness)
    world.books.notes.append(f"{number} slow clients")
    await _together(
        world,
        [
            _client(world, _entry(world, chance, "slow to send"), _PIECES, chance.random() * _PAUSE)
            if each % 2
            else _client(world, _entry(world, chance, "slow to read"), pace=0.1)
            for each in range(number)
        ],
    )


async def _together(world: World, clients: list[asyncio.Future[None]]) -> None:
    span = world.books.crowd()
    measuring = asyncio.create_task(_measure(world))
    await asyncio.gather(*clients)
    measuring.cancel()
    world.books.over(span)


async def _measure(world: World) -> None:
    while True:
        world.measure_slowness(busy=True)
        await asyncio.sleep(2.0)


def _entry(world: World, chance: random.Random, how: str) -> Entry:
    order = Order("plain", f"n{chance.getrandbits(64):016x}", chance.choice([1, 5, 20]))
    stream = chance.random() < 0.5
    return Entry(order, CALM, stream, True, how, CROWD, world.books.ledger.secrets[CROWD])


async def _client(
    world: World, entry: Entry, pieces: int = 1, first: float = 0.0, pace: float = 0.0
) -> None:
    await asyncio.sleep(first)
    try:
        async with Line.to(world.port, limit=512) as line:
            world.books.begin(entry)
            data = request(entry)
            step = -(-len(data) // pieces)
            for start in range(0, len(data), step):
                await asyncio.sleep(_PAUSE if start else 0.0)
                line.send(data[start : start + step])
            response = await line.response((lambda: pace) if pace else None)
            world.books.end(entry, response)
    except OSError as error:
        world.books.wrong.append(f"{entry.how}: {error!r}")
        world.books.open.pop(entry.order.nonce, None)
