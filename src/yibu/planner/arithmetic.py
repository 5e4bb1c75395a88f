"""Bytes: of weights, KV cache and overhead, on one GPU of a tensor-parallel group or on a CPU.

Sources stand with each formula. Where a term cannot be derived (CUDA graphs, allocator slack) it
is a measured allowance, and its comment says so.
"""

from __future__ import annotations

from collections.abc import Iterable

from yibu.planner import hf_config
from yibu.planner.attention import CacheGroup, cache_groups, window_tokens
from yibu.planner.types import MemoryNeed, ModelFacts

KIB, MIB, GIB = 1 << 10, 1 << 20, 1 << 30

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
    """Bytes of one KV cache element; two (half precision) where nothing else is said."""
    return _KV_BYTES.get((dtype or "").lower(), 2.0)


def kv_bytes_per_token(facts: ModelFacts, kv_dtype: str | None = None, tp: int = 1) -> int:
    """Bytes one more token of context costs on each GPU, beyond every sliding window."""
    element = kv_element_bytes(kv_dtype)
    growing = (g for g in cache_groups(facts) if g.kind in ("full", "latent"))
    return int(sum(_token_elements(group, tp) for group in growing) * element)


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
            total += _token_elements(group, tp) * window_tokens(group, context, batched) * element
    return int(total * sequences)


def _token_elements(group: CacheGroup, tp: int) -> float:
    """Elements a token takes on each GPU in all layers of a group.

    With more GPUs than heads each head is kept several times (vLLM's
    ``get_num_kv_heads``: max(1, heads // tp)); a latent is kept whole by everyone.
    """
    heads = 1 if group.kind == "latent" else max(1, group.heads // tp)
    return group.layers * heads * group.width


def weights_per_gpu(facts: ModelFacts, tp: int) -> int:
    """Bytes of weights on each GPU: matrices are split, norms and routers are kept whole.

    What is kept whole is below a thousandth of any model at hand, so 1/tp with 1 % added.
    """
    return facts.weight_bytes if tp == 1 else int(facts.weight_bytes / tp * 1.01)


def vocabulary(facts: ModelFacts) -> int:
    if facts.format == "gguf":
        tokens = facts.details.get("tokenizer.ggml.tokens")
        length = getattr(tokens, "length", None) or (len(tokens) if isinstance(tokens, list) else 0)
        size = facts.details.get(f"{facts.architecture}.vocab_size")
        return int(size) if isinstance(size, int) else int(length)
    text = hf_config.text_config(facts.details)
    return hf_config.number(text, "vocab_size", "padded_vocab_size")


def hidden_size(facts: ModelFacts) -> int:
    if facts.format == "gguf":
        value = facts.details.get(f"{facts.architecture}.embedding_length")
        return value if isinstance(value, int) else 0
    return hf_config.hidden_size(hf_config.text_config(facts.details))


def largest(divisors: Iterable[int], limit: int) -> int:
    """The largest of some numbers that is at most ``limit``; 1 when none is."""
    return max((d for d in divisors if d <= limit), default=1)


def cpu_need(
    facts: ModelFacts, context: int, parallel: int, kv_dtype: str | None = None
) -> MemoryNeed:
    """What llama.cpp allocates: weights, KV cache in f16, compute buffer."""
    ubatch = 512
    return MemoryNeed(
        weights=facts.weight_bytes,
        kv_cache=kv_bytes(facts, context, parallel, kv_dtype=kv_dtype, batched=ubatch),
        overhead=64 * MIB + ubatch * 4 * (vocabulary(facts) + 8 * hidden_size(facts)),
    )
