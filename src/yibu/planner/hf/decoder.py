"""A decoder's weights and cache, layer by layer."""

from __future__ import annotations

from yibu.messages import tr
from yibu.planner.cache import CacheGroup, merged
from yibu.planner.hf import feed_forward, layers, mixers
from yibu.planner.hf.families import DecoderFamily
from yibu.planner.hf.settings import (
    CannotTellError,
    Settings,
    layer_count,
    need,
    number,
    of_layer,
)
from yibu.planner.hf.weights import Described, Weights


def describe(settings: Settings, family: DecoderFamily, *, head: bool) -> Described:
    """Weights and cache of a decoder.

    Args:
        head: It has an output matrix that is not the embeddings' own.

    Raises:
        CannotTellError: A layer type has no rule, or a key is missing.
    """
    stated = {name: value for name, value in settings.items() if value is not None}
    settings = {**settings, **family.leaves_out, **family.sets, **stated}
    count, hidden = layer_count(settings), need(settings, "hidden")
    table = need(settings, "vocabulary") * (number(settings, "word_embed_proj_dim") or hidden)
    total = Weights(embedding=table, head=table if head else 0, other=hidden)
    if family.beside is not None:
        total += family.beside(settings)
    kinds = family.pattern(settings, count)
    assert kinds is not None
    sparse = layers.sparse_layers(settings, count)
    keeps: list[CacheGroup] = []
    for i in range(count):
        own = of_layer(settings, i, count)
        if family.layer is not None:
            own = family.layer(own, i, count, kinds[i])
        mixer = _mixer(family, str(own.get("mixer", kinds[i])))(own)
        keeps += mixer.keeps
        part = _feed_forward(own, sparse[i])
        norms = family.norms * hidden
        total += part + Weights(attention=mixer.weights, other=mixer.small + norms)
    return Described(total, () if family.encoder else merged(keeps))


def _mixer(family: DecoderFamily, kind: str) -> mixers.MixerRule:
    rule = family.mixers.get(kind) or mixers.USUAL.get(kind)
    if rule is None:
        raise CannotTellError(tr("its layer type {kind!r} is not known", kind=kind))
    return rule


def _feed_forward(own: Settings, sparse: bool) -> Weights:
    part = own.get("feed_forward", "moe" if sparse else "dense")
    if part == "none":
        return Weights()
    if part == "linear":
        return Weights(feed_forward=need(own, "hidden") ** 2)
    return feed_forward.moe(own) if part == "moe" else feed_forward.dense(own)
