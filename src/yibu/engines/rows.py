"""Rows of request tables shared by engines of language models."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

from yibu.engines.requests import (
    Body,
    Call,
    ModelContext,
    Rule,
    Steps,
    done,
    ignored,
    passed,
    refusal,
    refused,
)
from yibu.engines.tool_choice import choose_tools
from yibu.messages import tr

MODEL = tr("the name that the engine knows the model by")
CHOSEN = tr("the tools that it allows are sent; a name that is not there is a 400")
_IDS = tr("an id of OpenAI's, which says nothing to a model")
_ANTHROPIC = tr(
    "It is a service of Anthropic's, which no engine has. Give a tool with an 'input_schema'"
)
_PART = "messages[role=*].content"
_SAMPLING = ("temperature", "top_p", "max_tokens", "stream", "stop", "seed", "stream_options",
             "stream_options.include_usage")  # fmt: skip


ACCOUNTING = (
    *ignored(tr("says who asks, for OpenAI's own accounting"), "user", "safety_identifier"),
    *ignored(tr("labels of the caller's own, which nothing here stores"), "metadata"),
    *ignored(tr("how fast OpenAI serves it, and at what price"), "service_tier"),
    *ignored(
        tr("how OpenAI caches prompts; engines cache them of their own accord"),
        "prompt_cache_key",
        "prompt_cache_options",
        "prompt_cache_retention",
    ),
    *ignored(tr("a hint on the answer's length that only OpenAI's models know"), "verbosity"),
    *refused(
        tr("Nothing is stored here. Leave 'store' out, or send false"), "store", unless=(False,)
    ),
    *refused(tr("OpenAI's moderation service is not here. Leave it out"), "moderation"),
)
"""Of chat completions and responses."""

STREAM = (
    *ignored(tr("padding against eavesdroppers; nothing of it is in the text"), "stream_options.include_obfuscation"),
)  # fmt: skip

HOSTED = tr(
    "It is a service of OpenAI's, which no engine has. Give a tool of type 'function' "
    "that your own program carries out"
)
STATE = tr("Responses are not kept here. Send the whole conversation as 'input'")
_SHAPES = ("guided_json", "guided_regex", "guided_choice", "guided_grammar", "structured_outputs", "regex", "ebnf",
           "grammar", "json_schema", "response_format")  # fmt: skip
"""Engines' names for the shape that an answer must have. Without it the answer is any text."""
FORMATS = tuple(
    f"response_format[type={kind}].**"
    for kind in ("text", "json_object", "json_schema", "structural_tag")
)
_NO_EDITS: tuple[Body, ...] = (
    {"edits": []},
    {"edits": [{"type": "clear_thinking_20251015", "keep": "all"}]},
)
"""What Claude Code sends for a conversation that is to stay as it is."""

EMBEDDINGS = (
    *done(MODEL, "model"),
    *passed("input", "encoding_format", "dimensions"),
    *ignored(tr("says who asks"), "user"),
)
RERANK = (
    *done(MODEL, "model"),
    *passed("query", "documents", "top_n"),
    *done(tr("each result with its document, or none with it"), "return_documents"),
)
TOKENS = {
    "/tokenize": (
        *done(MODEL, "model"),
        *passed("prompt", "messages", "add_special_tokens"),
        *done(tr("either name"), "content"),
    ),
    "/detokenize": (*done(MODEL, "model"), *passed("tokens")),
}
"""As vLLM and SGLang have them."""


def varied(base: Sequence[Rule], *more: Rule, without: Sequence[str] = ()) -> tuple[Rule, ...]:
    """The rows of a table with some replaced by path, and some left out."""
    paths = {row.path for row in more}.union(without)
    return (*(row for row in base if row.path not in paths), *more)


def _cache(title: str, *paths: str) -> tuple[Rule, ...]:
    return ignored(tr("{title} caches prompts of its own accord", title=title), *paths)


def shapes(title: str, *own: str) -> tuple[Rule, ...]:
    """Of chat and text completions: the names that an engine knows are ``own``."""
    why = (
        tr("{title} does not know it. Use {own}", title=title, own=", ".join(own)) if own
        else tr("{title} gives answers a shape in /v1/chat/completions alone", title=title)
    )  # fmt: skip
    others = [name for name in _SHAPES if name not in own]
    return (*passed(*own), *refused(why, *others))


def _tools(title: str) -> tuple[Rule, ...]:
    return (
        *passed("tools", "tools[type=function].**", "tool_choice", "tool_choice[type=function].**"),
        *done(CHOSEN, "tool_choice[type=allowed_tools]"),
        *refused(tr("{title}'s tools take JSON. Use a tool of type 'function'", title=title), "tools[type=custom]",
                 "tool_choice[type=custom]"),
    )  # fmt: skip


def chat(title: str) -> tuple[Rule, ...]:
    """Rows of /v1/chat/completions: text, images and functions."""
    return (
        *done(MODEL, "model"),
        *passed(*_SAMPLING, "n"),
        *STREAM,
        *ACCOUNTING,
        *passed("messages", "messages[role=*].**", f"{_PART}[type=text].**", f"{_PART}[type=image_url].**",
                "messages[role=assistant].tool_calls[type=function].**"),
        *_cache(title, f"{_PART}[type=text].prompt_cache_breakpoint",
                f"{_PART}[type=image_url].prompt_cache_breakpoint"),
        *refused(tr("{title} reads no files. Send their text", title=title), f"{_PART}[type=file]"),
        *refused(tr("Send it as a part of type 'text'"), f"{_PART}[type=refusal]"),
        *refused(tr("{title}'s tools take JSON. Use a tool of type 'function'", title=title),
                 "messages[role=assistant].tool_calls[type=custom]"),
        *refused(tr("{title} writes text alone. Ask for the modality 'text'", title=title), "messages[role=assistant].audio",
                 "audio", "modalities[=audio]"),
        *ignored(tr("it writes text, whatever is asked"), "modalities", "modalities[=text]"),
        *passed("max_completion_tokens", "logprobs", "top_logprobs", "reasoning_effort", "parallel_tool_calls",
                "response_format[type=text].**", "response_format[type=json_object].**",
                "response_format[type=json_schema].**"),
        *_tools(title),
        *refused(tr("{title} knows 'tools' and 'tool_choice', which took their place. Use those", title=title), "functions",
                 "function_call"),
        *refused(tr("{title} predicts nothing from a draft in the request. Leave it out", title=title), "prediction"),
        *refused(HOSTED, "web_search_options"),
    )  # fmt: skip


def completions(title: str) -> tuple[Rule, ...]:
    return (
        *done(MODEL, "model"),
        *passed(*_SAMPLING, "prompt", "logprobs"),
        *STREAM,
        *ACCOUNTING,
        *refused(tr("{title} fills nothing in. Write the model's own tokens for it into 'prompt'", title=title), "suffix"),
    )  # fmt: skip


def responses(title: str) -> tuple[Rule, ...]:
    """Rows of /v1/responses: text and functions, nothing stored."""
    message, output = "input[type=message]", "input[type=function_call_output]"
    return (
        *done(MODEL, "model"),
        *ACCOUNTING,
        *STREAM,
        *passed("input", "input.**", "input.content[type=input_text].**", "input.content[type=output_text].**",
                "tools.type", "tool_choice.type", "tool_choice.mode", "instructions", "temperature", "top_p", "max_output_tokens", "stream",
                "stream_options", "parallel_tool_calls", "include", f"{message}.**",
                f"{message}.content[type=input_text].**", f"{message}.content[type=output_text].**",
                "input[type=function_call].**", f"{output}.**", f"{output}.output[type=input_text].**"),
        *ignored(_IDS, f"{message}.phase", "input[type=function_call].caller", f"{output}.caller",
                 "input[type=function_call].namespace", f"{output}.namespace"),
        *ignored(tr("notes on an answer that was given"), f"{message}.content[type=output_text].annotations",
                 f"{message}.content[type=output_text].logprobs"),
        *_cache(title, f"{message}.content[type=input_text].prompt_cache_breakpoint",
                f"{output}.output[type=input_text].prompt_cache_breakpoint"),
        *refused(tr("{title} reads no files. Send their text", title=title), f"{message}.content[type=input_file]",
                 f"{output}.output[type=*]"),
        *refused(tr("Send it as a part of type 'output_text'"), f"{message}.content[type=refusal]"),
        *refused(STATE, "previous_response_id", "background", unless=(False,)),
        *refused(STATE, "conversation", "input[type=item_reference]", "context_management",
                 "input[type=compaction]", "input[type=compaction_trigger]"),
        *refused(tr("Prompts of OpenAI's are not here. Write it into 'instructions' and 'input'"), "prompt"),
        *ignored(tr("a limit on calls of hosted tools"), "max_tool_calls"),
        *ignored(tr("what is shown of a reasoning, which models here show whole"), "reasoning.summary",
                 "reasoning.generate_summary", "reasoning.context", "reasoning.mode"),
        *ignored(tr("a hint on the answer's length that only OpenAI's models know"), "text.verbosity"),
        *passed("reasoning", "text", "text.format", "text.format[type=text].**",
                "text.format[type=json_schema].**", "text.format[type=json_object].**"),
        *_tools(title),
        *ignored(tr("how OpenAI's hosted programs call it"), "tools[type=function].allowed_callers",
                 "tools[type=function].defer_loading", "tools[type=function].output_schema"),
        *refused(tr("{title}'s tools take JSON. Use a tool of type 'function'", title=title), "input[type=custom_tool_call]",
                 "input[type=custom_tool_call_output]"),
        *refused(HOSTED, "tools[type=*]", "tool_choice[type=*]", "input[type=*]"),
    )  # fmt: skip


def message_parts(title: str, *, images_in_results: bool = False) -> tuple[Rule, ...]:
    """Rows of /v1/messages and count_tokens: parts of messages, system prompts and tools."""
    result = f"{_PART}[type=tool_result]"
    holders = [_PART, f"{result}.content"] if images_in_results else [_PART]
    images = [f"{holder}[type=image]" for holder in holders]
    return (
        *done(MODEL, "model"),
        *passed("messages", "messages[role=*].**", f"{_PART}[type=text].**", f"{_PART}[type=thinking].**",
                f"{_PART}[type=tool_use].**", f"{result}.**", f"{result}.content[type=text].**",
                *(f"{image}{below}.**" for image in images
                  for below in ("", ".source[type=base64]", ".source[type=url]"))),
        *ignored(tr("only Anthropic can read it"), f"{_PART}[type=redacted_thinking]"),
        *ignored(tr("who called the tool, of what Anthropic hosts"), f"{_PART}[type=tool_use].caller"),
        *_cache(title, f"{_PART}[type=text].cache_control", *(f"{image}.cache_control" for image in images),
                f"{_PART}[type=tool_use].cache_control", f"{result}.cache_control",
                f"{result}.content[type=text].cache_control", "system[type=text].cache_control",
                "cache_control", "tools.cache_control"),
        *ignored(tr("where a text was taken from"), f"{_PART}[type=text].citations",
                 f"{result}.content[type=text].citations", "system[type=text].citations"),
        *refused(tr("{title} reads no files. Send their text", title=title),
                 *(f"{image}.source[type=file]" for image in images)),
        *refused(tr("{title} reads text, images, thoughts and tools' calls and results. Send its text", title=title),
                 f"{_PART}[type=*]", f"{result}.content[type=*]"),
        *refused(_ANTHROPIC, "tools[type=*]"),
        *passed("system", "system[type=text].**", "tools", "tools.**", "tools.input_schema[type=object].**",
                "tools[type=custom].**"),
        *ignored(tr("how Anthropic's hosted programs call it"), "tools.allowed_callers", "tools.defer_loading",
                 "tools.eager_input_streaming"),
        *refused(tr("{title} puts no examples into the prompt. Write them into the description", title=title),
                 "tools.input_examples"),
    )  # fmt: skip


def counted(title: str, *, images_in_results: bool = False) -> tuple[Rule, ...]:
    """Rows of /v1/messages/count_tokens, and of /v1/messages too."""
    return (
        *message_parts(title, images_in_results=images_in_results),
        *passed("tool_choice", "tool_choice[type=auto].**", "tool_choice[type=any].**",
                "tool_choice[type=tool].**", "tool_choice[type=none].**"),
        *ignored(tr("says who asks, or where and how fast Anthropic serves it"), "metadata", "user_profile_id",
                 "workspace_id", "inference_geo", "service_tier", "speed"),
    )  # fmt: skip


def messages(title: str, counted_rows: Sequence[Rule] = ()) -> tuple[Rule, ...]:
    """``counted_rows``: those of /v1/messages/count_tokens, where they are not :func:`counted`."""
    return (
        *(counted_rows or counted(title)),
        *passed("max_tokens", "stop_sequences", "stream", "temperature", "top_k", "top_p"),
        *refused(
            tr("Anthropic's containers are not here. Leave it out"), "container", "mcp_servers"
        ),
        *refused(tr("Nothing edits a conversation here. Send it as the model is to read it"), "context_management",
                 unless=_NO_EDITS),
        *ignored(tr("asks why Anthropic's cache missed"), "diagnostics"),
        *refused(tr("Use 'output_config', whose 'format' is the same object"), "output_format"),
    )  # fmt: skip


def prepare_tools(body: Body, asked: ModelContext) -> None:
    """Reduce the tools to those that ``tool_choice`` allows.

    Raises:
        InvalidRequestError: it demands a call of a model whose template knows no tools.
    """
    choice = body.get("tool_choice")
    if isinstance(choice, dict) and choice.get("type") == "allowed_tools":
        body["tool_choice"] = choose_tools(body, asked)
    elif isinstance(choice, dict):
        choose_tools(dict(body), asked)  # a name that is not there is refused; the engine chooses


def prepare_best_of(body: Body, asked: ModelContext) -> None:
    """Raises InvalidRequestError where ``best_of`` is larger than the number of answers."""
    best_of = body.pop("best_of", None)
    if best_of is not None and best_of > body.get("n", 1):
        raise refusal(
            "best_of", tr("Ask for 'n' answers and 'logprobs', and choose among them"), asked
        )


def prepare_rerank(body: Body, asked: ModelContext) -> Callable[[], Steps] | None:  # noqa: ARG001
    wanted = body.pop("return_documents", None)
    return None if wanted is None else partial(_rerank, body, wanted=wanted)


def _rerank(body: Body, *, wanted: bool) -> Steps:
    """Results with the documents that were sent, as Jina and Cohere write them, or without any."""
    answer = yield Call("/v1/rerank", body)
    for result in answer["results"]:
        result.pop("document", None)
        if wanted:
            sent = body["documents"][result["index"]]
            result["document"] = {"text": sent} if isinstance(sent, str) else sent
    return answer
