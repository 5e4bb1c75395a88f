"""The feed-forward part of one layer: dense, or a mixture of experts. Pure: settings in, weights out."""

from __future__ import annotations

from collections.abc import Mapping

from yibu.planner.hf.settings import NAMES, Settings, need, number, setting
from yibu.planner.hf.weights import Weights


def dense_width(settings: Settings) -> int:
    """Width of a dense layer; GPT-2 and its kin leave it open, which means four hidden sizes."""
    names = ("intermediate_size_mlp", "dense_intermediate_size", "prefix_dense_intermediate_size")
    found = number(settings, *names) or setting(settings, "inner")
    if not found and settings.get("gated") is False:
        return 4 * need(settings, "hidden")
    return found or need(settings, "inner")


def expert_width(settings: Settings) -> int:
    return setting(settings, "expert_inner") or setting(settings, "inner") or dense_width(settings)


def dense(settings: Settings) -> Weights:
    """Gate, up and down, or up and down alone for the ungated families."""
    width, hidden = dense_width(settings), need(settings, "hidden")
    matrices = _matrices(settings)
    small = (matrices - 1) * width + hidden if settings.get("mlp_bias") else 0
    return Weights(feed_forward=matrices * hidden * width, other=small)


def moe(settings: Settings) -> Weights:
    """Routed experts, those that every token uses, and the router."""
    hidden, experts = need(settings, "hidden"), setting(settings, "experts")
    outer = number(settings, "moe_latent_size") or hidden  # Nemotron 3's experts are narrower
    one = _matrices(settings) * outer * expert_width(settings)
    used = min(experts, setting(settings, "used_experts", default=1))
    shared = _shared(settings, hidden)
    latent = 2 * hidden * outer if outer != hidden else 0
    routing = experts * (hidden + (1 if settings.get("score_bias") else 0))
    biases = 0
    if settings.get("expert_biases"):  # gpt-oss
        biases = experts * (2 * expert_width(settings) + hidden + 1)
    if settings.get("dense_beside_experts"):  # Arctic, Gemma 4's MoE, LongCat's two dense parts
        shared += number(settings, "dense_beside_experts") * dense(settings).feed_forward
    return Weights(
        feed_forward=shared + latent,
        experts=experts * one,
        idle=(experts - used) * one,
        other=routing + biases,
    )


def _matrices(settings: Settings) -> int:
    return 2 if settings.get("gated") is False else 3


def _shared(settings: Settings, hidden: int) -> int:
    """Experts that every token uses; a width of their own is that of all of them together."""
    names = NAMES["shared_inner"]
    width = number(settings, *names)
    count = setting(settings, "shared_experts")
    if not width:
        width = count * expert_width(settings)
    elif settings.get("shared_width_is_each"):
        width *= max(1, count)
    return _matrices(settings) * hidden * width


def heterogeneous(block: Mapping[str, object], hidden: int) -> int:
    """A NAS model's width (DeciLM): a multiple of two thirds of four hidden sizes, rounded up to
    256 (modeling_decilm.py, ``_ffn_mult_to_intermediate_size``)."""
    mult = block.get("ffn_mult")
    if not isinstance(mult, int | float):
        return 0
    width = int(2 * mult * hidden / 3)
    return width + (-width) % 256
