"""Placement in main memory: llama.cpp, commands, and vLLM without a GPU."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Literal

from yibu.messages import tr
from yibu.planner.arithmetic import (
    MIB,
    VLLM_CPU_SEQUENCES,
    kv_bytes_per_token,
    llama_need,
    tensor_parallel_problem,
    vllm_cpu_need,
)
from yibu.planner.lora import fewer
from yibu.planner.request import Request
from yibu.planner.text import room_for, size
from yibu.planner.types import Machine, MemoryNeed, ModelFacts, ModelPlan, Placement

MIN_CONTEXT = 1024
"""Fewer tokens than this serve no conversation: the model then does not fit."""
CONTEXT_STEP = 256
_USUAL_CONTEXT = 8192
_USUAL_PARALLEL = 4

USUAL_PROMPT_CACHE = 1024 * MIB
"""Main memory for llama.cpp's prompts of past conversations. Its own default, 8 GiB, would fill
in days what nobody planned for."""
_PROMPT_CACHE_STEP = 64 * MIB


def reserve(machine: Machine) -> int:
    """Main memory reserved for the system, the node and the gateway."""
    return max(512 * MIB, machine.memory_total // 20)


def engine_threads(machine: Machine, sharing: int) -> int:
    """Threads for one of ``sharing`` engines on the CPU.

    Matrix products gain nothing from the second thread of a core, and spinning threads on taken
    cores cost far more than they bring: physical cores, less one or two for the gateway where
    there are enough of them, divided among those who share.
    """
    kept = 0 if machine.cores < 4 else 1 if machine.cores < 16 else 2
    return max(1, (machine.cores - kept) // max(1, sharing))


def rank_cpus(machine: Machine, ranks: int, each: int) -> tuple[tuple[int, ...], ...]:
    """At most ``each`` CPUs for each of ``ranks`` workers; empty for a single one, which the engine
    binds itself, and where the machine names no CPUs.

    All get the same number, since each waits for the slowest, and neighbours on one NUMA node as
    far as that goes. With fewer CPUs than workers some share one.
    """
    cpus = [cpu for node in machine.numa_cpus for cpu in node]
    if ranks == 1 or not cpus:
        return ()
    share = min(each, len(cpus) // ranks)
    if share == 0:
        return tuple((cpus[rank % len(cpus)],) for rank in range(ranks))
    starts = (rank * len(cpus) // ranks for rank in range(ranks))
    return tuple(tuple(cpus[start : start + share]) for start in starts)


def place(request: Request, machine: Machine, left: int, sharing: int) -> ModelPlan:
    """Plan one model in ``left`` bytes of main memory.

    Args:
        sharing: Engines that will run on the CPU, this one included.
    """
    threads, why = threads_of(request, machine, sharing)
    if request.facts is None or request.rule == "unmanaged":
        return _command(request, left, threads, why)
    return _language_model(request, request.facts, machine, room_of(request, left), threads, why)


def room_of(request: Request, left: int) -> int:
    """Bytes of ``left`` that a model may take."""
    return left if request.memory is None else min(left, request.memory)


def threads_of(request: Request, machine: Machine, sharing: int) -> tuple[int, str]:
    """A model's threads, and the reason for their number."""
    if request.threads:
        return request.threads, tr("threads as asked")
    threads = engine_threads(machine, sharing)
    why = tr("{threads} of {cores} physical cores", threads=threads, cores=machine.cores)
    if sharing > 1:
        why = tr("{why}, shared by {sharing} engines", why=why, sharing=sharing)
    return threads, why


def _command(request: Request, left: int, threads: int, why: str) -> ModelPlan:
    note = tr("its memory is not known to the planner: the command sees to it itself")
    if request.memory is not None and not request.gpus:
        needed = request.memory * request.replicas
        note = tr(
            "its `memory:` budget is {needed}, and {free} of main memory is free",
            needed=size(needed),
            free=room_for(needed, max(0, left)),
        )
        if needed > left:
            hints = (
                tr("lower its `memory:`"),
                tr("stop another model, or use a machine with more memory"),
            )
            return ModelPlan(request.name, "does_not_fit", None, (note,), hints)
    placement = Placement(
        gpus=request.gpus or (),
        threads=threads,
        context=request.context,
        parallel=request.parallel or 1,
        need=MemoryNeed(0, 0, request.memory or 0),
        budget=request.memory or 0,
        reasons=(why,),
    )
    return ModelPlan(request.name, "fits", placement, (note,))


def _language_model(
    request: Request, facts: ModelFacts, machine: Machine, room: int, threads: int, why: str
) -> ModelPlan:
    ranks = (request.tensor_parallel or 1) if request.rule == "paged" else 1
    if problem := tensor_parallel_problem(facts, ranks):
        return ModelPlan(request.name, "does_not_fit", None, (problem,), ("`tensor_parallel: 1`",))
    room //= max(1, request.replicas) * ranks
    paged = request.rule == "paged"
    served = request.parallel or (VLLM_CPU_SEQUENCES if paged else None)
    parallel_choices = [request.parallel] if request.parallel else [_USUAL_PARALLEL, 2, 1]
    if paged and served:
        parallel_choices = sorted({min(served, n) for n in (_USUAL_PARALLEL, 2, 1)}, reverse=True)
    wanted, notes = wanted_context(request, facts)

    def need(context: int, parallel: int) -> MemoryNeed:
        if paged:
            return vllm_cpu_need(facts, context, parallel, request, threads)
        return llama_need(
            facts, context, parallel, request.kv_dtype,
            batched=request.batched, prompt_cache=request.prompt_cache or 0, embeds=request.embeds,
        )  # fmt: skip

    fitting = [n for n in parallel_choices if need(wanted, n).total <= room]
    parallel = fitting[0] if fitting else parallel_choices[-1]
    context = largest_context(lambda n: need(n, parallel).total <= room, wanted)
    if context < min(MIN_CONTEXT, wanted):
        smallest = need(min(MIN_CONTEXT, wanted), parallel)
        hints = suggestions(request, facts, room - (smallest.total - smallest.weights))
        return refuse(request, smallest.total, room, explain_need(smallest), hints)
    used, past = need(context, parallel), None
    if not paged:
        used, past = with_prompt_cache(request, facts, used, room)
    placement = Placement(
        gpus=(),
        threads=threads,
        context=context,
        parallel=served or parallel,
        need=used,
        tensor_parallel=ranks,
        budget=used.total,
        kv_tokens=context * parallel,
        prompt_cache=past,
        cpus=rank_cpus(machine, ranks, max(1, threads // ranks)),
        reasons=tuple(_placement_reasons(machine, why)),
    )
    reasons = [*notes, *_memory_reasons(request, facts, placement, room, parallel)]
    if context < wanted:
        reasons.append(
            tr(
                "context reduced from {wanted:,} to {context:,} tokens to fit",
                wanted=wanted,
                context=context,
            )
        )
    verdict: Literal["fits_reduced", "fits"] = "fits_reduced" if context < wanted else "fits"
    return ModelPlan(request.name, verdict, placement, tuple(reasons))


def with_prompt_cache(
    request: Request, facts: ModelFacts, used: MemoryNeed, room: int
) -> tuple[MemoryNeed, int]:
    """``used`` with what past prompts may fill, and that by itself: as asked, which ``used``
    holds already, else the usual or what is spare, in whole steps."""
    if request.prompt_cache is not None:
        return used, request.prompt_cache
    spare = 0 if facts.pooling else room - used.total
    past = min(USUAL_PROMPT_CACHE, spare // _PROMPT_CACHE_STEP * _PROMPT_CACHE_STEP)
    return replace(used, overhead=used.overhead + past), past


def _placement_reasons(machine: Machine, why: str) -> list[str]:
    if machine.numa_nodes == 1:
        return [why]
    note = tr("weights read across them are slower; one engine a node is the better use of them")
    return [why, tr("{numa_nodes} NUMA nodes: {note}", numa_nodes=machine.numa_nodes, note=note)]


def _memory_reasons(
    request: Request, facts: ModelFacts, placement: Placement, room: int, whole: int
) -> list[str]:
    """The arithmetic in words; ``whole`` sequences of full length are cached at once."""
    ranks = placement.tensor_parallel
    need, free = explain_need(placement.need), room_for(placement.need.total, room)
    reasons = [
        tr("for each of {ranks} ranks: {need}; {free} is free", ranks=ranks, need=need, free=free)
        if ranks > 1
        else tr("{need}; {free} is free", need=need, free=free)
    ]
    if placement.prompt_cache:
        reasons.append(
            tr(
                "of the overhead, {prompt_cache} are kept for the prompts of past "
                "conversations (`prompt_cache:`, in MiB)",
                prompt_cache=size(placement.prompt_cache),
            )
        )
    if request.embeds and not request.batched and request.rule == "slots":
        reasons.append(
            tr(
                "inputs to embed are computed in one step, of up to the whole context: a "
                "smaller `ubatch:` takes less of the overhead and shorter inputs"
            )
        )
    if per_token := kv_bytes_per_token(facts, request.kv_dtype, ranks):
        arithmetic = tr(
            "KV cache: {per_token:,} bytes a token × {context:,} × {whole}",
            per_token=per_token,
            context=placement.context,
            whole=whole,
        )
        if placement.parallel > whole:
            arithmetic = tr(
                "{arithmetic}, shared by up to {parallel} sequences",
                arithmetic=arithmetic,
                parallel=placement.parallel,
            )
        reasons.append(arithmetic)
    return reasons


def wanted_context(request: Request, facts: ModelFacts) -> tuple[int, list[str]]:
    longest = facts.max_context or _USUAL_CONTEXT
    if request.context is None:
        wanted = longest if facts.pooling else min(longest, _USUAL_CONTEXT)
        return wanted, [
            tr(
                "context {wanted:,} tokens a sequence (the model knows {longest:,})",
                wanted=wanted,
                longest=longest,
            )
        ]
    if request.context > longest:
        note = tr(
            "context {context:,} as asked, beyond the {longest:,} it was trained for",
            context=request.context,
            longest=longest,
        )
        return request.context, [note]
    return request.context, [
        tr("context {context:,} tokens a sequence as asked", context=request.context)
    ]


def largest_context(fits: Callable[[int], bool], wanted: int) -> int:
    """``wanted``, or the largest multiple of ``CONTEXT_STEP`` below it that fits; 0 when none does."""
    if fits(wanted):
        return wanted
    low, high = 0, (wanted - 1) // CONTEXT_STEP
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if fits(middle * CONTEXT_STEP) else (low, middle - 1)
    return low * CONTEXT_STEP


def explain_need(need: MemoryNeed) -> str:
    """The sum, term by term."""
    adapters = f" + LoRA {size(need.adapters)}" if need.adapters else ""
    return tr(
        "weights {weights} + KV cache {kv_cache}{adapters} + overhead {overhead} = {need_total}",
        weights=size(need.weights),
        kv_cache=size(need.kv_cache),
        adapters=adapters,
        overhead=size(need.overhead),
        need_total=size(need.total),
    )


def suggestions(request: Request, facts: ModelFacts, for_weights: int) -> tuple[str, ...]:
    """What would fit instead, in words, where ``for_weights`` bytes are left for weights."""
    found = [*fewer(request.lora)]
    if request.parallel and request.parallel > 1:
        found.append(tr("fewer sequences at once: `parallel: 1`"))
    if request.prompt_cache:
        found.append(tr("less memory for past prompts: `prompt_cache: 0`"))
    four_bits = int(facts.parameters * 4.85 / 8)
    # The 4-bit formats of llama.cpp take between 4.5 and 5.7 bits a weight, all told.
    if four_bits <= for_weights and facts.weight_bytes > four_bits * 1.25 > 0:
        found.append(
            tr("a 4-bit variant: its weights take about {four_bits}", four_bits=size(four_bits))
        )
    found.append(tr("a smaller model, or a machine with more memory: `yibu plan --machine FILE`"))
    return tuple(found)


def refuse(
    request: Request, needed: int, room: int, arithmetic: str, hints: tuple[str, ...]
) -> ModelPlan:
    reason = tr(
        "{arithmetic}, and {free} of main memory is free for it",
        arithmetic=arithmetic,
        free=room_for(needed, max(0, room)),
    )
    if request.memory is not None:
        reason = tr("{reason} (its `memory:` budget)", reason=reason)
        hints = (tr("raise `memory:` to {needed}", needed=size(needed)), *hints)
    return ModelPlan(request.name, "does_not_fit", None, (reason,), hints)
