"""What happens during a chaos run: one small function an event, in a registry.

An event gets the world and does one thing to it. Afterwards the driver sees to it that every model
answers again in time. To add one, write it here.
"""

from __future__ import annotations

import random
import signal
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from tests.chaos import crowds, strangers
from tests.chaos.models import CALM, WILD
from tests.chaos.world import World, send_signal
from tests.support.polling import eventually

Function = Callable[[World, random.Random], Awaitable[None]]


@dataclass(frozen=True)
class Event:
    name: str
    run: Function
    weight: float
    harms: bool
    """It ends or stops engines, or the node."""


EVENTS: list[Event] = []


def event(weight: float, *, harms: bool = False) -> Callable[[Function], Function]:
    """Register a function as an event; ``weight`` says how often it comes among the others."""

    def register(run: Function) -> Function:
        EVENTS.append(Event(run.__name__, run, weight, harms))
        return run

    return register


async def _signal_engine(world: World, chance: random.Random, number: signal.Signals) -> None:
    model = chance.choice(world.harmed)
    if pids := await world.engines(model):
        world.harm(model)
        send_signal(chance.choice(pids), number)


@event(4, harms=True)
async def kill_engine(world: World, chance: random.Random) -> None:
    await _signal_engine(world, chance, signal.SIGKILL)


@event(1, harms=True)
async def terminate_engine(world: World, chance: random.Random) -> None:
    await _signal_engine(world, chance, signal.SIGTERM)


@event(2, harms=True)
async def stop_engine(world: World, chance: random.Random) -> None:
    await _signal_engine(world, chance, signal.SIGSTOP)


@event(1)
async def pause_engine(world: World, chance: random.Random) -> None:
    """Stopped and continued, as by a debugger: it need not be ended for that."""
    model = chance.choice(world.harmed)
    if pids := await world.engines(model):
        pid = chance.choice(pids)
        send_signal(pid, signal.SIGSTOP)
        send_signal(pid, signal.SIGCONT)


@event(1, harms=True)
async def kill_all_engines(world: World, chance: random.Random) -> None:
    for pid in await world.engines(WILD):
        send_signal(pid, signal.SIGKILL)


@event(2)
async def kill_grandchild(world: World, chance: random.Random) -> None:
    """What an engine started, in a session of its own."""
    marks = world.marked()
    own = set(await world.engines(WILD))
    wild = {mark for pid, mark in marks.items() if pid in own}
    if others := [pid for pid, mark in marks.items() if mark in wild and pid not in own]:
        send_signal(chance.choice(others), signal.SIGKILL)


@event(1)
async def restart_model(world: World, chance: random.Random) -> None:
    await world.call("restart", timeout=None, models=[WILD])


@event(1, harms=True)
async def kill_node(world: World, chance: random.Random) -> None:
    await world.kill_node()


@event(2)
async def apply_change(world: World, chance: random.Random) -> None:
    """Another configuration of a model takes over while it is asked; nobody notices."""
    await world.apply(chance.choice([CALM, WILD]), str(chance.getrandbits(32)))


@event(1)
async def apply_what_fails(world: World, chance: random.Random) -> None:
    """One that cannot start leaves the one before it serving."""
    await world.apply_broken(chance.choice([CALM, WILD]))


@event(1)
async def apply_again(world: World, chance: random.Random) -> None:
    """The same once more changes nothing: no generation, and no process where none dies of its prompts."""
    model, mark = chance.choice([CALM, WILD]), str(chance.getrandbits(32))
    await world.apply(model, mark)
    await eventually(lambda: world.all_ready(model), f"all replicas of {model} are ready")
    before = await world.generation(model)
    await world.apply(model, mark)
    after = await world.generation(model)
    same = after == before if model == CALM else dict(after).keys() == dict(before).keys()
    if not same:
        world.books.wrong.append(f"{model}: applied twice, {before} became {after}")


@event(1)
async def clock_jumps(world: World, chance: random.Random) -> None:
    """The wall clock of node and engines; what is waited for and limited must not follow it."""
    world.clock.jump(chance.choice([-2 * 86400, -3600, -20, 20, 3600, 2 * 86400]))


@event(1, harms=True)
async def full_disk(world: World, chance: random.Random) -> None:
    """No room for state, keys and usage, logs or temporary files: what serves goes on serving, and an
    engine that is killed, or the node, comes back."""
    if not world.disks.paths:
        return
    for path in chance.choice([world.disks.paths, [chance.choice(world.disks.paths)]]):
        world.disks.fill(path)
    try:
        match chance.randrange(3):
            case 0:
                await _signal_engine(world, chance, signal.SIGKILL)
            case 1:
                await world.kill_node()
        await world.recovered("full_disk")
    finally:
        world.disks.empty()


@event(1, harms=True)
async def taken_port(world: World, chance: random.Random) -> None:
    """Somebody else listens on the port of a killed engine, and answers there."""
    await strangers.take_the_port(world, chance)


@event(1)
async def rotate_keys(world: World, chance: random.Random) -> None:
    """Those before them go on for as long as they were given."""
    ledger = world.books.ledger
    name = chance.choice(list(ledger.secrets))
    old = ledger.secrets[name]
    new = await world.new_key(name, rotate=True)
    for key in (old, new):
        if (status := await world.status_of(key)) != 200:
            world.books.wrong.append(
                f"{status} for a key of {name}, {'old' if key == old else 'new'}"
            )


@event(1)
async def replace_key(world: World, chance: random.Random) -> None:
    """Without a grace: the old one is refused from then on."""
    name = f"short-{chance.getrandbits(32):x}"
    old = await world.new_key(name)
    found = [await world.status_of(old)]
    new = await world.new_key(name, rotate=True, grace=0.0)
    found += [await world.status_of(key) for key in (old, new)]
    await world.remove_key(name)
    found.append(await world.status_of(new))
    if found != [200, 401, 200, 401]:
        world.books.wrong.append(f"a key made, replaced, and removed: {found}")


@event(1)
async def ten_times_capacity(world: World, chance: random.Random) -> None:
    await crowds.ten_times_capacity(world, chance)


@event(1)
async def slow_clients(world: World, chance: random.Random) -> None:
    await crowds.slow_clients(world, chance)


@event(1)
async def hub_that_lies(world: World, chance: random.Random) -> None:
    """A change whose files come from a hub that cuts, lies and fails: whole, or not at all."""
    await strangers.lying_hub(world, chance)
