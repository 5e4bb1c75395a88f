"""One live line a model while it comes up; plain lines where nobody watches a terminal."""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import TYPE_CHECKING, Any, Protocol, Self

from yibu.cli import output

if TYPE_CHECKING:
    from rich.live import Live

Event = dict[str, Any]


class Display(Protocol):
    """Shows the node's events for some models."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None: ...

    def show(self, event: Event) -> None: ...


def choose() -> Display:
    """Live lines on a terminal, plain ones elsewhere."""
    return LiveLines() if sys.stderr.isatty() else PlainLines()


def phrase(event: Event, seconds: float) -> str:
    """What one event says of its model: ``downloading 43 % of 98.4 MB, 112.0 MB/s``."""
    if event["event"] == "progress":
        return _progress(event)
    if event["event"] == "note":
        return str(event["text"])
    state = event["state"]
    if state == "ready":
        return f"ready in {seconds:.1f} s"
    if state == "failed" and event.get("cause"):
        return f"failed: {event['cause']}"
    return str(state)


def _progress(event: Event) -> str:
    phase = event.get("phase") or "working"
    done, total = event.get("done_bytes") or 0, event.get("total_bytes") or 0
    rate = event.get("bytes_per_second") or 0
    text = str(phase)
    if total:
        text += f" {100 * done // total} % of {output.size(total)}"
    if rate:
        text += f", {output.size(rate)}/s"
    return text


class PlainLines:
    """A line at each change of state, and one now and then while bytes flow."""

    _PROGRESS_EVERY = 5.0

    def __init__(self) -> None:
        self._started = time.monotonic()
        self._last: dict[str, tuple[str, float]] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        return None

    def show(self, event: Event) -> None:
        now = time.monotonic()
        model = event["model"]
        kind = event.get("phase") or event.get("state") or event.get("text")
        last_kind, last_time = self._last.get(model, ("", float("-inf")))
        if kind == last_kind and now - last_time < self._PROGRESS_EVERY:
            return
        self._last[model] = (str(kind), now)
        output.talk(f"{model}  {phrase(event, now - self._started)}")


class LiveLines:
    """One line a model, redrawn in place."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.live import Live

        self._started = time.monotonic()
        self._lines: dict[str, str] = {}
        self._live: Live = Live(console=Console(stderr=True), refresh_per_second=8)

    def __enter__(self) -> Self:
        self._live.__enter__()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._live.__exit__(kind, error, trace)

    def show(self, event: Event) -> None:
        from rich.text import Text

        if event["event"] == "note":
            self._live.console.print(Text(f"{event['model']}  {event['text']}"))
            return
        self._lines[event["model"]] = phrase(event, time.monotonic() - self._started)
        width = max(len(name) for name in self._lines)
        text = "\n".join(f"{name:<{width}}  {line}" for name, line in self._lines.items())
        self._live.update(Text(text))
