"""What `yibu up` says while models come up."""

from __future__ import annotations

import time
from typing import Any

import pytest

from yibu.cli.display import LiveLines, PlainLines, breakdown, phrase
from yibu.cli.progress import describe_environment
from yibu.environments.progress import EnvironmentProgress
from yibu.hub.types import Progress


def state(state: str, replica: str | None = None, **fields: Any) -> dict[str, Any]:
    return {"event": "state", "model": "m", "replica": replica, "state": state, **fields}


def phase(name: str) -> dict[str, Any]:
    return {"event": "phase", "model": "m", "replica": "m-0", "phase": name}


@pytest.mark.parametrize(
    ("phases", "total", "text"),
    [
        (
            {"download": 0.1, "environment": 1.2, "imports": 40.4, "load": 3.0, "warm-up": 20.2},
            65.0,
            "environment 1, imports 40, load 3, warm-up 20",
        ),
        ({"download": 0.02, "imports": 0.21, "load": 0.35}, 0.6, "imports 0.2, load 0.3"),
        ({}, 3.0, ""),
    ],
)
def test_phases_are_summed_up_in_one_line(
    phases: dict[str, float], total: float, text: str
) -> None:
    assert breakdown(phases, total) == text
    ready = phrase(state("ready", phases=phases), total)
    assert ready == f"ready in {total:.{0 if total > 20 else 1}f} s" + (f": {text}" if text else "")


def test_a_file_gets_a_line_a_phase(capsys: pytest.CaptureFixture[str]) -> None:
    with PlainLines() as lines:
        for event in (
            state("starting"),
            state("starting", replica="m-0"),
            phase("imports"),
            phase("load"),
            state("ready", replica="m-0", phases={"load": 9.0}),
            state("ready", phases={"imports": 1.0, "load": 9.0}),
        ):
            lines.show(event)
    said = capsys.readouterr().err.splitlines()
    assert [line.split(" in ")[0] for line in said] == [
        *("m  imports", "m  load", "m  ready"),
    ]
    assert said[-1].endswith("imports 1.0, load 9.0")


def test_a_live_line_counts_the_seconds_of_its_phase(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = LiveLines()
    now = time.monotonic()
    monkeypatch.setattr(time, "monotonic", lambda: now)
    lines.show(phase("imports"))
    now += 12.4
    assert lines._draw().plain == "m  imports, 12 s"
    lines.show(state("ready", phases={}))
    assert lines._draw().plain == "m  ready in 12.4 s"


@pytest.mark.parametrize(
    ("progress", "text"),
    [
        (Progress("downloading", 0, 0), "downloading"),
        (Progress("downloading", 430, 1000), "downloading 43 % of 1000 bytes"),
        (
            Progress("downloading", 430, 1000, 190.0),
            "downloading 43 % of 1000 bytes, 190 bytes/s, 3 s left",
        ),
    ],
)
def test_a_download_says_how_long_it_will_take(progress: Progress, text: str) -> None:
    assert phrase({"event": "progress", "model": "m", **progress.plain()}, 1.0) == text


def test_bytes_of_an_environment_are_those_of_its_download() -> None:
    def said(phase: Any) -> str:
        return describe_environment(EnvironmentProgress("e", phase, 40.2, 500, 1_000_000, 154))

    assert said("downloading") == "downloading 500 bytes of 977 KiB, 40 s"
    assert said("installing") == "installing 154 packages, 40 s"
    assert said("done") == "done, 40 s"


@pytest.mark.parametrize(
    ("on_demand", "text"),
    [(True, "loaded when somebody asks for it"), (False, "not loaded; yibu load m loads it")],
)
def test_an_unloaded_model_says_what_loads_it(*, on_demand: bool, text: str) -> None:
    assert phrase(state("unloaded", on_demand=on_demand), 1.0) == text
