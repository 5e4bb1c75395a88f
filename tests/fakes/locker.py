"""A child process that takes a lock again and again: ``python -m tests.fakes.locker LOCK TIMES``.

Exits 1 as soon as two processes are inside at once: a lease with a lease is right, everything else
is not.
"""

from __future__ import annotations

import os
import random
import sys
import threading
from pathlib import Path

from yibu.hub.locks import exclusive, lease, try_exclusive


def main() -> None:
    path, times = Path(sys.argv[1]), int(sys.argv[2])
    alone, leased = path.with_suffix(".alone"), path.with_suffix(f".leased-{os.getpid()}")
    choice = random.Random(os.getpid())
    for _ in range(times):
        kind = choice.randrange(3)
        if kind == 0:
            with exclusive(path, threading.Event()):
                be_alone(alone, path)
        elif kind == 1:
            with try_exclusive(path) as free:
                if free:
                    be_alone(alone, path)
        else:
            with lease(path):
                leased.touch()
                if alone.exists():
                    sys.exit("somebody believes to be alone beside a lease")
                leased.unlink()


def be_alone(mark: Path, path: Path) -> None:
    os.close(os.open(mark, os.O_CREAT | os.O_EXCL))  # FileExistsError: two at once
    if list(path.parent.glob("*.leased-*")):
        sys.exit("somebody has a lease beside one that is alone")
    mark.unlink()


if __name__ == "__main__":
    main()
