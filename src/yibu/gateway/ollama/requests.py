"""Ollama's requests translated to OpenAI's. Pure."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import orjson

from yibu.errors import InvalidRequestError
from yibu.gateway.envelope import NotCapableError
from yibu.messages import tr
from yibu.messages.validation import type_name
from yibu.routing import Route

Body = dict[str, Any]

CHAT, COMPLETIONS, EMBEDDINGS = "/v1/chat/completions", "/v1/completions", "/v1/embeddings"

_INTEGERS = frozenset(
    {"top_k", "seed", "num_predict", "num_ctx", "repeat_last_n", "mirostat", "num_keep", "num_batch",
     "num_gpu", "main_gpu", "num_thread", "draft_num_predict"}
)  # fmt: skip
"""Options that are integers. As Ollama, 1.5 is taken for 1."""

_NUMBERS = frozenset(
    {"temperature", "top_p", "min_p", "typical_p", "presence_penalty", "frequency_penalty",
     "repeat_penalty", "mirostat_tau", "mirostat_eta", "tfs_z"}
)  # fmt: skip

_SWITCHES = frozenset(
    {"use_mmap", "use_mlock", "numa", "low_vram", "f16_kv", "vocab_only", "logits_all",
     "penalize_newline", "embedding_only"}
)  # fmt: skip

_LOADING = _SWITCHES | {
    "num_keep",
    "num_batch",
    "num_gpu",
    "main_gpu",
    "num_thread",
    "draft_num_predict",
    "tfs_z",
}
"""Options for how Ollama loads a model, which is loaded here already, and those that Ollama itself
has given up: clients still send them."""

_MAGIC: Mapping[bytes, str] = MappingProxyType(
    {b"\x89PNG": "png", b"\xff\xd8\xff": "jpeg", b"GIF8": "gif", b"RIFF": "webp", b"BM": "bmp"}
)


def chat_body(given: Body, route: Route) -> tuple[str, Body]:
    """The operation's path and body for ``/api/chat``."""
    body = _common(given, route)
    body["messages"] = _messages(given.get("messages") or [])
    if given.get("tools"):
        body["tools"] = given["tools"]
    return CHAT, body


def generate_body(given: Body, route: Route) -> tuple[str, Body]:
    """The operation's path and body for ``/api/generate``: a chat of one turn, unless the text is
    to be continued as it is (``raw``, ``suffix``, or a model that does not chat)."""
    for name, instead in (
        ("template", tr("raw: true with the whole prompt")),
        ("context", "/api/chat"),
    ):
        if given.get(name):
            raise InvalidRequestError("'{name}' is not served here", name=name, instead=instead, hint="Use {instead}", param=name)  # fmt: skip
    body = _common(given, route)
    prompt, images = given.get("prompt") or "", given.get("images")
    chats = "chat" in route.capabilities or not route.capabilities
    if given.get("raw") or given.get("suffix") or not chats:
        for name in ("system", "images", "think"):
            if given.get(name):
                raise InvalidRequestError("'{name}' needs a chat, and this continues a text", name=name, param=name)  # fmt: skip
        body |= {"prompt": prompt, **_given(given, "suffix")}
        if given.get("logprobs"):
            body["logprobs"] = given.get("top_logprobs") or 0
            body.pop("top_logprobs", None)
        return COMPLETIONS, body
    messages = [{"role": "system", "content": given["system"]}] if given.get("system") else []
    body["messages"] = [*messages, {"role": "user", "content": _content(prompt, images)}]
    return CHAT, body


def embed_body(given: Body, route: Route) -> tuple[str, Body]:
    """The operation's path and body for ``/api/embed`` and ``/api/embeddings``."""
    _options(given.get("options") or {}, route)
    text = given["input"] if "input" in given else given["prompt"]
    return EMBEDDINGS, {"model": given["model"], "input": text, **_given(given, "dimensions")}


def asks_for_nothing(given: Body) -> bool:
    """Whether the request only asks to load or unload the model."""
    asking = ("messages", "prompt", "images", "suffix", "system", "input")
    return not any(map(given.get, asking))


def check_kept(given: Body) -> None:
    """Refuse to unload a model.

    Raises:
        NotCapableError: that is what it asks for.
    """
    if given.get("keep_alive") in (0, 0.0, "0", "0s", "0m"):
        raise NotCapableError("Models are not unloaded by a request here", model=given["model"], hint="Use: yibu down {model}", param="keep_alive")  # fmt: skip


def _common(given: Body, route: Route) -> Body:
    body: Body = {"model": given["model"], "stream": given.get("stream") is not False}
    if body["stream"]:
        body["stream_options"] = {"include_usage": True}
    body |= _options(given.get("options") or {}, route)
    body |= _given(given, "logprobs", "top_logprobs")
    shape = given.get("format")
    if shape == "json":
        body["response_format"] = {"type": "json_object"}
    elif shape:
        schema = {"name": "answer", "schema": shape, "strict": True}
        body["response_format"] = {"type": "json_schema", "json_schema": schema}
    think = given.get("think")
    if think and route.details.thinks is False:
        raise InvalidRequestError("Model {model!r} does not think: its chat template knows no thoughts", model=given["model"], hint="Leave 'think' out", param="think")  # fmt: skip
    if think is not None:
        # Granite's, DeepSeek's and Kimi's templates have the shorter name; each ignores the other.
        body["chat_template_kwargs"] = dict.fromkeys(("enable_thinking", "thinking"), bool(think))
        if isinstance(think, str):
            body["reasoning_effort"] = think
    return body


def _given(given: Body, *names: str) -> Body:
    return {name: given[name] for name in names if given.get(name) is not None}


def _options(options: Body, route: Route) -> Body:
    """Raises InvalidRequestError: an option would change the answer, and nobody here does it."""
    body: Body = {}
    for name, given in options.items():
        if given is None:  # LangChain's embeddings send every option
            continue
        value = _typed(name, given)
        if name == "stop":
            body["stop"] = value or None
        elif name == "num_predict":
            if value > 0:  # else as much as there is room for
                body["max_tokens"] = value
        elif name == "repeat_penalty":  # llama.cpp's name, and vLLM's
            body |= {"repeat_penalty": value, "repetition_penalty": value}
        elif name == "num_ctx":
            _check_context(value, route)
        elif name == "repeat_last_n" and value == -1:
            body[name] = route.max_context or 0
        elif name not in _LOADING:
            body[name] = value
    return body


def _typed(name: str, value: Any) -> Any:
    """The option's value, of the type that Ollama gives it.

    Raises:
        InvalidRequestError: it is of another, or there is no such option.
    """
    number = isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 2**63
    if name in _INTEGERS:
        sound, expected = number, tr("an integer")
        value = int(value) if sound else value
    elif name in _NUMBERS:
        sound, expected = number, tr("a number")
    elif name in _SWITCHES:
        sound, expected = isinstance(value, bool), tr("true or false")
    elif name == "stop":
        return value
    else:
        raise InvalidRequestError(
            "There is no option {name!r} here", name=name, param=f"options.{name}"
        )
    if not sound:
        raise InvalidRequestError(
            tr("Invalid '{param}': {what}", param=f"options.{name}",
               what=tr("expected {expected}, found {found}", expected=expected, found=type_name(value))),
            param=f"options.{name}", code="invalid_type",
        )  # fmt: skip
    return value


def _check_context(wanted: int, route: Route) -> None:
    served = route.max_context
    if served is not None and wanted > served:
        raise InvalidRequestError(
            "num_ctx {wanted} is more than the context of {served} tokens that model "
            "{model!r} is served with",
            wanted=wanted,
            served=served,
            model=route.model,
            hint="Ask for at most {served}, or raise the model's context in yibu.yaml",
            param="options.num_ctx",
        )


def _messages(given: list[Body]) -> list[Body]:
    """OpenAI's messages. Tool calls get ids where they have none, and a tool's answer the id of the
    latest unanswered call of its name."""
    messages: list[Body] = []
    waiting: list[tuple[str, str]] = []
    for number, message in enumerate(given):
        role = message["role"]
        new: Body = {"role": role, "content": message.get("content") or ""}
        if message.get("images"):
            new["content"] = _content(new["content"], message["images"])
        if message.get("thinking"):
            new["reasoning_content"] = message["thinking"]
        if message.get("tool_calls"):
            calls = [_tool_call(call, f"call_{number}_{n}")
                     for n, call in enumerate(message["tool_calls"])]  # fmt: skip
            waiting = [(call["function"]["name"], call["id"]) for call in calls]
            new["tool_calls"] = calls
        if role == "tool":
            new["tool_call_id"] = message.get("tool_call_id") or _answered(message, waiting)
        messages.append(new)
    return messages


def _tool_call(call: Body, identifier: str) -> Body:
    function = call["function"]
    arguments = orjson.dumps(function.get("arguments") or {}).decode()
    return {
        "id": call.get("id") or identifier,
        "type": "function",
        "function": {"name": function["name"], "arguments": arguments},
    }


def _answered(message: Body, waiting: list[tuple[str, str]]) -> str:
    """The id of the call that a tool's message answers, in the order of the calls."""
    named = message.get("tool_name")
    for index, (name, identifier) in enumerate(waiting):
        if named in (None, name):
            del waiting[index]
            return identifier
    raise InvalidRequestError("A tool's message answers no tool call before it", param="messages", hint="Give it tool_name, and send the assistant's tool_calls too")  # fmt: skip


def _content(text: str, images: list[str] | None) -> str | list[Body]:
    if not images:
        return text
    parts: list[Body] = [{"type": "text", "text": text}] if text else []
    for number, image in enumerate(images):
        url = f"data:image/{_image_type(image, number)};base64,{image}"
        parts.append({"type": "image_url", "image_url": {"url": url}})
    return parts


def _image_type(image: str, number: int) -> str:
    try:
        head = base64.b64decode(image[:16], validate=True)
    except (binascii.Error, ValueError):
        head = b""
    kind = next((kind for magic, kind in _MAGIC.items() if head.startswith(magic)), None)
    if kind is None:
        raise InvalidRequestError(
            "Image {number} is no PNG, JPEG, WebP, GIF or BMP in base64",
            number=number + 1,
            param=f"images[{number}]",
        )
    return kind
