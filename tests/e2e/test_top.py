"""`yibu top` on a real terminal (a pty), and as text and JSON."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import re
import signal
import struct
import subprocess
import termios
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import pytest

from tests.e2e.home import Home, fake
from tests.support.polling import until

ALTERNATE, NORMAL = "\x1b[?1049h", "\x1b[?1049l"


@dataclass
class Terminal:
    process: subprocess.Popen[bytes]
    descriptor: int
    said: str = ""

    def resize(self, rows: int, columns: int) -> None:
        fcntl.ioctl(self.descriptor, termios.TIOCSWINSZ, struct.pack("4H", rows, columns, 0, 0))

    def type(self, keys: bytes) -> None:
        os.write(self.descriptor, keys)

    def lines(self) -> list[str]:
        """The last screen that has come whole, without colours: another follows within a second."""
        screen = self.said.split("\x1b[H")[-2:][0]
        return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", screen).replace("\r", "").split("\n")

    def shows(self, pattern: str) -> bool:
        return re.search(pattern, "\n".join(self.lines()), re.MULTILINE) is not None

    def settings(self) -> list[object]:
        return termios.tcgetattr(self.descriptor)


@contextmanager
def terminal(home: Home, *words: str, rows: int = 24, columns: int = 140) -> Iterator[Terminal]:
    outer, inner = pty.openpty()
    env = {**home.env, "TERM": "xterm-256color"}
    env = {name: value for name, value in env.items() if name not in ("COLUMNS", "LINES")}
    fcntl.ioctl(outer, termios.TIOCSWINSZ, struct.pack("4H", rows, columns, 0, 0))
    process = subprocess.Popen(
        home.command("top", *words), env=env, cwd=home.root,
        stdin=inner, stdout=inner, stderr=subprocess.PIPE, start_new_session=True,
    )  # fmt: skip
    shown = Terminal(process, outer)

    def read() -> None:
        while True:
            try:
                shown.said += os.read(outer, 65536).decode(errors="replace")
            except OSError:  # nobody has the other end any more
                return

    reader = threading.Thread(target=read, daemon=True)
    reader.start()
    try:
        yield shown
    finally:
        process.kill()
        process.wait(60)
        assert process.stderr is not None
        process.stderr.close()
        os.close(inner)
        reader.join(60)
        os.close(outer)


@pytest.fixture
def watched(home: Home) -> Home:
    home.write([fake("alpha", "--tokens", "7"), fake("beta", replicas=2), fake("bad", "--fail-start", "no")])  # fmt: skip
    home.yibu("up", "-d", code=1)
    return home


def test_models_are_shown_sorted_and_resized(watched: Home) -> None:
    with terminal(watched, "--interval", "0.3") as top:
        before = top.settings()
        until(lambda: top.shows(r"^alpha +ready +1/1"), "the first screen")
        assert ALTERNATE in top.said
        assert top.shows(r"^beta +ready +2/2")
        assert top.shows(r"^bad +failed")

        def counted() -> bool:
            watched.chat("alpha")
            return top.shows(r"^alpha +ready +1/1 +\S+ +(?:\S+ +)?[\d.]+ +[1-9]\d* ")

        until(counted, "requests and tokens a second")
        # Sorted by name, then by the next column, its state, and back, the other way round.
        assert order(top) == ["alpha", "bad", "beta"]
        top.type(b"\x1b[C")
        until(lambda: order(top) == ["bad", "alpha", "beta"], "sorted by state")
        top.type(b"\x1b[Dr")
        until(lambda: order(top) == ["beta", "bad", "alpha"], "reversed by name")
        # The selected model says why it is not well.
        top.type(b"j")
        until(lambda: top.shows(r"^bad: "), "the cause of the second row")
        top.type(b" ")
        until(lambda: top.shows(r"^ +beta-1 +ready"), "replicas")
        top.resize(20, 60)
        until(lambda: top.shows("IN FLIGHT") and not top.shows("RESTARTS"), "fewer columns")
        assert all(len(line) <= 60 for line in top.lines())
        top.type(b"q")
        assert top.process.wait(60) == 0
        until(lambda: NORMAL in top.said)
        assert top.settings() == before


def order(top: Terminal) -> list[str]:
    found = [re.match(r"(alpha|beta|bad) +(?:ready|failed)", line) for line in top.lines()]
    return [match[1] for match in found if match]


def test_a_node_that_goes_is_said_and_what_is_shown_is_old(watched: Home) -> None:
    with terminal(watched, "--interval", "0.3") as top:
        until(lambda: top.shows(r"^alpha +ready"), "the first screen")
        watched.yibu("down")
        until(lambda: top.shows("what is shown is old"), "the node is gone")
        top.process.send_signal(signal.SIGINT)
        assert top.process.wait(60) == 130
        until(lambda: NORMAL in top.said)


def test_once_and_json(watched: Home) -> None:
    text = watched.yibu("top", "--once", "--interval", "0.2").stdout
    assert re.search(r"^alpha +ready +1/1", text, re.MULTILINE)
    assert re.search(r"^memory \[", text, re.MULTILINE)
    found = json.loads(watched.yibu("top", "--json", "--interval", "0.2").stdout)
    assert found["version"] == 1
    (beta,) = [model for model in found["models"] if model["name"] == "beta"]
    assert [replica["id"] for replica in beta["replicas"]] == ["beta-0", "beta-1"]
    assert all(replica["memory_bytes"] > 1_000_000 for replica in beta["replicas"])


def test_what_is_no_terminal_is_refused_with_what_to_type(watched: Home) -> None:
    refused = watched.yibu("top", code=2)
    assert "yibu top --once" in refused.stderr
    assert refused.stdout == ""
    watched.yibu("down")
    assert watched.yibu("top", "--once", code=5).stdout == ""
