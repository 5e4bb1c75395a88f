"""The system's shared libraries that an environment needs, and the packages that have them.

Wheels carry most of what they need, but not all: an engine would end with "cannot open shared object
file" after gigabytes were downloaded. The loader itself is asked, by ``dlopen``, whether a library is
there; what a made environment wants is read from its ELF files.
"""

from __future__ import annotations

import ctypes
import platform
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from yibu.environments.elf import links
from yibu.errors import EnvironmentSetupError
from yibu.messages import tr

_EXTENSIONS = ("*.abi3.so", "*.cpython-*.so")
_LIBC = frozenset({"libc", "libm", "libdl", "libpthread", "librt", "libmvec", "libutil"})
"""Parts of glibc, without which no Python runs."""
_OPTIONAL = frozenset({"libtbb.so.12", "libgomp.so.1.0.0"})
"""numba's thread pools: it takes the one whose library is there, or its own."""


@dataclass(frozen=True, slots=True)
class _Family:
    """Distributions with the same package manager."""

    names: frozenset[str]
    """Names in ``ID`` and ``ID_LIKE`` of /etc/os-release."""
    install: str
    anything: str = ""
    """The argument that installs whatever has a library, where the manager knows that."""


_RPM = "'{library}()(64bit)'"
_FAMILIES = (
    _Family(frozenset({"debian", "ubuntu"}), "apt-get install"),
    _Family(
        frozenset({"fedora", "rhel", "centos", "openeuler", "anolis", "amzn", "kylin"}),
        "dnf install",
        _RPM,
    ),
    _Family(frozenset({"suse", "opensuse"}), "zypper install", _RPM),
    _Family(frozenset({"arch"}), "pacman -S"),
)
_PACKAGES = {
    "libgcc_s.so.1": "libgcc-s1 libgcc libgcc_s1 gcc-libs",
    "libgomp.so.1": "libgomp1 libgomp libgomp1 gcc-libs",
    "libnuma.so.1": "libnuma1 numactl-libs libnuma1 numactl",
    "libstdc++.so.6": "libstdc++6 libstdc++ libstdc++6 gcc-libs",
    "libz.so.1": "zlib1g zlib libz1 zlib",
    "c++": "g++ gcc-c++ gcc-c++ gcc",
    "vulkan/vulkan.hpp": "libvulkan-dev vulkan-headers vulkan-devel vulkan-headers",
    "libvulkan.so": "libvulkan-dev vulkan-loader-devel vulkan-devel vulkan-icd-loader",
    "spirv/unified1/spirv.hpp": "spirv-headers spirv-headers-devel spirv-headers spirv-headers",
    "glslc": "glslc glslc shaderc shaderc",
    "nvcc": "nvidia-cuda-toolkit cuda-toolkit cuda-toolkit cuda",
    "cublas_v2.h": "nvidia-cuda-toolkit cuda-toolkit cuda-toolkit cuda",
}
"""The package of a library, or of what ``toolchain`` looks for, in the order of ``_FAMILIES``."""
_DRIVER = frozenset({"libcuda.so.1", "libnvidia-ml.so.1"})


def missing(names: Iterable[str]) -> list[str]:
    """The libraries that this machine's loader does not find."""
    return [name for name in names if not _loads(name)]


def _loads(name: str) -> bool:
    try:
        ctypes.CDLL(name)
    except OSError:
        return False
    return True


def require(environment: str, names: Iterable[str]) -> None:
    """Refuse an environment whose libraries this machine lacks.

    Raises:
        EnvironmentSetupError: with the package to install.
    """
    if lacking := missing(names):
        raise EnvironmentSetupError(
            "environment {environment}: this machine lacks shared libraries: {lacking}",
            environment=environment,
            lacking=", ".join(lacking),
            hint=how_to_install(lacking),
            cause="missing_library",
        )


def how_to_install(names: Iterable[str], release: Mapping[str, str] | None = None) -> str:
    """The command to install them, as root, on a distribution with this /etc/os-release; None: this
    machine's."""
    names = list(names)
    if any(name in _DRIVER for name in names):
        return tr(
            "Install NVIDIA's driver (nvidia-smi shows it), or run the model on the CPU: gpus: []"
        )
    at = _family(_release() if release is None else release)
    if at is not None:
        family = _FAMILIES[at]
        known = [
            _PACKAGES[name].split()[at]
            if name in _PACKAGES
            else family.anything.format(library=name)
            for name in names
        ]
        if all(known):
            packages = " ".join(dict.fromkeys(known))
            return tr("As root: {install} {known}", install=family.install, known=packages)
    return tr("Install the system's packages that have them; yibu doctor looks again")


def _release() -> Mapping[str, str]:
    try:
        return platform.freedesktop_os_release()
    except OSError:  # there is no such file
        return {}


def _family(release: Mapping[str, str]) -> int | None:
    """Where the distribution's family is in ``_FAMILIES``."""
    words = f"{release.get('ID', '')} {release.get('ID_LIKE', '')}".lower().split()
    return next((i for word in words for i, f in enumerate(_FAMILIES) if word in f.names), None)


def needed(environment: Path) -> list[str]:
    """What the extension modules of an environment take from the system, directly or through
    libraries that the environment has.

    Plugins that nothing links to (OpenVINO's for GPUs, say) are left out: engines do without.
    """
    if sys.platform != "linux":
        return []
    own: dict[str, Path] = {}
    for file in environment.rglob("*.so*"):
        own.setdefault(file.name, file)
    roots = [file for pattern in _EXTENSIONS for file in environment.rglob(pattern)]
    seen: set[str] = set()
    wanted: set[str] = set()
    waiting = [name for file in roots for name in links(file)]
    while waiting:
        name = waiting.pop()
        if name in seen:
            continue
        seen.add(name)
        if name in own:
            waiting += links(own[name])
        elif not _is_libc(name) and name not in _OPTIONAL:
            wanted.add(name)
    return sorted(wanted)


def _is_libc(name: str) -> bool:
    stem = name.partition(".so")[0]
    return stem in _LIBC or stem.startswith(("ld-linux", "ld64"))
