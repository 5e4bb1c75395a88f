"""The system's shared libraries: which are wanted, which are there, and how to get one."""

from __future__ import annotations

import ctypes.util
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from tiny_wheels import LocalSpec, build_wheel, locked

from yibu.environments.elf import links
from yibu.environments.libraries import how_to_install, missing, needed
from yibu.environments.manager import EnvironmentManager
from yibu.environments.uv_settings import UvSettings
from yibu.errors import EnvironmentSetupError

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="ELF is Linux's format")

NOWHERE = "libyibu-nowhere.so.9"
NUMPY = sorted(Path(np.__file__).parent.rglob("*.cpython-*.so"))
LINKED = next(file for file in NUMPY if file.name.startswith("_multiarray_umath"))


@pytest.mark.parametrize("file", NUMPY, ids=lambda file: file.name.partition(".")[0])
def test_an_elf_files_links_are_those_that_the_loader_follows(file: Path) -> None:
    listing = subprocess.run(
        [_loader(), "--list", str(file)], capture_output=True, text=True, check=True
    ).stdout
    listed = {
        words[0].rpartition("/")[2] for line in listing.splitlines() if (words := line.split())
    }
    assert {name.rpartition("/")[2] for name in links(file)} <= listed


def test_links_name_the_runtimes_that_a_system_may_lack() -> None:
    assert any(name.startswith("libstdc++") for name in links(LINKED))


def _loader() -> str:
    maps = Path("/proc/self/maps").read_text(encoding="utf-8")
    return next(line.split()[-1] for line in maps.splitlines() if "/ld-" in line)


@pytest.mark.parametrize("cut", [0, 3, 5, 20, 64, 200, 4096])
def test_a_damaged_file_is_linked_to_nothing(tmp_path: Path, cut: int) -> None:
    file = tmp_path / "cut.cpython-311.so"
    file.write_bytes(LINKED.read_bytes()[:cut])
    assert links(file) == []
    assert needed(tmp_path) == []


def test_what_an_environment_needs_leaves_out_what_it_brings(tmp_path: Path) -> None:
    extension = tmp_path / LINKED.name
    extension.write_bytes(LINKED.read_bytes())
    wanted = needed(tmp_path)
    assert wanted
    assert not any(name.startswith(("libc.", "libm.", "ld-linux")) for name in wanted)
    for name in wanted:  # a plugin that nothing links to, say
        (tmp_path / name).write_bytes(b"")
    assert needed(tmp_path) == []


def test_the_loader_itself_is_asked() -> None:
    there = ctypes.util.find_library("c") or "libc.so.6"
    assert missing([there, NOWHERE]) == [NOWHERE]


def test_an_environment_is_refused_before_anything_is_fetched(tmp_path: Path) -> None:
    wheel = build_wheel(tmp_path / "wheels", "tiny", "1.0", {"tiny.py": b""})
    spec = LocalSpec("tiny", locked(wheel, "tiny", "1.0"), "tiny", system=(NOWHERE,))
    manager = EnvironmentManager(
        tmp_path / "environments", UvSettings(), env=os.environ, specs={"tiny": spec}
    )
    calls: list[Callable[[], object]] = [
        lambda: manager.require_libraries("tiny"),
        lambda: manager.ensure("tiny", wheels=tmp_path / "wheels"),
    ]
    for call in calls:
        with pytest.raises(EnvironmentSetupError, match=f"tiny.*lacks shared libraries: {NOWHERE}"):
            call()
    assert not (tmp_path / "environments").exists()


@pytest.mark.parametrize(
    ("release", "names", "command"),
    [
        ({"ID": "debian"}, ["libgomp.so.1", "libnuma.so.1"], "apt-get install libgomp1 libnuma1"),
        ({"ID": "ubuntu", "ID_LIKE": "debian"}, ["libnuma.so.1"], "apt-get install libnuma1"),
        ({"ID": "rocky", "ID_LIKE": "rhel centos fedora"}, ["libnuma.so.1"], "dnf install numactl-libs"),
        ({"ID": "openEuler"}, ["libgomp.so.1"], "dnf install libgomp"),
        ({"ID": "almalinux", "ID_LIKE": "rhel"}, ["libfoo.so.2"], "dnf install 'libfoo.so.2()(64bit)'"),
        ({"ID": "opensuse-leap", "ID_LIKE": "suse opensuse"}, ["libz.so.1"], "zypper install libz1"),
        ({"ID": "arch"}, ["libgomp.so.1", "libstdc++.so.6"], "pacman -S gcc-libs"),
        ({"ID": "debian"}, ["libfoo.so.2"], "the system's packages"),
        ({}, ["libgomp.so.1"], "the system's packages"),
        ({"ID": "debian"}, ["libcuda.so.1"], "NVIDIA's driver"),
    ],
)  # fmt: skip
def test_how_to_install_says_what_to_type(
    release: dict[str, str], names: list[str], command: str
) -> None:
    assert command in how_to_install(names, release)
