"""What a chaos run is played on: a node, its models and their engines, and what they hold."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from tests.chaos.acts import Order
from tests.chaos.books import Books, Entry, FaultError, Response, judge
from tests.chaos.client import Line, request
from tests.e2e.home import REPOSITORY, Home
from tests.exposition import Exposition
from tests.support.polling import eventually
from yibu.errors import EngineStartError
from yibu.node import holder, processes
from yibu.node.state import home_id

CALM, WILD = "calm", "wild"
"""One model's engine is never harmed, so whatever goes wrong there is the gateway's doing; the
other's are killed and stopped, by events and by prompts, and have to come back."""
REPLICAS = {CALM: 1, WILD: 2}
_DETECTION = 10.0
"""Seconds in which a stopped engine is found and ended, by the waits of tests/chaos/node.py."""
_RECOVERY = 5.0


@dataclass(frozen=True)
class Sample:
    """What the node holds while nothing is asked of it."""

    descriptors: int
    rss: int


class World:
    def __init__(self, home: Home, books: Books, request_timeout: float) -> None:
        self.home, self.books = home, books
        self.port = _free_port()
        self.samples: list[Sample] = []
        """Of the node that runs now."""
        self.start_seconds = 0.0
        self._timeout = request_timeout
        self._holder: subprocess.Popen[bytes] | None = None
        books.trouble(WILD)

    # The node ----------------------------------------------------------------------------------

    async def start_node(self) -> None:
        """Start the node under its holder, and the models on it."""
        node = [sys.executable, "-m", "tests.chaos.node", str(self.port), str(self._timeout)]
        with (self.home.root / "node.out").open("ab") as out:
            self._holder = subprocess.Popen(
                [sys.executable, "-I", "-S", holder.__file__, "--", *node],
                cwd=REPOSITORY,
                env=self.home.env,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
            )
        await eventually(self._listens, "the node listens")
        begun = time.monotonic()
        await self.call("up", timeout=None, models=[_model(name) for name in REPLICAS])
        self.start_seconds = time.monotonic() - begun

    def _listens(self) -> bool:
        assert self._holder is not None
        assert self._holder.poll() is None, (self.home.root / "node.out").read_text()[-3000:]
        return self.home.client.running()

    async def kill_node(self) -> None:
        """Without a chance to clean up. Its holder starts it again; meanwhile connections wait, so that
        only what it had begun to answer may be lost: what is asked from now on must be answered."""
        span = self.books.trouble("*")
        killed = self.node
        killed.kill()
        await asyncio.to_thread(killed.wait, 60)
        self.books.over(span, grace=0)
        self.samples = []
        await eventually(self._listens, "another node listens")
        await self.recovered("kill_node")

    async def stop_node(self) -> int:
        """As a service manager does; its exit code."""
        assert self._holder is not None
        self._holder.terminate()
        return await asyncio.to_thread(self._holder.wait, 60)

    @property
    def node(self) -> psutil.Process:
        return psutil.Process(int((self._state() / "node.lock").read_text().split()[0]))

    async def call(self, op: str, **fields: Any) -> Any:
        return await asyncio.to_thread(lambda: self.home.client.call(op, **fields))

    async def apply(self, model: str, mark: str) -> None:
        """Serve a model with another configuration, which ``mark`` makes different."""
        await self.call("apply", timeout=None, models=[_model(model, mark)], remove=[])

    async def apply_broken(self, model: str) -> None:
        """The same with one whose engine ends at once."""
        broken = _model(model)
        broken["options"]["command"] = [sys.executable, "-S", "-c", "raise SystemExit(3)", "{port}"]
        try:
            await self.call("apply", timeout=None, models=[broken], remove=[])
        except EngineStartError:
            return
        self.books.wrong.append(f"{model}: an engine that cannot start took over")

    # Engines -----------------------------------------------------------------------------------

    async def engines(self, model: str) -> list[int]:
        """Process ids of the model's engines that run."""
        found = (await self.call("ps"))["models"]
        replicas = next((each["replicas"] for each in found if each["name"] == model), [])
        return [replica["pid"] for replica in replicas if replica["pid"]]

    def marked(self) -> dict[int, str]:
        """Every process that any engine of this home started, with the start that it belongs to."""
        prefix = f"{home_id(self._state())}/"
        return {identity.pid: mark for identity, mark in processes.marked(prefix).items()}

    def _state(self) -> Path:
        return self.home.root / "state"

    async def recovered(self, event: str) -> None:
        """Wait until each model answers. How long the slowest took stands in the summary, beside what
        is promised; three times that is wrong, for the machine may be busy with something else."""
        limit = _DETECTION + _RECOVERY + 3 * self.start_seconds
        for model in REPLICAS:
            begun = time.monotonic()
            await eventually(lambda model=model: self._answers(model), f"{model} answers", 120)
            took = time.monotonic() - begun
            if took > self.books.slowest[0]:
                self.books.slowest = took, f"{model} after {event}, {limit:.1f} s at most promised"
            if took > 3 * limit:
                status = (await self.call("ps"))["models"]
                self.books.wrong.append(
                    f"after {event}, {model} took {took:.1f} s to answer, not {limit:.1f}: {status}"
                )

    async def _answers(self, model: str) -> bool:
        entry = Entry(Order("plain", f"n{time.time_ns():016x}", 3), model, False, True, "recovery")
        try:
            async with Line.to(self.port) as line, asyncio.timeout(self._timeout + 5):
                line.send(request(entry))
                response = await line.response()
            return judge(entry, response) == "answer"
        except (OSError, FaultError):
            return False

    # What is held ------------------------------------------------------------------------------

    async def settle(self) -> None:
        """Once no client asks anything: nothing may be in flight, left behind or growing."""
        try:
            await eventually(self._quiet, "no request in flight")
        except AssertionError as never:
            self.books.wrong.append(f"the node says after all have ended: {never}")
        await self.recovered("all clients paused")
        try:
            await eventually(self._no_strays, "no process of an engine that is gone")
        except AssertionError:
            self.books.wrong.append(f"left behind: {self.marked()}, of {await self.call('ps')}")
        self.samples.append(Sample(self.node.num_fds(), self.node.memory_info().rss))

    async def _quiet(self) -> bool:
        async with Line.to(self.port) as line:
            line.send(b"GET /metrics HTTP/1.1\r\nhost: 127.0.0.1\r\nconnection: close\r\n\r\n")
            response: Response = await line.response()
        page = Exposition(response.body.decode())
        name = "yibu_replica_requests_in_flight"
        return not any(page.value(name, **labels) for labels in page.labels(name))

    async def _no_strays(self) -> bool:
        pids = [pid for model in REPLICAS for pid in await self.engines(model)]
        marks = await asyncio.to_thread(self.marked)
        alive = {marks[pid] for pid in pids if pid in marks}
        return len(pids) == sum(REPLICAS.values()) and set(marks.values()) == alive

    def grown(self) -> list[str]:
        """What the node that runs now holds more of than when it had first been busy."""
        if len(self.samples) < 2:
            return []
        first, last = self.samples[0], self.samples[-1]
        found = []
        if last.descriptors > first.descriptors + 15:
            found.append(f"descriptors: {first.descriptors} at first, {last.descriptors} at last")
        if last.rss > first.rss * 1.3 + (64 << 20):
            found.append(f"memory: {first.rss >> 20} MiB at first, {last.rss >> 20} MiB at last")
        return found


def send_signal(pid: int, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):  # it died of something else meanwhile
        os.kill(pid, number)


def _model(name: str, mark: str = "") -> dict[str, Any]:
    words = [sys.executable, "-S", "-m", "tests.chaos.engine", "--port", "{port}"]
    options = {"command": words, "served_name": "chaos", "stop_grace": 2, "start_timeout": 60}
    return {
        "name": name, "engine": "command", "options": options, "replicas": REPLICAS[name],
        "env": {"PYTHONPATH": str(REPOSITORY), "CHAOS_MARK": mark},
    }  # fmt: skip


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
