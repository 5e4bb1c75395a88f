"""What the scheduler decides, one situation at a time, on a simulated machine."""

from __future__ import annotations

import random
from typing import Any

import pytest

from tests.node.scheduler.world import Engine, World
from yibu.config import ModelConfig
from yibu.config.types import Autoscale, Group
from yibu.errors import (
    ConfigError,
    DoesNotFitError,
    NotReadyError,
    OverloadedError,
    UnknownModelError,
)
from yibu.node.scheduler import Waiter
from yibu.node.scheduler.starts import Start
from yibu.node.scheduler.types import Replica
from yibu.planner.ledger import Reservation
from yibu.planner.types import Placement


@pytest.fixture
def world() -> World:
    return World(random.Random(0), trouble=0.0, min_up=0.0)


def model(name: str, **fields: Any) -> ModelConfig:
    return ModelConfig(name, **fields)


def idle(name: str, **fields: Any) -> ModelConfig:
    return model(name, keep="idle", **fields)


def bring_up(world: World, *configs: ModelConfig, size: int = 60) -> None:
    for config in configs:
        world.up(config, size=size)
    world.ticks(20)


def states(world: World, name: str) -> list[str]:
    found = world.scheduler.model(name)
    assert found is not None
    return [r.state for d in found.generations() for r in d.replicas.values()]


def starts(world: World) -> list[str]:
    return [what for effect, what in world.effects if effect == "start"]


def stops(world: World) -> list[str]:
    return [what for effect, what in world.effects if effect == "stop"]


def test_a_ready_replica_answers_at_once(world: World) -> None:
    bring_up(world, model("a"))
    waiter = Waiter("a")
    assert world.scheduler.request(waiter, world.now) == "a-0.1"
    world.scheduler.answered(waiter, world.now)
    with pytest.raises(UnknownModelError):
        world.scheduler.request(Waiter("b"), world.now)


def test_the_least_loaded_replica_answers_and_of_equals_the_one_unused_longest(
    world: World,
) -> None:
    bring_up(world, model("a", replicas=3), size=20)
    order = [world.scheduler.request(Waiter("a"), world.now) for _ in range(6)]
    assert order == ["a-0.1", "a-1.1", "a-2.1"] * 2
    assert world.scheduler.request(Waiter("a", exclude=frozenset({"a-0.1", "a-2.1"})), 0) == "a-1.1"


def test_a_request_frees_no_place_of_another_replica_or_model_of_that_name(world: World) -> None:
    """It outlives its replica's drain, whose place another has by then."""
    bring_up(world, model("a", max_concurrency=1))
    earlier = Waiter("a")
    assert world.scheduler.request(earlier, world.now) == "a-0.1"
    world.scheduler.replica_ended("a-0.1", world.now)
    del world.engines["a-0.1"]
    world.ticks(20)
    assert states(world, "a") == ["ready"]
    assert world.scheduler.request(Waiter("a"), world.now) == "a-0.1"
    world.scheduler.answered(earlier, world.now)
    assert world.scheduler.request(Waiter("a"), world.now) is None
    found = world.scheduler.model("a")
    assert found is not None
    assert found.in_flight == 1
    assert found.queue.granted_any


def test_equal_prompts_meet_the_same_replica_unless_it_is_busy(world: World) -> None:
    world.slots = None
    bring_up(world, model("a", replicas=4), size=20)
    first = [world.scheduler.request(w, 0) for w in (Waiter("a", affinity=7),)]
    for _ in range(3):
        waiter = Waiter("a", affinity=7)
        replica = world.scheduler.request(waiter, 0)
        assert replica is not None
        world.scheduler.answered(waiter, 0)
        first.append(replica)
    assert len(set(first[1:])) == 1
    spread = {world.scheduler.request(Waiter("a", affinity=7), 0) for _ in range(12)}
    assert len(spread) == 4, "a hot prompt must not leave the others idle"


def test_a_model_on_demand_starts_once_however_many_ask(world: World) -> None:
    bring_up(world, idle("a"))
    assert states(world, "a") == []
    for _ in range(10):
        world.ask("a", 1)
    world.ticks(20)
    assert starts(world) == ["a-0.1"]
    assert world.outcomes == {"granted": 10}


def test_a_model_on_demand_is_loaded_before_anybody_asks_where_it_says_so(world: World) -> None:
    bring_up(world, idle("a", preload=True, idle=30), idle("b"), size=20)
    assert (states(world, "a"), states(world, "b")) == (["ready"], [])
    world.ticks(40)
    assert states(world, "a") == [], "it is unloaded as others are"


def test_a_start_is_waited_for_longer_than_a_replica_that_is_busy(world: World) -> None:
    """A start has a timeout of its own."""
    bring_up(world, idle("a", queue_timeout=1))
    world.ask("a", 1)
    world.ticks(20)
    assert starts(world) == ["a-0.1"]
    assert world.outcomes == {"granted": 1}


def test_the_time_of_a_start_is_none_in_the_queue(world: World) -> None:
    """Whoever asked meanwhile waits in the queue from then on, as for a model that was loaded."""
    world.slots = 1
    bring_up(world, idle("a", queue_timeout=2.5))
    for _ in range(5):
        world.ask("a", 1)
    world.ticks(20)
    assert world.outcomes == {"granted": 3, "refused": 2}


def test_another_replica_that_starts_makes_nobody_wait_longer(world: World) -> None:
    world.slots = 2
    bring_up(world, model("a", queue_timeout=5, autoscale=Autoscale(0, 2)), size=20)
    world.ask("a", 100)
    world.ticks(10)
    world.let_start = lambda replica: None  # type: ignore[method-assign]
    for _ in range(2):
        world.ask("a", 100)
    world.ticks(10)
    assert states(world, "a") == ["ready", "starting"]
    assert world.outcomes == {"granted": 2, "refused": 1}


@pytest.mark.parametrize("slots", [None, 1, 3])
@pytest.mark.parametrize("most", [0, 1, 2])
def test_a_model_that_is_not_loaded_takes_as_many_as_one_that_is(
    world: World, most: int, slots: int | None
) -> None:
    """A request that no queue may hold would else never load it."""
    world.slots = slots or 1
    bring_up(world, idle("a", max_queue=most, max_concurrency=slots))
    for taken in ("unloaded", "loaded"):
        for _ in range(7):
            world.ask("a", 5)
        held = most + (slots or 1)
        assert world.outcomes == {"OverloadedError": 7 - held} | (
            {"granted": slots or 1} if taken == "loaded" else {}
        )
        world.ticks(40)
        assert states(world, "a") == ["ready"]
        assert world.outcomes["granted"] == held
        world.outcomes.clear()


def test_an_idle_model_is_unloaded_and_comes_back(world: World) -> None:
    bring_up(world, idle("a", idle=30))
    world.ask("a", 1)
    world.ticks(20)
    assert states(world, "a") == ["ready"]
    world.ticks(40)
    assert states(world, "a") == []
    world.ask("a", 1)
    world.ticks(20)
    assert world.outcomes == {"granted": 2}


def test_the_longest_unused_model_yields(world: World) -> None:
    bring_up(world, idle("a"), idle("b"), idle("c"), size=40)
    for name in ("a", "b"):
        world.ask(name, 1)
        world.ticks(10)
    world.ask("a", 1)
    world.ticks(5)
    world.ask("c", 1)
    world.ticks(10)
    assert (states(world, "a"), states(world, "b"), states(world, "c")) == (
        ["ready"],
        [],
        ["ready"],
    )


def test_no_more_models_yield_than_have_to(world: World) -> None:
    world.up(idle("small"), size=10)
    world.up(idle("large"), size=70)
    world.up(idle("new"), size=50)
    world.ticks(5)
    for name in ("small", "large"):
        world.ask(name, 1)
        world.ticks(10)
    world.ask("new", 1)
    world.ticks(10)
    assert states(world, "small") == ["ready"], "it was used before, but made no difference"
    assert states(world, "large") == []


def test_who_is_kept_always_never_yields(world: World) -> None:
    bring_up(world, model("a"))
    bring_up(world, idle("b"))
    world.ask("b", 1)
    world.ticks(3)
    assert states(world, "a") == ["ready"]
    assert world.outcomes == {"refused": 1}
    with pytest.raises(NotReadyError):
        world.scheduler.request(Waiter("b"), world.now)


def test_who_serves_yields_when_it_has_answered_and_gets_no_more(world: World) -> None:
    bring_up(world, idle("a"), idle("b"))
    world.ask("a", 10)
    world.ticks(6)
    world.ask("b", 1)
    world.ticks(2)
    late = world.ask("a", 1)
    assert late in world.waiting
    assert states(world, "a") == ["ready"], "it still answers"
    world.ticks(40)
    assert world.outcomes == {"granted": 3}
    assert starts(world) == ["a-0.1", "b-0.1", "a-0.1"]


@pytest.mark.parametrize("min_up", [0.0, 30.0], ids=["at once", "not up long"])
@pytest.mark.parametrize("first", ["a", "b"])
def test_who_serves_goes_on_where_another_has_become_idle(first: str, min_up: float) -> None:
    """Whichever of them was to yield while both were busy."""
    world = World(random.Random(0), trouble=0.0, min_up=min_up)
    bring_up(world, idle("a"), idle("b"), idle("c"), size=40)
    for name in (first, "ba".replace(first, "")):
        world.ask(name, 0.1)
        world.ticks(10)
    world.ask("a", 100)
    world.ask("b", 10)
    world.ask("c", 1)
    world.ticks(60)
    assert states(world, "c") == ["ready"]
    assert states(world, "b") == []
    told = [what for effect, what in world.effects if effect == "yields"]
    assert told[-1] == ("c", "b-0.1")
    world.ask("a", 1)
    assert not world.waiting


def test_two_busy_models_take_turns(world: World) -> None:
    world.min_up = 3.0
    world.__post_init__()
    bring_up(world, idle("a"), idle("b"))
    for _ in range(400):
        for name in ("a", "b"):
            if world.chance.random() < 0.3:
                world.ask(name, 0.5)
        world.ticks(0.5)
    world.ticks(60)
    assert set(world.outcomes) == {"granted"}
    assert 4 < len(starts(world)) < 60, "neither starvation nor thrashing"


def test_a_waiting_client_that_leaves_evicts_nobody(world: World) -> None:
    bring_up(world, idle("a"), idle("b"))
    world.ask("a", 10)
    world.ticks(6)
    waiter = world.ask("b", 1)
    world.ticks(2)
    world.leave(waiter)
    world.ticks(20)
    assert states(world, "a") == ["ready"]
    world.ask("a", 1)
    assert starts(world) == ["a-0.1"]
    assert world.outcomes == {"granted": 2, "left": 1}


def test_one_model_of_a_group_is_loaded_at_a_time(world: World) -> None:
    bring_up(world, idle("a", group=Group("g")), idle("b", group=Group("g")), idle("c"), size=10)
    for name in ("a", "c", "b"):
        world.ask(name, 1)
        world.ticks(10)
    assert (states(world, "a"), states(world, "b"), states(world, "c")) == (
        [],
        ["ready"],
        ["ready"],
    )


def adopt(world: World, config: ModelConfig, replicas: int = 1) -> list[Replica]:
    """Engines that an earlier node left, which answer at once."""
    world.now, world.sizes[config.name, 1], adopted = 1000.0, 10, []
    for number in range(replicas):
        name = f"{config.name}-{number}.1"
        reservation = Reservation(name, (), 10)
        adopted.append(Replica(name, (config.name, 1), number, reservation=reservation))
        world.engines[name] = Engine(name, 10, used=10, ready=True)
    world.scheduler.adopt(config, 1, adopted, world.now)
    for replica in adopted:
        world.scheduler.replica_changed(replica.id, "ready", world.now)
    return adopted


def test_replicas_for_a_load_are_adopted_with_it(world: World) -> None:
    adopt(world, model("a", autoscale=Autoscale(1, 3)), 3)
    world.ticks(10)
    assert states(world, "a") == ["ready"] * 3
    world.ticks(200)
    assert states(world, "a") == ["ready"]


@pytest.mark.parametrize("found", ["starting", "ready, then unloaded", "nothing"])
def test_a_model_on_demand_of_an_earlier_node_is_waited_for(world: World, found: str) -> None:
    """It is not prepared anew while its engines run."""
    world.sizes["a", 1] = 60
    if found == "nothing":
        world.scheduler.desire(idle("a"), 0, start=False, generation=1)
    else:
        replica = Replica("a-0.1", ("a", 1), 0, reservation=Reservation("a-0.1", (), 60))
        world.engines["a-0.1"] = Engine("a-0.1", 60)
        world.scheduler.adopt(idle("a"), 1, [replica], 0)
    if found == "starting":
        world.scheduler.start_wanted(Start("a-0.1", frozenset(), 60, alone=False), 0)
    elif found != "nothing":
        world.scheduler.replica_changed("a-0.1", "ready", 0, slots=4)
        world.remember("a")
        world.scheduler.unload("a", 0)
    world.ask("a", 1)
    world.ticks(20)
    assert world.outcomes == {"granted": 1}


def test_an_adopted_replica_yields_to_its_group_as_if_it_had_been_started(world: World) -> None:
    """At once: it was up long before this node."""
    group = Group("g")
    (adopted,) = adopt(world, idle("a", group=group))
    bring_up(world, idle("b", group=group), size=10)
    world.ask("b", 1)
    assert adopted.start_seconds == 0
    world.ticks(10)
    assert (states(world, "a"), states(world, "b")) == ([], ["ready"])


def test_a_group_with_a_model_that_is_kept_says_so(world: World) -> None:
    bring_up(world, model("a", group=Group("g")), size=10)
    key = world.up(model("b", group=Group("g")), size=10)
    world.ticks(10)
    error = world.scheduler.outcome(key)
    assert isinstance(error, DoesNotFitError)
    assert "'g', of which a is loaded" in error.message


@pytest.mark.parametrize("fields", [{"group": Group("g")}, {}], ids=["group", "memory"])
def test_what_found_no_room_is_tried_again_as_soon_as_there_is_some(
    world: World, fields: dict[str, Any]
) -> None:
    bring_up(world, model("a", **fields), idle("b", **fields))
    for _ in range(4):
        world.ask("b", 1)
        world.ticks(30)
    assert world.outcomes["granted"] == 0
    world.ask("b", 1)
    world.remember("a")
    world.scheduler.unload("a", world.now)
    world.run(3)
    world.ask("b", 1)
    world.ticks(10)
    assert world.outcomes["granted"] == 1


def test_a_model_that_a_person_starts_waits_for_nobody_to_ask(world: World) -> None:
    bring_up(world, model("a", keep="manual", preload=False))
    assert states(world, "a") == []
    with pytest.raises(NotReadyError):
        world.scheduler.request(Waiter("a"), world.now)
    world.scheduler.start("a", world.now)
    world.ticks(20)
    assert states(world, "a") == ["ready"]


def test_a_change_is_started_beside_and_takes_over(world: World) -> None:
    bring_up(world, model("a"), size=40)
    key = world.up(model("a", idle=1.0), size=40)
    while world.scheduler.outcome(key) is not True:
        world.ask("a", 0.2)
        world.ticks(0.5)
    world.ticks(20)
    assert set(world.outcomes) == {"granted"}
    assert states(world, "a") == ["ready"]
    assert list(world.engines) == ["a-0.2"]


def test_a_change_without_room_holds_requests_meanwhile(world: World) -> None:
    bring_up(world, model("a"), size=60)
    key = world.up(model("a", idle=1.0), size=60)
    while world.scheduler.outcome(key) is not True:
        world.ask("a", 0.2)
        world.ticks(0.5)
    world.ticks(20)
    assert set(world.outcomes) == {"granted"}
    assert list(world.engines) == ["a-0.2"]


@pytest.mark.parametrize("size", [40, 60])
def test_a_change_that_fails_is_rolled_back(world: World, size: int) -> None:
    bring_up(world, model("a"), size=size)
    key = world.up(model("a", idle=1.0), size=size, broken=True)
    for _ in range(60):
        world.ask("a", 0.1)
        world.ticks(0.5)
    assert not isinstance(world.scheduler.outcome(key), (bool, type(None)))
    assert list(world.engines) == ["a-0.1"]
    assert states(world, "a") == ["ready"]
    if size == 40:
        assert set(world.outcomes) == {"granted"}


@pytest.mark.parametrize("size", [40, 60])
def test_a_change_that_fails_while_engines_restart_costs_nothing(world: World, size: int) -> None:
    """What served until its engine crashed is what is gone back to, though nothing of it is ready just then."""
    bring_up(world, model("a"), size=size)
    world._crash(world.engines["a-0.1"])
    assert states(world, "a") == ["starting"]
    key = world.up(model("a", idle=1.0), size=size, broken=True)
    world.ticks(60)
    assert not isinstance(world.scheduler.outcome(key), (bool, type(None)))
    assert list(world.engines) == ["a-0.1"]
    assert states(world, "a") == ["ready"]


def test_a_change_that_does_not_fit_at_all_stops_nothing(world: World) -> None:
    bring_up(world, model("a"), size=60)
    key = world.up(model("a", idle=1.0), size=101)
    world.ticks(20)
    assert isinstance(world.scheduler.outcome(key), DoesNotFitError)
    assert stops(world) == []
    assert states(world, "a") == ["ready"]


def test_what_its_engine_refuses_is_told_and_harms_nobody(world: World) -> None:
    bring_up(world, model("a"), size=60)
    key = world.up(model("a", idle=1.0), size=60)
    refused = ConfigError("the command has no {port}")

    def place(*_: object) -> Placement:
        raise refused

    world.scheduler._placing._place = place
    world.ticks(20)
    assert world.scheduler.outcome(key) is refused
    assert states(world, "a") == ["ready"]


def test_replicas_follow_the_load(world: World) -> None:
    bring_up(world, model("a", autoscale=Autoscale(1, 3, 0.5)), size=30)
    assert states(world, "a") == ["ready"]
    for _ in range(100):
        for _ in range(4):
            world.ask("a", 1.5)
        world.ticks(0.5)
    assert states(world, "a") == ["ready"] * 3
    world.ticks(300)
    assert states(world, "a") == ["ready"]
    assert set(world.outcomes) == {"granted"}


def test_what_more_replicas_lack_costs_those_there_are_nothing(world: World) -> None:
    bring_up(world, model("a", autoscale=Autoscale(1, 3, 0.5)), size=60)
    for _ in range(30):
        for _ in range(4):
            world.ask("a", 1.5)
        world.ticks(0.5)
    assert states(world, "a") == ["ready"]
    assert "refused" not in world.outcomes


def test_a_full_queue_refuses_with_the_time_that_it_takes(world: World) -> None:
    world.slots = 1
    bring_up(world, model("a", max_queue=2))
    for _ in range(10):
        world.ask("a", 3)
        world.run(3)
    for _ in range(3):
        world.ask("a", 3)
    with pytest.raises(OverloadedError) as refused:
        world.scheduler.request(Waiter("a"), world.now)
    assert refused.value.code == "queue_full"
    assert refused.value.retry_after == pytest.approx(9, abs=2)


def test_who_waits_too_long_is_told_so(world: World) -> None:
    world.slots = 1
    bring_up(world, model("a", queue_timeout=5))
    world.ask("a", 20)
    world.ask("a", 1)
    world.ticks(10)
    assert world.outcomes == {"granted": 1, "refused": 1}


def test_who_waited_for_a_start_that_failed_is_told_when_the_next_is_tried(world: World) -> None:
    world.up(idle("a"), size=world.total + 1)
    world.run(5)
    for number, pause in enumerate((5, 10, 20)):
        world.ask("a", 1)
        world.run(3)
        error = world.refused[number]
        assert isinstance(error, NotReadyError)
        assert error.retry_after == pytest.approx(pause)
        with pytest.raises(NotReadyError) as refused:
            world.scheduler.request(Waiter("a"), world.now)
        assert refused.value.retry_after == pytest.approx(pause, abs=3)
        world.ticks(pause)


def test_what_takes_no_slot_waits_for_none(world: World) -> None:
    world.slots = 1
    bring_up(world, model("a"))
    for _ in range(3):
        world.ask("a", 5)
    assert world.scheduler.request(Waiter("a", slotless=True), world.now) is not None


@pytest.mark.parametrize("by", ["request", "person"])
def test_a_model_is_loaded_again_for_the_load_that_there_is(world: World, by: str) -> None:
    """Not with the replicas that it had when it was busy."""
    world.slots = 2
    bring_up(world, model("a", keep="idle", idle=5, autoscale=Autoscale(0, 3)), size=30)
    for _ in range(9):
        world.ask("a", 2)
    world.ticks(10)
    assert states(world, "a") == ["ready"] * 3
    world.ticks(20)
    assert states(world, "a") == []
    if by == "request":
        world.ask("a", 1)
    else:
        world.scheduler.start("a", world.now)
    world.ticks(4)
    assert states(world, "a") == ["ready"]


def test_who_waits_for_another_replica_holds_up_nobody(world: World) -> None:
    bring_up(world, model("a", replicas=2), size=20)
    world.scheduler.replica_changed("a-1.1", "starting", world.now, due=world.now + 60)
    stuck = world.ask("a", 1, exclude=frozenset({"a-0.1"}))
    assert stuck in world.waiting
    for _ in range(3):
        world.ask("a", 1)
    assert list(world.waiting) == [stuck]
    world.ticks(10)
    assert world.outcomes == {"granted": 3, "refused": 1}
    with pytest.raises(NotReadyError):
        world.scheduler.request(Waiter("a", exclude=frozenset({"a-0.1", "a-1.1"})), world.now)


def test_a_start_of_minutes_is_told_in_full(world: World) -> None:
    bring_up(world, model("a"))
    world.scheduler.replica_changed("a-0.1", "starting", world.now, due=world.now + 240)
    with pytest.raises(NotReadyError) as refused:
        world.scheduler.request(Waiter("a"), world.now)
    assert refused.value.retry_after == 240


def noted(world: World, what: str) -> list[str]:
    """A field of each request from now on, in the order in which they are granted a replica."""
    order: list[str] = []
    grant = world.grant

    def granted(waiter: Waiter, replica: str) -> bool:
        order.append(getattr(waiter, what))
        return grant(waiter, replica)

    world.grant = granted  # type: ignore[method-assign]
    return order


def test_accounts_are_served_in_turn(world: World) -> None:
    world.slots = 1
    bring_up(world, model("a"))
    order = noted(world, "key")
    for _ in range(20):
        world.ask("a", 1, key="greedy")
    for _ in range(3):
        world.ask("a", 1, key="modest")
    world.ticks(40)
    assert order[:6] == ["modest", "greedy"] * 3
    assert len(order) == 22


@pytest.mark.parametrize("slots", range(1, 9))
@pytest.mark.parametrize("weights", [(1, 2), (1, 3), (2, 3), (7, 7), (1, 2, 3), (1, 1, 4)])
def test_accounts_are_served_by_their_weight(
    world: World, slots: int, weights: tuple[int, ...]
) -> None:
    world.slots = slots
    bring_up(world, model("a"))
    order = noted(world, "key")
    for _ in range(240):
        for number, weight in enumerate(weights):
            world.ask("a", 1, key=str(number), weight=weight)
    while len(order) < 240:
        world.ticks(1)
    shares = [order[:240].count(str(number)) * sum(weights) for number in range(len(weights))]
    assert [round(share / 240) for share in shares] == list(weights), shares


def test_who_comes_late_takes_nothing_back(world: World) -> None:
    """A key that was away gets its share from now on, not what it left to others."""
    world.slots = 1
    bring_up(world, model("a"))
    order = noted(world, "key")
    for _ in range(40):
        world.ask("a", 1, key="early")
    world.ticks(20)
    for _ in range(10):
        world.ask("a", 1, key="late")
    begun = len(order)
    world.ticks(20)
    assert order[begun : begun + 12].count("late") == 6


def test_batch_waits_for_interactive_and_does_not_starve(world: World) -> None:
    world.slots = 1
    bring_up(world, model("a"))
    order = noted(world, "priority")
    for _ in range(20):
        world.ask("a", 0.1, key="b", priority="batch")
        world.ask("a", 0.1, key="i")
    world.ticks(20)
    assert order[:16].count("batch") == 2
    assert len(order) == 39


def test_nobody_waits_much_longer_than_in_a_perfect_queue(world: World) -> None:
    world.slots = 8
    bring_up(world, model("a"))
    for number in range(1000):
        world.ask("a", 1, key=f"k{number % 50}")
    world.ticks(200)
    assert len(world.waited) == 992
    assert max(world.waited) <= 1.5 * 992 / 8
    assert world.outcomes == {"granted": 1000}


def test_a_node_that_stops_refuses_who_waits(world: World) -> None:
    world.slots = 1
    bring_up(world, model("a"))
    world.ask("a", 5)
    world.ask("a", 5)
    world.scheduler.close()
    assert world.outcomes == {"granted": 1, "refused": 1}
    with pytest.raises(NotReadyError, match="shutting down"):
        world.scheduler.request(Waiter("a"), world.now)


def test_a_model_is_unloaded_and_loaded_by_hand(world: World) -> None:
    bring_up(world, model("a"), idle("b"), size=30)
    for name in "ab":
        world.scheduler.start(name, world.now)
    world.ticks(20)
    world.remember("a", "b")
    for name in "ab":
        world.scheduler.unload(name, world.now)
    world.ticks(20)
    assert states(world, "a") == states(world, "b") == []
    world.ask("a", 1)
    assert world.outcomes["NotReadyError"] == 1, "a person loads what is kept always"
    world.ask("b", 1)
    world.ticks(20)
    assert world.outcomes["granted"] == 1, "a request loads what is kept on demand"
    world.scheduler.start("a", world.now)
    world.ticks(20)
    assert states(world, "a") == ["ready"]


def test_a_policy_is_changed_under_running_engines(world: World) -> None:
    bring_up(world, model("a"), size=30)
    world.scheduler.adjust(model("a", replicas=3, max_concurrency=1), world.now)
    world.ticks(20)
    assert states(world, "a") == ["ready"] * 3
    for _ in range(4):
        world.ask("a", 30)
    assert len(world.waiting) == 1, "three replicas with a slot each"
    world.scheduler.adjust(model("a", max_concurrency=4), world.now)
    world.ticks(5)
    assert states(world, "a") == ["ready"] * 3, "each answers first what it has"
    world.ticks(60)
    assert states(world, "a") == ["ready"]
    assert starts(world) == ["a-0.1", "a-1.1", "a-2.1"]
    assert world.outcomes["granted"] == 4


def test_replicas_for_which_there_is_no_room_are_told_of(world: World) -> None:
    bring_up(world, model("a"), size=60)
    key = world.scheduler.adjust(model("a", replicas=2), world.now)
    world.ticks(20)
    desired = world.scheduler.desired(key)
    assert desired is not None
    assert isinstance(desired.shortage, DoesNotFitError)
    assert states(world, "a") == ["ready"]
    world.scheduler.adjust(model("a"), world.now)
    assert desired.shortage is None


def effects(world: World, *kinds: str) -> list[tuple[str, str]]:
    return [effect for effect in world.effects if effect[0] in kinds]


def test_models_that_do_not_fit_together_sleep_and_wake_in_turn() -> None:
    world = World(random.Random(0), trouble=0.0, min_up=0.0, ram=400)
    bring_up(world, idle("a"), idle("b"), size=60)
    for name in "abab":
        world.ask(name, 1)
        world.ticks(20)
    assert effects(world, "start", "suspend", "wake", "stop") == [
        ("start", "a-0.1"),
        ("suspend", "a-0.1"),
        ("start", "b-0.1"),
        ("suspend", "b-0.1"),
        ("wake", "a-0.1"),
        ("suspend", "a-0.1"),
        ("wake", "b-0.1"),
    ]
    assert world.outcomes == {"granted": 4}
    assert states(world, "a") == ["asleep"]


def test_what_sleeps_is_unloaded_for_want_of_main_memory_and_after_a_while() -> None:
    world = World(random.Random(0), trouble=0.0, min_up=0.0, ram=100)
    bring_up(world, idle("a"), idle("b", asleep=30, idle=30), size=60)
    world.ask("a", 1)
    world.ticks(20)
    world.ask("b", 1)
    world.ticks(20)
    assert states(world, "a") == ["asleep"]
    world.ticks(30)
    assert states(world, "b") in (["asleep"], []), "main memory has room for one of them at level 1"
    world.ticks(60)
    assert states(world, "b") == []
    assert states(world, "a") == ["asleep"]


def test_a_model_of_an_exclusive_group_has_those_of_others_unloaded(world: World) -> None:
    pair = Group("pair", swap=False, exclusive=True)
    bring_up(
        world,
        idle("a", group=pair),
        idle("b", group=pair),
        idle("c"),
        idle("d", group=Group("kept", persistent=True)),
        model("e"),
        size=10,
    )
    for name in "cdab":
        world.ask(name, 1)
        world.ticks(20)
    assert {name: states(world, name) for name in "abcde"} == {
        "a": ["ready"],
        "b": ["ready"],
        "c": [],
        "d": ["ready"],
        "e": ["ready"],
    }
    world.ask("c", 1)
    world.ticks(20)
    assert states(world, "a") == states(world, "c") == ["ready"], "only the exclusive one displaces"
