"""transformers' layout on disk or on a hub: config.json, safetensors, chat template."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from yibu.errors import UnsupportedError, VerificationError
from yibu.messages import tr
from yibu.planner import hf_config, quantization
from yibu.planner.cache import CacheGroup
from yibu.planner.chat_template import takes_tools, templates_of, thinks
from yibu.planner.files import load_json
from yibu.planner.hf import model
from yibu.planner.hf.context import max_context
from yibu.planner.hf.settings import CannotTellError, head_dim, kv_heads, setting
from yibu.planner.hf.weights import Weights
from yibu.planner.types import ModelFacts
from yibu.weights import safetensors


def read_directory(path: Path, names: set[str]) -> ModelFacts:
    config = read_config(path)
    index_name = "model.safetensors.index.json"
    index = load_json(path / index_name) if index_name in names else None
    files = _safetensors_files(path, names, index)
    tensors = [tensor for file in files for tensor in safetensors.read_header(path / file)]
    templates = templates_of(
        names,
        lambda name: (path / name).read_text(encoding="utf-8", errors="replace"),
        lambda name: load_json(path / name),
    )
    facts = facts_from_tensors(config, tensors, index, tuple(files), templates)
    if "modules.json" in names and not facts.pooling:
        # sentence-transformers' layout: an embedding model on a generating architecture.
        return replace(facts, pooling=True)
    return facts


def read_config(path: Path) -> Mapping[str, Any]:
    """config.json, with what ModelOpt writes beside it about its quantization."""
    beside = path / quantization.MODELOPT
    found = load_json(beside) if beside.is_file() else None
    return quantization.with_file(load_json(path / "config.json"), found)


def _safetensors_files(path: Path, names: set[str], index: Mapping[str, Any] | None) -> list[str]:
    if index is not None:
        weight_map = index.get("weight_map")
        if not isinstance(weight_map, Mapping):
            raise VerificationError(
                "{path} has no weight_map",
                path=path / "model.safetensors.index.json",
                hint="The file is damaged: pull it again",
            )
        files = sorted({str(name) for name in weight_map.values()})
        if missing := [name for name in files if name not in names]:
            raise VerificationError(
                "{path}: {missing_count} of {files_count} weight files are missing, the "
                "first is {missing}",
                path=path,
                missing_count=len(missing),
                files_count=len(files),
                missing=missing[0],
                hint="Pull it again: what is here is kept",
            )
        return files
    if "model.safetensors" in names:
        return ["model.safetensors"]
    files = sorted(
        name
        for name in names
        if name.endswith(".safetensors") and not name.startswith(("consolidated", "adapter_"))
    )
    if files:
        return files
    if "adapter_config.json" in names:
        found = tr("a LoRA adapter, which is served with its base model")
    elif any(name.endswith((".bin", ".pt", ".pth")) for name in names):
        found = tr("weights only as pickles, which could run any code when opened")
    else:
        found = tr("no weights")
    raise UnsupportedError(
        "{path} holds config.json and {found}; safetensors files were expected",
        path=path,
        found=found,
        hint="Take a revision or a conversion of the model with safetensors",
    )


def facts_from_tensors(
    config: Mapping[str, Any],
    tensors: list[safetensors.SafetensorsTensor],
    index: Mapping[str, Any] | None,
    files: tuple[str, ...],
    templates: Sequence[str],
) -> ModelFacts:
    """Facts from what was read.

    Args:
        templates: The texts of its chat templates, "" for one that was not read.
    """
    text, named = hf_config.text_config(config), model.model_type(config)
    told = _told(config)
    dtype = hf_config.dtype(config) or hf_config.dtype(text) or _main_dtype(tensors)
    if not dtype and quantization.method(config) is None:
        dtype = "float32"  # as transformers stores and vLLM reads what names no dtype
    unknown = told.unknown
    weights = sum(tensor.size for tensor in tensors) or _total_size(index)
    estimated = not weights
    if estimated and not unknown:
        layers = hf_config.layers(text)
        try:
            weights = quantization.stored_bytes(told.weights, config, dtype, layers)
        except CannotTellError as error:
            unknown = str(error)
    return ModelFacts(
        format="safetensors",
        architecture=hf_config.architecture(config),
        weight_bytes=weights,
        max_context=max_context(text, named),
        layers=hf_config.layers(text),
        attention_heads=setting(text, "heads"),
        kv_heads=kv_heads(text),
        head_dim=head_dim(text),
        dtype=dtype,
        quantization=quantization.method(config),
        parameters=_stored_parameters(config, tensors) or told.weights.total,
        active_parameters=told.weights.active,
        tower_parameters=told.weights.vision + told.weights.audio,
        chat_template=bool(templates),
        template_takes_tools=any(map(takes_tools, templates)),
        template_thinks=any(map(thinks, templates)),
        pooling=hf_config.is_pooling(config),
        details=config,
        files=files,
        estimated=estimated,
        unknown=unknown,
        cache=told.keeps,
    )


@dataclass(frozen=True, slots=True)
class _Told:
    weights: Weights = field(default_factory=Weights)
    keeps: tuple[CacheGroup, ...] = ()
    unknown: str = ""


def _told(config: Mapping[str, Any]) -> _Told:
    try:
        described = model.describe(config)
    except CannotTellError as error:
        return _Told(unknown=str(error))
    return _Told(described.weights, described.keeps)


def _total_size(index: Mapping[str, Any] | None) -> int:
    metadata = (index or {}).get("metadata")
    size = metadata.get("total_size") if isinstance(metadata, Mapping) else None
    return int(size) if isinstance(size, int | float) and 0 < size < 1 << 50 else 0


def _main_dtype(tensors: Iterable[safetensors.SafetensorsTensor]) -> str:
    sizes: dict[str, int] = {}
    for tensor in tensors:
        sizes[tensor.dtype] = sizes.get(tensor.dtype, 0) + tensor.size
    names = {"BF16": "bfloat16", "F16": "float16", "F32": "float32"}
    main = max(sizes, key=lambda dtype: sizes[dtype], default="")
    return names.get(main, main.lower())


def _stored_parameters(
    config: Mapping[str, Any], tensors: list[safetensors.SafetensorsTensor]
) -> int:
    """Weights counted, packed ones (several in an I32 or U8) unpacked, scales left out."""
    bits = quantization.bits(config) if tensors else None
    total = 0
    for tensor in tensors:
        if tensor.name.endswith(
            ("scales", "_scale", "_scale_inv", "qzeros", "g_idx", "_zero_point")
        ):
            continue
        packed = bits and tensor.name.endswith(("qweight", "weight_packed", "_blocks"))
        total += tensor.size * 8 // bits if packed and bits else tensor.elements
    return total
