"""Anthropic's messages as chat and back, for features that llama.cpp's ``/v1/messages`` lacks."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator
from typing import Any

from yibu.engines.requests import Body

_SAME = ("model", "max_tokens", "temperature", "top_p", "top_k", "chat_template_kwargs")
_STOPS = {"length": "max_tokens", "tool_calls": "tool_use"}


def chat_of(body: Body, schema: Any) -> Body:
    """A chat request for a message request whose answer is to be JSON of ``schema``, if there is one."""
    chat: Body = {key: body[key] for key in _SAME if key in body}
    chat["messages"] = list(_messages(body))
    if schema is not None:
        chat["response_format"] = {
            "type": "json_schema",
            "json_schema": {"name": "output", "strict": True, "schema": schema},
        }
    if budget := (body.get("thinking") or {}).get("budget_tokens"):
        chat["thinking_budget_tokens"] = budget
    if "stop_sequences" in body:
        chat["stop"] = body["stop_sequences"]
    if tools := body.get("tools"):
        chat["tools"] = [
            {
                "type": "function",
                "function": {
                    "name": tool["name"],
                    "description": tool.get("description", ""),
                    "parameters": tool.get("input_schema", {}),
                },
            }
            for tool in tools
        ]
        choice = body.get("tool_choice") or {}
        chat["tool_choice"] = "required" if choice.get("type") in ("any", "tool") else "auto"
        if choice.get("disable_parallel_tool_use"):
            chat["parallel_tool_calls"] = False
    return chat


def _messages(body: Body) -> Iterator[Body]:
    if system := body.get("system"):
        yield {"role": "system", "content": _text(system)}
    for message in body["messages"]:
        content = message["content"]
        if isinstance(content, str):
            yield {"role": message["role"], "content": content}
            continue
        for block in content:
            if block.get("type") == "tool_result":
                yield {
                    "role": "tool",
                    "tool_call_id": block.get("tool_use_id", ""),
                    "content": _text(block.get("content") or ""),
                }
        parts = [part for block in content if (part := _part(block))]
        calls = [_call(block) for block in content if block.get("type") == "tool_use"]
        if parts or calls:
            yield {
                "role": message["role"],
                "content": parts or "",
                **({"tool_calls": calls} if calls else {}),
            }


def _text(content: Any) -> str:
    if isinstance(content, str):
        return content
    return "".join(block.get("text", "") for block in content if block.get("type") == "text")


def _part(block: Body) -> Body | None:
    if block.get("type") == "text":
        return {"type": "text", "text": block.get("text", "")}
    if block.get("type") != "image":
        return None
    source = block.get("source") or {}
    url = source.get("url") or f"data:{source.get('media_type')};base64,{source.get('data')}"
    return {"type": "image_url", "image_url": {"url": url}}


def _call(block: Body) -> Body:
    arguments = json.dumps(block.get("input") or {}, ensure_ascii=False)
    return {
        "id": block.get("id", ""),
        "type": "function",
        "function": {"name": block.get("name", ""), "arguments": arguments},
    }


def message_of(chat: Body) -> Body:
    """A chat's answer as a message."""
    choice = chat["choices"][0]
    message = choice["message"]
    content: list[Body] = []
    if thought := message.get("reasoning_content"):
        content.append({"type": "thinking", "thinking": thought, "signature": ""})
    if text := message.get("content"):
        content.append({"type": "text", "text": text})
    for call in message.get("tool_calls") or ():
        function = call["function"]
        content.append(
            {
                "type": "tool_use",
                "id": call["id"],
                "name": function["name"],
                "input": json.loads(function["arguments"] or "{}"),
            }
        )
    usage = chat["usage"]
    cached = (usage.get("prompt_tokens_details") or {}).get("cached_tokens", 0)
    return {
        "id": f"msg_{uuid.uuid4().hex}",
        "type": "message",
        "role": "assistant",
        "content": content,
        "model": chat.get("model"),
        "stop_reason": _STOPS.get(choice.get("finish_reason"), "end_turn"),
        "stop_sequence": None,
        "usage": {
            "input_tokens": usage["prompt_tokens"] - cached,
            "cache_read_input_tokens": cached,
            "output_tokens": usage["completion_tokens"],
        },
    }
