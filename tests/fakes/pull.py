"""A child process that pulls one source: ``python -m tests.fakes.pull SOURCE [CHANGES [STEP]]``.

CHANGES is a JSON object of HubSettings' fields. Each progress report's phase goes to stderr, the
model's path to stdout. At its STEPth change of the file system it kills itself. With ``--gc`` it collects
garbage instead, and stops before it removes the first unfinished file.
"""

from __future__ import annotations

import itertools
import json
import os
import signal
import sys
from dataclasses import replace
from typing import Any

from yibu.hub.settings import HubSettings
from yibu.hub.source import parse_source
from yibu.hub.store import Store
from yibu.paths import Paths

_CHANGES = (
    "os.rename",
    "os.symlink",
    "os.link",
    "os.mkdir",
    "os.truncate",
    "os.remove",
    "os.rmdir",
)


def main() -> None:
    if sys.argv[1] == "--gc":
        _stop_at_a_partial_file()
        Store(Paths.from_env(os.environ), HubSettings.from_env(os.environ)).gc()
        return
    changes = json.loads(sys.argv[2]) if len(sys.argv) > 2 else {}
    if len(sys.argv) > 3:
        _die_at(int(sys.argv[3]))
    settings = replace(HubSettings.from_env(os.environ), **changes)
    model = Store(Paths.from_env(os.environ), settings).pull(
        parse_source(sys.argv[1]),
        progress=lambda report: print(report.phase, file=sys.stderr, flush=True),
    )
    print(model.path)


def _stop_at_a_partial_file() -> None:
    stops = iter([signal.SIGSTOP])

    def before(event: str, values: tuple[Any, ...]) -> None:
        if event == "os.remove" and str(values[0]).endswith((".part", ".journal")):
            for signal_ in stops:
                os.kill(os.getpid(), signal_)

    sys.addaudithook(before)


def _die_at(last: int) -> None:
    steps = itertools.count(1)

    def before(event: str, values: tuple[Any, ...]) -> None:
        writes = event == "open" and isinstance(values[2], int) and values[2] & os.O_CREAT
        if (writes or event in _CHANGES) and next(steps) == last:
            os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(before)


if __name__ == "__main__":
    main()
