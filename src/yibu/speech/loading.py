"""Loads a speech model, its VAD and the models beside it."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from yibu.errors import UnsupportedError, UsageError, VerificationError
from yibu.messages import tr
from yibu.speech.kinds import (
    ONLINE,
    PARAFORMERS,
    Layout,
    check_beside,
    check_values,
    detect,
    funasr_class,
)
from yibu.speech.settings import SpeechSettings
from yibu.speech.types import Recognizer, Segmenter

if TYPE_CHECKING:
    from yibu.speech.models.paraformer_online import OnlineParaformer
    from yibu.speech.precision import PrecisionChoice
    from yibu.speech.stages import Finishing

log = logging.getLogger(__name__)

_FUNASR_VAD = "iic/speech_fsmn_vad_zh-cn-16k-common-pytorch"
_VAD_NAMES = (
    "speech_fsmn_vad_zh-cn-16k-common-pytorch",
    "speech_fsmn_vad_zh-cn-16k-common-onnx",
)
"""Directories of FSMN-VAD that scripts keep beside SenseVoice's."""


@dataclass(frozen=True, slots=True)
class Loaded:
    """The result of ``load``: both halves of a pipeline, and notes for the operator."""

    recognizer: Recognizer
    segmenter: Segmenter
    notes: tuple[str, ...]
    """Choices and their reasons, a sentence each; already logged."""
    finishing: Finishing | None = None
    """Punctuation and speakers; None: neither."""
    parallel: int = 1
    """Threads that may usefully call the recognizer at once."""
    streaming: OnlineParaformer | None = None
    """The model for live partial texts; None: the recognizer repeats."""

    @property
    def tells_speakers(self) -> bool:
        return self.finishing is not None and self.finishing.speakers is not None


def load(settings: SpeechSettings) -> Loaded:
    """Load the model, its VAD and the models beside it.

    Raises ``UsageError`` for values that are not known, ``VerificationError`` for missing
    or damaged files and ``UnsupportedError`` for a model or a combination not served here.
    Takes seconds; call it from a worker thread.
    """
    model = settings.model
    check_values(settings)
    layout = detect(model)
    kind = "" if layout is Layout.CTRANSLATE2 else funasr_class(model)
    check_beside(settings, kind)
    if layout is Layout.CTRANSLATE2:
        loaded = _whisper(settings)
    elif settings.path == "reference":
        loaded = _reference(settings, layout)
    else:
        samples = kind == ONLINE or settings.speakers is not None or settings.online is not None
        segmenter = _segmenter(settings.vad or _vad_beside(model), samples=samples)
        if kind in PARAFORMERS:
            loaded = _paraformer(settings, kind, layout, segmenter)
        else:
            loaded = _sensevoice(settings, layout, segmenter)
    loaded = _finished(loaded, settings)
    if settings.online is not None:
        loaded = _with_online(loaded, settings.online, settings)
    for note in loaded.notes:
        log.info("%s", note)
    return loaded


def _sensevoice(settings: SpeechSettings, layout: Layout, segmenter: Segmenter) -> Loaded:
    from yibu.speech.features import Normalizer
    from yibu.speech.models.sensevoice import EMOTION_UNKNOWN, Encoder, SenseVoiceRecognizer
    from yibu.speech.models.stacked import STACK_WIDTH
    from yibu.speech.models.vocabulary import Vocabulary
    from yibu.speech.precision import PrecisionChoice

    directory, device, threads = settings.model, settings.device, settings.threads
    vocabulary = Vocabulary.find(directory)
    normalizer = Normalizer.read(directory / "am.mvn", STACK_WIDTH * 80)
    choice = _choice(settings)
    banned = (EMOTION_UNKNOWN,)
    encoder: Encoder
    if device != "cpu":
        if layout is Layout.ONNX:
            raise UnsupportedError(
                "{model_dir} is in the ONNX layout, which is served on the CPU only",
                model_dir=directory,
                hint="Use iic/SenseVoiceSmall on CUDA, or set `device: cpu`",
            )
        from yibu.speech.models.torch_encoder import TorchEncoder, usual_precision

        if settings.precision == "auto" and usual_precision(device) == "fp32":
            choice = PrecisionChoice(
                "fp32", tr("precision fp32, because {device} only emulates bf16", device=device)
            )
        encoder = TorchEncoder.load(
            directory, precision=choice.precision, device=device, threads=threads, banned=banned
        )
    elif layout is Layout.ONNX:
        from yibu.speech.models.onnx_encoder import OnnxEncoder

        encoder = OnnxEncoder.load(
            directory, precision=choice.precision, threads=threads, banned=banned
        )
    else:
        from yibu.speech.models.openvino_encoder import OpenVinoEncoder

        encoder = OpenVinoEncoder.load(
            directory, precision=choice.precision, threads=threads, banned=banned
        )
    _check_size(directory, encoder.classes, len(vocabulary))
    recognizer = SenseVoiceRecognizer(directory.name, encoder, normalizer, vocabulary)
    parallel = _streams(threads) if encoder.backend == "openvino" else 1
    return Loaded(recognizer, segmenter, _notes(choice, segmenter), parallel=parallel)


def _choice(settings: SpeechSettings) -> PrecisionChoice:
    """The arithmetic for a model of FunASR's."""
    from yibu.speech.precision import choose, cpu_flags

    files = frozenset(entry.name for entry in settings.model.iterdir())
    return choose(settings.precision, settings.device, cpu_flags(), files=files)


def _notes(choice: PrecisionChoice, segmenter: Segmenter) -> tuple[str, ...]:
    return choice.reason, tr("voice activity by {segmenter}", segmenter=segmenter.name)


def _paraformer(
    settings: SpeechSettings, kind: str, layout: Layout, segmenter: Segmenter
) -> Loaded:
    from yibu.speech.precision import PrecisionChoice

    directory, threads = settings.model, settings.threads
    onnx = layout is Layout.ONNX
    if settings.device != "cpu" or (onnx and settings.precision == "bf16"):
        raise UnsupportedError(
            "{model_dir}: a Paraformer in the {layout_value} layout at {precision} on "
            "{device}; it is served on the CPU, and from ONNX in fp32 and int8",
            model_dir=directory,
            layout_value=layout.value,
            precision=settings.precision,
            device=settings.device,
            hint="Set `device: cpu` and `precision: auto`",
        )
    choice = _choice(settings)
    if onnx and choice.precision == "bf16":
        choice = PrecisionChoice("fp32", tr("precision fp32, as ONNX Runtime computes model.onnx"))
    notes = _notes(choice, segmenter)
    parallel = 1 if onnx else _streams(threads)
    if kind == ONLINE and not onnx:
        from yibu.speech.models.paraformer_online import OnlineParaformer, OnlineRecognizer

        model = OnlineParaformer.load(directory, precision=choice.precision, threads=threads)
        online = OnlineRecognizer(directory.name, model, choice.precision)
        return Loaded(online, segmenter, notes, parallel=parallel, streaming=model)
    recognizer = _offline(directory, kind, layout, choice.precision, threads)
    return Loaded(recognizer, segmenter, notes, parallel=parallel)


def _streams(threads: int) -> int:
    from yibu.speech.models.compiled import streams

    return streams(threads)


def _offline(
    model_dir: Path, kind: str, layout: Layout, precision: str, threads: int
) -> Recognizer:
    from yibu.speech.features import Normalizer
    from yibu.speech.models.contextual import ContextualParaformer
    from yibu.speech.models.hotwords import HotwordTokens
    from yibu.speech.models.onnx_paraformer import OnnxParaformer
    from yibu.speech.models.paraformer import Network, OpenVinoParaformer, ParaformerRecognizer
    from yibu.speech.models.seaco import SeacoParaformer
    from yibu.speech.models.stacked import STACK_WIDTH
    from yibu.speech.models.vocabulary import Vocabulary

    vocabulary = Vocabulary.read_tokens(model_dir / "tokens.json").pieces
    normalizer = Normalizer.read(model_dir / "am.mvn", STACK_WIDTH * 80)
    network: Network
    if layout is Layout.ONNX:
        network = OnnxParaformer.load(model_dir, precision=precision, threads=threads)
    else:
        built = {"SeacoParaformer": SeacoParaformer, "ContextualParaformer": ContextualParaformer}
        network = built.get(kind, OpenVinoParaformer).load(
            model_dir, precision=precision, threads=threads
        )
    _check_size(model_dir, network.classes, len(vocabulary))
    return ParaformerRecognizer(
        model_dir.name, network, normalizer, vocabulary, HotwordTokens.read(vocabulary, model_dir)
    )


def _check_size(model_dir: Path, outputs: int, tokens: int) -> None:
    if outputs != tokens:
        raise VerificationError(
            "{model_dir}: the network has {outputs} outputs, the tokenizer {tokens} tokens",
            model_dir=model_dir,
            outputs=outputs,
            tokens=tokens,
            hint="Download the model again, all files of one revision",
        )


def _finished(loaded: Loaded, settings: SpeechSettings) -> Loaded:
    """With the models for punctuation and speakers."""
    if settings.punctuation is None and settings.speakers is None:
        return loaded
    from yibu.speech.models.campplus import SpeakerNetwork
    from yibu.speech.models.punctuation import Punctuator
    from yibu.speech.stages import Finishing, FinishingRecognizer

    notes = loaded.notes
    punctuator = speakers = None
    if (directory := settings.punctuation) is not None:
        punctuator = Punctuator.load(directory, threads=settings.threads)
        note = tr("punctuation by {punctuation_dir}", punctuation_dir=directory.name)
        notes = (*notes, note)
    if (directory := settings.speakers) is not None:
        speakers = SpeakerNetwork.load(directory, threads=settings.threads)
        notes = (*notes, tr("speakers by {speakers_dir}", speakers_dir=directory.name))
    finishing = Finishing(punctuator, speakers)
    recognizer = FinishingRecognizer(loaded.recognizer, finishing)
    return replace(loaded, recognizer=recognizer, notes=notes, finishing=finishing)


def _with_online(loaded: Loaded, directory: Path, settings: SpeechSettings) -> Loaded:
    """With a streaming model for partial texts."""
    from yibu.speech.models.paraformer_online import OnlineParaformer
    from yibu.speech.precision import choose, cpu_flags

    files = frozenset({"model.pt"})
    precision = choose(settings.precision, "cpu", cpu_flags(), files=files).precision
    model = OnlineParaformer.load(directory, precision=precision, threads=settings.threads)
    note = tr("partial texts by {directory}", directory=directory.name)
    return replace(loaded, streaming=model, notes=(*loaded.notes, note))


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
            "no voice activity detection: no directory of one is given, and {error}, "
            "which carries one, is not in this environment",
            error=error.name,
            vad=_FUNASR_VAD,
            hint="yibu pull {vad}, and give its directory with --vad",
        ) from error
    return silero


def _vad_beside(model_dir: Path) -> Path | None:
    places = (model_dir.absolute().parent / name for name in _VAD_NAMES)
    return next((place for place in places if place.is_dir()), None)


def _reference(settings: SpeechSettings, layout: Layout) -> Loaded:
    vad = settings.vad
    if layout is not Layout.FUNASR:
        raise UnsupportedError(
            "{model_dir} is in the {layout_value} layout, which FunASR's AutoModel does not load",
            model_dir=settings.model,
            layout_value=layout.value,
            hint="Set `path: fast`, or use iic/SenseVoiceSmall",
        )
    if vad is None:
        raise UsageError(
            "the reference path needs FSMN-VAD", vad=_FUNASR_VAD, hint="Set `vad: {vad}`"
        )
    if not (vad / "model.pt").exists():
        raise VerificationError(
            "{vad_dir} holds no model.pt, which FunASR's AutoModel loads",
            vad_dir=vad,
            vad=_FUNASR_VAD,
            hint="Set `vad: {vad}`, or `path: fast`, which reads the ONNX layout too",
        )
    from yibu.speech.models.reference import ReferenceRecognizer, WholeFile

    recognizer = ReferenceRecognizer(
        settings.model, vad, device=settings.device, threads=settings.threads
    )
    note = tr("reference path: FunASR's AutoModel, one file at a time, fp32")
    return Loaded(recognizer, WholeFile(), (note,))


def _whisper(settings: SpeechSettings) -> Loaded:
    from yibu.speech.models.whisper import WhisperRecognizer

    recognizer = WhisperRecognizer.load(
        settings.model,
        precision=settings.precision,
        device=settings.device,
        threads=settings.threads,
    )
    note = tr("whisper at {precision}", precision=recognizer.precision)
    return Loaded(recognizer, _segmenter(settings.vad), (note,))
