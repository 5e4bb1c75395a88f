"""The phases of a start: told by the engine's log, by events and by the status."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.node.support import FAKE_PHASES, fake_model
from tests.support.polling import eventually
from yibu.errors import EngineStartError
from yibu.node.fleet import Fleet
from yibu.node.phases import LogPhases, Timeline

MakeFleet = Callable[..., Fleet]
PHASES = ("--phase", "0.3:fake: loading", "--phase", "0.3:fake: compiling")


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


async def test_events_and_status_tell_each_phase(make_fleet: MakeFleet) -> None:
    async with make_fleet() as fleet:
        with fleet.events("smol") as events:
            going = asyncio.create_task(fleet.up(fake_model("smol", *PHASES, source="/m")))
            await eventually(lambda: _replica(fleet) and _replica(fleet).timeline.current == "load")
            (model,) = await fleet.status()
            assert model["phase"] == model["replicas"][0]["phase"]
            await going
            seen = _drained(events)
        begun = [event["phase"] for event in seen if event["event"] == "phase"]
        assert begun == [
            *("download", "plan", "environment"),
            *("imports", "load", "compile", "warm-up"),
        ]
        (ready,) = [e for e in seen if e.get("state") == "ready" and e["replica"] is None]
        assert list(ready["phases"]) == begun
        assert ready["phases"]["load"] >= 0.2
        assert ready["phases"]["compile"] >= 0.2
        (model,) = await fleet.status()
        assert model["phase"] is None
        assert model["phases"].keys() == ready["phases"].keys()
        assert list(model["replicas"][0]["phases"]) == ["imports", "load", "compile", "warm-up"]


async def test_a_second_start_is_told_without_the_first_ones_download(
    make_fleet: MakeFleet,
) -> None:
    async with make_fleet() as fleet:
        await fleet.up(fake_model("smol", *PHASES, source="/m"))
        await fleet.restart("smol")
        (model,) = await fleet.status()
        assert list(model["phases"]) == ["imports", "load", "compile", "warm-up"]


async def test_a_start_that_fails_keeps_the_phase_it_failed_in(make_fleet: MakeFleet) -> None:
    async with make_fleet() as fleet:
        config = fake_model("smol", "--phase", "0.3:fake: loading", "--fail-start", "no")
        with pytest.raises(EngineStartError):
            await fleet.up(config)
        (model,) = await fleet.status()
        assert (model["state"], model["phase"]) == ("failed", None)
        assert "imports" in model["phases"]
        assert "warm-up" not in model["phases"]


def _replica(fleet: Fleet) -> Any:
    return fleet._replicas.get("smol-0")


def _drained(events: Any) -> list[dict[str, Any]]:
    seen = []
    while not events.empty():
        seen.append(events.get_nowait())
    return seen
