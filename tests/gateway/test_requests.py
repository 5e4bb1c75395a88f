"""Validation: what the specification allows is accepted, what it does not is refused by name."""

from __future__ import annotations

import copy
import json
import subprocess
import sys
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from yibu.errors import InvalidRequestError
from yibu.gateway.requests.body import parse
from yibu.gateway.schemas.chat import ChatRequest
from yibu.gateway.schemas.text import CompletionRequest, EmbeddingRequest

from .conftest import FakeBackend, Serve
from .upstream import LLAMA_CHAT, Upstream, answering

TUTORIAL: dict[str, Any] = {
    "messages": [
        {"role": "system", "content": "你是一个乐于助人的助手。"},
        {"role": "user", "content": "你好，我想了解人工智能的发展历程。"},
    ],
    "model": "m",
    "max_tokens": 1000,
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
    "stream": False,
    "stream_options": None,
    "tools": None,
    "tool_choice": "none",
    "parallel_tool_calls": False,
    "user": None,
}


async def test_the_tutorials_body_as_it_stands(serve: Serve, backend: FakeBackend) -> None:
    async with Upstream(answering(LLAMA_CHAT)) as up:
        backend.add("m", up)
        async with serve() as gateway:
            status, _ = await gateway.post("/v1/chat/completions", TUTORIAL)
    assert status == 200
    assert up.received[0].json == {
        "messages": TUTORIAL["messages"],
        "model": "m",
        "max_tokens": 1000,
        "temperature": 0.7,
        "frequency_penalty": 0,
        "presence_penalty": 0,
        "n": 1,
        "stream": False,
    }


# What the specification allows ------------------------------------------------------------

text = st.text(st.characters(codec="utf-8"), max_size=20)
name = st.text(st.characters(codec="ascii", min_codepoint=97, max_codepoint=122), min_size=1)
free = st.dictionaries(name, st.integers(-5, 5), max_size=2)
text_parts = st.lists(st.fixed_dictionaries({"type": st.just("text"), "text": text}), min_size=1)
image = st.fixed_dictionaries(
    {"type": st.just("image_url"), "image_url": st.fixed_dictionaries({"url": text})}
)
call = st.fixed_dictionaries(
    {
        "id": text,
        "type": st.just("function"),
        "function": st.fixed_dictionaries({"name": name, "arguments": text}),
    }
)


def message(role: str, content: st.SearchStrategy[Any], **more: Any) -> st.SearchStrategy[Any]:
    return st.fixed_dictionaries({"role": st.just(role), "content": content, **more})


messages = st.lists(
    st.one_of(
        message("system", text | text_parts),
        message("developer", text),
        message("user", text | text_parts | st.lists(image, min_size=1)),
        message("assistant", text | st.none(), tool_calls=st.lists(call, min_size=1)),
        message("tool", text, tool_call_id=text),
    ),
    min_size=1,
    max_size=4,
)
tool = st.fixed_dictionaries(
    {
        "type": st.just("function"),
        "function": st.fixed_dictionaries(
            {"name": name}, optional={"description": text, "parameters": free}
        ),
    }
)
penalty = st.floats(-2, 2) | st.integers(-2, 2)
sampling: dict[str, st.SearchStrategy[Any]] = {
    "temperature": st.floats(0, 2) | st.integers(0, 2),
    "top_p": st.floats(0, 1),
    "n": st.integers(1, 128),
    "max_tokens": st.integers(1, 2**31 - 1),
    "frequency_penalty": penalty,
    "presence_penalty": penalty,
    "stop": st.text(st.characters(codec="utf-8"), min_size=1)
    | st.lists(st.text(st.characters(codec="utf-8"), min_size=1), min_size=1, max_size=4),
    "logit_bias": st.dictionaries(st.integers(0, 9).map(str), st.integers(-100, 100)),
    "seed": st.integers(-(2**63), 2**63 - 1),
    "user": text,
    "stream": st.booleans(),
}
response_format = st.one_of(
    st.sampled_from([{"type": "text"}, {"type": "json_object"}]),
    st.fixed_dictionaries(
        {
            "type": st.just("json_schema"),
            "json_schema": st.fixed_dictionaries(
                {"name": name, "schema": free}, optional={"strict": st.booleans() | st.none()}
            ),
        }
    ),
)
chat_body = st.fixed_dictionaries(
    {"model": st.just("m"), "messages": messages},
    optional={
        **{key: value | st.none() for key, value in sampling.items()},
        "logprobs": st.booleans() | st.none(),
        "tools": st.lists(tool, max_size=2) | st.none(),
        "response_format": response_format | st.none(),
        "top_k": st.integers(),
        "chat_template_kwargs": free,
    },
)


@given(body=chat_body)
def test_what_is_allowed_is_accepted(body: dict[str, Any]) -> None:
    sent = copy.deepcopy(body)
    request = parse(json.dumps(body).encode(), ChatRequest)
    for key, value in sent.items():
        if value not in (None, {}, []) and key != "messages":
            assert request.body[key] == value
    assert None not in request.body.values()


WRONG: dict[str, list[Any]] = {
    "temperature": ["0.5", True, -0.1, 2.1, [1]],
    "top_p": ["1", False, 1.5],
    "n": [0, 129, 1.0, 1.5, "1", True],
    "max_tokens": [0, -1, 1.5, "10", False, 2**31, 2**32 + 5],
    "max_completion_tokens": [0, "10", 2**31],
    "frequency_penalty": [-2.5, 3, "0"],
    "presence_penalty": [-2.5, 3, "0"],
    "stop": ["", [""], ["a"] * 5, 5, [1], {"a": 1}],
    "logit_bias": [[], "a", {"1": 101}, {"1": "5"}, {"1": None}],
    "logprobs": ["true", 1],
    "top_logprobs": [-1, 21, "5", True],
    "seed": ["1", 1.5, 2**63],
    "stream": ["true", 1],
    "stream_options": [[], "x", {"include_usage": "yes"}],
    "tools": [{}, "x", [{"type": "other"}], [{"type": "function"}], [{}], [None]],
    "tool_choice": ["sometimes", 5, {"type": "function"}, {}],
    "response_format": ["json", {"type": "xml"}, {"type": "json_schema"}, {}],
    "user": [5],
    "model": [5, "", None],
    "messages": [
        [],
        "hi",
        [5],
        [{}],
        [{"role": "king", "content": "x"}],
        [{"role": "user"}],
        [{"role": "user", "content": None}],
        [{"role": "user", "content": []}],
        [{"role": "user", "content": [{"type": "text"}]}],
        [{"role": "user", "content": [{"type": "image_url", "image_url": "u"}]}],
        [{"role": "user", "content": 5}],
        [{"role": "tool", "content": "x"}],
        [{"role": "assistant", "content": 5}],
    ],
}


@given(body=chat_body, data=st.data())
def test_a_wrong_type_or_range_is_refused_by_name(body: dict[str, Any], data: Any) -> None:
    field = data.draw(st.sampled_from(sorted(WRONG)))
    body["logprobs"] = True
    body["stream"] = True
    body["tools"] = [{"type": "function", "function": {"name": "f"}}]
    body[field] = data.draw(st.sampled_from(WRONG[field]))
    with pytest.raises(InvalidRequestError) as refused:
        parse(json.dumps(body).encode(), ChatRequest)
    assert refused.value.param is not None
    assert refused.value.param.split("[")[0].split(".")[0] == field
    assert field in refused.value.message


@pytest.mark.parametrize(
    ("change", "param", "words"),
    [
        ({"temperature": "0.5"}, "temperature", 'expected a number, found a string "0.5"'),
        ({"messages": []}, "messages", "at least 1"),
        ({"messages": [{"role": "user"}]}, "messages[0].content", "is missing"),
        ({"messages": [{"role": "x", "content": ""}]}, "messages[0].role", "'developer'"),
        (
            {"messages": [{"role": "user", "content": [{"type": "text", "text": 5}]}]},
            "messages[0].content[0].text",
            "expected a string, found an integer 5",
        ),
        ({"stop": 5}, "stop", "a string or an array"),
        ({"top_logprobs": 5}, "top_logprobs", "only allowed when 'logprobs'"),
        ({"stream_options": {"include_usage": True}}, "stream_options", "only allowed when"),
        ({"tool_choice": "required"}, "tool_choice", "only allowed when 'tools'"),
        ({"response_format": {"type": "json_schema"}}, "response_format.json_schema", "missing"),
    ],
)
def test_messages_say_what_was_found(change: dict[str, Any], param: str, words: str) -> None:
    body = {"model": "m", "messages": [{"role": "user", "content": "x"}], **change}
    with pytest.raises(InvalidRequestError) as refused:
        parse(json.dumps(body).encode(), ChatRequest)
    assert refused.value.param == param
    assert words in refused.value.message


def test_a_missing_model_is_named() -> None:
    with pytest.raises(InvalidRequestError) as refused:
        parse(b'{"messages":[{"role":"user","content":"x"}]}', ChatRequest)
    assert refused.value.param == "model"
    assert refused.value.code == "missing_required_parameter"


prompts = st.one_of(
    text,
    st.lists(text, min_size=1),
    st.lists(st.integers(0, 99), min_size=1),
    st.lists(st.lists(st.integers(0, 99), min_size=1), min_size=1),
)


@given(prompt=prompts, extra=st.fixed_dictionaries({}, optional=sampling))
def test_prompts_and_inputs(prompt: Any, extra: dict[str, Any]) -> None:
    body = {"model": "m", "prompt": prompt, **extra}
    assert parse(json.dumps(body).encode(), CompletionRequest).body["prompt"] == prompt
    body = {"model": "m", "input": prompt}
    assert parse(json.dumps(body).encode(), EmbeddingRequest).body["input"] == prompt


@pytest.mark.parametrize("wrong", [None, 5, [], [[]], [1, "a"], {"a": 1}, [None], [1.5]])
def test_wrong_prompts_and_inputs(wrong: Any) -> None:
    for field, schema in (("prompt", CompletionRequest), ("input", EmbeddingRequest)):
        with pytest.raises(InvalidRequestError) as refused:
            parse(json.dumps({"model": "m", field: wrong}).encode(), schema)
        assert (refused.value.param or "").startswith(field)


def test_no_request_waits_for_a_validator_once_they_are_built() -> None:
    code = (
        "import asyncio; from yibu.gateway.operations import OPERATIONS, build_validators; "
        "from yibu.gateway.schemas.base import validator; "
        "schemas = {op.schema for op in OPERATIONS.values() if op.schema}; "
        "built = lambda: validator.cache_info().currsize; "
        "before = built(); asyncio.run(build_validators()); print(before, built() - len(schemas))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "0 0\n"
