"""The smoke test of what runs: real requests through the gateway, a line a check."""

from __future__ import annotations

import io
import time
import wave
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from yibu.cli.api import Api
from yibu.errors import YibuError

_MAX_TOKENS = 1000


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that was tried."""

    model: str
    name: str
    passed: bool
    seconds: float
    detail: str

    def line(self) -> str:
        mark = "ok    " if self.passed else "FAILED"
        return f"{mark} {self.model}  {self.name}  {self.seconds:.2f} s  {self.detail}"

    def row(self) -> dict[str, Any]:
        return {
            "model": self.model,
            "check": self.name,
            "passed": self.passed,
            "seconds": round(self.seconds, 3),
            "detail": self.detail,
        }


def tutorial_body(model: str, *, stream: bool, max_tokens: int = _MAX_TOKENS) -> dict[str, Any]:
    """The chat body of the tutorial that yibu grew from, nulls and empties included.

    Clients in the field send exactly this; every engine behind the gateway must take it.
    """
    return {
        "messages": [
            {"role": "system", "content": "你是一个乐于助人的助手。"},
            {"role": "user", "content": "你好，我想了解人工智能的发展历程。"},
        ],
        "model": model,
        "max_tokens": max_tokens,
        "temperature": 0.7,
        "frequency_penalty": 0,
        "presence_penalty": 0,
        "logit_bias": {},
        "logprobs": None,
        "top_logprobs": None,
        "n": 1,
        "response_format": None,
        "seed": None,
        "stop": None,
        "stream": stream,
        "stream_options": None,
        "tools": None,
        "tool_choice": "none",
        "parallel_tool_calls": False,
        "user": None,
    }


def run_checks(
    api: Api, model: str, capabilities: Sequence[str], *, max_tokens: int = _MAX_TOKENS
) -> Iterator[Check]:
    """Try everything that the model's capabilities promise, one check after another."""
    yield attempt(model, "listed", lambda: _listed(api, model))
    if "chat" in capabilities:
        yield attempt(model, "chat", lambda: _chat(api, model, max_tokens))
        yield attempt(model, "chat streamed", lambda: _chat_streamed(api, model, max_tokens))
    elif "completions" in capabilities:
        yield attempt(model, "completion", lambda: _completion(api, model))
    if "embeddings" in capabilities:
        yield attempt(model, "embedding", lambda: _embedding(api, model))
    if "transcriptions" in capabilities:
        yield attempt(model, "silence transcribed", lambda: _silence(api, model))


def attempt(model: str, name: str, action: Callable[[], str]) -> Check:
    """Time one action; the error that it raises is the check's failure."""
    started = time.perf_counter()
    try:
        detail, passed = action(), True
    except YibuError as error:
        detail, passed = error.message, False
    return Check(model, name, passed, time.perf_counter() - started, detail)


def _listed(api: Api, model: str) -> str:
    names = [entry["id"] for entry in api.get("/v1/models")["data"]]
    if model not in names:
        raise YibuError(f"/v1/models does not name {model}; it names {', '.join(names)}.")
    return f"{len(names)} in /v1/models"


def _chat(api: Api, model: str, max_tokens: int) -> str:
    answer = api.post(
        "/v1/chat/completions", tutorial_body(model, stream=False, max_tokens=max_tokens)
    )
    text = answer["choices"][0]["message"]["content"]
    if not text:
        raise YibuError("The answer has no text.")
    return f"{answer['usage']['completion_tokens']} tokens: {_start_of(text)}"


def _chat_streamed(api: Api, model: str, max_tokens: int) -> str:
    started = time.perf_counter()
    first: float | None = None
    pieces: list[str] = []
    body = tutorial_body(model, stream=True, max_tokens=max_tokens)
    for event in api.stream("/v1/chat/completions", body):
        for choice in event["choices"]:
            if text := choice["delta"].get("content"):
                first = first or time.perf_counter()
                pieces.append(text)
    if first is None:
        raise YibuError("The stream ended without any text.")
    rate = len(pieces) / max(time.perf_counter() - first, 1e-9)
    return (
        f"first token after {first - started:.2f} s, then {rate:.0f} chunks/s:"
        f" {_start_of(''.join(pieces))}"
    )


def _completion(api: Api, model: str) -> str:
    answer = api.post("/v1/completions", {"model": model, "prompt": "Once", "max_tokens": 8})
    return _start_of(answer["choices"][0]["text"])


def _embedding(api: Api, model: str) -> str:
    answer = api.post("/v1/embeddings", {"model": model, "input": "easy deployment"})
    vector = answer["data"][0]["embedding"]
    if not any(vector):
        raise YibuError(f"The vector of {len(vector)} numbers is all zeros.")
    return f"{len(vector)} dimensions"


def _silence(api: Api, model: str) -> str:
    with TemporaryDirectory(prefix="yibu-test-") as directory:
        clip = Path(directory) / "silence.wav"
        clip.write_bytes(silent_wav(seconds=1.0))
        answer = api.upload("/v1/audio/transcriptions", clip, {"model": model}).decode()
    return f"answered {_start_of(answer)}"


def silent_wav(seconds: float, rate: int = 16_000) -> bytes:
    """A mono 16-bit WAV of silence."""
    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as writer:
        writer.setnchannels(1)
        writer.setsampwidth(2)
        writer.setframerate(rate)
        writer.writeframes(bytes(2 * int(seconds * rate)))
    return buffer.getvalue()


def _start_of(text: str, length: int = 48) -> str:
    line = " ".join(text.split())
    return line if len(line) <= length else line[: length - 1] + "…"
