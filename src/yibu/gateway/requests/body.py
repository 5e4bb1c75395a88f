"""From a request's bytes to an engine's request: parsed, validated, normalized.

Every engine gets the same: what one would refuse and another would swallow is decided here. The
parsed body is what is forwarded, never the client's bytes, so that gateway and engine cannot
read a duplicate key differently.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import orjson
from pydantic import ValidationError

from yibu.engines.answers import objects
from yibu.engines.requests import Steps, as_object
from yibu.errors import InvalidRequestError
from yibu.gateway.requests.toolchoice import demands_call
from yibu.gateway.schemas.base import Strict, validator
from yibu.gateway.schemas.chat import ChatRequest
from yibu.gateway.schemas.other import CountTokensRequest, MessagesRequest, TokenizeRequest
from yibu.gateway.schemas.text import CompletionRequest
from yibu.messages import tr
from yibu.messages.validation import complaint, type_name

Body = dict[str, Any]

_DEPTH = 200
"""Levels of nesting in a body: orjson reads 1,024 and writes 254, and wrapping a part of it adds a few."""
_LONGEST = 1000
"""Characters of an error's message, which may quote the request."""


@dataclass(slots=True)
class JsonRequest:
    """A validated request; ``body`` is ready to be sent once the model's name is put in."""

    model: str
    body: Body
    stream: bool
    include_usage: bool
    """Whether a usage chunk was asked for at the end of the stream."""
    needs_tool_call: bool = False
    """Whether ``tool_choice`` demands a tool call, which not every engine enforces."""
    alternatives: int | None = None
    """Other tokens whose log probability is asked for beside each token's; None: not even its own."""
    size: int = 0
    """Bytes of the body as it was sent."""
    steps: Callable[[], Steps] | None = None
    """The engine answers it by several requests, or by another one."""
    written: dict[str, bytes] = field(default_factory=dict)
    """Fields that are JSON already; ``body`` has an outline of them (``heavy``). Most have none."""

    def encode(self, model: str, **fields: object) -> bytes:
        """The body for an engine that knows the model by this name, with ``fields`` put in."""
        if not self.written:
            return orjson.dumps({**self.body, **fields, "model": model})
        body = {name: value for name, value in self.body.items() if name not in self.written}
        data = orjson.dumps({**body, **fields, "model": model})
        kept = [name for name in self.written if name not in fields]
        parts = [b",%b:%b" % (orjson.dumps(name), self.written[name]) for name in kept]
        return b"".join([data[:-1], *parts, b"}"])


def parse(raw: bytes, schema: type[Strict]) -> JsonRequest:
    """Read, validate and normalize one JSON body.

    Raises:
        InvalidRequestError: with ``param`` naming the first field at fault.
    """
    raw = raw.removeprefix(
        codecs.BOM_UTF8
    )  # PowerShell and .NET write one; RFC 8259 allows to ignore it
    try:
        body = orjson.loads(raw)
    except orjson.JSONDecodeError as error:
        raise InvalidRequestError(
            tr("The request's body is not JSON: {error}", error=error)
            if raw
            else tr("The request's body is empty; a JSON object is expected"),
            code="invalid_json",
        ) from None
    if not isinstance(body, dict):
        raise InvalidRequestError(
            "The request's body is {body}; an object is expected",
            body=type_name(body),
            code="invalid_json",
        )
    _check_depth(raw, body)
    try:
        validator(schema).validate_python(body)
    except ValidationError as error:
        raise describe(error, body) from None
    _normalize(body, schema)
    options = body.get("stream_options")
    return JsonRequest(
        model=body.get("model", ""),
        body=body,
        stream=bool(body.get("stream")),
        include_usage=isinstance(options, dict) and bool(options.get("include_usage")),
        needs_tool_call=demands_call(body),
        alternatives=_alternatives(body, schema),
        size=len(raw),
    )


def _alternatives(body: Body, schema: type[Strict]) -> int | None:
    if schema is CompletionRequest:
        asked: int | None = body.get("logprobs")
        return asked
    return body.get("top_logprobs", 0) if schema is ChatRequest and body.get("logprobs") else None


def _check_depth(raw: bytes, body: Body) -> None:
    if raw.count(b"[") + raw.count(b"{") <= _DEPTH:
        return
    deeper: object = body
    for _ in range(254 - _DEPTH):
        deeper = [deeper]
    try:
        orjson.dumps(deeper)
    except orjson.JSONEncodeError:
        raise InvalidRequestError(
            "The request's body is nested more than {limit} levels deep",
            limit=_DEPTH,
            code="invalid_json",
        ) from None


def _normalize(body: Body, schema: type[Strict]) -> None:
    """Check fields that depend on each other, and drop what says nothing: nulls, empties, defaults."""
    _drop_nulls(body)
    for tool in objects(body.get("tools")):
        _drop_nulls(tool)
        _drop_nulls(as_object(tool.get("function")))
    if schema is ChatRequest:
        _normalize_chat(body)
    elif schema is CompletionRequest:
        _normalize_completion(body)
    else:
        if schema is TokenizeRequest:
            normalize_tokenize(body)
        elif schema in (MessagesRequest, CountTokensRequest):
            _check_contents(body["messages"])
        return  # of the other APIs the fields are the engine's
    if "stream_options" in body and not body.get("stream"):
        if any(value for value in body["stream_options"].values()):
            raise InvalidRequestError(
                "'stream_options' is only allowed when 'stream' is true", param="stream_options"
            )
        del body["stream_options"]
    for key in ("logit_bias", "stop"):
        if key in body and not body[key]:
            del body[key]


def _check_contents(messages: list[Body]) -> None:
    """As Anthropic: only the last message may be empty, if it is the answer to continue."""
    for index, message in enumerate(messages):
        content = message["content"]
        begun = index == len(messages) - 1 and message["role"] == "assistant"
        if not (content.strip() if isinstance(content, str) else content) and not begun:
            param = f"messages[{index}].content"
            raise InvalidRequestError(tr("'{param}' is empty", param=param), param=param)


_SAYING = ("tool_calls", "function_call", "refusal", "audio")
"""What an assistant's message may have instead of content."""


def _normalize_messages(messages: list[Body]) -> None:
    for index, message in enumerate(messages):
        if None in message.values():
            # An assistant's content stays: null is its value beside tool calls.
            _drop_nulls(message, but="content")
        if message["role"] != "assistant" or message.get("content") is not None:
            continue
        if not any(map(message.get, _SAYING)):
            param = f"messages[{index}].content"
            raise InvalidRequestError(
                tr("'{param}' is missing", param=param),
                param=param,
                code="missing_required_parameter",
            )


def _drop_nulls(fields: Body, but: str = "") -> None:
    for key in [key for key, value in fields.items() if value is None and key != but]:
        del fields[key]


def _normalize_chat(body: Body) -> None:
    _normalize_messages(body["messages"])
    if not body.get("tools"):
        body.pop("tools", None)
        if body.pop("tool_choice", "none") not in ("none", "auto"):
            raise InvalidRequestError(
                "'tool_choice' is only allowed when 'tools' are given", param="tool_choice"
            )
        body.pop("parallel_tool_calls", None)
    if not body.get("functions"):
        body.pop("functions", None)
        if body.pop("function_call", "none") not in ("none", "auto"):
            raise InvalidRequestError(
                "'function_call' is only allowed when 'functions' are given", param="function_call"
            )
    if "top_logprobs" in body and not body.get("logprobs"):
        if body["top_logprobs"]:
            raise InvalidRequestError(
                "'top_logprobs' is only allowed when 'logprobs' is true", param="top_logprobs"
            )
        del body["top_logprobs"]


def _normalize_completion(body: Body) -> None:
    best_of, n = body.get("best_of"), body.get("n", 1)
    if best_of == 0:
        del body["best_of"]
    elif best_of is not None and best_of < n:
        raise InvalidRequestError(
            "'best_of' is {best_of}; expected at least 'n', which is {n}",
            best_of=best_of,
            n=n,
            param="best_of",
        )


def describe(error: ValidationError, body: object) -> InvalidRequestError:
    """The first field at fault, in OpenAI's way: ``messages[0].content``."""
    items = error.errors(include_url=False)
    # A union's members each complain; the one that got furthest is the one that was meant.
    problems = [
        (_param(item["loc"], body), item) for item in items if item["loc"][0] == items[0]["loc"][0]
    ]
    param, first = max(problems, key=lambda problem: len(re.findall(r"[.\[]", problem[0])))
    if first["type"] == "missing":
        return InvalidRequestError(
            tr("'{param}' is missing", param=param), param=param, code="missing_required_parameter"
        )
    found: str = type_name(first["input"])
    if isinstance(first["input"], bool | int | float | str):
        found = tr("{type} {value}", type=found, value=_short(first["input"]))
    code = "invalid_type" if "type" in first["type"] else "invalid_value"
    of_it = list({item["msg"]: item for name, item in problems if name == param}.values())
    message = tr("Invalid '{param}': {what}", param=param, what=complaint(of_it, found))
    return InvalidRequestError(_clipped(message), param=param, code=code)


def _param(loc: tuple[int | str, ...], body: Any) -> str:
    """The parameter's name: ``loc`` without pydantic's names of union members, by walking the body."""
    path = ""
    for number, step in enumerate(loc):
        if isinstance(step, int):
            if not isinstance(body, list) or step >= len(body):
                continue
            body = body[step]
            path += f"[{step}]"
        elif isinstance(body, dict) and step in body:
            body = body[step]
            path += f".{step}"
        elif isinstance(body, dict) and number == len(loc) - 1 and step.isidentifier():
            path += f".{step}"  # a missing field stands last, in an object
    return _clipped(path.removeprefix("."))


def _clipped(text: str) -> str:
    return text if len(text) <= _LONGEST else text[: _LONGEST - 1] + "…"


def _short(value: object) -> str:
    if isinstance(value, str):
        value = value[:40]
    text = orjson.dumps(value).decode() if not isinstance(value, int) else str(value).lower()
    return text if len(text) <= 40 else text[:37] + "…"


def normalize_tokenize(body: Body) -> None:
    """Give the text both of its names: vLLM takes ``prompt``, llama.cpp ``content``, and llama.cpp
    cuts a text that it does not find into no tokens, without a word.

    Raises:
        InvalidRequestError: there is neither a text nor messages.
    """
    if "prompt" in body:
        body["content"] = body["prompt"]
        body.setdefault("add_special", body.get("add_special_tokens", True))
    elif "content" in body:
        body["prompt"] = body["content"]
        body.setdefault("add_special_tokens", bool(body.get("add_special")))
    elif "messages" not in body:
        raise InvalidRequestError(
            "'prompt' is missing: the text to cut into tokens; a chat goes into 'messages'",
            param="prompt",
            code="missing_required_parameter",
        )
