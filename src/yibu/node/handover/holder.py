"""The process above a node: it keeps the listening sockets and starts a node that was killed again.

``python -I -S holder.py [NAME=FD …] -- COMMAND …`` runs COMMAND with all of its own standard input: the settings.
Descriptors are passed on by the protocol of sd_listen_fds(3): those that are named here to the first
process only, and a socket named ``holder``, on which the node says one byte at a time:

| byte | with | meaning |
|------|------|---------|
| K    | its listening sockets | the node listens: keep these, and start it again if it is killed |
| C    | a file | the node's settings have changed: the next one reads this file's content |
| S    |      | the node was told to stop: do not start it again |
| L    |      | another holder has the next node: leave this one alone |

While no node runs, connections wait in the listening sockets' queues. A node that exits with 0 wanted
to; one that ends before it has listened has told why. What is done for a node costs about 5 MB: the
standard library's smallest part is imported, and nothing of yibu.
"""

from __future__ import annotations

import fcntl
import os
import select
import signal
import socket
import sys
import time
from collections.abc import Mapping, Sequence

KEEP, SETTINGS, STOP, LEAVE = b"K", b"C", b"S", b"L"

TRIES = 10
"""Short-lived nodes in a row (listening less than ``SHORT`` seconds) after which the holder gives up."""
SHORT = 5.0
_DELAYS = (0.0, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0)
"""Seconds before each restart; the last one repeats."""
_FIRST_FD = 3
_MOST = 8
"""Descriptors in one message."""
_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


Given = Sequence[tuple[str, int]]
"""Descriptors with their names, in their order."""


def command(descriptors: Given = ()) -> list[str]:
    """The command line of a holder that starts the node, with descriptors for it."""
    given = [f"{name}={fd}" for name, fd in descriptors]
    # -P: a file in the current directory must not be imported instead of a module.
    node = [sys.executable, "-P", "-m", "yibu.daemon"]
    return [sys.executable, "-I", "-S", __file__, *given, "--", *node]


class Holder:
    def __init__(self, command: Sequence[str], given: Given) -> None:
        self._command = list(command)
        self._given = list(given)
        self._settings: bytes | None = None
        self._kept: list[int] = []
        self._listens_since: float | None = None
        self._node = 0
        self._stopping = False
        self._left = False
        self._woken, wake = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        for number in _SIGNALS:
            signal.signal(number, self._forward)

    def run(self) -> int:
        """Run nodes until one ends for good; its exit code."""
        short = 0
        while True:
            self._listens_since = None
            code = self._live()
            if self._left:
                return 0
            if code == 0 or self._stopping or not self._kept:
                return code if code >= 0 else 128 - code
            since = self._listens_since
            short = 1 if since is not None and time.monotonic() - since > SHORT else short + 1
            if short == TRIES:
                self._say(
                    "ERROR",
                    f"the node {_described(code)}; it and the {TRIES - 1} before it listened for less "
                    f"than {SHORT:.0f} s: given up. The lines above say why; then: yibu up",
                )
                return code if code > 0 else 128 - code
            delay = _DELAYS[min(short, len(_DELAYS)) - 1]
            self._say(
                "WARNING",
                f"the node {_described(code)}; its engines go on, connections wait, and it is "
                f"started again {f'in {delay:g} s' if delay else 'now'} ({short} of {TRIES})",
            )
            if not self._waited(delay):
                return 128 - code if code < 0 else code

    def _live(self) -> int:
        """Run one node; its exit code, negative for a signal."""
        # A signal between the fork and the note of its pid would be heard by neither of the two.
        signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
        if self._stopping:  # told so before there was a node to tell
            signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)
            return 0
        ours, theirs = socket.socketpair()
        read, write = os.pipe()
        once, self._given = self._given, []
        given = [*once, *(("gateway", fd) for fd in self._kept), ("holder", theirs.fileno())]
        self._node = os.fork()
        if self._node == 0:
            self._become(given, read)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)
        theirs.close()
        os.close(read)
        for _, fd in once:
            os.close(fd)
        self._tell_settings(write)
        code = self._watch(ours)
        ours.close()
        return code

    def _become(self, given: Given, stdin: int) -> None:
        """In the child: execute the node."""
        try:
            signal.set_wakeup_fd(-1)
            for name in (*_SIGNALS, signal.SIGCHLD):
                signal.signal(name, signal.SIG_DFL)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)
            os.dup2(stdin, 0)
            above = _FIRST_FD + len(given)
            high = [fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, above) for _, fd in given]
            for number, fd in enumerate(high, _FIRST_FD):
                os.dup2(fd, number)
            env = {
                **os.environ,
                "LISTEN_PID": str(os.getpid()),
                "LISTEN_FDS": str(len(given)),
                "LISTEN_FDNAMES": ":".join(name for name, _ in given),
            }
            self.execute(self._command, env)
        except OSError as error:
            self._say("ERROR", f"{self._command[0]} cannot be run: {error}")
        finally:
            os._exit(127)

    def execute(self, command: list[str], env: Mapping[str, str]) -> None:
        os.execve(command[0], command, env)  # noqa: S606  (no shell is wanted)

    def _tell_settings(self, write: int) -> None:
        """Write the node's standard input: this process's own, or what a node sent since."""
        if self._settings is None:
            with os.fdopen(0, "rb", closefd=False) as stdin:
                self._settings = stdin.read()
        try:
            with os.fdopen(write, "wb") as stdin_of_node:
                stdin_of_node.write(self._settings)
        except BrokenPipeError:
            self._say("WARNING", "the node ended before it had read its settings")

    def _watch(self, ours: socket.socket) -> int:
        """Listen to the node until it ends; its exit code."""
        said, woken = ours.fileno(), self._woken
        heard = [said, woken]
        while True:
            ready, _, _ = select.select(heard, [], [])
            if said in ready and not self._hear(ours):
                heard = [woken]
            if self._left:
                return 0
            if woken in ready:
                os.read(woken, 4096)
                pid, status = os.waitpid(self._node, os.WNOHANG)
                if pid:
                    self._node = 0
                    while select.select([ours], [], [], 0)[0] and self._hear(ours):
                        pass  # its last words
                    return os.waitstatus_to_exitcode(status)

    def _hear(self, ours: socket.socket) -> bool:
        """Read a byte from the node; False at the end."""
        try:
            said, fds, _, _ = socket.recv_fds(ours, 1, _MOST)
        except ConnectionError:
            return False
        if said == KEEP:
            for fd in self._kept:
                os.close(fd)
            self._kept = fds
            self._listens_since = time.monotonic()
        if said == SETTINGS:
            with os.fdopen(fds[0], "rb") as file:
                file.seek(0)
                self._settings = file.read()
        self._stopping = self._stopping or said == STOP
        self._left = self._left or said == LEAVE
        return bool(said)

    def _waited(self, seconds: float) -> bool:
        """Sleep; whether nobody asked to stop meanwhile."""
        end = time.monotonic() + seconds
        while not self._stopping and (left := end - time.monotonic()) > 0:
            select.select([self._woken], [], [], left)
        return not self._stopping

    def _forward(self, number: int, _frame: object) -> None:
        self._stopping = True
        if self._node:
            os.kill(self._node, number)

    def _say(self, level: str, text: str) -> None:
        """Write a line in the form of the node's log."""
        now, name = time.time(), "yibu.node.handover.holder"
        local = time.localtime(now)
        if b'"log_format": "json"' in (self._settings or b""):
            import json  # a megabyte, which is seldom needed

            when = time.strftime("%Y-%m-%dT%H:%M:%S%z", local)
            fields = {"time": when, "level": level.lower(), "logger": name, "message": text}
            line = json.dumps(fields)
        else:
            when = time.strftime("%Y-%m-%d %H:%M:%S", local)
            line = f"{when},{int(now * 1000) % 1000:03d} {level} {name} {text}"
        os.write(2, f"{line}\n".encode())


def _described(code: int) -> str:
    if code >= 0:
        return f"ended with exit code {code}"
    return f"was ended by signal {-code} ({signal.Signals(-code).name})"


def parsed(words: Sequence[str]) -> tuple[list[str], list[tuple[str, int]]]:
    """The command, and the descriptors with their names, of this program's arguments."""
    at = words.index("--")
    given = [(name, int(fd)) for name, _, fd in (word.partition("=") for word in words[:at])]
    for _, fd in given:
        os.set_inheritable(fd, False)
    return list(words[at + 1 :]), given


if __name__ == "__main__":
    sys.exit(Holder(*parsed(sys.argv[1:])).run())
