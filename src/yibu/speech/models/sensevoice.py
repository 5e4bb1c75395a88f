"""SenseVoice on its fast path: features → encoder → greedy CTC → text, tags and times."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt

from yibu.errors import InvalidRequestError
from yibu.messages import tr
from yibu.speech.checkpoints.config import read_config
from yibu.speech.checkpoints.pytorch import Weights
from yibu.speech.features import Normalizer, fbank, stack_frames
from yibu.speech.models import ctc, richtext
from yibu.speech.models.sanm_shape import EncoderShape
from yibu.speech.models.vocabulary import Vocabulary
from yibu.speech.types import Features, Options, Recognized, Segment, Word

STACK_WIDTH, STACK_STEP = 7, 6
EMOTION_UNKNOWN = 25009
"""The class that FunASR's ``ban_emo_unk`` bans: the tag <|EMO_UNKNOWN|>."""
_TAGS = 4
"""Outputs before the first frame: language, emotion, event, text norm."""
_LANGUAGES = {"auto": 0, "zh": 3, "en": 4, "yue": 7, "ja": 11, "ko": 12, "nospeech": 13}
"""Rows of the query embedding, as numbered in FunASR's model class."""
_WITH_ITN, _WITHOUT_ITN = 14, 15


def sensevoice_shape(directory: Path, weights: Weights) -> EncoderShape:
    """The network's dimensions, by ``config.yaml`` and the tensors of ``model.pt``."""
    classes, width = weights["ctc.ctc_lo.weight"].shape
    inputs = weights["embed.weight"].shape[1]
    return EncoderShape.read(
        read_config(directory), directory, inputs=inputs, width=width, classes=classes
    )


class Encoder(Protocol):
    """The network up to the best class of each frame."""

    backend: str
    precision: str
    input_size: int
    classes: int

    def encode(
        self,
        features: Sequence[Features],
        languages: Sequence[int],
        styles: Sequence[int],
    ) -> list[npt.NDArray[np.int64]]:
        """Best class of each output frame of each item: the four tags, then the frames.

        ``features`` are normalised stacked frames [T, input_size]; ``languages`` and
        ``styles`` are rows of the query embedding. No item's result depends on another.
        """
        ...


class SenseVoiceRecognizer:
    """See ``Recognizer`` in ``types.py``."""

    languages = frozenset(_LANGUAGES)
    tasks = frozenset({"transcribe"})
    takes_hotwords = False
    tells_times = True

    def __init__(
        self, name: str, encoder: Encoder, normalizer: Normalizer, vocabulary: Vocabulary
    ) -> None:
        self.name = name
        self.precision = encoder.precision
        self._encoder = encoder
        self._normalizer = normalizer
        self._vocabulary = vocabulary

    def recognize(
        self, segments: Sequence[Segment], options: Sequence[Options]
    ) -> list[Recognized]:
        """One answer a segment, in order. Raises ``InvalidRequestError`` for a language that
        the model does not know."""
        stacked = [self._stacked(segment) for segment in segments]
        audible = [n for n, features in enumerate(stacked) if len(features)]
        answers = [Recognized("", segment.start, segment.end) for segment in segments]
        if not audible:
            return answers
        best = self._encoder.encode(
            [stacked[n] for n in audible],
            [self._language(options[n]) for n in audible],
            [_WITH_ITN if options[n].use_itn else _WITHOUT_ITN for n in audible],
        )
        for n, classes in zip(audible, best, strict=True):
            answers[n] = self._answer(segments[n], options[n], classes)
        return answers

    def _stacked(self, segment: Segment) -> Features:
        features = segment.features if segment.features is not None else fbank(segment.samples)
        return self._normalizer(stack_frames(features, STACK_WIDTH, STACK_STEP))

    def _language(self, options: Options) -> int:
        if options.language not in _LANGUAGES:
            raise InvalidRequestError(
                tr(
                    "language {language!r} is not known to {name}",
                    language=options.language,
                    name=self.name,
                ),
                hint=tr("One of {known}", known=", ".join(sorted(_LANGUAGES))),
                param="language",
            )
        return _LANGUAGES[options.language]

    def _answer(
        self, segment: Segment, options: Options, classes: npt.NDArray[np.int64]
    ) -> Recognized:
        tokens = [emission.token for emission in ctc.greedy(classes)]
        raw = self._vocabulary.decode(tokens)
        words: tuple[Word, ...] = ()
        if options.words:
            words = ctc.words(
                ctc.greedy(classes[_TAGS:]),
                self._vocabulary,
                origin=segment.start,
                duration=segment.duration,
            )
        return replace(richtext.recognized(segment, raw), words=words, tokens=tuple(tokens))
