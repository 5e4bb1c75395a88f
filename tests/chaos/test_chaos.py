"""Chaos: engines that misbehave by prompt, clients that keep books, and things that are killed.

``make chaos`` runs it for three minutes, ``make soak`` for an hour. The seed is printed, and given
again by ``--chaos-seed`` it makes the same clients ask the same things.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from tests.chaos.books import Books
from tests.chaos.client import Customer, Ration
from tests.chaos.clock import Clock
from tests.chaos.disks import Disks
from tests.chaos.events import EVENTS, Event
from tests.chaos.llama import Asker, Llama
from tests.chaos.models import CALM, WILD
from tests.chaos.world import World
from tests.e2e.home import Home
from tests.fakes.hub_server import HubServer
from tests.support.polling import eventually
from yibu.errors import YibuError

_CLIENTS = 16
_REQUEST_TIMEOUT = 5.0
"""Seconds without a byte: no calm engine is silent for as long on a machine that is busy otherwise."""
_LIMIT = 60.0
"""Seconds for a request: two time-outs, a wait for a replica, and slow readers on a slow machine."""
_SETTLE_EVERY = 20.0
_FAILURES = (YibuError, OSError, AssertionError, psutil.Error)
"""What an event that does not come to its end raises."""


@pytest.mark.chaos
@pytest.mark.timeout(0)
async def test_chaos(home: Home, request: pytest.FixtureRequest, engine_cache: Path) -> None:
    seed: int = request.config.getoption("chaos_seed")
    seconds: float = request.config.getoption("chaos_seconds")
    books = Books(_LIMIT)
    books.notes.append(
        f"chaos of {seconds:g} s with --chaos-seed={seed}, load {os.getloadavg()[0]:.1f}"
    )
    with contextlib.ExitStack() as stack:
        world = stack.enter_context(world_of(home, books, Llama(engine_cache)))
        await world.start_node()
        await drive(world, books, seed, seconds, request.config.getoption("chaos_events"))
        assert await world.stop_node() == 0
        left = world.marked()
    print("\n" + books.summary())
    assert not left, f"left behind: {left}"
    log = f"the node's log: {home.root}/node.out"
    assert not books.wrong, "\n".join([books.summary(), *books.wrong[:40], log])
    assert sum(books.counts.values()) > seconds, books.summary()


@contextlib.contextmanager
def world_of(home: Home, books: Books, llama: Llama) -> Iterator[World]:
    """With a clock that can be set, small disks where this system lets them be mounted, a hub, and
    llama.cpp where the cache has it."""
    clock, disks = Clock(home.root / "clock"), Disks()
    with (
        HubServer() as hub,
        tempfile.TemporaryDirectory(prefix="chaos-", dir="/tmp") as temporary,
        disks.on([home.root / "state", home.root / "logs", Path(temporary)]),
    ):
        missing = (clock.why_not, disks.why_not, llama.why_not)
        books.notes += [f"no {what}" for what in missing if what]
        if not llama.why_not:
            (home.root / "environments").symlink_to(llama.environments)
        settings = {
            **clock.env, "TMPDIR": temporary, "NO_PROXY": "*",
            "HF_ENDPOINT": hub.url, "HF_HUB_CACHE": str(home.root / "hf"),
        }  # fmt: skip
        yield World(
            replace(home, settings=settings), books, _REQUEST_TIMEOUT, clock, disks, hub, llama
        )


def deck(chance: random.Random, names: str) -> Iterator[Event]:
    """Each event once in random order, then by their weights."""
    wanted = [event for event in EVENTS if not names or event.name in names.split(",")]
    yield from chance.sample(wanted, len(wanted))
    while True:
        yield from chance.choices(wanted, [event.weight for event in wanted])


async def drive(world: World, books: Books, seed: int, seconds: float, names: str) -> None:
    """Let the clients ask and the events happen, then let all of it come to rest."""
    ration = Ration(2.0)
    customers = [
        Customer(books, world.port, random.Random(f"{seed}/{n}"), {CALM: False, WILD: True}, ration)
        for n in range(_CLIENTS)
    ]
    if not world.llama.why_not:
        customers.append(Asker(books, world.port, random.Random(f"{seed}/llama")))
    chance = random.Random(f"{seed}/events")
    happened: Counter[str] = Counter()
    events = deck(chance, names)
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(customer.run()) for customer in customers]
        end = time.monotonic() + seconds
        settle = time.monotonic() + _SETTLE_EVERY / 4
        while time.monotonic() < end:
            await asyncio.sleep(chance.uniform(0.2, 2.0))
            event = next(events)
            happened[event.name] += 1
            alone = event.harms and chance.random() < 0.5
            try:
                if alone:
                    await play_alone(world, ration, event, chance)
                else:
                    await event.run(world, chance)
                    late = await world.recovered(event.name)
                    books.wrong += [late] if late else []
                if time.monotonic() > settle:
                    await rest(world, books, customers)
                    settle = time.monotonic() + _SETTLE_EVERY
            except _FAILURES as error:  # the run goes on, so that the books show what led to it
                where = traceback.extract_tb(error.__traceback__)[-3:]
                books.wrong.append(f"{event.name}: {error!r} at {where}: {await world.states()}")
        await rest(world, books, customers, resume=False)
        for task in tasks:
            task.cancel()
    books.notes.append(", ".join(f"{name} {n}" for name, n in happened.items()))
    world.end_samples()
    books.notes.append(world.held())


async def play_alone(world: World, ration: Ration, event: Event, chance: random.Random) -> None:
    """An event while no prompt kills or stops an engine. What then takes longer than is promised is done
    once more, for the machine may just have had something else to do: late twice is wrong."""
    ration.held = True
    try:
        for again in (False, True):
            await eventually(world.unharmed, "all engines go on", 120 * world.slowness)
            await event.run(world, chance)
            late = await world.recovered(event.name, alone=True)
            if not late:
                return
            (world.books.wrong if again else world.books.notes).append(late)
    finally:
        ration.held = False


async def rest(
    world: World, books: Books, customers: list[Customer], *, resume: bool = True
) -> None:
    """Stop asking, see what the node holds then, and go on."""
    for customer in customers:
        customer.pause()
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(books.limit + 10):
            await asyncio.gather(*(customer.idle.wait() for customer in customers))
    books.overdue()
    await world.settle()
    world.measure_slowness()
    if resume:
        for customer in customers:
            customer.resume()
