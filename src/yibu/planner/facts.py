"""Facts about a model from the headers of its files: no weight is loaded, no pickle opened.

Layouts known: a GGUF file or a directory of them; transformers' config.json + safetensors;
FunASR's SenseVoice (config.yaml + model.pt, or its ONNX export); CTranslate2's whisper.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from yibu.errors import UnsupportedError, UsageError
from yibu.messages import tr
from yibu.planner import gguf_model, transformers_model
from yibu.planner.files import magic
from yibu.planner.layers import layers_of
from yibu.planner.speech_model import speech_facts
from yibu.planner.types import ModelFacts
from yibu.weights import gguf, safetensors


def read_facts(path: Path, projector: Path | None = None) -> ModelFacts:
    """Read a model's facts from its files.

    Args:
        path: A GGUF file, or the directory of a model.
        projector: The vision projector that goes with a GGUF model.

    Raises:
        UsageError: There is nothing at ``path``, or several models and none is named.
        VerificationError: A file is cut short or damaged.
        UnsupportedError: No layout known here.
    """
    try:
        facts = _read(path)
        if projector is None or facts.format != "gguf":
            return facts
        return with_projector(facts, projector.stat().st_size)
    except OSError as error:
        raise UsageError(
            "{filename} cannot be read: {strerror}",
            filename=error.filename or path,
            strerror=error.strerror or error,
            hint="Check its permissions, and that the disk it is on is there",
        ) from error


def _read(path: Path) -> ModelFacts:
    if path.is_dir():
        return _read_directory(path)
    if not path.exists():
        raise UsageError(
            "no model at {path}: there is no such file or directory",
            path=path,
            hint="Check the path, or pull the model first: `yibu pull SOURCE`",
        )
    if path.suffix == ".gguf" or magic(path) == gguf.MAGIC:
        return gguf_model.read_file(path)
    raise UnsupportedError(
        "{path} is a single file that is no GGUF; a directory was expected for other formats",
        path=path.name,
        file=path,
        parent=path.parent,
        hint="A configuration file stands behind -f: yibu up -f {file}"
        if path.suffix in (".yaml", ".yml")
        else "Give the directory instead: {parent}",
    )


def with_projector(facts: ModelFacts, size: int) -> ModelFacts:
    """The facts of a GGUF model that a vision projector of ``size`` bytes is loaded beside."""
    return replace(facts, weight_bytes=facts.weight_bytes + size, projector_bytes=size)


def facts_from_headers(
    *,
    name: str,
    config: Mapping[str, Any] | None = None,
    index: Mapping[str, Any] | None = None,
    headers: Mapping[str, Mapping[str, Any]] | None = None,
    gguf_prefix: bytes | None = None,
    gguf_size: int | None = None,
    templates: Sequence[str] = (),
) -> ModelFacts:
    """The same facts from headers that were fetched without their weights.

    Args:
        name: What error messages call the model.
        config: config.json.
        index: model.safetensors.index.json, when there is one.
        headers: The JSON header of every safetensors file, by its name; exact where given.
        gguf_prefix: The first bytes of a GGUF file.
        gguf_size: Bytes of that whole file.
        templates: The texts of its chat templates.

    Raises:
        HeaderCutShortError: ``gguf_prefix`` is too short; its ``needed`` says by how much.
        VerificationError, UnsupportedError: as ``read_facts``.
        UsageError: Neither a config nor a GGUF prefix was given.
    """
    if gguf_prefix is not None:
        header = gguf.parse(gguf_prefix, name)
        if gguf_size is not None:
            gguf_model.check_size(header, name, gguf_size)
        return gguf_model.facts_from_header(
            header, header.weight_bytes, header.parameters, (), layers_of([header])
        )
    if config is None:
        raise UsageError(
            "{name}: neither config.json nor a GGUF header was given to plan from", name=name
        )
    tensors = [
        tensor
        for file, header in (headers or {}).items()
        for tensor in safetensors.parse_header(header, file)
    ]
    return transformers_model.facts_from_tensors(config, tensors, index, (), templates)


def _read_directory(path: Path) -> ModelFacts:
    names = {entry.name for entry in path.iterdir()}
    if facts := speech_facts(path, names):
        return facts
    if "config.json" in names and any(name.endswith(".safetensors") for name in names):
        return transformers_model.read_directory(path, names)
    if facts := gguf_model.read_directory(path):
        return facts
    if "config.json" in names:
        return transformers_model.read_directory(path, names)
    listing = ", ".join(sorted(names)[:8]) or tr("nothing")
    raise UnsupportedError(
        "{path} holds no model that is known here (found: {listing}); expected a GGUF file, "
        "config.json with safetensors, FunASR's SenseVoice or Paraformer, or a CTranslate2 whisper",
        path=path,
        listing=listing,
        hint="Check that the download is complete: `yibu verify`",
    )
