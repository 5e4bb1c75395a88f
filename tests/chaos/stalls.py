"""What a node did while its event loop stood still: tracebacks meanwhile, and afterwards what it spent."""

from __future__ import annotations

import asyncio
import faulthandler
import resource
import sys
import time

_LONG = 2.0
"""Seconds without the loop that are worth a traceback of every thread."""
_LOOK_EVERY = 0.25


async def watch() -> None:
    """Write to standard error what explains a loop that stands; never ends."""
    spent = resource.getrusage(resource.RUSAGE_SELF)
    while True:
        begun = time.monotonic()
        faulthandler.dump_traceback_later(_LONG, repeat=True)
        await asyncio.sleep(_LOOK_EVERY)
        stood, before = time.monotonic() - begun, spent
        spent = resource.getrusage(resource.RUSAGE_SELF)
        if stood > _LONG:
            print(
                f"the event loop stood for {stood:.1f} s: {spent.ru_utime - before.ru_utime:.1f} s of"
                f" user and {spent.ru_stime - before.ru_stime:.1f} s of system time,"
                f" {spent.ru_nvcsw - before.ru_nvcsw} waits, {spent.ru_nivcsw - before.ru_nivcsw} times"
                f" put aside, {spent.ru_majflt - before.ru_majflt} pages read from the disk",
                file=sys.stderr, flush=True,
            )  # fmt: skip
