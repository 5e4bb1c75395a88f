"""Prompts and answers in the form of the GenAI conventions (``gen_ai.input.messages``), for traces that
ask for them. Pictures and sound are named, not copied."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

Fields = dict[str, Any]


def input_messages(body: Mapping[str, Any]) -> list[Fields]:
    """What a request asks: of chats, Messages, Responses, text completions and embeddings."""
    messages = body.get("messages")
    if isinstance(messages, list):
        system = [{"role": "system", "content": body["system"]}] if body.get("system") else []
        return [_message(one) for one in [*system, *messages] if isinstance(one, dict)]
    asked = next((body[name] for name in ("input", "prompt") if body.get(name)), None)
    if isinstance(asked, list) and asked and all(isinstance(one, dict) for one in asked):
        return [_message(one) for one in asked]
    texts = asked if isinstance(asked, list) else [asked]
    parts = [_text(text) for text in texts if isinstance(text, str)]
    return [{"role": "user", "parts": parts}] if parts else []


def output_messages(choices: Sequence[Mapping[str, Any]]) -> list[Fields]:
    """What a model answered, a message a choice."""
    found = []
    for choice in choices:
        message = choice.get("message")
        said = message if isinstance(message, dict) else {"content": choice.get("text")}
        reason = {"finish_reason": str(choice.get("finish_reason") or "")}
        found.append(_message({"role": "assistant", **said}) | reason)
    return found


def _message(message: Mapping[str, Any]) -> Fields:
    content, role = message.get("content"), str(message.get("role") or "user")
    parts: list[Fields] = []
    reasoning = message.get("reasoning_content") or message.get("reasoning")
    if isinstance(reasoning, str):
        parts.append({"type": "reasoning", "content": reasoning})
    if role == "tool":
        call = message.get("tool_call_id")
        parts.append({"type": "tool_call_response", "id": call, "response": content})
    elif isinstance(content, str):
        parts.append(_text(content))
    elif isinstance(content, list):
        parts += [_part(one) for one in content if isinstance(one, dict)]
    for call in message.get("tool_calls") or ():
        function = call.get("function") or {}
        parts.append({"type": "tool_call", "id": call.get("id"), "name": function.get("name"),
                      "arguments": function.get("arguments")})  # fmt: skip
    return {"role": role, "parts": parts}


def _part(part: Mapping[str, Any]) -> Fields:
    text = part.get("text")
    return _text(text) if isinstance(text, str) else {"type": str(part.get("type") or "unknown")}


def _text(text: str) -> Fields:
    return {"type": "text", "content": text}
