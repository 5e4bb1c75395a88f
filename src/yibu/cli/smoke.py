"""The smoke test of what runs: real requests through the gateway, a line a check."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from yibu.cli import output
from yibu.cli.api import Api
from yibu.cli.words import word
from yibu.errors import YibuError
from yibu.messages import tr

_MAX_TOKENS = 60
_ON_DEMAND = ("unloaded", "sleeping")
"""States of models that a request loads."""
_FORM_TOKENS = 8
_SHOWN = 48
"""Characters of an answer in a line."""
_ENGLISH = [
    {"role": "system", "content": "You are a helpful assistant."},
    {"role": "user", "content": "What is a volcano? Answer in one sentence."},
]


@dataclass(frozen=True, slots=True)
class Check:
    """The result of one check."""

    model: str
    name: str
    passed: bool
    seconds: float
    detail: str

    def line(self) -> str:
        mark = output.padded(tr("ok") if self.passed else tr("FAILED"), 6)
        return f"{mark} {self.model}  {self.name}  {self.seconds:.2f} s  {self.detail}"

    def row(self) -> dict[str, Any]:
        return {
            "model": self.model,
            "check": self.name,
            "passed": self.passed,
            "seconds": round(self.seconds, 3),
            "detail": self.detail,
        }


def tutorial_body(
    model: str, *, stream: bool, max_tokens: int = _FORM_TOKENS, chinese: bool = True
) -> dict[str, Any]:
    """The chat body of the tutorial that yibu grew from, nulls and empties included.

    Clients in the field send exactly this; every engine behind the gateway must take it. With
    ``chinese`` false the same is asked in English, which every model answers with sense.
    """
    text = resources.files("yibu.cli").joinpath("tutorial.json").read_text("utf-8")
    body: dict[str, Any] = json.loads(text)
    own = {"model": model, "max_tokens": max_tokens, "stream": stream}
    return body | own | ({} if chinese else {"messages": _ENGLISH, "temperature": 0})


def run_checks(
    api: Api,
    model: Mapping[str, Any],
    capabilities: Sequence[str],
    *,
    max_tokens: int = _MAX_TOKENS,
) -> Iterator[Check]:
    """Try everything that a model can do, one check after another; ``model`` is as in ``ps``.

    Of a model that is not up, that alone is said.
    """
    name = model["name"]
    state = attempt(name, tr("ready"), lambda: _ready(model))
    yield state
    loaded = any(replica["state"] == "ready" for replica in model["replicas"])
    if not loaded and model["state"] not in _ON_DEMAND:
        return
    yield attempt(name, tr("listed"), lambda: _listed(api, name))
    if "chat" in capabilities:
        yield attempt(name, tr("chat"), lambda: _chat(api, name, max_tokens))
        yield attempt(name, tr("chat streamed"), lambda: _chat_streamed(api, name, max_tokens))
        yield attempt(name, tr("tutorial's body"), lambda: _form(api, name))
    elif "completions" in capabilities:
        yield attempt(name, tr("completion"), lambda: _completion(api, name))
    if "embeddings" in capabilities:
        yield attempt(name, tr("embedding"), lambda: _embedding(api, name))
    if "rerank" in capabilities:
        yield attempt(name, tr("rerank"), lambda: _rerank(api, name))
    if "transcriptions" in capabilities:
        yield attempt(name, tr("silence transcribed"), lambda: _silence(api, name))


def attempt(model: str, name: str, action: Callable[[], str]) -> Check:
    """Run and time one action; an error fails the check."""
    started = time.perf_counter()
    try:
        detail, passed = action(), True
    except YibuError as error:
        detail, passed = error.message, False
    return Check(model, name, passed, time.perf_counter() - started, detail)


def _ready(model: Mapping[str, Any]) -> str:
    if model["state"] in _ON_DEMAND:
        return tr("loaded by the requests that follow")
    states = [replica["state"] for replica in model["replicas"]]
    ready = states.count("ready")
    if model["state"] == "ready" and ready == len(states):
        return (
            tr("{ready} of {ready} replicas", ready=ready) if ready > 1 else model["engine"] or "-"
        )
    what = (
        tr("{ready} of {states_count} replicas are ready", ready=ready, states_count=len(states))
        if ready
        else word(model["state"])
    )
    raise YibuError(
        tr("{name}: {text}", name=what, text=model["cause"])
        if model["cause"]
        else tr("It is {what}.", what=what)
    )


def _listed(api: Api, model: str) -> str:
    names = [entry["id"] for entry in api.get("/v1/models")["data"]]
    if model not in names:
        named = ", ".join(names)
        raise YibuError(
            "/v1/models does not name {model}; it names {names}.", model=model, names=named
        )
    return tr("{names_count} in /v1/models", names_count=len(names))


def _chat(api: Api, model: str, max_tokens: int) -> str:
    body = tutorial_body(model, stream=False, max_tokens=max_tokens, chinese=False)
    answer = api.post("/v1/chat/completions", body)
    text = answer["choices"][0]["message"]["content"]
    if not text:
        raise YibuError("The answer has no text.")
    return tr(
        "{completion_tokens} tokens: {text}",
        completion_tokens=answer["usage"]["completion_tokens"],
        text=_start_of(text),
    )


def _form(api: Api, model: str) -> str:
    """The tutorial's own body, in Chinese: taken, and answered in form; whether the model knows
    Chinese is not asked."""
    answer = api.post("/v1/chat/completions", tutorial_body(model, stream=False))
    (choice,) = answer["choices"]
    if choice["message"]["role"] != "assistant" or choice["finish_reason"] not in (
        "stop",
        "length",
    ):
        raise YibuError("The answer has another form: {choice}", choice=_start_of(str(choice)))
    return tr(
        "taken, {completion_tokens} tokens", completion_tokens=answer["usage"]["completion_tokens"]
    )


def _chat_streamed(api: Api, model: str, max_tokens: int) -> str:
    started = time.perf_counter()
    first: float | None = None
    pieces: list[str] = []
    body = tutorial_body(model, stream=True, max_tokens=max_tokens, chinese=False)
    for event in api.stream("/v1/chat/completions", body):
        for choice in event["choices"]:
            if text := choice["delta"].get("content"):
                first = first or time.perf_counter()
                pieces.append(text)
    if first is None:
        raise YibuError("The stream ended without any text.")
    rate = len(pieces) / max(time.perf_counter() - first, 1e-9)
    return tr(
        "first token after {first:.2f} s, then {rate:.0f} chunks/s: {pieces}",
        first=first - started,
        rate=rate,
        pieces=_start_of("".join(pieces)),
    )


def _completion(api: Api, model: str) -> str:
    answer = api.post("/v1/completions", {"model": model, "prompt": "Once", "max_tokens": 8})
    return _start_of(answer["choices"][0]["text"])


def _embedding(api: Api, model: str) -> str:
    answer = api.post("/v1/embeddings", {"model": model, "input": "easy deployment"})
    vector = answer["data"][0]["embedding"]
    if not any(vector):
        raise YibuError(
            "The vector of {vector_count} numbers is all zeros.", vector_count=len(vector)
        )
    return tr("{vector_count} dimensions", vector_count=len(vector))


def _rerank(api: Api, model: str) -> str:
    texts = ["Paris is the capital of France.", "Bread is made of flour."]
    body = {"model": model, "query": "What is the capital of France?", "documents": texts}
    results = api.post("/v1/rerank", body)["results"]
    if len(results) != len(texts):
        raise YibuError(
            "{texts_count} texts were given, and {results_count} came back.",
            texts_count=len(texts),
            results_count=len(results),
        )
    return tr("first: {texts}", texts=_start_of(texts[results[0]["index"]]))


def _silence(api: Api, model: str) -> str:
    from yibu.node.launch.probe import silent_wav

    with TemporaryDirectory(prefix="yibu-test-") as directory:
        clip = Path(directory) / "silence.wav"
        clip.write_bytes(silent_wav(seconds=1.0))
        answer = api.upload("/v1/audio/transcriptions", clip, {"model": model}).decode()
    return tr("answered {answer}", answer=_start_of(answer))


def _start_of(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= _SHOWN else line[: _SHOWN - 1] + "…"
