"""A home of its own for every test, and no process left behind afterwards."""

from __future__ import annotations

import dataclasses
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.node.support import FAKE_PHASES, QUICK, NoGpu, explain, fake_deployer
from tests.support.polling import until
from yibu.node.fleet.fleet import Fleet
from yibu.node.launch.spec import Host
from yibu.node.machine import processes
from yibu.node.machine.orphans import become_subreaper
from yibu.node.machine.ports import Ports
from yibu.node.state import StateFile, home_id
from yibu.paths import Paths


@pytest.fixture
def paths(tmp_path: Path) -> Iterator[Paths]:
    """A home that is checked for left-behind processes when the test is over."""
    home = Paths.from_env({"YIBU_HOME": str(tmp_path / "home")})
    home.make()
    yield home
    prefix = f"{home_id(home.state)}/"
    try:
        # A process that was just killed may take a moment.
        until(lambda: not processes.marked(prefix), "no process left behind")
    finally:
        for identity in processes.marked(prefix):
            processes.send(identity, signal.SIGKILL)


@pytest.fixture
def host(paths: Paths) -> Host:
    become_subreaper()
    return Host(
        paths=paths,
        home_id=home_id(paths.state),
        env=dict(os.environ),
        ports=Ports(),
        timings=QUICK,
        explain=explain,
        phase_marks=lambda engine: FAKE_PHASES,
        gpu_memory=NoGpu(),
    )


@pytest.fixture
def make_fleet(host: Host, paths: Paths) -> Callable[..., Fleet]:
    def make(**changes: Any) -> Fleet:
        timings = dataclasses.replace(QUICK, **changes.pop("timings", {}))
        rotation = changes.pop("rotation", None)
        gpu_memory = changes.pop("gpu_memory", host.gpu_memory)
        deployer = fake_deployer(**changes)
        return Fleet(
            deployer,
            dataclasses.replace(host, timings=timings, gpu_memory=gpu_memory),
            StateFile(paths.state / "node.json"),
            rotation=rotation,
        )

    return make
