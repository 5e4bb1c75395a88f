"""Models that come up at once: memory is reserved once, and GPUs are started on in turn."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.node.support import fake_model, placing
from tests.support.polling import eventually
from yibu.errors import DoesNotFitError, EngineStartError
from yibu.node.fleet.fleet import Fleet
from yibu.node.state import SavedNode, boot_id
from yibu.paths import Paths
from yibu.planner.ledger import Beside, less_reserved
from yibu.planner.plan import plan
from yibu.planner.request import Request
from yibu.planner.types import Machine, MemoryNeed, Placement

MakeFleet = Callable[..., Fleet]
GIB, MIB = 1024**3, 1024**2
MACHINE = Machine("m", 2, 2, 16 * GIB, 10 * GIB)


def place(config: Any, facts: Any, number: int, beside: Beside) -> Any:
    """The planner's, on a machine of which ten GiB are free, whatever runs on it."""
    request = Request(config.name, "command", memory=config.memory)
    machine = less_reserved(MACHINE, (*beside.starting, *beside.held))
    verdict = plan([request], machine)[0]
    if verdict.placement is None:
        raise DoesNotFitError(f"{config.name} does not fit: {verdict.reasons[0]}")
    return verdict.placement


def of(name: str, gib: int, *switches: str, **changes: Any) -> Any:
    return fake_model(name, *switches, memory=gib * GIB, **changes)


def on_shared_gpu(config: Any, facts: Any, number: int, beside: Beside) -> Any:
    """On a GPU of ten GiB, of which an engine takes two less than it was planned."""
    taken = sum(p.memory for p in beside.starting) + 4 * GIB * len(beside.held)
    if config.memory + taken > 10 * GIB:
        raise DoesNotFitError(f"{config.name} does not fit")
    return Placement((0,), 1, None, 1, MemoryNeed(0, 0, config.memory))


async def test_one_waits_for_the_gpu_memory_that_is_reserved_for_another(
    make_fleet: MakeFleet,
) -> None:
    fleet = make_fleet(place=placing(on_shared_gpu), gpu_memory=FreeGpu())
    async with fleet:
        with fleet.events(["b"]) as events:
            first = asyncio.create_task(fleet.up(of("a", 6, "--ready-after", "0.5")))
            await eventually(lambda: "a-0" in fleet._runner.supervisors)
            await fleet.up(of("b", 6))
            assert fleet.route("a").state == "ready"  # b did not start before
            await first
            seen = [event async for event in _drained(events)]
        phases = [event["phase"] for event in seen if event["event"] == "phase"]
        assert phases[:3] == ["plan", "wait", "environment"]
        (note,) = [event["text"] for event in seen if event["event"] == "note"]
        assert "reserved for a-0" in note


async def test_main_memory_stays_with_an_engine_that_is_ready(make_fleet: MakeFleet) -> None:
    async with make_fleet(place=placing(place)) as fleet:
        first = asyncio.create_task(fleet.up(of("a", 6, "--ready-after", "0.3")))
        await eventually(lambda: "a-0" in fleet._runner.supervisors)
        with pytest.raises(DoesNotFitError):  # at once: it would not fit later either
            await fleet.up(of("b", 6))
        assert fleet.route("a").state == "starting"
        await first
        with pytest.raises(DoesNotFitError):
            await fleet.restart("b")
        (reservation,) = await fleet.reserved()
        assert (reservation.replica, reservation.memory) == ("a-0", 6 * GIB)
        assert 0 < reservation.resident < GIB  # a fake engine of a few megabytes
        await fleet.down("a")
        assert await fleet.reserved() == []
        await fleet.restart("b")


async def test_what_an_engine_holds_counts_once(make_fleet: MakeFleet, tmp_path: Path) -> None:
    """Its own memory is missing from what the machine has free already; a file that it maps, as
    llama.cpp does its weights, is not, for the system counts such pages as free."""
    weights = tmp_path / "weights"
    weights.write_bytes(bytes(100 * MIB))
    async with make_fleet(place=placing(place)) as fleet:
        await fleet.up(of("a", 1, "--hold-mib", "200", "--map-file", str(weights)))
        (reservation,) = await fleet.reserved()
        pid = fleet._runner.supervisors["a-0"].process.pid  # type: ignore[union-attr]
        assert pid in reservation.pids
        assert psutil.Process(pid).memory_info().rss > 300 * MIB
        assert 200 * MIB <= reservation.resident < 290 * MIB
        assert reservation.missing == GIB - reservation.resident


async def test_an_adopted_engine_keeps_what_it_was_planned(
    make_fleet: MakeFleet, paths: Paths
) -> None:
    fleet = make_fleet(place=placing(place))
    async with fleet:
        await fleet.up(of("a", 6))
        saved = SavedNode(boot_id(), tuple(map(fleet._save, fleet._current())))
        async with make_fleet(place=placing(place)) as later:
            await later.adopt(saved)
            await eventually(lambda: later.route("a").state == "ready")
            (reservation,) = await later.reserved()
            assert reservation.memory == 6 * GIB
            with pytest.raises(DoesNotFitError):
                await later.up(of("b", 6))


async def test_what_fits_beside_it_does_not_wait(make_fleet: MakeFleet) -> None:
    async with make_fleet(place=placing(place)) as fleet:
        going = asyncio.create_task(fleet.up(of("a", 6, "--ready-after", "60")))
        await eventually(lambda: "a-0" in fleet._runner.supervisors)
        await fleet.up(of("b", 3))
        assert fleet.route("a").state == "starting"
        await fleet.down("a")
        with pytest.raises(Exception, match="taken down"):
            await going


async def test_what_can_never_fit_is_refused_at_once(make_fleet: MakeFleet) -> None:
    async with make_fleet(place=placing(place)) as fleet:
        going = asyncio.create_task(fleet.up(of("a", 6, "--ready-after", "60")))
        await eventually(lambda: "a-0" in fleet._runner.supervisors)
        with pytest.raises(DoesNotFitError, match="b does not fit"):
            await fleet.up(of("b", 12))
        with pytest.raises(DoesNotFitError):  # its replicas count against each other
            await fleet.up(of("c", 4, replicas=3))
        assert fleet.route("a").state == "starting"
        await fleet.down("a")
        with pytest.raises(Exception, match="taken down"):
            await going


@pytest.mark.parametrize("end", ["fails", "is taken down", "has no environment"])
async def test_a_reservation_ends_with_the_start_it_was_made_for(
    make_fleet: MakeFleet, end: str
) -> None:
    broken = asyncio.Event()

    def environment(name: str, note: Any) -> Any:
        if not broken.is_set() and end == "has no environment":
            raise EngineStartError("no environment")
        return None

    changes = {"ensure_environment": environment} if end == "has no environment" else {}
    switches = ("--crash-after", "0.1", "--ready-after", "60") if end == "fails" else (
        "--ready-after", "60")  # fmt: skip
    async with make_fleet(place=placing(place), **changes) as fleet:
        going = asyncio.create_task(fleet.up(of("a", 6, *switches)))
        if end == "is taken down":
            await eventually(lambda: "a-0" in fleet._runner.supervisors)
            await fleet.down("a")
        with pytest.raises(Exception, match=r"a|no environment"):
            await going
        broken.set()
        assert await fleet.reserved() == []
        if end != "has no environment":
            await fleet.up(of("b", 6))


async def test_a_crash_gets_its_memory_back_before_others_do(make_fleet: MakeFleet) -> None:
    async with make_fleet(place=placing(place), timings={"backoff_first": 30.0}) as fleet:
        await fleet.up(of("a", 6))
        fleet._runner.supervisors["a-0"].process._signal_group(9)  # type: ignore[union-attr, arg-type]
        await eventually(lambda: fleet.route("a").state == "starting")
        (reservation,) = await fleet.reserved()
        assert (reservation.memory, reservation.resident) == (6 * GIB, 0)
        with pytest.raises(DoesNotFitError):
            await fleet.up(of("b", 6))


class FreeGpu:
    """Memory of GPUs that nobody holds."""

    def read(self, gpus: object) -> tuple[tuple[int, ...], frozenset[int]]:
        return (), frozenset()


def on_gpu(number: int) -> Callable[..., Placement]:
    return lambda config, *_: Placement(
        (0 if config.name != "other" else number,), 1, None, 1, MemoryNeed(1, 1, 1)
    )


async def test_engines_that_measure_a_gpu_start_one_after_the_other(
    make_fleet: MakeFleet, tmp_path: Path
) -> None:
    alone = {"plan": {"starts_alone": True}}
    fleet = make_fleet(place=placing(on_gpu(1)), gpu_memory=FreeGpu())
    async with fleet:
        slow = fake_model("a", "--ready-when", str(tmp_path / "go"), options=alone)
        with fleet.events(["b"]) as events:
            first = asyncio.create_task(fleet.up(slow))
            await eventually(
                lambda: (
                    "a-0" in fleet._runner.supervisors and fleet._runner.supervisors["a-0"].process
                )
            )
            second = asyncio.create_task(fleet.up(fake_model("b", options=alone)))
            # On another GPU nothing is in the way.
            await fleet.up(fake_model("other", options=alone))
            await eventually(
                lambda: (b := fleet._runner.supervisors.get("b-0")) and b.timeline.current == "wait"
            )
            assert not first.done()
            (tmp_path / "go").touch()
            await second
            assert first.done() or fleet.route("a").state == "ready"
            await first
            seen = [event async for event in _drained(events)]
        phases = [event["phase"] for event in seen if event["event"] == "phase"]
        assert phases[-3:] == ["wait", "imports", "warm-up"]


async def test_a_start_that_fails_gives_its_turn_up(make_fleet: MakeFleet) -> None:
    alone = {"plan": {"starts_alone": True}}
    fleet = make_fleet(place=placing(on_gpu(1)), gpu_memory=FreeGpu())
    async with fleet:
        with pytest.raises(EngineStartError):
            await fleet.up(fake_model("a", "--fail-start", "no", options=alone))
        await fleet.up(fake_model("b", options=alone))


async def _drained(events: Any) -> Any:
    while not events.empty():
        yield events.get_nowait()


async def test_a_placement_knows_which_models_come_up_too(make_fleet: MakeFleet) -> None:
    seen: dict[str, list[str]] = {}

    def note(config: Any, facts: Any, number: int, beside: Beside) -> Any:
        seen[config.name] = [other.config.name for other in beside.coming]
        return place(config, facts, number, beside)

    async with make_fleet(place=placing(note)) as fleet:
        await asyncio.gather(*(fleet.up(of(name, 2)) for name in "abc"))
        # Each leaves room for those after it in line, and none for those that have a place.
        assert sorted(map(len, seen.values())) == [0, 1, 2]
        with pytest.raises(DoesNotFitError):
            await fleet.up(of("large", 99))
        await fleet.up(of("d", 2))
        assert seen["d"] == []


async def test_a_machine_that_cannot_be_measured_once_is_measured_again(
    make_fleet: MakeFleet,
) -> None:
    tries: list[int] = []

    def machine() -> Machine:
        tries.append(1)
        if len(tries) == 1:
            raise OSError("the driver is being loaded")
        return MACHINE

    async with make_fleet(place=placing(place), machine=machine) as fleet:
        await fleet.up(of("a", 6))
        assert len(tries) >= 2
