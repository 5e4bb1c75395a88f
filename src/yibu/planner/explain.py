"""A plan as rows of words and numbers, for whoever prints it. Nothing is printed here."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from yibu.planner.arithmetic import (
    kv_bytes_per_token,
    kv_element_bytes,
    state_bytes,
    window_bytes_per_token,
)
from yibu.planner.attention import cache_groups
from yibu.planner.cache import CacheGroup
from yibu.planner.ledger import Promise, explain_missing
from yibu.planner.request import Request
from yibu.planner.text import size, tokens
from yibu.planner.types import Machine, MemoryNeed, ModelFacts, ModelPlan, Offload, Placement

Tone = Literal["plain", "good", "warning", "bad"]


@dataclass(frozen=True, slots=True)
class Row:
    """One line of an explanation."""

    label: str
    value: str
    note: str = ""
    """How the value came about."""
    tone: Tone = "plain"


_VERDICTS: dict[str, tuple[str, Tone]] = {
    "fits": ("fits", "good"),
    "fits_reduced": ("fits, with a shorter context", "warning"),
    "does_not_fit": ("does not fit", "bad"),
    "cannot_tell": ("cannot tell", "bad"),
}


def explain_machine(machine: Machine, promises: Sequence[Promise] = ()) -> list[Row]:
    """What there is to plan with, and what of it was planned for engines that run already."""
    numa = f", {machine.numa_nodes} NUMA nodes" if machine.numa_nodes > 1 else ""
    rows = [
        Row("machine", machine.name, f"{machine.system} {machine.arch}"),
        Row("processor", f"{machine.cores} cores", f"{machine.threads} threads{numa}"),
        Row("memory", size(machine.memory_available), f"free of {size(machine.memory_total)}"),
    ]
    if kept := sum(promise.missing for promise in promises):
        rows.append(
            Row("of which kept", size(kept), f"planned, not used yet: {explain_missing(promises)}")
        )
    for gpu in machine.gpus:
        capability = ".".join(map(str, gpu.compute_capability)) if gpu.compute_capability else "?"
        held = ", ".join(
            f"{holder.name or 'a process'} ({holder.pid}) holds {size(holder.memory)}"
            for holder in gpu.processes
            if holder.memory
        )
        note = f"free of {size(gpu.total)}, {gpu.name}, compute capability {capability}"
        rows.append(Row(f"GPU {gpu.index}", size(gpu.free), f"{note}; {held}" if held else note))
    return rows


def explain(request: Request, plan: ModelPlan) -> list[Row]:
    """One model's facts, arithmetic, placement and verdict, in that order."""
    rows = [*_facts(request.facts)] if request.facts is not None else []
    if plan.placement is not None:
        rows += _placement(request, plan.placement)
    verdict, tone = _VERDICTS[plan.verdict]
    if plan.verdict == "fits_reduced" and plan.placement is not None:
        verdict = f"fits with max-model-len {plan.placement.context}"
    rows.append(Row("verdict", verdict, tone=tone))
    rows += [Row("because", reason) for reason in plan.reasons]
    rows += [Row("try", suggestion, tone="warning") for suggestion in plan.suggestions]
    return rows


def _facts(facts: ModelFacts) -> list[Row]:
    rows = [Row("architecture", facts.architecture, facts.format)]
    if facts.parameters:
        kind = facts.quantization or facts.dtype
        note = "from config.json alone" if facts.estimated else "from the files' headers"
        rows.append(
            Row("weights", size(facts.weight_bytes), f"{facts.parameters:,} × {kind}, {note}")
        )
    if facts.tower_parameters:
        rows.append(Row("of which beside", f"{facts.tower_parameters:,}", "for images and sound"))
    if facts.active_parameters and facts.active_parameters < facts.parameters * 0.9:
        rows.append(Row("active", f"{facts.active_parameters:,}", "parameters a token uses"))
    if facts.max_context:
        rows.append(Row("context", tokens(facts.max_context), "that the model was made for"))
    return rows


def _placement(request: Request, placement: Placement) -> list[Row]:
    rows = []
    facts = request.facts
    if facts is not None and placement.context:
        rows += _cache(facts, request.kv_dtype, placement)
    if (offload := placement.offload) is not None:
        rows += _offload(offload)
    elif placement.need.total:
        each = f" {_each(placement)}" if placement.tensor_parallel > 1 else ""
        need = placement.need
        rows.append(Row("memory: weights", size(need.weights), each.strip()))
        if need.kv_cache or placement.context:
            rows.append(Row("memory: KV cache", size(need.kv_cache), each.strip()))
        rows += [
            *_adapters(request, need, each),
            Row("memory: overhead", size(need.overhead), _overhead(placement) + each),
            Row("memory: in all", size(need.total), each.strip()),
        ]
    on_cpu = "its devices" if offload is not None else "CPU"
    where = ", ".join(f"GPU {index}" for index in placement.gpus) or on_cpu
    rows.append(Row("runs on", where, "; ".join(placement.reasons)))
    if placement.context:
        rows.append(Row("max model length", tokens(placement.context)))
    if placement.memory_share is not None:
        rows.append(
            Row("memory share", f"{placement.memory_share:.3f}", f"budget {size(placement.budget)}")
        )
    if placement.gpus and offload is None:
        rows.append(Row("starts", f"in round {placement.start_order + 1}"))
    else:
        rows.append(Row("threads", str(placement.threads)))
    return rows


def _offload(offload: Offload) -> list[Row]:
    """What is on which device, and what stays in main memory."""
    needs = [*offload.needs, offload.host]
    names = [f"device {name}" for name in offload.names or range(len(offload.needs))]
    rows = [
        Row(
            f"memory: {name}",
            size(need.total),
            f"weights {size(need.weights)}, KV cache {size(need.kv_cache)}, buffers and runtime"
            f" {size(need.overhead)}",
        )
        for name, need in zip([*names, "main"], needs, strict=True)
    ]
    layers = f"{offload.gpu_layers} of {offload.layers}"
    experts = f"without the experts of the first {offload.cpu_moe}" if offload.cpu_moe else ""
    return [*rows, Row("layers on GPUs", layers, experts)]


def _adapters(request: Request, need: MemoryNeed, each: str) -> list[Row]:
    """What LoRA takes, where the model takes adapters at all."""
    slots = request.lora
    if slots is None:
        return []
    count = f"{slots.count} slots" if slots.count > 1 else "1 slot"
    note = f"{count} of rank {slots.rank} (max_loras × max_lora_rank){each}"
    return [Row("memory: LoRA adapters", size(need.adapters), note)]


def _overhead(placement: Placement) -> str:
    if placement.gpus:
        return "activations, graphs, runtime"
    return "activations, runtime" + (", past prompts" if placement.prompt_cache else "")


def _cache(facts: ModelFacts, kv_dtype: str | None, placement: Placement) -> list[Row]:
    """Each kind of layer with its share of a token, and the sum."""
    tp = placement.tensor_parallel
    unit = "GPU" if placement.gpus else "rank"
    rows = [Row("cache", _group(group, tp, kv_dtype, unit)) for group in cache_groups(facts)]
    per_token = kv_bytes_per_token(facts, kv_dtype, tp)
    if per_token:
        rows.append(Row("cache a token", size(per_token), _each(placement) if tp > 1 else ""))
    return rows


def _each(placement: Placement) -> str:
    return "on each GPU" if placement.gpus else "for each rank"


def _group(group: CacheGroup, tp: int, kv_dtype: str | None, unit: str) -> str:
    if group.kind == "state":
        return f"{group.layers} layers with a state of {group.state:,} elements a sequence"
    element = f"{kv_element_bytes(kv_dtype):g} bytes"
    if group.kind == "latent":
        index = f" + {group.fixed} bytes of index" if group.fixed else ""
        ratio = f" for {group.ratio} tokens" if group.ratio > 1 else ""
        latent = f"latent {group.width} × {element}{index}{ratio}"
        return f"{group.layers} layers × {latent}, whole on every {unit}"
    heads = f"{group.heads} heads" + (f" / {tp} {unit}s" if tp > 1 else "")
    text = f"{group.layers} layers × {heads} × {group.width} (key and value) × {element}"
    return f"{text}, window {group.window:,} tokens" if group.kind == "window" else text


def facts_data(facts: ModelFacts | None) -> dict[str, Any] | None:
    """A model's facts for ``--json``; None for what cannot be told, and without files to read."""
    if facts is None:
        return None
    told = not facts.unknown
    growing = kv_bytes_per_token(facts)
    return {
        "architecture": facts.architecture,
        "parameters": facts.parameters or None,
        "active_parameters": facts.active_parameters or None if told else None,
        "weights_bytes": facts.weight_bytes or None,
        # Where every layer has a window, a token costs something within it alone.
        "kv_bytes_per_token": growing or window_bytes_per_token(facts) if told else None,
        "state_bytes_per_sequence": state_bytes(facts) if told else None,
        "max_context": facts.max_context,
        "source": "config" if facts.estimated else "headers",
    }
