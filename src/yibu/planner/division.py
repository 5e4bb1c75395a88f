"""Dividing a GGUF model among GPUs and main memory: the need of each part, and the best division that
fits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from yibu.planner import cpu
from yibu.planner.arithmetic import (
    LLAMA_PROCESS,
    MIB,
    kv_bytes,
    llama_compute,
    llama_host_compute,
    vocabulary,
)
from yibu.planner.gpu_need import margin
from yibu.planner.layers import Layer, Layers
from yibu.planner.request import Request
from yibu.planner.types import Accelerator, Gpu, MemoryNeed, ModelFacts, Offload

_RUNTIME: Mapping[str, int] = {"CUDA": 512 * MIB, "ROCm": 512 * MIB}
"""What a backend itself takes of each GPU: its context, kernels and pools. Allowances that no
measurement on a card backs yet, as is the usual one."""
_USUAL_RUNTIME = 128 * MIB
_HOST_RUNTIME = 256 * MIB
"""Of main memory for a backend's driver, by the same token."""
_PROJECTOR_COMPUTE = 256 * MIB
"""Bytes for an image in a projector; an estimate."""
_DRAFT_UBATCH = 512
USUAL_PARALLEL = (4, 2, 1)


@dataclass(frozen=True, slots=True)
class Cost:
    """The need of one model at one context and number of sequences, by part."""

    layers: tuple[Layer, ...]
    cache: tuple[int, ...]
    """Bytes of cache of each layer."""
    output: int
    input: int
    compute: int
    """Bytes of computing on each GPU, if all layers are there."""
    crossing: int
    """More of it where a layer is computed by the CPU: vectors that cross, and the weights of that layer
    which a GPU borrows for long prompts (``--op-offload``)."""
    runtime: int
    first: int
    """Bytes of the first GPU only: projector and draft."""
    host: int
    """Bytes of main memory, wherever the layers are."""


@dataclass(frozen=True, slots=True)
class Search:
    """The best division of one model among cards and main memory."""

    request: Request
    facts: ModelFacts
    accelerator: Accelerator
    cards: tuple[Gpu, ...]
    memory: int
    """Bytes of main memory for each replica."""

    def best(self, wanted: int) -> tuple[Offload | None, int, int]:
        """The division, its context and its sequences at once; None where no layer fits."""
        request = self.request
        choices = (request.parallel,) if request.parallel else USUAL_PARALLEL
        for parallel in choices:
            cost = self.cost(wanted, parallel)
            if found := self.whole(cost):
                return found, wanted, parallel
        parallel = choices[-1]
        if found := self.divided(self.cost(wanted, parallel)):
            return found, wanted, parallel

        def fits(context: int) -> bool:
            return self.divided(self.cost(context, parallel)) is not None

        context = cpu.largest_context(fits, wanted)
        if context < min(cpu.MIN_CONTEXT, wanted):
            return None, 0, parallel
        return self.divided(self.cost(context, parallel)), context, parallel

    def cost(self, context: int, parallel: int) -> Cost:
        request, facts = self.request, self.facts
        layers = by_layer(facts)
        count = max(1, len(layers.layers))
        cache = kv_bytes(
            facts, context, parallel, kv_dtype=request.kv_dtype, batched=request.batched or 512
        )
        step = request.batched or (context if request.embeds else _DRAFT_UBATCH)
        shape = (facts, context, parallel, request.batched)
        compute = llama_compute(*shape, embeds=request.embeds, vectors=4)
        narrow = llama_compute(facts, 0, parallel, step, vectors=0)
        vector = (llama_compute(facts, 0, parallel, step, vectors=1) - narrow) // step
        host_compute = llama_host_compute(*shape, embeds=request.embeds)
        output_rows = 4 * vocabulary(facts) * parallel
        first = facts.projector_bytes and facts.projector_bytes + _PROJECTOR_COMPUTE
        if (draft := request.draft) is not None:
            first += draft.weight_bytes + llama_compute(draft, context, parallel)
            first += kv_bytes(draft, context, parallel)
        return Cost(
            layers=layers.layers,
            cache=(cache // count,) * count,
            output=layers.output,
            input=layers.input,
            compute=compute,
            crossing=2 * vector * step + max((one.largest for one in layers.layers), default=0),
            runtime=_RUNTIME.get(self.accelerator.backend, _USUAL_RUNTIME),
            first=first,
            host=LLAMA_PROCESS
            + _HOST_RUNTIME
            + host_compute
            + output_rows
            + (request.prompt_cache or 0),
        )

    def room(self, card: Gpu) -> int:
        free = max(0, min(card.free, card.total - margin(card))) // max(1, self.request.replicas)
        return free if self.request.memory is None else min(free, self.request.memory)

    def whole(self, cost: Cost) -> Offload | None:
        """The whole model on the fewest cards, unless less was asked for."""
        request, total = self.request, len(cost.layers) + 1
        if request.cpu_moe or (request.gpu_layers or total) < total:
            return None
        if request.gpus is not None:  # naming GPUs means using them
            return self.division(cost, len(self.cards), total, 0)
        counts = range(1, len(self.cards) + 1)
        return next((d for n in counts if (d := self.division(cost, n, total, 0))), None)

    def divided(self, cost: Cost) -> Offload | None:
        """As much of the model as fits on all cards, or as was asked for."""
        total, cards = len(cost.layers) + 1, len(self.cards)
        sparse = sum(1 for layer in cost.layers if layer.experts)
        moe, layers = self.request.cpu_moe, self.request.gpu_layers
        if layers is not None:
            return self.division(cost, cards, min(layers, total), moe or 0)
        if sparse and moe is None:
            numbers = range(1, len(cost.layers) + 1)
            found = next((d for n in numbers if (d := self.division(cost, cards, total, n))), None)
            if found is not None:
                return found
        kept = moe if moe is not None else len(cost.layers) if sparse else 0
        return next(
            (d for n in range(total, 1, -1) if (d := self.division(cost, cards, n, kept))), None
        )

    def division(self, cost: Cost, cards: int, layers: int, moe: int) -> Offload | None:
        """``layers`` of them on so many cards, each filled to the same share; None where they do not
        fit, or the rest not in main memory."""
        chosen = self.cards[:cards]
        if len(chosen) < len(self.cards):
            roomy = sorted(self.cards, key=self.room, reverse=True)[:cards]
            chosen = tuple(card for card in self.cards if card in roomy)
        host = self._host(cost, layers, moe)
        if host.total > self.memory:
            return None
        low, high, best = 0.0, 1.0, self._fill(cost, chosen, layers, moe, 1.0)
        if best is None:
            return None
        for _ in range(12 if cards > 1 else 0):
            middle = (low + high) / 2
            filled = self._fill(cost, chosen, layers, moe, middle)
            low, high, best = (low, middle, filled) if filled else (middle, high, best)
        split, needs = best
        used = [n for n, count in enumerate(split) if count]
        names = self.accelerator.names
        return Offload(
            gpu_layers=layers,
            layers=len(cost.layers) + 1,
            cpu_moe=moe,
            split=tuple(split[n] for n in used),
            names=tuple(names[self._index(chosen[n])] for n in used) if names else (),
            needs=tuple(needs[n] for n in used),
            host=host,
        )

    def _index(self, card: Gpu) -> int:
        return self.accelerator.gpus.index(card)

    def _fill(
        self, cost: Cost, cards: Sequence[Gpu], layers: int, moe: int, share: float
    ) -> tuple[list[int], list[MemoryNeed]] | None:
        """Layers filled in order onto the cards, each to ``share`` of its memory."""
        total = len(cost.layers) + 1
        crossing = cost.crossing if layers < total or moe else 0
        parts = [self._part(cost, n, moe) for n in range(total - layers, total)]
        split, needs = [], []
        for position, card in enumerate(cards):
            overhead = cost.compute + crossing + cost.runtime + (0 if position else cost.first)
            left = int(self.room(card) * share) - overhead
            weights = cache = count = 0
            while parts and parts[0][0] + parts[0][1] <= left - weights - cache:
                one = parts.pop(0)
                weights, cache, count = weights + one[0], cache + one[1], count + 1
            split.append(count)
            needs.append(MemoryNeed(weights, cache, overhead))
        return None if parts else (split, needs)

    @staticmethod
    def _part(cost: Cost, number: int, moe: int) -> tuple[int, int]:
        """Weights and cache of one layer on a card; the output is the last."""
        if number == len(cost.layers):
            return cost.output, 0
        layer = cost.layers[number]
        return layer.weights - (layer.experts if number < moe else 0), cost.cache[number]

    @staticmethod
    def _host(cost: Cost, layers: int, moe: int) -> MemoryNeed:
        total = len(cost.layers) + 1
        stays = range(max(0, total - layers))
        weights = sum(
            cost.layers[n].weights if n < len(cost.layers) else cost.output for n in stays
        )
        moved = range(len(stays), min(moe, len(cost.layers)))
        weights += sum(cost.layers[n].experts for n in moved)
        cache = sum(cost.cache[n] for n in stays if n < len(cost.cache))
        return MemoryNeed(weights + cost.input, cache, cost.host)

    def used(self, found: Offload) -> tuple[Gpu, ...]:
        """The cards that hold something, in their order."""
        if found.names:
            names = self.accelerator.names
            return tuple(self.accelerator.gpus[names.index(name)] for name in found.names)
        by_room = sorted(self.cards, key=self.room, reverse=True)[: len(found.split)]
        return tuple(card for card in self.cards if card in by_room)

    def total(self, cost: Cost) -> int:
        weights = sum(layer.weights for layer in cost.layers) + cost.output
        return weights + sum(cost.cache) + cost.compute + cost.runtime + cost.first


def by_layer(facts: ModelFacts) -> Layers:
    """The model's layers: as its headers have them, scaled to the weights where those are of another
    quantization, or all alike where only a part of the headers was read."""
    weights = facts.weight_bytes - facts.projector_bytes
    layers = facts.by_layer
    if layers is None or not layers.layers:
        count = max(1, facts.layers)
        each = weights // (count + 1)
        return Layers((Layer(each, 0, each // 6),) * count, each, each)
    scale = weights / layers.total if layers.total else 1.0
    if abs(scale - 1) < 0.01:
        return layers

    def scaled(value: int) -> int:
        return int(value * scale)

    return Layers(
        tuple(
            Layer(scaled(one.weights), scaled(one.experts), scaled(one.largest))
            for one in layers.layers
        ),
        scaled(layers.input),
        scaled(layers.output),
        scaled(layers.copied),
    )
