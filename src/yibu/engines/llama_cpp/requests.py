"""How llama.cpp (xllamacpp 2026.10.11549) treats each field of a request.

Found by running it, and in ``tools/server/server-chat.cpp`` and ``server-schema.cpp``.
"""

from __future__ import annotations

from yibu.engines import rows
from yibu.engines.llama_cpp.prepare import PREPARE
from yibu.engines.requests import RequestTable, done, ignored, passed, refused
from yibu.engines.tool_choice import NO_TOOLS
from yibu.messages import tr

_TITLE = "llama.cpp"
_FILES = tr("llama.cpp reads no files. Send their text")
_SCHEMA = tr(
    "patterns are put into a grammar's words; with 'strict', what no grammar says is a 400"
)
_CHOSEN = tr(
    "the tools that it allows are sent, and a call is demanded or not; a name that is not "
    "there is a 400"
)
_CACHE = tr("llama.cpp caches prompts of its own accord")
_ONE_SIZE = tr("llama.cpp reads an image at one size")
IMAGES = "images"
"""The feature of a model that is loaded with a projector."""
_TEXT_ONLY = tr(
    "The model reads text alone: no vision projector (mmproj) is loaded beside it. Ask a "
    "model whose capabilities in /v1/models have 'vision'"
)
_FETCHES = tr(
    "A node fetches no address for its clients, who might reach by it what only the node "
    "can. Send the picture itself: data:image/png;base64,…"
)
_SAID = tr("its words are sent as text")
_IDS = tr("an id of OpenAI's, which says nothing to a model")

_ECHO = tr(
    "the prompt is put before its continuation; with 'logprobs' the model is made to say it, one "
    "token a request, for llama.cpp scores what it generates alone. A stream comes in one piece"
)

_SAMPLING = passed("n", "frequency_penalty", "presence_penalty", "logit_bias")
_TOOL_CHOICE = (
    *done(_CHOSEN, "tool_choice", "tool_choice[type=function]", "tool_choice[type=allowed_tools]"),
    *refused(NO_TOOLS, "tool_choice[=required]", needs="tools"),
)
_SHAPED = tr("llama.cpp takes 'json_schema', 'json_object' and 'text'")
_SHAPES = ("response_format", "grammar", "json_schema")
_PART = "messages[role=*].content"
_IMAGE = f"{_PART}[type=image_url]"

_CHAT = rows.varied(
    rows.chat(_TITLE),
    *rows.shapes(_TITLE, *_SHAPES),
    *_SAMPLING,
    *_TOOL_CHOICE,
    *passed(f"{_PART}[type=input_audio].**", f"{_PART}[type=input_video].**", "modalities",
            "modalities[=text]"),
    *done(_SAID, f"{_PART}[type=refusal]", "messages[role=assistant].refusal"),
    *refused(tr("llama.cpp reads text, pictures, audio and video. Send its text"), f"{_PART}[type=*]"),
    *refused(tr("It is 'tool_calls' that took its place. Send those"), "messages[role=assistant].function_call"),
    *refused(_TEXT_ONLY, _IMAGE, needs=IMAGES),
    *refused(_FETCHES, f"{_IMAGE}.image_url.url", unless_prefix="data:"),
    *ignored(_ONE_SIZE, f"{_IMAGE}.image_url.detail"),
    *ignored(_CACHE, f"{_PART}[type=input_audio].prompt_cache_breakpoint"),
    *done(_SCHEMA, "response_format[type=json_schema]", "tools[type=function].function.parameters",
          "tools[type=function].function.strict"),
    *refused(_SHAPED, "response_format[type=structural_tag]"),
    without=("response_format[type=json_schema].**", "tool_choice[type=function].**"),
)  # fmt: skip

_COMPLETIONS = rows.varied(
    rows.completions(_TITLE),
    *_SAMPLING,
    *done(tr("with 'max_tokens': 0 the prompt alone is answered"), "max_tokens"),
    *done(_ECHO, "echo"),
    *rows.shapes(_TITLE, *_SHAPES),
    *done(tr("by llama.cpp's 'json_schema'"), *(f"response_format[type={kind}]" for kind in
          ("text", "json_object", "json_schema"))),
    *refused(_SHAPED, "response_format[type=structural_tag]"),
    *done(tr("by /infill, for models with tokens for it, texts up to a batch (else 400). A stream comes in one piece"), "suffix"),
    *done(tr("as many as 'n' is what comes anyway; more is a 400"), "best_of"),
)  # fmt: skip

_EMBEDDINGS = (
    *done(rows.MODEL, "model"),
    *passed("input"),
    *done(tr("either, whichever the engine writes"), "encoding_format"),
    *done(tr("vectors of a model that says it is Matryoshka are cut and made one long again; else 400"), "dimensions"),
    *ignored(tr("says who asks"), "user"),
)  # fmt: skip

_MESSAGE = "input[type=message].content"
_PICTURE = f"{_MESSAGE}[type=input_image]"
_ITEMS = ("message", "function_call", "function_call_output", "reasoning")

_RESPONSES = rows.varied(
    rows.responses(_TITLE),
    *_TOOL_CHOICE,
    *done(_SAID, f"{_MESSAGE}[type=refusal]"),
    *passed("reasoning.effort", f"{_PICTURE}.**", "input[type=reasoning].**",
            "input[type=reasoning].summary[type=summary_text].**",
            "input[type=reasoning].content[type=reasoning_text].**"),
    *ignored(_IDS, "input.id", *(f"input[type={item}].{key}" for item in _ITEMS for key in ("id", "status"))),
    *ignored(tr("only OpenAI can read it"), "input[type=reasoning].encrypted_content"),
    *ignored(_CACHE, f"{_PICTURE}.prompt_cache_breakpoint"),
    *refused(_TEXT_ONLY, _PICTURE, needs=IMAGES),
    *refused(_FETCHES, f"{_PICTURE}.image_url", unless_prefix="data:"),
    *ignored(_ONE_SIZE, f"{_PICTURE}.detail"),
    *refused(_FILES, f"{_PICTURE}.file_id"),
    *refused(tr("llama.cpp reads text and pictures. Send its text"), f"{_MESSAGE}[type=*]"),
    *refused(tr("llama.cpp's answers in this API have none. Use /v1/chat/completions with 'logprobs'"), "top_logprobs",
             "include[=message.output_text.logprobs]", unless=(0,)),
    *ignored(tr("parts of what hosted tools answer, or of what only OpenAI can read"), "include"),
    *ignored(tr("an input that is too long is a 400 in any case"), "truncation"),
    *done(tr("as the chat's response_format; {schema}", schema=_SCHEMA), "text.format[type=json_schema]",
          "text.format[type=json_object]"),
    *done(_SCHEMA, "tools[type=function].parameters", "tools[type=function].strict"),
    without=("text.format[type=json_schema].**", "text.format[type=json_object].**",
             "tool_choice[type=function].**"),
)  # fmt: skip

_RESULT = f"{_PART}[type=tool_result].content"
_CHOICES = tuple(f"tool_choice[type={kind}]" for kind in ("auto", "any", "tool", "none"))

_COUNTED = rows.varied(
    rows.counted(_TITLE, images_in_results=True),
    *refused(_TEXT_ONLY, f"{_PART}[type=image]", f"{_RESULT}[type=image]", needs=IMAGES),
    *refused(_FETCHES, f"{_PART}[type=image].source[type=url]", f"{_RESULT}[type=image].source[type=url]"),
    *done(_SCHEMA, "tools.input_schema", "tools.strict"),
    *done(_CHOSEN, "tool_choice", *_CHOICES),
    *passed("thinking", "thinking[type=enabled].**", "thinking[type=disabled].**"),
    *ignored(tr("how much a model thinks where its template leaves that open"), "thinking[type=adaptive]",
             "thinking[type=between_tools]", "thinking[type=enabled].display", "output_config.effort"),
    *done(tr("by the chat's response_format, a stream in one piece; what no grammar says is a 400"), "output_config"),
    without=tuple(f"{choice}.**" for choice in _CHOICES),
)  # fmt: skip

LLAMA_CPP_REQUESTS = RequestTable(
    {
        "/v1/chat/completions": _CHAT,
        "/v1/completions": _COMPLETIONS,
        "/v1/embeddings": _EMBEDDINGS,
        "/v1/responses": _RESPONSES,
        "/v1/messages": rows.messages(_TITLE, _COUNTED),
        "/v1/messages/count_tokens": _COUNTED,
        "/v1/rerank": rows.RERANK,
        "/tokenize": (
            *done(rows.MODEL, "model"),
            *done(tr("either name"), "prompt", "content", "add_special_tokens"),
            *done(tr("as the model's template writes them"), "messages"),
        ),
        "/detokenize": (*done(rows.MODEL, "model"), *done(tr("a token that the model has not is a 400"), "tokens")),
    },
    PREPARE,
)  # fmt: skip
