"""OpenAI's answers translated to Ollama's, on the way to the client."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Any, Literal

import orjson

from yibu.gateway.answers.sse import EventReader, parse_event
from yibu.gateway.http.exchange import Headers, Message, Send

Shape = Literal["chat", "generate", "embed", "embeddings"]
Answer = dict[str, Any]

_FINAL = {"stop": "stop", "length": "length"}
"""By OpenAI's ``finish_reason``; the others end an answer as ``stop`` in Ollama's words."""


def now() -> str:
    """This moment as Ollama writes it (RFC 3339)."""
    return stamp(datetime.now(UTC))


def stamp(when: datetime) -> str:
    return when.isoformat().replace("+00:00", "Z")


class Translator:
    """``send`` for the operation that answers an Ollama request. Errors pass unchanged: the exchange
    writes them in Ollama's form already."""

    def __init__(self, send: Send, shape: Shape, model: str) -> None:
        """``model`` is the name as the client wrote it."""
        self._send = send
        self._chunks = Chunks(shape, model)
        self._take: Callable[[Message], Awaitable[None]] = send
        self._start: Message = {}
        self._body: list[bytes] = []

    async def send(self, message: Message) -> None:
        if message["type"] != "http.response.start":
            await self._take(message)
            return
        kind = dict(message["headers"]).get(b"content-type", b"")
        self._take = self._send
        if message["status"] == 200 and kind.startswith(b"text/event-stream"):
            headers = _replaced(message["headers"], b"content-type", b"application/x-ndjson")
            self._take = self._stream
            await self._send({**message, "headers": headers})
        elif message["status"] == 200:
            self._start, self._take = message, self._whole
        else:
            await self._send(message)

    async def _stream(self, message: Message) -> None:
        data = self._chunks.feed(message.get("body", b""))
        more = message.get("more_body", False)
        if data or not more:
            await self._send({**message, "body": data})

    async def _whole(self, message: Message) -> None:
        self._body.append(message.get("body", b""))
        if message.get("more_body", False):
            return
        data = orjson.dumps(self._chunks.whole(orjson.loads(b"".join(self._body))))
        headers = _replaced(self._start["headers"], b"content-length", b"%d" % len(data))
        await self._send({**self._start, "headers": headers})
        await self._send({**message, "body": data})


class Chunks:
    """Ollama's objects for one answer: whole, or a line for each event of a stream."""

    def __init__(self, shape: Shape, model: str) -> None:
        self._shape = shape
        self._model = model
        self._began = time.perf_counter_ns()
        self._first = 0
        """When the first token came, in nanoseconds."""
        self._reader = EventReader()
        self._reason = ""
        self._usage: Answer = {}
        self._calls: dict[int, Answer] = {}
        self._done = False

    def whole(self, answer: Answer) -> Answer:
        """The object for a whole answer."""
        self._usage = answer.get("usage") or {}
        if self._shape == "embeddings":
            return {"embedding": answer["data"][0]["embedding"]}
        if self._shape == "embed":
            vectors = [item["embedding"] for item in answer["data"]]
            return {"model": self._model, "embeddings": vectors, **self._totals()}
        choice = answer["choices"][0]
        message = choice.get("message") or {"content": choice.get("text")}
        logprobs = _logprobs(choice)
        calls = [_call(call) for call in message.get("tool_calls") or []]
        # llama.cpp says how long it read the prompt.
        read = (answer.get("timings") or {}).get("prompt_ms") or 0
        self._first = self._began + int(read * 1e6)
        return {
            **self._part(message.get("content"), _thought(message), calls),
            **({"logprobs": logprobs} if logprobs else {}),
            **self._end(choice.get("finish_reason") or "stop"),
        }

    def feed(self, data: bytes) -> bytes:
        """The lines for the events in ``data`` and what was left before it."""
        parts = [part for event in self._reader.blocks(data) for part in self._event(event)]
        return b"".join(orjson.dumps(part) + b"\n" for part in parts)

    def _event(self, event: bytes) -> list[Answer]:
        if event.startswith(b":"):  # keeps proxies from giving up; an empty part does it here
            return [self._part("")]
        _, data = parse_event(event)
        if not data or self._done:
            return []
        if data == b"[DONE]":
            self._done = True
            calls = [_call(call) for _, call in sorted(self._calls.items())]
            parts = [self._part("", None, calls)] if calls else []
            return [*parts, {**self._part(""), **self._end(self._reason)}]
        chunk = orjson.loads(data)
        if "error" in chunk:
            self._done = True
            return [{"error": chunk["error"]["message"]}]
        self._usage = chunk.get("usage") or self._usage
        return [part for choice in chunk.get("choices") or () for part in self._choice(choice)]

    def _choice(self, choice: Answer) -> list[Answer]:
        self._first = self._first or time.perf_counter_ns()
        self._reason = choice.get("finish_reason") or self._reason
        delta = choice.get("delta") or {"content": choice.get("text")}
        for call in delta.get("tool_calls") or ():
            self._gather(call)
        text, thought = delta.get("content"), _thought(delta)
        logprobs = _logprobs(choice)
        if not text and not thought and not logprobs:
            return []
        part = self._part(text, thought)
        return [{**part, "logprobs": logprobs} if logprobs else part]

    def _gather(self, call: Answer) -> None:
        """Collect a tool call: Ollama's clients get it whole."""
        kept = self._calls.setdefault(call["index"], {"function": {"name": "", "arguments": ""}})
        kept["id"] = call.get("id") or kept.get("id")
        for name, text in (call.get("function") or {}).items():
            kept["function"][name] = kept["function"].get(name, "") + (text or "")

    def _part(
        self, text: str | None, thought: str | None = None, calls: list[Answer] | None = None
    ) -> Answer:
        part: Answer = {"model": self._model, "created_at": now()}
        if self._shape == "generate":
            thinking = {"thinking": thought} if thought else {}
            return part | {"response": text or "", **thinking, "done": False}
        message: Answer = {"role": "assistant", "content": text or ""}
        if thought:
            message["thinking"] = thought
        if calls:
            message["tool_calls"] = calls
        return part | {"message": message, "done": False}

    def _end(self, reason: str) -> Answer:
        return {"done": True, "done_reason": _FINAL.get(reason, "stop"), **self._totals()}

    def _totals(self) -> Answer:
        """Counts, and durations in nanoseconds. What an engine does not tell apart is measured here:
        the prompt until the first token, the answer after it."""
        end = time.perf_counter_ns()
        first = self._first or end
        totals: Answer = {
            "total_duration": end - self._began,
            "load_duration": 0,
            "prompt_eval_count": self._usage.get("prompt_tokens", 0),
        }
        if self._shape in ("chat", "generate"):
            totals |= {
                "prompt_eval_duration": max(1, first - self._began),
                "eval_count": self._usage.get("completion_tokens", 0),
                "eval_duration": max(1, end - first),
            }
        return totals


def _call(call: Answer) -> Answer:
    function = call["function"]
    arguments = function.get("arguments") or "{}"
    try:
        read = orjson.loads(arguments)
    except orjson.JSONDecodeError:  # cut by the token limit: the client sees what there is
        read = arguments
    if not isinstance(read, dict):  # Ollama's client takes nothing else
        read = {"": read}
    identified = {"id": call["id"]} if call.get("id") else {}
    return {**identified, "function": {"name": function["name"], "arguments": read}}


def _thought(message: Answer) -> str | None:
    """The model's reasoning, by llama.cpp's field or vLLM's."""
    thought: str | None = message.get("reasoning_content") or message.get("reasoning")
    return thought


def _logprobs(choice: Answer) -> list[Answer]:
    given = choice.get("logprobs") or {}
    if "tokens" not in given:
        return given.get("content") or []
    return [
        {"token": token, "logprob": value,
         "top_logprobs": [{"token": name, "logprob": other} for name, other in (top or {}).items()]}
        for token, value, top in zip(given["tokens"], given["token_logprobs"], given["top_logprobs"], strict=True)
    ]  # fmt: skip


def _replaced(headers: Headers, name: bytes, value: bytes) -> Headers:
    return [*((key, old) for key, old in headers if key != name), (name, value)]
