"""Anthropic's messages as its clients take them, whole and in the events of a stream."""

from __future__ import annotations

import uuid

import orjson

from yibu.engines.answers import Fields, objects
from yibu.gateway.answers.choices import finish_reason, place_of
from yibu.gateway.answers.usage import tokens_of
from yibu.messages import tr

_REASONS = frozenset({"end_turn", "max_tokens", "stop_sequence", "tool_use", "pause_turn", "refusal",
                      "model_context_window_exceeded"})  # fmt: skip
_MEANT = {"length": "max_tokens", "tool_calls": "tool_use", "content_filter": "refusal"}
"""Anthropic's stop reasons by OpenAI's finish reasons."""


def fill_message(message: Fields, model: str, *, whole: bool = True) -> None:
    """Complete a message in place; one that is not ``whole`` begins a stream."""
    message |= {"type": "message", "role": "assistant", "model": model}
    content = message.get("content")
    if isinstance(content, str):
        message["content"] = [{"type": "text", "text": content}]
    blocks = objects(message.get("content"))
    for block in blocks:
        fill_block(block)
    message.setdefault("stop_reason", None)
    message.setdefault("stop_sequence", None)
    if whole:
        fill_stop(message, model, calls=any(block.get("type") == "tool_use" for block in blocks))
    fill_usage(message)


def fill_block(block: Fields) -> None:
    """Complete a content block in place."""
    if block.get("type") == "tool_use":
        block["id"] = block.get("id") or f"toolu_{uuid.uuid4().hex[:24]}"
        given = block.get("input") or {}
        block["input"] = orjson.loads(given) if isinstance(given, str) else given
    elif block.get("type") == "thinking":
        block.setdefault("signature", "")


def fill_stop(message: Fields, model: str, *, calls: bool) -> None:
    """Say of a message, or of the delta that ends it, why it ended; ``calls``: it calls a tool.

    Raises:
        EngineAnswerError: because the engine gave it up.
    """
    reason = message.get("stop_reason")
    if reason not in _REASONS:
        reason = _MEANT.get(finish_reason(reason, model) or "stop", "end_turn")
    if reason == "end_turn":
        if message.get("stop_sequence") is not None:
            reason = "stop_sequence"
        elif calls:
            reason = "tool_use"
    message["stop_reason"] = reason


def fill_usage(holder: Fields) -> None:
    """Give a usage Anthropic's names; nothing is counted where there is none."""
    usage = holder.get("usage")
    if not isinstance(usage, dict) or "output_tokens" not in usage:
        counted = tokens_of(usage)
        holder["usage"] = {
            "input_tokens": counted.prompt if counted else 0,
            "output_tokens": counted.completion if counted else 0,
        }


class StreamedMessage:
    """The message that a stream's events add up to, as far as they can be checked by it."""

    def __init__(self, model: str) -> None:
        self._model = model
        self._blocks: list[Fields] = []
        self._begun = False
        self._read: Fields = {}
        """The prompt's token counts, which clients read at the end too."""
        self.fields: Fields = {"content": self._blocks, "stop_reason": None}

    def lacks_start(self, type_: bytes) -> bool:
        """Whether a block begins before the message: llama.cpp forgets that where the first token is
        a part of a character."""
        return not self._begun and type_ == b"content_block_start"

    def fill(self, type_: bytes, event: Fields) -> None:
        """Complete an event in place.

        Raises:
            ValueError: it belongs to what has not begun.
            EngineAnswerError: the engine gave the message up.
        """
        if type_ == b"message_start":
            self._begun = True
            usage = event["message"]["usage"]
            self._read = {key: value for key, value in usage.items() if key != "output_tokens"}
        if not self._begun and type_.startswith((b"content_block", b"message")):
            raise ValueError(tr("a message that goes on before it began"))
        if type_ == b"content_block_start":
            fill_block(event["content_block"])
            self._blocks.append(event["content_block"])
        if type_.startswith(b"content_block"):
            event["index"] = place_of(event, len(self._blocks) - 1)
            if not 0 <= event["index"] < len(self._blocks):
                raise ValueError(tr("a message that goes on before it began"))
        elif type_ == b"message_delta":
            calls = any(block.get("type") == "tool_use" for block in self._blocks)
            fill_stop(event["delta"], self._model, calls=calls)
            self.fields["stop_reason"] = event["delta"]["stop_reason"]
            counted = event.get("usage")
            event["usage"] = self._read | (
                counted if isinstance(counted, dict) else {"output_tokens": 0}
            )
        elif type_ == b"message_stop" and self.fields["stop_reason"] is None:
            raise ValueError(tr("a message that ends without a reason"))
