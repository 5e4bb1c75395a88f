"""What llama.cpp allocates for the packaged SmolLM2, against what the planner says it will."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from yibu.planner.arithmetic import kv_bytes, llama_need
from yibu.planner.attention import cache_groups
from yibu.planner.facts import facts_from_headers, read_facts
from yibu.weights.gguf import HeaderCutShortError

pytestmark = pytest.mark.engine

MIB = 1 << 20

# llama.cpp first sizes everything with empty buffers, then allocates: the last report counts.
REPORT = re.compile(r"CPU\S*\s+(model|KV|compute|output) buffer size =\s+([\d.]+) MiB")

LOAD = """
import os, sys, xllamacpp
params = xllamacpp.CommonParams()
params.model.path = sys.argv[1]
params.n_ctx, params.n_parallel = int(sys.argv[2]), int(sys.argv[3])
params.cache_type_k = params.cache_type_v = getattr(xllamacpp.ggml_type, sys.argv[4])
params.warmup, params.verbosity, params.port = False, 4, 0
params.cpuparams.n_threads = 1
server = xllamacpp.Server(params)
os._exit(0)
"""


def allocated(python: Path, script: str, *words: object) -> dict[str, float]:
    """Bytes of each buffer, as llama.cpp reports them."""
    run = subprocess.run(
        [str(python), "-c", script, *map(str, words)],
        env={"LD_LIBRARY_PATH": str(python.parents[1] / "lib" / "yibu")},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    output = run.stdout + run.stderr
    assert run.returncode == 0, output
    return {kind: float(size) * MIB for kind, size in REPORT.findall(output)}


def test_facts_of_the_real_file(smollm2: Path) -> None:
    facts = read_facts(smollm2)
    assert facts.architecture == "llama"
    assert facts.quantization == "Q4_1"
    assert facts.parameters == 134_515_008
    assert (facts.layers, facts.attention_heads, facts.kv_heads, facts.head_dim) == (30, 9, 3, 64)
    assert facts.max_context == 8192
    assert facts.chat_template
    assert facts.weight_bytes < smollm2.stat().st_size == 98_362_432
    assert read_facts(smollm2.parent).files == (smollm2.name,)
    (group,) = cache_groups(facts)
    assert (group.layers, group.heads, group.width) == (30, 3, 128)


def test_the_real_header_from_a_prefix(smollm2: Path) -> None:
    raw = smollm2.read_bytes()
    with pytest.raises(HeaderCutShortError):
        facts_from_headers(name="m", gguf_prefix=raw[: 1 << 20], gguf_size=len(raw))
    facts = facts_from_headers(name="m", gguf_prefix=raw[: 2 << 20], gguf_size=len(raw))
    assert facts.weight_bytes == read_facts(smollm2).weight_bytes


@pytest.mark.parametrize(
    ("context", "parallel", "kv_dtype", "kv_type"),
    [
        (4096, 2, "f16", "GGML_TYPE_F16"),
        (256, 8, "f16", "GGML_TYPE_F16"),
        (8192, 1, "q8_0", "GGML_TYPE_Q8_0"),
        (16_384, 1, "f16", "GGML_TYPE_F16"),
    ],
)
def test_prediction_is_within_ten_percent(
    llama_cpp_python: Path, smollm2: Path, context: int, parallel: int, kv_dtype: str, kv_type: str
) -> None:
    found = allocated(llama_cpp_python, LOAD, smollm2, context * parallel, parallel, kv_type)
    facts = read_facts(smollm2)
    assert facts.weight_bytes == pytest.approx(found["model"], rel=0.1)
    need = llama_need(facts, context, parallel, kv_dtype)
    assert need.weights == facts.weight_bytes
    assert need.kv_cache == kv_bytes(facts, context, parallel, kv_dtype=kv_dtype, batched=512)
    assert need.kv_cache == pytest.approx(found["KV"], rel=0.1)
    buffers = found["compute"] + found["output"]
    assert need.overhead - 64 * MIB == pytest.approx(buffers, rel=0.1)


EMBED = LOAD.replace(
    "server =",
    """params.embedding = params.kv_unified = True
params.kv_unified_per_slot = int(sys.argv[2]) // int(sys.argv[3])
params.n_batch = params.n_ubatch = params.kv_unified_per_slot
params.pooling_type = xllamacpp.llama_pooling_type.LLAMA_POOLING_TYPE_MEAN
server =""",
)


@pytest.mark.parametrize(("context", "parallel"), [(1024, 4), (4096, 1)])
def test_a_model_that_embeds_allocates_what_is_planned(
    llama_cpp_python: Path, smollm2: Path, context: int, parallel: int
) -> None:
    words = (smollm2, context * parallel, parallel, "GGML_TYPE_F16")
    found = allocated(llama_cpp_python, EMBED, *words)
    need = llama_need(read_facts(smollm2), context, parallel, embeds=True)
    assert need.kv_cache == pytest.approx(found["KV"], rel=0.01)
    # Logits and vectors of a whole input come into being with the first.
    outputs = context * 4 * (49152 + 576)
    assert need.overhead - 64 * MIB - outputs == pytest.approx(found["compute"], rel=0.01)
