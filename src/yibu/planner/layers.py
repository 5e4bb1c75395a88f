"""Bytes of each layer of a GGUF model, for dividing it among devices."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from yibu.weights import gguf

_BLOCK = re.compile(r"^blk\.(\d+)\.")
_EXPERTS = re.compile(r"\.ffn_(?:up|down|gate|gate_up)_(?:ch)?exps\b")
"""Tensors of routed experts (llama.cpp's ``--cpu-moe``, common/common.h)."""
_INPUT = ("token_embd", "token_types", "position_embd", "per_layer_token_embd")
"""Looked up in main memory, wherever the layers are (llama-model.cpp, ``dev_input``)."""


@dataclass(frozen=True, slots=True)
class Layer:
    """One layer's bytes."""

    weights: int
    experts: int
    """Bytes of routed experts, part of ``weights``."""
    largest: int
    """Bytes of its largest tensor."""


@dataclass(frozen=True, slots=True)
class Layers:
    """A model's weights by where llama.cpp puts them."""

    layers: tuple[Layer, ...]
    input: int
    """Embeddings, always in main memory."""
    output: int
    """The output matrix and what else stands behind the layers. Where it is the embeddings' own, a
    copy of those is made (``TENSOR_DUPLICATED``)."""
    copied: int = 0
    """Bytes of that copy, part of ``output``."""

    @property
    def total(self) -> int:
        """Bytes in the file."""
        return sum(layer.weights for layer in self.layers) + self.input + self.output - self.copied

    @property
    def experts(self) -> int:
        return sum(layer.experts for layer in self.layers)


def layers_of(headers: Sequence[gguf.Header]) -> Layers:
    """The layers of a model in one file or several."""
    weights: dict[int, list[tuple[int, int]]] = {}
    inputs = embeddings = output = 0
    tied = True
    for tensor in (tensor for header in headers for tensor in header.tensors):
        if block := _BLOCK.match(tensor.name):
            routed = tensor.size if _EXPERTS.search(tensor.name) else 0
            weights.setdefault(int(block[1]), []).append((tensor.size, routed))
        elif tensor.name.startswith(_INPUT):
            inputs += tensor.size
            if tensor.name == "token_embd.weight":
                embeddings = tensor.size
        else:
            output += tensor.size
            tied = tied and tensor.name != "output.weight"
    return Layers(
        tuple(
            Layer(
                sum(size for size, _ in weights.get(number, ())),
                sum(routed for _, routed in weights.get(number, ())),
                max((size for size, _ in weights.get(number, ())), default=0),
            )
            for number in range(max(weights, default=-1) + 1)
        ),
        inputs,
        output + (embeddings if tied else 0),
        embeddings if tied else 0,
    )
