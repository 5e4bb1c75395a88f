"""GGUF on disk: one file, the parts of a split one, or a directory that holds either."""

from __future__ import annotations

import glob
import mmap
import re
from collections.abc import Mapping
from pathlib import Path

from yibu.errors import UnsupportedError, UsageError, VerificationError
from yibu.hub.quantization import is_projector
from yibu.messages import tr
from yibu.planner.arithmetic import ENCODERS
from yibu.planner.chat_template import takes_tools
from yibu.planner.hf.settings import MAX_LAYERS
from yibu.planner.layers import Layers, layers_of
from yibu.planner.types import ModelFacts
from yibu.weights import gguf

_SPLIT = re.compile(r"^(?P<stem>.+)-(?P<part>\d{5})-of-(?P<parts>\d{5})\.gguf$")


def gguf_models(directory: Path) -> dict[str, list[Path]]:
    """The GGUF models of a directory by name, each with its parts in order."""
    models: dict[str, list[Path]] = {}
    for path in sorted(directory.rglob("*.gguf")):
        split = _SPLIT.match(path.name)
        models.setdefault(split["stem"] if split else path.stem, []).append(path)
    return models


def choose_model(path: Path, models: Mapping[str, list[Path]]) -> ModelFacts:
    # A vision projector lies beside its model and is no model of its own.
    candidates = {name: parts for name, parts in models.items() if not is_projector(parts[0].name)}
    if len(candidates) == 1:
        (parts,) = candidates.values()
        return read_files(parts, relative_to=path)
    listing = ", ".join(sorted(candidates)[:8]) or tr("only a vision projector")
    raise UsageError(
        tr(
            "{path} holds {candidates_count} GGUF models and one was expected: {listing}",
            path=path,
            candidates_count=len(candidates),
            listing=listing,
        ),
        hint=tr("name one of its files: append #FILE.gguf to the source, or give the file's path"),
    )


def read_files(parts: list[Path], relative_to: Path | None = None) -> ModelFacts:
    first = parts[0]
    split = _SPLIT.match(first.name)
    if split and relative_to is None:
        parts = sorted(
            first.parent.glob(f"{glob.escape(split['stem'])}-*-of-{split['parts']}.gguf")
        )
    if split and len(parts) != int(split["parts"]):
        raise VerificationError(
            tr(
                "{stem}: {parts_count} of {parts} GGUF parts are here",
                stem=split["stem"],
                parts_count=len(parts),
                parts=int(split["parts"]),
            ),
            hint=tr("pull it again: what is here is kept"),
        )
    headers = [_map_gguf(part) for part in parts]
    files = tuple(str(part.relative_to(relative_to)) for part in parts) if relative_to else ()
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
        raise VerificationError(tr("{path} is empty", path=path.name), hint=tr("pull it again"))
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        header = gguf.parse(data, path.name)
    check_size(header, path.name, size)
    return header


def check_size(header: gguf.Header, name: str, size: int) -> None:
    if max(header.file_bytes, header.weight_bytes) > size:
        raise VerificationError(
            tr(
                "{name} is cut short: {size} bytes are here, its header describes tensors up "
                "to byte {file_bytes}",
                name=name,
                size=size,
                file_bytes=max(header.file_bytes, header.weight_bytes),
            ),
            hint=tr("pull it again: an interrupted download resumes"),
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
        raise UnsupportedError(tr("the GGUF header names no general.architecture"))

    def most(key: str) -> int:
        """A number, or the largest of a per-layer list."""
        value = metadata.get(f"{architecture}.{key}")
        values = value if isinstance(value, list) else [value]
        return max((v for v in values if isinstance(v, int) and v >= 0), default=0)

    heads, layers = most("attention.head_count"), most("block_count")
    if layers > MAX_LAYERS:
        raise VerificationError(
            tr(
                "the GGUF header claims {layers} layers; at most {limit} are believed",
                layers=layers,
                limit=MAX_LAYERS,
            ),
            hint=tr("the file is damaged: pull it again, or run `yibu verify`"),
        )
    pooling = metadata.get(f"{architecture}.pooling_type")
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
        chat_template=bool(metadata.get("tokenizer.chat_template")),
        template_takes_tools=takes_tools(str(metadata.get("tokenizer.chat_template", ""))),
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
    """Parameters that a token uses; 0 where only the first part of several was read."""
    if not experts or not used:
        return parameters
    routed = sum(tensor.elements for tensor in header.tensors if "_exps." in tensor.name)
    return (
        parameters - routed * (experts - used) // experts if parameters == header.parameters else 0
    )
