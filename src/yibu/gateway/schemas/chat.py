"""``POST /v1/chat/completions``, as OpenAI's published specification has it."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from yibu.gateway.schemas.base import (
    Biases,
    Choices,
    Count,
    Effort,
    JsonObject,
    Labelled,
    ModelName,
    NonEmpty,
    OneOf,
    Penalty,
    Probability,
    Seed,
    Stop,
    StreamOptions,
    Strict,
    Temperature,
    Verbosity,
)


class TextPart(Strict):
    type: Literal["text"]
    text: str


class RefusalPart(Strict):
    type: Literal["refusal"]
    refusal: str


class ImageUrl(Strict):
    url: str
    detail: Literal["auto", "low", "high"] | None = None


class ImagePart(Strict):
    type: Literal["image_url"]
    image_url: ImageUrl


class AudioData(Strict):
    data: str
    format: str


class AudioPart(Strict):
    type: Literal["input_audio"]
    input_audio: AudioData


class FilePart(Strict):
    type: Literal["file"]
    file: JsonObject


class OtherPart(Strict):
    """A kind of part that OpenAI does not have and an engine may (``video_url``)."""

    type: str


Part = Annotated[
    Any,
    OneOf("type", text=TextPart, refusal=RefusalPart, image_url=ImagePart, input_audio=AudioPart, file=FilePart,
          other=OtherPart),
]  # fmt: skip
Parts = Annotated[list[Part], Field(min_length=1)]
Content = str | Parts


class FunctionCall(Strict):
    name: str
    arguments: str


class FunctionToolCall(Strict):
    id: str
    type: Literal["function"]
    function: FunctionCall


class CustomToolCall(Strict):
    id: str
    type: Literal["custom"]
    custom: JsonObject


class UnknownToolCall(Strict):
    type: Literal["function", "custom"]


ToolCall = Annotated[
    Any, OneOf("type", function=FunctionToolCall, custom=CustomToolCall, other=UnknownToolCall)
]


class SystemMessage(Strict):
    role: Literal["system", "developer"]
    content: Content
    name: str | None = None


class UserMessage(Strict):
    role: Literal["user"]
    content: Content
    name: str | None = None


class AssistantMessage(Strict):
    role: Literal["assistant"]
    content: Content | None = None
    name: str | None = None
    refusal: str | None = None
    audio: JsonObject | None = None
    tool_calls: list[ToolCall] | None = None
    function_call: FunctionCall | None = None


class ToolMessage(Strict):
    role: Literal["tool"]
    content: Content
    tool_call_id: str


class FunctionMessage(Strict):
    role: Literal["function"]
    content: str | None = None
    name: str


class UnknownMessage(Strict):
    """No such role; validating against this model is what says so."""

    role: Literal["developer", "system", "user", "assistant", "tool", "function"]


Message = Annotated[
    Any,
    OneOf("role", system=SystemMessage, developer=SystemMessage, user=UserMessage, assistant=AssistantMessage,
          tool=ToolMessage, function=FunctionMessage, other=UnknownMessage),
]  # fmt: skip


class Function(Strict):
    name: NonEmpty
    description: str | None = None
    parameters: JsonObject | None = None
    strict: bool | None = None


class FunctionTool(Strict):
    type: Literal["function"]
    function: Function


class Named(Strict):
    name: NonEmpty


class CustomTool(Strict):
    type: Literal["custom"]
    custom: Named


class UnknownTool(Strict):
    type: Literal["function", "custom"]


Tool = Annotated[Any, OneOf("type", function=FunctionTool, custom=CustomTool, other=UnknownTool)]


class NamedToolChoice(Strict):
    type: Literal["function"]
    function: Named


class CustomToolChoice(Strict):
    type: Literal["custom"]
    custom: Named


class AllowedTools(Strict):
    mode: Literal["auto", "required"]
    tools: list[JsonObject]


class AllowedToolsChoice(Strict):
    type: Literal["allowed_tools"]
    allowed_tools: AllowedTools


class UnknownToolChoice(Strict):
    type: Literal["function", "custom", "allowed_tools"]


ToolChoice = (
    Literal["none", "auto", "required"]
    | Annotated[
        Any,
        OneOf("type", function=NamedToolChoice, custom=CustomToolChoice, allowed_tools=AllowedToolsChoice,
              other=UnknownToolChoice),
    ]
)  # fmt: skip


class JsonSchema(Strict):
    name: NonEmpty
    description: str | None = None
    schema_: JsonObject = Field(alias="schema")
    strict: bool | None = None


class JsonSchemaFormat(Strict):
    type: Literal["json_schema"]
    json_schema: JsonSchema


class PlainFormat(Strict):
    type: Literal["text", "json_object", "json_schema", "structural_tag"]


ResponseFormat = Annotated[Any, OneOf("type", json_schema=JsonSchemaFormat, other=PlainFormat)]


class Sampled(Strict):
    """How an answer is generated: of chats and of text completions."""

    model: ModelName
    temperature: Temperature | None = None
    top_p: Probability | None = None
    n: Choices | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    stop: Stop | None = None
    frequency_penalty: Penalty | None = None
    presence_penalty: Penalty | None = None
    logit_bias: Biases | None = None
    seed: Seed | None = None
    response_format: ResponseFormat | None = None
    """OpenAI has it for chats alone, engines for text completions too."""


class ChatRequest(Labelled, Sampled):
    """A conversation to continue."""

    messages: Annotated[list[Message], Field(min_length=1)]
    max_tokens: Count | None = None
    max_completion_tokens: Count | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Field(ge=0, le=20)] | None = None
    tools: list[Tool] | None = None
    tool_choice: ToolChoice | None = None
    parallel_tool_calls: bool | None = None
    functions: Annotated[list[Function], Field(max_length=128)] | None = None
    function_call: Literal["none", "auto"] | Named | None = None
    reasoning_effort: Effort | None = None
    verbosity: Verbosity | None = None
    modalities: list[Literal["text", "audio"]] | None = None
    store: bool | None = None
