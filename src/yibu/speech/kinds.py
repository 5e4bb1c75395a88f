"""The kind of model in a directory, and what it can do.

FunASR layout        config.yaml, model.pt, am.mvn, *.model or tokens.json    SenseVoice, Paraformer
ONNX layout          config.yaml, model.onnx or model_quant.onnx, am.mvn, tokens.json
CTranslate2 layout   model.bin, config.json, tokenizer.json or vocabulary.*    whisper
"""

from __future__ import annotations

from enum import Enum
from pathlib import Path

from yibu.errors import UnsupportedError, UsageError, VerificationError
from yibu.messages import tr
from yibu.speech.checkpoints.config import read_config
from yibu.speech.settings import SpeechSettings

ONLINE = "ParaformerStreaming"
PARAFORMERS = frozenset(
    {"Paraformer", "BiCifParaformer", "SeacoParaformer", "ContextualParaformer", ONLINE}
)
"""FunASR's classes of Paraformers."""
PRECISIONS = ("auto", "fp32", "bf16", "int8")


class Layout(Enum):
    """How a model directory is laid out."""

    FUNASR = "FunASR"
    ONNX = "ONNX"
    CTRANSLATE2 = "CTranslate2"


def check_values(settings: SpeechSettings) -> None:
    precision, path, device = settings.precision, settings.path, settings.device
    if precision not in PRECISIONS:
        raise UsageError(
            "precision {precision!r} is not known",
            precision=precision,
            known=", ".join(PRECISIONS),
            hint="One of {known}",
        )
    if path not in ("fast", "reference"):
        raise UsageError("path {path!r} is not known", path=path, hint="Use fast or reference")
    if device != "cpu" and not device.startswith("cuda"):
        raise UsageError(
            "device {device!r} is not known", device=device, hint="Use cpu, cuda or cuda:0"
        )


def check_beside(settings: SpeechSettings, kind: str) -> None:
    """Raise for models beside the recognizer that it does not use; ``kind`` is its class in FunASR."""
    name, path, device = settings.model.name, settings.path, settings.device
    if settings.punctuation is not None and (kind not in PARAFORMERS or path == "reference"):
        raise UsageError(
            "{name} on the {path} path takes no punctuation model: Paraformer's fast "
            "path does, and the others write their own",
            name=name,
            path=path,
            hint="Leave `punctuation` out",
        )
    fast = bool(kind) and path != "reference" and device == "cpu"
    if settings.speakers is not None and not fast:
        raise UnsupportedError(
            "{name} on the {path} path on {device} does not tell speakers apart: "
            "SenseVoice and Paraformer do, on the CPU's fast path",
            name=name,
            path=path,
            device=device,
            hint="Leave `speakers` out, or take iic/SenseVoiceSmall on the CPU",
        )
    if settings.online is not None and (not fast or kind == ONLINE):
        raise UnsupportedError(
            "{name} on the {path} path on {device} takes no streaming model for partial texts: "
            "SenseVoice and the Paraformers that do not stream do, on the CPU's fast path",
            name=name,
            path=path,
            device=device,
            hint="Leave `online` out, or take iic/SenseVoiceSmall on the CPU",
        )
    if kind == ONLINE and path == "reference":
        raise UsageError(
            "{name} hears live speech, and the reference path gives FunASR whole files",
            name=name,
            hint="Set `path: fast`",
        )


def detect(model_dir: Path) -> Layout:
    """The layout of ``model_dir``, told by its files.

    Raises ``VerificationError`` where it is no directory of a model that is served here.
    """
    if not model_dir.is_dir():
        raise VerificationError(
            "{model_dir} is no directory",
            model_dir=model_dir,
            hint="yibu pull the model, or correct the path",
        )
    names = {entry.name for entry in model_dir.iterdir()}
    if "model.pt" in names:
        return Layout.FUNASR
    if names & {"model.onnx", "model_quant.onnx"}:
        return Layout.ONNX
    if {"model.bin", "config.json"} <= names:
        return Layout.CTRANSLATE2
    found = ", ".join(sorted(names)[:12]) or tr("nothing")
    raise VerificationError(
        "{model_dir} holds {found}; model.pt (FunASR), model.onnx (ONNX) or model.bin "
        "with config.json (whisper for CTranslate2) expected",
        model_dir=model_dir,
        found=found,
        hint="The download may be incomplete: yibu pull it again",
    )


def funasr_class(model_dir: Path) -> str:
    """The model's class in FunASR, by its config.yaml, or by its files where that says nothing."""
    kind = str(read_config(model_dir).get("model") or "")
    if not kind:  # older exports to ONNX do not say; SenseVoice's have a sentencepiece model
        kind = "SenseVoiceSmall" if any(model_dir.glob("*.model")) else "Paraformer"
    # The published ONNX directory names the exported class.
    if not (kind.startswith("SenseVoiceSmall") or kind in PARAFORMERS):
        raise UnsupportedError(
            "{model_dir}: config.yaml names the model class {kind!r}; SenseVoiceSmall or "
            "{classes} expected",
            model_dir=model_dir,
            kind=kind,
            classes=", ".join(sorted(PARAFORMERS)),
            hint="SenseVoiceSmall, Paraformer and whisper are served; try iic/SenseVoiceSmall",
        )
    return kind
