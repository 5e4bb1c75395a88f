"""`yibu run` and `yibu chat` as somebody at a terminal uses them."""

from __future__ import annotations

import os
import pty
import re
import select
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from tests.e2e.home import Home, fake
from tests.support.ports import free_port

_SECONDS = 60.0


def test_run_starts_a_model_that_is_not_up_and_leaves_it_up(home: Home) -> None:
    home.write([fake(flags=["--tokens", "3"])])
    first = home.yibu("run", "fake", "Hello")
    assert first.stdout == "t0 t1 t2 \n"
    assert "yibu down fake" in first.stderr
    assert home.model("fake")["state"] == "ready"
    engine = home.model("fake")["replicas"][0]["pid"]
    again = home.yibu("run", "fake", input="piped in")
    assert again.stdout == first.stdout
    assert "yibu down" not in again.stderr, "it was up"
    assert home.model("fake")["replicas"][0]["pid"] == engine


def test_run_starts_the_gateway_where_it_is_told(home: Home) -> None:
    home.write([fake(flags=["--tokens", "3"])])
    port = free_port()
    home.yibu("run", "fake", "Hello", "--port", str(port), "--host", "127.0.0.2")
    assert home.url() == f"http://127.0.0.2:{port}"
    home.yibu("run", "fake", "Hello", "--port", str(port))
    other = home.yibu("run", "fake", "Hello", "--port", str(free_port()), code=2).stderr
    assert "A node already runs here" in other


@dataclass
class Terminal:
    """The other end of a program's terminal; ``said`` is what it wrote since the last ``wait``."""

    descriptor: int
    process: subprocess.Popen[bytes]
    said: str = ""

    def type(self, text: str) -> None:
        os.write(self.descriptor, text.encode())

    def wait(self, pattern: str) -> str:
        """Read on until the pattern; what came up to its end."""
        deadline = time.monotonic() + _SECONDS
        while not (found := re.search(pattern, self.said)):
            left = deadline - time.monotonic()
            ready, _, _ = select.select([self.descriptor], [], [], max(0.0, left))
            assert ready, f"no {pattern!r} in {self.said!r}"
            self.said += os.read(self.descriptor, 65536).decode()
        before, self.said = self.said[: found.end()], self.said[found.end() :]
        return before

    def insist(self, key: str, pattern: str) -> None:
        """Type a key until it is heeded: of a Ctrl-C that comes just before Python's own read at the
        prompt, Python knows at the next key."""
        self.type(key)
        while not select.select([self.descriptor], [], [], 5)[0]:
            self.type(key)
        self.wait(pattern)


@contextmanager
def chatting(home: Home, *words: str) -> Iterator[Terminal]:
    """A command that has the terminal for its own, so that Ctrl-C typed there reaches it."""
    ours, theirs = pty.openpty()

    def take_terminal() -> None:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        os.login_tty(theirs)

    process = subprocess.Popen(
        home.command(*words), env={**home.env, "TERM": "dumb"}, cwd=home.root,
        preexec_fn=take_terminal,  # noqa: PLW1509 - no other thread runs in these tests
    )  # fmt: skip
    os.close(theirs)
    try:
        yield Terminal(ours, process)
    finally:
        process.kill()
        process.wait()
        os.close(ours)


def test_a_conversation_at_a_terminal(home: Home) -> None:
    """Several lines are one message; Ctrl-C ends an answer and not the program; /bye leaves."""
    slow = ["--tokens", "400", "--slow-tokens", "0.05"]
    home.write([fake(flags=slow)])
    home.yibu("up", "-d", "fake")
    with chatting(home, "run", "fake", "--max-tokens", "400") as terminal:
        terminal.wait("Talking with fake")
        terminal.wait(">>> ")
        terminal.type('"""first line\n')
        terminal.wait(r"\.\.\. ")
        terminal.type('second line"""\n')
        terminal.wait("t3 ")
        terminal.type("\x03")
        cut = terminal.wait(r"\(interrupted\)")
        assert "t399" not in cut
        terminal.wait(">>> ")
        terminal.type("/nope\n")
        terminal.wait("/nope is no command")
        terminal.wait(">>> ")
        terminal.insist("\x03", "/bye leaves")  # at the prompt it gives the line up
        terminal.wait(">>> ")
        terminal.type("again\n")
        terminal.wait("t2 ")
        terminal.type("\x03")
        terminal.wait(r"\(interrupted\)")
        terminal.wait(">>> ")
        assert terminal.process.poll() is None
        terminal.type("/bye\n")
        assert terminal.process.wait(_SECONDS) == 0
    assert home.yibu("logs", "fake").stdout.count("generation ") == 3, "the probe's, and two"
    assert home.model("fake")["state"] == "ready"
