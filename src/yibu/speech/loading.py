"""Which recognizer and segmenter serve a model directory."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from yibu.errors import UnsupportedError
from yibu.speech.types import Recognizer, Segmenter


@dataclass(frozen=True, slots=True)
class Loaded:
    """A model ready to serve, with choices worth telling the user."""

    recognizer: Recognizer
    segmenter: Segmenter
    notes: tuple[str, ...] = ()


def load(
    model_dir: Path,
    *,
    vad_dir: Path | None,  # noqa: ARG001 - only SenseVoice names one
    precision: str,
    device: str,
    threads: int,
    path: str,  # noqa: ARG001 - only SenseVoice has two
) -> Loaded:
    """Load a model directory by its layout.

    Raises:
        UnsupportedError: the layout is not known.
    """
    from yibu.speech.models.whisper import WhisperRecognizer
    from yibu.speech.vad.silero import SileroVad

    if (model_dir / "model.bin").is_file():
        recognizer = WhisperRecognizer.load(
            model_dir, precision=precision, device=device, threads=threads
        )
        return Loaded(recognizer, SileroVad())
    raise UnsupportedError(f"{model_dir} is in no layout that the speech engine knows")
