"""A small upstream that answers as told, badly where told so: raw bytes over real sockets.

A behaviour is a coroutine that gets the request and the writer, and returns whether the
connection stays open. What clients did (bodies, heads, broken connections) is kept for tests.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, Self

import orjson


@dataclass
class Received:
    head: str
    body: bytes
    connection: int
    disconnected: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def json(self) -> Any:
        return orjson.loads(self.body)

    @property
    def path(self) -> str:
        return self.head.split(" ")[1]

    def header(self, name: str) -> str | None:
        for line in self.head.split("\r\n")[1:]:
            key, _, value = line.partition(":")
            if key.lower() == name:
                return value.strip()
        return None


Behaviour = Callable[[Received, asyncio.StreamWriter], Awaitable[bool]]


class Upstream:
    """Listens on a free port of the loopback; ``async with`` it."""

    def __init__(self, behaviour: Behaviour) -> None:
        self.behaviour = behaviour
        self.received: list[Received] = []
        self.connections = 0
        self.open: set[asyncio.StreamWriter] = set()
        self.port = 0
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self.connections += 1
        number = self.connections
        self.open.add(writer)
        try:
            # Cancelled by __aexit__, which waits: nothing above needs to know.
            with contextlib.suppress(
                ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError
            ):
                while await self._one(reader, writer, number):
                    pass
        finally:
            self.open.discard(writer)
            writer.transport.abort()
            self._tasks.discard(task)

    async def _one(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, number: int
    ) -> bool:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        received = Received(head, b"", number)
        length = received.header("content-length")
        if length is not None:
            received.body = await reader.readexactly(int(length))
        elif received.header("transfer-encoding") == "chunked":
            while size := int((await reader.readline()).strip(), 16):
                received.body += await reader.readexactly(size)
                await reader.readline()
            await reader.readline()
        self.received.append(received)
        watch = asyncio.create_task(self._watch(reader, received))
        try:
            return await self.behaviour(received, writer)
        finally:
            watch.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await watch

    @staticmethod
    async def _watch(reader: asyncio.StreamReader, received: Received) -> None:
        """Notice that the client left while its answer was still being made."""
        while not reader.at_eof() and reader.exception() is None:
            await asyncio.sleep(0.005)
        received.disconnected.set()


def response(body: bytes, *, status: str = "200 OK", kind: str = "application/json") -> bytes:
    return (
        f"HTTP/1.1 {status}\r\ncontent-type: {kind}\r\ncontent-length: {len(body)}\r\n"
        "server: upstream\r\nconnection: keep-alive\r\n\r\n"
    ).encode() + body


STREAM_HEAD = (
    b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
)


def chunked(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


def sending(*parts: bytes | float, close: bool = False) -> Behaviour:
    """Send the parts one after another; a number waits that many seconds."""

    async def behave(_: Received, writer: asyncio.StreamWriter) -> bool:
        for part in parts:
            if isinstance(part, bytes):
                writer.write(part)
                await writer.drain()
            else:
                await asyncio.sleep(part)
        return not close

    return behave


def answering(body: object, **options: str) -> Behaviour:
    return sending(response(orjson.dumps(body), **options))


def streaming(*events: bytes, close: bool = False, pause: float = 0.0) -> Behaviour:
    """Server-sent events, each in its own chunk; ``close`` leaves out the end."""
    parts: list[bytes | float] = [STREAM_HEAD]
    for event in events:
        parts += [chunked(b"data: " + event + b"\n\n"), pause]
    if not close:
        parts.append(b"0\r\n\r\n")
    return sending(*parts, close=close)


# What llama.cpp's server really sends (xllamacpp 2026.10.11549, SmolLM2), shortened ------------

LLAMA_CHAT: dict[str, Any] = {
    "choices": [
        {"finish_reason": "stop", "index": 0, "message": {"role": "assistant", "content": "Hello"}}
    ],
    "created": 1795368586,
    "model": "inner",
    "system_fingerprint": "b0-unknown",
    "object": "chat.completion",
    "usage": {
        "completion_tokens": 3,
        "prompt_tokens": 31,
        "total_tokens": 34,
        "prompt_tokens_details": {"cached_tokens": 0},
    },
    "id": "chatcmpl-tZig",
    "timings": {"prompt_ms": 1.5},
}

LLAMA_TOKEN: dict[str, Any] = {
    "id": 28120,
    "token": "hello",
    "bytes": [104, 101, 108, 108, 111],
    "logprob": -3.25,
    "top_logprobs": [
        {"id": 19556, "token": "Hello", "bytes": [72, 101, 108, 108, 111], "logprob": -1.23}
    ],
}

LLAMA_TEXT: dict[str, Any] = {
    "choices": [
        {
            "text": "hello",
            "index": 0,
            "logprobs": {"content": [LLAMA_TOKEN]},
            "finish_reason": "length",
        }
    ],
    "created": 1795368586,
    "model": "inner",
    "system_fingerprint": "b0-unknown",
    "object": "text_completion",
    "usage": {"completion_tokens": 2, "prompt_tokens": 1, "total_tokens": 3},
    "id": "chatcmpl-IhE3",
}

_CHUNK = (
    b'"created":1795368586,"id":"chatcmpl-NE","model":"inner","system_fingerprint":"b0-unknown",'
    b'"object":"chat.completion.chunk"'
)
LLAMA_CHAT_STREAM = tuple(
    b'{"choices":[' + choice + b"]," + _CHUNK + b"}"
    for choice in (
        b'{"finish_reason":null,"index":0,"delta":{"role":"assistant","content":null}}',
        (
            b'{"finish_reason":null,"index":0,"delta":{"content":"hi"},"logprobs":{"content":[{"id":1,'
            b'"token":"hi","bytes":[104,105],"logprob":-1.5,"top_logprobs":[]}]}}'
        ),
        b'{"finish_reason":null,"index":0,"delta":{"content":" \\"model\\":\\"inner\\""}}',
        b'{"finish_reason":"length","index":0,"delta":{}}',
    )
)
LLAMA_USAGE = (
    b'{"choices":[],'
    + _CHUNK
    + b',"usage":{"completion_tokens":2,"prompt_tokens":31,"total_tokens":33},'
    b'"timings":{"cache_n":30}}'
)
LLAMA_TEXT_STREAM = (
    b"null",
    orjson.dumps(
        {
            "choices": [
                {
                    "text": "-",
                    "index": 0,
                    "logprobs": {"content": [LLAMA_TOKEN]},
                    "finish_reason": None,
                }
            ],
            "created": 1,
            "model": "inner",
            "object": "text_completion",
            "id": "c",
        }
    ),
    orjson.dumps(
        {
            "choices": [{"text": "", "index": 0, "logprobs": None, "finish_reason": "length"}],
            "created": 1,
            "model": "inner",
            "object": "text_completion",
            "usage": {"completion_tokens": 1, "prompt_tokens": 1, "total_tokens": 2},
            "id": "c",
        }
    ),
)
DONE = b"[DONE]"
