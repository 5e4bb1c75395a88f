"""A plan as rows of words and numbers for a renderer. Nothing is printed here."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from yibu.messages import joined, tr
from yibu.planner.arithmetic import (
    kv_bytes_per_token,
    kv_element_bytes,
    state_bytes,
    window_bytes_per_token,
)
from yibu.planner.attention import cache_groups
from yibu.planner.cache import CacheGroup
from yibu.planner.ledger import Reservation, explain_missing
from yibu.planner.request import Request
from yibu.planner.text import size, tokens
from yibu.planner.types import Machine, MemoryNeed, ModelFacts, ModelPlan, Offload, Placement


@dataclass(frozen=True, slots=True)
class Row:
    """One line of an explanation."""

    label: str
    value: str
    note: str = ""
    """How the value was found."""
    kind: Literal["value", "verdict", "reason", "suggestion", "note"] = "value"
    """All but values are sentences, which a plan's data have in fields of their own."""


_VERDICTS = {
    "fits": tr("fits"),
    "fits_reduced": tr("fits, with a shorter context"),
    "does_not_fit": tr("does not fit"),
    "cannot_tell": tr("cannot tell"),
}


def explain_machine(machine: Machine, reservations: Sequence[Reservation] = ()) -> list[Row]:
    """The machine, and what is reserved for running engines."""
    threads = tr("{threads} threads", threads=machine.threads)
    if machine.numa_nodes > 1:
        threads = tr("{threads}, {nodes} NUMA nodes", threads=threads, nodes=machine.numa_nodes)
    rows = [
        Row(
            tr("machine"),
            machine.name,
            f"{machine.system} {machine.arch}",
        ),
        Row(tr("processor"), tr("{cores} cores", cores=machine.cores), threads),
        Row(
            tr("memory"),
            size(machine.memory_available),
            tr("free of {memory_total}", memory_total=size(machine.memory_total)),
        ),
    ]
    if kept := sum(reservation.missing for reservation in reservations):
        rows.append(
            Row(
                tr("of which kept"),
                size(kept),
                tr("planned, not used yet: {promises}", promises=explain_missing(reservations)),
            )
        )
    for gpu in machine.gpus:
        capability = ".".join(map(str, gpu.compute_capability)) if gpu.compute_capability else "?"
        held = [
            tr(
                "{holder} ({pid}) holds {memory}",
                holder=holder.name or tr("a process"),
                pid=holder.pid,
                memory=size(holder.memory),
            )
            for holder in gpu.processes
            if holder.memory
        ]
        note = tr(
            "free of {gpu_total}, {gpu}, compute capability {capability}",
            gpu_total=size(gpu.total),
            gpu=gpu.name,
            capability=capability,
        )
        rows.append(
            Row(
                tr("GPU {gpu_index}", gpu_index=gpu.index),
                size(gpu.free),
                joined("; ", [note, *held]),
            )
        )
    return rows


def explain(request: Request, plan: ModelPlan) -> list[Row]:
    """One model's facts, arithmetic, placement and verdict, in that order."""
    rows = [*_facts(request.facts)] if request.facts is not None else []
    if plan.placement is not None:
        rows += _placement(request, plan.placement)
    verdict = _VERDICTS[plan.verdict]
    if plan.verdict == "fits_reduced" and plan.placement is not None:
        verdict = tr("fits with max-model-len {context}", context=plan.placement.context)
    rows.append(Row(tr("verdict"), verdict, kind="verdict"))
    rows += [Row(tr("because"), reason, kind="reason") for reason in plan.reasons]
    rows += [Row(tr("try"), suggestion, kind="suggestion") for suggestion in plan.suggestions]
    return rows


def _facts(facts: ModelFacts) -> list[Row]:
    rows = [Row(tr("architecture"), facts.architecture, facts.format)]
    if facts.parameters:
        kind = facts.quantization or facts.dtype
        note = tr("from config.json alone") if facts.estimated else tr("from the files' headers")
        rows.append(
            Row(
                tr("weights"),
                size(facts.weight_bytes),
                tr(
                    "{parameters:,} × {kind}, {note}",
                    parameters=facts.parameters,
                    kind=kind,
                    note=note,
                ),
            )
        )
    if facts.tower_parameters:
        rows.append(
            Row(
                tr("of which beside"),
                f"{facts.tower_parameters:,}",
                tr("for images and sound"),
            )
        )
    if facts.active_parameters and facts.active_parameters < facts.parameters * 0.9:
        rows.append(
            Row(
                tr("active"),
                f"{facts.active_parameters:,}",
                tr("parameters a token uses"),
            )
        )
    if facts.max_context:
        rows.append(
            Row(tr("context"), tokens(facts.max_context), tr("that the model was made for"))
        )
    return rows


def _placement(request: Request, placement: Placement) -> list[Row]:
    rows = []
    facts = request.facts
    if facts is not None and placement.context:
        rows += _cache(facts, request.kv_dtype, placement)
    if (offload := placement.offload) is not None:
        rows += _offload(offload)
    elif placement.need.total:
        each = _each(placement) if placement.tensor_parallel > 1 else ""
        need = placement.need
        rows.append(Row(tr("memory: weights"), size(need.weights), each))
        if need.kv_cache or placement.context:
            rows.append(Row(tr("memory: KV cache"), size(need.kv_cache), each))
        rows += [
            *_adapters(request, need, each),
            Row(tr("memory: overhead"), size(need.overhead), _with(_overhead(placement), each)),
            Row(tr("memory: in all"), size(need.total), each),
        ]
    on_cpu = tr("its devices") if offload is not None else "CPU"
    where = ", ".join(f"GPU {index}" for index in placement.gpus) or on_cpu
    rows.append(Row(tr("runs on"), where, joined("; ", placement.reasons)))
    if placement.context:
        rows.append(Row(tr("max model length"), tokens(placement.context)))
    if placement.memory_share is not None:
        rows.append(
            Row(
                tr("memory share"),
                f"{placement.memory_share:.3f}",
                tr("budget {budget}", budget=size(placement.budget)),
            )
        )
    if placement.gpus and offload is None:
        rows.append(
            Row(tr("starts"), tr("in round {start_order}", start_order=placement.start_order + 1))
        )
    else:
        rows.append(Row(tr("threads"), str(placement.threads)))
    return rows


def _offload(offload: Offload) -> list[Row]:
    """The parts on each device, and in main memory."""
    needs = [*offload.needs, offload.host]
    names = offload.names or range(len(offload.needs))
    labels = [*(tr("memory: device {name}", name=name) for name in names), tr("memory: main")]
    rows = [
        Row(
            label,
            size(need.total),
            tr(
                "weights {weights}, KV cache {kv_cache}, buffers and runtime {overhead}",
                weights=size(need.weights),
                kv_cache=size(need.kv_cache),
                overhead=size(need.overhead),
            ),
        )
        for label, need in zip(labels, needs, strict=True)
    ]
    layers = tr("{gpu_layers} of {layers}", gpu_layers=offload.gpu_layers, layers=offload.layers)
    experts = (
        tr("without the experts of the first {cpu_moe}", cpu_moe=offload.cpu_moe)
        if offload.cpu_moe
        else ""
    )
    return [*rows, Row(tr("layers on GPUs"), layers, experts)]


def _adapters(request: Request, need: MemoryNeed, each: str) -> list[Row]:
    """What LoRA takes, where the model takes adapters at all."""
    slots = request.lora
    if slots is None:
        return []
    count = tr("{slots_count} slots", slots_count=slots.count) if slots.count > 1 else tr("1 slot")
    note = tr("{count} of rank {rank} (max_loras × max_lora_rank)", count=count, rank=slots.rank)
    return [Row(tr("memory: LoRA adapters"), size(need.adapters), _with(note, each))]


def _with(note: str, each: str) -> str:
    return joined(", ", [note, each]) if each else note


def _overhead(placement: Placement) -> str:
    if placement.gpus:
        return tr("activations, graphs, runtime")
    if placement.prompt_cache:
        return tr("activations, runtime, past prompts")
    return tr("activations, runtime")


def _cache(facts: ModelFacts, kv_dtype: str | None, placement: Placement) -> list[Row]:
    """The share of each kind of layer in a token's cache, and the sum."""
    tp = placement.tensor_parallel
    unit = "GPU" if placement.gpus else "rank"
    rows = [Row(tr("cache"), _group(group, tp, kv_dtype, unit)) for group in cache_groups(facts)]
    per_token = kv_bytes_per_token(facts, kv_dtype, tp)
    if per_token:
        rows.append(Row(tr("cache a token"), size(per_token), _each(placement) if tp > 1 else ""))
    return rows


def _each(placement: Placement) -> str:
    return tr("on each GPU") if placement.gpus else tr("for each rank")


def _group(group: CacheGroup, tp: int, kv_dtype: str | None, unit: str) -> str:
    if group.kind == "state":
        return tr(
            "{layers} layers with a state of {state:,} elements a sequence",
            layers=group.layers,
            state=group.state,
        )
    element = tr("{kv_dtype:g} bytes", kv_dtype=kv_element_bytes(kv_dtype))
    if group.kind == "latent":
        latent = tr("latent {width} × {element}", width=group.width, element=element)
        if group.fixed:
            latent = tr("{latent} + {index} bytes of index", latent=latent, index=group.fixed)
        if group.ratio > 1:
            latent = tr("{latent} for {ratio} tokens", latent=latent, ratio=group.ratio)
        return tr(
            "{layers} layers × {latent}, whole on every {unit}",
            layers=group.layers,
            latent=latent,
            unit=unit,
        )
    heads = tr("{heads} heads", heads=group.heads)
    if tp > 1:
        heads = (
            tr("{heads} / {tp} GPUs", heads=heads, tp=tp)
            if unit == "GPU"
            else tr("{heads} / {tp} ranks", heads=heads, tp=tp)
        )
    text = tr(
        "{layers} layers × {heads} × {width} (key and value) × {element}",
        layers=group.layers,
        heads=heads,
        width=group.width,
        element=element,
    )
    return (
        tr("{text}, window {window:,} tokens", text=text, window=group.window)
        if group.kind == "window"
        else text
    )


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
