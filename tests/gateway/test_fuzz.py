"""Anything for the gateway, from clients and from engines: an answer as documented, never a 5xx of its own.

A few examples here; `make soak` makes thousands.
"""

from __future__ import annotations

import asyncio
import json
import re
import threading
from collections.abc import Coroutine, Iterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Any

import aiohttp
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tests.gateway.conftest import SPEECH, FakeBackend, chat
from tests.gateway.test_uploads import TRANSCRIBE, form
from tests.gateway.test_whole_or_error import ALL
from tests.gateway.upstream import Behaviour, Upstream, answering, sending
from yibu.config import GatewayConfig
from yibu.gateway.app import create_app
from yibu.gateway.deps import GatewayDeps
from yibu.gateway.server import GatewayServer

PLAIN = st.one_of(
    st.none(), st.booleans(), st.integers(-(2**70), 2**70), st.floats(), st.text(max_size=8),
    st.sampled_from([[], {}, "auto", "", -1, 0, 1e308, "\ud800", "m"]),
)  # fmt: skip
ANYTHING = st.recursive(
    PLAIN,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=6,
)  # fmt: skip
FIELDS = ["messages", "prompt", "input", "max_tokens", "temperature", "stream", "stop", "tools",
          "tool_choice", "response_format", "logit_bias", "n", "stream_options", "documents", "query",
          "top_p", "seed", "user", "logprobs", "top_logprobs", "content", "role"]  # fmt: skip
BODIES: dict[str, dict[str, Any]] = {
    "/v1/chat/completions": chat(),
    "/v1/completions": {"model": "m", "prompt": "a"},
    "/v1/embeddings": {"model": "m", "input": "a"},
    "/v1/responses": {"model": "m", "input": "a"},
    "/v1/messages": {**chat(), "max_tokens": 9},
    "/v1/rerank": {"model": "m", "query": "a", "documents": ["b"]},
}


@dataclass
class Fuzzed:
    """A gateway and its engine on a loop of their own: hypothesis calls plain functions."""

    loop: asyncio.AbstractEventLoop
    engine: Upstream
    url: str
    http: aiohttp.ClientSession

    def post(self, path: str, data: bytes, kind: str = "application/json") -> tuple[int, bytes]:
        """The answer, which is whole or a documented error."""
        return run(self.loop, self._post(path, data, kind))

    async def _post(self, path: str, data: bytes, kind: str) -> tuple[int, bytes]:
        headers = {"content-type": kind}
        async with self.http.post(self.url + path, data=data, headers=headers) as answer:
            body = await answer.read()
            check(answer.status, answer.headers.get("content-type", ""), body)
            return answer.status, body

    def behave(self, behaviour: Behaviour) -> None:
        self.engine.behaviour = behaviour


def run(loop: asyncio.AbstractEventLoop, work: Coroutine[Any, Any, Any]) -> Any:
    return asyncio.run_coroutine_threadsafe(work, loop).result(60)


@pytest.fixture(scope="module")
def fuzzed() -> Iterator[Fuzzed]:
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name="gateway")
    thread.start()
    stack = AsyncExitStack()

    async def start() -> Fuzzed:
        backend = FakeBackend()
        engine = await stack.enter_async_context(Upstream(answering({})))
        backend.add("m", engine, capabilities=ALL)
        backend.add("ears", engine, capabilities=SPEECH)
        app = create_app(GatewayDeps(backend, GatewayConfig(port=0, request_timeout=5), ()))
        server = GatewayServer(app)
        await server.start()
        stack.push_async_callback(server.stop)
        http = await stack.enter_async_context(aiohttp.ClientSession())
        return Fuzzed(loop, engine, server.url, http)

    try:
        yield run(loop, start())
    finally:
        run(loop, stack.aclose())
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


def check(status: int, kind: str, body: bytes) -> None:
    """An answer, or an error that a client's library understands; nothing of ours broke."""
    assert status != 500, body
    if status >= 400:
        error = json.loads(body)["error"]
        assert isinstance(error["message"], str)
        assert error["message"], body
        assert kind.startswith("application/json")
        assert "Traceback" not in error["message"]


ANSWER = {"id": "c", "object": "chat.completion", "created": 1, "model": "m", "choices": [], "data": [],
          "results": [], "usage": None}  # fmt: skip


@given(data=st.data())
def test_any_body_of_any_path_is_answered_as_documented(
    fuzzed: Fuzzed, data: st.DataObject
) -> None:
    fuzzed.behave(answering(ANSWER))
    path = data.draw(st.sampled_from(sorted(BODIES)))
    changes = data.draw(st.dictionaries(st.sampled_from(FIELDS), ANYTHING, max_size=3))
    raw = json.dumps({**BODIES[path], **changes}).encode()
    if data.draw(st.integers(0, 9)) == 0:  # a byte that is missing or another
        at = data.draw(st.integers(0, len(raw) - 1))
        raw = raw[:at] + data.draw(st.binary(max_size=2)) + raw[at + 1 :]
    fuzzed.post(path, raw)


SCRAPS = st.sampled_from(
    [b"--BB\r\n", b"--BB--\r\n", b"--BB", b"\r\n", b"\r\n\r\n", b"--CC\r\n", b"model", b"ears", b'"', b"\\",
     b'Content-Disposition: form-data; name="model"\r\n\r\n', b"Content-Type: audio/wav\r\n", b"\x00", b"\xff",
     b'Content-Disposition: form-data; name="file"; filename="x.wav"\r\n', b"name*=utf-8''model", b"=?", b";"]
)  # fmt: skip


@given(data=st.data())
def test_any_form_is_forwarded_or_refused(fuzzed: Fuzzed, data: st.DataObject) -> None:
    fuzzed.behave(answering({"text": ""}))
    whole = form()
    if data.draw(st.booleans()):
        at, end = sorted(data.draw(st.tuples(*2 * [st.integers(0, len(whole))])))
        raw = whole[:at] + b"".join(data.draw(st.lists(SCRAPS, max_size=4))) + whole[end:]
    else:
        raw = b"".join(data.draw(st.lists(SCRAPS | st.binary(max_size=8), max_size=12)))
    before = len(fuzzed.engine.received)
    status, _ = fuzzed.post(TRANSCRIBE, raw, "multipart/form-data; boundary=BB")
    # The engine had it whole and once, or not at all.
    assert len(fuzzed.engine.received) - before == (status == 200)


EVENTS = st.one_of(
    st.sampled_from(
        [b"data: [DONE]\n\n", b": ping\n\n", b"\n", b"data:\n\n", b"data: {", b"event: error\n", b"\r", b"\xff",
         b'data: {"error": {"message": "no"}}\n\n', b'data: {"choices": null}\n\n', b"data: []\n\n", b"data: 1\n\n",
         b'data: {"choices": [{"delta": 1}]}\n\n', b'data: {"choices": [{"index": "x", "delta": {}}]}\n\n',
         (b'data: {"id":"c","object":"chat.completion.chunk","created":1,"model":"m","choices":[{"index":0,'
         b'"delta":{"content":"t"},"finish_reason":null}]}\n\n'),
         (b'data: {"id":"c","object":"chat.completion.chunk","created":1,"model":"m","choices":[{"index":0,'
         b'"delta":{},"finish_reason":"stop"}]}\n\n')]
    ),
    ANYTHING.map(lambda value: b"data: " + json.dumps(value).encode() + b"\n\n"),
    st.binary(max_size=12),
)  # fmt: skip
STREAM_HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n"


@given(events=st.lists(EVENTS, max_size=8))
@example(events=[b'data: {"error": {"message": "no"}}\n\n'])
def test_any_stream_of_an_engine_is_whole_or_an_error(fuzzed: Fuzzed, events: list[bytes]) -> None:
    fuzzed.behave(sending(STREAM_HEAD, *events, close=True))
    status, body = fuzzed.post("/v1/chat/completions", json.dumps(chat(stream=True)).encode())
    if status != 200:
        return
    assert body.endswith(b"\n\n")
    blocks = [block for block in body.split(b"\n\n") if block and not block.startswith(b":")]
    told = [re.sub(rb"^event: \w+\n", b"", block).removeprefix(b"data: ") for block in blocks]
    parsed = [json.loads(data) for data in told if data != b"[DONE]"]
    assert all(isinstance(event, dict) for event in parsed)
    failed = bool(parsed) and "error" in parsed[-1]
    assert (told[-1] == b"[DONE]") != failed, body
