"""Every field of every request has a row in every engine's table: passed, done, ignored or refused."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from pydantic import TypeAdapter
from tests.support.schema_fields import fields

from yibu.engines.llama_cpp.schemas import express
from yibu.engines.registry import engines, request_tables
from yibu.engines.requests import Abilities, Body, ModelContext, RequestTable
from yibu.errors import InvalidRequestError
from yibu.gateway.operations import OPERATIONS

_BESIDE = "shared/openai/openapi.json"
SHARED = next(
    (up / _BESIDE for up in Path(__file__).parents if (up / _BESIDE).exists()), Path(_BESIDE)
)

LLAMA_CPP = request_tables()["llama.cpp"]
VLLM = request_tables()["vllm"]
SMOL = ModelContext("smol", "llama.cpp", Abilities(features=frozenset()))
CODER = ModelContext(
    "coder", "llama.cpp", Abilities(features=frozenset({"tools"}), dimensions=(64,))
)


@cache
def published() -> dict[str, frozenset[str]]:
    """The fields of each operation, as those who published it have them and as the gateway has."""
    # Half a second, which collecting the tests need not take.
    from anthropic.types import message_count_tokens_params, message_create_params

    found = {
        "/v1/messages": _of(message_create_params.MessageCreateParamsNonStreaming),
        "/v1/messages/count_tokens": _of(message_count_tokens_params.MessageCountTokensParams),
    }
    for operation in OPERATIONS.values():
        if operation.schema is not None:
            schema = operation.schema.model_json_schema()
            own = fields(schema, schema)
            found[operation.path] = found.get(operation.path, frozenset()) | own
    if SHARED.exists():
        specification = json.loads(SHARED.read_bytes())
        for path, methods in specification["paths"].items():
            if f"/v1{path}" in OPERATIONS and "post" in methods:
                content = methods["post"]["requestBody"]["content"]
                schema = next(iter(content.values()))["schema"]
                theirs = fields(schema, specification)
                found[f"/v1{path}"] = found.get(f"/v1{path}", frozenset()) | theirs
    return found


def _of(kind: Any) -> frozenset[str]:
    schema = TypeAdapter(kind).json_schema()
    return fields(schema, schema)


def served(engine: str) -> Iterator[str]:
    table = request_tables()[engine]
    return (path for path in published() if path in table.rules or "*" in table.rules)


def has_row(table: RequestTable, operation: str, field: str) -> bool:
    """Whether a row says what becomes of a field."""
    return any(
        _pattern(row.path, row.outcome).fullmatch(field)
        for row in table.rules.get(operation, table.rules.get("*", ()))
    )


@cache
def _pattern(path: str, outcome: str) -> re.Pattern[str]:
    stem = path.removesuffix("**").removesuffix(".")
    pattern = re.escape(stem).replace(r"=\*\]", r"=[^\]]*\]")
    if path == "**":
        pattern = ".*"
    elif outcome != "passed":
        pattern += r"(?:[.\[].*)?"
    elif stem != path:
        pattern += r"(?:\.[^\[]*)?"
    return re.compile(pattern)


@pytest.mark.parametrize("engine", [engine.name for engine in engines()])
def test_every_published_field_is_classified(engine: str) -> None:
    table = request_tables()[engine]
    paths = list(served(engine))
    if not paths and not SHARED.exists():
        pytest.skip("OpenAI's specification is not at hand")
    assert paths
    missing = {
        path: sorted(field for field in published()[path] if not has_row(table, path, field))
        for path in paths
    }
    assert {path: names for path, names in missing.items() if names} == {}


def test_every_operation_of_an_engine_has_a_table() -> None:
    tables = request_tables()
    text = {path for path, operation in OPERATIONS.items() if operation.schema is not None}
    assert tables["llama.cpp"].rules.keys() == text - {"/v1/score"}
    assert tables["vllm"].rules.keys() == text
    assert tables["speech"].rules.keys() == OPERATIONS.keys() - text - {"/recognize/"}


@pytest.mark.skipif(not SHARED.exists(), reason="OpenAI's specification is not at hand")
def test_the_walk_finds_what_is_deep() -> None:
    chat, responses = published()["/v1/chat/completions"], published()["/v1/responses"]
    assert "tools[type=function].function.parameters" in chat
    assert "messages[role=user].content[type=file].file.file_id" in chat
    assert "text.format[type=json_schema].schema" in responses
    assert "tools[type=mcp].server_url" in responses
    assert (
        "messages[role=user].content[type=document].source[type=url].url"
        in published()["/v1/messages"]
    )


@pytest.mark.parametrize("engine", [engine.name for engine in engines()])
def test_a_row_that_is_not_passed_says_why(engine: str) -> None:
    for rows in request_tables()[engine].rules.values():
        for row in rows:
            assert bool(row.why) == (row.outcome != "passed"), row
            assert row.path.endswith(".**") <= (row.outcome == "passed"), row


def refused(table: RequestTable, path: str, body: Body, asked: ModelContext = SMOL) -> str | None:
    """The field that is refused; None where none is."""
    try:
        table.prepare(path, body, asked)
    except InvalidRequestError as error:
        return error.param
    return None


CHAT, TEXT, RESPONSES, MESSAGES = (
    "/v1/chat/completions", "/v1/completions", "/v1/responses", "/v1/messages")  # fmt: skip
FUNCTION = {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}
NAMED = {"type": "function", "function": {"name": "g"}}
ALLOWED = {"type": "allowed_tools", "allowed_tools": {"mode": "auto", "tools": [NAMED]}}


CLAUDE_CODE = {
    "thinking": {"type": "adaptive", "display": "updates"}, "output_config": {"effort": "high"},
    "context_management": {"edits": [{"type": "clear_thinking_20251015", "keep": "all"}]},
    "diagnostics": {"previous_message_id": None}, "metadata": {"user_id": "x"}, "max_tokens": 32000,
}  # fmt: skip
"""Beside its messages, system prompt and tools."""


@pytest.mark.parametrize(
    ("path", "body", "param"),
    [
        (CHAT, {"store": True}, "store"),
        (CHAT, {"store": False, "user": "me", "service_tier": "auto", "metadata": {"a": "b"}}, None),
        (CHAT, {"modalities": ["text"]}, None),
        (CHAT, {"modalities": ["text", "audio"]}, "modalities[1]"),
        (CHAT, {"audio": {"voice": "alloy", "format": "wav"}}, "audio"),
        (CHAT, {"prediction": {"type": "content", "content": "x"}}, "prediction"),
        (CHAT, {"web_search_options": {}}, "web_search_options"),
        (CHAT, {"web_search_options": {"search_context_size": "low"}}, "web_search_options"),
        (CHAT, {"functions": [{"name": "f"}]}, "functions"),
        (CHAT, {"functions": []}, None),
        (CHAT, {"messages": [{"role": "user", "content": [{"type": "text", "text": "a"}]}]}, None),
        (
            CHAT,
            {"messages": [{"role": "user", "content": "a"}, {"role": "user", "content": [
                {"type": "text", "text": "a"}, {"type": "file", "file": {"file_id": "b"}}]}]},
            "messages[1].content[1]",
        ),
        (CHAT, {"tools": [{"type": "custom", "custom": {"name": "f"}}]}, "tools[0]"),
        (CHAT, {"top_k": 3, "min_p": 0.1, "chat_template_kwargs": {"a": 1}}, None),
        (TEXT, {"prompt": "a", "best_of": 2}, "best_of"),
        (TEXT, {"prompt": "a", "best_of": 2, "n": 2}, None),
        (RESPONSES, {"input": "a", "background": True}, "background"),
        (RESPONSES, {"input": "a", "background": False, "truncation": "auto"}, None),
        (RESPONSES, {"input": "a", "previous_response_id": "resp_1"}, "previous_response_id"),
        (RESPONSES, {"input": "a", "conversation": "conv_1"}, "conversation"),
        (RESPONSES, {"input": "a", "tools": [{"type": "web_search"}]}, "tools[0]"),
        (RESPONSES, {"input": "a", "tools": [{"type": "what_comes_next"}]}, "tools[0]"),
        (RESPONSES, {"input": "a", "include": ["reasoning.encrypted_content"]}, None),
        (RESPONSES, {"input": [{"type": "message", "role": "user", "content": "a"}]}, None),
        (RESPONSES, {"input": [{"role": "user", "content": "a"}]}, None),
        (RESPONSES, {"input": [{"type": "item_reference", "id": "a"}]}, "input[0]"),
        (MESSAGES, {"messages": [{"role": "user", "content": [{"type": "text", "text": "a"}]}]}, None),
        (
            MESSAGES,
            {"messages": [{"role": "user", "content": [{"type": "document", "source": {}}]}]},
            "messages[0].content[0]",
        ),
        (MESSAGES, {"tools": [{"type": "web_search_20250305", "name": "web_search"}]}, "tools[0]"),
        (MESSAGES, {"tools": [{"type": "custom", "name": "f", "input_schema": {}}]}, None),
        (MESSAGES, {"container": "c"}, "container"),
        (MESSAGES, CLAUDE_CODE, None),
        (MESSAGES, {"context_management": {"edits": []}}, None),
        (MESSAGES, {"context_management": {"edits": [{"type": "clear_tool_uses_20250919"}]}}, "context_management"),
        (MESSAGES, {"output_format": {"type": "json_schema", "schema": {}}}, "output_format"),
    ],
)  # fmt: skip
def test_what_the_engines_refuse(path: str, body: Body, param: str | None) -> None:
    for table in (LLAMA_CPP, VLLM):
        assert refused(table, path, json.loads(json.dumps(body)), CODER) == param


SHAPES = {
    "llama.cpp": ({"grammar", "json_schema"}, {"grammar", "json_schema"}),
    "vllm": ({"structured_outputs"}, {"structured_outputs"}),
    "sglang": ({"regex", "ebnf"}, {"regex", "ebnf", "json_schema"}),
    "lmdeploy": (set(), set()),
}
"""The names of an engine's own for an answer's shape, in chats and in text completions."""


@pytest.mark.parametrize("engine", SHAPES)
def test_a_shape_by_another_engines_name_is_refused(engine: str) -> None:
    table, asked = request_tables()[engine], ModelContext("m", engine)
    names = {"guided_json", "guided_regex", "guided_choice", "guided_grammar"}.union(
        *map(set().union, *SHAPES.values())
    )
    for path, own in zip((CHAT, TEXT), SHAPES[engine], strict=True):
        for name in names:
            value = "" if name == "grammar" else {"type": "object"}
            assert refused(table, path, {name: value}, asked) == (None if name in own else name)
            assert refused(table, path, {name: None}, asked) is None
    shaped = refused(table, TEXT, {"response_format": {"type": "json_object"}}, asked)
    assert shaped == ("response_format" if engine == "lmdeploy" else None)


def test_llama_cpp_shapes_text_completions_by_its_own_field() -> None:
    schema = {"type": "object", "properties": {"a": {"type": "string", "pattern": r"^\d$"}}}
    for shape, sent in (
        ({"type": "text"}, None),
        ({"type": "json_object"}, {"type": "object"}),
        ({"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}, schema),
    ):
        body = {"prompt": "a", "response_format": shape}
        LLAMA_CPP.prepare(TEXT, body, SMOL)
        assert body.get("json_schema") == sent
    strictly = {"name": "x", "strict": True, "schema": {"type": "string", "format": "email"}}
    wanted = {"type": "json_schema", "json_schema": strictly}
    assert (
        refused(LLAMA_CPP, TEXT, {"prompt": "a", "response_format": wanted})
        == "response_format.json_schema.schema"
    )


def test_what_a_model_can_do_decides() -> None:
    body = {"tools": [FUNCTION], "tool_choice": "required"}
    assert refused(LLAMA_CPP, CHAT, dict(body)) == "tool_choice"
    assert refused(LLAMA_CPP, CHAT, dict(body), CODER) is None
    assert refused(LLAMA_CPP, CHAT, dict(body), ModelContext("m", "llama.cpp")) is None  # not known
    assert refused(LLAMA_CPP, "/v1/embeddings", {"dimensions": 64}) == "dimensions"
    assert refused(LLAMA_CPP, "/v1/embeddings", {"dimensions": 64}, CODER) is None
    assert refused(LLAMA_CPP, "/v1/embeddings", {"dimensions": 63}, CODER) == "dimensions"
    store = ModelContext("m", "vllm", Abilities(features=frozenset({"response_store"})))
    assert refused(VLLM, RESPONSES, {"previous_response_id": "r"}, store) is None


DATA = "data:image/png;base64,iVBORw0KGgo="
SEEING = ModelContext("m", "llama.cpp", Abilities(features=frozenset({"images"})))


def _pictures(url: str) -> list[tuple[str, Body, str, str]]:
    """Requests with one picture: path, body, where the picture stands, where its address does."""
    kind, _, data = url.partition(";base64,")
    source = {"type": "base64", "media_type": kind.removeprefix("data:"), "data": data}
    if not data:
        source = {"type": "url", "url": url}
    part = {"type": "image_url", "image_url": {"url": url}}
    item = {"role": "user", "content": [{"type": "input_image", "image_url": url}]}
    image = {"type": "image", "source": source}
    result = {"type": "tool_result", "tool_use_id": "t", "content": [image]}
    first = "messages[0].content[0]"
    return [
        (CHAT, {"messages": [{"role": "user", "content": [part]}]}, first, f"{first}.image_url.url"),
        (RESPONSES, {"input": [item]}, "input[0].content[0]", "input[0].content[0].image_url"),
        (RESPONSES, {"input": [{**item, "type": "message"}]},
         "input[0].content[0]", "input[0].content[0].image_url"),
        (MESSAGES, {"messages": [{"role": "user", "content": [image]}]}, first, f"{first}.source"),
        (f"{MESSAGES}/count_tokens", {"messages": [{"role": "user", "content": [result]}]},
         f"{first}.content[0]", f"{first}.content[0].source"),
    ]  # fmt: skip


@pytest.mark.parametrize(
    "url", [DATA, "https://e.example/a.png", "http://169.254.169.254/", "file:///a"]
)
def test_llama_cpp_sees_what_is_sent_and_fetches_nothing(url: str) -> None:
    for path, body, picture, address in _pictures(url):
        assert refused(LLAMA_CPP, path, json.loads(json.dumps(body))) == picture
        seen = refused(LLAMA_CPP, path, json.loads(json.dumps(body)), SEEING)
        assert seen == (None if url == DATA else address), path
        assert refused(VLLM, path, json.loads(json.dumps(body)), ModelContext("m", "vllm")) is None


@pytest.mark.parametrize(
    ("path", "tools", "choice", "sent"),
    [
        (CHAT, [FUNCTION, NAMED], NAMED, ("required", [NAMED])),
        (CHAT, [FUNCTION, NAMED], ALLOWED, ("auto", [NAMED])),
        (CHAT, [FUNCTION], "none", ("none", [FUNCTION])),
        (
            RESPONSES,
            [{"type": "function", "name": "f"}, {"type": "function", "name": "g"}],
            {"type": "allowed_tools", "mode": "required", "tools": [{"type": "function", "name": "g"}]},
            ("required", [{"type": "function", "name": "g"}]),
        ),
        (MESSAGES, [{"name": "f"}, {"name": "g"}], {"type": "tool", "name": "g"},
         ({"type": "tool", "name": "g"}, [{"name": "g"}])),
        (MESSAGES, [{"name": "f"}], {"type": "none"}, (None, None)),
    ],
)  # fmt: skip
def test_llama_cpp_is_told_of_a_choice_in_words_that_it_knows(
    path: str, tools: list[Body], choice: Any, sent: tuple[Any, Any]
) -> None:
    body = {"tools": tools, "tool_choice": choice}
    LLAMA_CPP.prepare(path, body, CODER)
    assert (body.get("tool_choice"), body.get("tools")) == sent


@pytest.mark.parametrize(
    ("schema", "pointer"),
    [
        ({"type": "string", "pattern": "abc"}, "/pattern"),
        ({"type": "string", "pattern": "^a(?=b)$"}, "/pattern"),
        ({"type": "string", "pattern": r"^\bx$"}, "/pattern"),
        ({"type": "string", "pattern": r"^x\$"}, "/pattern"),
        ({"type": "string", "pattern": "^x$", "maxLength": 3}, "/maxLength"),
        ({"type": "string", "format": "email"}, "/format"),
        ({"type": "number", "minimum": 1}, "/minimum"),
        ({"type": "integer", "multipleOf": 2}, "/multipleOf"),
        ({"type": "integer", "minimum": 0.5}, "/minimum"),
        ({"type": "array", "items": {}, "uniqueItems": True}, "/uniqueItems"),
        ({"type": "array", "minItems": 2}, "/minItems"),
        ({"enum": ["a", "bb"], "maxLength": 1}, "/maxLength"),
        ({"properties": {"a/b": {"not": {}}}}, "/properties/a~1b/not"),
        ({"properties": {"a": {}}, "required": ["b"]}, "/required"),
        ({"properties": {"a": {}}, "minProperties": 1}, "/minProperties"),
        ({"$defs": {"d": {"if": {}, "then": {}}}, "$ref": "#/$defs/d"}, "/$defs/d/if"),
        ({"$ref": "https://example.com/s"}, "/$ref"),
        ({"anyOf": [{"type": "null"}, {"allOf": [{"type": "string"}]}]}, "/anyOf/1/allOf"),
    ],
)  # fmt: skip
def test_a_keyword_without_a_rule_is_named(schema: Body, pointer: str) -> None:
    with pytest.raises(InvalidRequestError) as found:
        express(schema, "here", SMOL)
    assert found.value.param == "here"
    assert repr(pointer) in found.value.message


def test_a_schema_that_a_grammar_can_say_passes() -> None:
    schema = {
        "title": "City",
        "type": "object",
        "properties": {
            "name": {"type": "string", "minLength": 1, "maxLength": 20, "description": "its name"},
            "age": {"type": "integer", "minimum": 0, "exclusiveMaximum": 5000},
            "size": {"type": ["number", "null"]},
            "kind": {"enum": ["town", "village"]},
            "seen": {"type": "string", "format": "date-time"},
            "tags": {
                "type": "array",
                "items": {"$ref": "#/$defs/tag"},
                "minItems": 1,
                "maxItems": 3,
            },
            "either": {"anyOf": [{"const": 1}, {"type": "boolean"}]},
        },
        "required": ["name", "age"],
        "additionalProperties": False,
        "$defs": {"tag": {"type": "string", "pattern": "^[a-z]{2}$"}},
    }
    assert express(schema, "here", SMOL) == schema


@pytest.mark.parametrize(
    ("pattern", "grammar"),
    [
        (r"^\d{3}$", r"^[0-9]{3}$"),
        (r"^[\w.]+$", r"^[A-Za-z0-9_.]+$"),
        (r"^.$", r'^[^"\\\x00-\x1F\x7F]$'),
        (r"^a\-b\/c\.d$", r"^a-b/c\.d$"),
        (r"^[\]-]$", r"^[\x5D-]$"),
    ],
)
def test_patterns_are_put_into_a_grammars_words(pattern: str, grammar: str) -> None:
    assert express({"type": "string", "pattern": pattern}, "p", SMOL)["pattern"] == grammar
