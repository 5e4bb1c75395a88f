"""One node a home: a lock that the kernel drops with the process that holds it. Standard library only."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from yibu.errors import AlreadyRunningError
from yibu.files import try_lock

_PROC = Path("/proc")
_POLL = 0.02


@dataclass(frozen=True, slots=True)
class ProcessId:
    """A process identified by pid and start time, so that a reused pid is not mistaken for it."""

    pid: int
    started: str
    """Clock ticks after boot, where /proc tells; else empty."""

    @classmethod
    def of(cls, pid: int) -> Self:
        """The process that has this pid now."""
        return cls(pid, (_stat(pid) or ("", ""))[1])

    def alive(self) -> bool:
        """Whether it still runs; a zombie does not."""
        if not (_PROC / "self").exists():
            return _answers_signals(self.pid)
        found = _stat(self.pid)
        return found is not None and found[0] not in "ZX" and found[1] == self.started


def _answers_signals(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def _stat(pid: int) -> tuple[str, str] | None:
    """State and start time of a process; None when there is none."""
    try:
        text = (_PROC / str(pid) / "stat").read_text(errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return None
    # proc(5): the fields stand behind the name, which is in parentheses and may hold some.
    fields = text.rpartition(")")[2].split()
    return fields[0], fields[19]


class HomeLock:
    """The held lock. The file has two lines: the node's process, and its holder's."""

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor

    def note(self, holder: int | None) -> None:
        """Write the node's process and its holder's into the lock."""
        lines = [str(os.getpid())]
        if holder is not None:
            process = ProcessId.of(holder)
            lines.append(f"{process.pid} {process.started}")
        text = "".join(f"{line}\n" for line in lines).encode()
        os.pwrite(self.descriptor, text, 0)  # at once: others read it without the lock
        os.ftruncate(self.descriptor, len(text))


@contextmanager
def node_lock(
    path: Path, inherited: int | None = None, holder: int | None = None, patience: float = 0.0
) -> Iterator[HomeLock]:
    """Hold the home's lock until the block ends.

    The file is never unlinked: a second node could lock the old one and a third the new one.
    Engines do not inherit the lock (O_CLOEXEC), so they may outlive the node that held it.
    ``inherited`` is the descriptor of a node whose place this one takes: the lock is held with it.
    ``holder`` is as for :meth:`HomeLock.note`.

    Raises:
        AlreadyRunningError: another process holds it for more than ``patience`` seconds.
    """
    descriptor = inherited
    if descriptor is None:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        deadline = time.monotonic() + patience
        while not (locked := try_lock(path, descriptor)) and time.monotonic() < deadline:
            time.sleep(_POLL)
        if not locked:
            node = _lines(path)[:1] or ["unknown"]
            raise AlreadyRunningError(
                "a node already runs on this home ({parent}): pid {node}",
                parent=path.parent,
                node=node[0],
                hint="See what it serves: yibu ps; or use another home: YIBU_HOME=DIR yibu up …",
            )
        lock = HomeLock(descriptor)
        if inherited is None:
            lock.note(holder)
        yield lock
    finally:
        os.close(descriptor)


def is_stopped(pid: int) -> bool:
    """Whether a signal (SIGSTOP, Ctrl-Z) has stopped a process, or a debugger has; unknown without /proc."""
    return (_stat(pid) or ("", ""))[0] in ("T", "t")


def node_of(path: Path) -> int | None:
    """The node's process, as the lock has it; None where it does not say."""
    line = next(iter(_lines(path)), "").strip()
    return int(line) if line.isdigit() else None


def holder_of(path: Path) -> ProcessId | None:
    """The process that starts the home's node again if it is killed; None when there is none."""
    words = [line.split() for line in _lines(path)[1:2]]
    if not words or not words[0] or not words[0][0].isdigit():
        return None
    pid, *started = words[0]
    holder = ProcessId(int(pid), started[0] if started else "")
    return holder if holder.alive() else None


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(errors="replace").splitlines()
    except OSError:
        return []
