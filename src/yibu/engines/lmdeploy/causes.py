"""How LMDeploy says that it failed: wordings of 0.18 (older ones where they differed), from its source
and its users' reports, and what to do."""

from __future__ import annotations

import re

from yibu.engines.base import Cause
from yibu.engines.causes import CORRUPT_SAFETENSORS, GENERIC_CAUSES, NCCL, REMOTE_CODE
from yibu.messages import tr

_MEMORY_HINT = tr(
    "See the arithmetic: yibu plan {model}. Lower options.session_len or max_batch_size, "
    "give it more memory (memory: 12GiB), or take a quantized variant."
)

LMDEPLOY_CAUSES: tuple[Cause, ...] = (
    Cause(
        "kv_cache_too_small",
        re.compile(
            r"No enough gpu memory for (?:kv cache|state cache|runtime)|No enough free memory blocks"
        ),
        tr("No memory is left for the KV cache after the weights."),
        _MEMORY_HINT,
    ),
    Cause(
        "out_of_memory",
        re.compile(
            r"CUDA runtime error: out of memory|torch\.(?:cuda\.)?OutOfMemoryError|"
            r"CUDA out of memory|CUDA error: out of memory|CUBLAS_STATUS_ALLOC_FAILED"
        ),
        tr("Memory ran out while the model was loaded or warmed up."),
        _MEMORY_HINT,
    ),
    Cause(
        "bad_cache_ratio",
        re.compile(r"object-cache path (?:expects 0 < |no longer accepts )cache_max_block_count"),
        tr(
            "cache_max_entry_count has to be a fraction between 0 and 1; it counts no blocks "
            "any more."
        ),
        tr(
            "Leave options.cache_max_entry_count out: yibu gives it what the plan has for "
            "the cache."
        ),
    ),
    Cause(
        "bad_path",
        re.compile(
            r"[Ff]ailed to (?:find valid checkpoint|locate weight files) under '?(?P<path>[^'\n]+)|"
            r"Could not find model architecture from config"
        ),
        tr(
            "There is no model at the path that was given, or it lacks config.json or its "
            "weights: {path}."
        ),
        tr(
            "Check the source in yibu.yaml; what is here: yibu ls; fetch it again: yibu pull "
            "SOURCE."
        ),
    ),
    Cause(
        "bad_parser",
        re.compile(r"The (?P<kind>reasoning|tool) parser (?P<name>\S+) is not in the parser list"),
        tr("LMDeploy has no {kind} parser named {name}."),
        tr(
            "Name one that it has, or none: options.reasoning_parser: null, "
            "options.tool_call_parser: null."
        ),
    ),
    Cause(
        "pytorch_engine_check",
        re.compile(r"<(?P<what>\w+)> check failed!"),
        tr("LMDeploy's check of its environment failed: {what}."),
        tr(
            "Make the environment anew: yibu engine rm lmdeploy, then yibu engine install lmdeploy."
        ),
    ),
    Cause(
        "unsupported_architecture",
        re.compile(
            r"[Uu]nsupported arch(?:=| )(?P<architecture>\w+)|"
            r"model type `(?P<type>[^`]+)` but Transformers does not recognize|"
            r"Unsupported weight quantization method: (?P<method>\w+)"
        ),
        tr(
            "This LMDeploy does not know the architecture or quantization "
            "{architecture}{type}{method}."
        ),
        tr(
            "Take a newer engine (yibu engine install lmdeploy --version V), or serve it "
            "with another engine: engine: vllm."
        ),
    ),
    Cause(
        "no_gpu",
        re.compile(
            r"No CUDA GPUs are available|Found no NVIDIA driver on your system|"
            r"CUDA runtime error: (?:no CUDA-capable device|invalid device ordinal)"
        ),
        tr("LMDeploy finds no GPU that it can use."),
        tr(
            "Check nvidia-smi (in a container: --gpus all); without a GPU take engine: vllm "
            "or llama.cpp."
        ),
    ),
    Cause(
        "driver_too_old",
        re.compile(
            r"NVIDIA driver on your system is too old \(found version (?P<version>\d+)\)|"
            r"CUDA driver version is insufficient|no kernel image is available for execution"
        ),
        tr("The NVIDIA driver (or the card) is too old for this build: {version}."),
        tr(
            "Update the driver (nvidia-smi shows it), or take an older engine: yibu engine "
            "install lmdeploy --version V."
        ),
    ),
    NCCL,
    REMOTE_CODE,
    CORRUPT_SAFETENSORS,
    Cause(
        "bad_flag",
        re.compile(
            r"error: (?:unrecognized arguments: (?P<flags>[^\n]+)|"
            r"argument (?P<flag>\S+): (?P<reason>[^\n]+))"
        ),
        tr("LMDeploy refused a flag: {flags}{flag} {reason}."),
        tr("Correct it in options: or after --; its flags: yibu plan {model} checks them."),
    ),
    *GENERIC_CAUSES,
)
"""The particular before the general: the first whose pattern is found wins."""
