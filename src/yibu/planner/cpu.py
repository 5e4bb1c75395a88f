"""Placement in main memory: llama.cpp, speech, commands, and vLLM without a GPU."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Literal

from yibu.messages import tr
from yibu.planner.arithmetic import (
    GIB,
    MIB,
    hidden_size,
    kv_bytes,
    kv_bytes_per_token,
    llama_need,
    loaded_weights,
    tensor_parallel_problem,
    vllm_overhead,
    vocabulary,
)
from yibu.planner.hf.model import has_own_head
from yibu.planner.lora import Slots, fewer, kept_bytes, slot_bytes
from yibu.planner.request import FEW_THREADS, Request
from yibu.planner.text import room_for, size
from yibu.planner.types import Machine, MemoryNeed, ModelFacts, ModelPlan, Placement

MIN_CONTEXT = 1024
"""Fewer tokens than this serve no conversation: the model then does not fit."""
CONTEXT_STEP = 256
_USUAL_CONTEXT = 8192
_USUAL_PARALLEL = 4
_VLLM_PARALLEL = 32
"""Sequences at once for vLLM on a CPU, whose cache is paged: each takes what it has used so far,
and when all is taken the youngest waits. The cache is made for ``_USUAL_PARALLEL`` whole ones."""
_VLLM_CACHE_STEP = 64 * MIB

USUAL_PROMPT_CACHE = 1024 * MIB
"""Main memory for llama.cpp's prompts of past conversations. Its own default, 8 GiB, would fill
in days what nobody planned for."""
_PROMPT_CACHE_STEP = 64 * MIB

# What a vLLM on a CPU holds besides weights, cache and activations: torch, compiled kernels,
# tokenizer and HTTP server of its processes, as their proportional shares of all pages
# (benchmarks/engine_memory.py, vLLM 0.32.0, eight clients at once; what is in brackets). Each has a
# fifth added: allocators differ, and a machine that swaps answers nobody.
_VLLM_PROCESSES = int(1.65 * GIB)
"""API server and engine core (1400 MiB)."""
_VLLM_WORKER = int(0.55 * GIB)
"""A worker process of its own, where it has one (473 MiB)."""
_VLLM_RANK = int(0.4 * GIB)
"""Each further rank of tensor parallel (310 MiB)."""
_VLLM_BATCHED = 2048
"""Tokens of one step and rank (vllm/engine/arg_utils.py: an API server on a CPU)."""

# What a speech engine's process takes besides its weights, measured likewise with clips of 15 s.
# SenseVoice of 893 MiB in fp32, 446 in bf16, 223 in int8: 186, 203 and 227 MiB. The rest of the
# half GiB is for what was not measured: clips of an hour, and kernels for many lengths of segments.
# That it reads model.pt whole when it loads needs no memory of its own: those pages are the file's.
# On torch (`path: reference`) FunASR holds 3.3 GB at the peak of loading.
_SPEECH_OVERHEAD = {
    "sensevoice": 512 * MIB,
    "sensevoice-onnx": 1 * GIB,
    "paraformer": 512 * MIB,
    "paraformer-onnx": 1 * GIB,
    "whisper-ct2": 512 * MIB,
}
_SPEECH_REFERENCE = int(2.3 * GIB)
_OWN_PRECISION = frozenset({"sensevoice", "paraformer"})
"""Formats whose weights the engine lays out at the precision that it computes in."""
_SPEECH_SHARE = {"bf16": 0.5, "int8": 0.25}
"""Of the bytes of fp32 weights; what the engine chooses by the processor is counted as fp32."""


def reserve(machine: Machine) -> int:
    """Main memory left to the system, the node and the gateway."""
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
    room = left if request.memory is None else min(left, request.memory)
    threads = request.threads or engine_threads(machine, sharing)
    why = _why_threads(request, threads, machine.cores, sharing)
    if request.facts is None:
        return _command(request, left, threads, why)
    if request.rule == "fixed":
        return _fixed(request, request.facts, room, threads, why)
    if request.rule == "unmanaged":
        return _command(request, left, threads, why)
    return _language_model(request, request.facts, machine, room, threads, why)


def _why_threads(request: Request, threads: int, cores: int, sharing: int) -> str:
    if request.threads:
        return tr("threads as asked")
    why = tr("{threads} of {cores} physical cores", threads=threads, cores=cores)
    return (
        tr("{why}, shared by {sharing} engines", why=why, sharing=sharing) if sharing > 1 else why
    )


def _command(request: Request, left: int, threads: int, why: str) -> ModelPlan:
    note = tr("its memory is not known to the planner: the command sees to it itself")
    if request.memory is not None and not request.gpus:
        needed = request.memory * request.replicas
        note = tr(
            "its `memory:` budget is {needed}, and {needed2} of main memory is free",
            needed=size(needed),
            needed2=room_for(needed, max(0, left)),
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


def _fixed(request: Request, facts: ModelFacts, room: int, threads: int, why: str) -> ModelPlan:
    """An engine whose memory hardly depends on any setting."""
    copies = request.replicas
    need = _speech_need(request, facts)
    arithmetic = tr(
        "weights {weights} + engine and buffers {overhead} = {need_total}",
        weights=size(need.weights),
        overhead=size(need.overhead),
        need_total=size(need.total),
    )
    if copies > 1:
        arithmetic = tr("{arithmetic}, {copies} times", arithmetic=arithmetic, copies=copies)
    if need.total * copies > room:
        return _refuse(request, need.total * copies, room, arithmetic, ())
    placement = Placement(
        gpus=(),
        threads=threads,
        context=None,
        parallel=request.parallel or 1,
        need=need,
        budget=need.total,
        reasons=(why,),
    )
    reasons = [
        tr(
            "{arithmetic}; {need_total} is free",
            arithmetic=arithmetic,
            need_total=room_for(need.total, room),
        )
    ]
    if facts.format in _OWN_PRECISION and not (request.precision or request.reference):
        reasons.append(
            tr(
                "weights counted in fp32: which precision is fastest, the processor decides "
                "when it starts (`precision: int8` takes a quarter of them, bf16 half)"
            )
        )
    return ModelPlan(request.name, "fits", placement, tuple(reasons))


def _speech_need(request: Request, facts: ModelFacts) -> MemoryNeed:
    need = _recognizer_need(request, facts)
    return replace(need, weights=need.weights + request.beside)


def _recognizer_need(request: Request, facts: ModelFacts) -> MemoryNeed:
    if request.reference:
        return MemoryNeed(facts.weight_bytes, 0, _SPEECH_REFERENCE)
    share = 1.0
    if facts.format in _OWN_PRECISION:
        share = _SPEECH_SHARE.get(request.precision or "", 1.0)
    return MemoryNeed(int(facts.weight_bytes * share), 0, _SPEECH_OVERHEAD.get(facts.format, GIB))


def _language_model(
    request: Request, facts: ModelFacts, machine: Machine, room: int, threads: int, why: str
) -> ModelPlan:
    ranks = (request.tensor_parallel or 1) if request.rule == "paged" else 1
    if problem := tensor_parallel_problem(facts, ranks):
        return ModelPlan(request.name, "does_not_fit", None, (problem,), ("`tensor_parallel: 1`",))
    room //= max(1, request.replicas) * ranks
    paged = request.rule == "paged"
    served = request.parallel or (_VLLM_PARALLEL if paged else None)
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
    context = wanted
    if not fitting:
        context = largest_context(lambda n: need(n, parallel).total <= room, wanted)
    if context < min(MIN_CONTEXT, wanted):
        smallest = need(min(MIN_CONTEXT, wanted), parallel)
        hints = suggestions(request, facts, room - (smallest.total - smallest.weights))
        return _refuse(request, smallest.total, room, explain_need(smallest), hints)
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


def vllm_cpu_need(
    facts: ModelFacts, context: int, parallel: int, request: Request, threads: int
) -> MemoryNeed:
    """Main memory that one rank of vLLM takes, with ``parallel`` sequences of full length cached."""
    ranks = request.tensor_parallel or 1
    cache = kv_bytes(facts, context, parallel, kv_dtype=request.kv_dtype, tp=ranks)
    weights = loaded_weights(facts, request.dtype)
    return MemoryNeed(
        weights=weights if ranks == 1 else int(weights / ranks * 1.01),
        # One step more: vLLM keeps a block of its own, and rounds each sequence up to whole blocks.
        kv_cache=(cache // _VLLM_CACHE_STEP + 1) * _VLLM_CACHE_STEP,
        overhead=_vllm_cpu_overhead(facts, request, threads),
        adapters=_adapters(facts, request.lora, ranks),
    )


def _vllm_cpu_overhead(facts: ModelFacts, request: Request, threads: int) -> int:
    """Bytes of one rank: its part of the processes, and its activations."""
    ranks = request.tensor_parallel or 1
    unbound = request.threads is not None or threads <= FEW_THREADS
    alone = ranks == 1 and unbound and not request.several
    processes = _VLLM_PROCESSES + (0 if alone else _VLLM_WORKER) + (ranks - 1) * _VLLM_RANK
    batched = request.batched or _VLLM_BATCHED * ranks
    served = request.parallel or _VLLM_PARALLEL
    computing = vllm_overhead(facts, tp=ranks, batched=batched, sequences=served, eager=True)
    return processes // ranks + _packed_vocabulary(facts, request) // ranks + computing.activations


def _packed_vocabulary(facts: ModelFacts, request: Request) -> int:
    """Bytes of the second copies that vLLM keeps of embeddings and output matrix on a CPU: it packs
    every matrix for its products, and of these two keeps the first copy too
    (``dispatch_cpu_unquantized_gemm`` with ``remove_weight=False``)."""
    element = 4 if request.dtype in ("float32", "float") else 2
    matrices = 2 if has_own_head(facts.details) else 1
    return matrices * vocabulary(facts) * hidden_size(facts) * element


def _adapters(facts: ModelFacts, slots: Slots | None, ranks: int) -> int:
    """Main memory of one rank for adapters: what they are copied into is main memory here too."""
    return slot_bytes(facts, slots, ranks) + kept_bytes(facts, slots) if slots else 0


def largest_context(fits: Callable[[int], bool], wanted: int) -> int:
    """The largest multiple of ``CONTEXT_STEP`` below ``wanted`` that fits; 0 when none does."""
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


def _refuse(
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
