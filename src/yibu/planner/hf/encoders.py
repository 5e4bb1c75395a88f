"""Encoder–decoders and pairs of encoders: what is no single stack of layers."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from yibu.messages import tr
from yibu.planner.cache import CacheGroup
from yibu.planner.hf import towers
from yibu.planner.hf.settings import (
    CannotTellError,
    Settings,
    class_defaults,
    need,
    number,
    numbers,
    section,
    with_defaults,
)
from yibu.planner.hf.weights import Described, Weights


def t5(settings: Settings) -> Described:
    """T5 (arXiv 1910.10683) and mT5, UMT5: relative positions, a gated feed-forward part where
    ``feed_forward_proj`` says so (modeling_t5.py)."""
    hidden, inner = need(settings, "hidden"), need(settings, "inner")
    layers = need(settings, "layers")
    decoder = number(settings, "num_decoder_layers") or layers
    heads = need(settings, "heads")
    width = number(settings, "d_kv", default=64)
    matrices = 3 if "gated" in str(settings.get("feed_forward_proj", "")) else 2
    feed, attention = matrices * hidden * inner, 4 * hidden * heads * width
    table = need(settings, "vocabulary") * hidden
    tied = settings.get("tie_word_embeddings") is not False
    weights = Weights(
        embedding=table,
        head=0 if tied else table,
        attention=(layers + 2 * decoder) * attention,
        feed_forward=(layers + decoder) * feed,
        other=(2 * layers + 3 * decoder + 2) * hidden,
    )
    return Described(weights, (CacheGroup("full", decoder, heads, 2 * width),))


def bart(settings: Settings) -> Described:
    """BART (arXiv 1910.13461) and its kin: one table of tokens for both sides; positions are learned
    where the family learns them (modeling_bart.py, modeling_m2m_100.py)."""
    hidden = need(settings, "hidden")
    encoder, decoder = number(settings, "encoder_layers"), number(settings, "decoder_layers")
    if not (encoder and decoder):
        raise CannotTellError(tr("its config.json has no encoder_layers and decoder_layers"))
    sources = number(settings, "encoder_ffn_dim") or 4 * hidden
    targets = number(settings, "decoder_ffn_dim") or 4 * hidden
    positions = number(settings, "max_position_embeddings") if settings.get("learned") else 0
    heads = number(settings, "decoder_attention_heads") or need(settings, "heads")
    biases = encoder * (9 * hidden + sources) + decoder * (15 * hidden + targets)
    weights = Weights(
        embedding=need(settings, "vocabulary") * hidden + 2 * positions * hidden,
        attention=(4 * encoder + 8 * decoder) * hidden * hidden,
        feed_forward=2 * hidden * (encoder * sources + decoder * targets),
        other=biases,
    )
    return Described(weights, (CacheGroup("full", decoder, heads, 2 * hidden // heads),))


def whisper(settings: Settings) -> Described:
    """Whisper (arXiv 2212.04356): the decoder keeps its tokens, and the keys and values of 30 seconds
    of sound (1,500 positions) for every sequence (modeling_whisper.py)."""
    hidden, decoder = need(settings, "hidden"), number(settings, "decoder_layers")
    if not decoder:
        raise CannotTellError(tr("its config.json has no decoder_layers"))
    text = {**settings, "num_layers": None, "encoder_layers": decoder}
    heads = number(settings, "decoder_attention_heads") or need(settings, "heads")
    targets = number(settings, "decoder_ffn_dim") or 4 * hidden
    positions = number(text, "max_target_positions", default=448)
    sound = number(settings, "max_source_positions", default=1500)
    weights = Weights(
        embedding=(need(settings, "vocabulary") + positions) * hidden,
        attention=8 * decoder * hidden * hidden,
        feed_forward=2 * decoder * hidden * targets,
        other=decoder * (15 * hidden + targets),
        audio=towers.whisper_encoder({**settings, "num_hidden_layers": None, "num_layers": None}),
    )
    keeps = (
        CacheGroup("full", decoder, heads, 2 * hidden // heads),
        CacheGroup("state", decoder, state=2 * hidden * sound),
    )
    return Described(weights, keeps)


def moonshine(settings: Settings) -> Described:
    """Moonshine (arXiv 2410.15608): convolutions over samples, gated layers in the decoder, which
    keeps keys and values of 30 seconds of sound (modeling_moonshine.py)."""
    hidden, inner = need(settings, "hidden"), need(settings, "inner")
    encoder = number(settings, "encoder_num_hidden_layers")
    decoder = number(settings, "decoder_num_hidden_layers")
    heads = number(settings, "decoder_num_attention_heads", default=8)
    kv = number(settings, "decoder_num_key_value_heads") or heads
    weights = Weights(
        embedding=need(settings, "vocabulary") * hidden,
        attention=8 * decoder * hidden * hidden,
        feed_forward=3 * decoder * hidden * inner,
        other=decoder * (3 * hidden + 2 * inner),
        audio=encoder * (4 * hidden * hidden + 2 * hidden * inner) + hidden * (127 + 20 * hidden),
    )
    width = 2 * hidden // heads
    sound = 30 * 16_000 // (64 * 3 * 2)
    keeps = (
        CacheGroup("full", decoder, kv, width),
        CacheGroup("state", decoder, state=kv * width * sound),
    )
    return Described(weights, keeps)


def florence2(settings: Settings) -> Described:
    """Florence-2 (arXiv 2311.06242): BART with a DaViT, whose blocks attend over windows and then over
    channels (modeling_florence2.py)."""
    text = with_defaults(section(settings, "text_config"), "bart", nested=True)
    vision = with_defaults(section(settings, "vision_config"), "florence_vision", nested=True)
    widths = numbers(vision, "dim_embed") or numbers(vision, "embed_dim")
    kernels, depths = numbers(vision, "patch_size"), numbers(vision, "depths")
    if not (widths and len(widths) == len(kernels) == len(depths)):
        raise CannotTellError(tr("its vision_config has no dim_embed, depths and patch_size"))
    tower = widths[-1] * number(vision, "projection_dim", default=widths[-1])
    for before, wide, kernel, depth in zip([3, *widths], widths, kernels, depths, strict=False):
        tower += before * wide * kernel * kernel + depth * 24 * wide * wide
    told = _learned(text)
    return Described(told.weights + Weights(vision=tower), told.keeps)


def pair(settings: Settings) -> Described:
    """CLIP (arXiv 2103.00020) and SigLIP: a tower for text beside one for images; no cache."""
    nested = class_defaults().get(str(settings.get("model_type")), {}).get("nested", {})
    parts = {}
    for key in ("text_config", "vision_config"):
        parts[key] = with_defaults(section(settings, key), str(nested.get(key, "")), nested=True)
    text, vision = parts["text_config"], parts["vision_config"]
    hidden = towers.width(text)
    table = need(text, "vocabulary") + number(text, "max_position_embeddings")
    layers = towers.vit({**text, "image_size": 0, "patch_size": 0})
    projection = number(settings, "projection_dim")
    joint = projection * (hidden + towers.width(vision)) or hidden * hidden
    weights = Weights(
        embedding=table * hidden, feed_forward=layers + joint, vision=towers.vit(vision)
    )
    return Described(weights)


def albert(settings: Settings) -> Described:
    """ALBERT (arXiv 1909.11942): one layer used again and again, narrow embeddings."""
    hidden, narrow = need(settings, "hidden"), number(settings, "embedding_size", default=128)
    groups = number(settings, "num_hidden_groups", default=1)
    table = need(settings, "vocabulary") + number(settings, "max_position_embeddings")
    feed = 2 * hidden * need(settings, "inner")
    return Described(
        Weights(
            embedding=table * narrow + narrow * hidden,
            attention=groups * 4 * hidden * hidden,
            feed_forward=groups * feed,
        )
    )


def _learned(settings: Settings) -> Described:
    return bart({**settings, "learned": True})


RULES: Mapping[str, Callable[[Settings], Described]] = {
    **dict.fromkeys(["t5", "mt5", "umt5"], t5),
    **dict.fromkeys(["bart", "mbart", "plbart", "mvp", "blenderbot", "blenderbot-small"], _learned),
    # Sinusoidal positions, which transformers keeps as a table for Marian and Pegasus.
    **dict.fromkeys(["marian", "pegasus"], _learned),
    "m2m_100": bart,
    "whisper": whisper,
    "moonshine": moonshine,
    "florence2": florence2,
    **dict.fromkeys(["clip", "siglip", "chinese_clip", "metaclip_2"], pair),
    "albert": albert,
}
"""By model type."""
