"""The machine's process table, read so that no process of an engine is ever lost.

An engine's children may make sessions of their own and survive it, reparented (vLLM's EngineCore
does after the API server's SIGKILL). They are known by any of four signs: an ancestor, the
session, an identity seen earlier, or the marker in the environment they inherited.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import partial

import psutil

from yibu import descriptors

MARKER = "YIBU_REPLICA"
"""Environment variable of every process of an engine: ``HOME_ID/REPLICA/LAUNCH_ID``."""

_MARKED = b"\0" + MARKER.encode() + b"="
_LINUX = sys.platform.startswith("linux")
_TICKS = os.sysconf("SC_CLK_TCK")
_PAGE = os.sysconf("SC_PAGE_SIZE")


@dataclass(frozen=True, slots=True)
class Identity:
    """A process that a reused pid is not mistaken for.

    ``started`` is clock ticks after boot on Linux (a wall-clock time would move when the clock
    is set), hundredths of a second since the epoch elsewhere.
    """

    pid: int
    started: int


@dataclass(frozen=True, slots=True)
class ProcessInfo:
    identity: Identity
    parent: int
    session: int
    zombie: bool
    stopped: bool
    """By a signal, and not by a debugger."""
    cpu_seconds: float
    rss_bytes: int


def process(pid: int) -> ProcessInfo | None:
    """What the kernel says of ``pid`` now, or None when there is no such process.

    Raises:
        OSError: no file can be opened at all.
    """
    if not _LINUX:
        return _process_psutil(pid)
    try:
        text = _read(pid, "stat")
    except OSError as error:
        if descriptors.exhausted(error):
            raise  # it may well run
        return None
    # The name in parentheses may itself hold spaces and parentheses: fields follow the last one.
    # proc(5): state is field 3; ppid 4, session 6, utime 14, stime 15, starttime 22, rss 24.
    fields = text[text.rindex(b")") + 2 :].split()
    return ProcessInfo(
        identity=Identity(pid, int(fields[19])),
        parent=int(fields[1]),
        session=int(fields[3]),
        zombie=fields[0] in (b"Z", b"X"),
        stopped=fields[0] == b"T",
        cpu_seconds=(int(fields[11]) + int(fields[12])) / _TICKS,
        rss_bytes=int(fields[21]) * _PAGE,
    )


def _read(pid: int, name: str) -> bytes:
    """A file of /proc/PID. Every process of the machine is read: a Path would take twice as long."""
    with open(f"/proc/{pid}/{name}", "rb", buffering=0) as file:  # noqa: PTH123
        return file.read()


def _process_psutil(pid: int) -> ProcessInfo | None:
    try:
        found = psutil.Process(pid)
        with found.oneshot():
            times = found.cpu_times()
            return ProcessInfo(
                identity=Identity(pid, round(found.create_time() * 100)),
                parent=found.ppid(),
                session=os.getsid(pid),
                zombie=found.status() == psutil.STATUS_ZOMBIE,
                stopped=found.status() == psutil.STATUS_STOPPED,
                cpu_seconds=times.user + times.system,
                rss_bytes=found.memory_info().rss,
            )
    except (psutil.Error, OSError):
        return None


def held_bytes(info: ProcessInfo) -> int:
    """Main memory that a process holds and that nobody gets before it ends: not the pages of files
    that it maps, which the system counts as free, and of shared memory its part."""
    if not _LINUX:
        return info.rss_bytes
    try:
        text = _read(info.identity.pid, "smaps_rollup")
    except OSError:  # it ended meanwhile, or is somebody else's
        return info.rss_bytes
    fields = (line.split() for line in text.splitlines()[1:])
    return sum(int(f[1]) * 1024 for f in fields if f[0] in (b"Pss_Anon:", b"Pss_Shmem:"))


def alive(identity: Identity) -> bool:
    """Whether exactly this process still runs; a zombie does not. Where that cannot be seen for
    want of descriptors, it does."""
    try:
        info = process(identity.pid)
    except OSError as error:
        if descriptors.exhausted(error):
            return True
        raise
    return info is not None and info.identity == identity and not info.zombie


def snapshot() -> dict[int, ProcessInfo]:
    """Every process, by pid. Takes some 20 microseconds a process, and waits where no file can be
    opened: call it in a thread."""

    def read() -> dict[int, ProcessInfo]:
        infos = (process(pid) for pid in psutil.pids())
        return {info.identity.pid: info for info in infos if info is not None}

    return descriptors.patiently(read)


def marker_of(pid: int) -> str | None:
    """The marker in the environment that ``pid`` started with; None without or without leave."""
    try:
        if not _LINUX:
            return psutil.Process(pid).environ().get(MARKER)
        environ = descriptors.patiently(partial(_read, pid, "environ"))
    except (psutil.Error, OSError):
        return None
    # Looked for in the whole first: every process of the machine is asked, and few have one.
    start = (b"\0" + environ).find(_MARKED)
    if start >= 0:
        return environ[start + len(_MARKED) - 1 :].partition(b"\0")[0].decode(errors="replace")
    return None


def marked(prefix: str, table: Mapping[int, ProcessInfo] | None = None) -> dict[Identity, str]:
    """Living processes whose marker begins with ``prefix``, with their markers.

    This process and its ancestors are left out: a node may itself have been started from a
    shell inside an engine.
    """
    table = snapshot() if table is None else table
    spared = _ancestors(os.getpid(), table)
    found = {}
    for pid, info in table.items():
        if info.zombie or pid in spared:
            continue
        marker = marker_of(pid)
        if marker is not None and marker.startswith(prefix):
            found[info.identity] = marker
    return found


def family(
    root: Identity, table: Mapping[int, ProcessInfo], seen: Iterable[Identity] = ()
) -> set[Identity]:
    """``root``, its session and all descendants of these and of what was ``seen``; zombies too.

    Only identities that are in ``table`` are returned, so a reused pid never is.
    """
    children: dict[int, list[ProcessInfo]] = {}
    for info in table.values():
        children.setdefault(info.parent, []).append(info)
    known = {root, *seen}
    queue = [info for info in table.values() if info.identity in known]
    queue += [
        info
        for info in table.values()
        # A session is named after its leader's pid and, while it has members, that pid is not
        # given out again; a leader that started after it proves the pid was reused.
        if info.session == root.pid and info.identity.started >= root.started
    ]
    found: set[Identity] = set()
    while queue:
        info = queue.pop()
        if info.identity in found:
            continue
        found.add(info.identity)
        queue += children.get(info.identity.pid, [])
    return found


def send(identity: Identity, number: signal.Signals) -> bool:
    """Signal exactly this process; False when it is gone. Safe against pid reuse on Linux."""
    try:
        if not hasattr(os, "pidfd_open"):
            if not alive(identity):
                return False
            os.kill(identity.pid, number)
            return True
        descriptor = os.pidfd_open(identity.pid)
    except ProcessLookupError:
        return False
    except OSError as error:
        if not descriptors.exhausted(error):
            raise
        return _send_blindly(identity, number)
    try:
        # The descriptor pins one process; only now is it worth asking which.
        if not alive(identity):
            return False
        signal.pidfd_send_signal(descriptor, number)
    except ProcessLookupError:
        return False
    finally:
        os.close(descriptor)
    return True


def _send_blindly(identity: Identity, number: signal.Signals) -> bool:
    """Without a descriptor: only to a child of this process, whose pid cannot become another's."""
    try:
        if os.waitid(os.P_PID, identity.pid, os.WEXITED | os.WNOWAIT | os.WNOHANG) is not None:
            return False
        os.kill(identity.pid, number)
    except (ChildProcessError, ProcessLookupError):
        return False
    return True


def _ancestors(pid: int, table: Mapping[int, ProcessInfo]) -> set[int]:
    found: set[int] = set()
    while pid in table and pid not in found:
        found.add(pid)
        pid = table[pid].parent
    return found
