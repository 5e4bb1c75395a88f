"""What a build from source needs of the machine, checked before anything is fetched."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

from yibu.environments.libraries import how_to_install
from yibu.errors import EnvironmentSetupError

_TIMEOUT = 60.0
_CXX17 = "#include <filesystem>\n#include <thread>\nint main() { std::filesystem::path p; }\n"
_TOOLKITS = ("/usr/local/cuda", "/opt/cuda", "/usr/lib/cuda")

NAMES: Mapping[str, str] = {
    "c++": "a C and C++ compiler that knows C++17",
    "vulkan/vulkan.hpp": "Vulkan's headers",
    "libvulkan.so": "Vulkan's loader to link with",
    "spirv/unified1/spirv.hpp": "the SPIR-V headers",
    "glslc": "glslc (compiles shaders)",
    "nvcc": "nvcc (CUDA's compiler)",
    "cublas_v2.h": "cuBLAS with its headers",
}
"""What a build may need, and how it is called in a message."""


def missing(names: Iterable[str], env: Mapping[str, str]) -> list[str]:
    """Those of ``NAMES`` that this machine lacks.

    What can only be tried with a compiler is not reported where there is none.
    """
    names = list(names)
    compiler = compilers(env)
    if compiler is None or not _compiles(compiler[1], _CXX17, env):
        others = [name for name in names if name in _PROGRAMS and not _PROGRAMS[name](env)]
        return ["c++", *others]
    lacking = []
    for name in names:
        if name in _PROGRAMS:
            found = _PROGRAMS[name](env) is not None
        elif name.endswith((".h", ".hpp")):
            found = _compiles(compiler[1], f"#include <{name}>\nint main() {{}}\n", env)
        elif name.endswith(".so"):
            stem = name.removeprefix("lib").removesuffix(".so")
            found = _compiles(compiler[1], "int main() {}\n", env, f"-l{stem}")
        else:
            found = True  # the compiler itself, tried above
        if not found:
            lacking.append(name)
    return lacking


def require(environment: str, names: Iterable[str], env: Mapping[str, str]) -> None:
    """Refuse a build for which this machine lacks something.

    Raises:
        EnvironmentSetupError: it names all that is missing, and the packages that have it.
    """
    if lacking := missing(names, env):
        raise EnvironmentSetupError(
            "environment {environment} is built from source, and this machine lacks {lacking}",
            environment=environment,
            lacking=", ".join(NAMES[name] for name in lacking),
            hint=how_to_install(lacking),
            cause="missing_toolchain",
        )


def compilers(env: Mapping[str, str]) -> tuple[str, str] | None:
    """The C and the C++ compiler that CMake would take; None without either."""
    found = [
        next((path for name in names if name and (path := _which(name, env))), None)
        for names in (
            (env.get("CC"), "cc", "gcc", "clang"),
            (env.get("CXX"), "c++", "g++", "clang++"),
        )
    ]
    return (found[0], found[1]) if found[0] and found[1] else None


def nvcc(env: Mapping[str, str]) -> str | None:
    """CUDA's compiler: as the environment names it, on the path, or in its usual directories."""
    roots = [env.get("CUDA_HOME"), env.get("CUDA_PATH"), *_TOOLKITS]
    places = [str(Path(root, "bin", "nvcc")) for root in roots if root]
    asked = [env.get("CUDACXX"), "nvcc", *places]
    return next((path for name in asked if name and (path := _which(name, env))), None)


def _glslc(env: Mapping[str, str]) -> str | None:
    sdk = env.get("VULKAN_SDK")
    return _which("glslc", env) or (_which(str(Path(sdk, "bin", "glslc")), env) if sdk else None)


_PROGRAMS: Mapping[str, Callable[[Mapping[str, str]], str | None]] = {
    "nvcc": nvcc,
    "glslc": _glslc,
}


def _which(name: str, env: Mapping[str, str]) -> str | None:
    return shutil.which(name.split(maxsplit=1)[0], path=env.get("PATH"))


def _search_paths(env: Mapping[str, str]) -> list[str]:
    """Where CMake looks beside the compiler's own directories: the SDKs of Vulkan and CUDA."""
    toolkit = nvcc(env)
    roots = [env.get("VULKAN_SDK"), str(Path(toolkit).resolve().parents[1]) if toolkit else None]
    # On the path there may be a script that starts the toolkit's own.
    roots += [root for root in _TOOLKITS if toolkit]
    return [
        flag
        for root in roots
        if root
        for flag in (f"-I{root}/include", f"-L{root}/lib", f"-L{root}/lib64")
    ]


def _compiles(compiler: str, source: str, env: Mapping[str, str], *flags: str) -> bool:
    """Whether a program of one file compiles and links."""
    with tempfile.TemporaryDirectory(prefix="yibu-toolchain-") as directory:
        file = Path(directory, "try.cpp")
        file.write_text(source, encoding="utf-8")
        command = [compiler, "-std=c++17", str(file), *_search_paths(env), *flags]
        done = _run([*command, "-o", str(file.with_suffix(""))], env)
    return done is not None and done.returncode == 0


def _run(command: Sequence[str], env: Mapping[str, str]) -> subprocess.CompletedProcess[str] | None:
    try:
        return subprocess.run(
            command, env=dict(env), capture_output=True, text=True, timeout=_TIMEOUT, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
