"""A fork of the zygote is to the tests what a process that was started is."""

from __future__ import annotations

from dataclasses import replace

from tests.e2e.home import Home


def test_a_fork_ends_and_writes_as_a_started_command_does(home: Home) -> None:
    started = replace(home, through=("env",))
    for words in (["--version"], ["ps"], ["no-such-verb"], ["plan", "./nothing.gguf"]):
        forked, real = home.yibu(*words, code=None), started.yibu(*words, code=None)
        assert (forked.returncode, forked.stdout) == (real.returncode, real.stdout)
        assert forked.stderr == real.stderr
