"""``xinference launch …``: the model that it names, as an entry of yibu's.

Xinference has a registry of its own from names to repositories. The families below are those that its
documentation lists most; a name that is not among them is refused, never guessed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from yibu.adopt.bash import Gap, UnknownScriptError
from yibu.adopt.marks import plain_flags
from yibu.messages import tr

_FAMILIES: Mapping[str, str] = {
    "qwen2-instruct": "Qwen/Qwen2-{size}B-Instruct",
    "qwen2.5": "Qwen/Qwen2.5-{size}B",
    "qwen2.5-instruct": "Qwen/Qwen2.5-{size}B-Instruct",
    "qwen2.5-coder-instruct": "Qwen/Qwen2.5-Coder-{size}B-Instruct",
    "qwen2.5-vl-instruct": "Qwen/Qwen2.5-VL-{size}B-Instruct",
    "qwen2-vl-instruct": "Qwen/Qwen2-VL-{size}B-Instruct",
    "qwen3": "Qwen/Qwen3-{size}B",
    "qwq-32b": "Qwen/QwQ-32B",
    "deepseek-r1-distill-qwen": "deepseek-ai/DeepSeek-R1-Distill-Qwen-{size}B",
    "deepseek-r1-distill-llama": "deepseek-ai/DeepSeek-R1-Distill-Llama-{size}B",
    "llama-3.1-instruct": "meta-llama/Llama-3.1-{size}B-Instruct",
    "llama-3.3-instruct": "meta-llama/Llama-3.3-{size}B-Instruct",
    "bge-m3": "BAAI/bge-m3",
    "bge-large-zh-v1.5": "BAAI/bge-large-zh-v1.5",
    "bge-large-en-v1.5": "BAAI/bge-large-en-v1.5",
    "bge-reranker-v2-m3": "BAAI/bge-reranker-v2-m3",
    "bge-reranker-large": "BAAI/bge-reranker-large",
    "SenseVoiceSmall": "iic/SenseVoiceSmall",
}
_SUFFIXES = {"pytorch": "", "awq": "-AWQ", "gptq": "-GPTQ-{quantization}", "fp8": "-FP8"}
_ENGINES = frozenset({"", "vllm", "llama.cpp"})
_PLACED = frozenset(
    ["model_name", "n", "model_engine", "size_in_billions", "s", "model_format", "f",
     "quantization", "q", "model_uid", "u", "endpoint", "e", "model_type", "t", "gpu_idx",
     "n_gpu", "replica", "r", "model_path", "trust_remote_code", "api_key", "ak", "en"]
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Launched:
    """A model launched by ``xinference launch``; with an empty ``model``, the server itself."""

    model: Mapping[str, Any]
    host: str | None = None
    port: int | None = None


def read_command(argv: Sequence[str]) -> Launched | None:
    """The model of an Xinference command; None for any other.

    Raises:
        UnknownScriptError: it launches a model that is not known here.
    """
    program = argv[0].rpartition("/")[2]
    if program in ("xinference-local", "xinference-supervisor"):
        flags = plain_flags(argv[1:])
        port = flags.get("port", flags.get("p", "9997"))
        return Launched({}, flags.get("host") or flags.get("H"), int(port))
    if program != "xinference" or list(argv[1:2]) != ["launch"]:
        return None
    gap = Gap(1, " ".join(argv))
    flags = plain_flags(argv[2:])
    name = flags.get("model_name") or flags.get("n") or ""
    model: dict[str, Any] = {
        "name": flags.get("model_uid") or flags.get("u") or name,
        "source": flags.get("model_path") or _source(name, flags, gap),
    }
    engine = (flags.get("model_engine") or flags.get("en") or "").lower()
    if engine not in _ENGINES:
        raise UnknownScriptError(
            gap, tr("runs on Xinference's engine {engine}, which yibu has not", engine=engine)
        )
    if engine:
        model["engine"] = engine
    if indices := flags.get("gpu_idx"):
        model["gpus"] = [int(one) for one in indices.split(",")]
    replicas = flags.get("replica") or flags.get("r") or "1"
    if replicas not in ("1", ""):
        model["replicas"] = int(replicas)
    options: dict[str, Any] = {
        name: int(value) if value.isdigit() else value or True
        for name, value in flags.items()
        if name not in _PLACED
    }
    if "max_model_len" in options:
        options["context"] = options.pop("max_model_len")
    if (flags.get("n_gpu") or "").isdigit() and flags["n_gpu"] != "1":
        options["tensor_parallel"] = int(flags["n_gpu"])
    if options:
        model["options"] = options
    return Launched(model)


def _source(name: str, flags: Mapping[str, str], gap: Gap) -> str:
    family = _FAMILIES.get(name)
    kind = flags.get("model_format") or flags.get("f") or "pytorch"
    size = (flags.get("size_in_billions") or flags.get("s") or "").replace("_", ".")
    if family is None or kind not in _SUFFIXES or ("{size}" in family and not size):
        raise UnknownScriptError(
            gap,
            tr(
                "names a model by Xinference's own registry, and this one is not known here: "
                "write the entry with `source: ORG/NAME`"
            ),
        )
    suffix = _SUFFIXES[kind].format(
        quantization=flags.get("quantization") or flags.get("q") or "Int4"
    )
    return "modelscope:" + family.format(size=size) + suffix
