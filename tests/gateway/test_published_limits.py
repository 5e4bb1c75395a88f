"""Every enum and bound of the published requests is kept: a value beyond is refused, its field named.

What is accepted all the same stands here, with the reason.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from fnmatch import fnmatch
from typing import Any

import jsonschema
import pytest
from pydantic import TypeAdapter

from tests.support.schema_limits import Limits
from yibu.engines.registry import request_tables
from yibu.engines.requests import Abilities, ModelContext
from yibu.errors import InvalidRequestError
from yibu.gateway.operations import OPERATIONS
from yibu.gateway.requests.body import parse

from .oracle import PUBLISHED, rewrite

ABLE = ModelContext("m", "llama.cpp", Abilities(features=frozenset({"images", "tools"})))
SOUND: dict[str, Any] = {
    "/v1/chat/completions": {"messages": [{"role": "user", "content": "x"}]},
    "/v1/completions": {"prompt": "x"},
    "/v1/embeddings": {"input": "x"},
    "/v1/responses": {"input": "x"},
    "/v1/messages": {"messages": [{"role": "user", "content": "x"}], "max_tokens": 1},
    "/v1/messages/count_tokens": {"messages": [{"role": "user", "content": "x"}]},
    "/v1/rerank": {"query": "x", "documents": ["y"]},
}

_ECHO = "it comes back as OpenAI or Anthropic gave it, and says nothing to a model here"
_CACHE = "engines cache prompts of their own accord, whatever is said of it"
_EMPTY = "clients send an empty list for none"
_OWN = "engines have kinds and formats of their own, and refuse what they do not have"
_UNREAD = "no engine reads it, and its row says so"
ACCEPTED = {
    "*prompt_cache_breakpoint.mode enum": _CACHE,
    "*cache_control.* enum": _CACHE,
    "*prompt_cache_breakpoint type": _CACHE,
    "*cache_control* type": _CACHE,
    "*citations* type": _ECHO,
    "*.caller* type": _ECHO,
    "*.annotations* type": _ECHO,
    "*.logprobs* type": _ECHO,
    "*.namespace type": _ECHO,
    "*.encrypted_content type": _ECHO,
    "input.id type": _ECHO,
    "messages.content.data type": _ECHO,
    "messages.content.toolset_name type": _ECHO,
    "tools.allowed_callers type": _UNREAD,
    "tools.defer_loading type": _UNREAD,
    "tools.output_schema type": _UNREAD,
    "tools.eager_input_streaming type": _UNREAD,
    "*.transformations type": _UNREAD,
    "inference_geo type": _UNREAD,
    "user_profile_id type": _UNREAD,
    "diagnostics* type": _UNREAD,
    "workspace_id type": _UNREAD,
    "max_tool_calls type": _UNREAD,
    "reasoning.mode type": _UNREAD,
    "*.annotations.type enum": _ECHO,
    "*citations.type enum": _ECHO,
    "*.caller.* *": _ECHO,
    "*.phase enum": _ECHO,
    "input.status enum": _ECHO,
    "input.call_id maxLength": "ids of engines are longer",
    "input.summary.type enum": "a summary is shown to people alone",
    "tools.allowed_callers enum": "callers that OpenAI and Anthropic host",
    "*.transformations.oversized_image enum": "pictures are scaled by the engine",
    "stop minItems": _EMPTY,
    "functions minItems": _EMPTY,
    "context_management minItems": _EMPTY,
    "input.content.type enum": _OWN,
    "messages.content.input_audio.format enum": _OWN,
    "*source.* enum": _OWN,
    "thinking.display enum": "what is shown of a thought, which models here show whole",
    "max_output_tokens minimum": "engines answer with fewer tokens than OpenAI does",
    "speed enum": "how fast Anthropic serves it",
}
"""By patterns of ``path keyword``."""


def published() -> Iterator[tuple[str, dict[str, Any], dict[str, Any]]]:
    """The operations with the schema of their requests, and the document that it refers to."""
    from anthropic.types import message_count_tokens_params, message_create_params

    for path, kind in (
        ("/v1/messages", message_create_params.MessageCreateParamsNonStreaming),
        ("/v1/messages/count_tokens", message_count_tokens_params.MessageCountTokensParams),
    ):
        schema = TypeAdapter(kind).json_schema()
        yield path, schema, schema
    if PUBLISHED.exists():
        document = rewrite(json.loads(PUBLISHED.read_text()))
        for path, methods in document["paths"].items():
            if f"/v1{path}" in SOUND:
                content = methods["post"]["requestBody"]["content"]["application/json"]
                yield f"/v1{path}", content["schema"], document


def fault(path: str, body: Any) -> InvalidRequestError | None:
    schema = OPERATIONS[path].schema
    assert schema is not None
    try:
        request = parse(json.dumps(body).encode(), schema)
        request_tables()["llama.cpp"].prepare(path, request.body, ABLE)
    except InvalidRequestError as error:
        return error
    return None


def test_a_sound_request_is_accepted() -> None:
    for path, body in SOUND.items():
        assert fault(path, {"model": "m", **body}) is None


def test_every_limit_is_kept_or_has_a_reason() -> None:
    met: set[str] = set()
    accepted: list[tuple[str, str]] = []
    walked = 0
    for path, schema, document in published():
        rules = jsonschema.Draft202012Validator({**document, **schema})
        for name, part in Limits(document).broken(schema):
            body = {"model": "m", **SOUND[path], **part}
            walked += 1
            refusal = fault(path, body)
            if refusal is None:
                reasons = [pattern for pattern in ACCEPTED if fnmatch(name, pattern)]
                met.update(reasons)
                if not reasons and not rules.is_valid(body):
                    accepted.append((path, name))
                continue
            assert refusal.message
            assert refusal.code, (path, name, refusal.message)
            top = name.split(" ")[0].split(".")[0]
            assert (refusal.param or "").startswith(top), (path, name, refusal.message)
    assert accepted == []
    assert walked > 500
    if PUBLISHED.exists():
        assert met == ACCEPTED.keys(), "a reason that nothing needs"


SAID: dict[str, Any] = {"role": "user", "content": "x"}
MEMORY = {f"k{number}": "v" for number in range(17)}


@pytest.mark.parametrize(
    ("path", "fields", "param"),
    [
        # What the specification says in prose.
        ("/v1/chat/completions", {"metadata": MEMORY}, "metadata"),
        ("/v1/chat/completions", {"metadata": {"k" * 65: "v"}}, "metadata"),
        ("/v1/responses", {"metadata": {"k": "v" * 513}}, "metadata.k"),
        ("/v1/responses", {"metadata": {"k": 5}}, "metadata.k"),
        ("/v1/chat/completions", {"logit_bias": {"x": 1}}, "logit_bias.x"),
        ("/v1/chat/completions", {"logit_bias": {"-1": 1}}, "logit_bias.-1"),
        ("/v1/completions", {"logit_bias": {"1": 100.5}}, "logit_bias.1"),
        ("/v1/completions", {"logit_bias": {"1": -101}}, "logit_bias.1"),
        # What has to be there, and engines would have failed at.
        ("/v1/responses", {"tools": [{"type": "function"}]}, "tools[0].name"),
        ("/v1/responses", {"tools": [{"name": "f"}]}, "tools[0].type"),
        ("/v1/responses", {"text": {"format": {"type": "json_schema", "name": "a"}}}, "text.format.schema"),
        ("/v1/responses", {"text": {"format": {"type": "json_schema", "schema": {}}}}, "text.format.name"),
        ("/v1/responses", {"input": None}, "input"),
        ("/v1/responses", {"input": [{"role": "user", "content": [{"type": "input_text"}]}]}, "input[0].content[0].text"),
        ("/v1/responses", {"input": [{"type": "function_call", "call_id": "a", "name": "f"}]}, "input[0].arguments"),
        ("/v1/responses", {"input": [{"type": "function_call_output", "call_id": "a", "output": 5}]}, "input[0].output"),
        ("/v1/messages", {"messages": [{"role": "user", "content": [{"type": "text"}]}]}, "messages[0].content[0].text"),
        ("/v1/messages", {"messages": [{"role": "user", "content": [{"type": "tool_result"}]}]}, "messages[0].content[0].tool_use_id"),
        ("/v1/messages", {"messages": [{"role": "user", "content": [{"type": "tool_use", "name": "f"}]}]}, "messages[0].content[0]"),
        ("/v1/responses", {"tools": [{"type": "function", "name": "f", "parameters": "x"}]}, "tools[0].parameters"),
        ("/v1/responses", {"tool_choice": {"type": "function"}}, "tool_choice.name"),
        ("/v1/messages", {"messages": [{"role": "user", "content": [{"type": "image", "source": "x"}]}]}, "messages[0].content[0].source"),
        ("/v1/messages", {"tool_choice": {"type": "tool"}}, "tool_choice.name"),
        ("/v1/messages", {"tool_choice": {"type": "any", "disable_parallel_tool_use": "x"}}, "tool_choice.disable_parallel_tool_use"),
        ("/v1/messages", {"thinking": {"type": "enabled", "budget_tokens": 1.5}}, "thinking.budget_tokens"),
        ("/v1/messages", {"metadata": {"user_id": 5}}, "metadata.user_id"),
        ("/v1/messages", {"tools": [{"name": "f"}]}, "tools[0].input_schema"),
        ("/v1/messages", {"tools": [{"input_schema": {}}]}, "tools[0].name"),
        ("/v1/messages", {"output_config": {"format": {"type": "json_schema"}}}, "output_config.format.schema"),
        ("/v1/chat/completions", {"response_format": {"type": "json_schema", "json_schema": {"name": "a"}}}, "response_format.json_schema.schema"),
        # As the services themselves answer it.
        *(("/v1/messages", fields, param) for fields, param in (
            ({"temperature": 1.01}, "temperature"),
            ({"top_k": -1}, "top_k"),
            ({"stop_sequences": [" "]}, "stop_sequences[0]"),
            ({"thinking": {"type": "enabled"}}, "thinking.budget_tokens"),
            ({"messages": [{"role": "user", "content": ""}]}, "messages[0].content"),
            ({"messages": [{"role": "user", "content": " \n"}]}, "messages[0].content"),
            ({"messages": [{"role": "user", "content": []}]}, "messages[0].content"),
            ({"messages": [{"role": "assistant", "content": ""}, *SOUND["/v1/messages"]["messages"]]}, "messages[0].content"),
            ({"messages": [{"role": "user", "content": [{"type": "text", "text": ""}]}]}, "messages[0].content[0].text"),
        )),
        ("/v1/responses", {"input": []}, "input"),
        ("/v1/responses", {"input": [{}]}, "input[0]"),
        ("/v1/responses", {"input": [{"role": "user"}]}, "input[0].content"),
        ("/v1/responses", {"input": [{"role": "user", "content": [{"type": "input_song"}]}]}, "input[0].content[0]"),
        ("/v1/responses", {"tool_choice": {"type": "allowed_tools", "mode": "auto", "tools": True}}, "tool_choice.tools"),
        ("/v1/rerank", {"top_n": 0}, "top_n"),
        ("/v1/rerank", {"query": ""}, "query"),
        ("/v1/rerank", {"query": " "}, "query"),
        *(("/v1/chat/completions", {"messages": [SAID, said]}, param) for said, param in (
            ({"role": "assistant"}, "messages[1].content"),
            ({"role": "assistant", "content": None, "tool_calls": []}, "messages[1].content"),
            ({"role": "assistant", "tool_calls": [{"id": "a", "type": "function"}]}, "messages[1].tool_calls[0].function"),
            ({"role": "assistant", "function_call": {"name": "f", "arguments": ""}}, "messages[1].function_call"),
            ({"role": "user", "content": [{"type": "song_url"}]}, "messages[1].content[0]"),
        )),
    ],
)  # fmt: skip
def test_what_no_schema_says_is_kept_too(path: str, fields: dict[str, Any], param: str) -> None:
    refusal = fault(path, {"model": "m", **SOUND[path], **fields})
    assert refusal is not None
    assert (refusal.param or "").startswith(param)
    assert refusal.code


@pytest.mark.parametrize(
    ("path", "fields", "param"),
    [
        ("/v1/completions", {"prompt": ""}, "prompt"),
        ("/v1/completions", {"prompt": ["a", ""]}, "prompt[1]"),
        ("/v1/completions", {"prompt": [5, 10]}, "prompt[1]"),
        ("/v1/completions", {"prompt": [[5], [1, 10]]}, "prompt[1][1]"),
        ("/v1/completions", {"prompt": "", "echo": True}, "prompt"),
        ("/v1/completions", {"prompt": "", "max_tokens": 0}, "prompt"),
        ("/v1/completions", {"prompt": "", "suffix": "x"}, None),
        ("/v1/completions", {"logit_bias": {"10": 1}}, "logit_bias.10"),
        ("/v1/completions", {"logit_bias": {"9": 1}}, None),
        ("/v1/chat/completions", {"logit_bias": {"4294967296": 1}}, "logit_bias.4294967296"),
        ("/v1/embeddings", {"input": ""}, "input"),
        ("/v1/embeddings", {"input": ["a", ""]}, "input[1]"),
        ("/v1/embeddings", {"input": [9, 10]}, "input[1]"),
    ],
)
def test_llama_cpp_is_sent_tokens_that_its_model_has(
    path: str, fields: dict[str, Any], param: str | None
) -> None:
    body = {"model": "m", **SOUND[path], **fields}
    asked = ModelContext("m", "llama.cpp", Abilities(vocabulary=10))
    table = request_tables()["llama.cpp"]
    if param is None:
        table.prepare(path, body, asked)
        return
    with pytest.raises(InvalidRequestError) as found:
        table.prepare(path, body, asked)
    assert (found.value.param, found.value.code) == (param, "invalid_value")


@pytest.mark.parametrize(
    ("path", "fields", "sent"),
    [
        ("/v1/messages", {"temperature": 1, "top_k": 0}, {"temperature": 1, "top_k": 0}),
        ("/v1/messages", {"messages": [SAID, {"role": "assistant", "content": ""}]}, {}),
        ("/v1/rerank", {"top_n": 1}, {"top_n": 1}),
        ("/v1/chat/completions",
         {"tools": [{"type": "function", "function": {"name": "f", "description": None}}]},
         {"tools": [{"type": "function", "function": {"name": "f"}}]}),
        ("/v1/responses", {"tools": [{"type": "function", "name": "f", "description": None}]},
         {"tools": [{"type": "function", "name": "f"}]}),
        ("/v1/messages", {"tools": [{"name": "f", "input_schema": {}, "description": None}]},
         {"tools": [{"name": "f", "input_schema": {}}]}),
        ("/v1/responses",
         {"input": [{"role": "assistant", "content": [{"type": "refusal", "refusal": "No."}]}, SAID]},
         {"input": [{"type": "message", "role": "assistant",
                     "content": [{"type": "output_text", "text": "No."}]}, SAID]}),
        ("/v1/chat/completions",
         {"messages": [SAID, {"role": "assistant", "content": None, "refusal": "No."}, SAID]},
         {"messages": [SAID, {"role": "assistant", "content": "No."}, SAID]}),
        ("/v1/chat/completions",
         {"messages": [{"role": "assistant", "content": [{"type": "refusal", "refusal": "No."}]}, SAID]},
         {"messages": [{"role": "assistant", "content": [{"type": "text", "text": "No."}]}, SAID]}),
    ],
)  # fmt: skip
def test_what_is_allowed_is_sent_as_llama_cpp_takes_it(
    path: str, fields: dict[str, Any], sent: dict[str, Any]
) -> None:
    schema = OPERATIONS[path].schema
    assert schema is not None
    request = parse(json.dumps({"model": "m", **SOUND[path], **fields}).encode(), schema)
    request_tables()["llama.cpp"].prepare(path, request.body, ABLE)
    assert sent.items() <= request.body.items()
