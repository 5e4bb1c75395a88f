"""/metrics: what the gateway counted, and what it sees of the node."""

from __future__ import annotations

from tests.exposition import Exposition
from yibu.engines.base import Endpoint
from yibu.gateway.backend import Failure, ReplicaStatus, Route

from .conftest import FakeBackend, Running, Serve, chat
from .upstream import LLAMA_CHAT, Upstream, answering

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
                await gateway.http.get(f"{gateway.url}/some/{number}")
            page = await scrape(gateway)
    named = {"model": 'odd"name', "path": PATH}
    assert page.value("yibu_requests_total", **named, status="200") == 1
    assert page.value("yibu_requests_total", model="-", path=PATH, status="404") == 1
    assert page.value("yibu_requests_total", model="-", path="other", status="404") == 3
    assert page.value("yibu_tokens_total", model='odd"name', direction="prompt") == 31
    assert page.value("yibu_requests_in_flight") == 1
    assert page.value("yibu_models", state="ready") == 1
    assert page.value("yibu_request_seconds_count", **named) == 1


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
