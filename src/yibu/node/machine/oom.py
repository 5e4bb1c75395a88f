"""Whether the kernel's out-of-memory killer struck: an exit by SIGKILL alone does not tell."""

from __future__ import annotations

from pathlib import Path

_VMSTAT = Path("/proc/vmstat")


def kills(vmstat: Path = _VMSTAT) -> int:
    """How many processes the killer has ended since boot, for memory cgroups too; 0 where the
    system does not count. It counts the whole machine: compare before and after."""
    try:
        lines = vmstat.read_text().splitlines()
    except OSError:
        return 0
    counts = (line.split() for line in lines if line.startswith("oom_kill "))
    return next((int(count) for _, count in counts), 0)
