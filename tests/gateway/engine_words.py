"""What vLLM 0.32 and llama.cpp (xllamacpp 2026.10.11549) really answer, shortened."""

from __future__ import annotations

from typing import Any

LLAMA_RESPONSE: dict[str, Any] = {
    "completed_at": 1795477134,
    "created_at": 1795477134,
    "id": "resp_z",
    "model": "inner",
    "object": "response",
    "output": [
        {
            "content": [
                {"type": "output_text", "annotations": [], "logprobs": [], "text": "I'm glad I"}
            ],
            "id": "msg_F",
            "role": "assistant",
            "status": "completed",
            "type": "message",
        }
    ],
    "status": "completed",
    "usage": {
        "input_tokens": 31,
        "output_tokens": 4,
        "total_tokens": 35,
        "input_tokens_details": {"cached_tokens": 24},
    },
}
_ITEM = {"id": "msg_3", "role": "assistant", "status": "in_progress", "type": "message"}
LLAMA_RESPONSE_STREAM: tuple[dict[str, Any], ...] = (
    {
        "type": "response.created",
        "response": {"id": "resp_M", "object": "response", "status": "in_progress"},
    },
    {"type": "response.output_item.added", "item": {**_ITEM, "content": []}},
    {
        "type": "response.content_part.added",
        "item_id": "msg_3",
        "part": {"type": "output_text", "text": ""},
    },
    {"type": "response.output_text.delta", "item_id": "msg_3", "delta": 'I "model":"inner"'},
    {"type": "response.output_text.done", "item_id": "msg_3", "text": 'I "model":"inner"'},
    {
        "type": "response.content_part.done",
        "item_id": "msg_3",
        "part": {
            "type": "output_text",
            "annotations": [],
            "logprobs": [],
            "text": 'I "model":"inner"',
        },
    },
    {
        "type": "response.output_item.done",
        "item": {
            "type": "message",
            "status": "completed",
            "id": "msg_3",
            "content": LLAMA_RESPONSE["output"][0]["content"],
            "role": "assistant",
        },
    },
    {"type": "response.completed", "response": {**LLAMA_RESPONSE, "id": "resp_M"}},
)
VLLM_MESSAGE: dict[str, Any] = {
    "id": "chatcmpl-8",
    "type": "message",
    "role": "assistant",
    "content": [{"type": "text", "text": "Hello"}],
    "model": "inner",
    "stop_reason": "max_tokens",
    "stop_sequence": None,
    "usage": {"input_tokens": 33, "output_tokens": 4},
}
MESSAGE_STREAM: tuple[dict[str, Any], ...] = (
    {
        "type": "message_start",
        "message": {
            **VLLM_MESSAGE,
            "content": [],
            "stop_reason": None,
            # llama.cpp: of 33 tokens 32 came from its cache
            "usage": {"cache_read_input_tokens": 32, "input_tokens": 1, "output_tokens": 0},
        },
    },
    {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
    {
        "type": "content_block_delta",
        "index": 0,
        "delta": {"type": "text_delta", "text": "My"},
    },
    {"type": "content_block_stop", "index": 0},
    {
        "type": "message_delta",
        "delta": {"stop_reason": "max_tokens", "stop_sequence": None},
        "usage": {"output_tokens": 4},
    },
    {"type": "message_stop"},
)
