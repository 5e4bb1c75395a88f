"""How llama.cpp says that it failed: wordings of the pinned version, and what to do about each."""

from __future__ import annotations

import re

from yibu.engines.base import Cause
from yibu.messages import tr

LLAMA_CPP_CAUSES: tuple[Cause, ...] = (
    Cause(
        "port_in_use",
        re.compile(
            r"couldn't bind HTTP server socket, hostname: (?P<host>\S+), port: (?P<port>\d+)|"
            r"cannot listen on (?P<address>\S+): Address already in use"
        ),
        tr("The engine's port {port}{address} is taken by another process."),
        tr(
            "See who holds it: ss -ltnp. Stop that process, or start again: yibu picks a free port."
        ),
    ),
    Cause(
        "bad_path",
        re.compile(
            r"failed to open GGUF file '(?P<path>[^']+)' \(No such file or directory\)|"
            r"the model file (?P<file>.+) cannot be read: No such file or directory"
        ),
        tr("The model file does not exist: {path}{file}."),
        tr(
            "Check the model's source in yibu.yaml; what is here: yibu ls; fetch it: yibu "
            "pull SOURCE."
        ),
    ),
    Cause(
        "permission",
        re.compile(
            r"failed to open GGUF file '(?P<path>[^']+)' \(Permission denied\)|"
            r"the model file (?P<file>.+) cannot be read: Permission denied"
        ),
        tr("The model file may not be read by the user that runs yibu: {path}{file}."),
        tr("Give it the right: chmod a+r FILE (and x on its directories)."),
    ),
    Cause(
        "several_models",
        re.compile(r"the directory (?P<path>.+) has (?P<count>\d+) GGUF models"),
        tr("The directory {path} has {count} GGUF models, and one has to be named."),
        tr("Name the file in the source: ORG/NAME#FILE.gguf."),
    ),
    Cause(
        "unsupported_version",
        re.compile(r"this GGUF file is version (?P<version>\d+) but this software only supports"),
        tr("The file has GGUF version {version}, which this llama.cpp does not read."),
        tr(
            "Fetch a newer conversion of the model, or a newer engine: yibu engine install "
            "llama.cpp --version V."
        ),
    ),
    Cause(
        "corrupt_model",
        re.compile(
            r"invalid magic characters|failed to read (?:magic|header|key-value pairs|tensor info)|"
            r"is not within the file bounds, model is corrupted or incomplete|"
            r"the model file .+ is not GGUF|"
            r"missing tensor '[^']+'|wrong number of tensors|tensor '[^']+' has wrong shape|"
            r"gguf_init_from_\w+: (?:duplicate key|invalid)"
        ),
        tr("The model file is damaged, incomplete, or not a GGUF file."),
        tr(
            "Check it against the hub's sha256 and fetch it again: yibu verify SOURCE; yibu "
            "pull SOURCE."
        ),
    ),
    Cause(
        "unsupported_architecture",
        re.compile(r"unknown model architecture: '(?P<architecture>[^']+)'"),
        tr("This llama.cpp does not know the architecture {architecture}."),
        tr("Take a newer engine (yibu engine install llama.cpp --version V), or another model."),
    ),
    Cause(
        "unsupported_tokenizer",
        re.compile(
            r"unknown (?:pre-tokenizer|tokenizer) type: '(?P<tokenizer>[^']+)'|"
            r"error loading model vocabulary: (?P<reason>[^\n]+)"
        ),
        tr("This llama.cpp cannot read the model's tokenizer: {tokenizer}{reason}."),
        tr(
            "Take a newer engine (yibu engine install llama.cpp --version V), or a newer "
            "conversion."
        ),
    ),
    Cause(
        "kv_cache_too_large",
        re.compile(
            r"failed to allocate buffer for kv cache|"
            r"failed to initialize the memory for the context"
        ),
        tr("There is not enough memory for the KV cache of this context length."),
        tr(
            "Lower options.context or options.parallel, or quantize the cache (cache_type_k: "
            "q8_0, cache_type_v: q8_0); see: yibu plan {model}."
        ),
    ),
    Cause(
        "out_of_memory",
        re.compile(
            r"insufficient memory \(attempted to allocate\s+(?P<mib>[\d.]+) MB\)|"
            r"failed to allocate \S+ buffer(?: of size (?P<bytes>\d+))?|"
            r"failed to allocate (?:compute|compute pp|graph) buffers?|"
            r"unable to allocate \S+ buffer|cudaMalloc failed: out of memory|"
            r"CUDA error: out of memory|ggml_vulkan: Device memory allocation|ErrorOutOfDeviceMemory|"
            r"hipMalloc failed: out of memory"
        ),
        tr("There is not enough memory for this model with these settings."),
        tr(
            "See the arithmetic: yibu plan {model}. A smaller quantization, less "
            "options.context or fewer options.parallel takes less."
        ),
    ),
    Cause(
        "cuda_driver",
        re.compile(
            r"CUDA driver version is insufficient for CUDA runtime version|"
            r"no kernel image is available for execution"
        ),
        tr("The GPU's driver or generation does not serve this build of llama.cpp."),
        tr("Update the NVIDIA driver (nvidia-smi shows it), or run on the CPU: gpus: []."),
    ),
    Cause(
        "flash_attention",
        re.compile(r"(?:quantized V cache|V cache quantization) [^\n]*requires? flash[_ ]attn"),
        tr("A quantized V cache needs flash attention."),
        tr("Set options.flash_attention: true, or leave cache_type_v alone."),
    ),
    Cause(
        "chat_template",
        re.compile(
            r"(?:the supplied chat template is not supported|"
            r"failed to (?:parse|initialize) chat template|chat template parsing error)"
            r"(?::? ?(?P<reason>[^\n]*))"
        ),
        tr("The chat template cannot be used: {reason}."),
        tr("Give another: options.chat_template: NAME (chatml, llama3, …) or Jinja text."),
    ),
    Cause(
        "bad_setting",
        re.compile(
            r"yibu: error: --set (?P<what>[^\n]+)|"
            r"error while handling argument (?P<flag>\"[^\n]+)|"
            r"error: invalid argument: (?P<unknown>[^\n]+)"
        ),
        tr("A parameter was refused: {what}{flag}{unknown}."),
        tr("Correct it in options: (yibu.yaml), or take it out."),
    ),
    Cause(
        "corrupt_model",
        re.compile(r"error loading model: (?P<reason>[^\n]+)"),
        tr("llama.cpp cannot load the model: {reason}."),
        tr(
            "Check the file: yibu verify SOURCE; a newer engine may read it: yibu engine "
            "install llama.cpp --version V."
        ),
    ),
)
"""The particular before the general: the first whose pattern is found wins."""
