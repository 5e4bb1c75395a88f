"""Values of the chart of vLLM's production stack: what its template makes of each model.

https://github.com/vllm-project/production-stack, helm/templates/deployment-vllm-multi.yaml.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

from yibu.messages import tr

_FLAGS: Mapping[str, str] = MappingProxyType(
    {
        "maxModelLen": "--max-model-len",
        "dtype": "--dtype",
        "tensorParallelSize": "--tensor-parallel-size",
        "maxNumSeqs": "--max-num-seqs",
        "gpuMemoryUtilization": "--gpu-memory-utilization",
        "maxLoras": "--max-loras",
        "runner": "--runner",
        "convert": "--convert",
    }
)
"""Keys of ``vllmConfig`` that have a value."""
_READ = _FLAGS.keys() | {"enableChunkedPrefill", "enablePrefixCaching", "extraArgs", "v0"}


def arguments(spec: Mapping[str, Any]) -> list[str]:
    """Arguments of ``vllm serve``. The entry's name is an addition: the chart's server answers to the
    model's address alone."""
    url = str(spec.get("modelURL", ""))
    words = [url, "--served-model-name", str(spec.get("name", "")), url]
    words += ["--enable-lora"] * bool(spec.get("enableLoRA"))
    words += ["--enable-auto-tool-choice"] * bool(spec.get("enableTool"))
    if spec.get("toolCallParser"):
        words += ["--tool-call-parser", str(spec["toolCallParser"])]
    if config := spec.get("vllmConfig") or {}:
        words += _of_config(config)
    if spec.get("modelRevision"):
        words += ["--revision", str(spec["modelRevision"])]
    if spec.get("chatTemplate"):
        words += ["--chat-template", f"/templates/{spec['chatTemplate']}"]
    return words


def _of_config(config: Mapping[str, Any]) -> list[str]:
    words = []
    if "enableChunkedPrefill" in config:
        on = config["enableChunkedPrefill"]
        words.append("--enable-chunked-prefill" if on else "--no-enable-chunked-prefill")
    on = config.get("enablePrefixCaching")
    words.append("--enable-prefix-caching" if on else "--no-enable-prefix-caching")
    for key, flag in _FLAGS.items():
        if key in config:
            words += [flag, str(config[key])]
    return words + [str(word) for word in config.get("extraArgs") or ()]


def variables(spec: Mapping[str, Any], engine: Mapping[str, Any]) -> list[Any]:
    """Entries of the container's ``env``; ``engine`` is ``servingEngineSpec``."""
    found: list[Any] = []
    secrets = {"HF_TOKEN": spec.get("hf_token"), "VLLM_API_KEY": engine.get("vllmApiKey")}
    for name, value in secrets.items():
        if isinstance(value, str) and value:
            found.append({"name": name, "value": value})
        elif value:
            found.append({"name": name, "valueFrom": {"secretKeyRef": value}})
    if str((spec.get("vllmConfig") or {}).get("v0", "")) == "1":
        found.append({"name": "VLLM_USE_V1", "value": "0"})
    given: Sequence[Any] = (*(engine.get("env") or ()), *(spec.get("env") or ()))
    return [*found, *given]


def warnings(spec: Mapping[str, Any]) -> list[str]:
    """What a reader should know, as sentences."""
    name = spec.get("name", "")
    told = [tr("{name}: vllmConfig.{key} is nothing that the chart passes on", name=name, key=key)
            for key in spec.get("vllmConfig") or {} if key not in _READ]  # fmt: skip
    if (spec.get("lmcacheConfig") or {}).get("enabled"):
        told.append(
            tr("{name}: lmcacheConfig is left out: LMCache is not part of yibu's vLLM", name=name)
        )
    if spec.get("envFromSecret"):
        told.append(tr("{name}: envFromSecret was not read: variables may be missing", name=name))
    if spec.get("chatTemplate"):
        told.append(
            tr("{name}: its chat template comes with the chart: correct its path", name=name)
        )
    return told
