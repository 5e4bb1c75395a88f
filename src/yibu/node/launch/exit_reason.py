"""How an engine ended, in words, for what its log does not tell."""

from __future__ import annotations

import signal
from pathlib import Path

from yibu.messages import tr
from yibu.node import logs

DISK_FULL = "disk_full"


def describe_exit(code: int | None) -> str:
    """An exit code in words; nobody had asked the engine to end."""
    if code is None:
        return tr("ended (it had been adopted, so its exit code is not known)")
    if code == -signal.SIGKILL:
        return tr("was killed by SIGKILL, which yibu did not send (the kernel, out of memory?)")
    if code < 0:
        return tr("was ended by {code}", code=signal.Signals(-code).name)
    if code == 0:
        return tr("exited with code 0 though nobody asked it to")
    return tr("exited with code {code}", code=code)


def describe_silence(log: Path) -> tuple[str, str] | None:
    """Why nothing may stand in the log: a sentence and a hint. None where it can be written.
    Blocking."""
    if logs.has_room(log.parent):
        return None
    what = tr(
        "the disk with its log is full ({parent}), so that what it said is lost, and "
        "engines end when they cannot write",
        parent=log.parent,
    )
    return what, tr("free some space there (yibu gc), then: yibu restart {model}")
