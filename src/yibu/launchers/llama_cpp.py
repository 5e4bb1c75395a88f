"""Serve one GGUF model with llama.cpp's own HTTP server, through xllamacpp.

    python -m yibu.launchers.llama_cpp --model PATH [--file NAME] [--mmproj PATH] --host H --port P
                                       [--alias NAME] [--set FIELD=JSON …]
    python -m yibu.launchers.llama_cpp --list-devices

FIELD is a dotted name in xllamacpp's ``CommonParams``. The API key comes in the variable
``YIBU_ENGINE_KEY``, never as an argument. Exit code 1: llama.cpp refused, its words are on
stderr; 2: an argument is wrong. SIGTERM ends the process at once, running streams included.
"""

from __future__ import annotations

import argparse
import ctypes
import enum
import json
import os
import re
import signal
import socket
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

KEY_VARIABLE = "YIBU_ENGINE_KEY"
_MAGIC = b"GGUF"
_PART = re.compile(r"-(\d{5})-of-\d{5}\.gguf$")


class LaunchError(Exception):
    """The launch cannot succeed; the text is the last line on stderr."""


def main(argv: Sequence[str] | None = None) -> int:
    words = sys.argv[1:] if argv is None else argv
    if list(words) == ["--list-devices"]:
        _find_libraries()
        return _list_devices()
    arguments = _arguments(words)
    _find_libraries()
    key = os.environ.pop(KEY_VARIABLE, "")
    try:
        model = find_model(arguments.model, arguments.file)
        _check_port(arguments.host, arguments.port)
        params = _params(arguments, model, key)
    except LaunchError as error:
        return _fail(str(error), 2)
    return _serve(params)


def _find_libraries() -> None:
    """Let the loader find the environment's own shared libraries, after those of the user's path.

    It reads the path when a process starts, so this one starts anew, with the same pid.
    """
    libraries = Path(sys.prefix, "lib", "yibu")
    path = os.environ.get("LD_LIBRARY_PATH", "").split(":")
    if libraries.is_dir() and str(libraries) not in path:
        os.environ["LD_LIBRARY_PATH"] = ":".join([*filter(None, path), str(libraries)])
        os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])  # noqa: S606 - no shell is wanted


def _serve(params: Any) -> int:
    import xllamacpp

    # Loading holds the GIL, so a Python handler would wait for its end: let the kernel act.
    _die_on_signals()
    try:
        server = xllamacpp.Server(params)
    except RuntimeError as error:
        flush_log(xllamacpp)
        return _fail(f"llama.cpp could not start ({error}); its own words stand above", 1)
    # llama.cpp has put handlers of its own, which wait for running streams (half a minute).
    # Nothing here needs saving, and the gateway has drained before it asks.
    _die_on_signals()
    print(f"yibu: llama.cpp is ready on {server.listening_address}", file=sys.stderr, flush=True)
    while True:
        signal.pause()


def flush_log(xllamacpp: Any) -> None:
    """Wait until llama.cpp has written its log.

    A thread of its own writes it and is not waited for at exit: on a busy machine the last lines,
    which say why a start failed, would be lost. xllamacpp has no method for it, but exports the symbols.
    """
    library = ctypes.CDLL(xllamacpp.xllamacpp.__file__)
    main_log = library["_Z15common_log_mainv"]
    main_log.restype = ctypes.c_void_p
    library["_Z16common_log_flushP10common_log"](ctypes.c_void_p(main_log()))


def _list_devices() -> int:
    """Print this build's devices beside the CPU, as llama-server does."""
    import xllamacpp

    print("Available devices:")
    for device in xllamacpp.get_device_info():
        if "GPU" in device["type"].name:
            total, free = device["memory_total"] >> 20, device["memory_free"] >> 20
            print(f"  {device['name']}: {device['description']} ({total} MiB, {free} MiB free)")
    return 0


def _die_on_signals() -> None:
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="yibu.launchers.llama_cpp", allow_abbrev=False)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--file", default=None, help="which GGUF, where --model is a directory")
    parser.add_argument("--mmproj", type=Path, default=None, help="the model's vision projector")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--alias", default=None)
    parser.add_argument("--set", dest="settings", action="append", default=[], metavar="FIELD=JSON")
    return parser.parse_args(argv)


def find_model(path: Path, name: str | None = None) -> Path:
    """The GGUF file to load.

    ``name`` is the file's, relative to the directory; ignored where ``path`` is a file itself.

    Raises:
        LaunchError: no such path, nothing or too much to choose from, or not a GGUF file.
    """
    if path.is_dir():
        # Of a model in parts, llama.cpp wants the first and finds the others itself.
        models = [
            file
            for file in sorted(path.rglob("*.gguf"))
            if "mmproj" not in file.name.lower()
            and ((part := _PART.search(file.name)) is None or part[1] == "00001")
        ]
        if name is not None:
            models = [path / name]
        if len(models) != 1:
            names = ", ".join(file.name for file in models) or "none"
            raise LaunchError(
                f"the directory {path} has {len(models)} GGUF models ({names}): name one in the "
                f"source, as in ORG/NAME#FILE.gguf"
            )
        path = models[0]
    _check_magic(path, "model")
    return path


def _check_magic(path: Path, what: str) -> None:
    try:
        with path.open("rb") as file:
            magic = file.read(len(_MAGIC))
    except OSError as error:
        raise LaunchError(f"the {what} file {path} cannot be read: {error.strerror}") from error
    if magic != _MAGIC:
        raise LaunchError(f"the {what} file {path} is not GGUF: it begins with {magic!r}")


def _check_port(host: str, port: int) -> None:
    """Say plainly that a port is taken; llama.cpp's own line names no reason."""
    try:
        with socket.create_server((host, port)):
            pass
    except OSError as error:
        raise LaunchError(
            f"cannot listen on {host}:{port}: {error.strerror} (errno {error.errno})"
        ) from error


def _params(arguments: argparse.Namespace, model: Path, key: str) -> Any:
    if arguments.mmproj is not None:
        _check_magic(arguments.mmproj, "projector")
    try:
        import xllamacpp
    except ImportError as error:
        raise LaunchError(f"xllamacpp cannot be imported in this environment: {error}") from error

    params = xllamacpp.CommonParams()
    params.model.path = str(model)
    if arguments.mmproj is not None:
        params.mmproj.path = str(arguments.mmproj)
    params.hostnames = [arguments.host]
    params.port = arguments.port
    if arguments.alias:
        params.model_alias = {arguments.alias}
    if key:
        params.api_keys = [key]
    for setting in arguments.settings:
        field, equals, text = setting.partition("=")
        if not equals:
            raise LaunchError(f"--set {setting}: expected FIELD=JSON")
        set_field(params, field, text)
    return params


def set_field(params: Any, field: str, text: str) -> None:
    """Set a dotted field from JSON; enumerations take the end of a member's name.

    Raises:
        LaunchError: no such field, or a value that it does not take.
    """
    *path, name = field.split(".")
    try:
        owner = params
        for step in path:
            owner = getattr(owner, step)
        current = getattr(owner, name)
    except AttributeError as error:
        raise LaunchError(f"--set {field}: xllamacpp has no such field") from error
    try:
        value = json.loads(text)
        if isinstance(current, enum.Enum):
            value = _member(type(current), value)
        elif isinstance(current, set):
            value = set(value)
        setattr(owner, name, value)
    except (TypeError, ValueError, OverflowError) as error:
        raise LaunchError(f"--set {field}={text}: {error}") from error


def _member(kind: type[enum.Enum], word: object) -> enum.Enum:
    ends = [member for member in kind if member.name.lower().endswith(f"_{word}".lower())]
    if not ends:
        raise ValueError(f"expected one of {', '.join(member.name for member in kind)}")
    # "none" also ends "…_NOT_NONE": the shortest name is the word itself.
    return min(ends, key=lambda member: len(member.name))


def _fail(message: str, code: int) -> int:
    print(f"yibu: error: {message}", file=sys.stderr, flush=True)
    return code


if __name__ == "__main__":
    sys.exit(main())
