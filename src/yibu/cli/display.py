"""Progress of models that come up: a live line each on a terminal, plain lines elsewhere."""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

from yibu.cli import output
from yibu.cli.progress import describe
from yibu.cli.words import word
from yibu.messages import joined, tr

if TYPE_CHECKING:
    from rich.live import Live
    from rich.text import Text

Event = dict[str, Any]
_LINE_EVERY = 5.0
"""Seconds between two lines where nothing is redrawn."""
_FINAL = frozenset({"ready", "failed", "stopped", "unloaded", "sleeping"})
_BEGUN = frozenset({"downloading", "starting"})
"""States that begin with a phase, which is shown instead."""
_LONG = 20.0
"""Seconds from which tenths are not shown."""


def choose() -> PlainLines | LiveLines:
    """Live lines on a terminal that can redraw them, plain ones elsewhere."""
    live = sys.stderr.isatty() and os.environ.get("TERM", "dumb") != "dumb"
    return LiveLines() if live else PlainLines()


def phrase(event: Event, seconds: float) -> str:
    """One event in words: ``downloading 43 % of 98.4 MB, 112.0 MB/s, 3 s left``."""
    if event["event"] == "progress":
        return describe(event)
    if event["event"] == "note":
        return str(event["text"])
    if event["event"] == "phase":
        return word(event["phase"])
    state = event["state"]
    if state == "ready":
        phases = breakdown(event.get("phases") or {}, seconds)
        ready = tr("ready in {seconds} s", seconds=_seconds(seconds, seconds))
        return tr("{name}: {text}", name=ready, text=phases) if phases else ready
    if state == "unloaded" and event.get("on_demand"):
        return tr("loaded when somebody asks for it")
    if state == "unloaded":
        return tr("not loaded; yibu load {model} loads it", model=event["model"])
    if state == "failed" and event.get("cause"):
        return tr("failed: {cause}", cause=event["cause"])
    return word(state)


def breakdown(phases: Mapping[str, float], total: float) -> str:
    """``imports 40, load 3, warm-up 20``: whole seconds, tenths where all was a matter of seconds.

    Phases that took no time worth a digit are left out.
    """
    shown = {phase: _seconds(seconds, total) for phase, seconds in phases.items()}
    parts = [f"{word(phase)} {text}" for phase, text in shown.items() if float(text)]
    return joined(", ", parts) if parts else ""


def _seconds(seconds: float, total: float) -> str:
    return f"{seconds:.1f}" if total < _LONG else f"{seconds:.0f}"


def _concerns(event: Event) -> bool:
    """Whether an event is about the model as a whole: its replicas' states make up its own."""
    return event["event"] != "state" or event.get("replica") is None


class PlainLines:
    """A line at each change, and one every few seconds while nothing changes."""

    def __init__(self) -> None:
        self._started = time.monotonic()
        self._last: dict[str, tuple[str, str, float]] = {}
        """By model: the kind of its last event, its text, and when it was printed."""
        self._lock = threading.Lock()
        self._ended = threading.Event()
        self._ticking = threading.Thread(target=self._tick, name="progress lines", daemon=True)

    def __enter__(self) -> Self:
        self._ticking.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._ticking.join()

    def show(self, event: Event) -> None:
        if event.get("state") in _BEGUN or not _concerns(event):
            return
        now = time.monotonic()
        model = event["model"]
        kind = str(event.get("phase") or event.get("state") or event.get("text"))
        with self._lock:
            last_kind, _, last_time = self._last.get(model, ("", "", float("-inf")))
            text = phrase(event, now - self._started)
            soon = kind == last_kind and now - last_time < _LINE_EVERY
            self._last[model] = (kind, text, last_time if soon else now)
            if not soon:
                output.talk(f"{model}  {text}")

    def _tick(self) -> None:
        """Repeat the status of models that were silent for a while."""
        while not self._ended.wait(_LINE_EVERY / 5):
            now = time.monotonic()
            with self._lock:
                for model, (kind, text, when) in self._last.items():
                    if kind not in _FINAL and now - when >= _LINE_EVERY:
                        self._last[model] = (kind, text, now)
                        output.say(
                            "{model}  {text}, {now:.0f} s so far",
                            model=model,
                            text=text,
                            now=now - self._started,
                        )


class LiveLines:
    """One line a model, redrawn in place."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.live import Live

        self._started = time.monotonic()
        self._lines: dict[str, _Line] = {}
        self._live: Live = Live(
            console=Console(stderr=True), refresh_per_second=8, get_renderable=self._draw
        )

    def __enter__(self) -> Self:
        self._live.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        self._live.stop()

    def show(self, event: Event) -> None:
        from rich.text import Text

        if not _concerns(event):
            return
        if event["event"] == "note":
            self._live.console.print(Text(f"{event['model']}  {event['text']}"))
            return
        now = time.monotonic()
        since = now if event["event"] == "phase" else None
        # Built anew, so that the thread that draws never sees it change under its hands.
        line = _Line(phrase(event, now - self._started), since)
        self._lines = {**self._lines, event["model"]: line}

    def _draw(self) -> Text:
        from rich.text import Text

        lines, now = self._lines, time.monotonic()
        width = max(map(len, lines), default=0)
        return Text("\n".join(f"{name:<{width}}  {line.at(now)}" for name, line in lines.items()))


@dataclass(frozen=True, slots=True)
class _Line:
    text: str
    since: float | None
    """When the phase began (monotonic); None where the time is not shown."""

    def at(self, now: float) -> str:
        if self.since is None:
            return self.text
        return tr("{text}, {seconds:.0f} s", text=self.text, seconds=now - self.since)
