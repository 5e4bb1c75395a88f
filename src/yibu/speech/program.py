"""``python -m yibu.speech``: a complete OpenAI-compatible audio server for one model."""

from __future__ import annotations

import argparse
import logging
import os
from collections.abc import Callable, Sequence
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from yibu import log as logs
from yibu.errors import EngineStartError, YibuError, told
from yibu.messages import tr
from yibu.speech import allocator
from yibu.speech.cores import physical_cores
from yibu.speech.settings import KEY_VARIABLE, MIB, EngineLimits, SpeechSettings

if TYPE_CHECKING:  # it imports numpy, which reads the environment that main() sets first
    from yibu.speech.loading import Loaded

Loader: TypeAlias = "Callable[[SpeechSettings], Loaded]"

log = logging.getLogger(__name__)

_QUIET_THREADS = {
    "OMP_WAIT_POLICY": "passive",
    "KMP_BLOCKTIME": "0",
    "OMP_DYNAMIC": "false",
    "OPENBLAS_NUM_THREADS": "1",
}
"""OpenMP threads sleep between two matrix products instead of spinning: on shared cores spinning
is ten times slower. numpy's products, in filter bank and VAD, stay on the decoder's own thread.
Read by the runtimes when they are first imported, hence set here."""


def main(arguments: Sequence[str] | None = None, load: Loader | None = None) -> int:
    """Parse the command line and serve the model that ``load`` (by default
    ``yibu.speech.loading.load``) makes of it. Returns the exit code."""
    parsed = _parser().parse_args(arguments)
    logs.configure(parsed.log_level.upper())
    for name, value in _QUIET_THREADS.items():
        os.environ.setdefault(name, value)
    allocator.keep_little()
    settings = _settings(parsed)
    try:
        return _server()(settings, lambda: (load or _load)(settings))
    except YibuError as error:
        log.error("%s", error)
        log.error("%s", told(error))
        return 1


def _server() -> Callable[[SpeechSettings, Callable[[], Loaded]], int]:
    try:
        from yibu.speech.http.server import serve
    except ModuleNotFoundError as error:
        raise EngineStartError(
            "This environment lacks the Python module {module}.",
            module=error.name,
            hint="Start the model with `yibu up`, which makes an environment that has it",
            cause="import_error",
        ) from error
    return serve


def _load(settings: SpeechSettings) -> Loaded:
    from yibu.speech.loading import load  # heavy: imported on the model's thread

    return load(settings)


def _settings(parsed: argparse.Namespace) -> SpeechSettings:
    given = vars(parsed)
    limits = {one.name: given.pop(one.name) for one in fields(EngineLimits) if one.name in given}
    del given["log_level"]
    given["served_name"] = parsed.served_name or parsed.model.absolute().name
    given["threads"] = parsed.threads or physical_cores()
    key = os.environ.get(KEY_VARIABLE) or None
    return SpeechSettings(**given, limits=EngineLimits(**limits), key=key)


def _parser() -> argparse.ArgumentParser:
    """Names of values are those of ``SpeechSettings`` and ``EngineLimits``."""
    parser = argparse.ArgumentParser(
        prog="python -m yibu.speech",
        description=tr("A complete OpenAI-compatible audio server for one model."),
        epilog=tr(
            "Clients must send the key in {variable}, where that is set.", variable=KEY_VARIABLE
        ),
    )
    parser.add_argument(
        "--model",
        type=Path,
        required=True,
        help=tr("directory: SenseVoice (FunASR, ONNX), Paraformer (FunASR), whisper (CTranslate2)"),
    )
    for flag, text in (
        ("--vad", tr("directory of FSMN-VAD (faster-whisper's Silero)")),
        ("--punctuation", tr("directory of CT-Transformer (Paraformer)")),
        ("--speakers", tr("directory of CAM++, to tell speakers apart")),
        ("--online", tr("directory of a streaming model: partial texts")),
    ):
        parser.add_argument(flag, type=Path, help=text)
    parser.add_argument(
        "--served-model-name",
        dest="served_name",
        metavar="NAME",
        help=tr("what clients ask for (the directory's name)"),
    )
    parser.add_argument(
        "--host", default="127.0.0.1", help=tr("address to listen on (%(default)s)")
    )
    parser.add_argument(
        "--port", type=_port, default=8000, help=tr("0 takes a free one (%(default)s)")
    )
    parser.add_argument(
        "--precision", default="auto", help=tr("auto, fp32, bf16 or int8 (%(default)s)")
    )
    parser.add_argument("--device", default="cpu", help=tr("cpu, cuda or cuda:N (%(default)s)"))
    parser.add_argument(
        "--threads", type=_positive(int), help=tr("of the model (the physical cores)")
    )
    parser.add_argument(
        "--path",
        choices=("fast", "reference"),
        default="fast",
        help=tr("reference runs FunASR's own AutoModel (%(default)s)"),
    )
    parser.add_argument(
        "--log-level",
        choices=("debug", "info", "warning"),
        default="info",
        help=tr("of the log, which is in English"),
    )
    _add_limits(parser)
    return parser


def _add_limits(parser: argparse.ArgumentParser) -> None:
    standard = EngineLimits()
    limits = parser.add_argument_group(tr("limits"))
    limits.add_argument(
        "--max-upload-mib",
        dest="upload_bytes",
        type=lambda text: int(_positive(float)(text) * MIB),
        default=str(standard.upload_bytes // MIB),
        metavar="N",
        help=f"{tr('of one upload')} (%(default)s)",
    )
    for flag, name, text in (
        ("--upload-timeout", "upload_idle_seconds", tr("seconds without a byte")),
        ("--max-audio-seconds", "audio_seconds", tr("of one file")),
        ("--max-decode-seconds", "decode_seconds", tr("CPU seconds to decode one file")),
        ("--max-queue-seconds", "queue_seconds", tr("of audio waiting, then 429")),
        ("--window-seconds", "window_seconds", tr("of audio decoded ahead, a request")),
        ("--max-batch-seconds", "batch_seconds", tr("of audio in one batch")),
        ("--batch-time", "batch_time", tr("seconds of computing a batch aims at")),
        ("--idle-timeout", "idle_seconds", tr("seconds without a message, live")),
        ("--stall-timeout", "stall_seconds", tr("seconds on a batch, then unhealthy")),
        ("--max-requests", "requests", tr("in flight, then 429")),
        ("--max-sessions", "sessions", tr("live sessions, then 429")),
    ):
        value = getattr(standard, name)
        limits.add_argument(
            flag,
            dest=name,
            type=_positive(type(value)),
            default=value,
            metavar="N",
            help=f"{text} (%(default)g)",
        )


def _positive(kind: type[int | float]):  # type: ignore[no-untyped-def]
    def parse(text: str) -> float:
        try:
            value = kind(text)
        except ValueError:
            raise argparse.ArgumentTypeError(tr("{text!r} is no number", text=text)) from None
        if not value > 0:
            raise argparse.ArgumentTypeError(tr("{text} is not above 0", text=text))
        return value

    return parse


def _port(text: str) -> int:
    if not (text.isdecimal() and int(text) < 65536):
        raise argparse.ArgumentTypeError(tr("{text!r} is no port: 0 to 65535", text=text))
    return int(text)
