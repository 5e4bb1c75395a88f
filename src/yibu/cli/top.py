"""The screen of ``yibu top``, drawn by rich, with keys read from the terminal."""

from __future__ import annotations

import os
import re
import select
import sys
import termios
import threading
import time
import tty
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from yibu.cli import output
from yibu.cli.connect import access
from yibu.cli.words import word
from yibu.errors import UsageError, YibuError
from yibu.gateway.monitoring.readings import ModelReading, NodeSnapshot, totals
from yibu.gateway.monitoring.readings import Sampler as Readings
from yibu.management.context import Context
from yibu.messages import tr
from yibu.node.machine import hardware

if TYPE_CHECKING:
    from rich.console import Console, RenderableType
    from rich.table import Table
    from rich.text import Text

_KEYS = {
    b"q": "quit", b"Q": "quit", b"\x03": "quit", b"\x04": "quit",
    b"\x1b[A": "up", b"\x1bOA": "up", b"k": "up",
    b"\x1b[B": "down", b"\x1bOB": "down", b"j": "down",
    b"\x1b[5~": "page up", b"\x1b[6~": "page down",
    b"\x1b[C": "next column", b"\x1bOC": "next column", b"s": "next column", b">": "next column",
    b"\x1b[D": "column before", b"\x1bOD": "column before", b"<": "column before",
    b"r": "reverse", b" ": "replicas", b"\r": "replicas",
}  # fmt: skip
_KEY = re.compile(rb"\x1b(?:\[|O)[0-9;]*[A-Za-z~]|.", re.DOTALL)
_LABEL = 6
"""Cells of the names of bars."""
_BAR = 20
_BAD = {
    "failed": "bold red",
    "starting": "yellow",
    "downloading": "yellow",
    "draining": "yellow",
}
_REDRAW = 0.1
"""Seconds between two checks for a key, a new reading or a resized window."""


@dataclass(frozen=True, slots=True)
class Column:
    title: str
    value: Callable[[ModelReading], float | str]
    show: Callable[[ModelReading], str]
    spared: int = 0
    """Order in which columns are left out where room is short; 0: never."""
    per_model: bool = False
    """Whether it is about the model, and not about a replica."""
    text: bool = False


def _number(value: float, digits: int = 0) -> str:
    return "-" if value == 0 else f"{value:,.{digits}f}"


def _replicas(model: ModelReading) -> str:
    ready = sum(replica.state == "ready" for replica in model.replicas)
    return f"{ready}/{len(model.replicas)}"


def _gpus(model: ModelReading) -> str:
    return ",".join(str(gpu) for one in model.replicas for gpu in one.gpus) or "-"


COLUMNS = (
    Column(tr("MODEL"), lambda m: m.name, lambda m: m.name, text=True),
    Column(tr("STATE"), lambda m: m.state, lambda m: word(m.phase or m.state), text=True),
    Column(tr("REPLICAS"), lambda m: len(m.replicas), _replicas, 8, per_model=True),
    Column(tr("IN FLIGHT"), lambda m: m.sum("in_flight"), lambda m: _number(m.sum("in_flight"))),
    Column(tr("QUEUED"), lambda m: m.queued, lambda m: _number(m.queued), 2, per_model=True),
    Column(tr("REQ/S"), lambda m: m.requests_per_second, lambda m: _number(m.requests_per_second, 1), per_model=True),
    Column(tr("TOKENS/S"), lambda m: m.output_tokens_per_second,
           lambda m: _number(m.output_tokens_per_second), per_model=True),
    Column(tr("TTFT P95"), lambda m: m.ttft_p95_seconds or 0.0,
           lambda m: "-" if m.ttft_p95_seconds is None else f"{m.ttft_p95_seconds * 1000:,.0f} ms",
           5, per_model=True),
    Column(tr("ERR/S"), lambda m: m.errors_per_second, lambda m: _number(m.errors_per_second, 1), 3, per_model=True),
    Column("CPU", lambda m: m.sum("cpu_percent"), lambda m: f"{m.sum('cpu_percent'):.0f} %", 7),
    Column(tr("MEMORY"), lambda m: m.sum("memory_bytes"), lambda m: output.size(m.sum("memory_bytes")), 9),
    Column("GPU", _gpus, _gpus, 4),
    Column(tr("GPU MEMORY"), lambda m: m.sum("gpu_memory_bytes"),
           lambda m: output.size(m.sum("gpu_memory_bytes")) if _gpus(m) != "-" else "-", 1),
    Column(tr("RESTARTS"), lambda m: m.sum("restarts"), lambda m: _number(m.sum("restarts")), 6),
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class TopView:
    """The view chosen by keys."""

    selected: int = 0
    sort: int = 0
    reverse: bool = False
    replicas: bool = False

    def pressed(self, key: str, models: int, page: int) -> TopView:
        steps = {"up": -1, "down": 1, "page up": -page, "page down": page}
        if key in steps:
            last = max(models - 1, 0)
            return replace(self, selected=min(max(self.selected + steps[key], 0), last))
        if key in ("next column", "column before"):
            step = 1 if key == "next column" else -1
            sort = (self.sort + step) % len(COLUMNS)
            # Numbers begin with the largest, names with the first.
            return replace(self, sort=sort, reverse=not COLUMNS[sort].text)
        if key == "reverse":
            return replace(self, reverse=not self.reverse)
        return replace(self, replicas=not self.replicas) if key == "replicas" else self


def sorted_models(snapshot: NodeSnapshot, view: TopView) -> list[ModelReading]:
    column = COLUMNS[view.sort]
    found = sorted(snapshot.models, key=lambda model: model.name)
    return sorted(found, key=column.value, reverse=view.reverse)


def print_once(snapshot: NodeSnapshot) -> None:
    """Print the same as plain text, for files and pipes."""
    for line in _summary(snapshot):
        output.data(line)
    output.data("")
    models = sorted_models(snapshot, TopView())
    rows = [[column.show(model) for column in COLUMNS] for model in models]
    output.table(rows, [column.title for column in COLUMNS])
    for model in models:
        if model.cause:
            output.data("\n" + tr("{name}: {text}", name=model.name, text=model.cause))


def watch(sampler: NodeSampler, interval: float) -> None:
    """Redraw until `q` is pressed.

    Raises:
        UsageError: this is no terminal that can be redrawn.
    """
    _check_terminal()
    from rich.console import Console
    from rich.live import Live

    first = sampler.take()  # says that no node runs before the screen is taken
    console = Console()
    state = _State(first)
    reader = threading.Thread(target=state.read, args=(sampler, interval), daemon=True)
    with (
        _keys() as next_key,
        Live(console=console, screen=True, auto_refresh=False) as live,
    ):
        reader.start()
        drawn: object = None
        while True:
            current = (state.latest, state.error, state.view, console.size, int(time.time()))
            if current != drawn:
                live.update(_screen(state, console), refresh=True)
                drawn = current
            key = next_key(_REDRAW)
            if key == "quit":
                return
            if key:
                state.view = state.view.pressed(
                    key, len(state.latest.models), max(console.size.height // 2, 1)
                )


class NodeSampler:
    """Reads the node's numbers. Blocking, for at most two seconds per engine that does not answer."""

    def __init__(self, context: Context) -> None:
        self._client = context.client
        self._context = context
        self._readings = Readings()

    def take(self) -> NodeSnapshot:
        """Everything now; rates are zero at the first call.

        Raises:
            NotRunningError: no node runs.
            YibuError: it does not answer.
        """
        status = self._client.call("ps")
        gpus = hardware.gpus()
        busy = hardware.gpus_busy() if gpus else {}
        return self._readings.take(status, self._page(), gpus, busy)

    def _page(self) -> str:
        reach = access(self._context)
        # A gateway that listens later (`adopt --replace`) has no page yet.
        return reach.api.text("/metrics") if reach.url else ""


def measure(context: Context, seconds: float) -> NodeSnapshot:
    """One snapshot, with what happened in so many seconds before it. Raises NotRunningError."""
    sampler = NodeSampler(context)
    sampler.take()
    time.sleep(seconds)
    return sampler.take()


class _State:
    """The screen's state; the reading thread writes ``latest`` and ``error`` only."""

    def __init__(self, first: NodeSnapshot) -> None:
        self.latest = first
        self.error: YibuError | None = None
        self.view = TopView()

    def read(self, sampler: NodeSampler, interval: float) -> None:
        while True:
            try:
                self.latest, self.error = sampler.take(), None
            except YibuError as error:  # the node does not answer: what was read last stays
                self.error = error
            time.sleep(interval)


def _check_terminal() -> None:
    term = os.environ.get("TERM", "dumb")
    if term in ("", "dumb", "unknown") or not (sys.stdin.isatty() and sys.stdout.isatty()):
        found = (
            tr("TERM is {term!r}", term=term) if sys.stdout.isatty() else tr("this is no terminal")
        )
        raise UsageError(
            "`yibu top` redraws a terminal, and {found}.",
            found=found,
            hint="yibu top --once, or --json",
        )


@contextmanager
def _keys() -> Iterator[Callable[[float], str | None]]:
    """A function that waits so many seconds for a key; the terminal is as before afterwards."""
    descriptor = sys.stdin.fileno()
    before = termios.tcgetattr(descriptor)

    typed: list[str] = []

    def next_key(seconds: float) -> str | None:
        if not typed and select.select([descriptor], [], [], seconds)[0]:
            read = os.read(descriptor, 64)
            # An end of input: the terminal was closed.
            keys = (_KEYS.get(key, "") for key in _KEY.findall(read)) if read else ["quit"]
            typed.extend(key for key in keys if key)
        return typed.pop(0) if typed else None

    tty.setcbreak(descriptor)
    try:
        yield next_key
    finally:
        termios.tcsetattr(descriptor, termios.TCSADRAIN, before)


def _screen(state: _State, console: Console) -> RenderableType:
    from rich.console import Group
    from rich.text import Text

    snapshot, view = state.latest, state.view
    head = [Text(line, no_wrap=True, overflow="ellipsis") for line in _summary(snapshot)]
    if state.error is not None:
        head.append(
            Text(
                tr("{error_message}; what is shown is old", error_message=state.error.message),
                style="bold red",
            )
        )
    foot = _foot(snapshot, view)
    room = max(console.size.height - len(head) - len(foot) - 3, 1)
    return Group(*head, Text(""), _table(snapshot, view, room, console.size.width), *foot)


def _table(snapshot: NodeSnapshot, view: TopView, room: int, width: int) -> Table:
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, header_style="bold", expand=True)
    shown = _fitting(width)
    for number, column in enumerate(COLUMNS):
        if column in shown:
            arrow = ("▼" if view.reverse else "▲") if number == view.sort else ""
            table.add_column(
                column.title + arrow, no_wrap=True, overflow="ellipsis",
                justify="left" if column.text else "right",
                ratio=None if number else 1,
            )  # fmt: skip
    models = sorted_models(snapshot, view)
    begin = max(0, min(view.selected - room // 2, len(models) - room))
    for number, model in enumerate(models[begin : begin + room], begin):
        style = "reverse" if number == view.selected else _BAD.get(model.state, "")
        table.add_row(*(Text(column.show(model)) for column in shown), style=style)
        if view.replicas:
            for one in model.replicas:
                alone = replace(model, name=f"  {one.id}", state=one.state, phase=None,
                                replicas=(one,))  # fmt: skip
                cells = ("" if column.per_model else column.show(alone) for column in shown)
                table.add_row(*cells, style="dim")
    return table


def _fitting(width: int) -> list[Column]:
    """The columns that fit, the least important left out first."""
    shown = list(COLUMNS)
    for column in sorted(filter(lambda column: column.spared, COLUMNS), key=lambda c: c.spared):
        if sum(max(output.cell_width(one.title), 8) + 2 for one in shown) + 8 <= width:
            break
        shown.remove(column)
    return shown


def _foot(snapshot: NodeSnapshot, view: TopView) -> list[Text]:
    """The selected model's trouble, and the keys."""
    from rich.text import Text

    models = sorted_models(snapshot, view)
    lines = []
    if view.selected < len(models) and (cause := models[view.selected].cause):
        model = models[view.selected]
        lines.append(Text(f"{model.name}: {cause}", style="red", no_wrap=True, overflow="ellipsis"))
        if model.hint:
            lines.append(Text(f"  → {model.hint}", no_wrap=True, overflow="ellipsis"))
    keys = tr("q quit   ↑↓ select   ←→ sort   r reverse   space replicas")
    return [Text(""), *lines, Text(keys, style="dim", no_wrap=True, overflow="ellipsis")]


def _summary(snapshot: NodeSnapshot) -> list[str]:
    done, now = totals(snapshot.models), time.strftime("%H:%M:%S")
    memory = tr(
        "{used_bytes} of {memory_bytes}",
        used_bytes=output.size(snapshot.memory_used_bytes),
        memory_bytes=output.size(snapshot.memory_bytes),
    )
    up = _duration(snapshot.node_seconds)
    node = tr("node {node_pid}, up {node_seconds}", node_pid=snapshot.node_pid, node_seconds=up)
    work = (
        tr("in flight {in_flight:.0f}", **done),
        tr("queued {queued:.0f}", **done),
        tr("requests {requests_per_second:.1f}/s", **done),
        tr("errors {errors_per_second:.1f}/s", **done),
        tr("tokens out {output_tokens_per_second:,.0f}/s", **done),
        tr("in {prompt_tokens_per_second:,.0f}/s", **done),
    )
    cpu = tr("{cpu_percent:.0f} % of {cpus}", cpu_percent=snapshot.cpu_percent, cpus=snapshot.cpus)
    lines = [
        f"yibu  {snapshot.url}  {node}  {now}",
        "   ".join(work),
        f"{output.padded('CPU', _LABEL)} {_bar(snapshot.cpu_percent / 100)} {cpu}",
        f"{output.padded(tr('memory'), _LABEL)} {_bar(snapshot.memory_used_bytes / snapshot.memory_bytes)} {memory}",
    ]
    for gpu in snapshot.gpus:
        used = tr(
            "{used_bytes} of {memory_bytes}",
            used_bytes=output.size(gpu.used_bytes),
            memory_bytes=output.size(gpu.memory_bytes),
        )
        busy = "" if gpu.busy_percent is None else tr("{part:.0f} % busy", part=gpu.busy_percent)
        bar = _bar(gpu.used_bytes / gpu.memory_bytes if gpu.memory_bytes else 0.0)
        lines.append(
            f"{output.padded(f'GPU {gpu.index}', _LABEL)} {bar} {used}   {busy}   {gpu.name}"
        )
    return lines


def _bar(part: float) -> str:
    full = round(min(max(part, 0.0), 1.0) * _BAR)
    return f"[{'|' * full}{' ' * (_BAR - full)}]"


def _duration(seconds: float) -> str:
    if seconds >= 2 * 86400:
        return tr("{days:.0f} d", days=seconds / 86400)
    if seconds >= 2 * 3600:
        return tr("{hours:.0f} h", hours=seconds / 3600)
    if seconds >= 2 * 60:
        return tr("{minutes:.0f} min", minutes=seconds / 60)
    return tr("{seconds:.0f} s", seconds=seconds)
