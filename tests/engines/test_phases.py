"""The lines with which an engine's start goes on, as the real engines write them."""

from __future__ import annotations

from pathlib import Path

import pytest

from yibu.engines.logs import PhaseMark, phases_of
from yibu.engines.registry import engines

STARTS = Path(__file__).parent / "starts"
EXPECTED = {
    "vllm-cpu.log": (phases_of("vllm"), ["load", "warm-up"]),
    "vllm-cpu-compiled.log": (phases_of("vllm"), ["load", "compile", "warm-up"]),
    "llama-cpp.log": (phases_of("llama.cpp"), ["load", "warm-up"]),
    "speech.log": (phases_of("speech"), ["load", "warm-up"]),
}
# In vLLM's source, where no card is at hand to have them printed.
GPU_LINES = {
    "(EngineCore_DP0 pid=1) INFO 11-23 10:00:00 [monitor.py:40] Starting torch.compile": "compile",
    "INFO 11-23 10:00:00 [kv_cache_utils.py:2327] GPU KV cache size: 8,704 tokens, Maximum": "warm-up",
    "Capturing CUDA graphs (mixed prefill-decode, PIECEWISE):   0%|          | 0/67": "warm-up",
    "Loading safetensors checkpoint shards:   0% Completed | 0/4 [00:00<?, ?it/s]": "load",
}


def found(marks: tuple[PhaseMark, ...], text: str) -> list[str]:
    """The phases in the order of the lines that mark them, each once."""
    phases: dict[str, None] = {}
    for line in text.splitlines():
        for mark in marks:
            if mark.pattern.search(line):
                phases.setdefault(mark.phase)
    return list(phases)


@pytest.mark.parametrize("name", EXPECTED)
def test_phases_of_a_real_log(name: str) -> None:
    marks, expected = EXPECTED[name]
    assert found(marks, (STARTS / name).read_text(encoding="utf-8")) == expected


@pytest.mark.parametrize("line", GPU_LINES)
def test_lines_of_a_gpu(line: str) -> None:
    assert found(phases_of("vllm"), line) == [GPU_LINES[line]]


def test_every_engine_says_its_phases_in_order() -> None:
    order = ("load", "compile", "warm-up")
    for engine in engines():
        ranks = [order.index(mark.phase) for mark in engine.phases]
        assert ranks == sorted(ranks), engine.name
