"""Progress on stderr: a bar for a person, a line now and then for a log file."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

from yibu.cli import output
from yibu.cli.words import word
from yibu.messages import tr

if TYPE_CHECKING:
    from yibu.environments.progress import EnvironmentProgress, EnvironmentProgressCallback
    from yibu.hub.types import Progress, ProgressCallback

_LINE_EVERY = 5.0
"""Seconds between lines where stderr is not a terminal."""


Report = TypeVar("Report", "Progress", "EnvironmentProgress")


@contextmanager
def pulling(name: str) -> Iterator[ProgressCallback]:
    """Show one transfer; yields the callback that feeds it."""
    if sys.stderr.isatty():
        with _bar(name) as callback:
            yield callback
    else:
        yield _lines(name, lambda progress: describe(progress.plain()))


def installing(name: str) -> EnvironmentProgressCallback:
    """Shows the phases of making an environment, and bytes during downloads."""
    return _lines(name, describe_environment)


def _lines(name: str, described: Callable[[Report], str]) -> Callable[[Report], None]:
    """Prints a line at each new phase, and one every few seconds."""
    phase, printed = "", float("-inf")

    def report(progress: Report) -> None:
        nonlocal phase, printed
        now = time.monotonic()
        if progress.phase != phase or now - printed >= _LINE_EVERY:
            phase, printed = progress.phase, now
            output.talk(f"{name}  {described(progress)}")

    return report


@contextmanager
def _bar(name: str) -> Iterator[ProgressCallback]:
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        DownloadColumn,
        TextColumn,
        TimeRemainingColumn,
        TransferSpeedColumn,
    )
    from rich.progress import Progress as Bar

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
    )
    with Bar(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(name, total=None)

        def report(progress: Progress) -> None:
            bar.update(
                task,
                description=f"{name} {word(progress.phase)}",
                completed=progress.done_bytes,
                total=progress.total_bytes or None,
            )

        yield report


def describe_environment(progress: EnvironmentProgress) -> str:
    """``downloading 34.1 MB of 120.0 MB, 12 s``, then ``installing 154 packages, 40 s``."""
    text = word(progress.phase)
    if progress.phase == "downloading" and progress.total_bytes:
        done, total = output.size(progress.done_bytes), output.size(progress.total_bytes)
        text = tr("downloading {done} of {total}", done=done, total=total)
    elif progress.phase == "installing" and progress.packages:
        text = tr("installing {packages} packages", packages=progress.packages)
    elif progress.phase == "building" and progress.steps_total:
        step, steps = progress.steps, progress.steps_total
        text = tr("building, step {step} of {steps}", step=step, steps=steps)
    return tr("{text}, {seconds:.0f} s", text=text, seconds=progress.elapsed)


def describe(progress: Mapping[str, Any]) -> str:
    """A ``progress`` event: ``downloading 43 % of 98.4 MB, 112.0 MB/s, 3 s left``."""
    phase, total_bytes = word(progress["phase"]), progress["total_bytes"]
    if not total_bytes:
        return phase
    share, total = 100 * progress["done_bytes"] // total_bytes, output.size(total_bytes)
    text = tr("{phase} {share} % of {total}", phase=phase, share=share, total=total)
    if (left := progress["seconds_left"]) is not None:
        rate = output.size(progress["bytes_per_second"])
        text = tr("{text}, {rate}/s, {left:.0f} s left", text=text, rate=rate, left=left)
    return text
