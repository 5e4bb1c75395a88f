"""Requests that wait for a replica: what their clients see, and that nothing stays when they leave."""

from __future__ import annotations

import asyncio
import contextlib
import json
from itertools import product
from typing import Any, cast

import pytest

from tests.support.polling import eventually
from yibu.errors import NotReadyError, OverloadedError
from yibu.gateway.proxy import silence
from yibu.gateway.proxy.proxy import prompt_affinity
from yibu.node.fleet.lease import Lease

from .conftest import FakeBackend, Serve
from .upstream import LLAMA_CHAT, LLAMA_CHAT_STREAM, Upstream, answering, streaming

DONE = b"[DONE]"
URL = "/v1/chat/completions"


def chat(**fields: object) -> dict[str, object]:
    return {"model": "m", "messages": [{"role": "user", "content": "hi"}], **fields}


async def test_a_whole_answer_comes_when_a_replica_is_free(
    serve: Serve, backend: FakeBackend
) -> None:
    backend.free = asyncio.Event()
    async with Upstream(answering(LLAMA_CHAT)) as up, serve() as gateway:
        backend.add("m", up)
        asking = asyncio.create_task(gateway.post(URL, chat()))
        await eventually(lambda: backend.waiting == 1)
        async with gateway.http.get(gateway.url + "/metrics") as page:
            assert 'yibu_queue_length{model="m"} 1' in await page.text()
        backend.free.set()
        assert (await asking)[0] == 200
        async with gateway.http.get(gateway.url + "/metrics") as page:
            assert 'yibu_queue_wait_seconds_count{model="m"} 1' in await page.text()
    assert (backend.in_flight, backend.waiting) == (0, 0)


async def test_a_stream_gets_comments_while_it_waits_and_then_its_answer(
    serve: Serve, backend: FakeBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(silence, "HEAD_GRACE", 0.02)
    monkeypatch.setattr(silence, "KEEP_ALIVE", 0.02)
    backend.free = asyncio.Event()
    async with Upstream(streaming(*LLAMA_CHAT_STREAM, DONE)) as up, serve() as gateway:
        backend.add("m", up)
        url = gateway.url + URL
        async with asyncio.timeout(60), gateway.http.post(url, json=chat(stream=True)) as answer:
            assert answer.status == 200
            text = b""
            while text.count(b": keep-alive\n\n") < 3:
                text += await answer.content.readany()
            assert b"data:" not in text
            backend.free.set()
            text += await answer.content.read()
    assert text.endswith(b"data: [DONE]\n\n")
    assert backend.in_flight == 0


async def test_a_refusal_is_a_status_for_who_waits_and_an_event_in_a_stream_that_has_begun(
    serve: Serve, backend: FakeBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    backend.free = asyncio.Event()
    backend.refusal = NotReadyError("it could not be loaded", retry_after=5)
    async with Upstream(answering(LLAMA_CHAT)) as up, serve() as gateway:
        backend.add("m", up)
        asking = asyncio.create_task(gateway.post(URL, chat()))
        await eventually(lambda: backend.waiting == 1)
        backend.free.set()
        status, answer = await asking
        assert (status, answer["error"]["message"]) == (503, "it could not be loaded")
        backend.free.clear()
        monkeypatch.setattr(silence, "HEAD_GRACE", 0.02)
        async with gateway.http.post(gateway.url + URL, json=chat(stream=True)) as begun:
            assert (begun.status, backend.waiting) == (200, 1)
            backend.free.set()
            events = [one for one in (await begun.text()).split("\n\n") if one.startswith("data:")]
        assert json.loads(events[0][6:])["error"]["code"] == "model_not_ready"
    assert backend.in_flight == 0


@pytest.mark.parametrize("stream", [True, False])
async def test_a_client_that_leaves_gives_its_place_up(
    serve: Serve, backend: FakeBackend, stream: bool
) -> None:
    backend.free = asyncio.Event()
    async with Upstream(answering(LLAMA_CHAT)) as up, serve() as gateway:
        backend.add("m", up)
        asking = asyncio.create_task(gateway.post(URL, chat(stream=stream)))
        await eventually(lambda: backend.waiting == 1)
        asking.cancel()
        await eventually(lambda: backend.waiting == 0)
        backend.free.set()
    assert (backend.in_flight, backend.finished) == (0, [])


async def test_a_full_queue_is_429_with_the_time_to_wait(
    serve: Serve, backend: FakeBackend
) -> None:
    backend.free = asyncio.Event()
    backend.refusal = OverloadedError("9 wait already", retry_after=7, code="queue_full")
    async with Upstream(answering(LLAMA_CHAT)) as up, serve() as gateway:
        backend.add("m", up)
        asking = asyncio.create_task(gateway.http.post(gateway.url + URL, json=chat()))
        await eventually(lambda: backend.waiting == 1)
        backend.free.set()
        async with await asking as answer:
            assert (answer.status, answer.headers["retry-after"]) == (429, "7")
            assert (await answer.json())["error"]["code"] == "queue_full"


def test_turns_of_one_chat_have_their_beginning_in_common() -> None:
    first = [{"role": "user", "content": "Tell me of the sea."}]
    later = [*first, {"role": "assistant", "content": "It is wide."}]
    affinity = prompt_affinity({"messages": first}, "alice")
    assert affinity == prompt_affinity({"messages": later}, "alice")
    assert affinity != prompt_affinity({"messages": first}, "bob")
    assert affinity != prompt_affinity({"messages": [{"role": "user", "content": "Hi"}]}, "alice")
    parts = [{"role": "user", "content": [{"type": "text", "text": "hi"}]}]
    assert prompt_affinity({"messages": parts}, "a") == prompt_affinity({"messages": parts}, "a")
    assert prompt_affinity({"prompt": "hello"}, "a") is not None
    assert prompt_affinity({"input": ["x", "y"]}, "a") is not None
    assert prompt_affinity({}, "a") is None


class Books:
    """A scheduler and its one replica: who has it, and who waits."""

    id, endpoint = "m-0", None

    def __init__(self) -> None:
        self.holders: list[object] = []

    def acquire(self, request: object) -> None:
        self.holders.append(request)

    def release(self, request: object, *, failed: bool) -> None:
        self.holders.remove(request)

    def progressed(self) -> None: ...

    def answered(self, lease: Lease, now: float) -> None: ...

    def left(self, lease: Lease, now: float) -> None: ...


@pytest.mark.parametrize(("granted", "again"), [*product(range(5), range(5))])
async def test_who_leaves_twice_as_a_replica_is_free_keeps_no_place(
    granted: int, again: int
) -> None:
    """The client leaves and the node stops, or a time-out ends: whichever turn of the loop the second
    cancellation comes in, and whether the replica is given before or after the first."""
    books = Books()
    lease = Lease("m", "", "interactive", None, frozenset(), slotless=False, scheduler=books)
    keep = silence.KeepAlive(cast("Any", type("Exchange", (), {"answering": False})()))
    waiting = asyncio.create_task(keep.granted(lease))
    for _ in range(3):
        await asyncio.sleep(0)
    lease.taken(books)
    for _ in range(granted):
        await asyncio.sleep(0)
    waiting.cancel()
    for _ in range(again):
        await asyncio.sleep(0)
    waiting.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await waiting
    for _ in range(5):
        await asyncio.sleep(0)
    assert books.holders == ([] if waiting.cancelled() else [lease])
