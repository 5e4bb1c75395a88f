"""The phases of a start: told by the engine's log, by events and by the status."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.node.support import FAKE_PHASES, fake_model
from tests.support.polling import eventually
from yibu.config import ModelConfig
from yibu.errors import EngineStartError
from yibu.node.fleet.fleet import Fleet
from yibu.node.launch.phases import LogPhases, Timeline

MakeFleet = Callable[..., Fleet]


def test_a_timeline_adds_up() -> None:
    timeline = Timeline()
    timeline.enter("imports", 10.0)
    timeline.enter("load", 12.0)
    timeline.enter("imports", 15.0)
    assert timeline.seconds(16.0) == {"imports": 3.0, "load": 3.0}
    assert timeline.current == "imports"
    timeline.end(17.0)
    timeline.end(99.0)
    assert timeline.current is None
    assert timeline.seconds(100.0) == {"imports": 4.0, "load": 3.0}


def test_a_start_whose_log_is_silent_is_not_called_imports() -> None:
    silent, told = Timeline(), Timeline()
    for timeline, phases in ((silent, ("imports", "warm-up")), (told, ("imports", "load"))):
        for number, phase in enumerate(phases):
            timeline.enter(phase, float(number))
        timeline.end_start(2.0)
    assert silent.seconds(2.0) == {"start": 1.0, "warm-up": 1.0}
    assert told.seconds(2.0) == {"imports": 1.0, "load": 1.0}


def test_a_log_is_read_as_it_grows(tmp_path: Path) -> None:
    log = tmp_path / "m.log"
    log.write_bytes(b"fake: compiling, of an earlier life\n")
    reader = LogPhases(log, log.stat().st_size, FAKE_PHASES)
    assert (reader.first, reader.news()) == ("imports", None)
    with log.open("ab") as file:
        file.write(b"fake: loa")
        file.flush()
        assert reader.news() is None  # a line that is half written says nothing yet
        file.write(b"ding\nfake: compiling\n\xff")
        file.flush()
        assert reader.news() == "compile"
        file.write(b"\nfake: loading, says another worker\n")
        file.flush()
        assert reader.news() is None
    assert LogPhases(tmp_path / "none.log", 0, FAKE_PHASES).news() is None


def test_a_log_that_was_rotated_is_read_from_its_beginning(tmp_path: Path) -> None:
    log = tmp_path / "m.log"
    log.write_bytes(b"x" * 100 + b"\n")
    reader = LogPhases(log, 101, FAKE_PHASES)
    log.write_bytes(b"fake: loading\n")
    assert reader.news() == "load"


def phased(gate: Path) -> ModelConfig:
    """A model whose start goes from phase to phase as the file ``gate`` is made."""
    words = (f"{gate}:fake: {line}" for line in ("loading", "compiling"))
    switches = [switch for word in words for switch in ("--phase", word)]
    return fake_model("smol", *switches, source="/m")


async def _in_phase(fleet: Fleet, phase: str) -> None:
    await eventually(lambda: (one := _replica(fleet)) and one.timeline.current == phase)


async def _let_through(fleet: Fleet, gate: Path) -> None:
    """Open the gate once the node has seen each phase: it looks into the log now and then."""
    for phase in ("load", "compile"):
        await _in_phase(fleet, phase)
        gate.touch()


async def test_events_and_status_tell_each_phase(make_fleet: MakeFleet, tmp_path: Path) -> None:
    async with make_fleet() as fleet:
        with fleet.events(["smol"]) as events:
            gate = tmp_path / "gate"
            going = asyncio.create_task(fleet.up(phased(gate)))
            await _in_phase(fleet, "load")
            (model,) = await fleet.status()
            assert model["phase"] == model["replicas"][0]["phase"] == "load"
            await _let_through(fleet, gate)
            await going
            seen = _drained(events)
        begun = [event["phase"] for event in seen if event["event"] == "phase"]
        assert begun == [
            *("download", "plan", "environment"),
            *("imports", "load", "compile", "warm-up"),
        ]
        (ready,) = [e for e in seen if e.get("state") == "ready" and e["replica"] is None]
        assert list(ready["phases"]) == begun
        assert min(ready["phases"].values()) >= 0
        assert ready["phases"]["load"] > 0
        (model,) = await fleet.status()
        assert model["phase"] is None
        assert model["phases"].keys() == ready["phases"].keys()
        assert list(model["replicas"][0]["phases"]) == ["imports", "load", "compile", "warm-up"]


async def test_a_second_start_is_told_without_the_first_ones_download(
    make_fleet: MakeFleet, tmp_path: Path
) -> None:
    gate = tmp_path / "gate"
    async with make_fleet() as fleet:
        for start in (fleet.up(phased(gate)), fleet.restart("smol")):
            going = asyncio.create_task(start)
            await _let_through(fleet, gate)
            await going
        (model,) = await fleet.status()
        assert list(model["phases"]) == ["imports", "load", "compile", "warm-up"]


async def test_a_start_that_fails_keeps_the_phase_it_failed_in(
    make_fleet: MakeFleet, tmp_path: Path
) -> None:
    gate = tmp_path / "gate"
    async with make_fleet() as fleet:
        config = fake_model("smol", "--phase", f"{gate}:fake: loading", "--fail-start", "no")
        going = asyncio.create_task(fleet.up(config))
        await _in_phase(fleet, "load")
        gate.touch()
        with pytest.raises(EngineStartError):
            await going
        (model,) = await fleet.status()
        assert (model["state"], model["phase"]) == ("failed", None)
        assert "load" in model["phases"]
        assert "warm-up" not in model["phases"]


def _replica(fleet: Fleet) -> Any:
    return fleet._runner.supervisors.get("smol-0")


def _drained(events: Any) -> list[dict[str, Any]]:
    seen = []
    while not events.empty():
        seen.append(events.get_nowait())
    return seen
