"""A fork of the zygote is to the tests what a process that was started is."""

from __future__ import annotations

import os
import signal
from dataclasses import replace

import psutil

from tests.e2e.home import Home, fake


def test_a_fork_ends_and_writes_as_a_started_command_does(home: Home) -> None:
    started = replace(home, through=("env",))
    for words in (["--version"], ["ps"], ["no-such-verb"], ["plan", "./nothing.gguf"]):
        forked, real = home.yibu(*words, code=None), started.yibu(*words, code=None)
        assert (forked.returncode, forked.stdout) == (real.returncode, real.stdout)
        assert forked.stderr == real.stderr


def test_its_environment_and_its_signals_are_its_own(home: Home) -> None:
    home.write([fake("fake", "--bind-when", "never")])
    with replace(home, settings={"SEEN": "only here"}).start("up") as up:
        assert psutil.Process(up.pid).environ()["SEEN"] == "only here"
        assert os.getpgid(up.pid) == up.pid
        up.send_signal(signal.SIGKILL)
        assert up.wait(60) == -signal.SIGKILL
