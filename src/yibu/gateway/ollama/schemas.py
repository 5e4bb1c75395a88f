"""Requests of Ollama's API."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field

from yibu.gateway.schemas.base import JsonObject, NonEmpty, Strict
from yibu.messages import tr

Name = Annotated[
    NonEmpty, Field(description="A name that `/api/tags` lists; `:latest` is ignored.")
]
Images = list[str] | None
"""In base64."""
_DURATION = re.compile(r"[-+]?(0|([0-9]+\.?[0-9]*|\.[0-9]+)(ns|us|µs|μs|ms|s|m|h))+")


def _duration(text: str) -> str:
    if not _DURATION.fullmatch(text):
        raise ValueError(tr("expected seconds or a duration such as 5m"))
    return text


KeepAlive = Annotated[str, AfterValidator(_duration)] | float | None
"""As Go reads it. Accepted: how long a model stays is the node's business (yibu.yaml)."""


class OllamaToolFunction(Strict):
    name: NonEmpty
    arguments: JsonObject | None = None


class OllamaToolCall(Strict):
    id: str | None = None
    function: OllamaToolFunction


class OllamaMessage(Strict):
    role: Literal["system", "user", "assistant", "tool"]
    content: str | None = None
    thinking: str | None = None
    images: Images = None
    tool_calls: list[OllamaToolCall] | None = None
    tool_name: str | None = None
    tool_call_id: str | None = None


class OllamaRequest(Strict):
    model: Name
    stream: bool | None = None
    """True when left out."""
    options: JsonObject | None = None
    format: Literal["", "json"] | JsonObject | None = None
    keep_alive: KeepAlive = None
    think: bool | Literal["low", "medium", "high", "max"] | None = None
    logprobs: bool | None = None
    top_logprobs: int | None = None


class OllamaChat(OllamaRequest):
    messages: list[OllamaMessage] | None = None
    tools: list[JsonObject] | None = None


class OllamaGenerate(OllamaRequest):
    prompt: str | None = None
    suffix: str | None = None
    system: str | None = None
    template: str | None = None
    context: list[int] | None = None
    raw: bool | None = None
    images: Images = None


class OllamaEmbed(Strict):
    model: Name
    input: str | list[str]
    truncate: bool | None = None
    """A longer input than the model takes is refused either way, never cut in silence."""
    dimensions: int | None = None
    keep_alive: KeepAlive = None
    options: JsonObject | None = None


class OllamaEmbeddings(Strict):
    """The older ``/api/embeddings``."""

    model: Name
    prompt: str
    keep_alive: KeepAlive = None
    options: JsonObject | None = None


class ShowRequest(Strict):
    model: str | None = None
    name: str | None = None
    """Its older name."""
    verbose: bool | None = None


class Listed(Strict):
    """A model in ``/api/tags`` and ``/api/ps``."""

    name: str
    model: str
    modified_at: str
    size: int
    digest: str
    details: dict[str, Any]


class Tags(Strict):
    models: list[Listed]


class Version(Strict):
    version: str
