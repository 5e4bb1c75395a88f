"""How LMDeploy (0.18) treats each field of a request.

Read in its request models and their validation (``serve/openai/protocol.py``, ``chat_completions/``,
``responses/request.py``): they take every field, and drop those that they do not declare or, with a line
in the log, do not know how to heed.
"""

from __future__ import annotations

from yibu.engines import rows
from yibu.engines.requests import RequestTable, ignored, refused
from yibu.messages import tr

PYTORCH = "pytorch"
"""The feature of a model that runs on LMDeploy's PyTorch engine, not on TurboMind."""
_TITLE = "LMDeploy"
_PENALTIES = (
    *refused(tr("LMDeploy knows 'repetition_penalty' in their place. Use that"), "frequency_penalty",
             "presence_penalty", unless=(0, 0.0)),
)  # fmt: skip
_TEXT = tr("LMDeploy's answers in this API are made of text alone. Use /v1/chat/completions")

LMDEPLOY_REQUESTS = RequestTable(
    {
        "/v1/chat/completions": (
            *rows.chat(_TITLE),
            *rows.shapes(_TITLE, "response_format"),
            *_PENALTIES,
            *refused(tr("LMDeploy's PyTorch engine alone heeds it: options: {backend: pytorch}"), "logit_bias", needs=PYTORCH),
            *refused(tr("LMDeploy reads no sound. Send its text"), "messages[role=*].content[type=input_audio]"),
            *refused(tr("LMDeploy takes 'json_schema', 'json_object' and 'text'"),
                     "response_format[type=structural_tag]"),
            *ignored(tr("LMDeploy reads calls as the model writes them"), "tools[type=function].function.strict"),
        ),
        "/v1/completions": (
            *rows.completions(_TITLE),
            *rows.shapes(_TITLE),
            *_PENALTIES,
            *refused(tr("LMDeploy gives one answer in this API. Ask again, or use /v1/chat/completions"), "n",
                     "best_of", unless=(1,)),
            *refused(tr("LMDeploy does not repeat the prompt. Put it before the answer yourself"), "echo",
                     unless=(False,)),
            *refused(tr("LMDeploy heeds it in /v1/chat/completions alone"), "logit_bias"),
        ),
        "/v1/responses": (
            *rows.responses(_TITLE),
            *refused(_TEXT, "input[type=message].content[type=input_image]", "input[type=reasoning]"),
            *refused(tr("LMDeploy heeds it in /v1/chat/completions alone, as 'reasoning_effort'"),
                     "reasoning.effort"),
            *refused(tr("LMDeploy gives none in this API. Use /v1/chat/completions with 'logprobs'"),
                     "top_logprobs", "include[=message.output_text.logprobs]", unless=(0,)),
            *refused(tr("LMDeploy does not shorten a conversation. Leave out its oldest messages"), "truncation",
                     unless=("disabled",)),
            *ignored(tr("LMDeploy reads calls as the model writes them"), "tools[type=function].strict"),
        ),
    },
    {
        "/v1/chat/completions": rows.prepare_tools,
        "/v1/responses": rows.prepare_tools,
    },
)  # fmt: skip
