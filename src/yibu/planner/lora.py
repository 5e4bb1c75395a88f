"""Memory that vLLM sets aside for LoRA adapters, whether one is loaded or not.

vLLM wraps every linear layer that an adapter could change, and makes for each the two matrices of
an adapter of the largest rank it is to take, once a slot (vllm/lora/layers: ``create_lora_weights``
of base_linear, column_parallel_linear, fused_moe, vocab_parallel_embedding, logits_processor). A
layer from n to m elements takes rank × (n + m) of them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from yibu.messages import tr
from yibu.planner import hf_config
from yibu.planner.hf.layers import sparse_layers
from yibu.planner.hf.settings import number, setting
from yibu.planner.types import ModelFacts

_WITHOUT_VOCABULARY = (
    "Qwen2",
    "Gemma",
    "Deepseek",
    "Glm",
    "ChatGLM",
    "GptOss",
    "Kimi",
    "MiniMax",
    "SeedOss",
    "Hunyuan",
    "Phi4",
    "InternLM2",
)
"""Families in which vLLM adapts neither embeddings nor output matrix (their classes have no
``embedding_modules``); counted for all others, of which most do."""


@dataclass(frozen=True, slots=True)
class Slots:
    """vLLM's settings for adapters, in its own terms."""

    count: int = 1
    """``max_loras``: adapters that one step may use together."""
    rank: int = 16
    """``max_lora_rank``."""
    kept: int = 0
    """``max_cpu_loras``: adapters kept in main memory, to be copied into a slot; 0: as many as
    there are slots."""
    element: int = 2
    """Bytes of one element."""
    sharded: bool = False
    """``fully_sharded_loras``."""
    modules: frozenset[str] = frozenset()
    """``lora_target_modules``: the only ones that get slots; empty: all."""

    @property
    def kept_in_memory(self) -> int:
        return max(self.kept, self.count)


@dataclass(frozen=True, slots=True)
class _Linear:
    """A layer that adapters may change; the sizes are elements of the whole model's layer."""

    name: str
    inputs: int
    outputs: int
    split: str
    """How tensor parallel divides it: ``column``, ``row`` or ``none``."""
    copies: int = 1
    """Equal ones in the whole model: layers, times experts."""


def slot_bytes(facts: ModelFacts, slots: Slots, tp: int = 1) -> int:
    """Bytes of all slots on each GPU, or for each rank on a CPU."""
    elements = sum(_elements(linear, slots, tp) for linear in _linears(facts, slots, tp))
    if not slots.modules:
        elements += _vocabulary(facts) * slots.rank
    return elements * slots.count * slots.element


def kept_bytes(facts: ModelFacts, slots: Slots) -> int:
    """Bytes of the adapters that vLLM keeps in main memory beside the slots, at most: an adapter
    of a smaller rank, or for fewer layers, takes less."""
    whole = sum(_elements(linear, slots, 1) for linear in _linears(facts, slots, 1))
    return whole * slots.kept_in_memory * slots.element


def _elements(linear: _Linear, slots: Slots, tp: int) -> int:
    into, out = slots.rank * linear.inputs, slots.rank * linear.outputs
    if linear.split == "column":
        out //= tp
        into //= tp if slots.sharded else 1
    elif linear.split == "row":
        into //= tp
        out //= tp if slots.sharded else 1
    return (into + out) * linear.copies


def _linears(facts: ModelFacts, slots: Slots, tp: int) -> Iterator[_Linear]:
    text = hf_config.text_config(facts.details)
    for linear in (*_attention(facts, text, tp), *_feed_forward(facts, text)):
        if not slots.modules or linear.name in slots.modules:
            yield linear


def _attention(facts: ModelFacts, text: Mapping[str, Any], tp: int) -> Iterator[_Linear]:
    hidden, heads, layers = setting(text, "hidden"), facts.attention_heads, facts.layers
    if latent := number(text, "kv_lora_rank"):
        rope, nope = number(text, "qk_rope_head_dim"), number(text, "qk_nope_head_dim")
        value = number(text, "v_head_dim")
        if rank := number(text, "q_lora_rank"):
            yield _Linear("q_a_proj", hidden, rank, "none", layers)
            yield _Linear("q_b_proj", rank, heads * (nope + rope), "column", layers)
        else:
            yield _Linear("q_proj", hidden, heads * (nope + rope), "column", layers)
        yield _Linear("kv_a_proj_with_mqa", hidden, latent + rope, "none", layers)
        yield _Linear("kv_b_proj", latent, heads * (nope + value), "column", layers)
        yield _Linear("o_proj", heads * value, hidden, "row", layers)
        return
    width = facts.head_dim
    # A key/value head that is kept by several GPUs has its part of an adapter on each.
    cached = max(facts.kv_heads, tp) * width
    yield _Linear("q_proj", hidden, heads * width, "column", layers)
    yield _Linear("k_proj", hidden, cached, "column", layers)
    yield _Linear("v_proj", hidden, cached, "column", layers)
    yield _Linear("o_proj", heads * width, hidden, "row", layers)


def _feed_forward(facts: ModelFacts, text: Mapping[str, Any]) -> Iterator[_Linear]:
    hidden, layers = setting(text, "hidden"), facts.layers
    sparse = sum(sparse_layers(text, layers))
    dense = setting(text, "inner") or 4 * hidden
    yield from _gated(hidden, dense, layers - sparse)
    if not sparse:
        return
    experts = setting(text, "experts")
    width = setting(text, "expert_inner") or dense
    yield _Linear("gate", hidden, experts, "none", sparse)
    yield from _gated(hidden, width, sparse * experts)
    shared = number(text, "n_shared_experts") * width
    yield from _gated(hidden, shared + number(text, "shared_expert_intermediate_size"), sparse)


def _gated(hidden: int, width: int, copies: int) -> Iterator[_Linear]:
    if width and copies:
        yield _Linear("gate_proj", hidden, width, "column", copies)
        yield _Linear("up_proj", hidden, width, "column", copies)
        yield _Linear("down_proj", width, hidden, "row", copies)


def _vocabulary(facts: ModelFacts) -> int:
    """A rank's elements for embeddings and output matrix; every GPU keeps them whole."""
    if facts.pooling or facts.architecture.startswith(_WITHOUT_VOCABULARY):
        return 0
    text = hf_config.text_config(facts.details)
    # For both, also where the output matrix is the embeddings' own.
    return 2 * (setting(text, "vocabulary") + setting(text, "hidden"))


def fewer(slots: Slots | None) -> tuple[str, ...]:
    """What to set for a model whose adapters take too much."""
    if slots is None or slots.count == 1:
        return ()
    return (
        tr(
            "fewer LoRA adapters at once: `max_loras: 1` instead of {slots_count}",
            slots_count=slots.count,
        ),
    )
