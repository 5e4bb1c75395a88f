"""One chat, timed: sent to any OpenAI-compatible server, its stream read event by event.

The connection is made before the clock starts, so that what is measured is the server's.
"""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from time import perf_counter
from typing import Any
from urllib.parse import urlsplit

import orjson

from yibu.engines.base import Endpoint
from yibu.errors import NotRunningError, UsageError, YibuError
from yibu.gateway.answers.sse import EventReader, parse_event
from yibu.messages import tr
from yibu.upstream.ask import request_head
from yibu.upstream.connection import EngineConnection, UpstreamError
from yibu.upstream.pool import connect

_CONNECT = 30.0
"""Seconds: a server under load accepts late."""
_ANSWER = 1800.0
"""Seconds until the end of one answer."""
_MOST = 64 * 1024 * 1024
_DEFAULT_PORTS = {"http": 80, "https": 443}
_GENERATED = ("content", "reasoning_content", "reasoning")


@dataclass(frozen=True, slots=True)
class Target:
    """Where chats are sent."""

    url: str
    """The server's, with or without ``/v1``."""
    model: str
    key: str | None = field(default=None, repr=False)

    def path(self, path: str) -> str:
        """A path of the API: ``/v1/models`` below whatever path the URL has."""
        base = urlsplit(self.url).path.rstrip("/")
        return base.removesuffix("/v1") + path


@dataclass(slots=True)
class Timing:
    """The timing of one request. Seconds; ``start`` counts from the run's beginning."""

    start: float
    first: float | None = None
    """Seconds from sending to the first token."""
    last: float | None = None
    """Seconds from sending to the last token."""
    gaps: list[float] = field(default_factory=list)
    """Seconds between two events with tokens."""
    prompt_tokens: int = 0
    completion_tokens: int = 0
    counted: bool = True
    """Whether the server counted the tokens; else each event counts as one."""
    error: str | None = None

    @property
    def per_token(self) -> float | None:
        """Seconds a token after the first; None of an answer of one."""
        if self.first is None or self.last is None or self.completion_tokens < 2:
            return None
        return (self.last - self.first) / (self.completion_tokens - 1)


class BenchClient:
    """Sends requests to one target."""

    def __init__(self, target: Target) -> None:
        parts = urlsplit(target.url)
        if parts.scheme not in _DEFAULT_PORTS or not parts.hostname:
            raise UsageError(
                "{url} is no URL of a server.", url=target.url, hint="--url http://127.0.0.1:8000"
            )
        self.target = target
        port = parts.port or _DEFAULT_PORTS[parts.scheme]
        self._endpoint = Endpoint("bench", parts.hostname, port, key=target.key)
        self._tls = ssl.create_default_context() if parts.scheme == "https" else None

    async def chat(self, timing: Timing, body: Mapping[str, Any]) -> None:
        """Send one streamed chat and record its timing; a failure is recorded in it."""
        try:
            async with asyncio.timeout(_ANSWER):
                connection = await self._connect()
                try:
                    await self._timed(connection, timing, body)
                finally:
                    connection.abort()
        except UpstreamError as error:
            timing.error = f"connection: {error.kind}"
        except TimeoutError:
            timing.error = "no answer in time"

    async def post(self, path: str, body: Mapping[str, Any]) -> tuple[int, Any]:
        """Status and object of one answer; None for one that is no JSON object.

        Raises:
            NotRunningError: nobody answers there.
        """
        try:
            async with asyncio.timeout(_ANSWER):
                connection = await self._connect()
                try:
                    self._send(connection, path, body)
                    await connection.wait_head()
                    raw = await connection.read_all(_MOST)
                finally:
                    connection.abort()
        except (UpstreamError, TimeoutError) as error:
            raise NotRunningError(
                "{url} does not answer: {error}",
                url=self.target.url,
                error=error,
                hint="Is it up? yibu ps",
            ) from error
        try:
            answer = orjson.loads(raw)
        except orjson.JSONDecodeError:
            answer = None
        return connection.status, answer if isinstance(answer, dict) else None

    async def _connect(self) -> EngineConnection:
        host, port = self._endpoint.host, self._endpoint.port
        return await connect(host, port, tls=self._tls, timeout=_CONNECT)

    def _send(self, connection: EngineConnection, path: str, body: Mapping[str, Any]) -> None:
        data = orjson.dumps(body)
        framing = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(data))]
        head = request_head("POST", self.target.path(path), self._endpoint, framing)
        connection.send(head, data)

    async def _timed(
        self, connection: EngineConnection, timing: Timing, body: Mapping[str, Any]
    ) -> None:
        began = perf_counter()
        self._send(connection, "/v1/chat/completions", body)
        await connection.wait_head()
        if connection.status != 200:
            raw = await connection.read_all(_MOST)
            timing.error = f"HTTP {connection.status}: {_message(raw)}"
            return
        reader, events, before = EventReader(), 0, began
        usage: Mapping[str, Any] | None = None
        while data := await connection.read():
            now = perf_counter()
            for block in reader.blocks(data):
                event = _event(block)
                if event is None:
                    continue
                if "error" in event:
                    timing.error = f"in the stream: {_said(event)}"
                    return
                usage = event.get("usage") or usage
                if _generates(event):
                    events += 1
                    if timing.first is None:
                        timing.first = now - began
                    else:
                        timing.gaps.append(now - before)
                    before, timing.last = now, now - began
        timing.counted = usage is not None
        timing.completion_tokens = int((usage or {}).get("completion_tokens") or events)
        timing.prompt_tokens = int((usage or {}).get("prompt_tokens") or 0)
        if timing.first is None:
            timing.error = "an answer without a token"


def request_body(
    target: Target, prompt: str, tokens: int, extra: Mapping[str, Any]
) -> dict[str, Any]:
    """A streamed chat of one message whose answer has ``tokens`` tokens, as far as the server obeys."""
    return {
        "model": target.model,
        "messages": [{"role": "user", "content": prompt}],
        "max_tokens": tokens,
        "temperature": 0,
        "stream": True,
        "stream_options": {"include_usage": True},
        **extra,
    }


async def check(client: BenchClient, tokens: int) -> Mapping[str, Any]:
    """Fields by which the server generates up to the last token; checked by a request.

    Raises:
        NotRunningError: nobody answers.
        YibuError: it refuses a plain chat.
    """
    refusal: Any = None
    for extra in ({"ignore_eos": True}, {}):
        body = request_body(client.target, "Hello", min(tokens, 8), extra)
        whole = {**body, "stream": False}
        whole.pop("stream_options")
        status, answer = await client.post("/v1/chat/completions", whole)
        if status == 200 and answer is not None:
            return extra
        refusal = (status, answer)
        if status not in (400, 422):
            break
    status, answer = refusal
    raise YibuError(
        tr(
            "{url} refuses a chat with {model!r}: HTTP {status}, {answer}",
            url=client.target.url,
            model=client.target.model,
            status=status,
            answer=_said(answer or {}),
        )
    )


def _event(block: bytes) -> Mapping[str, Any] | None:
    _, data = parse_event(block)
    if data is None or data.strip() == b"[DONE]":
        return None
    try:
        event = orjson.loads(data)
    except orjson.JSONDecodeError:
        return None
    return event if isinstance(event, dict) else None


def _generates(event: Mapping[str, Any]) -> bool:
    choices: Sequence[Any] = event.get("choices") or ()
    delta = (choices[0].get("delta") or {}) if choices else {}
    return any(delta.get(name) for name in _GENERATED) or bool(delta.get("tool_calls"))


def _message(raw: bytes) -> str:
    try:
        return _said(json.loads(raw))
    except (ValueError, AttributeError):
        return raw[:200].decode("utf-8", "replace")


def _said(answer: Mapping[str, Any]) -> str:
    error = answer.get("error")
    return str(error.get("message") if isinstance(error, dict) else error)[:200]
