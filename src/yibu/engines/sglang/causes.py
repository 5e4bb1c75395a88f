"""How SGLang says that it failed: wordings of 0.5.23 (older ones where they differed), from its source
and its users' reports, and what to do.

Its scheduler is a process of its own: what went wrong stands in that one's traceback, before «It usually
means one child failed».
"""

from __future__ import annotations

import re

from yibu.engines.base import Cause
from yibu.engines.causes import CORRUPT_SAFETENSORS, GENERIC_CAUSES, NCCL, REMOTE_CODE
from yibu.messages import tr

_MEMORY_HINT = tr(
    "See the arithmetic: yibu plan {model}. Lower options.context_length or "
    "max_running_requests, give it more memory (memory: 12GiB), or take a quantized "
    "variant."
)

SGLANG_CAUSES: tuple[Cause, ...] = (
    Cause(
        "kv_cache_too_small",
        re.compile(
            r"Not enough memory(?: to allocate KV cache)?\. (?:Please try to increase --mem-fraction-static|"
            r"Possible fixes)[^\n]*?(?:mem_fraction_static=(?P<share>[\d.]+))?$|"
            r"Loaded weights leave no GPU memory for the KV cache|"
            r"Not enough GPU memory for hybrid \(mamba/linear-attention\) state cache"
        ),
        tr("No memory is left for the KV cache after the weights (mem_fraction_static: {share})."),
        _MEMORY_HINT,
    ),
    Cause(
        "gpus_unbalanced",
        re.compile(r"The memory capacity is unbalanced\. Some GPUs may be occupied"),
        tr(
            "The GPUs of this model have different amounts of memory free, because other "
            "processes hold some."
        ),
        tr("See who holds it (nvidia-smi, yibu plan), stop it, or name other GPUs: gpus: [2, 3]."),
    ),
    Cause(
        "cuda_graph_memory",
        re.compile(r"Capture (?:prefill )?(?:cuda|CUDA) graph failed: (?P<reason>[^\n]+)"),
        tr("CUDA graphs could not be captured: {reason}."),
        tr(
            "Lower options.cuda_graph_max_bs or mem_fraction_static, or do without: "
            "options.disable_cuda_graph: true."
        ),
    ),
    Cause(
        "out_of_memory",
        re.compile(
            r"torch\.(?:cuda\.)?OutOfMemoryError|CUDA out of memory|CUDA error: out of memory|"
            r"CUBLAS_STATUS_ALLOC_FAILED"
        ),
        tr("Memory ran out while the model was loaded or warmed up."),
        _MEMORY_HINT,
    ),
    Cause(
        "model_length_too_long",
        re.compile(
            r"context_length \((?P<asked>\d+)\) is greater than the derived context_length "
            r"\((?P<most>\d+)\)"
        ),
        tr("context_length is {asked}, and the model was made for {most} tokens at most."),
        tr("Set options.context to {most} or less."),
    ),
    Cause(
        "unsupported_architecture",
        re.compile(
            r"Model architectures (?P<architecture>\[[^\]]*\]|\S+) are not supported for now|"
            r"model type `(?P<type>[^`]+)` but Transformers does not recognize"
        ),
        tr("This SGLang does not know the architecture {architecture}{type}."),
        tr(
            "Take a newer engine (yibu engine install sglang --version V), or serve it with "
            "another engine: engine: vllm."
        ),
    ),
    Cause(
        "tensor_parallel_heads",
        re.compile(r"AssertionError: (?P<a>\d+) is not divisible by (?P<b>\d+)"),
        tr("The model cannot be cut into that many parts: {a} does not divide by {b}."),
        tr("Set options.tensor_parallel to a divisor of the number of heads (1, 2, 4, 8 …)."),
    ),
    Cause(
        "no_gpu",
        re.compile(
            r"No accelerator \(CUDA, XPU[^\n]* is available|No CUDA GPUs are available|"
            r"Found no NVIDIA driver on your system"
        ),
        tr("SGLang finds no GPU that it can use."),
        tr(
            "Check nvidia-smi (in a container: --gpus all); without a GPU take engine: vllm "
            "or llama.cpp."
        ),
    ),
    Cause(
        "driver_too_old",
        re.compile(
            r"NVIDIA driver on your system is too old \(found version (?P<version>\d+)\)|"
            r"CUDA driver version is insufficient|no kernel image is available for execution|"
            r"provided PTX was compiled with an unsupported toolchain"
        ),
        tr("The NVIDIA driver (or the card) is too old for this build: {version}."),
        tr(
            "Update the driver (nvidia-smi shows it), or take an older engine: yibu engine "
            "install sglang --version V."
        ),
    ),
    NCCL,
    REMOTE_CODE,
    Cause(
        "no_network",
        re.compile(
            r"We couldn't connect to 'https?://[^']+'|OfflineModeIsEnabled|LocalEntryNotFoundError|"
            r"Failed to resolve '(?P<host>[^']+)'"
        ),
        tr("The engine wanted something from a hub, which cannot be reached from here: {host}."),
        tr(
            "Fetch the whole model first: yibu pull SOURCE (on another machine, then copy "
            "its folder)."
        ),
    ),
    CORRUPT_SAFETENSORS,
    Cause(
        "bad_flag",
        re.compile(
            r"error: (?:unrecognized arguments: (?P<flags>[^\n]+)|"
            r"argument (?P<flag>\S+): (?P<reason>[^\n]+))"
        ),
        tr("SGLang refused a flag: {flags}{flag} {reason}."),
        tr("Correct it in options: or after --; its flags: yibu plan {model} checks them."),
    ),
    *GENERIC_CAUSES,
    Cause(
        "scheduler_died",
        re.compile(
            r"It usually means one child failed|Scheduler hit an exception|"
            r"Scheduler or DataParallelController \d+ terminated with"
        ),
        tr("SGLang's scheduler failed, and its log names no cause that yibu knows."),
        tr("The traceback stands above that line: yibu logs {model} -n 200."),
    ),
)
"""The particular before the general: the first whose pattern is found wins."""
