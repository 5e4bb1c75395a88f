"""How many weights a config.json describes, for planning before any header is at hand.

The count follows the modules that transformers builds: embeddings, attention (multi-head,
grouped or latent), gated feed-forward or experts, norms. It is exact for the common decoder
families, as the tests' table shows, and leaves out vision and audio towers, whose configs differ
too much; ``ModelFacts.estimated`` says so to whoever prints it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from yibu.planner import hf_config
from yibu.planner.hf_config import number

_DTYPE_BYTES = {"float32": 4, "float64": 8, "float16": 2, "bfloat16": 2}

_UNGATED = frozenset({"gpt2", "gpt_neox", "phi", "opt", "bloom", "falcon", "bert"})


@dataclass(frozen=True, slots=True)
class WeightCount:
    """Weights by the part of the model they belong to, since quantization treats them apart."""

    embedding: int
    """Token embeddings, and the output matrix where it is not the same one."""
    attention: int
    feed_forward: int
    """Dense layers and shared experts."""
    experts: int
    """Routed experts."""
    other: int
    """Norms, biases, routers: never quantized."""

    @property
    def total(self) -> int:
        return self.embedding + self.attention + self.feed_forward + self.experts + self.other


def parameter_count(config: Mapping[str, Any]) -> int:
    """Parameters of the language model, 0 when the config does not say enough."""
    return count_weights(config).total


def weight_bytes(config: Mapping[str, Any]) -> int:
    """Bytes of the weights as stored, by dtype and quantization."""
    count = count_weights(config)
    text = hf_config.text_config(config)
    dtype = hf_config.dtype(config) or hf_config.dtype(text)
    wide = _DTYPE_BYTES.get(dtype, 2)
    method, bits = hf_config.quantization(config), hf_config.quantization_bits(config)
    if method is None or bits is None:
        return count.total * wide
    packed = bits / 8 + _scale_bytes(method, config)
    if method == "mxfp4":
        # OpenAI's release quantizes the experts alone (modules_to_not_convert names the rest).
        return int(count.experts * packed + (count.total - count.experts) * wide)
    linear = count.attention + count.feed_forward + count.experts
    return int(linear * packed + (count.total - linear) * wide)


def _scale_bytes(method: str, config: Mapping[str, Any]) -> float:
    """Bytes of scales and zero points per quantized weight."""
    section = config.get("quantization_config") or {}
    if method == "mxfp4":
        return 1 / 32  # one E8M0 exponent a block of 32 (OCP Microscaling 1.0)
    if method in ("awq", "gptq", "compressed-tensors"):
        group = section.get("group_size") or section.get("q_group_size") or 128
        if isinstance(group, int) and group > 0:
            bits = hf_config.quantization_bits(config) or 4
            return (2 + bits / 8) / group  # a float16 scale and a packed zero point a group
    return 0.0


def count_weights(config: Mapping[str, Any]) -> WeightCount:
    """Count a config's weights; sizes are elements, not bytes."""
    text = hf_config.text_config(config)
    hidden, layers = hf_config.hidden_size(text), hf_config.layers(text)
    vocabulary = number(text, "vocab_size", "padded_vocab_size") or number(config, "vocab_size")
    embedding = vocabulary * hidden * (1 if tied(config, text) else 2)
    sparse = sparse_layers(text, layers)
    experts = number(text, "num_experts", "n_routed_experts", "num_local_experts")
    expert_width = number(text, "moe_intermediate_size", "intermediate_size")
    per_expert = _feed_forward(text, hidden, expert_width)
    shared = number(text, "n_shared_experts") * per_expert + _feed_forward(
        text, hidden, number(text, "shared_expert_intermediate_size")
    )
    # DeepSeek-V3 balances its experts with a bias of their scores.
    routing = hidden + (1 if number(text, "n_routed_experts") and "n_group" in text else 0)
    dense_width = number(text, "intermediate_size", "ffn_hidden_size", "n_inner") or 4 * hidden
    dense = (layers - sparse) * _feed_forward(text, hidden, dense_width)
    return WeightCount(
        embedding=embedding,
        attention=layers * _attention(text, hidden),
        feed_forward=dense + sparse * shared,
        experts=sparse * experts * per_expert,
        other=layers * _small(config, text, hidden) + hidden + sparse * experts * routing,
    )


def tied(config: Mapping[str, Any], text: Mapping[str, Any]) -> bool:
    """Whether the output matrix is the embeddings' own. ``text`` is the language model's part."""
    for section in (text, config):
        if isinstance(value := section.get("tie_word_embeddings"), bool):
            return value
    # transformers ties by default; the families that leave the field out and do not tie are
    # ChatGLM's and Phi-3's old configs, which also name their classes so.
    return not hf_config.architecture(config).startswith(("ChatGLM", "Llama", "Mistral", "Mixtral"))


def _attention(text: Mapping[str, Any], hidden: int) -> int:
    heads, kv_heads = hf_config.attention_heads(text), hf_config.kv_heads(text)
    if latent := number(text, "kv_lora_rank"):
        nope, rope = number(text, "qk_nope_head_dim"), number(text, "qk_rope_head_dim")
        value = number(text, "v_head_dim")
        q_rank = number(text, "q_lora_rank")
        query = (
            hidden * q_rank + q_rank * heads * (nope + rope)
            if q_rank
            else hidden * heads * (nope + rope)
        )
        return (
            query
            + hidden * (latent + rope)
            + latent * heads * (nope + value)
            + heads * value * hidden
        )
    width = hf_config.head_dim(text)
    return hidden * width * (2 * heads + 2 * kv_heads)


def _feed_forward(text: Mapping[str, Any], hidden: int, width: int) -> int:
    """Gate, up and down, or up and down alone for the ungated families."""
    ungated = str(text.get("model_type")) in _UNGATED
    return (2 if ungated else 3) * hidden * width


def sparse_layers(text: Mapping[str, Any], layers: int) -> int:
    """Layers whose feed-forward part is a mixture of experts."""
    if not number(text, "num_experts", "n_routed_experts", "num_local_experts"):
        return 0
    first = number(text, "first_k_dense_replace")
    step = max(1, number(text, "decoder_sparse_step", "moe_layer_freq", default=1))
    dense = text.get("mlp_only_layers")
    only = dense if isinstance(dense, list) else []
    return sum(1 for layer in range(first, layers) if layer not in only and (layer + 1) % step == 0)


def _small(config: Mapping[str, Any], text: Mapping[str, Any], hidden: int) -> int:
    """Norms and biases of one layer."""
    kind = str(text.get("model_type", ""))
    norms = 4 if kind.startswith(("gemma2", "gemma3")) else 2
    width = hf_config.head_dim(text)
    heads, kv_heads = hf_config.attention_heads(text), hf_config.kv_heads(text)
    total = norms * hidden
    if kind.startswith(("qwen3", "gemma3")):
        total += 2 * width  # norms of queries and keys
    if kind in ("qwen2", "qwen2_moe", "chatglm") or text.get("add_qkv_bias") is True:
        total += (heads + 2 * kv_heads) * width
    elif text.get("attention_bias") is True and not number(text, "kv_lora_rank"):
        total += (heads + 2 * kv_heads) * width + hidden
    if number(text, "kv_lora_rank"):
        total += number(text, "kv_lora_rank") + number(text, "q_lora_rank")
    if hf_config.architecture(config) == "GptOssForCausalLM":
        experts = number(text, "num_local_experts")
        total += experts * (2 * number(text, "intermediate_size") + hidden) + experts + heads
    return total
