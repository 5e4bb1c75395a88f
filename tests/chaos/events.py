"""What happens during a chaos run: one small function an event, in a registry.

An event gets the world and does one thing to it. Afterwards the driver sees to it that every model
answers again in time. To add one, write it here.
"""

from __future__ import annotations

import random
import signal
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from tests.chaos.world import CALM, WILD, World, send_signal

Function = Callable[[World, random.Random], Awaitable[None]]


@dataclass(frozen=True)
class Event:
    name: str
    run: Function
    weight: float


EVENTS: list[Event] = []


def event(weight: float) -> Callable[[Function], Function]:
    """Register a function as an event; ``weight`` says how often it comes among the others."""

    def register(run: Function) -> Function:
        EVENTS.append(Event(run.__name__, run, weight))
        return run

    return register


async def _signal_engine(world: World, chance: random.Random, number: signal.Signals) -> None:
    if pids := await world.engines(WILD):
        send_signal(chance.choice(pids), number)


@event(4)
async def kill_engine(world: World, chance: random.Random) -> None:
    await _signal_engine(world, chance, signal.SIGKILL)


@event(1)
async def terminate_engine(world: World, chance: random.Random) -> None:
    await _signal_engine(world, chance, signal.SIGTERM)


@event(2)
async def stop_engine(world: World, chance: random.Random) -> None:
    await _signal_engine(world, chance, signal.SIGSTOP)


@event(1)
async def pause_engine(world: World, chance: random.Random) -> None:
    """Stopped and continued, as by a debugger: it need not be ended for that."""
    if pids := await world.engines(WILD):
        pid = chance.choice(pids)
        send_signal(pid, signal.SIGSTOP)
        send_signal(pid, signal.SIGCONT)


@event(1)
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


@event(1)
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
