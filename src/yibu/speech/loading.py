"""Finds out what kind of speech model a directory holds, and loads it.

FunASR layout        config.yaml, model.pt, am.mvn, *.model or tokens.json    SenseVoice, Paraformer
ONNX layout          config.yaml, model.onnx or model_quant.onnx, am.mvn, tokens.json
CTranslate2 layout   model.bin, config.json, tokenizer.json or vocabulary.*    whisper

FSMN-VAD comes in the first two layouts; ``vad/fsmn.py`` tells them apart.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from yibu.errors import UnsupportedError, UsageError, VerificationError
from yibu.messages import tr
from yibu.speech.modelconfig import read_config
from yibu.speech.types import Recognizer, Segmenter

if TYPE_CHECKING:
    from yibu.speech.stages import Finishing

log = logging.getLogger(__name__)

_FUNASR_VAD = "iic/speech_fsmn_vad_zh-cn-16k-common-pytorch"
_VAD_NAMES = (
    "speech_fsmn_vad_zh-cn-16k-common-pytorch",
    "speech_fsmn_vad_zh-cn-16k-common-onnx",
)
"""Directories of FSMN-VAD that scripts keep beside SenseVoice's."""
ONLINE = "ParaformerStreaming"
PARAFORMERS = frozenset({"Paraformer", "BiCifParaformer", "SeacoParaformer", ONLINE})
"""Classes of FunASR's."""
PRECISIONS = ("auto", "fp32", "bf16", "int8")


class Layout(Enum):
    """How a model directory is laid out."""

    FUNASR = "FunASR"
    ONNX = "ONNX"
    CTRANSLATE2 = "CTranslate2"


@dataclass(frozen=True, slots=True)
class Loaded:
    """What ``load`` gives: both halves of a pipeline, and what to tell the operator."""

    recognizer: Recognizer
    segmenter: Segmenter
    notes: tuple[str, ...]
    """What was chosen and why, a sentence each; already logged."""
    finishing: Finishing | None = None
    """Punctuation and speakers; None: neither."""
    parallel: int = 1
    """Threads that may call the recognizer at once, and gain by it."""


def load(
    model_dir: Path,
    *,
    vad_dir: Path | None,
    precision: str,
    device: str,
    threads: int,
    path: Literal["fast", "reference"],
    punctuation_dir: Path | None = None,
    speakers_dir: Path | None = None,
) -> Loaded:
    """Load the model in ``model_dir`` and its VAD.

    ``precision`` is ``auto``, ``fp32``, ``bf16`` or ``int8``; ``device`` is ``cpu``, ``cuda``
    or ``cuda:N``; ``threads`` is how many cores may compute at once.

    Raises ``UsageError`` for values that are none of these, ``VerificationError`` for missing
    or damaged files and ``UnsupportedError`` for a model or a combination not served here.
    Takes seconds; call it from a worker thread.
    """
    _check_values(precision, path, device)
    layout = detect(model_dir)
    kind = "" if layout is Layout.CTRANSLATE2 else _kind(model_dir)
    _check_beside(model_dir.name, kind, path, device, punctuation_dir, speakers_dir)
    samples = speakers_dir is not None or kind == ONLINE
    if layout is Layout.CTRANSLATE2:
        loaded = _whisper(model_dir, vad_dir, precision, device, threads)
    elif path == "reference":
        loaded = _reference(model_dir, layout, vad_dir, device, threads)
    elif kind in PARAFORMERS:
        segmenter = _segmenter(vad_dir or _vad_beside(model_dir), samples=samples)
        loaded = _paraformer(model_dir, kind, layout, segmenter, precision, device, threads)
    else:
        segmenter = _segmenter(vad_dir or _vad_beside(model_dir), samples=samples)
        loaded = _sensevoice(model_dir, layout, segmenter, precision, device, threads)
    loaded = _finished(loaded, punctuation_dir, speakers_dir, threads)
    for note in loaded.notes:
        log.info("%s", note)
    return loaded


def _check_values(precision: str, path: str, device: str) -> None:
    if precision not in PRECISIONS:
        raise UsageError(
            tr("precision {precision!r} is not known", precision=precision),
            hint=tr("one of {known}", known=", ".join(PRECISIONS)),
        )
    if path not in ("fast", "reference"):
        raise UsageError(tr("path {path!r} is not known", path=path), hint=tr("fast or reference"))
    if device != "cpu" and not device.startswith("cuda"):
        raise UsageError(
            tr("device {device!r} is not known", device=device), hint=tr("cpu, cuda or cuda:0")
        )


def _check_beside(
    name: str,
    kind: str,
    path: str,
    device: str,
    punctuation_dir: Path | None,
    speakers_dir: Path | None,
) -> None:
    if punctuation_dir is not None and (kind not in PARAFORMERS or path == "reference"):
        raise UsageError(
            tr(
                "{name} on the {path} path takes no punctuation model: Paraformer's fast "
                "path does, and the others write their own",
                name=name,
                path=path,
            ),
            hint=tr("leave `punctuation` out"),
        )
    if speakers_dir is not None and (not kind or path == "reference" or device != "cpu"):
        raise UnsupportedError(
            tr(
                "{name} on the {path} path on {device} does not tell speakers apart: "
                "SenseVoice and Paraformer do, on the CPU's fast path",
                name=name,
                path=path,
                device=device,
            ),
            hint=tr("leave `speakers` out, or take iic/SenseVoiceSmall on the CPU"),
        )
    if kind == ONLINE and path == "reference":
        raise UsageError(
            tr(
                "{name} hears live speech, and the reference path gives FunASR whole files",
                name=name,
            ),
            hint=tr("set `path: fast`"),
        )


def detect(model_dir: Path) -> Layout:
    """The layout of ``model_dir``, told by its files.

    Raises ``VerificationError`` where it is no directory of a model that is served here.
    """
    if not model_dir.is_dir():
        raise VerificationError(
            tr("{model_dir} is no directory", model_dir=model_dir),
            hint=tr("yibu pull the model, or correct the path"),
        )
    names = {entry.name for entry in model_dir.iterdir()}
    if "model.pt" in names:
        return Layout.FUNASR
    if names & {"model.onnx", "model_quant.onnx"}:
        return Layout.ONNX
    if {"model.bin", "config.json"} <= names:
        return Layout.CTRANSLATE2
    found = ", ".join(sorted(names)[:12]) or "nothing"
    raise VerificationError(
        tr(
            "{model_dir} holds {found}; model.pt (FunASR), model.onnx (ONNX) or model.bin "
            "with config.json (whisper for CTranslate2) expected",
            model_dir=model_dir,
            found=found,
        ),
        hint=tr("the download may be incomplete: yibu pull it again"),
    )


def _sensevoice(
    model_dir: Path,
    layout: Layout,
    segmenter: Segmenter,
    precision: str,
    device: str,
    threads: int,
) -> Loaded:
    from yibu.speech.features import Normalizer
    from yibu.speech.models.sensevoice import (
        EMOTION_UNKNOWN,
        STACK_WIDTH,
        Encoder,
        SenseVoiceRecognizer,
    )
    from yibu.speech.models.vocabulary import Vocabulary
    from yibu.speech.precision import Choice, choose, cpu_flags

    vocabulary = Vocabulary.find(model_dir)
    normalizer = Normalizer.read(model_dir / "am.mvn", STACK_WIDTH * 80)
    files = frozenset(entry.name for entry in model_dir.iterdir())
    choice = choose(precision, device, cpu_flags(), files=files)
    banned = (EMOTION_UNKNOWN,)
    encoder: Encoder
    if device != "cpu":
        if layout is Layout.ONNX:
            raise UnsupportedError(
                tr(
                    "{model_dir} is in the ONNX layout, which is served on the CPU only",
                    model_dir=model_dir,
                ),
                hint=tr("use iic/SenseVoiceSmall on CUDA, or set `device: cpu`"),
            )
        from yibu.speech.models.torch_encoder import TorchEncoder, usual_precision

        if precision == "auto" and usual_precision(device) == "fp32":
            choice = Choice(
                "fp32", tr("precision fp32, because {device} only emulates bf16", device=device)
            )
        encoder = TorchEncoder.load(
            model_dir, precision=choice.precision, device=device, threads=threads, banned=banned
        )
    elif layout is Layout.ONNX:
        from yibu.speech.models.onnx_encoder import OnnxEncoder

        encoder = OnnxEncoder.load(
            model_dir, precision=choice.precision, threads=threads, banned=banned
        )
    else:
        from yibu.speech.models.openvino_encoder import OpenVinoEncoder

        encoder = OpenVinoEncoder.load(
            model_dir, precision=choice.precision, threads=threads, banned=banned
        )
    _check_size(model_dir, encoder.classes, len(vocabulary))
    recognizer = SenseVoiceRecognizer(model_dir.name, encoder, normalizer, vocabulary)
    notes = (choice.reason, tr("voice activity by {segmenter}", segmenter=segmenter.name))
    parallel = _streams(threads) if encoder.backend == "openvino" else 1
    return Loaded(recognizer, segmenter, notes, parallel=parallel)


def _paraformer(
    model_dir: Path,
    kind: str,
    layout: Layout,
    segmenter: Segmenter,
    precision: str,
    device: str,
    threads: int,
) -> Loaded:
    from yibu.speech.precision import Choice, choose, cpu_flags

    onnx = layout is Layout.ONNX
    if device != "cpu" or (onnx and precision == "bf16"):
        raise UnsupportedError(
            tr(
                "{model_dir}: a Paraformer in the {layout_value} layout at {precision} on "
                "{device}; it is served on the CPU, and from ONNX in fp32 and int8",
                model_dir=model_dir,
                layout_value=layout.value,
                precision=precision,
                device=device,
            ),
            hint=tr("set `device: cpu` and `precision: auto`"),
        )
    files = frozenset(entry.name for entry in model_dir.iterdir())
    choice = choose(precision, device, cpu_flags(), files=files)
    if onnx and choice.precision == "bf16":
        choice = Choice("fp32", tr("precision fp32, as ONNX Runtime computes model.onnx"))
    if kind == ONLINE and not onnx:
        recognizer = _online(model_dir, choice.precision, threads)
    else:
        recognizer = _offline(model_dir, kind, layout, choice.precision, threads)
    notes = (choice.reason, tr("voice activity by {segmenter}", segmenter=segmenter.name))
    return Loaded(recognizer, segmenter, notes, parallel=1 if onnx else _streams(threads))


def _streams(threads: int) -> int:
    from yibu.speech.models.compiled import streams

    return streams(threads)


def _online(model_dir: Path, precision: str, threads: int) -> Recognizer:
    from yibu.speech.models.paraformer_online import OnlineParaformer, OnlineRecognizer

    model = OnlineParaformer.load(model_dir, precision=precision, threads=threads)
    return OnlineRecognizer(model_dir.name, model, precision)


def _offline(
    model_dir: Path, kind: str, layout: Layout, precision: str, threads: int
) -> Recognizer:
    from yibu.speech.features import Normalizer
    from yibu.speech.models.hotwords import Tokens
    from yibu.speech.models.onnx_paraformer import OnnxParaformer
    from yibu.speech.models.paraformer import Network, OpenVinoParaformer, ParaformerRecognizer
    from yibu.speech.models.seaco import SeacoParaformer
    from yibu.speech.models.sensevoice import STACK_WIDTH
    from yibu.speech.models.vocabulary import Vocabulary

    vocabulary = Vocabulary.read_tokens(model_dir / "tokens.json").pieces
    normalizer = Normalizer.read(model_dir / "am.mvn", STACK_WIDTH * 80)
    network: Network
    if layout is Layout.ONNX:
        network = OnnxParaformer.load(model_dir, precision=precision, threads=threads)
    elif kind == "SeacoParaformer":
        network = SeacoParaformer.load(model_dir, precision=precision, threads=threads)
    else:
        network = OpenVinoParaformer.load(model_dir, precision=precision, threads=threads)
    _check_size(model_dir, network.classes, len(vocabulary))
    return ParaformerRecognizer(
        model_dir.name, network, normalizer, vocabulary, Tokens.read(vocabulary, model_dir)
    )


def _check_size(model_dir: Path, outputs: int, tokens: int) -> None:
    if outputs != tokens:
        raise VerificationError(
            tr(
                "{model_dir}: the network has {outputs} outputs, the tokenizer {tokens} tokens",
                model_dir=model_dir,
                outputs=outputs,
                tokens=tokens,
            ),
            hint=tr("download the model again, all files of one revision"),
        )


def _kind(model_dir: Path) -> str:
    """The model's class in FunASR, by its config.yaml, or by its files where that says nothing."""
    kind = str(read_config(model_dir).get("model") or "")
    if not kind:  # older exports to ONNX do not say; SenseVoice's have a sentencepiece model
        kind = "SenseVoiceSmall" if any(model_dir.glob("*.model")) else "Paraformer"
    # The published ONNX directory names the exported class.
    if not (kind.startswith("SenseVoiceSmall") or kind in PARAFORMERS):
        raise UnsupportedError(
            tr(
                "{model_dir}: config.yaml names the model class {kind!r}; SenseVoiceSmall or "
                "{PARAFORMERS} expected",
                model_dir=model_dir,
                kind=kind,
                PARAFORMERS=", ".join(sorted(PARAFORMERS)),
            ),
            hint=tr("SenseVoiceSmall, Paraformer and whisper are served; try iic/SenseVoiceSmall"),
        )
    return kind


def _finished(
    loaded: Loaded, punctuation_dir: Path | None, speakers_dir: Path | None, threads: int
) -> Loaded:
    """With the models for punctuation and speakers."""
    if punctuation_dir is None and speakers_dir is None:
        return loaded
    from yibu.speech.models.campplus import SpeakerNetwork
    from yibu.speech.models.punctuation import Punctuator
    from yibu.speech.stages import Finishing, PunctuatingRecognizer, SpeakerRecognizer

    recognizer, notes = loaded.recognizer, loaded.notes
    punctuator = speakers = None
    if punctuation_dir is not None:
        punctuator = Punctuator.load(punctuation_dir, threads=threads)
        recognizer = PunctuatingRecognizer(recognizer, punctuator)
        notes = (
            *notes,
            tr("punctuation by {punctuation_dir}", punctuation_dir=punctuation_dir.name),
        )
    if speakers_dir is not None:
        speakers = SpeakerNetwork.load(speakers_dir, threads=threads)
        recognizer = SpeakerRecognizer(recognizer, speakers)
        notes = (*notes, tr("speakers by {speakers_dir}", speakers_dir=speakers_dir.name))
    return replace(
        loaded, recognizer=recognizer, notes=notes, finishing=Finishing(punctuator, speakers)
    )


def _segmenter(vad_dir: Path | None, *, samples: bool = True) -> Segmenter:
    """FSMN-VAD from ``vad_dir``, or the Silero VAD that faster-whisper carries.

    Without ``samples``, segments of the first carry the filter bank only.
    """
    if vad_dir is not None:
        from yibu.speech.vad.fsmn import FsmnVad

        return FsmnVad.load(vad_dir, samples=samples)
    from yibu.speech.vad.silero import SileroVad

    try:
        silero: Segmenter = SileroVad()
    except ModuleNotFoundError as error:
        raise UsageError(
            tr(
                "no voice activity detection: no directory of one is given, and {error}, "
                "which carries one, is not in this environment",
                error=error.name,
            ),
            hint=tr(
                "yibu pull {FUNASR_VAD}, and give its directory with --vad", FUNASR_VAD=_FUNASR_VAD
            ),
        ) from error
    return silero


def _vad_beside(model_dir: Path) -> Path | None:
    places = (model_dir.absolute().parent / name for name in _VAD_NAMES)
    return next((place for place in places if place.is_dir()), None)


def _reference(
    model_dir: Path, layout: Layout, vad_dir: Path | None, device: str, threads: int
) -> Loaded:
    if layout is not Layout.FUNASR:
        raise UnsupportedError(
            tr(
                "{model_dir} is in the {layout_value} layout, which FunASR's AutoModel does "
                "not load",
                model_dir=model_dir,
                layout_value=layout.value,
            ),
            hint=tr("set `path: fast`, or use iic/SenseVoiceSmall"),
        )
    if vad_dir is None:
        raise UsageError(
            tr("the reference path needs FSMN-VAD"),
            hint=tr("set `vad: {FUNASR_VAD}`", FUNASR_VAD=_FUNASR_VAD),
        )
    if not (vad_dir / "model.pt").exists():
        raise VerificationError(
            tr("{vad_dir} holds no model.pt, which FunASR's AutoModel loads", vad_dir=vad_dir),
            hint=tr(
                "set `vad: {FUNASR_VAD}`, or `path: fast`, which reads the ONNX layout too",
                FUNASR_VAD=_FUNASR_VAD,
            ),
        )
    from yibu.speech.models.reference import ReferenceRecognizer, WholeFile

    recognizer = ReferenceRecognizer(model_dir, vad_dir, device=device, threads=threads)
    note = tr("reference path: FunASR's AutoModel, one file at a time, fp32")
    return Loaded(recognizer, WholeFile(), (note,))


def _whisper(
    model_dir: Path, vad_dir: Path | None, precision: str, device: str, threads: int
) -> Loaded:
    from yibu.speech.models.whisper import WhisperRecognizer

    recognizer = WhisperRecognizer.load(
        model_dir, precision=precision, device=device, threads=threads
    )
    return Loaded(
        recognizer,
        _segmenter(vad_dir),
        (tr("whisper at {precision}", precision=recognizer.precision),),
    )
