"""Our chat templates render the prompts that each family documents, by transformers' own renderer,
and vLLM's parsers read the calls that these prompts ask for."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
from tests.e2e.vllm_models import VllmModels

from yibu.engines.families import families
from yibu.engines.vllm import engine

pytestmark = [pytest.mark.engine, pytest.mark.vllm, pytest.mark.timeout(600)]

TEMPLATES = Path(engine.__file__).with_name("templates")
WEATHER = {
    "name": "get_weather",
    "description": "The weather of a city, 天气",
    "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
}
TIME = {"name": "get_time", "parameters": {"type": "object", "properties": {}}}
TOOLS = [{"type": "function", "function": WEATHER}]
SCHEMA = '{"type": "object", "properties": {"city": {"type": "string"}}}'
FUNCTION = (
    '{"name": "get_weather", "description": "The weather of a city, 天气", "parameters": '
    + SCHEMA
    + "}"
)
SYSTEM = {"role": "system", "content": "Be brief."}
USER = {"role": "user", "content": "How warm is it in Oslo?"}


def called(*calls: tuple[str, Any], content: str | None = None) -> dict[str, Any]:
    """As vLLM hands an assistant's message to a template: arguments are a mapping by then."""
    return {
        "role": "assistant",
        "content": content,
        "tool_calls": [
            {"id": str(n), "type": "function", "function": {"name": name, "arguments": arguments}}
            for n, (name, arguments) in enumerate(calls)
        ],
    }


OSLO = ("get_weather", {"city": "Oslo"})
ANSWER = {"role": "tool", "tool_call_id": "0", "content": '{"celsius": 4}'}
SAID = {"role": "assistant", "content": "4 °C."}

# chat_format.md in the InternLM repository, section "Function Call".
INTERNLM = (
    "<|im_start|>system\nBe brief.<|im_end|>\n"
    f"<|im_start|>system name=<|plugin|>\n[{FUNCTION}]<|im_end|>\n"
    "<|im_start|>user\nHow warm is it in Oslo?<|im_end|>\n"
)
INTERNLM_CALL = (
    "<|im_start|>assistant\nI look.<|action_start|><|plugin|>\n"
    '{"name": "get_weather", "parameters": {"city": "Oslo"}}<|action_end|><|im_end|>\n'
    '<|im_start|>environment name=<|plugin|>\n{"celsius": 4}<|im_end|>\n'
)
# The model card of Phi-4-mini-instruct, "Tool-enabled function-calling format".
PHI_TOOLS = f"<|tool|>[{FUNCTION}]<|/tool|><|end|>"
# The model card of DeepSeek-V3.1, "ToolCall".
DEEPSEEK_TOOLS = f"""\
## Tools
You have access to the following tools:

### get_weather
Description: The weather of a city, 天气

Parameters: {SCHEMA}

IMPORTANT: ALWAYS adhere to this exact format for tool use:
<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>tool_call_name<｜tool▁sep｜>tool_call_arguments<｜tool▁call▁end｜>\
{{{{additional_tool_calls}}}}<｜tool▁calls▁end｜>

Where:
- `tool_call_name` must be an exact match to one of the available tools
- `tool_call_arguments` must be valid JSON that strictly follows the tool's Parameters Schema
- For multiple tool calls, chain them directly without separators or spaces"""
DEEPSEEK_CALL = (
    "<｜Assistant｜></think><｜tool▁calls▁begin｜><｜tool▁call▁begin｜>get_weather<｜tool▁sep｜>"
    '{"city": "Oslo"}<｜tool▁call▁end｜><｜tool▁calls▁end｜><｜end▁of▁sentence｜>'
    '<｜tool▁output▁begin｜>{"celsius": 4}<｜tool▁output▁end｜>'
)

Case = tuple[str, list[dict[str, Any]], list[Any] | None, dict[str, Any], str]
CASES: dict[str, Case] = {
    "internlm, tools": (
        "internlm2_5", [SYSTEM, USER], TOOLS, {}, "<s>" + INTERNLM + "<|im_start|>assistant\n",
    ),
    "internlm, a call and its answer": (
        "internlm2_5",
        [SYSTEM, USER, called(OSLO, content="I look."), ANSWER, SAID, USER],
        TOOLS,
        {},
        "<s>" + INTERNLM + INTERNLM_CALL + "<|im_start|>assistant\n4 °C.<|im_end|>\n"
        "<|im_start|>user\nHow warm is it in Oslo?<|im_end|>\n<|im_start|>assistant\n",
    ),
    "internlm, no tools and no system": (
        "internlm2_5", [USER], None, {},
        "<s><|im_start|>user\nHow warm is it in Oslo?<|im_end|>\n<|im_start|>assistant\n",
    ),
    "internlm, two calls at once": (
        "internlm2_5", [USER, called(OSLO, OSLO)], TOOLS, {},
        "TemplateError: InternLM 2.5 calls one tool at a time, and a message here has several calls.",
    ),
    "phi, no tools": (
        "phi4_mini", [SYSTEM, USER, SAID, USER], None, {},
        ("<|system|>Be brief.<|end|><|user|>How warm is it in Oslo?<|end|><|assistant|>4 °C.<|end|>"
        "<|user|>How warm is it in Oslo?<|end|><|assistant|>"),
    ),
    "phi, no system": (
        "phi4_mini", [USER], None, {}, "<|user|>How warm is it in Oslo?<|end|><|assistant|>",
    ),
    "deepseek, tools": (
        "deepseek_v3_1", [SYSTEM, USER], TOOLS, {},
        (f"<s>Be brief.\n\n{DEEPSEEK_TOOLS}"
        "<｜User｜>How warm is it in Oslo?<｜Assistant｜></think>"),
    ),
    "deepseek, tools are for the mode without thoughts": (
        "deepseek_v3_1", [USER], TOOLS, {"thinking": True},
        f"<s>{DEEPSEEK_TOOLS}<｜User｜>How warm is it in Oslo?<｜Assistant｜></think>",
    ),
    "deepseek, a call and its answer": (
        "deepseek_v3_1", [USER, called(OSLO), ANSWER], TOOLS, {},
        f"<s>{DEEPSEEK_TOOLS}<｜User｜>How warm is it in Oslo?{DEEPSEEK_CALL}",
    ),
    "deepseek, what it said of an answer": (
        "deepseek_v3_1", [USER, called(OSLO), ANSWER, SAID, USER], TOOLS, {},
        (f"<s>{DEEPSEEK_TOOLS}<｜User｜>How warm is it in Oslo?{DEEPSEEK_CALL}4 °C."
        "<｜end▁of▁sentence｜><｜User｜>How warm is it in Oslo?<｜Assistant｜></think>"),
    ),
    "deepseek, thoughts": (
        "deepseek_v3_1",
        [SYSTEM, USER, {"role": "assistant", "content": "hm</think>4 °C."}, USER],
        None,
        {"thinking": True},
        ("<s>Be brief.<｜User｜>How warm is it in Oslo?<｜Assistant｜></think>4 °C.<｜end▁of▁sentence｜>"
        "<｜User｜>How warm is it in Oslo?<｜Assistant｜><think>"),
    ),
}  # fmt: skip

ANSWERS = {
    "internlm": (
        ('<|action_start|><|plugin|>\n{"name": "get_weather", "parameters": {"city": "Oslo"}}'
        "<|action_end|>"),
        ["<|action_start|>", "<|plugin|>", "<|action_end|>"],
        [list(OSLO)],
    ),
    "phi4_mini_json": (
        ('functools[{"name": "get_weather", "arguments": {"city": "Oslo"}},'
        ' {"name": "get_weather", "arguments": {"city": "Bergen"}}]'),
        [],
        [list(OSLO), ["get_weather", {"city": "Bergen"}]],
    ),
    "deepseek_v31": (
        ("<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>get_weather<｜tool▁sep｜>"
        '{"city": "Oslo"}<｜tool▁call▁end｜><｜tool▁calls▁end｜>'),
        ["<｜tool▁calls▁begin｜>", "<｜tool▁calls▁end｜>", "<｜tool▁call▁begin｜>",
         "<｜tool▁call▁end｜>", "<｜tool▁sep｜>"],
        [list(OSLO)],
    ),
}  # fmt: skip

PHI_CASES = (
    [SYSTEM, USER],
    [USER, called(OSLO, ("get_time", "{}")), ANSWER],
)


@pytest.fixture(scope="module")
def results(engine_cache: Path) -> dict[str, Any]:
    """Everything in one process: its imports take ten seconds."""
    models = VllmModels.of(engine_cache)
    cases = [
        {"template": str(TEMPLATES / f"{template}.jinja"), "messages": messages, "tools": tools,
         "more": more}
        for template, messages, tools, more, _ in CASES.values()
    ]  # fmt: skip
    cases += [
        {"template": str(TEMPLATES / "phi4_mini.jinja"), "messages": messages, "tools": TOOLS}
        for messages in PHI_CASES
    ]
    answers = [
        {"parser": parser, "text": text, "tokens": tokens, "tools": TOOLS}
        for parser, (text, tokens, _) in ANSWERS.items()
    ]
    work = {"tokenizer": str(models.smollm2()), "cases": cases, "answers": answers}
    script = Path(__file__).with_name("render_templates.py")
    done = subprocess.run(
        [models.python(), script],
        input=json.dumps(work), capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


@pytest.mark.parametrize("name", CASES)
def test_the_documented_prompt(results: dict[str, Any], name: str) -> None:
    assert results["prompts"][list(CASES).index(name)] == CASES[name][-1]


def test_phi_is_told_how_to_call(results: dict[str, Any]) -> None:
    """Its card says where the tools stand; the form of a call is what vLLM's parser reads."""
    asked, answered = results["prompts"][len(CASES) :]
    assert asked.startswith("<|system|>Be brief.\nTo call tools, ")
    assert 'functools[{"name": NAME, "arguments": {…}}, …]' in asked
    assert asked.endswith(f"{PHI_TOOLS}<|user|>How warm is it in Oslo?<|end|><|assistant|>")
    assert answered.startswith("<|system|>You are a helpful assistant with some tools.\n")
    assert answered.endswith(
        '<|assistant|>functools[{"name": "get_weather", "arguments": {"city": "Oslo"}}, '
        '{"name": "get_time", "arguments": {}}]<|end|>'
        '<|tool_response|>{"celsius": 4}<|end|><|assistant|>'
    )


@pytest.mark.parametrize("parser", ANSWERS)
def test_vllm_reads_what_the_prompt_asks_for(results: dict[str, Any], parser: str) -> None:
    found = results["calls"][list(ANSWERS).index(parser)]
    assert found["calls"] == ANSWERS[parser][2]


def test_every_template_of_ours_is_tried() -> None:
    ours = {one.parsers.template for one in families("vllm") if one.parsers.template}
    assert ours == {file.name for file in TEMPLATES.glob("*.jinja")}
    assert ours == {f"{case[0]}.jinja" for case in CASES.values()}
    assert {one.parsers.tools for one in families("vllm") if one.parsers.template} == set(ANSWERS)
