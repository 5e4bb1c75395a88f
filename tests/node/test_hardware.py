"""The probe: on this machine, and on others' /sys and /proc written into a directory."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import psutil
import pytest

from yibu.node.machine import hardware, mig
from yibu.planner.types import Gpu

GIB = 1 << 30


def write(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text + "\n")
    return root


def test_this_machine() -> None:
    machine = hardware.probe()
    assert 1 <= machine.cores <= machine.threads <= (os.cpu_count() or 1)
    assert 0 < machine.memory_available <= machine.memory_total
    assert machine.memory_total <= psutil.virtual_memory().total
    assert machine.numa_nodes >= 1
    assert machine.arch
    assert machine.system


def test_affinity_is_honoured() -> None:
    cpus = sorted(os.sched_getaffinity(0))
    code = "from yibu.node.machine import hardware; m = hardware.probe(); print(m.cores, m.threads)"
    output = subprocess.run(
        ["taskset", "-c", str(cpus[0]), sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert output.split() == ["1", "1"]


def test_hyperthreads_share_a_core(tmp_path: Path) -> None:
    topology = "sys/devices/system/cpu/cpu{}/topology/thread_siblings_list"
    root = write(tmp_path, {topology.format(cpu): f"{cpu % 4},{cpu % 4 + 4}" for cpu in range(8)})
    assert hardware.physical_cores(frozenset(range(8)), root) == 4
    assert hardware.physical_cores(frozenset({0, 4, 1}), root) == 2


def test_numa_nodes_count_only_with_our_processors(tmp_path: Path) -> None:
    node = "sys/devices/system/node/node{}/cpulist"
    root = write(tmp_path, {node.format(0): "0-3,8", node.format(1): "4-7", node.format(2): ""})
    assert hardware.numa_nodes(frozenset(range(9)), root) == 2
    assert hardware.numa_nodes(frozenset({8}), root) == 1


def test_cpus_to_bind_to_are_one_a_core_by_node(tmp_path: Path) -> None:
    node = "sys/devices/system/node/node{}/cpulist"
    siblings = "sys/devices/system/cpu/cpu{}/topology/thread_siblings_list"
    files = {node.format(0): "0-3,8-11", node.format(10): "4-5,12-13", node.format(2): "6-7,14-15"}
    files |= {siblings.format(cpu): f"{cpu % 8},{cpu % 8 + 8}" for cpu in range(16)}
    root = write(tmp_path, files)
    everything = frozenset(range(16))
    assert hardware.numa_cpus(everything, root) == ((0, 1, 2, 3), (6, 7), (4, 5))
    # A cpuset that holds other siblings, and none of node 2.
    assert hardware.numa_cpus(frozenset({3, 9, 10, 11, 12, 4}), root) == ((3, 9, 10), (4,))
    assert hardware.numa_cpus(frozenset({2, 5}), tmp_path / "hidden") == ((2, 5),)


def test_only_the_cpus_allowed_here_are_bound_to() -> None:
    """As a container's cpuset does it: the kernel shows it in the affinity."""
    last = max(os.sched_getaffinity(0))
    code = "from yibu.node.machine import hardware; print(hardware.probe().numa_cpus)"
    output = subprocess.run(
        ["taskset", "-c", str(last), sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert output.strip() == f"(({last},),)"


def test_cgroup_v2_limits_nest(tmp_path: Path) -> None:
    root = write(
        tmp_path,
        {
            "proc/self/cgroup": "0::/user.slice/job.scope",
            "sys/fs/cgroup/user.slice/cpu.max": "150000 100000",
            "sys/fs/cgroup/user.slice/job.scope/cpu.max": "max 100000",
            "sys/fs/cgroup/user.slice/memory.max": str(4 * GIB),
            "sys/fs/cgroup/user.slice/memory.current": str(3 * GIB),
            "sys/fs/cgroup/user.slice/memory.stat": f"anon 5\ninactive_file {GIB}",
            "sys/fs/cgroup/user.slice/job.scope/memory.max": "max",
        },
    )
    assert hardware.cpu_quota(root) == 1.5
    # 4 GiB, of which 3 are used and one of those is cache that would be given up.
    assert hardware.memory_limit(root) == (4 * GIB, 2 * GIB)


def test_a_limit_that_only_slows_counts_too(tmp_path: Path) -> None:
    root = write(
        tmp_path,
        {
            "proc/self/cgroup": "0::/job.scope",
            "sys/fs/cgroup/job.scope/memory.max": str(8 * GIB),
            "sys/fs/cgroup/job.scope/memory.high": str(6 * GIB),
            "sys/fs/cgroup/job.scope/memory.current": str(GIB),
        },
    )
    assert hardware.memory_limit(root) == (6 * GIB, 5 * GIB)


def test_cgroup_v1_limits(tmp_path: Path) -> None:
    # As in a container: the path of /proc/self/cgroup is the host's, and the mount is ours.
    root = write(
        tmp_path,
        {
            "proc/self/cgroup": "4:memory:/docker/abc\n2:cpu,cpuacct:/docker/abc\n0::/",
            "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us": "200000",
            "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us": "100000",
            "sys/fs/cgroup/memory/memory.limit_in_bytes": str(2 * GIB),
            "sys/fs/cgroup/memory/memory.usage_in_bytes": str(GIB),
            "sys/fs/cgroup/memory/memory.stat": "total_inactive_file 0",
        },
    )
    assert hardware.cpu_quota(root) == 2
    assert hardware.memory_limit(root) == (2 * GIB, GIB)


def test_no_limits(tmp_path: Path) -> None:
    root = write(
        tmp_path,
        {
            "proc/self/cgroup": "4:memory:/\n2:cpu:/\n0::/",
            "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "-1",
            "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000",
            "sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712",
        },
    )
    assert hardware.cpu_quota(root) is None
    assert hardware.memory_limit(root) is None
    assert hardware.memory_limit(tmp_path / "nothing") is None


def test_a_quota_lowers_cores_but_never_to_none(tmp_path: Path) -> None:
    root = write(tmp_path, {"proc/self/cgroup": "0::/", "sys/fs/cgroup/cpu.max": "50000 100000"})
    machine = hardware.probe(root=root)
    assert (machine.cores, machine.threads) == (1, 1)


@pytest.mark.parametrize(
    ("value", "indices"),
    [
        (None, [0, 1, 2]),
        ("", []),
        ("2,0", [2, 0]),
        ("1,-1,0", [1]),
        ("0,9,1", [0]),
        ("GPU-bbb", [1]),
        ("0,0", [0]),
        ("NoDevFiles", []),
    ],
)
def test_cuda_visible_devices(value: str | None, indices: list[int]) -> None:
    gpus = tuple(Gpu(i, "A", 8, 8, uuid=f"GPU-{letter * 3}-1") for i, letter in enumerate("abc"))
    assert [gpu.index for gpu in hardware.visible(gpus, value)] == indices


def test_gpus_agree_with_the_driver() -> None:
    found = hardware.gpus()
    for gpu in found:  # without a driver nothing is raised or warned of (warnings are errors here)
        assert 0 <= gpu.free <= gpu.total
        assert gpu.name
        assert gpu.driver


class MigDriver:
    """NVML's calls as its documentation has them, for a GPU with two slices before one without."""

    class NVMLError(Exception):
        pass

    class NVMLError_NotSupported(NVMLError):  # noqa: N801, N818
        pass

    UUIDS: ClassVar = {0: "GPU-aaa", 1: "GPU-bbb", (0, 0): "MIG-ccc", (0, 2): "MIG-ddd"}
    TOTAL: ClassVar = {0: 80 * GIB, 1: 24 * GIB, (0, 0): 40 * GIB, (0, 2): 10 * GIB}

    def nvmlInit(self) -> None: ...
    def nvmlShutdown(self) -> None: ...
    def nvmlDeviceGetCount(self) -> int:
        return 2

    def nvmlDeviceGetHandleByIndex(self, index: int) -> int:
        return index

    def nvmlDeviceGetMigMode(self, handle: int) -> list[int]:
        if handle == 1:
            raise self.NVMLError_NotSupported
        return [1, 1]

    def nvmlDeviceGetMaxMigDeviceCount(self, handle: int) -> int:
        return 7

    def nvmlDeviceGetMigDeviceHandleByIndex(self, handle: int, place: int) -> tuple[int, int]:
        if (handle, place) not in self.UUIDS:
            raise self.NVMLError
        return (handle, place)

    def nvmlDeviceGetMemoryInfo(self, handle: Any) -> SimpleNamespace:
        return SimpleNamespace(total=self.TOTAL[handle], free=self.TOTAL[handle] - GIB)

    def nvmlDeviceGetCudaComputeCapability(self, handle: Any) -> tuple[int, int]:
        if isinstance(handle, tuple):
            raise self.NVMLError
        return (8, 0) if handle == 0 else (8, 9)

    def nvmlDeviceGetName(self, handle: Any) -> str:
        return f"NVIDIA {handle}"

    def nvmlDeviceGetUUID(self, handle: Any) -> str:
        return str(self.UUIDS[handle])

    def nvmlDeviceGetComputeRunningProcesses(self, handle: Any) -> list[Any]:
        return []

    def nvmlDeviceGetUtilizationRates(self, handle: Any) -> SimpleNamespace:
        if handle == 0:  # in MIG mode
            raise self.NVMLError_NotSupported
        return SimpleNamespace(gpu=37, memory=5)


def test_slices_stand_in_place_of_their_gpu() -> None:
    driver: Any = MigDriver()
    gpus = tuple(hardware._found(driver, "580"))
    assert [(gpu.index, gpu.uuid, gpu.total) for gpu in gpus] == [
        (100, "MIG-ccc", 40 * GIB),
        (102, "MIG-ddd", 10 * GIB),
        (1, "GPU-bbb", 24 * GIB),
    ]
    assert [gpu.compute_capability for gpu in gpus] == [(8, 0), (8, 0), (8, 9)]
    for value, indices in {"MIG-ddd": [102], "0": [100], "1": [1], "1,MIG-c": [1, 100]}.items():
        assert [gpu.index for gpu in hardware.visible(gpus, value)] == indices


def test_how_busy_gpus_are_without_those_that_do_not_tell() -> None:
    driver: Any = MigDriver()
    assert dict(hardware._busy(driver)) == {1: 37.0}


def test_an_engine_is_shown_slices_by_uuid() -> None:
    driver: Any = MigDriver()
    shown = mig.by_uuid({"CUDA_VISIBLE_DEVICES": "102,1", "A": "b"}, driver)
    assert shown == {"CUDA_VISIBLE_DEVICES": "MIG-ddd,1", "A": "b"}
    assert mig.by_uuid({"CUDA_VISIBLE_DEVICES": "0,1"})["CUDA_VISIBLE_DEVICES"] == "0,1"
    assert mig.by_uuid({}) == {}
