"""Speech models on disk: FunASR's SenseVoice and Paraformer, SenseVoice in ONNX, CTranslate2's whisper."""

from __future__ import annotations

import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from yibu.errors import UnsupportedError, VerificationError
from yibu.messages import tr
from yibu.planner.files import load_json, load_yaml, magic
from yibu.planner.types import ModelFacts, ModelFormat

_FORMATS: Mapping[str, ModelFormat] = {
    "SenseVoiceSmall": "sensevoice",
    "Paraformer": "paraformer",
    "BiCifParaformer": "paraformer",
    "SeacoParaformer": "paraformer",
    "ContextualParaformer": "paraformer",
    "ParaformerStreaming": "paraformer",
}
"""By the class that config.yaml names."""
_ONNX: Mapping[ModelFormat, ModelFormat] = {
    "sensevoice": "sensevoice-onnx",
    "paraformer": "paraformer-onnx",
}
_COMPANIONS = {
    "FsmnVADStreaming": tr("finds speech: name it as the option `vad` of a model"),
    "CTTransformer": tr("writes punctuation: name it as the option `punctuation` of a Paraformer"),
    "CAMPPlus": tr("tells speakers apart: name it as the option `speakers` of a model"),
}
"""What other models of FunASR's are for."""


def speech_facts(path: Path, names: set[str]) -> ModelFacts | None:
    if "config.yaml" in names and ("model.pt" in names or _onnx_files(names)):
        return _funasr_facts(path, names)
    if "model.bin" in names and "config.json" in names:
        has_vocabulary = any(name.startswith("vocabulary.") for name in names)
        config = load_json(path / "config.json")
        if has_vocabulary and ("alignment_heads" in config or "suppress_ids" in config):
            return _file_facts("whisper-ct2", "whisper", [path / "model.bin"], path, config)
    return None


def facts_of_listing(files: Mapping[str, int]) -> ModelFacts | None:
    """A speech model's facts from its files' names and sizes; None for another sort of model."""
    if "config.yaml" in files and "model.pt" in files:
        if "seg_dict" in files or "tokens.json" in files:
            return _of_size("paraformer", "Paraformer", files["model.pt"])
        return _of_size("sensevoice", "SenseVoiceSmall", files["model.pt"])
    if "config.yaml" in files and (graphs := _onnx_files(files)):
        model = _unnamed(files)
        return _of_size(_ONNX[_FORMATS[model]], model, files[graphs[0]])
    if "model.bin" in files and any(name.startswith("vocabulary.") for name in files):
        return _of_size("whisper-ct2", "whisper", files["model.bin"])
    return None


def _of_size(model_format: ModelFormat, architecture: str, size: int) -> ModelFacts:
    return ModelFacts(model_format, architecture, size, dtype="float32")


def _funasr_facts(path: Path, names: set[str]) -> ModelFacts:
    config = load_yaml(path / "config.yaml")
    # The ONNX export's config.yaml keeps the front end and may leave the model's name out.
    model = str(config.get("model", "")) or _unnamed(names)
    if model not in _FORMATS:
        raise UnsupportedError(
            "{path} is FunASR's {model!r} ({use}); of FunASR's models {formats} are served here",
            path=path,
            model=model,
            use=_COMPANIONS.get(model, ""),
            formats=", ".join(_FORMATS),
            hint="Take iic/SenseVoiceSmall, or run your own server with `engine: command`",
        )
    if "model.pt" in names:
        weights = path / "model.pt"
        # torch.save writes a zip archive; one that lost its end has no directory.
        if magic(weights)[:2] == b"PK" and not zipfile.is_zipfile(weights):
            raise VerificationError(
                "{weights} is cut short: it is a torch archive whose end is missing "
                "({st_size} bytes are here)",
                weights=weights,
                st_size=weights.stat().st_size,
                hint="Pull it again: an interrupted download resumes",
            )
        return _file_facts(_FORMATS[model], model, [weights], path, config)
    return _file_facts(
        _ONNX[_FORMATS[model]],
        model,
        [path / name for name in _onnx_files(names)],
        path,
        config,
    )


def _unnamed(names: Iterable[str]) -> str:
    """The class of a model by its files alone: SenseVoice's tokens are in a sentencepiece model."""
    own = set(names)
    pieces = any(name.endswith(".model") for name in own)
    return "Paraformer" if "tokens.json" in own and not pieces else "SenseVoiceSmall"


def _onnx_files(names: Iterable[str]) -> list[str]:
    """The ONNX graph to run: the quantized one where both are there."""
    found = sorted(name for name in names if name.startswith("model") and name.endswith(".onnx"))
    quantized = [name for name in found if "quant" in name or "int8" in name]
    return (quantized or found)[:1]


def _file_facts(
    model_format: ModelFormat,
    architecture: str,
    files: list[Path],
    root: Path,
    details: Mapping[str, Any],
) -> ModelFacts:
    size = sum(file.stat().st_size for file in files)
    if size == 0:
        raise VerificationError("{files} is empty", files=files[0], hint="Pull the model again")
    return ModelFacts(
        format=model_format,
        architecture=architecture,
        weight_bytes=size,
        dtype="float32",
        details=details,
        files=tuple(str(file.relative_to(root)) for file in files),
    )
