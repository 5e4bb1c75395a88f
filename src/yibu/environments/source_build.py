"""Building an environment's package from source: the lock, the variables, the program."""

from __future__ import annotations

import hashlib
import os
import re
import shlex
from collections.abc import Mapping
from importlib import resources
from pathlib import Path

from yibu.environments import toolchain
from yibu.environments.disk import site_packages
from yibu.environments.specs import EnvironmentSpec, SourceBuild
from yibu.errors import EnvironmentSetupError

TOOLS = ("cmake", "ninja", "setuptools", "setuptools-scm", "vcs-versioning", "wheel", "packaging")
"""What the lock has beside the source, and what is removed when the build is done."""
_ENTRY = re.compile(r"\n(?=\S)")
_COMMON = {
    "CMAKE_BUILD_TYPE": "Release",
    # One file, which may be copied elsewhere.
    "BUILD_SHARED_LIBS": "OFF",
    "LLAMA_BUILD_TESTS": "OFF",
    "LLAMA_BUILD_EXAMPLES": "OFF",
    "LLAMA_BUILD_APP": "OFF",
    # Models are here already, and the web page, which its build would download, is not wanted.
    "LLAMA_OPENSSL": "OFF",
    "LLAMA_BUILD_UI": "OFF",
    "LLAMA_USE_PREBUILT_UI": "OFF",
}


def split_lock(spec: EnvironmentSpec, version: str | None) -> tuple[str, str]:
    """The lock's tools, and its source alone; of another version than the pinned one no hash."""
    entries = _ENTRY.split(spec.lock.strip())
    source = [entry for entry in entries if entry.startswith(f"{spec.package}==")]
    tools = [entry for entry in entries if entry not in source]
    chosen = "\n".join(source) if version is None else f"{spec.package}=={version}"
    return "\n".join(tools) + "\n", chosen + "\n"


def variables(
    build: SourceBuild, version: str, bin_directory: Path, env: Mapping[str, str]
) -> dict[str, str]:
    """The environment in which the package builds itself.

    ``CMAKE_ARGS`` of the user's come last, so that they win; so does ``LLAMA_CPP_BUILD_JOBS``.
    """
    script = resources.files("yibu.environments").joinpath("locks", "llama-server.cmake")
    options = {
        **_COMMON,
        **build.options,
        "LLAMA_BUILD_NUMBER": version.partition(".")[0],
        "LLAMA_BUILD_COMMIT": "unknown",
        "CMAKE_PROJECT_llama.cpp_INCLUDE": str(script),
        # An earlier build's tree, which uv keeps, names the ninja of an environment that is gone.
        "CMAKE_MAKE_PROGRAM": str(bin_directory / "ninja"),
    }
    if "nvcc" in build.needs and (compiler := toolchain.nvcc(env)):
        options["CMAKE_CUDA_COMPILER"] = compiler
    words = [f"-D{name}={value}" for name, value in options.items()]
    return {
        "CMAKE_ARGS": f"{shlex.join(words)} {env.get('CMAKE_ARGS', '')}".strip(),
        "CMAKE_GENERATOR": "Ninja",
        "LLAMA_CPP_BUILD_JOBS": env.get("LLAMA_CPP_BUILD_JOBS") or str(_jobs(build)),
        "PATH": f"{bin_directory}{os.pathsep}{env.get('PATH', os.defpath)}",
    }


def cache_key(spec: EnvironmentSpec, env: Mapping[str, str]) -> str:
    """Tells builds with different options apart, for uv keeps what it built by version and by what
    is set with ``-C``, whatever the environment's variables were."""
    assert spec.build is not None
    asked = (*_COMMON.items(), *spec.build.options.items(), ("", env.get("CMAKE_ARGS", "")))
    return hashlib.sha256(repr(asked).encode()).hexdigest()[:12]


def _jobs(build: SourceBuild) -> int:
    """Compilers at once: one a core, as far as memory goes."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return max(1, min(cores or 1, memory // build.job_memory))


def link_program(spec: EnvironmentSpec, environment: Path) -> None:
    """Put the program that was built into the environment's ``bin``.

    Raises:
        EnvironmentSetupError: the package has none.
    """
    if spec.build is None:
        return
    program = site_packages(environment) / spec.build.program
    if not program.is_file():
        raise EnvironmentSetupError(
            "environment {spec}: {package} was built and has no {program}",
            spec=spec.name,
            package=spec.package,
            program=program.name,
            hint="Go back to the pinned version: yibu engine install {spec}",
        )
    program.chmod(0o755)
    link = environment / "bin" / program.name
    link.symlink_to(os.path.relpath(program, link.parent))
