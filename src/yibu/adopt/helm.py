"""Values of Helm charts: any chart's that name an image and its arguments, and those of vLLM's production
stack: what its template makes of each model.

https://github.com/vllm-project/production-stack, helm/templates/deployment-vllm-multi.yaml.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from yibu.adopt.containers import Container
from yibu.adopt.kubernetes import pod_env
from yibu.adopt.services import ManifestService, line_of, mappings_in, text_of, words_of
from yibu.messages import tr

_FLAGS = {
    "maxModelLen": "--max-model-len",
    "dtype": "--dtype",
    "tensorParallelSize": "--tensor-parallel-size",
    "maxNumSeqs": "--max-num-seqs",
    "gpuMemoryUtilization": "--gpu-memory-utilization",
    "maxLoras": "--max-loras",
    "runner": "--runner",
    "convert": "--convert",
}
"""Keys of ``vllmConfig`` that have a value."""
_READ = _FLAGS.keys() | {"enableChunkedPrefill", "enablePrefixCaching", "extraArgs", "v0"}


def read_helm(values: Mapping[str, Any], text: str) -> Iterator[ManifestService]:
    for path, part in mappings_in(values, "", 0):
        if isinstance(part.get("modelSpec"), list):
            for spec in part["modelSpec"]:
                if isinstance(spec, Mapping):
                    yield _of_stack(spec, part, text)
        elif "image" in part and any(key in part for key in ("args", "command", "extraArgs")):
            yield _chart(path or "values", part, text)


def _chart(path: str, part: Mapping[str, Any], text: str) -> ManifestService:
    image = part["image"]
    if isinstance(image, Mapping):
        command = image.get("command") or part.get("command")
        image = f"{image.get('repository', '')}:{image.get('tag', 'latest')}"
    else:
        command = part.get("command")
    env, warnings = pod_env({"env": part.get("env") or []}) if isinstance(
        part.get("env", []), list) else ({k: text_of(v) for k, v in part["env"].items()}, [])  # fmt: skip
    arguments = words_of(part.get("args")) + words_of(part.get("extraArgs"))
    entry = words_of(command) or None
    container = Container(image=str(image), entrypoint=entry, arguments=arguments, env=env)
    replicas = int(part.get("replicaCount", part.get("replicas", 1)) or 1)
    return ManifestService(container, path, replicas, line_of(text, "image:"), (), tuple(warnings))


def _of_stack(spec: Mapping[str, Any], engine: Mapping[str, Any], text: str) -> ManifestService:
    env, warnings = pod_env({"env": _variables(spec, engine)})
    container = Container(
        image=f"{spec.get('repository', 'vllm/vllm-openai')}:{spec.get('tag', 'latest')}",
        entrypoint=("vllm", "serve"),
        arguments=tuple(_arguments(spec)),
        env=env,
    )
    line = line_of(text, str(spec.get("modelURL", "modelSpec:")))
    warnings += _warnings(spec)
    replicas = int(spec.get("replicaCount", 1) or 1)
    return ManifestService(
        container,
        tr("model {name}", name=spec.get("name", "")),
        replicas,
        line,
        (),
        tuple(warnings),
    )


def _arguments(spec: Mapping[str, Any]) -> list[str]:
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


def _variables(spec: Mapping[str, Any], engine: Mapping[str, Any]) -> list[Any]:
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


def _warnings(spec: Mapping[str, Any]) -> list[str]:
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
