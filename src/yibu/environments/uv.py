"""uv as a child process: run, watched, cancelled, and its failures put into words."""

from __future__ import annotations

import contextlib
import os
import re
import selectors
import signal
import subprocess
import threading
import time
import tomllib
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources
from pathlib import Path
from typing import TextIO

from yibu.environments.progress import ProgressReader
from yibu.errors import EnvironmentSetupError
from yibu.messages import filled, tr
from yibu.redaction import redact

_TAIL_LINES = 60
_POLL = 0.2
_HEARTBEAT = 1.0
_KILL_GRACE = 3.0

# Variables of the calling interpreter that would lead uv or the new environment astray.
_FOREIGN = ("VIRTUAL_ENV", "CONDA_PREFIX", "PYTHONPATH", "PYTHONHOME", "UV_PYTHON")


class UvCancelledError(EnvironmentSetupError):
    """The caller's cancel event was set while uv ran."""


class UvFailedError(EnvironmentSetupError):
    """uv exited with an error; ``reason`` is one of failures.toml's or ``"unknown"``."""

    def __init__(self, message: str, *, hint: str, reason: str) -> None:
        super().__init__(
            message, hint=hint, cause="disk_full" if reason == "disk_full" else "environment"
        )
        self.reason = reason


@dataclass(frozen=True, slots=True)
class _Failure:
    """See failures.toml."""

    reason: str
    pattern: str
    message: str
    hint: str


WHEELS_HINT = tr(
    "on a machine that reaches an index, collect the wheels into a folder, then: yibu "
    "engine install {environment} --wheels DIR"
)


@cache
def _failures() -> tuple[_Failure, ...]:
    text = resources.files("yibu.environments").joinpath("failures.toml").read_text("utf-8")
    return tuple(_Failure(**failure) for failure in tomllib.loads(text)["failure"])


def uv_binary() -> Path:
    """The uv program that the PyPI package carries.

    Raises:
        EnvironmentSetupError: the package is there without its program.
    """
    from uv import find_uv_bin

    try:
        return Path(find_uv_bin())
    except FileNotFoundError as error:
        raise EnvironmentSetupError(
            "the uv program is missing beside its Python package: {error}",
            error=error,
            hint="Reinstall it: python -m pip install --force-reinstall uv",
        ) from error


def run_uv(
    arguments: Sequence[str],
    *,
    environment: str,
    env: Mapping[str, str],
    cwd: Path,
    reader: ProgressReader,
    cancel: threading.Event | None = None,
    lock: int | None = None,
    log: Path | None = None,
) -> None:
    """Run uv to its end.

    ``environment`` is the name used in messages. ``log`` gets every line that it prints. ``lock`` is a file descriptor that uv inherits:
    should this process be killed, the lock stays held for as long as uv still writes.

    Raises:
        UvFailedError: uv exited with an error, said in words.
        UvCancelledError: ``cancel`` was set; uv's process group was killed and reaped.
    """
    clean = {name: value for name, value in env.items() if name not in _FOREIGN}
    process = subprocess.Popen(
        [str(uv_binary()), *arguments, "--color", "never", "--no-progress"],
        env=clean,
        cwd=cwd,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        # Its own group, so that a Ctrl-C reaches it through us and nothing outlives the call.
        start_new_session=True,
        pass_fds=() if lock is None else (lock,),
    )
    try:
        with open(log or os.devnull, "w", encoding="utf-8", opener=_private) as kept:
            tail = _follow(process, reader, cancel, kept)
        cancelled = cancel is not None and cancel.is_set()
        code = 0 if cancelled else process.wait()
    finally:
        _end(process)
    if cancelled:
        raise UvCancelledError(
            "making the environment {environment} was cancelled",
            environment=environment,
            hint="What was downloaded is kept; go on with: yibu engine install {environment}",
        )
    if code != 0:
        output = log.read_text(encoding="utf-8") if log is not None else "\n".join(tail)
        raise explain_failure(environment, code, output, log)


def explain_failure(
    environment: str, code: int, output: str, log: Path | None = None
) -> UvFailedError:
    """Say in words why uv failed, from what it printed."""
    output = redact(output)
    for failure in _failures():
        if match := re.search(failure.pattern, output):
            return UvFailedError(
                tr(
                    "environment {environment}: {why}",
                    environment=environment,
                    why=_fill(failure.message, match),
                ),
                hint=_advice(failure.hint, environment, log),
                reason=failure.reason,
            )
    last = [line.strip() for line in output.splitlines() if line.strip()][-6:]
    return UvFailedError(
        tr(
            "environment {environment}: uv exited with {code}: {output}",
            environment=environment,
            code=code,
            output=" | ".join(last) or tr("no output"),
        ),
        hint=tr(
            "Try it again with uv's own log: RUST_LOG=uv=debug yibu engine install {environment}",
            environment=environment,
        ),
        reason="unknown",
    )


def _fill(message: str, match: re.Match[str]) -> str:
    groups = {name: value or "" for name, value in match.groupdict().items()}
    if groups.get("url"):
        groups["url"] = f": {groups['url']}"
    return filled(message, **groups)


def _advice(hint: str, environment: str, log: Path | None) -> str:
    kept: str = str(log) if log else tr("uv's output, with: RUST_LOG=uv=debug")
    wheels = filled(WHEELS_HINT, environment=environment)
    return filled(hint, environment=environment, log=kept, hint=wheels)


def _follow(
    process: subprocess.Popen[bytes],
    reader: ProgressReader,
    cancel: threading.Event | None,
    log: TextIO,
) -> deque[str]:
    """Read stderr until it closes or ``cancel`` is set; returns the last lines."""
    assert process.stderr is not None
    tail: deque[str] = deque(maxlen=_TAIL_LINES)
    pending = b""
    reported = time.monotonic()
    with selectors.DefaultSelector() as selector:
        selector.register(process.stderr, selectors.EVENT_READ)
        while cancel is None or not cancel.is_set():
            if selector.select(_POLL):
                chunk = os.read(process.stderr.fileno(), 65536)
                if not chunk:
                    break
                *lines, pending = (pending + chunk).split(b"\n")
                for line in lines:
                    _take(line, tail, reader.feed, log)
            if time.monotonic() - reported >= _HEARTBEAT:
                reported = time.monotonic()
                reader.report()
    _take(pending, tail, reader.feed, log)
    return tail


def _take(line: bytes, tail: deque[str], feed: Callable[[str], None], log: TextIO) -> None:
    if text := line.decode("utf-8", "replace").rstrip():
        log.write(redact(text) + "\n")
        tail.append(text)
        feed(text)


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


def _end(process: subprocess.Popen[bytes]) -> None:
    """Kill uv, however the call ends."""
    if process.poll() is None:
        for sign in (signal.SIGTERM, signal.SIGKILL):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, sign)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(_KILL_GRACE)
                break
    if process.stderr is not None:
        process.stderr.close()
