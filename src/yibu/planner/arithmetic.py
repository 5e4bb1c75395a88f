"""Bytes of weights, KV cache and overhead, on one GPU of a tensor-parallel group or on a CPU.

Sources stand with each formula. Where a term cannot be derived (CUDA graphs, allocator slack) it
is a measured allowance, and its comment says so.
"""

from __future__ import annotations

from dataclasses import dataclass

from yibu.messages import tr
from yibu.planner import hf_config
from yibu.planner.attention import cache_groups, window_tokens
from yibu.planner.cache import CacheGroup
from yibu.planner.hf.model import has_own_head
from yibu.planner.hf.settings import setting
from yibu.planner.lora import Slots, kept_bytes, slot_bytes
from yibu.planner.request import FEW_THREADS, Request
from yibu.planner.types import MemoryNeed, ModelFacts

MIB, GIB = 1 << 20, 1 << 30

_KV_BYTES = {
    "float32": 4.0,
    "f32": 4.0,
    "float16": 2.0,
    "bfloat16": 2.0,
    "half": 2.0,
    "f16": 2.0,
    "bf16": 2.0,
    "fp8": 1.0,
    "fp8_e4m3": 1.0,
    "fp8_e5m2": 1.0,
    "int8": 1.0,
    # llama.cpp's quantized caches: blocks of 32 with their scales.
    "q8_0": 34 / 32,
    "q5_1": 24 / 32,
    "q5_0": 22 / 32,
    "q4_1": 20 / 32,
    "q4_0": 18 / 32,
    "iq4_nl": 18 / 32,
}


def kv_element_bytes(dtype: str | None) -> float:
    """Bytes of one KV cache element; two (half precision) by default."""
    return _KV_BYTES.get((dtype or "").lower(), 2.0)


def kv_bytes_per_token(facts: ModelFacts, kv_dtype: str | None = None, tp: int = 1) -> int:
    """Bytes that one more token of context costs on each GPU, beyond every sliding window."""
    element = kv_element_bytes(kv_dtype)
    growing = (g for g in cache_groups(facts) if g.kind in ("full", "latent"))
    return int(sum(_token_bytes(group, tp, element) for group in growing))


def window_bytes_per_token(facts: ModelFacts) -> int:
    """Bytes a token costs within the sliding windows, in half precision."""
    windows = (g for g in cache_groups(facts) if g.kind == "window")
    return int(sum(_token_bytes(group, 1, 2.0) for group in windows))


def state_bytes(facts: ModelFacts) -> int:
    """Bytes of state per sequence, independent of its length."""
    return sum(4 * g.layers * g.state for g in cache_groups(facts) if g.kind == "state")


def kv_bytes(
    facts: ModelFacts,
    context: int,
    sequences: int,
    *,
    kv_dtype: str | None = None,
    tp: int = 1,
    batched: int = 2048,
) -> int:
    """Bytes of KV cache on each GPU for some sequences of full length.

    2 × layers × kv_heads/tp × head_dim × tokens × element, latents counted once and whole on
    every GPU, states in 4-byte floats.

    Args:
        context: Tokens a sequence.
        sequences: Sequences held at once.
        tp: GPUs the heads are spread over.
        batched: Tokens of one step, which a sliding window must hold besides.
    """
    element = kv_element_bytes(kv_dtype)
    total = 0.0
    for group in cache_groups(facts):
        if group.kind == "state":
            total += group.layers * group.state / tp * 4
        else:
            total += _token_bytes(group, tp, element) * window_tokens(group, context, batched)
    return int(total * sequences)


def _token_bytes(group: CacheGroup, tp: int, element: float) -> float:
    """Bytes a token takes on each GPU in all layers of a group.

    With more GPUs than heads each head is kept several times (vLLM's
    ``get_num_kv_heads``: max(1, heads // tp)); a latent is kept whole by everyone.
    """
    heads = 1 if group.kind == "latent" else max(1, group.heads // tp)
    return group.layers * (heads * group.width * element + group.fixed) / group.ratio


def vocabulary(facts: ModelFacts) -> int:
    if facts.format == "gguf":
        tokens = facts.details.get("tokenizer.ggml.tokens")
        length = getattr(tokens, "length", None) or (len(tokens) if isinstance(tokens, list) else 0)
        size = facts.details.get(f"{facts.architecture}.vocab_size")
        return int(size) if isinstance(size, int) else int(length)
    return setting(hf_config.text_config(facts.details), "vocabulary")


def hidden_size(facts: ModelFacts) -> int:
    if facts.format == "gguf":
        value = facts.details.get(f"{facts.architecture}.embedding_length")
        return value if isinstance(value, int) else 0
    return setting(hf_config.text_config(facts.details), "hidden")


def feed_forward_size(facts: ModelFacts) -> int:
    """Width of the widest feed-forward layer a token goes through."""
    if facts.format == "gguf":
        value = facts.details.get(f"{facts.architecture}.feed_forward_length")
        values = value if isinstance(value, list) else [value]
        return max((v for v in values if isinstance(v, int)), default=0)
    text = hf_config.text_config(facts.details)
    used = max(1, setting(text, "used_experts"))
    return max(setting(text, "inner"), used * setting(text, "expert_inner"))


# ---------------------------------------------------------------------------- llama.cpp

ENCODERS = frozenset({"bert", "nomic-bert", "nomic-bert-moe", "jina-bert-v2", "t5encoder"})
"""GGUF architectures that make vectors alone, without a matrix for logits."""
_LLAMA_UBATCH = 512
LLAMA_PROCESS = 64 * MIB


def llama_need(
    facts: ModelFacts,
    context: int,
    parallel: int,
    kv_dtype: str | None = None,
    *,
    batched: int | None = None,
    prompt_cache: int = 0,
    embeds: bool = False,
) -> MemoryNeed:
    """Memory that llama.cpp uses on a CPU, with ``prompt_cache`` bytes filled.

    The compute buffer holds, for each token of a step (``batched``, its ``n_ubatch``), the attention
    mask (one f16 a cached token of a slot) and the widest activations in f32 (three feed-forward and
    five hidden vectors); the output buffer one f32 row of logits a slot. Measured with
    SmolLM2-135M: 15.1, 18.6, 30.6 and 46.6 MiB at 512, 4,096, 16,384 and 32,768 tokens; the formula
    gives 15.1, 18.6, 30.6 and 46.6.

    A model that embeds takes a whole sequence in one step, masks the cache of all slots, and
    computes and keeps logits and a vector of every token. Measured, compute buffers: 211.3 MiB
    with 4 slots of 1,024 tokens, 845.2 with one of 4,096 and 941.2 with four; the formula gives
    211.3, 845.0 and 941.0.
    """
    batched = batched or (context if embeds else _LLAMA_UBATCH)
    hidden = hidden_size(facts)
    rows = 0 if facts.architecture in ENCODERS else vocabulary(facts)
    compute = llama_compute(facts, context, parallel, batched, embeds=embeds)
    output = 4 * (rows + hidden) * max(batched, parallel) if embeds else 4 * rows * parallel
    return MemoryNeed(
        weights=facts.weight_bytes,
        kv_cache=kv_bytes(facts, context, parallel, kv_dtype=kv_dtype, batched=batched),
        overhead=LLAMA_PROCESS + compute + output + prompt_cache,
    )


def llama_compute(
    facts: ModelFacts,
    context: int,
    parallel: int,
    batched: int | None = None,
    *,
    embeds: bool = False,
    vectors: int = 5,
) -> int:
    """llama.cpp's compute buffer on one device: the mask and, for each token of a step, the widest
    activations and some hidden ``vectors``."""
    batched = batched or (context if embeds else _LLAMA_UBATCH)
    rows = 0 if facts.architecture in ENCODERS else vocabulary(facts)
    widest = max(3 * feed_forward_size(facts), rows) if embeds else 3 * feed_forward_size(facts)
    masked = context * parallel if embeds else context
    return batched * (2 * masked + 4 * (widest + vectors * hidden_size(facts)))


def llama_host_compute(
    facts: ModelFacts, context: int, parallel: int, batched: int | None = None, *, embeds: bool
) -> int:
    """Main memory used by a device's computing: the mask and four hidden vectors."""
    batched = batched or (context if embeds else _LLAMA_UBATCH)
    masked = context * parallel if embeds else context
    return batched * (2 * masked + 16 * hidden_size(facts))


# ---------------------------------------------------------------------------- vLLM on GPUs


@dataclass(frozen=True, slots=True)
class Overhead:
    """Bytes of a GPU beside weights and cache."""

    runtime: int
    activations: int
    graphs: int
    """Bytes allocated after the cache was sized, which vLLM's memory share does not cover."""

    @property
    def total(self) -> int:
        return self.runtime + self.activations + self.graphs


def vllm_overhead(
    facts: ModelFacts, *, tp: int, batched: int, sequences: int, eager: bool
) -> Overhead:
    """An allowance for one GPU of a vLLM engine.

    Runtime: CUDA context and kernels 0.5 GiB, with NCCL and the all-reduce buffers 0.5 GiB more.
    Activations, as vLLM's profiling run makes them: for each token of the largest step four hidden
    vectors and two feed-forward vectors in half precision, and for each sequence three rows of
    logits in f32 (logits, sorted, cumulated). Graphs: 10 MiB a layer for the sizes captured.
    The runtime's and graphs' figures are allowances that no measurement on a card backs yet.
    """
    widths = 4 * hidden_size(facts) + 2 * feed_forward_size(facts) // tp
    activations = batched * widths * 2 + sequences * vocabulary(facts) * 4 * 3
    return Overhead(
        runtime=GIB // 2 if tp == 1 else GIB,
        activations=activations,
        graphs=0 if eager else 10 * MIB * facts.layers,
    )


def loaded_weights(facts: ModelFacts, dtype: str | None) -> int:
    """Bytes of the weights as loaded by vLLM.

    Quantized weights stay as stored. ``auto`` turns float32 into half precision
    (vllm/config/model.py, ``_get_and_verify_dtype``); a dtype asked for converts.
    """
    wide = {"float32": 4, "float": 4, "float16": 2, "half": 2, "bfloat16": 2}
    stored = wide.get(facts.dtype, 2)
    if facts.quantization is not None or facts.format != "safetensors":
        return facts.weight_bytes
    return facts.weight_bytes * wide.get(dtype or "", 2) // stored


def tensor_parallel_problem(facts: ModelFacts, tp: int) -> str | None:
    """Why a model cannot be split over ``tp`` GPUs, None when it can.

    vLLM splits attention by heads: each GPU takes as many query heads, and either as many
    key/value heads or a copy of one.
    """
    if tp == 1:
        return None
    heads, kv_heads = facts.attention_heads, facts.kv_heads
    if heads and heads % tp:
        return tr("its {heads} attention heads cannot be divided by {tp}", heads=heads, tp=tp)
    if kv_heads and kv_heads % tp and tp % kv_heads:
        return tr(
            "its {kv_heads} key/value heads fit no group of {tp} GPUs", kv_heads=kv_heads, tp=tp
        )
    width = feed_forward_size(facts)
    if width and width % tp:
        return tr("its feed-forward width {width} cannot be divided by {tp}", width=width, tp=tp)
    return None


def valid_size(facts: ModelFacts, limit: int) -> int:
    """The largest tensor parallel size up to ``limit`` that the model allows."""
    return next(
        (tp for tp in range(max(1, limit), 1, -1) if not tensor_parallel_problem(facts, tp)), 1
    )


# ---------------------------------------------------------------------------- vLLM on a CPU

VLLM_CPU_SEQUENCES = 32
"""Sequences at once for vLLM on a CPU, whose cache is paged: each takes what it has used so far,
and when all is taken the youngest waits. The cache is made for a few whole ones."""
_VLLM_CACHE_STEP = 64 * MIB
# What a vLLM on a CPU holds besides weights, cache and activations: torch, compiled kernels,
# tokenizer and HTTP server of its processes, as their proportional shares of all pages
# (benchmarks/engine_memory.py, vLLM 0.32.0, eight clients at once; what is in brackets). Each has a
# fifth added: allocators differ, and a machine that swaps answers nobody.
_VLLM_PROCESSES = int(1.65 * GIB)
"""API server and engine core (1400 MiB)."""
_VLLM_WORKER = int(0.55 * GIB)
"""A worker process of its own, where it has one (473 MiB)."""
_VLLM_RANK = int(0.4 * GIB)
"""Each further rank of tensor parallel (310 MiB)."""
_VLLM_BATCHED = 2048
"""Tokens of one step and rank (vllm/engine/arg_utils.py: an API server on a CPU)."""


def vllm_cpu_need(
    facts: ModelFacts, context: int, parallel: int, request: Request, threads: int
) -> MemoryNeed:
    """Main memory that one rank of vLLM takes, with ``parallel`` sequences of full length cached."""
    ranks = request.tensor_parallel or 1
    cache = kv_bytes(facts, context, parallel, kv_dtype=request.kv_dtype, tp=ranks)
    weights = loaded_weights(facts, request.dtype)
    return MemoryNeed(
        weights=weights if ranks == 1 else int(weights / ranks * 1.01),
        # One step more: vLLM keeps a block of its own, and rounds each sequence up to whole blocks.
        kv_cache=(cache // _VLLM_CACHE_STEP + 1) * _VLLM_CACHE_STEP,
        overhead=_vllm_cpu_overhead(facts, request, threads),
        adapters=_adapters(facts, request.lora, ranks),
    )


def _vllm_cpu_overhead(facts: ModelFacts, request: Request, threads: int) -> int:
    """Bytes of one rank: its part of the processes, and its activations."""
    ranks = request.tensor_parallel or 1
    unbound = request.threads is not None or threads <= FEW_THREADS
    alone = ranks == 1 and unbound and not request.several
    processes = _VLLM_PROCESSES + (0 if alone else _VLLM_WORKER) + (ranks - 1) * _VLLM_RANK
    batched = request.batched or _VLLM_BATCHED * ranks
    served = request.parallel or VLLM_CPU_SEQUENCES
    computing = vllm_overhead(facts, tp=ranks, batched=batched, sequences=served, eager=True)
    return processes // ranks + _packed_vocabulary(facts, request) // ranks + computing.activations


def _packed_vocabulary(facts: ModelFacts, request: Request) -> int:
    """Bytes of the second copies that vLLM keeps of embeddings and output matrix on a CPU: it packs
    every matrix for its products, and of these two keeps the first copy too
    (``dispatch_cpu_unquantized_gemm`` with ``remove_weight=False``)."""
    element = 4 if request.dtype in ("float32", "float") else 2
    matrices = 2 if has_own_head(facts.details) else 1
    return matrices * vocabulary(facts) * hidden_size(facts) * element


def _adapters(facts: ModelFacts, slots: Slots | None, ranks: int) -> int:
    """Main memory of one rank for adapters: on a CPU the slots are in main memory too."""
    return slot_bytes(facts, slots, ranks) + kept_bytes(facts, slots) if slots else 0
