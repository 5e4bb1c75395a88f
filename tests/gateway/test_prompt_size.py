"""Prompts that no tokenizer can fit into a model's context are refused before an engine reads them."""

from __future__ import annotations

import io
from typing import Any

import orjson
import pytest

from yibu.gateway.requests.body import parse
from yibu.gateway.requests.prompt_size import refuse_overlong
from yibu.gateway.schemas.text import CompletionRequest

from .conftest import TEXT, FakeBackend, Running, Serve
from .upstream import LLAMA_CHAT, Upstream, answering

CONTEXT = 8192
LONG = "word-" * 5_000_000  # 25 MB
SHORT = "word-" * 1000


async def post(gateway: Running, path: str, body: dict[str, Any]) -> tuple[int, Any, Any]:
    data = io.BytesIO(orjson.dumps({"model": "m", **body}))
    headers = {"content-type": "application/json"}
    async with gateway.http.post(gateway.url + path, data=data, headers=headers) as answer:
        return answer.status, await answer.json(), answer.headers


PROMPTS: dict[str, tuple[str, Any]] = {
    "a chat": ("/v1/chat/completions", {"messages": [{"role": "user", "content": LONG}]}),
    "its parts": (
        "/v1/chat/completions",
        {"messages": [{"role": "user", "content": [{"type": "text", "text": LONG}]}]},
    ),
    "two thousand turns": (
        "/v1/chat/completions",
        {"messages": [{"role": "user", "content": SHORT}] * 2000},
    ),
    "a system prompt": (
        "/v1/messages",
        {
            "max_tokens": 1,
            "messages": [{"role": "user", "content": [{"type": "text", "text": LONG}]}],
        },
    ),
    "a text": ("/v1/completions", {"prompt": LONG}),
    "one of several": ("/v1/completions", {"prompt": ["a", LONG]}),
    "an input": ("/v1/responses", {"input": LONG}),
    "items": ("/v1/responses", {"input": [{"role": "user", "content": LONG}]}),
}


@pytest.mark.parametrize("name", PROMPTS)
async def test_what_cannot_fit_is_refused_at_once(
    serve: Serve, backend: FakeBackend, name: str
) -> None:
    path, body = PROMPTS[name]
    async with Upstream(answering(LLAMA_CHAT)) as up:
        backend.add("m", up, max_context=CONTEXT, capabilities=TEXT | {"responses", "messages"})
        async with serve() as gateway:
            status, answer, headers = await post(gateway, path, body)
            assert status == 400, answer
            assert headers["x-should-retry"] == "false"
    assert up.received == []
    told = answer["error"]
    if not path.endswith("/messages"):  # Anthropic's errors have a type and a message alone
        assert told["code"] == "context_length_exceeded"
        assert told["param"] in body


@pytest.mark.parametrize(
    "content",
    [
        pytest.param("-" * 200 * CONTEXT, id="rows of the longest tokens"),
        pytest.param(" \n" * 1_500_000, id="blanks"),
        pytest.param("word " * 400_000, id="near the limit"),
        pytest.param(
            [
                {
                    "type": "image_url",
                    "image_url": {"url": "data:image/png;base64," + "A" * 4_000_000},
                }
            ],
            id="a picture",
        ),
    ],
)
async def test_what_may_fit_is_the_engines_to_judge(
    serve: Serve, backend: FakeBackend, content: Any
) -> None:
    async with Upstream(answering(LLAMA_CHAT)) as up:
        backend.add("m", up, max_context=CONTEXT)
        async with serve() as gateway:
            messages = [{"role": "user", "content": content}]
            status, answer, _ = await post(gateway, "/v1/chat/completions", {"messages": messages})
            assert status == 200, answer
    assert up.received[0].json["messages"] == messages


def test_several_prompts_are_counted_one_by_one() -> None:
    raw = orjson.dumps({"model": "m", "prompt": ["word-" * 100_000] * 6})
    refuse_overlong("completions", parse(raw, CompletionRequest), CONTEXT)


async def test_turns_of_the_assistant_and_prompts_to_cut_do_not_count(
    serve: Serve, backend: FakeBackend
) -> None:
    turns = [{"role": "assistant", "content": LONG}, {"role": "user", "content": "hi"}]
    async with Upstream(answering(LLAMA_CHAT)) as up:
        backend.add("m", up, max_context=CONTEXT, engine="vllm")
        async with serve() as gateway:
            for body in (
                {"messages": turns},
                {"messages": [{"role": "user", "content": LONG}], "truncate_prompt_tokens": 100},
            ):
                status, answer, _ = await post(gateway, "/v1/chat/completions", body)
                assert status == 200, answer
