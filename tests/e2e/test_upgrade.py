"""`yibu node upgrade`: another process in the node's place, and nobody notices."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import h11
import pytest

from tests.e2e.home import Home, fake
from tests.support.counting import Connection, Count, ask_on
from tests.support.polling import eventually, until
from yibu.accounts.store import FILE, AccountStore
from yibu.accounts.types import Account
from yibu.config.types import Limits
from yibu.paths import Paths

_CLIENTS = 16


def port(home: Home) -> int:
    return int(home.url().rpartition(":")[2])


def node(home: Home) -> dict[str, int]:
    found: dict[str, int] = home.ps()["node"]
    return found


async def under_load(home: Home, act: Callable[[], Awaitable[None]], least: int) -> Count:
    """Ask until ``act`` is done and ``least`` requests have been answered."""
    count = Count()
    number = port(home)
    async with asyncio.TaskGroup() as group:
        for _ in range(_CLIENTS):
            group.create_task(ask_on(number, "fake", count))
        await eventually(lambda: count.answered > least / 3, "some answers before")
        await act()
        await eventually(lambda: count.answered > least, "answers after")
        count.stop = True
    return count


async def upgrade(home: Home) -> None:
    before = node(home)["pid"]
    await asyncio.to_thread(home.yibu, "node", "upgrade")
    assert node(home)["pid"] != before


async def test_nothing_is_lost_and_streams_end_whole(home: Home) -> None:
    gate = home.root / "gate"
    slow = fake("slow", "--tokens", "20", "--end-when", str(gate))
    home.write([fake(), slow], funasr_port=0, drain_timeout=120)
    home.yibu("up", "-d")
    engines = {name: home.model(name)["replicas"][0]["pid"] for name in ("fake", "slow")}
    old, addresses = node(home), listening(home)
    assert len(addresses) == 2

    async def change() -> None:
        lines = [Connection(port(home)) for _ in range(4)]
        streams = [asyncio.create_task(line.ask("slow", stream=True)) for line in lines]
        await eventually(lambda: in_flight(home, "slow") == 4, "streams in flight")
        await upgrade(home)
        assert not any(stream.done() for stream in streams)
        gate.touch()
        for status, body in await asyncio.gather(*streams):
            assert status == 200
            assert body.count(b"data: ") == 22
            assert body.endswith(b"data: [DONE]\n\n")
        for line in lines:
            await line.close()

    count = await under_load(home, change, 600)
    assert not count.lost, count
    assert listening(home) == addresses
    for name, pid in engines.items():
        assert home.model(name)["replicas"][0]["pid"] == pid
    until(
        lambda: not {old["pid"], old["holder"]} & {p.pid for p in home.processes()}, "the old gone"
    )


def listening(home: Home) -> list[tuple[str, int]]:
    listeners = home.client.listeners()
    addresses = [listener.getsockname() for listener in listeners]
    for listener in listeners:
        listener.close()
    return addresses


def in_flight(home: Home, model: str) -> int:
    log = home.root / "logs" / f"{model}-0.log"
    said = log.read_text() if log.exists() else ""
    return said.count("generation") - 1  # the first is the probe


RPM = 30


async def test_limits_hold_for_both_nodes_together(home: Home) -> None:
    """Of a key, of a model, and of requests at once; on connections to the old node and to the new one."""
    gate = home.root / "gate"
    slow = fake("slow", "--tokens", "20", "--end-when", str(gate))
    keys = {
        name: home.yibu("key", "add", name, *limit).stdout.strip()
        for name, limit in {
            "minute": ("--rpm", str(RPM)),
            "twice": ("--concurrency", "2"),
            "free": (),
        }.items()
    }
    limited = fake("limited", limits={"rpm": RPM})
    home.write([fake(), limited, slow], drain_timeout=120)
    home.yibu("up", "-d")
    number = port(home)
    begun = time.monotonic()
    old = [Connection(number, keys["minute"]) for _ in range(8)]
    old_free = [Connection(number, keys["free"]) for _ in range(8)]
    answered = 0
    for line in old:
        answered += (await line.ask("fake"))[0] == 200
    limited_answered = 0
    for line in old_free:
        limited_answered += (await line.ask("limited"))[0] == 200
    assert answered == limited_answered == 8
    first = Connection(number, keys["twice"])
    stream = asyncio.create_task(first.ask("slow", stream=True))
    idle = Connection(number, keys["twice"])
    assert (await idle.ask("fake"))[0] == 200
    await eventually(lambda: in_flight(home, "slow") == 1, "a stream in flight")
    await upgrade(home)

    # Requests a minute: by turns on the connections to the old node and on new ones.
    refused = 0
    while refused < 4 and answered < 10 * RPM:
        line = old.pop() if old else Connection(number, keys["minute"])
        status, _ = await line.ask("fake")
        assert status in (200, 429)
        answered, refused = answered + (status == 200), refused + (status == 429)
        await line.close()
    refused = 0
    while refused < 4 and limited_answered < 10 * RPM:
        line = old_free.pop() if old_free else Connection(number, keys["free"])
        status, _ = await line.ask("limited")
        assert status in (200, 429)
        limited_answered, refused = limited_answered + (status == 200), refused + (status == 429)
        await line.close()
    most = RPM + (time.monotonic() - begun) * RPM / 60 + 1
    assert RPM <= answered <= most
    assert RPM <= limited_answered <= most

    # At once: one on the old node, so one more on the new one, and none beside on the old one.
    second, before = Connection(number, keys["twice"]), in_flight(home, "slow")
    also = asyncio.create_task(second.ask("slow", stream=True))
    await eventually(lambda: in_flight(home, "slow") > before, "one on each node")
    for line in (idle, Connection(number, keys["twice"])):
        status, body = await line.ask("fake")
        assert (status, json.loads(body)["error"]["code"]) == (429, "rate_limit_exceeded")
        await line.close()
    gate.touch()
    assert [status for status, _ in await asyncio.gather(stream, also)] == [200, 200]

    async def free() -> bool:
        line = Connection(number, keys["twice"])
        status, _ = await line.ask("fake")
        await line.close()
        return status == 200

    await eventually(free, "what ended on the old node is free on the new one")
    for line in (first, second):
        await line.close()


@pytest.fixture
def gate(home: Home) -> Iterator[Path]:
    """The file without which no stream ends."""
    path = home.root / "gate"
    yield path
    path.touch()  # a test that has failed is not to be waited for


async def once(number: int, model: str, key: str = "", **fields: Any) -> tuple[int, bytes]:
    """One request on a connection of its own."""
    line = Connection(number, key)
    try:
        return await line.ask(model, **fields)
    finally:
        await line.close()


async def asked(line: Connection, number: int, model: str, key: str = "") -> tuple[int, bytes]:
    """One request on a connection to the old node, or on a new one where a slow machine has let the old one's
    time run out: what is tested holds of both."""
    try:
        return await line.ask(model)
    except (OSError, h11.RemoteProtocolError) as error:
        print(f"the old node has closed an idle connection: {error}")
        return await once(number, model, key)
    finally:
        await line.close()


async def test_slots_and_queue_are_shared_by_both_nodes(home: Home, gate: Path) -> None:
    """An engine all of whose slots have streams of the old node: it is adopted as it is, what waited goes on
    waiting, and both nodes refuse what is too much for the queue of both together."""
    slow = fake("slow", "--slots", "2", "--end-when", str(gate), max_concurrency=2, max_queue=3)
    home.write([slow], drain_timeout=120)
    home.yibu("up", "-d")
    number, engine = port(home), home.model("slow")["replicas"][0]["pid"]
    idle = [Connection(number) for _ in range(3)]
    for line in idle:
        assert (await line.ask("slow"))[0] == 200
    begun = in_flight(home, "slow")
    running = [asyncio.create_task(once(number, "slow", stream=True)) for _ in range(2)]
    await eventually(lambda: in_flight(home, "slow") == begun + 2, "both slots taken")
    queued = [asyncio.create_task(once(number, "slow"))]
    await eventually(lambda: home.model("slow")["queued"] == 1, "one waits in the old node")
    await upgrade(home)
    assert home.model("slow")["replicas"][0]["state"] == "ready"
    assert home.model("slow")["queued"] == 1  # the old node's

    queued.append(asyncio.create_task(asked(idle.pop(), number, "slow")))
    await eventually(lambda: home.model("slow")["queued"] == 2, "asked of the old node")
    queued.append(asyncio.create_task(once(number, "slow")))
    await eventually(lambda: home.model("slow")["queued"] == 3, "asked of the new node")
    for line in (idle.pop(), Connection(number)):
        status, body = await asked(line, number, "slow")
        assert (status, json.loads(body)["error"]["code"]) == (429, "queue_full")
    leaves = idle.pop()
    queued[0].cancel()  # its client leaves
    await eventually(lambda: home.model("slow")["queued"] == 2, "its place is free")
    queued[0] = asyncio.create_task(asked(leaves, number, "slow"))
    await eventually(lambda: home.model("slow")["queued"] == 3, "and taken on the old node")
    assert not any(task.done() for task in (*running, *queued))
    gate.touch()
    assert {status for status, _ in await asyncio.gather(*running, *queued)} == {200}
    (replica,) = home.model("slow")["replicas"]
    assert (replica["pid"], replica["restarts"]) == (engine, 0)


async def test_what_the_old_node_streams_is_waited_for(home: Home, gate: Path) -> None:
    """By a restart, and before a model is unloaded that nobody else asks."""
    entry = {"keep": "idle 1s"}
    slow = fake("slow", "--end-when", str(gate), **entry)
    home.write([slow, fake("other", **entry), fake("again", "--end-when", str(gate))],
               drain_timeout=120)  # fmt: skip
    home.yibu("up", "-d")
    number = port(home)
    names = ("slow", "again")
    streams = [asyncio.create_task(once(number, name, stream=True)) for name in names]
    for name in names:
        await eventually(lambda name=name: in_flight(home, name) == 1, "a stream in flight")
    pids = {name: home.model(name)["replicas"][0]["pid"] for name in names}
    await upgrade(home)
    assert (await once(number, "other"))[0] == 200
    restart = asyncio.create_task(asyncio.to_thread(home.yibu, "restart", "again"))
    await eventually(lambda: home.model("other")["state"] == "unloaded", "the idle one unloaded")
    draining = "the old node's stream is waited for"
    await eventually(lambda: home.model("again")["replicas"][0]["state"] == "draining", draining)
    assert {name: home.model(name)["replicas"][0]["pid"] for name in names} == pids
    gate.touch()
    for status, body in await asyncio.gather(*streams):
        assert status == 200
        assert body.endswith(b"data: [DONE]\n\n")
    await restart
    assert home.model("again")["replicas"][0]["pid"] != pids["again"]
    await eventually(lambda: home.model("slow")["state"] == "unloaded", "unloaded when it is over")


async def test_a_replaced_engine_answers_what_it_has_before_the_node_is(
    home: Home, gate: Path
) -> None:
    """The new node is told of the latest configurations' engines, and ends all others."""
    home.write([fake("slow", "--end-when", str(gate))], drain_timeout=120)
    home.yibu("up", "-d")
    stream = asyncio.create_task(once(port(home), "slow", stream=True))
    await eventually(lambda: in_flight(home, "slow") == 1, "a stream in flight")
    home.write([fake("slow", "--end-when", str(gate), "--tokens", "7")], drain_timeout=120)
    await asyncio.to_thread(home.yibu, "apply", "--yes")
    replacing = asyncio.create_task(upgrade(home))
    await asyncio.wait((replacing, stream), timeout=3, return_when=asyncio.FIRST_COMPLETED)
    gate.touch()
    status, body = await stream
    assert status == 200
    assert body.endswith(b"data: [DONE]\n\n")
    await replacing


async def test_three_nodes_keep_one_account(home: Home, gate: Path) -> None:
    """A second upgrade while the first node still streams."""
    home.write([fake("slow", "--end-when", str(gate), max_concurrency=2)], drain_timeout=120)
    home.yibu("up", "-d")
    number = port(home)
    streams, old = [], []
    for count in (1, 2):
        streams.append(asyncio.create_task(once(number, "slow", stream=True)))
        await eventually(lambda count=count: in_flight(home, "slow") == count, "in flight")
        old.append(node(home)["pid"])
        await upgrade(home)
    third = asyncio.create_task(once(number, "slow"))
    await eventually(lambda: home.model("slow")["queued"] == 1, "no room beside two of old nodes")
    assert not third.done()
    gate.touch()
    assert {status for status, _ in await asyncio.gather(*streams, third)} == {200}
    until(lambda: not {p.pid for p in home.processes()} & set(old), "the old nodes gone")


TOKENS = 11 + 1 + 5
"""Of one chat with the fake engine: template, prompt, answer."""


@pytest.mark.parametrize("limit", ["tpm", "budget"])
async def test_tokens_hold_for_both_nodes_together(limit: str, home: Home, gate: Path) -> None:
    """What a stream of the old node took counts on the new one, and the other way round."""
    most = 20 * TOKENS
    slow = fake("slow", "--count-words", "--end-when", str(gate))
    setting = ("--tpm", str(most)) if limit == "tpm" else ("--budget", f"{most}/day")
    key = home.yibu("key", "add", "team", *setting).stdout.strip()
    home.write([fake("fake", "--count-words"), slow], drain_timeout=120)
    home.yibu("up", "-d")
    begun, number = time.monotonic(), port(home)
    old = [Connection(number, key) for _ in range(6)]
    for line in old:
        assert (await line.ask("fake"))[0] == 200
    answered = len(old)
    stream = asyncio.create_task(once(number, "slow", key, stream=True))
    await eventually(lambda: in_flight(home, "slow") == 1, "a stream in flight")
    await upgrade(home)
    refused: list[int] = []
    while len(refused) < 6 and answered < 60:
        line = old.pop() if old and answered % 2 else Connection(number, key)
        status, body = await asked(line, number, "fake", key)
        answered += status == 200
        if answered == 10 and not gate.exists():
            gate.touch()
            assert (await stream)[0] == 200
            answered += 1
        if status == 429:
            code = json.loads(body)["error"]["code"]
            assert code == ("insufficient_quota" if limit == "budget" else "rate_limit_exceeded")
            refused.append(status)
    # The request that reaches the limit is answered.
    filled = (time.monotonic() - begun) * most / 60 if limit == "tpm" else 0
    assert 20 <= answered <= (most + filled) / TOKENS + 1
    for line in old:
        await line.close()


@pytest.mark.parametrize("limit", ["tpm", "budget"])
async def test_a_stream_of_the_old_node_counts_on_the_new_one_while_it_goes_on(
    limit: str, home: Home, gate: Path, tmp_path: Path
) -> None:
    go_on = tmp_path / "go-on"
    slow = fake("slow", "--tokens", "9000", "--answer-when", str(go_on), "--end-when", str(gate))
    setting = ("--tpm", "5000") if limit == "tpm" else ("--budget", "5000/day")
    key = home.yibu("key", "add", "team", *setting).stdout.strip()
    home.write([fake("fake"), slow], drain_timeout=120)
    go_on.touch()
    home.yibu("up", "-d")
    go_on.unlink()
    number = port(home)
    stream = asyncio.create_task(once(number, "slow", key, stream=True))
    await eventually(lambda: in_flight(home, "slow") == 1, "a stream in flight")
    await upgrade(home)
    assert (await once(number, "fake", key))[0] == 200
    go_on.touch()
    answered = 0
    while (await once(number, "fake", key))[0] != 429:
        answered += 1
        assert answered < 100, "they take some 2,000 tokens themselves"
        await asyncio.sleep(0.1)
    assert not stream.done()
    gate.touch()
    status, body = await stream
    assert status == 200
    assert body.endswith(b"data: [DONE]\n\n")


async def test_more_limits_than_a_line_holds_are_handed_over(home: Home) -> None:
    """Of 1,500 keys, each with a limit: what is in use of the last one holds on the new node."""
    home.yibu("key", "add", "first")
    with AccountStore.open(Paths.from_env(home.env).state / FILE) as store:
        for number in range(1500):
            name = f"a-key-with-a-rather-long-name-{number:04d}"
            key = store.add(Account(name, time.time(), limits=Limits(rpm=2)))
    home.write([fake()])
    home.yibu("up", "-d")
    begun, statuses = time.monotonic(), []
    for act in (None, None, upgrade):
        if act is not None:
            await act(home)
        line = Connection(port(home), key)
        statuses.append((await line.ask("fake"))[0])
        await line.close()
    if time.monotonic() - begun < 25:  # else one more is due
        assert statuses.count(200) == 2


async def apply(home: Home) -> None:
    """Another configuration takes over from the one that serves."""
    home.write([fake(env={"MARK": str(time.monotonic_ns())})])
    before = home.model("fake")["replicas"][0]["pid"]
    await asyncio.to_thread(home.yibu, "apply", "--yes")
    assert home.model("fake")["replicas"][0]["pid"] != before


@pytest.mark.chaos
@pytest.mark.timeout(0)
@pytest.mark.parametrize("once", [upgrade, apply])
async def test_nothing_of_ten_thousand_is_lost(
    once: Callable[[Home], Awaitable[None]], home: Home
) -> None:
    home.write([fake()])
    home.yibu("up", "-d")

    async def change() -> None:
        for _ in range(5):
            await once(home)

    count = await under_load(home, change, 10_000)
    print(f"\n{count.outcomes.total()} requests, 5 times {once.__name__}: {dict(count.outcomes)}")
    assert not count.lost


@pytest.mark.parametrize("module", ["uvloop", "uvicorn"], ids=["before", "after it has taken over"])
def test_a_new_node_that_cannot_start_leaves_the_old_one(
    module: str, home: Home, tmp_path: Path
) -> None:
    """Half an installation: a module that the node imports is broken."""
    with Home(home.root, settings={"PYTHONPATH": str(tmp_path)}) as home:
        home.write([fake()])
        home.yibu("up", "-d")
        old, engine = node(home), home.model("fake")["replicas"][0]["pid"]
        broken = tmp_path / f"{module}.py"
        broken.write_text("raise ImportError('half an installation')\n")
        refused = home.yibu("node", "upgrade", code=1).stderr
        assert "ImportError: half an installation" in refused
        assert "The old one goes on" in refused
        assert node(home) == old
        assert asyncio.run(answer(home)) == 200
        broken.unlink()
        home.yibu("node", "upgrade")
        assert node(home)["pid"] != old["pid"]
        assert asyncio.run(answer(home)) == 200
        assert home.model("fake")["replicas"][0]["pid"] == engine


async def answer(home: Home) -> int:
    line = Connection(port(home))
    status, _ = await line.ask("fake")
    await line.close()
    return status


def test_a_state_that_the_new_node_cannot_read_leaves_the_old_one(home: Home) -> None:
    home.write([fake()])
    home.yibu("up", "-d")
    old = node(home)
    state = home.root / "state" / "node.json"

    def refused() -> bool:
        """Whether it found the damaged file: the old node may have written its own once more."""
        nonlocal old, whole
        old, whole = node(home), state.read_text()
        state.write_text(re.sub(r'"version": \d+', '"version": 99', whole, count=1))
        done = home.yibu("node", "upgrade", code=None)
        assert done.returncode == 0 or "version 99" in done.stderr
        return done.returncode == 1

    whole = ""
    until(refused, "the damaged file met")
    assert node(home)["pid"] == old["pid"]
    assert json.loads(state.read_text())["version"] == 99  # nothing was set aside
    state.write_text(whole)
    home.yibu("node", "upgrade")
    assert node(home)["pid"] != old["pid"]


def test_a_node_whose_models_start_is_not_replaced(home: Home) -> None:
    home.write([fake("fake", "--ready-after", "600")])
    up = home.start("up", "-d")
    until(lambda: home.client.running() and home.ps()["models"], "it starts")
    assert "fake is being started" in home.yibu("node", "upgrade", code=2).stderr
    up.send_signal(signal.SIGINT)
    up.communicate(timeout=60)


def test_the_new_node_owns_the_engines(home: Home) -> None:
    """While the old one still answers a stream, an engine that dies is started by the new one."""
    gate = home.root / "gate"
    home.write([fake(), fake("slow", "--end-when", str(gate))], drain_timeout=120)
    home.yibu("up", "-d")
    engine = home.model("fake")["replicas"][0]["pid"]
    old = node(home)

    async def play() -> None:
        line = Connection(port(home))
        stream = asyncio.create_task(line.ask("slow", stream=True))
        await eventually(lambda: in_flight(home, "slow") == 1, "a stream in flight")
        await upgrade(home)
        os.kill(engine, signal.SIGKILL)

        def again() -> bool:
            (replica,) = home.model("fake")["replicas"]
            return replica["state"] == "ready" and replica["pid"] != engine

        await eventually(again, "the engine again")
        assert old["pid"] in {process.pid for process in home.processes()}
        gate.touch()
        assert (await stream)[1].endswith(b"data: [DONE]\n\n")
        await line.close()

    asyncio.run(play())
    (replica,) = home.model("fake")["replicas"]
    assert (replica["restarts"], replica["state"]) == (1, "ready")
    engines = [p for p in home.processes() if "engine.py" in " ".join(p.cmdline())]
    assert len(engines) == 2
