"""The real llama.cpp under the launcher: what it serves, and how it ends."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from samples import model
from test_flag_tables import words_for
from tests.support.ports import free_port

import yibu
from conftest import KEY, Running, wait_ready
from yibu.engines.llama_cpp.engine import LlamaCppOptions
from yibu.engines.llama_cpp.settings import read_settings
from yibu.engines.llama_cpp.table import FIELDS, TABLE
from yibu.errors import YibuError

pytestmark = pytest.mark.engine

TUTORIAL: dict[str, Any] = {
    "messages": [
        {"role": "system", "content": "你是一个乐于助人的助手。"},
        {"role": "user", "content": "你好，我想了解人工智能的发展历程。"},
    ],
    "model": "smol",
    "max_tokens": 16,
    "temperature": 0.7,
    "frequency_penalty": 0,
    "presence_penalty": 0,
    "logit_bias": {},
    "n": 1,
    "stream": False,
    "tool_choice": "none",
    "parallel_tool_calls": False,
}


@pytest.fixture(scope="module")
def engine(
    running: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Running]:
    log = tmp_path_factory.mktemp("engine") / "engine.log"
    with running(log, {"embeddings": True}) as ready:
        yield ready


@pytest.mark.skipif(sys.platform != "linux", reason="OpenMP is part of the wheel elsewhere")
def test_its_openmp_is_its_environments_own(engine: Running, llama_cpp_python: Path) -> None:
    """A bare system has none."""
    maps = Path(f"/proc/{engine.process.pid}/maps").read_text()
    found = {line.split()[-1] for line in maps.splitlines() if "libgomp" in line}
    assert len(found) == 1
    assert found.pop().startswith(f"{llama_cpp_python.parents[1]}/")


_SETS = """
import json, sys
import xllamacpp
from yibu.launchers.llama_cpp import set_field
for flag, field, value in json.load(sys.stdin):
    try:
        set_field(xllamacpp.CommonParams(), field, value)
    except Exception as error:
        print(flag, field, value, error)
"""


def test_every_flag_sets_a_field_as_the_packaged_build_has_it(llama_cpp_python: Path) -> None:
    settings = []
    for name in TABLE.flags:
        entry = model(None, "--" + name.replace("_", "-"), *words_for(TABLE, name))
        with contextlib.suppress(YibuError):  # what it cannot be told
            fields = read_settings(entry, LlamaCppOptions.model_fields).fields
            settings += [(name, field, json.dumps(value)) for field, value in fields.items()]
    assert len(settings) > 100
    done = subprocess.run(
        [str(llama_cpp_python), "-c", _SETS],
        input=json.dumps(settings),
        env={
            **os.environ,
            "PYTHONPATH": str(Path(yibu.__file__).parents[1]),
            "LD_LIBRARY_PATH": str(llama_cpp_python.parents[1] / "lib" / "yibu"),
        },
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == ""


def chat(text: str, **values: Any) -> dict[str, Any]:
    body = {"model": "smol", "messages": [{"role": "user", "content": text}], "max_tokens": 24}
    return {**body, **values}


@contextlib.contextmanager
def stream(engine: Running, body: dict[str, Any]) -> Iterator[http.client.HTTPResponse]:
    place = urlsplit(engine.url)
    connection = http.client.HTTPConnection(place.hostname or "", place.port, timeout=60)
    headers = {"Authorization": f"Bearer {KEY}", "Content-Type": "application/json"}
    text = json.dumps({**body, "stream": True})
    with contextlib.closing(connection):
        connection.request("POST", "/v1/chat/completions", text, headers)
        with connection.getresponse() as response:
            yield response


def test_the_tutorials_body_whole(engine: Running) -> None:
    answer = engine.post("/v1/chat/completions", TUTORIAL)
    assert answer["object"] == "chat.completion"
    assert answer["model"] == "smol"
    assert answer["choices"][0]["message"]["content"]
    assert 0 < answer["usage"]["completion_tokens"] <= 16


def test_streamed(engine: Running) -> None:
    with stream(engine, {**TUTORIAL, "stream_options": {"include_usage": True}}) as response:
        events = [line for line in response.read().decode().split("\n\n") if line]
    assert events[-1] == "data: [DONE]"
    chunks = [json.loads(event.removeprefix("data: ")) for event in events[:-1]]
    text = "".join(
        choice["delta"].get("content") or "" for chunk in chunks for choice in chunk["choices"]
    )
    assert text
    assert chunks[-1]["usage"]["completion_tokens"] > 0


def test_seed_makes_it_repeat(engine: Running) -> None:
    body = chat("Tell me a story.", seed=7, temperature=1.0)
    first, second = (
        engine.post("/v1/chat/completions", body)["choices"][0]["message"]["content"]
        for _ in range(2)
    )
    assert first == second


def test_n_up_to_parallel(engine: Running) -> None:
    answer = engine.post("/v1/chat/completions", chat("Hi", n=4, temperature=1.0))
    assert sorted(choice["index"] for choice in answer["choices"]) == [0, 1, 2, 3]


def test_stop(engine: Running) -> None:
    body = chat("Count: one, two, three, four, five.", stop=[" "], max_tokens=40)
    choice = engine.post("/v1/chat/completions", body)["choices"][0]
    assert choice["finish_reason"] == "stop"
    assert " " not in choice["message"]["content"]


def test_json_schema(engine: Running) -> None:
    schema = {
        "type": "object",
        "properties": {"city": {"type": "string", "maxLength": 20}, "people": {"type": "integer"}},
        "required": ["city", "people"],
        "additionalProperties": False,
    }
    body = chat(
        "Name a city.",
        max_tokens=80,
        response_format={"type": "json_schema", "json_schema": {"name": "c", "schema": schema}},
    )
    answer = json.loads(
        engine.post("/v1/chat/completions", body)["choices"][0]["message"]["content"]
    )
    assert set(answer) == {"city", "people"}
    assert isinstance(answer["people"], int)


def test_embeddings_beside_chat(engine: Running) -> None:
    texts = ["a cat sat on the mat", "tax law of the sea", "a cat sat on the mat"]
    answer = engine.post("/v1/embeddings", {"model": "smol", "input": texts})
    first, other, again = (item["embedding"] for item in answer["data"])
    assert len(first) == 576
    assert sum(x * x for x in first) == pytest.approx(1.0, abs=1e-3)
    assert first == pytest.approx(again, abs=1e-3)
    alone = engine.post("/v1/embeddings", {"model": "smol", "input": texts[0]})
    assert first == pytest.approx(alone["data"][0]["embedding"], abs=1e-3)
    assert first != pytest.approx(other, abs=1e-2)


def test_the_other_paths_that_the_plan_promises(engine: Running) -> None:
    assert engine.post("/v1/completions", {"prompt": "Once", "max_tokens": 4})["choices"]
    assert engine.post("/v1/responses", {"input": "Hi", "max_output_tokens": 4})["output"]
    message = engine.post("/v1/messages", chat("Hi", max_tokens=4))
    assert message["type"] == "message"
    assert engine.post("/tokenize", {"content": "hello"})["tokens"]


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/metrics", "/props"])
def test_a_wrong_key_is_refused(engine: Running, path: str) -> None:
    with pytest.raises(urllib.error.HTTPError) as caught:
        engine.post(path, chat("Hi"), key="wrong")
    caught.value.close()
    assert caught.value.code == 401


def test_the_key_is_nowhere_in_sight(engine: Running) -> None:
    argv = Path(f"/proc/{engine.process.pid}/cmdline").read_bytes()
    assert KEY.encode() not in argv
    assert KEY not in engine.log.read_text()


def test_ready_while_many_connections_are_held(engine: Running) -> None:
    place = urlsplit(engine.url)
    with contextlib.ExitStack() as held:
        for _ in range(12):
            held.enter_context(socket.create_connection((place.hostname or "", place.port or 0)))
        with urllib.request.urlopen(f"{engine.url}/health", timeout=60) as response:
            assert response.status == 200


def test_sigterm_ends_it_while_it_streams(running: Callable[..., Any], tmp_path: Path) -> None:
    with running(tmp_path / "log") as engine:
        body = chat("Write a long story about the sea.", max_tokens=1500, ignore_eos=True)
        with stream(engine, body) as response:
            assert response.readline().startswith(b"data: ")
            engine.process.send_signal(signal.SIGTERM)
            assert engine.process.wait(timeout=3) == -signal.SIGTERM


def test_sigterm_ends_it_while_it_loads(
    spawn: Callable[..., subprocess.Popen[bytes]], smollm2: Path, tmp_path: Path
) -> None:
    log = tmp_path / "log"
    process = spawn(smollm2, log, free_port())
    try:
        deadline = time.monotonic() + 30
        while "loading model" not in log.read_text(errors="replace"):
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < deadline
            time.sleep(0.002)
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=3) == -signal.SIGTERM
    finally:
        process.kill()
        process.wait()


def test_a_directory_with_one_model(
    spawn: Callable[..., subprocess.Popen[bytes]], smollm2: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "repo"
    folder.mkdir()
    (folder / "model.gguf").symlink_to(smollm2)
    (folder / "README.md").write_text("hello")
    port = free_port()
    process = spawn(folder, tmp_path / "log", port)
    try:
        wait_ready(process, f"http://127.0.0.1:{port}", tmp_path / "log")
    finally:
        process.kill()
        process.wait()


def test_the_table_of_fields_is_that_of_the_installed_engine(
    llama_cpp_python: Path, tmp_path: Path
) -> None:
    root = Path(__file__).parents[2]
    script = (root / "scripts/llama_cpp_fields.py").read_text()
    copy = tmp_path / "scripts/llama_cpp_fields.py"
    target = tmp_path / "src/yibu/engines/llama_cpp/fields.json"
    copy.parent.mkdir()
    target.parent.mkdir(parents=True)
    copy.write_text(script)
    subprocess.run([llama_cpp_python, copy], check=True, env=os.environ)
    assert json.loads(target.read_text())["fields"] == dict(FIELDS)
