"""What llama.cpp (xllamacpp 2026.10.11549) does with each field of a request.

Found by running it, and in ``tools/server/server-chat.cpp`` and ``server-schema.cpp``.
"""

from __future__ import annotations

from yibu.engines.hints import ACCOUNTING, HOSTED, STATE, STREAM
from yibu.engines.llama_cpp.prepare import PREPARE
from yibu.engines.requests import RequestTable, done, ignored, passed, refused
from yibu.engines.rows import MODEL, message_parts
from yibu.engines.tool_choice import NO_TOOLS
from yibu.messages import tr

_FILES = tr("llama.cpp reads no files. Send their text")
_SPEAKS = tr("llama.cpp writes text alone. Ask for the modality 'text'")
_CUSTOM = tr("llama.cpp's tools take JSON. Use a tool of type 'function'")
_SCHEMA = tr(
    "patterns are put into a grammar's words; with 'strict', what no grammar says is a 400"
)
_CHOSEN = tr(
    "the tools that it allows are sent, and a call is demanded or not; a name that is not "
    "there is a 400"
)
_DEPRECATED = tr("llama.cpp knows 'tools' and 'tool_choice', which took their place. Use those")
_CACHE = tr("llama.cpp caches prompts of its own accord")
IMAGES = "images"
"""The feature of a model that a projector is loaded beside."""
_TEXT_ONLY = tr(
    "The model reads text alone: no vision projector (mmproj) is loaded beside it. Ask a "
    "model whose capabilities in /v1/models have 'vision'"
)
_FETCHES = tr(
    "A node fetches no address for its clients, who might reach by it what only the node "
    "can. Send the picture itself: data:image/png;base64,…"
)
_IDS = tr("an id of OpenAI's, which says nothing to a model")

_SAMPLING = passed("temperature", "top_p", "max_tokens", "stream", "stop", "seed", "n", "frequency_penalty",
                   "presence_penalty", "logit_bias")  # fmt: skip

_PARTS = (
    *passed("messages[role=*].content[type=text].**"),
    *passed("messages[role=*].content[type=image_url].**", "messages[role=*].content[type=input_audio].**"),
    *refused(_TEXT_ONLY, "messages[role=*].content[type=image_url]", needs=IMAGES),
    *refused(_FETCHES, "messages[role=*].content[type=image_url].image_url.url", unless_prefix="data:"),
    *ignored(tr("llama.cpp reads an image at one size"), "messages[role=*].content[type=image_url].image_url.detail"),
    *ignored(_CACHE, "messages[role=*].content[type=text].prompt_cache_breakpoint",
             "messages[role=*].content[type=image_url].prompt_cache_breakpoint",
             "messages[role=*].content[type=input_audio].prompt_cache_breakpoint"),
    *passed("messages[role=*].content[type=refusal].**"),
    *refused(_FILES, "messages[role=*].content[type=file]"),
)  # fmt: skip

_CHAT = (
    *done(MODEL, "model"),
    *_SAMPLING,
    *_PARTS,
    *STREAM,
    *ACCOUNTING,
    *passed("messages", "messages[role=*].**", "messages[role=assistant].tool_calls[type=function].**"),
    *refused(_CUSTOM, "messages[role=assistant].tool_calls[type=custom]"),
    *refused(_SPEAKS, "messages[role=assistant].audio", "audio", "modalities[=audio]"),
    *passed("modalities", "modalities[=text]"),
    *passed("max_completion_tokens", "logprobs", "top_logprobs", "stream_options",
            "stream_options.include_usage", "reasoning_effort", "parallel_tool_calls"),
    *passed("response_format", "response_format[type=text].**", "response_format[type=json_object].**"),
    *done(_SCHEMA, "response_format[type=json_schema]"),
    *refused(tr("llama.cpp takes 'json_schema', 'json_object' and 'text'"), "response_format[type=structural_tag]"),
    *passed("tools", "tools[type=function].**"),
    *done(_SCHEMA, "tools[type=function].function.parameters", "tools[type=function].function.strict"),
    *refused(_CUSTOM, "tools[type=custom]", "tool_choice[type=custom]"),
    *done(_CHOSEN, "tool_choice", "tool_choice[type=function]", "tool_choice[type=allowed_tools]"),
    *refused(NO_TOOLS, "tool_choice[=required]", needs="tools"),
    *refused(_DEPRECATED, "functions", "function_call"),
    *refused(tr("llama.cpp predicts nothing from a draft in the request. Leave it out"), "prediction"),
    *refused(HOSTED, "web_search_options"),
)  # fmt: skip

_COMPLETIONS = (
    *done(MODEL, "model"),
    *_SAMPLING,
    *STREAM,
    *ACCOUNTING,
    *passed("prompt", "logprobs", "stream_options", "stream_options.include_usage"),
    *done(tr("with 'max_tokens': 0 the prompt alone is answered"), "max_tokens"),
    *done(tr(
"the prompt is put before its continuation; with 'logprobs' the model is made to say "
"it, one token a request, for llama.cpp scores what it generates alone. A stream "
"comes in one piece"
), "echo"),
    *done(tr("by /infill, for models with tokens for it (else 400). A stream comes in one piece"), "suffix"),
    *done(tr("as many as 'n' is what comes anyway; more is a 400"), "best_of"),
)  # fmt: skip

_EMBEDDINGS = (
    *done(MODEL, "model"),
    *passed("input"),
    *done(tr("either, whichever the engine writes"), "encoding_format"),
    *done(tr(
"vectors of a model that says it is Matryoshka are cut and made one long again; else "
"400"
), "dimensions"),
    *ignored(tr("says who asks"), "user"),
)  # fmt: skip

_RESPONSES = (
    *done(MODEL, "model"),
    *ACCOUNTING,
    *STREAM,
    *passed("input", "input.**", "instructions", "temperature", "top_p", "max_output_tokens", "stream",
            "stream_options", "parallel_tool_calls", "reasoning", "reasoning.effort"),
    *passed("input[type=message].**", "input[type=message].content[type=input_text].**",
            "input[type=message].content[type=output_text].**", "input[type=message].content[type=refusal].**",
            "input[type=message].content[type=input_image].**", "input[type=function_call].**",
            "input[type=function_call_output].**", "input[type=reasoning].**",
            "input[type=function_call_output].output[type=input_text].**",
            "input[type=reasoning].summary[type=summary_text].**",
            "input[type=reasoning].content[type=reasoning_text].**"),
    *ignored(_IDS, "input[type=message].id", "input[type=message].status", "input[type=message].phase",
             "input[type=function_call].id", "input[type=function_call].status",
             "input[type=function_call_output].id", "input[type=function_call_output].status",
             "input[type=reasoning].id", "input[type=reasoning].status", "input.id",
             "input[type=function_call].caller", "input[type=function_call_output].caller",
             "input[type=function_call].namespace", "input[type=function_call_output].namespace"),
    *ignored(tr("only OpenAI can read it"), "input[type=reasoning].encrypted_content"),
    *ignored(tr("notes on an answer that was given"), "input[type=message].content[type=output_text].annotations",
             "input[type=message].content[type=output_text].logprobs"),
    *ignored(_CACHE, "input[type=message].content[type=input_text].prompt_cache_breakpoint",
             "input[type=message].content[type=input_image].prompt_cache_breakpoint",
             "input[type=function_call_output].output[type=input_text].prompt_cache_breakpoint"),
    *refused(_TEXT_ONLY, "input[type=message].content[type=input_image]", needs=IMAGES),
    *refused(_FETCHES, "input[type=message].content[type=input_image].image_url", unless_prefix="data:"),
    *ignored(tr("llama.cpp reads an image at one size"), "input[type=message].content[type=input_image].detail"),
    *refused(_FILES, "input[type=message].content[type=input_file]",
             "input[type=message].content[type=input_image].file_id",
             "input[type=function_call_output].output[type=*]"),
    *refused(STATE, "previous_response_id", "conversation", "input[type=item_reference]",
             "context_management", "input[type=compaction]", "input[type=compaction_trigger]"),
    *refused(tr("Prompts of OpenAI's are not here. Write it into 'instructions' and 'input'"), "prompt"),
    *refused(tr("Nothing runs in the background here. Leave it out"), "background", unless=(False,)),
    *refused(tr("llama.cpp's answers in this API have none. Use /v1/chat/completions with 'logprobs'"), "top_logprobs",
             "include[=message.output_text.logprobs]", unless=(0,)),
    *ignored(tr("parts of what hosted tools answer, or of what only OpenAI can read"), "include"),
    *ignored(tr("a limit on calls of hosted tools, and there are none"), "max_tool_calls"),
    *ignored(tr("an input that is too long is a 400 in any case"), "truncation"),
    *ignored(tr("what is shown of a reasoning, which models here show whole"), "reasoning.summary",
             "reasoning.generate_summary", "reasoning.context", "reasoning.mode"),
    *ignored(tr("a hint on the answer's length that only OpenAI's models know"), "text.verbosity"),
    *passed("text", "text.format", "text.format[type=text].**"),
    *done(tr("as the chat's response_format; {schema}", schema=_SCHEMA), "text.format[type=json_schema]",
          "text.format[type=json_object]"),
    *passed("tools", "tools[type=function].**"),
    *done(_SCHEMA, "tools[type=function].parameters", "tools[type=function].strict"),
    *ignored(tr("how OpenAI's hosted programs call it"), "tools[type=function].allowed_callers",
             "tools[type=function].defer_loading", "tools[type=function].output_schema"),
    *refused(_CUSTOM, "tools[type=custom]", "tool_choice[type=custom]", "input[type=custom_tool_call]",
             "input[type=custom_tool_call_output]"),
    *done(_CHOSEN, "tool_choice", "tool_choice[type=function]", "tool_choice[type=allowed_tools]"),
    *refused(NO_TOOLS, "tool_choice[=required]", needs="tools"),
    *refused(HOSTED, "tools[type=*]", "tool_choice[type=*]", "input[type=*]"),
)  # fmt: skip

_COUNTED = (
    *message_parts("llama.cpp", images_in_results=True),
    *refused(_TEXT_ONLY, "messages[role=*].content[type=image]",
             "messages[role=*].content[type=tool_result].content[type=image]", needs=IMAGES),
    *refused(_FETCHES, "messages[role=*].content[type=image].source[type=url]",
             "messages[role=*].content[type=tool_result].content[type=image].source[type=url]"),
    *done(_SCHEMA, "tools.input_schema", "tools.strict"),
    *done(_CHOSEN, "tool_choice", "tool_choice[type=auto]", "tool_choice[type=any]", "tool_choice[type=tool]",
          "tool_choice[type=none]"),
    *passed("thinking", "thinking[type=enabled].**", "thinking[type=disabled].**"),
    *ignored(tr("how much a model thinks where its template leaves that open"), "thinking[type=adaptive]",
             "thinking[type=between_tools]", "thinking[type=enabled].display", "output_config.effort"),
    *ignored(tr("says who asks, or where and how fast Anthropic serves it"), "metadata", "user_profile_id",
             "workspace_id", "inference_geo", "service_tier", "speed"),
    *done(tr("by the chat's response_format, a stream in one piece; what no grammar says is a 400"), "output_config"),
)  # fmt: skip

_MESSAGES = (
    *_COUNTED,
    *passed("max_tokens", "stop_sequences", "stream", "temperature", "top_k", "top_p"),
    *refused(tr("Anthropic's containers are not here. Leave it out"), "container", "mcp_servers"),
    *refused(STATE, "diagnostics", "context_management"),
)  # fmt: skip

LLAMA_CPP_REQUESTS = RequestTable(
    {
        "/v1/chat/completions": _CHAT,
        "/v1/completions": _COMPLETIONS,
        "/v1/embeddings": _EMBEDDINGS,
        "/v1/responses": _RESPONSES,
        "/v1/messages": _MESSAGES,
        "/v1/messages/count_tokens": _COUNTED,
        "/v1/rerank": (*done(MODEL, "model"), *passed("query", "documents", "top_n")),
        "/tokenize": (
            *done(MODEL, "model"),
            *done(tr("either name"), "prompt", "content", "add_special_tokens"),
            *done(tr("as the model's template writes them"), "messages"),
        ),
        "/detokenize": (*done(MODEL, "model"), *done(tr("a token that the model has not is a 400"), "tokens")),
    },
    PREPARE,
)  # fmt: skip
