"""How SGLang (0.5.23) treats each field of a request.

Read in its request models (``srt/entrypoints/openai/protocol.py``, ``anthropic/protocol.py``): they take
every field and drop those that they do not declare.
"""

from __future__ import annotations

from yibu.engines import rows
from yibu.engines.requests import (
    Body,
    ModelContext,
    Prepare,
    RequestTable,
    done,
    ignored,
    passed,
    refused,
)
from yibu.messages import tr

_TITLE = "SGLang"
_AUDIO = "messages[role=*].content[type=input_audio]"
_EFFORT = (
    *passed("thinking", "thinking[type=enabled].**", "thinking[type=adaptive].**",
            "thinking[type=disabled].**", "output_config", "output_config.effort", "output_config.format",
            "output_config.format.**", "output_config.format[type=json_schema].**"),
    *refused(tr("SGLang knows 'enabled', 'adaptive' and 'disabled'"), "thinking[type=*]"),
    *refused(tr("SGLang counts no budget for a task. Use 'max_tokens'"), "output_config.task_budget"),
)  # fmt: skip

SGLANG_RULES = {
    "/v1/chat/completions": (
        *rows.chat(_TITLE),
        *rows.shapes(_TITLE, "response_format", "regex", "ebnf"),
        *passed("frequency_penalty", "presence_penalty", "logit_bias", f"{_AUDIO}.**",
                "response_format[type=structural_tag].**"),
        *ignored(tr("SGLang caches prompts of its own accord"), f"{_AUDIO}.prompt_cache_breakpoint"),
    ),
    "/v1/completions": (
        *rows.completions(_TITLE),
        *rows.shapes(_TITLE, "response_format", "regex", "ebnf", "json_schema"),
        *passed(*rows.FORMATS, "frequency_penalty", "presence_penalty", "logit_bias", "n", "echo"),
        *done(tr("as many as 'n' is what comes anyway; more is a 400"), "best_of"),
    ),
    "/v1/embeddings": rows.EMBEDDINGS,
    "/v1/responses": (
        *rows.responses(_TITLE),
        *passed("reasoning.effort", "top_logprobs", "truncation",
                "input[type=message].content[type=input_image].**", "input[type=reasoning].**",
                "input[type=reasoning].summary[type=summary_text].**",
                "input[type=reasoning].content[type=reasoning_text].**"),
        *ignored(tr("SGLang caches prompts of its own accord"),
                 "input[type=message].content[type=input_image].prompt_cache_breakpoint"),
        *refused(tr("SGLang reads no files. Send their text"),
                 "input[type=message].content[type=input_image].file_id"),
    ),
    "/v1/messages": (*rows.messages(_TITLE), *_EFFORT),
    "/v1/messages/count_tokens": (*rows.counted(_TITLE), *_EFFORT),
    **rows.TOKENS,
}  # fmt: skip


def _prepare_responses(body: Body, asked: ModelContext) -> None:
    rows.prepare_tools(body, asked)
    body["store"] = False  # SGLang else keeps every answer in memory


def adapter_feature(name: str) -> str:
    """The feature of a model that serves an adapter of that name."""
    return f"adapter:{name}"


def _with_adapter(prepare: Prepare) -> Prepare:
    """SGLang takes an adapter's name beside the model's, not in its place."""

    def with_adapter(body: Body, asked: ModelContext) -> None:
        if adapter_feature(asked.model) in (asked.abilities.features or ()):
            body["lora_path"] = asked.model
        prepare(body, asked)

    return with_adapter


SGLANG_REQUESTS = RequestTable(
    SGLANG_RULES,
    {
        "/v1/chat/completions": _with_adapter(rows.prepare_tools),
        "/v1/completions": _with_adapter(rows.prepare_best_of),
        "/v1/responses": _prepare_responses,
        "/v1/messages": rows.prepare_tools,
    },
)
