"""The real vLLM, started by hand with a LoRA adapter, replaced; then embeddings and reranking."""

from __future__ import annotations

import http.client
import itertools
import json
import os
import socket
import subprocess
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import openai
import psutil
import pytest
import yaml

from tests.e2e.home import Home
from tests.e2e.vllm_models import VllmModels
from tests.support.polling import until

pytestmark = [pytest.mark.engine, pytest.mark.vllm, pytest.mark.timeout(900)]

KEY = "sk-of-the-old-vllm"
_START = 400.0
"""Seconds that a vLLM may take to start on a busy machine of two cores."""


@dataclass(frozen=True, slots=True)
class Replaced:
    """What `yibu adopt --replace` left: a node in the old server's place."""

    home: Home
    port: int
    old: psutil.Process
    family: list[psutil.Process]
    said: str
    before: dict[str, str]
    """What the old server said to one prompt, by model."""
    watch: Watch


@dataclass
class Watch:
    """Lists the models at an address again and again: when it was answered, and when not."""

    port: int
    answered: list[float] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)
    _stop: threading.Event = field(default_factory=threading.Event)

    def __enter__(self) -> Self:
        self._thread = threading.Thread(target=self._run)
        self._thread.start()
        until(lambda: self.answered, "a first answer")
        return self

    def __exit__(self, *_: object) -> None:
        count = len(self.answered)
        until(lambda: len(self.answered) > count, "a last answer")
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        headers = {"Authorization": f"Bearer {KEY}"}
        while not self._stop.wait(0.01):
            request = urllib.request.Request(
                f"http://127.0.0.1:{self.port}/v1/models", None, headers
            )
            try:
                with urllib.request.urlopen(request, timeout=60) as response:
                    response.read()
                self.answered.append(time.monotonic())
            except (OSError, http.client.HTTPException) as error:
                self.refused.append(str(error))

    def gap(self) -> float:
        """The longest time in seconds from one answer to the next."""
        return max(after - before for before, after in itertools.pairwise(self.answered))


def client(port: int) -> openai.OpenAI:
    base = f"http://127.0.0.1:{port}/v1"
    return openai.OpenAI(base_url=base, api_key=KEY, max_retries=0, timeout=300)


def say(port: int, model: str) -> str:
    with client(port) as api:
        answer = api.chat.completions.create(
            model=model, messages=[{"role": "user", "content": "Say hello."}],
            max_tokens=8, temperature=0,
        )  # fmt: skip
    return answer.choices[0].message.content or ""


@pytest.fixture(scope="module")
def models(engine_cache: Path) -> VllmModels:
    engine_cache.mkdir(parents=True, exist_ok=True)
    models = VllmModels(engine_cache)
    models.python()
    return models


@pytest.fixture(scope="module")
def replaced(tmp_path_factory: pytest.TempPathFactory, models: VllmModels) -> Iterator[Replaced]:
    home = Home(tmp_path_factory.mktemp("home"), models.cache)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    script = home.root / "start_smol.sh"
    script.write_text(
        "#!/bin/sh\nmkdir -p logs\nexport VLLM_CPU_KVCACHE_SPACE=1 TORCHDYNAMO_DISABLE=1\n"
        f"nohup sh -c '{models.python()} -m vllm.entrypoints.openai.api_server --api-key {KEY}"
        f" --model {models.smollm2()} --served-model-name smol gpt --max-model-len 1024"
        " --max-num-seqs 8 --dtype bfloat16 --enforce-eager --enable-lora"
        f" --lora-modules sql={models.lora()} --host 127.0.0.1 --port {port}'"
        " > logs/smol.log 2>&1 &\n"
    )
    (home.root / "t").mkdir()  # it leaves its sockets there
    env = {**os.environ, "HF_HUB_OFFLINE": "1", "OLD_SERVER": str(home.root),
           "TMPDIR": str(home.root / "t")}  # fmt: skip
    subprocess.run(["sh", str(script)], cwd=home.root, env=env, check=True, start_new_session=True)
    with home:
        until(lambda: answers(port), "the old vLLM", _START)
        old = next(p for p in started(home) if listens(p, port))
        family = [old, *old.children(recursive=True)]
        before = {model: say(port, model) for model in ("smol", "sql")}
        with Watch(port) as watch:
            done = home.yibu("adopt", script.name, "--replace", "-o", "yibu.yaml", timeout=_START)
        yield Replaced(home, port, old, family, done.stderr, before, watch)
        for process in started(home):
            process.kill()


def started(home: Home) -> list[psutil.Process]:
    """What the script started and that still runs, its workers too."""
    found = []
    for process in psutil.process_iter():
        try:
            mine = process.environ().get("OLD_SERVER") == str(home.root)
        except psutil.Error:
            continue
        if mine and process.status() != psutil.STATUS_ZOMBIE:
            found.append(process)
    return found


def listens(process: psutil.Process, port: int) -> bool:
    return any(c.laddr.port == port for c in process.net_connections("tcp") if c.laddr)


def answers(port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=60) as response:
            return bool(response.status == 200)
    except (urllib.error.URLError, OSError):
        return False


def post(api: openai.OpenAI, path: str, body: dict[str, Any]) -> dict[str, Any]:
    answer = api.post(path, body=body, cast_to=object)
    assert isinstance(answer, dict)
    return answer


def write(home: Home, models: list[dict[str, Any]]) -> Path:
    """A file beside the adopted one; what another file brought up is no concern of its."""
    path = home.root / f"{models[0]['name']}.yaml"
    path.write_text(json.dumps({"models": models}))
    return path


def test_the_old_one_is_gone_and_its_clients_are_served(replaced: Replaced) -> None:
    assert not [process for process in replaced.family if process.is_running()
                and process.status() != psutil.STATUS_ZOMBIE]  # fmt: skip
    assert not started(replaced.home)
    assert f"in place of pid {replaced.old.pid}" in replaced.said
    assert replaced.home.url() == f"http://127.0.0.1:{replaced.port}"
    document = yaml.safe_load((replaced.home.root / "yibu.yaml").read_text())
    assert document["models"][0]["aliases"] == ["gpt"]
    assert KEY not in replaced.said
    watch = replaced.watch
    print(f"no answer for {watch.gap():.2f} s at most, {len(watch.refused)} requests refused")
    assert not any("HTTP Error" in refusal for refusal in watch.refused)
    for model in ("smol", "gpt"):
        assert say(replaced.port, model) == replaced.before["smol"]


def test_the_adapter_is_a_model_of_its_own(replaced: Replaced) -> None:
    assert replaced.before["sql"] != replaced.before["smol"]
    assert len(set(replaced.before["sql"])) > 2  # words, not the one token of a broken model
    assert say(replaced.port, "sql") == replaced.before["sql"]
    with client(replaced.port) as api:
        assert [model.id for model in api.models.list()] == ["smol", "gpt", "sql"]
        stream = api.chat.completions.create(
            model="sql", messages=[{"role": "user", "content": "Say hello."}],
            max_tokens=8, temperature=0, stream=True,
        )  # fmt: skip
        pieces = [chunk.choices[0].delta.content or "" for chunk in stream if chunk.choices]
        with pytest.raises(openai.NotFoundError, match="smol, gpt, sql"):
            api.models.retrieve("none")
    assert "".join(pieces) == replaced.before["sql"]
    (replica,) = replaced.home.model("smol")["replicas"]
    server = psutil.Process(replica["pid"])
    assert "--enable-lora" in server.cmdline()


def test_embeddings_and_reranking_beside_it(replaced: Replaced, models: VllmModels) -> None:
    """Pooling models are models like others: listed, refused for what they do not do."""
    home = replaced.home
    path = write(
        home,
        [
            {"name": "vectors", "source": str(models.eight_heads()), "engine": "vllm",
             "options": {"context": 256, "parallel": 4, "runner": "pooling", "convert": "embed"}},
            {"name": "ranks", "source": str(models.cross_encoder()), "engine": "vllm",
             "options": {"context": 128, "parallel": 4}},
        ]
    )  # fmt: skip
    home.yibu("up", "-d", "-f", str(path), timeout=_START)
    with client(replaced.port) as api:
        texts = ["easy deployment", "simple rollout"]
        vectors = api.embeddings.create(model="vectors", input=texts)
        assert [len(item.embedding) for item in vectors.data] == [512, 512]
        assert vectors.data[0].embedding != vectors.data[1].embedding
        assert vectors.model == "vectors"
        body = {"model": "ranks", "query": "what", "documents": ["this", "that", "these"]}
        ranked = post(api, "/rerank", body)
        scores = [item["relevance_score"] for item in ranked["results"]]
        assert sorted(scores, reverse=True) == scores
        assert {item["index"] for item in ranked["results"]} == {0, 1, 2}
        pair = {"model": "ranks", "text_1": "what", "text_2": ["this", "that"]}
        scored = post(api, "/score", pair)
        by_index = {item["index"]: item["relevance_score"] for item in ranked["results"]}
        assert scored["data"][0]["score"] == pytest.approx(by_index[0], rel=0.01)
        alike = {"model": "vectors", "text_1": texts[0], "text_2": [texts[0], texts[1]]}
        same, other = (item["score"] for item in post(api, "/score", alike)["data"])
        assert same == pytest.approx(1, abs=0.01)
        assert other < same
        for model in ("vectors", "ranks"):
            tokens = post(
                api,
                f"http://127.0.0.1:{replaced.port}/tokenize",
                {"model": model, "prompt": "what"},
            )
            assert tokens["count"] == len(tokens["tokens"]) > 0
        with pytest.raises(openai.NotFoundError, match="does reranking"):
            api.embeddings.create(model="ranks", input="x")
        with pytest.raises(openai.NotFoundError, match="does embedding"):
            api.chat.completions.create(
                model="vectors", messages=[{"role": "user", "content": "x"}]
            )


def test_a_rank_too_large_is_explained(replaced: Replaced, models: VllmModels) -> None:
    home = replaced.home
    path = write(home,
        [{"name": "big", "source": str(models.smollm2()), "engine": "vllm",
          "options": {"context": 256, "parallel": 2, "lora": {"wide": str(models.lora(32))}}}]
    )  # fmt: skip
    done = home.yibu("up", "-d", "-f", str(path), code=1, timeout=_START)
    assert "A LoRA adapter has rank 32" in done.stderr
    assert "options.max_lora_rank: 32" in done.stderr
