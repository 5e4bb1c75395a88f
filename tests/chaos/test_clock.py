"""The clock that jumps leaves all waits as long as they are."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.chaos.clock import Clock

_WAITS = """
import queue, resource, threading, time

def waited(wait):
    begun = time.monotonic()
    wait()
    return 0.2 <= time.monotonic() - begun

def empty():
    try:
        queue.Queue().get(timeout=0.2)
    except queue.Empty:
        pass

taken = threading.Lock()
taken.acquire()
right = [
    waited(lambda: threading.Event().wait(0.2)),
    waited(lambda: taken.acquire(timeout=0.2)),
    waited(empty),
]
busy = threading.Thread(target=lambda: [sum(range(1000)) for _ in range(30_000)])
busy.start()
while busy.is_alive():
    time.sleep(0.001)
print(right, resource.getrusage(resource.RUSAGE_SELF).ru_nvcsw, round(time.time()))
"""
"""Timed waits, then a thread that wants the interpreter's lock while another computes."""


@pytest.mark.parametrize("offset", [0, 3600, -86400 * 40])
def test_waits_are_as_long_as_without_it(tmp_path: Path, offset: int) -> None:
    clock = Clock(tmp_path / "clock")
    if clock.why_not:
        pytest.skip(clock.why_not)
    clock.jump(offset)
    plain, moved = _run({}), _run(clock.env)
    assert moved[0] == plain[0] == "[True, True, True]"
    assert int(moved[1]) < 20 * int(plain[1])
    assert abs(int(moved[2]) - int(plain[2]) - offset) < 60


def _run(env: dict[str, str]) -> list[str]:
    said = subprocess.run(
        [sys.executable, "-S", "-c", _WAITS], env=env, capture_output=True, text=True, check=True
    )
    return said.stdout.strip().rsplit(" ", 2)
