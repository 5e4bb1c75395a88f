"""How many cores this process may really use."""

from __future__ import annotations

import math
import os
from pathlib import Path


def physical_cores() -> int:
    """Physical cores among those this process may run on, never more than a container's quota.

    Two hyper-threads of one core share its arithmetic units, and threads beyond a cgroup quota
    only spin while they are throttled: both make a matrix product slower, not faster.
    """
    allowed = _allowed_cpus()
    cores = {_core_of(cpu) for cpu in allowed}
    return max(1, min(len(cores), _quota()))


def _allowed_cpus() -> set[int]:
    if hasattr(os, "sched_getaffinity"):
        return set(os.sched_getaffinity(0))
    return set(range(os.cpu_count() or 1))


def _core_of(cpu: int) -> str:
    """A name for the physical core of a logical CPU; its own number where nothing is known."""
    topology = Path(f"/sys/devices/system/cpu/cpu{cpu}/topology")
    try:
        package = (topology / "physical_package_id").read_text().strip()
        return f"{package}:{(topology / 'core_id').read_text().strip()}"
    except OSError:
        return f"cpu{cpu}"


def _quota() -> int:
    """The cgroup v2 CPU quota in whole cores, or a number larger than any machine's."""
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
        return math.ceil(int(quota) / int(period))
    except (OSError, ValueError):  # no cgroup v2 here, or "max"
        return 1 << 30
