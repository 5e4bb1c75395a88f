"""Paraformer: encoder → integrate-and-fire → decoder → characters, words and times.

FunASR's classes ``Paraformer``, ``BiCifParaformer`` and ``SeacoParaformer``. Unlike SenseVoice it writes
no punctuation: ``punctuation.py`` adds it. Times of the plain ``Paraformer`` are those of its peaks;
FunASR hands peaks and alphas to its function in the other order there, and gets times that follow
neither.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from yibu.speech.checkpoints.config import of_one_model, read_config
from yibu.speech.checkpoints.pytorch import Checkpoint, Weights, read_checkpoint
from yibu.speech.features import Normalizer
from yibu.speech.models import cif
from yibu.speech.models.compiled import Compiler
from yibu.speech.models.grouping import encoder_input, in_groups
from yibu.speech.models.hotwords import HotwordTokens
from yibu.speech.models.network import encoder_graph
from yibu.speech.models.paraformer_graph import (
    DecoderShape,
    PredictorShape,
    decoder_graph,
    predictor_graph,
    times_graph,
)
from yibu.speech.models.paraformer_text import join, text_of, words_of
from yibu.speech.models.sanm_shape import EncoderShape
from yibu.speech.models.stacked import StackedRecognizer
from yibu.speech.types import Features, RecognitionOptions, Recognized, Segment, Word

BLANK, START, END = 0, 1, 2
"""Tokens that are no text: ``blank_id``, ``sos`` and ``eos`` of FunASR's classes."""
LANGUAGES = frozenset({"auto", "zh", "en"})

Array = npt.NDArray[np.float32]
Hotwords = tuple[tuple[int, ...], ...]
"""The tokens of each."""


@dataclass(frozen=True, slots=True)
class Decoded:
    """What the network says of one segment."""

    tokens: tuple[int, ...]
    alphas: Array
    """That tell times; empty where none were asked for."""
    peaks: Array
    part_seconds: float
    """Of each alpha."""


class Network(Protocol):
    """Everything from features to tokens."""

    backend: str
    precision: str
    classes: int
    takes_hotwords: bool

    def decode(
        self, features: Sequence[Features], hotwords: Sequence[Hotwords], *, times: bool
    ) -> list[Decoded]:
        """One answer for each item of normalised stacked frames [T, inputs], in order."""
        ...


@dataclass(frozen=True, slots=True)
class Shapes:
    """A Paraformer's dimensions."""

    encoder: EncoderShape
    predictor: PredictorShape
    decoder: DecoderShape

    @classmethod
    def read(cls, config: dict[str, Any], weights: Weights, directory: Path) -> Shapes:
        classes, width = weights["decoder.output_layer.weight"].shape
        inputs = weights["encoder.encoders0.0.norm1.weight"].shape[0]
        return cls(
            EncoderShape.read(config, directory, inputs=inputs, width=width, classes=classes),
            PredictorShape.read(config, directory),
            DecoderShape.read(config, directory, width=width),
        )


class OpenVinoParaformer:
    """See ``Network``."""

    backend = "openvino"
    takes_hotwords = False

    def __init__(
        self,
        checkpoint: Checkpoint,
        shapes: Shapes,
        *,
        precision: str,
        threads: int,
        config: Mapping[str, Any],
        directory: Path,
    ) -> None:
        self.precision = precision
        self.classes = shapes.encoder.classes
        self._width = width = shapes.encoder.width
        self._predictor_shape = shape = shapes.predictor
        self._configure(config, shapes, directory)
        compiler = Compiler(checkpoint, precision=precision, threads=threads)
        self._encoder = compiler.compile(lambda b: encoder_graph(b, shapes.encoder, "paraformer"))
        # A token more or less changes all that follow: what counts them stays exact.
        self._predictor = compiler.compile(lambda b: predictor_graph(b, width, shape), exact=True)
        self._times = None
        if shape.upsampled > 1:
            self._times = compiler.compile(lambda b: times_graph(b, width, shape), exact=True)
        self._decoder = compiler.compile(
            lambda b: decoder_graph(b, shapes.decoder, output="decoder.output_layer")
        )
        self._prepare(compiler)
        self._warm_up(shapes.encoder.inputs)
        compiler.release()

    def _configure(self, config: Mapping[str, Any], shapes: Shapes, directory: Path) -> None:
        """What a subclass reads of its config.yaml."""

    def _prepare(self, compiler: Compiler) -> None:
        """What a subclass adds before the weights are given back."""

    def _warm_up(self, inputs: int) -> None:
        hidden = self.encode([np.zeros((60, inputs), np.float32)])[0]
        self._best(hidden, hidden[:8], ())
        self._upsampled(hidden, 8)

    @classmethod
    def load(cls, directory: Path, *, precision: str, threads: int) -> OpenVinoParaformer:
        """Build from config.yaml and model.pt; raises ``VerificationError`` where they do not
        belong together, ``UnsupportedError`` for another network."""
        checkpoint = read_checkpoint(directory / "model.pt")
        config = read_config(directory)
        with of_one_model(directory):
            shapes = Shapes.read(config, checkpoint.tensors, directory)
            return cls(
                checkpoint, shapes, precision=precision, threads=threads, config=config,
                directory=directory,
            )  # fmt: skip

    def decode(
        self, features: Sequence[Features], hotwords: Sequence[Hotwords], *, times: bool
    ) -> list[Decoded]:
        pairs = zip(self.encode(features), hotwords, strict=True)
        return [self._decode(hidden, words, times=times) for hidden, words in pairs]

    def encode(self, features: Sequence[Features]) -> list[Array]:
        """Hidden states [T, width] of each item."""
        return in_groups(self._encode, features)

    def _encode(self, features: Sequence[Features]) -> list[Array]:
        (hidden,) = self._encoder(*encoder_input(features, self._width))
        return [row[: len(own)].copy() for row, own in zip(hidden, features, strict=True)]

    def _decode(self, hidden: Array, hotwords: Hotwords, *, times: bool) -> Decoded:
        embedded, alphas = self.predict(hidden)
        count = len(embedded)
        part = cif.FRAME_SECONDS / self._predictor_shape.upsampled
        nothing = np.empty(0, np.float32)
        if not count:
            return Decoded((), nothing, nothing, part)
        best = self._best(hidden, embedded, hotwords)
        tokens = tuple(int(n) for n in best if n not in (BLANK, START, END))
        if not times:
            return Decoded(tokens, nothing, nothing, part)
        if self._times is not None:
            alphas = self._upsampled(hidden, count)
        return Decoded(tokens, alphas, cif.peaks(alphas), part)

    def predict(self, hidden: Array) -> tuple[Array, Array]:
        """Embeddings [N, width] of the tokens in ``hidden``, and the alphas, the tail's included."""
        shape = self._predictor_shape
        alphas = self._predictor(hidden[None])[0].copy()
        total = alphas.sum()
        if shape.tail > 0:
            alphas = np.append(alphas, np.float32(shape.tail))
            hidden = np.concatenate((hidden, np.zeros((1, self._width), np.float32)))
            total = np.floor(alphas.sum())
        fire = cif.fire_at_once if shape.kind == "CifPredictorV2" else cif.fire_step_by_step
        found = cif.embeddings(hidden, alphas, fire(alphas))
        embedded = np.zeros((round(float(total)), self._width), np.float32)
        embedded[: len(found)] = found[: len(embedded)]
        return embedded, alphas

    def _best(
        self,
        hidden: Array,
        embedded: Array,
        hotwords: Hotwords,  # noqa: ARG002 - a subclass's
    ) -> npt.NDArray[np.int64]:
        """The best class of each token."""
        best: npt.NDArray[np.int64] = self.scores(hidden, embedded)[1].argmax(axis=1)
        return best

    def scores(self, hidden: Array, embedded: Array) -> tuple[Array, Array]:
        """The decoder's states [N, width] and scores [N, classes]."""
        states, scores = self._decoder(hidden[None], embedded[None])
        return states[0], scores[0]

    def _upsampled(self, hidden: Array, count: int) -> Array:
        if self._times is None:
            return np.empty(0, np.float32)
        alphas = self._times(hidden[None])[0]
        scaled: Array = alphas * (np.float32(count) / alphas.sum())
        return scaled


class ParaformerRecognizer(StackedRecognizer[Decoded]):
    """Texts without punctuation."""

    languages = LANGUAGES

    def __init__(
        self,
        name: str,
        network: Network,
        normalizer: Normalizer,
        vocabulary: Sequence[str],
        hotwords: HotwordTokens,
    ) -> None:
        super().__init__(name, network.precision, normalizer)
        self._network = network
        self._vocabulary = vocabulary
        self._hotwords = hotwords
        self.takes_hotwords = network.takes_hotwords

    def _found(
        self, features: Sequence[Features], options: Sequence[RecognitionOptions]
    ) -> list[Decoded]:
        return self._network.decode(
            features,
            [tuple(map(self._hotwords.of, each.hotwords)) for each in options],
            times=any(each.words for each in options),
        )

    def _answer(self, segment: Segment, options: RecognitionOptions, found: Decoded) -> Recognized:
        tokens = [self._vocabulary[n] for n in found.tokens]
        times: Sequence[tuple[int, int]] = ()
        if options.words:
            times = cif.milliseconds(
                cif.token_times(found.alphas, found.peaks, len(tokens), found.part_seconds)
            )
        pieces = join(tokens, times)
        words = words_of(pieces)
        text = text_of(pieces)
        return Recognized(
            text=text,
            start=segment.start,
            end=segment.end,
            language=language_of(text),
            words=tuple(
                Word(
                    word.text,
                    segment.start + max(word.time[0] / 1000, 0.0),
                    segment.start + min(word.time[1] / 1000, segment.duration),
                )
                for word in words
                if word.time is not None
            ),
            raw=" ".join(word.text for word in words),
            tokens=found.tokens,
        )


def language_of(text: str) -> str | None:
    """``zh`` where Chinese is written, ``en`` where only letters are."""
    if not text:
        return None
    return "zh" if any("\u4e00" <= character <= "\u9fff" for character in text) else "en"
