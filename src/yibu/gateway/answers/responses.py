"""What llama.cpp leaves out of the Responses API, filled in by OpenAI's specification."""

from __future__ import annotations

import time
import uuid

from yibu.engines.answers import Fields, objects
from yibu.gateway.answers.toolcalls import as_text
from yibu.gateway.answers.usage import tokens_of

_ECHOED = ("instructions", "metadata", "previous_response_id", "temperature", "top_p")
"""Fields that repeat the request's, null where it had none."""

_DETAILS = (
    ("input_tokens_details", "cached_tokens"),
    ("input_tokens_details", "cache_write_tokens"),
    ("output_tokens_details", "reasoning_tokens"),
)


def fill_response(answer: Fields, body: Fields) -> None:
    """Give a response object every field that the specification requires."""
    answer["object"] = "response"
    if answer.get("created_at") is None:
        answer["created_at"] = int(time.time())
    for item in objects(answer.setdefault("output", [])):
        fill_item(item)
    for name in ("error", "incomplete_details"):
        answer.setdefault(name, None)
    for name in _ECHOED:
        answer.setdefault(name, body.get(name))
    answer.setdefault("tools", body.get("tools", []))
    answer.setdefault("tool_choice", body.get("tool_choice", "auto"))
    answer.setdefault("parallel_tool_calls", body.get("parallel_tool_calls", True))
    counted, usage = tokens_of(answer.get("usage")), answer.get("usage")
    if counted is not None and isinstance(usage, dict):
        usage["input_tokens"], usage["output_tokens"] = counted.prompt, counted.completion
        usage["total_tokens"] = counted.prompt + counted.completion
        for details, count in _DETAILS:
            # Of what an engine does not count apart there is none.
            usage[details] = {count: 0} | (usage.get(details) or {})
    elif answer.pop("usage", None) is not None:
        answer["usage"] = None


def fill_item(item: Fields, *, whole: bool = True) -> None:
    """Complete a tool's call in place."""
    if item.get("type") == "function_call":
        item["call_id"] = item.get("call_id") or item.get("id") or f"call_{uuid.uuid4().hex[:24]}"
        item["arguments"] = as_text(item.get("arguments")) or ("{}" if whole else "")


class EventNumbers:
    """Numbers and indices of a response's events, counted where the engine gives none."""

    def __init__(self) -> None:
        self._next = 0
        self._outputs: dict[str, int] = {}
        """Each item's position in the response's output, by its id."""

    def fill(self, event: Fields) -> None:
        event.setdefault("sequence_number", self._next)
        self._next = event["sequence_number"] + 1
        item = event.get("item")
        identifier = item.get("id") if isinstance(item, dict) else event.get("item_id")
        if not isinstance(identifier, str):
            return
        index = self._outputs.setdefault(identifier, len(self._outputs))
        event.setdefault("output_index", index)
        part = event.get("part")
        if isinstance(part, dict) and part.get("type") == "output_text":
            part.setdefault("annotations", [])
            part.setdefault("logprobs", [])
        if str(event.get("type", "")).startswith(("response.content_part", "response.output_text")):
            event.setdefault("content_index", 0)
            if ".output_text." in event["type"]:
                event.setdefault("logprobs", [])
