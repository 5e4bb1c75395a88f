"""SenseVoice on its fast path: features → encoder → greedy CTC → text, tags and times."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt

from yibu.errors import InvalidRequestError
from yibu.speech.checkpoints.config import read_config
from yibu.speech.checkpoints.pytorch import Weights
from yibu.speech.features import Normalizer
from yibu.speech.models import ctc, richtext
from yibu.speech.models.sanm_shape import EncoderShape
from yibu.speech.models.stacked import StackedRecognizer
from yibu.speech.models.vocabulary import Vocabulary
from yibu.speech.types import Features, RecognitionOptions, Recognized, Segment, Word

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


class SenseVoiceRecognizer(StackedRecognizer[npt.NDArray[np.int64]]):
    """Raises ``InvalidRequestError`` for a language that the model does not know."""

    languages = frozenset(_LANGUAGES)
    takes_hotwords = False

    def __init__(
        self, name: str, encoder: Encoder, normalizer: Normalizer, vocabulary: Vocabulary
    ) -> None:
        super().__init__(name, encoder.precision, normalizer)
        self._encoder = encoder
        self._vocabulary = vocabulary

    def _found(
        self, features: Sequence[Features], options: Sequence[RecognitionOptions]
    ) -> list[npt.NDArray[np.int64]]:
        return self._encoder.encode(
            features,
            [self._language(each) for each in options],
            [_WITH_ITN if each.use_itn else _WITHOUT_ITN for each in options],
        )

    def _language(self, options: RecognitionOptions) -> int:
        if options.language not in _LANGUAGES:
            raise InvalidRequestError(
                "language {language!r} is not known to {name}",
                language=options.language,
                name=self.name,
                known=", ".join(sorted(_LANGUAGES)),
                hint="One of {known}",
                param="language",
            )
        return _LANGUAGES[options.language]

    def _answer(
        self, segment: Segment, options: RecognitionOptions, found: npt.NDArray[np.int64]
    ) -> Recognized:
        tokens = [emission.token for emission in ctc.greedy(found)]
        raw = self._vocabulary.decode(tokens)
        words: tuple[Word, ...] = ()
        if options.words:
            words = ctc.words(
                ctc.greedy(found[_TAGS:]),
                self._vocabulary,
                origin=segment.start,
                duration=segment.duration,
            )
        return replace(richtext.recognized(segment, raw), words=words, tokens=tuple(tokens))
