"""What this machine has: processors, memory and NVIDIA GPUs, as a process here may use them.

A container's limits count, not the host's hardware: an engine that starts sixteen threads under a
quota of two is slower than one that starts two, and one that fills the host's memory is killed.
"""

from __future__ import annotations

import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType

import psutil

from yibu.node.machine import mig
from yibu.planner.types import Gpu, GpuProcess, Machine

_NO_LIMIT = 1 << 60
"""cgroup v1 writes "no limit" as a number near 2⁶³."""


_CACHE_LISTS = ("inactive", "active")
"""The kernel's two lists of cached pages of files."""


def probe(cuda_visible_devices: str | None = None, *, root: Path = Path("/")) -> Machine:
    """Measure this machine.

    Args:
        cuda_visible_devices: The value of CUDA_VISIBLE_DEVICES, None when it is not set. The
            GPUs keep their NVML index (PCI order), whatever is hidden.
        root: Where /sys and /proc are found; another directory in tests.
    """
    cpus = usable_cpus()
    quota = cpu_quota(root)
    cores = physical_cores(cpus, root)
    threads = len(cpus)
    if quota is not None:
        # A fraction of a core is no core that a thread could count on.
        cores, threads = max(1, min(cores, int(quota))), max(1, min(threads, int(quota)))
    memory = psutil.virtual_memory()
    total, available = memory.total, memory.available
    if limit := memory_limit(root):
        total, available = min(total, limit[0]), min(available, limit[1])
    return Machine(
        name=platform.node() or "this machine",
        cores=cores,
        threads=threads,
        memory_total=total,
        memory_available=available,
        gpus=visible(gpus(), cuda_visible_devices),
        numa_nodes=numa_nodes(cpus, root),
        numa_cpus=numa_cpus(cpus, root),
        arch=platform.machine(),
        system=platform.system(),
    )


# ---------------------------------------------------------------------------- processors


def usable_cpus() -> frozenset[int]:
    """Logical CPUs this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return frozenset(os.sched_getaffinity(0))
    return frozenset(range(os.cpu_count() or 1))


def physical_cores(cpus: frozenset[int], root: Path = Path("/")) -> int:
    """Physical cores behind some logical CPUs."""
    cores = _cores(cpus, root)
    if any(core.startswith("cpu") for core in cores):
        # No topology to read (macOS): every CPU would count as a core.
        return min(len(cpus), psutil.cpu_count(logical=False) or len(cpus))
    return len(cores)


def _cores(cpus: frozenset[int], root: Path) -> dict[str, int]:
    """The first CPU of each physical core, by the list of its threads."""
    first: dict[str, int] = {}
    for cpu in sorted(cpus):
        siblings = _read(root / f"sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list")
        first.setdefault(siblings or f"cpu{cpu}", cpu)
    return first


def numa_nodes(cpus: frozenset[int], root: Path = Path("/")) -> int:
    """NUMA nodes that own at least one of some logical CPUs; at least 1."""
    lists = (root / "sys/devices/system/node").glob("node[0-9]*/cpulist")
    return max(1, sum(1 for path in lists if cpus & parse_cpu_list(_read(path))))


def numa_cpus(cpus: frozenset[int], root: Path = Path("/")) -> tuple[tuple[int, ...], ...]:
    """One logical CPU of each physical core, by NUMA node, of some logical CPUs.

    Empty where a process cannot be bound to CPUs (macOS).
    """
    if not hasattr(os, "sched_setaffinity"):
        return ()
    left = frozenset(_cores(cpus, root).values())
    nodes = []
    paths = (root / "sys/devices/system/node").glob("node[0-9]*/cpulist")
    for path in sorted(paths, key=lambda path: int(path.parent.name.removeprefix("node"))):
        if here := left & parse_cpu_list(_read(path)):
            nodes.append(tuple(sorted(here)))
            left -= here
    # Those that no node owns: a container may hide /sys.
    return (*nodes, tuple(sorted(left))) if left else tuple(nodes)


def parse_cpu_list(text: str) -> frozenset[int]:
    """``0-3,8`` as the kernel writes it."""
    cpus: set[int] = set()
    for part in text.split(","):
        first, _, last = part.strip().partition("-")
        if first.isdigit():
            cpus.update(range(int(first), int(last or first) + 1))
    return frozenset(cpus)


# ---------------------------------------------------------------------------- cgroups


def cpu_quota(root: Path = Path("/")) -> float | None:
    """Processors' worth of time that the cgroup allows (v2 cpu.max, v1 cfs quota); None: all."""
    quotas = []
    for directory in _cgroups(root, ""):
        quota, _, period = _read(directory / "cpu.max").partition(" ")
        if quota.isdigit() and period.isdigit() and int(period):
            quotas.append(int(quota) / int(period))
    for directory in _cgroups(root, "cpu"):
        quota, period = (
            _read(directory / "cpu.cfs_quota_us"),
            _read(directory / "cpu.cfs_period_us"),
        )
        if quota.isdigit() and period.isdigit() and int(period):  # "-1" means no quota
            quotas.append(int(quota) / int(period))
    return min(quotas, default=None)


def memory_limit(root: Path = Path("/")) -> tuple[int, int] | None:
    """The cgroup's limit and what is left below it, in bytes; None: no limit.

    Page cache counts as left, as in the kernel's own MemAvailable: it can be read again.
    """
    found = []
    for controller, limit, usage, prefix in (
        ("", "memory.max", "memory.current", ""),
        # Beyond it the kernel takes pages back and slows the process down until it stands still.
        ("", "memory.high", "memory.current", ""),
        ("memory", "memory.limit_in_bytes", "memory.usage_in_bytes", "total_"),
    ):
        for directory in _cgroups(root, controller):
            value = _read(directory / limit)
            if not value.isdigit() or int(value) >= _NO_LIMIT:
                continue
            cache = sum(_statistic(directory, f"{prefix}{kind}_file") for kind in _CACHE_LISTS)
            used = int(_read(directory / usage) or 0) - cache
            found.append((int(value), max(0, int(value) - max(0, used))))
    if not found:
        return None
    return min(limit for limit, _ in found), min(left for _, left in found)


def _statistic(directory: Path, name: str) -> int:
    for line in _read(directory / "memory.stat").splitlines():
        key, _, value = line.partition(" ")
        if key == name and value.isdigit():
            return int(value)
    return 0


def _cgroups(root: Path, controller: str) -> Iterator[Path]:
    """The directories of this process's cgroup and of all above it: each may set a limit.

    ``controller`` is "" for the unified hierarchy (v2). Inside a container the path in
    /proc/self/cgroup may be the host's and not exist here; the mount's own root is then ours.
    """
    for line in _read(root / "proc/self/cgroup").splitlines():
        fields = line.split(":", 2)
        if len(fields) != 3 or controller not in fields[1].split(","):
            continue
        mount = root / "sys/fs/cgroup"
        if controller:
            mount = next((m for m in (mount / fields[1], mount / controller) if m.is_dir()), mount)
        relative = Path(fields[2].lstrip("/"))
        for part in (relative, *relative.parents):
            if ".." not in part.parts and (mount / part).is_dir():
                yield mount / part


def _read(path: Path) -> str:
    """A kernel file's text, "" where there is none: kernels and containers differ in what is."""
    try:
        return path.read_text().strip()
    except (OSError, UnicodeDecodeError):
        return ""


# ---------------------------------------------------------------------------- GPUs


@contextmanager
def _nvml() -> Iterator[ModuleType | None]:
    """NVML between init and shutdown; None where there is no NVIDIA driver."""
    import pynvml

    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        yield None
        return
    try:
        yield pynvml
    finally:
        pynvml.nvmlShutdown()


def gpus() -> tuple[Gpu, ...]:
    """Every NVIDIA GPU, by NVML index; empty without a driver."""
    with _nvml() as nvml:
        if nvml is None:
            return ()
        driver = _text(nvml.nvmlSystemGetDriverVersion())
        return tuple(_found(nvml, driver))


def _found(nvml: ModuleType, driver: str) -> Iterator[Gpu]:
    """Every GPU, and in place of one in MIG mode its slices."""
    for index in range(nvml.nvmlDeviceGetCount()):
        whole = nvml.nvmlDeviceGetHandleByIndex(index)
        parts = mig.slices(nvml, whole)
        if not parts:
            yield _gpu(nvml, index, whole, driver)
        for part, handle in parts.items():
            yield _gpu(nvml, mig.number(index, part), handle, driver, capable=whole)


def gpus_busy() -> dict[int, float]:
    """Per cent of the last moments in which each GPU worked; without those that do not tell (MIG)."""
    with _nvml() as nvml:
        return {} if nvml is None else dict(_busy(nvml))


def _busy(nvml: ModuleType) -> Iterator[tuple[int, float]]:
    for index in range(nvml.nvmlDeviceGetCount()):
        try:
            handle = nvml.nvmlDeviceGetHandleByIndex(index)
            yield index, float(nvml.nvmlDeviceGetUtilizationRates(handle).gpu)
        except nvml.NVMLError:
            continue


def visible(found: tuple[Gpu, ...], cuda_visible_devices: str | None) -> tuple[Gpu, ...]:
    """Keep the GPUs that CUDA_VISIBLE_DEVICES names, by index or by a UUID's beginning.

    As in CUDA, the list ends at the first entry that names none; the order given is kept.
    """
    if cuda_visible_devices is None:
        return found
    chosen: list[Gpu] = []
    for entry in cuda_visible_devices.split(","):
        name = entry.strip()
        match = next(
            (
                gpu
                for gpu in found
                # The number of a GPU in MIG mode means its first slice.
                if (name.isdigit() and int(name) in {gpu.index, mig.gpu_of(gpu.index)})
                or (name.startswith(("GPU-", "MIG-")) and gpu.uuid.startswith(name))
            ),
            None,
        )
        if match is None:
            break
        if match not in chosen:
            chosen.append(match)
    return tuple(chosen)


def _gpu(nvml: ModuleType, index: int, handle: object, driver: str, capable: object = None) -> Gpu:
    """A GPU or a slice of one; ``capable`` is asked for the compute capability instead."""
    total, free = _memory(nvml, handle)
    asked = handle if capable is None else capable
    try:
        capability = tuple(nvml.nvmlDeviceGetCudaComputeCapability(asked))
    except nvml.NVMLError:
        capability = None
    return Gpu(
        index=index,
        name=_text(nvml.nvmlDeviceGetName(handle)),
        total=total,
        free=free,
        compute_capability=capability,
        driver=driver,
        uuid=_text(nvml.nvmlDeviceGetUUID(handle)),
        processes=_processes(nvml, handle),
    )


def _memory(nvml: ModuleType, handle: object) -> tuple[int, int]:
    try:
        memory = nvml.nvmlDeviceGetMemoryInfo(handle)
    except nvml.NVMLError_NotSupported:
        # Boards whose GPU shares the processor's memory (Jetson, GB10) report none of its own.
        shared = psutil.virtual_memory()
        return shared.total, shared.available
    return int(memory.total), int(memory.free)


def _processes(nvml: ModuleType, handle: object) -> tuple[GpuProcess, ...]:
    try:
        running = nvml.nvmlDeviceGetComputeRunningProcesses(handle)
    except nvml.NVMLError:
        return ()  # not every driver lets one ask; free memory is known all the same
    return tuple(
        GpuProcess(process.pid, _program(process.pid), process.usedGpuMemory) for process in running
    )


def _program(pid: int) -> str:
    try:
        return psutil.Process(pid).name()
    except psutil.Error:
        return ""


def _text(value: str | bytes) -> str:
    return value.decode(errors="replace") if isinstance(value, bytes) else value
