"""Answers: shown by the documentation pages, and checked for engines that do not conform
(``answers/conform.py``)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field

from yibu.gateway.schemas.base import JsonObject, Natural, OneOf, Strict

Answer = Strict
Some = Field(min_length=1)


class Error(BaseModel):
    message: str
    type: str
    param: str | None
    code: str | None


class ErrorAnswer(BaseModel):
    error: Error


class RecognizeError(BaseModel):
    """As the script has it whose path this is."""

    error: str


class Health(BaseModel):
    status: Literal["ok"]


class Readiness(BaseModel):
    status: Literal["ready", "not ready", "draining"]
    models: dict[str, str] | None = None
    """Their states; for holders of a key alone, where keys are set."""


class UsageRow(BaseModel):
    group: str
    """The model, day, hour or key that the row is of."""
    requests: int
    errors: int
    prompt_tokens: int
    cached_tokens: int
    completion_tokens: int
    total_tokens: int
    audio_seconds: float
    compute_seconds: float
    estimated: int
    """Requests whose tokens the engine did not count."""


class Budget(BaseModel):
    """Tokens."""

    limit: int
    period: Literal["day", "month"]
    used: int
    resets_at: int
    """Unix seconds."""


class UsageList(BaseModel):
    object: Literal["list"]
    by: Literal["key", "model", "day", "hour"]
    key: str | None
    """Whose usage it is; null: all keys'."""
    since: int
    """Unix seconds; the hour that they are in is counted whole."""
    data: list[UsageRow]
    budget: Budget | None = None


CountedApart = dict[str, Natural] | None


class CalledFunction(Answer):
    name: str
    arguments: str


class CalledPart(Answer):
    name: str = ""
    arguments: str = ""


class Usage(Answer):
    prompt_tokens: Natural
    completion_tokens: Natural
    total_tokens: Natural
    prompt_tokens_details: CountedApart = None
    completion_tokens_details: CountedApart = None


class ChatCall(Answer):
    id: str
    type: Literal["function", "custom"]
    function: CalledFunction | None = None
    custom: JsonObject | None = None


class ChatMessage(Answer):
    role: Literal["assistant"]
    content: str | None
    refusal: str | None
    tool_calls: list[ChatCall] = Field(default_factory=list)
    function_call: CalledFunction | None = None
    annotations: list[JsonObject] = Field(default_factory=list)


class ChatLogprobs(Answer):
    content: list[JsonObject] | None
    refusal: list[JsonObject] | None


class ChatChoice(Answer):
    index: Natural
    message: ChatMessage
    logprobs: ChatLogprobs | None
    finish_reason: Literal["stop", "length", "tool_calls", "content_filter", "function_call"]


class Completed(Answer):
    """What an answer with choices has beside them."""

    id: str
    created: int
    model: str
    usage: Usage | None = None
    """Left out where the engine does not count."""
    system_fingerprint: str = ""
    service_tier: Literal["auto", "default", "flex", "scale", "priority"] | None = None


class ChatCompletion(Completed):
    object: Literal["chat.completion"]
    choices: Annotated[list[ChatChoice], Some]


class TextChoice(Answer):
    index: Natural
    text: str
    logprobs: JsonObject | None
    finish_reason: Literal["stop", "length", "content_filter"]


class TextCompletion(Completed):
    object: Literal["text_completion"]
    choices: Annotated[list[TextChoice], Some]


class CallDelta(Answer):
    index: Natural
    id: str = ""
    type: Literal["function", "custom"] = "function"
    function: CalledPart | None = None


class ChatDelta(Answer):
    role: Literal["assistant"] = "assistant"
    content: str | None = None
    refusal: str | None = None
    tool_calls: list[CallDelta] = Field(default_factory=list)
    function_call: CalledPart | None = None


class ChatChunkChoice(Answer):
    index: Natural
    delta: ChatDelta
    logprobs: ChatLogprobs | None = None
    finish_reason: Literal["stop", "length", "tool_calls", "content_filter", "function_call"] | None


class ChatChunk(Completed):
    object: Literal["chat.completion.chunk"]
    choices: list[ChatChunkChoice]


class TextChunkChoice(Answer):
    index: Natural
    text: str
    logprobs: JsonObject | None
    finish_reason: Literal["stop", "length", "content_filter"] | None


class TextChunk(Completed):
    object: Literal["text_completion"]
    choices: list[TextChunkChoice]


class EmbeddingUsage(Answer):
    prompt_tokens: Natural
    total_tokens: Natural


class Embedding(Answer):
    object: Literal["embedding"]
    index: Natural
    embedding: Annotated[list[float], Some] | Annotated[str, Some]


class EmbeddingList(Answer):
    object: Literal["list"]
    model: str
    data: Annotated[list[Embedding], Some]
    usage: EmbeddingUsage


class AnsweredText(Answer):
    type: Literal["text"]
    text: str


class AnsweredThought(Answer):
    type: Literal["thinking"]
    thinking: str
    signature: str


class AnsweredToolUse(Answer):
    type: Literal["tool_use"]
    id: str
    name: str
    input: JsonObject


class TypedBlock(Answer):
    type: str


Block = Annotated[
    Any,
    OneOf(
        "type",
        text=AnsweredText,
        thinking=AnsweredThought,
        tool_use=AnsweredToolUse,
        other=TypedBlock,
    ),
]


class AnswerUsage(Answer):
    output_tokens: Natural


class MessageUsage(AnswerUsage):
    input_tokens: Natural
    cache_creation_input_tokens: Natural | None = None
    cache_read_input_tokens: Natural | None = None


class MessageAnswer(Answer):
    id: str
    type: Literal["message"]
    role: Literal["assistant"]
    model: str
    content: list[Block]
    stop_reason: str | None
    stop_sequence: str | None
    usage: MessageUsage


class TokenCount(Answer):
    input_tokens: Natural


class FunctionCallItem(Answer):
    type: Literal["function_call"]
    call_id: str
    name: str
    arguments: str


class MessageItem(Answer):
    type: Literal["message"]
    id: str
    role: Literal["assistant"]
    status: Literal["in_progress", "completed", "incomplete"]
    content: list[TypedBlock]


ResponseItem = Annotated[
    Any, OneOf("type", message=MessageItem, function_call=FunctionCallItem, other=TypedBlock)
]


class ResponseUsage(Answer):
    input_tokens: Natural
    output_tokens: Natural
    total_tokens: Natural


class ResponseAnswer(Answer):
    id: str
    object: Literal["response"]
    created_at: float
    model: str
    status: Literal["completed", "failed", "in_progress", "cancelled", "queued", "incomplete"]
    output: list[ResponseItem]
    error: JsonObject | None
    incomplete_details: JsonObject | None
    usage: ResponseUsage | None = None


class Ranked(Answer):
    index: Natural
    relevance_score: float


class Ranking(Answer):
    results: list[Ranked]


class Score(Answer):
    index: Natural
    score: float


class ScoreList(Answer):
    data: list[Score]


class TokenList(Answer):
    tokens: list[Any]
    count: Natural


class Detokenized(Answer):
    content: str
    prompt: str


class Transcription(Answer):
    text: str


class RecognizedText(Answer):
    result: str


class MessageStart(Answer):
    message: MessageAnswer


class BlockStart(Answer):
    index: Natural
    content_block: Block


class TextPiece(Answer):
    type: Literal["text_delta"]
    text: str


class JsonPiece(Answer):
    type: Literal["input_json_delta"]
    partial_json: str


class ThoughtPiece(Answer):
    type: Literal["thinking_delta"]
    thinking: str


class BlockDelta(Answer):
    index: Natural
    delta: Annotated[
        Any,
        OneOf("type", text_delta=TextPiece, input_json_delta=JsonPiece, thinking_delta=ThoughtPiece,
              other=TypedBlock),
    ]  # fmt: skip


class MessageDelta(Answer):
    delta: JsonObject
    usage: AnswerUsage


class ResponseEvent(Answer):
    response: ResponseAnswer


class ResponseDelta(Answer):
    delta: str
    item_id: str


class ItemEvent(Answer):
    item: ResponseItem


_HELD = ("created", "queued", "in_progress", "completed", "incomplete", "failed")
_PIECES = ("output_text", "refusal", "function_call_arguments", "reasoning_text")
EVENTS: Mapping[bytes, type[Strict]] = {
    b"message_start": MessageStart,
    b"content_block_start": BlockStart,
    b"content_block_delta": BlockDelta,
    b"message_delta": MessageDelta,
    b"response.output_item.added": ItemEvent,
    b"response.output_item.done": ItemEvent,
    **{f"response.{name}".encode(): ResponseEvent for name in _HELD},
    **{f"response.{name}.delta".encode(): ResponseDelta for name in _PIECES},
}
"""Of the events that streams of Messages and Responses have, by their types."""
