"""Logs of engines and of the node, read from their files: the node need not run for it."""

from __future__ import annotations

import contextlib
import queue
import threading
from collections.abc import Sequence
from pathlib import Path

from yibu.cli import output
from yibu.cli.context import Context
from yibu.config.names import replica_id
from yibu.errors import UsageError
from yibu.node import logs

_LOOK = 0.2
"""Seconds between two looks whether there is still something to follow."""
_NODE = "node"
"""The name under which `yibu logs` shows the node's own log."""


def show(context: Context, model: str, *, follow: bool, lines: int) -> None:
    """Print the last lines of a model's log, and go on with ``follow``.

    Raises:
        UsageError: there is no log of that name.
    """
    files = _files(context, model)
    if context.paths.logs.is_dir() and not logs.has_room(context.paths.logs):
        output.talk(f"the disk with the logs is full ({context.paths.logs}): lines are missing")
    if not files:
        known = ", ".join(_names(context)) or "none yet"
        raise UsageError(f"There is no log of {model!r} here; there are: {known}.")
    for file in files:
        for line in logs.tail(file, lines):
            output.data(_marked(file, line, several=len(files) > 1))
    if follow:
        _follow({file: file.stem for file in files} if len(files) > 1 else {files[0]: ""})


def follow_models(context: Context, models: Sequence[str], ended: threading.Event) -> None:
    """Print what the models' engines log from now on, until interrupted or ``ended``."""
    files = {file: model for model in models for file in _files(context, model)}
    _follow(files if len(files) > 1 else dict.fromkeys(files, ""), ended)


def _files(context: Context, model: str) -> list[Path]:
    if model == _NODE:
        return [context.paths.node_log] if context.paths.node_log.exists() else []
    files: list[Path] = []
    while (file := context.paths.model_log(replica_id(model, len(files)))).exists():
        files.append(file)
    return files


def _names(context: Context) -> list[str]:
    return sorted(file.stem for file in context.paths.logs.glob("*.log"))


def _marked(file: Path, line: str, *, several: bool) -> str:
    return f"{file.stem} | {line}" if several else line


def _follow(files: dict[Path, str], ended: threading.Event | None = None) -> None:
    """Print new lines of several files as they come, each behind its mark."""
    arrived: queue.SimpleQueue[str] = queue.SimpleQueue()

    def read(file: Path, mark: str) -> None:
        for line in logs.follow(file):
            arrived.put(f"{mark} | {line}" if mark else line)

    for file, mark in files.items():
        threading.Thread(target=read, args=(file, mark), name=f"follow {file}", daemon=True).start()
    while ended is None or not ended.is_set():
        with contextlib.suppress(queue.Empty):
            output.data(arrived.get(timeout=_LOOK))
            output.flush()
