"""/metrics: what the gateway counted, and what it sees of the node."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any, get_args

import pytest

from tests.exposition import Exposition
from yibu.engines.base import Endpoint
from yibu.gateway.monitoring import scrape as scraping
from yibu.gateway.monitoring.node_metrics import NodeMetrics
from yibu.planner.ledger import Reservation
from yibu.planner.types import Gpu, GpuProcess
from yibu.routing import Failure, ReplicaStatus, Route, State

from .conftest import FakeBackend, Running, Serve, chat
from .upstream import (
    LLAMA_CHAT,
    Behaviour,
    Received,
    Upstream,
    answering,
    response,
    sending,
)

PATH = "/v1/chat/completions"


async def scrape(gateway: Running) -> Exposition:
    async with gateway.http.get(gateway.url + "/metrics") as answer:
        assert answer.status == 200
        assert answer.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
        return Exposition(await answer.text())


async def test_requests_are_counted(serve: Serve, backend: FakeBackend) -> None:
    async with Upstream(answering(LLAMA_CHAT)) as up:
        backend.add('odd"name', up)
        async with serve() as gateway:
            await gateway.post(PATH, chat('odd"name'))
            await gateway.post(PATH, chat("x" * 50))
            for number in range(3):
                async with gateway.http.get(f"{gateway.url}/some/{number}") as missing:
                    assert missing.status == 404
            page = await scrape(gateway)
    named = {"model": 'odd"name', "path": PATH}
    assert page.value("yibu_requests_total", **named, status="200") == 1
    assert page.value("yibu_requests_total", model="-", path=PATH, status="404") == 1
    assert page.value("yibu_requests_total", model="-", path="other", status="404") == 3
    assert page.value("yibu_tokens_total", model='odd"name', direction="prompt") == 31
    assert page.value("yibu_requests_in_flight") == 1
    assert page.value("yibu_request_seconds_count", **named) == 1
    assert {(x["model"], x["path"]) for x in page.labels("yibu_first_byte_seconds_count")} == {
        ('odd"name', PATH)
    }, "a refusal is no fast answer"
    numbers = {state: page.value("yibu_models", state=state) for state in get_args(State)}
    assert numbers == {**dict.fromkeys(get_args(State), 0), "ready": 1}


async def test_sums_keep_their_precision(serve: Serve) -> None:
    async with serve() as gateway:
        labels = ("-", "other")
        gateway.app.metrics.observe(gateway.app.metrics.duration, labels, 1234567.25)
        page = await scrape(gateway)
    assert page.value("yibu_request_seconds_sum", model="-", path="other") == 1234567.25


async def test_every_replica_is_shown(serve: Serve, backend: FakeBackend) -> None:
    endpoint = Endpoint("big-0", "127.0.0.1", 1)
    backend.known["big"] = Route("big", "vllm", frozenset(), True, 0, state="ready")
    backend.known["gone"] = Route(
        "gone", "", frozenset(), False, 0, state="failed", failure=Failure("no_network", 1700000000)
    )
    failed = Failure("out_of_memory", 1800000000.7)
    backend.statuses = [
        ReplicaStatus("big", "big-0", "ready", 0, 3, {}, None, endpoint),
        ReplicaStatus("big", "big-1", "failed", 2, 0, {"hung": 1, failed.cause: 2}, failed, None),
    ]
    async with serve() as gateway:
        page = await scrape(gateway)

    def states(replica: str) -> dict[str, float]:
        found = [x for x in page.labels("yibu_replica_state") if x["replica"] == replica]
        return {x["state"]: page.value("yibu_replica_state", **x) for x in found}

    assert states("big-0")["ready"] == 1
    assert states("big-1")["failed"] == 1
    assert [sum(states(replica).values()) for replica in ("big-0", "big-1")] == [1, 1]
    # Every state has its series, so that an alert can ask for one that is 0.
    assert set(states("big-0")) == set(states("big-1"))
    assert page.value("yibu_model_state", model="gone", state="failed") == 1
    assert page.value("yibu_model_state", model="gone", state="ready") == 0
    of = {"model": "big", "replica": "big-1"}
    assert page.value("yibu_replica_restarts_total", **of) == 2
    assert page.value("yibu_replica_failures_total", **of, cause="hung") == 1
    assert page.value("yibu_replica_failures_total", **of, cause="out_of_memory") == 2
    last = "yibu_last_failure_timestamp_seconds"
    assert page.value(last, **of, cause="out_of_memory") == 1800000001
    assert page.value(last, model="gone", replica="-", cause="no_network") == 1700000000
    assert len(page.labels(last)) == 2
    assert page.value("yibu_replica_requests_in_flight", model="big", replica="big-0") == 3


def engine_page(text: bytes | str, kind: str = "text/plain; version=0.0.4") -> Behaviour:
    data = text.encode() if isinstance(text, str) else text
    return sending(response(data, kind=kind))


UP, DROPPED = "yibu_engine_scrape_up", "yibu_engine_scrape_dropped_lines"


async def test_engines_own_metrics_are_merged(serve: Serve, backend: FakeBackend) -> None:
    one = '# HELP vllm:tokens_total T.\n# TYPE vllm:tokens_total counter\nvllm:tokens_total{model_name="x"} %d\n'
    async with (
        Upstream(engine_page(one % 1)) as first,
        Upstream(engine_page(one % 2)) as second,
        Upstream(engine_page("# TYPE llamacpp:busy gauge\nllamacpp:busy 0.5\n")) as third,
    ):
        backend.add("org/big", first, second, engine="vllm")
        backend.add("small", third)
        async with serve() as gateway:
            page = await scrape(gateway)
    for replica, tokens in (("org/big-0", 1), ("org/big-1", 2)):
        labels = {"model": "org/big", "replica": replica}
        assert page.value("vllm:tokens_total", **labels, model_name="x") == tokens
        assert page.value(UP, **labels) == 1
        assert page.value(DROPPED, **labels) == 0
    assert page.value("llamacpp:busy", model="small", replica="small-0") == 0.5
    (asked,) = first.received
    assert asked.head.startswith("GET /metrics HTTP/1.1\r\n")
    assert asked.header("authorization") == "Bearer inner-key"


async def test_engines_that_fail_cost_only_their_own(
    serve: Serve, backend: FakeBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scraping, "ENGINE_SECONDS", 0.5)
    monkeypatch.setattr(scraping, "MAX_BYTES", 1000)
    behaviours = {
        "good": engine_page("fine 1\n"),
        "slow": sending(60.0),
        "stuck": sending(response(b"x" * 10)[:-5], 60.0),
        "huge": engine_page("x 1\n" * 1000),
        "cut": sending(response(b"cut 1\n")[:-2], close=True),
        "odd": sending(b"not http at all\r\n\r\n", close=True),
        "angry": sending(response(b"{}", status="500 No")),
        "locked": sending(response(b"{}", status="401 No")),
        "bytes": engine_page(b'ok 1\nbad{x="\xff\xfe"} 2\n\x00\xff 3\n'),
        "none": sending(response(b"{}", status="404 No")),
        "page": engine_page("<html>", kind="text/html"),
    }
    async with contextlib.AsyncExitStack() as stack:
        for name, behaviour in behaviours.items():
            backend.add(name, await stack.enter_async_context(Upstream(behaviour)))
        gone = await stack.enter_async_context(Upstream(engine_page("x 1\n")))
        backend.add("dead", gone)
        gone._server.close()
        await gone._server.wait_closed()
        async with serve() as gateway:
            page = await scrape(gateway)
            assert gateway.app.pool.counts()[0] == 0
    up = {x["model"]: page.value(UP, **x) for x in page.labels(UP)}
    # Those without metrics are not reported as failing.
    assert up == {
        "good": 1, "bytes": 1, "slow": 0, "stuck": 0, "huge": 0, "cut": 0, "odd": 0, "angry": 0,
        "locked": 0, "dead": 0,
    }  # fmt: skip
    assert page.value("fine", model="good", replica="good-0") == 1
    of = {"model": "bytes", "replica": "bytes-0"}
    assert page.value("ok", **of) == 1
    assert page.value("bad", **of, x="\ufffd\ufffd") == 2
    assert page.value(DROPPED, **of) == 1


async def test_replicas_that_are_not_ready_are_not_asked(
    serve: Serve, backend: FakeBackend
) -> None:
    backend.statuses = [ReplicaStatus("m", "m-0", "starting", 0, 0, {}, None, None)]
    async with serve() as gateway:
        page = await scrape(gateway)
    assert page.labels(UP) == []


async def test_those_who_ask_at_once_ask_the_engine_once(
    serve: Serve, backend: FakeBackend
) -> None:
    asked, go = asyncio.Event(), asyncio.Event()

    async def behave(_: Received, writer: asyncio.StreamWriter) -> bool:
        asked.set()
        await go.wait()
        writer.write(response(b"x 1\n", kind="text/plain"))
        return True

    async with Upstream(behave) as up:
        backend.add("m", up)
        async with serve() as gateway:
            # The first to ask leaves before the answer.
            leaver = asyncio.create_task(scrape(gateway))
            await asked.wait()
            others = [asyncio.create_task(scrape(gateway)) for _ in range(3)]
            while gateway.app.metrics.in_flight < 4:
                await asyncio.sleep(0.01)
            leaver.cancel()
            while gateway.app.metrics.in_flight > 3:
                await asyncio.sleep(0.01)
            go.set()
            pages = await asyncio.gather(*others)
        assert len(up.received) == 1
    assert all(page.value("x", model="m", replica="m-0") == 1 for page in pages)


async def test_the_key_rules_are_those_of_the_api(serve: Serve, backend: FakeBackend) -> None:
    async with Upstream(engine_page("x 1\n")) as up:
        backend.add("m", up)
        async with serve(keys=["a-long-enough-key"]) as gateway:
            async with gateway.http.get(gateway.url + "/metrics") as answer:
                assert answer.status == 401
            assert not up.received
            headers = {"authorization": "Bearer a-long-enough-key"}
            async with gateway.http.get(gateway.url + "/metrics", headers=headers) as answer:
                assert answer.status == 200
                assert "inner-key" not in await answer.text()


async def test_memory_of_replicas_by_device() -> None:
    """What a node on a GPU server says: one replica on two cards, one beside it on the processor."""
    rows = [
        {"name": "big", "replicas": [{"id": "big-0", "rss_bytes": 5}]},
        {"name": "small", "replicas": [{"id": "small-0", "rss_bytes": None}]},
    ]
    reservations = [
        Reservation("big-0", (0, 1), 70, pids=frozenset({11, 12}), host=7),
        Reservation("small-0", (), 9),
        Reservation("gone-0", (), 3),
    ]
    cards = [
        Gpu(0, 'H"100', 80, 10, processes=(GpuProcess(11, "x", 60), GpuProcess(99, "other", 5))),
        Gpu(1, "H200", 80, 20, processes=(GpuProcess(12, "x", None),)),
    ]

    async def status() -> list[dict[str, Any]]:
        return rows

    async def reserved() -> list[Reservation]:
        return reservations

    page = Exposition("\n".join(await NodeMetrics(status, reserved, lambda: cards).lines()) + "\n")
    kept, used = "yibu_replica_memory_reserved_bytes", "yibu_replica_memory_used_bytes"
    big, small = {"model": "big", "replica": "big-0"}, {"model": "small", "replica": "small-0"}
    assert [page.value(kept, **big, device=device) for device in ("cpu", "0", "1")] == [7, 70, 70]
    assert page.value(kept, **small, device="cpu") == 9
    assert len(page.labels(kept)) == 4
    # The driver does not say how much the second one's process holds: 0 is shown, not another's.
    assert [page.value(used, **big, device=device) for device in ("cpu", "0", "1")] == [5, 60, 0]
    assert page.value(used, **small, device="cpu") == 0
    assert page.value("yibu_gpu_memory_used_bytes", gpu="0", name='H"100') == 70
    assert page.value("yibu_gpu_memory_bytes", gpu="1", name="H200") == 80
