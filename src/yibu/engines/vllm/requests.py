"""What vLLM (0.32) does with each field of a request.

Read in its request models (``vllm/entrypoints/openai/*/protocol.py``, ``anthropic/protocol.py``): they take
every field and drop, with a line in the log, those that they do not declare.
"""

from __future__ import annotations

from yibu.engines.hints import ACCOUNTING, HOSTED, STATE, STREAM
from yibu.engines.requests import (
    Asked,
    Body,
    Prepare,
    RequestTable,
    as_object,
    done,
    ignored,
    passed,
    refused,
)
from yibu.engines.rows import CHOSEN, MODEL, message_parts, prepare_best_of, prepare_tools

TOOL_SERVER = "tool_server"
"""The feature of a vLLM started with ``--tool-server``: it carries out hosted tools."""
RESPONSE_STORE = "response_store"
"""The feature of a vLLM with VLLM_ENABLE_RESPONSES_API_STORE=1: it keeps responses."""

_FILES = "vLLM reads no files. Send their text"
_SPEAKS = "vLLM writes text alone. Ask for the modality 'text'"
_CUSTOM = "vLLM's tools take JSON. Use a tool of type 'function'"
_CACHE = "vLLM caches prompts of its own accord"
_IDS = "an id of OpenAI's, which says nothing to a model"

_SAMPLING = passed("temperature", "top_p", "max_tokens", "stream", "stop", "seed", "n", "frequency_penalty",
                   "presence_penalty", "logit_bias", "stream_options", "stream_options.include_usage")  # fmt: skip

_CHAT = (
    *done(MODEL, "model"),
    *_SAMPLING,
    *STREAM,
    *ACCOUNTING,
    *passed("messages", "messages[role=*].**", "messages[role=assistant].tool_calls[type=function].**",
            "messages[role=*].content[type=text].**", "messages[role=*].content[type=image_url].**",
            "messages[role=*].content[type=input_audio].**", "messages[role=*].content[type=refusal].**"),
    *ignored(_CACHE, "messages[role=*].content[type=text].prompt_cache_breakpoint",
             "messages[role=*].content[type=image_url].prompt_cache_breakpoint",
             "messages[role=*].content[type=input_audio].prompt_cache_breakpoint"),
    *refused(_FILES, "messages[role=*].content[type=file]"),
    *refused(_CUSTOM, "messages[role=assistant].tool_calls[type=custom]", "tools[type=custom]",
             "tool_choice[type=custom]"),
    *refused(_SPEAKS, "messages[role=assistant].audio", "audio", "modalities[=audio]"),
    *passed("modalities", "modalities[=text]", "max_completion_tokens", "logprobs", "top_logprobs",
            "reasoning_effort", "parallel_tool_calls", "response_format", "response_format[type=text].**",
            "response_format[type=json_object].**", "response_format[type=json_schema].**",
            "response_format[type=structural_tag].**", "tools", "tools[type=function].**",
            "tool_choice", "tool_choice[type=function].**"),
    *done(CHOSEN, "tool_choice[type=allowed_tools]"),
    *refused("vLLM knows 'tools' and 'tool_choice', which took their place. Use those", "functions",
             "function_call"),
    *refused("vLLM predicts nothing from a draft in the request. Leave it out", "prediction"),
    *refused(HOSTED, "web_search_options"),
)  # fmt: skip

_COMPLETIONS = (
    *done(MODEL, "model"),
    *_SAMPLING,
    *STREAM,
    *ACCOUNTING,
    *passed("prompt", "logprobs", "echo"),
    *done("as many as 'n' is what comes anyway; more is a 400", "best_of"),
    *refused("vLLM fills nothing in. Write the model's own tokens for it into 'prompt', or use llama.cpp", "suffix"),
)  # fmt: skip

_RESPONSES = (
    *done(MODEL, "model"),
    *ACCOUNTING,
    *STREAM,
    *passed("input", "input.**", "instructions", "temperature", "top_p", "max_output_tokens", "stream",
            "stream_options", "parallel_tool_calls", "reasoning", "reasoning.effort", "top_logprobs", "include",
            "truncation"),
    *passed("input[type=message].**", "input[type=message].content[type=input_text].**",
            "input[type=message].content[type=output_text].**", "input[type=message].content[type=refusal].**",
            "input[type=message].content[type=input_image].**", "input[type=function_call].**",
            "input[type=function_call_output].**", "input[type=reasoning].**",
            "input[type=function_call_output].output[type=input_text].**",
            "input[type=reasoning].summary[type=summary_text].**",
            "input[type=reasoning].content[type=reasoning_text].**"),
    *ignored(_IDS, "input[type=message].phase", "input[type=function_call].caller",
             "input[type=function_call_output].caller", "input[type=function_call].namespace",
             "input[type=function_call_output].namespace"),
    *ignored("notes on an answer that was given", "input[type=message].content[type=output_text].annotations",
             "input[type=message].content[type=output_text].logprobs"),
    *ignored(_CACHE, "input[type=message].content[type=input_text].prompt_cache_breakpoint",
             "input[type=message].content[type=input_image].prompt_cache_breakpoint",
             "input[type=function_call_output].output[type=input_text].prompt_cache_breakpoint"),
    *refused(_FILES, "input[type=message].content[type=input_file]",
             "input[type=message].content[type=input_image].file_id",
             "input[type=function_call_output].output[type=*]"),
    *refused(STATE, "previous_response_id", "background", unless=(False,), needs=RESPONSE_STORE),
    *refused(STATE, "conversation", "input[type=item_reference]", "context_management",
             "input[type=compaction]", "input[type=compaction_trigger]"),
    *refused("Prompts of OpenAI's are not here. Write it into 'instructions' and 'input'", "prompt"),
    *ignored("a limit on calls of hosted tools", "max_tool_calls"),
    *ignored("what is shown of a reasoning, which models here show whole", "reasoning.summary",
             "reasoning.generate_summary", "reasoning.context", "reasoning.mode"),
    *ignored("a hint on the answer's length that only OpenAI's models know", "text.verbosity"),
    *passed("text", "text.format", "text.format[type=text].**", "text.format[type=json_schema].**"),
    *done("by vLLM's structured_outputs", "text.format[type=json_object]"),
    *passed("tools", "tools[type=function].**", "tool_choice", "tool_choice[type=function].**"),
    *ignored("how OpenAI's hosted programs call it", "tools[type=function].allowed_callers",
             "tools[type=function].defer_loading", "tools[type=function].output_schema"),
    *refused(_CUSTOM, "tools[type=custom]", "tool_choice[type=custom]", "input[type=custom_tool_call]",
             "input[type=custom_tool_call_output]"),
    *done(CHOSEN, "tool_choice[type=allowed_tools]"),
    *refused(HOSTED, "tools[type=*]", "tool_choice[type=*]", "input[type=*]", needs=TOOL_SERVER),
)  # fmt: skip

_COUNTED = (
    *message_parts("vLLM", images_in_results=True),
    *passed("tool_choice", "tool_choice[type=auto].**", "tool_choice[type=any].**", "tool_choice[type=tool].**",
            "tool_choice[type=none].**"),
    *refused("vLLM does not hold a model to one call. Leave it out",
             "tool_choice[type=auto].disable_parallel_tool_use",
             "tool_choice[type=any].disable_parallel_tool_use",
             "tool_choice[type=tool].disable_parallel_tool_use", unless=(False,)),
    *ignored("the model's template decides whether it thinks: chat_template_kwargs", "thinking"),
    *passed("output_config", "output_config.effort", "output_config.format", "output_config.format.**",
            "output_config.format[type=json_schema].**"),
    *ignored("says who asks, or where and how fast Anthropic serves it", "metadata", "user_profile_id",
             "workspace_id", "inference_geo", "service_tier", "speed"),
)  # fmt: skip

_MESSAGES = (
    *_COUNTED,
    *passed("max_tokens", "stop_sequences", "stream", "temperature", "top_k", "top_p"),
    *refused("Anthropic's containers are not here. Leave it out", "container", "mcp_servers"),
    *refused(STATE, "diagnostics", "context_management"),
)


def _prepare_responses(body: Body, asked: Asked) -> None:
    prepare_tools(body, asked)
    text = as_object(body.get("text"))
    if as_object(text.get("format")).get("type") == "json_object":
        body["text"] = {key: value for key, value in text.items() if key != "format"}
        body["structured_outputs"] = {"json_object": True}


_PREPARE: dict[str, tuple[frozenset[str], Prepare]] = {
    "/v1/chat/completions": (frozenset({"tool_choice"}), prepare_tools),
    "/v1/completions": (frozenset({"best_of"}), prepare_best_of),
    "/v1/responses": (frozenset({"tool_choice", "text"}), _prepare_responses),
    "/v1/messages": (frozenset({"tool_choice"}), prepare_tools),
}

VLLM_REQUESTS = RequestTable(
    {
        "/v1/chat/completions": _CHAT,
        "/v1/completions": _COMPLETIONS,
        "/v1/embeddings": (
            *done(MODEL, "model"),
            *passed("input", "encoding_format", "dimensions"),
            *ignored("says who asks", "user"),
        ),
        "/v1/responses": _RESPONSES,
        "/v1/messages": _MESSAGES,
        "/v1/messages/count_tokens": _COUNTED,
        "/v1/rerank": (*done(MODEL, "model"), *passed("query", "documents", "top_n")),
        "/v1/score": (*done(MODEL, "model"), *passed("stream")),
        "/tokenize": (
            *done(MODEL, "model"),
            *passed("prompt", "messages", "add_special_tokens"),
            *done("either name", "content"),
        ),
        "/detokenize": (*done(MODEL, "model"), *passed("tokens")),
    },
    _PREPARE,
)
