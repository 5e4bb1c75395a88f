"""A user's program: asking it what it is, or why it cannot be run."""

from __future__ import annotations

import contextlib
import errno
import os
import platform
import re
import signal
import struct
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from yibu.environments.libraries import how_to_install
from yibu.environments.manager import EnvironmentManager
from yibu.environments.specs import SPECS
from yibu.errors import EnvironmentSetupError
from yibu.messages import tr

_TIMEOUT = 60.0
"""Seconds. A program for GPUs wakes the driver, which takes some where nobody else uses it."""
_LIMIT = 1 << 20
"""Bytes of what it prints that are kept."""
_ELF_MACHINES: Mapping[int, str] = {
    3: "x86", 8: "mips", 21: "ppc64le", 22: "s390x", 40: "arm", 62: "x86_64", 183: "aarch64",
    243: "riscv64", 258: "loongarch64",
}  # fmt: skip
_NO_LIBRARY = re.compile(r"error while loading shared libraries: (\S+): cannot open")
_OLD_LIBRARY = re.compile(r"version `([^']+)' not found \(required by")


def ask(path: Path, arguments: Sequence[str], env: Mapping[str, str]) -> str:
    """What the program prints, on stdout and stderr, when it is run with these arguments.

    Raises:
        EnvironmentSetupError: it cannot be run, does not end, or ends with an error; the message
            says why.
    """
    _require_program(path)
    try:
        code, output = _run([str(path), *arguments], env)
    except subprocess.TimeoutExpired as error:
        raise _unusable(
            path,
            tr(
                "has not answered {arguments} after {seconds:.0f} s",
                arguments=" ".join(arguments),
                seconds=_TIMEOUT,
            ),
            tr("run it yourself with that argument; of a GPU that hangs, dmesg tells"),
        ) from error
    except OSError as error:
        raise _not_started(path, error) from error
    said = output[:_LIMIT].decode("utf-8", "replace")
    if code != 0:
        raise _failed(path, arguments, code, said)
    return said


def _run(command: Sequence[str], env: Mapping[str, str]) -> tuple[int, bytes]:
    """Its exit code and output. What it has started ends with it when it is given up: behind a script
    there may be a server that holds a GPU's memory."""
    with subprocess.Popen(
        command,
        env=dict(env),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    ) as process:
        try:
            output, _ = process.communicate(timeout=_TIMEOUT)
        except BaseException:  # an interrupt too: nothing that it started may stay
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            raise
    return process.returncode, output


def built_programs(environments: EnvironmentManager) -> dict[str, Path]:
    """What was made here by choice, by its environment's name: programs that were built from source, and
    the interpreters of packages in a version that the user chose."""
    found = {}
    for spec in SPECS.values():
        bin_directory = environments.path(spec.name) / "bin"
        if spec.build is not None:
            found[spec.name] = bin_directory / Path(spec.build.program).name
        elif environments.chosen_version(spec.name) is not None:
            found[spec.name] = bin_directory / "python"
    return {name: path for name, path in found.items() if path.is_file()}


def _require_program(path: Path) -> None:
    if not path.is_absolute():
        raise _unusable(
            path, tr("is no whole path"), tr("write it from the root: /path/to/llama-server")
        )
    if not path.exists():
        raise _unusable(path, tr("is not there"), tr("correct the path"))
    if path.is_dir():
        raise _unusable(
            path, tr("is a directory"), tr("name the program in it, as in /path/llama-server")
        )
    if not os.access(path, os.X_OK):
        raise _unusable(path, tr("may not be executed"), f"chmod +x {path}")


def _not_started(path: Path, error: OSError) -> EnvironmentSetupError:
    if error.errno == errno.ENOEXEC:
        machine = _machine_of(path)
        if machine is not None and machine != platform.machine():
            what = tr(
                "is built for {built_for}, and this machine is {machine}",
                built_for=machine,
                machine=platform.machine(),
            )
            return _unusable(path, what, tr("take the build for this machine"))
        return _unusable(
            path, tr("is no program that this system can run"), tr("take another file")
        )
    if error.errno == errno.ENOENT:  # the file is there: what it is to be loaded by is not
        what = tr("needs a loader or an interpreter that this machine lacks")
        return _unusable(path, what, tr("take a build for this distribution (musl or glibc)"))
    return _unusable(
        path,
        tr("cannot be run: {strerror}", strerror=error.strerror),
        tr("look at its permissions"),
    )


def _machine_of(path: Path) -> str | None:
    """The processor that an ELF file is for; None for what is none."""
    with path.open("rb") as file:
        head = file.read(20)
    if len(head) < 20 or head[:4] != b"\x7fELF":
        return None
    (number,) = struct.unpack_from("<H" if head[5] == 1 else ">H", head, 18)
    return _ELF_MACHINES.get(number, f"another processor (ELF machine {number})")


def _failed(path: Path, arguments: Sequence[str], code: int, said: str) -> EnvironmentSetupError:
    if missing := _NO_LIBRARY.search(said):
        what = tr(
            "needs the shared library {missing}, which this machine lacks", missing=missing[1]
        )
        hint = tr(
            "{how_to_install}; where it lies beside the program: env: {{LD_LIBRARY_PATH: "
            "{parent}}}",
            how_to_install=how_to_install([missing[1]]),
            parent=path.parent,
        )
        return _unusable(path, what, hint, "missing_library")
    if old := _OLD_LIBRARY.search(said):
        what = tr("needs {old}, and this system's is older", old=old[1])
        return _unusable(path, what, tr("take a build for this distribution, or build it here"))
    if code == -signal.SIGILL:
        what = tr("has instructions that this processor does not know")
        return _unusable(path, what, tr("take a build for this processor, or build it here"))
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    ended = (
        tr("was ended by {code}", code=signal.Signals(-code).name)
        if code < 0
        else tr("ended with {code}", code=code)
    )
    what = tr(
        "{ended} when asked for {arguments}: {lines}",
        ended=ended,
        arguments=" ".join(arguments),
        lines=lines[-1] if lines else tr("no word"),
    )
    return _unusable(path, what, tr("run it yourself with that argument"))


def _unusable(
    path: Path, what: str, hint: str, cause: str = "environment"
) -> EnvironmentSetupError:
    return EnvironmentSetupError(
        "the program {path} {what}", path=path, what=what, hint=hint, cause=cause
    )
