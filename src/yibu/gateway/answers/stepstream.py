"""A whole answer as the stream that was asked for, in one piece."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import orjson

from yibu.gateway.operations import Operation
from yibu.gateway.requests.body import JsonRequest

Answer = dict[str, Any]


def events(operation: Operation, request: JsonRequest, answer: Answer) -> bytes:
    """A whole answer as the stream that was asked for, in one piece."""
    if operation.kind == "messages":
        return b"".join(_message_events(answer))
    head = {key: answer[key] for key in ("id", "object", "created", "model")}
    chunks: list[Answer] = [{**head, "choices": [choice]} for choice in answer["choices"]]
    if request.include_usage:
        chunks = [{**chunk, "usage": None} for chunk in chunks]
        chunks.append({**head, "choices": [], "usage": answer.get("usage")})
    return (
        b"".join(b"data: " + orjson.dumps(chunk) + b"\n\n" for chunk in chunks)
        + b"data: [DONE]\n\n"
    )


def _message_events(message: Answer) -> Iterator[bytes]:
    """Anthropic's events: https://docs.anthropic.com/en/docs/build-with-claude/streaming."""
    usage = message["usage"]
    begun = {**message, "content": [], "stop_reason": None, "usage": {**usage, "output_tokens": 0}}
    yield _event("message_start", message=begun)
    for index, block in enumerate(message["content"]):
        empty, deltas = _block_deltas(block)
        yield _event("content_block_start", index=index, content_block=empty)
        for delta in deltas:
            yield _event("content_block_delta", index=index, delta=delta)
        yield _event("content_block_stop", index=index)
    stop = {"stop_reason": message["stop_reason"], "stop_sequence": message["stop_sequence"]}
    yield _event("message_delta", delta=stop, usage={"output_tokens": usage["output_tokens"]})
    yield _event("message_stop")


def _block_deltas(block: Answer) -> tuple[Answer, list[Answer]]:
    """A content block's beginning, and the deltas that complete it."""
    match block["type"]:
        case "tool_use":
            text = orjson.dumps(block["input"]).decode()
            return {**block, "input": {}}, [{"type": "input_json_delta", "partial_json": text}]
        case "thinking":
            text = block["thinking"]
            return {**block, "thinking": ""}, [{"type": "thinking_delta", "thinking": text}]
        case _:
            return {**block, "text": ""}, [{"type": "text_delta", "text": block["text"]}]


def _event(kind: str, **fields: Any) -> bytes:
    return b"event: %s\ndata: %s\n\n" % (kind.encode(), orjson.dumps({"type": kind, **fields}))
