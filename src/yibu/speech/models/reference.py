"""The reference path: FunASR's ``AutoModel`` with exactly the arguments of the usual script.

It is here to be compared with. ``generate`` changes the model's own state, so one worker owns
it; FunASR cuts each file itself, so the segmenter hands it whole files.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from yibu.errors import EngineStartError, UnsupportedError
from yibu.speech.models import richtext
from yibu.speech.types import (
    Endpointing,
    RecognitionOptions,
    Recognized,
    Samples,
    Segment,
    UtteranceDetector,
)

log = logging.getLogger(__name__)

LONGEST_SECONDS = 2 * 3600
"""FunASR holds a whole file in memory; a longer one is cut here."""


class ReferenceRecognizer:
    """See ``Recognizer`` in ``types.py``."""

    languages = frozenset({"auto", "zh", "en", "yue", "ja", "ko", "nospeech"})
    tasks = frozenset({"transcribe"})
    takes_hotwords = False
    tells_times = False
    precision = "fp32"

    def __init__(self, model_dir: Path, vad_dir: Path, *, device: str, threads: int) -> None:
        try:
            from funasr import AutoModel
        except ImportError as error:
            raise EngineStartError(
                "the reference path needs FunASR, and it cannot be imported: {error}",
                error=error,
                hint="Use the environment speech-torch, or set `path: fast`",
                cause="missing_package",
            ) from error
        self.name = model_dir.name
        self._model = AutoModel(
            model=str(model_dir),
            trust_remote_code=False,
            vad_model=str(vad_dir),
            vad_kwargs={"max_single_segment_time": 30000},
            ban_emo_unk=True,
            disable_update=True,
            disable_pbar=True,
            device=device,
            ncpu=threads,
        )

    def recognize(
        self, segments: Sequence[Segment], options: Sequence[RecognitionOptions]
    ) -> list[Recognized]:
        """One answer a segment, in order, one after the other."""
        pairs = zip(segments, options, strict=True)
        return [self._answer(segment, wanted) for segment, wanted in pairs]

    def _answer(self, segment: Segment, options: RecognitionOptions) -> Recognized:
        results: list[dict[str, Any]] = self._model.generate(
            input=segment.samples,
            cache={},
            language=options.language,
            use_itn=options.use_itn,
            batch_size_s=60,
            merge_vad=True,
            merge_length_s=15,
        )
        # FunASR leaves a file without speech out of its answer.
        raw = str(results[0]["text"]) if results else ""
        return richtext.recognized(segment, raw)


class WholeFile:
    """A segmenter that cuts nothing: FunASR has its own VAD."""

    name = "funasr"

    def session(self) -> WholeFileSession:
        return WholeFileSession()

    def utterances(self, endpointing: Endpointing) -> UtteranceDetector:  # noqa: ARG002
        raise UnsupportedError(
            "live speech is not served on the reference path, which takes whole files",
            hint="Leave `path: reference` out",
        )


class WholeFileSession:
    """See ``SegmenterSession``. Its memory grows with the file, up to ``LONGEST_SECONDS``."""

    def __init__(self) -> None:
        self._parts: list[Samples] = []
        self._start = 0
        self._held = 0

    def feed(self, samples: Samples) -> list[Segment]:
        self._parts.append(np.asarray(samples, dtype=np.float32))
        self._held += len(samples)
        return self.finish() if self._held >= LONGEST_SECONDS * 16_000 else []

    def finish(self) -> list[Segment]:
        if not self._held:
            return []
        segment = Segment(self._start / 16_000, np.concatenate(self._parts))
        self._start += self._held
        self._parts, self._held = [], 0
        return [segment]
