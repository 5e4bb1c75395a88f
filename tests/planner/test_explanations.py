"""An explanation in another language than that of the process that made it, as the console shows it."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
from models import GIB, MIB, SMOL, gpu, machine_with, vllm
from test_offload import LLAMA_8B, MACHINE, request, vulkan

from yibu.messages import render
from yibu.planner.explain import Row, explain, explain_machine
from yibu.planner.ledger import Reservation
from yibu.planner.machine_file import BUILT_IN
from yibu.planner.plan import plan
from yibu.planner.request import Request, Slots
from yibu.planner.types import GpuProcess, Machine

_ADAPTERS = replace(vllm("SmolLM2-135M", context=2048), lora=Slots(count=1, rank=16))
_CODES = {
    "gguf",
    "safetensors",
    "graph",
    "rank",
    "token",
    "machine",
    "python",
    "bfloat",
    "max",
    "model",
    "len",
    "main",
    "llama",
}
"""Names and flags, which stand in Chinese texts as they are."""
_WORD = re.compile(r"`[^`]*`|(?<![\w./-])([a-z]{3,})(?![\w./-])")

PLANS = {
    "one GPU": (vllm("Llama-3.1-8B"), BUILT_IN["rtx4090-24g"]),
    "too large": (vllm("Llama-3.1-8B"), BUILT_IN["rtx3070-8g"]),
    "two GPUs": (
        vllm("Qwen3-0.6B", context=8192, tensor_parallel=2),
        machine_with(gpu(0, 24), gpu(1, 24)),
    ),
    "ranks": (vllm("SmolLM2-135M", context=2048, tensor_parallel=3), machine_with(memory=24)),
    "adapters": (_ADAPTERS, BUILT_IN["1x80g"]),
    "adapters on two GPUs": (
        replace(_ADAPTERS, tensor_parallel=2),
        machine_with(gpu(0, 24), gpu(1, 24)),
    ),
    "past prompts": (Request("a", "slots", SMOL), machine_with(cores=8)),
    "devices": (request(LLAMA_8B, vulkan(4 * GIB), parallel=1), MACHINE),
}


def english_in(rows: list[Row]) -> list[str]:
    texts = (render(text, "zh_CN") for row in rows for text in (row.label, row.value, row.note))
    return [text for text in texts if set(_WORD.findall(text)) - _CODES - {""}]


@pytest.mark.parametrize("which", PLANS)
def test_a_plan_is_in_the_readers_language(which: str) -> None:
    asked, machine = PLANS[which]
    rows = explain(asked, plan([asked], machine)[0])
    assert english_in(rows) == []
    assert any(row.kind == "verdict" for row in rows)


def test_a_machine_is_in_the_readers_language() -> None:
    holder = GpuProcess(7, "python", 2 * GIB)
    machine: Machine = machine_with(gpu(0, 24, free=22, processes=(holder,)))
    held = [Reservation(name, (), 900 * MIB) for name in ("a-0", "b-0")]
    assert english_in(explain_machine(machine, held)) == []
