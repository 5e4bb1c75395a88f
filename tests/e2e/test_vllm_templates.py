"""The real vLLM with a chat template of ours: what it makes of a chat with tools."""

from __future__ import annotations

import json
import shutil
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest

from tests.e2e.home import Home
from tests.e2e.vllm_models import VllmModels

pytestmark = [pytest.mark.engine, pytest.mark.vllm, pytest.mark.timeout(600)]

NAME = "internlm2_5-1_8b-chat"
TOOL = {"type": "function", "function": {"name": "get_time", "parameters": {"type": "object"}}}
CALL = {"id": "a", "type": "function",
        "function": {"name": "get_time", "arguments": '{"zone": "UTC"}'}}  # fmt: skip


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory, engine_cache: Path) -> Iterator[Home]:
    """A tiny model of that name, whose own template takes no tools."""
    models = VllmModels.of(engine_cache)
    root = tmp_path_factory.mktemp("home")
    model = shutil.copytree(models.eight_heads(), root / NAME)
    served = Home(root, models.cache)
    options = {"max_model_len": 512, "max_num_seqs": 2}
    served.write([{"name": NAME, "source": str(model), "engine": "vllm", "options": options}])
    with served:
        done = served.yibu("up", "-d", timeout=300)
        assert (
            "chat template: yibu's for InternLM 2.5, because the model's own takes no"
            in done.stderr
        )
        yield served


def post(served: Home, path: str, **fields: Any) -> Any:
    body = json.dumps({"model": NAME, **fields}).encode()
    headers = {"Content-Type": "application/json"}
    request = urllib.request.Request(f"{served.url()}{path}", body, headers)
    with urllib.request.urlopen(request, timeout=60) as answer:
        return json.load(answer)


def test_tools_calls_and_answers_reach_the_prompt(served: Home) -> None:
    messages = [
        {"role": "user", "content": "What time is it?"},
        {"role": "assistant", "tool_calls": [CALL]},
        {"role": "tool", "tool_call_id": "a", "content": "noon"},
    ]
    tokens = post(served, "/tokenize", messages=messages, tools=[TOOL])["tokens"]
    prompt = post(served, "/detokenize", tokens=tokens)["prompt"]
    system, rest = prompt.split("<|im_start|>user\n")
    header, functions = system.removesuffix("<|im_end|>\n").rsplit("<|plugin|>\n", 1)
    assert header.endswith("<|im_start|>system name=")
    (function,) = json.loads(functions)
    assert function["name"] == "get_time"
    assert rest == (
        "What time is it?<|im_end|>\n<|im_start|>assistant\n<|action_start|><|plugin|>\n"
        '{"name": "get_time", "parameters": {"zone": "UTC"}}<|action_end|><|im_end|>\n'
        "<|im_start|>environment name=<|plugin|>\nnoon<|im_end|>\n<|im_start|>assistant\n"
    )


def test_requests_with_tools_are_answered(served: Home) -> None:
    with openai.OpenAI(base_url=f"{served.url()}/v1", api_key="-", max_retries=0) as client:
        answer = client.chat.completions.create(
            model=NAME, max_tokens=4, tools=[TOOL],  # type: ignore[list-item]  # as JSON has it
            messages=[{"role": "user", "content": "What time is it?"}],
        )  # fmt: skip
        assert answer.usage is not None
        assert answer.usage.prompt_tokens > 30  # the tool is among them
