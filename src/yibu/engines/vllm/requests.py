"""How vLLM (0.32) treats each field of a request.

Read in its request models (``vllm/entrypoints/openai/*/protocol.py``, ``anthropic/protocol.py``): they take
every field and drop, with a line in the log, those that they do not declare.
"""

from __future__ import annotations

from yibu.engines import rows
from yibu.engines.requests import (
    Body,
    ModelContext,
    RequestTable,
    as_object,
    done,
    ignored,
    passed,
    refused,
)
from yibu.messages import tr

TOOL_SERVER = "tool_server"
"""The feature of a vLLM started with ``--tool-server``: it runs hosted tools."""
RESPONSE_STORE = "response_store"
"""The feature of a vLLM with VLLM_ENABLE_RESPONSES_API_STORE=1: it stores responses."""

_FILES = tr("vLLM reads no files. Send their text")
_CACHE = tr("vLLM caches prompts of its own accord")
_PART = "messages[role=*].content"
_MESSAGE = "input[type=message].content"
_SAMPLING = passed("n", "frequency_penalty", "presence_penalty", "logit_bias")

_CHAT = rows.varied(
    rows.chat("vLLM"),
    *_SAMPLING,
    *rows.shapes("vLLM", "response_format", "structured_outputs"),
    *passed(f"{_PART}[type=input_audio].**", f"{_PART}[type=refusal].**", "modalities",
            "modalities[=text]", "response_format[type=structural_tag].**"),
    *ignored(_CACHE, f"{_PART}[type=input_audio].prompt_cache_breakpoint"),
    without=(f"{_PART}[type=refusal]",),
)  # fmt: skip

_COMPLETIONS = rows.varied(
    rows.completions("vLLM"),
    *_SAMPLING,
    *rows.shapes("vLLM", "response_format", "structured_outputs"),
    *passed("echo", *rows.FORMATS),
    *done(tr("as many as 'n' is what comes anyway; more is a 400"), "best_of"),
    *refused(tr("vLLM fills nothing in. Write the model's own tokens for it into 'prompt', or use llama.cpp"), "suffix"),
)  # fmt: skip

_RESPONSES = rows.varied(
    rows.responses("vLLM"),
    *passed("reasoning.effort", "top_logprobs", "truncation", f"{_MESSAGE}[type=refusal].**",
            f"{_MESSAGE}[type=input_image].**", "input[type=reasoning].**",
            "input[type=reasoning].summary[type=summary_text].**",
            "input[type=reasoning].content[type=reasoning_text].**"),
    *ignored(_CACHE, f"{_MESSAGE}[type=input_image].prompt_cache_breakpoint"),
    *refused(_FILES, f"{_MESSAGE}[type=input_image].file_id"),
    *refused(rows.STATE, "previous_response_id", "background", unless=(False,), needs=RESPONSE_STORE),
    *done("by vLLM's structured_outputs", "text.format[type=json_object]"),
    *refused(rows.HOSTED, "tools[type=*]", "tool_choice[type=*]", "input[type=*]", needs=TOOL_SERVER),
    without=(f"{_MESSAGE}[type=refusal]", "text.format[type=json_object].**"),
)  # fmt: skip

_COUNTED = rows.varied(
    rows.counted("vLLM", images_in_results=True),
    *refused(tr("vLLM does not hold a model to one call. Leave it out"),
             "tool_choice[type=auto].disable_parallel_tool_use",
             "tool_choice[type=any].disable_parallel_tool_use",
             "tool_choice[type=tool].disable_parallel_tool_use", unless=(False,)),
    *ignored(tr("the model's template decides whether it thinks: chat_template_kwargs"), "thinking"),
    *passed("output_config", "output_config.effort", "output_config.format", "output_config.format.**",
            "output_config.format[type=json_schema].**"),
)  # fmt: skip


def _prepare_responses(body: Body, asked: ModelContext) -> None:
    rows.prepare_tools(body, asked)
    text = as_object(body.get("text"))
    if as_object(text.get("format")).get("type") == "json_object":
        body["text"] = {key: value for key, value in text.items() if key != "format"}
        body["structured_outputs"] = {"json_object": True}


VLLM_REQUESTS = RequestTable(
    {
        "/v1/chat/completions": _CHAT,
        "/v1/completions": _COMPLETIONS,
        "/v1/embeddings": rows.EMBEDDINGS,
        "/v1/responses": _RESPONSES,
        "/v1/messages": rows.messages("vLLM", _COUNTED),
        "/v1/messages/count_tokens": _COUNTED,
        "/v1/rerank": rows.RERANK,
        "/v1/score": (*done(rows.MODEL, "model"), *passed("stream")),
        **rows.TOKENS,
    },
    {
        "/v1/chat/completions": rows.prepare_tools,
        "/v1/completions": rows.prepare_best_of,
        "/v1/responses": _prepare_responses,
        "/v1/messages": rows.prepare_tools,
        "/v1/rerank": rows.prepare_rerank,
    },
)
