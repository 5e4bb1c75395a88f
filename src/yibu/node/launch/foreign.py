"""Servers that yibu did not start: finding, measuring and ending them.

Nothing is ever signalled by its number or name alone: a server is known by pid and start time,
has to be this user's and in this mount namespace, and no engine of a node's own.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import psutil

from yibu.errors import UsageError
from yibu.node.launch.process import EngineProcess
from yibu.node.machine import ports, processes
from yibu.node.machine.processes import Identity
from yibu.planner.types import Machine

_ORPHAN_GRACE = 5.0
"""Seconds that what a server left behind gets from SIGTERM to SIGKILL."""
_KILL = 15.0
"""Seconds from SIGKILL until a process that is still there is called stuck."""


@dataclass(frozen=True, slots=True)
class Foreign:
    """A running server, with what it was started with."""

    identity: Identity
    argv: tuple[str, ...] = field(repr=False)
    env: Mapping[str, str] = field(repr=False)
    directory: str

    @property
    def pid(self) -> int:
        return self.identity.pid

    def alive(self) -> bool:
        return processes.alive(self.identity)

    def family(self) -> set[Identity]:
        """The process and all its descendants, those in other sessions too."""
        return processes.family(self.identity, processes.snapshot())

    def listens(self, port: int) -> bool | None:
        """Whether it or a descendant listens on ``port``; None where the system does not tell."""
        return ports.listens(port, [identity.pid for identity in self.family()])

    def rss_bytes(self) -> int:
        """Main memory freed by its end: pages shared between its processes count once."""
        total = 0
        for identity in self.family():
            try:
                memory = psutil.Process(identity.pid).memory_full_info()
                total += getattr(memory, "pss", memory.rss)
            except psutil.Error:
                continue  # it ended while we counted
        return total


def look(pid: int) -> Foreign:
    """The process with that pid, of any user.

    Raises:
        UsageError: it is gone, or this user may not look at it.
    """
    info = processes.process(pid)
    if info is None or info.zombie:
        raise UsageError("There is no process {pid}.", pid=pid, hint="ps aux | grep -i vllm")
    try:
        process = psutil.Process(pid)
        return Foreign(info.identity, tuple(process.cmdline()), process.environ(), process.cwd())
    except psutil.AccessDenied as error:
        raise UsageError(
            "The process {pid} does not let this user read its variables.",
            pid=pid,
            hint="Give its command line instead: yibu adopt -- COMMAND …",
        ) from error
    except (psutil.Error, OSError) as error:
        raise UsageError(
            "The process {pid} cannot be read: {error}.", pid=pid, error=error
        ) from error


def read(pid: int) -> Foreign:
    """The process with that pid, if this user may take it over.

    Raises:
        UsageError: it is gone, another user's, in a container, or yibu's own.
    """
    found = look(pid)
    try:
        owners = psutil.Process(pid).uids()
    except psutil.Error as error:
        raise UsageError("There is no process {pid} any more.", pid=pid) from error
    if {owners.real, owners.effective} != {os.geteuid()}:
        raise UsageError(
            "The process {pid} belongs to user {real}, not to you.",
            pid=pid,
            real=owners.real,
            hint="Let its owner run this command",
        )
    if (marker := processes.marker_of(pid)) is not None:
        model = marker.split("/")[1].rpartition("-")[0]
        raise UsageError(
            "The process {pid} is an engine that yibu started ({model}).",
            pid=pid,
            model=model,
            hint="See it with: yibu ps",
        )
    if not _in_this_filesystem(pid):
        raise UsageError(
            "The process {pid} runs in a container: its paths are not this machine's.",
            pid=pid,
            hint="Stop the container yourself, and adopt its command line: yibu adopt -c '…'",
        )
    return found


def every() -> list[Foreign]:
    """Every process that :func:`read` accepts, without this command's ancestors."""
    found = []
    spared = {os.getpid(), *(parent.pid for parent in psutil.Process().parents())}
    for pid in psutil.pids():
        if pid in spared:
            continue
        try:
            found.append(read(pid))
        except UsageError:
            continue  # not to be taken over: whoever names it by its pid is told why
    return found


def topmost(servers: list[Foreign]) -> list[Foreign]:
    """Those that are not descendants of another: a forked worker has its parent's command line."""
    below = {
        identity
        for server in servers
        for identity in server.family()
        if identity != server.identity
    }
    return [server for server in servers if server.identity not in below]


def without(machine: Machine, servers: list[Foreign]) -> Machine:
    """The machine as it will be when these servers have ended."""
    pids = {identity.pid for server in servers for identity in server.family()}
    gpus = tuple(
        replace(
            gpu,
            free=min(
                gpu.total, gpu.free + sum(p.memory or 0 for p in gpu.processes if p.pid in pids)
            ),
            processes=tuple(p for p in gpu.processes if p.pid not in pids),
        )
        for gpu in machine.gpus
    )
    freed = sum(server.rss_bytes() for server in servers)
    available = min(machine.memory_total, machine.memory_available + freed)
    return replace(machine, memory_available=available, gpus=gpus)


def end(server: Foreign, grace: float) -> bool:
    """End it and all below it; whether it went by itself, within ``grace`` seconds of SIGTERM.
    SIGTERM goes to the server alone, which then ends its own workers as it was made to, and not to
    its process group: a start script's group may hold other servers, and the script.
    Raises:
        EngineError: something of it is still there after SIGKILL.
    """

    async def ended() -> bool:
        process = EngineProcess.adopt(server.identity, f"server {server.pid}")
        return await process.stop(
            grace=grace, orphan_grace=_ORPHAN_GRACE, kill=_KILL, whole_group=False
        )

    return asyncio.run(ended())


def _in_this_filesystem(pid: int) -> bool:
    """Whether its mount namespace is ours: in another one its paths mean other files."""
    try:
        return Path(f"/proc/{pid}/ns/mnt").readlink() == Path("/proc/self/ns/mnt").readlink()
    except OSError:
        return not Path("/proc/self/ns/mnt").is_symlink()  # no namespaces to compare here
