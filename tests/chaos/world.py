"""What a chaos run is played on: a node, its models and their engines, and what they hold."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import psutil

from tests.chaos import llama
from tests.chaos.acts import ACTS, Order
from tests.chaos.books import Books, Entry, FaultError, Response, judge
from tests.chaos.client import Line, request
from tests.chaos.clock import Clock
from tests.chaos.disks import Disks
from tests.chaos.ledger import COMPARED, PROBE
from tests.chaos.llama import LLAMA, Llama
from tests.chaos.models import REPLICAS, WILD, model_entry
from tests.chaos.timings import promised
from tests.e2e.home import REPOSITORY, Home
from tests.exposition import Exposition
from tests.fakes.hub_server import HubServer
from tests.support.polling import eventually
from tests.support.ports import free_port
from yibu.accounts import usage
from yibu.accounts.store import FILE, AccountStore
from yibu.accounts.types import Account
from yibu.errors import EngineStartError, YibuError
from yibu.node.handover import holder
from yibu.node.machine import processes
from yibu.node.state import home_id

T = TypeVar("T")

_WORK = 0.1
"""Seconds of work by which the machine is measured."""


@dataclass(frozen=True)
class Sample:
    """What the node holds while nothing is asked of it."""

    descriptors: int
    rss: int

    def __str__(self) -> str:
        return f"{self.rss >> 20} MiB, {self.descriptors} descriptors"


class World:
    def __init__(
        self,
        home: Home,
        books: Books,
        request_timeout: float,
        clock: Clock,
        disks: Disks,
        hub: HubServer,
        llama: Llama,
    ) -> None:
        self.home, self.books = home, books
        self.llama = llama
        self.replicas = {**REPLICAS, **({} if llama.why_not else {LLAMA: 1})}
        self.harmed = [WILD, *(self.replicas.keys() - REPLICAS)]
        """Models whose engines are killed and stopped."""
        self.clock, self.disks, self.hub = clock, disks, hub
        self.port = free_port()
        self.samples: list[Sample] = []
        """Of the node that runs now."""
        self._longest: list[Sample] = []
        """Of the node that was looked at most often."""
        self._starts: dict[str, float] = {}
        """How long each model took to start, on a machine as slow as it then was."""
        self._harm: list[list[float]] = []
        self._limit = books.limit
        self.slowness = 1.0
        """How much longer the machine takes than one that has nothing else to do."""
        self.measure_slowness()
        self._timeout = request_timeout * self.slowness
        self._holder: subprocess.Popen[bytes] | None = None
        books.trouble(WILD)

    def measure_slowness(self, *, busy: bool = False) -> None:
        """While nobody asks anything, so that it is the doing of others, by which limits are stretched;
        ``busy``: while a crowd keeps this program itself waiting, which only stretches them further."""
        begun, cpu = time.perf_counter(), time.thread_time()
        while (worked := time.thread_time() - cpu) < _WORK:
            pass
        least = self.slowness if busy else 1.0
        self.slowness = max(least, (time.perf_counter() - begun) / worked)
        self.books.limit = self._limit * self.slowness
        self.books.slowness = max(self.books.slowness, self.slowness)

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
        for name in (*COMPARED, PROBE):
            await self.new_key(name)
        self.measure_slowness()
        for name in self.replicas:
            begun = time.monotonic()
            model = self.llama.entry() if name == LLAMA else model_entry(name)
            await self.call("up", timeout=None, models=[model])
            self._starts[name] = (time.monotonic() - begun) / self.slowness

    def _listens(self) -> bool:
        assert self._holder is not None
        assert self._holder.poll() is None, (self.home.root / "node.out").read_text()[-3000:]
        return self.home.client.running()

    async def kill_node(self) -> None:
        """Without a chance to clean up. Its holder starts it again; meanwhile connections wait, so that
        only what it had begun to answer may be lost: what is asked from now on must be answered."""
        self.end_samples()
        span = self.books.trouble("*")
        killed = self.node
        killed.kill()
        self.books.ledger.killed(self.slowness)
        await asyncio.to_thread(killed.wait, 60)
        self.books.over(span, grace=0)
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

    async def new_key(self, name: str, *, rotate: bool = False, grace: float = 30 * 86400) -> str:
        """A key of an account, as `yibu key` makes it; those before it work for ``grace`` seconds."""
        now = time.time() + self.clock.offset

        def make(store: AccountStore) -> str:
            if rotate:
                return store.rotate(name, grace, now)
            return store.add(Account(name, created=now, admin=name == PROBE))

        key = await self._with_accounts(make)
        if name in (*COMPARED, PROBE):
            self.books.ledger.secrets[name] = key
        return key

    async def remove_key(self, name: str) -> None:
        await self._with_accounts(lambda store: store.remove(name))

    async def _with_accounts(self, use: Callable[[AccountStore], T]) -> T:
        """Change the accounts; when it returns the node has taken it up."""

        def change() -> T:
            with AccountStore.open(self._state() / FILE) as store:
                return use(store)

        found = await asyncio.to_thread(change)
        await self.call("accounts")
        return found

    async def status_of(self, key: str) -> int:
        """What the gateway says to a key."""
        async with Line.to(self.port) as line:
            line.send(
                b"GET /v1/models HTTP/1.1\r\nhost: 127.0.0.1\r\n"
                b"authorization: Bearer %b\r\n\r\n" % key.encode()
            )
            return (await line.response()).status

    async def apply(self, model: str, mark: str, **changes: Any) -> None:
        """Serve a model with another configuration, which ``mark`` makes different."""
        await self.call(
            "apply", timeout=None, models=[model_entry(model, mark, **changes)], remove=[]
        )

    async def apply_broken(self, model: str) -> None:
        """The same with one whose engine ends at once."""
        broken = model_entry(model)
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

    async def generation(self, model: str) -> list[tuple[str, int]]:
        """The model's replicas and their processes."""
        found = (await self.call("ps"))["models"]
        return [(r["id"], r["pid"]) for m in found if m["name"] == model for r in m["replicas"]]

    async def states(self) -> str:
        """The models and replicas as the node shows them, and what it last logged of each."""
        try:
            models = (await self.call("ps"))["models"]
        except YibuError as error:
            return repr(error)
        shown = [
            f"{m['name']} {m['state']} {m['cause'] or ''}, {m['queued']} wait: "
            + ", ".join(f"{r['id']} {r['state']} {r['pid']}" for r in m["replicas"])
            for m in models
        ]
        lines = (self.home.root / "node.out").read_text("utf-8", "replace").splitlines()
        last = [line for line in lines if ".access " not in line][-30:]
        return "\n".join([*shown, *last])

    async def all_ready(self, model: str) -> bool:
        """Whether all of the model's replicas are."""
        found = (await self.call("ps"))["models"]
        states = [r["state"] for each in found if each["name"] == model for r in each["replicas"]]
        return states == self.replicas[model] * ["ready"]

    async def unharmed(self) -> bool:
        """Whether every engine is ready and goes on, with no request that could change that."""
        for model in self.replicas:
            if not await self.all_ready(model):
                return False
            for pid in await self.engines(model):
                if not psutil.pid_exists(pid) or psutil.Process(pid).status() == "stopped":
                    return False
        return not any(ACTS[entry.order.act].lethal for entry in self.books.open.values())

    def harm(self, model: str) -> None:
        """From now on requests to this model may fail, until it has recovered."""
        self._harm.append(self.books.trouble(model))

    def marked(self) -> dict[int, str]:
        """Every process that any engine of this home started, with the start that it belongs to."""
        prefix = f"{home_id(self._state())}/"
        return {identity.pid: mark for identity, mark in processes.marked(prefix).items()}

    def _state(self) -> Path:
        return self.home.root / "state"

    async def recovered(self, event: str, *, alone: bool = False) -> str:
        """Wait until each model answers; which one took longer than is promised. ``alone``: nothing else
        was done to the engines, so that all of its replicas have to be ready in that time; else
        prompts went on to kill and stop them, and it is three times that. The slowest stands in
        the summary."""
        begun, late = time.monotonic(), ""
        for model in self.replicas:

            async def back(model: str = model) -> bool:
                return (not alone or await self.all_ready(model)) and await self._answers(model)

            await eventually(back, f"{model} answers", 120 * self.slowness)
            took = time.monotonic() - begun
            self.measure_slowness(busy=True)
            limit = promised(event, self._starts[model]) * self.slowness
            if took / limit > self.books.slowest[0]:
                said = f"{took:.1f} s of {limit:.1f}: {model} after {event}"
                self.books.slowest = took / limit, said
            if took > (1 if alone else 3) * limit:
                status = (await self.call("ps"))["models"]
                late = f"after {event}, {model} took {took:.1f} s, not {limit:.1f}: {status}"
        for span in self._harm:
            self.books.over(span)
        self._harm.clear()
        return late

    async def _answers(self, model: str) -> bool:
        nonce, secret = f"n{time.time_ns():016x}", self.books.ledger.secrets[PROBE]
        if model == LLAMA:
            entry = llama.entry_of(nonce, secret)
            data = llama.request(entry)
        else:
            entry = Entry(Order("plain", nonce, 3), model, False, True, "recovery", PROBE, secret)
            data = request(entry)
        try:
            async with Line.to(self.port) as line, asyncio.timeout(self._timeout + 5):
                line.send(data)
                response = await line.response()
            return judge(entry, response) == "answer"
        except (OSError, FaultError):
            return False

    # What is held ------------------------------------------------------------------------------

    async def settle(self) -> None:
        """Once no client asks anything: nothing may be in flight, left behind or growing."""
        for what, rest in (
            ("requests in flight or queued", self._quiet),
            ("connections of clients that went away", self._no_connections),
        ):
            try:
                await eventually(rest, f"no {what}")
            except AssertionError as never:
                found = await self._busy(), self.node.net_connections("tcp")
                self.books.wrong.append(f"after all clients have gone: {never}: {found}")
        await self._compare_usage()
        await self.recovered("all clients paused")
        for what, rest in (
            ("process of an engine that is gone", self._no_strays),
            ("memory reserved for a replica that is gone", self._reserved),
            ("temporary directory of an engine that is gone", self._temporary),
        ):
            try:
                await eventually(rest, f"no {what}")
            except AssertionError:
                found = f"{self.marked()}, {self._temporaries()}"
                self.books.wrong.append(f"left: {what}: {found}, of {await self.call('ps')}")
        self.samples.append(Sample(self.node.num_fds(), self.node.memory_info().rss))

    async def _metrics(self) -> Exposition:
        async with Line.to(self.port) as line:
            line.send(
                b"GET /metrics HTTP/1.1\r\nhost: 127.0.0.1\r\nconnection: close\r\n"
                b"authorization: Bearer %b\r\n\r\n" % self.books.ledger.secrets[PROBE].encode()
            )
            response: Response = await line.response()
        assert response.status == 200, response
        return Exposition(response.body.decode())

    async def _quiet(self) -> bool:
        return not await self._busy()

    async def _busy(self) -> dict[str, float]:
        """What replicas and queues hold of requests, where it is not nothing."""
        page = await self._metrics()
        names = ("yibu_replica_requests_in_flight", "yibu_queue_length")
        assert all(page.labels(name) for name in names)
        found = {
            f"{n} {labels}": page.value(n, **labels) for n in names for labels in page.labels(n)
        }
        return {name: value for name, value in found.items() if value}

    async def _no_connections(self) -> bool:
        """What the node has open on the gateway's port, but for those that listen."""
        return not any(
            one.laddr.port == self.port and one.status != psutil.CONN_LISTEN
            for one in await asyncio.to_thread(self.node.net_connections, "tcp")
        )

    async def _reserved(self) -> bool:
        page, models = await self._metrics(), (await self.call("ps"))["models"]
        living = {replica["id"] for each in models for replica in each["replicas"]}
        name = "yibu_replica_memory_reserved_bytes"
        return {labels["replica"] for labels in page.labels(name)} == living

    async def _temporary(self) -> bool:
        living = {f"yibu-{mark.rpartition('/')[2]}" for mark in self.marked().values()}
        return self._temporaries() <= living

    def _temporaries(self) -> set[str]:
        found = Path(self.home.env["TMPDIR"])
        return {each.name for each in found.iterdir()}

    async def _compare_usage(self) -> None:
        """The node's sums for each key against what its clients counted."""

        def read(store: AccountStore) -> dict[str, dict[str, Any]]:
            return {row["key"]: row for row in usage.read(store.connection, "key", 0)}

        try:
            await self.call("accounts")  # it writes what it has counted
            self.books.wrong += self.books.ledger.compare(await self._with_accounts(read))
        except YibuError as error:
            self.books.wrong.append(f"the usage cannot be read: {error}")

    async def _no_strays(self) -> bool:
        pids = [pid for model in self.replicas for pid in await self.engines(model)]
        marks = await asyncio.to_thread(self.marked)
        alive = {marks[pid] for pid in pids if pid in marks}
        return len(pids) == sum(self.replicas.values()) and set(marks.values()) == alive

    def end_samples(self) -> None:
        """The node that runs now is about to end: what it holds more of than when it had first been busy
        is wrong."""
        samples, self.samples = self.samples, []
        self._longest = max(self._longest, samples, key=len)
        if len(samples) < 2:
            return
        first, last = samples[0], samples[-1]
        grown = last.descriptors > first.descriptors + 15 or last.rss > first.rss * 1.3 + (64 << 20)
        if grown:
            self.books.wrong.append(f"the node grew: {first} at first, {last} at last")

    def held(self) -> str:
        """What the node that was looked at most often held, from first to last."""
        if not self._longest:
            return "the node was never looked at"
        samples = self._longest
        shown = [samples[round(at * (len(samples) - 1) / 4)].rss >> 20 for at in range(5)]
        descriptors = [sample.descriptors for sample in samples]
        return (
            f"one node, looked at {len(samples)} times, held {', '.join(map(str, shown))} MiB in turn; "
            f"{descriptors[0]} descriptors at first, {max(descriptors)} at most, {descriptors[-1]} at last"
        )


def send_signal(pid: int, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):  # it died of something else meanwhile
        os.kill(pid, number)
