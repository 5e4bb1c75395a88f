"""GGUF on disk: one file, the parts of a split one, or a directory that holds either."""

from __future__ import annotations

import mmap
from pathlib import Path

from yibu.errors import UnsupportedError, UsageError, VerificationError
from yibu.hub.quantization import Variant, variants
from yibu.messages import tr
from yibu.planner.arithmetic import ENCODERS
from yibu.planner.chat_template import takes_tools, thinks
from yibu.planner.hf.settings import MAX_LAYERS
from yibu.planner.layers import Layers, layers_of
from yibu.planner.types import ModelFacts
from yibu.weights import gguf


def read_directory(path: Path) -> ModelFacts | None:
    """The facts of the one model in a directory; None where no GGUF file is.

    Raises:
        UsageError: There are several, or nothing but a vision projector, which is no model of its own.
        VerificationError: A file is cut short or damaged, or a part is missing.
    """
    names = [str(file.relative_to(path)) for file in path.rglob("*.gguf")]
    models = variants(dict.fromkeys(names, 0))
    if len(models) == 1:
        return _read(path, models[0], models[0].files)
    if not names:
        return None
    listing = ", ".join(sorted(model.name for model in models)[:8])
    raise UsageError(
        "{path} holds {candidates_count} GGUF models and one was expected: {listing}",
        path=path,
        candidates_count=len(models),
        listing=listing or tr("only a vision projector"),
        hint="Name one of its files: append #FILE.gguf to the source, or give the file's path",
    )


def read_file(path: Path) -> ModelFacts:
    """A file's facts; those of all parts where it is one of a split model's. Raises as above."""
    beside = variants(dict.fromkeys((file.name for file in path.parent.glob("*.gguf")), 0))
    alone = Variant(path.stem, "", (path.name,), 0)
    return _read(path.parent, next((v for v in beside if path.name in v.files), alone), ())


def _read(folder: Path, model: Variant, files: tuple[str, ...]) -> ModelFacts:
    if model.missing:
        raise VerificationError(
            "{stem}: {parts_count} of {parts} GGUF parts are here",
            stem=model.name,
            parts_count=len(model.files),
            parts=len(model.files) + len(model.missing),
            hint="Pull it again: what is here is kept",
        )
    headers = [_map_gguf(folder / name) for name in model.files]
    return facts_from_header(
        headers[0],
        sum(header.weight_bytes for header in headers),
        sum(header.parameters for header in headers),
        files,
        layers_of(headers),
    )


def _map_gguf(path: Path) -> gguf.Header:
    size = path.stat().st_size
    if size == 0:
        raise VerificationError("{path} is empty", path=path.name, hint="Pull it again")
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        header = gguf.parse(data, path.name)
    check_size(header, path.name, size)
    return header


def check_size(header: gguf.Header, name: str, size: int) -> None:
    if max(header.file_bytes, header.weight_bytes) > size:
        raise VerificationError(
            "{name} is cut short: {size} bytes are here, its header describes tensors up "
            "to byte {file_bytes}",
            name=name,
            size=size,
            file_bytes=max(header.file_bytes, header.weight_bytes),
            hint="Pull it again: an interrupted download resumes",
        )


def facts_from_header(
    header: gguf.Header,
    weights: int,
    parameters: int,
    files: tuple[str, ...],
    by_layer: Layers | None = None,
) -> ModelFacts:
    metadata = header.metadata
    architecture = metadata.get("general.architecture")
    if not isinstance(architecture, str):
        raise UnsupportedError("the GGUF header names no general.architecture")

    def most(key: str) -> int:
        """A number, or the largest of a per-layer list."""
        value = metadata.get(f"{architecture}.{key}")
        values = value if isinstance(value, list) else [value]
        return max((v for v in values if isinstance(v, int) and v >= 0), default=0)

    heads, layers = most("attention.head_count"), most("block_count")
    if layers > MAX_LAYERS:
        raise VerificationError(
            "the GGUF header claims {layers} layers; at most {limit} are believed",
            layers=layers,
            limit=MAX_LAYERS,
            hint="The file is damaged: pull it again, or run `yibu verify`",
        )
    pooling = metadata.get(f"{architecture}.pooling_type")
    template = str(metadata.get("tokenizer.chat_template", ""))
    keeps = heads or most("ssm.inner_size") or most("wkv.head_size")
    known = keeps or pooling or architecture in ENCODERS
    return ModelFacts(
        format="gguf",
        architecture=architecture,
        weight_bytes=weights,
        max_context=most("context_length") or None,
        layers=layers,
        attention_heads=heads,
        kv_heads=most("attention.head_count_kv") or heads,
        head_dim=most("attention.key_length")
        or (most("embedding_length") // heads if heads else 0),
        dtype=header.quantization,
        quantization=header.quantization or None,
        parameters=parameters,
        chat_template=bool(template),
        template_takes_tools=takes_tools(template),
        template_thinks=thinks(template),
        pooling=bool(pooling) or architecture in ENCODERS,
        details=metadata,
        files=files,
        by_layer=by_layer,
        unknown=""
        if known
        else tr("its header has no {architecture}.attention.head_count", architecture=architecture),
        active_parameters=_active(
            header, parameters, most("expert_count"), most("expert_used_count")
        ),
    )


def _active(header: gguf.Header, parameters: int, experts: int, used: int) -> int:
    """Parameters used by a token; 0 where only the first of several parts was read."""
    if not experts or not used:
        return parameters
    routed = sum(tensor.elements for tensor in header.tensors if "_exps." in tensor.name)
    return (
        parameters - routed * (experts - used) // experts if parameters == header.parameters else 0
    )
