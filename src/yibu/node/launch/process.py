"""One engine process and everything it forks: spawned or adopted, watched, ended whole, reaped.

A child is not asked for by PID alone anywhere: an :class:`Identity` says which process is meant.
Engines do not die with the node (a node that was killed adopts them when it comes back), so their
output goes straight to a file, not through a pipe that would break.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import subprocess
import time
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from itertools import chain, repeat
from pathlib import Path

import psutil

from yibu import descriptors
from yibu.errors import EngineError, EngineStartError
from yibu.messages import tr
from yibu.node import logs
from yibu.node.launch import leftovers
from yibu.node.launch.leftovers import SharedFile
from yibu.node.machine import processes
from yibu.node.machine.processes import Identity, ProcessInfo

_log = logging.getLogger(__name__)
_PAUSES = (0.02, 0.04, 0.08, 0.16, 0.32)
"""Seconds between looks at the remaining processes, each of which reads the whole process table; the
last one repeats."""
_NO_DESCRIPTOR = 0.5
"""Seconds until a failed watch (no file descriptor) is tried again."""
_CLOCK_MARGIN = 1.0


class EngineProcess:
    """A running engine. One owner calls its methods, from one event loop."""

    def __init__(
        self,
        identity: Identity,
        marker: str,
        popen: subprocess.Popen[bytes] | None,
        shared: Iterable[SharedFile] = (),
    ) -> None:
        self.identity = identity
        self.marker = marker
        self._popen = popen
        self._seen: set[Identity] = {identity}
        self._since = _started(identity)
        self._shared = set(shared)
        self._dying: set[Identity] = set()
        """Orphans that count as zombies while some of their threads still run and hold memory."""
        self._exited = asyncio.Event()
        self._watcher = asyncio.create_task(self._watch(), name=f"watch {marker}")

    @classmethod
    def spawn(
        cls,
        argv: Sequence[str],
        env: Mapping[str, str],
        log: Path,
        marker: str,
        *,
        directory: Path | None = None,
    ) -> EngineProcess:
        """Start ``argv`` in a session of its own, its output appended to ``log``.

        ``directory`` is where it works; None: the node's own.

        Raises:
            EngineStartError: the program cannot be executed.
            OSError: there are no descriptors for it.
        """
        output = _open_log(log)
        try:
            popen = subprocess.Popen(
                argv,
                env=dict(env),
                cwd=directory,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        except OSError as error:
            if descriptors.exhausted(error):
                raise
            raise _not_executed(argv[0], directory, error) from error
        finally:
            os.close(output)
        descriptors.give_back_limit(popen.pid)
        try:
            info = processes.process(popen.pid)
        except OSError:  # it could not be watched, so it must not run
            popen.kill()
            popen.wait()
            raise
        if info is None:  # Not before it is reaped, which only this object does.
            raise EngineStartError(
                "process {pid} of {argv!r} vanished at once", pid=popen.pid, argv=argv[0]
            )
        return cls(info.identity, marker, popen)

    @classmethod
    def adopt(
        cls, identity: Identity, marker: str, shared: Iterable[SharedFile] = ()
    ) -> EngineProcess:
        """Take over an engine that an earlier node started; its exit code cannot be known.

        ``shared`` is what that node noted of its shared memory.
        """
        return cls(identity, marker, None, shared)

    @property
    def pid(self) -> int:
        return self.identity.pid

    @property
    def exited(self) -> bool:
        return self._exited.is_set()

    @property
    def shared(self) -> frozenset[SharedFile]:
        """Files found by :meth:`note_shared_memory`."""
        return frozenset(self._shared)

    async def wait(self) -> int | None:
        """Wait for the main process to end; its exit code (negative: a signal), None if adopted.

        It is not reaped here: as long as it is a zombie, its pid and its process group cannot
        become another's, so the group can be signalled safely.
        """
        await self._exited.wait()
        if self._popen is None:
            return None
        if self._popen.returncode is not None:
            return self._popen.returncode
        if not hasattr(os, "waitid"):  # macOS before Python 3.13
            return self._popen.poll()
        found = os.waitid(  # noqa: ASYNC222 - WNOHANG
            os.P_PID, self.pid, os.WEXITED | os.WNOWAIT | os.WNOHANG
        )
        if found is None:
            return None
        return found.si_status if found.si_code == os.CLD_EXITED else -found.si_status

    async def refresh(self) -> list[ProcessInfo]:
        """Read the process tree now, and remember it for the end."""
        table = await asyncio.to_thread(processes.snapshot)
        return self._remember(table, processes.family(self.identity, table, self._seen))

    async def note_shared_memory(self) -> None:
        """Remember the processes' files in shared memory, for when they are dead."""
        pids = [info.identity.pid for info in await self.refresh()]
        self._shared |= await asyncio.to_thread(leftovers.shared_files, pids, self._since)

    def rss_bytes(self, table: Mapping[int, ProcessInfo]) -> int:
        """Resident bytes of the whole tree; memory that processes share counts for each."""
        found = processes.family(self.identity, table, self._seen)
        return sum(table[identity.pid].rss_bytes for identity in found)

    async def stop(
        self, *, grace: float, orphan_grace: float, kill: float, whole_group: bool = True
    ) -> bool:
        """SIGTERM to the group, ``grace`` seconds, SIGKILL to all that is left; then reap. Returns whether
        the main process ended by itself.

        Without ``whole_group`` the main process alone gets the SIGTERM. Works the same when the main
        process is already dead and left children behind.

        Raises:
            EngineError: something survived SIGKILL for ``kill`` seconds.
        """
        try:
            await self._living()  # while parents still tell whose children they are
            await self.note_shared_memory()
            if not self.exited:
                if whole_group:
                    self._signal_group(signal.SIGTERM)
                else:
                    processes.send(self.identity, signal.SIGTERM)
                self._signal_group(signal.SIGCONT)  # a stopped process cannot heed it otherwise
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(grace):
                        await self._exited.wait()
            if ended := self.exited:
                await self._end_orphans(orphan_grace)
            await self._kill_all(kill)
            await asyncio.to_thread(leftovers.remove_unused, self._shared)
            return ended
        finally:
            self._watcher.cancel()
            self._reap()

    async def _end_orphans(self, grace: float) -> None:
        """Ask orphans of the main process to end, before they are killed."""
        for identity in await self._living():
            processes.send(identity, signal.SIGTERM)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(grace):
                pauses = _pauses()
                while await self._living():  # noqa: ASYNC110 - the kernel sends no event for it
                    await asyncio.sleep(next(pauses))

    async def _kill_all(self, timeout: float) -> None:
        try:
            async with asyncio.timeout(timeout):
                pauses = _pauses()
                # Again and again: a process may fork while its siblings are killed.
                while living := await self._living():
                    for identity in living:
                        processes.send(identity, signal.SIGKILL)
                    for identity in self._dying:  # children of ours: their pids stay theirs
                        with contextlib.suppress(ProcessLookupError):
                            os.kill(identity.pid, signal.SIGKILL)
                    await asyncio.sleep(next(pauses))
                if not self.exited:
                    await self._exited.wait()
        except TimeoutError:
            pids = " ".join(str(i.pid) for i in await self._living()) or str(self.pid)
            raise EngineError(
                "processes {pids} still exist {timeout:g} s after SIGKILL: they are "
                "stuck in the kernel, in a driver or a dead network disk",
                pids=pids,
                timeout=timeout,
                replace=pids.replace(" ", ","),
                hint="See where: ps -o pid,stat,wchan:30,args -p {replace}",
            ) from None

    async def _living(self) -> set[Identity]:
        """Every process of this engine that still runs, found by marker too."""
        table, marked = await asyncio.to_thread(_scan, self.marker)
        self._seen |= marked.keys()
        infos = self._remember(table, processes.family(self.identity, table, self._seen))
        return {info.identity for info in infos if not info.zombie} | self._dying

    def _remember(
        self, table: Mapping[int, ProcessInfo], found: set[Identity]
    ) -> list[ProcessInfo]:
        # What is dead is forgotten: the set must not grow with every short-lived child.
        self._seen = found | {self.identity}
        self._reap_adopted_orphans(table)
        return [table[identity.pid] for identity in found]

    def _signal_group(self, number: signal.Signals) -> None:
        # An unreaped child pins the group's number; of an adopted one we know only that it
        # lived a moment ago, and no pid comes round again so soon. One that leads no group
        # (found by its marker alone) is signalled by itself.
        with contextlib.suppress(ProcessLookupError):
            if os.getpgid(self.pid) == self.pid:
                os.killpg(self.pid, number)
            else:
                processes.send(self.identity, number)

    def _reap(self) -> None:
        if self._popen is not None and self.exited:
            self._popen.wait()

    def _reap_adopted_orphans(self, table: Mapping[int, ProcessInfo]) -> None:
        """Grandchildren whose parents died become the node's own children (see
        :func:`yibu.node.machine.orphans.become_subreaper`); nobody else will take their exit status."""
        self._dying = set()
        for identity in self._seen - {self.identity}:
            info = table.get(identity.pid)
            if info is not None and info.zombie and info.parent == os.getpid():
                with contextlib.suppress(ChildProcessError):
                    if os.waitpid(identity.pid, os.WNOHANG) == (0, 0):
                        self._dying.add(identity)

    async def _watch(self) -> None:
        """Set ``exited`` when the main process ends."""
        if not hasattr(os, "pidfd_open"):
            while processes.alive(self.identity):  # noqa: ASYNC110 - no pidfd here to wait on
                await asyncio.sleep(0.1)
        elif (descriptor := await self._pidfd()) is not None:
            ended, loop = asyncio.Event(), asyncio.get_running_loop()
            try:
                if processes.alive(self.identity):
                    # A pidfd turns readable when its process terminates: pidfd_open(2).
                    loop.add_reader(descriptor, ended.set)
                    await ended.wait()
            finally:
                loop.remove_reader(descriptor)
                os.close(descriptor)
        self._exited.set()

    async def _pidfd(self) -> int | None:
        """A pidfd of the main process; None: it has ended."""
        while True:
            try:
                return os.pidfd_open(self.pid)
            except ProcessLookupError:
                return None
            except OSError as error:
                if not descriptors.exhausted(error):
                    raise
            await asyncio.sleep(_NO_DESCRIPTOR)


def _started(identity: Identity) -> float:
    """When a process began, in Unix seconds, slightly early: the kernel gives its boot time in whole
    seconds."""
    try:
        return psutil.Process(identity.pid).create_time() - _CLOCK_MARGIN
    except (psutil.Error, OSError):  # it is gone already, or cannot be asked
        return time.time() - _CLOCK_MARGIN


async def end_marked(
    prefix: str, spared: Collection[str] = (), *, grace: float, kill: float
) -> int:
    """End every process whose marker begins with ``prefix`` and is not one of ``spared``; how
    many there were. For what a node that lost its state left behind.

    Raises:
        EngineError: something survived SIGKILL for ``kill`` seconds.
    """
    _, marked = await asyncio.to_thread(_scan, prefix)
    found = {identity: marker for identity, marker in marked.items() if marker not in spared}
    for identity, marker in found.items():
        if processes.alive(identity):  # else it went with another's tree
            left = EngineProcess.adopt(identity, marker)
            await left.stop(grace=grace, orphan_grace=grace, kill=kill)
    return len(found)


def _pauses() -> Iterator[float]:
    return chain(_PAUSES, repeat(_PAUSES[-1]))


def _scan(prefix: str) -> tuple[dict[int, ProcessInfo], dict[Identity, str]]:
    table = processes.snapshot()
    return table, processes.marked(prefix, table)


def _not_executed(program: str, directory: Path | None, error: OSError) -> EngineStartError:
    if not isinstance(error, FileNotFoundError):
        return EngineStartError(
            "the program {argv!r} cannot be executed: {strerror}",
            argv=program,
            strerror=error.strerror,
            hint="Look at it: ls -l {argv}",
            cause="not_executable",
        )
    if directory is not None and not directory.is_dir():
        return EngineStartError(
            "the engine's working directory {directory} does not exist any more",
            directory=directory,
            hint="Bring the model up again from a directory that does",
            cause="directory_missing",
        )
    return EngineStartError(
        "the program {argv!r} was not found",
        argv=program,
        hint="Check the engine's environment (yibu engine ls) or the command's path",
        cause="program_not_found",
    )


def _open_log(path: Path) -> int:
    """O_APPEND: several writers do not overwrite each other, and truncation rotates the file.

    A full disk must not keep a model from being served: vLLM and llama.cpp end when the first line
    that they write is refused.
    """
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
    try:
        if logs.has_room(path.parent):
            return os.open(path, flags, 0o600)
        why = tr("the disk is full")
    except OSError as error:
        why = str(error)
    _log.warning("cannot write the log %s (%s): the engine's output is lost", path, why)
    return os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC)
