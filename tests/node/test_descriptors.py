"""What the node does in a process that can open no file."""

from __future__ import annotations

import subprocess
import sys

import pytest

SCRIPT = """
import os, resource, signal, subprocess, sys, threading, time
from yibu import descriptors
from yibu.node.machine import processes

child = subprocess.Popen(["sleep", "60"])
identity = processes.process(child.pid).identity
resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
held = []
try:
    while True:
        held.append(os.open("/dev/null", os.O_RDONLY))
except OSError as error:
    assert descriptors.exhausted(error)
assert not descriptors.any_left()
assert processes.alive(identity), "not seen is not dead"
try:
    processes.process(child.pid)
except OSError as error:
    assert descriptors.exhausted(error)
else:
    sys.exit("a process that cannot be read was called dead, or was read")
threading.Timer(0.3, lambda: [os.close(held.pop()) for _ in range(8)]).start()
assert child.pid in processes.snapshot(), "waits for descriptors"
while True:
    try:
        held.append(os.open("/dev/null", os.O_RDONLY))
    except OSError:
        break
assert processes.send(identity, signal.SIGTERM)
assert child.wait(60) == -signal.SIGTERM
assert not processes.send(identity, signal.SIGTERM)
print("done")
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="/proc is Linux's")
def test_without_descriptors_nothing_is_taken_for_dead() -> None:
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.stdout, done.returncode) == ("done\n", 0), done.stderr
