"""Run in vLLM's environment: render chat templates as transformers does, and have vLLM's parsers read
what a model answers. stdin has the cases, stdout their results, both as JSON.

    {"tokenizer": DIRECTORY, "cases": [{"template": FILE, "messages": …, "tools": …, "more": {…}}],
     "answers": [{"parser": NAME, "tokens": […], "text": …}]}
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from jinja2 import TemplateError
from transformers import AutoTokenizer
from transformers.utils.chat_template_utils import render_jinja_template
from vllm.entrypoints.openai.chat_completion.protocol import ChatCompletionRequest
from vllm.tool_parsers import ToolParserManager

work = json.load(sys.stdin)
prompts, calls = [], []
for case in work["cases"]:
    try:
        rendered, _ = render_jinja_template(
            conversations=[case["messages"]],
            tools=case.get("tools"),
            chat_template=Path(case["template"]).read_text(encoding="utf-8"),
            add_generation_prompt=True,
            bos_token="<s>",
            **case.get("more", {}),
        )
        prompts.append(rendered[0])
    except TemplateError as error:  # what a template refuses is a result too
        prompts.append(f"{type(error).__name__}: {error}")
for answer in work["answers"]:
    tokenizer = AutoTokenizer.from_pretrained(work["tokenizer"])
    tokenizer.add_tokens(answer["tokens"])
    parser = ToolParserManager.get_tool_parser(answer["parser"])(tokenizer)
    request = ChatCompletionRequest(
        model="m", messages=[{"role": "user", "content": "x"}], tools=answer["tools"]
    )
    found = parser.extract_tool_calls(answer["text"], request)
    calls.append(
        {
            "content": found.content,
            "calls": [
                [c.function.name, json.loads(c.function.arguments)] for c in found.tool_calls
            ],
        }
    )
json.dump({"prompts": prompts, "calls": calls}, sys.stdout)
