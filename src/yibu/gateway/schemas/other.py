"""Requests of other APIs than OpenAI's oldest, as far as every engine agrees on them.

``POST /v1/responses`` after OpenAI's specification, ``POST /v1/messages`` after Anthropic's
(https://docs.anthropic.com/en/api/messages), ``POST /v1/rerank`` after Jina's and Cohere's, ``POST /tokenize`` after
vLLM's. What stands in their messages, items and tools is the engine's to check.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from yibu.gateway.schemas.base import (
    Count,
    Effort,
    JsonObject,
    Labelled,
    ModelName,
    Natural,
    NonEmpty,
    OneOf,
    Probability,
    ResponseStreamOptions,
    Said,
    Strict,
    Temperature,
    Verbosity,
)


class InputText(Strict):
    type: Literal["input_text", "output_text"]
    text: str


class OtherInputPart(Strict):
    type: NonEmpty
    detail: Literal["low", "high", "auto", "original"] | None = None


class InputRefusal(Strict):
    type: Literal["refusal"]
    refusal: str


InputPart = Annotated[
    Any,
    OneOf("type", input_text=InputText, output_text=InputText, refusal=InputRefusal, other=OtherInputPart),
]  # fmt: skip


class Reasoned(Strict):
    """A summary of a reasoning, or its text."""

    type: NonEmpty
    text: str


class CallItem(Strict):
    type: Literal["function_call"]
    call_id: NonEmpty
    name: NonEmpty
    arguments: str


class CallOutputItem(Strict):
    type: Literal["function_call_output"]
    call_id: NonEmpty
    output: str | list[JsonObject]


class InputMessage(Strict):
    type: Literal["message"] = "message"
    role: Literal["user", "assistant", "system", "developer"]
    content: str | list[InputPart]


class ReasoningItem(Strict):
    type: Literal["reasoning"]
    summary: list[Reasoned] | None = None
    content: list[Reasoned] | None = None


class OtherItem(Strict):
    """What a service of OpenAI's has made."""

    type: NonEmpty


InputItem = Annotated[
    Any,
    OneOf("type", "message", message=InputMessage, function_call=CallItem, function_call_output=CallOutputItem,
          reasoning=ReasoningItem, other=OtherItem),
]  # fmt: skip


class ResponsesFunction(Strict):
    type: Literal["function"]
    name: NonEmpty
    description: str | None = None
    parameters: JsonObject | None = None
    strict: bool | None = None


class OtherTool(Strict):
    type: NonEmpty


ResponsesTool = Annotated[Any, OneOf("type", function=ResponsesFunction, other=OtherTool)]
Include = Literal[
    "file_search_call.results", "web_search_call.results", "web_search_call.action.sources",
    "message.input_image.image_url", "computer_call_output.output.image_url",
    "code_interpreter_call.outputs", "reasoning.encrypted_content", "message.output_text.logprobs",
]  # fmt: skip
Summary = Literal["auto", "concise", "detailed"]


class Reasoning(Strict):
    effort: Effort | None = None
    summary: Summary | None = None
    generate_summary: Summary | None = None
    context: Literal["auto", "current_turn", "all_turns"] | None = None


class JsonSchemaText(Strict):
    type: Literal["json_schema"]
    name: NonEmpty
    description: str | None = None
    schema_: JsonObject = Field(alias="schema")
    strict: bool | None = None


class PlainText(Strict):
    type: Literal["text", "json_schema", "json_object"]


TextFormat = Annotated[Any, OneOf("type", json_schema=JsonSchemaText, other=PlainText)]


class TextOptions(Strict):
    format: TextFormat | None = None
    verbosity: Verbosity | None = None


class NamedFunction(Strict):
    type: Literal["function"]
    name: NonEmpty


class AllowedResponseTools(Strict):
    type: Literal["allowed_tools"]
    mode: Literal["auto", "required"]
    tools: list[JsonObject]


ResponsesToolChoice = Annotated[
    Any, OneOf("type", function=NamedFunction, allowed_tools=AllowedResponseTools, other=OtherTool)
]


class ResponsesRequest(Labelled):
    """A response to make."""

    model: ModelName
    input: str | Annotated[list[InputItem], Field(min_length=1)]
    instructions: str | None = None
    max_output_tokens: Count | None = None
    temperature: Temperature | None = None
    top_p: Probability | None = None
    top_logprobs: Annotated[int, Field(ge=0, le=20)] | None = None
    reasoning: Reasoning | None = None
    text: TextOptions | None = None
    truncation: Literal["auto", "disabled"] | None = None
    include: list[Include] | None = None
    tools: list[ResponsesTool] | None = None
    tool_choice: Literal["none", "auto", "required"] | ResponsesToolChoice | None = None
    parallel_tool_calls: bool | None = None
    previous_response_id: str | None = None
    store: bool | None = None
    background: bool | None = None
    stream: bool | None = None
    stream_options: ResponseStreamOptions | None = None


class TextBlock(Strict):
    type: Literal["text"]
    text: Said


class Thought(Strict):
    type: Literal["thinking"]
    thinking: str
    signature: str | None = None


class ToolUse(Strict):
    type: Literal["tool_use"]
    id: NonEmpty
    name: NonEmpty
    input: JsonObject


class OtherBlock(Strict):
    """What Anthropic hosts, or a kind of an engine's own."""

    type: NonEmpty


class Base64Source(Strict):
    type: Literal["base64"]
    media_type: NonEmpty
    data: str


class ImageBlock(Strict):
    type: Literal["image"]
    source: Annotated[Any, OneOf("type", base64=Base64Source, other=OtherBlock)]


class ResultText(Strict):
    type: Literal["text"]
    text: str


ResultBlock = Annotated[Any, OneOf("type", text=ResultText, image=ImageBlock, other=OtherBlock)]


class ToolResult(Strict):
    type: Literal["tool_result"]
    tool_use_id: NonEmpty
    content: str | list[ResultBlock] | None = None
    is_error: bool | None = None


Block = Annotated[
    Any,
    OneOf(
        "type",
        text=TextBlock,
        image=ImageBlock,
        thinking=Thought,
        tool_use=ToolUse,
        tool_result=ToolResult,
        other=OtherBlock,
    ),
]


class AnthropicMessage(Strict):
    role: Literal["user", "assistant", "system"]
    content: str | list[Block]


class MessagesFunction(Strict):
    type: Literal["custom"] | None = None
    name: NonEmpty
    description: str | None = None
    input_schema: JsonObject
    strict: bool | None = None


MessagesTool = Annotated[Any, OneOf("type", "custom", custom=MessagesFunction, other=OtherTool)]


class PlainThinking(Strict):
    type: Literal["enabled", "disabled", "adaptive", "between_tools"]


class Thinking(PlainThinking):
    budget_tokens: Count


ThinkingConfig = Annotated[Any, OneOf("type", enabled=Thinking, other=PlainThinking)]


class OutputFormat(Strict):
    type: Literal["json_schema"]
    schema_: JsonObject = Field(alias="schema")


class OutputConfig(Strict):
    effort: Effort | None = None
    format: OutputFormat | None = None


class PlainToolChoice(Strict):
    type: Literal["auto", "any", "tool", "none"]
    disable_parallel_tool_use: bool | None = None


class OneToolChoice(PlainToolChoice):
    name: NonEmpty


MessagesToolChoice = Annotated[Any, OneOf("type", tool=OneToolChoice, other=PlainToolChoice)]


class MessagesMetadata(Strict):
    user_id: str | None = None


class CountTokensRequest(Strict):
    """A message whose tokens are to be counted."""

    model: ModelName
    messages: Annotated[list[AnthropicMessage], Field(min_length=1)]
    system: str | list[TextBlock] | None = None
    tools: list[MessagesTool] | None = None
    tool_choice: MessagesToolChoice | None = None
    thinking: ThinkingConfig | None = None
    output_config: OutputConfig | None = None


class MessagesRequest(CountTokensRequest):
    """A message to answer, in Anthropic's words."""

    max_tokens: Count
    stop_sequences: list[Said] | None = None
    temperature: Probability | None = None
    """At most 1, where OpenAI's is 2."""
    top_p: Probability | None = None
    top_k: Natural | None = None
    service_tier: Literal["auto", "standard_only"] | None = None
    metadata: MessagesMetadata | None = None
    stream: bool | None = None


class RerankRequest(Strict):
    """Documents to put in the order of what they have to do with a query."""

    model: ModelName
    query: Said | JsonObject
    documents: Annotated[list[str | JsonObject], Field(min_length=1)]
    top_n: Count | None = None
    return_documents: bool | None = None


class TokenizeRequest(Strict):
    """A text, or a chat, to cut into tokens; ``content`` is llama.cpp's word for ``prompt``."""

    model: ModelName
    prompt: str | None = None
    content: str | None = None
    messages: Annotated[list[JsonObject], Field(min_length=1)] | None = None
    add_special_tokens: bool | None = None


class DetokenizeRequest(Strict):
    """Tokens to put together into a text."""

    model: ModelName
    tokens: list[Natural]
