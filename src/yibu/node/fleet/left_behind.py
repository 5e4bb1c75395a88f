"""What a node that was killed left running and lying about: found, adopted or ended."""

from __future__ import annotations

import asyncio
from collections.abc import Collection

from yibu.config.names import first_generation, replica_id
from yibu.node.launch import leftovers
from yibu.node.launch.directories import temporary_directories
from yibu.node.launch.process import EngineProcess, end_marked
from yibu.node.lock import node_lock
from yibu.node.machine import processes
from yibu.node.state import SavedNode, SavedReplica, StateFile, boot_id, home_id
from yibu.node.timings import Timings
from yibu.paths import Paths

_MOST_REPLICAS = 64
"""Of one model, as the configuration has it."""


def process_of(saved: SavedReplica, boot: str) -> EngineProcess | None:
    """The process that an earlier node recorded, if it is that very process and still runs.

    After a reboot an equal pid and start time would mean nothing. A marker that cannot be read
    (a process may overwrite its own environment) proves nothing either way.
    """
    if saved.process is None or saved.marker is None or boot != boot_id():
        return None
    if not processes.alive(saved.process):
        return None
    if processes.marker_of(saved.process.pid) not in (None, saved.marker):
        return None
    return EngineProcess.adopt(saved.process, saved.marker, saved.shared)


def remove_files(paths: Paths, saved: SavedNode | None, adopted: Collection[str]) -> None:
    """Remove what dead engines of an earlier node left on disk and in shared memory. Blocking."""
    temporary_directories(paths).sweep(adopted)
    if saved is None or saved.boot != boot_id():  # memory did not outlive the boot
        return
    replicas = [replica for model in saved.models for replica in model.replicas]
    leftovers.remove_unused(
        [file for r in replicas if r.marker not in adopted for file in r.shared]
    )


def running(paths: Paths) -> dict[int, str]:
    """Engines' processes of this home by pid, each with its replica. Blocking."""
    if not paths.state.is_dir():
        return {}
    marked = processes.marked(f"{home_id(paths.state)}/", processes.snapshot())
    return {identity.pid: marker.split("/")[1] for identity, marker in marked.items()}


def end_all(paths: Paths, models: Collection[str] = ()) -> int:
    """End the engines that no node owns any more, of some models or of all; how many processes
    there were. Blocking.

    Raises:
        AlreadyRunningError: a node holds this home.
        EngineError: a process survived SIGKILL.
    """
    if not running(paths):
        return 0
    wanted = {replica_id(model, number) for model in models for number in range(_MOST_REPLICAS)}
    with node_lock(paths.node_lock):
        state = StateFile(paths.state / "node.json")
        saved, timings = state.load(), Timings()
        prefix = f"{home_id(paths.state)}/"
        spared = {
            marker
            for marker in processes.marked(prefix, processes.snapshot()).values()
            if models and first_generation(marker.split("/")[1]) not in wanted
        }
        ended = asyncio.run(
            end_marked(prefix, spared, grace=timings.orphan_grace, kill=timings.kill)
        )
        remove_files(paths, saved, spared)
        kept = [m for m in saved.models if models and m.config.name not in models] if saved else []
        state.save(kept)
    return ended
