"""A whole answer collected from a stream of chunks.

For engines whose whole answers lack what their streams have: llama.cpp counts the tokens of the first
choice alone.
"""

from __future__ import annotations

from typing import Any

import orjson

from yibu.engines.answers import objects
from yibu.gateway.answers.sse import EventReader, parse_event

Fields = dict[str, Any]

_JOINED = ("content", "reasoning_content", "reasoning", "refusal")
"""Texts that a chat's deltas carry in pieces."""


class AnswerCollector:
    """``feed`` it what a ``ChunkNormalizer`` with a usage sends; ``answer`` is the whole."""

    def __init__(self, kind: str) -> None:
        self._kind = kind
        self._reader = EventReader()
        self._shell: Fields = {}
        self._choices: dict[int, Fields] = {}

    def feed(self, data: bytes) -> None:
        for block in self._reader.blocks(data):
            _, event = parse_event(block)
            if event is not None and event != b"[DONE]":
                self._add(orjson.loads(event))

    def answer(self) -> Fields:
        """The answer, its choices in order."""
        choices = [self._choices[index] for index in sorted(self._choices)]
        self._shell.pop("object", None)
        return {**self._shell, "choices": choices}

    def _add(self, chunk: Fields) -> None:
        self._shell |= {name: value for name, value in chunk.items() if name != "choices"}
        for part in objects(chunk.get("choices")):
            index = part["index"]
            choice = self._choices.setdefault(index, {"index": index, "finish_reason": None})
            choice["finish_reason"] = part.get("finish_reason") or choice["finish_reason"]
            _extend_logprobs(choice, part.get("logprobs"))
            if self._kind == "completions":
                choice["text"] = choice.get("text", "") + part["text"]
            else:
                _extend_message(choice.setdefault("message", {}), part.get("delta") or {})


def _extend_logprobs(choice: Fields, logprobs: object) -> None:
    if not isinstance(logprobs, dict):
        choice.setdefault("logprobs", None)
        return
    whole = choice.get("logprobs") or {}
    for name, values in logprobs.items():
        whole[name] = [*(whole.get(name) or []), *values] if isinstance(values, list) else values
    choice["logprobs"] = whole


def _extend_message(message: Fields, delta: Fields) -> None:
    for name, value in delta.items():
        if name == "tool_calls":
            _extend_calls(message.setdefault("tool_calls", []), objects(value))
        elif name in _JOINED and isinstance(value, str):
            message[name] = (message.get(name) or "") + value
        elif value is not None:
            message[name] = value


def _extend_calls(calls: list[Fields], deltas: list[Fields]) -> None:
    for delta in deltas:
        if delta["index"] >= len(calls):
            calls.append({name: value for name, value in delta.items() if name != "index"})
        else:
            function = calls[delta["index"]]["function"]
            function["arguments"] += (delta.get("function") or {}).get("arguments") or ""
