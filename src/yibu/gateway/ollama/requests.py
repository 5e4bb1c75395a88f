"""From a request of Ollama's API to one of OpenAI's. Pure."""

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
from yibu.routing import Route

Body = dict[str, Any]

CHAT, COMPLETIONS, EMBEDDINGS = "/v1/chat/completions", "/v1/completions", "/v1/embeddings"

_SAME = frozenset(
    {"temperature", "top_p", "top_k", "min_p", "typical_p", "seed", "presence_penalty",
     "frequency_penalty", "repeat_last_n", "mirostat", "mirostat_tau", "mirostat_eta"}
)  # fmt: skip
"""Options that engines know by the same name."""

_LOADING = frozenset(
    {"num_keep", "num_batch", "num_gpu", "main_gpu", "use_mmap", "use_mlock", "num_thread", "numa",
     "low_vram", "f16_kv", "vocab_only", "logits_all", "draft_num_predict", "penalize_newline",
     "embedding_only", "tfs_z"}
)  # fmt: skip
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
            raise InvalidRequestError(tr("'{name}' is not served here", name=name),
                                      hint=tr("Use {instead}", instead=instead),
                                      param=name)  # fmt: skip
    body = _common(given, route)
    prompt, images = given.get("prompt") or "", given.get("images")
    chats = "chat" in route.capabilities or not route.capabilities
    if given.get("raw") or given.get("suffix") or not chats:
        for name in ("system", "images", "think"):
            if given.get(name):
                raise InvalidRequestError(tr("'{name}' needs a chat, and this continues a text", name=name),
                                          param=name)  # fmt: skip
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
    """Whether it only wants the model to be loaded, or unloaded."""
    return not (given.get("messages") or given.get("prompt") or given.get("images")
                or given.get("suffix") or given.get("system"))  # fmt: skip


def check_kept(given: Body) -> None:
    """Refuse to unload a model.

    Raises:
        NotCapableError: that is what it asks for.
    """
    if given.get("keep_alive") in (0, 0.0, "0", "0s", "0m"):
        raise NotCapableError(tr("Models are not unloaded by a request here"),
                              hint=tr("Use: yibu down {model}", model=given["model"]), param="keep_alive")  # fmt: skip


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
    if think is not None:
        body["chat_template_kwargs"] = {"enable_thinking": bool(think)}
        if isinstance(think, str):
            body["reasoning_effort"] = think
    return body


def _given(given: Body, *names: str) -> Body:
    return {name: given[name] for name in names if given.get(name) is not None}


def _options(options: Body, route: Route) -> Body:
    """Raises InvalidRequestError: an option would change the answer, and nobody here does it."""
    body: Body = {}
    for name, value in options.items():
        if value is None:  # LangChain's embeddings send every option
            continue
        if name in _SAME:
            body[name] = value
        elif name == "stop":
            body["stop"] = value or None
        elif name == "num_predict":
            if not isinstance(value, int) or value > 0:  # else as much as there is room for
                body["max_tokens"] = value
        elif name == "repeat_penalty":  # llama.cpp's name, and vLLM's
            body |= {"repeat_penalty": value, "repetition_penalty": value}
        elif name == "num_ctx":
            _check_context(value, route)
        elif name not in _LOADING:
            raise InvalidRequestError(
                tr("There is no option {name!r} here", name=name), param=f"options.{name}"
            )
    return body


def _check_context(wanted: Any, route: Route) -> None:
    served = route.max_context
    if isinstance(wanted, int) and served is not None and wanted > served:
        raise InvalidRequestError(
            tr(
                "num_ctx {wanted} is more than the context of {served} tokens that model "
                "{model!r} is served with",
                wanted=wanted,
                served=served,
                model=route.model,
            ),
            hint=tr(
                "Ask for at most {served}, or raise the model's context in yibu.yaml", served=served
            ),
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
    """The id of the call that a tool's message answers; calls are answered in their order."""
    named = message.get("tool_name")
    for index, (name, identifier) in enumerate(waiting):
        if named in (None, name):
            del waiting[index]
            return identifier
    raise InvalidRequestError(tr("A tool's message answers no tool call before it"), param="messages",
                              hint=tr("Give it tool_name, and send the assistant's tool_calls too"))  # fmt: skip


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
            tr("Image {number} is no PNG, JPEG, WebP, GIF or BMP in base64", number=number + 1),
            param=f"images[{number}]",
        )
    return kind
