"""Answers, for the documentation pages; engines' answers are forwarded without these models."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict


class Answer(BaseModel):
    model_config = ConfigDict(extra="allow")


class Error(BaseModel):
    message: str
    type: str
    param: str | None
    code: str | None


class ErrorAnswer(BaseModel):
    error: Error


class ModelMeta(BaseModel):
    """As llama.cpp's server has it."""

    n_ctx: int | None
    n_ctx_train: int | None
    n_params: int | None
    size: int | None


class Model(BaseModel):
    id: str
    object: Literal["model"]
    created: int
    owned_by: str
    engine: str
    state: str
    capabilities: list[str]
    max_context: int | None = None
    """Tokens a request may have; clients look for it under the two names that follow as well."""
    max_model_len: int | None = None
    context_length: int | None = None
    parent: str | None = None
    """Of a LoRA adapter: its model."""
    meta: ModelMeta | None = None


class ModelList(BaseModel):
    object: Literal["list"]
    data: list[Model]


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


class Usage(Answer):
    prompt_tokens: int
    completion_tokens: int
    total_tokens: int


class ChatMessage(Answer):
    role: Literal["assistant"]
    content: str | None
    refusal: str | None
    tool_calls: list[dict[str, Any]] | None = None


class ChatChoice(Answer):
    index: int
    message: ChatMessage
    logprobs: dict[str, Any] | None
    finish_reason: Literal["stop", "length", "tool_calls", "content_filter", "function_call"]


class ChatCompletion(Answer):
    id: str
    object: Literal["chat.completion"]
    created: int
    model: str
    choices: list[ChatChoice]
    usage: Usage


class TextChoice(Answer):
    index: int
    text: str
    logprobs: dict[str, Any] | None
    finish_reason: Literal["stop", "length", "content_filter"]


class TextCompletion(Answer):
    id: str
    object: Literal["text_completion"]
    created: int
    model: str
    choices: list[TextChoice]
    usage: Usage


class EmbeddingUsage(Answer):
    prompt_tokens: int
    total_tokens: int


class Embedding(Answer):
    object: Literal["embedding"]
    index: int
    embedding: list[float] | str


class EmbeddingList(Answer):
    object: Literal["list"]
    model: str
    data: list[Embedding]
    usage: EmbeddingUsage


class Transcription(Answer):
    text: str


class Recognized(Answer):
    result: str
