"""Random traces against what must always hold."""

from __future__ import annotations

import math
import random
from collections import Counter

from hypothesis import example, given, settings
from hypothesis import strategies as st

from tests.node.scheduler.world import TOTAL, World
from yibu.config import ModelConfig
from yibu.config.types import Autoscale, Group, Keep

NAMES = "abcde"
STEPS = 100
GROUPS = (Group("g"), Group("x", exclusive=True), Group("p", swap=False, persistent=True))


def entry(chance: random.Random, name: str) -> ModelConfig:
    keep: Keep = chance.choice(["always", "idle", "idle", "idle", "manual"])
    group = chance.choice([None, None, *GROUPS]) if keep == "idle" else None
    auto = Autoscale(1, 3) if chance.random() < 0.2 else None
    return ModelConfig(
        name,
        replicas=chance.choice([1, 1, 2]) if auto is None else 1,
        autoscale=auto,
        keep=keep,
        idle=chance.choice([1.0, 10.0, 60.0]),
        preload=chance.choice([None, True]),
        group=group,
        asleep=chance.choice([5.0, 20.0]),
        max_queue=chance.choice([3, 1000]),
        queue_timeout=chance.choice([5.0, 60.0]),
    )


def step(world: World) -> None:
    chance = world.chance
    name = chance.choice(NAMES)
    known = world.scheduler.model(name) is not None
    what = chance.random()
    if what < 0.06 or not known:
        size = chance.choice([5, 20, 40, 60, TOTAL + 1 if chance.random() < 0.2 else 30])
        world.up(entry(chance, name), size=size, broken=chance.random() < 0.15)
    elif what < 0.08:
        world.down(name)
    elif what < 0.1:
        world.scheduler.start(name, world.now)
    elif what < 0.12:
        world.remember(name)
        world.scheduler.unload(name, world.now)
    elif what < 0.14:
        world.scheduler.adjust(entry(chance, name), world.now)
    elif what < 0.24 and world.waiting:
        world.leave(chance.choice(list(world.waiting)))
    else:
        key = chance.choice(["k1", "k2", "k3"])
        failed = [r.id for r in world._all() if r.generation[0] == name and chance.random() < 0.3]
        exclude = frozenset(failed if chance.random() < 0.2 else ())
        priority = chance.choice(["interactive", "batch"])
        world.ask(name, chance.uniform(0, 3), key=key, priority=priority, exclude=exclude)


@given(seed=st.integers(0, 2**32), calm=st.booleans())
@example(seed=94059, calm=True)
def test_a_random_trace(seed: int, calm: bool) -> None:
    """In the example a second replica that does not fit is tried again while nothing happens."""
    trace(World(random.Random(seed), trouble=0.0 if calm else 0.2), calm=calm)


@given(seed=st.integers(0, 2**32), calm=st.booleans(), ram=st.sampled_from([20, 80, 400]))
def test_a_random_trace_of_engines_that_sleep(seed: int, calm: bool, ram: int) -> None:
    trace(World(random.Random(seed), trouble=0.0 if calm else 0.2, ram=ram), calm=calm)


def trace(world: World, *, calm: bool) -> None:
    for _ in range(STEPS):
        step(world)
        world.run(world.chance.choice([0, 0, 0.1, 0.5, 3]))
        if world.chance.random() < 0.5:
            world.scheduler.tick(world.now)
            world.check()
    world.ticks(200)
    assert not world.waiting, "a request was neither granted nor refused"
    stopping = [replica.id for replica in world._all() if replica.state == "stopping"]
    assert not stopping, "what was asked to stop has ended, and is still kept"
    if calm:
        done = len(world.effects)
        world.ticks(20)
        busy = [r for r in world._all() if r.state == "wanted"]
        # Replicas that could not be had are wanted again once a minute, for a moment.
        models = world.scheduler._models.values()
        short = [model.name for model in models if model.current.most is not None]
        idle = [("read", None), *(("changed", name) for name in short)]
        more = [effect for effect in world.effects[done:] if effect not in idle]
        assert busy or not more, "nothing happened, and yet something was done"


@settings(max_examples=5)
@given(seed=st.integers(0, 2**32), slots=st.integers(1, 3))
def test_batch_is_answered_however_many_interactive_wait(seed: int, slots: int) -> None:
    """``World.grant`` asserts the order."""
    world = World(random.Random(seed), trouble=0.0, slots=slots)
    world.up(ModelConfig("a"), size=20)
    world.ticks(20)
    for _ in range(60):
        priority = "batch" if world.chance.random() < 0.1 else "interactive"
        key = world.chance.choice(["k1", "k2", "k3"])
        world.ask("a", world.chance.uniform(0, 1), key=key, priority=priority)
        world.run(world.chance.choice([0, 0, 0.1]))
    world.ticks(60)
    assert world.outcomes == {"granted": 60}


@settings(max_examples=15)
@given(
    seed=st.integers(0, 2**32),
    loads=st.lists(st.integers(0, 14), min_size=2, max_size=4),
    longest=st.sampled_from([0.5, 5.0, 40.0]),
)
def test_replicas_follow_a_load_that_rises_and_falls(
    seed: int, loads: list[int], longest: float
) -> None:
    """As many as the load needs, started and stopped once each, and every request is answered: also
    where no replica is ever without a request."""
    world = World(random.Random(seed), trouble=0.0)
    auto = Autoscale(1, 4, 0.8)
    world.up(ModelConfig("a", autoscale=auto, max_queue=1000, queue_timeout=1000.0), size=20)
    world.ticks(20)
    model = world.scheduler.model("a")
    assert model is not None
    had = 1
    for load in loads:
        before = Counter(effect for effect, _ in world.effects)
        for _ in range(150):  # a minute for each replica that is given up, and the longest request
            world.run(2)
            for _ in range(load - model.in_flight - len(model.queue)):
                world.ask("a", world.chance.uniform(0.1, longest))
            world.scheduler.tick(world.now)
        wanted = min(max(math.ceil(load / (4 * auto.target)), auto.min), auto.max)
        assert [r.state for r in world._all()] == ["ready"] * wanted
        done = Counter(effect for effect, _ in world.effects) - before
        assert done["start"] == max(0, wanted - had)
        assert done["stop"] == max(0, had - wanted)
        had = wanted
    world.ticks(100)
    assert not world.waiting
    assert set(world.outcomes) <= {"granted"}
